//! The durable snapshot of an execution, and what a step changes in it.
//!
//! What cannot be legal cannot be built: a branch is always doing exactly one thing ([`Doing`]), and that
//! thing names what will wake it. Each branch is a row of its own, so that a step costs what it touches.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, EventId, ExecutionId, TimerId, Timestamp};
use serde_json::Value;

use super::event::{Command, Json, Outcome};
use super::history::HistoryEvent;

/// An execution as it stands between two steps. Built by [`Execution::start`] or, from rows, by
/// [`Execution::load`]; changed by [`Execution::apply`] only.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    pub header: Header,
    /// Live branches, and finished ones whose Parallel or Map still gathers. Once the execution ended
    /// without success, what a redrive continues from: no branch waits for anything then. Empty after success.
    pub branches: BTreeMap<BranchId, Branch>,
    /// What each running Map works on, by the branch that is in the Map. Written once, when the Map starts,
    /// so that an iteration's end does not rewrite it.
    pub items: BTreeMap<BranchId, Arc<MapItems>>,
    /// Who waits for which attempt and timer: derived from `branches`, so that an event finds its branch
    /// without looking at all of them.
    waiting: Waiting,
}

/// What a Map state works on.
#[derive(Clone, Debug, PartialEq)]
pub struct MapItems {
    /// The Map state's raw input. The branch's own `input` is null as long as it is in the Map.
    pub input: Arc<Value>,
    pub items: Vec<Item>,
}

/// What one iteration of a Map works on: `$$.Map.Item` but for its index.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub value: Arc<Value>,
    /// The field's name, where the Map goes over the fields of an object.
    pub key: Option<Arc<str>>,
    /// Where a distributed Map has it from: `STATE_DATA`, or an object's URI.
    pub source: Option<Arc<str>>,
}

impl Item {
    pub fn of(value: impl Into<Arc<Value>>) -> Item {
        Item { value: value.into(), key: None, source: None }
    }

