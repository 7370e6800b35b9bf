//! An execution of which only some rows were read, so that an event costs what it touches however wide the execution is.
//!
//! ```text
//! step_partly ──Step──> commit, apply
//!      │  ^
//!  Unread └─── read: that row, and what a step that looked at it looks at next
//! ```
//! What was not read is neither there nor absent: [`Known`] keeps the three apart, and a draft that has met an unread
//! row gives no step but says what it lacks. Invariant: the step that is decided on a part is the one that would have
//! been decided on the whole. Rows that are in memory are never read again: they may be newer than the stored ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, TimerId, Timestamp};
use serde_json::Value;

use super::execution::{Branch, Execution, Header, Item, Step};

/// What is known of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<T> {
    There(T),
    Absent,
    Unread,
}

/// What a step looked at that was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Who waits for the attempt's outcome.
    Attempt(Attempt),
    /// Whom the timer wakes.
    Timer(TimerId),
    Branch(BranchId),
    /// The branches `first .. first + count`.
    Branches {
        first: BranchId,
        count: u32,
    },
    /// The raw input of the Map that the branch is in.
    MapInput(BranchId),
    /// One of the items that it goes over.
    MapItem(BranchId, u32),
}

impl Unread {
    /// Every branch that there is.
    pub const ALL_BRANCHES: Unread = Unread::Branches { first: BranchId::ROOT, count: u32::MAX };
}

/// Where the rows of one execution are read.
pub trait Rows {
    type Fault;

    fn branch(&self, id: BranchId) -> Result<Option<Branch>, Self::Fault>;

    /// Those of the branches `first .. first + count` that there are.
    fn branches(&self, first: BranchId, count: u32) -> Result<Vec<(BranchId, Branch)>, Self::Fault>;

    /// The branch that waits for the attempt's outcome.
    fn awaits(&self, attempt: Attempt) -> Result<Option<BranchId>, Self::Fault>;

    /// The raw input of the Map that the branch is in.
    fn map_input(&self, id: BranchId) -> Result<Option<Arc<Value>>, Self::Fault>;

    fn map_item(&self, id: BranchId, index: u32) -> Result<Option<Item>, Self::Fault>;
}

/// The rows of an execution that were read or written since its header was read.
#[derive(Clone, Debug)]
pub struct Partial {
    /// The rows that are in memory.
    execution: Execution,
    /// What is known of the others; `None` where there are none.
    others: Option<Others>,
    /// The date of the newest event, where it is known.
    last_event_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
struct Others {
    /// Branches that are not there.
    absent: BTreeSet<BranchId>,
    /// Attempts and timers for which no branch waits but those in memory.
    attempts: BTreeSet<Attempt>,
    timers: BTreeSet<TimerId>,
    /// Every branch is in memory.
    branches_read: bool,
    /// What was read of the Maps whose items are not all in memory.
    inputs: BTreeMap<BranchId, Option<Arc<Value>>>,
    items: BTreeMap<(BranchId, u32), Option<Item>>,
}

impl Partial {
    /// An execution of which nothing else was read.
    pub fn of(header: Header) -> Partial {
        let execution = Execution::load(header, BTreeMap::new(), BTreeMap::new());
        Partial { execution, others: Some(Others::default()), last_event_at: None }
    }

    /// One that has just begun: all of its events are of that moment.
    pub fn begun(execution: Execution) -> Partial {
        let last_event_at = Some(execution.header.started_at);
        Partial { last_event_at, ..Partial::from(execution) }
    }

    /// The date of the newest event. `None`: nobody has recorded one since this was read.
    pub fn last_event_at(&self) -> Option<Timestamp> {
        self.last_event_at
    }

    pub fn header(&self) -> &Header {
        &self.execution.header
    }

    pub fn branch(&self, id: BranchId) -> Known<&Branch> {
        let Partial { execution, others, .. } = self;
        match (execution.branches.get(&id), others) {
            (Some(branch), _) => Known::There(branch),
            // Numbers are given out in order.
            (None, Some(others)) if id < execution.header.next_branch && !others.knows_absent(id) => Known::Unread,
            (None, _) => Known::Absent,
        }
    }

