//! Which executions are whole: of one that is not nothing is kept, since part of it would pass for all.

use std::collections::{BTreeMap, BTreeSet};

use conveyor_base::{Attempt, BranchId, EventId, ExecutionId, Fault, TimerId, Timestamp};
use conveyor_interpreter::{Doing, Status};

use super::super::archive::{day_of, file_name};
use super::super::commit::{issued, submitted};
use super::super::damages::is_damaged;
use super::super::envelope::Sealed;
use super::super::retention::day_from;
use super::super::rows::{self, BranchRow, HeaderRow, HistoryRow};
use super::super::tables::{self, Payload, Table};

/// Tables whose keys begin with an execution.
pub(super) const OF_EXECUTIONS: [Table; 14] = [
    Table::Executions,
    Table::Payloads,
    Table::Branches,
    Table::MapItems,
    Table::MapPages,
    Table::History,
    Table::Outstanding,
    Table::Deliveries,
    Table::Archived,
    Table::MapRuns,
    Table::ItemPages,
    Table::RemoteJobs,
    Table::Approvals,
    Table::Actions,
];
/// What only those need that may still go on.
const OF_UNFINISHED: [Table; 8] = [
    Table::Branches,
    Table::MapItems,
    Table::MapPages,
    Table::Outstanding,
    Table::MapRuns,
    Table::ItemPages,
    Table::RemoteJobs,
    Table::Approvals,
];

/// What the rows say of an execution.
#[derive(Default)]
struct Known {
    header: Option<About>,
    payloads: [bool; 2],
    events: u64,
    gap: bool,
    branches: Vec<(BranchId, Waits)>,
    map_items: BTreeSet<u32>,
    map_pages: BTreeSet<(u32, u32)>,
    outstanding: BTreeSet<u32>,
    archived: Option<u32>,
}

pub(super) struct About {
    pub list: String,
    pub name: String,
    pub status: Status,
    pub is_child: bool,
    pub items: u32,
    pub timeout: Option<(TimerId, Timestamp)>,
    day: Option<u32>,
    last_event: u64,
    keeps_history: bool,
    /// It has ended, and never goes on from there.
    is_over: bool,
}

/// What a branch waits for.
pub(super) struct Waits {
    pub timers: Vec<(TimerId, Timestamp)>,
    pub submitted: Option<Attempt>,
    issued: Option<Attempt>,
    map: Option<u32>,
}

impl Known {
    /// What it had under way is not whole, and never goes on.
    fn failed_by_damage(&self) -> bool {
        self.header.as_ref().is_some_and(|about| about.is_over && about.status == Status::Failed)
    }
}

/// Executions, as the rows that could be read tell of them.
#[derive(Default)]
pub(super) struct Executions {
    known: BTreeMap<ExecutionId, Known>,
    /// Holes, by the executions before and behind them.
    holes: Vec<(Table, ExecutionId, ExecutionId)>,
    /// What lists and names still lead to.
    mentioned: BTreeMap<ExecutionId, String>,
}

impl Executions {
    /// A row of a list, or a name, that leads to an execution.
    pub fn mention(&mut self, table: Table, key: &[u8], row: Sealed<'_>) {
        let Some((list, rest)) = tables::take_text(key) else { return };
        let found = match table {
            Table::ByMachine => rest.get(1..).and_then(tables::split_id).map(|(id, _)| (id, format!(" (of '{list}')"))),
            Table::ByName => tables::take_text(rest).and_then(|(name, _)| {
                let (id, _) = tables::split_id(row.plain().ok()?)?;
                Some((id, format!(" ('{name}' of '{list}')")))
            }),
            _ => None,
        };
        // The name comes later and says more.
        self.mentioned.extend(found);
    }

    /// # Errors
    /// The row is not one of this store's.
    pub fn see(&mut self, table: Table, key: &[u8], row: Sealed<'_>) -> Result<(), Fault> {
        let Some((id, rest)) = tables::split_id(key).filter(|_| OF_EXECUTIONS.contains(&table)) else { return Ok(()) };
        let known = self.known.entry(id).or_default();
        let number = |at: usize| rest.get(at..at + 4).map_or(0, |n| u32::from_be_bytes([n[0], n[1], n[2], n[3]]));
        match table {
            Table::Executions => {
                let row = row.access::<HeaderRow>()?;
                known.header = Some(About {
                    list: row.list().into_owned(),
                    name: row.name.to_string(),
                    status: row.status()?,
                    is_child: row.is_child(),
                    items: row.child().map_or(1, |child| child.items),
                    timeout: row.timeout_timer(),
                    day: row.stopped_at().map(day_of),
                    last_event: row.last_event.to_native(),
                    keeps_history: row.keeps_history(),
                    is_over: row.succeeded() || is_damaged(id, row.error(), row.cause()),
                });
            }
            Table::Payloads => {
                row.plain()?;
                known.payloads[usize::from(rest == [Payload::Output as u8])] = true;
            }
            Table::History => {
                for event in rows::events_from(row.access::<HistoryRow>()?)? {
                    known.gap |= event.id != EventId(known.events + 1);
                    known.events = event.id.0;
                }
            }
            Table::Branches => {
                let branch = rows::branch_from(row.access::<BranchRow>()?)?;
                let map = if let Doing::Map { length, .. } = branch.doing { Some(length) } else { None };
                let waits = Waits {
                    timers: branch.doing.timers().collect(),
                    submitted: submitted(&branch.doing),
                    issued: issued(&branch.doing),
                    map,
                };
                known.branches.push((BranchId(number(0)), waits));
            }
            Table::MapItems => drop(known.map_items.insert(number(0))),
            Table::MapPages => drop(known.map_pages.insert((number(0), number(4)))),
            Table::Outstanding => drop(known.outstanding.insert(number(0))),
            Table::Archived => known.archived = Some(day_from(row)?),
            _ => {}
        }
        Ok(())
    }

