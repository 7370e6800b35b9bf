//! Activities: tasks that workers fetch, and workers that wait for tasks.
//!
//! Volatile: offers are outstanding rows and are made again after a crash.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use conveyor_base::{Attempt, ExecutionId, TaskToken};
use conveyor_interpreter::{Json, RunTask};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What an activity's worker got to do.
#[derive(Clone, Debug)]
pub struct ActivityTask {
    pub token: TaskToken,
    pub input: Json,
}

/// `arn:aws:states:REGION:ACCOUNT:activity:NAME`
pub(super) fn is_activity(resource: &str) -> bool {
    resource.starts_with("arn:")
        && resource.split(':').nth(2) == Some("states")
        && resource.split(':').nth(5) == Some("activity")
}

fn name_of(resource: &str) -> &str {
    resource.splitn(7, ':').nth(6).unwrap_or(resource)
}

/// The tasks that wait for workers.
#[derive(Default)]
pub(super) struct Activities(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    activities: HashMap<String, Offers>,
    /// Where an attempt waits: its activity, and its number there. Every attempt that ends is looked for, of whatever
    /// resource it is.
    places: HashMap<(ExecutionId, Attempt), (Arc<str>, u64)>,
    /// The number of the newest offer.
    newest: u64,
}

/// What waits for the workers of one activity, the first first.
#[derive(Default)]
struct Offers {
    queue: BTreeMap<u64, (ExecutionId, Box<RunTask>)>,
    offered: Arc<Notify>,
}

impl Activities {
    /// Queues a task for the workers of its activity. One that is offered again while it waits, as when recovery reads what
    /// was just offered, keeps its place.
    pub fn offer(&self, id: ExecutionId, task: Box<RunTask>) {
        let name: Arc<str> = name_of(&task.resource).into();
        let mut waiting = self.0.lock();
        let number = waiting.newest + 1;
        let Entry::Vacant(place) = waiting.places.entry((id, task.attempt)) else { return };
        place.insert((name.clone(), number));
        waiting.newest = number;
        let offers = waiting.of(&name);
        offers.queue.insert(number, (id, task));
        offers.offered.notify_one();
    }

    /// Takes back the offer of an attempt that is over, if there is one.
    pub fn withdraw(&self, id: ExecutionId, attempt: Attempt) {
        let mut waiting = self.0.lock();
        if let Some((name, number)) = waiting.places.remove(&(id, attempt)) {
            waiting.of(&name).queue.remove(&number);
        }
    }

    /// The next task of an activity, as soon as there is one.
    pub async fn take(&self, name: &str) -> (ExecutionId, Box<RunTask>) {
        let offered = self.0.lock().of(name).offered.clone();
        loop {
            let notified = offered.notified();
            let next = self.0.lock().take(name);
            match next {
                Some(next) => return next,
                None => notified.await,
            }
        }
    }
}

impl Waiting {
    fn of(&mut self, name: &str) -> &mut Offers {
        self.activities.entry(name.to_owned()).or_default()
    }

    fn take(&mut self, name: &str) -> Option<(ExecutionId, Box<RunTask>)> {
        let offers = self.of(name);
        let (_, (id, task)) = offers.queue.pop_first()?;
        // One call wakes one worker, and there may have been several before anybody waited.
        if !offers.queue.is_empty() {
            offers.offered.notify_one();
        }
        self.places.remove(&(id, task.attempt));
        Some((id, task))
    }
}

#[cfg(test)]
mod tests {
    use conveyor_base::{BranchId, Timestamp};
    use futures::FutureExt as _;

    use super::*;

    fn task(activity: &str, attempt: u32) -> Box<RunTask> {
        Box::new(RunTask {
            attempt: Attempt(attempt),
            branch: BranchId(0),
            state: "Ask".into(),
            resource: format!("arn:aws:states:us-east-1:000000000000:activity:{activity}"),
            parameters: "{}".into(),
            token: None,
            timeout_ms: None,
            heartbeat_ms: None,
            retry_count: 0,
            scheduled_at: Timestamp(0),
        })
    }

    #[test]
    fn workers_get_what_waits_in_order_and_nothing_that_was_withdrawn() {
        let (activities, id) = (Activities::default(), ExecutionId(7));
        let take = |name: &str| activities.take(name).now_or_never().map(|(_, task)| task.attempt.0);
        for (name, attempt) in [("ask", 1), ("ask", 2), ("tell", 3), ("ask", 4), ("ask", 1)] {
            activities.offer(id, task(name, attempt));
        }
        activities.withdraw(id, Attempt(2));
        activities.withdraw(ExecutionId(8), Attempt(4));
        assert_eq!([take("ask"), take("ask"), take("ask"), take("tell")], [Some(1), Some(4), None, Some(3)]);
        activities.offer(id, task("ask", 1));
        assert_eq!(take("ask"), Some(1), "one that comes back is there again");
        let waiting = activities.0.lock();
        assert!(waiting.places.is_empty(), "of what was taken and withdrawn nothing is kept: {:?}", waiting.places);
    }

    #[tokio::test]
    async fn each_worker_that_waits_gets_one_of_what_comes() {
        let activities = Arc::new(Activities::default());
        let waits = |_| {
            let activities = activities.clone();
            tokio::spawn(async move { activities.take("ask").await.1.attempt.0 })
        };
        let workers: Vec<_> = (0..3).map(waits).collect();
        tokio::task::yield_now().await;
        (0..3).for_each(|attempt| activities.offer(ExecutionId(7), task("ask", attempt)));
        let mut got = Vec::new();
        for worker in workers {
            got.push(worker.await.unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2]);
    }
}
