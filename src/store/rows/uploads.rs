//! Rows of uploads that are under way. Owned by the uploads.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use crate::commit::Commit;
use crate::overlay::Direction;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(UploadRow);

/// A file that comes in piece by piece. How far it has come the length of its part says.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct UploadRow {
    /// The share that it goes to.
    pub share: String,
    /// Its path below the share's root, once it is whole.
    pub key: String,
    /// The name, beside the file that it becomes, of what came so far. Earlier releases wrote its whole path.
    pub part: String,
    /// How long it will be, in bytes.
    pub bytes: u64,
    /// Who began it.
    pub by: String,
}

impl Commit {
    pub fn put_upload(&mut self, id: &str, row: &UploadRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Uploads, &tables::text(id), row);
        self
    }

    pub fn delete_upload(&mut self, id: &str) -> &mut Commit {
        self.record.delete(Table::Uploads, &tables::text(id));
        self
    }
}

impl Reader {
    pub fn upload(&self, id: &str) -> Result<Option<UploadRow>, Fault> {
        self.one(Table::Uploads, &tables::text(id))
    }
}

impl Scans {
    /// All uploads that are under way, by their ids.
    pub fn uploads(&self) -> Result<Vec<(String, UploadRow)>, Fault> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let split = |key: &[u8]| tables::take_text(key).map(|(id, _)| id);
        self.collect(Table::Uploads, all, Direction::Forward, usize::MAX, split)
    }
}
