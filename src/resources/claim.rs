//! "Already processed?": who works on a content, by its hash. Atomic, so that of two executions one goes on.
//!
//! ```text
//! free ──claim──▶ held by E ──record──▶ done by E (for good)
//!   ▲                │ E failed, was stopped or timed out, or released it
//!   └────────────────┘
//! ```

use serde_json::{Value, json};

use super::aws::need_text;
use super::{Answer, Call, fault};
use crate::base::{TaskError, Timestamp};
use crate::interpreter::{Header, Status};
use crate::store::{Commit, FileRow};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `{"blake3", "input", "size", "execution"?}` to `{"claimed", "earlier"?}`.
    Claim,
    /// `{"blake3", "execution"?}`: gives the content free again.
    Release,
    /// `{"blake3", "result", "execution"?}`: the content is processed, and where its results are.
    Record,
}

pub async fn call(call: &Call, action: Action) -> Result<Answer, TaskError> {
    let hash = need_text(&call.parameters, "blake3", "conveyor:claim")?;
    let holder = holder(call)?;
    let _alone = call.services.claims.lock().await;
    let row = call.services.reader.file(hash).map_err(|e| fault(&e))?;
    let ours = row.as_ref().is_some_and(|row| row.execution == holder.id.into());
    match action {
        Action::Claim => {
            if let Some(row) = row.as_ref().filter(|_| !ours)
                && let Some(earlier) = earlier(call, row)?
            {
                return Ok(Answer::Done(json!({ "claimed": false, "earlier": earlier })));
            }
            if !ours {
                store(call, hash, &claimed(call, &holder)).await?;
            }
            Ok(Answer::Done(json!({ "claimed": true })))
        }
        Action::Release => {
            if ours && row.is_some_and(|row| row.result.is_empty()) {
                let mut commit = Commit::new();
                commit.delete_file(hash);
                call.handle.commit(commit).await.map_err(|e| fault(&e))?;
            }
            Ok(Answer::Done(json!({ "released": ours })))
        }
        Action::Record => {
            let mut row = row.filter(|_| ours).unwrap_or_else(|| claimed(call, &holder));
            row.result = call.parameters.get("result").cloned().unwrap_or_else(|| json!({})).to_string();
            store(call, hash, &row).await?;
            Ok(Answer::Done(json!({ "recorded": true })))
        }
    }
}

/// The execution that the claim belongs to: the one that was named, for a workflow that claims for its caller, or
/// the one that runs this Task.
fn holder(call: &Call) -> Result<Header, TaskError> {
    let arn = call.parameters.get("execution").and_then(Value::as_str).unwrap_or(&call.execution_arn);
    call.services.execution_of(arn)?.ok_or_else(|| {
        TaskError::new(
            "States.Runtime",
            format!("'{arn}' is no execution of this box; pass $$.Execution.Id as 'execution'"),
        )
    })
}

fn claimed(call: &Call, holder: &Header) -> FileRow {
    let p = &call.parameters;
    FileRow {
        uri: p.get("input").and_then(Value::as_str).unwrap_or_default().to_owned(),
        size_bytes: p.get("size").and_then(Value::as_u64).unwrap_or_default(),
        execution: holder.id.into(),
        claimed_at: call.handle.now().into(),
        result: String::new(),
    }
}

async fn store(call: &Call, hash: &str, row: &FileRow) -> Result<(), TaskError> {
    let mut commit = Commit::new();
    commit.put_file(hash, row);
    call.handle.commit(commit).await.map_err(|e| fault(&e))
}

/// What the earlier claim stands for; `None` where it no longer holds.
fn earlier(call: &Call, row: &FileRow) -> Result<Option<Value>, TaskError> {
    let id = row.execution.into();
    let header = call.services.reader.header(id).map_err(|e| fault(&e))?;
    let done = !row.result.is_empty();
    let holds = done || header.as_ref().is_some_and(|h| matches!(h.status, Status::Running | Status::Succeeded));
    if !holds {
        return Ok(None);
    }
    let mut earlier = json!({
        "executionId": id.to_string(),
        "input": row.uri,
        "claimedAt": Timestamp::from(row.claimed_at).to_string(),
    });
    earlier["execution"] = match &header {
        Some(h) => json!(call.services.execution_arn(&h.arn_machine(), &h.name)),
        // Retention has dropped it; its id is all that is left.
        None => json!(id.to_string()),
    };
    earlier["status"] = json!(match header {
        Some(h) if !done && h.status == Status::Running => "RUNNING",
        _ => "SUCCEEDED",
    });
    if done {
        earlier["result"] = serde_json::from_str(&row.result).unwrap_or(Value::Null);
    }
    Ok(Some(earlier))
}
