//! The dress of AWS's answers: request ids, SDK metadata, and how service errors are worded.

use serde_json::{Value, json};

use super::Call;
use crate::base::TaskError;

/// Which of its two integrations a service was called through; they word errors differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integration {
    /// `arn:aws:states:::dynamodb:putItem`
    Optimised,
    /// `arn:aws:states:::aws-sdk:dynamodb:putItem`
    Sdk,
}

/// The request's id: the same when the same attempt is issued again.
pub fn request_id(call: &Call) -> String {
    let seed = format!("{}/{}/request", call.execution, call.task.attempt);
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, seed.as_bytes()).to_string()
}

/// Adds `SdkHttpMetadata` and `SdkResponseMetadata`, as AWS does to the answers of its services.
pub fn with_metadata(mut answer: Value, request_id: &str, content_type: &str) -> Value {
    let length = answer.to_string().len().to_string();
    if let Some(map) = answer.as_object_mut() {
        map.insert(
            "SdkHttpMetadata".to_owned(),
            json!({
                "AllHttpHeaders": {
                    "x-amzn-RequestId": [request_id],
                    "Content-Length": [&length],
                    "Content-Type": [content_type],
                },
                "HttpHeaders": {
                    "x-amzn-RequestId": request_id,
                    "Content-Length": length,
                    "Content-Type": content_type,
                },
                "HttpStatusCode": 200,
            }),
        );
        map.insert("SdkResponseMetadata".to_owned(), json!({ "RequestId": request_id }));
    }
    answer
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
pub fn need_text<'a>(parameters: &'a Value, name: &str, resource: &str) -> Result<&'a str, TaskError> {
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