    /// The iteration's input where no ItemSelector makes one: of an object's fields, the pair.
    pub fn input(&self) -> Arc<Value> {
        match &self.key {
            None => self.value.clone(),
            Some(key) => Arc::new(serde_json::json!({"Key": &**key, "Value": &*self.value})),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Waiting {
    attempts: BTreeMap<Attempt, BranchId>,
    timers: BTreeMap<TimerId, BranchId>,
}

impl Execution {
    /// A new execution: RUNNING, with no branch yet. [`Event::Started`](super::Event::Started) runs it.
    pub fn start(id: ExecutionId, name: String, machine: MachineRef, input: Json, at: Timestamp) -> Execution {
        let header = Header {
            id,
            name,
            machine,
            status: Status::Running,
            started_at: at,
            stopped_at: None,
            input,
            outcome: None,
            last_event: EventId(0),
            next_branch: BranchId(1),
            next_attempt: Attempt(1),
            next_timer: TimerId(1),
            timeout_timer: None,
            parent: None,
            child: None,
            redrive_count: 0,
            redriven_at: None,
            trace_header: None,
        };
        Execution::load(header, BTreeMap::new(), BTreeMap::new())
    }

    /// An execution out of its rows.
    pub fn load(
        header: Header,
        branches: BTreeMap<BranchId, Branch>,
        items: BTreeMap<BranchId, Arc<MapItems>>,
    ) -> Execution {
        let mut waiting = Waiting::default();
        for (id, branch) in &branches {
            waiting.add(*id, branch);
        }
        Execution { header, branches, items, waiting }
    }

    /// Takes in a branch that was read later than the others.
    pub(super) fn add(&mut self, id: BranchId, branch: Branch) {
        self.waiting.add(id, &branch);
        self.branches.insert(id, branch);
    }

    /// Makes the step's changes. Costs what the step touched.
    pub fn apply(&mut self, step: &Step) {
        let Some(header) = &step.header else { return };
        self.header = header.clone();
        for (id, row) in &step.branches {
            if let Some(before) = self.branches.remove(id) {
                self.waiting.remove(&before);
            }
            if let Some(branch) = row {
                self.add(*id, branch.clone());
            }
        }
        for (id, row) in &step.items {
            match row {
                Some(items) => self.items.insert(*id, items.clone()),
                None => self.items.remove(id),
            };
        }
    }

    /// The branch that waits for the attempt's outcome.
    pub fn branch_of_attempt(&self, attempt: Attempt) -> Option<BranchId> {
        self.waiting.attempts.get(&attempt).copied()
    }

    /// The branch that one of its timers will wake.
    pub fn branch_of_timer(&self, timer: TimerId) -> Option<BranchId> {
        self.waiting.timers.get(&timer).copied()
    }
}

impl Waiting {
    fn add(&mut self, id: BranchId, branch: &Branch) {
        if let Some(attempt) = branch.doing.attempt() {
            self.attempts.insert(attempt, id);
        }
        for (timer, _) in branch.doing.timers() {
            self.timers.insert(timer, id);
        }
    }

    fn remove(&mut self, branch: &Branch) {
        if let Some(attempt) = branch.doing.attempt() {
            self.attempts.remove(&attempt);
        }
        for (timer, _) in branch.doing.timers() {
            self.timers.remove(&timer);
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    pub id: ExecutionId,
    /// The execution's name, unique within its state machine.
    pub name: String,
    pub machine: MachineRef,
    pub status: Status,
    pub started_at: Timestamp,
    pub stopped_at: Option<Timestamp>,
    /// As the caller wrote it, white space included.
    pub input: Json,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Outcome>,
    /// Number of the newest history event.
    pub last_event: EventId,
    /// The next unused numbers.
    pub next_branch: BranchId,
    pub next_attempt: Attempt,
    pub next_timer: TimerId,
    /// The timer of the definition's own TimeoutSeconds.
    pub timeout_timer: Option<(TimerId, Timestamp)>,
    pub parent: Option<Parent>,
    /// Which run of a distributed Map it belongs to, where it is a child of one.
    pub child: Option<Arc<MapChild>>,
    pub redrive_count: u32,
    pub redriven_at: Option<Timestamp>,
    pub trace_header: Option<String>,
}

impl Header {
    /// No event that is to come lies before: when it was started, redriven last, or stopped.
    pub(super) fn last_at(&self) -> Timestamp {
        let others = self.redriven_at.into_iter().chain(self.stopped_at);
        others.fold(self.started_at, Timestamp::max)
    }

    /// What came out, of an execution that succeeded.
    pub fn output(&self) -> Option<&str> {
        match &self.outcome {
            Some(Outcome::Succeeded { output }) => Some(output),
            _ => None,
        }
    }

    /// Error and cause, of an execution that ended without success.
    pub fn failure(&self) -> (Option<&str>, Option<&str>) {
        match &self.outcome {
            None | Some(Outcome::Succeeded { .. }) => (None, None),
            Some(
                Outcome::Failed { error, cause }
                | Outcome::TimedOut { error, cause }
                | Outcome::Aborted { error, cause },
            ) => (error.as_deref(), cause.as_deref()),
        }
    }

    /// What stands for the state machine in its ARN: `machine`, or `machine/label` of a distributed Map's child.
    pub fn arn_machine(&self) -> Cow<'_, str> {
        match &self.child {
            None => Cow::Borrowed(&self.machine.name),
            Some(child) => Cow::Owned(format!("{}/{}", self.machine.name, child.label)),
        }
    }

    /// The list that shows it: its state machine's, or its Map run's.
    pub fn list(&self) -> Cow<'_, str> {
        match &self.child {
            None => Cow::Borrowed(&self.machine.name),
            Some(child) => Cow::Owned(run_list(&self.machine.name, &child.label, child.run)),
        }
    }
}

/// The list of a Map run's children: what follows `mapRun:` in its ARN. No state machine's name holds a slash.
pub fn run_list(machine: &str, label: &str, run: u128) -> String {
    format!("{machine}/{label}:{}", uuid::Uuid::from_u128(run))
}

/// The place of an execution in a run of a distributed Map: it runs that Map's processor, and its end is counted
/// by the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapChild {
    /// The run's own number, which its ARN ends in.
    pub run: u128,
    /// The execution that is in the Map, and the attempt that stands for the run there.
    pub parent: ExecutionId,
    pub attempt: Attempt,
    /// The Map state, and what its runs are called by.
    pub state: Arc<str>,
    pub label: Arc<str>,
    pub express: bool,
    /// The how manieth child of its run it is: results stand in this order.
    pub number: u32,
    /// How many items it was given.
    pub items: u32,
}

/// Which definition an execution runs: pinned at its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MachineRef {
    pub name: String,
    /// The revision of the definition.
    pub revision: u64,
    /// The version or alias through which it was started, when it was.
    pub qualifier: Option<Qualifier>,
}

/// What stood after the last colon of the ARN that an execution was started with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Qualifier {
    Version(u64),
    /// The version is the one that the alias led to then.
    Alias {
        name: String,
        version: u64,
    },
}

