//! `check` reads everything and says what does not fit; `upgrade` brings older files to this release's form.
//!
//! Neither runs beside an open store: both take its lock. `check` changes nothing but what recovery itself does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use super::disk::{Backends, Disk, STATE, state_fault};
use super::open::{FORMAT_VERSION, Files, format_of, lock, open_files, recover};
use super::overlay::{Direction, Overlay};
use super::rows::{self, Catalog, HeaderRow, HistoryRow, TaskRow, access};
use super::tables::{self, Table};
use crate::base::{EventId, ExecutionId, Fault};
use crate::interpreter::{Doing, Status};

/// Most problems that a report lists; it counts all.
const LISTED_MAX: usize = 100;

/// What `check` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows by table.
    pub rows: BTreeMap<&'static str, u64>,
    /// The first problems, each a sentence.
    pub problems: Vec<String>,
    pub problem_count: u64,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn problem(&mut self, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < LISTED_MAX {
            self.problems.push(what.into());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (table, rows) in &self.rows {
            writeln!(f, "{table:<12} {rows:>10} rows")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        match (self.problem_count, self.problems.len() as u64) {
            (0, _) => write!(f, "no problems"),
            (all, listed) if all > listed => write!(f, "{all} problems, the first {listed} of them above"),
            (all, _) => write!(f, "{all} problems"),
        }
    }
}

/// Verifies a store that is not open: redb's own structures, every row, indexes and timers against the executions.
pub fn check(backends: &Arc<dyn Backends>) -> Result<Report, Fault> {
    let _lock = lock(&**backends)?;
    must_be_there(&**backends)?;
    let Files { mut state, journal: _, tail } = open_files(backends, 0)?;
    let mut report = Report::default();
    if !state.check_integrity().map_err(state_fault)? {
        report.problem("redb repaired the state file while checking it");
    }
    let (overlay, _) = recover(&state, tail)?;
    let mut expected = Expected::default();
    executions(&overlay, &mut report, &mut expected)?;
    branches(&overlay, &mut report, &mut expected)?;
    for table in [Table::ByMachine, Table::ByName, Table::Timers, Table::Outstanding, Table::Deliveries] {
        compare(&overlay, table, &mut expected, &mut report)?;
    }
    for (key, count) in &overlay.counts {
        let real = expected.counts.remove(key).unwrap_or(0);
        if real != *count {
            report.problem(format!("a count of executions says {count} where there are {real}"));
        }
    }
    if !expected.counts.is_empty() {
        report.problem("a count of executions is missing");
    }
    others(&overlay, &mut report)?;
    Ok(report)
}

/// Opening a file makes it, and checking must not make a store.
fn must_be_there(backends: &dyn Backends) -> Result<(), Fault> {
    let place = backends.place();
    if !backends.exists(STATE).map_err(|e| Fault::fatal(format!("{place}/{STATE} cannot be found"), e))? {
        return Err(Fault::fatal_plain(format!("there is no store in {place}: {STATE} is missing")));
    }
    Ok(())
}

/// What the executions' own rows say the other tables must hold.
#[derive(Default)]
struct Expected {
    keys: BTreeMap<Table, BTreeSet<Vec<u8>>>,
    counts: BTreeMap<Vec<u8>, i64>,
    running: BTreeSet<ExecutionId>,
}

impl Expected {
    fn key(&mut self, table: Table, key: Vec<u8>) {
        self.keys.entry(table).or_default().insert(key);
    }
}

fn all(
    overlay: &Overlay,
    table: Table,
    report: &mut Report,
    mut look: impl FnMut(&[u8], &[u8], &mut Report) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rows = 0;
    overlay.scan(table, (Bound::Unbounded, Bound::Unbounded), Direction::Forward, |key, row| {
        rows += 1;
        // A damaged row is a finding, not the end of the search.
        if let Err(fault) = look(key, row, report) {
            report.problem(format!("{fault} (key {})", hex(key)));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    report.rows.insert(table.name(), rows);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn not_a_key(table: Table) -> Fault {
    rows::damaged(table, "a key is not what was written")
}

fn executions(overlay: &Overlay, report: &mut Report, expected: &mut Expected) -> Result<(), Fault> {
    all(overlay, Table::Executions, report, |key, row, report| {
        let (id, _) = tables::split_id(key).ok_or_else(|| not_a_key(Table::Executions))?;
        let row = access::<HeaderRow>(Table::Executions, row)?;
        let (machine, status) = (row.machine.as_str(), row.status()?);
        expected.key(Table::ByMachine, tables::by_machine(machine, status, id));
        *expected.counts.entry(tables::machine_status(machine, status)).or_default() += 1;
        if status == Status::Running {
            expected.running.insert(id);
        }
        if let Some(timer) = &row.timeout_timer.as_ref().filter(|_| status == Status::Running) {
            let (number, due) = timer.get();
            expected.key(Table::Timers, tables::timer(due, id, number));
        }
        let named = overlay.get(Table::ByName, &tables::texts(machine, &row.name), |id| Ok(id.to_vec()))?;
        if named.is_none() {
            report.problem(format!("execution {id} cannot be found by its name '{}'", row.name));
        }
        if overlay.get(Table::Payloads, &tables::payload(id, tables::Payload::Input), |_| Ok(()))?.is_none() {
            report.problem(format!("execution {id} has no input"));
        }
        history(overlay, id, EventId(row.last_event.to_native()), report)
    })
}

/// Events must be numbered without a gap, up to the newest one that the header knows.
fn history(overlay: &Overlay, id: ExecutionId, last: EventId, report: &mut Report) -> Result<(), Fault> {
    let (first, end) = (tables::history(id, EventId(0)), tables::history(id, EventId(u64::MAX)));
    let range = (Bound::Included(first.as_slice()), Bound::Included(end.as_slice()));
    let archived = overlay.get(Table::Archived, &id.to_bytes(), |_| Ok(()))?.is_some();
    let (mut next, mut gap, mut rows) = (1, None, 0);
    overlay.scan(Table::History, range, Direction::Forward, |_, row| {
        for event in rows::events_from(access::<HistoryRow>(Table::History, row)?)? {
            if archived && rows == 0 {
                next = event.id.0;
            }
            rows += 1;
            if event.id.0 != next {
                gap.get_or_insert(next);
            }
            next = event.id.0 + 1;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if let Some(gap) = gap {
        report.problem(format!("the history of execution {id} lacks event {gap}"));
    } else if next != last.0 + 1 && !(archived && rows == 0) {
        report.problem(format!("the history of execution {id} ends at {} and its header says {last}", next - 1));
    }
    Ok(())
}

fn branches(overlay: &Overlay, report: &mut Report, expected: &mut Expected) -> Result<(), Fault> {
    all(overlay, Table::Branches, report, |key, row, report| {
        let (id, number) = tables::split_id_number(key).ok_or_else(|| not_a_key(Table::Branches))?;
        let branch = rows::branch_from(access::<rows::BranchRow>(Table::Branches, row)?)?;
        let waits = branch.doing.attempt().is_some() || branch.doing.timers().next().is_some();
        if waits && !expected.running.contains(&id) {
            report.problem(format!("branch {number} of execution {id} waits, and the execution is not running"));
        }
        if overlay.get(Table::Executions, &id.to_bytes(), |_| Ok(()))?.is_none() {
            report.problem(format!("branch {number} belongs to execution {id}, which does not exist"));
        }
        for (timer, due) in branch.doing.timers() {
            expected.key(Table::Timers, tables::timer(due, id, timer));
        }
        if let Doing::Map { .. } = branch.doing
            && overlay.get(Table::MapItems, key, |_| Ok(()))?.is_none()
        {
            report.problem(format!("branch {number} of execution {id} is in a Map whose items are gone"));
        }
        if let Some(attempt) = super::commit::issued(&branch.doing) {
            expected.key(Table::Outstanding, tables::attempt(id, attempt));
        }
        Ok(())
    })
}

/// Both ways: each row must be expected, each expected row be there.
fn compare(overlay: &Overlay, table: Table, expected: &mut Expected, report: &mut Report) -> Result<(), Fault> {
    let mut wanted = expected.keys.remove(&table).unwrap_or_default();
    let name = table.name();
    all(overlay, table, report, |key, row, report| {
        let known = match table {
            // The newest execution of a name owns it: what is checked is that it leads somewhere.
            Table::ByName => overlay.get(Table::Executions, row, |_| Ok(()))?.is_some(),
            Table::Deliveries => overlay.get(Table::Executions, key, |_| Ok(()))?.is_some(),
            _ => wanted.remove(key),
        };
        if table == Table::Outstanding {
            access::<TaskRow>(table, row)?;
        }
        if !known {
            report.problem(format!("table '{name}' has a row that belongs to nothing (key {})", hex(key)));
        }
        Ok(())
    })?;
    for key in wanted {
        report.problem(format!("table '{name}' lacks a row (key {})", hex(&key)));
    }
    Ok(())
}

/// Tables that stand alone: every row must be readable.
fn others(overlay: &Overlay, report: &mut Report) -> Result<(), Fault> {
    fn readable<T: Catalog>(overlay: &Overlay, table: Table, report: &mut Report) -> Result<(), Fault> {
        all(overlay, table, report, |_, row, _| T::read(table, row).map(drop))
    }
    readable::<rows::MachineRow>(overlay, Table::Machines, report)?;
    readable::<rows::RevisionRow>(overlay, Table::Revisions, report)?;
    readable::<rows::VersionRow>(overlay, Table::Versions, report)?;
    readable::<rows::AliasRow>(overlay, Table::Aliases, report)?;
    readable::<rows::ActivityRow>(overlay, Table::Activities, report)?;
    readable::<rows::FileRow>(overlay, Table::Files, report)?;
    readable::<rows::ItemRow>(overlay, Table::Items, report)?;
    readable::<rows::OutboxRow>(overlay, Table::Outbox, report)?;
    readable::<rows::DocumentRow>(overlay, Table::Schedules, report)?;
    readable::<rows::DocumentRow>(overlay, Table::Alarms, report)?;
    all(overlay, Table::History, report, |_, row, _| access::<HistoryRow>(Table::History, row).map(drop))?;
    all(overlay, Table::MapItems, report, |_, row, _| {
        rows::map_items_from(access::<rows::MapRow>(Table::MapItems, row)?).map(drop)
    })?;
    all(overlay, Table::Archived, report, |_, _, _| Ok(()))?;
    all(overlay, Table::Settings, report, |_, _, _| Ok(()))
}

/// What `upgrade` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub from: u32,
    pub to: u32,
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "the files have format {}, which is this release's: nothing to do", self.to)
        } else {
            write!(f, "upgraded the files from format {} to format {}", self.from, self.to)
        }
    }
}

/// Brings the files to this release's format. There has been one format so far, so there is nothing to migrate yet.
pub fn upgrade(backends: &Arc<dyn Backends>) -> Result<Upgrade, Fault> {
    let _lock = lock(&**backends)?;
    must_be_there(&**backends)?;
    let place = backends.place();
    let file = Disk(backends.open(STATE).map_err(|e| Fault::fatal(format!("{place}/{STATE} cannot be opened"), e))?);
    let state = redb::Builder::new().create_with_backend(file).map_err(state_fault)?;
    match format_of(&state)? {
        FORMAT_VERSION => Ok(Upgrade { from: FORMAT_VERSION, to: FORMAT_VERSION }),
        newer if newer > FORMAT_VERSION => Err(Fault::fatal_plain(format!(
            "{place}/{STATE} has format {newer}, which a newer release wrote; this release knows formats up to \
             {FORMAT_VERSION}: start the newer release, or restore a backup"
        ))),
        unknown => Err(Fault::fatal_plain(format!(
            "{place}/{STATE} says that it has format {unknown}, which never existed; restore a backup"
        ))),
    }
}
