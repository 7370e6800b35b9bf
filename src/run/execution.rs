//! The actor of one execution: step, commit, act, for as long as it has something to do now.
//!
//! ```text
//! asleep ──event──> awake ──step──> commit ──> act ──┐
//!   ^                 ^  └──────────────────────<────┘
//!   └── nothing pending, no stage running
//! ```
//!
//! Invariants: one actor per execution at a time (`Core::send` sees to it); nothing is acted on before its
//! commit; what is in memory is what the store holds. When a commit fails the memory is dropped, never trusted.

mod damaged;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use conveyor_base::{Attempt, BranchId, ExecutionId, Fault, TaskError, TimerId, fault};
use conveyor_interpreter::{
    Branch, Command, Doing, Entry, Event, Execution, Header, Known, Lacks, Outcome, Pace, Partial, RunTask, Status,
    Step, TaskPhase, Unread,
};
use conveyor_store::{Commit, NotRead, Scans};
use futures::FutureExt as _;
use parking_lot::Mutex;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::audit::OnBehalf;
use super::catalog::Machine;
use super::completion::{self, Completed, Completion, Settle};
use super::core::{ReplySender, SharedCore};
use super::lanes::{Lease, Ticket};
use super::resource::Announced;
use super::stage::{self, AttemptLabels, End, Stage, StageActor};
use super::supervise::within_part;
use super::{LiveUpdate, Refused, events, guarded, recover};

/// What actors of executions are called, where what runs asks for its part of the appliance.
static PART: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("an execution"));

/// How often a service may panic over an attempt's question before the attempt has failed.
const LOSSES_MAX: u32 = 3;

pub(super) enum Message {
    Event {
        event: Event,
        answer: Option<ReplySender>,
        /// Whose doing it is, where the audit log is to say so.
        on_behalf: Option<OnBehalf>,
    },
    /// A service ends the attempt, in one commit with what it changes.
    Settle { settle: Settle, labels: AttemptLabels },
    /// The attempt may run now.
    Leased { task: Box<RunTask>, lease: Result<Option<Lease>, TaskError> },
    /// The attempt's device failed, and its stage has given it up: it waits for another one.
    Moved { task: Box<RunTask>, ticket: Ticket },
    /// A timer that is set is due. It wakes that branch, or is the execution's own.
    Fired { timer: TimerId, of: Option<BranchId>, answer: ReplySender },
    /// A stage's actor is no more. Comes after whatever that stage had to say.
    StageGone { stage: ActorId },
    /// Somebody else could not read what is stored of it.
    Damaged { what: String },
}

pub(super) struct ExecutionActor;

pub(super) struct Arguments {
    pub id: ExecutionId,
    pub core: SharedCore,
    pub pending: Arc<AtomicUsize>,
    /// The execution as it is stored, where the waker has just stored it.
    pub known: Option<Box<Execution>>,
}

pub(super) struct State {
    id: ExecutionId,
    core: SharedCore,
    pending: Arc<AtomicUsize>,
    execution: Option<Box<Partial>>,
    machine: Option<Arc<Machine>>,
    stages: HashMap<Attempt, ActorRef<stage::Message>>,
    /// Outcomes that outsiders reported while the attempt's own stage had not answered yet: a child that ended,
    /// or a token that was used, before its submission was recorded. The stage's answer goes first.
    early: Vec<(Attempt, Event, Option<ReplySender>, Option<OnBehalf>)>,
    /// Attempts that need no lane, in the order in which they were commanded.
    ready: VecDeque<Box<RunTask>>,
    /// Why rows could not be read that the message which is handled now needs.
    unread: Option<Fault>,
}

impl Actor for ExecutionActor {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, _: ActorRef<Message>, a: Arguments) -> Result<State, ActorProcessingErr> {
        Ok(State {
            id: a.id,
            core: a.core,
            pending: a.pending,
            execution: a.known.map(|known| Box::new(Partial::begun(*known))),
            machine: None,
            stages: HashMap::new(),
            early: Vec::new(),
            ready: VecDeque::new(),
            unread: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        // `step` is guarded by itself. A panic anywhere else must not leave an execution that nobody carries on.
        let work = within_part(&PART, state.handle_message(&myself, message));
        if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
            state.reload(&fault::panic_text(&*panic));
        }
        state.pending.fetch_sub(1, Ordering::SeqCst);
        state.passivate_if_idle(&myself);
        Ok(())
    }

