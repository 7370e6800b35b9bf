//! Floor 5: what a Task may name, one file per family.
//!
//! ```text
//! Resource ARN --find--> Family --call(Call)--> Answer | TaskError
//! ```
//!
//! Every family may be called twice for the same attempt (a crash between acting and storing the outcome issues it
//! again) and must end in one result: names and ids that it makes are derived from the execution and the attempt.
//! A family reads the store through [`Services::reader`] and writes through [`Handle::commit`], nothing else.

pub mod activities;
pub mod approve;
pub mod aws;
pub mod builtin;
pub mod claim;
pub mod events;
pub mod executions;
pub mod forward;
pub mod functions;
pub mod housekeeping;
pub mod http;
pub mod items;
pub mod jobs;
pub mod map_items;
pub mod media;
pub mod mounts;
pub mod notify;
pub mod objects;
pub mod predict;
pub mod queues;
pub mod topics;
pub mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

pub use events::RuleSettings;
pub use forward::AwsSettings;
pub use functions::{FunctionSettings, LambdaSettings};
pub use housekeeping::RetentionSettings;
pub use http::ConnectionSettings;
pub use items::TableSettings;
pub use notify::NotifySettings;
pub use queues::QueueSettings;

use crate::aws::Operation;
use crate::base::{ExecutionId, Fault, Shares, TaskError, arn, fault};
use crate::interpreter::event::Json;
use crate::interpreter::map_run::ReadItems;
use crate::interpreter::{Header, RunTask, Status};
use crate::media::Device;
use crate::media::settings::Acceleration;
use crate::run::{
    Announced, Attempted, Fill, Handle, ItemSink, Need, ProgressSink, Resource, Resources, TaskContext, TaskOutcome,
    Tell,
};
use crate::sandbox::Spawn;
use crate::store::{Commit, Reader};

/// One attempt of one Task, with all that its family may use.
#[derive(Clone)]
pub struct Call {
    pub execution: ExecutionId,
    pub execution_arn: String,
    /// The state machine's name.
    pub machine: String,
    pub trace_header: Option<String>,
    pub task: Arc<RunTask>,
    pub parameters: Value,
    pub services: Arc<Services>,
    pub handle: Handle,
    pub progress: ProgressSink,
    /// Cores that the lease allows.
    pub threads: usize,
    /// The GPU that was leased with them.
    pub device: Option<Device>,
    /// Devices that failed under this attempt before.
    pub moved: Vec<String>,
}

/// How a call ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The task's result.
    Done(Value),
    /// The service's answer to the submission; somebody else reports the end.
    Submitted(Value),
}

/// What is configured and shared by all families.
pub struct Services {
    pub account: String,
    pub region: String,
    pub data_dir: PathBuf,
    pub shares: Shares,
    pub reader: Reader,
    pub tables: items::Tables,
    pub functions: functions::Functions,
    /// Where calls go that this box does not serve itself.
    pub endpoint: Option<forward::Endpoint>,
    pub templates: jobs::Templates,
    pub notify: NotifySettings,
    pub events: events::Bus,
    pub queues: queues::Queues,
    pub connections: http::Connections,
    pub retention: RetentionSettings,
    /// Told when a notification was stored.
    pub outbox_grew: Arc<tokio::sync::Notify>,
    /// Held while a claim reads and writes.
    pub claims: tokio::sync::Mutex<()>,
    /// Whether jobs that do not say so themselves may use GPUs.
    pub acceleration: Acceleration,
    /// Who runs media stages.
    pub spawn: Arc<dyn Spawn>,
    /// How long transcodes take on this box.
    pub predictor: predict::Predictor,
}

