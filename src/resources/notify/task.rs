//! `conveyor:notify` as a Task, and what other Tasks put into the outbox.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Outbox;
use crate::base::TaskError;
use crate::resources::{Adapter, Answer, Answering, Call, fault};

pub const NAMES: &[&str] = &["conveyor:notify"];

pub fn adapter(outbox: &Arc<Outbox>) -> Arc<dyn Adapter> {
    Arc::new(Notifying(outbox.clone()))
}

/// Any JSON, `event` first.
struct Notifying(Arc<Outbox>);

impl Adapter for Notifying {
    fn call<'a>(&'a self, call: &'a Call) -> Answering<'a> {
        Box::pin(async move {
            let mut body = Map::new();
            let event = call.parameters.get("event").cloned().unwrap_or_else(|| json!("notification"));
            body.insert("event".to_owned(), event);
            if let Some(fields) = call.parameters.as_object() {
                body.extend(fields.iter().filter(|(k, _)| *k != "event").map(|(k, v)| (k.clone(), v.clone())));
            }
            let id = id_of(call, "");
            send(&self.0, call, vec![(id.clone(), body)]).await?;
            Ok(Answer::done(json!({ "id": id, "targets": self.0.targets() })))
        })
    }
}

/// The id of a notification: the same when the same attempt is issued again. `part` tells several of one attempt.
pub(in crate::resources) fn id_of(call: &Call, part: &str) -> String {
    let seed = format!("{}/{}{part}", call.execution, call.task.attempt);
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, seed.as_bytes()).to_string()
}

/// Stores what a Task has to tell, all of it or nothing.
pub(in crate::resources) async fn send(
    outbox: &Outbox,
    call: &Call,
    notifications: Vec<(String, Map<String, Value>)>,
) -> Result<(), TaskError> {
    let now = call.handle.now().to_string();
    let bodies = notifications.into_iter().map(|(id, mut body)| {
        body.insert("id".to_owned(), json!(id));
        body.insert("at".to_owned(), json!(now));
        body.entry("execution").or_insert_with(|| json!(call.execution_arn));
        Value::Object(body)
    });
    outbox.send(&call.handle, bodies).await.map_err(|e| fault(&e))
}
