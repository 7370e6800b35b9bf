//! Other services' calls that come in from outside over the box's own port: SQS for workers, EventBridge for whoever
//! has events. Clients are told from each other by `X-Amz-Target`; of SQS the older query protocol is spoken too.
//!
//! Owns the form of answers and refusals; what is done is done by [`super::queues`] and [`super::events`].

use conveyor_base::escape::unescaped;
use conveyor_base::escape::xml as escaped;
use conveyor_run::Handle;
use conveyor_services::events::Events;
use conveyor_services::queues::Queues;
use serde_json::{Map, Value, json};

use super::events::{Origin, put};
use super::queues;

const SQS: &str = "AmazonSQS.";
const EVENTS: &str = "AWSEvents.";
const NAMESPACE: &str = "http://queue.amazonaws.com/doc/2012-11-05/";

/// What answers the calls.
#[derive(Clone)]
pub struct Messaging {
    pub queues: Queues,
    pub events: Events,
}

/// A call as it came in: which operation is meant, and what it asks for.
#[derive(Clone, Debug)]
pub struct IncomingCall {
    protocol: Protocol,
    /// By its name in AWS's spelling where the box knows it.
    operation: String,
    request: Result<Value, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Sqs,
    /// SQS's older one: form fields in, XML out.
    SqsQuery,
    Events,
}

/// What the client gets.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl IncomingCall {
    /// `target`: the header `X-Amz-Target`, or nothing; `path`: the request's, which names the queue where the fields of
    /// the query protocol do not. `None` where the call is for no service of these.
    pub fn read(target: &str, content_type: Option<&str>, path: &str, body: &[u8]) -> Option<IncomingCall> {
        let is_form = content_type.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let (protocol, name, request) = match (target.strip_prefix(SQS), target.strip_prefix(EVENTS)) {
            (Some(name), _) => (Protocol::Sqs, name.to_owned(), json_of(body)),
            (None, Some(name)) => (Protocol::Events, name.to_owned(), json_of(body)),
            (None, None) if target.is_empty() && is_form => {
                let form = form_fields(body);
                let action = form.iter().find(|(name, _)| name == "Action").map(|(_, action)| action.clone());
                let mut request = fields(&form);
                if request.get("QueueUrl").is_none() && path.len() > 1 {
                    request["QueueUrl"] = path.into();
                }
                (Protocol::SqsQuery, action.unwrap_or_default(), Ok(request))
            }
            (None, None) => return None,
        };
        let operation = match protocol {
            Protocol::Events => name,
            Protocol::Sqs | Protocol::SqsQuery => queues::operation(&name).map_or(name, str::to_owned),
        };
        Some(IncomingCall { protocol, operation, request })
    }

    /// Whether it waits for something that would be lost on a caller who has gone meanwhile.
    pub fn waits(&self) -> bool {
        self.protocol != Protocol::Events && self.operation == "ReceiveMessage"
    }

    /// The queue that it empties.
    pub fn purged(&self) -> Option<&str> {
        let purges = self.protocol != Protocol::Events && self.operation == "PurgeQueue";
        purges.then(|| self.request.as_ref().ok().and_then(|request| request["QueueUrl"].as_str()).unwrap_or_default())
    }
}

fn json_of(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(if body.is_empty() { b"{}" } else { body }).map_err(|e| e.to_string())
}

fn form_fields(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    let plain = |text: &str| unescaped(&text.replace('+', " "));
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (plain(name), plain(value))).collect()
}

impl Messaging {
    /// Carries a call out.
    pub async fn answer(&self, handle: &Handle, call: &IncomingCall) -> Reply {
        let request = match &call.request {
            Ok(request) => request,
            Err(e) => return refused("SerializationException", &format!("The request is no JSON: {e}"), 400),
        };
        match call.protocol {
            Protocol::Events => events(self, handle, &call.operation, request).await,
            Protocol::SqsQuery => xml(&call.operation, sqs(self, handle, &call.operation, request).await),
            Protocol::Sqs => match sqs(self, handle, &call.operation, request).await {
                Ok(answer) => reply(200, "application/x-amz-json-1.0", &answer),
                Err(refusal) => {
                    let code = format!("com.amazonaws.sqs#{}", refusal.code);
                    let mut reply = refused(&code, &refusal.message, refusal.status);
                    let sender = if refusal.status < 500 { "Sender" } else { "Receiver" };
                    reply.headers.push(("x-amzn-query-error", format!("{};{sender}", refusal.query_code)));
                    reply
                }
            },
        }
    }
}

