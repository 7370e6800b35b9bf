//! Services: parts of the box with state of their own, under the same law as executions. Decide, commit, act.
//!
//! ```text
//!              ┌────────────── one actor, under the root ───────────────┐
//!  API  ─┐     │                 memory                                 │
//!  Task ─┼─ message ──> decide on ^ ──> Commit ──> writer (in order)    │
//!  timer ┘     │                                     │ durable          │
//!              └─────────────────────────────────────┼──────────────────┘
//!                                 effects and answers <┘
//! ```
//!
//! Invariants:
//! - An actor never waits for its own commit: it hands the commit on and takes the next message. What is in memory may
//!   therefore run ahead of the disk; nobody is told so before the commit is durable, and one that fails ends the
//!   process, so that memory and rows never part.
//! - The order of a service's commits is that of its decisions.
//! - Memory can be rebuilt from the service's rows alone ([`Service::load`](Spawn)): after a panic it is.
//! - Who asked may hang up at any moment; what was decided is carried out all the same.

mod actor;
mod pending;
mod requester;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use conveyor_base::{Fault, Timestamp, fault};
use conveyor_store::{Commit, Durable, Reader, Scans};
use parking_lot::RwLock;
use ractor::ActorRef;
use tokio::sync::mpsc;

pub use pending::Pending;
pub use requester::{Requester, Unavailable};

use super::Handle;
use super::core::SharedCore;
use super::events;
use super::supervise::{OnFailure, StartedPart, supervise};
use actor::{Load, Mail, ServiceActor};

/// A service's memory and how it decides. Neither function waits for anything: what takes time is begun with
/// [`Turn::act`] and comes back as a message.
pub trait Service: Send + 'static {
    type Message: Send + 'static;

    /// Decides on one message.
    fn handle(&mut self, turn: &mut Turn<'_, Self::Message>, message: Self::Message);

    /// The time has come that was asked for with [`Turn::wake_at`] or [`Turn::wake_at_wall`]. Also called once after each start.
    fn wake(&mut self, _: &mut Turn<'_, Self::Message>) {}
}

/// Where a service is reached, whether it runs or is being started again. Made before the service; cheap to clone.
pub struct Address<M: 'static>(Arc<RwLock<Option<ActorRef<Mail<M>>>>>);

impl<M> Clone for Address<M> {
    fn clone(&self) -> Address<M> {
        Address(self.0.clone())
    }
}

impl<M: Send + 'static> Default for Address<M> {
    fn default() -> Address<M> {
        Address(Arc::default())
    }
}

impl<M: Send + 'static> Address<M> {
    /// Sends a message; gives it back where nobody is there to take it: the appliance is starting or ending, or the
    /// service failed just now and is on its way back.
    pub fn send(&self, message: M) -> Result<(), M> {
        let actor = self.0.read();
        let Some(actor) = actor.as_ref() else { return Err(message) };
        match actor.cast(Mail::Message(message)) {
            Ok(()) => Ok(()),
            Err(ractor::MessagingErr::SendErr(Mail::Message(back))) => Err(back),
            // Other errors are of remote actors, which these never are.
            Err(_) => Ok(()),
        }
    }

    /// Sends a question and waits for its answer, which comes once what it says is durable. Whoever drops this future
    /// changes nothing about what was decided.
    pub async fn ask<A: Send + 'static>(&self, message: impl FnOnce(Requester<A>) -> M) -> Result<A, Unavailable> {
        let (requester, answer) = Requester::caller();
        self.send(message(requester)).map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)
    }
}

/// One decision: what a service may know and use while it makes it.
pub struct Turn<'a, M: Send + 'static> {
    now: Timestamp,
    shared: &'a ServiceShared<M>,
    wake: &'a mut Wake,
}

/// When a service asked to be woken, by either clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Wake {
    at: Option<Timestamp>,
    at_wall: Option<Timestamp>,
}

/// What the actors of a service share, one after the other.
pub(super) struct ServiceShared<M: Send + 'static> {
    pub name: Arc<str>,
    pub core: SharedCore,
    pub address: Address<M>,
    commits: mpsc::UnboundedSender<PendingCommit>,
    /// Numbers of the newest commit that was submitted, and of the newest that is durable.
    submitted: AtomicU64,
    durable: Arc<AtomicU64>,
}

/// A commit on its way to the disk, and what follows from it.
struct PendingCommit {
    commit: Option<(Durable, u64)>,
    then: Box<dyn FnOnce() + Send>,
}

impl<M: Send + 'static> Turn<'_, M> {
    /// When this turn began, by the box's own time, which nobody sets.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The wall clock now: for what people read, and what they tied to a time of day.
    pub fn wall(&self) -> Timestamp {
        self.shared.core.clock.wall()
    }

    /// Rows as they are on the disk. The service's own newest decisions may not be there yet: see [`Pending`].
    pub fn reader(&self) -> &Reader {
        &self.shared.core.reader
    }

    /// Reads a row. `None` where the store cannot be read, which ends the process.
    pub fn read<T>(&self, read: impl FnOnce(&Reader) -> Result<T, Fault>) -> Option<T> {
        read(&self.shared.core.reader).inspect_err(|fault| self.shared.core.note(fault)).ok()
    }

