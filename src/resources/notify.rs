//! `conveyor:notify` as a Task, and what other Tasks have the notifications' service store.

use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_services::notifications::Notifications;
use serde_json::{Map, Value, json};

use super::{Adapter, Call, CallFuture, CallOutcome, Ended};

pub const NAMES: &[&str] = &["conveyor:notify"];

pub fn adapter(notifications: &Notifications) -> Arc<dyn Adapter> {
    Arc::new(Notifying(notifications.clone()))
}

/// Any JSON, `event` first.
struct Notifying(Notifications);

impl Adapter for Notifying {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(async move {
            let mut body = Map::new();
            let event = call.parameters.get("event").cloned().unwrap_or_else(|| json!("notification"));
            body.insert("event".to_owned(), event);
            if let Some(fields) = call.parameters.as_object() {
                body.extend(fields.iter().filter(|(k, _)| *k != "event").map(|(k, v)| (k.clone(), v.clone())));
            }
            let id = id_of(call, "");
            let answer = json!({ "id": id, "targets": self.0.targets() });
            Ok(publish(&self.0, call, vec![(id, body)], Ok(Ended::Done(answer))))
        })
    }
}

/// The id of a notification: the same when the same attempt is issued again. `part` tells several of one attempt.
pub(super) fn id_of(call: &Call, part: &str) -> String {
    let seed = format!("{}/{}{part}", call.execution, call.task.attempt);
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, seed.as_bytes()).to_string()
}

/// Has what a Task has to tell stored, all of it or nothing, with the Task's end.
pub(super) fn publish(
    notifications: &Notifications,
    call: &Call,
    told: Vec<(String, Map<String, Value>)>,
    ended: Result<Ended, TaskError>,
) -> CallOutcome {
    let now = call.handle.wall().to_string();
    let body = |(id, mut body): (String, Map<String, Value>)| {
        body.insert("id".to_owned(), json!(id));
        body.insert("at".to_owned(), json!(now));
        body.entry("execution").or_insert_with(|| json!(call.execution_arn));
        Value::Object(body)
    };
    let bodies = told.into_iter().map(body).collect();
    let notifications = notifications.clone();
    CallOutcome::settle(move |attempt| notifications.publish(bodies, attempt.into_requester(move |()| ended)))
}
