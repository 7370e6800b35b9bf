//! Activities: tasks that workers fetch, and workers that wait for tasks.
//!
//! Volatile: offers are outstanding rows and are made again after a crash.

use std::collections::{HashMap, VecDeque};
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

#[derive(Default)]
pub(super) struct Activities(Mutex<HashMap<String, Arc<Offers>>>);

#[derive(Default)]
struct Offers {
    queue: Mutex<VecDeque<(ExecutionId, Box<RunTask>)>>,
    offered: Notify,
}

impl Activities {
    fn of(&self, name: &str) -> Arc<Offers> {
        self.0.lock().entry(name.to_owned()).or_default().clone()
    }

    pub fn offer(&self, id: ExecutionId, task: Box<RunTask>) {
        let offers = self.of(name_of(&task.resource));
        offers.queue.lock().push_back((id, task));
        offers.offered.notify_one();
    }

    pub fn withdraw(&self, id: ExecutionId, attempt: Attempt) {
        for offers in self.0.lock().values() {
            offers.queue.lock().retain(|(other, task)| (*other, task.attempt) != (id, attempt));
        }
    }

    /// The next task of an activity, as soon as there is one.
    pub async fn take(&self, name: &str) -> (ExecutionId, Box<RunTask>) {
        let offers = self.of(name);
        loop {
            let offered = offers.offered.notified();
            let next = {
                let mut queue = offers.queue.lock();
                let next = queue.pop_front();
                if !queue.is_empty() {
                    offers.offered.notify_one();
                }
                next
            };
            match next {
                Some(next) => return next,
                None => offered.await,
            }
        }
    }
}
