//! What screens want to know as it happens, and the volatile board of what each attempt is doing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use conveyor_base::{Attempt, Clock, EventId, ExecutionId, Timestamp};
use conveyor_interpreter::{MachineRef, Status};
use conveyor_job::Progress;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::predictions::Predictions;

/// Notices that a slow listener may lag behind before it loses the oldest.
const NOTICES_BUFFERED_MAX: usize = 4_096;
/// Progress of one attempt is passed on no more often than this.
const PROGRESS_EVERY_MS: i64 = 250;

/// Something changed that a screen may show.
#[derive(Clone, Debug)]
pub enum Notice {
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
        working: Working,
    },
}

/// What an attempt is doing right now. Volatile: lost with the process, like the child it tells of.
#[derive(Clone, Debug)]
pub struct Working {
    pub attempt: Attempt,
    pub state: Arc<str>,
    pub resource: String,
    /// The lane that it runs on; empty where it needs none.
    pub lane: String,
    pub started_at: Timestamp,
    pub progress: Progress,
}

/// The board and the broadcast.
pub(super) struct Board {
    notices: broadcast::Sender<Notice>,
    working: Mutex<BTreeMap<(ExecutionId, Attempt), Working>>,
    pub predictions: Predictions,
}

impl Board {
    pub fn new() -> Board {
        Board {
            notices: broadcast::channel(NOTICES_BUFFERED_MAX).0,
            working: Mutex::default(),
            predictions: Predictions::default(),
        }
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// The notice is made only where somebody listens: most steps of most executions happen unwatched.
    pub fn tell(&self, notice: impl FnOnce() -> Notice) {
        if self.notices.receiver_count() > 0 {
            // The last listener may have gone since.
            let _ = self.notices.send(notice());
        }
    }

    pub fn begin(&self, execution: ExecutionId, working: Working) {
        self.working.lock().insert((execution, working.attempt), working.clone());
        self.predictions.begin(execution, working.attempt, working.started_at);
        self.tell(|| Notice::Progress { execution, working });
    }

    pub fn end(&self, execution: ExecutionId, attempt: Attempt) {
        self.working.lock().remove(&(execution, attempt));
        self.predictions.end(execution, attempt);
    }

    pub fn working(&self, execution: ExecutionId) -> Vec<Working> {
        let range = (execution, Attempt(0))..=(execution, Attempt(u32::MAX));
        self.working.lock().range(range).map(|(_, working)| working.clone()).collect()
    }

    pub fn all(&self) -> Vec<(ExecutionId, Working)> {
        self.working.lock().iter().map(|((id, _), working)| (*id, working.clone())).collect()
    }
}

/// Where an attempt reports how far it is. Cheap to call and to clone.
#[derive(Clone)]
pub struct ProgressSink {
    pub(super) board: Arc<Board>,
    pub(super) clock: Arc<dyn Clock>,
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
        let working = {
            let mut board = self.board.working.lock();
            let Some(working) = board.get_mut(&(self.execution, self.attempt)) else { return };
            working.progress = progress;
            working.clone()
        };
        self.board.tell(|| Notice::Progress { execution: self.execution, working });
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
