//! Nested executions: `states:startExecution` in its four patterns.
//!
//! The start and the Task's end, or its submission, are one commit. A child's name is derived from the parent and the
//! attempt where the definition gives none, so that an attempt that is issued again finds what it started.

use std::sync::Arc;

use conveyor_base::{TaskError, arn};
use conveyor_interpreter::{Outcome, Parent, Status};
use conveyor_run::{Handle, Refused, StartRequest, Started};
use conveyor_services::events::Lineage;
use serde_json::{Map, Value, json};

use super::aws::{self, HeaderStyle};
use super::{Adapter, Call, CallFuture, CallOutcome, Ended, EndedChild, OnChildEnded};

pub const NAMES: &[&str] = &[
    "states:startExecution",
    "states:startExecution.sync",
    "states:startExecution.sync:2",
    "states:startExecution.waitForTaskToken",
];

pub fn adapter(name: &str) -> Arc<dyn Adapter> {
    Arc::new(match name.strip_prefix("states:startExecution") {
        Some(".sync") => Pattern::Sync,
        Some(".sync:2") => Pattern::Sync2,
        Some(".waitForTaskToken") => Pattern::Token,
        _ => Pattern::FireAndForget,
    })
}

/// What the ends of children come to, by the shapes that Tasks ask for.
pub fn shapes() -> [(&'static str, OnChildEnded); 2] {
    [
        (SYNC, Box::new(|child| delivered(&child, Pattern::Sync))),
        (SYNC2, Box::new(|child| delivered(&child, Pattern::Sync2))),
    ]
}

/// Shapes in which a Task hears of the end of its child.
const SYNC: &str = "sync";
const SYNC2: &str = "sync2";

/// How a Task waits for the execution that it starts.
#[derive(Clone, Copy)]
enum Pattern {
    FireAndForget,
    /// `.sync`: the child's Output as a string.
    Sync,
    /// `.sync:2`: the child's Output as JSON.
    Sync2,
    /// `.waitForTaskToken`
    Token,
}

impl Adapter for Pattern {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(async { answer(call, *self) })
    }
}

fn answer(call: &Call, pattern: Pattern) -> Result<CallOutcome, TaskError> {
    let p = &call.parameters;
    let arn = aws::require_text(p, "StateMachineArn", "states:startExecution")?;
    let name = match call.text("Name") {
        Some(name) => name.to_owned(),
        None => derived_name(call),
    };
    let shape = match pattern {
        Pattern::Sync => Some(SYNC),
        Pattern::Sync2 => Some(SYNC2),
        Pattern::FireAndForget | Pattern::Token => None,
    };
    let (machine, qualifier) = machine_of(arn);
    let child = Child { machine, qualifier, name, input: input_text(p.get("Input")), shape };
    let (id, at) = (aws::request_id(call), call.handle.wall());
    Ok(start(call, child, move |started| {
        let started = started.map_err(|refused| {
            TaskError::new(
                format!("StepFunctions.{}Exception", refused.code),
                aws::optimised_cause(&refused.message, "AWSStepFunctions", 400, refused.code, &id),
            )
        })?;
        let answer = json!({
            "ExecutionArn": started.arn,
            "StartDate": started.started_at.0 as f64 / 1000.0,
        });
        let answer = aws::with_metadata(answer, &id, "application/x-amz-json-1.0", at, HeaderStyle::KeptAlive);
        Ok(match pattern {
            Pattern::FireAndForget => Ended::Done(answer),
            _ => Ended::Submitted(answer),
        })
    }))
}

/// An execution to be started for a Task.
pub struct Child {
    pub machine: String,
    /// Version or alias.
    pub qualifier: Option<String>,
    pub name: String,
    pub input: String,
    /// Set where the Task waits for the child's end: in which shape it wants to hear of it; or
    /// [`OWNED`](conveyor_run::OWNED) where the child must only not outlive a failure of the one that started it.
    pub shape: Option<&'static str>,
}