impl Qualifier {
    pub fn version(&self) -> u64 {
        match self {
            Qualifier::Version(version) | Qualifier::Alias { version, .. } => *version,
        }
    }

    pub fn alias(&self) -> Option<&str> {
        match self {
            Qualifier::Version(_) => None,
            Qualifier::Alias { name, .. } => Some(name),
        }
    }
}

/// The Task of another execution that waits for this one to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    pub execution: ExecutionId,
    pub attempt: Attempt,
    /// What to hand to the parent: see `resources` for what each shape means (`sync`, `sync2`, `job` ...).
    pub shape: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    Running,
    Succeeded,
    Failed,
    TimedOut,
    Aborted,
    PendingRedrive,
}

impl Status {
    /// As AWS spells it (Step Functions API reference, ExecutionStatus), on the wire and in what Tasks are given.
    pub fn name(self) -> &'static str {
        match self {
            Status::Running => "RUNNING",
            Status::Succeeded => "SUCCEEDED",
            Status::Failed => "FAILED",
            Status::TimedOut => "TIMED_OUT",
            Status::Aborted => "ABORTED",
            Status::PendingRedrive => "PENDING_REDRIVE",
        }
    }
}

/// One line of control.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// The branch that spawned it and its index there; `None` for the root.
    pub parent: Option<(BranchId, u32)>,
    /// The state it is in.
    pub state: Arc<str>,
    pub state_entered_at: Timestamp,
    /// The event that said so: `… (entered at the event id #7)`.
    pub state_entered_event: EventId,
    /// The state's raw input.
    pub input: Arc<Value>,
    /// The newest event of this line of control: what the next one names as its predecessor.
    pub previous_event: EventId,
    /// `Assign`ed in this branch's own scope.
    pub variables: BTreeMap<String, Arc<Value>>,
    /// Of a Map iteration: `$$.Map.Item`.
    pub map_item: Option<(u32, Item)>,
    /// Attempts used so far, per entry of the state's Retry; and their sum, `$$.State.RetryCount`.
    pub retries: Vec<u32>,
    pub doing: Doing,
}

impl Branch {
    /// A branch that is about to enter `state`.
    pub(super) fn new(parent: Option<(BranchId, u32)>, state: &Arc<str>, at: Timestamp) -> Branch {
        Branch {
            parent,
            state: state.clone(),
            state_entered_at: at,
            state_entered_event: EventId(0),
            input: Arc::new(Value::Null),
            previous_event: EventId(0),
            variables: BTreeMap::new(),
            map_item: None,
            retries: Vec::new(),
            doing: Doing::Halted,
        }
    }
}

