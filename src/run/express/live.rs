//! One express execution at work: a task of its own that steps and acts until the execution has ended.
//!
//! Invariants: whatever happens to the task, the execution leaves the registry and its stages end with it; a message
//! that comes after the end finds nobody. Once the appliance closes nothing is decided any more: what fails because
//! things close around it must not end the execution, which is to run anew at the next start.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use conveyor_base::{Attempt, TaskError, TimerId, Timestamp, fault};
use conveyor_interpreter::{Command, Doing, Entry, Event, Execution, Header, RunTask, Status, Step};
use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Duration, sleep};

use super::super::catalog::Machine;
use super::super::completion::{Completed, Completion, Settle};
use super::super::core::SharedCore;
use super::super::execution::Message;
use super::super::lanes::Lease;
use super::super::stage::{AttemptLabels, End, Stage};
use super::super::{events, guarded};
use super::Place;
use super::board::By;

/// How long the wall clock is not looked at, at most.
const LOOK_MS: u64 = 1_000;
/// The longest sleep.
const SLEEP_MS_MAX: u64 = 30_000;

pub(super) struct LiveExecution {
    core: SharedCore,
    /// Until it has ended, or is dropped.
    place: Option<Place>,
    machine: Arc<Machine>,
    execution: Execution,
    inbox: mpsc::UnboundedReceiver<Message>,
    end: Option<oneshot::Sender<Header>>,
    timers: BTreeSet<(Timestamp, TimerId)>,
    stages: JoinSet<(Attempt, End)>,
    running: HashMap<Attempt, AbortHandle>,
    /// Attempts that need no lane, in the order in which they were commanded.
    ready: VecDeque<Box<RunTask>>,
    /// The date of its last event.
    last_at: Timestamp,
}

impl LiveExecution {
    pub fn new(
        place: Place,
        machine: Arc<Machine>,
        execution: Execution,
        inbox: mpsc::UnboundedReceiver<Message>,
        end: Option<oneshot::Sender<Header>>,
    ) -> LiveExecution {
        let last_at = execution.header.started_at;
        LiveExecution {
            core: place.core.clone(),
            place: Some(place),
            machine,
            execution,
            inbox,
            end,
            timers: BTreeSet::new(),
            stages: JoinSet::new(),
            running: HashMap::new(),
            ready: VecDeque::new(),
            last_at,
        }
    }

