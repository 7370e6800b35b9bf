//! Topics: SNS's `publish` and `publishBatch`, as notifications. A message is one notification for each of its targets.

use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_services::notifications::Notifications;
use serde_json::{Map, Value, json};

use super::aws::{self, Integration};
use super::forward::{self, Fallback};
use super::notify;
use super::{Adapter, Call, CallFuture, CallOutcome, Ended};

/// Longest subject, and most entries of a batch (SNS's own).
const SUBJECT_CHARS_MAX: usize = 100;
const BATCH_MAX: usize = 10;
/// Largest message with its attributes, in bytes.
const MESSAGE_BYTES_MAX: usize = 262_144;

/// SNS's error: its code and its words.
type SnsError = (&'static str, String);

/// The topic that a request is for: by ARN or name, under either of SNS's names for it.
fn topic(p: &Value) -> &str {
    p.get("TopicArn").or(p.get("TargetArn")).and_then(Value::as_str).unwrap_or_default()
}

pub const NAMES: &[&str] = &[
    "sns:publish",
    "sns:publish.waitForTaskToken",
    "aws-sdk:sns:publish",
    "aws-sdk:sns:publish.waitForTaskToken",
    "aws-sdk:sns:publishBatch",
];

pub fn adapter(name: &str, notifications: &Notifications, fallback: &Fallback) -> Arc<dyn Adapter> {
    let (integration, operation) = aws::integration(name);
    let (notifications, fallback) = (notifications.clone(), fallback.clone());
    Arc::new(Publishing { batch: operation == "publishBatch", integration, notifications, fallback })
}

struct Publishing {
    batch: bool,
    integration: Integration,
    notifications: Notifications,
    fallback: Fallback,
}

impl Adapter for Publishing {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(async {
            let is_own = self.notifications.has_topic(topic(&call.parameters));
            match self.fallback.answer(is_own, call).await {
                Some(answer) => answer,
                None if self.batch => self.publish_batch(call),
                None => self.publish(call),
            }
        })
    }
}

impl Publishing {
    /// One message.
    fn publish(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let id = aws::request_id(call);
        let topic = topic(&call.parameters);
        let refused = |(code, message): SnsError| forward::refused("sns", self.integration, code, &message, 400, &id);
        let body = notification(&call.parameters, topic).map_err(refused)?;
        let message_id = notify::id_of(call, "");
        let mut answer = json!({ "MessageId": message_id });
        if topic.ends_with(".fifo") {
            answer["SequenceNumber"] = json!(format!("{:020}", call.handle.now().0.unsigned_abs()));
        }
        let answer = match self.integration {
            Integration::Sdk => answer,
            Integration::Optimised => {
                aws::with_metadata(answer, &id, "text/xml", call.handle.wall(), aws::HeaderStyle::Plain)
            }
        };
        Ok(notify::publish(&self.notifications, call, vec![(message_id, body)], Ok(Ended::Done(answer))))
    }

    /// Several messages: what is wrong with one does not keep the others.
    fn publish_batch(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let (p, id) = (&call.parameters, aws::request_id(call));
        let refused = |code, message: String| forward::refused("sns", self.integration, code, &message, 400, &id);
        let entries = p["PublishBatchRequestEntries"].as_array().map(Vec::as_slice).unwrap_or_default();
        if entries.is_empty() {
            return Err(refused("EmptyBatchRequest", "The batch request doesn't contain any entries.".to_owned()));
        }
        if entries.len() > BATCH_MAX {
            let what = "The batch request contains more entries than permissible.".to_owned();
            return Err(refused("TooManyEntriesInBatchRequest", what));
        }
        let (mut seen, mut bodies) = (std::collections::BTreeSet::new(), Vec::new());
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry_id = entry["Id"].as_str().unwrap_or_default();
            if !seen.insert(entry_id) {
                let what = "Two or more batch entries in the request have the same Id.".to_owned();
                return Err(refused("BatchEntryIdsNotDistinct", what));
            }
            match notification(entry, topic(p)) {
                Ok(body) => {
                    let message_id = notify::id_of(call, &format!("/{entry_id}"));
                    successful.push(json!({ "Id": entry_id, "MessageId": message_id }));
                    bodies.push((message_id, body));
                }
                Err((code, message)) => {
                    failed.push(json!({ "Id": entry_id, "Code": code, "Message": message, "SenderFault": true }));
                }
            }
        }
        let answer = json!({ "Successful": successful, "Failed": failed });
        Ok(notify::publish(&self.notifications, call, bodies, Ok(Ended::Done(answer))))
    }
}

