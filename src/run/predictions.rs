//! How long attempts are expected to take, from the moment they are queued to their end. Volatile, like the board.
//!
//! Who knows the work says how long it will run ([`Resource::predict`](super::Resource::predict)); what waits before it
//! is known here: the attempts with a prediction that were queued earlier, and what is left of those that run. Priorities
//! and attempts without a prediction are not in that sum, so a start is told as "about".
//!
//! Invariant: what is here is of attempts that have not ended. A forecast that comes later finds no place.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use conveyor_base::{Attempt, ExecutionId, Timestamp, fault};
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
    /// `None` until somebody knows.
    forecast: Option<Forecast>,
}

impl Entry {
    /// 0 where that is not known.
    fn left_ms(&self, now: Timestamp) -> i64 {
        let passed = self.started_at.map_or(0, |at| now.since_ms(at));
        self.forecast.as_ref().map_or(0, |forecast| (forecast.run_ms - passed).max(0))
    }
}

impl Predictions {
    /// Somebody will say how long the attempt runs. One that is queued again keeps what is known of it.
    fn expect(&self, execution: ExecutionId, attempt: Attempt, state: &Arc<str>, queued_at: Timestamp) {
        let mut all = self.0.lock();
        if all.len() < PREDICTIONS_MAX {
            let new = || Entry { state: state.clone(), queued_at, started_at: None, forecast: None };
            all.entry((execution, attempt)).or_insert_with(new);
        }
    }

    /// How long it will run; nothing, where it has ended meanwhile.
    fn learn(&self, execution: ExecutionId, attempt: Attempt, forecast: Forecast) {
        if let Some(entry) = self.0.lock().get_mut(&(execution, attempt)) {
            entry.forecast = Some(forecast);
        }
    }

    /// The attempt runs now.
    pub fn begin(&self, execution: ExecutionId, attempt: Attempt, at: Timestamp) {
        if let Some(entry) = self.0.lock().get_mut(&(execution, attempt)) {
            entry.started_at = Some(at);
        }
    }

    /// The attempt is over, or known to nobody any more.
    pub fn end(&self, execution: ExecutionId, attempt: Attempt) {
        self.0.lock().remove(&(execution, attempt));
    }

    fn of(&self, execution: ExecutionId, now: Timestamp) -> Vec<Prediction> {
        let all = self.0.lock();
        let range = (execution, Attempt(0))..=(execution, Attempt(u32::MAX));
        let shown = all.range(range).filter_map(|((id, attempt), entry)| {
            let forecast = entry.forecast.as_ref()?;
            let starts_in_ms = match entry.started_at {
                Some(_) => 0,
                None => wait_ms(&all, entry, now),
            };
            Some(Prediction {
                execution: *id,
                attempt: *attempt,
                state: entry.state.clone(),
                queued_at: entry.queued_at,
                started_at: entry.started_at,
                run_ms: forecast.run_ms,
                by: forecast.by,
                starts_in_ms,
                left_ms: starts_in_ms + entry.left_ms(now),
            })
        });
        shown.collect()
    }
}

/// What is ahead, spread over as many as run at once now.
fn wait_ms(all: &BTreeMap<(ExecutionId, Attempt), Entry>, own: &Entry, now: Timestamp) -> i64 {
    let known = || all.values().filter(|entry| entry.forecast.is_some());
    let running = known().filter(|entry| entry.started_at.is_some()).count();
    let ahead = known().filter(|entry| entry.started_at.is_some() || entry.queued_at < own.queued_at);
    ahead.map(|entry| entry.left_ms(now)).sum::<i64>() / i64::try_from(running.max(1)).unwrap_or(1)
}

impl Core {
    /// Asks who will run it how long that will take.
    pub(super) fn predict(self: &Arc<Self>, resource: &Arc<dyn Resource>, id: ExecutionId, task: &RunTask) {
        let (core, attempt) = (Arc::downgrade(self), task.attempt);
        let expected = || -> OnForecast {
            self.board.predictions.expect(id, attempt, &task.state, self.clock.now());
            let core = core.clone();
            Box::new(move |forecast| {
                // The answer may come after the appliance.
                if let Some(core) = core.upgrade() {
                    core.board.predictions.learn(id, attempt, forecast);
                }
            })
        };
        // A prediction is nothing that an attempt could fail for: one that cannot be made is not there.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| resource.predict(task, &expected))) {
            let text = fault::panic_text(&*panic);
            tracing::error!(resource = %task.resource, panic = %text, "how long a task takes could not be predicted");
            self.board.predictions.end(id, attempt);
        }
    }
}

impl Handle {
    /// What is expected of an execution's own attempts that wait or run; nothing where nobody can tell.
    pub fn predictions(&self, execution: ExecutionId) -> Vec<Prediction> {
        self.core().board.predictions.of(execution, self.now())
    }

    /// More is known now than when the attempt was queued: the forecast of one that runs is replaced.
    pub fn update_forecast(&self, execution: ExecutionId, attempt: Attempt, forecast: Forecast) {
        // Under this lock: an attempt leaves the board before its prediction goes, and so cannot leave one behind.
        let mut all = self.core().board.predictions.0.lock();
        let running = self.running_attempts(execution).into_iter().find(|running| running.attempt == attempt);
        let Some(running) = running else { return };
        let queued_at = all.get(&(execution, attempt)).map_or(running.started_at, |entry| entry.queued_at);
        let (state, started_at) = (running.state, Some(running.started_at));
        all.insert((execution, attempt), Entry { state, queued_at, started_at, forecast: Some(forecast) });
    }
}

