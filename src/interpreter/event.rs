//! What goes into `step` and which effects come out: facts in the past tense, commands in the imperative.

use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, TaskToken, TimerId, Timestamp};

/// JSON as text: what rows and history hold, exactly as it was decided.
pub type Json = Arc<str>;

/// An event with the time and the randomness that the decision may use, so that replaying it decides the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// By the wall clock, as people read it. Histories hold it; but for a Timestamp to wait for nothing is counted in it.
    pub at: Timestamp,
    /// By the box's own time, which nobody sets: whatever lasts is counted in it.
    pub box_at: Timestamp,
    pub seed: u128,
    pub event: Event,
}

/// A fact from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The execution exists (its header is built by [`super::Execution::start`]) and may run its first states.
    Started,
    /// A worker took up the attempt of an activity: `ActivityStarted`. For activities only: service tasks and
    /// functions are started by being scheduled, both events are decided in the same step, and this event
    /// changes nothing there. So a service task costs two commits, not three.
    TaskStarted {
        attempt: Attempt,
        worker: Option<String>,
    },
    /// The service accepted the work and somebody will report its end: `.sync`, `.waitForTaskToken`.
    /// `output` is the service's answer.
    TaskSubmitted {
        attempt: Attempt,
        output: Json,
    },
    TaskSucceeded {
        attempt: Attempt,
        output: Json,
    },
    TaskFailed {
        attempt: Attempt,
        error: Option<String>,
        cause: Option<String>,
    },
    /// The service refused the submission itself: `TaskSubmitFailed`.
    TaskSubmitFailed {
        attempt: Attempt,
        error: Option<String>,
        cause: Option<String>,
    },
    /// The attempt could not be started at all: `TaskStartFailed`, `LambdaFunctionScheduleFailed`.
    TaskStartFailed {
        attempt: Attempt,
        error: Option<String>,
        cause: Option<String>,
    },
    HeartbeatSeen {
        attempt: Attempt,
    },
    TimerFired {
        timer: TimerId,
    },
    /// StopExecution.
    Stopped {
        error: Option<String>,
        cause: Option<String>,
    },
    /// RedriveExecution.
    Redriven,
}

impl Event {
    /// Whether nothing runs for the attempt any more.
    pub(crate) fn ends_attempt(&self) -> bool {
        use Event::{TaskFailed, TaskStartFailed, TaskSubmitFailed, TaskSucceeded};
        matches!(self, TaskSucceeded { .. } | TaskFailed { .. } | TaskSubmitFailed { .. } | TaskStartFailed { .. })
    }
}

/// An effect that is wanted once the step is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    RunTask(Box<RunTask>),
    /// The attempt's outcome no longer matters: kill what runs for it.
    CancelTask {
        attempt: Attempt,
    },
    /// By the box's own time, or marked as by the wall clock: see [`Timestamp::by_wall`].
    SetTimer {
        timer: TimerId,
        due: Timestamp,
    },
    ClearTimer {
        timer: TimerId,
        due: Timestamp,
    },
    /// The execution ended: tell its parent and whoever listens.
    Deliver(Outcome),
}

/// One attempt of one Task state, ready to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunTask {
    pub attempt: Attempt,
    pub branch: BranchId,
    pub state: Arc<str>,
    /// The Resource as written in the definition, such as `arn:aws:states:::conveyor:probe`.
    pub resource: String,
    /// The task's effective parameters.
    pub parameters: Json,
    /// For `.waitForTaskToken` and activities; also what the context object showed as `$$.Task.Token`.
    pub token: Option<TaskToken>,
    pub timeout_ms: Option<i64>,
    pub heartbeat_ms: Option<i64>,
    /// How often this state was retried before this attempt: 0 for the first.
    pub retry_count: u32,
    pub scheduled_at: Timestamp,
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Succeeded { output: Json },
    Failed { error: Option<String>, cause: Option<String> },
    TimedOut { error: Option<String>, cause: Option<String> },
    Aborted { error: Option<String>, cause: Option<String> },
}
