//! Work that an execution fetches and reports itself: `aws-sdk:sfn:getActivityTask` and `aws-sdk:sfn:sendTask…`.
//!
//! The token fences: a report that is issued again after a crash changes nothing, and says so as
//! `Sfn.TaskTimedOutException`. A task that was fetched and lost with the box is missed by its own heartbeat.

use serde_json::{Value, json};

use super::aws::{self, need_text};
use super::{Answer, Call, fault};
use crate::base::{TaskError, TaskToken};
use crate::run::Refused;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Waits up to a minute; `{}` where there was no work.
    Fetch,
    Succeed,
    Fail,
    Heartbeat,
}

impl Action {
    /// The action that `aws-sdk:sfn:NAME` names.
    pub fn named(name: &str) -> Option<Action> {
        Some(match name {
            "getActivityTask" => Action::Fetch,
            "sendTaskSuccess" => Action::Succeed,
            "sendTaskFailure" => Action::Fail,
            "sendTaskHeartbeat" => Action::Heartbeat,
            _ => return None,
        })
    }
}

pub async fn call(call: &Call, action: Action) -> Result<Answer, TaskError> {
    let (p, handle) = (&call.parameters, &call.handle);
    let text = |name: &str| p.get(name).and_then(Value::as_str).map(str::to_owned);
    let token = || need_text(p, "TaskToken", "aws-sdk:sfn");
    let done = match action {
        Action::Fetch => return fetch(call, text("WorkerName")).await,
        Action::Succeed => {
            let output = need_text(p, "Output", "aws-sdk:sfn:sendTaskSuccess")?;
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(output);
            match (token()?.parse::<TaskToken>(), is_json) {
                (Ok(_), Err(e)) => Err(Refused::new("InvalidOutput", format!("Invalid Output: '{e}'"))),
                _ => handle.send_task_success(token()?, output.into()).await,
            }
        }
        Action::Fail => handle.send_task_failure(token()?, text("Error"), text("Cause")).await,
        Action::Heartbeat => handle.send_task_heartbeat(token()?).await,
    };
    done.map(|()| Answer::Done(json!({}))).map_err(|refused| error(call, &refused))
}

async fn fetch(call: &Call, worker: Option<String>) -> Result<Answer, TaskError> {
    let arn = need_text(&call.parameters, "ActivityArn", "aws-sdk:sfn:getActivityTask")?;
    let name = arn.split_once(":activity:").map_or(arn, |(_, name)| name);
    if call.services.reader.activity(name).map_err(|e| fault(&e))?.is_none() {
        return Err(error(call, &Refused::no_activity(arn)));
    }
    let task = call.handle.activity_task(name, worker).await.map_err(|refused| error(call, &refused))?;
    Ok(Answer::Done(match task {
        Some(task) => json!({"Input": &*task.input, "TaskToken": task.token.to_string()}),
        None => json!({}),
    }))
}

fn error(call: &Call, refused: &Refused) -> TaskError {
    let cause = aws::sdk_cause(&refused.message, "Sfn", 400, &aws::request_id(call));
    TaskError::new(format!("Sfn.{}Exception", refused.code), format!("{cause} (SDK Attempt Count: 1)"))
}
