//! `conveyor:claim`, `conveyor:release` and `conveyor:record` as Tasks.

use std::sync::Arc;

use conveyor_base::{ExecutionId, Fault, TaskError, Timestamp, arn};
use conveyor_interpreter::Status;
use conveyor_services::claims::{Claims, ContentLocation, Reply, Request};
use conveyor_store::{ClaimRow, ExecutionSummary, Reader};
use serde_json::{Value, json};

use super::aws::require_text;
use super::{Adapter, Call, CallFuture, CallOutcome, Ended, fault};

pub const NAMES: &[&str] = &["conveyor:claim", "conveyor:release", "conveyor:record"];

pub fn adapter(name: &str, claims: &Claims) -> Arc<dyn Adapter> {
    let action = match name {
        "conveyor:release" => Action::Release,
        "conveyor:record" => Action::Record,
        _ => Action::Claim,
    };
    Arc::new(Claiming { action, claims: claims.clone() })
}

#[derive(Clone, Copy)]
enum Action {
    /// `{"blake3", "input", "size", "execution"?}` to `{"claimed", "earlier"?}`.
    Claim,
    /// `{"blake3", "execution"?}`: gives the content free again.
    Release,
    /// `{"blake3", "result", "execution"?}`: the content is processed, and where its results are.
    Record,
}

struct Claiming {
    action: Action,
    claims: Claims,
}

impl Adapter for Claiming {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.answer(call))
    }
}

impl Claiming {
    async fn answer(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let p = &call.parameters;
        let hash = require_text(p, "blake3", "conveyor:claim")?.to_owned();
        let holder = holder(call)?;
        let location = ContentLocation {
            uri: call.text("input").unwrap_or_default().to_owned(),
            size_bytes: p.get("size").and_then(Value::as_u64).unwrap_or_default(),
        };
        let request = match self.action {
            Action::Claim => Request::Claim(location),
            Action::Release => Request::Release,
            Action::Record => {
                Request::Record(location, p.get("result").map_or_else(|| "{}".to_owned(), Value::to_string))
            }
        };
        let (claims, region) = (self.claims.clone(), call.handle.region().to_owned());
        let account = call.handle.account().to_owned();
        Ok(CallOutcome::settle(move |attempt| {
            let shape = move |reply: &Reply| Ok(Ended::Done(answer(reply, &region, &account)));
            claims.send(&hash, holder, request, attempt.into_requester(shape));
        }))
    }
}

/// The execution that the claim belongs to: the one that was named, for a workflow that claims for its caller, or the
/// one that runs this Task.
fn holder(call: &Call) -> Result<ExecutionId, TaskError> {
    let arn = call.text("execution").unwrap_or(&call.execution_arn);
    named(call.handle.reader(), arn).map_err(|e| fault(&e))?.ok_or_else(|| {
        TaskError::new(
            "States.Runtime",
            format!("'{arn}' is no execution of this box; pass $$.Execution.Id as 'execution'"),
        )
    })
}

/// The execution that an ARN names.
pub(super) fn named(reader: &Reader, arn: &str) -> Result<Option<ExecutionId>, Fault> {
    let parts: Vec<&str> = arn.splitn(8, ':').collect();
    match parts.as_slice() {
        [_, _, _, _, _, _, machine, name] => reader.by_name(machine, name),
        _ => Ok(None),
    }
}

fn answer(reply: &Reply, region: &str, account: &str) -> Value {
    match reply {
        Reply::Claimed => json!({ "claimed": true }),
        Reply::Earlier(row, header) => {
            json!({ "claimed": false, "earlier": earlier(row, header.as_deref(), region, account) })
        }
        Reply::Released(ours) => json!({ "released": ours }),
        Reply::Recorded => json!({ "recorded": true }),
    }
}

/// What an earlier claim stands for.
fn earlier(row: &ClaimRow, header: Option<&ExecutionSummary>, region: &str, account: &str) -> Value {
    let (id, done) = (ExecutionId::from(row.execution), !row.result.is_empty());
    let mut earlier = json!({
        "executionId": id.to_string(),
        "input": row.uri,
        "claimedAt": Timestamp::from(row.claimed_at).to_string(),
    });
    earlier["execution"] = match header {
        Some(h) => json!(arn::execution(region, account, &h.arn_machine(), &h.name)),
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
    earlier
}
