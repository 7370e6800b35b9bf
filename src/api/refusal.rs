//! [`Refusal`]: what a door answers instead of what was asked for, and the one table that maps it to HTTP.

use axum::http::StatusCode;

use crate::base::{Fault, fault};

/// A request that was not carried out. `code` is AWS's exception name, at every door.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn new(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    pub fn status(&self) -> StatusCode {
        status(self.code)
    }

    pub fn invalid_arn(what: impl std::fmt::Display) -> Refusal {
        Refusal::new("InvalidArn", format!("Invalid Arn: '{what}'"))
    }

    pub fn invalid_token() -> Refusal {
        Refusal::new("InvalidToken", "Invalid Token: 'Invalid token'")
    }

    pub fn no_machine(arn: &str) -> Refusal {
        Refusal::new("StateMachineDoesNotExist", format!("State Machine Does Not Exist: '{arn}'"))
    }

    pub fn no_execution(arn: &str) -> Refusal {
        Refusal::new("ExecutionDoesNotExist", format!("Execution Does Not Exist: '{arn}'"))
    }

    pub fn no_activity(arn: &str) -> Refusal {
        Refusal::new("ActivityDoesNotExist", format!("Activity Does Not Exist: '{arn}'"))
    }

    pub fn validation(message: impl Into<String>) -> Refusal {
        Refusal::new("ValidationException", message)
    }

    /// Whether the appliance is at fault rather than the caller.
    pub fn is_ours(&self) -> bool {
        self.status().is_server_error()
    }
}

/// The error table. AWS answers 400 to whatever the caller did wrong; the exceptions are named here.
fn status(code: &str) -> StatusCode {
    match code {
        "InternalFailure" => StatusCode::INTERNAL_SERVER_ERROR,
        "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "ThrottlingException" | "ExecutionLimitExceeded" => StatusCode::TOO_MANY_REQUESTS,
        "MissingAuthenticationToken" | "InvalidSignatureException" | "UnrecognizedClientException" => {
            StatusCode::FORBIDDEN
        }
        "AccessDeniedException" => StatusCode::FORBIDDEN,
        "RequestEntityTooLargeException" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The status that REST clients expect, for which 404 and 409 are words of their own.
pub fn rest_status(code: &str) -> StatusCode {
    match code {
        "ExecutionDoesNotExist" | "StateMachineDoesNotExist" | "ActivityDoesNotExist" | "ResourceNotFound" => {
            StatusCode::NOT_FOUND
        }
        "ExecutionAlreadyExists" | "ExecutionNotRedrivable" | "StateMachineAlreadyExists" => StatusCode::CONFLICT,
        code => status(code),
    }
}

/// The environment failed. Callers may try again after a retryable fault; the details are for the log and are
/// shown here too, since who asks is the box's own operator.
impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        let code = match fault {
            Fault::Retryable { .. } => "ServiceUnavailable",
            Fault::Fatal { .. } => "InternalFailure",
        };
        Refusal::new(code, fault::chain(&fault))
    }
}