/// A group of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Family {
    /// A media stage, in a child process.
    Stage(String),
    Claim(claim::Action),
    Notify,
    /// A person decides.
    Approve,
    Housekeeping,
    Executions(executions::Pattern),
    Activities(activities::Action),
    CreateJob {
        sync: bool,
    },
    GetJob,
    Items(String, aws::Integration),
    Objects(String),
    /// One message or several to a topic.
    Publish {
        batch: bool,
        integration: aws::Integration,
    },
    PutEvents(aws::Integration),
    /// One of SQS's operations.
    Queues(&'static str, aws::Integration),
    Http,
    /// An API of API Gateway.
    Api,
    /// The function's ARN as Resource: its result is the task's.
    Function,
    /// `lambda:invoke`: the result with metadata around it.
    Invoke(aws::Integration),
    /// Any other operation of a service that is known, by the last parts of its Resource.
    Forward(String, String),
}

impl Family {
    /// The family that a Resource names; `None` for what this box does not have.
    pub fn find(resource: &str) -> Option<Family> {
        let parts: Vec<&str> = resource.splitn(6, ':').collect();
        let [_, _, service, _, _, rest] = parts.as_slice() else { return None };
        if *service == "lambda" {
            return rest.starts_with("function:").then_some(Family::Function);
        }
        if *service != "states" {
            return None;
        }
        let (service, operation) = rest.split_once(':')?;
        Some(match (service, operation) {
            ("conveyor", "claim") => Family::Claim(claim::Action::Claim),
            ("conveyor", "release") => Family::Claim(claim::Action::Release),
            ("conveyor", "record") => Family::Claim(claim::Action::Record),
            ("conveyor", "notify") => Family::Notify,
            ("conveyor", "approve.waitForTaskToken") => Family::Approve,
            ("conveyor", "housekeeping") => Family::Housekeeping,
            ("conveyor", stage) => Family::Stage(media::stage_named(stage)?),
            ("states", "startExecution") => Family::Executions(executions::Pattern::FireAndForget),
            ("states", "startExecution.sync") => Family::Executions(executions::Pattern::Sync),
            ("states", "startExecution.sync:2") => Family::Executions(executions::Pattern::Sync2),
            ("states", "startExecution.waitForTaskToken") => Family::Executions(executions::Pattern::Token),
            ("mediaconvert", "createJob") => Family::CreateJob { sync: false },
            ("mediaconvert", "createJob.sync") => Family::CreateJob { sync: true },
            ("aws-sdk", "mediaconvert:createJob") => Family::CreateJob { sync: false },
            ("aws-sdk", "mediaconvert:getJob") => Family::GetJob,
            ("dynamodb", "putItem" | "getItem" | "updateItem" | "deleteItem") => {
                Family::Items(operation.to_owned(), aws::Integration::Optimised)
            }
            ("aws-sdk", "dynamodb:putItem" | "dynamodb:getItem" | "dynamodb:updateItem" | "dynamodb:deleteItem") => {
                Family::Items(operation["dynamodb:".len()..].to_owned(), aws::Integration::Sdk)
            }
            ("aws-sdk", operation) if operation.starts_with("s3:") => {
                Family::Objects(operation["s3:".len()..].to_owned())
            }
            ("aws-sdk", operation) if operation.starts_with("sfn:") => {
                Family::Activities(activities::Action::named(&operation["sfn:".len()..])?)
            }
            ("sns", "publish" | "publish.waitForTaskToken") => {
                Family::Publish { batch: false, integration: aws::Integration::Optimised }
            }
            ("aws-sdk", "sns:publish" | "sns:publish.waitForTaskToken") => {
                Family::Publish { batch: false, integration: aws::Integration::Sdk }
            }
            ("aws-sdk", "sns:publishBatch") => Family::Publish { batch: true, integration: aws::Integration::Sdk },
            ("events", "putEvents" | "putEvents.waitForTaskToken") => Family::PutEvents(aws::Integration::Optimised),
            ("aws-sdk", "eventbridge:putEvents" | "eventbridge:putEvents.waitForTaskToken") => {
                Family::PutEvents(aws::Integration::Sdk)
            }
            ("sqs", "sendMessage" | "sendMessage.waitForTaskToken") => {
                Family::Queues("SendMessage", aws::Integration::Optimised)
            }
            ("aws-sdk", operation) if queue_operation(operation).is_some() => {
                Family::Queues(queue_operation(operation)?, aws::Integration::Sdk)
            }
            ("http", "invoke") => Family::Http,
            ("apigateway", "invoke" | "invoke.waitForTaskToken") => Family::Api,
            ("lambda", "invoke" | "invoke.waitForTaskToken") => Family::Invoke(aws::Integration::Optimised),
            ("aws-sdk", "lambda:invoke" | "lambda:invoke.waitForTaskToken") => Family::Invoke(aws::Integration::Sdk),
            (service, operation) => {
                forward::find(service, operation)?;
                Family::Forward(service.to_owned(), operation.to_owned())
            }
        })
    }

