//! `check` reads everything and says what does not fit: first every row's envelope, then what the rows say.
//!
//! It does not run beside an open store, whose lock it takes, and changes nothing but what recovery itself does.

mod unread;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use conveyor_base::escape::hex;
use conveyor_base::{BranchId, EventId, ExecutionId, Fault};
use conveyor_interpreter::{Doing, HistoryEvent, Status};

use super::archive::{Archives, day_of, file_name};
use super::disk::{Backends, state_fault};
use super::envelope::Sealed;
use super::open::{FORMAT, Files, lock, must_be_there, open_files, recover};
use super::overlay::{Direction, Snapshot};
use super::retention::archived_day;
use super::rows::{self, ArchivedHeaderRow, Catalog, HeaderRow, HistoryRow, TaskRow};
use super::tables::{self, Payload, Table};
use unread::name_what_is_damaged;

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

/// Verifies a store that is not open: redb's own structures, every row, every index against what it leads to both
/// ways, timers and tasks against the branches that wait for them, and the archives.
pub fn check(backends: &Arc<dyn Backends>) -> Result<Report, Fault> {
    let _lock = lock(&**backends)?;
    must_be_there(&**backends)?;
    check_locked(backends)
}

/// The same for who has the lock.
pub(super) fn check_locked(backends: &Arc<dyn Backends>) -> Result<Report, Fault> {
    let Files { mut state, journal: _, tail } = open_files(backends, 0)?;
    let mut report = Report::default();
    let archives = Archives::new(backends.clone(), Arc::default());
    archive_files(&archives, &mut report)?;
    match state.database.check_integrity().map_err(state_fault) {
        Ok(true) => {}
        Ok(false) => report.problem("redb repaired the state file while checking it"),
        Err(fault @ Fault::Damaged { .. }) => {
            drop(state);
            name_what_is_damaged(backends, &fault, &mut report);
            return Ok(report);
        }
        Err(fault) => return Err(fault),
    }
    let snapshot = recover(&state, tail, &Arc::default())?.0.snapshot();
    let mut check = Check { snapshot, archives, report, expected: Expected::default() };
    check.envelopes()?;
    check.executions()?;
    check.branches()?;
    check.belongings()?;
    check.names()?;
    check.children()?;
    for table in [Table::ByMachine, Table::Timers, Table::Outstanding, Table::Submitted, Table::Archived] {
        check.compare(table)?;
    }
    check.counts();
    check.definitions()?;
    check.others()?;
    Ok(check.report)
}