async fn sqs(messaging: &Messaging, handle: &Handle, operation: &str, p: &Value) -> Result<Value, queues::SqsError> {
    let known = queues::operation(operation).ok_or_else(|| queues::SqsError::unknown(operation))?;
    queues::call(&messaging.queues, handle, known, p).await
}

async fn events(messaging: &Messaging, handle: &Handle, operation: &str, p: &Value) -> Reply {
    if operation != "PutEvents" {
        let what = format!("The operation '{operation}' is not supported by this box; rules are configured in it");
        return refused("UnknownOperationException", &what, 400);
    }
    let entries = p["Entries"].as_array().cloned().unwrap_or_default();
    let put = match put(&messaging.events, &entries, &Origin::default(), handle.clock()) {
        Ok(put) => put,
        Err(what) => return refused("ValidationException", &what, 400),
    };
    // Where no rule wants any of them there is nothing to store.
    let stored = match put.rows.is_empty() {
        true => Ok(()),
        false => messaging.events.put(put.rows, handle.entry()).await,
    };
    match stored {
        Ok(()) => reply(200, "application/x-amz-json-1.1", &put.answer),
        Err(unavailable) => refused("InternalException", &unavailable.to_string(), 500),
    }
}

fn reply(status: u16, content_type: &'static str, body: &Value) -> Reply {
    Reply { status, content_type, headers: Vec::new(), body: body.to_string() }
}

fn refused(code: &str, message: &str, status: u16) -> Reply {
    reply(status, "application/x-amz-json-1.0", &json!({ "__type": code, "message": message }))
}

fn xml(operation: &str, answer: Result<Value, queues::SqsError>) -> Reply {
    let id = uuid::Uuid::new_v4();
    let (status, body) = match answer {
        Ok(answer) => {
            let mut result = String::new();
            for (name, value) in answer.as_object().into_iter().flatten() {
                element(name, value, &mut result);
            }
            let result = match result.is_empty() {
                true => String::new(),
                false => format!("<{operation}Result>{result}</{operation}Result>"),
            };
            let metadata = format!("<ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata>");
            (200, format!("<{operation}Response xmlns=\"{NAMESPACE}\">{result}{metadata}</{operation}Response>"))
        }
        Err(refusal) => {
            let kind = if refusal.status < 500 { "Sender" } else { "Receiver" };
            let (code, message) = (escaped(refusal.query_code), escaped(&refusal.message));
            let error = format!("<Type>{kind}</Type><Code>{code}</Code><Message>{message}</Message><Detail/>");
            let error = format!("<Error>{error}</Error><RequestId>{id}</RequestId>");
            (refusal.status, format!("<ErrorResponse xmlns=\"{NAMESPACE}\">{error}</ErrorResponse>"))
        }
    };
    let body = format!("<?xml version=\"1.0\"?>{body}");
    Reply { status, content_type: "text/xml", headers: Vec::new(), body }
}

/// How the query protocol calls the lists and maps of the JSON one: name there, name here, and for a map its values'
/// name.
const FLATTENED: [(&str, &str, Option<&str>); 8] = [
    ("AttributeName", "AttributeNames", None),
    ("MessageAttributeName", "MessageAttributeNames", None),
    ("MessageSystemAttributeName", "MessageSystemAttributeNames", None),
    ("MessageAttribute", "MessageAttributes", Some("Value")),
    ("SendMessageBatchRequestEntry", "Entries", None),
    ("DeleteMessageBatchRequestEntry", "Entries", None),
    ("ChangeMessageVisibilityBatchRequestEntry", "Entries", None),
    ("Attribute", "Attributes", Some("Value")),
];

/// `A=1&B.1=x&B.2=y&C.1.Name=n&C.1.Value.StringValue=v` as the JSON protocol has it.
fn fields(form: &[(String, String)]) -> Value {
    let mut tree = Value::Object(Map::new());
    for (name, text) in form.iter().filter(|(name, _)| !["Action", "Version"].contains(&name.as_str())) {
        let mut at = &mut tree;
        // Deeper than any operation has it is nothing of SQS.
        for part in name.split('.').take(8) {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[part];
        }
        *at = text.as_str().into();
    }
    unflattened(tree)
}

