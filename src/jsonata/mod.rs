//! JSONata, pure. Text in, a compiled [`Expression`] out; values in, a value out, or a fault.
//!
//! The language is JSONata 2.0.6 as AWS runs it: without `$eval`, with `$partition`, `$range`, `$hash`,
//! `$random(seed)`, `$uuid` and `$parse`. Codes and texts of faults are those of the reference implementation.
//!
//! ```text
//! token, syntax, lower -> tree      text to tokens, to what is written, to paths and steps (once, with the definition)
//! evaluate, path, call, transform   the tree against values
//! functions/                     what expressions may call
//! names                          which variables a tree reads
//! value, signature, pattern, fault, effort
//! ```
//!
//! Invariants: no evaluation panics, recurses without bound, or runs longer than its bound of work; none depends on
//! anything but its arguments (time and chance come with the [`Setting`]); fields keep their order.
//!
//! Must never: see a definition, an execution or the box.

mod call;
mod effort;
mod evaluate;
mod fault;
mod functions;
mod lower;
mod names;
mod path;
mod pattern;
mod regular;
mod signature;
mod syntax;
#[cfg(test)]
mod tests;
mod token;
mod transform;
mod tree;
mod value;

use serde_json::Value;

pub use effort::Effort;
pub use fault::Fault;
pub use regular::{Regular, RegularFlags};

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    text: Box<str>,
    tree: tree::Tree,
    variables: Box<[Variable]>,
}

/// A variable that an expression reads, with the fields behind it as far as they are plain names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Without its `$`; empty for `$` itself.
    pub name: Box<str>,
    /// `["input", "a"]` of `$states.input.a[0].x`: nothing but what is below is looked at.
    pub fields: Box<[Box<str>]>,
    /// In bytes.
    pub at: usize,
}

/// Whether the language has a function of that name, without its `$`.
pub fn is_function(name: &str) -> bool {
    functions::native(name).is_some()
}

/// Time, chance and effort, as far as an evaluation may have them.
pub struct Setting<'a> {
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// The next random number.
    pub draw: &'a dyn Fn() -> u64,
    /// What is left of the work that this evaluation shares with others; of its own bound it takes no more.
    pub effort: &'a Effort,
}

/// What an evaluation comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Value(Value),
    /// Nothing: a path that leads nowhere, a function that gives nothing.
    Undefined,
    /// Something that JSON has no form for, such as a function.
    Unsupported,
}

impl Expression {
    /// Reads an expression. The fault says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Expression, Fault> {
        let tree = syntax::parse(text).and_then(lower::lower).map_err(|fault| *fault)?;
        let variables = names::variables(&tree).into();
        Ok(Expression { text: text.into(), tree, variables })
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The variables that it reads, its own ones included.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// A name or `$` that would be looked up in the input of the whole, of which the States Language has none.
    pub fn top_level_reference(&self) -> Option<&str> {
        names::top_level_reference(&self.tree.root)
    }

    /// Evaluates with these variables.
    pub fn evaluate<'a>(
        &'a self,
        bindings: impl IntoIterator<Item = (&'a str, Binding<'a>)>,
        setting: &'a Setting<'a>,
    ) -> Result<Outcome, Fault> {
        let mut eval = evaluate::Eval::new(&self.tree.labels, setting);
        let frame = eval.frame(None);
        for (name, value) in bindings {
            frame.bind(name, value.into_val());
        }
        let result = eval.evaluate(&self.tree.root, &value::Val::Undefined, &frame);
        eval.settle();
        Ok(match result.map_err(|fault| *fault)? {
            value::Val::Undefined => Outcome::Undefined,
            found => found.to_json().map_or(Outcome::Unsupported, Outcome::Value),
        })
    }
}

/// A value to bind: JSON, or an object of such.
pub enum Binding<'a> {
    Json(&'a Value),
    Object(Vec<(&'a str, Binding<'a>)>),
}

impl<'a> Binding<'a> {
    fn into_val(self) -> value::Val<'a> {
        match self {
            Binding::Json(json) => value::Val::from_json(json),
            Binding::Object(fields) => {
                let mut object = value::Obj::default();
                for (key, binding) in fields {
                    object.insert(key.into(), binding.into_val());
                }
                value::Val::object(object)
            }
        }
    }
}
