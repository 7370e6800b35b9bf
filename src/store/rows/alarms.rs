//! Rows of alarms: which are raised, why, and their histories. Owned by the alarms.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::Stamp;
use crate::commit::Commit;
use crate::reader::Scans;
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(AlarmRow);

/// An alarm that was raised at least once.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct AlarmRow {
    pub raised: bool,
    /// Why it is raised, or was last.
    pub reason: String,
    /// Since when it is raised, or is not.
    pub since: Stamp,
    /// Newest first.
    pub history: Vec<AlarmChangeRow>,
}

/// It was raised or cleared.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct AlarmChangeRow {
    pub at: Stamp,
    pub raised: bool,
    pub reason: String,
}

impl Commit {
    pub fn put_alarm(&mut self, name: &str, row: &AlarmRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Alarms, &tables::text(name), row);
        self
    }
}

impl Scans {
    /// All alarms that were ever raised, by name.
    pub fn alarms(&self) -> Result<Vec<(String, AlarmRow)>, Fault> {
        self.under(Table::Alarms, &[], Bound::Unbounded, usize::MAX)
    }
}
