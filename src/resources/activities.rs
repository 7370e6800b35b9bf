//! Work that an execution fetches and reports itself: `aws-sdk:sfn:getActivityTask` and `aws-sdk:sfn:sendTask…`.
//!
//! The token fences: a report that is issued again after a crash changes nothing, and says so as
//! `Sfn.TaskTimedOutException`. A task that was fetched and lost with the box is missed by its own heartbeat.

use std::sync::Arc;

use conveyor_base::{TaskError, TaskToken};
use conveyor_run::Refused;
use serde_json::json;

use super::aws::{self, require_text};
use super::{Adapter, Call, CallFuture, CallOutcome, fault};

pub const NAMES: &[&str] = &[
    "aws-sdk:sfn:getActivityTask",
    "aws-sdk:sfn:sendTaskSuccess",
    "aws-sdk:sfn:sendTaskFailure",
    "aws-sdk:sfn:sendTaskHeartbeat",
];

pub fn adapter(name: &str) -> Arc<dyn Adapter> {
    Arc::new(match name {
        "aws-sdk:sfn:sendTaskSuccess" => Action::Succeed,
        "aws-sdk:sfn:sendTaskFailure" => Action::Fail,
        "aws-sdk:sfn:sendTaskHeartbeat" => Action::Heartbeat,
        _ => Action::Fetch,
    })
}

#[derive(Clone, Copy)]
enum Action {
    /// Waits up to a minute; `{}` where there was no work.
    Fetch,
    Succeed,
    Fail,
    Heartbeat,
}

impl Adapter for Action {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(answer(call, *self))
    }
}

async fn answer(call: &Call, action: Action) -> Result<CallOutcome, TaskError> {
    let (p, handle) = (&call.parameters, &call.handle);
    let text = |name: &str| call.text(name).map(str::to_owned);
    let token = || require_text(p, "TaskToken", "aws-sdk:sfn");
    let done = match action {
        Action::Fetch => return fetch(call, text("WorkerName")).await,
        Action::Succeed => {
            let output = require_text(p, "Output", "aws-sdk:sfn:sendTaskSuccess")?;
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(output);
            match (token()?.parse::<TaskToken>(), is_json) {
                (Ok(_), Err(e)) => Err(Refused::new("InvalidOutput", format!("Invalid Output: '{e}'"))),
                _ => handle.send_task_success(token()?, output.into()).await,
            }
        }
        Action::Fail => handle.send_task_failure(token()?, text("Error"), text("Cause")).await,
        Action::Heartbeat => handle.send_task_heartbeat(token()?).await,
    };
    done.map(|()| CallOutcome::done(json!({}))).map_err(|refused| error(call, &refused))
}

async fn fetch(call: &Call, worker: Option<String>) -> Result<CallOutcome, TaskError> {
    let arn = require_text(&call.parameters, "ActivityArn", "aws-sdk:sfn:getActivityTask")?;
    let name = arn.split_once(":activity:").map_or(arn, |(_, name)| name);
    if call.handle.reader().activity(name).map_err(|e| fault(&e))?.is_none() {
        return Err(error(call, &Refused::no_activity(arn)));
    }
    let task = call.handle.activity_task(name, worker).await.map_err(|refused| error(call, &refused))?;
    Ok(CallOutcome::done(match task {
        Some(task) => json!({"Input": &*task.input, "TaskToken": task.token.to_string()}),
        None => json!({}),
    }))
}

fn error(call: &Call, refused: &Refused) -> TaskError {
    let cause = aws::sdk_cause(&refused.message, "Sfn", 400, &aws::request_id(call));
    TaskError::new(format!("Sfn.{}Exception", refused.code), format!("{cause} (SDK Attempt Count: 1)"))
}