#[cfg(test)]
mod tests {
    use conveyor_base::{SystemClock, TaskError};
    use conveyor_interpreter::Json;
    use conveyor_interpreter::{Header, Status};
    use conveyor_job::Acceleration;
    use futures::FutureExt as _;
    use futures::future::BoxFuture;

    use super::*;
    use crate::{
        Attempted, Config, Demand, Lanes, NewMachine, Resources, StartRequest, TaskContext, TaskOutcome, start,
    };

    #[test]
    fn a_job_starts_when_what_is_before_it_is_done() {
        let (predictions, id) = (Predictions::default(), |n| ExecutionId(n));
        let put = |n: u128, queued: i64, run_ms: i64| {
            predictions.expect(id(n), Attempt(0), &"Transcode".into(), Timestamp(queued));
            predictions.learn(id(n), Attempt(0), Forecast { run_ms, by: "benchmark" });
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

    #[test]
    fn of_what_has_ended_nothing_is_ahead_of_anybody() {
        let (predictions, at) = (Predictions::default(), Timestamp(0));
        let forecast = || Forecast { run_ms: 10_000, by: "past jobs" };
        let ended = ExecutionId(1);
        predictions.expect(ended, Attempt(0), &"Transcode".into(), at);
        predictions.end(ended, Attempt(0));
        predictions.learn(ended, Attempt(0), forecast());
        assert!(predictions.of(ended, at).is_empty(), "its forecast came too late");
        // One that nobody can tell of yet holds up nobody, and is shown once somebody can; asked for twice, it keeps its place.
        let (waits, next) = (ExecutionId(2), ExecutionId(3));
        predictions.expect(waits, Attempt(0), &"Transcode".into(), Timestamp(1));
        predictions.expect(next, Attempt(0), &"Transcode".into(), Timestamp(2));
        predictions.learn(next, Attempt(0), forecast());
        assert_eq!(predictions.of(next, Timestamp(2)).remove(0).starts_in_ms, 0);
        assert!(predictions.of(waits, Timestamp(2)).is_empty());
        predictions.expect(waits, Attempt(0), &"Transcode".into(), Timestamp(9));
        predictions.learn(waits, Attempt(0), forecast());
        assert_eq!(predictions.of(waits, Timestamp(9)).remove(0).starts_in_ms, 0);
        assert_eq!(predictions.of(next, Timestamp(9)).remove(0).starts_in_ms, 10_000);
    }

    /// Needs a GPU, and knows how long it would run: at once of its first attempt, of its second when the test says so.
    #[derive(Clone, Default)]
    struct Foreseen(Arc<Mutex<Vec<OnForecast>>>);

    impl Resources for Foreseen {
        fn find(&self, _: &str) -> Option<Arc<dyn Resource>> {
            Some(Arc::new(self.clone()))
        }

        fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
            Ok("{}".into())
        }
    }

    impl Resource for Foreseen {
        fn demand(&self, _: &RunTask) -> Option<Demand> {
            Some(Demand::inference(Acceleration::Required))
        }

        fn predict(&self, task: &RunTask, on_forecast: &dyn Fn() -> OnForecast) {
            match task.retry_count {
                0 => on_forecast()(Forecast { run_ms: 10_000, by: "benchmark" }),
                _ => self.0.lock().push(on_forecast()),
            }
        }

        fn run(&self, _: TaskContext) -> BoxFuture<'static, Attempted> {
            async { TaskOutcome::Succeeded("{}".into()).into() }.boxed()
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_attempt_that_no_lane_takes_leaves_no_prediction() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, reader) = conveyor_store::open(conveyor_store::Options::at(dir.path())).unwrap();
        let foreseen = Foreseen::default();
        let config = Config {
            writer,
            reader,
            resources: Arc::new(foreseen.clone()),
            clock: Arc::new(SystemClock),
            lanes: Lanes { cpu: 1, ..Lanes::default() },
            account: "000000000000".into(),
            region: "us-east-1".into(),
            express_record: None,
        };
        let handle = start(config).await.unwrap();
        let retry = r#"[{"ErrorEquals":["Device.Unsupported"],"IntervalSeconds":1,"MaxAttempts":1}]"#;
        let new = |name: &str, express| NewMachine {
            name: name.into(),
            definition: format!(
                r#"{{"StartAt":"A","States":{{"A":{{"Type":"Task","Resource":"arn:aws:states:::x:y","Retry":{retry},"End":true}}}}}}"#
            ),
            role_arn: "arn:aws:iam::000000000000:role/r".into(),
            express,
            ..NewMachine::default()
        };
        let request =
            |machine: &str| StartRequest { machine: machine.into(), input: "{}".into(), ..StartRequest::default() };
        handle.create_machine(new("standard", false)).await.unwrap();
        handle.create_machine(new("express", true)).await.unwrap();
        let id = handle.start(request("standard")).await.unwrap().id;
        assert_eq!(handle.start_sync(request("express")).await.unwrap().status, Status::Failed);
        let failed = || {
            let status = handle.reader().on_this_thread().header(id).unwrap().unwrap().status;
            (status == Status::Failed).then_some(())
        };
        conveyor_testing::until::until("the standard one fails too", failed).await;
        assert!(handle.core().board.predictions.0.lock().is_empty());
        let late = std::mem::take(&mut *foreseen.0.lock());
        assert_eq!(late.len(), 2);
        late.into_iter().for_each(|told| told(Forecast { run_ms: 10_000, by: "past jobs" }));
        assert!(handle.core().board.predictions.0.lock().is_empty(), "what is told too late");
    }
}
