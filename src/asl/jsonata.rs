//! JSONata as fields of a definition hold it, `{% … %}`: compiled expressions, and how they fail in AWS's words.
//!
//! The language itself is [`crate::jsonata`]; here stand the rules of the States Language around it: what
//! `$states` holds, which variables there are, that nothing (undefined) and functions are no results.

use serde_json::Value;

use super::{EvalError, Scope};
use crate::jsonata::{Binding, Expression, Fault, Outcome, Setting};

/// An expression of a field.
#[derive(Debug)]
pub struct Jsonata {
    expression: Expression,
    /// Where in the state: `Output/items[0]`.
    field: Box<str>,
}

/// What is wrong with an expression of a definition: AWS's code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

/// The expression between `{%` and `%}`; `None` for a text that is only a text.
pub fn expression_of(text: &str) -> Option<&str> {
    text.strip_prefix("{%")?.strip_suffix("%}").map(str::trim)
}

impl Jsonata {
    /// Compiles what stands between `{%` and `%}`. `reads` says which fields of `$states` there are here.
    pub fn parse(expression: &str, field: &str, reads: &[&str]) -> Result<Jsonata, Refusal> {
        let expression = Expression::parse(expression)
            .map_err(|fault| Refusal { code: "INVALID_JSONATA_EXPRESSION", message: fault.message })?;
        let unsupported = |message| Refusal { code: "UNSUPPORTED_JSONATA_EXPRESSION", message };
        if let Some(name) = expression.top_level_reference() {
            return Err(unsupported(format!("Reference to '{name}' at the top level is not supported.")));
        }
        for variable in expression.variables().iter().filter(|variable| variable.name == "states") {
            if let Some(field) = variable.fields.first().filter(|field| !reads.contains(&field.as_str())) {
                return Err(unsupported(format!("Reference to '$states.{field}' is not supported here.")));
            }
        }
        Ok(Jsonata { expression, field: field.into() })
    }

    /// As written, without `{%` and `%}`.
    pub fn text(&self) -> &str {
        self.expression.text()
    }

    /// Where in the state it stands, as AWS writes it in `location`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Whether it looks at the context object.
    pub fn reads_context(&self) -> bool {
        self.reads_states("context")
    }

    fn reads_states(&self, part: &str) -> bool {
        let reads = |fields: &[String]| fields.first().is_none_or(|field| field == part);
        self.expression.variables().iter().any(|variable| variable.name == "states" && reads(&variable.fields))
    }

    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        let parts = [
            ("input", Some(scope.input)),
            ("result", scope.result),
            ("errorOutput", scope.error_output),
            ("context", Some(scope.context)),
        ];
        let states = parts.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let states = Binding::Object(states.filter(|(name, _)| self.reads_states(name)).collect());
        let variables = scope.variables.iter().filter(|(name, _)| self.reads(name));
        let variables = variables.map(|(name, value)| (name.as_str(), Binding::Json(value)));
        let draw = || scope.draw();
        let setting = Setting { now_ms: scope.now_ms, draw: &draw };
        match self.expression.evaluate(variables.chain([("states", states)]), &setting) {
            Ok(Outcome::Value(value)) => Ok(value),
            Ok(Outcome::Undefined) => Err(self.failed("returned nothing (undefined).")),
            Ok(Outcome::Unsupported) => Err(self.failed("returned an unsupported result type.")),
            Err(Fault { code: "", message, .. }) => {
                Err(self.failed(&format!("threw an error during evaluation: {message}")))
            }
            Err(Fault { code, message, .. }) => {
                Err(self.failed(&format!("threw an error during evaluation. {code}: {message}")))
            }
        }
    }

    fn reads(&self, name: &str) -> bool {
        self.expression.variables().iter().any(|variable| variable.name == name)
    }

    /// The value, if it is of the kind that the field takes.
    pub fn eval_as(&self, kind: &str, scope: &Scope) -> Result<Value, EvalError> {
        let value = self.eval(scope)?;
        let found = kind_of(&value);
        if found == kind {
            return Ok(value);
        }
        Err(self.failed(&format!(
            "returned an unexpected result type. Expected '{kind}', but was '{found}' for value: {value}"
        )))
    }

    fn failed(&self, how: &str) -> EvalError {
        let (text, field) = (self.text(), &self.field);
        self.refused(&format!("The JSONata expression '{text}' specified for the field '{field}' {how}"))
    }

    /// A value that the field does not take, in words of its own.
    pub fn refused(&self, message: &str) -> EvalError {
        EvalError::query(&self.field, message)
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
