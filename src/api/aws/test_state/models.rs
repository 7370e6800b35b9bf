//! Mocked results held against what AWS's services answer. Of a service that is not known, everything is allowed.

use conveyor_aws::{Service, pascal};
use serde_json::{Map, Value};

/// How closely a mocked result is held against its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// What is there has the right type, and nothing that is required is missing.
    Strict,
    /// What is there has the right type.
    Present,
    None,
}

/// What is wrong with a result of that resource, first found.
pub fn check(resource: &str, result: &Value, strictness: Strictness) -> Result<(), String> {
    if strictness == Strictness::None {
        return Ok(());
    }
    let Some((service, operation)) = operation_of(resource) else { return Ok(()) };
    let operation = Service::find(service).and_then(|service| service.operation(operation));
    match operation.and_then(|operation| Some((operation.service, operation.output()?))) {
        Some((service, shape)) => {
            Checking { service, strict: strictness == Strictness::Strict }.value("", shape, result)
        }
        None => Ok(()),
    }
}

/// Service and operation of `arn:aws:states:::sqs:sendMessage` and `arn:aws:states:::aws-sdk:s3:getObject`. What waits
/// for more than the operation's own answer has none.
fn operation_of(resource: &str) -> Option<(&str, &str)> {
    let (_, rest) = resource.split_once(":states:::")?;
    if rest.contains('.') || rest.ends_with(":2") {
        return None;
    }
    rest.strip_prefix("aws-sdk:").unwrap_or(rest).split_once(':')
}

struct Checking {
    service: Service,
    strict: bool,
}

impl Checking {
    fn value(&self, field: &str, shape: &str, value: &Value) -> Result<(), String> {
        let wrong = |kind: &str| match field {
            "" => Err(format!("Mocked result must be {kind}")),
            field => Err(format!("Field '{field}' must be {kind}")),
        };
        let shape = self.service.shape(shape);
        match shape.as_str() {
            Some("string" | "blob" | "timestamp") if !value.is_string() => return wrong("a string"),
            Some("integer" | "long" | "float" | "double" | "bigdecimal") if !value.is_number() => {
                return wrong("a number");
            }
            Some("boolean") if !value.is_boolean() => return wrong("a boolean"),
            Some(_) => return Ok(()),
            None => {}
        }
        if let Some(words) = shape["e"].as_array() {
            return match value {
                Value::String(_) if words.contains(value) => Ok(()),
                Value::String(_) => Err(format!("Field '{field}' is not an expected value")),
                _ => wrong("a string"),
            };
        }
        if let Some(member) = shape["l"].as_str() {
            let Value::Array(items) = value else { return wrong("an array") };
            return items.iter().try_for_each(|item| self.value(field, member, item));
        }
        let Value::Object(fields) = value else { return wrong("an object") };
        if let Some(member) = shape["v"].as_str() {
            return fields.iter().try_for_each(|(key, item)| self.value(key, member, item));
        }
        self.structure(shape, fields)
    }

    fn structure(&self, shape: &Value, fields: &Map<String, Value>) -> Result<(), String> {
        let required = shape["r"].as_array().map(Vec::as_slice).unwrap_or_default();
        for name in required.iter().filter_map(Value::as_str).map(pascal).filter(|_| self.strict) {
            if !fields.contains_key(&name) {
                return Err(format!("Required field '{name}' is missing"));
            }
        }
        for (name, member) in shape["m"].as_object().into_iter().flatten() {
            let name = pascal(name);
            // A function's answer is whatever the function says, not the text that the model has.
            let given = fields.get(&name).filter(|value| !value.is_null() && name != "Payload");
            if let (Some(value), Some(member)) = (given, member.as_str()) {
                self.value(&name, member, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_are_held_against_the_models_of_their_services() {
        let check = |resource: &str, result: Value| check(resource, &result, Strictness::Strict);
        let enum_field = |class: &str| check("arn:aws:states:::aws-sdk:s3:getObject", json!({"StorageClass": class}));
        assert_eq!(enum_field("STANDARD"), Ok(()));
        assert_eq!(enum_field("Papyrus"), Err("Field 'StorageClass' is not an expected value".into()));
        let nested = json!({"Attributes": {"id": {"L": [{"S": 7}]}}});
        assert_eq!(check("arn:aws:states:::dynamodb:putItem", nested), Err("Field 'S' must be a string".into()));
        let missing = check("arn:aws:states:::aws-sdk:sfn:startExecution", json!({}));
        assert_eq!(missing, Err("Required field 'ExecutionArn' is missing".into()));
        let anything = json!({"anything": 1});
        assert_eq!(check("arn:aws:states:::states:startExecution.sync:2", anything.clone()), Ok(()));
        assert_eq!(check("arn:aws:states:::nobody:knows", anything), Ok(()));
    }
}
