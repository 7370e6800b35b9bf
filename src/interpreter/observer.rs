//! Who looks on while a state is decided.
//!
//! Owns the one way out for what is not part of the decision. An observer is told and never asked, so it cannot change
//! what is decided; which one it is stands in the type, so an execution's steps carry no trace of those that look on.

use std::sync::Arc;

use serde_json::Value;

use super::raise::Raised;

pub(super) trait Observer {
    /// What the data is at a point on its way through a state, by AWS's name of the point.
    fn observe(&mut self, _point: &'static str, _value: impl FnOnce() -> Arc<Value>) {}

    /// A state failed with this error.
    fn failed(&mut self, _raised: &Raised) {}
}

/// An execution runs unobserved.
pub(super) struct NoopObserver;

impl Observer for NoopObserver {}