    /// Rows are missing between these keys.
    pub fn hole(&mut self, table: Table, after: Option<&[u8]>, before: Option<&[u8]>) {
        // An execution is whole without what was written of its people.
        if OF_EXECUTIONS.contains(&table) && table != Table::Actions {
            let id = |key: Option<&[u8]>| key.and_then(tables::split_id).map(|(id, _)| id);
            let (after, before) = (id(after).unwrap_or(ExecutionId(0)), id(before).unwrap_or(ExecutionId(u128::MAX)));
            self.holes.push((table, after, before));
        }
    }

    /// Why the execution is not whole. `archives`: what the files of the days have.
    fn lacks(&self, id: ExecutionId, known: &Known, archives: &BTreeMap<u32, BTreeSet<ExecutionId>>) -> Option<String> {
        let Some(about) = &known.header else { return Some("what it is and how it is".to_owned()) };
        let in_archive = |day: Option<u32>| day.filter(|day| archives.get(day).is_some_and(|ids| ids.contains(&id)));
        if let Some(day) = known.archived {
            return in_archive(Some(day)).is_none().then(|| "what its archive had".to_owned());
        }
        if !known.payloads[0] && in_archive(about.day).is_some() {
            return None;
        }
        if !known.payloads[0] || known.payloads[1] != (about.status == Status::Succeeded) {
            return Some("its input or output".to_owned());
        }
        if about.keeps_history && (known.gap || known.events != about.last_event) {
            return Some("a part of its history".to_owned());
        }
        let near = |(table, after, before): &&(Table, ExecutionId, ExecutionId)| {
            OF_UNFINISHED.contains(table) && (*after..=*before).contains(&id)
        };
        if about.is_over {
            return None;
        }
        if let Some((table, ..)) = self.holes.iter().find(near) {
            return Some(format!("perhaps a part of what the table '{}' had of it", table.name()));
        }
        known.branches.iter().find_map(|(number, waits)| {
            let task = waits.issued.is_some_and(|attempt| !known.outstanding.contains(&attempt.0));
            let items = waits.map.is_some_and(|length| {
                let pages = 0..rows::pages_of(length);
                !known.map_items.contains(&number.0)
                    || pages.into_iter().any(|page| !known.map_pages.contains(&(number.0, page)))
            });
            (task || items).then(|| "the work that it had under way".to_owned())
        })
    }

    /// Takes out those that are not whole: each with what it lacks.
    pub fn take_lost(&mut self, archives: &BTreeMap<u32, BTreeSet<ExecutionId>>) -> BTreeMap<ExecutionId, String> {
        let mut lost = BTreeMap::new();
        for (id, known) in &self.known {
            if let Some(what) = self.lacks(*id, known, archives) {
                let who = match &known.header {
                    Some(about) => format!(" ('{}' of '{}', {})", about.name, about.list, about.status.name()),
                    None => self.mentioned.get(id).cloned().unwrap_or_default(),
                };
                lost.insert(*id, format!("execution {id}{who} is lost: the damage took {what}"));
            }
        }
        if self.holes.iter().any(|(table, ..)| *table == Table::Executions) {
            for (day, id) in archives.iter().flat_map(|(day, ids)| ids.iter().map(move |id| (day, id))) {
                if !self.known.contains_key(id) {
                    let name = file_name(*day);
                    let what = format!("execution {id} is lost, but for what {name} has of it, which nothing leads to");
                    lost.insert(*id, what);
                }
            }
        }
        for (id, who) in self.mentioned.iter().filter(|(id, _)| !self.known.contains_key(id)) {
            lost.insert(*id, format!("execution {id}{who} is lost: the damage took all of it"));
        }
        self.known.retain(|id, _| !lost.contains_key(id));
        lost
    }

    /// Those that are whole, with the branches that wait, and the day of the archive that has what is not in the rows.
    pub fn each(&self) -> impl Iterator<Item = (ExecutionId, &About, &[(BranchId, Waits)], Option<u32>)> {
        self.known.iter().filter_map(|(id, known)| {
            let about = known.header.as_ref()?;
            let archived = known.archived.or(about.day.filter(|_| !known.payloads[0]));
            let branches = if known.failed_by_damage() { &[] } else { known.branches.as_slice() };
            Some((*id, about, branches, archived))
        })
    }

    /// Whether the execution's rows in that table are kept.
    pub fn keeps(&self, table: Table, id: ExecutionId) -> bool {
        let known = self.known.get(&id);
        let is_record = !OF_UNFINISHED.contains(&table) || table == Table::MapRuns;
        known.is_some_and(|known| is_record || !known.failed_by_damage())
    }
}
