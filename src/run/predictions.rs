//! How long attempts are expected to take, from the moment they are queued to their end. Volatile, like the board.
//!
//! Who knows the work says how long it will run ([`Resource::predict`](super::Resource::predict)); what waits before it
//! is known here: the attempts with a prediction that were queued earlier, and what is left of those that run. Priorities
//! and attempts without a prediction are not in that sum, so a start is told as "about".

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{Attempt, ExecutionId, Timestamp};
use conveyor_interpreter::RunTask;
use parking_lot::Mutex;
use serde::Serialize;

use super::Handle;
use super::core::Core;
use super::resource::Resource;

/// Longer queues are told of in part.
const PREDICTIONS_MAX: usize = 10_000;

/// What is expected of an attempt once it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    pub run_ms: i64,
    /// What it follows from, in a few words: `benchmark`, `past jobs`.
    pub by: &'static str,
}

/// Called with a forecast, at once or when it is known.
pub type OnForecast = Box<dyn FnOnce(Forecast) + Send>;

/// A forecast with its place in the queue, as screens show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    #[serde(serialize_with = "as_text")]
    pub execution: ExecutionId,
    #[serde(skip)]
    pub attempt: Attempt,
    pub state: Arc<str>,
    pub queued_at: Timestamp,
    pub started_at: Option<Timestamp>,
    /// From its start to its end.
    pub run_ms: i64,
    pub by: &'static str,
    /// About; 0 for what runs.
    pub starts_in_ms: i64,
    /// About, until it has ended.
    pub left_ms: i64,
}

fn as_text<S: serde::Serializer>(id: &ExecutionId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

#[derive(Default)]
pub(super) struct Predictions(Mutex<BTreeMap<(ExecutionId, Attempt), Entry>>);

struct Entry {
    state: Arc<str>,
    queued_at: Timestamp,
    started_at: Option<Timestamp>,
    forecast: Forecast,
}

impl Entry {
    fn left_ms(&self, now: Timestamp) -> i64 {
        let passed = self.started_at.map_or(0, |at| now.since_ms(at));
        (self.forecast.run_ms - passed).max(0)
    }
}

impl Predictions {
    /// The attempt runs now.
    pub fn begin(&self, execution: ExecutionId, attempt: Attempt, at: Timestamp) {
        if let Some(entry) = self.0.lock().get_mut(&(execution, attempt)) {
            entry.started_at = Some(at);
        }
    }

    pub fn end(&self, execution: ExecutionId, attempt: Attempt) {
        self.0.lock().remove(&(execution, attempt));
    }

    fn of(&self, execution: ExecutionId, now: Timestamp) -> Vec<Prediction> {
        let all = self.0.lock();
        let range = (execution, Attempt(0))..=(execution, Attempt(u32::MAX));
        let shown = all.range(range).map(|((id, attempt), entry)| {
            let starts_in_ms = match entry.started_at {
                Some(_) => 0,
                None => wait_ms(&all, entry, now),
            };
            Prediction {
                execution: *id,
                attempt: *attempt,
                state: entry.state.clone(),
                queued_at: entry.queued_at,
                started_at: entry.started_at,
                run_ms: entry.forecast.run_ms,
                by: entry.forecast.by,
                starts_in_ms,
                left_ms: starts_in_ms + entry.left_ms(now),
            }
        });
        shown.collect()
    }
}

/// What is ahead, spread over as many as run at once now.
fn wait_ms(all: &BTreeMap<(ExecutionId, Attempt), Entry>, own: &Entry, now: Timestamp) -> i64 {
    let running = all.values().filter(|entry| entry.started_at.is_some()).count();
    let ahead = all.values().filter(|entry| entry.started_at.is_some() || entry.queued_at < own.queued_at);
    ahead.map(|entry| entry.left_ms(now)).sum::<i64>() / i64::try_from(running.max(1)).unwrap_or(1)
}

impl Core {
    /// Asks who will run it how long that will take.
    pub(super) fn predict(self: &Arc<Self>, resource: &Arc<dyn Resource>, id: ExecutionId, task: &RunTask) {
        let (core, attempt, state) = (Arc::downgrade(self), task.attempt, task.state.clone());
        resource.predict(task, &|| {
            let (core, state) = (core.clone(), state.clone());
            Box::new(move |forecast| {
                // The answer may come late: after the appliance, or after the attempt.
                let Some(core) = core.upgrade() else { return };
                let works = core.board.running(id).into_iter().find(|running| running.attempt == attempt);
                let started_at = works.map(|running| running.started_at);
                let entry = Entry { state, queued_at: core.clock.now(), started_at, forecast };
                let mut all = core.board.predictions.0.lock();
                if all.len() < PREDICTIONS_MAX {
                    all.insert((id, attempt), entry);
                }
            })
        });
    }
}

impl Handle {
    /// What is expected of an execution's own attempts that wait or run; nothing where nobody can tell.
    pub fn predictions(&self, execution: ExecutionId) -> Vec<Prediction> {
        self.core().board.predictions.of(execution, self.now())
    }

    /// More is known now than when the attempt was queued: the forecast of one that runs is replaced.
    pub fn update_forecast(&self, execution: ExecutionId, attempt: Attempt, forecast: Forecast) {
        let running = self.running_attempts(execution).into_iter().find(|running| running.attempt == attempt);
        let Some(running) = running else { return };
        let mut all = self.core().board.predictions.0.lock();
        let queued_at = all.get(&(execution, attempt)).map_or(running.started_at, |entry| entry.queued_at);
        let entry = Entry { state: running.state, queued_at, started_at: Some(running.started_at), forecast };
        all.insert((execution, attempt), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_starts_when_what_is_before_it_is_done() {
        let (predictions, id) = (Predictions::default(), |n| ExecutionId(n));
        let put = |n: u128, queued: i64, run_ms: i64| {
            let forecast = Forecast { run_ms, by: "benchmark" };
            let entry = Entry { state: "Transcode".into(), queued_at: Timestamp(queued), started_at: None, forecast };
            predictions.0.lock().insert((id(n), Attempt(0)), entry);
        };
        put(1, 0, 10_000);
        put(2, 1, 20_000);
        put(3, 2, 5_000);
        predictions.begin(id(1), Attempt(0), Timestamp(1_000));
        let now = Timestamp(4_000);
        let of = |n| predictions.of(id(n), now).remove(0);
        assert_eq!((of(1).starts_in_ms, of(1).left_ms), (0, 7_000));
        assert_eq!((of(2).starts_in_ms, of(2).left_ms), (7_000, 27_000));
        assert_eq!((of(3).starts_in_ms, of(3).left_ms), (27_000, 32_000));
        // Later than expected, it is about to end, not before its time.
        assert_eq!(predictions.of(id(1), Timestamp(60_000)).remove(0).left_ms, 0);
        predictions.end(id(1), Attempt(0));
        assert!(predictions.of(id(1), now).is_empty());
        assert_eq!(of(2).starts_in_ms, 0);
    }
}
