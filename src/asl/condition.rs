//! The tests of choice rules.

use super::{EvalError, Scope};

/// The test of a choice rule: a comparison, or And, Or and Not of such.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
}

impl Condition {
    pub fn test(&self, scope: &Scope) -> Result<bool, EvalError> {
        match self {
            Condition::And(all) => all.iter().try_fold(true, |held, next| Ok(held && next.test(scope)?)),
            Condition::Or(any) => any.iter().try_fold(false, |held, next| Ok(held || next.test(scope)?)),
            Condition::Not(inner) => Ok(!inner.test(scope)?),
        }
    }
}