    /// All of them, where all were read.
    pub fn branches(&self) -> Option<&BTreeMap<BranchId, Branch>> {
        let all = self.others.as_ref().is_none_or(|others| others.branches_read);
        all.then_some(&self.execution.branches)
    }

    /// The branch that waits for the attempt's outcome.
    pub fn branch_of_attempt(&self, attempt: Attempt) -> Known<BranchId> {
        let Partial { execution, others, .. } = self;
        match (execution.branch_of_attempt(attempt), others) {
            (Some(id), _) => Known::There(id),
            (None, Some(others))
                if attempt < execution.header.next_attempt
                    && !others.branches_read
                    && !others.attempts.contains(&attempt) =>
            {
                Known::Unread
            }
            (None, _) => Known::Absent,
        }
    }

    pub(super) fn branch_of_timer(&self, timer: TimerId) -> Known<BranchId> {
        let Partial { execution, others, .. } = self;
        match (execution.branch_of_timer(timer), others) {
            (Some(id), _) => Known::There(id),
            (None, Some(others))
                if timer < execution.header.next_timer && !others.branches_read && !others.timers.contains(&timer) =>
            {
                Known::Unread
            }
            (None, _) => Known::Absent,
        }
    }

    /// Of a branch that is in a Map.
    pub(super) fn map_input(&self, id: BranchId) -> Known<&Arc<Value>> {
        match (self.execution.items.get(&id), &self.others) {
            (Some(map), _) => Known::There(&map.input),
            (None, None) => Known::Absent,
            (None, Some(others)) => known(others.inputs.get(&id)),
        }
    }

    /// Of a branch that is in a Map.
    pub(super) fn map_item(&self, id: BranchId, index: u32) -> Known<&Item> {
        match (self.execution.items.get(&id), &self.others) {
            (Some(map), _) => map.items.get(index as usize).map_or(Known::Absent, Known::There),
            (None, None) => Known::Absent,
            (None, Some(others)) => known(others.items.get(&(id, index))),
        }
    }

    /// Makes the step's changes. Costs what the step touched.
    pub fn apply(&mut self, step: &Step) {
        self.execution.apply(step);
        self.last_event_at = step.history.last().map(|event| event.at).or(self.last_event_at);
        let Some(others) = &mut self.others else { return };
        for (id, row) in &step.branches {
            match row {
                Some(_) => others.absent.remove(id),
                None => others.absent.insert(*id),
            };
        }
        for id in step.items.keys() {
            others.inputs.remove(id);
            others.items.retain(|(of, _), _| of != id);
        }
    }

    /// Reads what a step lacked. A branch comes with those around it, up to the root: what becomes of it is told to
    /// them. After this the same is not unread any more.
    pub fn read<R: Rows>(&mut self, unread: Unread, rows: &R) -> Result<(), R::Fault> {
        let Some(others) = &mut self.others else { return Ok(()) };
        match unread {
            Unread::Attempt(attempt) => {
                let branch = rows.awaits(attempt)?;
                others.attempts.insert(attempt);
                branch.map_or(Ok(()), |branch| self.read_line(branch, rows))
            }
            // Nobody but whoever had it fire knows whom it wakes: see `read_timer`.
            Unread::Timer(_) => self.read(Unread::ALL_BRANCHES, rows),
            Unread::Branch(id) => self.read_line(id, rows),
            Unread::Branches { first, count } => {
                for (id, branch) in rows.branches(first, count)? {
                    if self.branch(id) == Known::Unread {
                        self.execution.add(id, branch);
                    }
                }
                self.none_but_these(first, count);
                Ok(())
            }
            Unread::MapInput(id) => {
                others.inputs.insert(id, rows.map_input(id)?);
                Ok(())
            }
            Unread::MapItem(id, index) => {
                others.items.insert((id, index), rows.map_item(id, index)?);
                Ok(())
            }
        }
    }

