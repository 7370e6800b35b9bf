//! What a Task may name, as this floor sees it: something that has a lane and runs an attempt to an outcome.

use std::sync::Arc;

use std::io;

use conveyor_base::{ExecutionId, TaskError, Timestamp};
use conveyor_interpreter::map_run::ReadItems;
use conveyor_interpreter::{Header, Json, MachineRef, RunTask};
use conveyor_job::Device;
use conveyor_store::Commit;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::completion::Settle;
use super::{Demand, Handle, OnForecast, ProgressSink};

/// What runs the attempts of the Tasks that name it.
///
/// The future is dropped when the attempt is cancelled or timed out: whatever it holds must end with it.
/// After a crash of the box the same attempt is run again, so running twice must leave one result.
pub trait Resource: Send + Sync {
    /// What the attempt needs of the box, if anything.
    fn demand(&self, task: &RunTask) -> Option<Demand>;
    /// Says how long the attempt will run, where that can be known before: at once, or later through `on_forecast`.
    fn predict(&self, _task: &RunTask, _on_forecast: &dyn Fn() -> OnForecast) {}
    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted>;
}

/// What running an attempt came to.
pub enum Attempted {
    Ended(TaskOutcome),
    /// A service of the box ends the attempt, in the commit of what it changes for it. Nothing is changed before this
    /// is called, and it may never be: of an attempt that was cancelled meanwhile.
    Settle(Settle),
}

impl From<TaskOutcome> for Attempted {
    fn from(outcome: TaskOutcome) -> Attempted {
        Attempted::Ended(outcome)
    }
}

/// An attempt, with what it may know and use.
pub struct TaskContext {
    pub execution: ExecutionId,
    pub execution_name: String,
    pub execution_arn: String,
    pub execution_started_at: Timestamp,
    pub machine: MachineRef,
    pub trace_header: Option<String>,
    pub task: RunTask,
    pub handle: Handle,
    pub progress: ProgressSink,
    /// Cores that the lease allows.
    pub threads: usize,
    /// The GPU that was leased, and which of its engines.
    pub device: Option<Device>,
    /// Devices that failed under this attempt before.
    pub moved: Vec<String>,
}

/// How running an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskOutcome {
    Succeeded(Json),
    Failed(TaskError),
    /// The work goes on elsewhere, and somebody else reports its end: a child execution, the holder of a token.
    Submitted {
        output: Json,
    },
    SubmitFailed(TaskError),
    StartFailed(TaskError),
}

/// Writes an object's content.
pub type Fill = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// Takes items, some at a time, each as one line of JSON: `[value]`, `[value, key]` or `[value, key, source]`.
pub type ItemSink = mpsc::Sender<Vec<String>>;

/// All resources of the box; implemented by `conveyor_resources`.
pub trait Resources: Send + Sync + 'static {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>>;
    /// What a parent's attempt gets when its child execution has ended; `shape` is what the child's
    /// [`Parent`](conveyor_interpreter::Parent) says.
    fn child_ended(&self, shape: &str, child: &Header, child_arn: &str, machine_arn: &str) -> Result<Json, TaskError>;

    /// An execution is about to be stored for the first time, having run its first states: adds to the commit what
    /// others are to be told. What it answers is handed to [`Resources::announced`] once the commit is durable.
    fn begun(&self, _: &Header, _: &mut Commit) -> Vec<Announced> {
        Vec::new()
    }

    /// The same for an execution whose status is another one after the step.
    fn status_changed(&self, _: &Header, _: &mut Commit) -> Vec<Announced> {
        Vec::new()
    }

    /// It is durable.
    fn announced(&self, _: Vec<Announced>) {}

    /// Reads the items of a distributed Map, for as long as the sink takes them. Errors are `States.ItemReaderFailed`.
    fn read_items(&self, _: ReadItems, _: ItemSink) -> BoxFuture<'static, Result<(), TaskError>> {
        let error = TaskError::new("States.ItemReaderFailed", "There is nothing here that items could be read from.");
        async move { Err(error) }.boxed()
    }

    /// Where items come from whose lines do not say so: `$$.Map.Item.Source`.
    fn source_of(&self, reader: Option<&ReadItems>) -> Arc<str> {
        let text = |name: &str| reader.and_then(|reader| reader.parameters.get(name)?.as_str()).unwrap_or_default();
        match (text("Bucket"), text("Key")) {
            (bucket, "") => format!("s3://{bucket}").into(),
            (bucket, key) => format!("s3://{bucket}/{key}").into(),
        }
    }

    /// Writes an object, whole or not at all, and says how many bytes it has.
    fn write_object(&self, bucket: String, _: String, _: Fill) -> BoxFuture<'static, Result<u64, TaskError>> {
        let cause = format!("There is no bucket '{bucket}' that results could be written to.");
        async move { Err(TaskError::new("States.ResultWriterFailed", cause)) }.boxed()
    }
}

/// A row of a service (`conveyor_services`), by its key.
pub type Announced = (String, String);
