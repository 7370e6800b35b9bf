//! Rows of landings: which files of a watched share have started their execution. Owned by the watches.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use crate::commit::Commit;
use crate::reader::Scans;
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(LandingRow);

/// A file that has started its execution.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct LandingRow {
    /// The digest of its size and time when it did: a file that was written anew has another.
    pub sight: u64,
    /// The name of the execution.
    pub execution: String,
}

impl Commit {
    pub fn put_landing(&mut self, share: &str, key: &str, row: &LandingRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Landings, &tables::texts(share, key), row);
        self
    }

    pub fn delete_landing(&mut self, share: &str, key: &str) -> &mut Commit {
        self.record.delete(Table::Landings, &tables::texts(share, key));
        self
    }
}

impl Scans {
    /// Landings of a share by the files' keys, going on after a key.
    pub fn landings(&self, share: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, LandingRow)>, Fault> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.under(Table::Landings, &tables::text(share), after, limit)
    }
}
