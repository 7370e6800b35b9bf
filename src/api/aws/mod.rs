//! The AWS API: `POST /` with `X-Amz-Target: AWSStepFunctions.*`, AWS JSON 1.0.
//!
//! Owns the wire's shape: which operation is meant, how its answer and its refusal look. Each family of operations
//! has a file of its own. It decides nothing: what changes goes to the [`Handle`](conveyor_run::Handle).

mod activities;
mod aliases;
mod definitions;
mod executions;
mod fields;
mod machines;
mod map_runs;
mod redrive;
mod settings;
mod sync;
mod tags;
mod tasks;
mod test_state;
mod versions;

use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use conveyor_base::limits::PAYLOAD_DEPTH_MAX;
use conveyor_resources::wire::{IncomingCall, Reply};
use conveyor_store::Scans;
use serde_json::{Value, json};

use super::audit::{self, Action};
use super::gate::{Caller, Role};
use super::{ApiError, AppState};
pub use executions::{HISTORY_BYTES_PER_PAGE, redrivable, status_of};
use fields::Fields;
pub use redrive::Redriven;

const TARGET: &str = "AWSStepFunctions.";
const RECEIVES: &[u8] = b"Action=ReceiveMessage";
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.0");

pub async fn handle(
    app: AppState,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let target = target(&headers);
    let Some(operation) = target.strip_prefix(TARGET) else {
        return match others(&app, &caller, &uri, &headers, &body).await {
            Some(response) => response,
            None => refuse(&unknown(target)),
        };
    };
    if is_of_execution(operation) {
        let app = app.on_behalf(&audit::unlisted(&app, &caller, "aws", operation));
        return answered(call(&app, operation, &body).await);
    }
    if is_read(operation) {
        return answered(call(&app, operation, &body).await);
    }
    let (what, to, success) = (operation.to_owned(), meant(operation, &body), StatusCode::OK);
    let entry = audit::entry(&app, &caller, Action { api: "aws", what: what.clone(), to, success });
    let on_behalf = app.on_behalf(&entry);
    let change = async move { answered(call(&on_behalf, &what, &body).await) };
    audit::run_kept(app, entry, change, refused).await
}

fn answered(answer: Result<Value, ApiError>) -> Response {
    match answer {
        Ok(value) => respond(StatusCode::OK, None, &value),
        Err(refusal) => refuse(&refusal),
    }
}

fn refused(refusal: ApiError) -> Response {
    refuse(&refusal)
}

/// What a request is about: the ARN or the name in it; of a state that is tried out, what it would call.
fn meant(operation: &str, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if operation == "TestState" {
        return shortened(&test_state::resource(&body).unwrap_or_default());
    }
    let named = body.as_object().into_iter().flatten().find(|(key, _)| key.ends_with("Arn") && *key != "roleArn");
    let named = named.map(|(_, value)| value).unwrap_or(&body["name"]);
    shortened(named.as_str().unwrap_or_default())
}

/// As long as the audit log keeps it.
fn shortened(text: &str) -> String {
    text.chars().take(256).collect()
}

