//! Rows of objects: what S3 keeps beside an object and a file cannot. Owned by the objects.

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use crate::commit::Commit;
use crate::reader::Reader;
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(ObjectRow);

/// What was put with an object besides its content.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ObjectRow {
    /// The entity tag of the file that was put: of another file the row says nothing.
    pub etag: String,
    /// In the order in which they are shown.
    pub fields: Vec<ObjectField>,
}

/// A header or the metadata of an object.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ObjectField {
    /// As S3's parameters spell it, such as `ContentType`.
    pub name: String,
    /// As it was given, as JSON.
    pub json: String,
}

impl Commit {
    pub fn put_object(&mut self, share: &str, key: &str, row: &ObjectRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Objects, &tables::texts(share, key), row);
        self
    }

    pub fn delete_object(&mut self, share: &str, key: &str) -> &mut Commit {
        self.record.delete(Table::Objects, &tables::texts(share, key));
        self
    }
}

impl Reader {
    pub fn object(&self, share: &str, key: &str) -> Result<Option<ObjectRow>, Fault> {
        self.one(Table::Objects, &tables::texts(share, key))
    }
}
