//! The actor of one attempt. Its work is a future; when the actor ends, however it ends, the work ends with it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use futures::FutureExt as _;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use super::core::SharedCore;
use super::lane::Lease;
use super::notice::{ProgressSink, Working};
use super::resource::{TaskContext, TaskOutcome};
use super::{Handle, events};
use crate::base::{Attempt, ExecutionId, TaskError, Timestamp};
use crate::interpreter::{Event, Header, RunTask};
use crate::media::Progress;

pub(super) enum Message {
    Ended(TaskOutcome),
}

pub(super) struct StageActor;

pub(super) struct Arguments {
    core: SharedCore,
    context: TaskContext,
    lease: Option<Lease>,
}

impl Arguments {
    pub fn new(
        core: SharedCore,
        header: &Header,
        execution_arn: String,
        task: RunTask,
        lease: Option<Lease>,
    ) -> Arguments {
        let attempt = task.attempt;
        let beating = (core.clone(), header.id);
        let heartbeat = task.heartbeat_ms.map(|ms| {
            let beat = move || beating.0.post(beating.1, Event::HeartbeatSeen { attempt });
            (ms, Arc::new(beat) as Arc<dyn Fn() + Send + Sync>)
        });
        let progress = ProgressSink {
            board: core.board.clone(),
            clock: core.clock.clone(),
            execution: header.id,
            attempt,
            last_ms: Arc::new(AtomicI64::new(0)),
            heartbeat,
            last_heartbeat_ms: Arc::new(AtomicI64::new(core.clock.now().0)),
        };
        let context = TaskContext {
            execution: header.id,
            execution_name: header.name.clone(),
            execution_arn,
            execution_started_at: header.started_at,
            machine: header.machine.clone(),
            handle: Handle::of(core.clone()),
            progress,
            threads: lease.as_ref().map_or(1, |lease| lease.weight() as usize),
            task,
        };
        Arguments { core, context, lease }
    }
}

pub(super) struct State {
    core: SharedCore,
    execution: ExecutionId,
    attempt: Attempt,
    resource: String,
    started_at: Timestamp,
    _work: AbortOnDrop,
    _lease: Option<Lease>,
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.core.board.end(self.execution, self.attempt);
    }
}

impl Actor for StageActor {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, a: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments { core, context, lease } = a;
        let (execution, attempt, resource) = (context.execution, context.task.attempt, context.task.resource.clone());
        let started_at = core.clock.now();
        core.board.begin(
            execution,
            Working {
                attempt,
                state: context.task.state.clone(),
                resource: resource.clone(),
                lane: lease.as_ref().map(|lease| lease.lane().to_owned()).unwrap_or_default(),
                started_at,
                progress: Progress::default(),
            },
        );
        let found = core.resources.find(&resource);
        let work = tokio::spawn(async move {
            let outcome = match found {
                Some(resource) => match AssertUnwindSafe(resource.run(context)).catch_unwind().await {
                    Ok(outcome) => outcome,
                    Err(_) => TaskOutcome::Failed(TaskError::new(
                        "Stage.Panicked",
                        "The stage failed inside the appliance; its log has the details. Please report it.",
                    )),
                },
                None => TaskOutcome::StartFailed(unknown(&context.task.resource)),
            };
            // The actor is gone only when it was cancelled, and then nobody asks for the outcome.
            let _ = myself.cast(Message::Ended(outcome));
        });
        Ok(State { core, execution, attempt, resource, started_at, _work: AbortOnDrop(work), _lease: lease })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Message::Ended(outcome) = message;
        let (event, outcome) = event(state.attempt, outcome);
        let duration_ms = state.core.clock.now().since_ms(state.started_at);
        events::StageEnded {
            id: state.execution,
            attempt: state.attempt,
            resource: &state.resource,
            outcome,
            duration_ms,
        }
        .emit();
        state.core.post(state.execution, event);
        myself.stop(None);
        Ok(())
    }
}

fn unknown(resource: &str) -> TaskError {
    TaskError::new(
        "States.Runtime",
        format!("This box has no resource '{resource}'. Correct the Task's Resource, or configure what it names."),
    )
}

fn event(attempt: Attempt, outcome: TaskOutcome) -> (Event, &'static str) {
    let parts = |e: TaskError| (Some(e.error), Some(e.cause));
    match outcome {
        TaskOutcome::Succeeded(output) => (Event::TaskSucceeded { attempt, output }, "succeeded"),
        TaskOutcome::Submitted { output } => (Event::TaskSubmitted { attempt, output }, "submitted"),
        TaskOutcome::Failed(e) => {
            let (error, cause) = parts(e);
            (Event::TaskFailed { attempt, error, cause }, "failed")
        }
        TaskOutcome::SubmitFailed(e) => {
            let (error, cause) = parts(e);
            (Event::TaskSubmitFailed { attempt, error, cause }, "submit_failed")
        }
        TaskOutcome::StartFailed(e) => {
            let (error, cause) = parts(e);
            (Event::TaskStartFailed { attempt, error, cause }, "start_failed")
        }
    }
}
