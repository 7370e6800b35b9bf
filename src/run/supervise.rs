//! Supervision: what runs under the root for as long as the appliance does, and comes back when it fails.
//!
//! ```text
//! root ──┬─ executions (and their stages)     fail alone: their rows are still there
//!        ├─ lanes, timers, recovery           cannot be done without: a failure ends the process, which recovers
//!        └─ parts: services, watchers, …      started again, later each time; raise an alarm and turn /healthz
//! ```
//!
//! Invariants: a part that failed is known by name until it has run for [`RECENT_MS`] without failing again; a part is
//! started again from nothing but what the store holds; once the appliance closes nothing is started any more.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use conveyor_base::{Backoff, Fault, Timestamp, fault};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use serde::Serialize;
use tokio::task::JoinHandle;

use super::core::SharedCore;
use super::{Handle, events};

/// The first pause before a part is started again; each further one is twice as long.
const BACKOFF: Backoff = Backoff { min_ms: 50, max_ms: 60_000 };
/// How long a part must run before its failures are forgotten: longer than the pause between two looks of the alarms.
pub const RECENT_MS: i64 = 60_000;

tokio::task_local! {
    static PART: Arc<str>;
}

/// The name of the supervised part that the caller runs in, if any: for logs, and for tests that make a part fail.
pub fn current_part() -> Option<Arc<str>> {
    PART.try_with(Clone::clone).ok()
}

/// Runs a piece of work as that part's.
pub(super) fn as_part<T>(name: &Arc<str>, work: impl FnOnce() -> T) -> T {
    PART.sync_scope(name.clone(), work)
}

/// The same of work that waits.
pub(super) fn within_part<W: Future>(name: &Arc<str>, work: W) -> impl Future<Output = W::Output> + use<W> {
    PART.scope(name.clone(), work)
}

/// What becomes of the appliance when a part fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The part is started again.
    Restart,
    /// Nothing goes on without it: the process ends, so that its restart recovers.
    End,
}

/// A part that failed lately, or is down now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedPart {
    pub name: String,
    /// Whether it runs again, or has done its work.
    pub running: bool,
    /// How often in a row.
    pub failures: u32,
    pub failed_at: Timestamp,
    pub what: String,
}

/// How a part is started: linked to the root, with everything rebuilt from the store.
type Start = Arc<dyn Fn(ActorCell) -> BoxFuture<'static, Result<StartedPart, String>> + Send + Sync>;

/// A part that was started and has done nothing yet: nobody would know whose failure it was.
pub(super) struct StartedPart {
    pub actor: ActorCell,
    /// Sets it to work.
    pub go: Box<dyn FnOnce() + Send>,
}

#[derive(Clone)]
struct Part {
    start: Start,
    on_failure: OnFailure,
    /// The actor that it is now, or was last: a part of the same name may have taken its place.
    actor: Option<ActorId>,
    running: bool,
    failures: u32,
    failed: Option<(Timestamp, String)>,
}

impl Part {
    fn failed(&self, name: &str) -> Option<FailedPart> {
        let (failed_at, what) = self.failed.clone()?;
        let (running, failures) = (self.running, self.failures);
        Some(FailedPart { name: name.to_owned(), running, failures, failed_at, what })
    }
}

/// The parts of one appliance.
#[derive(Default)]
pub(super) struct Supervision(Mutex<Parts>);

#[derive(Default)]
struct Parts {
    by_name: BTreeMap<Arc<str>, Part>,
    running: HashMap<ActorId, Arc<str>>,
    /// Parts that are done and had failed before.
    done: BTreeMap<Arc<str>, FailedPart>,
}

impl Supervision {
    /// What a person must hear of, by name.
    pub fn failed(&self, now: Timestamp) -> Vec<FailedPart> {
        let Parts { by_name, done, .. } = &mut *self.0.lock();
        let is_recent = |part: &FailedPart| now.since_ms(part.failed_at) < RECENT_MS;
        done.retain(|_, part| is_recent(part));
        let failed = by_name.iter().filter_map(|(name, part)| part.failed(name));
        done.values().cloned().chain(failed.filter(|part| !part.running || is_recent(part))).collect()
    }