/// Starts the child, or finds the one that this very attempt started before. `shape` makes the Task's end of it, which
/// is in the commit of the child's start.
pub fn start(
    call: &Call,
    child: Child,
    shape: impl FnOnce(Result<Started, Refused>) -> Result<Ended, TaskError> + Send + 'static,
) -> CallOutcome {
    let parent = child.shape.map(|shape| Parent {
        execution: call.execution,
        attempt: call.task.attempt,
        shape: shape.to_owned(),
    });
    let request = StartRequest {
        machine: child.machine.clone(),
        qualifier: child.qualifier,
        name: Some(child.name.clone()),
        input: child.input.into(),
        parent: parent.clone(),
        // Which rules led here goes along, so that a rule does not start itself by way of a child.
        trace_header: Lineage::of_trace_header(call.trace_header.as_deref()).trace_header(&derived_name(call)),
        once: true,
    };
    let (handle, scheduled_at) = (call.handle.clone(), call.task.scheduled_at);
    let own = move |handle: &Handle, started: &Started| -> Result<bool, Refused> {
        if !started.existed {
            return Ok(true);
        }
        // Somebody else's execution would never tell this task of its end.
        Ok(handle.reader().summary(started.id)?.is_none_or(|h| match &parent {
            Some(_) => h.parent == parent,
            None => h.status == Status::Running || h.started_at >= scheduled_at,
        }))
    };
    CallOutcome::settle(move |attempt| {
        let asking = handle.clone();
        attempt.starts(&asking, request, move |started| {
            shape(started.clone().and_then(|started| match own(&handle, &started)? {
                true => Ok(started),
                false => {
                    let arn = arn::execution(handle.region(), handle.account(), &child.machine, &child.name);
                    Err(Refused::new("ExecutionAlreadyExists", format!("Execution Already Exists: '{arn}'")))
                }
            }))
        });
    })
}

fn derived_name(call: &Call) -> String {
    let seed = format!("{}/{}/child", call.execution, call.task.attempt);
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, seed.as_bytes()).to_string()
}

/// Machine and qualifier (version or alias) of an ARN; a bare name is a machine of this box.
fn machine_of(arn: &str) -> (String, Option<String>) {
    match arn.split_once(":stateMachine:").map(|(_, rest)| rest) {
        Some(rest) => match rest.split_once(':') {
            Some((machine, qualifier)) => (machine.to_owned(), Some(qualifier.to_owned())),
            None => (rest.to_owned(), None),
        },
        None => (arn.to_owned(), None),
    }
}

/// The input as the child gets it: text as it is, everything else as JSON; none is `{}`.
fn input_text(input: Option<&Value>) -> String {
    match input {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// What the end of a child means to the Task that waits for it.
fn delivered(child: &EndedChild, pattern: Pattern) -> Result<Value, TaskError> {
    let description = describe(child, pattern);
    if child.header.status == Status::Succeeded {
        return Ok(description);
    }
    Err(TaskError::new("States.TaskFailed", description.to_string()))
}

/// DescribeExecution's answer as the integration gives it: keys in alphabetical order, times in milliseconds.
fn describe(ended: &EndedChild, pattern: Pattern) -> Value {
    let json_value = |text: &str| match pattern {
        Pattern::Sync2 => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        _ => json!(text),
    };
    let (child, mut map) = (ended.header, Map::new());
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    let (error, cause) = child.failure();
    cause.iter().for_each(|cause| drop(put("Cause", json!(cause))));
    error.iter().for_each(|error| drop(put("Error", json!(error))));
    put("ExecutionArn", json!(ended.arn));
    put("Input", json_value(&child.input));
    put("InputDetails", json!({ "Included": true }));
    put("Name", json!(child.name));
    if let Some(Outcome::Succeeded { output }) = &child.outcome {
        put("Output", json_value(output));
        put("OutputDetails", json!({ "Included": true }));
    }
    put("StartDate", json!(child.started_at.0));
    put("StateMachineArn", json!(ended.machine_arn));
    put("Status", json!(child.status.name()));
    if let Some(at) = child.stopped_at {
        put("StopDate", json!(at.0));
    }
    Value::Object(map)
}
