//! EventBridge's `putEvents` as a Task.

use std::sync::Arc;

use serde_json::Value;

use super::{Bus, Lineage, Refusal};
use crate::base::{TaskError, arn};
use crate::resources::aws::{self, Integration};
use crate::resources::forward::{self, Elsewhere};
use crate::resources::{Adapter, Answer, Answering, Call, fault};

pub const NAMES: &[&str] = &[
    "events:putEvents",
    "events:putEvents.waitForTaskToken",
    "aws-sdk:eventbridge:putEvents",
    "aws-sdk:eventbridge:putEvents.waitForTaskToken",
];

pub fn adapter(name: &str, events: &Arc<Bus>, elsewhere: &Elsewhere) -> Arc<dyn Adapter> {
    let (integration, _) = aws::integration(name);
    Arc::new(Putting { integration, events: events.clone(), elsewhere: elsewhere.clone() })
}

struct Putting {
    integration: Integration,
    events: Arc<Bus>,
    elsewhere: Elsewhere,
}

impl Adapter for Putting {
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a> {
        Box::pin(self.put(call))
    }
}

impl Putting {
    async fn put(&self, call: &Call) -> Result<Answer, TaskError> {
        let p = &call.parameters;
        if let Some(answer) = self.elsewhere.answer(self.events.has_all(p), call).await {
            return answer;
        }
        let entries = p.get("Entries").and_then(Value::as_array).cloned().unwrap_or_default();
        let lineage = Lineage::of_trace_header(call.trace_header.as_deref());
        // The optimised integration says where an event comes from.
        let extra = match self.integration {
            Integration::Optimised => {
                let machine = arn::machine(call.handle.region(), call.handle.account(), &call.machine);
                vec![call.execution_arn.clone(), machine]
            }
            Integration::Sdk => Vec::new(),
        };
        let (id, seed) = (aws::request_id(call), format!("{}/{}", call.execution, call.task.attempt));
        let answer = match self.events.put_events(&call.handle, &entries, Some(&seed), &extra, &lineage).await {
            Ok(answer) => answer,
            Err(Refusal::Validation(what)) => {
                return Err(forward::refused("events", self.integration, "ValidationException", &what, 400, &id));
            }
            Err(Refusal::Fault(e)) => return Err(fault(&e)),
        };
        if self.integration == Integration::Sdk {
            return Ok(Answer::done(answer));
        }
        if answer["FailedEntryCount"] != 0 {
            return Err(TaskError::new("EventBridge.FailedEntry", answer.to_string()));
        }
        Ok(Answer::done(aws::with_metadata(
            answer,
            &id,
            "application/x-amz-json-1.1",
            call.handle.now(),
            aws::Dress::Plain,
        )))
    }
}
