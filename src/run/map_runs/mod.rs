//! Runs of distributed Maps: which are driven now, and how they are resumed, woken, changed and stopped.
//!
//! ```text
//! RunTask(run's ARN) ──take up──> drive: read items ─> start children ─> count them ─> gather or write results
//!                                   ^                      │ a batch of starts and the run's row: one commit
//!            a child ended, an update, a stop ──wake───────┘
//! ```
//! A run's row says how far it has come, the indexes count its children, and the parent's outstanding task has it taken
//! up again after a crash: what is in memory here is only who drives. Invariant: one driver per run at a time; a redrive
//! that comes while the one before it still stops the run's children is driven when that is done.

mod drive;
mod items;
mod results;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use conveyor_base::{Attempt, ExecutionId, Fault, fault};
use conveyor_interpreter::{Event, MapChild, RunTask};
use conveyor_store::{Commit, MapRunRow, RunStatus, unless_damaged};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::Refused;
use super::core::{Core, SharedCore};
use super::execution::Message;
use super::handle::Handle;
use super::supervise::{self, OnFailure};

type Key = (ExecutionId, Attempt);

/// A run ends whose driver failed so often in a row.
const FAILURES_MAX: u32 = 5;
/// A driver that ran so long before it failed begins to count again.
const RAN_WELL: Duration = Duration::from_secs(60);

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
    /// How often the run had been redriven when this began.
    redrives: u32,
    /// A later redrive, which goes on when this has let go.
    next: Mutex<Option<Box<RunTask>>>,
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

    /// `None` where somebody drives it already, who may let go soon: a later redrive than his is kept for then.
    fn begin(&self, key: Key, task: Option<&RunTask>) -> Option<Arc<Driven>> {
        let redrives = task.map_or(0, |task| task.retry_count);
        match self.driven.lock().entry(key) {
            Entry::Occupied(driven) => {
                let driven = driven.get();
                if let Some(task) = task.filter(|_| redrives > driven.redrives) {
                    *driven.next.lock() = Some(Box::new(task.clone()));
                }
                None
            }
            Entry::Vacant(free) => Some(free.insert(Arc::new(Driven { redrives, ..Driven::default() })).clone()),
        }
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
    pub fn drive_run(self: &SharedCore, parent: ExecutionId, task: Box<RunTask>) {
        let key = (parent, task.attempt);
        let Some(driven) = self.map_runs.begin(key, Some(&task)) else { return };
        let core = self.clone();
        self.keep_driver(key, driven, move |driven, failures| {
            let (core, task) = (core.clone(), task.clone());
            async move {
                let attempt = task.attempt;
                if failures >= FAILURES_MAX {
                    return give_up(&core, parent, attempt, &driven, failures).await;
                }
                let event = match drive::drive(&core, parent, *task, &driven).await {
                    // As often as it is tried.
                    Err(fault @ Fault::Damaged { .. }) => {
                        core.send(parent, Message::Damaged { what: fault::chain(&fault) }, None);
                        return Ok(());
                    }
                    driven => driven?,
                };
                let Some(event) = event else { return Ok(()) };
                // What is refused because the appliance ends is told after its next start.
                match core.post_until_heard(parent, event).await {
                    Ok(true) => drive::forget_express(&core, parent, attempt).await,
                    _ => Ok(()),
                }
            }
        });
    }

    /// Runs a driver as a part of the appliance: after a failure it is made again, and told how many there were in a row.
    fn keep_driver<W>(
        self: &SharedCore,
        key: Key,
        driven: Arc<Driven>,
        drive: impl Fn(Arc<Driven>, u32) -> W + Send + Sync + 'static,
    ) where
        W: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let ends = Arc::new(Ends { core: self.clone(), key, driven: driven.clone() });
        let (core, (parent, attempt)) = (self.clone(), key);
        tokio::spawn(async move {
            let name = format!("the Map run driver of attempt {attempt} of execution {parent}");
            let starts = Mutex::new((Instant::now(), 0));
            let make = move || {
                let failures = {
                    let (begun, failures) = &mut *starts.lock();
                    *failures = if begun.elapsed() < RAN_WELL { *failures } else { 0 };
                    *begun = Instant::now();
                    std::mem::replace(failures, *failures + 1)
                };
                let (work, ends) = (drive(driven.clone(), failures), ends.clone());
                async move {
                    work.await?;
                    // At once: a redrive may ask for the next driver before this part is forgotten.
                    ends.end();
                    Ok(())
                }
            };
            match supervise::run_supervised(&core, &name, OnFailure::Restart, make).await {
                // Once the appliance closes nothing begins any more.
                Err(fault) if !core.is_closing() => core.note(&fault),
                _ => {}
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
    pub async fn stop_orphan_runs(self: &SharedCore) -> Result<(), Fault> {
        for (parent, attempt, row) in self.reader.blocking(|rows| rows.map_runs()).await? {
            if row.status != RunStatus::Running && row.ended.is_some() {
                continue;
            }
            if let Some(None) = unless_damaged(self.reader.branch_of_attempt(parent, attempt))? {
                self.end_orphan(parent, attempt);
            }
        }
        Ok(())
    }

    fn end_orphan(self: &SharedCore, parent: ExecutionId, attempt: Attempt) {
        let Some(driven) = self.map_runs.begin((parent, attempt), None) else { return };
        driven.stopped.store(true, Ordering::SeqCst);
        let core = self.clone();
        self.keep_driver((parent, attempt), driven, move |driven, _| {
            let core = core.clone();
            async move { drive::end_orphan(&core, parent, attempt, &driven).await }
        });
    }
}

/// Ends a run whose driver failed again and again.
async fn give_up(
    core: &SharedCore,
    parent: ExecutionId,
    attempt: Attempt,
    driven: &Arc<Driven>,
    failures: u32,
) -> Result<(), Fault> {
    let error = Some("States.Runtime".to_owned());
    let cause = Some("Driving the Map run failed inside the appliance; its log has the details.".to_owned());
    // What is refused because the appliance ends is told after its next start.
    let _ = core.post_until_heard(parent, Event::TaskFailed { attempt, error, cause }).await;
    // Its children end with it; where even that fails, the next start of the box ends them.
    if failures == FAILURES_MAX { drive::end_orphan(core, parent, attempt, driven).await } else { Ok(()) }
}

/// Takes the run off the list of those that are driven, however its driver ends.
struct Ends {
    core: SharedCore,
    key: Key,
    driven: Arc<Driven>,
}

impl Ends {
    fn end(&self) {
        let next = {
            let mut driven = self.core.map_runs.driven.lock();
            if !driven.get(&self.key).is_some_and(|mine| Arc::ptr_eq(mine, &self.driven)) {
                return;
            }
            driven.remove(&self.key);
            self.driven.next.lock().take()
        };
        // Once the appliance closes the next start of it finds the redrive.
        if let Some(task) = next.filter(|_| !self.core.is_closing()) {
            self.core.drive_run(self.key.0, task);
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.end();
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
