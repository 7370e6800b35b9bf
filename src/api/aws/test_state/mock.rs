//! What a mock may be: of which states, of which form, and true to the model of the service that it stands for.

use conveyor_asl::{Kind, ProcessorMode, State};
use conveyor_base::limits::{CAUSE_CHARS_MAX, ERROR_CHARS_MAX};
use conveyor_interpreter::Mock;
use serde_json::Value;

use super::models::{self, Strictness};
use crate::ApiError;
use crate::aws::fields::Fields;

const MODES: &[&str] = &["STRICT", "PRESENT", "NONE"];

/// A mock as it was asked for.
pub struct MockInput {
    result: Option<String>,
    error: Option<(Option<String>, Option<String>)>,
    strictness: Strictness,
}

/// A mock that is one.
pub struct CheckedMock {
    pub mock: Mock,
    result: Option<Value>,
    strictness: Strictness,
}

/// The mock of a request; what is wrong with it is added to its problems.
pub fn of(fields: &mut Fields) -> Option<MockInput> {
    let mut inner = fields.inside("mock")?;
    let result = inner.payload("result");
    let error = inner.inside("errorOutput").map(|mut output| {
        let parts = (output.optional("error", ERROR_CHARS_MAX), output.optional("cause", CAUSE_CHARS_MAX));
        inner.absorb(output);
        parts
    });
    let strictness = match inner.one_of("fieldValidationMode", MODES).as_deref() {
        Some("NONE") => Strictness::None,
        Some("PRESENT") => Strictness::Present,
        _ => Strictness::Strict,
    };
    fields.absorb(inner);
    Some(MockInput { result, error, strictness })
}

impl CheckedMock {
    pub fn read(asked: MockInput) -> Result<CheckedMock, ApiError> {
        let strictness = asked.strictness;
        match (asked.result, asked.error) {
            (Some(text), None) => {
                let result = serde_json::from_str(&text)
                    .map_err(|_| ApiError::validation("Mocked result must be valid JSON"))?;
                Ok(CheckedMock { mock: Mock::Result(text.into()), result: Some(result), strictness })
            }
            (None, Some((error, cause))) => {
                Ok(CheckedMock { mock: Mock::Error { error, cause }, result: None, strictness })
            }
            _ => {
                let words = "A test mock should have only one of the following fields: [result, errorOutput].";
                Err(ApiError::validation(words))
            }
        }
    }
}

/// Whether the state may be tried out with that mock, or without one.
pub fn check(state: &State, mocked: Option<&CheckedMock>) -> Result<(), ApiError> {
    let Some(mocked) = mocked else { return check_unmocked(state) };
    let result = mocked.result.as_ref();
    match &state.kind {
        Kind::Task(task) => match result {
            Some(result) => models::check(&task.resource, result, mocked.strictness)
                .map_err(|what| ApiError::validation(format!("Mock result schema validation error: {what}"))),
            None => Ok(()),
        },
        Kind::Parallel(branches) => match result {
            Some(Value::Array(items)) if items.len() == branches.len() => Ok(()),
            Some(Value::Array(_)) => Err(ApiError::validation(
                "Mocked result must contain the same number of items as number of Parallel branches.",
            )),
            Some(_) => Err(ApiError::validation("Mocked result must be an array.")),
            None => Ok(()),
        },
        Kind::Map(map) => {
            let writes = map.distributed.writer.is_some();
            match result {
                Some(result) if writes && !result.is_object() => {
                    Err(ApiError::validation("Mocked result must be a JSON object."))
                }
                Some(result) if !writes && !result.is_array() => {
                    Err(ApiError::validation("Mocked result must be an array."))
                }
                _ => Ok(()),
            }
        }
        other => {
            let kind = type_name(other);
            Err(ApiError::validation(format!("State type '{kind}' is not supported when a mock is specified")))
        }
    }
}

/// What only a mock can answer.
fn check_unmocked(state: &State) -> Result<(), ApiError> {
    let kind = match &state.kind {
        Kind::Map(map) if map.processor.mode == ProcessorMode::Distributed => "Distributed Map",
        kind @ (Kind::Map(_) | Kind::Parallel(_)) => type_name(kind),
        Kind::Task(task) if needs_mock(&task.resource) => {
            let words = format!("Resource '{}' is only supported when a mock is specified", task.resource);
            return Err(ApiError::validation(words));
        }
        _ => return Ok(()),
    };
    Err(ApiError::validation(format!("State type '{kind}' is only supported when a mock is specified")))
}

fn needs_mock(resource: &str) -> bool {
    let last = resource.rsplit(':').next().unwrap_or_default();
    let is_activity = resource.split(':').nth(5) == Some("activity");
    is_activity || resource.ends_with(".waitForTaskToken") || resource.contains(".sync") || last == "2"
}

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Task(_) => "Task",
        Kind::Choice(_) => "Choice",
        Kind::Wait(_) => "Wait",
        Kind::Parallel(_) => "Parallel",
        Kind::Map(_) => "Map",
        Kind::Pass { .. } => "Pass",
        Kind::Succeed => "Succeed",
        Kind::Fail { .. } => "Fail",
    }
}
