//! What an adapter is: it carries out the Tasks of some names, with no more than what it was built with.
//!
//! ```text
//! TaskContext --parameters as JSON--> Call --Adapter::call--> Answer | TaskError --pattern--> TaskOutcome
//! ```

use std::sync::Arc;

use conveyor_base::{ExecutionId, TaskError};
use conveyor_interpreter::RunTask;
use conveyor_job::Device;
use conveyor_run::service::Requester;
use conveyor_run::{
    Attempted, Completion, Demand, Handle, OnForecast, ProgressSink, Resource, TaskContext, TaskOutcome,
};
use conveyor_run::{Refused, StartRequest, Started};
use conveyor_store::Commit;
use futures::future::BoxFuture;
use serde_json::Value;

/// One attempt of one Task.
#[derive(Clone)]
pub struct Call {
    pub execution: ExecutionId,
    pub execution_arn: String,
    /// The state machine's name.
    pub machine: String,
    pub trace_header: Option<String>,
    pub task: Arc<RunTask>,
    pub parameters: Value,
    pub handle: Handle,
    pub progress: ProgressSink,
    /// Cores that the lease allows.
    pub threads: usize,
    /// The GPU that was leased with them.
    pub device: Option<Device>,
    /// Devices that failed under this attempt before.
    pub moved: Vec<String>,
}

impl Call {
    /// The parameter of that name, where it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).and_then(Value::as_str)
    }
}

/// How a call ended well.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// The task's result.
    Done(Value),
    /// The service's answer to the submission; somebody else reports the end.
    Submitted(Value),
}

/// What a call comes to that did not fail.
pub enum CallOutcome {
    Ended(Ended),
    /// A service of the box is asked, and the attempt ends with its answer: see [`Attempted::Settle`].
    Settle(SettleFn),
}

/// Asks a service on behalf of an attempt.
pub type SettleFn = Box<dyn FnOnce(AttemptCompletion) + Send>;

impl CallOutcome {
    pub fn done(value: Value) -> CallOutcome {
        CallOutcome::Ended(Ended::Done(value))
    }

    pub fn submitted(value: Value) -> CallOutcome {
        CallOutcome::Ended(Ended::Submitted(value))
    }

    /// `ask` gets the attempt and sends a service its question; it waits for nothing.
    pub fn settle(ask: impl FnOnce(AttemptCompletion) + Send + 'static) -> CallOutcome {
        CallOutcome::Settle(Box::new(ask))
    }
}

impl From<Ended> for CallOutcome {
    fn from(ended: Ended) -> CallOutcome {
        CallOutcome::Ended(ended)
    }
}

/// What an adapter's call comes to.
pub type CallFuture<'a> = BoxFuture<'a, Result<CallOutcome, TaskError>>;

/// Carries out the Tasks that name it.
///
/// It may be called twice for the same attempt (a crash between acting and storing the outcome issues it again) and
/// must end in one result: names and ids that it makes are derived from the execution and the attempt. A call is
/// dropped when its attempt is cancelled or timed out.
pub trait Adapter: Send + Sync {
    /// What an attempt needs of the box; nothing where it only reads and writes the appliance's own store.
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    /// See [`Resource::predict`].
    fn predict(&self, _: &RunTask, _: &dyn Fn() -> OnForecast) {}

    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a>;
}

/// An adapter as `conveyor_run` runs it.
pub(super) struct Adapted(pub Arc<dyn Adapter>);

impl Resource for Adapted {
    fn demand(&self, task: &RunTask) -> Option<Demand> {
        self.0.demand(task)
    }

    fn predict(&self, task: &RunTask, on_forecast: &dyn Fn() -> OnForecast) {
        self.0.predict(task, on_forecast);
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        let adapter = self.0.clone();
        Box::pin(async move {
            let parameters = match serde_json::from_str(&context.task.parameters) {
                Ok(parameters) => parameters,
                Err(e) => {
                    let what = format!("the task's parameters are no JSON: {e}");
                    return TaskOutcome::StartFailed(TaskError::new("States.Runtime", what)).into();
                }
            };
            let call = Call {
                execution: context.execution,
                execution_arn: context.execution_arn,
                machine: context.machine.name,
                trace_header: context.trace_header,
                task: Arc::new(context.task),
                parameters,
                handle: context.handle,
                progress: context.progress,
                threads: context.threads,
                device: context.device,
                moved: context.moved,
            };
            let resource = &call.task.resource;
            match adapter.call(&call).await {
                Ok(CallOutcome::Settle(settle)) => {
                    let resource = resource.clone();
                    Attempted::Settle(Box::new(move |completion| settle(AttemptCompletion { completion, resource })))
                }
                Ok(CallOutcome::Ended(ended)) => outcome(resource, Ok(ended)).into(),
                Err(error) => outcome(resource, Err(error)).into(),
            }
        })
    }
}

/// An attempt that a service of the box ends, in the commit of what it changes for it.
pub struct AttemptCompletion {
    completion: Completion,
    resource: String,
}

impl AttemptCompletion {
    /// The attempt as the requester of a service; `shape` makes the Task's end of the service's answer.
    pub fn into_requester<A: Send + 'static>(
        self,
        shape: impl FnOnce(&A) -> Result<Ended, TaskError> + Send + 'static,
    ) -> Requester<A> {
        let AttemptCompletion { completion, resource } = self;
        Requester::task(completion, move |answer| outcome(&resource, shape(answer)))
    }

    /// Ends the attempt in one commit with rows that no service keeps.
    pub fn commits(self, handle: &Handle, commit: Commit, ended: Ended) {
        let AttemptCompletion { completion, resource } = self;
        handle.commit_for(commit, completion, outcome(&resource, Ok(ended)));
    }

    /// Starts an execution; `shape` makes the Task's end of what became of it, which is part of the start's commit.
    pub fn starts(
        self,
        handle: &Handle,
        request: StartRequest,
        shape: impl FnOnce(&Result<Started, Refused>) -> Result<Ended, TaskError> + Send + 'static,
    ) {
        let AttemptCompletion { completion, resource } = self;
        handle.start_for(request, completion, move |started| outcome(&resource, shape(started)));
    }
}

fn outcome(resource: &str, ended: Result<Ended, TaskError>) -> TaskOutcome {
    match ended {
        // With `.waitForTaskToken` the call's answer only says that the request was taken.
        Ok(Ended::Done(value)) if !resource.ends_with(TOKEN) => TaskOutcome::Succeeded(value.to_string().into()),
        Ok(Ended::Done(value) | Ended::Submitted(value)) => TaskOutcome::Submitted { output: value.to_string().into() },
        Err(error) if waits(resource) => TaskOutcome::SubmitFailed(error),
        Err(error) => TaskOutcome::Failed(error),
    }
}

const TOKEN: &str = ".waitForTaskToken";

/// Whether a Task with this Resource waits for somebody else after its submission.
fn waits(resource: &str) -> bool {
    [".sync", ".sync:2", TOKEN].iter().any(|pattern| resource.ends_with(pattern))
}
