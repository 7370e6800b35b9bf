//! Timers: one sleeper over the store's rows, which are ordered by (due, execution, timer).
//!
//! Only the timers of the next minutes are in memory; the rest are rows, and cost neither memory nor a look.
//! A timer that fired stays a row until its execution's step has consumed it, so a crash in between fires it again.
//!
//! Rows are read while timers are set and cleared. Invariant: a timer that is set meanwhile goes straight into memory
//! where the read would have to find it, and one that is cleared meanwhile is taken out of what the read found.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::sync::Arc;

use conveyor_base::{ExecutionId, Fault, TimerId, Timestamp};
use futures::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Duration;

use super::core::Core;

/// How far ahead timers are held in memory.
const HORIZON_MS: i64 = 120_000;
/// How long the clock is not looked at, at most: it may be set while this sleeps, and sleep goes by another clock.
const SLEEP_MS_MAX: i64 = 30_000;
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
    reading: Option<Reading>,
}

/// A look at the rows that is under way.
struct Reading {
    /// It reads what is due until then.
    until: Timestamp,
    /// Timers that went meanwhile: it may have seen their rows.
    cleared: HashSet<Key>,
}

impl Timers {
    pub fn new() -> Timers {
        Timers {
            state: Mutex::new(State {
                soon: BTreeSet::new(),
                horizon: Timestamp(i64::MIN),
                crowded: false,
                reading: None,
            }),
            changed: Notify::new(),
        }
    }

    /// The row is durable already.
    pub fn set(&self, due: Timestamp, id: ExecutionId, timer: TimerId) {
        let (mut state, key) = (self.state.lock(), (due, id, timer));
        let mut is_read = false;
        if let Some(reading) = &mut state.reading {
            reading.cleared.remove(&key);
            is_read = due <= reading.until;
        }
        if is_read || due < state.horizon {
            state.soon.insert(key);
            if state.soon.first() == Some(&key) {
                self.changed.notify_one();
            }
        }
    }

    /// The row is gone already.
    pub fn clear(&self, due: Timestamp, id: ExecutionId, timer: TimerId) {
        let (mut state, key) = (self.state.lock(), (due, id, timer));
        state.soon.remove(&key);
        if let Some(reading) = &mut state.reading {
            reading.cleared.insert(key);
        }
    }

    /// Lets the sleeper look at the clock, and at whether the appliance ends.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Brings the next minutes of rows into memory, when half of what is there has passed. `read` gives the rows that
    /// are due until a moment, the soonest first, and no more than [`ROWS_PER_READ`].
    async fn load<F>(&self, now: Timestamp, read: impl FnOnce(Timestamp) -> F) -> Result<(), Fault>
    where
        F: Future<Output = Result<Vec<Key>, Fault>>,
    {
        let Some(until) = self.begin_reading(now) else { return Ok(()) };
        let rows = read(until).await;
        let mut state = self.state.lock();
        let cleared = state.reading.take().map(|reading| reading.cleared).unwrap_or_default();
        let rows = rows?;
        // A full read may have left rows behind its last one: they come with the next read.
        state.crowded = rows.len() == ROWS_PER_READ;
        state.horizon = rows.last().map(|last| last.0).filter(|_| state.crowded).unwrap_or(until);
        state.soon.extend(rows.into_iter().filter(|row| !cleared.contains(row)));
        Ok(())
    }

    /// Until when rows are to be read; `None` while there are enough.
    fn begin_reading(&self, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.state.lock();
        let enough =
            if state.crowded { !state.soon.is_empty() } else { state.horizon.0 > now.plus_ms(HORIZON_MS / 2).0 };
        if enough {
            return None;
        }
        let until = now.plus_ms(HORIZON_MS);
        state.reading = Some(Reading { until, cleared: HashSet::new() });
        Some(until)
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
        let read = |until| core.reader.blocking(move |rows| rows.timers(until, ROWS_PER_READ));
        core.timers.load(now, read).await?;
        let due = core.timers.take_due(now);
        if !due.is_empty() {
            fire(&core, due).await;
            continue;
        }
        let wait_ms = core.timers.next_look().since_ms(core.clock.now()).clamp(0, SLEEP_MS_MAX) as u64;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            () = core.timers.changed.notified() => {}
        }
    }
    Ok(())
}

async fn fire(core: &Arc<Core>, due: Vec<Key>) {
    stream::iter(due)
        .for_each_concurrent(FIRING_MAX, |(due, id, timer)| async move {
            metrics::histogram!("conveyor_timer_lag_seconds").record(core.clock.now().since_ms(due) as f64 / 1000.0);
            match core.reader.timer(due, id, timer) {
                Ok(Some(of)) => {
                    if let Ok(false) = core.fire(id, timer, of).await {
                        drop_row(core, due, id, timer).await;
                    }
                }
                // Its execution does not wait for it any more.
                Ok(None) => {}
                Err(fault) => core.note(&fault),
            }
        })
        .await;
}

/// The event changed nothing: the row is a straggler's.
async fn drop_row(core: &Arc<Core>, due: Timestamp, id: ExecutionId, timer: TimerId) {
    let mut commit = conveyor_store::Commit::new();
    commit.drop_timer(id, timer, due);
    // A fault is noted by `commit`; the row is tried again after the restart.
    let _ = core.commit(commit).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timer_that_changes_while_rows_are_read_is_neither_lost_nor_raised_from_the_dead() {
        let key = |due| (Timestamp(due), ExecutionId(due as u128), TimerId(0));
        let timers = Timers::new();
        let set = |due| timers.set(key(due).0, key(due).1, key(due).2);
        let clear = |due| timers.clear(key(due).0, key(due).1, key(due).2);
        timers
            .load(Timestamp(0), async |until: Timestamp| {
                assert_eq!(until, Timestamp(HORIZON_MS));
                // Committed after the read saw the store: it has 10, 20 and 30, and neither 15 nor 40.
                set(15);
                clear(20);
                set(40);
                clear(40);
                clear(30);
                set(30);
                set(HORIZON_MS);
                Ok(vec![key(10), key(20), key(30)])
            })
            .await
            .unwrap();
        // Beyond what was read: the rows keep it until the next read.
        set(HORIZON_MS + 1);
        assert_eq!(timers.take_due(Timestamp::MAX), [10, 15, 30, HORIZON_MS].map(key));

        // A read that fails leaves nothing behind that the next one would go by.
        let later = Timestamp(HORIZON_MS);
        let failed = timers.load(later, async |_| Err(Fault::fatal_plain("no disk"))).await;
        failed.unwrap_err();
        clear(50);
        timers.load(later, async |_| Ok(vec![key(50)])).await.unwrap();
        assert_eq!(timers.take_due(Timestamp::MAX), [key(50)]);
    }
}