    /// A stage ended, in order or not. It has posted its outcome itself, unless it was killed or panicked.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Message>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(cell, _, _) | SupervisionEvent::ActorFailed(cell, _) = event {
            // Not at once: these events overtake messages, and the stage's last words may still be on their way.
            if state.stages.values().any(|stage| stage.get_id() == cell.get_id()) {
                state.core.send(state.id, Message::StageGone { stage: cell.get_id() }, None);
            }
            state.passivate_if_idle(&myself);
        }
        Ok(())
    }
}

impl State {
    async fn handle_message(&mut self, myself: &ActorRef<Message>, message: Message) {
        match message {
            Message::Event { event, answer, on_behalf } => self.event(event, answer, on_behalf).await,
            Message::Settle { settle, labels } => {
                self.settle(settle, &labels).await;
                self.stages.remove(&labels.attempt);
            }
            Message::Leased { task, lease } => self.run(myself, *task, lease).await,
            Message::Moved { task, ticket } => self.moved(task, ticket),
            Message::Fired { timer, of, answer } => {
                let done = self.fired(timer, of).await;
                reply(Some(answer), done);
            }
            Message::StageGone { stage } => self.stage_gone(stage).await,
            Message::Damaged { what } => self.unread = Some(Fault::damaged_plain(what)),
        }
        self.handle_early().await;
        self.run_ready(myself).await;
        self.after_unread().await;
    }

    fn reload(&mut self, panic: &str) {
        let after = self.resume_anew();
        events::ActorPanicked { id: self.id, text: panic, after: Some(after) }.emit();
    }

    /// Drops what is in memory and has the execution resumed from its rows, as a restart would; later each time that this
    /// happens again. Says after which pause.
    fn resume_anew(&mut self) -> Duration {
        self.stages.drain().for_each(|(_, stage)| stage.kill());
        self.resume_from_rows()
    }

    /// The same, and lets the stages that run go on: what they work on is not in doubt.
    fn resume_from_rows(&mut self) -> Duration {
        self.execution = None;
        self.machine = None;
        self.early.clear();
        self.ready.clear();
        let after = self.core.reload_after(self.id);
        recover::reload_execution(&self.core, self.id, after);
        after
    }

    fn passivate_if_idle(&mut self, myself: &ActorRef<Message>) {
        let idle = self.stages.is_empty() && self.early.is_empty();
        if idle && self.core.try_passivate(self.id, &self.pending) {
            myself.stop(None);
        }
    }

    async fn event(&mut self, event: Event, answer: Option<ReplySender>, on_behalf: Option<OnBehalf>) {
        if let Some(attempt) = outsiders_outcome(&event)
            && answer.is_some()
            && self.stages.contains_key(&attempt)
        {
            self.early.push((attempt, event, answer, on_behalf));
            return;
        }
        // Stages ask for no answer, others do.
        let last_words_of = last_words(&event).filter(|_| answer.is_none());
        let done = self.decide(event, on_behalf).await;
        reply(answer, done);
        if let Some(attempt) = last_words_of {
            self.stages.remove(&attempt);
        }
    }

    /// What was reported early is handled as soon as the attempt's stage is through, in whichever way.
    async fn handle_early(&mut self) {
        while let Some(at) = self.early.iter().position(|(attempt, ..)| !self.stages.contains_key(attempt)) {
            let (_, event, answer, on_behalf) = self.early.remove(at);
            let done = self.decide(event, on_behalf).await;
            reply(answer, done);
        }
    }

    async fn fired(&mut self, timer: TimerId, of: Option<BranchId>) -> Result<bool, Refused> {
        self.load().await?;
        // A branch and those around it are read one by one.
        if let Some(execution) = &mut self.execution
            && let Err(NotRead::Fault(fault)) = execution.read_timer(timer, of, &self.core.reader.rows(self.id))
        {
            self.execution = None;
            self.met(&fault);
            return Err(fault.into());
        }
        self.decide(Event::TimerFired { timer }, None).await
    }

    /// Still the same attempt: nothing is decided, and nothing stored.
    fn moved(&mut self, task: Box<RunTask>, ticket: Ticket) {
        // One that was cancelled meanwhile is not known any more.
        if self.stages.remove(&task.attempt).is_some() && !self.core.is_closing() {
            self.core.run_elsewhere(self.id, task, ticket);
        }
    }

