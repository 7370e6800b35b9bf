//! SQS's operations on the queues, as both Tasks and clients outside call them: fields of the API in, its answer out.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conveyor_base::BoxClock;
use conveyor_base::escape::hex;
use conveyor_run::Handle;
use conveyor_run::service::Unavailable;
use conveyor_services::queues::{
    NewMessage, QueueSettings, Queues, Receipt, Received, Reply, Request, Sent, Visibility,
};
use conveyor_store::Stamp;
use serde_json::{Map, Value, json};

use super::message::{attributes_md5, md5_hex};
use super::task::OPERATIONS;

/// Most entries of a batch, and most messages of one receive.
const BATCH_MAX: usize = 10;
const ATTRIBUTES_MAX: usize = 10;

/// SQS's error: the exception of its JSON protocol, the older code that clients still go by, and the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsError {
    pub code: &'static str,
    pub query_code: &'static str,
    pub message: String,
    pub status: u16,
}

impl SqsError {
    fn new(code: &'static str, query_code: &'static str, message: impl Into<String>) -> SqsError {
        SqsError { code, query_code, message: message.into(), status: 400 }
    }

    pub fn unknown(operation: &str) -> SqsError {
        let message = format!("The operation '{operation}' is not supported by this box");
        SqsError::new("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", message)
    }

    pub fn unavailable(what: &Unavailable) -> SqsError {
        SqsError { status: 503, ..SqsError::new("ServiceUnavailable", "ServiceUnavailable", what.to_string()) }
    }

    fn no_queue() -> SqsError {
        let message = "The specified queue does not exist.";
        SqsError::new("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", message)
    }

    fn value(message: impl Into<String>) -> SqsError {
        SqsError::new("InvalidParameterValueException", "InvalidParameterValue", message)
    }

    fn missing(name: &str) -> SqsError {
        let message = format!("The request must contain the parameter {name}.");
        SqsError::new("MissingRequiredParameterException", "MissingParameter", message)
    }
}

/// An operation by its name in either case; `None` for what SQS does not have or this box does not do.
pub fn operation(name: &str) -> Option<&'static str> {
    let name = conveyor_aws::pascal(name);
    OPERATIONS.iter().copied().find(|known| *known == name)
}

/// What a call comes to before the queue is asked: often its answer depends on nothing that is in a queue.
pub enum Plan {
    Answered(Value),
    Ask(Question),
}

/// What is asked of a queue, and how its reply is worded.
pub struct Question {
    pub queue: String,
    pub request: Request,
    pub shape: Shape,
}

/// The service's answer to a call, or its error.
pub type Shape = Box<dyn FnOnce(&Reply) -> Result<Value, SqsError> + Send>;

/// One call of a client outside.
pub async fn call(queues: &Queues, handle: &Handle, operation: &str, p: &Value) -> Result<Value, SqsError> {
    match plan(queues, operation, p, handle.clock())? {
        Plan::Answered(answer) => Ok(answer),
        Plan::Ask(Question { queue, request, shape }) => {
            let reply = queues.ask(&queue, request, handle.entry()).await;
            shape(&reply.map_err(|e| SqsError::unavailable(&e))?)
        }
    }
}

/// Reads a call's fields.
pub fn plan(queues: &Queues, operation: &str, p: &Value, clock: &Arc<BoxClock>) -> Result<Plan, SqsError> {
    match operation {
        "GetQueueUrl" => {
            let name = p["QueueName"].as_str().ok_or_else(|| SqsError::missing("QueueName"))?;
            let (name, _) = queues.find(name).filter(|(known, _)| *known == name).ok_or_else(SqsError::no_queue)?;
            return Ok(Plan::Answered(json!({ "QueueUrl": queues.url(name) })));
        }
        "ListQueues" => {
            let prefix = p["QueueNamePrefix"].as_str().unwrap_or_default();
            let named = queues.all().filter(|(name, _)| name.starts_with(prefix));
            let urls: Vec<String> = named.map(|(name, _)| queues.url(name)).collect();
            return Ok(Plan::Answered(if urls.is_empty() { json!({}) } else { json!({ "QueueUrls": urls }) }));
        }
        "CreateQueue" => return create(queues, p).map(Plan::Answered),
        _ => {}
    }
    let url = p["QueueUrl"].as_str().ok_or_else(|| SqsError::missing("QueueUrl"))?;
    let (name, settings) = queues.find(url).ok_or_else(SqsError::no_queue)?;
    let at = At { queues, name, settings };
    match operation {
        "SendMessage" => at.send(p),
        "SendMessageBatch" => at.send_batch(p),
        "ReceiveMessage" => at.receive(p, clock),
        "DeleteMessage" => at.delete(p),
        "DeleteMessageBatch" => at.delete_batch(p),
        "ChangeMessageVisibility" => at.change_visibility(p),
        "ChangeMessageVisibilityBatch" => at.change_visibility_batch(p),
        "GetQueueAttributes" => Ok(at.attributes(p)),
        "ListQueueTags" => Ok(Plan::Answered(json!({}))),
        "ListDeadLetterSourceQueues" => {
            let sources = queues.all().filter(|(_, queue)| queue.dead_letter.as_deref() == Some(name));
            let urls: Vec<String> = sources.map(|(source, _)| queues.url(source)).collect();
            Ok(Plan::Answered(json!({ "queueUrls": urls })))
        }
        "PurgeQueue" => Ok(at.ask(Request::Purge, |_| Ok(json!({})))),
        _ => Err(configured("its attributes are set", name)),
    }
}

