//! One attempt at work: a future, and the actor that owns it for as long as it takes.
//!
//! An attempt that is through at its first poll (a row looked up, a message queued) never gets an actor. When an actor
//! ends, however it ends, the work ends with it.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, LazyLock};
use std::task::Poll;

use conveyor_base::{Attempt, ExecutionId, TaskError, Timestamp};
use conveyor_interpreter::{Event, Header, RunTask};
use conveyor_job::Progress;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use super::completion::Settle;
use super::core::SharedCore;
use super::lanes::{Lease, Ticket};
use super::progress::{ProgressSink, RunningAttempt};
use super::resource::{Attempted, TaskContext, TaskOutcome};
use super::supervise::within_part;
use super::{Handle, events};

/// What attempts at work are called, where what runs asks for its part of the appliance.
static PART: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("a stage"));

pub(super) enum Message {
    Ended(Attempted),
}

pub(super) struct StageActor;

/// An attempt that has not ended.
pub(super) struct Stage {
    core: SharedCore,
    labels: AttemptLabels,
    state: Arc<str>,
    lease: Option<Lease>,
    /// For another device, should the one it runs on fail.
    task: Option<Box<RunTask>>,
    work: BoxFuture<'static, Attempted>,
}

/// Which attempt it is that ends, for logs and metrics.
#[derive(Clone)]
pub(super) struct AttemptLabels {
    execution: ExecutionId,
    pub attempt: Attempt,
    resource: String,
    started_at: Timestamp,
}

impl AttemptLabels {
    /// The event of an attempt's end, which logs and metrics are told of. Nothing is expected of it any more.
    pub fn ended(&self, core: &SharedCore, outcome: TaskOutcome) -> Event {
        core.board.predictions.end(self.execution, self.attempt);
        let (event, outcome) = event(self.attempt, outcome);
        let duration_ms = core.clock.now().since_ms(self.started_at);
        let (id, attempt, resource) = (self.execution, self.attempt, self.resource.as_str());
        events::StageEnded { id, attempt, resource, outcome, duration_ms }.emit();
        event
    }
}

/// How an attempt left its lane.
pub(super) enum End {
    Ended(Event),
    /// A service ends it.
    Settle(Settle, AttemptLabels),
    /// Its device failed and not its work: it is to be queued again.
    Moved {
        task: Box<RunTask>,
        ticket: Ticket,
    },
}

/// A task's HeartbeatSeconds in milliseconds, and what to do as a sign of life.
type Heartbeat = Option<(i64, Arc<dyn Fn() + Send + Sync>)>;

impl Stage {
    pub fn new(
        core: SharedCore,
        header: &Header,
        execution_arn: String,
        task: RunTask,
        lease: Result<Option<Lease>, TaskError>,
    ) -> Stage {
        let (attempt, started_at) = (task.attempt, core.clock.now());
        let beating = (core.clone(), header.id);
        let heartbeat = task.heartbeat_ms.map(|ms| {
            let beat = move || beating.0.post(beating.1, Event::HeartbeatSeen { attempt });
            (ms, Arc::new(beat) as Arc<dyn Fn() + Send + Sync>)
        });
        let progress = progress(&core, header.id, attempt, heartbeat);
        let (state, resource) = (task.state.clone(), task.resource.clone());
        let found = core.resources.find(&resource);
        let (lease, refused) = match lease {
            Ok(lease) => (lease, None),
            Err(error) => (None, Some(error)),
        };
        let device = lease.as_ref().and_then(|lease| lease.device.clone());
        let kept = device.is_some().then(|| Box::new(task.clone()));
        let context = TaskContext {
            execution: header.id,
            execution_name: header.name.clone(),
            execution_arn,
            execution_started_at: header.started_at,
            machine: header.machine.clone(),
            trace_header: header.trace_header.clone(),
            handle: Handle::of(core.clone()),
            progress,
            threads: lease.as_ref().map_or(1, |lease| lease.cores as usize),
            device,
            moved: lease.as_ref().map_or_else(Vec::new, |lease| lease.moved().to_vec()),
            task,
        };
        let work = async move {
            if let Some(error) = refused {
                return TaskOutcome::Failed(error).into();
            }
            let Some(found) = found else { return TaskOutcome::StartFailed(unknown(&context.task.resource)).into() };
            // Inside, so that a panic while the future is made is caught too.
            let work = within_part(&PART, async move { found.run(context).await });
            AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
                TaskOutcome::Failed(TaskError::new(
                    "Stage.Panicked",
                    "The stage failed inside the appliance; its log has the details. Please report it.",
                ))
                .into()
            })
        };
        let labels = AttemptLabels { execution: header.id, attempt, resource, started_at };
        Stage { core, labels, state, lease, task: kept, work: work.boxed() }
    }

    /// The attempt's end, where it needs to wait for nothing. Never moved elsewhere: it holds no device.
    pub async fn end_at_once(&mut self) -> Option<End> {
        match futures::poll!(&mut self.work) {
            Poll::Ready(attempted) => Some(self.end_of(attempted)),
            Poll::Pending => None,
        }
    }

    /// The attempt's end, however long it takes. On the board until then.
    pub async fn end(mut self) -> End {
        self.core.board.begin(self.labels.execution, self.running());
        let (execution, attempt) = (self.labels.execution, self.labels.attempt);
        let _on_board = BoardGuard { core: self.core.clone(), execution, attempt };
        let attempted = (&mut self.work).await;
        self.end_of(attempted)
    }

    fn end_of(&mut self, attempted: Attempted) -> End {
        let outcome = match attempted {
            Attempted::Settle(settle) => return End::Settle(settle, self.labels.clone()),
            Attempted::Ended(outcome) => outcome,
        };
        match self.moves_on(&outcome) {
            Some((task, ticket)) => End::Moved { task, ticket },
            None => End::Ended(self.labels.ended(&self.core, outcome)),
        }
    }

    /// Where its device failed and not its work, the attempt goes on elsewhere.
    fn moves_on(&mut self, outcome: &TaskOutcome) -> Option<(Box<RunTask>, Ticket)> {
        let TaskOutcome::Failed(error) = outcome else { return None };
        let lease = self.lease.as_ref()?;
        let ticket = lease.failed(error)?;
        let (id, attempt, lane) = (self.labels.execution, self.labels.attempt, lease.label());
        events::StageMoved { id, attempt, lane, error: &error.error, cause: &error.cause }.emit();
        Some((self.task.take()?, ticket))
    }

    fn running(&self) -> RunningAttempt {
        RunningAttempt {
            attempt: self.labels.attempt,
            state: self.state.clone(),
            resource: self.labels.resource.clone(),
            lane: self.lease.as_ref().map(|lease| lease.label().to_owned()).unwrap_or_default(),
            started_at: self.labels.started_at,
            progress: Progress::default(),
        }
    }
}

