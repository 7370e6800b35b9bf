//! Floor 5: what a Task may name, one file per family.
//!
//! ```text
//! Resource ARN --find--> Family --call(Call)--> Answer | TaskError
//! ```
//!
//! Every family may be called twice for the same attempt (a crash between acting and storing the outcome issues it
//! again) and must end in one result: names and ids that it makes are derived from the execution and the attempt.
//! A family reads the store through [`Services::reader`] and writes through [`Runtime::commit`], nothing else.

pub mod aws;
pub mod builtin;
pub mod claim;
pub mod executions;
pub mod functions;
pub mod housekeeping;
pub mod items;
pub mod jobs;
pub mod media;
pub mod notify;
pub mod objects;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::Value;

pub use functions::{FunctionSettings, LambdaSettings};
pub use items::TableSettings;
pub use notify::NotifySettings;

use crate::base::{ExecutionId, Fault, Shares, TaskError, Timestamp, fault};
use crate::interpreter::{Header, MachineRef, Parent, RunTask};
use crate::store::{Commit, Reader};

/// One attempt of one Task, with all that its family may use.
#[derive(Clone)]
pub struct Call {
    pub execution: Arc<Header>,
    pub task: Arc<RunTask>,
    pub parameters: Value,
    pub services: Arc<Services>,
    pub runtime: Arc<dyn Runtime>,
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
    pub templates: jobs::Templates,
    pub notify: NotifySettings,
    /// Told when a notification was stored.
    pub outbox_grew: Arc<tokio::sync::Notify>,
    /// Held while a claim reads and writes.
    pub claims: tokio::sync::Mutex<()>,
    /// Cores that a stage may use.
    pub threads: usize,
}

/// What the families want done by those who run executions: a seam of six calls.
pub trait Runtime: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    /// Resolves once the rows are durable.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), Fault>>;
    fn outbox_number(&self) -> u64;
    fn start(&self, start: StartChild) -> BoxFuture<'_, Result<StartedChild, StartRefused>>;
    /// How far the execution's running stage is, 0 to 1.
    fn fraction(&self, id: ExecutionId) -> Option<f64>;
    /// Runs a stage in a child process for this call; dropping the future kills it.
    fn stage(&self, call: &Call, job: crate::media::Job) -> BoxFuture<'static, Result<Value, TaskError>>;
}

/// An execution to be started for a Task.
#[derive(Clone, Debug)]
pub struct StartChild {
    pub machine: String,
    pub qualifier: Option<String>,
    pub name: String,
    pub input: String,
    /// Set where the Task waits for the child's end.
    pub parent: Option<Parent>,
}

/// It runs, or did already under this name with this input.
#[derive(Clone, Debug)]
pub struct StartedChild {
    pub id: ExecutionId,
    pub machine: MachineRef,
    pub started_at: Timestamp,
}

/// Why no child was started, with AWS's exception name (`StateMachineDoesNotExist`).
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartRefused {
    pub exception: String,
    pub message: String,
}

/// A group of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Family {
    /// A media stage, in a child process.
    Stage(String),
    Claim(claim::Action),
    Notify,
    Housekeeping,
    Executions(executions::Pattern),
    CreateJob {
        sync: bool,
    },
    GetJob,
    Items(String, aws::Integration),
    Objects(String),
    Publish,
    /// The function's ARN as Resource: its result is the task's.
    Function,
    /// `lambda:invoke`: the result with metadata around it.
    Invoke,
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
            ("aws-sdk", operation) if operation.starts_with("s3:") => Family::Objects(operation[3..].to_owned()),
            ("sns", "publish") | ("aws-sdk", "sns:publish") => Family::Publish,
            ("lambda", "invoke" | "invoke.waitForTaskToken") => Family::Invoke,
            _ => return None,
        })
    }

    /// Which lane it runs on.
    pub fn lane(&self) -> &'static str {
        match self {
            Family::Stage(stage) => media::lane(stage),
            _ => "io",
        }
    }

    /// Runs one attempt.
    pub async fn call(&self, call: &Call) -> Result<Answer, TaskError> {
        let answer = match self {
            Family::Stage(stage) => media::call(call, stage).await?,
            Family::Claim(action) => claim::call(call, *action).await?,
            Family::Notify => notify::event(call).await?,
            Family::Publish => notify::publish(call).await?,
            Family::Housekeeping => housekeeping::call(call).await?,
            Family::Executions(pattern) => executions::call(call, *pattern).await?,
            Family::CreateJob { sync } => jobs::create(call, *sync).await?,
            Family::GetJob => jobs::get(call)?,
            Family::Items(operation, integration) => items::call(call, operation, *integration).await?,
            Family::Objects(operation) => objects::call(call, operation).await?,
            Family::Function => functions::call(call).await?,
            Family::Invoke => functions::invoke(call).await?,
        };
        // With `.waitForTaskToken` the call's answer only says that the request was taken.
        Ok(match answer {
            Answer::Done(value) if call.task.resource.ends_with(".waitForTaskToken") => Answer::Submitted(value),
            answer => answer,
        })
    }
}

/// What an execution that a Task waits for means to that Task, by the shape that was asked for at its start.
pub fn deliver(services: &Services, shape: &str, child: &Header) -> Result<Value, TaskError> {
    match shape {
        "job" => jobs::delivered(services, child),
        "sync2" => executions::delivered(services, child, executions::Pattern::Sync2),
        _ => executions::delivered(services, child, executions::Pattern::Sync),
    }
}

impl Services {
    pub fn machine_arn(&self, machine: &str) -> String {
        format!("arn:aws:states:{}:{}:stateMachine:{machine}", self.region, self.account)
    }

    pub fn execution_arn(&self, machine: &str, name: &str) -> String {
        format!("arn:aws:states:{}:{}:execution:{machine}:{name}", self.region, self.account)
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
            ("arn:aws:states:::dynamodb:putItem", Family::Items("putItem".into(), aws::Integration::Optimised)),
        ] {
            assert_eq!(Family::find(arn), Some(family), "{arn}");
        }
        for unknown in ["arn:aws:states:::conveyor:nonsense", "arn:aws:states:::ecs:runTask.sync", "x", ""] {
            assert_eq!(Family::find(unknown), None, "{unknown}");
        }
    }
}
