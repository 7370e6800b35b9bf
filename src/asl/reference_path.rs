//! Where a result goes: the paths of `ResultPath`.

use serde_json::Value;

use super::path::{Root, Step};
use super::{EvalError, Path};

/// A path that names one place below `$`: `$.a.b[0]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferencePath {
    path: Path,
}

impl ReferencePath {
    /// Reads a reference path. The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<ReferencePath, String> {
        let path = Path::parse(text)?;
        if *path.root() != Root::Input {
            return Err(format!("'{text}' does not begin at the input, '$'"));
        }
        match path.steps().iter().all(|step| matches!(step, Step::Key(_) | Step::Index(_))) {
            true => Ok(ReferencePath { path }),
            false => Err(format!("'{text}' does not name a single place")),
        }
    }

    /// `input` with `result` at this place. Objects on the way are made; items of arrays must exist, or be
    /// the next one. Fails where something else is in the way.
    pub fn insert(&self, mut input: Value, result: Value) -> Result<Value, EvalError> {
        match self.slot(&mut input) {
            Some(slot) => {
                *slot = result;
                Ok(input)
            }
            None => Err(EvalError {
                error: "States.ResultPathMatchFailure",
                message: format!("Unable to apply ReferencePath {} to input {input}", self.text()),
            }),
        }
    }

    /// As written in the definition.
    pub fn text(&self) -> &str {
        self.path.text()
    }

    /// The place in `value`, made where it is missing. Nothing is changed unless the whole way is free.
    fn slot<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
        if !self.is_free(value) {
            return None;
        }
        let mut place = value;
        for step in self.path.steps() {
            place = match step {
                Step::Key(key) => {
                    if !place.is_object() {
                        *place = Value::Object(serde_json::Map::new());
                    }
                    place.as_object_mut()?.entry(key.as_str()).or_insert(Value::Null)
                }
                Step::Index(index) => {
                    let items = place.as_array_mut()?;
                    let index = usize::try_from(*index).ok()?;
                    if index == items.len() {
                        items.push(Value::Null);
                    }
                    items.get_mut(index)?
                }
                _ => return None,
            };
        }
        Some(place)
    }

    fn is_free(&self, value: &Value) -> bool {
        let mut place = Some(value);
        for step in self.path.steps() {
            place = match (step, place) {
                (Step::Key(_), None) => None,
                (Step::Key(key), Some(Value::Object(fields))) => fields.get(key),
                (Step::Index(index), Some(Value::Array(items))) => match usize::try_from(*index) {
                    Ok(index) if index <= items.len() => items.get(index),
                    _ => return false,
                },
                _ => return false,
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_land_where_the_path_says() {
        for (path, input, expected) in [
            ("$", json!({"a": 1}), json!("r")),
            ("$.a", json!({"a": 1, "b": 2}), json!({"a": "r", "b": 2})),
            ("$.x.y['z']", json!({}), json!({"x": {"y": {"z": "r"}}})),
            ("$.l[1].n", json!({"l": [{}, {"n": 1, "m": 2}]}), json!({"l": [{}, {"n": "r", "m": 2}]})),
            ("$.l[1]", json!({"l": [0]}), json!({"l": [0, "r"]})),
        ] {
            assert_eq!(ReferencePath::parse(path).unwrap().insert(input, json!("r")), Ok(expected), "{path}");
        }
    }

    #[test]
    fn something_in_the_way_is_a_match_failure() {
        for (path, input) in [
            ("$.someTaskResult", json!("input1")),
            ("$.a.b", json!({"a": 1})),
            ("$.a.b", json!({"a": null})),
            ("$.l[5]", json!({"l": [0]})),
            ("$.l.x", json!({"l": [0]})),
            ("$[0]", json!({})),
        ] {
            let failed = ReferencePath::parse(path).unwrap().insert(input.clone(), json!(1)).unwrap_err();
            assert_eq!(failed.error, "States.ResultPathMatchFailure");
            assert_eq!(failed.message, format!("Unable to apply ReferencePath {path} to input {input}"));
        }
        for text in ["$.a[*]", "$..a", "$.a[1:2]", "$$.a", "$v.a", "$.a[?(@.b)]", "a"] {
            assert!(ReferencePath::parse(text).is_err(), "{text}");
        }
    }
}
