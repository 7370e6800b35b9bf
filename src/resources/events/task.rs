//! EventBridge's `putEvents` as a Task.

use std::sync::Arc;

use conveyor_base::{TaskError, Timestamp, arn};
use conveyor_services::events::{Events, Lineage};
use serde_json::Value;

use super::api::has_all;
use super::{Origin, put};
use crate::aws::{self, Integration};
use crate::forward::{self, Fallback};
use crate::{Adapter, Call, CallFuture, CallOutcome, Ended};

pub const NAMES: &[&str] = &[
    "events:putEvents",
    "events:putEvents.waitForTaskToken",
    "aws-sdk:eventbridge:putEvents",
    "aws-sdk:eventbridge:putEvents.waitForTaskToken",
];

pub fn adapter(name: &str, events: &Events, fallback: &Fallback) -> Arc<dyn Adapter> {
    let (integration, _) = aws::integration(name);
    Arc::new(Putting { integration, events: events.clone(), fallback: fallback.clone() })
}

struct Putting {
    integration: Integration,
    events: Events,
    fallback: Fallback,
}

impl Adapter for Putting {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.put(call))
    }
}

impl Putting {
    async fn put(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let p = &call.parameters;
        if let Some(answer) = self.fallback.answer(has_all(&self.events, p), call).await {
            return answer;
        }
        let entries = p.get("Entries").and_then(Value::as_array).cloned().unwrap_or_default();
        let seed = format!("{}/{}", call.execution, call.task.attempt);
        // The optimised integration says where an event comes from.
        let resources = match self.integration {
            Integration::Optimised => {
                let machine = arn::machine(call.handle.region(), call.handle.account(), &call.machine);
                vec![call.execution_arn.clone(), machine]
            }
            Integration::Sdk => Vec::new(),
        };
        let lineage = Lineage::of_trace_header(call.trace_header.as_deref());
        let origin = Origin { seed: Some(&seed), resources, lineage };
        let (integration, id, at) = (self.integration, aws::request_id(call), call.handle.wall());
        let put = put(&self.events, &entries, &origin, call.handle.clock())
            .map_err(|what| forward::refused("events", integration, "ValidationException", &what, 400, &id))?;
        if put.rows.is_empty() {
            return Ok(ended(integration, put.answer, &id, at)?.into());
        }
        let events = self.events.clone();
        Ok(CallOutcome::settle(move |attempt| {
            events.send(put.rows, attempt.into_requester(move |()| ended(integration, put.answer, &id, at)));
        }))
    }
}

fn ended(integration: Integration, answer: Value, id: &str, at: Timestamp) -> Result<Ended, TaskError> {
    if integration == Integration::Sdk {
        return Ok(Ended::Done(answer));
    }
    if answer["FailedEntryCount"] != 0 {
        return Err(TaskError::new("EventBridge.FailedEntry", answer.to_string()));
    }
    let answer = aws::with_metadata(answer, id, "application/x-amz-json-1.1", at, aws::HeaderStyle::Plain);
    Ok(Ended::Done(answer))
}
