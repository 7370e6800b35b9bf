//! Choice: the first rule whose condition holds says where to go.

use super::dataflow::{Output, Surroundings};
use super::draft::{Draft, Payload};
use super::raise::Raised;
use super::step::leave;
use crate::asl::{Choice, State, Transition};
use crate::base::BranchId;

pub(super) fn run(
    draft: &mut Draft,
    id: BranchId,
    state: &State,
    choice: &Choice,
    payload: Payload,
) -> Result<(), Raised> {
    let around = Surroundings::of(draft, id, None);
    let input = around.input(state, &payload.value)?;
    let scope = around.scope(&input);
    let mut chosen = None;
    for rule in &choice.rules {
        if rule.condition.test(&scope).map_err(|e| around.raised(state, e.error, &e.message))? {
            chosen = Some(rule);
            break;
        }
    }
    let Output { payload, mut assigned } = around.pass_on(state, &input)?;
    let next = match (chosen, &choice.default) {
        (Some(rule), _) => {
            if rule.assign.is_some() {
                assigned = around.assigned(state, rule.assign.as_ref(), &input)?;
            }
            rule.next.clone()
        }
        (None, Some(default)) => default.clone(),
        (None, None) => {
            let message = "Failed to transition out of the state. The state does not point to a next state.";
            return Err(around.raised(state, "States.NoChoiceMatched", message));
        }
    };
    leave(draft, id, state, Output { payload, assigned }, &Transition::Next(next));
    Ok(())
}
