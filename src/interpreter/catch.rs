//! Catch: where a failed state goes on.

use std::sync::Arc;

use conveyor_asl::{QueryLanguage, State, Transition};
use conveyor_base::BranchId;
use serde_json::{Map, Value};

use super::dataflow::{Output, Surroundings};
use super::draft::Draft;
use super::observer::Observer;
use super::raise::{Raised, restart_later};
use super::step::leave;

/// What became of an error.
pub(super) enum Caught {
    /// The state was left by a catcher.
    Left,
    Not,
    /// The catcher's own expressions failed: that error goes on in the place of the caught one.
    Failed(Raised),
}

/// Leaves the state by the first catcher that names the error.
pub(super) fn caught(draft: &mut Draft<impl Observer>, id: BranchId, state: &State, raised: &Raised) -> Caught {
    let Some(catcher) = state.catch.iter().find(|catcher| raised.is_named_in(&catcher.error_equals)) else {
        return Caught::Not;
    };
    restart_later(draft, id);
    draft.grant_effort();
    let Some(raw) = draft.branch(id).map(|b| b.input.clone()) else { return Caught::Not };
    let around = Surroundings::of(draft, id, None);
    let result = Arc::new(error_output(raised));
    let output = match state.query_language {
        QueryLanguage::Jsonata => {
            let scope = around.scope(&raw).with_error_output(&result);
            around.shaped(state, &scope, catcher.assign.as_ref(), catcher.output.as_ref(), &result)
        }
        QueryLanguage::JsonPath => {
            around.assigned(state, catcher.assign.as_ref(), &around.scope(&result)).and_then(|assigned| {
                let placed = around.placed(&catcher.result_path, &raw, result.clone())?;
                Ok(Output { payload: around.bounded(state, placed)?, assigned })
            })
        }
    };
    match output {
        Ok(output) => {
            leave(draft, id, state, output, &Transition::Next(catcher.next.clone()));
            Caught::Left
        }
        Err(failed) if failed.evaluated.is_some() => Caught::Failed(failed),
        // The error stays the one that was to be caught: it is what the person has to know.
        Err(_) => Caught::Not,
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
