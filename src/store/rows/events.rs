//! Rows of events that have not reached every target of their rules. Owned by the event dispatcher.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::Stamp;
use crate::commit::Commit;
use crate::overlay::Direction;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(EventRow);

/// An event, and the target of a rule that it has not reached.
type EventKey = (String, String);

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

impl Commit {
    /// An event that has not reached one target of a rule. The same event and target are one row.
    pub fn put_event(&mut self, event: &str, target: &str, row: &EventRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Events, &tables::texts(event, target), row);
        self
    }

    pub fn drop_event(&mut self, event: &str, target: &str) -> &mut Commit {
        self.record.delete(Table::Events, &tables::texts(event, target));
        self
    }
}

impl Reader {
    pub fn event(&self, event: &str, target: &str) -> Result<Option<EventRow>, Fault> {
        self.one(Table::Events, &tables::texts(event, target))
    }
}

impl Scans {
    /// Events that have not reached a target of a rule, by event and target, going on after one.
    pub fn events(&self, after: Option<&EventKey>, limit: usize) -> Result<Vec<(EventKey, EventRow)>, Fault> {
        let after = after.map(|(event, target)| tables::texts(event, target));
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.collect(Table::Events, (start, Bound::Unbounded), Direction::Forward, limit, |key| {
            let (event, rest) = tables::take_text(key)?;
            Some((event, tables::take_text(rest)?.0))
        })
    }
}
