//! `conveyor:claim`, `conveyor:release` and `conveyor:record` as Tasks.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Claims, Content};
use crate::base::TaskError;
use crate::interpreter::Header;
use crate::resources::aws::need_text;
use crate::resources::{Adapter, Answer, Answering, Call, fault};

pub const NAMES: &[&str] = &["conveyor:claim", "conveyor:release", "conveyor:record"];

pub fn adapter(name: &str, claims: &Arc<Claims>) -> Arc<dyn Adapter> {
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
    claims: Arc<Claims>,
}

impl Adapter for Claiming {
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a> {
        Box::pin(self.answer(call))
    }
}

impl Claiming {
    async fn answer(&self, call: &Call) -> Result<Answer, TaskError> {
        let (claims, p) = (&self.claims, &call.parameters);
        let hash = need_text(p, "blake3", "conveyor:claim")?;
        let holder = self.holder(call)?;
        let uri = call.text("input").unwrap_or_default();
        let content = Content { hash, uri, size_bytes: p.get("size").and_then(Value::as_u64).unwrap_or_default() };
        let answer = match self.action {
            Action::Claim => match claims.claim(&call.handle, content, &holder).await {
                Ok(Some(earlier)) => Ok(json!({ "claimed": false, "earlier": earlier })),
                Ok(None) => Ok(json!({ "claimed": true })),
                Err(e) => Err(e),
            },
            Action::Release => {
                claims.release(&call.handle, hash, &holder).await.map(|ours| json!({ "released": ours }))
            }
            Action::Record => {
                let result = p.get("result").cloned().unwrap_or_else(|| json!({}));
                let recorded = claims.record(&call.handle, content, &holder, &result).await;
                recorded.map(|()| json!({ "recorded": true }))
            }
        };
        answer.map(Answer::done).map_err(|e| fault(&e))
    }

    /// The execution that the claim belongs to: the one that was named, for a workflow that claims for its caller, or
    /// the one that runs this Task.
    fn holder(&self, call: &Call) -> Result<Header, TaskError> {
        let arn = call.text("execution").unwrap_or(&call.execution_arn);
        self.claims.execution(arn).map_err(|e| fault(&e))?.ok_or_else(|| {
            TaskError::new(
                "States.Runtime",
                format!("'{arn}' is no execution of this box; pass $$.Execution.Id as 'execution'"),
            )
        })
    }
}