    /// A stage that is still known has ended without a word: nobody else would report the attempt's end.
    async fn stage_gone(&mut self, gone: ActorId) {
        let Some(attempt) = self.stages.iter().find(|(_, stage)| stage.get_id() == gone).map(|(attempt, _)| *attempt)
        else {
            return;
        };
        self.stages.remove(&attempt);
        if !self.core.is_closing() {
            let error = Some("Stage.Panicked".into());
            let cause = Some("The stage ended inside the appliance without a result; its log has the details.".into());
            // Where this is refused the fault is noted, and the attempt is issued again after the restart.
            let _ = self.decide(Event::TaskFailed { attempt, error, cause }, None).await;
        }
    }

    /// Has a service end an attempt: it decides, and its change and the attempt's end are one commit.
    async fn settle(&mut self, settle: Settle, labels: &AttemptLabels) {
        let attempt = labels.attempt;
        if self.load().await.is_err() {
            return;
        }
        let core = self.core.clone();
        // With it comes most of what the service's step will look at.
        if self.read(Unread::Attempt(attempt)).await.is_err() {
            return;
        }
        let together = self.execution.as_deref().and_then(|execution| brought_together(execution, attempt));
        if let Some(iterations) = together
            && self.read(iterations).await.is_err()
        {
            return;
        }
        let (Some(execution), Some(machine)) = (self.execution.take(), &self.machine) else { return };
        if execution.branch_of_attempt(attempt) == Known::Absent {
            // It was cancelled while it was about to be settled, and changes nothing.
            self.execution = Some(execution);
            return;
        }
        let (completion, ended) = Completion::lend(&core, execution, machine.clone(), attempt);
        settle(completion);
        match ended.await {
            Ok(Completed::Durable { execution, step, announced, outcome }) => {
                labels.ended(&core, outcome);
                self.execution = Some(execution);
                self.carry_out(*step, announced).await;
            }
            Ok(Completed::Outcome { execution, outcome }) => {
                self.execution = execution;
                // Where this is refused the fault is noted, and the attempt is issued again after the restart.
                let _ = self.decide(labels.ended(&core, outcome), None).await;
            }
            Ok(Completed::Lacks { execution, unread }) => {
                self.execution = Some(execution);
                if self.read(unread).await.is_ok() {
                    self.run_again(attempt);
                }
                return;
            }
            // What becomes of it is decided as where this actor itself had read.
            Ok(Completed::Unread(fault)) => return self.met(&fault),
            // The service failed, or there is none just now; nothing was stored. The attempt is issued again.
            lost => {
                let losses = core.lost(self.id, attempt, lost.is_ok());
                // What fails over this very question again and again would do so for ever, and take along what others
                // asked.
                if losses.panics < LOSSES_MAX {
                    return recover::resume_attempt_later(&core, self.id, attempt, losses.all);
                }
                let _ = self.decide(labels.ended(&core, completion::lost()), None).await;
            }
        }
        core.clear_losses(self.id, attempt);
    }

    /// Puts an attempt that was about to end among those to be run, with what of the execution is in memory.
    fn run_again(&mut self, attempt: Attempt) {
        match self.core.reader.outstanding_task(self.id, attempt) {
            Ok(Some(task)) => self.ready.push_back(Box::new(task)),
            Ok(None) => {}
            Err(fault) => self.met(&fault),
        }
    }

    /// Decide, commit, act. True when the event changed something.
    async fn decide(&mut self, event: Event, on_behalf: Option<OnBehalf>) -> Result<bool, Refused> {
        let core = self.core.clone();
        self.load().await?;
        let Some(execution) = &self.execution else {
            return Err(Refused::no_execution(self.id));
        };
        let entry = core.entry_of(execution, event).inspect_err(|fault| self.met(fault))?;
        let step = self.step(&entry).await?;
        let (Some(execution), Some(machine)) = (&self.execution, &self.machine) else {
            return Err(Refused::no_execution(self.id));
        };
        if step.header.is_none() {
            return Ok(false);
        }
        let mut commit = Commit::new();
        commit.step_of(execution, &step);
        let announced = core.status_changed(machine, execution.header(), &step, &mut commit);
        if let Some(entry) = on_behalf {
            entry.join_of(self.id, &mut commit);
        }
        if let Err(fault) = core.commit(commit).await {
            self.execution = None;
            return Err(fault.into());
        }
        self.carry_out(step, announced).await;
        Ok(true)
    }