/// What a branch is doing: every variant says what will wake it.
#[derive(Clone, Debug, PartialEq)]
pub enum Doing {
    /// About to enter its state: the step ran as many states as one step may. Woken by the timer, at once.
    Ready { timer: TimerId, due: Timestamp },
    /// Woken by the attempt's outcome or by one of its timers.
    Task {
        attempt: Attempt,
        phase: TaskPhase,
        nonce: u128,
        timeout: Option<(TimerId, Timestamp)>,
        heartbeat: Option<(TimerId, Timestamp)>,
        heartbeat_ms: Option<i64>,
    },
    /// A Wait state. Woken by the timer.
    Wait { timer: TimerId, due: Timestamp },
    /// A back-off before the next attempt. Woken by the timer.
    Retry { timer: TimerId, due: Timestamp },
    /// Woken by the end of one of its branches, which are `first .. first + count`. Their numbers are
    /// reserved when it starts.
    Parallel { first: BranchId, count: u32, running: u32, started_event: EventId },
    /// Woken by the end of one of its iterations. Iteration `i` is branch `first + i`: the numbers are
    /// reserved when the Map starts, so that this row never lists them.
    Map {
        first: BranchId,
        /// The first iteration that has not started.
        next_index: u32,
        running: u32,
        length: u32,
        /// 0: no bound.
        concurrency: u32,
        started_event: EventId,
        last_succeeded_event: EventId,
        /// Set where iterations could start and the step ran as many states as one step may.
        resume: Option<(TimerId, Timestamp)>,
    },
    /// A distributed Map. Woken by the end of its run, which starts and counts the children: this row knows none of
    /// them. `redrives` is how often the run was redriven.
    MapRun { attempt: Attempt, run: u128, redrives: u32, phase: RunPhase },
    /// Finished; waits for its siblings. Woken never, gathered by its parent.
    Done { output: Arc<Value> },
    /// The execution ended without success while the branch was in its state. Woken by a redrive, which
    /// enters the state again.
    Halted,
}

impl Doing {
    pub fn attempt(&self) -> Option<Attempt> {
        match self {
            Doing::Task { attempt, .. } | Doing::MapRun { attempt, phase: RunPhase::Running, .. } => Some(*attempt),
            _ => None,
        }
    }

    /// The timers that are set for it.
    pub fn timers(&self) -> impl Iterator<Item = (TimerId, Timestamp)> + use<> {
        let (one, other) = match self {
            Doing::Task { timeout, heartbeat, .. } => (*timeout, *heartbeat),
            Doing::Ready { timer, due } | Doing::Wait { timer, due } | Doing::Retry { timer, due } => {
                (Some((*timer, *due)), None)
            }
            Doing::Map { resume, .. } => (*resume, None),
            Doing::Parallel { .. } | Doing::MapRun { .. } | Doing::Done { .. } | Doing::Halted => (None, None),
        };
        one.into_iter().chain(other)
    }

    /// Whether nothing will wake it any more.
    pub fn is_settled(&self) -> bool {
        let over = matches!(self, Doing::MapRun { phase, .. } if *phase != RunPhase::Running);
        over || matches!(self, Doing::Done { .. } | Doing::Halted)
    }
}

/// How far a distributed Map's run has come, as its parent sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPhase {
    Running,
    /// It failed or was aborted: a redrive redrives it.
    Halted,
    /// Its result is on its way through the state. Never stored.
    Succeeded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPhase {
    Scheduled,
    Started,
    Submitted,
}

/// What one commit stores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The header after the step. `None` where the event changed nothing (a straggler).
    pub header: Option<Header>,
    /// Branches changed (`Some`) and ended (`None`).
    pub branches: BTreeMap<BranchId, Option<Branch>>,
    /// Maps that began (`Some`) and ended (`None`).
    pub items: BTreeMap<BranchId, Option<Arc<MapItems>>>,
    pub history: Vec<HistoryEvent>,
    pub commands: Vec<Command>,
}
