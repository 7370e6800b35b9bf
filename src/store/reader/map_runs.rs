//! Runs of distributed Maps: their rows, the items they read, and their children.

use std::ops::{Bound, ControlFlow};

use conveyor_base::{Attempt, ExecutionId, Fault};
use conveyor_interpreter::Status;

use super::{Reader, Scans, each};
use crate::damages::unless_damaged;
use crate::envelope::Sealed;
use crate::overlay::Direction;
use crate::rows::{Catalog, HeaderRow, MapRunRow, RunCounts, STATUSES, damaged};
use crate::tables::{self, Table};

/// Rows that are taken out of one snapshot.
const CHILDREN_PER_READ: usize = 1_000;

/// A child of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunChild {
    pub id: ExecutionId,
    /// The how manieth of its run.
    pub number: u32,
    pub items: u32,
    /// The redrive of the run in which it was last begun is at least this one.
    pub stopped_at: Option<conveyor_base::Timestamp>,
}

impl Reader {
    pub fn map_run(&self, parent: ExecutionId, attempt: Attempt) -> Result<Option<MapRunRow>, Fault> {
        let key = tables::attempt(parent, attempt);
        self.engine().get(Table::MapRuns, &key, MapRunRow::read)
    }

    /// The execution and the attempt that a run belongs to, by the run's number.
    pub fn map_run_named(&self, run: u128) -> Result<Option<(ExecutionId, Attempt)>, Fault> {
        self.engine().get(Table::MapRunNames, &run.to_be_bytes(), |key| {
            let (id, attempt) = tables::split_id_number(key.plain()?)
                .ok_or_else(|| damaged(Table::MapRunNames, "a row is no attempt"))?;
            Ok((id, Attempt(attempt)))
        })
    }

    /// The lines of a page of items.
    pub fn item_page(&self, parent: ExecutionId, attempt: Attempt, page: u32) -> Result<Option<String>, Fault> {
        self.engine().get(Table::ItemPages, &tables::item_page(parent, attempt, page), |lines| {
            String::from_utf8(lines.plain()?.to_vec()).map_err(|_| damaged(Table::ItemPages, "a page is no text"))
        })
    }

    /// How many children of a run are in which status.
    pub fn run_counts(&self, list: &str) -> RunCounts {
        // Out of one moment, or an item that ends meanwhile counts twice or not at all.
        let all = self.engine().counts();
        let count = |list: &str, status| {
            let count = all.get(tables::machine_status(list, status).as_slice()).copied();
            count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
        };
        let more = tables::more_items(list);
        let mut counts = RunCounts::default();
        for (at, status) in STATUSES.into_iter().take(counts.executions.len()).enumerate() {
            counts.executions[at] = count(list, status);
            counts.items[at] = counts.executions[at] + count(&more, status);
        }
        counts
    }

    /// A distributed Map's child: its name is its id.
    pub(super) fn child_by_name(&self, label: &str, name: &str) -> Result<Option<ExecutionId>, Fault> {
        let Ok(id) = name.parse::<ExecutionId>() else { return Ok(None) };
        let found = self.engine().get(Table::Executions, &id.to_bytes(), |row| {
            let child = row.access::<HeaderRow>()?.child();
            Ok(child.is_some_and(|child| *child.label == *label))
        })?;
        Ok((found == Some(true)).then_some(id))
    }
}

impl Scans {
    /// The runs of an execution, oldest first.
    pub fn map_runs_of(&self, parent: ExecutionId) -> Result<Vec<(Attempt, MapRunRow)>, Fault> {
        let mut runs = Vec::new();
        each(&self.engine().snapshot(), Table::MapRuns, &parent.to_bytes(), |key, row| {
            let (_, attempt) =
                tables::split_id_number(key).ok_or_else(|| damaged(Table::MapRuns, "a key is no attempt"))?;
            runs.push((Attempt(attempt), MapRunRow::read(row)?));
            Ok(())
        })?;
        Ok(runs)
    }

    /// Every run whose row is not damaged, nor behind a page that is, by the execution and attempt it belongs to.
    pub fn map_runs(&self) -> Result<Vec<(ExecutionId, Attempt, MapRunRow)>, Fault> {
        let mut runs = Vec::new();
        let walked = each(&self.engine().snapshot(), Table::MapRuns, &[], |key, row| {
            let row = MapRunRow::read(row).inspect_err(|fault| self.engine().damages.note(fault));
            if let (Some((id, attempt)), Some(row)) = (tables::split_id_number(key), unless_damaged(row)?) {
                runs.push((id, Attempt(attempt), row));
            }
            Ok(())
        });
        unless_damaged(walked)?;
        Ok(runs)
    }

    /// The children of a run that are in that status, in no order.
    pub fn run_children(&self, list: &str, status: Status) -> Result<Vec<RunChild>, Fault> {
        let prefix = tables::machine_status(list, status);
        let end = tables::after_prefix(&prefix);
        let mut children: Vec<RunChild> = Vec::new();
        let mut from = prefix.clone();
        loop {
            // A run may have very many, and must not keep old rows for all that time.
            let snapshot = self.engine().snapshot();
            let mut ids = Vec::new();
            let range = (Bound::Excluded(from.as_slice()), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
            snapshot.scan(Table::ByMachine, range, Direction::Forward, |key, _| {
                let id = key.get(prefix.len()..).and_then(tables::split_id);
                ids.push(id.ok_or_else(|| damaged(Table::ByMachine, "a key holds no id"))?.0);
                let full = ids.len() >= CHILDREN_PER_READ;
                Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            for id in &ids {
                let look = |row: Sealed<'_>| {
                    let row = row.access::<HeaderRow>()?;
                    Ok(row.child().map(|child| (child.number, child.items, row.stopped_at())))
                };
                let found = snapshot.get(Table::Executions, &id.to_bytes(), look)?.flatten();
                if let Some((number, items, stopped_at)) = found {
                    children.push(RunChild { id: *id, number, items, stopped_at });
                }
            }
            match ids.last() {
                Some(last) if ids.len() >= CHILDREN_PER_READ => {
                    from.clone_from(&prefix);
                    from.extend_from_slice(&last.to_bytes());
                }
                _ => return Ok(children),
            }
        }
    }
}