    /// The step, with whatever rows it needs read.
    async fn step(&mut self, entry: &Entry) -> Result<Step, Refused> {
        loop {
            let (Some(execution), Some(machine)) = (&self.execution, &self.machine) else {
                return Err(Refused::no_execution(self.id));
            };
            match guarded::step_partly(machine, execution, entry, Pace::Brief) {
                Ok(step) => return Ok(step),
                Err(Lacks::Row(unread)) => self.read(unread).await?,
                Err(Lacks::Time) => match self.long_step(entry).await? {
                    Ok(step) => return Ok(step),
                    Err(unread) => self.read(unread).await?,
                },
            }
        }
    }

    /// A step whose expressions take longer than a thread of the runtime may be held, on one that may compute.
    async fn long_step(&mut self, entry: &Entry) -> Result<Result<Step, Unread>, Refused> {
        let (Some(execution), Some(machine)) = (self.execution.take(), self.machine.clone()) else {
            return Err(Refused::no_execution(self.id));
        };
        let entry = entry.clone();
        let decide = move || (guarded::step_partly(&machine, &execution, &entry, Pace::Whole), execution);
        let (step, execution) = self.core.long_steps.run(decide).await?;
        self.execution = Some(execution);
        // Whatever time it takes is given.
        Ok(step.map_err(|lacks| match lacks {
            Lacks::Row(unread) => unread,
            Lacks::Time => Unread::ALL_BRANCHES,
        }))
    }

    /// Acts on a step that is durable.
    async fn carry_out(&mut self, step: Step, announced: Vec<Announced>) {
        let core = self.core.clone();
        let (Some(execution), Some(machine)) = (&mut self.execution, &self.machine) else { return };
        core.resources.announced(announced);
        execution.apply(&step);
        let header = execution.header();
        announce(&core, header);
        let Step { commands, history, .. } = step;
        core.logs.push(machine, header, history);
        for command in &commands {
            if let Command::CancelTask { attempt } = command
                && let Some(stage) = self.stages.remove(attempt)
            {
                stage.kill();
            }
        }
        let mut others = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                Command::RunTask(task) if core.needs_no_lane(&task) => self.ready.push_back(task),
                other => others.push(other),
            }
        }
        core.act(header, others);
        if let Some(Outcome::Failed { .. } | Outcome::TimedOut { .. } | Outcome::Aborted { .. }) = &header.outcome {
            core.stop_owned(header.id).await;
        }
    }

    /// Runs what needs no lane. One such Task after the other goes on here, without a message in between; but
    /// whoever else has sent something is not kept waiting.
    async fn run_ready(&mut self, myself: &ActorRef<Message>) {
        while let Some(task) = self.ready.pop_front() {
            let others_wait = self.pending.load(Ordering::SeqCst) > 1;
            if others_wait || self.core.is_closing() {
                self.core.lease(self.id, task, Ok(None));
            } else {
                self.run(myself, *task, Ok(None)).await;
                self.handle_early().await;
            }
        }
    }

    /// Reads what a step lacked: where that is very much, on a thread that may block. What comes of a fault is not known,
    /// and the memory is dropped.
    async fn read(&mut self, unread: Unread) -> Result<(), Fault> {
        let Some(execution) = self.execution.take() else { return Ok(()) };
        let (id, reader, execution) = (self.id, &self.core.reader, Mutex::new(execution));
        let execution = Arc::new(execution);
        let read = recover::passing(|| async {
            let near = execution.lock().read(unread, &reader.rows(id));
            match near {
                Err(NotRead::TooMany) => {
                    let walked = execution.clone();
                    reader
                        .blocking(move |rows: &Scans| Ok::<_, Fault>(walked.lock().read(unread, &rows.rows(id))?))
                        .await
                }
                near => Ok::<_, Fault>(near?),
            }
        })
        .await;
        read.inspect_err(|fault| self.met(fault))?;
        self.execution = Arc::into_inner(execution).map(Mutex::into_inner);
        Ok(())
    }

    async fn load(&mut self) -> Result<(), Fault> {
        if self.execution.is_none() {
            let (reader, id) = (&self.core.reader, self.id);
            let read = recover::passing(|| reader.partial(id)).await;
            self.execution = read.inspect_err(|fault| self.met(fault))?.map(Box::new);
        }
        if self.machine.is_none()
            && let Some(execution) = &self.execution
        {
            let machine = self.core.machine(&execution.header().machine);
            let machine = machine.inspect_err(|fault| match fault {
                Fault::Damaged { .. } => self.met(fault),
                // This release does not know the definition, and will not in a moment.
                fault => self.core.note(fault),
            });
            self.machine = Some(machine?);
        }
        Ok(())
    }

    /// Runs the attempt, unless it was fenced out while it waited for its lane.
    async fn run(&mut self, myself: &ActorRef<Message>, task: RunTask, lease: Result<Option<Lease>, TaskError>) {
        let attempt = task.attempt;
        if self.load().await.is_err() || self.stages.contains_key(&attempt) {
            return;
        }
        if self.read(Unread::Branch(task.branch)).await.is_err() {
            return;
        }
        let Some(execution) = &mut self.execution else { return };
        let is_running = execution.header().status == Status::Running;
        let current = match execution.branch(task.branch) {
            // Issued twice, as when recovery reads what was just started, it is submitted once. Of one that failed by
            // damage the branches stay.
            Known::There(Branch { doing: Doing::Task { attempt: now, phase, .. }, .. }) => {
                is_running && *now == attempt && *phase != TaskPhase::Submitted
            }
            _ => false,
        };
        if !current {
            // It was queued once more, and is over since.
            return self.core.board.predictions.end(self.id, attempt);
        }
        let arn = self.machine.as_ref().map(|m| m.env.execution_arn(execution.header())).unwrap_or_default();
        let needs_no_lane = !matches!(lease, Ok(Some(_)));
        let mut stage = Stage::new(self.core.clone(), execution.header(), arn, task, lease);
        if needs_no_lane && let Some(end) = stage.end_at_once().await {
            match end {
                // Where this is refused the fault is noted, and the attempt is issued again after the restart.
                End::Ended(event) => drop(self.decide(event, None).await),
                End::Settle(settle, labels) => self.settle(settle, &labels).await,
                End::Moved { task, ticket } => self.core.run_elsewhere(self.id, task, ticket),
            }
            return;
        }
        let spawned = ractor::ActorRuntime::spawn_linked_instant(None, StageActor, stage, myself.get_cell());
        if let Ok((stage, _)) = spawned {
            self.stages.insert(attempt, stage);
        }
    }
}