/// A damaged file is a finding about one day, not the end of the search.
fn archive_files(archives: &Archives, report: &mut Report) -> Result<(), Fault> {
    for day in archives.days()? {
        match archives.check_integrity(day) {
            Ok(true) => {}
            Ok(false) => report.problem(format!("redb repaired the archive {} while checking it", file_name(day))),
            Err(fault) => {
                report.problem(conveyor_base::fault::chain(&fault));
                continue;
            }
        }
        match archives.verify(day) {
            Ok(damaged) => damaged.into_iter().for_each(|id| {
                let file = file_name(day);
                report.problem(format!("{file}: what it holds of execution {id} is not what was written"));
            }),
            Err(fault) => report.problem(conveyor_base::fault::chain(&fault)),
        }
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
    snapshot: &Snapshot,
    table: Table,
    report: &mut Report,
    mut look: impl FnMut(&[u8], Sealed<'_>, &mut Report) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rows = 0;
    snapshot.scan(table, (Bound::Unbounded, Bound::Unbounded), Direction::Forward, |key, row| {
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

fn not_a_key(table: Table) -> Fault {
    rows::damaged(table, "a key is not what was written")
}

/// Whether the rows of what a Map works on are there.
fn has_items(snapshot: &Snapshot, id: ExecutionId, branch: BranchId, length: u32) -> Result<bool, Fault> {
    for page in 0..rows::pages_of(length) {
        if !is_there(snapshot, Table::MapPages, &tables::map_page(id, branch, page))? {
            return Ok(false);
        }
    }
    is_there(snapshot, Table::MapItems, &tables::branch(id, branch))
}

/// A row by which a branch that waits is found must be there, and lead to it.
fn waiter(
    snapshot: &Snapshot,
    table: Table,
    key: Vec<u8>,
    branch: BranchId,
    report: &mut Report,
    expected: &mut Expected,
) -> Result<(), Fault> {
    let leads = snapshot.get(table, &key, |value| Ok(tables::waiter_from(value.plain()?) == Some(branch)))?;
    if leads == Some(false) {
        report.problem(format!("table '{}' leads to another branch than {branch} (key {})", table.name(), hex(&key)));
    }
    expected.key(table, key);
    Ok(())
}

fn is_there(snapshot: &Snapshot, table: Table, key: &[u8]) -> Result<bool, Fault> {
    Ok(snapshot.get(table, key, |_| Ok(()))?.is_some())
}

struct Check {
    snapshot: Snapshot,
    archives: Archives,
    report: Report,
    expected: Expected,
}

impl Check {
    /// Every row of every table is what was written under its key.
    fn envelopes(&mut self) -> Result<(), Fault> {
        let Check { snapshot, report, .. } = self;
        for &table in Table::ALL {
            all(snapshot, table, report, |key, row, _| if key == FORMAT { Ok(()) } else { row.verify() })?;
        }
        Ok(())
    }

    fn executions(&mut self) -> Result<(), Fault> {
        let Check { snapshot, archives, report, expected } = self;
        all(snapshot, Table::Executions, report, |key, row, report| {
            let (id, _) = tables::split_id(key).ok_or_else(|| not_a_key(Table::Executions))?;
            let row = row.access::<HeaderRow>()?;
            let (machine, status) = (row.machine.as_str(), row.status()?);
            let list = row.list();
            expected.key(Table::ByMachine, tables::by_machine(&list, status, id));
            *expected.counts.entry(tables::machine_status(&list, status)).or_default() += 1;
            if let Some(more) = row.child().map(|child| child.items).filter(|items| *items > 1) {
                let key = tables::machine_status(&tables::more_items(&list), status);
                *expected.counts.entry(key).or_default() += i64::from(more - 1);
            }
            if status == Status::Running {
                expected.running.insert(id);
                if let Some((number, due)) = row.timeout_timer() {
                    expected.key(Table::Timers, tables::timer(due, id, number));
                }
            }
            if row.stopped_at().is_some() == (status == Status::Running) {
                let has = if row.stopped_at().is_some() { "an end" } else { "no end" };
                report.problem(format!("execution {id} is {} and has {has}", status.name()));
            }
            if !is_there(snapshot, Table::Revisions, &tables::text_number(machine, row.revision.to_native()))? {
                report.problem(format!("execution {id} runs revision {} of '{machine}', which is gone", row.revision));
            }
            let named = snapshot.get(Table::ByName, &tables::texts(machine, &row.name), |of| Ok(of.plain()? == key))?;
            if named != Some(true) && !row.is_child() {
                report.problem(format!("execution {id} cannot be found by its name '{}'", row.name));
            }
            match archived_day(snapshot, id)? {
                Some(day) => {
                    expected.key(Table::Archived, key.to_vec());
                    archived(archives, id, day, row, report)
                }
                None => live(snapshot, id, row, report),
            }
        })
    }

    fn branches(&mut self) -> Result<(), Fault> {
        let Check { snapshot, report, expected, .. } = self;
        all(snapshot, Table::Branches, report, |key, row, report| {
            let (id, number) = tables::split_id_number(key).ok_or_else(|| not_a_key(Table::Branches))?;
            let branch = rows::branch_from(row.access::<rows::BranchRow>()?)?;
            let waits = branch.doing.attempt().is_some() || branch.doing.timers().next().is_some();
            if waits && !expected.running.contains(&id) {
                report.problem(format!("branch {number} of execution {id} waits, and the execution is not running"));
            }
            let number = BranchId(number);
            for (timer, due) in branch.doing.timers() {
                waiter(snapshot, Table::Timers, tables::timer(due, id, timer), number, report, expected)?;
            }
            if let Some(attempt) = super::commit::submitted(&branch.doing) {
                waiter(snapshot, Table::Submitted, tables::attempt(id, attempt), number, report, expected)?;
            }
            if let Doing::Map { length, .. } = branch.doing
                && !has_items(snapshot, id, number, length)?
            {
                report.problem(format!("branch {number} of execution {id} is in a Map whose items are gone"));
            }
            if let Some(attempt) = super::commit::issued(&branch.doing) {
                expected.key(Table::Outstanding, tables::attempt(id, attempt));
            }
            Ok(())
        })
    }

    /// Rows whose keys begin with an execution: it must be there, and hold such rows at all.
    fn belongings(&mut self) -> Result<(), Fault> {
        let Check { snapshot, report, .. } = self;
        for table in [Table::Payloads, Table::Branches, Table::MapItems, Table::MapPages, Table::History] {
            let mut last: Option<(ExecutionId, bool)> = None;
            all(snapshot, table, report, |key, row, report| {
                let (id, rest) = tables::split_id(key).ok_or_else(|| not_a_key(table))?;
                match table {
                    Table::MapItems | Table::MapPages => {
                        if table == Table::MapItems {
                            rows::map_input_from(row.plain()?)?;
                        } else {
                            rows::map_page_from(row.access::<rows::MapPageRow>()?)?;
                        }
                        let branch = key.get(..20).ok_or_else(|| not_a_key(table))?;
                        if !is_there(snapshot, Table::Branches, branch)? {
                            report.problem(format!("execution {id} has items of a Map that no branch is in"));
                        }
                    }
                    Table::Payloads if rest.len() != 1 || std::str::from_utf8(row.plain()?).is_err() => {
                        return Err(not_a_key(table));
                    }
                    _ => {}
                }
                if last.is_none_or(|(known, _)| known != id) {
                    let lives =
                        is_there(snapshot, Table::Executions, &id.to_bytes())? && archived_day(snapshot, id)?.is_none();
                    if !lives {
                        let name = table.name();
                        report.problem(format!("table '{name}' has rows of execution {id}, which is archived or gone"));
                    }
                    last = Some((id, lives));
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A name leads to the execution that bears it.
    fn names(&mut self) -> Result<(), Fault> {
        let Check { snapshot, report, .. } = self;
        all(snapshot, Table::ByName, report, |key, row, report| {
            let (id, _) =
                tables::split_id(row.plain()?).ok_or_else(|| rows::damaged(Table::ByName, "a row is no id"))?;
            let borne = snapshot.get(Table::Executions, &id.to_bytes(), |row| {
                let row = row.access::<HeaderRow>()?;
                Ok(tables::texts(&row.machine, &row.name) == key)
            })?;
            if borne != Some(true) {
                report.problem(format!("a name leads to execution {id}, which does not bear it (key {})", hex(key)));
            }
            Ok(())
        })
    }

    /// From its start until its end was told, a child is found by its parent's attempt; what ended and was not told
    /// is a row.
    fn children(&mut self) -> Result<(), Fault> {
        let Check { snapshot, report, .. } = self;
        all(snapshot, Table::Children, report, |key, row, report| {
            let (parent, attempt) = tables::split_id_number(key).ok_or_else(|| not_a_key(Table::Children))?;
            let (id, shape) = rows::child_from(row.plain()?)?;
            let known = snapshot.get(Table::Executions, &id.to_bytes(), |row| {
                let row = row.access::<HeaderRow>()?;
                let of = row
                    .parent()
                    .is_some_and(|of| of.execution == parent && of.attempt.0 == attempt && of.shape == shape);
                Ok((of, row.status()? == Status::Running))
            })?;
            let told = !is_there(snapshot, Table::Deliveries, &id.to_bytes())?;
            match known {
                None => report.problem(format!("execution {parent} waits for child {id}, which does not exist")),
                Some((false, _)) => report.problem(format!("execution {parent} is not the parent of its child {id}")),
                Some((true, false)) if told => {
                    report.problem(format!("execution {parent} still waits for child {id}, whose end was told"));
                }
                Some(_) => {}
            }
            Ok(())
        })?;
        all(snapshot, Table::Deliveries, report, |key, _, report| {
            let (id, _) = tables::split_id(key).ok_or_else(|| not_a_key(Table::Deliveries))?;
            let ended = snapshot.get(Table::Executions, key, |row| {
                let row = row.access::<HeaderRow>()?;
                Ok(row.parent().is_some() && row.stopped_at.is_some())
            })?;
            if ended != Some(true) {
                report.problem(format!("the end of execution {id} is to be told, and it has none or no parent"));
            }
            Ok(())
        })?;
        all(snapshot, Table::Executions, report, |key, row, report| {
            let row = row.access::<HeaderRow>()?;
            // A redriven child works on for itself.
            let Some(parent) = row.parent().filter(|_| row.redrive_count() == 0) else { return Ok(()) };
            let waited_for = row.status()? == Status::Running || is_there(snapshot, Table::Deliveries, key)?;
            let link = tables::attempt(parent.execution, parent.attempt);
            let child = snapshot.get(Table::Children, &link, |row| Ok(row.plain()?.starts_with(key)))?;
            if waited_for && child != Some(true) {
                let id = hex(key);
                report.problem(format!("child {id} cannot be found from its parent {}", parent.execution));
            }
            Ok(())
        })
    }

    /// Both ways: each row must be expected, each expected row be there.
    fn compare(&mut self, table: Table) -> Result<(), Fault> {
        let Check { snapshot, report, expected, .. } = self;
        let mut wanted = expected.keys.remove(&table).unwrap_or_default();
        let name = table.name();
        all(snapshot, table, report, |key, row, report| {
            if table == Table::Outstanding {
                row.access::<TaskRow>()?;
            }
            if !wanted.remove(key) {
                report.problem(format!("table '{name}' has a row that belongs to nothing (key {})", hex(key)));
            }
            Ok(())
        })?;
        for key in wanted {
            report.problem(format!("table '{name}' lacks a row (key {})", hex(&key)));
        }
        Ok(())
    }

    fn counts(&mut self) {
        for (key, count) in &self.snapshot.counts {
            let real = self.expected.counts.remove(&**key).unwrap_or(0);
            if real != *count {
                self.report.problem(format!("a count of executions says {count} where there are {real}"));
            }
        }
        if !self.expected.counts.is_empty() {
            self.report.problem("a count of executions is missing");
        }
        self.report.rows.insert(Table::Counts.name(), self.snapshot.counts.len() as u64);
    }

    /// Machines and versions lead to revisions, aliases to versions.
    fn definitions(&mut self) -> Result<(), Fault> {
        let Check { snapshot, report, .. } = self;
        all(snapshot, Table::Machines, report, |_, row, report| {
            let row = rows::MachineRow::read(row)?;
            if !is_there(snapshot, Table::Revisions, &tables::text_number(&row.name, row.revision))? {
                report.problem(format!("revision {} of state machine '{}' is gone", row.revision, row.name));
            }
            Ok(())
        })?;
        all(snapshot, Table::Versions, report, |key, row, report| {
            let row = rows::VersionRow::read(row)?;
            let (machine, _) = tables::take_text(key).ok_or_else(|| not_a_key(Table::Versions))?;
            if !is_there(snapshot, Table::Revisions, &tables::text_number(&machine, row.revision))? {
                report.problem(format!("a version of '{machine}' leads to revision {}, which is gone", row.revision));
            }
            Ok(())
        })?;
        all(snapshot, Table::Aliases, report, |key, row, report| {
            let row = rows::AliasRow::read(row)?;
            let (machine, _) = tables::take_text(key).ok_or_else(|| not_a_key(Table::Aliases))?;
            for route in &row.routes {
                if !is_there(snapshot, Table::Versions, &tables::text_number(&machine, route.version))? {
                    report
                        .problem(format!("an alias of '{machine}' leads to version {}, which is gone", route.version));
                }
            }
            Ok(())
        })
    }

    /// Tables that stand alone: every row must be readable.
    fn others(&mut self) -> Result<(), Fault> {
        fn readable<T: Catalog>(check: &mut Check, table: Table) -> Result<(), Fault> {
            all(&check.snapshot, table, &mut check.report, |_, row, _| T::read(row).map(drop))
        }
        readable::<rows::RevisionRow>(self, Table::Revisions)?;
        readable::<rows::ActivityRow>(self, Table::Activities)?;
        readable::<rows::ClaimRow>(self, Table::Files)?;
        readable::<rows::ItemRow>(self, Table::Items)?;
        readable::<rows::OutboxRow>(self, Table::Outbox)?;
        readable::<rows::EventRow>(self, Table::Events)?;
        readable::<rows::MessageRow>(self, Table::Queues)?;
        readable::<rows::RemoteJobRow>(self, Table::RemoteJobs)?;
        readable::<rows::ScheduleRow>(self, Table::Schedules)?;
        readable::<rows::AlarmRow>(self, Table::Alarms)?;
        readable::<rows::AuditRow>(self, Table::Audit)?;
        readable::<rows::UploadRow>(self, Table::Uploads)?;
        readable::<rows::ApprovalRow>(self, Table::Approvals)?;
        readable::<rows::DeliveredRow>(self, Table::Delivered)?;
        readable::<rows::LandingRow>(self, Table::Landings)?;
        readable::<rows::ObjectRow>(self, Table::Objects)?;
        readable::<rows::TableRow>(self, Table::TableKeys)?;
        readable::<rows::CalibrationRow>(self, Table::Learnt)?;
        readable::<rows::SessionRow>(self, Table::Sessions)?;
        readable::<rows::ActionRow>(self, Table::Actions)?;
        self.map_runs()?;
        all(&self.snapshot, Table::Settings, &mut self.report, |_, _, _| Ok(()))
    }
}

impl Check {
    /// A run belongs to an execution and is found by its number; pages of items belong to a run.
    fn map_runs(&mut self) -> Result<(), Fault> {
        let Check { snapshot, report, .. } = self;
        all(snapshot, Table::MapRuns, report, |key, row, report| {
            let row = rows::MapRunRow::read(row)?;
            let (id, _) = tables::split_id_number(key).ok_or_else(|| not_a_key(Table::MapRuns))?;
            if !is_there(snapshot, Table::Executions, &id.to_bytes())? {
                report.problem(format!("a Map run belongs to execution {id}, which does not exist"));
            }
            let named = snapshot.get(Table::MapRunNames, &row.run.0.to_be_bytes(), |of| Ok(of.plain()? == key))?;
            if named != Some(true) {
                report.problem(format!("a Map run of execution {id} cannot be found by its number"));
            }
            Ok(())
        })?;
        all(snapshot, Table::MapRunNames, report, |_, row, report| {
            if !is_there(snapshot, Table::MapRuns, row.plain()?)? {
                report.problem(format!("a number leads to a Map run that does not exist (key {})", hex(row.plain()?)));
            }
            Ok(())
        })?;
        all(snapshot, Table::ItemPages, report, |key, row, report| {
            let run = key.get(..20).ok_or_else(|| not_a_key(Table::ItemPages))?;
            if !is_there(snapshot, Table::MapRuns, run)? || std::str::from_utf8(row.plain()?).is_err() {
                report.problem(format!("a page of items belongs to no Map run (key {})", hex(key)));
            }
            Ok(())
        })
    }
}

/// An execution whose rows are all in the database.
fn live(snapshot: &Snapshot, id: ExecutionId, row: &ArchivedHeaderRow, report: &mut Report) -> Result<(), Fault> {
    if !is_there(snapshot, Table::Payloads, &tables::payload(id, Payload::Input))? {
        report.problem(format!("execution {id} has no input"));
    }
    let output = is_there(snapshot, Table::Payloads, &tables::payload(id, Payload::Output))?;
    if output != row.succeeded() {
        let (has, status) = (if output { "has an" } else { "lacks its" }, row.status()?.name());
        report.problem(format!("execution {id} is {status} and {has} output"));
    }
    if !row.keeps_history() {
        return Ok(());
    }
    let last = row.last_event.to_native();
    let (first, end) = (tables::history(id, EventId(0)), tables::history(id, EventId(u64::MAX)));
    let range = (Bound::Included(first.as_slice()), Bound::Included(end.as_slice()));
    let mut events = Events::default();
    snapshot.scan(Table::History, range, Direction::Forward, |_, row| {
        events.see(&rows::events_from(row.access::<HistoryRow>()?)?);
        Ok(ControlFlow::Continue(()))
    })?;
    events.report(id, last, report);
    Ok(())
}

/// An execution that left a header in the database, and the rest in the file of its day.
fn archived(
    archives: &Archives,
    id: ExecutionId,
    day: u32,
    row: &ArchivedHeaderRow,
    report: &mut Report,
) -> Result<(), Fault> {
    if row.stopped_at().map(day_of) != Some(day) {
        report.problem(format!("execution {id} is archived under a day on which it did not end"));
    }
    let problem = |fault: Fault| conveyor_base::fault::chain(&fault);
    match archives.payloads(day, id) {
        Ok(Some((_, output))) if output.is_some() == row.succeeded() => {}
        Ok(Some(_)) => report.problem(format!("the output of execution {id} in {} is not its end's", file_name(day))),
        Ok(None) => report.problem(format!("{} lacks input and output of execution {id}", file_name(day))),
        Err(fault) => report.problem(problem(fault)),
    }
    match archives.history(day, id) {
        Ok(Some(found)) => {
            let mut events = Events::default();
            events.see(&found);
            events.report(id, row.last_event.to_native(), report);
        }
        Ok(None) => report.problem(format!("{} lacks the history of execution {id}", file_name(day))),
        Err(fault) => report.problem(problem(fault)),
    }
    Ok(())
}

/// Events must be numbered without a gap, up to the newest one that the header knows.
#[derive(Default)]
struct Events {
    newest: u64,
    gap: Option<u64>,
}

impl Events {
    fn see(&mut self, events: &[HistoryEvent]) {
        for event in events {
            if event.id.0 != self.newest + 1 {
                self.gap.get_or_insert(self.newest + 1);
            }
            self.newest = event.id.0;
        }
    }

    fn report(&self, id: ExecutionId, last: u64, report: &mut Report) {
        if let Some(gap) = self.gap {
            report.problem(format!("the history of execution {id} lacks event {gap}"));
        } else if self.newest != last {
            report.problem(format!("the history of execution {id} ends at {} and its header says {last}", self.newest));
        }
    }
}
