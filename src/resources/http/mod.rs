//! `http:invoke`: HTTP endpoints as Tasks, authorised by the box's connections.
//!
//! Never shows a secret: what a connection adds is in the request only, not in parameters, results, errors or logs.

mod connections;
mod egress;
mod encode;
pub mod gateway;

use std::sync::Arc;
use std::time::Duration;

use conveyor_base::{TaskError, fault};
use conveyor_interpreter::RunTask;
use conveyor_run::Demand;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::{Map, Value, json};

pub use connections::{ConnectionSettings, Connections};

use super::{Adapter, Call, CallFuture, CallOutcome, aws, bounded};

/// How long a call may take, and how much of an answer is read, in bytes (Step Functions' own).
const TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 262_144;
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"];
/// Headers that a definition may not set (developer guide, "Call HTTPS APIs").
const HEADERS_REFUSED: [&str; 15] = [
    "authorization",
    "connection",
    "content-md5",
    "date",
    "expect",
    "host",
    "max-forwards",
    "proxy-authenticate",
    "server",
    "te",
    "transfer-encoding",
    "trailer",
    "upgrade",
    "via",
    "www-authenticate",
];

fn method(p: &Value, resource: &str) -> Result<&'static str, TaskError> {
    let method = aws::require_text(p, "Method", resource)?;
    let known = METHODS.into_iter().find(|known| *known == method);
    known.ok_or_else(|| runtime(format!("The field 'Method' has an unsupported value: {}", p["Method"])))
}

/// The headers that a definition sets, with their values. Names are in lower case.
fn own_headers(p: &Value) -> Result<Vec<(String, Vec<String>)>, TaskError> {
    let headers = p.get("Headers").and_then(Value::as_object).into_iter().flatten();
    let checked = headers.map(|(name, value)| {
        let lower = name.to_lowercase();
        let refused = ["x-forwarded", "x-amz-", "x-amzn"].iter().any(|start| lower.starts_with(start));
        if refused || HEADERS_REFUSED.contains(&lower.as_str()) {
            return Err(runtime(format!("The header '{name}' cannot be set by a definition")));
        }
        Ok((lower, encode::values(value)))
    });
    checked.collect()
}

pub const NAMES: &[&str] = &["http:invoke"];

pub fn adapter(connections: &Arc<Connections>, region: &str) -> Arc<dyn Adapter> {
    Arc::new(Invoking { connections: connections.clone(), region: region.to_owned() })
}

struct Invoking {
    connections: Arc<Connections>,
    region: String,
}

impl Adapter for Invoking {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        Some(Demand::disks())
    }

    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.invoke(call))
    }
}

impl Invoking {
    async fn invoke(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let p = &call.parameters;
        let connection =
            p["Authentication"]["ConnectionArn"].as_str().or(p["InvocationConfig"]["ConnectionArn"].as_str());
        let connection = connection.ok_or_else(|| {
            runtime("The field 'Authentication.ConnectionArn' is missing in the Arguments of http:invoke")
        })?;
        let connections = &self.connections;
        let name = connection_name(connection);
        if !connections.has(name) {
            let what = format!("Connection {connection} does not exist; add [connections.{name}] to the configuration");
            return Err(TaskError::new("Events.ConnectionResource.NotFound", what));
        }
        let request = Prepared::of(p, connections.body_of(name), &self.region)?;
        let exchange = async {
            let answer = request.send(connections, name).await?;
            // A token that was taken back early is asked for once more.
            if matches!(answer.status().as_u16(), 401 | 407) && connections.forget_token(name) {
                return request.send(connections, name).await;
            }
            Ok(answer)
        };
        let whole = async { read(exchange.await?).await };
        match tokio::time::timeout(TIMEOUT, whole).await {
            Ok(answer) => answer.map(CallOutcome::done),
            Err(_) => Err(socket(format!("no answer from {} within {} s", request.place(), TIMEOUT.as_secs()))),
        }
    }
}

/// A request, but for what the connection adds.
struct Prepared {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
}

