//! Rows of schedules: how far each has come. What a schedule does the configuration says. Owned by the schedules.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::Stamp;
use crate::commit::Commit;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(ScheduleRow);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ScheduleRow {
    /// The newest due time that was dealt with; of a new schedule, when it began.
    pub last: Stamp,
}

impl Commit {
    pub fn put_schedule(&mut self, name: &str, row: &ScheduleRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Schedules, &tables::text(name), row);
        self
    }
}

impl Reader {
    pub fn schedule(&self, name: &str) -> Result<Option<ScheduleRow>, Fault> {
        self.one(Table::Schedules, &tables::text(name))
    }
}

impl Scans {
    pub fn schedules(&self) -> Result<Vec<(String, ScheduleRow)>, Fault> {
        self.under(Table::Schedules, &[], Bound::Unbounded, usize::MAX)
    }
}
