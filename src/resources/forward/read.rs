//! A service's answer as the Task's result: names with a capital, times as ISO texts, bytes as text where they are text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use conveyor_aws::{Operation, Protocol, Service, pascal};
use serde_json::{Map, Value, json};

use super::endpoint::Response;
use super::xml::{self, LocalName};
use super::{ServiceError, nothing, times};

pub fn answer(operation: Operation, response: &Response) -> Result<Value, String> {
    let service = operation.service;
    let Some(shape) = operation.output() else { return Ok(nothing()) };
    match service.protocol() {
        Protocol::Json => Ok(json_of(service, shape, &json_body(operation, response)?)),
        Protocol::Query => {
            let text = response.text();
            let document = parsed(operation, &text)?;
            let root = document.root_element();
            let wrapper =
                operation.result_wrapper().and_then(|name| root.children().find(|c| c.has_tag_name_local(name)));
            Ok(xml::value_of(service, shape, wrapper.unwrap_or(root)))
        }
        Protocol::RestJson | Protocol::RestXml => rest(operation, shape, response),
    }
}

fn json_body(operation: Operation, response: &Response) -> Result<Value, String> {
    if response.body.trim_ascii().is_empty() {
        return Ok(nothing());
    }
    serde_json::from_slice(&response.body).map_err(|e| format!("{} answered with what is no JSON: {e}", operation.name))
}

fn parsed<'t>(operation: Operation, text: &'t str) -> Result<roxmltree::Document<'t>, String> {
    roxmltree::Document::parse(text).map_err(|e| format!("{} answered with what is no XML: {e}", operation.name))
}

/// JSON of the wire by its shape. Fields that the model does not have are left out, as SDKs do.
fn json_of(service: Service, shape: &str, value: &Value) -> Value {
    let model = service.shape(shape);
    if let (Some(fields), Value::Object(given)) = (model["m"].as_object(), value) {
        let read = fields.iter().filter_map(|(name, member)| {
            let on_wire = model["f"][name]["n"].as_str().unwrap_or(name);
            let given = given.get(on_wire).filter(|given| !given.is_null())?;
            Some((pascal(name), json_of(service, member.as_str().unwrap_or_default(), given)))
        });
        return Value::Object(read.collect());
    }
    match (model["l"].as_str(), model["v"].as_str(), value) {
        (Some(member), _, Value::Array(items)) => items.iter().map(|item| json_of(service, member, item)).collect(),
        (_, Some(member), Value::Object(items)) => {
            Value::Object(items.iter().map(|(key, item)| (key.clone(), json_of(service, member, item))).collect())
        }
        _ => match model.as_str() {
            Some("timestamp") => times::read(value),
            Some("blob") => unpacked(value),
            _ => value.clone(),
        },
    }
}

/// Bytes that are text are shown as text.
fn unpacked(value: &Value) -> Value {
    let bytes = value.as_str().and_then(|text| BASE64.decode(text).ok());
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map_or_else(|| value.clone(), Value::String)
}

fn rest(operation: Operation, shape: &str, response: &Response) -> Result<Value, String> {
    let service = operation.service;
    let model = service.shape(shape);
    let is_json = service.protocol() == Protocol::RestJson;
    let mut read = Map::new();
    let body_of = |shape: &str| -> Result<Value, String> {
        if is_json {
            return Ok(json_of(service, shape, &json_body(operation, response)?));
        }
        let text = response.text();
        if text.trim().is_empty() {
            return Ok(nothing());
        }
        Ok(xml::value_of(service, shape, parsed(operation, &text)?.root_element()))
    };
    match model["p"].as_str() {
        Some(payload) => {
            let shape = model["m"][payload].as_str().unwrap_or_default();
            let value = match service.shape(shape).as_str() {
                Some("blob" | "string") => json!(response.text()),
                _ => body_of(shape)?,
            };
            read.insert(pascal(payload), value);
        }
        None => {
            if let Value::Object(fields) = body_of(shape)? {
                read.extend(fields);
            }
        }
    }
    for (name, traits) in model["f"].as_object().into_iter().flatten() {
        let on_wire = traits["n"].as_str().unwrap_or(name);
        let shape = service.shape(model["m"][name].as_str().unwrap_or_default());
        match traits["l"].as_str() {
            Some("statusCode") => drop(read.insert(pascal(name), json!(response.status))),
            Some("header") => {
                if let Some(text) = response.header(on_wire) {
                    read.insert(pascal(name), xml::typed(shape, text));
                }
            }
            Some("headers") => {
                let prefix = on_wire.to_ascii_lowercase();
                let found =
                    response.headers.iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?.to_owned(), json!(v))));
                read.insert(pascal(name), Value::Object(found.collect()));
            }
            _ => {}
        }
    }
    Ok(Value::Object(read))
}

/// What the service says went wrong.
pub fn error(service: Service, response: &Response) -> ServiceError {
    let text = response.text();
    let (code, message) = match service.protocol() {
        Protocol::Json | Protocol::RestJson => {
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            let said = |names: &[&str]| names.iter().find_map(|name| body[name].as_str().map(str::to_owned));
            let code =
                response.header("x-amzn-errortype").map(str::to_owned).or_else(|| said(&["__type", "code", "Code"]));
            (code, said(&["message", "Message", "errorMessage"]))
        }
        Protocol::Query | Protocol::RestXml => {
            let document = roxmltree::Document::parse(&text).ok();
            let said = |name: &str| {
                let node = document.as_ref()?.descendants().find(|node| node.has_tag_name_local(name))?;
                Some(node.text().unwrap_or_default().to_owned())
            };
            (said("Code"), said("Message"))
        }
    };
    let code = code.unwrap_or_default();
    // `namespace#Code:documentation`
    let code = code.rsplit('#').next().and_then(|code| code.split(':').next()).unwrap_or_default().to_owned();
    let message = message.unwrap_or_else(|| text.chars().take(500).collect());
    // Services that spoke the query protocol before say what they called the error then.
    match response.header("x-amzn-query-error").and_then(|said| said.split(';').next()) {
        Some(older) => ServiceError { code: older.to_owned(), shape: Some(code), message },
        None => ServiceError { code, shape: None, message },
    }
}
