//! A Task's parameters as a request of the service's protocol (Smithy's AWS protocols: awsJson, awsQuery, restJson1,
//! restXml).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use conveyor_aws::{Operation, Protocol, Service};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::times::{self, Form};
use super::{content_type, field, text_of, xml};

/// A request before it is signed.
pub struct Request {
    pub method: &'static str,
    /// Path and query, escaped.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// RFC 3986's unreserved characters stay; in paths of many parts the slash as well.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const ESCAPED_PARTS: &AsciiSet = &ESCAPED.remove(b'/');

pub fn request(operation: Operation, parameters: &Value) -> Result<Request, String> {
    let service = operation.service;
    match service.protocol() {
        Protocol::Json => {
            let body = match operation.input() {
                Some(shape) => json_of(service, shape, parameters)?,
                None => json!({}),
            };
            let target = format!("{}.{}", service.target_prefix(), operation.name);
            Ok(Request {
                method: "POST",
                path: "/".to_owned(),
                headers: vec![header("content-type", content_type(service)), header("x-amz-target", &target)],
                body: body.to_string().into_bytes(),
            })
        }
        Protocol::Query => {
            let mut form = vec![header("Action", operation.name), header("Version", service.api_version())];
            if let Some(shape) = operation.input() {
                flatten(service, shape, parameters, "", &mut form)?;
            }
            Ok(Request {
                method: "POST",
                path: "/".to_owned(),
                headers: vec![header("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
                body: query_of(&form).into_bytes(),
            })
        }
        Protocol::RestJson | Protocol::RestXml => rest(operation, parameters),
    }
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn query_of(pairs: &[(String, String)]) -> String {
    let escaped = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let pairs = pairs.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A value as JSON of its shape: names as on the wire, texts where texts belong.
pub fn json_of(service: Service, shape: &str, value: &Value) -> Result<Value, String> {
    let model = service.shape(shape);
    if let Some(fields) = model["m"].as_object() {
        let mut written = Map::new();
        for (name, member) in fields {
            let Some(given) = field(value, name) else { continue };
            let traits = &model["f"][name];
            let member = member.as_str().unwrap_or_default();
            let given = match service.shape(member).as_str() {
                Some("timestamp") => times::written(given, Form::named(traits["t"].as_str(), Form::Seconds))?,
                _ => json_of(service, member, given)?,
            };
            written.insert(traits["n"].as_str().unwrap_or(name).to_owned(), given);
        }
        return Ok(Value::Object(written));
    }
    if let (Some(member), Value::Array(items)) = (model["l"].as_str(), value) {
        return items.iter().map(|item| json_of(service, member, item)).collect::<Result<_, _>>().map(Value::Array);
    }
    if let (Some(member), Value::Object(items)) = (model["v"].as_str(), value) {
        let items = items.iter().map(|(key, item)| Ok((key.clone(), json_of(service, member, item)?)));
        return items.collect::<Result<_, String>>().map(Value::Object);
    }
    Ok(match model.as_str() {
        Some("blob") => json!(BASE64.encode(text_of(value))),
        Some("timestamp") => times::written(value, Form::Seconds)?,
        Some("string") if value.is_object() || value.is_array() => json!(value.to_string()),
        _ => value.clone(),
    })
}

/// The query protocol: `A.B.member.1.C=value`.
fn flatten(
    service: Service,
    shape: &str,
    value: &Value,
    prefix: &str,
    form: &mut Vec<(String, String)>,
) -> Result<(), String> {
    let model = service.shape(shape);
    let below = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    if let Some(fields) = model["m"].as_object() {
        for (name, member) in fields {
            let Some(given) = field(value, name) else { continue };
            let on_wire = model["f"][name]["n"].as_str().unwrap_or(name);
            flatten(service, member.as_str().unwrap_or_default(), given, &below(on_wire), form)?;
        }
        return Ok(());
    }
    let is_flat = model["f"] == true;
    if let (Some(member), Value::Array(items)) = (model["l"].as_str(), value) {
        let list = if is_flat { prefix.to_owned() } else { below(model["n"].as_str().unwrap_or("member")) };
        for (at, item) in items.iter().enumerate() {
            flatten(service, member, item, &format!("{list}.{}", at + 1), form)?;
        }
        return Ok(());
    }
    if let (Some(member), Value::Object(items)) = (model["v"].as_str(), value) {
        let map = if is_flat { prefix.to_owned() } else { below("entry") };
        let [key_name, value_name] =
            [(0, "key"), (1, "value")].map(|(at, usual)| model["n"][at].as_str().unwrap_or(usual));
        for (at, (key, item)) in items.iter().enumerate() {
            let entry = format!("{map}.{}", at + 1);
            form.push((format!("{entry}.{key_name}"), key.clone()));
            flatten(service, member, item, &format!("{entry}.{value_name}"), form)?;
        }
        return Ok(());
    }
    form.push((prefix.to_owned(), scalar(model, value, Form::Iso)?));
    Ok(())
}

/// A single value as text.
pub fn scalar(model: &Value, value: &Value, form: Form) -> Result<String, String> {
    Ok(match model.as_str() {
        Some("blob") => BASE64.encode(text_of(value)),
        Some("timestamp") => text_of(&times::written(value, form)?),
        _ => text_of(value),
    })
}

/// The REST protocols: fields go to the path, the query, the headers or the body.
fn rest(operation: Operation, parameters: &Value) -> Result<Request, String> {
    let service = operation.service;
    let (method, template) = operation.http();
    let (path, fixed) = template.split_once('?').unwrap_or((template, ""));
    let mut request = Request { method, path: path.to_owned(), headers: Vec::new(), body: Vec::new() };
    let mut query: Vec<(String, String)> = fixed
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(n, v)| header(n, v))
        .collect();
    let Some(input) = operation.input() else { return Ok(finished(request, &query)) };
    let model = service.shape(input);
    let mut in_body = false;
    for (name, member) in model["m"].as_object().into_iter().flatten() {
        let traits = &model["f"][name];
        let Some(location) = traits["l"].as_str() else {
            in_body = true;
            continue;
        };
        let Some(given) = field(parameters, name) else { continue };
        let on_wire = traits["n"].as_str().unwrap_or(name);
        let shape = service.shape(member.as_str().unwrap_or_default());
        let text = |value: &Value, usual| scalar(shape, value, Form::named(traits["t"].as_str(), usual));
        match (location, given) {
            ("uri", _) => {
                let value = text(given, Form::Iso)?;
                request.path =
                    request.path.replace(&format!("{{{on_wire}}}"), &utf8_percent_encode(&value, ESCAPED).to_string());
                let parts = utf8_percent_encode(&value, ESCAPED_PARTS).to_string();
                request.path = request.path.replace(&format!("{{{on_wire}+}}"), &parts);
            }
            ("querystring", Value::Array(items)) => query.extend(items.iter().map(|v| header(on_wire, &text_of(v)))),
            ("querystring", Value::Object(items)) => query.extend(items.iter().map(|(k, v)| header(k, &text_of(v)))),
            ("querystring", _) => query.push((on_wire.to_owned(), text(given, Form::Iso)?)),
            ("headers", Value::Object(items)) => {
                request.headers.extend(items.iter().map(|(k, v)| (format!("{on_wire}{k}"), text_of(v))));
            }
            (_, _) => request.headers.push((on_wire.to_ascii_lowercase(), text(given, Form::Http)?)),
        }
    }
    if let Some(missing) = request.path.split('{').nth(1).and_then(|rest| rest.split('}').next()) {
        return Err(format!("{}: the parameter {} is missing", operation.name, missing.trim_end_matches('+')));
    }
    body(operation, model, parameters, in_body, &mut request)?;
    Ok(finished(request, &query))
}

fn finished(mut request: Request, query: &[(String, String)]) -> Request {
    if !query.is_empty() {
        request.path = format!("{}?{}", request.path, query_of(query));
    }
    request
}

fn body(
    operation: Operation,
    model: &Value,
    parameters: &Value,
    in_body: bool,
    request: &mut Request,
) -> Result<(), String> {
    let service = operation.service;
    let is_json = service.protocol() == Protocol::RestJson;
    let written = match (model["p"].as_str(), operation.input()) {
        (Some(payload), _) => {
            let Some(given) = field(parameters, payload) else { return Ok(()) };
            let shape = model["m"][payload].as_str().unwrap_or_default();
            if matches!(service.shape(shape).as_str(), Some("blob" | "string")) {
                request.body = text_of(given).into_bytes();
                return Ok(());
            }
            if is_json {
                json_of(service, shape, given)?.to_string()
            } else {
                let element = model["f"][payload]["n"].as_str().unwrap_or(payload);
                xml::document(service, shape, given, element, model["f"][payload]["x"].as_str())?
            }
        }
        (None, Some(input)) if in_body && is_json => {
            let Value::Object(mut fields) = json_of(service, input, parameters)? else { return Ok(()) };
            for (name, traits) in
                model["f"].as_object().into_iter().flatten().filter(|(_, traits)| traits["l"].is_string())
            {
                fields.remove(traits["n"].as_str().unwrap_or(name));
            }
            Value::Object(fields).to_string()
        }
        (None, Some(input)) if in_body => {
            let (element, namespace) = operation.body_element();
            xml::document(service, input, parameters, element.unwrap_or(input), namespace)?
        }
        _ => return Ok(()),
    };
    request.headers.push(header("content-type", if is_json { "application/json" } else { "application/xml" }));
    request.body = written.into_bytes();
    Ok(())
}