/// What the notification's targets get.
fn notification(p: &Value, topic: &str) -> Result<Map<String, Value>, SnsError> {
    let invalid = |what: &str| ("InvalidParameter", format!("Invalid parameter: {what}"));
    if topic.is_empty() && p.get("PhoneNumber").is_none() {
        return Err(invalid("TopicArn or TargetArn Reason: no value for required parameter"));
    }
    let given = p.get("Message").filter(|message| !message.is_null() && **message != "");
    let mut message = given.cloned().ok_or_else(|| invalid("Empty message"))?;
    if p["MessageStructure"] == "json" {
        // Each protocol may have a text of its own; the box's targets are HTTP and a file.
        let texts: Value = match &message {
            Value::String(text) => serde_json::from_str(text)
                .map_err(|_| invalid("Message Structure - JSON message body failed to parse"))?,
            json => json.clone(),
        };
        let text = ["http", "https", "default"].iter().find_map(|protocol| texts.get(protocol));
        let whole = texts.get("default").and(text);
        message = whole.cloned().ok_or_else(|| invalid("Message Structure - No default entry in JSON message body"))?;
    }
    if message.to_string().len() + p.get("MessageAttributes").map_or(0, |a| a.to_string().len()) > MESSAGE_BYTES_MAX {
        return Err(invalid("Message too long"));
    }
    let subject = p.get("Subject").and_then(Value::as_str);
    let printable = |subject: &str| !subject.chars().any(char::is_control) && !subject.is_empty();
    if subject.is_some_and(|subject| subject.chars().count() > SUBJECT_CHARS_MAX || !printable(subject)) {
        return Err(invalid("Subject"));
    }
    for (name, attribute) in p.get("MessageAttributes").and_then(Value::as_object).into_iter().flatten() {
        let kind = attribute["DataType"].as_str().unwrap_or_default();
        let known = ["String", "Number", "Binary"].iter().any(|known| kind.split('.').next() == Some(known));
        if !known || (attribute.get("StringValue").is_none() && attribute.get("BinaryValue").is_none()) {
            let what = format!("The message attribute '{name}' has no value of a type that SNS has");
            return Err(("ParameterValueInvalid", what));
        }
    }
    let mut body = Map::new();
    body.insert("event".to_owned(), json!("sns.published"));
    body.insert("message".to_owned(), message);
    if !topic.is_empty() {
        body.insert("topicArn".to_owned(), json!(topic));
    }
    for (key, name) in [
        ("subject", "Subject"),
        ("attributes", "MessageAttributes"),
        ("messageGroupId", "MessageGroupId"),
        ("phoneNumber", "PhoneNumber"),
    ] {
        if let Some(value) = p.get(name) {
            body.insert(key.to_owned(), value.clone());
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_as_sns_takes_them() {
        let one = |p: Value| notification(&p, "arn:aws:sns:us-east-1:000000000000:jobs");
        let plain = one(
            json!({"Message": "m", "Subject": "s", "MessageAttributes": {"a": {"DataType": "String", "StringValue": "x"}}}),
        );
        let plain = plain.unwrap();
        assert_eq!(
            (&plain["message"], &plain["subject"], &plain["attributes"]["a"]["StringValue"]),
            (&json!("m"), &json!("s"), &json!("x"))
        );
        let structured =
            json!({"MessageStructure": "json", "Message": "{\"default\": \"d\", \"http\": \"h\", \"sms\": \"s\"}"});
        assert_eq!(one(structured).unwrap()["message"], "h");
        for (p, word) in [
            (json!({}), "Empty message"),
            (json!({"Message": "{\"http\": \"h\"}", "MessageStructure": "json"}), "No default entry"),
            (json!({"Message": "{", "MessageStructure": "json"}), "failed to parse"),
            (json!({"Message": "m", "Subject": "x".repeat(101)}), "Subject"),
            (json!({"Message": "m", "MessageAttributes": {"a": {"DataType": "Date"}}}), "'a'"),
        ] {
            let (_, message) = one(p.clone()).unwrap_err();
            assert!(message.contains(word), "{p}: {message}");
        }
    }
}
