//! A value that a field asks for: a path, a call of an intrinsic function, or a JSONata expression.

use std::borrow::Cow;

use serde_json::Value;

use super::{ContextUse, EvalError, Intrinsic, Jsonata, Path, Scope};

/// A path, an intrinsic call or an expression.
#[derive(Debug)]
pub enum Query {
    Path(Path),
    Intrinsic(Intrinsic),
    Jsonata(Box<Jsonata>),
}

impl Query {
    /// Reads a path (`$…`) or an intrinsic call (`States.…`). The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Query, String> {
        if text.starts_with('$') {
            Path::parse(text).map(Query::Path)
        } else {
            Intrinsic::parse(text).map(Query::Intrinsic)
        }
    }

    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        self.get(scope).map(Cow::into_owned)
    }

    /// As [`Query::eval`], without a copy where the value stands in the scope as it is.
    pub fn get<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, EvalError> {
        match self {
            Query::Path(path) => path.get(scope),
            Query::Intrinsic(call) => call.eval(scope).map(Cow::Owned),
            Query::Jsonata(expression) => expression.eval(scope).map(Cow::Owned),
        }
    }

    /// What it reads of the context object.
    pub fn context_use(&self) -> ContextUse {
        match self {
            Query::Path(path) => path.context_use(),
            Query::Intrinsic(call) => call.context_use(),
            Query::Jsonata(expression) => expression.context_use(),
        }
    }

    /// As written in the definition.
    pub fn text(&self) -> &str {
        match self {
            Query::Path(path) => path.text(),
            Query::Intrinsic(call) => call.text(),
            Query::Jsonata(expression) => expression.text(),
        }
    }
}
