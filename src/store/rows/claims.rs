//! Rows of claims: which execution processed which content. Owned by `conveyor:claim`.

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Id, Stamp};
use crate::commit::Commit;
use crate::reader::Reader;
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(ClaimRow);

/// What was done with a file's content.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ClaimRow {
    /// Where it was when it was claimed.
    pub uri: String,
    pub size_bytes: u64,
    /// The execution that processed it.
    pub execution: Id,
    pub claimed_at: Stamp,
    /// Where its results are, as JSON; empty while unknown.
    pub result: String,
}

impl Commit {
    /// What was done with a content. `hash` is its name, such as the hexadecimal BLAKE3.
    pub fn put_claim(&mut self, hash: &str, row: &ClaimRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Files, &tables::text(hash), row);
        self
    }

    pub fn delete_claim(&mut self, hash: &str) -> &mut Commit {
        self.record.delete(Table::Files, &tables::text(hash));
        self
    }
}

impl Reader {
    /// What was done with a content before.
    pub fn claim(&self, hash: &str) -> Result<Option<ClaimRow>, Fault> {
        self.one(Table::Files, &tables::text(hash))
    }
}