    /// The same operation at the endpoint, where what it names is none of this box's own.
    fn elsewhere(&self, call: &Call) -> Option<(Operation, aws::Integration)> {
        call.services.endpoint.as_ref()?;
        let text = |name: &str| call.parameters.get(name).and_then(Value::as_str).unwrap_or_default();
        match self {
            Family::Items(operation, aws::Integration::Optimised) if !call.services.tables.has(text("TableName")) => {
                forward::find("dynamodb", operation)
            }
            Family::Items(operation, aws::Integration::Sdk) if !call.services.tables.has(text("TableName")) => {
                forward::find("aws-sdk", &format!("dynamodb:{operation}"))
            }
            Family::Objects(operation) if !objects::is_share(&call.services.shares, text("Bucket")) => {
                forward::find("aws-sdk", &format!("s3:{operation}"))
            }
            Family::PutEvents(_) if !events::is_here(&call.services.events, &call.parameters) => written(call),
            Family::Queues("GetQueueUrl", _) if !call.services.queues.has(text("QueueName")) => written(call),
            Family::Queues(operation, _)
                if *operation != "GetQueueUrl" && !call.services.queues.has(text("QueueUrl")) =>
            {
                written(call)
            }
            Family::Publish { .. } if !call.services.notify.has_topic(topics::topic(&call.parameters)) => written(call),
            _ => None,
        }
    }

    /// What it needs of the box; nothing where it only reads and writes the appliance's own store.
    fn need(&self, services: &Services, task: &RunTask) -> Option<Need> {
        match self {
            Family::Stage(stage) => Some(media::need(stage, &task.parameters, services.acceleration)),
            Family::Objects(_) | Family::Http | Family::Api | Family::Forward(..) | Family::Housekeeping => {
                Some(Need::disks())
            }
            Family::Function => Some(services.functions.need(&task.resource)),
            Family::Invoke(_) => {
                let parameters: Option<Value> = serde_json::from_str(&task.parameters).ok();
                let name = parameters.as_ref().and_then(|p| p.get("FunctionName")?.as_str()).unwrap_or_default();
                Some(services.functions.need(name))
            }
            _ => None,
        }
    }

    /// Runs one attempt.
    pub async fn call(&self, call: &Call) -> Result<Answer, TaskError> {
        let answer = match self.elsewhere(call) {
            Some((operation, integration)) => forward::call(call, operation, integration).await?,
            None => self.here(call).await?,
        };
        // With `.waitForTaskToken` the call's answer only says that the request was taken.
        Ok(match answer {
            Answer::Done(value) if call.task.resource.ends_with(".waitForTaskToken") => Answer::Submitted(value),
            answer => answer,
        })
    }

