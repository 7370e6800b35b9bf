//! SQS's operations as Tasks.

use std::sync::Arc;

use super::{Queues, Refusal, call, operation};
use crate::base::TaskError;
use crate::resources::aws::{self, Integration};
use crate::resources::forward::{self, Elsewhere};
use crate::resources::{Adapter, Answer, Answering, Call};

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

pub fn adapter(name: &'static str, queues: &Arc<Queues>, elsewhere: &Elsewhere) -> Arc<dyn Adapter> {
    let (integration, named) = aws::integration(name);
    let named = named.strip_suffix(".waitForTaskToken").unwrap_or(named);
    let (queues, elsewhere) = (queues.clone(), elsewhere.clone());
    Arc::new(Operating { operation: operation(named).unwrap_or(named), integration, queues, elsewhere })
}

struct Operating {
    operation: &'static str,
    integration: Integration,
    queues: Arc<Queues>,
    elsewhere: Elsewhere,
}

impl Adapter for Operating {
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a> {
        Box::pin(self.answer(call))
    }
}

impl Operating {
    async fn answer(&self, call: &Call) -> Result<Answer, TaskError> {
        let names = if self.operation == "GetQueueUrl" { "QueueName" } else { "QueueUrl" };
        let is_own = self.queues.has(call.text(names).unwrap_or_default());
        if let Some(answer) = self.elsewhere.answer(is_own, call).await {
            return answer;
        }
        let seed = format!("{}/{}", call.execution, call.task.attempt);
        let id = aws::request_id(call);
        match self::call(&self.queues, &call.handle, self.operation, &call.parameters, Some(&seed)).await {
            Ok(answer) if self.integration == Integration::Sdk => Ok(Answer::Done(answer)),
            Ok(answer) => Ok(Answer::Done(aws::with_metadata(
                answer,
                &id,
                "application/x-amz-json-1.0",
                call.handle.now(),
                aws::Dress::KeptAlive,
            ))),
            Err(Refusal { code, query_code, message, status }) => {
                let shape = Some(code.to_owned());
                let error = forward::ServiceError { code: query_code.to_owned(), shape, message };
                Err(forward::refused_as("sqs", self.integration, &error, status, &id))
            }
        }
    }
}
