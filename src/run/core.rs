//! What all actors of the appliance share: the store's two ends, the clock, the lanes, and who is awake.

use std::collections::{HashMap, HashSet, hash_map};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use conveyor_base::{
    Attempt, Backoff, Blocking, BoxClock, BranchId, Clock, ExecutionId, Fault, TaskError, TimerId, Timestamp, arn,
    fault,
};
use conveyor_interpreter::map_run::run_of;
use conveyor_interpreter::{Command, Entry, Event, Execution, Header, Partial, RunTask, Step};
use conveyor_store::{Commit, Reader, Threads, Writer};
use parking_lot::Mutex;
use ractor::{ActorCell, ActorRef, MessagingErr};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::activities::Activities;
use super::audit::OnBehalf;
use super::catalog::Catalog;
use super::catalog::Machine;
use super::execution::{self, ExecutionActor};
use super::express::Express;
use super::lanes::demand::{PRIORITY_MAX, PRIORITY_MIN};
use super::lanes::spec::Lanes;
use super::lanes::{self, Lease, Ticket};
use super::logging::LogQueue;
use super::map_runs::MapRuns;
use super::progress::ProgressBoard;
use super::resource::{Announced, Resources};
use super::supervise::Supervision;
use super::timers::Timers;
use super::{Refused, events, guarded};

/// What the appliance is started with.
pub struct Config {
    pub writer: Writer,
    pub reader: Reader,
    pub resources: Arc<dyn Resources>,
    /// The wall clock, and what goes on beside it. All parts go by the box's own time, which is made of these.
    pub clock: Arc<dyn Clock>,
    pub lanes: Lanes,
    pub account: String,
    pub region: String,
    /// The folder of the record of express starts, so that what was in flight runs anew after a restart. Without one
    /// nothing of them outlives the process.
    pub express_record: Option<PathBuf>,
}

pub(super) type SharedCore = Arc<Core>;
/// Takes the answer whether the event changed anything: a straggler does not.
pub(super) type ReplySender = oneshot::Sender<Result<bool, Refused>>;

/// Between attempts of something that fails by the appliance's own fault.
const BACKOFF: Backoff = Backoff { min_ms: 50, max_ms: 60_000 };
/// For so long an actor's panic makes the next one cost a longer pause.
const RELOADS_REMEMBERED: Duration = Duration::from_secs(600);
/// Locks for starts by name. One is held over a commit, so they must be many more than the starts under way, or
/// names that have nothing to do with each other wait for each other's sync.
const NAME_LOCKS: usize = 4_096;

pub(super) struct Core {
    pub writer: Writer,
    pub reader: Reader,
    pub resources: Arc<dyn Resources>,
    pub clock: Arc<BoxClock>,
    pub account: String,
    pub region: String,
    pub board: Arc<ProgressBoard>,
    pub catalog: Catalog,
    pub timers: Timers,
    pub activities: Activities,
    pub express: Express,
    pub logs: LogQueue,
    pub map_runs: MapRuns,
    pub names: Vec<tokio::sync::Mutex<()>>,
    /// Held by each redrive, and alone by what archives and forgets ended executions.
    pub redrives: Arc<tokio::sync::RwLock<()>>,
    /// Absent where the box leases nothing.
    pub lanes: OnceLock<ActorRef<lanes::Message>>,
    pub root: OnceLock<ActorCell>,
    pub supervision: Supervision,
    /// Definitions that are looked through, and whatever else computes for long.
    pub analyses: Blocking,
    /// States that people try out.
    pub trials: Blocking,
    /// Steps of executions whose expressions take long.
    pub long_steps: Blocking,
    awake: Mutex<HashMap<ExecutionId, Awake>>,
    /// Executions whose start is under way and to which nobody else has sent anything yet. Locked within `awake`.
    starting: Mutex<HashSet<ExecutionId>>,
    /// Executions whose actors panicked lately: when last, and how often before.
    reloads: Mutex<HashMap<ExecutionId, (Instant, u32)>>,
    /// Attempts that a service was to end and did not.
    losses: Mutex<HashMap<(ExecutionId, Attempt), Losses>>,
    closing: AtomicBool,
    fatal: watch::Sender<Option<String>>,
}

/// How often a service did not end an attempt that it was asked to end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    pub all: u32,
    /// Because it panicked over this very question.
    pub panics: u32,
}

/// An execution's actor, and how many messages it has not answered yet.
struct Awake {
    actor: ActorRef<execution::Message>,
    pending: Arc<AtomicUsize>,
}