pub(super) struct State {
    stage: Stage,
    _work: AbortOnDrop,
}

/// Takes the attempt off the board, also where it is cancelled.
struct BoardGuard {
    core: SharedCore,
    execution: ExecutionId,
    attempt: Attempt,
}

impl Drop for BoardGuard {
    fn drop(&mut self) {
        self.core.board.end(self.execution, self.attempt);
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.stage.core.board.end(self.stage.labels.execution, self.stage.labels.attempt);
    }
}

impl Actor for StageActor {
    type Msg = Message;
    type State = State;
    type Arguments = Stage;

    async fn pre_start(&self, myself: ActorRef<Message>, mut stage: Stage) -> Result<State, ActorProcessingErr> {
        stage.core.board.begin(stage.labels.execution, stage.running());
        let work = std::mem::replace(&mut stage.work, futures::future::pending().boxed());
        let work = tokio::spawn(async move {
            let attempted = work.await;
            // The actor is gone only when it was cancelled, and then nobody asks for the outcome.
            let _ = myself.cast(Message::Ended(attempted));
        });
        Ok(State { stage, _work: AbortOnDrop(work) })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        Message::Ended(attempted): Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let stage = &mut state.stage;
        let id = stage.labels.execution;
        match stage.end_of(attempted) {
            End::Moved { task, ticket } => {
                let moved = super::execution::Message::Moved { task, ticket };
                stage.core.send(id, moved, None);
            }
            End::Settle(settle, labels) => {
                stage.core.send(id, super::execution::Message::Settle { settle, labels }, None);
            }
            End::Ended(event) => stage.core.post(id, event),
        }
        myself.stop(None);
        Ok(())
    }
}

/// Where an attempt reports how far it is.
pub(super) fn progress(
    core: &SharedCore,
    execution: ExecutionId,
    attempt: Attempt,
    heartbeat: Heartbeat,
) -> ProgressSink {
    ProgressSink {
        board: core.board.clone(),
        clock: core.clock.clone(),
        execution,
        attempt,
        last_ms: Arc::new(AtomicI64::new(0)),
        heartbeat,
        last_heartbeat_ms: Arc::new(AtomicI64::new(core.clock.now().0)),
    }
}

pub(super) fn unknown(resource: &str) -> TaskError {
    TaskError::new(
        "States.Runtime",
        format!("This box has no resource '{resource}'. Correct the Task's Resource, or configure what it names."),
    )
}

/// An outcome as the event that `step` takes, and as metrics name it.
pub(super) fn event(attempt: Attempt, outcome: TaskOutcome) -> (Event, &'static str) {
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
