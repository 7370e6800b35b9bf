//! [`Writer`]: the one way in. Threads that append, checkpoint and scrub, and the queue before them.
//!
//! The writing thread takes everything that waits, appends it as one batch, syncs once and answers all. There is no
//! linger timer: while one batch syncs, the next one gathers. A commit never waits for a checkpoint, unless so much
//! has piled up that memory would not be bounded otherwise.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use conveyor_base::{Fault, fault};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::commit::Commit;
use super::engine::Engine;
use super::scrub::Scrub;

/// Most bytes in one batch: above it, waiting for the rest would cost more than another sync.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Fewer uncheckpointed bytes than these may wait longer: carrying them over costs the disk two syncs, which commits
/// then wait behind, however few they are. A crash replays them in milliseconds.
const LITTLE_BYTES: usize = 4 << 20;
/// How long they may wait.
const LITTLE_WAITS: Duration = Duration::from_secs(1);
/// Uncheckpointed bytes above which the checkpointer does not wait for its time.
const HASTE_BYTES: usize = 32 << 20;
/// From one checkpoint that comes upon damage to the next.
const PUT_OFF_WAITS: Duration = Duration::from_secs(10);
/// Uncheckpointed bytes above which commits wait for the checkpointer.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// How long nothing must have been appended before the journal's old batches are taken out on their own.
const QUIET: Duration = Duration::from_millis(500);

/// Who runs the store's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Threads of the store's own: one that writes, one that checkpoints, one that scrubs.
    Own,
    /// Whoever commits; every so many commits, a checkpoint.
    Caller { checkpoint_every: u64 },
    /// Whoever calls [`Writer::turn`]; every so many commits, a checkpoint. The simulator needs one order of everything,
    /// and the time between a commit's handing on and its rows being seen, in which others read what was there before.
    Turns { checkpoint_every: u64 },
}

/// Takes commits. Cheap to clone; the store's threads end when the last one is dropped.
#[derive(Clone)]
pub struct Writer(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    mode: Threads,
    commits: Mutex<u64>,
}

struct Shared {
    engine: Arc<Engine>,
    queue: Mutex<Queue>,
    /// Something was queued, or the store closes.
    queued: Condvar,
    /// Time for a checkpoint, or the store closes.
    checkpoint: Condvar,
    /// A checkpoint is done.
    relieved: Condvar,
    /// The store closes: for the scrub.
    closed: Condvar,
    /// Something was queued: for whoever calls [`Writer::turn`].
    arrived: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    closing: bool,
    hurry: bool,
}

struct Waiting {
    record: Arc<Vec<u8>>,
    done: oneshot::Sender<Result<(), Fault>>,
}

impl Writer {
    pub(super) fn start(engine: Arc<Engine>, mode: Threads, checkpoint_ms: u64) -> Result<Writer, Fault> {
        let shared = Arc::new(Shared {
            engine,
            queue: Mutex::default(),
            queued: Condvar::new(),
            checkpoint: Condvar::new(),
            relieved: Condvar::new(),
            closed: Condvar::new(),
            arrived: Notify::new(),
        });
        let mut threads = Vec::new();
        if mode == Threads::Own {
            let spawn = |name: &'static str, work: Box<dyn FnOnce(&Shared) + Send>| {
                let shared = shared.clone();
                let thread = std::thread::Builder::new().name(name.into());
                let thread = thread.spawn(move || or_fail(&shared, name, work));
                thread.map_err(|e| Fault::fatal(format!("the store's thread '{name}' cannot start"), e))
            };
            threads.push(spawn("store-writer", Box::new(write_all))?);
            let every = Duration::from_millis(checkpoint_ms.max(1));
            threads.push(spawn("store-checkpoint", Box::new(move |shared| checkpoint_all(shared, every)))?);
            threads.push(spawn("store-scrub", Box::new(scrub_all))?);
        }
        Ok(Writer(Arc::new(Inner { shared, threads: Mutex::new(threads), mode, commits: Mutex::new(0) })))
    }

    /// Stores a commit, whole or not at all. Returns once it is on the disk and readers see it.
    ///
    /// The order of two commits is that of the first polls of their futures. A future that is dropped before it is
    /// done leaves open whether the commit was stored.
    pub async fn commit(&self, commit: Commit) -> Result<(), Fault> {
        self.submit(commit).await
    }

    /// Hands a commit on without waiting: its place in the order of all commits is taken when this returns. What comes
    /// back resolves once the commit is on the disk and readers see it; dropping that changes nothing.
    pub fn submit(&self, commit: Commit) -> Durable {
        if commit.is_empty() {
            return Durable(Progress::Here(Some(self.0.shared.engine.alive())));
        }
        Durable(match self.0.mode {
            Threads::Own | Threads::Turns { .. } => match self.0.shared.enqueue(commit) {
                Ok(answer) => Progress::Queued { answer, shared: self.0.shared.clone() },
                Err(fault) => Progress::Here(Some(Err(fault))),
            },
            Threads::Caller { checkpoint_every } => Progress::Here(Some(self.0.commit_here(commit, checkpoint_every))),
        })
    }

    /// The same for threads that may block.
    pub fn commit_blocking(&self, commit: Commit) -> Result<(), Fault> {
        if commit.is_empty() {
            return self.0.shared.engine.alive();
        }
        match self.0.mode {
            Threads::Own => {
                let answer = self.0.shared.enqueue(commit)?;
                answer.blocking_recv().unwrap_or_else(|_| self.0.shared.gone())
            }
            Threads::Caller { checkpoint_every } => self.0.commit_here(commit, checkpoint_every),
            Threads::Turns { .. } => {
                let mut answer = self.0.shared.enqueue(commit)?;
                while self.turn(usize::MAX) {}
                answer.try_recv().unwrap_or_else(|_| self.0.shared.gone())
            }
        }
    }

    /// With [`Threads::Turns`]: stores the next commits, so many at most, as one batch. Says whether there were any.
    pub fn turn(&self, most: usize) -> bool {
        self.0.turn(most)
    }

    /// With [`Threads::Turns`]: resolves once a commit waits for a turn.
    pub async fn awaits_turn(&self) {
        while self.0.shared.queue.lock().waiting.is_empty() {
            self.0.shared.arrived.notified().await;
        }
    }

    /// Who runs the store's work.
    pub fn threads(&self) -> Threads {
        self.0.mode
    }

    /// A number for [`Commit::put_outbox`]: above all that were ever given out and stored.
    pub fn outbox_number(&self) -> u64 {
        self.0.shared.engine.outbox_next.fetch_add(1, Ordering::Relaxed)
    }

    /// Carries everything over to the state file and cuts the journal, now. Nobody needs to: it happens by itself.
    pub fn checkpoint(&self) -> Result<(), Fault> {
        self.0.shared.engine.checkpoint()?;
        self.0.shared.engine.tidy_journal()
    }

    /// Reads everything from the disk, now, and takes note of what is damaged ([`Reader::damages`](super::Reader::damages)). Nobody
    /// needs to: with threads of its own the store does so by itself, within a day. For threads that may block.
    pub fn scrub(&self) {
        self.0.shared.engine.scrub_all();
    }

    /// Ends the store in order: everything queued is stored and carried over, so that the next start replays
    /// nothing. Later commits are refused.
    pub fn close(self) -> Result<(), Fault> {
        self.0.stop();
        self.0.shared.engine.checkpoint()?;
        self.0.shared.engine.tidy_journal()
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.0.shared.engine
    }
}

