//! What this box does not have itself: calls of AWS's services, sent on to the endpoint of `[aws]`.
//!
//! ```text
//! Task --model--> request (write) --SigV4--> endpoint --answer (read) --model--> result or the service's error
//! ```
//!
//! The box never invents an answer. A call that could not be made fails with the client's own error, which Retry may
//! take; whether the service saw it is unknown then, as with every SDK.

mod endpoint;
mod read;
mod sync;
mod times;
mod write;
mod xml;

use std::sync::Arc;

use conveyor_aws::{Operation, Protocol, Service};
use conveyor_base::TaskError;
use conveyor_interpreter::RunTask;
use conveyor_run::Demand;
use serde_json::{Value, json};

pub use endpoint::{AwsSettings, Endpoint, Response};
pub use sync::RemoteJobs;
pub use write::Request;

use super::aws::{self, Integration};
use super::{Adapter, Call, CallFuture, CallOutcome, task_name};

/// An integration of an AWS service, by its Resource's last parts: `aws-sdk:sqs:sendMessage`, `ecs:runTask`.
pub fn find(service: &str, operation: &str) -> Option<(Operation, Integration)> {
    let name = service;
    let (service, operation, integration) = match service {
        "aws-sdk" => {
            let (service, operation) = operation.split_once(':')?;
            (service, operation, Integration::Sdk)
        }
        service => (service, operation, Integration::Optimised),
    };
    let operation = operation.strip_suffix(".waitForTaskToken").unwrap_or(operation);
    // What waits for the end of a job needs to know the service's jobs.
    let operation = match operation.strip_suffix(".sync") {
        Some(start) if integration == Integration::Optimised && sync::rule(name, start).is_some() => start,
        _ => operation,
    };
    Some((Service::find(service)?.operation(operation)?, integration))
}

/// Whether there is such an operation, by a Resource's name.
pub fn is_operation(name: &str) -> bool {
    named(name).is_some()
}

/// The operation that a Resource's name stands for. What this box does not do of Step Functions nobody else does for it.
fn named(name: &str) -> Option<(Operation, Integration)> {
    let (service, operation) = name.split_once(':')?;
    let is_own = service == "aws-sdk" && operation.starts_with("sfn:");
    if is_own { None } else { find(service, operation) }
}

/// Sends calls on to the endpoint of `[aws]`.
pub struct Forward {
    endpoint: Arc<Endpoint>,
    jobs: RemoteJobs,
}

pub fn adapter(endpoint: &Arc<Endpoint>, jobs: &RemoteJobs) -> Arc<Forward> {
    Arc::new(Forward { endpoint: endpoint.clone(), jobs: jobs.clone() })
}

impl Adapter for Forward {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        Some(Demand::disks())
    }

    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(async move {
            let name = task_name(&call.task.resource).unwrap_or_default();
            let unknown = || TaskError::new("States.Runtime", format!("there is no {name}"));
            let (operation, integration) = named(name).ok_or_else(unknown)?;
            self.send(call, operation, integration).await
        })
    }
}

/// For adapters of services that the box has itself: where calls go whose table, bucket, queue or topic it has not.
#[derive(Clone)]
pub struct Fallback(pub Option<Arc<Forward>>);

impl Fallback {
    /// The endpoint's answer; `None` where what the call names is the box's own, or nobody else has it either.
    pub async fn answer(&self, is_own: bool, call: &Call) -> Option<Result<CallOutcome, TaskError>> {
        let forward = self.0.as_ref().filter(|_| !is_own)?;
        let (operation, integration) = named(task_name(&call.task.resource)?)?;
        Some(forward.send(call, operation, integration).await)
    }
}