fn configured(what: &str, name: &str) -> SqsError {
    let message =
        format!("Queues of this box are configured: {what} in the table [queues.{name}] of its configuration.");
    SqsError::new("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", message)
}

/// A queue that is there is found, as SQS does it; a new one is a matter of the configuration.
fn create(queues: &Queues, p: &Value) -> Result<Value, SqsError> {
    let name = p["QueueName"].as_str().ok_or_else(|| SqsError::missing("QueueName"))?;
    match queues.has(name) {
        true => Ok(json!({ "QueueUrl": queues.url(name) })),
        false => Err(configured("a queue is made", name)),
    }
}

/// A queue, with what its operations need.
struct At<'a> {
    queues: &'a Queues,
    name: &'a str,
    settings: &'a QueueSettings,
}

impl At<'_> {
    fn is_fifo(&self) -> bool {
        self.name.ends_with(".fifo")
    }

    fn ask(&self, request: Request, shape: impl FnOnce(&Reply) -> Result<Value, SqsError> + Send + 'static) -> Plan {
        Plan::Ask(Question { queue: self.name.to_owned(), request, shape: Box::new(shape) })
    }

    fn send(&self, p: &Value) -> Result<Plan, SqsError> {
        let message = self.message(p)?;
        let (digests, is_fifo) = (Digests::of(&message), self.is_fifo());
        Ok(self.ask(Request::Send(vec![message]), move |reply| match reply {
            Reply::Sent(sent) => sent.first().map(|sent| digests.answer(sent, is_fifo)).ok_or_else(SqsError::no_queue),
            _ => Err(SqsError::no_queue()),
        }))
    }

    fn message(&self, p: &Value) -> Result<NewMessage, SqsError> {
        let text = |name: &str| p.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let body = match p.get("MessageBody") {
            None | Some(Value::Null) => return Err(SqsError::missing("MessageBody")),
            Some(Value::String(text)) => text.clone(),
            // Integrations may write the body as JSON.
            Some(json) => json.to_string(),
        };
        if body.is_empty() {
            return Err(SqsError::missing("MessageBody"));
        }
        if let Some(c) = body.chars().find(|c| !is_allowed(*c)) {
            let what = format!(
                "Invalid binary character '#x{:X}' was found in the message body, the set of allowed characters is #x9 | #xA | #xD | [#x20-#xD7FF] | [#xE000-#xFFFD] | [#x10000-#x10FFFF]",
                c as u32
            );
            return Err(SqsError::new("InvalidMessageContents", "InvalidMessageContents", what));
        }
        let attributes = p.get("MessageAttributes").cloned().unwrap_or(Value::Null);
        check_attributes(&attributes)?;
        let most = self.settings.bytes_max();
        let bytes = body.len() + if attributes.is_null() { 0 } else { attributes.to_string().len() };
        if bytes as u64 > most {
            return Err(SqsError::value(format!(
                "One or more parameters are invalid. Reason: Message must be shorter than {most} bytes."
            )));
        }
        let delay = number(p, "DelaySeconds", 0, 900)?;
        let (group, mut deduplication) = (text("MessageGroupId"), text("MessageDeduplicationId"));
        if self.is_fifo() {
            if group.is_empty() {
                return Err(SqsError::missing("MessageGroupId"));
            }
            if delay.is_some_and(|delay| delay > 0) {
                return Err(SqsError::value(
                    "Value for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type.",
                ));
            }
            if deduplication.is_empty() && self.settings.content_based_deduplication {
                deduplication = sha256_hex(body.as_bytes());
            }
            if deduplication.is_empty() {
                return Err(SqsError::value(
                    "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
                ));
            }
        } else if !deduplication.is_empty() {
            return Err(SqsError::value(
                "The request includes a parameter that is not valid for this queue type: MessageDeduplicationId",
            ));
        }
        // Outside FIFO queues a group tells the receiver something, and orders nothing.
        let group = if self.is_fifo() { group } else { String::new() };
        let delay_ms = delay.filter(|_| !self.is_fifo()).map(|seconds| seconds * 1000);
        Ok(NewMessage { body, attributes, delay_ms, group, deduplication })
    }

    fn send_batch(&self, p: &Value) -> Result<Plan, SqsError> {
        let (mut messages, mut digests, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (id, entry) in entries(p)? {
            match self.message(entry) {
                Ok(message) => {
                    digests.push((id.to_owned(), Digests::of(&message)));
                    messages.push(message);
                }
                Err(refusal) => failed.push(failure(id, &refusal)),
            }
        }
        let is_fifo = self.is_fifo();
        Ok(self.ask(Request::Send(messages), move |reply| {
            let Reply::Sent(sent) = reply else { return Err(SqsError::no_queue()) };
            let successful = digests.into_iter().zip(sent).map(|((id, digests), sent)| {
                let mut answer = digests.answer(sent, is_fifo);
                answer["Id"] = id.into();
                answer
            });
            Ok(batch(successful.collect(), failed))
        }))
    }

    fn receive(&self, p: &Value, clock: &Arc<BoxClock>) -> Result<Plan, SqsError> {
        let most = number(p, "MaxNumberOfMessages", 1, BATCH_MAX as i64)?.unwrap_or(1) as usize;
        let visibility_ms = match number(p, "VisibilityTimeout", 0, 43_200)? {
            Some(seconds) => seconds * 1000,
            None => i64::try_from(self.settings.visibility().ms).unwrap_or(i64::MAX),
        };
        let wait_ms = match number(p, "WaitTimeSeconds", 0, 20)? {
            Some(seconds) => seconds * 1000,
            None => i64::try_from(self.settings.receive_wait.unwrap_or_default().ms).unwrap_or(0),
        };
        let (account, clock) = (self.queues.account().to_owned(), clock.clone());
        let until = clock.now().plus_ms(wait_ms);
        let shown = Shown { account, is_fifo: self.is_fifo(), asked: p.clone(), clock };
        let request = Request::Receive { most, visibility_ms, until };
        Ok(self.ask(request, move |reply| match reply {
            Reply::Received(received) if received.is_empty() => Ok(json!({})),
            Reply::Received(received) => {
                let messages: Vec<Value> = received.iter().map(|received| shown.message(received)).collect();
                Ok(json!({ "Messages": messages }))
            }
            _ => Err(SqsError::no_queue()),
        }))
    }

    /// What a receipt handle stands for.
    fn receipt(&self, p: &Value) -> Result<Receipt, SqsError> {
        let handle = p["ReceiptHandle"].as_str().ok_or_else(|| SqsError::missing("ReceiptHandle"))?;
        Receipt::of_handle(handle).ok_or_else(|| {
            let message = format!("The input receipt handle \"{handle}\" is not a valid receipt handle.");
            SqsError::new("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", message)
        })
    }

    fn delete(&self, p: &Value) -> Result<Plan, SqsError> {
        let receipt = self.receipt(p)?;
        Ok(self.ask(Request::Delete(vec![receipt]), |_| Ok(json!({}))))
    }

    fn delete_batch(&self, p: &Value) -> Result<Plan, SqsError> {
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
        Ok(self.ask(Request::Delete(receipts), move |_| Ok(batch(successful, failed))))
    }

    /// The receipt, its handle as it was given, and for how long the message is to be hidden from now on.
    fn visibility(&self, p: &Value) -> Result<(Receipt, String, i64), SqsError> {
        let receipt = self.receipt(p)?;
        let seconds =
            number(p, "VisibilityTimeout", 0, 43_200)?.ok_or_else(|| SqsError::missing("VisibilityTimeout"))?;
        Ok((receipt, p["ReceiptHandle"].as_str().unwrap_or_default().to_owned(), seconds * 1000))
    }

    fn change_visibility(&self, p: &Value) -> Result<Plan, SqsError> {
        let (receipt, handle, ms) = self.visibility(p)?;
        Ok(self.ask(Request::ChangeVisibility(vec![(receipt, ms)]), move |reply| match reply {
            Reply::Changed(came) => came.first().map_or(Ok(()), |came| changed(*came, &handle)).map(|()| json!({})),
            _ => Err(SqsError::no_queue()),
        }))
    }

    fn change_visibility_batch(&self, p: &Value) -> Result<Plan, SqsError> {
        let (mut changes, mut named, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (id, entry) in entries(p)? {
            match self.visibility(entry) {
                Ok((receipt, handle, ms)) => {
                    changes.push((receipt, ms));
                    named.push((id.to_owned(), handle));
                }
                Err(refusal) => failed.push(failure(id, &refusal)),
            }
        }
        Ok(self.ask(Request::ChangeVisibility(changes), move |reply| {
            let Reply::Changed(came) = reply else { return Err(SqsError::no_queue()) };
            let mut successful = Vec::new();
            for ((id, handle), came) in named.iter().zip(came) {
                match changed(*came, handle) {
                    Ok(()) => successful.push(json!({ "Id": id })),
                    Err(refusal) => failed.push(failure(id, &refusal)),
                }
            }
            Ok(batch(successful, failed))
        }))
    }

    fn attributes(&self, p: &Value) -> Plan {
        let settings = self.settings.clone();
        let arn = self.queues.arn(self.name);
        let dead_letter = settings.dead_letter.as_deref().map(|target| self.queues.arn(target));
        let (is_fifo, p) = (self.is_fifo(), p.clone());
        self.ask(Request::Count, move |reply| {
            let Reply::Counts(counts) = reply else { return Err(SqsError::no_queue()) };
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
            put("QueueArn", arn);
            put("ReceiveMessageWaitTimeSeconds", seconds(settings.receive_wait.unwrap_or_default().ms));
            put("VisibilityTimeout", seconds(settings.visibility().ms));
            if let (Some(arn), Some(most)) = (dead_letter, settings.max_receives) {
                put("RedrivePolicy", json!({ "deadLetterTargetArn": arn, "maxReceiveCount": most }).to_string());
            }
            if is_fifo {
                put("FifoQueue", "true".to_owned());
                put("ContentBasedDeduplication", settings.content_based_deduplication.to_string());
            }
            let names: Vec<&str> = strings(&p, "AttributeNames").collect();
            attributes.retain(|name, _| names.contains(&"All") || names.contains(&name.as_str()));
            Ok(if attributes.is_empty() { json!({}) } else { json!({ "Attributes": attributes }) })
        })
    }
}

fn changed(came: Visibility, handle: &str) -> Result<(), SqsError> {
    let refused = |why: &str| format!("Value {handle} for parameter ReceiptHandle is invalid. Reason: {why}");
    match came {
        Visibility::Changed => Ok(()),
        Visibility::NotInFlight => {
            let message = refused("Message is not available for visibility timeout change.");
            Err(SqsError::new("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", message))
        }
        Visibility::Unknown => {
            Err(SqsError::value(refused("Message does not exist or is not available for visibility timeout change.")))
        }
    }
}

/// What SDKs check of a message that they sent.
struct Digests {
    body: String,
    attributes: Option<String>,
}

impl Digests {
    fn of(message: &NewMessage) -> Digests {
        Digests { body: md5_hex(message.body.as_bytes()), attributes: attributes_md5(&message.attributes) }
    }

    fn answer(&self, sent: &Sent, is_fifo: bool) -> Value {
        let mut answer = json!({ "MD5OfMessageBody": self.body, "MessageId": sent.id });
        if let Some(md5) = &self.attributes {
            answer["MD5OfMessageAttributes"] = md5.as_str().into();
        }
        if is_fifo {
            answer["SequenceNumber"] = shown(sent.sequence).into();
        }
        answer
    }
}

/// How received messages are shown: as the receiver asked.
struct Shown {
    account: String,
    is_fifo: bool,
    asked: Value,
    /// Rows are dated by the box's own time, and clients go by the wall clock.
    clock: Arc<BoxClock>,
}

impl Shown {
    fn message(&self, received: &Received) -> Value {
        let (row, p) = (&received.row, &self.asked);
        let mut message = json!({
            "MessageId": row.id,
            "ReceiptHandle": received.receipt.handle(),
            "MD5OfBody": md5_hex(row.body.as_bytes()),
            "Body": row.body,
        });
        let mut system = Map::new();
        let mut put = |name: &str, value: String| {
            system.insert(name.to_owned(), value.into());
        };
        put("SenderId", self.account.clone());
        let date = |at: Stamp| self.clock.shown(at.into()).0.to_string();
        put("SentTimestamp", date(row.sent_at));
        put("ApproximateReceiveCount", row.received.to_string());
        put("ApproximateFirstReceiveTimestamp", date(row.first_received_at));
        if self.is_fifo {
            put("SequenceNumber", shown(received.receipt.sequence));
            put("MessageDeduplicationId", row.deduplication.clone());
            put("MessageGroupId", row.group.clone());
        }
        let wanted = |names: &[&str], name: &str| names.contains(&"All") || names.contains(&name);
        let names: Vec<&str> = strings(p, "AttributeNames").chain(strings(p, "MessageSystemAttributeNames")).collect();
        system.retain(|name, _| wanted(&names, name));
        if !system.is_empty() {
            message["Attributes"] = Value::Object(system);
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
            message["MD5OfMessageAttributes"] = md5.into();
            message["MessageAttributes"] = attributes;
        }
        message
    }
}

fn entries(p: &Value) -> Result<Vec<(&str, &Value)>, SqsError> {
    let entries = p["Entries"].as_array().filter(|entries| !entries.is_empty()).ok_or_else(|| {
        SqsError::new(
            "EmptyBatchRequest",
            "AWS.SimpleQueueService.EmptyBatchRequest",
            "There should be at least one entry in the request.",
        )
    })?;
    if entries.len() > BATCH_MAX {
        return Err(SqsError::new(
            "TooManyEntriesInBatchRequest",
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            format!("Maximum number of entries per request are {BATCH_MAX}. You have sent {}.", entries.len()),
        ));
    }
    let mut seen = std::collections::BTreeSet::new();
    let entries: Vec<(&str, &Value)> = entries.iter().map(|e| (e["Id"].as_str().unwrap_or_default(), e)).collect();
    match entries.iter().find(|(id, _)| !seen.insert(*id)) {
        Some((id, _)) => Err(SqsError::new(
            "BatchEntryIdsNotDistinct",
            "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            format!("Id {id} repeated."),
        )),
        None => Ok(entries),
    }
}

fn failure(id: &str, refusal: &SqsError) -> Value {
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
fn number(p: &Value, name: &str, least: i64, most: i64) -> Result<Option<i64>, SqsError> {
    let value = match p.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_i64().or_else(|| value.as_str()?.parse().ok()),
    };
    match value {
        Some(value) if (least..=most).contains(&value) => Ok(Some(value)),
        _ => Err(SqsError::value(format!(
            "Value {} for parameter {name} is invalid. Reason: Must be between {least} and {most}, if provided.",
            p[name]
        ))),
    }
}

fn check_attributes(attributes: &Value) -> Result<(), SqsError> {
    let Some(map) = attributes.as_object() else { return Ok(()) };
    if map.len() > ATTRIBUTES_MAX {
        return Err(SqsError::value(format!(
            "Number of message attributes [{}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].",
            map.len()
        )));
    }
    for (name, attribute) in map {
        let data_type = attribute["DataType"].as_str().unwrap_or_default();
        if data_type.is_empty() {
            return Err(SqsError::value(format!(
                "The message attribute '{name}' must contain a non-empty message attribute type."
            )));
        }
        let binary = attribute["BinaryValue"].as_str().map(|text| STANDARD.decode(text).is_ok());
        let fits = match data_type.split('.').next().unwrap_or_default() {
            "Binary" => binary == Some(true),
            "String" => attribute["StringValue"].as_str().is_some_and(|text| !text.is_empty()),
            "Number" => attribute["StringValue"].as_str().is_some_and(|text| text.parse::<f64>().is_ok()),
            _ => {
                return Err(SqsError::value(format!(
                    "The type of message attribute '{name}' is invalid. You must use only the following supported type prefixes: Binary, Number, String."
                )));
            }
        };
        if !fits {
            return Err(SqsError::value(format!(
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
    hex(&Sha256::digest(bytes))
}
