//! Rows of what people define and what the box keeps books on: machines, aliases, files, items, messages.
//!
//! These rows are small and are handed out as plain structs.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use super::{MapRunRow, Row};
use crate::base::{ExecutionId, Fault, Timestamp};
use crate::store::tables::Table;

/// A row that is handed out whole, as its own type.
pub(in crate::store) trait Catalog: Row + Sized {
    fn from_archived(archived: &Self::Archived) -> Result<Self, rancor::Error>;

    fn read(table: Table, bytes: &[u8]) -> Result<Self, Fault> {
        Self::from_archived(super::access::<Self>(table, bytes)?)
            .map_err(|e| super::damaged(table, &format!("a row cannot be read ({e})")))
    }
}

macro_rules! catalog {
    ($($name:ident),*) => {$(
        impl Row for $name {}
        impl Catalog for $name {
            fn from_archived(archived: &Self::Archived) -> Result<Self, rancor::Error> {
                rkyv::deserialize::<$name, rancor::Error>(archived)
            }
        }
    )*};
}

catalog!(
    MachineRow,
    RevisionRow,
    VersionRow,
    AliasRow,
    ActivityRow,
    FileRow,
    ItemRow,
    OutboxRow,
    EventRow,
    MessageRow,
    DocumentRow,
    MapRunRow
);

/// Whether executions are durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum MachineKind {
    Standard,
    Express,
}

/// A state machine: what its revisions share.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct MachineRow {
    pub name: String,
    pub kind: MachineKind,
    /// The revision that new executions run.
    pub revision: u64,
    /// The newest published version; 0 for none.
    pub version: u64,
    /// DELETING: takes no new executions, and goes when its last one has ended.
    pub deleting: bool,
    pub created_at: Stamp,
    pub updated_at: Stamp,
    pub tags: Vec<Tag>,
}

/// A key that people put on a machine or an activity, and its value.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

/// One definition of a machine, immutable.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct RevisionRow {
    /// The definition exactly as it came in.
    pub definition: String,
    pub role_arn: String,
    /// Logging, tracing and encryption settings as JSON: the doors read them, the store does not.
    pub settings: String,
    /// What AWS calls `revisionId`; the first revision of a machine has none.
    pub revision_id: Option<String>,
    pub created_at: Stamp,
}

/// A published version: a number that points at a revision for ever.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct VersionRow {
    pub revision: u64,
    pub description: String,
    pub created_at: Stamp,
}

/// A name for one version, or two by weight.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct AliasRow {
    pub description: String,
    pub routes: Vec<Route>,
    pub created_at: Stamp,
    pub updated_at: Stamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Route {
    pub version: u64,
    pub weight_percent: u8,
}

#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ActivityRow {
    pub name: String,
    pub created_at: Stamp,
    /// The encryption settings as JSON, as machines have them.
    pub settings: String,
    pub tags: Vec<Tag>,
}

/// What was done with a file's content.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct FileRow {
    /// Where it was when it was claimed.
    pub uri: String,
    pub size_bytes: u64,
    /// The execution that processed it.
    pub execution: Id,
    pub claimed_at: Stamp,
    /// Where its results are, as JSON; empty while unknown.
    pub result: String,
}

/// An item of a table of the user's.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ItemRow {
    pub json: String,
}

/// A notification that has not been delivered yet.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Where to: the name of a configured target, or a topic's ARN.
    pub target: String,
    /// What, as JSON.
    pub body: String,
    pub created_at: Stamp,
    pub attempts: u32,
    pub next_at: Stamp,
    /// Why the newest attempt failed; empty before the first.
    pub last_error: String,
}

impl OutboxRow {
    /// One that is to be delivered at once.
    pub fn new(target: &str, body: String, now: Timestamp) -> OutboxRow {
        let (target, attempts, last_error) = (target.to_owned(), 0, String::new());
        OutboxRow { target, body, created_at: now.into(), attempts, next_at: now.into(), last_error }
    }
}

/// An event on its way to one target of a rule.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct EventRow {
    /// The whole event, as JSON.
    pub event: String,
    /// The rules that led to the event, so that none goes round in a circle.
    pub lineage: String,
    pub created_at: Stamp,
    pub attempts: u32,
    pub next_at: Stamp,
    /// Why the newest attempt failed; empty before the first.
    pub last_error: String,
}

/// A message of a queue.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct MessageRow {
    pub id: String,
    pub body: String,
    /// The sender's attributes as JSON; empty for none.
    pub attributes: String,
    /// Of a FIFO queue: messages of one group are received one after the other.
    pub group: String,
    /// Of a FIFO queue: what tells a second copy from another message.
    pub deduplication: String,
    pub sent_at: Stamp,
    /// Not received before this time: delayed, or in somebody's hands.
    pub visible_at: Stamp,
    pub first_received_at: Stamp,
    pub received: u32,
    /// What the newest receipt handle must repeat.
    pub receipt: u64,
    /// Deleted, and kept only so that a second copy is known.
    pub deleted: bool,
}

/// JSON whose shape its owner knows: schedules, alarms.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub(in crate::store) struct DocumentRow {
    pub json: String,
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
