//! DynamoDB's operations on items as Tasks.

use std::sync::Arc;

use conveyor_base::{TaskError, Timestamp};
use conveyor_services::items::{
    DynamoDbError, Item, Operation, Placeholders, Reply, Request, Tables, check, name_fault,
};
use serde_json::{Value, json};

use super::aws::{self, Integration};
use super::forward::Fallback;
use super::{Adapter, Call, CallFuture, CallOutcome, Ended};

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

pub fn adapter(name: &'static str, tables: &Tables, fallback: &Fallback) -> Arc<dyn Adapter> {
    let (integration, operation) = aws::integration(name);
    let operation = match operation {
        "putItem" => Operation::Put,
        "updateItem" => Operation::Update,
        "deleteItem" => Operation::Delete,
        _ => Operation::Get,
    };
    Arc::new(Operating { operation, integration, tables: tables.clone(), fallback: fallback.clone() })
}

struct Operating {
    operation: Operation,
    integration: Integration,
    tables: Tables,
    fallback: Fallback,
}

impl Adapter for Operating {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.answer(call))
    }
}

impl Operating {
    async fn answer(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let table = name_of(call.text("TableName").unwrap_or_default());
        if let Some(answer) = self.fallback.answer(self.tables.has(table), call).await {
            return answer;
        }
        let words = Words {
            integration: self.integration,
            table: table.to_owned(),
            id: aws::request_id(call),
            at: call.handle.wall(),
        };
        let request = read(self.operation, table, &call.parameters).map_err(|refusal| words.error(&refusal))?;
        let tables = self.tables.clone();
        Ok(CallOutcome::settle(move |attempt| {
            tables.send(request, attempt.into_requester(move |reply| words.ended(reply)))
        }))
    }
}

/// The table's name in an ARN, or the name as it is.
fn name_of(table: &str) -> &str {
    match table.strip_prefix("arn:") {
        Some(arn) => aws::last_part(arn).split('/').nth(1).unwrap_or_default(),
        None => table,
    }
}

/// What a request's fields ask for.
fn read(operation: Operation, table: &str, fields: &Value) -> Result<Request, DynamoDbError> {
    if let Some(fault) = name_fault(table) {
        return Err(fault.into());
    }
    let given = attributes(fields, if operation == Operation::Put { "Item" } else { "Key" })?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let placeholders = match operation {
        // Its projections are not served, and what they name is not missed.
        Operation::Get => Placeholders::default(),
        _ => Placeholders::of(fields)?,
    };
    Ok(Request {
        table: table.to_owned(),
        operation,
        given,
        condition: text("ConditionExpression"),
        update: text("UpdateExpression"),
        returned: text("ReturnValues"),
        placeholders,
    })
}

fn attributes(fields: &Value, name: &str) -> Result<Item, DynamoDbError> {
    let given = fields.get(name).and_then(Value::as_object).ok_or_else(|| {
        format!(
            "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null",
            name.to_lowercase()
        )
    })?;
    given.iter().map(|(k, v)| Ok((k.clone(), check(v)?))).collect::<Result<Item, String>>().map_err(DynamoDbError::from)
}

/// How an answer or an error of DynamoDB's is worded for a Task.
struct Words {
    integration: Integration,
    table: String,
    id: String,
    at: Timestamp,
}

impl Words {
    fn ended(&self, reply: &Reply) -> Result<Ended, TaskError> {
        let answer = match reply {
            Reply::Got(None) | Reply::Changed(None) => json!({}),
            Reply::Got(Some(item)) => json!({ "Item": item }),
            Reply::Changed(Some(item)) => json!({ "Attributes": item }),
            Reply::Refused(refusal) => return Err(self.error(refusal)),
            Reply::Damaged(why) => {
                let what = format!("an item of table '{}' is damaged ({why}); run 'conveyor check'", self.table);
                return Err(TaskError::new("States.Runtime", what));
            }
        };
        Ok(Ended::Done(match self.integration {
            Integration::Sdk => answer,
            Integration::Optimised => {
                aws::with_metadata(answer, &self.id, "application/x-amz-json-1.0", self.at, aws::HeaderStyle::DynamoDb)
            }
        }))
    }

    fn error(&self, DynamoDbError { code, message }: &DynamoDbError) -> TaskError {
        let generic = *code == "ValidationException";
        match self.integration {
            Integration::Optimised => TaskError::new(
                if generic { "DynamoDB.AmazonDynamoDBException".to_owned() } else { format!("DynamoDB.{code}") },
                aws::optimised_cause(message, "AmazonDynamoDBv2", 400, code, &self.id),
            ),
            Integration::Sdk => TaskError::new(
                if generic { "DynamoDb.DynamoDbException".to_owned() } else { format!("DynamoDb.{code}") },
                aws::sdk_cause(message, "DynamoDb", 400, &self.id),
            ),
        }
    }
}
