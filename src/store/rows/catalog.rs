//! Rows that are small and handed out whole, as plain structs, and the parts that several of them have.

use conveyor_base::{ExecutionId, Fault, Timestamp};
use rkyv::{Archive, Deserialize, Serialize, rancor};

use super::Row;
use crate::envelope::Sealed;

/// A row that is handed out whole, as its own type.
pub(crate) trait Catalog: Row + Sized {
    fn from_archived(archived: &Self::Archived) -> Result<Self, rancor::Error>;

    fn read(row: Sealed<'_>) -> Result<Self, Fault> {
        Self::from_archived(row.access::<Self>()?).map_err(|e| row.damaged(&format!("a row cannot be read ({e})")))
    }
}

/// Makes rows of structs that derive all that it takes. `NAME = 2`: of that version, where it is not the first.
macro_rules! catalog {
    ($($name:ident $(= $version:literal)?),*) => {$(
        impl $crate::rows::Row for $name {
            $(const VERSION: u8 = $version;)?
        }
        impl $crate::rows::Catalog for $name {
            fn from_archived(archived: &Self::Archived) -> Result<Self, rkyv::rancor::Error> {
                rkyv::deserialize::<$name, rkyv::rancor::Error>(archived)
            }
        }
    )*};
}

pub(super) use catalog;

/// A key that people put on a machine or an activity, and its value.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

/// A [`Timestamp`] as rows hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Stamp(pub i64);

impl From<Timestamp> for Stamp {
    fn from(at: Timestamp) -> Stamp {
        Stamp(at.0)
    }
}

impl From<Stamp> for Timestamp {
    fn from(stamp: Stamp) -> Timestamp {
        Timestamp(stamp.0)
    }
}

/// An [`ExecutionId`] as rows hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Id(pub u128);

impl From<ExecutionId> for Id {
    fn from(id: ExecutionId) -> Id {
        Id(id.0)
    }
}

impl From<Id> for ExecutionId {
    fn from(id: Id) -> ExecutionId {
        ExecutionId(id.0)
    }
}
