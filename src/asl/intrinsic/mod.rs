//! The intrinsic functions, `States.…`: compiled calls and how they run.
//!
//! What goes wrong inside a function is `States.IntrinsicFailure`; a path argument that finds nothing is
//! `States.Runtime`, as everywhere. Chance comes from the scope's seed only.

mod arrays;
mod format;
mod functions;
mod syntax;

use std::borrow::Cow;

use serde_json::Value;

use super::{ContextUse, EvalError, Path, Scope};
use format::Format;

/// A call of an intrinsic function.
#[derive(Clone, Debug, PartialEq)]
pub struct Intrinsic {
    text: Box<str>,
    call: Call,
}

#[derive(Clone, Debug, PartialEq)]
struct Call {
    function: Function,
    arguments: Vec<Argument>,
}

#[derive(Clone, Debug, PartialEq)]
enum Argument {
    Literal(Value),
    /// The template of a `States.Format`, taken apart.
    Format(Format),
    Path(Path),
    Call(Call),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Array,
    ArrayContains,
    ArrayGetItem,
    ArrayLength,
    ArrayPartition,
    ArrayRange,
    ArrayUnique,
    Base64Decode,
    Base64Encode,
    Format,
    Hash,
    JsonMerge,
    JsonToString,
    MathAdd,
    MathRandom,
    StringSplit,
    StringToJson,
    Uuid,
}

impl Intrinsic {
    /// Reads a call. The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Intrinsic, String> {
        Ok(Intrinsic { text: text.into(), call: syntax::parse(text)? })
    }

    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        self.call.eval(scope).map(Cow::into_owned).map_err(|failure| {
            let message = format!("The function '{}' had the following error: {}", self.text, failure.reason());
            match failure {
                Failure::Missing(_) => EvalError::runtime(message),
                Failure::Inside(_) => EvalError::intrinsic(message),
                Failure::TooLarge => EvalError::too_large(),
            }
        })
    }

    /// As written in the definition.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Shows each path among the arguments, those of nested calls included.
    pub(super) fn each_path(&self, see: &mut dyn FnMut(&Path)) {
        self.call.each_path(see);
    }

    /// What its arguments read of the context object.
    pub fn context_use(&self) -> ContextUse {
        self.call.context_use()
    }
}

/// Why a call gave no value.
enum Failure {
    /// A path argument found nothing.
    Missing(String),
    /// The function refused its arguments.
    Inside(String),
    /// More would be copied than any result may hold.
    TooLarge,
}

impl Failure {
    fn reason(&self) -> &str {
        match self {
            Failure::Missing(reason) | Failure::Inside(reason) => reason,
            Failure::TooLarge => "too much data",
        }
    }
}

impl Call {
    /// Nested calls recurse at most as deep as the syntax allows.
    fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, Failure> {
        if let Some((Argument::Format(format), values)) = self.arguments.split_first() {
            let values = evaluate(values, scope)?;
            make_room(&values, scope)?;
            return format.fill(&values).map(|text| Cow::Owned(Value::String(text))).map_err(Failure::Inside);
        }
        let values = evaluate(&self.arguments, scope)?;
        // What the others make is no larger than what they are given, but for escapes.
        if matches!(self.function, Function::Array | Function::Format | Function::JsonToString | Function::JsonMerge) {
            make_room(&values, scope)?;
        } else if self.function.reads_all() && !values.iter().all(|value| scope.spend_on(value)) {
            return Err(Failure::TooLarge);
        }
        self.function.run(values, scope).map_err(Failure::Inside)
    }
}

impl Call {
    fn each_path(&self, see: &mut dyn FnMut(&Path)) {
        for argument in &self.arguments {
            match argument {
                Argument::Path(path) => see(path),
                Argument::Call(call) => call.each_path(see),
                Argument::Literal(_) | Argument::Format(_) => {}
            }
        }
    }

    fn context_use(&self) -> ContextUse {
        ContextUse::most(self.arguments.iter().map(|argument| match argument {
            Argument::Path(path) => path.context_use(),
            Argument::Call(call) => call.context_use(),
            Argument::Literal(_) | Argument::Format(_) => ContextUse::Nothing,
        }))
    }
}

fn make_room(values: &[Cow<Value>], scope: &Scope) -> Result<(), Failure> {
    if values.iter().all(|value| scope.take_room(value)) { Ok(()) } else { Err(Failure::TooLarge) }
}

fn evaluate<'a>(arguments: &'a [Argument], scope: &Scope<'a>) -> Result<Vec<Cow<'a, Value>>, Failure> {
    arguments.iter().map(|argument| argument.eval(scope)).collect()
}

