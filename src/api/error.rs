//! [`ApiError`]: a call that was not carried out, and the one table that maps it to HTTP.

use axum::http::{HeaderMap, StatusCode, header};
use conveyor_base::Fault;
use conveyor_run::Refused;
use conveyor_run::service::Unavailable;

/// A call that was not carried out: refused below, or by the API itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// AWS's exception name, such as `ExecutionDoesNotExist`.
    pub code: &'static str,
    pub message: String,
    /// After how many seconds the caller may try again, where it is for coming too often.
    pub retry_after_secs: Option<u64>,
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        ApiError::new(refused.code, refused.message)
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> ApiError {
        Refused::from(fault).into()
    }
}

impl From<Unavailable> for ApiError {
    fn from(unavailable: Unavailable) -> ApiError {
        Refused::from(unavailable).into()
    }
}

impl ApiError {
    pub fn new(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { code, message: message.into(), retry_after_secs: None }
    }

    /// Says in `Retry-After` (RFC 9110, section 10.2.3) when to come again.
    pub fn put_retry_after(&self, headers: &mut HeaderMap) {
        if self.code == "ThrottlingException" {
            headers.insert(header::RETRY_AFTER, self.retry_after_secs.unwrap_or(1).into());
        }
    }

    pub fn no_machine(arn: &str) -> ApiError {
        Refused::no_machine(arn).into()
    }

    pub fn no_execution(what: impl std::fmt::Display) -> ApiError {
        Refused::no_execution(what).into()
    }

    pub fn no_reference() -> ApiError {
        Refused::no_reference().into()
    }

    pub fn no_resource(arn: &str) -> ApiError {
        Refused::no_resource(arn).into()
    }

    pub fn no_activity(arn: &str) -> ApiError {
        Refused::no_activity(arn).into()
    }

    pub fn invalid_token() -> ApiError {
        Refused::invalid_token().into()
    }

    /// The status in the AWS protocol.
    pub fn status(&self) -> StatusCode {
        status(self.code)
    }

    pub fn invalid_arn(what: impl std::fmt::Display) -> ApiError {
        ApiError::new("InvalidArn", format!("Invalid Arn: '{what}'"))
    }

    pub fn invalid_page_token() -> ApiError {
        ApiError::new("InvalidToken", "Invalid Token: 'Invalid token'")
    }

    /// What standard state machines can and express ones cannot, or the other way round.
    pub fn wrong_type() -> ApiError {
        let words = "This operation is not supported by this type of state machine";
        ApiError::new("StateMachineTypeNotSupported", words)
    }

    pub fn validation(message: impl Into<String>) -> ApiError {
        ApiError::new("ValidationException", message)
    }
}

/// The error table. AWS answers 400 to whatever the caller did wrong; the exceptions are named here.
fn status(code: &str) -> StatusCode {
    match code {
        "InternalFailure" | "StoreDamaged" => StatusCode::INTERNAL_SERVER_ERROR,
        "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "ThrottlingException" | "ExecutionLimitExceeded" => StatusCode::TOO_MANY_REQUESTS,
        "MissingAuthenticationToken"
        | "InvalidSignatureException"
        | "UnrecognizedClientException"
        | "AccessDeniedException" => StatusCode::FORBIDDEN,
        "Unauthorized" => StatusCode::UNAUTHORIZED,
        "RequestEntityTooLargeException" => StatusCode::PAYLOAD_TOO_LARGE,
        "RequestTimeout" => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The status that REST clients expect, for which 404 and 409 are words of their own.
pub fn rest_status(code: &str) -> StatusCode {
    match code {
        "ExecutionDoesNotExist" | "StateMachineDoesNotExist" | "ActivityDoesNotExist" | "ResourceNotFound" => {
            StatusCode::NOT_FOUND
        }
        "ExecutionAlreadyExists"
        | "ExecutionNotRedrivable"
        | "StateMachineAlreadyExists"
        | "ConflictException"
        | "TaskTimedOut" => StatusCode::CONFLICT,
        "InsufficientStorage" => StatusCode::INSUFFICIENT_STORAGE,
        code => status(code),
    }
}
