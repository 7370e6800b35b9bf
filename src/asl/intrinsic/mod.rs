//! The intrinsic functions, `States.…`.

use serde_json::Value;

use super::{EvalError, Scope};

/// A call of an intrinsic function.
#[derive(Clone, Debug, PartialEq)]
pub struct Intrinsic {
    text: String,
}

impl Intrinsic {
    /// The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Intrinsic, String> {
        Ok(Intrinsic { text: text.to_owned() })
    }

    pub fn eval(&self, _scope: &Scope) -> Result<Value, EvalError> {
        Err(EvalError::intrinsic(format!("The function '{}' is not known", self.text)))
    }

    /// As written in the definition.
    pub fn text(&self) -> &str {
        &self.text
    }
}
