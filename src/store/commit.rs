//! [`Commit`]: what one durable commit stores, as typed changes. All of it becomes durable, or none.
//!
//! Rows are encoded here, in the committing task, so that the one writer thread only copies bytes. Knows which rows
//! follow from a step: the indexes from the header, the tasks to issue again from the commands, the timers and who
//! waits for what from what the branches do before and after. What else a commit can store each owner of rows adds in its own file
//! ([`super::rows`]).

use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, ExecutionId, TimerId, Timestamp};
use conveyor_interpreter::{
    Branch, Command, Doing, Execution, Header, Known, MapItems, Outcome, Partial, RunPhase, Status, Step, TaskPhase,
};

use super::damages::STORE_DAMAGED;
use super::record::{Op, Record};
use super::rows::{self, BranchRow, HeaderRow, HistoryRow, MapRunRow, TaskRow};
use super::tables::{self, Payload, Table};

/// Row changes that belong together. Build it, then hand it to [`super::Writer::commit`].
#[derive(Debug, Default)]
pub struct Commit {
    pub(super) record: Record,
}

impl Commit {
    pub fn new() -> Commit {
        Commit::default()
    }

    pub fn is_empty(&self) -> bool {
        self.record.is_empty()
    }

    /// Stores a step. `before` is the execution as it was stored last: `None` for the step that starts it.
    pub fn step(&mut self, before: Option<&Execution>, step: &Step) -> &mut Commit {
        self.changes(before.map(|b| &b.header), |id| before?.branches.get(&id), step)
    }

    /// Stores a step of an execution of which only some rows were read.
    pub fn step_of(&mut self, before: &Partial, step: &Step) -> &mut Commit {
        let branch = |id| match before.branch(id) {
            Known::There(branch) => Some(branch),
            // What a step changes was read, and what it did not read it made.
            Known::Absent | Known::Unread => None,
        };
        self.changes(Some(before.header()), branch, step)
    }