impl Argument {
    fn eval<'a>(&'a self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, Failure> {
        match self {
            Argument::Literal(value) => Ok(Cow::Borrowed(value)),
            Argument::Format(format) => Ok(Cow::Owned(Value::String(format.source().to_owned()))),
            Argument::Call(call) => call.eval(scope),
            Argument::Path(path) => path.find(scope).map_err(|_| {
                Failure::Missing(format!(
                    "The JsonPath argument for the field '{}' could not be found in the input '{}'",
                    path.text(),
                    path.root_value(scope).unwrap_or(scope.input),
                ))
            }),
        }
    }
}

impl Function {
    /// The function's name, the fewest and the most arguments it takes.
    const ALL: [(&'static str, Function, usize, usize); 18] = [
        ("States.Array", Function::Array, 0, usize::MAX),
        ("States.ArrayContains", Function::ArrayContains, 2, 2),
        ("States.ArrayGetItem", Function::ArrayGetItem, 2, 2),
        ("States.ArrayLength", Function::ArrayLength, 1, 1),
        ("States.ArrayPartition", Function::ArrayPartition, 2, 2),
        ("States.ArrayRange", Function::ArrayRange, 3, 3),
        ("States.ArrayUnique", Function::ArrayUnique, 1, 1),
        ("States.Base64Decode", Function::Base64Decode, 1, 1),
        ("States.Base64Encode", Function::Base64Encode, 1, 1),
        ("States.Format", Function::Format, 1, usize::MAX),
        ("States.Hash", Function::Hash, 2, 2),
        ("States.JsonMerge", Function::JsonMerge, 3, 3),
        ("States.JsonToString", Function::JsonToString, 1, 1),
        ("States.MathAdd", Function::MathAdd, 2, 2),
        ("States.MathRandom", Function::MathRandom, 2, 3),
        ("States.StringSplit", Function::StringSplit, 2, 2),
        ("States.StringToJson", Function::StringToJson, 1, 1),
        ("States.UUID", Function::Uuid, 0, 0),
    ];

    /// Whether what it costs grows with what it is given.
    fn reads_all(self) -> bool {
        !matches!(
            self,
            Function::ArrayGetItem | Function::ArrayLength | Function::MathAdd | Function::MathRandom | Function::Uuid
        )
    }

    fn name(self) -> &'static str {
        Function::ALL.iter().find(|(_, function, ..)| *function == self).map_or("", |(name, ..)| name)
    }

    /// The arguments are as many as [`Function::ALL`] says: the syntax has checked that.
    fn run<'a>(self, values: Vec<Cow<'a, Value>>, scope: &Scope) -> Result<Cow<'a, Value>, String> {
        let result = match (self, values.as_slice()) {
            (Function::Array, _) => Ok(values.into_iter().map(Cow::into_owned).collect()),
            (Function::ArrayContains, [list, item]) => arrays::contains(list, item),
            (Function::ArrayGetItem, [list, index]) => arrays::get_item(list, index),
            (Function::ArrayLength, [list]) => arrays::length(list),
            (Function::ArrayPartition, [list, size]) => arrays::partition(list, size),
            (Function::ArrayRange, [first, last, step]) => arrays::range(first, last, step),
            (Function::ArrayUnique, [list]) => arrays::unique(list),
            (Function::Base64Decode, [text]) => functions::base64_decode(text),
            (Function::Base64Encode, [text]) => functions::base64_encode(text),
            (Function::Format, [template, values @ ..]) => functions::format(template, values),
            (Function::Hash, [data, algorithm]) => functions::hash(data, algorithm),
            (Function::JsonMerge, [first, second, deep]) => functions::json_merge(first, second, deep),
            (Function::JsonToString, [value]) => Ok(Value::String(value.to_string())),
            (Function::MathAdd, [a, b]) => functions::math_add(a, b),
            (Function::MathRandom, [start, end]) => functions::math_random(start, end, scope.draw()),
            (Function::MathRandom, [start, end, seed]) => functions::math_random_seeded(start, end, seed),
            (Function::StringSplit, [text, delimiters]) => functions::string_split(text, delimiters),
            (Function::StringToJson, [text]) => functions::string_to_json(text),
            (Function::Uuid, []) => Ok(functions::uuid(scope.draw(), scope.draw())),
            _ => Err(String::from("the number of arguments does not fit")),
        };
        result.map(Cow::Owned).map_err(|reason| format!("Invalid arguments in {}: {reason}", self.name()))
    }
}

#[cfg(test)]
mod tests;
