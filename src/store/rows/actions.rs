//! Rows of what people did to an execution: who started, stopped or redrove it, and who ended a Task of it. Owned by the
//! runtime; stored with what was done, gone with the execution.

use std::collections::BTreeMap;
use std::ops::Bound;

use conveyor_base::{ExecutionId, Fault};
use rkyv::{Archive, Deserialize, Serialize};

use super::Stamp;
use crate::commit::Commit;
use crate::overlay::Direction;
use crate::reader::Scans;
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(ActionRow);

/// So many of the first and of the newest of an execution are read: whoever ends its Tasks by tokens may have done so very
/// often.
const ACTIONS_MAX: usize = 500;

#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ActionRow {
    pub at: Stamp,
    /// The name of the caller's credential.
    pub who: String,
    /// The caller's role, as the API spells it.
    pub role: String,
    /// Which of the two APIs it came in through: `rest` or `aws`.
    pub api: String,
    /// The operation, such as `StopExecution`.
    pub what: String,
}

impl Commit {
    /// `number` tells actions of one millisecond apart.
    pub fn put_action(&mut self, id: ExecutionId, number: u32, row: &ActionRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Actions, &tables::action(id, row.at.into(), number), row);
        self
    }
}

impl Scans {
    /// What was done to an execution, the oldest first; of very much the first and the newest.
    pub fn actions(&self, id: ExecutionId) -> Result<Vec<ActionRow>, Fault> {
        let first = id.to_bytes();
        let end = tables::after_prefix(&first);
        let range = (Bound::Included(first.as_slice()), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let some = |direction| {
            let key = |key: &[u8]| Some(key.to_vec());
            self.collect::<Vec<u8>, ActionRow>(Table::Actions, range, direction, ACTIONS_MAX, key)
        };
        let mut all: BTreeMap<Vec<u8>, ActionRow> = some(Direction::Forward)?.into_iter().collect();
        if all.len() == ACTIONS_MAX {
            all.extend(some(Direction::Backward)?);
        }
        Ok(all.into_values().collect())
    }
}
