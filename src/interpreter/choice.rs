//! Choice: the first rule whose condition holds says where to go.

use conveyor_asl::{Choice, State, Transition};
use conveyor_base::BranchId;

use super::dataflow::Surroundings;
use super::draft::{Draft, Payload};
use super::observer::Observer;
use super::raise::{RUNTIME, Raised};
use super::step::leave;

pub(super) fn run(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    choice: &Choice,
    payload: Payload,
) -> Result<(), Raised> {
    let around = Surroundings::of(draft, id, None);
    let input = around.input(&mut draft.observer, state, &payload.value)?;
    let scope = around.scope(&input);
    let mut chosen = None;
    for rule in &choice.rules {
        if rule.condition.test(&scope).map_err(|e| around.failed(state, e))? {
            chosen = Some(rule);
            break;
        }
    }
    // A path that was given up looks like one that finds nothing.
    if draft.effort.is_exceeded() {
        let message = "The rules of the state look at more values than one state may.";
        return Err(around.raised(state, RUNTIME, message));
    }
    // What the state itself assigns and puts out is for its Default.
    let (next, assign, output) = match (chosen, &choice.default) {
        (Some(rule), _) => (rule.next.clone(), rule.assign.as_ref(), rule.output.as_ref()),
        (None, Some(default)) => (default.clone(), state.flow.assign.as_ref(), state.flow.output.as_ref()),
        (None, None) => {
            let message = "Failed to transition out of the state. The state does not point to a next state.";
            return Err(around.raised(state, "States.NoChoiceMatched", message));
        }
    };
    let output = around.passed(state, &input, assign, output)?;
    leave(draft, id, state, output, &Transition::Next(next));
    Ok(())
}
