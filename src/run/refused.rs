//! [`Refused`]: a call that was not carried out, by AWS's exception names.

use conveyor_base::{Fault, fault};

/// A call that was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// AWS's exception name, such as `ExecutionDoesNotExist`. `api` maps it to an HTTP status.
    pub code: &'static str,
    pub message: String,
}

impl Refused {
    pub fn new(code: &'static str, message: impl Into<String>) -> Refused {
        Refused { code, message: message.into() }
    }

    /// Whether the same call may be taken later: the box is busy, full or on its way back. Whoever starts something by
    /// itself tries again then.
    pub fn is_transient(&self) -> bool {
        matches!(self.code, "ServiceUnavailable" | "InternalFailure" | "ExecutionLimitExceeded")
    }

    /// Whether stored bytes that the call needs are damaged: the same call is answered the same until they are repaired.
    pub fn is_damage(&self) -> bool {
        self.code == "StoreDamaged"
    }

    /// Nothing begins any more, or who was to answer is gone: the same call is taken after the restart.
    pub fn closing() -> Refused {
        Refused::new("ServiceUnavailable", "the appliance is shutting down")
    }

    pub fn no_machine(arn: &str) -> Refused {
        Refused::new("StateMachineDoesNotExist", format!("State Machine Does Not Exist: '{arn}'"))
    }

    pub fn no_execution(what: impl std::fmt::Display) -> Refused {
        Refused::new("ExecutionDoesNotExist", format!("Execution Does Not Exist: '{what}'"))
    }

    /// Of aliases and of what they lead to.
    pub fn no_reference() -> Refused {
        Refused::new("ResourceNotFound", "Request references a resource that does not exist.")
    }

    pub fn no_resource(arn: &str) -> Refused {
        Refused::new("ResourceNotFound", format!("Resource not found: '{arn}'"))
    }

    pub fn no_activity(arn: &str) -> Refused {
        Refused::new("ActivityDoesNotExist", format!("Activity Does Not Exist: '{arn}'"))
    }

    pub fn invalid_token() -> Refused {
        Refused::new("InvalidToken", "Invalid Token: 'Invalid token'")
    }

    pub fn task_timed_out() -> Refused {
        Refused::new("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'")
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        let code = match fault {
            Fault::Retryable { .. } => "ServiceUnavailable",
            Fault::Damaged { .. } => "StoreDamaged",
            Fault::Fatal { .. } => "InternalFailure",
        };
        Refused::new(code, fault::chain(&fault))
    }
}
