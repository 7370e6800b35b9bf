//! Pass, Succeed and Fail.

use std::sync::Arc;

use conveyor_asl::{Query, QueryLanguage, State, Text, Transition};
use conveyor_base::BranchId;
use serde_json::Value;

use super::dataflow::Surroundings;
use super::draft::{Draft, Payload};
use super::observer::Observer;
use super::raise::{RUNTIME, Raised};
use super::step::{leave, transition};

pub(super) fn run(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    result: Option<&Value>,
    payload: Payload,
) -> Result<(), Raised> {
    let around = Surroundings::of(draft, id, None);
    let input = around.input(&mut draft.observer, state, &payload.value)?;
    if state.query_language == QueryLanguage::Jsonata {
        let output = around.pass_on(state, &input)?;
        leave(draft, id, state, output, transition(state));
        return Ok(());
    }
    let result = match result {
        // A Result is taken as it stands, but Parameters are evaluated all the same: they may fail.
        Some(result) => around.parameters(&mut draft.observer, state, &input).map(|_| Arc::new(result.clone()))?,
        None => around.parameters(&mut draft.observer, state, &input)?,
    };
    let output = around.result(&mut draft.observer, state, &payload.value, result)?;
    leave(draft, id, state, output, transition(state));
    Ok(())
}

pub(super) fn succeed(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    payload: Payload,
) -> Result<(), Raised> {
    let around = Surroundings::of(draft, id, None);
    let input = around.input(&mut draft.observer, state, &payload.value)?;
    let output = around.pass_on(state, &input)?;
    leave(draft, id, state, output, &Transition::End);
    Ok(())
}

pub(super) fn fail(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    error: &Text,
    cause: &Text,
    payload: Payload,
) -> Result<(), Raised> {
    let around = Surroundings::of(draft, id, None);
    let error = text(&around, state, "Error", error, &payload.value)?;
    let cause = text(&around, state, "Cause", cause, &payload.value)?;
    Err(Raised::new(error, cause))
}

fn text(
    around: &Surroundings,
    state: &State,
    field: &str,
    text: &Text,
    input: &Value,
) -> Result<Option<String>, Raised> {
    let query = match text {
        Text::Absent => return Ok(None),
        Text::Literal(text) => return Ok(Some(text.clone())),
        Text::Query(query) => query,
    };
    let found = match query {
        Query::Jsonata(expression) => {
            let value = expression.eval_as("string", &around.scope(input)).map_err(|e| around.failed(state, e))?;
            return Ok(value.as_str().map(str::to_owned));
        }
        Query::Path(_) => around.referenced(state, field, query, input)?,
        Query::Intrinsic(_) => query.get(&around.scope(input)).map_err(|e| around.failed(state, e))?,
    };
    match &*found {
        Value::String(text) => Ok(Some(text.clone())),
        other => {
            let message = format!("The {field}Path parameter must reference a string: {} == {other}", query.text());
            Err(around.raised(state, RUNTIME, &message))
        }
    }
}
