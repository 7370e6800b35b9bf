//! Functions as Tasks: by their ARN, and by `lambda:invoke`.

use std::sync::Arc;

use conveyor_base::{TaskError, Timestamp};
use conveyor_interpreter::RunTask;
use conveyor_run::Demand;
use conveyor_services::events::Events;
use serde_json::{Value, json};

use super::{Functions, Invocation, Invoked, name_of};
use crate::aws::{self, Integration};
use crate::{Adapter, Call, CallFuture, CallOutcome, Ended};

/// A function's ARN, of any region and account.
pub const ARN: &str = "arn:aws:lambda:*:*:function:*";

pub const NAMES: &[&str] = &[
    ARN,
    "lambda:invoke",
    "lambda:invoke.waitForTaskToken",
    "aws-sdk:lambda:invoke",
    "aws-sdk:lambda:invoke.waitForTaskToken",
];

/// `events` keeps the calls for whose end nobody waits.
pub fn adapter(name: &str, functions: &Arc<Functions>, events: &Events) -> Arc<dyn Adapter> {
    let functions = functions.clone();
    if name == ARN {
        return Arc::new(Function(functions));
    }
    let (integration, _) = aws::integration(name);
    Arc::new(Invoking { integration, functions, events: events.clone() })
}

/// The event is the task's input, the result is the task's.
struct Function(Arc<Functions>);

impl Adapter for Function {
    fn demand(&self, task: &RunTask) -> Option<Demand> {
        Some(self.0.demand(&task.resource))
    }

    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(async {
            let (event, id) = (call.parameters.to_string(), aws::request_id(call));
            let mut invocation = Invocation::new(&call.task.resource, &event, &id);
            invocation.device = call.device.as_ref();
            self.0.run(&invocation).await?.result().map(CallOutcome::done)
        })
    }
}

/// `lambda:invoke`, and `aws-sdk:lambda:invoke`, which answers what the service does.
struct Invoking {
    integration: Integration,
    functions: Arc<Functions>,
    events: Events,
}

impl Adapter for Invoking {
    fn demand(&self, task: &RunTask) -> Option<Demand> {
        let parameters: Option<Value> = serde_json::from_str(&task.parameters).ok();
        let name = parameters.as_ref().and_then(|p| p.get("FunctionName")?.as_str()).unwrap_or_default();
        Some(self.functions.demand(name))
    }

    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.invoke(call))
    }
}

impl Invoking {
    async fn invoke(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let (p, integration) = (&call.parameters, self.integration);
        let function = aws::require_text(p, "FunctionName", "lambda:invoke")?;
        let event = match p.get("Payload") {
            None => "{}".to_owned(),
            // The SDK's payload is bytes; JSON in its place is written as such.
            Some(Value::String(text)) if integration == Integration::Sdk => text.clone(),
            Some(payload) => payload.to_string(),
        };
        let (id, kind) = (aws::request_id(call), call.text("InvocationType").unwrap_or("RequestResponse"));
        let mut invocation = Invocation::new(function, &event, &id);
        (invocation.kind, invocation.client_context) = (kind, call.text("ClientContext"));
        (invocation.qualifier, invocation.log_type) = (call.text("Qualifier"), call.text("LogType"));
        invocation.device = call.device.as_ref();
        let configured = self.functions.configured.contains_key(name_of(function));
        let words = Words { integration, id: id.clone(), at: call.handle.wall() };
        let invoked = match kind {
            "Event" if configured => {
                let event: Value = serde_json::from_str(&event).unwrap_or_else(|_| json!(event));
                let row = self.events.call(&id, function, &event, call.handle.now());
                let events = self.events.clone();
                return Ok(CallOutcome::settle(move |attempt| {
                    let taken = || Invoked { status: 202, ..Invoked::default() };
                    events.send(vec![row], attempt.into_requester(move |()| words.ended("Event", taken())));
                }));
            }
            "DryRun" if configured => Invoked { status: 204, ..Invoked::default() },
            _ => self.functions.run(&invocation).await?,
        };
        Ok(words.ended(kind, invoked)?.into())
    }
}

/// How what a function answered is worded for a Task.
struct Words {
    integration: Integration,
    id: String,
    at: Timestamp,
}

impl Words {
    fn ended(&self, kind: &str, invoked: Invoked) -> Result<Ended, TaskError> {
        let integration = self.integration;
        let mut answer = json!({ "StatusCode": invoked.status });
        if kind == "RequestResponse" {
            answer["ExecutedVersion"] = json!(invoked.version());
            answer["Payload"] = match integration {
                Integration::Optimised => invoked.result()?,
                Integration::Sdk => json!(invoked.payload),
            };
        }
        if let Some(log) = &invoked.log {
            answer["LogResult"] = json!(log);
        }
        if integration == Integration::Sdk {
            if let Some(error) = &invoked.error {
                answer["FunctionError"] = json!(error);
            }
            return Ok(Ended::Done(answer));
        }
        let style = aws::HeaderStyle::Lambda { version: invoked.version(), payload_bytes: invoked.payload.len() };
        let mut answer = aws::with_metadata(answer, &self.id, "application/json", self.at, style);
        answer["SdkHttpMetadata"]["HttpStatusCode"] = json!(invoked.status);
        Ok(Ended::Done(answer))
    }
}