    /// Takes note of a fault that work of this service met; a fatal one ends the process.
    pub fn note(&self, fault: &Fault) {
        self.shared.core.note(fault);
    }

    pub fn handle(&self) -> Handle {
        Handle::of(self.shared.core.clone())
    }

    /// Where the service itself is reached.
    pub fn address(&self) -> Address<M> {
        self.shared.address.clone()
    }

    /// Hands a commit on; `then` runs once it is durable, after whatever follows from the service's earlier commits. A
    /// commit that cannot be stored ends the process, and nothing follows from it. Answers the commit's number.
    pub fn commit(&mut self, commit: Commit, then: impl FnOnce() + Send + 'static) -> u64 {
        let number = self.shared.submitted.fetch_add(1, Ordering::Relaxed) + 1;
        let durable = self.shared.core.writer.submit(commit);
        self.queue(PendingCommit { commit: Some((durable, number)), then: Box::new(then) });
        number
    }

    /// Runs `then` once all that this service has decided so far is durable.
    pub fn after_all(&mut self, then: impl FnOnce() + Send + 'static) {
        self.queue(PendingCommit { commit: None, then: Box::new(then) });
    }

    /// Stores what was decided together with what the requester adds to it (a Task's end, an audit entry),
    /// and answers once that is durable. `None`, and nothing is stored: the requester is a Task's attempt that is over.
    /// The memory must change after this and not before.
    pub fn settle<A: Send + 'static>(
        &mut self,
        mut commit: Commit,
        mut requester: Requester<A>,
        answer: A,
    ) -> Option<u64> {
        if !requester.join(&answer, &mut commit) {
            return None;
        }
        Some(self.commit(commit, move || requester.durable(answer)))
    }

    /// Answers what changed nothing: a question, a refusal. What the answer follows from is durable before it is given.
    pub fn answer<A: Send + 'static>(&mut self, requester: Requester<A>, answer: A) {
        // A Task's end is a commit of its own, which goes behind all of these by itself.
        if requester.is_stored_with_its_answer() {
            return requester.unchanged(answer);
        }
        self.after_all(move || requester.unchanged(answer));
    }

    /// The number of the newest commit of this service that is on the disk.
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Begins something that takes time. Its outcome comes back as a message; `broken` makes that of one that panicked.
    pub fn act(
        &mut self,
        work: impl Future<Output = M> + Send + 'static,
        broken: impl FnOnce(String) -> M + Send + 'static,
    ) {
        use futures::FutureExt as _;
        let address = self.shared.address.clone();
        tokio::spawn(async move {
            let outcome = AssertUnwindSafe(work).catch_unwind().await;
            let message = outcome.unwrap_or_else(|panic| broken(fault::panic_text(&*panic)));
            // A service that went meanwhile begins again from its rows, which still say that this is to be done.
            let _ = address.send(message);
        });
    }

    /// Asks to be woken at that time; an earlier time that was asked for stands.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake.at = Some(self.wake.at.map_or(at, |earlier| earlier.min(at)));
    }

    /// The same by the wall clock. Where that is set back, the service is woken at once.
    pub fn wake_at_wall(&mut self, at: Timestamp) {
        self.wake.at_wall = Some(self.wake.at_wall.map_or(at, |earlier| earlier.min(at)));
    }

    fn queue(&self, submitted: PendingCommit) {
        // The other end goes with the appliance only.
        let _ = self.shared.commits.send(submitted);
    }
}

impl Handle {
    /// Starts a service under the root. `load` builds its memory from its rows: at the start, and again after a
    /// failure. Returns once the service takes messages.
    pub async fn serve<S: Service>(
        &self,
        name: &str,
        address: Address<S::Message>,
        load: impl Fn(&Scans) -> Result<S, Fault> + Send + Sync + 'static,
    ) -> Result<(), Fault> {
        let core = self.core().clone();
        let (commits, queue) = mpsc::unbounded_channel();
        let durable = Arc::new(AtomicU64::new(0));
        tokio::spawn(await_commits(core.clone(), queue, durable.clone()));
        let shared = Arc::new(ServiceShared {
            name: Arc::from(name),
            core: core.clone(),
            address,
            commits,
            submitted: AtomicU64::new(0),
            durable,
        });
        let load: Load<S> = Arc::new(load);
        let start = move |root| -> futures::future::BoxFuture<'static, Result<StartedPart, String>> {
            let (shared, load) = (shared.clone(), load.clone());
            Box::pin(async move { ServiceActor::start(shared, load, root).await })
        };
        supervise(&core, name, OnFailure::Restart, start).await
    }
}

/// Waits for the commits of one service, in their order, and does what follows from each. Outlives the service's actor,
/// so that a panic there takes no answer along.
async fn await_commits(core: SharedCore, mut queue: mpsc::UnboundedReceiver<PendingCommit>, newest: Arc<AtomicU64>) {
    while let Some(PendingCommit { commit, then }) = queue.recv().await {
        if let Some((durable, number)) = commit {
            if let Err(fault) = durable.await {
                return core.note(&fault);
            }
            newest.store(number, Ordering::Release);
        }
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(then)) {
            events::AnswerPanicked { text: &fault::panic_text(&*panic) }.emit();
        }
    }
}

/// What a load's fault says.
fn words(fault: &Fault) -> String {
    fault::chain(fault)
}
