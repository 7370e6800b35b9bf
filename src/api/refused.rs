//! The one table that maps a refusal to HTTP, and the refusals that only a door can have.

use axum::http::StatusCode;

pub use crate::run::Refused;

impl Refused {
    /// The status at the AWS door.
    pub fn status(&self) -> StatusCode {
        status(self.code)
    }

    pub fn invalid_arn(what: impl std::fmt::Display) -> Refused {
        Refused::new("InvalidArn", format!("Invalid Arn: '{what}'"))
    }

    pub fn invalid_page_token() -> Refused {
        Refused::new("InvalidToken", "Invalid Token: 'Invalid token'")
    }

    /// What standard state machines can and express ones cannot, or the other way round.
    pub fn wrong_type() -> Refused {
        let words = "This operation is not supported by this type of state machine";
        Refused::new("StateMachineTypeNotSupported", words)
    }

    pub fn validation(message: impl Into<String>) -> Refused {
        Refused::new("ValidationException", message)
    }
}

/// The error table. AWS answers 400 to whatever the caller did wrong; the exceptions are named here.
fn status(code: &str) -> StatusCode {
    match code {
        "InternalFailure" => StatusCode::INTERNAL_SERVER_ERROR,
        "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "ThrottlingException" | "ExecutionLimitExceeded" => StatusCode::TOO_MANY_REQUESTS,
        "MissingAuthenticationToken"
        | "InvalidSignatureException"
        | "UnrecognizedClientException"
        | "AccessDeniedException" => StatusCode::FORBIDDEN,
        "Unauthorized" => StatusCode::UNAUTHORIZED,
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
        "ExecutionAlreadyExists"
        | "ExecutionNotRedrivable"
        | "StateMachineAlreadyExists"
        | "ConflictException"
        | "TaskTimedOut" => StatusCode::CONFLICT,
        "InsufficientStorage" => StatusCode::INSUFFICIENT_STORAGE,
        code => status(code),
    }
}
