//! Timers: one sleeper over the store's rows, which are ordered by (due, execution, timer).
//!
//! Only the timers of the next minutes are in memory; the rest are rows, and cost neither memory nor a look.
//! A timer that fired stays a row until its execution's step has consumed it, so a crash in between fires it again.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Duration;

use super::core::Core;
use crate::base::{ExecutionId, Fault, TimerId, Timestamp};
use crate::interpreter::Event;

/// How far ahead timers are held in memory.
const HORIZON_MS: i64 = 120_000;
/// Rows read in one go.
const ROWS_PER_READ: usize = 10_000;
/// Due timers that wake their executions at the same time.
const FIRING_MAX: usize = 512;

type Key = (Timestamp, ExecutionId, TimerId);

pub(super) struct Timers {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    soon: BTreeSet<Key>,
    /// All rows due before this moment are in `soon`.
    horizon: Timestamp,
    /// The last look found more rows than it may take: the next one comes when all of these have fired.
    crowded: bool,
}

impl Timers {
    pub fn new() -> Timers {
        Timers {
            state: Mutex::new(State { soon: BTreeSet::new(), horizon: Timestamp(i64::MIN), crowded: false }),
            changed: Notify::new(),
        }
    }

    /// The row is durable already.
    pub fn set(&self, due: Timestamp, id: ExecutionId, timer: TimerId) {
        let mut state = self.state.lock();
        if due < state.horizon {
            state.soon.insert((due, id, timer));
            if state.soon.first() == Some(&(due, id, timer)) {
                self.changed.notify_one();
            }
        }
    }

    pub fn clear(&self, due: Timestamp, id: ExecutionId, timer: TimerId) {
        self.state.lock().soon.remove(&(due, id, timer));
    }

    /// Lets the sleeper look at the clock, and at whether the appliance ends.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    fn take_due(&self, now: Timestamp) -> Vec<Key> {
        let mut state = self.state.lock();
        let later = state.soon.split_off(&(now.plus_ms(1), ExecutionId(0), TimerId(0)));
        let due = std::mem::replace(&mut state.soon, later);
        due.into_iter().collect()
    }

    fn next_look(&self) -> Timestamp {
        let state = self.state.lock();
        let reload = state.horizon.plus_ms(-HORIZON_MS / 2);
        match state.soon.first() {
            Some(first) if state.crowded => first.0,
            Some(first) => first.0.min(reload),
            None => reload,
        }
    }
}

/// Runs until the appliance ends.
pub(super) async fn run(core: Arc<Core>) -> Result<(), Fault> {
    while !core.is_closing() {
        let now = core.clock.now();
        load(&core, now)?;
        let due = core.timers.take_due(now);
        if !due.is_empty() {
            fire(&core, due).await;
            continue;
        }
        let wait_ms = core.timers.next_look().since_ms(core.clock.now()).max(0) as u64;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            () = core.timers.changed.notified() => {}
        }
    }
    Ok(())
}

/// Brings the next minutes of rows into memory, when half of what is there has passed.
fn load(core: &Core, now: Timestamp) -> Result<(), Fault> {
    let mut state = core.timers.state.lock();
    let enough = if state.crowded { !state.soon.is_empty() } else { state.horizon.0 > now.plus_ms(HORIZON_MS / 2).0 };
    if enough {
        return Ok(());
    }
    let until = now.plus_ms(HORIZON_MS);
    let rows = core.reader.timers(until, ROWS_PER_READ)?;
    // A full read may have left rows behind its last one: they come with the next read.
    state.crowded = rows.len() == ROWS_PER_READ;
    state.horizon = rows.last().map(|last| last.0).filter(|_| state.crowded).unwrap_or(until);
    state.soon.extend(rows);
    Ok(())
}

async fn fire(core: &Arc<Core>, due: Vec<Key>) {
    stream::iter(due)
        .for_each_concurrent(FIRING_MAX, |(due, id, timer)| async move {
            metrics::histogram!("conveyor_timer_lag_seconds").record(core.clock.now().since_ms(due) as f64 / 1000.0);
            let fired = core.post_and_wait(id, Event::TimerFired { timer }).await;
            if let Ok(false) = fired {
                drop_row(core, due, id, timer).await;
            }
        })
        .await;
}

/// The event changed nothing: the row is a straggler's.
async fn drop_row(core: &Arc<Core>, due: Timestamp, id: ExecutionId, timer: TimerId) {
    let mut commit = crate::store::Commit::new();
    commit.drop_timer(id, timer, due);
    // A fault is noted by `commit`; the row is tried again after the restart.
    let _ = core.commit(commit).await;
}
