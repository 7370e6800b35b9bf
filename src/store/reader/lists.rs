//! Lists of executions by the time of their start, in either direction, page by page.
//!
//! One index (machine, status, id) serves every filter: lists that leave one of the two open merge the index's
//! parts by id. The counts say which parts there are.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use conveyor_base::{EventId, ExecutionId, Fault, Timestamp};
use conveyor_interpreter::{MachineRef, MapChild, Parent, Status};

use super::{Reader, Scans, each};
use crate::envelope::Sealed;
use crate::overlay::{Direction, Snapshot};
use crate::rows::{ArchivedHeaderRow, HeaderRow};
use crate::rows::{STATUSES, damaged, status_code};
use crate::tables::{self, Table};

/// Which executions. Empty: all but the children of distributed Maps, which their runs' lists show:
/// [`run_list`](conveyor_interpreter::run_list) in the place of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecutionFilter {
    pub machine: Option<String>,
    pub status: Option<Status>,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

/// An execution as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutionSummary {
    pub id: ExecutionId,
    pub name: String,
    pub machine: MachineRef,
    pub status: Status,
    pub started_at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    pub redrive_count: u32,
    pub redriven_at: Option<Timestamp>,
    pub last_event: EventId,
    /// The error name that it ended with.
    pub error: Option<String>,
    pub parent: Option<Parent>,
    /// Which run of a distributed Map it belongs to.
    pub child: Option<MapChild>,
}

impl ExecutionSummary {
    /// What stands for the state machine in its ARN: `machine`, or `machine/label` of a distributed Map's child.
    pub fn arn_machine(&self) -> Cow<'_, str> {
        match &self.child {
            None => Cow::Borrowed(&self.machine.name),
            Some(child) => Cow::Owned(format!("{}/{}", self.machine.name, child.label)),
        }
    }
}

impl Reader {
    /// An execution as lists have it: one row, whether the rest of it is archived or not.
    pub fn summary(&self, id: ExecutionId) -> Result<Option<ExecutionSummary>, Fault> {
        let look = |row: Sealed<'_>| summary(id, row.access::<HeaderRow>()?);
        self.engine().get(Table::Executions, &id.to_bytes(), look)
    }
}

impl Scans {
    /// Every execution that runs, children of Map runs as well.
    pub fn running(&self) -> Result<Vec<ExecutionId>, Fault> {
        let (snapshot, mut found) = (self.engine().snapshot(), Vec::new());
        let is_running = |count: &&Arc<[u8]>| count.last() == Some(&status_code(Status::Running));
        for prefix in snapshot.counts.keys().filter(is_running) {
            each(&snapshot, Table::ByMachine, prefix, |key, _| {
                let id = key.get(prefix.len()..).and_then(tables::split_id);
                let (id, _) = id.ok_or_else(|| damaged(Table::ByMachine, "a key holds no id"))?;
                found.push(id);
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Executions, newest first, from where the page token of an earlier call says.
    pub fn executions(
        &self,
        filter: &ExecutionFilter,
        token: Option<&str>,
        limit: usize,
    ) -> Result<Page<ExecutionSummary>, Fault> {
        self.executions_from(filter, token, limit, Direction::Backward)
    }

    /// The same in either direction: `Backward` is newest first.
    pub fn executions_from(
        &self,
        filter: &ExecutionFilter,
        token: Option<&str>,
        limit: usize,
        direction: Direction,
    ) -> Result<Page<ExecutionSummary>, Fault> {
        let behind = match token.map(str::parse::<ExecutionId>) {
            None => None,
            Some(Ok(id)) => Some(id),
            Some(Err(_)) => return Ok(Page { items: Vec::new(), next: None }),
        };
        let snapshot = self.engine().snapshot();
        let mut items = Vec::new();
        for id in first_of(&snapshot, filter, behind, limit + 1, direction)? {
            let look = |row: Sealed<'_>| summary(id, row.access::<HeaderRow>()?);
            let found = snapshot.get(Table::Executions, &id.to_bytes(), look)?;
            items.push(found.ok_or_else(|| damaged(Table::ByMachine, &format!("{id} is listed but not stored")))?);
        }
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(Page { items, next })
    }
}

/// The first ids in that direction that the filter lets through.
fn first_of(
    snapshot: &Snapshot,
    filter: &ExecutionFilter,
    behind: Option<ExecutionId>,
    limit: usize,
    direction: Direction,
) -> Result<Vec<ExecutionId>, Fault> {
    let newest_first = direction == Direction::Backward;
    let mut found = BTreeSet::new();
    for prefix in parts(snapshot, filter) {
        let (mut low, mut high) = (prefix.clone(), prefix.clone());
        low.extend_from_slice(&if newest_first { [0; 16] } else { behind.map_or([0; 16], ExecutionId::to_bytes) });
        high.extend_from_slice(&if newest_first {
            behind.map_or([0xff; 16], ExecutionId::to_bytes)
        } else {
            [0xff; 16]
        });
        // An id that was a page's last is not the next one's first.
        let low = if newest_first { Bound::Included(low.as_slice()) } else { Bound::Excluded(low.as_slice()) };
        snapshot.scan(Table::ByMachine, (low, Bound::Excluded(high.as_slice())), direction, |key, _| {
            let id = key.get(prefix.len()..).and_then(tables::split_id);
            let (id, _) = id.ok_or_else(|| damaged(Table::ByMachine, "a key holds no id"))?;
            // Once a page is full, only ids before its last can still enter it.
            if found.len() == limit {
                let last = if newest_first { found.first() } else { found.last() };
                if last.is_some_and(|last| if newest_first { id < *last } else { id > *last }) {
                    return Ok(ControlFlow::Break(()));
                }
                if newest_first {
                    found.pop_first()
                } else {
                    found.pop_last()
                };
            }
            found.insert(id);
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(if newest_first { found.into_iter().rev().collect() } else { found.into_iter().collect() })
}

/// The parts of the index that the filter covers.
fn parts(snapshot: &Snapshot, filter: &ExecutionFilter) -> Vec<Vec<u8>> {
    match (&filter.machine, filter.status) {
        (Some(machine), Some(status)) => vec![tables::machine_status(machine, status)],
        (Some(machine), None) => STATUSES.iter().map(|status| tables::machine_status(machine, *status)).collect(),
        (None, status) => {
            let code = status.map(status_code);
            let wanted = |key: &&Arc<[u8]>| {
                let of_machine = tables::is_of_machine(key);
                of_machine && (code.is_none() || key.last() == code.as_ref())
            };
            snapshot.counts.keys().filter(wanted).map(|key| key.to_vec()).collect()
        }
    }
}

fn summary(id: ExecutionId, row: &ArchivedHeaderRow) -> Result<ExecutionSummary, Fault> {
    Ok(ExecutionSummary {
        id,
        name: row.name.to_string(),
        machine: row.machine(),
        status: row.status()?,
        started_at: row.started_at(),
        stopped_at: row.stopped_at(),
        redrive_count: row.redrive_count(),
        redriven_at: row.redriven_at(),
        last_event: EventId(row.last_event.to_native()),
        error: row.error().map(str::to_owned),
        parent: row.parent(),
        child: row.child(),
    })
}
