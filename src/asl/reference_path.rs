//! Where a result goes: the paths of `ResultPath`.

use serde_json::Value;

use super::EvalError;

/// A path that names one place: `$.a.b[0]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferencePath {
    text: String,
}

impl ReferencePath {
    /// The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<ReferencePath, String> {
        Ok(ReferencePath { text: text.to_owned() })
    }

    /// `input` with `result` at this place; objects on the way are made.
    /// Fails with `States.ResultPathMatchFailure` where something that is no object is in the way.
    pub fn insert(&self, mut input: Value, result: Value) -> Result<Value, EvalError> {
        let mut place = &mut input;
        for key in self.text.split('.').skip(1) {
            place = place
                .as_object_mut()
                .ok_or_else(|| EvalError { error: "States.ResultPathMatchFailure", message: String::new() })?
                .entry(key)
                .or_insert_with(|| Value::Object(Default::default()));
        }
        *place = result;
        Ok(input)
    }

    /// As written in the definition.
    pub fn text(&self) -> &str {
        &self.text
    }
}