/// Resolves once a commit that was handed on is durable, or cannot be. See [`Writer::submit`].
#[must_use = "a commit that failed must end the process"]
pub struct Durable(Progress);

enum Progress {
    Queued {
        answer: oneshot::Receiver<Result<(), Fault>>,
        shared: Arc<Shared>,
    },
    /// It was stored by whoever handed it on, or never will be.
    Here(Option<Result<(), Fault>>),
}

impl Future for Durable {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Progress::Queued { answer, shared } => {
                Pin::new(answer).poll(context).map(|end| end.unwrap_or_else(|_| shared.gone()))
            }
            Progress::Here(end) => Poll::Ready(end.take().unwrap_or(Ok(()))),
        }
    }
}

impl Inner {
    fn turn(&self, most: usize) -> bool {
        let Threads::Turns { checkpoint_every } = self.mode else { return false };
        let batch: Vec<Waiting> = {
            let mut queue = self.shared.queue.lock();
            let count = queue.waiting.len().min(most.max(1));
            queue.waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            return false;
        }
        let count = batch.len() as u64;
        self.shared.store(batch);
        let mut commits = self.commits.lock();
        let before = *commits;
        *commits += count;
        if before.checked_div(checkpoint_every) != commits.checked_div(checkpoint_every) {
            // The commits are durable whatever comes of the checkpoint; the next one hears of its failure.
            let _ = self.shared.engine.checkpoint();
        }
        true
    }

    fn commit_here(&self, commit: Commit, checkpoint_every: u64) -> Result<(), Fault> {
        let mut commits = self.commits.lock();
        if self.shared.queue.lock().closing {
            return self.shared.gone();
        }
        let engine = &self.shared.engine;
        engine.append(&[commit.record.into_shared()?])?;
        *commits += 1;
        if checkpoint_every > 0 && commits.is_multiple_of(checkpoint_every) {
            // The commit is durable whatever comes of the checkpoint; the next commit hears of its failure.
            let _ = engine.checkpoint();
        }
        Ok(())
    }

