//! How an expression is refused or fails, in the words of the reference implementation (jsonata-js, `errorCodes`).

use super::value::Val;

/// A fault of an expression: of its text, or of one evaluation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// JSONata's code, such as `T2001`; empty where a bound of this evaluator was met.
    pub code: &'static str,
    pub message: String,
    /// Where in the expression's text, in bytes, as far as known.
    pub at: usize,
}

/// What evaluates to something or fails.
pub(super) type Result<T> = std::result::Result<T, Box<Fault>>;

impl Fault {
    pub(super) fn new(code: &'static str, at: usize, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { code, message: message.into(), at })
    }

    /// Too many steps, or too much made.
    pub(super) fn timeout() -> Box<Fault> {
        Fault::new("", 0, "Expression evaluation timeout: Check for infinite loop")
    }

    /// Too deep.
    pub(super) fn too_deep() -> Box<Fault> {
        let message = "Stack overflow error: Check for non-terminating recursive function.  Consider rewriting as tail-recursive.";
        Fault::new("", 0, message)
    }

    /// A fault that shows a value.
    pub(super) fn of(code: &'static str, at: usize, before: &str, value: &Val, after: &str) -> Box<Fault> {
        Fault::new(code, at, format!("{before}{}{after}", shown(value)))
    }
}

/// A value as messages show it: JSON, cut where it is long.
pub(super) fn shown(value: &Val) -> String {
    const SHOWN_BYTES_MAX: usize = 1_000;
    let mut text = value.to_json_text();
    if text.len() > SHOWN_BYTES_MAX {
        let end = (0..=SHOWN_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A text as messages show it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
