//! The event history of an execution: AWS's events, as types of our own. The wire's spelling is made by `api`.

use std::sync::Arc;

use conveyor_base::{EventId, Timestamp};

use super::event::Json;

#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent {
    pub id: EventId,
    pub previous: EventId,
    pub at: Timestamp,
    pub kind: HistoryKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum StateType {
    Task,
    Choice,
    Wait,
    Parallel,
    Map,
    Pass,
    Succeed,
    Fail,
}

impl StateType {
    pub fn of(kind: &conveyor_asl::Kind) -> StateType {
        use conveyor_asl::Kind;
        match kind {
            Kind::Task(_) => StateType::Task,
            Kind::Choice(_) => StateType::Choice,
            Kind::Wait(_) => StateType::Wait,
            Kind::Parallel(_) => StateType::Parallel,
            Kind::Map(_) => StateType::Map,
            Kind::Pass { .. } => StateType::Pass,
            Kind::Succeed => StateType::Succeed,
            Kind::Fail { .. } => StateType::Fail,
        }
    }

    /// The `Type` as definitions write it.
    pub fn name(self) -> &'static str {
        match self {
            StateType::Task => "Task",
            StateType::Choice => "Choice",
            StateType::Wait => "Wait",
            StateType::Parallel => "Parallel",
            StateType::Map => "Map",
            StateType::Pass => "Pass",
            StateType::Succeed => "Succeed",
            StateType::Fail => "Fail",
        }
    }
}

/// `error` and `cause` of a failure; AWS leaves out what is absent.
#[derive(Clone, Debug, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    pub error: Option<String>,
    pub cause: Option<String>,
}

/// What happened (AWS Step Functions API reference, HistoryEvent).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum HistoryKind {
    ExecutionStarted {
        input: Json,
        role_arn: String,
    },
    ExecutionSucceeded {
        output: Json,
    },
    ExecutionFailed(Failure),
    ExecutionAborted(Failure),
    ExecutionTimedOut(Failure),
    ExecutionRedriven {
        redrive_count: u32,
    },
    /// `PassStateEntered`, `TaskStateEntered` ...
    StateEntered {
        state_type: StateType,
        name: Arc<str>,
        input: Json,
    },
    StateExited {
        state_type: StateType,
        name: Arc<str>,
        output: Json,
        assigned: Vec<(String, Json)>,
    },
    /// `TaskStateAborted`, `WaitStateAborted`, `ParallelStateAborted`, `MapStateAborted`.
    StateAborted {
        state_type: StateType,
    },
    ParallelStateStarted,
    ParallelStateSucceeded,
    ParallelStateFailed(Failure),
    MapStateStarted {
        length: u32,
    },
    MapStateSucceeded,
    MapStateFailed(Failure),
    /// A distributed Map's run.
    MapRunStarted {
        arn: String,
    },
    MapRunSucceeded,
    MapRunFailed(Failure),
    MapRunAborted,
    MapRunRedriven {
        arn: String,
        redrive_count: u32,
    },
    MapIterationStarted {
        name: Arc<str>,
        index: u32,
    },
    MapIterationSucceeded {
        name: Arc<str>,
        index: u32,
    },
    MapIterationFailed {
        name: Arc<str>,
        index: u32,
    },
    MapIterationAborted {
        name: Arc<str>,
        index: u32,
    },
    TaskScheduled {
        resource_type: String,
        resource: String,
        region: String,
        parameters: Json,
        timeout_seconds: Option<i64>,
        heartbeat_seconds: Option<i64>,
    },
    TaskStarted {
        resource_type: String,
        resource: String,
    },
    TaskSubmitted {
        resource_type: String,
        resource: String,
        output: Json,
    },
    TaskSucceeded {
        resource_type: String,
        resource: String,
        output: Json,
    },
    TaskFailed {
        resource_type: String,
        resource: String,
        failure: Failure,
    },
    TaskTimedOut {
        resource_type: String,
        resource: String,
        failure: Failure,
    },
    TaskStartFailed {
        resource_type: String,
        resource: String,
        failure: Failure,
    },
    TaskSubmitFailed {
        resource_type: String,
        resource: String,
        failure: Failure,
    },
    ActivityScheduled {
        resource: String,
        input: Json,
        timeout_seconds: Option<i64>,
        heartbeat_seconds: Option<i64>,
    },
    ActivityStarted {
        worker: Option<String>,
    },
    ActivitySucceeded {
        output: Json,
    },
    ActivityFailed(Failure),
    ActivityTimedOut(Failure),
    ActivityScheduleFailed(Failure),
    LambdaFunctionScheduled {
        resource: String,
        input: Json,
        timeout_seconds: Option<i64>,
    },
    LambdaFunctionStarted,
    LambdaFunctionSucceeded {
        output: Json,
    },
    LambdaFunctionFailed(Failure),
    LambdaFunctionTimedOut(Failure),
    LambdaFunctionScheduleFailed(Failure),
    LambdaFunctionStartFailed(Failure),
    EvaluationFailed {
        failure: Failure,
        location: Option<String>,
        state: Arc<str>,
    },
}

impl HistoryKind {
    /// About how many bytes of memory its texts take.
    pub fn bytes(&self) -> usize {
        let failure =
            |failure: &Failure| [&failure.error, &failure.cause].into_iter().flatten().map(String::len).sum::<usize>();
        match self {
            HistoryKind::StateExited { output, assigned, .. } => {
                output.len() + assigned.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
            }
            HistoryKind::ExecutionStarted { input: text, .. }
            | HistoryKind::ExecutionSucceeded { output: text }
            | HistoryKind::StateEntered { input: text, .. }
            | HistoryKind::TaskScheduled { parameters: text, .. }
            | HistoryKind::TaskSubmitted { output: text, .. }
            | HistoryKind::TaskSucceeded { output: text, .. }
            | HistoryKind::ActivityScheduled { input: text, .. }
            | HistoryKind::ActivitySucceeded { output: text }
            | HistoryKind::LambdaFunctionScheduled { input: text, .. }
            | HistoryKind::LambdaFunctionSucceeded { output: text } => text.len(),
            HistoryKind::ExecutionFailed(told)
            | HistoryKind::ExecutionAborted(told)
            | HistoryKind::ExecutionTimedOut(told)
            | HistoryKind::ParallelStateFailed(told)
            | HistoryKind::MapStateFailed(told)
            | HistoryKind::MapRunFailed(told)
            | HistoryKind::TaskFailed { failure: told, .. }
            | HistoryKind::TaskTimedOut { failure: told, .. }
            | HistoryKind::TaskStartFailed { failure: told, .. }
            | HistoryKind::TaskSubmitFailed { failure: told, .. }
            | HistoryKind::ActivityFailed(told)
            | HistoryKind::ActivityTimedOut(told)
            | HistoryKind::ActivityScheduleFailed(told)
            | HistoryKind::LambdaFunctionFailed(told)
            | HistoryKind::LambdaFunctionTimedOut(told)
            | HistoryKind::LambdaFunctionScheduleFailed(told)
            | HistoryKind::LambdaFunctionStartFailed(told)
            | HistoryKind::EvaluationFailed { failure: told, .. } => failure(told),
            _ => 0,
        }
    }
}
