//! What screens are told as it happens, and the volatile board of the attempts that run right now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use conveyor_base::{Attempt, BoxClock, EventId, ExecutionId, Timestamp};
use conveyor_interpreter::{MachineRef, Status};
use conveyor_job::Progress;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::predictions::Predictions;

/// Updates that a slow listener may lag behind before it loses the oldest.
const UPDATES_BUFFERED_MAX: usize = 4_096;
/// Progress of one attempt is passed on no more often than this.
const PROGRESS_EVERY_MS: i64 = 250;

/// Something changed that a screen may show.
#[derive(Clone, Debug)]
pub enum LiveUpdate {
    /// A commit touched the execution.
    Changed {
        execution: ExecutionId,
        machine: MachineRef,
        name: String,
        status: Status,
        last_event: EventId,
    },
    Progress {
        execution: ExecutionId,
        running: RunningAttempt,
    },
}

/// What an attempt is doing right now. Volatile: lost with the process, like the child it tells of.
#[derive(Clone, Debug)]
pub struct RunningAttempt {
    pub attempt: Attempt,
    pub state: Arc<str>,
    pub resource: String,
    /// The lane that it runs on; empty where it needs none.
    pub lane: String,
    pub started_at: Timestamp,
    pub progress: Progress,
}

/// The attempts that run, and the broadcast to whoever watches.
pub(super) struct ProgressBoard {
    updates: broadcast::Sender<LiveUpdate>,
    running: Mutex<BTreeMap<(ExecutionId, Attempt), RunningAttempt>>,
    pub predictions: Predictions,
}

impl ProgressBoard {
    pub fn new() -> ProgressBoard {
        ProgressBoard {
            updates: broadcast::channel(UPDATES_BUFFERED_MAX).0,
            running: Mutex::default(),
            predictions: Predictions::default(),
        }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<LiveUpdate> {
        self.updates.subscribe()
    }

    /// The update is made only where somebody listens: most steps of most executions happen unwatched.
    pub fn publish(&self, update: impl FnOnce() -> LiveUpdate) {
        if self.updates.receiver_count() > 0 {
            // The last listener may have gone since.
            let _ = self.updates.send(update());
        }
    }

    pub fn begin(&self, execution: ExecutionId, running: RunningAttempt) {
        self.running.lock().insert((execution, running.attempt), running.clone());
        self.predictions.begin(execution, running.attempt, running.started_at);
        self.publish(|| LiveUpdate::Progress { execution, running });
    }

    pub fn end(&self, execution: ExecutionId, attempt: Attempt) {
        self.running.lock().remove(&(execution, attempt));
        self.predictions.end(execution, attempt);
    }

    pub fn running(&self, execution: ExecutionId) -> Vec<RunningAttempt> {
        let range = (execution, Attempt(0))..=(execution, Attempt(u32::MAX));
        self.running.lock().range(range).map(|(_, running)| running.clone()).collect()
    }

    pub fn all(&self) -> Vec<(ExecutionId, RunningAttempt)> {
        self.running.lock().iter().map(|((id, _), running)| (*id, running.clone())).collect()
    }
}

/// Where an attempt reports how far it is. Cheap to call and to clone.
#[derive(Clone)]
pub struct ProgressSink {
    pub(super) board: Arc<ProgressBoard>,
    pub(super) clock: Arc<BoxClock>,
    pub(super) execution: ExecutionId,
    pub(super) attempt: Attempt,
    pub(super) last_ms: Arc<AtomicI64>,
    /// Called at most every third of the task's HeartbeatSeconds.
    pub(super) heartbeat: Option<(i64, Arc<dyn Fn() + Send + Sync>)>,
    pub(super) last_heartbeat_ms: Arc<AtomicI64>,
}

impl ProgressSink {
    /// Takes note of the progress; passes it on when the last one is old enough. Counts as a sign of life.
    pub fn report(&self, progress: Progress) {
        let now = self.clock.now();
        self.beat(now);
        let last = self.last_ms.load(Ordering::Relaxed);
        if now.0 - last < PROGRESS_EVERY_MS && progress.fraction < 1.0 {
            return;
        }
        self.last_ms.store(now.0, Ordering::Relaxed);
        let running = {
            let mut board = self.board.running.lock();
            let Some(running) = board.get_mut(&(self.execution, self.attempt)) else { return };
            running.progress = progress;
            running.clone()
        };
        self.board.publish(|| LiveUpdate::Progress { execution: self.execution, running });
    }

    fn beat(&self, now: Timestamp) {
        let Some((heartbeat_ms, beat)) = &self.heartbeat else { return };
        let last = self.last_heartbeat_ms.load(Ordering::Relaxed);
        if now.0 - last >= heartbeat_ms / 3 {
            self.last_heartbeat_ms.store(now.0, Ordering::Relaxed);
            beat();
        }
    }
}