    /// Reads whom a timer wakes: the branch that set it, or nobody where the execution itself did.
    pub fn read_timer<R: Rows>(&mut self, timer: TimerId, of: Option<BranchId>, rows: &R) -> Result<(), R::Fault> {
        let Some(others) = &mut self.others else { return Ok(()) };
        others.timers.insert(timer);
        of.map_or(Ok(()), |branch| self.read_line(branch, rows))
    }

    /// The branch, and those that it lies below.
    fn read_line<R: Rows>(&mut self, branch: BranchId, rows: &R) -> Result<(), R::Fault> {
        let mut next = Some(branch);
        while let Some(id) = next {
            if self.branch(id) == Known::Unread {
                match rows.branch(id)? {
                    Some(branch) => self.execution.add(id, branch),
                    None => self.none_but_these(id, 1),
                }
            }
            next = match self.branch(id) {
                Known::There(branch) => branch.parent.map(|(parent, _)| parent),
                Known::Absent | Known::Unread => None,
            };
        }
        Ok(())
    }

    /// Of these branches all that there are are in memory.
    fn none_but_these(&mut self, first: BranchId, count: u32) {
        let end = first.0.saturating_add(count).min(self.execution.header.next_branch.0);
        let Some(others) = &mut self.others else { return };
        if first == BranchId::ROOT && end == self.execution.header.next_branch.0 {
            others.branches_read = true;
            others.absent.clear();
            return;
        }
        let there = &self.execution.branches;
        others.absent.extend((first.0..end).map(BranchId).filter(|id| !there.contains_key(id)));
    }
}

impl Others {
    fn knows_absent(&self, id: BranchId) -> bool {
        self.branches_read || self.absent.contains(&id)
    }
}

fn known<T>(read: Option<&Option<T>>) -> Known<&T> {
    match read {
        Some(Some(row)) => Known::There(row),
        Some(None) => Known::Absent,
        None => Known::Unread,
    }
}

/// An execution that is in memory whole.
impl From<Execution> for Partial {
    fn from(execution: Execution) -> Partial {
        Partial { execution, others: None, last_event_at: None }
    }
}

/// What a step looks at.
#[derive(Clone, Copy)]
pub(super) enum Base<'a> {
    Whole(&'a Execution),
    Part(&'a Partial),
}

impl<'a> Base<'a> {
    pub fn header(self) -> &'a Header {
        match self {
            Base::Whole(execution) => &execution.header,
            Base::Part(partial) => partial.header(),
        }
    }

    pub fn branch(self, id: BranchId) -> Known<&'a Branch> {
        match self {
            Base::Whole(execution) => there(execution.branches.get(&id)),
            Base::Part(partial) => partial.branch(id),
        }
    }

    /// The numbers of all branches.
    pub fn branches(self) -> Option<&'a BTreeMap<BranchId, Branch>> {
        match self {
            Base::Whole(execution) => Some(&execution.branches),
            Base::Part(partial) => partial.branches(),
        }
    }

    pub fn branch_of_attempt(self, attempt: Attempt) -> Known<BranchId> {
        match self {
            Base::Whole(execution) => there(execution.branch_of_attempt(attempt)),
            Base::Part(partial) => partial.branch_of_attempt(attempt),
        }
    }

    pub fn branch_of_timer(self, timer: TimerId) -> Known<BranchId> {
        match self {
            Base::Whole(execution) => there(execution.branch_of_timer(timer)),
            Base::Part(partial) => partial.branch_of_timer(timer),
        }
    }

    pub fn map_input(self, id: BranchId) -> Known<&'a Arc<Value>> {
        match self {
            Base::Whole(execution) => there(execution.items.get(&id).map(|map| &map.input)),
            Base::Part(partial) => partial.map_input(id),
        }
    }

    pub fn map_item(self, id: BranchId, index: u32) -> Known<&'a Item> {
        match self {
            Base::Whole(execution) => there(execution.items.get(&id).and_then(|map| map.items.get(index as usize))),
            Base::Part(partial) => partial.map_item(id, index),
        }
    }
}

fn there<T>(row: Option<T>) -> Known<T> {
    row.map_or(Known::Absent, Known::There)
}
