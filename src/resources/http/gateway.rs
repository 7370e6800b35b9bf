//! `apigateway:invoke`: the APIs of API Gateway as Tasks (developer guide, "Call API Gateway with Step Functions").
//!
//! A box has no API of its own to serve: every call goes through the endpoint of `[aws]`.

use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_interpreter::RunTask;
use conveyor_run::Demand;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::StatusCode;
use serde_json::Value;

use super::encode::pairs;
use super::{method, own_headers, runtime, shown};
use crate::forward::{Endpoint, Request};
use crate::{Adapter, Call, CallFuture, CallOutcome, aws};

const RESOURCE: &str = "apigateway:invoke";
/// What stays as it is in a path and in a query.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub const NAMES: &[&str] = &["apigateway:invoke", "apigateway:invoke.waitForTaskToken"];

pub fn adapter(endpoint: &Arc<Endpoint>) -> Arc<dyn Adapter> {
    Arc::new(Invoking(endpoint.clone()))
}

struct Invoking(Arc<Endpoint>);

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
        let host = aws::require_text(p, "ApiEndpoint", RESOURCE)?;
        let is_api = host.split_once('.').is_some_and(|(id, rest)| {
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()) && rest.starts_with("execute-api.")
        });
        if !is_api || host.contains(['/', '@', '?', '#']) {
            let what =
                format!("The field 'ApiEndpoint' must be an API's host, ID.execute-api.REGION.amazonaws.com: '{host}'");
            return Err(runtime(what));
        }
        let sign = match p.get("AuthType").and_then(Value::as_str).unwrap_or("NO_AUTH") {
            "NO_AUTH" => false,
            "IAM_ROLE" | "RESOURCE_POLICY" => true,
            other => return Err(runtime(format!("The field 'AuthType' has an unsupported value: {other}"))),
        };
        let request = request(p)?;
        let client = |what: String| TaskError::new("ApiGateway.SdkClientException", what);
        let answer = self.0.send_to_api(host, request, sign).await.map_err(client)?;
        let status = StatusCode::from_u16(answer.status).map_err(|e| client(e.to_string()))?;
        if !status.is_success() {
            return Err(TaskError::new(format!("ApiGateway.{}", answer.status), answer.text()));
        }
        let text = answer.text();
        Ok(CallOutcome::done(shown(status, &answer.headers, text)))
    }
}

fn request(p: &Value) -> Result<Request, TaskError> {
    let method = method(p, RESOURCE)?;
    let mut path = String::new();
    for part in ["Stage", "Path"].into_iter().filter_map(|name| p.get(name)?.as_str()) {
        let part = part.trim_start_matches('/');
        if !part.is_empty() {
            path.push('/');
            path.extend(utf8_percent_encode(part, PATH));
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    let escaped = |text: &str| utf8_percent_encode(text, QUERY).to_string();
    let pairs = pairs(&p["QueryParameters"]);
    let query: Vec<String> = pairs.map(|(name, value)| format!("{}={}", escaped(name), escaped(&value))).collect();
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let mut headers = Vec::new();
    for (name, values) in own_headers(p)? {
        headers.extend(values.into_iter().map(|text| (name.clone(), text)));
    }
    let body = match p.get("RequestBody") {
        None | Some(Value::Null) => Vec::new(),
        Some(body) => {
            if !headers.iter().any(|(name, _)| name == "content-type") {
                headers.push(("content-type".to_owned(), "application/json".to_owned()));
            }
            match body {
                Value::String(text) => text.clone().into_bytes(),
                json => json.to_string().into_bytes(),
            }
        }
    };
    Ok(Request { method, path, headers, body })
}
