//! The durable snapshot of an execution, and what a step changes in it.
//!
//! What cannot be legal cannot be built: a branch is always doing exactly one thing ([`Doing`]), and that
//! thing names what will wake it. Each branch is a row of its own, so that a step costs what it touches.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::event::{Command, Json, Outcome};
use super::history::HistoryEvent;
use crate::base::{Attempt, BranchId, EventId, ExecutionId, TimerId, Timestamp};

/// An execution as it stands between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    pub header: Header,
    /// Live branches, and finished ones whose Parallel or Map still gathers. Empty once the execution ended.
    pub branches: BTreeMap<BranchId, Branch>,
    /// The items of each running Map, by the branch that is in the Map. Written once, when the Map starts,
    /// so that an iteration's end does not rewrite them.
    pub items: BTreeMap<BranchId, Arc<Vec<Value>>>,
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
    pub redrive_count: u32,
    pub redriven_at: Option<Timestamp>,
    pub trace_header: Option<String>,
}

/// Which definition an execution runs: pinned at its start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MachineRef {
    pub name: String,
    /// The revision of the definition.
    pub revision: u64,
    /// The version or alias through which it was started, when it was: the qualifier after the ARN's last colon.
    pub qualifier: Option<String>,
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
    pub map_item: Option<(u32, Arc<Value>)>,
    /// Attempts used so far, per entry of the state's Retry; and their sum, `$$.State.RetryCount`.
    pub retries: Vec<u32>,
    pub doing: Doing,
}

/// What a branch is doing: every variant says what will wake it.
#[derive(Clone, Debug, PartialEq)]
pub enum Doing {
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
    /// Woken by the end of one of its branches, which are `first .. first + count`.
    Parallel { first: BranchId, count: u32, running: u32, started_event: EventId },
    /// Woken by the end of one of its iterations.
    Map {
        next_index: u32,
        running: u32,
        failed: u32,
        length: u32,
        concurrency: u32,
        started_event: EventId,
        last_succeeded_event: EventId,
        children: Vec<BranchId>,
    },
    /// Finished; waits for its siblings. Woken never, gathered by its parent.
    Done { output: Arc<Value> },
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
    pub items: BTreeMap<BranchId, Option<Arc<Vec<Value>>>>,
    pub history: Vec<HistoryEvent>,
    pub commands: Vec<Command>,
}
