//! SQS's operations on the queues, as both Tasks and clients outside call them: fields of the API in, its answer out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::time::Duration;

use super::message::attributes_md5;
use super::task::OPERATIONS;
use super::{BY_TASK, NewMessage, Queue, Queues, Received, md5_hex, name_of, receipt_of};
use crate::base::{Fault, fault};
use crate::run::Handle;

/// Most entries of a batch, and most messages of one receive.
const BATCH_MAX: usize = 10;
const ATTRIBUTES_MAX: usize = 10;

/// SQS's refusal: the exception of its JSON protocol, the older code that clients still go by, and the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub query_code: &'static str,
    pub message: String,
    pub status: u16,
}

impl Refusal {
    fn new(code: &'static str, query_code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, query_code, message: message.into(), status: 400 }
    }

    pub fn unknown(operation: &str) -> Refusal {
        let message = format!("The operation '{operation}' is not supported by this box");
        Refusal::new("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", message)
    }

    fn no_queue() -> Refusal {
        let message = "The specified queue does not exist.";
        Refusal::new("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", message)
    }

    fn value(message: impl Into<String>) -> Refusal {
        Refusal::new("InvalidParameterValueException", "InvalidParameterValue", message)
    }

    fn missing(name: &str) -> Refusal {
        let message = format!("The request must contain the parameter {name}.");
        Refusal::new("MissingRequiredParameterException", "MissingParameter", message)
    }
}

impl From<Fault> for Refusal {
    fn from(from: Fault) -> Refusal {
        let message = fault::chain(&from);
        Refusal { status: 500, ..Refusal::new("InternalFailure", "InternalFailure", message) }
    }
}

/// An operation by its name in either case; `None` for what SQS does not have or this box does not do.
pub fn operation(name: &str) -> Option<&'static str> {
    let name = crate::aws::pascal(name);
    OPERATIONS.iter().copied().find(|known| *known == name)
}

/// One call. `seed` stands for the Task's attempt, which sends a message once however often it is issued.
pub async fn call(
    queues: &Queues,
    handle: &Handle,
    operation: &str,
    p: &Value,
    seed: Option<&str>,
) -> Result<Value, Refusal> {
    match operation {
        "GetQueueUrl" => {
            let name = p["QueueName"].as_str().ok_or_else(|| Refusal::missing("QueueName"))?;
            let (name, _) = queues.queues.get_key_value(name).ok_or_else(Refusal::no_queue)?;
            return Ok(json!({ "QueueUrl": queues.url(name) }));
        }
        "ListQueues" => {
            let prefix = p["QueueNamePrefix"].as_str().unwrap_or_default();
            let urls: Vec<String> =
                queues.names().filter(|name| name.starts_with(prefix)).map(|name| queues.url(name)).collect();
            return Ok(if urls.is_empty() { json!({}) } else { json!({ "QueueUrls": urls }) });
        }
        "CreateQueue" => return create(queues, p),
        _ => {}
    }
    let url = p["QueueUrl"].as_str().ok_or_else(|| Refusal::missing("QueueUrl"))?;
    let (name, queue) = queues.queues.get_key_value(name_of(url)).ok_or_else(Refusal::no_queue)?;
    let at = At { queues, handle, name, queue };
    match operation {
        "SendMessage" => at.send(p, seed).await,
        "SendMessageBatch" => at.send_batch(p, seed).await,
        "ReceiveMessage" => at.receive(p).await,
        "DeleteMessage" => at.delete(p).await,
        "DeleteMessageBatch" => at.delete_batch(p).await,
        "ChangeMessageVisibility" => at.change_visibility(p).await.map(|()| json!({})),
        "ChangeMessageVisibilityBatch" => at.change_visibility_batch(p).await,
        "GetQueueAttributes" => Ok(at.attributes(p)),
        "ListQueueTags" => Ok(json!({})),
        "ListDeadLetterSourceQueues" => {
            let sources = queues.queues.iter().filter(|(_, q)| q.settings.dead_letter.as_deref() == Some(name));
            let urls: Vec<String> = sources.map(|(source, _)| queues.url(source)).collect();
            Ok(json!({ "queueUrls": urls }))
        }
        "PurgeQueue" => {
            queues.purge(handle, name).await?;
            Ok(json!({}))
        }
        _ => Err(configured("its attributes are set", name)),
    }
}

