//! Runs of distributed Maps: which are driven now, and how they are taken up, woken, changed and stopped.
//!
//! ```text
//! RunTask(run's ARN) ──take up──> drive: read items ─> start children ─> count them ─> gather or write results
//!                                   ^                      │ a batch of starts and the run's row: one commit
//!            a child ended, an update, a stop ──wake───────┘
//! ```
//! A run's row says how far it has come, the indexes count its children, and the parent's outstanding task has it taken
//! up again after a crash: what is in memory here is only who drives. Invariant: one driver per run at a time.

mod drive;
mod items;
mod results;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::Refused;
use super::core::{Core, SharedCore};
use super::handle::Handle;
use crate::base::{Attempt, ExecutionId, Fault};
use crate::interpreter::{Event, MapChild, RunTask};
use crate::store::{Commit, MapRunRow, RunStatus};

type Key = (ExecutionId, Attempt);

#[derive(Default)]
pub(super) struct MapRuns {
    driven: Mutex<HashMap<Key, Arc<Driven>>>,
}

/// A run that is driven now.
#[derive(Default)]
struct Driven {
    woken: Notify,
    /// Its parent waits for it no more.
    stopped: AtomicBool,
    /// Held while the row is changed: the driver and UpdateMapRun both do.
    changing: tokio::sync::Mutex<()>,
}

/// What UpdateMapRun changes; `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MapRunChange {
    pub max_concurrency: Option<u32>,
    pub tolerated_count: Option<u64>,
    pub tolerated_percentage: Option<f64>,
}

impl MapRunChange {
    fn apply(&self, row: &mut MapRunRow) {
        row.max_concurrency = self.max_concurrency.unwrap_or(row.max_concurrency);
        row.tolerated_count = self.tolerated_count.or(row.tolerated_count);
        row.tolerated_percentage = self.tolerated_percentage.or(row.tolerated_percentage);
    }
}

impl MapRuns {
    fn find(&self, key: Key) -> Option<Arc<Driven>> {
        self.driven.lock().get(&key).cloned()
    }

    /// `None` where somebody drives it already.
    fn begin(&self, key: Key) -> Option<Arc<Driven>> {
        let mut driven = self.driven.lock();
        if driven.contains_key(&key) {
            return None;
        }
        Some(driven.entry(key).or_default().clone())
    }

    /// A child of the run ended.
    pub fn child_ended(&self, child: &MapChild) {
        if let Some(driven) = self.find((child.parent, child.attempt)) {
            driven.woken.notify_one();
        }
    }

    pub fn wake_all(&self) {
        self.driven.lock().values().for_each(|driven| driven.woken.notify_one());
    }

    /// Waits until the drivers, which were told that the appliance ends, have let go.
    pub async fn end(&self, at_most: Duration) {
        let until = Instant::now() + at_most;
        while !self.driven.lock().is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Core {
    /// Drives a run, from wherever its row stands. What is driven already goes on.
    pub fn take_up_run(self: &SharedCore, parent: ExecutionId, task: Box<RunTask>) {
        let key = (parent, task.attempt);
        let Some(driven) = self.map_runs.begin(key) else { return };
        let core = self.clone();
        tokio::spawn(async move {
            let _ends = Ends { core: core.clone(), key };
            let attempt = task.attempt;
            match drive::drive(&core, parent, *task, &driven).await {
                Ok(Some(event)) => {
                    // What is refused because the appliance ends is told after its next start.
                    let told = core.post_and_wait(parent, event).await;
                    if let (Ok(true), Err(fault)) = (told, drive::forget_express(&core, parent, attempt).await) {
                        core.note(&fault);
                    }
                }
                Ok(None) => {}
                Err(fault) => core.note(&fault),
            }
        });
    }

    /// The attempt that stands for a run was cancelled: its children end with it.
    pub fn stop_run(self: &SharedCore, parent: ExecutionId, attempt: Attempt) {
        if let Some(driven) = self.map_runs.find((parent, attempt)) {
            driven.stopped.store(true, Ordering::SeqCst);
            return driven.woken.notify_one();
        }
        match self.reader.map_run(parent, attempt) {
            Ok(Some(row)) if row.status == RunStatus::Running => self.end_orphan(parent, attempt),
            Ok(_) => {}
            Err(fault) => self.note(&fault),
        }
    }

    /// After a restart: ends the runs whose parents wait for them no more, and that were not told so.
    pub fn stop_orphan_runs(self: &SharedCore) -> Result<(), Fault> {
        for (parent, attempt, row) in self.reader.map_runs()? {
            if row.status != RunStatus::Running && row.ended.is_some() {
                continue;
            }
            if self.reader.branch_of_attempt(parent, attempt)?.is_none() {
                self.end_orphan(parent, attempt);
            }
        }
        Ok(())
    }

    fn end_orphan(self: &SharedCore, parent: ExecutionId, attempt: Attempt) {
        let Some(driven) = self.map_runs.begin((parent, attempt)) else { return };
        driven.stopped.store(true, Ordering::SeqCst);
        let core = self.clone();
        tokio::spawn(async move {
            let _ends = Ends { core: core.clone(), key: (parent, attempt) };
            if let Err(fault) = drive::end_orphan(&core, parent, attempt, &driven).await {
                core.note(&fault);
            }
        });
    }
}

/// Takes the run off the list of those that are driven, however its driver ends.
struct Ends {
    core: SharedCore,
    key: Key,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.core.map_runs.driven.lock().remove(&self.key);
        if std::thread::panicking() {
            let (parent, attempt) = self.key;
            let error = Some("States.Runtime".to_owned());
            let cause = Some("Driving the Map run failed inside the appliance; its log has the details.".to_owned());
            self.core.post(parent, Event::TaskFailed { attempt, error, cause });
        }
    }
}

impl Handle {
    /// UpdateMapRun. False where the run has ended.
    pub async fn update_map_run(
        &self,
        parent: ExecutionId,
        attempt: Attempt,
        change: MapRunChange,
    ) -> Result<bool, Refused> {
        let core = self.core();
        let driven = core.map_runs.find((parent, attempt)).unwrap_or_default();
        let _one_at_a_time = driven.changing.lock().await;
        let Some(mut row) = core.reader.map_run(parent, attempt)? else { return Ok(false) };
        if row.status != RunStatus::Running {
            return Ok(false);
        }
        change.apply(&mut row);
        let mut commit = Commit::new();
        commit.put_map_run(parent, attempt, &row);
        self.commit(commit).await?;
        driven.woken.notify_one();
        Ok(true)
    }
}
