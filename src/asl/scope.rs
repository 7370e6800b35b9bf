//! What an expression may look at, and how an evaluation fails.
//!
//! Pure values only: no clock, no randomness of its own. What AWS leaves to chance (`States.UUID`,
//! `States.MathRandom`) is drawn from [`Scope::seed`], so that the same step decided twice is the same step.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::limits;
use conveyor_jsonata::Effort;
use serde_json::Value;

/// How many bytes are copied in a unit of [`Effort`].
const BYTES_PER_UNIT: usize = 64;

/// The variables of a branch, those of the outer scopes included.
pub type Variables = BTreeMap<String, Arc<Value>>;

/// How much of the context object (`$$`) something reads. The execution's input counts apart: it may be large, and stands
/// there as a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum ContextUse {
    #[default]
    Nothing,
    /// Not the execution's input.
    Parts,
    Whole,
}

impl ContextUse {
    #[inline]
    pub fn most(uses: impl IntoIterator<Item = ContextUse>) -> ContextUse {
        uses.into_iter().max().unwrap_or_default()
    }
}

/// Everything an expression may look at.
#[derive(Debug)]
pub struct Scope<'a> {
    /// `$`.
    pub input: &'a Value,
    /// `$$`, the context object.
    pub context: &'a Value,
    /// `$name`.
    pub variables: &'a Variables,
    /// `$states.result`.
    pub result: Option<&'a Value>,
    /// `$states.errorOutput`.
    pub error_output: Option<&'a Value>,
    /// What random functions draw from. Another value for each entered state and attempt.
    pub seed: u64,
    /// What `$now` and `$millis` say: the time of the step, in milliseconds since the epoch.
    pub now_ms: i64,
    /// What is left of the work that the evaluations of a step share; without bound where there is none.
    pub effort: Option<&'a Effort>,
    calls: Cell<u32>,
    /// How much more may be copied, in bytes.
    room: Cell<usize>,
}

impl<'a> Scope<'a> {
    pub fn new(input: &'a Value, context: &'a Value, variables: &'a Variables, seed: u64) -> Scope<'a> {
        Scope {
            input,
            context,
            variables,
            result: None,
            error_output: None,
            seed,
            now_ms: 0,
            effort: None,
            calls: Cell::new(0),
            room: Cell::new(room()),
        }
    }

    pub fn at(self, now_ms: i64) -> Scope<'a> {
        Scope { now_ms, ..self }
    }

    pub fn within(self, effort: &'a Effort) -> Scope<'a> {
        Scope { effort: Some(effort), ..self }
    }

    pub fn with_result(self, result: &'a Value) -> Scope<'a> {
        Scope { result: Some(result), ..self }
    }

    pub fn with_error_output(self, error_output: &'a Value) -> Scope<'a> {
        Scope { error_output: Some(error_output), ..self }
    }

    /// Takes room for a copy of the value. False where there is not enough.
    pub(super) fn take_room(&self, value: &Value) -> bool {
        let room = self.room.get();
        let mut left = room;
        let fits = fits(value, &mut left);
        self.room.set(left);
        fits && self.spend((room - left) / BYTES_PER_UNIT)
    }

    /// Accounts for a value that is read from end to end.
    pub(super) fn spend_on(&self, value: &Value) -> bool {
        let mut left = usize::MAX;
        fits(value, &mut left);
        self.spend((usize::MAX - left) / BYTES_PER_UNIT)
    }

    pub(super) fn spend_on_text(&self, text: &str) -> bool {
        self.spend(text.len() / BYTES_PER_UNIT)
    }

    /// Accounts for so many values looked at. False where that is more than may still be done.
    #[inline]
    pub(super) fn spend(&self, values: usize) -> bool {
        self.effort.is_none_or(|effort| effort.spend(values as u64))
    }

    /// The next random number of this scope.
    pub(super) fn draw(&self) -> u64 {
        let call = self.calls.get();
        self.calls.set(call.wrapping_add(1));
        mix(self.seed ^ mix(u64::from(call).wrapping_add(0x9e37_79b9_7f4a_7c15)))
    }
}

fn room() -> usize {
    limits::COPIED_BYTES_MAX.max(8 * limits::quotas().payload_bytes())
}

/// Takes about what the value holds away from `left`; looks no further where that is too little.
fn fits(value: &Value, left: &mut usize) -> bool {
    let own = 16 + value.as_str().map_or(0, str::len);
    let Some(rest) = left.checked_sub(own) else {
        *left = 0;
        return false;
    };
    *left = rest;
    match value {
        Value::Array(items) => items.iter().all(|item| fits(item, left)),
        Value::Object(fields) => fields.iter().all(|(name, field)| {
            *left = left.saturating_sub(name.len());
            fits(field, left)
        }),
        _ => true,
    }
}

/// One round of SplitMix64: turns neighbouring numbers into unrelated ones.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An evaluation that failed.
///
/// The interpreter puts `message` behind "An error occurred while executing the state 'X' (entered at the
/// event id #N). ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}: {message}")]
pub struct EvalError {
    /// The name that `ErrorEquals` matches, such as `States.Runtime`.
    pub error: &'static str,
    /// AWS's wording.
    pub message: String,
    /// Where in the state, of a failed JSONata expression.
    pub location: Option<String>,
}

impl EvalError {
    /// `States.Runtime`, which nothing catches.
    pub fn runtime(message: impl Into<String>) -> EvalError {
        EvalError { error: "States.Runtime", message: message.into(), location: None }
    }

    /// `States.DataLimitExceeded`: more would be copied than any result may hold.
    pub(super) fn too_large() -> EvalError {
        let message = "The data that the field makes exceeds the maximum number of bytes service limit.";
        EvalError { error: "States.DataLimitExceeded", message: message.to_owned(), location: None }
    }

    /// `States.IntrinsicFailure`.
    pub fn intrinsic(message: impl Into<String>) -> EvalError {
        EvalError { error: "States.IntrinsicFailure", message: message.into(), location: None }
    }

    /// `States.QueryEvaluationError`, with the field that holds the expression.
    pub fn query(location: &str, message: &str) -> EvalError {
        let location = Some(location.to_owned());
        EvalError { error: "States.QueryEvaluationError", message: message.to_owned(), location }
    }
}
