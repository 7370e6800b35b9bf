//! The envelope of AWS's answers: request ids, SDK metadata, and how service errors are worded.

use conveyor_base::{TaskError, Timestamp};
use serde_json::{Map, Value, json};

use super::Call;

/// Which of its two integrations a service was called through; they word errors differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integration {
    /// `arn:aws:states:::dynamodb:putItem`
    Optimised,
    /// `arn:aws:states:::aws-sdk:dynamodb:putItem`
    Sdk,
}

/// Integration and operation of a Resource's name: `dynamodb:putItem`, `aws-sdk:dynamodb:putItem`.
pub fn integration(name: &str) -> (Integration, &str) {
    let integration = if name.starts_with("aws-sdk:") { Integration::Sdk } else { Integration::Optimised };
    (integration, last_part(name))
}

/// The request's id: the same when the same attempt is issued again.
pub fn request_id(call: &Call) -> String {
    let seed = format!("{}/{}/request", call.execution, call.task.attempt);
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, seed.as_bytes()).to_string()
}

/// Which headers a service's answers have, as recorded of AWS; lower case counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderStyle<'a> {
    /// Events, notifications and most others.
    Plain,
    /// Step Functions and SQS.
    KeptAlive,
    DynamoDb,
    Lambda {
        version: &'a str,
        payload_bytes: usize,
    },
}

/// Adds `SdkHttpMetadata` and `SdkResponseMetadata`, as AWS does to the answers of its services. The fields of the
/// whole are then in order, as AWS has them.
pub fn with_metadata(answer: Value, request_id: &str, content_type: &str, now: Timestamp, style: HeaderStyle) -> Value {
    let body = answer.to_string();
    let mut length = body.len().to_string();
    let date = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut headers = vec![("x-amzn-RequestId", request_id.to_owned())];
    match style {
        HeaderStyle::Plain => {}
        HeaderStyle::KeptAlive => {
            length = (body.len() + exponents(&answer)).to_string();
            headers.push(("connection", "keep-alive".to_owned()));
        }
        HeaderStyle::DynamoDb => {
            headers.insert(0, ("Server", "Server".to_owned()));
            headers.insert(1, ("Connection", "keep-alive".to_owned()));
            headers.push(("x-amz-crc32", crc32fast::hash(body.as_bytes()).to_string()));
        }
        HeaderStyle::Lambda { version, payload_bytes } => {
            length = payload_bytes.to_string();
            headers.insert(0, ("X-Amz-Executed-Version", version.to_owned()));
            headers.insert(1, ("x-amzn-Remapped-Content-Length", "0".to_owned()));
            headers.insert(2, ("Connection", "keep-alive".to_owned()));
        }
    }
    headers.push(("Content-Length", length));
    headers.push(("Date", date));
    if let HeaderStyle::Lambda { .. } = style {
        let hex: String =
            request_id.chars().filter(char::is_ascii_hexdigit).chain(std::iter::repeat('0')).take(32).collect();
        headers.push(("X-Amzn-Trace-Id", format!("Root=1-{}-{};Sampled=0", &hex[..8], &hex[8..])));
    }
    headers.push(("Content-Type", content_type.to_owned()));
    let all: Map<String, Value> = headers.iter().map(|(name, value)| ((*name).to_owned(), json!([value]))).collect();
    headers.sort_by_key(|(name, _)| name.to_lowercase());
    let one: Map<String, Value> = headers.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let Value::Object(mut fields) = answer else { return answer };
    let http = json!({ "AllHttpHeaders": all, "HttpHeaders": one, "HttpStatusCode": 200 });
    fields.insert("SdkHttpMetadata".to_owned(), http);
    fields.insert("SdkResponseMetadata".to_owned(), json!({ "RequestId": request_id }));
    fields.sort_keys();
    Value::Object(fields)
}

/// How many more characters a value's fractions take where they are written as services written in Java do: `1.5E9`.
fn exponents(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(exponents).sum(),
        Value::Array(items) => items.iter().map(exponents).sum(),
        Value::Number(number) if number.is_f64() => {
            let text = format!("{:e}", number.as_f64().unwrap_or_default());
            let whole = if text.contains('.') { 0 } else { ".0".len() };
            (text.len() + whole).saturating_sub(number.to_string().len())
        }
        _ => 0,
    }
}

/// The cause of an optimised integration's error: `… (Service: S; Status Code: 400; Error Code: C; Request ID: R; Proxy: null)`.
pub fn optimised_cause(message: &str, service: &str, status: u16, code: &str, request_id: &str) -> String {
    format!(
        "{message} (Service: {service}; Status Code: {status}; Error Code: {code}; Request ID: {request_id}; Proxy: null)"
    )
}

/// The cause of an SDK integration's error: `… (Service: S, Status Code: 400, Request ID: R)`.
pub fn sdk_cause(message: &str, service: &str, status: u16, request_id: &str) -> String {
    format!("{message} (Service: {service}, Status Code: {status}, Request ID: {request_id})")
}

/// A text parameter that must be there.
pub fn require_text<'a>(parameters: &'a Value, name: &str, resource: &str) -> Result<&'a str, TaskError> {
    parameters.get(name).and_then(Value::as_str).ok_or_else(|| {
        TaskError::new(
            "States.Runtime",
            format!(
                "The field '{name}' must be a string in the Parameters of {resource}; it is missing or of another type"
            ),
        )
    })
}

/// The last part of an ARN, and whatever is no ARN as it is.
pub fn last_part(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or(arn)
}
