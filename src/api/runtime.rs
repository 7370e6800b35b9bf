//! [`Runtime`]: what the doors ask of the running appliance. Everything that changes something goes through it;
//! whatever only looks goes to the store's reader.
//!
//! Each call resolves once what it did is durable.

use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::broadcast;

use super::Refusal;
use crate::base::{ExecutionId, TaskToken, Timestamp};
use crate::interpreter::Status;
use crate::interpreter::event::Json;
use crate::media::Progress;
use crate::store::{ActivityRow, MachineRow};

pub type Answer<T> = BoxFuture<'static, Result<T, Refusal>>;

#[derive(Clone, Debug)]
pub struct NewMachine {
    pub name: String,
    pub definition: String,
    pub role_arn: String,
    pub express: bool,
    /// Logging and tracing settings and tags, as JSON.
    pub settings: String,
}

/// What changes about a machine; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct MachineChange {
    pub definition: Option<String>,
    pub role_arn: Option<String>,
    pub settings: Option<String>,
}

#[derive(Clone, Debug)]
pub struct NewExecution {
    pub machine: String,
    /// A version or an alias.
    pub qualifier: Option<String>,
    /// `None`: the box makes one up.
    pub name: Option<String>,
    pub input: Json,
    pub trace_header: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Started {
    pub id: ExecutionId,
    pub name: String,
    pub started_at: Timestamp,
}

/// How an attempt that somebody else works on ended.
#[derive(Clone, Debug)]
pub enum Report {
    Succeeded { output: Json },
    Failed { error: Option<String>, cause: Option<String> },
    Heartbeat,
}

/// What an activity's worker got to do.
#[derive(Clone, Debug)]
pub struct ActivityTask {
    pub token: TaskToken,
    pub input: Json,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    pub name: String,
    pub capacity: u32,
    pub busy: u32,
    pub waiting: u32,
}

/// Something changed that a screen may show.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A commit touched the execution.
    Changed {
        execution: ExecutionId,
        status: Status,
    },
    Progress {
        execution: ExecutionId,
        state: String,
        started_at: Timestamp,
        progress: Progress,
    },
}

pub trait Runtime: Send + Sync + 'static {
    fn create_machine(&self, new: NewMachine) -> Answer<MachineRow>;
    fn update_machine(&self, name: String, change: MachineChange) -> Answer<MachineRow>;
    /// Deleting what does not exist succeeds, as on AWS.
    fn delete_machine(&self, name: String) -> Answer<()>;
    fn start(&self, new: NewExecution) -> Answer<Started>;
    /// When it stopped.
    fn stop(&self, id: ExecutionId, error: Option<String>, cause: Option<String>) -> Answer<Timestamp>;
    /// When it went on.
    fn redrive(&self, id: ExecutionId) -> Answer<Timestamp>;
    fn report(&self, token: String, report: Report) -> Answer<()>;
    fn create_activity(&self, name: String) -> Answer<ActivityRow>;
    fn delete_activity(&self, name: String) -> Answer<()>;
    /// Waits up to a minute for work; `None` where there was none.
    fn activity_task(&self, activity: String, worker: Option<String>) -> Answer<Option<ActivityTask>>;
    fn subscribe(&self) -> broadcast::Receiver<Notice>;
    fn lanes(&self) -> Vec<LaneStatus>;
    fn now(&self) -> Timestamp;
    /// Whether the store takes commits: a commit of nothing, or of a mark of its own.
    fn check_store(&self) -> Answer<()>;
}
