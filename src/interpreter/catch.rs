//! Catch: where a failed state goes on.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::dataflow::{Output, Surroundings};
use super::draft::Draft;
use super::raise::{Raised, restart_later};
use super::step::leave;
use crate::asl::{State, Transition};
use crate::base::BranchId;

/// Leaves the state by the first catcher that names the error.
pub(super) fn caught(draft: &mut Draft, id: BranchId, state: &State, raised: &Raised) -> bool {
    let Some(catcher) = state.catch.iter().find(|catcher| raised.is_named_in(&catcher.error_equals)) else {
        return false;
    };
    restart_later(draft, id);
    let Some(raw) = draft.branch(id).map(|b| b.input.clone()) else { return false };
    let around = Surroundings::of(draft, id, None);
    let result = Arc::new(error_output(raised));
    let output = around.assigned(state, catcher.assign.as_ref(), &result).and_then(|assigned| {
        let placed = around.placed(&catcher.result_path, &raw, result)?;
        Ok(Output { payload: around.bounded(state, placed)?, assigned })
    });
    match output {
        Ok(output) => {
            leave(draft, id, state, output, &Transition::Next(catcher.next.clone()));
            true
        }
        // The error stays the one that was to be caught: it is what the person has to know.
        Err(_) => false,
    }
}

/// Error first; the cause stays the text that it was.
fn error_output(raised: &Raised) -> Value {
    let mut fields = Map::new();
    for (key, text) in [("Error", &raised.error), ("Cause", &raised.cause)] {
        if let Some(text) = text {
            fields.insert(key.into(), Value::from(text.as_str()));
        }
    }
    Value::Object(fields)
}