impl Core {
    pub fn new(config: Config, clock: Arc<BoxClock>) -> SharedCore {
        let own = matches!(config.writer.threads(), Threads::Own);
        let places = |some: fn() -> Blocking| if own { some() } else { Blocking::inline() };
        let (analyses, trials) = (places(Blocking::half_of_the_cores), places(Blocking::half_of_the_cores));
        let long_steps = places(Blocking::as_many_as_cores);
        Arc::new(Core {
            analyses,
            trials,
            long_steps,
            catalog: Catalog::new(config.account.clone(), config.region.clone()),
            writer: config.writer,
            reader: config.reader,
            resources: config.resources,
            clock,
            account: config.account,
            region: config.region,
            board: Arc::new(ProgressBoard::new()),
            timers: Timers::new(),
            activities: Activities::default(),
            express: Express::new(),
            logs: LogQueue::new(),
            map_runs: MapRuns::default(),
            redrives: Arc::default(),
            names: (0..NAME_LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            lanes: OnceLock::new(),
            root: OnceLock::new(),
            supervision: Supervision::default(),
            awake: Mutex::default(),
            starting: Mutex::default(),
            reloads: Mutex::default(),
            losses: Mutex::default(),
            closing: AtomicBool::new(false),
            fatal: watch::channel(None).0,
        })
    }

    pub fn machine_arn(&self, machine: &str) -> String {
        arn::machine(&self.region, &self.account, machine)
    }

    pub fn execution_arn(&self, machine: &str, name: &str) -> String {
        arn::execution(&self.region, &self.account, machine, name)
    }

    /// An event with the time and randomness that `step` may use.
    pub fn entry(&self, event: Event) -> Entry {
        Entry { at: self.clock.wall(), box_at: self.clock.now(), seed: uuid::Uuid::new_v4().as_u128(), event }
    }

    /// The same for an execution that has events already: none is dated before the last one, though the clock was set back.
    /// Where the clock was later before, that one's date is read unless it is in memory.
    pub fn entry_of(&self, execution: &Partial, event: Event) -> Result<Entry, Fault> {
        let mut entry = self.entry(event);
        let last = match execution.last_event_at() {
            None if self.clock.was_later_than(entry.at) => self.reader.last_event_at(execution.header().id)?,
            known => known,
        };
        entry.at = last.map_or(entry.at, |last| entry.at.max(last));
        Ok(entry)
    }

    /// How long until a timer is due, by whichever clock it goes.
    pub fn until_ms(&self, due: Timestamp) -> i64 {
        let now = if due.is_by_wall() { self.clock.wall() } else { self.clock.now() };
        due.moment().since_ms(now)
    }

    /// Stores a commit. A fatal fault ends the appliance.
    pub async fn commit(&self, commit: Commit) -> Result<(), Fault> {
        let end = self.writer.commit(commit).await;
        if let Err(fault) = &end {
            self.note(fault);
        }
        end
    }

    /// The same on somebody's behalf: the entry is part of the commit.
    pub async fn commit_for(&self, mut commit: Commit, on_behalf: Option<&OnBehalf>) -> Result<(), Fault> {
        if let Some(entry) = on_behalf {
            entry.join(&mut commit);
        }
        self.commit(commit).await
    }

    /// Adds to the commit of a step what others are to be told where it changes the execution's status.
    pub fn status_changed(
        &self,
        machine: &Machine,
        before: &Header,
        step: &Step,
        commit: &mut Commit,
    ) -> Vec<Announced> {
        match &step.header {
            // As on AWS, express executions tell nobody; of a Map run its parent tells.
            Some(header) if header.status != before.status && header.child.is_none() && !machine.env.express => {
                self.resources.status_changed(header, commit)
            }
            _ => Vec::new(),
        }
    }

    /// Takes note of a fault: a fatal one ends the appliance.
    pub fn note(&self, fault: &Fault) {
        if let Fault::Fatal { .. } = fault {
            let what = fault::chain(fault);
            if self.fatal.send_replace(Some(what.clone())).is_none() {
                events::FatalFault { what: &what }.emit();
            }
        }
    }

    /// Resolves when a fatal fault was met.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.timers.wake();
        self.map_runs.wake_all();
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Hands an event to an execution, waking it where it sleeps.
    pub fn post(self: &Arc<Self>, id: ExecutionId, event: Event) {
        self.send(id, execution::Message::Event { event, answer: None, on_behalf: None }, None);
    }

    /// The same, and tells when what came of it is durable.
    pub async fn post_and_wait(self: &Arc<Self>, id: ExecutionId, event: Event) -> Result<bool, Refused> {
        self.post_for(id, event, None).await
    }

    /// The same on somebody's behalf: where the event changes something, the entry is part of the commit.
    pub async fn post_for(
        self: &Arc<Self>,
        id: ExecutionId,
        event: Event,
        on_behalf: Option<OnBehalf>,
    ) -> Result<bool, Refused> {
        let (answer, answered) = oneshot::channel();
        self.send(id, execution::Message::Event { event, answer: Some(answer), on_behalf }, None);
        answered.await.unwrap_or_else(|_| Err(Refused::closing()))
    }

    /// Tells an execution what its rows cannot tell it: an answer that was lost, because the actor failed over it or over
    /// another message, is asked for again. Transient refusals mean that the appliance ends.
    pub async fn post_until_heard(self: &Arc<Self>, id: ExecutionId, event: Event) -> Result<bool, Refused> {
        for failures in 0.. {
            match self.post_and_wait(id, event.clone()).await {
                Err(refused) if refused.is_transient() && !self.is_closing() => {
                    tokio::time::sleep(BACKOFF.pause(failures)).await;
                }
                heard => return heard,
            }
        }
        Err(Refused::closing())
    }

    /// The same, of a timer that is set: it wakes that branch, or is the execution's own.
    pub async fn fire(
        self: &Arc<Self>,
        id: ExecutionId,
        timer: TimerId,
        of: Option<BranchId>,
    ) -> Result<bool, Refused> {
        let (answer, answered) = oneshot::channel();
        self.send(id, execution::Message::Fired { timer, of, answer }, None);
        answered.await.unwrap_or_else(|_| Err(Refused::closing()))
    }

    /// The lanes (or nobody, where none is needed) let an attempt run, or say why it never can.
    pub fn lease(self: &Arc<Self>, id: ExecutionId, task: Box<RunTask>, lease: Result<Option<Lease>, TaskError>) {
        self.send(id, execution::Message::Leased { task, lease }, None);
    }

    /// Announces an execution that is about to be stored: until its starter has sent it its first message with
    /// what it stored, it is noticed if anybody else got there first and may have changed it since.
    pub fn expect(&self, id: ExecutionId) {
        let _awake = self.awake.lock();
        self.starting.lock().insert(id);
    }

    /// The starter sends nothing, or not any more.
    pub fn cancel_expected(&self, id: ExecutionId) {
        let _awake = self.awake.lock();
        self.starting.lock().remove(&id);
    }

    /// Sends to an execution's actor. `known` is the execution as the sender has just stored it; it counts only
    /// where the sender announced it (see [`Core::expect`]) and nobody else has sent anything since.
    pub fn send(self: &Arc<Self>, id: ExecutionId, mut message: execution::Message, known: Option<Box<Execution>>) {
        if known.is_none() {
            match self.express.send(id, message) {
                None => return,
                Some(back) => message = back,
            }
        }
        let mut awake = self.awake.lock();
        let untouched = self.starting.lock().remove(&id);
        let known = known.filter(|_| untouched);
        if let Some(there) = awake.get(&id) {
            there.pending.fetch_add(1, Ordering::SeqCst);
            match there.actor.cast(message) {
                Ok(()) => return,
                // It died: a new one takes its place and reads the rows.
                Err(MessagingErr::SendErr(back)) => message = back,
                Err(_) => return,
            }
        }
        if self.is_closing() {
            return;
        }
        let pending = Arc::new(AtomicUsize::new(1));
        let arguments = execution::Arguments { id, core: self.clone(), pending: pending.clone(), known };
        let spawned = match self.root.get() {
            Some(root) => ractor::ActorRuntime::spawn_linked_instant(None, ExecutionActor, arguments, root.clone()),
            None => ractor::ActorRuntime::spawn_instant(None, ExecutionActor, arguments),
        };
        // Spawning fails only for a name that is taken, and these have none.
        if let Ok((actor, _)) = spawned {
            let _ = actor.cast(message);
            awake.insert(id, Awake { actor, pending });
        }
    }

    /// Passivates an actor that has answered everything: lets it go. False: a message is on its way to it.
    pub fn try_passivate(&self, id: ExecutionId, pending: &Arc<AtomicUsize>) -> bool {
        let mut awake = self.awake.lock();
        let mine = awake.get(&id).is_some_and(|there| Arc::ptr_eq(&there.pending, pending));
        if !mine {
            return true;
        }
        if pending.load(Ordering::SeqCst) > 0 {
            return false;
        }
        awake.remove(&id);
        true
    }

    /// How long to wait until an execution is taken up again whose actor panicked. What panics whenever it is taken up
    /// must not cost more than a look now and then.
    pub fn reload_after(&self, id: ExecutionId) -> Duration {
        let mut reloads = self.reloads.lock();
        reloads.retain(|_, (at, _)| at.elapsed() < RELOADS_REMEMBERED);
        match reloads.entry(id) {
            hash_map::Entry::Vacant(first) => {
                first.insert((Instant::now(), 0));
                Duration::ZERO
            }
            hash_map::Entry::Occupied(mut again) => {
                let (at, reloads) = again.get_mut();
                (*at, *reloads) = (Instant::now(), *reloads + 1);
                BACKOFF.pause(*reloads)
            }
        }
    }

    /// A service did not end the attempt once more, either because it panicked over it or because it was away: how often
    /// that makes.
    pub fn lost(&self, id: ExecutionId, attempt: Attempt, panicked: bool) -> Losses {
        let mut losses = self.losses.lock();
        let losses = losses.entry((id, attempt)).or_default();
        losses.all += 1;
        losses.panics += u32::from(panicked);
        *losses
    }

    /// The attempt has ended.
    pub fn clear_losses(&self, id: ExecutionId, attempt: Attempt) {
        self.losses.lock().remove(&(id, attempt));
    }

    /// Executions that have an actor now.
    pub fn awake(&self) -> usize {
        self.awake.lock().len()
    }

    /// Carries out what a durable step commands, but for cancelling what runs in the execution's own actor.
    pub fn act(self: &Arc<Self>, header: &Header, commands: Vec<Command>) {
        let id = header.id;
        for command in commands {
            match command {
                Command::RunTask(task) => self.run_task(id, task, &header.input),
                Command::CancelTask { attempt } => self.cancel(id, attempt),
                Command::SetTimer { timer, due } => self.timers.set(due, id, timer),
                Command::ClearTimer { timer, due } => self.timers.clear(due, id, timer),
                Command::Deliver(_) => match &header.child {
                    Some(child) => self.map_runs.child_ended(child),
                    None => self.deliver(header.clone()),
                },
            }
        }
    }

    /// Queues an attempt where it can run. `input`: the execution's.
    pub fn run_task(self: &Arc<Self>, id: ExecutionId, task: Box<RunTask>, input: &str) {
        if super::activities::is_activity(&task.resource) {
            return self.activities.offer(id, task);
        }
        if run_of(&task.resource).is_some() {
            return self.drive_run(id, task);
        }
        let resource = self.resources.find(&task.resource);
        if let Some(resource) = &resource {
            self.predict(resource, id, &task);
        }
        let demand = match resource.map(|resource| guarded::demand(&*resource, &task)) {
            Some(Err(error)) => return self.lease(id, task, Err(error)),
            Some(Ok(demand)) => demand,
            None => None,
        };
        match (demand, self.lanes.get()) {
            (Some(mut demand), Some(lanes)) => {
                demand.priority = demand.priority.or_else(|| priority_of(input));
                // The lanes are gone only when the appliance is, and then the row is issued again.
                let _ = lanes.cast(lanes::Message::Request { execution: id, task, demand });
            }
            // Nothing is needed, or nothing is leased here.
            _ => self.lease(id, task, Ok(None)),
        }
    }

    /// Queues an attempt again whose device failed.
    pub fn run_elsewhere(&self, id: ExecutionId, task: Box<RunTask>, ticket: Ticket) {
        if let Some(lanes) = self.lanes.get() {
            // As above.
            let _ = lanes.cast(lanes::Message::Again { execution: id, task, ticket });
        }
    }

    /// Lets go of an attempt that waits for a lane, a worker or a child.
    pub fn cancel(self: &Arc<Self>, id: ExecutionId, attempt: Attempt) {
        if let Some(lanes) = self.lanes.get() {
            let _ = lanes.cast(lanes::Message::Cancel { execution: id, attempt });
        }
        self.board.predictions.end(id, attempt);
        self.clear_losses(id, attempt);
        self.activities.withdraw(id, attempt);
        self.stop_child_of(id, attempt);
        self.stop_run(id, attempt);
    }
}

/// The `Priority` of an execution's input, as MediaConvert's jobs have it: a whole number from -50 to 50.
pub fn priority_of(input: &str) -> Option<i8> {
    // Most inputs have none, and are not read for it.
    if !input.contains("riority\"") {
        return None;
    }
    let input: serde_json::Value = serde_json::from_str(input).ok()?;
    let priority = input.get("Priority").or_else(|| input.get("priority"))?.as_i64()?;
    i8::try_from(priority).ok().filter(|priority| (PRIORITY_MIN..=PRIORITY_MAX).contains(priority))
}