impl Prepared {
    fn of(p: &Value, extra: &Map<String, Value>, region: &str) -> Result<Prepared, TaskError> {
        let endpoint = aws::require_text(p, "ApiEndpoint", "http:invoke")?;
        let mut url = Url::parse(endpoint)
            .map_err(|e| runtime(format!("The field 'ApiEndpoint' is no address: '{endpoint}' ({e})")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(runtime(format!(
                "The field 'ApiEndpoint' must be an HTTPS URL without user and password: '{}'",
                without_secrets(&url)
            )));
        }
        let method = Method::from_bytes(method(p, "http:invoke")?.as_bytes()).map_err(|e| runtime(e.to_string()))?;
        url.query_pairs_mut().extend_pairs(encode::pairs(&p["QueryParameters"]));
        if url.query() == Some("") {
            url.set_query(None);
        }
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", header_value(&format!("Amazon|StepFunctions|HttpInvoke|{region}"))?);
        headers.insert("range", header_value(&format!("bytes=0-{ANSWER_BYTES_MAX}"))?);
        for (name, values) in own_headers(p)? {
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| runtime(format!("'{name}' is no header")))?;
            headers.remove(&name);
            for text in values {
                headers.append(&name, header_value(&text)?);
            }
        }
        let body = body(p, extra, &mut headers)?;
        Ok(Prepared { method, url, headers, body })
    }

    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    async fn send(&self, connections: &Connections, name: &str) -> Result<reqwest::Response, TaskError> {
        let client = connections.client(name, &self.url).map_err(|what| socket(format!("{}: {what}", self.place())))?;
        let mut request = client.request(self.method.clone(), self.url.clone()).headers(self.headers.clone());
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        let request = connections.authorise(name, request).await;
        let request =
            request.map_err(|what| TaskError::new("Events.ConnectionResource.InvalidConnectionState", what))?;
        request.send().await.map_err(|e| socket(format!("{}: {}", self.place(), fault::chain(&e.without_url()))))
    }
}

/// The body as it is sent; sets its type where the definition does not.
fn body(p: &Value, extra: &Map<String, Value>, headers: &mut HeaderMap) -> Result<Option<String>, TaskError> {
    let mut body = p.get("RequestBody").cloned().unwrap_or(Value::Null);
    if !extra.is_empty() && (body.is_null() || body.is_object()) {
        let mut whole = extra.clone();
        whole.extend(body.as_object().cloned().unwrap_or_default());
        body = Value::Object(whole);
    }
    if body.is_null() {
        return Ok(None);
    }
    let transform = p.get("Transform").unwrap_or(&Value::Null);
    if transform["RequestBodyEncoding"] == "URL_ENCODED" {
        let format = transform["RequestEncodingOptions"]["ArrayFormat"].as_str().unwrap_or("INDICES");
        let form = "application/x-www-form-urlencoded";
        let kind = headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/x-www-form-urlencoded"));
        if !kind.to_str().is_ok_and(|kind| kind.starts_with(form)) {
            return Err(runtime(format!("RequestBodyEncoding URL_ENCODED needs the Content-Type {form}")));
        }
        return encode::form(&body, format).map(Some).map_err(runtime);
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Ok(Some(match body {
        Value::String(text) => text,
        json => json.to_string(),
    }))
}

/// The task's result, or the error that the status stands for.
async fn read(response: reqwest::Response) -> Result<Value, TaskError> {
    let status = response.status();
    let headers = response.headers().iter();
    let headers: Vec<(String, String)> =
        headers.map(|(k, v)| (k.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
    let body = bounded::body(response, ANSWER_BYTES_MAX).await;
    let body = body.map_err(|e| socket(fault::chain(&e.without_url())))?.ok_or_else(|| {
        let what = format!("The answer has more than {ANSWER_BYTES_MAX} bytes; a state's result has at most that many");
        TaskError::new("States.DataLimitExceeded", what)
    })?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if !status.is_success() {
        return Err(TaskError::new(format!("States.Http.StatusCode.{}", status.as_u16()), text));
    }
    Ok(shown(status, &headers, text))
}

/// An answer as a task's result.
fn shown(status: StatusCode, headers: &[(String, String)], text: String) -> Value {
    let mut lists: Map<String, Value> = Map::new();
    for (name, value) in headers {
        let list = lists.entry(name.clone()).or_insert_with(|| json!([]));
        list.as_array_mut().into_iter().for_each(|list| list.push(json!(value)));
    }
    let is_json = headers.iter().any(|(name, value)| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        name == CONTENT_TYPE.as_str() && (kind == "application/json" || kind.ends_with("+json"))
    });
    let body = if is_json { serde_json::from_str(&text).unwrap_or(Value::String(text)) } else { Value::String(text) };
    json!({
        "Headers": lists,
        "ResponseBody": body,
        "StatusCode": status.as_u16(),
        "StatusText": status.canonical_reason().unwrap_or_default(),
    })
}

/// `arn:aws:events:REGION:ACCOUNT:connection/NAME/ID`, of any region and account.
fn connection_name(arn: &str) -> &str {
    arn.split_once(":connection/").map_or(arn, |(_, rest)| rest.split('/').next().unwrap_or(rest))
}

fn without_secrets(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn header_value(text: &str) -> Result<HeaderValue, TaskError> {
    HeaderValue::from_str(text).map_err(|_| runtime("a header's value has characters that headers cannot have"))
}

fn runtime(what: impl Into<String>) -> TaskError {
    TaskError::new("States.Runtime", what)
}

fn socket(what: impl Into<String>) -> TaskError {
    TaskError::new("States.Http.Socket", what)
}
