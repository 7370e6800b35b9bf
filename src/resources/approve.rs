//! `conveyor:approve.waitForTaskToken`: a person decides. The Task waits; what is asked stands as a to-do on the
//! dashboard, with the media to judge.
//!
//! Parameters: `Title`, and where wanted `Question`, `Media` (an `s3://` name or a list of them) and any other fields,
//! which are shown as they are. Approving gives `{"approved": true, "by", "at", "comment"}`; rejecting fails the Task
//! with `Approval.Rejected` and the reason as cause.
//!
//! Invariant: the token stays in the store. A to-do whose Task has ended otherwise is dropped by whoever lists it.

use std::sync::Arc;

use serde_json::json;

use super::{Adapter, Answer, Answering, Call, fault};
use crate::base::TaskError;
use crate::store::{ApprovalRow, Commit};

/// What a rejected Task fails with.
pub const REJECTED: &str = "Approval.Rejected";

pub const NAMES: &[&str] = &["conveyor:approve.waitForTaskToken"];

pub fn adapter() -> Arc<dyn Adapter> {
    Arc::new(Asking)
}

struct Asking;

impl Adapter for Asking {
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a> {
        Box::pin(ask(call))
    }
}

async fn ask(call: &Call) -> Result<Answer, TaskError> {
    let Some(title) = call.text("Title") else {
        return Err(TaskError::new(
            "States.Runtime",
            "The field 'Title' is missing in the Parameters of conveyor:approve",
        ));
    };
    let Some(token) = &call.task.token else {
        let what = "conveyor:approve waits for a person: write the Resource with .waitForTaskToken";
        return Err(TaskError::new("States.Runtime", what));
    };
    let id = format!("{}-{}", call.execution, call.task.attempt);
    let row = ApprovalRow {
        token: token.to_string(),
        state: call.task.state.to_string(),
        title: title.to_owned(),
        asked: call.parameters.to_string(),
        since: call.task.scheduled_at.into(),
    };
    let mut commit = Commit::new();
    commit.put_approval(call.execution, call.task.attempt, &row);
    call.handle.commit(commit).await.map_err(|e| fault(&e))?;
    Ok(Answer::submitted(json!({"approval": id})))
}