impl Forward {
    async fn send(
        &self,
        call: &Call,
        operation: Operation,
        integration: Integration,
    ) -> Result<CallOutcome, TaskError> {
        let names = Names::of(operation.service, integration);
        let rule = sync_rule(call);
        if rule.is_some()
            && let Some(answer) = self.jobs.started(call).map_err(|e| super::fault(&e))?
        {
            return Ok(CallOutcome::submitted(answer));
        }
        let answer = call_raw(&self.endpoint, operation, &call.parameters).await.map_err(|what| names.client(&what))?;
        let id = answer.header("x-amzn-requestid").or(answer.header("x-amz-request-id"));
        let id = id.map_or_else(|| aws::request_id(call), str::to_owned);
        if !(200..300).contains(&answer.status) {
            return Err(names.error(&read::error(operation.service, &answer), answer.status, &id));
        }
        let value = read::answer(operation, &answer).map_err(|what| names.client(&what))?;
        if integration == Integration::Sdk {
            return Ok(CallOutcome::done(value));
        }
        let kind = answer.header("content-type").unwrap_or(content_type(operation.service));
        let style = match operation.service.id() {
            "SQS" | "SFN" => aws::HeaderStyle::KeptAlive,
            "DynamoDB" => aws::HeaderStyle::DynamoDb,
            _ => aws::HeaderStyle::Plain,
        };
        let wrapped = aws::with_metadata(value, &id, kind, call.handle.wall(), style);
        Ok(match rule {
            Some(rule) => {
                self.jobs.follow(call, rule, &wrapped).await.map_err(|e| super::fault(&e))?;
                CallOutcome::submitted(wrapped)
            }
            None => CallOutcome::done(wrapped),
        })
    }
}

/// How the job that the call starts is followed, where the Task waits for its end.
fn sync_rule(call: &Call) -> Option<&'static sync::Rule> {
    let (service, operation) = task_name(&call.task.resource)?.split_once(':')?;
    sync::rule(service, operation.strip_suffix(".sync")?)
}

async fn call_raw(endpoint: &Endpoint, operation: Operation, parameters: &Value) -> Result<Response, String> {
    endpoint.send(operation.service, write::request(operation, parameters)?).await
}

/// A call that is no Task's: the answer as it came, or a sentence.
pub async fn exchange(
    endpoint: &Endpoint,
    operation: Operation,
    parameters: &Value,
    body: Option<Vec<u8>>,
) -> Result<Response, String> {
    let mut request = write::request(operation, parameters)?;
    if let Some(body) = body {
        request.body = body;
    }
    let answer = endpoint.send(operation.service, request).await?;
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    let ServiceError { code, message, .. } = read::error(operation.service, &answer);
    Err(format!("{message} (Service: Amazon S3; Status Code: {}; Error Code: {code})", answer.status))
}

/// What such an answer says.
pub fn answer(operation: Operation, response: &Response) -> Result<Value, String> {
    read::answer(operation, response)
}

/// Lambda's Invoke, as it is: the function's answer is its own, and no operation's.
pub async fn invoke(endpoint: &Endpoint, parameters: &Value) -> Result<Response, String> {
    let operation = Service::find("lambda").and_then(|lambda| lambda.operation("Invoke"));
    let operation = operation.ok_or_else(|| "the model of Lambda is missing".to_owned())?;
    endpoint.send(operation.service, write::request(operation, parameters)?).await
}

/// A service's refusal as a Task's error, for those of its operations that the box carries out itself.
pub fn refused(service: &str, integration: Integration, code: &str, message: &str, status: u16, id: &str) -> TaskError {
    let error = ServiceError { code: code.to_owned(), shape: None, message: message.to_owned() };
    refused_as(service, integration, &error, status, id)
}

/// The same for an error that has a shape and an older code.
pub(crate) fn refused_as(
    service: &str,
    integration: Integration,
    error: &ServiceError,
    status: u16,
    id: &str,
) -> TaskError {
    let Some(service) = Service::find(service) else {
        return TaskError::new("States.TaskFailed", error.message.clone());
    };
    Names::of(service, integration).error(error, status, id)
}

