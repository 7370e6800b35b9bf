//! JSONata as fields of a definition hold it, `{% … %}`: compiled expressions, and how they fail in AWS's words.
//!
//! The language itself is [`conveyor_jsonata`]; here stand the rules of the States Language around it: what
//! `$states` holds, which variables there are, that nothing (undefined) and functions are no results.

use conveyor_jsonata::{Binding, Effort, Expression, Fault, Outcome, Setting};
use serde_json::Value;

use super::{ContextUse, EvalError, Scope};

/// An expression of a field.
#[derive(Debug)]
pub struct Jsonata {
    expression: Expression,
    /// Where in the state: `Output/items[0]`.
    field: Box<str>,
    /// The fields of `$states` that it reads, and of each the fields below, unless it reads it whole.
    parts: Box<[Part]>,
}

/// A field of `$states`, and which fields of it are read; none where it is read whole.
type Part = (&'static str, Option<Vec<Box<str>>>);

/// Of a field from which more is read it gets the whole.
const PARTS_MAX: usize = 64;

const PARTS: [&str; 4] = ["input", "result", "errorOutput", "context"];

/// What is wrong with an expression of a definition: AWS's code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionFault {
    pub code: &'static str,
    pub message: String,
}

/// The expression between `{%` and `%}`; `None` for a text that is only a text.
pub fn expression_of(text: &str) -> Option<&str> {
    text.strip_prefix("{%")?.strip_suffix("%}").map(str::trim)
}

impl Jsonata {
    /// Compiles what stands between `{%` and `%}`. `reads` says which fields of `$states` there are here.
    pub fn parse(expression: &str, field: &str, reads: &[&str]) -> Result<Jsonata, ExpressionFault> {
        let expression = Expression::parse(expression)
            .map_err(|fault| ExpressionFault { code: "INVALID_JSONATA_EXPRESSION", message: fault.message })?;
        let unsupported = |message| ExpressionFault { code: "UNSUPPORTED_JSONATA_EXPRESSION", message };
        if let Some(name) = expression.top_level_reference() {
            return Err(unsupported(format!("Reference to '{name}' at the top level is not supported.")));
        }
        for variable in expression.variables().iter().filter(|variable| &*variable.name == "states") {
            if let Some(field) = variable.fields.first().filter(|field| !reads.contains(&&***field)) {
                return Err(unsupported(format!("Reference to '$states.{field}' is not supported here.")));
            }
        }
        let parts = parts_of(&expression).into();
        Ok(Jsonata { expression, field: field.into(), parts })
    }

    /// As written, without `{%` and `%}`.
    pub fn text(&self) -> &str {
        self.expression.text()
    }

    /// Where in the state it stands, as AWS writes it in `location`.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What it reads of the context object.
    pub fn context_use(&self) -> ContextUse {
        let of_context = self.parts.iter().filter(|(part, _)| *part == "context");
        ContextUse::most(of_context.map(|(_, fields)| match fields {
            Some(fields) if fields.iter().all(|field| &**field != "Execution") => ContextUse::Parts,
            _ => ContextUse::Whole,
        }))
    }

    /// `$states`, with no more of it than the expression reads.
    fn states<'s>(&'s self, scope: &Scope<'s>) -> Binding<'s> {
        let whole = |part: &str| match part {
            "input" => Some(scope.input),
            "result" => scope.result,
            "errorOutput" => scope.error_output,
            _ => Some(scope.context),
        };
        let bound = self.parts.iter().filter_map(|(part, fields)| {
            let value = whole(part)?;
            let binding = match (fields, value) {
                (Some(fields), Value::Object(object)) => {
                    let field = |name: &'s str| Some((name, Binding::Json(object.get(name)?)));
                    Binding::Object(fields.iter().map(|name| &**name).filter_map(field).collect())
                }
                _ => Binding::Json(value),
            };
            Some((*part, binding))
        });
        Binding::Object(bound.collect())
    }

    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        let states = self.states(scope);
        let variables = scope.variables.iter().filter(|(name, _)| self.reads(name));
        let variables = variables.map(|(name, value)| (name.as_str(), Binding::Json(value)));
        let draw = || scope.draw();
        let alone = Effort::unbounded();
        let setting = Setting { now_ms: scope.now_ms, draw: &draw, effort: scope.effort.unwrap_or(&alone) };
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

    /// The variables that it reads of those that a state machine may assign.
    pub(super) fn free_variables(&self) -> impl Iterator<Item = &str> {
        let names = self.expression.variables().iter().map(|variable| &*variable.name);
        let is_name = |name: &&str| name.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_');
        names.filter(is_name).filter(|name| *name != "states" && !conveyor_jsonata::is_function(name))
    }

    /// Whether the name may be one that the expression binds itself.
    pub(super) fn may_bind(&self, name: &str) -> bool {
        let text = self.text();
        let binds = [":=", "function", "λ", "@$", "#$"].iter().any(|sign| text.contains(sign));
        binds && text.matches(&format!("${name}")).count() > 1
    }

    fn reads(&self, name: &str) -> bool {
        self.expression.variables().iter().any(|variable| &*variable.name == name)
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

fn parts_of(expression: &Expression) -> Vec<Part> {
    let reads: Vec<&[Box<str>]> =
        expression.variables().iter().filter(|v| &*v.name == "states").map(|v| &*v.fields).collect();
    let of = |part: &'static str| -> Option<Part> {
        let mut below = Some(Vec::new());
        let mut read = false;
        for fields in reads.iter().filter(|fields| fields.first().is_none_or(|first| &**first == part)) {
            read = true;
            if below.is_none() {
                break;
            }
            match (fields.get(1), &mut below) {
                (Some(field), Some(known)) if known.contains(field) => {}
                (Some(field), Some(known)) if known.len() < PARTS_MAX => known.push(field.clone()),
                _ => below = None,
            }
        }
        read.then_some((part, below))
    };
    PARTS.into_iter().filter_map(of).collect()
}

/// The kind of a value, as messages name it.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
