//! Wait, in its four forms.

use conveyor_asl::{Query, State, Wait};
use conveyor_base::{BranchId, Timestamp, limits};
use serde_json::Value;

use super::dataflow::Surroundings;
use super::draft::{Draft, Payload};
use super::execution::Doing;
use super::observer::Observer;
use super::raise::{RUNTIME, Raised, raise};
use super::step::{leave, transition};

pub(super) fn run(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    wait: &Wait,
    payload: Payload,
) -> Result<(), Raised> {
    let around = Surroundings::of(draft, id, None);
    let input = around.input(&mut draft.observer, state, &payload.value)?;
    // A number of seconds is counted in the box's own time, a moment is one of the wall clock.
    let at = if wait.is_by_wall() { draft.at } else { draft.box_at };
    let due = match wait {
        Wait::Seconds(seconds) => after(&around, state, at, *seconds)?,
        Wait::SecondsQuery(query) => after(&around, state, at, around.seconds(state, "Seconds", query, &input)?)?,
        Wait::Timestamp(due) => *due,
        Wait::TimestampQuery(query) => timestamp(&around, state, query, &input)?,
    };
    if due.since_ms(at) > limits::WAIT_SECONDS_MAX.saturating_mul(1_000) {
        return Err(too_long(&around, state));
    }
    // A moment that has passed is waited for too: it costs a step, and the timer fires at once.
    let (timer, due) = draft.set_timer(if wait.is_by_wall() { due.by_wall() } else { due });
    if let Some(branch) = draft.edit(id) {
        branch.doing = Doing::Wait { timer, due };
    }
    Ok(())
}

/// The timer fired.
pub(super) fn over(draft: &mut Draft<impl Observer>, id: BranchId) {
    let Some(branch) = draft.edit(id) else { return };
    branch.doing = Doing::Halted;
    let (name, raw) = (branch.state.clone(), branch.input.clone());
    let Some(state) = draft.machine.state(&name) else { return };
    let around = Surroundings::of(draft, id, None);
    let output = around.input(&mut draft.observer, state, &raw).and_then(|input| around.pass_on(state, &input));
    match output {
        Ok(output) => leave(draft, id, state, output, transition(state)),
        Err(raised) => raise(draft, id, raised),
    }
}

fn too_long(around: &Surroundings, state: &State) -> Raised {
    around.raised(state, RUNTIME, "Wait state delay is too long.")
}

fn after(around: &Surroundings, state: &State, at: Timestamp, seconds: i64) -> Result<Timestamp, Raised> {
    match seconds <= limits::WAIT_SECONDS_MAX {
        true => Ok(at.plus_ms(seconds.max(0).saturating_mul(1_000))),
        false => Err(too_long(around, state)),
    }
}

fn timestamp(around: &Surroundings, state: &State, query: &Query, input: &Value) -> Result<Timestamp, Raised> {
    let value = match query {
        Query::Jsonata(expression) => {
            let value = expression.eval_as("string", &around.scope(input)).map_err(|e| around.failed(state, e))?;
            let text = value.as_str().unwrap_or_default();
            return conveyor_asl::parse_timestamp(text).map(conveyor_asl::whole_seconds).ok_or_else(|| {
                let message = format!(
                    "The Timestamp field cannot be parsed as an ISO-8601 extended offset date-time format string: {text}"
                );
                around.failed(state, expression.refused(&message))
            });
        }
        query => around.referenced(state, "Timestamp", query, input)?,
    };
    value.as_str().and_then(conveyor_asl::parse_timestamp).map(conveyor_asl::whole_seconds).ok_or_else(|| {
        let (path, text) = (query.text(), value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let message = format!(
            "The TimestampPath parameter cannot be parsed as an ISO-8601 extended offset date-time format string: {path} == {text}"
        );
        around.raised(state, RUNTIME, &message)
    })
}
