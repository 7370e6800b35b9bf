//! The step under way: an overlay over the execution, which is never copied.
//!
//! Owns the bookkeeping of what changes: branches, history, commands, numbers given out. It must not know
//! what a state means. Invariants: event ids are dense; a timer or task that is wanted and unwanted within
//! one step leaves no command at all; nothing is wanted once the execution has ended; a draft that has met a row
//! that was not read never becomes a step.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_asl::mix;
use conveyor_asl::{Effort, Name, StateMachine};
use conveyor_base::{Attempt, BranchId, EventId, TimerId, Timestamp, limits};
use serde_json::Value;

use super::context::Context;
use super::env::Env;
use super::event::{Command, Entry, Json, Outcome, RunTask};
use super::execution::{Branch, Doing, Header, Item, MapItems, Status, Step};
use super::history::{HistoryEvent, HistoryKind};
use super::observer::{NoopObserver, Observer};
use super::partial::{Base, Known, Unread};
use super::step::Pace;

/// A payload with its text, which is made once and shared by all events that show it.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pub value: Arc<Value>,
    pub text: Json,
}

impl Payload {
    pub fn of(value: impl Into<Arc<Value>>) -> Payload {
        let value = value.into();
        let text = value.to_string().into();
        Payload { value, text }
    }
}

/// What is left to do in this step. A stack: a line of control runs until it blocks before the next one starts.
#[derive(Debug)]
pub(super) enum Work {
    /// The branch enters a state.
    Enter(BranchId, Name, Payload),
    /// The branch is in a Map that may start its next iteration.
    Iterate(BranchId),
    /// The branch is in a distributed Map whose run goes on from where it failed.
    Redrive(BranchId),
}

pub(super) struct Draft<'a, O: Observer> {
    pub machine: &'a StateMachine,
    pub env: &'a Env,
    /// What the history shows, which never goes back.
    pub at: Timestamp,
    /// What timers count from.
    pub box_at: Timestamp,
    pub header: Header,
    pub work: Vec<Work>,
    /// The branch that entered its state last, and the event before that.
    pub entered_after: Option<(BranchId, EventId)>,
    pub context: Context,
    pub observer: O,
    /// What its expressions may still do.
    pub effort: &'a Effort,
    pub pace: Pace,
    /// What the states before this one have done, at [`Pace::Whole`].
    worked: u64,
    base: Base<'a>,
    /// The first row that was looked at and had not been read. What is decided from there on counts for nothing.
    unread: Cell<Option<Unread>>,
    seed: u128,
    draws: u64,
    branches: BTreeMap<BranchId, Option<Branch>>,
    items: BTreeMap<BranchId, Option<Arc<MapItems>>>,
    history: Vec<HistoryEvent>,
    tasks: BTreeMap<Attempt, RunTask>,
    timers: BTreeMap<TimerId, Timestamp>,
    undone: Vec<Command>,
    history_is_full: bool,
    ended: bool,
}

impl<'a> Draft<'a, NoopObserver> {
    pub fn new(
        machine: &'a StateMachine,
        base: Base<'a>,
        entry: &Entry,
        env: &'a Env,
        effort: &'a Effort,
    ) -> Draft<'a, NoopObserver> {
        Draft::observed(machine, base, entry, env, effort, NoopObserver)
    }
}

