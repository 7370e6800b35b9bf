//! What an expression may look at, and how an evaluation fails.
//!
//! Pure values only: no clock, no randomness of its own. What AWS leaves to chance (`States.UUID`,
//! `States.MathRandom`) is drawn from [`Scope::seed`], so that the same step decided twice is the same step.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// The variables of a branch, those of the outer scopes included.
pub type Variables = BTreeMap<String, Arc<Value>>;

/// Everything an expression may look at.
#[derive(Debug)]
pub struct Scope<'a> {
    /// `$`.
    pub input: &'a Value,
    /// `$$`, the context object.
    pub context: &'a Value,
    /// `$name`.
    pub variables: &'a Variables,
    /// What random functions draw from. Another value for each entered state and attempt.
    pub seed: u64,
    calls: Cell<u32>,
}

impl<'a> Scope<'a> {
    pub fn new(input: &'a Value, context: &'a Value, variables: &'a Variables, seed: u64) -> Scope<'a> {
        Scope { input, context, variables, seed, calls: Cell::new(0) }
    }

    /// The next random number of this scope.
    pub(super) fn draw(&self) -> u64 {
        let call = self.calls.get();
        self.calls.set(call.wrapping_add(1));
        mix(self.seed ^ mix(u64::from(call).wrapping_add(0x9e37_79b9_7f4a_7c15)))
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
}

impl EvalError {
    /// `States.Runtime`, which nothing catches.
    pub fn runtime(message: impl Into<String>) -> EvalError {
        EvalError { error: "States.Runtime", message: message.into() }
    }

    /// `States.IntrinsicFailure`.
    pub fn intrinsic(message: impl Into<String>) -> EvalError {
        EvalError { error: "States.IntrinsicFailure", message: message.into() }
    }
}