fn content_type(service: Service) -> &'static str {
    match service.protocol() {
        Protocol::Json if service.json_version() == "1.0" => "application/x-amz-json-1.0",
        Protocol::Json => "application/x-amz-json-1.1",
        Protocol::RestJson => "application/json",
        Protocol::Query | Protocol::RestXml => "text/xml",
    }
}

/// An error as the service words it.
pub struct ServiceError {
    pub code: String,
    /// The error's shape, where the wire says it beside an older code.
    pub shape: Option<String>,
    pub message: String,
}

/// How a service is called in errors. The two integrations stand on two generations of AWS's Java SDK, which name
/// services and exceptions differently (AWS's developer guide, "Handling errors").
struct Names {
    service: Service,
    /// Before the error's name: `Sqs`, `SQS`.
    prefix: String,
    /// In the cause: `Sqs`, `AmazonSQS`.
    spoken: String,
    /// What is not in the model: `SqsException`, `AmazonSQSException`.
    generic: String,
    integration: Integration,
}

impl Names {
    fn of(service: Service, integration: Integration) -> Names {
        let joined = service.id().replace(' ', "");
        let (prefix, spoken, generic) = match integration {
            Integration::Sdk => {
                let name = words(&joined);
                (name.clone(), name.clone(), format!("{name}Exception"))
            }
            Integration::Optimised => {
                let owner = if matches!(joined.as_str(), "Batch" | "CodeBuild" | "Glue") { "AWS" } else { "Amazon" };
                let spoken = format!("{owner}{joined}{}", if joined == "DynamoDB" { "v2" } else { "" });
                (joined.clone(), spoken, format!("{owner}{joined}Exception"))
            }
        };
        Names { service, prefix, spoken, generic, integration }
    }

    fn error(&self, error: &ServiceError, status: u16, id: &str) -> TaskError {
        let shape = error.shape.as_ref().unwrap_or(&error.code);
        let class = self.service.error(shape).map(exception);
        let name = format!("{}.{}", self.prefix, class.unwrap_or_else(|| self.generic.clone()));
        TaskError::new(
            name,
            match self.integration {
                Integration::Sdk => aws::sdk_cause(&error.message, &self.spoken, status, id),
                Integration::Optimised => aws::optimised_cause(&error.message, &self.spoken, status, &error.code, id),
            },
        )
    }

    /// The call did not come about.
    fn client(&self, what: &str) -> TaskError {
        TaskError::new(format!("{}.SdkClientException", self.prefix), what.to_owned())
    }
}

/// `DynamoDB` to `DynamoDb`, `SQS` to `Sqs`, `SecretsManager` as it is: a capital after a capital is lowered, unless a
/// word begins there.
fn words(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let lowered = chars.iter().enumerate().map(|(i, c)| {
        let after_capital = i > 0 && chars[i - 1].is_ascii_uppercase();
        let begins_word = chars.get(i + 1).is_some_and(|next| next.is_ascii_lowercase());
        if after_capital && !begins_word { c.to_ascii_lowercase() } else { *c }
    });
    lowered.collect()
}

/// The exception's class for an error's shape.
fn exception(shape: &str) -> String {
    match shape.strip_suffix("Fault") {
        _ if shape.ends_with("Exception") => shape.to_owned(),
        Some(stem) => format!("{stem}Exception"),
        None => format!("{shape}Exception"),
    }
}

/// A field of the parameters by the model's name, which integrations write with a capital.
fn field<'v>(parameters: &'v Value, name: &str) -> Option<&'v Value> {
    let value = parameters.get(conveyor_aws::pascal(name)).or_else(|| parameters.get(name))?;
    (!value.is_null()).then_some(value)
}

/// A value where a text belongs: JSON in place of one is written as its text.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Nothing, as an answer.
fn nothing() -> Value {
    json!({})
}

#[cfg(test)]
mod tests;