fn target(headers: &HeaderMap) -> &str {
    headers.get("x-amz-target").and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// The role that a request's operation needs. Those of other services are for workers: messages and events.
pub fn required_role(headers: &HeaderMap) -> Role {
    let target = target(headers);
    let Some(operation) = target.strip_prefix(TARGET) else { return Role::Operator };
    match operation {
        // A worker takes the task that it asks for.
        "GetActivityTask" => Role::Operator,
        "StartExecution" | "StartSyncExecution" | "StopExecution" | "RedriveExecution" | "TestState"
        | "UpdateMapRun" => Role::Operator,
        operation if operation.starts_with("SendTask") => Role::Operator,
        operation if is_read(operation) => Role::Viewer,
        _ => Role::Admin,
    }
}

/// What a call is, for the audit log: the API, the operation, what it is done to.
pub fn action(headers: &HeaderMap, body: &[u8]) -> (&'static str, String, String) {
    let target = target(headers);
    let operation = target.strip_prefix(TARGET).unwrap_or(target);
    ("aws", shortened(operation), meant(operation, body))
}

/// Whether the call waits for something to happen: a task, a message, an execution's end.
pub fn may_wait(headers: &HeaderMap, body: &[u8]) -> bool {
    match target(headers).rsplit_once('.') {
        Some((_, operation)) => matches!(operation, "GetActivityTask" | "StartSyncExecution" | "ReceiveMessage"),
        // The older protocol of SQS names it in the form.
        None => body.windows(RECEIVES.len()).any(|part| part == RECEIVES),
    }
}

/// What a request to try a state out would call, as the audit log keeps it; `None` for a state that calls nothing, and for
/// what cannot be read.
pub fn tried(body: &[u8]) -> Option<String> {
    Some(meant("TestState", body)).filter(|resource| !resource.is_empty())
}

fn is_read(operation: &str) -> bool {
    ["List", "Describe", "Get", "Validate"].iter().any(|verb| operation.starts_with(verb))
}

/// Whether the execution itself keeps who did it, and the audit log does not: starts and ends of tasks are too many for it.
fn is_of_execution(operation: &str) -> bool {
    operation.starts_with("SendTask") || matches!(operation, "StartExecution" | "StartSyncExecution")
}

/// `POST /ACCOUNT/QUEUE`
pub async fn queue(
    app: AppState,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let unknown = unknown(target(&headers));
    others(&app, &caller, &uri, &headers, &body).await.unwrap_or_else(|| refuse(&unknown))
}

/// The answer of another service of the box; `None` where the call is not for one.
async fn others(app: &AppState, caller: &Caller, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Option<Response> {
    let messaging = app.messaging.clone()?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let call = IncomingCall::read(target(headers), content_type, uri.path(), body)?;
    if call.waits() {
        return Some(passed_on(messaging.answer(&app.handle, &call).await));
    }
    // Of all that comes in here that alone is kept in the audit log.
    if let Some(queue) = call.purged() {
        let (what, to, success) = ("PurgeQueue".to_owned(), shortened(queue), StatusCode::OK);
        let entry = audit::entry(app, caller, Action { api: "aws", what, to, success });
        let handle = app.on_behalf(&entry).handle;
        let change = async move { passed_on(messaging.answer(&handle, &call).await) };
        return Some(audit::run_kept(app.clone(), entry, change, refused).await);
    }
    let app = app.clone();
    let answered = audit::run_detached(async move { messaging.answer(&app.handle, &call).await }).await;
    Some(answered.map_or_else(|refusal| refuse(&refusal), passed_on))
}

fn passed_on(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    let id = ("x-amzn-requestid", uuid::Uuid::new_v4().to_string());
    for (name, value) in reply.headers.into_iter().chain([id]) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

/// A refusal as AWS clients read it.
pub fn refuse(refusal: &ApiError) -> Response {
    let body = json!({"__type": refusal.code, "message": refusal.message});
    let mut response = respond(refusal.status(), Some(refusal.code), &body);
    refusal.put_retry_after(response.headers_mut());
    response
}

fn respond(status: StatusCode, error: Option<&'static str>, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    if let Ok(id) = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    if let Some(error) = error {
        headers.insert("x-amzn-errortype", HeaderValue::from_static(error));
    }
    response
}

fn unknown(operation: &str) -> ApiError {
    ApiError::new("UnknownOperationException", format!("The operation '{operation}' is not supported by this box"))
}

pub async fn call(app: &AppState, operation: &str, body: &[u8]) -> Result<Value, ApiError> {
    let body = match serde_json::from_slice(if body.is_empty() { b"{}" } else { body }) {
        Ok(Value::Object(body)) => body,
        Ok(_) => return Err(ApiError::new("SerializationException", "The request is not a JSON object")),
        Err(e) => return Err(ApiError::new("SerializationException", format!("The request is not JSON: {e}"))),
    };
    let fields = Fields::new(body);
    match operation {
        "CreateStateMachine" => machines::create(app, fields).await,
        "UpdateStateMachine" => machines::update(app, fields).await,
        "DeleteStateMachine" => machines::delete(app, fields).await,
        "DescribeStateMachine" => machines::describe(app, fields),
        "DescribeStateMachineForExecution" => machines::describe_for_execution(app, fields).await,
        "ListStateMachines" => reading(app, fields, machines::list).await,
        "PublishStateMachineVersion" => versions::publish(app, fields).await,
        "DeleteStateMachineVersion" => versions::delete(app, fields).await,
        "ListStateMachineVersions" => reading(app, fields, versions::list).await,
        "CreateStateMachineAlias" => aliases::create(app, fields).await,
        "UpdateStateMachineAlias" => aliases::update(app, fields).await,
        "DeleteStateMachineAlias" => aliases::delete(app, fields).await,
        "DescribeStateMachineAlias" => aliases::describe(app, fields),
        "ListStateMachineAliases" => reading(app, fields, aliases::list).await,
        "TagResource" => tags::tag(app, fields).await,
        "UntagResource" => tags::untag(app, fields).await,
        "ListTagsForResource" => tags::list(app, fields),
        "ValidateStateMachineDefinition" => app.handle.analyse(move || definitions::validate(fields)).await?,
        "StartExecution" => executions::start(app, fields).await,
        "StartSyncExecution" => sync::start(app, fields).await,
        "StopExecution" => executions::stop(app, fields).await,
        "RedriveExecution" => redrive::redrive(app, fields).await,
        "DescribeExecution" => executions::describe(app, fields).await,
        "ListExecutions" => reading(app, fields, executions::list).await,
        "GetExecutionHistory" => reading(app, fields, executions::history).await,
        "TestState" => test_state::test(app, fields).await,
        "ListMapRuns" => reading(app, fields, map_runs::list).await,
        "DescribeMapRun" => map_runs::describe(app, fields).await,
        "UpdateMapRun" => map_runs::update(app, fields).await,
        "SendTaskSuccess" => tasks::succeeded(app, fields).await,
        "SendTaskFailure" => tasks::failed(app, fields).await,
        "SendTaskHeartbeat" => tasks::heartbeat(app, fields).await,
        "CreateActivity" => activities::create(app, fields).await,
        "DeleteActivity" => activities::delete(app, fields).await,
        "DescribeActivity" => activities::describe(app, fields),
        "ListActivities" => reading(app, fields, activities::list).await,
        "GetActivityTask" => activities::task(app, fields).await,
        _ => Err(unknown(operation)),
    }
}

/// Answers out of the store, on a thread that may block: lists, and what archives hold.
async fn reading(
    app: &AppState,
    fields: Fields,
    answer: fn(&AppState, &Scans, Fields) -> Result<Value, ApiError>,
) -> Result<Value, ApiError> {
    app.reading(move |app, rows| answer(app, rows, fields)).await
}

/// What is wrong with the input of an execution: what [`json_fault`] says, or that it is nested deeper than any state may
/// be given.
pub fn input_fault(text: &str) -> Option<String> {
    json_fault(text).or_else(|| {
        let depth = depth(text);
        (depth > PAYLOAD_DEPTH_MAX)
            .then(|| format!("Document nesting depth ({depth}) exceeds the maximum allowed ({PAYLOAD_DEPTH_MAX})"))
    })
}

/// What AWS says about a text that is no JSON; `None` where it is JSON.
fn json_fault(text: &str) -> Option<String> {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return None;
    }
    // The language's reader speaks of JSON as AWS does.
    let problems = conveyor_asl::parse(text).err().unwrap_or_default();
    let words = problems.into_iter().find(|p| p.code == "INVALID_JSON_DESCRIPTION").map(|p| p.message);
    Some(words.unwrap_or_else(|| "No content to map due to end-of-input".to_owned()))
}

/// How deep the arrays and objects of a text are nested that is JSON. Reading it into a value would stop at some depth.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest, mut is_text, mut is_escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' if !is_text => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Tokens of lists are opaque to the caller: the ARN of what the next page begins with, in base64.
mod token {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    use crate::ApiError;

    /// Adds the token of the next page, where there is one.
    pub fn put(answer: &mut Value, next: Option<String>) {
        if let Some(next) = next {
            answer["nextToken"] = STANDARD.encode(next).into();
        }
    }

    pub fn read(token: Option<&str>) -> Result<Option<String>, ApiError> {
        let Some(token) = token else { return Ok(None) };
        let bytes = STANDARD.decode(token).map_err(|_| ApiError::invalid_page_token())?;
        String::from_utf8(bytes).map(Some).map_err(|_| ApiError::invalid_page_token())
    }

    /// The last part of an ARN.
    pub fn name(arn: &str) -> &str {
        arn.rsplit(':').next().unwrap_or(arn)
    }
}