    fn running(&self, name: &Arc<str>, actor: ActorId) {
        let mut parts = self.0.lock();
        parts.running.insert(actor, name.clone());
        if let Some(part) = parts.by_name.get_mut(name) {
            part.actor = Some(actor);
            part.running = true;
        }
    }

    /// The part that this actor was.
    fn ended(&self, actor: ActorId) -> Option<Arc<str>> {
        self.0.lock().running.remove(&actor)
    }

    /// The part is done, or never began.
    fn forget(&self, name: &str, actor: Option<ActorId>) {
        let mut parts = self.0.lock();
        if parts.by_name.get(name).is_none_or(|part| part.actor != actor) {
            return;
        }
        let gone = parts.by_name.remove_entry(name);
        if let Some((name, failed)) = gone.and_then(|(name, part)| Some((name.clone(), part.failed(&name)?))) {
            parts.done.insert(name, failed);
        }
    }

    /// Once the appliance has closed: how a part is started holds what it is started with, which would so hold itself,
    /// and the store's files, for ever.
    pub fn forget_all(&self) {
        let parts = std::mem::take(&mut self.0.lock().by_name);
        drop(parts);
    }

    /// Takes note of a failure: how long to wait before the part is started again, or `None` where it is not.
    fn note(&self, name: &str, now: Timestamp, what: &str) -> Option<(OnFailure, Duration)> {
        let mut parts = self.0.lock();
        let part = parts.by_name.get_mut(name)?;
        if part.failed.as_ref().is_some_and(|(at, _)| now.since_ms(*at) >= RECENT_MS) {
            part.failures = 0;
        }
        let pause = BACKOFF.pause(part.failures);
        part.failures += 1;
        part.running = false;
        part.failed = Some((now, what.to_owned()));
        Some((part.on_failure, pause))
    }

    fn start_of(&self, name: &str) -> Option<Start> {
        self.0.lock().by_name.get(name).map(|part| part.start.clone())
    }
}

/// Adds a part and starts it. An error is that of its first start, after which it is no part.
pub(super) async fn supervise(
    core: &SharedCore,
    name: &str,
    on_failure: OnFailure,
    start: impl Fn(ActorCell) -> BoxFuture<'static, Result<StartedPart, String>> + Send + Sync + 'static,
) -> Result<(), Fault> {
    let (name, start): (Arc<str>, Start) = (Arc::from(name), Arc::new(start));
    let part = Part { start, on_failure, actor: None, running: false, failures: 0, failed: None };
    core.supervision.0.lock().by_name.insert(name.clone(), part);
    begin(core, &name).await.map_err(|why| {
        core.supervision.forget(&name, None);
        Fault::fatal_plain(format!("{name} cannot start: {why}"))
    })
}

async fn begin(core: &SharedCore, name: &Arc<str>) -> Result<(), String> {
    let Some(start) = core.supervision.start_of(name) else { return Ok(()) };
    let root = core.root.get().cloned().ok_or("the appliance has no root")?;
    let begun = AssertUnwindSafe(async move { start(root).await }).catch_unwind().await;
    let StartedPart { actor, go } = begun.unwrap_or_else(|panic| Err(fault::panic_text(&*panic)))?;
    core.supervision.running(name, actor.get_id());
    go();
    Ok(())
}

/// Starts a part again until it runs or the appliance closes.
fn restart(core: &SharedCore, name: Arc<str>, what: String) {
    let core = core.clone();
    tokio::spawn(async move {
        let mut what = what;
        loop {
            let Some((on_failure, pause)) = core.supervision.note(&name, core.clock.now(), &what) else { return };
            if core.is_closing() {
                return;
            }
            events::PartFailed { name: &name, what: &what }.emit();
            if on_failure == OnFailure::End {
                return core.note(&Fault::fatal_plain(format!("{name} failed: {what}")));
            }
            tokio::time::sleep(pause).await;
            if core.is_closing() {
                return;
            }
            match begin(&core, &name).await {
                Ok(()) => return events::PartRestarted { name: &name }.emit(),
                Err(why) => what = why,
            }
        }
    });
}