    fn changes<'b>(
        &mut self,
        old: Option<&Header>,
        before: impl Fn(BranchId) -> Option<&'b Branch>,
        step: &Step,
    ) -> &mut Commit {
        let Some(header) = &step.header else { return self };
        self.header(old, header);
        self.branches(old, before, header.id, step);
        let timeout = |header: &Header| header.timeout_timer.into_iter().collect();
        self.timers(old, header.id, None, old.map(timeout).unwrap_or_default(), timeout(header));
        let express_child = header.child.as_ref().is_some_and(|child| child.express);
        if let Some(first) = step.history.first().filter(|_| !express_child) {
            let row = HistoryRow::new(&step.history);
            self.record.row(Op::PutNew, Table::History, &tables::history(header.id, first.id), &row);
        }
        self.commands(old, header, step);
        self
    }

    fn header(&mut self, old: Option<&Header>, header: &Header) {
        let (id, list) = (header.id, header.list());
        let op = if old.is_some() { Op::Put } else { Op::PutNew };
        self.record.row(op, Table::Executions, &id.to_bytes(), &HeaderRow::from(header));
        if !old.is_some_and(|old| Arc::ptr_eq(&old.input, &header.input) || old.input == header.input) {
            self.record.plain(op, Table::Payloads, &tables::payload(id, Payload::Input), header.input.as_bytes());
        }
        let output = |h: &Header| match &h.outcome {
            Some(Outcome::Succeeded { output }) => Some(output.clone()),
            _ => None,
        };
        let (before, after) = (old.and_then(output), output(header));
        let key = tables::payload(id, Payload::Output);
        match after {
            Some(after) if before.as_ref() != Some(&after) => {
                self.record.plain(Op::Put, Table::Payloads, &key, after.as_bytes());
            }
            None if before.is_some() => self.record.delete(Table::Payloads, &key),
            _ => {}
        }
        if old.is_none() {
            // A distributed Map's child is called by its id.
            if header.child.is_none() {
                let key = tables::texts(&list, &header.name);
                self.record.plain(Op::Put, Table::ByName, &key, &id.to_bytes());
            }
            if let Some(parent) = &header.parent {
                let key = tables::attempt(parent.execution, parent.attempt);
                let row = rows::child(id, &parent.shape);
                self.record.plain(Op::PutNew, Table::Children, &key, &row);
            }
        }
        match old.map(|o| o.status) {
            Some(status) if status == header.status => {}
            was => {
                if let Some(was) = was {
                    self.unindex(&list, was, id, items_of(header));
                }
                let key = tables::by_machine(&list, header.status, id);
                self.record.plain(op, Table::ByMachine, &key, &[]);
                self.count(&list, header.status, 1, items_of(header));
            }
        }
    }

    fn unindex(&mut self, list: &str, status: Status, id: ExecutionId, items: u32) {
        self.record.delete(Table::ByMachine, &tables::by_machine(list, status, id));
        self.count(list, status, -1, items);
    }

    fn count(&mut self, list: &str, status: Status, by: i64, items: u32) {
        let key = tables::machine_status(list, status);
        self.record.add(Table::Counts, &key, by);
        // Most children have one item, and are counted already.
        if items > 1 {
            let key = tables::machine_status(&tables::more_items(list), status);
            self.record.add(Table::Counts, &key, by * i64::from(items - 1));
        }
    }

    fn branches<'b>(
        &mut self,
        old: Option<&Header>,
        before: impl Fn(BranchId) -> Option<&'b Branch>,
        id: ExecutionId,
        step: &Step,
    ) {
        let unused = old.map_or(0, |old| old.next_branch.0);
        for (&number, branch) in &step.branches {
            let key = tables::branch(id, number);
            let op = put(number.0 >= unused);
            match branch {
                Some(branch) => self.record.row(op, Table::Branches, &key, &BranchRow::from(branch)),
                // A branch that came and went within the step was never stored.
                None if op == Op::PutNew => {}
                None => self.record.delete(Table::Branches, &key),
            }
            let (was, is) = (before(number), branch.as_ref());
            let attempt = |branch: Option<&Branch>| branch.and_then(|b| issued(&b.doing));
            if let Some(was) = attempt(was).filter(|was| Some(*was) != attempt(is)) {
                self.outstanding_done(id, was);
            }
            self.submitted(id, number, was, is);
            let timers = |branch: Option<&Branch>| branch.into_iter().flat_map(|b| b.doing.timers()).collect();
            self.timers(old, id, Some(number), timers(was), timers(is));
        }
        for (&number, items) in &step.items {
            let had = before(number).map_or(0, |branch| match branch.doing {
                Doing::Map { length, .. } => rows::pages_of(length),
                _ => 0,
            });
            self.map_items(id, number, had, items.as_deref());
        }
    }

    /// What a Map works on. `had`: the pages of the one that the branch was in before.
    pub(super) fn map_items(&mut self, id: ExecutionId, branch: BranchId, had: u32, items: Option<&MapItems>) {
        let key = tables::branch(id, branch);
        let mut pages = 0;
        match items {
            Some(map) => {
                self.record.plain(Op::Put, Table::MapItems, &key, map.input.to_string().as_bytes());
                for page in rows::map_pages(&map.items) {
                    self.record.row(Op::Put, Table::MapPages, &tables::map_page(id, branch, pages), &page);
                    pages += 1;
                }
            }
            None => self.record.delete(Table::MapItems, &key),
        }
        for page in pages..had {
            self.record.delete(Table::MapPages, &tables::map_page(id, branch, page));
        }
    }

    /// Who waits for an attempt that somebody else works on is a row of its own.
    fn submitted(&mut self, id: ExecutionId, number: BranchId, was: Option<&Branch>, is: Option<&Branch>) {
        let attempt = |branch: Option<&Branch>| branch.and_then(|b| submitted(&b.doing));
        let (was, is) = (attempt(was), attempt(is));
        if let Some(was) = was.filter(|was| Some(*was) != is) {
            self.record.delete(Table::Submitted, &tables::attempt(id, was));
        }
        if let Some(is) = is.filter(|is| Some(*is) != was) {
            self.record.plain(Op::PutNew, Table::Submitted, &tables::attempt(id, is), &tables::waiter(number));
        }
    }

    /// Timers that were set and are not any more (cleared, or fired, which `step` does not command to clear), and those
    /// that are set now: the branch's, or the execution's own.
    fn timers(
        &mut self,
        old: Option<&Header>,
        id: ExecutionId,
        of: Option<BranchId>,
        was: Vec<(TimerId, Timestamp)>,
        is: Vec<(TimerId, Timestamp)>,
    ) {
        for (timer, due) in was.iter().filter(|timer| !is.contains(timer)) {
            self.drop_timer(id, *timer, *due);
        }
        let waiter = of.map(tables::waiter);
        let waiter = waiter.as_ref().map_or(&[][..], |waiter| waiter);
        for (timer, due) in is.iter().filter(|timer| !was.contains(timer)) {
            let new = old.is_none_or(|old| *timer >= old.next_timer);
            self.record.plain(put(new), Table::Timers, &tables::timer(*due, id, *timer), waiter);
        }
    }

    fn commands(&mut self, old: Option<&Header>, header: &Header, step: &Step) {
        let id = header.id;
        for command in &step.commands {
            match command {
                Command::RunTask(task) => {
                    let new = old.is_none_or(|old| task.attempt >= old.next_attempt);
                    let key = tables::attempt(id, task.attempt);
                    self.record.row(put(new), Table::Outstanding, &key, &TaskRow::from(&**task));
                    if let Some(row) = MapRunRow::of(header, task).filter(|_| new) {
                        self.put_map_run(id, task.attempt, &row);
                    }
                }
                Command::CancelTask { attempt } => {
                    self.outstanding_done(id, *attempt);
                    // Of a branch that cannot be read nobody else says whom it waited for.
                    if header.failure().0 == Some(STORE_DAMAGED) {
                        self.record.delete(Table::Submitted, &tables::attempt(id, *attempt));
                    }
                }
                // Their rows come and go with what the branch, or the execution, waits for.
                Command::SetTimer { .. } | Command::ClearTimer { .. } => {}
                Command::Deliver(_) => {
                    if header.parent.is_some() {
                        self.record.plain(Op::Put, Table::Deliveries, &id.to_bytes(), &[]);
                    }
                }
            }
        }
    }

    /// A run of a distributed Map, found by its number too.
    pub fn put_map_run(&mut self, parent: ExecutionId, attempt: Attempt, row: &MapRunRow) -> &mut Commit {
        let key = tables::attempt(parent, attempt);
        self.record.row(Op::Put, Table::MapRuns, &key, row);
        self.record.plain(Op::Put, Table::MapRunNames, &row.run.0.to_be_bytes(), &key);
        self
    }

    /// Items that a run read, one a line.
    pub fn put_item_page(&mut self, parent: ExecutionId, attempt: Attempt, page: u32, lines: &str) -> &mut Commit {
        self.record.plain(Op::Put, Table::ItemPages, &tables::item_page(parent, attempt, page), lines.as_bytes());
        self
    }

    pub fn delete_item_page(&mut self, parent: ExecutionId, attempt: Attempt, page: u32) -> &mut Commit {
        self.record.delete(Table::ItemPages, &tables::item_page(parent, attempt, page));
        self
    }

    /// The task need not be issued again.
    pub fn outstanding_done(&mut self, id: ExecutionId, attempt: Attempt) -> &mut Commit {
        self.record.delete(Table::Outstanding, &tables::attempt(id, attempt));
        self
    }

    /// The timer fired and its event changed nothing, or it was cleared.
    pub fn drop_timer(&mut self, id: ExecutionId, timer: TimerId, due: Timestamp) -> &mut Commit {
        self.record.delete(Table::Timers, &tables::timer(due, id, timer));
        self
    }

    /// The parent has been told how this execution ended, and looks for it no more.
    pub fn delivered(&mut self, child: &Header) -> &mut Commit {
        self.record.delete(Table::Deliveries, &child.id.to_bytes());
        if let Some(parent) = &child.parent {
            self.record.delete(Table::Children, &tables::attempt(parent.execution, parent.attempt));
        }
        self
    }

    /// Takes an express child of a Map run out of the store, whose results are needed no more. It has no history, and of one
    /// that succeeded no branch is left; those of others are the caller's.
    pub fn erase_child(&mut self, id: ExecutionId, list: &str, status: Status, items: u32) -> &mut Commit {
        self.record.delete(Table::Executions, &id.to_bytes());
        for which in [Payload::Input, Payload::Output] {
            self.record.delete(Table::Payloads, &tables::payload(id, which));
        }
        self.unindex(list, status, id, items);
        self
    }

    /// Takes an archived execution out of every list. The rest of it goes with the file of its day.
    pub(super) fn forget(&mut self, id: ExecutionId, forgotten: &Forgotten) {
        let Forgotten { list, name, status, owns_name, items } = forgotten;
        self.record.delete(Table::Executions, &id.to_bytes());
        self.record.delete(Table::Archived, &id.to_bytes());
        if *owns_name {
            self.record.delete(Table::ByName, &tables::texts(list, name));
        }
        self.unindex(list, *status, id, *items);
    }
}

/// An execution that leaves every list.
pub(super) struct Forgotten {
    pub list: String,
    pub name: String,
    pub status: Status,
    pub owns_name: bool,
    pub items: u32,
}

/// How many items of its Map run the execution stands for.
fn items_of(header: &Header) -> u32 {
    header.child.as_ref().map_or(1, |child| child.items)
}

fn put(new: bool) -> Op {
    if new { Op::PutNew } else { Op::Put }
}

/// The attempt that the branch waits for and whose end somebody else will report.
pub(super) fn submitted(doing: &Doing) -> Option<Attempt> {
    match doing {
        Doing::Task { attempt, phase: TaskPhase::Submitted, .. } => Some(*attempt),
        _ => None,
    }
}

/// The attempt that the branch waits for and that must be issued again after a crash. Once it is submitted,
/// somebody else reports its end.
pub(super) fn issued(doing: &Doing) -> Option<Attempt> {
    match doing {
        Doing::Task { attempt, phase: TaskPhase::Scheduled | TaskPhase::Started, .. }
        | Doing::MapRun { attempt, phase: RunPhase::Running, .. } => Some(*attempt),
        _ => None,
    }
}
