//! The functions that every expression may call: JSONata's, but `$eval`, and those that AWS adds.

mod arrays;
mod dates;
mod integers;
mod matching;
mod numbers;
mod objects;
mod picture;
mod states;
mod strings;

use std::collections::HashMap;
use std::sync::LazyLock;

use super::evaluate::Eval;
use super::fault::{Fault, Result};
use super::signature::Signature;
use super::value::Val;

type Run = for<'a> fn(&mut Eval<'a>, Vec<Val<'a>>) -> Result<Val<'a>>;

/// A function of the language.
pub(super) struct Native {
    pub signature: Option<Signature>,
    /// How many arguments it is given by `$map` and its like.
    pub arity: usize,
    pub run: Run,
}

/// Name, signature, arity.
type Entry = (&'static str, &'static str, usize, Run);

static NATIVES: LazyLock<HashMap<&'static str, Native>> = LazyLock::new(|| {
    [strings::TABLE, matching::TABLE, numbers::TABLE, arrays::TABLE, objects::TABLE, dates::TABLE, states::TABLE]
        .into_iter()
        .flatten()
        .map(|(name, signature, arity, run)| {
            (*name, Native { signature: Signature::parse(signature).ok(), arity: *arity, run: *run })
        })
        .collect()
});

pub(super) fn native(name: &str) -> Option<&'static Native> {
    NATIVES.get(name)
}

/// `$string` of a value that is something.
pub(super) fn text_of(eval: &mut Eval, value: &Val, pretty: bool) -> Result<String> {
    match value {
        Val::Num(number) if !number.is_finite() => {
            Err(Fault::new("D3001", 0, "Attempting to invoke string function on Infinity or NaN"))
        }
        value => {
            let text = value.to_text(pretty);
            eval.work(text.len() / 16)?;
            Ok(text)
        }
    }
}

/// The arguments of a call that passed its signature.
struct Given<'a>(Vec<Val<'a>>);

impl<'a> Given<'a> {
    fn get(&self, at: usize) -> Val<'a> {
        self.0.get(at).cloned().unwrap_or(Val::Undefined)
    }

    fn num(&self, at: usize) -> Option<f64> {
        self.0.get(at).and_then(Val::as_num)
    }

    fn str(&self, at: usize) -> Option<&str> {
        self.0.get(at).and_then(Val::as_str)
    }

    fn items(&self, at: usize) -> &[Val<'a>] {
        self.0.get(at).map_or(&[], Val::items)
    }

    fn is_missing(&self, at: usize) -> bool {
        self.0.get(at).is_none_or(Val::is_undefined)
    }
}