impl<'a, O: Observer> Draft<'a, O> {
    pub fn observed(
        machine: &'a StateMachine,
        base: Base<'a>,
        entry: &Entry,
        env: &'a Env,
        effort: &'a Effort,
        observer: O,
    ) -> Draft<'a, O> {
        Draft {
            machine,
            env,
            at: entry.at.max(base.header().last_at()),
            box_at: entry.box_at,
            header: base.header().clone(),
            work: Vec::new(),
            entered_after: None,
            context: Context::Unmade,
            observer,
            effort,
            pace: Pace::Whole,
            worked: 0,
            base,
            unread: Cell::new(None),
            seed: entry.seed,
            draws: 0,
            branches: BTreeMap::new(),
            items: BTreeMap::new(),
            history: Vec::new(),
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
            undone: Vec::new(),
            history_is_full: false,
            ended: false,
        }
    }

    pub fn into_step(self) -> Result<Step, Unread> {
        if let Some(unread) = self.unread.get() {
            return Err(unread);
        }
        let timers = self.timers.into_iter().map(|(timer, due)| Command::SetTimer { timer, due });
        let tasks = self.tasks.into_values().map(|task| Command::RunTask(Box::new(task)));
        let outcome = self.header.outcome.clone().filter(|_| self.ended);
        let commands = self.undone.into_iter().chain(timers).chain(tasks).chain(outcome.map(Command::Deliver));
        Ok(Step {
            commands: commands.collect(),
            header: Some(self.header),
            branches: self.branches,
            items: self.items,
            history: self.history,
        })
    }

    /// Whether what is decided counts for nothing.
    pub fn is_void(&self) -> bool {
        self.unread().is_some() || self.takes_too_long()
    }

    /// Whether it took longer than its pace allows.
    pub fn takes_too_long(&self) -> bool {
        self.pace == Pace::Brief && self.effort.is_exceeded()
    }

    /// Whether another state may run in this step.
    pub fn has_effort_for_more(&mut self) -> bool {
        self.grant_effort();
        match self.pace {
            // Rather put off than begun in vain.
            Pace::Brief => self.effort.left() >= limits::BRIEF_WORK_MAX / 2,
            Pace::Whole => self.worked < limits::STEP_WORK_MAX,
        }
    }

    /// What a state may do, for one that begins or goes on, and not what others have left of theirs. At
    /// [`Pace::Brief`] all of them share what there is.
    pub fn grant_effort(&mut self) {
        if self.pace == Pace::Whole {
            self.worked += limits::STATE_WORK_MAX - self.effort.left();
            self.effort.grant(limits::STATE_WORK_MAX);
        }
    }

    pub fn unread(&self) -> Option<Unread> {
        self.unread.get()
    }

    fn found<T>(&self, row: Known<T>, unread: Unread) -> Option<T> {
        match row {
            Known::There(row) => Some(row),
            Known::Absent => None,
            Known::Unread => {
                self.unread.set(self.unread.get().or(Some(unread)));
                None
            }
        }
    }

    /// The branch that waits for the attempt's outcome, as the step began.
    pub fn branch_of_attempt(&self, attempt: Attempt) -> Option<BranchId> {
        self.found(self.base.branch_of_attempt(attempt), Unread::Attempt(attempt))
    }

    /// The branch that the timer wakes, as the step began.
    pub fn branch_of_timer(&self, timer: TimerId) -> Option<BranchId> {
        self.found(self.base.branch_of_timer(timer), Unread::Timer(timer))
    }

    pub fn is_running(&self) -> bool {
        self.header.status == Status::Running
    }

    /// Whether an event had to be left out because only the last one, the execution's end, still fits.
    pub fn history_is_full(&self) -> bool {
        self.history_is_full
    }

    pub fn branch(&self, id: BranchId) -> Option<&Branch> {
        match self.branches.get(&id) {
            Some(row) => row.as_ref(),
            None => self.found(self.base.branch(id), Unread::Branch(id)),
        }
    }

    /// The branch, to be changed.
    pub fn edit(&mut self, id: BranchId) -> Option<&mut Branch> {
        if !self.branches.contains_key(&id) {
            let row = self.branch(id).cloned();
            self.branches.insert(id, row);
        }
        self.branches.get_mut(&id).and_then(Option::as_mut)
    }

    /// A new branch, which no row knows: numbers are used once.
    pub fn insert(&mut self, id: BranchId, branch: Branch) {
        self.branches.insert(id, Some(branch));
    }

    pub fn remove(&mut self, id: BranchId) {
        match self.found(self.base.branch(id), Unread::Branch(id)) {
            Some(_) => self.branches.insert(id, None),
            None => self.branches.remove(&id),
        };
    }

    /// Those of the branches `first .. first + count` that there are.
    pub fn branches_from(&self, first: BranchId, count: u32) -> Vec<BranchId> {
        let numbers = first.0..first.0.saturating_add(count);
        let mut there = Vec::new();
        for id in numbers.map(BranchId) {
            match self.branches.get(&id) {
                Some(row) => there.extend(row.as_ref().map(|_| id)),
                // All of them are wanted, and are better read together than one by one.
                None => there.extend(self.found(self.base.branch(id), Unread::Branches { first, count }).map(|_| id)),
            }
        }
        there
    }

    /// Every branch there is, in order.
    pub fn branch_ids(&self) -> Vec<BranchId> {
        let changed = self.branches.iter().filter(|(_, row)| row.is_some()).map(|(id, _)| *id);
        let all = self.base.branches().map_or(Known::Unread, Known::There);
        let all = self.found(all, Unread::ALL_BRANCHES).into_iter().flat_map(BTreeMap::keys);
        let kept = all.filter(|id| !self.branches.contains_key(id)).copied();
        let mut ids: Vec<BranchId> = changed.chain(kept).collect();
        ids.sort_unstable();
        ids
    }

    /// What the Map works on that the branch began in this step.
    pub fn begun_map(&self, id: BranchId) -> Option<&Arc<MapItems>> {
        self.items.get(&id)?.as_ref()
    }

    /// The raw input of the Map that the branch is in.
    pub fn map_input(&self, id: BranchId) -> Option<Arc<Value>> {
        match self.items.get(&id) {
            Some(row) => row.as_ref().map(|map| map.input.clone()),
            None if self.is_in_map(id) => self.found(self.base.map_input(id), Unread::MapInput(id)).cloned(),
            None => None,
        }
    }

    /// An item of the Map that the branch is in.
    pub fn map_item(&self, id: BranchId, index: u32) -> Option<Item> {
        match self.items.get(&id) {
            Some(row) => row.as_ref().and_then(|map| map.items.get(index as usize)).cloned(),
            None if self.is_in_map(id) => {
                self.found(self.base.map_item(id, index), Unread::MapItem(id, index)).cloned()
            }
            None => None,
        }
    }

    /// Whether the branch is in an inline Map: only such a one has items.
    fn is_in_map(&self, id: BranchId) -> bool {
        self.branch(id).is_some_and(|branch| matches!(branch.doing, Doing::Map { .. }))
    }

    pub fn put_map_items(&mut self, id: BranchId, items: MapItems) {
        self.items.insert(id, Some(Arc::new(items)));
    }

    /// Takes the Map's row away and gives the branch its input back.
    pub fn drop_map_items(&mut self, id: BranchId) {
        let Some(input) = self.map_input(id) else { return };
        let was_in_map = match self.items.contains_key(&id) {
            false => true,
            true => self
                .found(self.base.branch(id), Unread::Branch(id))
                .is_some_and(|branch| matches!(branch.doing, Doing::Map { .. })),
        };
        match was_in_map {
            true => self.items.insert(id, None),
            false => self.items.remove(&id),
        };
        if let Some(branch) = self.edit(id) {
            branch.input = input;
        }
    }

    pub fn record_after(&mut self, previous: EventId, kind: HistoryKind) -> EventId {
        if self.header.last_event.0 + 1 >= self.env.history_events_max {
            self.history_is_full = true;
            return self.header.last_event;
        }
        self.append(previous, kind)
    }

    /// The execution's last event, for which there is always room.
    pub fn append(&mut self, previous: EventId, kind: HistoryKind) -> EventId {
        self.header.last_event.0 += 1;
        let id = self.header.last_event;
        self.history.push(HistoryEvent { id, previous, at: self.at, kind });
        id
    }

    /// Records an event of a branch's line of control, after its last one.
    pub fn record(&mut self, id: BranchId, kind: HistoryKind) -> EventId {
        let Some(previous) = self.branch(id).map(|b| b.previous_event) else { return self.header.last_event };
        let event = self.record_after(previous, kind);
        if let Some(branch) = self.edit(id) {
            branch.previous_event = event;
        }
        event
    }

    /// Reserves `count` numbers for branches.
    pub fn reserve_branches(&mut self, count: u32) -> BranchId {
        let first = self.header.next_branch;
        self.header.next_branch.0 = first.0.saturating_add(count);
        first
    }

    pub fn next_attempt(&mut self) -> Attempt {
        let attempt = self.header.next_attempt;
        self.header.next_attempt.0 = attempt.0.saturating_add(1);
        attempt
    }

    pub fn run_task(&mut self, task: RunTask) {
        self.tasks.insert(task.attempt, task);
    }

    pub fn cancel_task(&mut self, attempt: Attempt) {
        if self.tasks.remove(&attempt).is_none() {
            self.undone.push(Command::CancelTask { attempt });
        }
    }

    /// The attempt needs no cancelling: it is over.
    pub fn has_ended(&mut self, attempt: Attempt) {
        self.undone.retain(|command| !matches!(command, Command::CancelTask { attempt: of } if *of == attempt));
    }

    pub fn set_timer(&mut self, due: Timestamp) -> (TimerId, Timestamp) {
        let timer = self.header.next_timer;
        self.header.next_timer.0 = timer.0.saturating_add(1);
        self.timers.insert(timer, due);
        (timer, due)
    }

    /// Not for the timer that woke this step: it is gone already.
    pub fn clear_timer(&mut self, (timer, due): (TimerId, Timestamp)) {
        if self.timers.remove(&timer).is_none() {
            self.undone.push(Command::ClearTimer { timer, due });
        }
    }

    /// The next random number. The same entry always draws the same row of them.
    pub fn draw(&mut self) -> u64 {
        self.draws += 1;
        mix(mix(self.seed as u64 ^ self.draws) ^ (self.seed >> 64) as u64)
    }

    pub fn draw_wide(&mut self) -> u128 {
        u128::from(self.draw()) << 64 | u128::from(self.draw())
    }

    pub fn end(&mut self, status: Status, outcome: Outcome) {
        self.ended = true;
        self.header.status = status;
        self.header.stopped_at = Some(self.at);
        self.header.outcome = Some(outcome);
        self.work.clear();
    }
}
