//! Where a result goes: the paths of `ResultPath`.

use serde_json::Value;

use super::Path;
use super::path::{Root, Step};

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

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `input` with `result` at this place. Objects on the way are made; items of arrays must exist, or be
    /// the next one. Fails where something else is in the way, in AWS's words.
    pub fn insert(&self, mut input: Value, result: Value) -> Result<Value, String> {
        if let Some(obstacle) = self.obstacle(&input) {
            return Err(obstacle);
        }
        if let Some(slot) = self.slot(&mut input) {
            *slot = result;
        }
        Ok(input)
    }

    /// As written in the definition.
    pub fn text(&self) -> &str {
        self.path.text()
    }

    /// The place in `value`, made where it is missing. There is one where there is no obstacle.
    fn slot<'a>(&self, value: &'a mut Value) -> Option<&'a mut Value> {
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

    /// What stands where a step of the path leads through.
    fn obstacle(&self, value: &Value) -> Option<String> {
        let mut place = Some(value);
        for step in self.path.steps() {
            place = match (step, place) {
                (Step::Key(_), None) => None,
                (Step::Key(key), Some(Value::Object(fields))) => fields.get(key),
                (Step::Index(index), Some(Value::Array(items)))
                    if usize::try_from(*index).is_ok_and(|index| index <= items.len()) =>
                {
                    items.get(usize::try_from(*index).ok()?)
                }
                (step, place) => {
                    let shown = place.map_or_else(|| "null".to_owned(), Value::to_string);
                    let step = match step {
                        Step::Index(index) => index.to_string(),
                        Step::Key(key) => key.clone(),
                        _ => String::new(),
                    };
                    return Some(format!("Unable to apply step \"{step}\" to input {shown}"));
                }
            };
        }
        None
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
    fn something_in_the_way_is_named() {
        for (path, input, says) in [
            ("$.someTaskResult", json!("input1"), r#"Unable to apply step "someTaskResult" to input "input1""#),
            ("$.a.b", json!({"a": 1}), r#"Unable to apply step "b" to input 1"#),
            ("$.a.b", json!({"a": null}), r#"Unable to apply step "b" to input null"#),
            ("$.l[5]", json!({"l": [0]}), r#"Unable to apply step "5" to input [0]"#),
            ("$.l.x", json!({"l": [0]}), r#"Unable to apply step "x" to input [0]"#),
            ("$.n[0]", json!({}), r#"Unable to apply step "0" to input null"#),
        ] {
            let failed = ReferencePath::parse(path).unwrap().insert(input, json!(1));
            assert_eq!(failed, Err(says.to_owned()), "{path}");
        }
        for text in ["$.a[*]", "$..a", "$.a[1:2]", "$$.a", "$v.a", "$.a[?(@.b)]", "a"] {
            assert!(ReferencePath::parse(text).is_err(), "{text}");
        }
    }
}