    async fn here(&self, call: &Call) -> Result<Answer, TaskError> {
        Ok(match self {
            Family::Stage(stage) => media::call(call, stage).await?,
            Family::Claim(action) => claim::call(call, *action).await?,
            Family::Notify => notify::event(call).await?,
            Family::Approve => approve::ask(call).await?,
            Family::Publish { batch: false, integration } => topics::publish(call, *integration).await?,
            Family::Publish { batch: true, integration } => topics::publish_batch(call, *integration).await?,
            Family::PutEvents(integration) => events::call(call, *integration).await?,
            Family::Queues(operation, integration) => queues::task(call, operation, *integration).await?,
            Family::Http => http::call(call).await?,
            Family::Api => http::gateway::call(call).await?,
            Family::Housekeeping => housekeeping::call(call).await?,
            Family::Executions(pattern) => executions::call(call, *pattern).await?,
            Family::Activities(action) => activities::call(call, *action).await?,
            Family::CreateJob { sync } => jobs::create(call, *sync).await?,
            Family::GetJob => jobs::get(call)?,
            Family::Items(operation, integration) => items::call(call, operation, *integration).await?,
            Family::Objects(operation) => objects::call(call, operation).await?,
            Family::Function => functions::call(call).await?,
            Family::Invoke(integration) => functions::invoke(call, *integration).await?,
            Family::Forward(service, operation) => {
                let unknown = || TaskError::new("States.Runtime", format!("there is no {service}:{operation}"));
                let (operation, integration) = forward::find(service, operation).ok_or_else(unknown)?;
                forward::call(call, operation, integration).await?
            }
        })
    }
}

/// SQS's operation in `sqs:sendMessage.waitForTaskToken`.
fn queue_operation(operation: &str) -> Option<&'static str> {
    let operation = operation.strip_prefix("sqs:")?;
    queues::operation(operation.strip_suffix(".waitForTaskToken").unwrap_or(operation))
}

/// The operation that the Resource names, as it would be called elsewhere.
fn written(call: &Call) -> Option<(Operation, aws::Integration)> {
    let (_, rest) = call.task.resource.split_once(":states:::")?;
    let (service, operation) = rest.split_once(':')?;
    forward::find(service, operation)
}

/// All resources of this box.
pub struct All(pub Arc<Services>);

impl Resources for All {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>> {
        let family = Family::find(resource)?;
        if matches!(family, Family::Forward(..) | Family::Api) && self.0.endpoint.is_none() {
            return None;
        }
        Some(Arc::new(Bound { family, services: self.0.clone() }))
    }

    fn child_ended(&self, shape: &str, child: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        let outcome = match shape {
            "job" => jobs::delivered(&self.0, child),
            "sync2" => executions::delivered(&self.0, child, executions::Pattern::Sync2),
            _ => executions::delivered(&self.0, child, executions::Pattern::Sync),
        };
        outcome.map(|value| value.to_string().into())
    }

    fn begun(&self, header: &Header, commit: &mut Commit) -> Vec<Announced> {
        let mut announced = self.0.events.status_changed(&events::begun(header), header.started_at, commit);
        if header.status != Status::Running {
            announced.extend(self.status_changed(header, commit));
        }
        announced
    }

    fn status_changed(&self, header: &Header, commit: &mut Commit) -> Vec<Announced> {
        let at = header.stopped_at.or(header.redriven_at).unwrap_or(header.started_at);
        self.0.events.status_changed(header, at, commit)
    }

    fn announced(&self, announced: Vec<Announced>) {
        self.0.events.stored(announced);
    }

    fn read_items(&self, reader: ReadItems, sink: ItemSink) -> BoxFuture<'static, Result<(), TaskError>> {
        Box::pin(map_items::read(self.0.clone(), reader, sink))
    }

    fn write_object(&self, bucket: String, key: String, fill: Fill) -> BoxFuture<'static, Result<u64, TaskError>> {
        Box::pin(map_items::write(self.0.clone(), bucket, key, fill))
    }
}

/// A family with what it needs.
struct Bound {
    family: Family,
    services: Arc<Services>,
}

impl Resource for Bound {
    fn need(&self, task: &RunTask) -> Option<Need> {
        self.family.need(&self.services, task)
    }