fn reply(answer: Option<ReplySender>, done: Result<bool, Refused>) {
    if let Some(answer) = answer {
        // Who asked may have hung up; the event counts all the same.
        let _ = answer.send(done);
    }
}

/// An attempt's outcome, as outsiders (token holders, child executions) and stages alike report it.
fn outsiders_outcome(event: &Event) -> Option<Attempt> {
    match event {
        Event::TaskSucceeded { attempt, .. } | Event::TaskFailed { attempt, .. } => Some(*attempt),
        _ => None,
    }
}

/// The iterations of a Map whose last one the attempt is in: its end looks at all of them.
fn brought_together(execution: &Partial, attempt: Attempt) -> Option<Unread> {
    let Known::There(id) = execution.branch_of_attempt(attempt) else { return None };
    let Known::There(Branch { parent: Some((around, _)), .. }) = execution.branch(id) else { return None };
    match execution.branch(*around) {
        Known::There(Branch { doing: Doing::Map { first, next_index, running: 1, length, .. }, .. })
            if next_index == length =>
        {
            Some(Unread::Branches { first: *first, count: *length })
        }
        _ => None,
    }
}

/// The attempt whose stage says with this event that it is through.
fn last_words(event: &Event) -> Option<Attempt> {
    match event {
        Event::TaskSubmitted { attempt, .. }
        | Event::TaskSucceeded { attempt, .. }
        | Event::TaskFailed { attempt, .. }
        | Event::TaskSubmitFailed { attempt, .. }
        | Event::TaskStartFailed { attempt, .. } => Some(*attempt),
        _ => None,
    }
}

/// Tells screens, logs and metrics what a commit did.
pub(super) fn announce(core: &SharedCore, header: &Header) {
    // Screens that watch executions do not watch each of a Map run's children.
    if header.child.is_some() {
        return;
    }
    core.board.publish(|| LiveUpdate::Changed {
        execution: header.id,
        machine: header.machine.clone(),
        name: header.name.clone(),
        status: header.status,
        last_event: header.last_event,
    });
    if let (Some(_), Some(stopped_at)) = (&header.outcome, header.stopped_at) {
        if core.is_leaving(&header.machine.name) {
            let (core, machine) = (core.clone(), header.machine.name.clone());
            tokio::spawn(async move {
                if let Err(fault) = core.leave(&machine).await {
                    core.note(&fault);
                }
            });
        }
        events::ExecutionEnded::of(header, stopped_at).emit();
    }
}