    fn stop(&self) {
        self.shared.queue.lock().closing = true;
        while self.turn(usize::MAX) {}
        self.shared.queued.notify_all();
        self.shared.checkpoint.notify_all();
        self.shared.relieved.notify_all();
        self.shared.closed.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn enqueue(&self, commit: Commit) -> Result<oneshot::Receiver<Result<(), Fault>>, Fault> {
        let (done, answer) = oneshot::channel();
        let waiting = Waiting { record: commit.record.into_shared()?, done };
        let mut queue = self.queue.lock();
        if queue.closing {
            return self.gone().map(|()| answer);
        }
        queue.waiting.push(waiting);
        let first = queue.waiting.len() == 1;
        drop(queue);
        if first {
            self.queued.notify_one();
            self.arrived.notify_one();
        }
        Ok(answer)
    }

    /// Appends a batch and answers everybody in it.
    fn store(&self, batch: Vec<Waiting>) {
        let records: Vec<_> = batch.iter().map(|w| w.record.clone()).collect();
        let result = self.engine.append(&records);
        drop(records);
        let failure = result.err().map(|fault| fault::chain(&fault));
        for waiting in batch {
            let answer = match &failure {
                None => Ok(()),
                Some(why) => Err(Fault::fatal_plain(format!("the commit was not stored: {why}"))),
            };
            // Whoever stopped waiting does not want the answer.
            let _ = waiting.done.send(answer);
        }
    }

    fn gone(&self) -> Result<(), Fault> {
        self.engine.alive()?;
        Err(Fault::fatal_plain("the store is closed: the appliance is shutting down"))
    }
}

/// Runs a thread of the store's. One that panics takes the store along: nobody would write, or carry over, in its place,
/// and whoever waits for it would wait for ever.
fn or_fail(shared: &Shared, name: &str, work: impl FnOnce(&Shared)) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(shared))) else { return };
    let what = format!("its thread '{name}' panicked: {}", fault::panic_text(&*panic));
    shared.engine.fail(Fault::fatal_plain(what));
    let waiting = {
        let mut queue = shared.queue.lock();
        queue.closing = true;
        std::mem::take(&mut queue.waiting)
    };
    // Those who wait hear why the store stopped.
    drop(waiting);
    shared.queued.notify_all();
    shared.checkpoint.notify_all();
    shared.relieved.notify_all();
}

/// The writing thread.
fn write_all(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock();
        while queue.waiting.is_empty() {
            if queue.closing {
                return;
            }
            if shared.queued.wait_for(&mut queue, QUIET).timed_out() && queue.waiting.is_empty() {
                drop(queue);
                // A failure is remembered by the engine and answers the next commit.
                let _ = shared.engine.tidy_journal();
                queue = shared.queue.lock();
                if queue.waiting.is_empty() && !queue.closing {
                    shared.queued.wait(&mut queue);
                }
            }
        }
        let batch = take_batch(&mut queue.waiting);
        drop(queue);
        hold_back(shared);
        let was_clean = shared.engine.waiting_bytes() == 0;
        shared.store(batch);
        if was_clean {
            // Under the lock, or the checkpointer might be about to sleep.
            let _queue = shared.queue.lock();
            shared.checkpoint.notify_one();
        }
    }
}

fn take_batch(waiting: &mut Vec<Waiting>) -> Vec<Waiting> {
    let mut bytes = 0;
    let count = waiting
        .iter()
        .take_while(|w| {
            let fits = bytes == 0 || bytes + w.record.len() <= BATCH_BYTES_MAX;
            bytes += w.record.len();
            fits
        })
        .count();
    if count == waiting.len() { std::mem::take(waiting) } else { waiting.drain(..count).collect() }
}

/// Wakes the checkpointer early, and waits for it when too much has piled up.
fn hold_back(shared: &Shared) {
    let bytes = shared.engine.waiting_bytes();
    if bytes < HASTE_BYTES {
        return;
    }
    let mut queue = shared.queue.lock();
    queue.hurry = true;
    shared.checkpoint.notify_one();
    while shared.engine.waiting_bytes() >= WAITING_BYTES_MAX && !queue.closing && shared.engine.alive().is_ok() {
        shared.relieved.wait_for(&mut queue, Duration::from_millis(50));
        queue.hurry = true;
        shared.checkpoint.notify_one();
    }
}

/// The scrubbing thread.
fn scrub_all(shared: &Shared) {
    let mut scrub = Scrub::default();
    loop {
        let until = Instant::now() + scrub.turn(&shared.engine);
        let mut queue = shared.queue.lock();
        while !queue.closing && !shared.closed.wait_until(&mut queue, until).timed_out() {}
        if queue.closing {
            return;
        }
    }
}

/// The checkpointing thread.
fn checkpoint_all(shared: &Shared, every: Duration) {
    let mut last = Instant::now();
    loop {
        let mut queue = shared.queue.lock();
        while !queue.closing && shared.engine.waiting_bytes() == 0 {
            shared.checkpoint.wait(&mut queue);
        }
        let until = Instant::now() + every;
        while !queue.closing && !queue.hurry && !shared.checkpoint.wait_until(&mut queue, until).timed_out() {}
        if queue.closing {
            return;
        }
        queue.hurry = false;
        drop(queue);
        if shared.engine.waiting_bytes() < LITTLE_BYTES && last.elapsed() < LITTLE_WAITS {
            continue;
        }
        last = Instant::now();
        if shared.engine.checkpoint().is_err() {
            // The engine remembers; commits answer with it.
            return;
        }
        shared.relieved.notify_all();
        if shared.engine.is_put_off() {
            let (mut queue, until) = (shared.queue.lock(), Instant::now() + PUT_OFF_WAITS);
            while !queue.closing && !shared.checkpoint.wait_until(&mut queue, until).timed_out() {}
        }
    }
}
