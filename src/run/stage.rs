//! One attempt at work: a future, and the actor that owns it for as long as it takes.
//!
//! An attempt that is through at its first poll (a row looked up, a message queued) never gets an actor. When an actor
//! ends, however it ends, the work ends with it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::task::Poll;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use super::core::SharedCore;
use super::lanes::{Lease, Ticket};
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

/// An attempt that has not ended.
pub(super) struct Stage {
    core: SharedCore,
    execution: ExecutionId,
    attempt: Attempt,
    state: Arc<str>,
    resource: String,
    started_at: Timestamp,
    lease: Option<Lease>,
    /// For another device, should the one it runs on fail.
    task: Option<Box<RunTask>>,
    work: BoxFuture<'static, TaskOutcome>,
}

/// How an attempt left its lane.
pub(super) enum End {
    Ended(Event),
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
            handle: Handle::of(core.clone()),
            progress,
            threads: lease.as_ref().map_or(1, |lease| lease.cores as usize),
            device,
            moved: lease.as_ref().map_or_else(Vec::new, |lease| lease.moved().to_vec()),
            task,
        };
        let work = async move {
            if let Some(error) = refused {
                return TaskOutcome::Failed(error);
            }
            let Some(found) = found else { return TaskOutcome::StartFailed(unknown(&context.task.resource)) };
            // Inside, so that a panic while the future is made is caught too.
            let work = async move { found.run(context).await };
            AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
                TaskOutcome::Failed(TaskError::new(
                    "Stage.Panicked",
                    "The stage failed inside the appliance; its log has the details. Please report it.",
                ))
            })
        };
        let execution = header.id;
        Stage { core, execution, attempt, state, resource, started_at, lease, task: kept, work: work.boxed() }
    }

    /// The attempt's end, where it needs to wait for nothing.
    pub async fn end_at_once(&mut self) -> Option<Event> {
        match futures::poll!(&mut self.work) {
            Poll::Ready(outcome) => Some(self.ended(outcome)),
            Poll::Pending => None,
        }
    }

    /// The attempt's end, however long it takes. On the board until then.
    pub async fn end(mut self) -> End {
        self.core.board.begin(self.execution, self.working());
        let _shown = Shown { core: self.core.clone(), execution: self.execution, attempt: self.attempt };
        let outcome = (&mut self.work).await;
        self.end_of(outcome)
    }

    fn end_of(&mut self, outcome: TaskOutcome) -> End {
        match self.moves_on(&outcome) {
            Some((task, ticket)) => End::Moved { task, ticket },
            None => End::Ended(self.ended(outcome)),
        }
    }

    fn ended(&self, outcome: TaskOutcome) -> Event {
        let (event, outcome) = event(self.attempt, outcome);
        let duration_ms = self.core.clock.now().since_ms(self.started_at);
        let (id, attempt, resource) = (self.execution, self.attempt, self.resource.as_str());
        events::StageEnded { id, attempt, resource, outcome, duration_ms }.emit();
        event
    }

    /// Where its device failed and not its work, the attempt goes on elsewhere.
    fn moves_on(&mut self, outcome: &TaskOutcome) -> Option<(Box<RunTask>, Ticket)> {
        let TaskOutcome::Failed(error) = outcome else { return None };
        let lease = self.lease.as_ref()?;
        let ticket = lease.failed(error)?;
        let (id, attempt, lane) = (self.execution, self.attempt, lease.label());
        events::StageMoved { id, attempt, lane, error: &error.error, cause: &error.cause }.emit();
        Some((self.task.take()?, ticket))
    }

    fn working(&self) -> Working {
        Working {
            attempt: self.attempt,
            state: self.state.clone(),
            resource: self.resource.clone(),
            lane: self.lease.as_ref().map(|lease| lease.label().to_owned()).unwrap_or_default(),
            started_at: self.started_at,
            progress: Progress::default(),
        }
    }
}

pub(super) struct State {
    stage: Stage,
    _work: AbortOnDrop,
}

/// Takes the attempt off the board, also where it is cancelled.
struct Shown {
    core: SharedCore,
    execution: ExecutionId,
    attempt: Attempt,
}

impl Drop for Shown {
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
        self.stage.core.board.end(self.stage.execution, self.stage.attempt);
    }
}

impl Actor for StageActor {
    type Msg = Message;
    type State = State;
    type Arguments = Stage;

    async fn pre_start(&self, myself: ActorRef<Message>, mut stage: Stage) -> Result<State, ActorProcessingErr> {
        stage.core.board.begin(stage.execution, stage.working());
        let work = std::mem::replace(&mut stage.work, futures::future::pending().boxed());
        let work = tokio::spawn(async move {
            let outcome = work.await;
            // The actor is gone only when it was cancelled, and then nobody asks for the outcome.
            let _ = myself.cast(Message::Ended(outcome));
        });
        Ok(State { stage, _work: AbortOnDrop(work) })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        Message::Ended(outcome): Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let stage = &mut state.stage;
        match stage.end_of(outcome) {
            End::Moved { task, ticket } => {
                let moved = super::execution::Message::Moved { task, ticket };
                stage.core.send(stage.execution, moved, None);
            }
            End::Ended(event) => stage.core.post(stage.execution, event),
        }
        myself.stop(None);
        Ok(())
    }
}

/// Where an attempt tells how far it is.
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
