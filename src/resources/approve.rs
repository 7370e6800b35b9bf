//! `conveyor:approve.waitForTaskToken`: a person decides. The Task waits; what is asked stands as a to-do on the
//! dashboard, with the media to judge.
//!
//! Parameters: `Title`, and where wanted `Question`, `Media` (an `s3://` name or a list of them) and any other fields,
//! which are shown as they are. Approving gives `{"approved": true, "by", "at", "comment"}`; rejecting fails the Task
//! with `Approval.Rejected` and the reason as cause.

use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_services::approvals::Approvals;
use conveyor_store::ApprovalRow;
use serde_json::json;

use super::{Adapter, Call, CallFuture, CallOutcome, Ended};

/// What a rejected Task fails with.
pub const REJECTED: &str = "Approval.Rejected";

pub const NAMES: &[&str] = &["conveyor:approve.waitForTaskToken"];

pub fn adapter(approvals: &Approvals) -> Arc<dyn Adapter> {
    Arc::new(Asking(approvals.clone()))
}

struct Asking(Approvals);

impl Adapter for Asking {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(async { self.ask(call) })
    }
}

impl Asking {
    fn ask(&self, call: &Call) -> Result<CallOutcome, TaskError> {
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
        let key = (call.execution, call.task.attempt);
        let row = ApprovalRow {
            token: token.to_string(),
            state: call.task.state.to_string(),
            title: title.to_owned(),
            asked: call.parameters.to_string(),
            since: call.task.scheduled_at.into(),
        };
        let approvals = self.0.clone();
        Ok(CallOutcome::settle(move |attempt| {
            let id = format!("{}-{}", key.0, key.1);
            approvals.ask(key, row, attempt.into_requester(move |()| Ok(Ended::Submitted(json!({ "approval": id })))));
        }))
    }
}
