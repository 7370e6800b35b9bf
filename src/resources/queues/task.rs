//! SQS's operations as Tasks.

use std::sync::Arc;

use conveyor_base::{TaskError, Timestamp};
use conveyor_services::queues::{Queues, Request};
use serde_json::Value;

use super::api::{Plan, Question, SqsError, operation, plan};
use crate::aws::{self, Integration};
use crate::forward::{self, Fallback};
use crate::{Adapter, Call, CallFuture, CallOutcome, Ended};

/// Each operation under its name in either case, alone and with a token.
macro_rules! operations {
    ($($camel:literal $pascal:literal,)*) => {
        pub(super) const OPERATIONS: &[&str] = &[$($pascal),*];
        pub const NAMES: &[&str] = &[
            "sqs:sendMessage",
            "sqs:sendMessage.waitForTaskToken",
            $(
                concat!("aws-sdk:sqs:", $camel),
                concat!("aws-sdk:sqs:", $camel, ".waitForTaskToken"),
                concat!("aws-sdk:sqs:", $pascal),
                concat!("aws-sdk:sqs:", $pascal, ".waitForTaskToken"),
            )*
        ];
    };
}

operations! {
    "sendMessage" "SendMessage",
    "sendMessageBatch" "SendMessageBatch",
    "receiveMessage" "ReceiveMessage",
    "deleteMessage" "DeleteMessage",
    "deleteMessageBatch" "DeleteMessageBatch",
    "changeMessageVisibility" "ChangeMessageVisibility",
    "changeMessageVisibilityBatch" "ChangeMessageVisibilityBatch",
    "getQueueUrl" "GetQueueUrl",
    "getQueueAttributes" "GetQueueAttributes",
    "listQueues" "ListQueues",
    "listQueueTags" "ListQueueTags",
    "listDeadLetterSourceQueues" "ListDeadLetterSourceQueues",
    "purgeQueue" "PurgeQueue",
    "createQueue" "CreateQueue",
    "setQueueAttributes" "SetQueueAttributes",
}

pub fn adapter(name: &'static str, queues: &Queues, fallback: &Fallback) -> Arc<dyn Adapter> {
    let (integration, named) = aws::integration(name);
    let named = named.strip_suffix(".waitForTaskToken").unwrap_or(named);
    let (queues, fallback) = (queues.clone(), fallback.clone());
    Arc::new(Operating { operation: operation(named).unwrap_or(named), integration, queues, fallback })
}

struct Operating {
    operation: &'static str,
    integration: Integration,
    queues: Queues,
    fallback: Fallback,
}

impl Adapter for Operating {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.answer(call))
    }
}

impl Operating {
    async fn answer(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let names = if self.operation == "GetQueueUrl" { "QueueName" } else { "QueueUrl" };
        let is_own = self.queues.has(call.text(names).unwrap_or_default());
        if let Some(answer) = self.fallback.answer(is_own, call).await {
            return answer;
        }
        let words = Words { integration: self.integration, id: aws::request_id(call), at: call.handle.wall() };
        match plan(&self.queues, self.operation, &call.parameters, call.handle.clock()) {
            Ok(Plan::Answered(answer)) => Ok(words.ended(Ok(answer))?.into()),
            Ok(Plan::Ask(question)) => {
                if let Request::Receive { until, .. } = question.request {
                    self.wait(question.queue.clone(), until, call).await;
                }
                let queues = self.queues.clone();
                Ok(CallOutcome::settle(move |attempt| {
                    let Question { queue, request, shape } = question;
                    queues.send(
                        &queue,
                        at_once(request),
                        attempt.into_requester(move |reply| words.ended(shape(reply))),
                    );
                }))
            }
            Err(refusal) => Ok(words.ended(Err(refusal))?.into()),
        }
    }

    /// A receiver that waits for a message does so before its attempt is lent to the queues: it can be stopped meanwhile.
    async fn wait(&self, queue: String, until: Timestamp, call: &Call) {
        if until > call.handle.now() {
            let look = Request::Receive { most: 0, visibility_ms: 0, until };
            // Where the queues are on their way back, there is nothing yet.
            let _ = self.queues.ask(&queue, look, None).await;
        }
    }
}

fn at_once(request: Request) -> Request {
    match request {
        Request::Receive { most, visibility_ms, .. } => {
            Request::Receive { most, visibility_ms, until: Timestamp(i64::MIN) }
        }
        request => request,
    }
}

/// How an answer or an error of SQS's is worded for a Task.
struct Words {
    integration: Integration,
    id: String,
    at: Timestamp,
}

impl Words {
    fn ended(&self, answer: Result<Value, SqsError>) -> Result<Ended, TaskError> {
        match answer {
            Ok(answer) if self.integration == Integration::Sdk => Ok(Ended::Done(answer)),
            Ok(answer) => Ok(Ended::Done(aws::with_metadata(
                answer,
                &self.id,
                "application/x-amz-json-1.0",
                self.at,
                aws::HeaderStyle::KeptAlive,
            ))),
            Err(SqsError { code, query_code, message, status }) => {
                let shape = Some(code.to_owned());
                let error = forward::ServiceError { code: query_code.to_owned(), shape, message };
                Err(forward::refused_as("sqs", self.integration, &error, status, &self.id))
            }
        }
    }
}