fn unflattened(tree: Value) -> Value {
    let Value::Object(map) = tree else { return tree };
    let mut out = Map::new();
    for (name, value) in map {
        let known = FLATTENED.iter().find(|(flat, ..)| *flat == name);
        match (known, value) {
            (Some((_, list, values)), Value::Object(numbered)) => {
                let mut numbered: Vec<(u32, Value)> =
                    numbered.into_iter().filter_map(|(n, value)| Some((n.parse().ok()?, unflattened(value)))).collect();
                numbered.sort_by_key(|(n, _)| *n);
                let members = numbered.into_iter().map(|(_, value)| value);
                let value = match values {
                    None => members.collect(),
                    Some(values) => members
                        .filter_map(|m| Some((m["Name"].as_str()?.to_owned(), m[*values].clone())))
                        .collect::<Map<_, _>>()
                        .into(),
                };
                out.insert((*list).to_owned(), value);
            }
            (_, value) => {
                out.insert(name, unflattened(value));
            }
        }
    }
    Value::Object(out)
}

fn element(name: &str, value: &Value, out: &mut String) {
    let name = match name {
        "Messages" => "Message",
        "QueueUrls" | "queueUrls" => "QueueUrl",
        "Successful" => "BatchResultEntry",
        "Failed" => "BatchResultErrorEntry",
        "Attributes" => "Attribute",
        "MessageAttributes" => "MessageAttribute",
        name => name,
    };
    match value {
        Value::Array(list) => list.iter().for_each(|one| element(name, one, out)),
        Value::Object(map) if matches!(name, "Attribute" | "MessageAttribute") => {
            for (key, value) in map {
                out.push_str(&format!("<{name}><Name>{}</Name>", escaped(key)));
                element("Value", value, out);
                out.push_str(&format!("</{name}>"));
            }
        }
        value => {
            out.push_str(&format!("<{name}>"));
            match value {
                Value::Object(map) => map.iter().for_each(|(name, value)| element(name, value, out)),
                Value::String(text) => out.push_str(&escaped(text)),
                other => out.push_str(&other.to_string()),
            }
            out.push_str(&format!("</{name}>"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_fields_are_read_as_the_json_protocol_has_them() {
        let form = [
            ("Action", "SendMessageBatch"),
            ("SendMessageBatchRequestEntry.2.Id", "b"),
            ("SendMessageBatchRequestEntry.1.Id", "a"),
            ("SendMessageBatchRequestEntry.1.MessageAttribute.1.Name", "kind"),
            ("SendMessageBatchRequestEntry.1.MessageAttribute.1.Value.DataType", "String"),
            ("AttributeName.1", "All"),
        ];
        let form: Vec<(String, String)> = form.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let expected = json!({"Entries": [{"Id": "a", "MessageAttributes": {"kind": {"DataType": "String"}}},
            {"Id": "b"}], "AttributeNames": ["All"]});
        assert_eq!(fields(&form), expected);
    }

    #[test]
    fn what_a_call_is_goes_by_its_operation_and_not_by_what_it_says() {
        let form = Some("application/x-www-form-urlencoded; charset=utf-8");
        let read = |target: &str, kind, body: &str| IncomingCall::read(target, kind, "/0/jobs", body.as_bytes());
        let sends = "Action=SendMessage&MessageBody=ReceiveMessage+and+PurgeQueue";
        let calls = [
            (read("", form, sends), false, None),
            (read("AmazonSQS.SendMessage", None, r#"{"MessageBody": "ReceiveMessage"}"#), false, None),
            (read("", form, "Action=receiveMessage"), true, None),
            (read("AmazonSQS.receiveMessage", None, "{}"), true, None),
            (read("", form, "Action=PurgeQueue"), false, Some("/0/jobs")),
            (read("AmazonSQS.purgeQueue", None, r#"{"QueueUrl": "there"}"#), false, Some("there")),
            (read("AWSEvents.ReceiveMessage", None, "{}"), false, None),
        ];
        for (call, waits, purged) in calls {
            let call = call.unwrap();
            assert_eq!((call.waits(), call.purged()), (waits, purged), "{call:?}");
        }
        assert!(read("AWSStepFunctions.ListExecutions", form, "").is_none() && read("", None, sends).is_none());
    }
}
