//! JSONPath as AWS takes it.

use std::borrow::Cow;

use serde_json::Value;

use super::{EvalError, Scope};

/// A JSONPath.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    text: String,
}

impl Path {
    /// The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Path, String> {
        if text.starts_with('$') {
            Ok(Path { text: text.to_owned() })
        } else {
            Err(format!("'{text}' is not a valid JSONPath"))
        }
    }

    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        self.get(scope).map(Cow::into_owned)
    }

    /// As [`Path::eval`], without a copy where the value stands in the scope as it is.
    /// Fails with the wording of `InputPath` and `OutputPath`.
    pub fn get<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, EvalError> {
        self.find(scope).map_err(|reason| EvalError::runtime(format!("Invalid path '{}' : {reason}", self.text)))
    }

    /// As [`Path::get`], for fields that word a miss themselves: the error is the reason alone.
    pub fn find<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, String> {
        let (mut value, rest) = match self.text.strip_prefix("$$") {
            Some(rest) => (scope.context, rest),
            None => (scope.input, &self.text[1..]),
        };
        for key in rest.split('.').skip(1) {
            value = value.get(key).ok_or_else(|| format!("No results for path: {}", self.text))?;
        }
        Ok(Cow::Borrowed(value))
    }

    /// As written in the definition.
    pub fn text(&self) -> &str {
        &self.text
    }
}