    fn predict(&self, task: &RunTask, tell: &dyn Fn() -> Tell) {
        if matches!(&self.family, Family::Stage(stage) if stage == "transcode") {
            predict::queued(&self.services, &task.parameters, tell);
        }
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        let (family, services) = (self.family.clone(), self.services.clone());
        Box::pin(async move {
            let parameters = match serde_json::from_str(&context.task.parameters) {
                Ok(parameters) => parameters,
                Err(e) => {
                    let what = format!("the task's parameters are no JSON: {e}");
                    return TaskOutcome::StartFailed(TaskError::new("States.Runtime", what)).into();
                }
            };
            let submits = waits(&context.task.resource);
            let call = Call {
                execution: context.execution,
                execution_arn: context.execution_arn,
                machine: context.machine.name,
                trace_header: context.trace_header,
                task: Arc::new(context.task),
                parameters,
                services,
                handle: context.handle,
                progress: context.progress,
                threads: context.threads,
                device: context.device,
                moved: context.moved,
            };
            Attempted::Ended(match family.call(&call).await {
                Ok(Answer::Done(value)) => TaskOutcome::Succeeded(value.to_string().into()),
                Ok(Answer::Submitted(value)) => TaskOutcome::Submitted { output: value.to_string().into() },
                Err(error) if submits => TaskOutcome::SubmitFailed(error),
                Err(error) => TaskOutcome::Failed(error),
            })
        })
    }
}

/// Whether a Task with this Resource waits for somebody else after its submission.
fn waits(resource: &str) -> bool {
    [".sync", ".sync:2", ".waitForTaskToken"].iter().any(|pattern| resource.ends_with(pattern))
}

impl Services {
    pub fn machine_arn(&self, machine: &str) -> String {
        arn::machine(&self.region, &self.account, machine)
    }

    pub fn execution_arn(&self, machine: &str, name: &str) -> String {
        arn::execution(&self.region, &self.account, machine, name)
    }

    /// The execution that an ARN names.
    fn execution_of(&self, arn: &str) -> Result<Option<Header>, TaskError> {
        let parts: Vec<&str> = arn.splitn(8, ':').collect();
        let [.., machine, name] = parts.as_slice() else { return Ok(None) };
        if parts.len() != 8 {
            return Ok(None);
        }
        let id = self.reader.by_name(machine, name).map_err(|e| fault_error(&e))?;
        match id {
            Some(id) => self.reader.header(id).map_err(|e| fault_error(&e)),
            None => Ok(None),
        }
    }
}

/// A fault of the environment as a task's error: it may pass, so that Retry may take it.
pub(crate) fn fault(fault: &Fault) -> TaskError {
    fault_error(fault)
}

fn fault_error(error: &Fault) -> TaskError {
    TaskError::new("States.TaskFailed", fault::chain(error))
}

/// Eight bytes of a hash: the same on every boot.
pub(crate) fn digest(text: &str) -> u64 {
    let hash = blake3::hash(text.as_bytes());
    let mut eight = [0u8; 8];
    eight.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(eight)
}

/// Tables of settings by name, as the configuration holds them.
pub type ByName<T> = BTreeMap<String, T>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_found_by_their_arn() {
        for (arn, family) in [
            ("arn:aws:states:::conveyor:probe", Family::Stage("probe".into())),
            ("arn:aws:states:::states:startExecution.sync:2", Family::Executions(executions::Pattern::Sync2)),
            ("arn:aws:states:::aws-sdk:s3:copyObject", Family::Objects("copyObject".into())),
            ("arn:aws:states:::mediaconvert:createJob.sync", Family::CreateJob { sync: true }),
            ("arn:aws:lambda:us-east-1:000000000000:function:qc", Family::Function),
            ("arn:aws:states:::sqs:sendMessage", Family::Queues("SendMessage", aws::Integration::Optimised)),
            ("arn:aws:states:::aws-sdk:sqs:receiveMessage", Family::Queues("ReceiveMessage", aws::Integration::Sdk)),
            ("arn:aws:states:::ecs:runTask", Family::Forward("ecs".into(), "runTask".into())),
            ("arn:aws:states:::dynamodb:putItem", Family::Items("putItem".into(), aws::Integration::Optimised)),
        ] {
            assert_eq!(Family::find(arn), Some(family), "{arn}");
        }
        for unknown in [
            "arn:aws:states:::conveyor:nonsense",
            "arn:aws:states:::ecs:stopTask.sync",
            "arn:aws:states:::aws-sdk:sqs:sing",
            "x",
            "",
        ] {
            assert_eq!(Family::find(unknown), None, "{unknown}");
        }
    }
}