/// The root of all actors.
pub(super) struct Root;

impl Actor for Root {
    type Msg = ();
    type State = SharedCore;
    type Arguments = SharedCore;

    async fn pre_start(&self, _: ActorRef<()>, core: SharedCore) -> Result<SharedCore, ActorProcessingErr> {
        Ok(core)
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        core: &mut SharedCore,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(who, error) => match core.supervision.ended(who.get_id()) {
                Some(name) => restart(core, name, error.to_string()),
                None => tracing::error!("an actor failed: {error}"),
            },
            SupervisionEvent::ActorTerminated(who, _, _) => {
                let ended = core.supervision.ended(who.get_id());
                if let Some(name) = ended.filter(|_| !core.is_closing()) {
                    core.supervision.forget(&name, Some(who.get_id()));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A part that is a loop: its work runs in a task that lives and dies with this actor.
struct LoopActor(Arc<str>);

type Work = BoxFuture<'static, Result<(), Fault>>;

enum Loop {
    Begin(Work),
    /// Only a failure brings it back.
    Ended(Result<(), String>),
}

#[derive(Default)]
struct Looping(Option<JoinHandle<()>>);

impl Drop for Looping {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            work.abort();
        }
    }
}

impl Actor for LoopActor {
    type Msg = Loop;
    type State = Looping;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Loop>, (): ()) -> Result<Looping, ActorProcessingErr> {
        Ok(Looping::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<Loop>,
        message: Loop,
        state: &mut Looping,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Loop::Begin(work) => {
                state.0 = Some(tokio::spawn(PART.scope(self.0.clone(), async move {
                    let end = match AssertUnwindSafe(work).catch_unwind().await {
                        Ok(end) => end.map_err(|fault| fault::chain(&fault)),
                        Err(panic) => Err(format!("it panicked: {}", fault::panic_text(&*panic))),
                    };
                    // The actor is gone only when the appliance ends, and then nobody asks.
                    let _ = myself.cast(Loop::Ended(end));
                })));
            }
            Loop::Ended(Ok(())) => myself.stop(None),
            Loop::Ended(Err(what)) => return Err(what.into()),
        }
        Ok(())
    }
}

/// Runs a loop as a part of the appliance; `make` makes its work anew at each start.
pub(super) async fn run_supervised<F, W>(
    core: &SharedCore,
    name: &str,
    on_failure: OnFailure,
    make: F,
) -> Result<(), Fault>
where
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), Fault>> + Send + 'static,
{
    let (part, noting): (Arc<str>, SharedCore) = (Arc::from(name), core.clone());
    let start = move |root: ActorCell| -> BoxFuture<'static, Result<StartedPart, String>> {
        let (part, work, core) = (part.clone(), make(), noting.clone());
        // A fault of the store ends the process here as everywhere.
        let work = async move { work.await.inspect_err(|fault| core.note(fault)) }.boxed();
        Box::pin(async move {
            let spawned = LoopActor::spawn_linked(None, LoopActor(part), (), root).await;
            let (actor, _) = spawned.map_err(|e| e.to_string())?;
            let cell = actor.get_cell();
            // It is gone only when the appliance ends.
            let go = Box::new(move || drop(actor.cast(Loop::Begin(work))));
            Ok(StartedPart { actor: cell, go })
        })
    };
    supervise(core, name, on_failure, start).await
}

impl Handle {
    /// Runs a loop for as long as the appliance runs. One that returns a fault or panics is made and started again, later
    /// each time, unless the fault is fatal, which ends the process; one that returns is done. What it is doing is
    /// dropped when the appliance shuts down.
    pub async fn run_supervised<F, W>(&self, name: &str, on_failure: OnFailure, make: F) -> Result<(), Fault>
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        run_supervised(self.core(), name, on_failure, make).await
    }

    /// The parts of the appliance that are down, or failed within the last minute.
    pub fn failed_parts(&self) -> Vec<FailedPart> {
        let mut failed = self.core().supervision.failed(self.now());
        failed.iter_mut().for_each(|part| part.failed_at = self.clock().shown(part.failed_at));
        failed
    }
}
