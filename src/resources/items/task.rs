//! DynamoDB's operations on items as Tasks.

use std::sync::Arc;

use super::{Outcome, Refusal, Tables};
use crate::base::TaskError;
use crate::resources::aws::{self, Integration};
use crate::resources::forward::Elsewhere;
use crate::resources::{Adapter, Answer, Answering, Call};

pub const NAMES: &[&str] = &[
    "dynamodb:putItem",
    "dynamodb:getItem",
    "dynamodb:updateItem",
    "dynamodb:deleteItem",
    "aws-sdk:dynamodb:putItem",
    "aws-sdk:dynamodb:getItem",
    "aws-sdk:dynamodb:updateItem",
    "aws-sdk:dynamodb:deleteItem",
];

pub fn adapter(name: &'static str, tables: &Arc<Tables>, elsewhere: &Elsewhere) -> Arc<dyn Adapter> {
    let (integration, operation) = aws::integration(name);
    Arc::new(Operating { operation, integration, tables: tables.clone(), elsewhere: elsewhere.clone() })
}

struct Operating {
    operation: &'static str,
    integration: Integration,
    tables: Arc<Tables>,
    elsewhere: Elsewhere,
}

impl Adapter for Operating {
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a> {
        Box::pin(self.answer(call))
    }
}

impl Operating {
    async fn answer(&self, call: &Call) -> Result<Answer, TaskError> {
        let is_own = self.tables.has(call.text("TableName").unwrap_or_default());
        if let Some(answer) = self.elsewhere.answer(is_own, call).await {
            return answer;
        }
        let id = aws::request_id(call);
        match self.tables.operate(&call.handle, self.operation, &call.parameters).await {
            Ok(answer) if self.integration == Integration::Sdk => Ok(Answer::done(answer)),
            Ok(answer) => Ok(Answer::done(aws::with_metadata(
                answer,
                &id,
                "application/x-amz-json-1.0",
                call.handle.now(),
                aws::Dress::DynamoDb,
            ))),
            Err(Outcome::Refused(refusal)) => Err(error(&refusal, self.integration, &id)),
            Err(Outcome::Failed(error)) => Err(error),
        }
    }
}

fn error(refusal: &Refusal, integration: Integration, id: &str) -> TaskError {
    let Refusal { code, message } = refusal;
    let generic = *code == "ValidationException";
    match integration {
        Integration::Optimised => TaskError::new(
            if generic { "DynamoDB.AmazonDynamoDBException".to_owned() } else { format!("DynamoDB.{code}") },
            aws::optimised_cause(message, "AmazonDynamoDBv2", 400, code, id),
        ),
        Integration::Sdk => TaskError::new(
            if generic { "DynamoDb.DynamoDbException".to_owned() } else { format!("DynamoDb.{code}") },
            aws::sdk_cause(message, "DynamoDb", 400, id),
        ),
    }
}