    /// Until the execution has ended.
    pub async fn run(mut self, commands: Vec<Command>) {
        let work = async {
            self.act(commands);
            while self.goes_on() {
                self.run_ready().await;
                if self.goes_on() {
                    self.wait().await;
                }
            }
        };
        // `step` is guarded by itself, and so are stages: what panics here is the loop.
        if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
            let text = fault::panic_text(&*panic);
            events::ActorPanicked { id: self.execution.header.id, text: &text, after: None }.emit();
            self.decide(Event::Stopped {
                error: Some("States.Runtime".into()),
                cause: Some("Carrying out the execution failed inside the appliance; its log has the details.".into()),
            })
            .await;
        }
        self.close().await;
    }

    fn is_running(&self) -> bool {
        self.execution.header.status == Status::Running
    }

    fn goes_on(&self) -> bool {
        self.is_running() && !self.core.is_closing()
    }

    async fn close(mut self) {
        if self.is_running() {
            return;
        }
        let header = self.execution.header.clone();
        // Before anybody sees that it is over, or it might run anew all the same.
        if self.end.is_none()
            && let Some(record) = self.core.express.record.get()
        {
            record.ended(header.id).await;
        }
        self.place = None;
        self.core.express.ended(&self.machine, &header, By::default());
        if let Some(end) = self.end.take() {
            // Who waited may have hung up.
            let _ = end.send(header);
        }
        // Whoever still asks for something is told that there is nobody.
        self.inbox.close();
    }

    /// Waits for what comes first.
    async fn wait(&mut self) {
        let next = self.next_timer();
        let until_ms = next.map_or(0, |(due, _)| self.core.until_ms(due).max(0) as u64);
        // The wall clock is looked at now and then, as somebody may set it; the other, as sleepers do not count while the machine
        // is suspended.
        let until_ms = until_ms.min(if self.waits_for_the_wall() { LOOK_MS } else { SLEEP_MS_MAX });
        tokio::select! {
            message = self.inbox.recv() => {
                if let Some(message) = message {
                    self.handle_message(message).await;
                }
            }
            Some(end) = self.stages.join_next(), if !self.stages.is_empty() => {
                // An error is an attempt that was cancelled: nobody asks for its outcome.
                if let Ok((attempt, end)) = end {
                    self.running.remove(&attempt);
                    self.ended(end).await;
                }
            }
            () = sleep(Duration::from_millis(until_ms)), if next.is_some() => {
                if let Some((due, timer)) = next.filter(|(due, _)| self.core.until_ms(*due) <= 0) {
                    self.timers.remove(&(due, timer));
                    self.decide(Event::TimerFired { timer }).await;
                }
            }
        }
    }

    /// The timer that is due first, of both clocks'.
    fn next_timer(&self) -> Option<(Timestamp, TimerId)> {
        let by_wall = self.timers.range((Timestamp(i64::MIN).by_wall(), TimerId(0))..).next();
        let both = self.timers.first().into_iter().chain(by_wall);
        both.min_by_key(|(due, _)| self.core.until_ms(*due)).copied()
    }

    fn waits_for_the_wall(&self) -> bool {
        self.timers.last().is_some_and(|(due, _)| due.is_by_wall())
    }

    async fn handle_message(&mut self, message: Message) {
        match message {
            Message::Event { event, answer, .. } => {
                let changed = self.decide(event).await;
                if let Some(answer) = answer {
                    // Who asked may have hung up; the event counts all the same.
                    let _ = answer.send(Ok(changed));
                }
            }
            Message::Leased { task, lease } => self.begin(*task, lease).await,
            // What the actors of stages tell, and rows of timers; an express execution has none.
            Message::Moved { .. }
            | Message::StageGone { .. }
            | Message::Settle { .. }
            | Message::Fired { .. }
            | Message::Damaged { .. } => {}
        }
    }

    async fn ended(&mut self, end: End) {
        match end {
            End::Ended(event) => drop(self.decide(event).await),
            End::Settle(settle, labels) => self.settle(settle, &labels).await,
            End::Moved { task, ticket } => self.core.run_elsewhere(self.execution.header.id, task, ticket),
        }
    }

    /// Has a service end an attempt. Its change is durable by itself: nothing of an express execution is stored.
    async fn settle(&mut self, settle: Settle, labels: &AttemptLabels) {
        let (completion, ended) = Completion::alone(&self.core, labels.attempt, None);
        settle(completion);
        let outcome = match ended.await {
            Ok(Completed::Outcome { outcome, .. } | Completed::Durable { outcome, .. }) => outcome,
            Ok(Completed::Lost | Completed::Lacks { .. } | Completed::Unread(_)) | Err(_) => {
                super::super::completion::lost()
            }
        };
        self.decide(labels.ended(&self.core, outcome)).await;
    }

    /// Decide and act. True when the event changed something.
    async fn decide(&mut self, event: Event) -> bool {
        if self.core.is_closing() {
            return false;
        }
        let mut entry = self.core.entry(event);
        // No event is dated before another, though the clock was set back.
        entry.at = entry.at.max(self.last_at);
        self.last_at = entry.at;
        let step = match guarded::step_briefly(&self.machine, &self.execution, &entry) {
            Some(step) => step,
            None => self.long_step(entry).await,
        };
        if step.header.is_none() {
            return false;
        }
        self.execution.apply(&step);
        self.core.logs.push(&self.machine, &self.execution.header, step.history);
        self.act(step.commands);
        true
    }

    /// A step whose expressions take longer than a thread of the runtime may be held, on one that may compute.
    async fn long_step(&mut self, entry: Entry) -> Step {
        let none = Execution::load(self.execution.header.clone(), BTreeMap::new(), BTreeMap::new());
        let (machine, execution) = (self.machine.clone(), std::mem::replace(&mut self.execution, none));
        let decide = move || (guarded::step(&machine, &execution, &entry), execution);
        match self.core.long_steps.run(decide).await {
            Ok((step, execution)) => {
                self.execution = execution;
                step
            }
            // It is guarded, and so breaks off with the appliance only.
            Err(_) => Step::default(),
        }
    }

    fn act(&mut self, commands: Vec<Command>) {
        for command in commands {
            match command {
                Command::RunTask(task) if self.core.needs_no_lane(&task) => self.ready.push_back(task),
                Command::RunTask(task) => {
                    let header = &self.execution.header;
                    self.core.run_task(header.id, task, &header.input);
                }
                Command::CancelTask { attempt } => {
                    if let Some(stage) = self.running.remove(&attempt) {
                        stage.abort();
                    }
                    self.core.cancel(self.execution.header.id, attempt);
                }
                Command::SetTimer { timer, due } => drop(self.timers.insert((due, timer))),
                Command::ClearTimer { timer, due } => drop(self.timers.remove(&(due, timer))),
                // It is nobody's child.
                Command::Deliver(_) => {}
            }
        }
    }

    async fn run_ready(&mut self) {
        while let Some(task) = self.ready.pop_front() {
            self.begin(*task, Ok(None)).await;
        }
    }

    /// Runs the attempt, unless it was fenced out while it waited for its lane.
    async fn begin(&mut self, task: RunTask, lease: Result<Option<Lease>, TaskError>) {
        let attempt = task.attempt;
        let current = self
            .execution
            .branches
            .get(&task.branch)
            .is_some_and(|branch| matches!(branch.doing, Doing::Task { attempt: now, .. } if now == attempt));
        if !current {
            // It is over since it was queued.
            return self.core.board.predictions.end(self.execution.header.id, attempt);
        }
        if self.running.contains_key(&attempt) {
            return;
        }
        let arn = self.machine.env.execution_arn(&self.execution.header);
        let needs_no_lane = matches!(lease, Ok(None));
        let mut stage = Stage::new(self.core.clone(), &self.execution.header, arn, task, lease);
        if needs_no_lane && let Some(end) = stage.end_at_once().await {
            return self.ended(end).await;
        }
        let handle = self.stages.spawn(async move { (attempt, stage.end().await) });
        self.running.insert(attempt, handle);
    }
}

impl Drop for LiveExecution {
    /// Also where the task itself is dropped, at the end of the appliance.
    fn drop(&mut self) {
        if self.place.take().is_some() {
            self.core.express.board.forget(self.execution.header.id);
        }
    }
}