fn configured(what: &str, name: &str) -> Refusal {
    let message =
        format!("Queues of this box are configured: {what} in the table [queues.{name}] of its configuration.");
    Refusal::new("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", message)
}

/// A queue that is there is found, as SQS does it; a new one is a matter of the configuration.
fn create(queues: &Queues, p: &Value) -> Result<Value, Refusal> {
    let name = p["QueueName"].as_str().ok_or_else(|| Refusal::missing("QueueName"))?;
    match queues.has(name) {
        true => Ok(json!({ "QueueUrl": queues.url(name) })),
        false => Err(configured("a queue is made", name)),
    }
}

/// A queue, with what its operations need.
struct At<'a> {
    queues: &'a Queues,
    handle: &'a Handle,
    name: &'a str,
    queue: &'a Queue,
}

impl At<'_> {
    fn is_fifo(&self) -> bool {
        self.name.ends_with(".fifo")
    }

    async fn send(&self, p: &Value, seed: Option<&str>) -> Result<Value, Refusal> {
        let message = self.message(p, seed)?;
        let sent = self.queues.send_all(self.handle, self.name, vec![message.clone()]).await?;
        let sent = sent.first().ok_or_else(Refusal::no_queue)?;
        Ok(self.answer(&message, &sent.id, sent.sequence))
    }

    fn answer(&self, message: &NewMessage, id: &str, sequence: u64) -> Value {
        let mut answer = json!({ "MD5OfMessageBody": md5_hex(message.body.as_bytes()), "MessageId": id });
        if let Some(md5) = attributes_md5(&message.attributes) {
            answer["MD5OfMessageAttributes"] = md5.into();
        }
        if self.is_fifo() {
            answer["SequenceNumber"] = shown(sequence).into();
        }
        answer
    }

    fn message(&self, p: &Value, seed: Option<&str>) -> Result<NewMessage, Refusal> {
        let text = |name: &str| p.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let body = match p.get("MessageBody") {
            None | Some(Value::Null) => return Err(Refusal::missing("MessageBody")),
            Some(Value::String(text)) => text.clone(),
            // Integrations may write the body as JSON.
            Some(json) => json.to_string(),
        };
        if body.is_empty() {
            return Err(Refusal::missing("MessageBody"));
        }
        if let Some(c) = body.chars().find(|c| !is_allowed(*c)) {
            let what = format!(
                "Invalid binary character '#x{:X}' was found in the message body, the set of allowed characters is #x9 | #xA | #xD | [#x20-#xD7FF] | [#xE000-#xFFFD] | [#x10000-#x10FFFF]",
                c as u32
            );
            return Err(Refusal::new("InvalidMessageContents", "InvalidMessageContents", what));
        }
        let attributes = p.get("MessageAttributes").cloned().unwrap_or(Value::Null);
        check_attributes(&attributes)?;
        let most = self.queue.settings.bytes_max();
        let bytes = body.len() + if attributes.is_null() { 0 } else { attributes.to_string().len() };
        if bytes as u64 > most {
            return Err(Refusal::value(format!(
                "One or more parameters are invalid. Reason: Message must be shorter than {most} bytes."
            )));
        }
        let delay = number(p, "DelaySeconds", 0, 900)?;
        let (group, mut deduplication) = (text("MessageGroupId"), text("MessageDeduplicationId"));
        if self.is_fifo() {
            if group.is_empty() {
                return Err(Refusal::missing("MessageGroupId"));
            }
            if delay.is_some_and(|delay| delay > 0) {
                return Err(Refusal::value(
                    "Value for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type.",
                ));
            }
            if deduplication.is_empty() && self.queue.settings.content_based_deduplication {
                deduplication = sha256_hex(body.as_bytes());
            }
            if deduplication.is_empty() {
                return Err(Refusal::value(
                    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
                ));
            }
        } else if !deduplication.is_empty() {
            return Err(Refusal::value(
                "The request includes a parameter that is not valid for this queue type: MessageDeduplicationId",
            ));
        } else if let Some(seed) = seed {
            deduplication = format!("{BY_TASK}{seed}");
        }
        // Outside FIFO queues a group tells the receiver something, and orders nothing.
        let group = if self.is_fifo() { group } else { String::new() };
        let delay_ms = delay.filter(|_| !self.is_fifo()).map(|seconds| seconds * 1000);
        Ok(NewMessage { body, attributes, delay_ms, group, deduplication, seed: seed.map(str::to_owned) })
    }

    async fn send_batch(&self, p: &Value, seed: Option<&str>) -> Result<Value, Refusal> {
        let (mut messages, mut failed) = (Vec::new(), Vec::new());
        for (id, entry) in entries(p)? {
            let seed = seed.map(|seed| format!("{seed}/{id}"));
            match self.message(entry, seed.as_deref()) {
                Ok(message) => messages.push((id, message)),
                Err(refusal) => failed.push(failure(id, &refusal)),
            }
        }
        let sent = messages.iter().map(|(_, message)| message.clone()).collect();
        let sent = self.queues.send_all(self.handle, self.name, sent).await?;
        let successful = messages.iter().zip(sent).map(|((id, message), sent)| {
            let mut answer = self.answer(message, &sent.id, sent.sequence);
            answer["Id"] = (*id).into();
            answer
        });
        Ok(batch(successful.collect(), failed))
    }

    async fn receive(&self, p: &Value) -> Result<Value, Refusal> {
        let settings = &self.queue.settings;
        let most = number(p, "MaxNumberOfMessages", 1, BATCH_MAX as i64)?.unwrap_or(1) as usize;
        let visibility_ms = match number(p, "VisibilityTimeout", 0, 43_200)? {
            Some(seconds) => seconds * 1000,
            None => i64::try_from(settings.visibility().ms).unwrap_or(i64::MAX),
        };
        let wait = match number(p, "WaitTimeSeconds", 0, 20)? {
            Some(seconds) => Duration::from_secs(seconds.unsigned_abs()),
            None => settings.receive_wait.unwrap_or_default().duration(),
        };
        let received = self.queues.receive(self.handle, self.name, most, visibility_ms, wait).await?;
        if received.is_empty() {
            return Ok(json!({}));
        }
        let shown = received.iter().map(|received| self.shown(received, p));
        Ok(json!({ "Messages": shown.collect::<Vec<_>>() }))
    }

    fn shown(&self, received: &Received, p: &Value) -> Value {
        let row = &received.row;
        let mut shown = json!({
            "MessageId": row.id,
            "ReceiptHandle": received.handle,
            "MD5OfBody": md5_hex(row.body.as_bytes()),
            "Body": row.body,
        });
        let mut system = Map::new();
        let mut put = |name: &str, value: String| {
            system.insert(name.to_owned(), value.into());
        };
        put("SenderId", self.queues.account.clone());
        put("SentTimestamp", row.sent_at.0.to_string());
        put("ApproximateReceiveCount", row.received.to_string());
        put("ApproximateFirstReceiveTimestamp", row.first_received_at.0.to_string());
        if self.is_fifo() {
            put("SequenceNumber", self::shown(received.sequence));
            put("MessageDeduplicationId", row.deduplication.clone());
            put("MessageGroupId", row.group.clone());
        }
        let wanted = |names: &[&str], name: &str| names.contains(&"All") || names.contains(&name);
        let names: Vec<&str> = strings(p, "AttributeNames").chain(strings(p, "MessageSystemAttributeNames")).collect();
        system.retain(|name, _| wanted(&names, name));
        if !system.is_empty() {
            shown["Attributes"] = Value::Object(system);
        }
        let names: Vec<&str> = strings(p, "MessageAttributeNames").collect();
        let mut attributes: Value = serde_json::from_str(&row.attributes).unwrap_or(Value::Null);
        if let Some(attributes) = attributes.as_object_mut() {
            attributes.retain(|name, _| {
                wanted(&names, name)
                    || names.iter().any(|n| n.strip_suffix(".*").is_some_and(|prefix| name.starts_with(prefix)))
            });
        }
        if let Some(md5) = attributes_md5(&attributes) {
            shown["MD5OfMessageAttributes"] = md5.into();
            shown["MessageAttributes"] = attributes;
        }
        shown
    }

    /// What a receipt handle stands for.
    fn receipt(&self, p: &Value) -> Result<(u64, u64), Refusal> {
        let handle = p["ReceiptHandle"].as_str().ok_or_else(|| Refusal::missing("ReceiptHandle"))?;
        receipt_of(handle).ok_or_else(|| {
            let message = format!("The input receipt handle \"{handle}\" is not a valid receipt handle.");
            Refusal::new("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", message)
        })
    }

    async fn delete(&self, p: &Value) -> Result<Value, Refusal> {
        let receipt = self.receipt(p)?;
        self.queues.delete(self.handle, self.name, &[receipt]).await?;
        Ok(json!({}))
    }

    async fn delete_batch(&self, p: &Value) -> Result<Value, Refusal> {
        let (mut receipts, mut successful, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (id, entry) in entries(p)? {
            match self.receipt(entry) {
                Ok(receipt) => {
                    receipts.push(receipt);
                    successful.push(json!({ "Id": id }));
                }
                Err(refusal) => failed.push(failure(id, &refusal)),
            }
        }
        self.queues.delete(self.handle, self.name, &receipts).await?;
        Ok(batch(successful, failed))
    }

    async fn change_visibility(&self, p: &Value) -> Result<(), Refusal> {
        let receipt = self.receipt(p)?;
        let seconds =
            number(p, "VisibilityTimeout", 0, 43_200)?.ok_or_else(|| Refusal::missing("VisibilityTimeout"))?;
        if self.queues.change_visibility(self.handle, self.name, receipt, seconds * 1000).await? {
            return Ok(());
        }
        let handle = p["ReceiptHandle"].as_str().unwrap_or_default();
        let known = self.queue.shelf.lock().knows(receipt.0);
        let why = if known {
            "Message is not available for visibility timeout change."
        } else {
            "Message does not exist or is not available for visibility timeout change."
        };
        let message = format!("Value {handle} for parameter ReceiptHandle is invalid. Reason: {why}");
        Err(match known {
            true => Refusal::new("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", message),
            false => Refusal::value(message),
        })
    }

    async fn change_visibility_batch(&self, p: &Value) -> Result<Value, Refusal> {
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (id, entry) in entries(p)? {
            match self.change_visibility(entry).await {
                Ok(()) => successful.push(json!({ "Id": id })),
                Err(refusal) => failed.push(failure(id, &refusal)),
            }
        }
        Ok(batch(successful, failed))
    }

    fn attributes(&self, p: &Value) -> Value {
        let settings = &self.queue.settings;
        let counts = self.queue.shelf.lock().counts(self.handle.now());
        let seconds = |ms: u64| (ms / 1000).to_string();
        let mut attributes = Map::new();
        let mut put = |name: &str, value: String| {
            attributes.insert(name.to_owned(), value.into());
        };
        put("ApproximateNumberOfMessages", counts.visible.to_string());
        put("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string());
        put("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string());
        put("DelaySeconds", seconds(settings.delay.unwrap_or_default().ms));
        put("MaximumMessageSize", settings.bytes_max().to_string());
        put("MessageRetentionPeriod", seconds(settings.retention().ms));
        put("QueueArn", self.queues.arn(self.name));
        put("ReceiveMessageWaitTimeSeconds", seconds(settings.receive_wait.unwrap_or_default().ms));
        put("VisibilityTimeout", seconds(settings.visibility().ms));
        if let (Some(target), Some(most)) = (&settings.dead_letter, settings.max_receives) {
            let arn = self.queues.arn(target);
            put("RedrivePolicy", json!({ "deadLetterTargetArn": arn, "maxReceiveCount": most }).to_string());
        }
        if self.is_fifo() {
            put("FifoQueue", "true".to_owned());
            put("ContentBasedDeduplication", settings.content_based_deduplication.to_string());
        }
        let names: Vec<&str> = strings(p, "AttributeNames").collect();
        attributes.retain(|name, _| names.contains(&"All") || names.contains(&name.as_str()));
        if attributes.is_empty() { json!({}) } else { json!({ "Attributes": attributes }) }
    }
}

fn entries(p: &Value) -> Result<Vec<(&str, &Value)>, Refusal> {
    let entries = p["Entries"].as_array().filter(|entries| !entries.is_empty()).ok_or_else(|| {
        Refusal::new(
            "EmptyBatchRequest",
            "AWS.SimpleQueueService.EmptyBatchRequest",
            "There should be at least one entry in the request.",
        )
    })?;
    if entries.len() > BATCH_MAX {
        return Err(Refusal::new(
            "TooManyEntriesInBatchRequest",
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            format!("Maximum number of entries per request are {BATCH_MAX}. You have sent {}.", entries.len()),
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    let entries: Vec<(&str, &Value)> = entries.iter().map(|e| (e["Id"].as_str().unwrap_or_default(), e)).collect();
    match entries.iter().find(|(id, _)| !seen.insert(*id)) {
        Some((id, _)) => Err(Refusal::new(
            "BatchEntryIdsNotDistinct",
            "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            format!("Id {id} repeated."),
        )),
        None => Ok(entries),
    }
}

fn failure(id: &str, refusal: &Refusal) -> Value {
    let sender = refusal.status < 500;
    json!({ "Id": id, "SenderFault": sender, "Code": refusal.query_code, "Message": refusal.message })
}

fn batch(successful: Vec<Value>, failed: Vec<Value>) -> Value {
    let mut answer = json!({});
    for (name, list) in [("Successful", successful), ("Failed", failed)] {
        if !list.is_empty() {
            answer[name] = list.into();
        }
    }
    answer
}

/// A whole number within bounds; texts of digits count, as the older protocol writes them.
fn number(p: &Value, name: &str, least: i64, most: i64) -> Result<Option<i64>, Refusal> {
    let value = match p.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_i64().or_else(|| value.as_str()?.parse().ok()),
    };
    match value {
        Some(value) if (least..=most).contains(&value) => Ok(Some(value)),
        _ => Err(Refusal::value(format!(
            "Value {} for parameter {name} is invalid. Reason: Must be between {least} and {most}, if provided.",
            p[name]
        ))),
    }
}

fn check_attributes(attributes: &Value) -> Result<(), Refusal> {
    let Some(map) = attributes.as_object() else { return Ok(()) };
    if map.len() > ATTRIBUTES_MAX {
        return Err(Refusal::value(format!(
            "Number of message attributes [{}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].",
            map.len()
        )));
    }
    for (name, attribute) in map {
        let data_type = attribute["DataType"].as_str().unwrap_or_default();
        if data_type.is_empty() {
            return Err(Refusal::value(format!(
                "The message attribute '{name}' must contain a non-empty message attribute type."
            )));
        }
        let binary = attribute["BinaryValue"].as_str().map(|text| STANDARD.decode(text).is_ok());
        let fits = match data_type.split('.').next().unwrap_or_default() {
            "Binary" => binary == Some(true),
            "String" => attribute["StringValue"].as_str().is_some_and(|text| !text.is_empty()),
            "Number" => attribute["StringValue"].as_str().is_some_and(|text| text.parse::<f64>().is_ok()),
            _ => {
                return Err(Refusal::value(format!(
                    "The type of message attribute '{name}' is invalid. You must use only the following supported type prefixes: Binary, Number, String."
                )));
            }
        };
        if !fits {
            return Err(Refusal::value(format!(
                "The message attribute '{name}' with type '{data_type}' must use field 'String' or 'Binary' with a value of that type."
            )));
        }
    }
    Ok(())
}

fn strings<'p>(p: &'p Value, name: &str) -> impl Iterator<Item = &'p str> {
    p.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Twenty digits, as SQS has them.
fn shown(sequence: u64) -> String {
    format!("{sequence:020}")
}

fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r') || (c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'))
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
