//! Map: iterations, their numbers and their concurrency. A distributed Map is [`super::map_run`]'s.

use std::sync::Arc;

use conveyor_asl::kind_of;
use conveyor_asl::{Count, Items, Kind, Map, ProcessorMode, Query, QueryLanguage, State};
use conveyor_base::{BranchId, EventId};
use serde_json::Value;

use super::dataflow::Surroundings;
use super::draft::{Draft, Payload, Work};
use super::execution::{Branch, Doing, Item, MapItems};
use super::history::HistoryKind;
use super::map_run;
use super::observer::Observer;
use super::parallel::{gather, remove_children};
use super::raise::{QUERY_EVALUATION, RUNTIME, Raised, raise};
use super::step::{leave, transition};

pub(super) fn run(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    map: &Map,
    payload: Payload,
) -> Result<(), Raised> {
    match map.processor.mode {
        ProcessorMode::Distributed => map_run::start(draft, id, state, map, payload),
        ProcessorMode::Inline => begin(draft, id, state, map, payload, None).map(|_| ()),
    }
}

/// Goes over the items here, in this execution: `read`, or else those that the state's own input holds. Says how many
/// may fail, which is for whoever counts them: here one that fails fails the state.
pub(super) fn begin(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    map: &Map,
    payload: Payload,
    read: Option<Vec<Item>>,
) -> Result<Tolerated, Raised> {
    let around = Surroundings::of(draft, id, None);
    let input = around.input(&mut draft.observer, state, &payload.value)?;
    let items = match read {
        Some(items) => items,
        None => items(&around, state, map, &input)?,
    };
    let length = u32::try_from(items.len()).unwrap_or(u32::MAX);
    let concurrency = count(&around, state, "MaxConcurrency", &map.max_concurrency, &input)?.unwrap_or(0.0);
    let tolerated = Tolerated::of(&around, &mut draft.observer, state, map, &input)?;
    draft.observer.observe("maxConcurrency", || Value::from(concurrency as u64).into());
    let started_event = draft.record(id, HistoryKind::MapStateStarted { length });
    let first = draft.reserve_branches(length);
    draft.put_map_items(id, MapItems { input: payload.value, items });
    let Some(branch) = draft.edit(id) else { return Ok(tolerated) };
    branch.input = Arc::new(Value::Null);
    branch.doing = Doing::Map {
        first,
        next_index: 0,
        running: 0,
        length,
        concurrency: concurrency as u32,
        started_event,
        last_succeeded_event: started_event,
        resume: None,
    };
    go_on(draft, id);
    Ok(tolerated)
}

/// Starts the next iteration, if there is one and it may run.
pub(super) fn iterate(draft: &mut Draft<impl Observer>, id: BranchId) {
    let Some(branch) = draft.branch(id) else { return };
    let Doing::Map { first, next_index: index, running, length, concurrency, started_event, resume, .. } = branch.doing
    else {
        return;
    };
    if let Some(timer) = resume {
        draft.clear_timer(timer);
    }
    let free = concurrency == 0 || running < concurrency;
    if let Some(Branch { doing: Doing::Map { next_index, running, resume, .. }, .. }) = draft.edit(id) {
        *resume = None;
        if index >= length || !free {
            return;
        }
        *next_index += 1;
        *running += 1;
    }
    if index + 1 < length && (concurrency == 0 || running + 1 < concurrency) {
        draft.work.push(Work::Iterate(id));
    }
    start(draft, id, BranchId(first.0 + index), index, if concurrency == 0 { Some(started_event) } else { None });
}

fn start(draft: &mut Draft<impl Observer>, id: BranchId, child_id: BranchId, index: u32, after: Option<EventId>) {
    let Some(outer) = draft.branch(id).cloned() else { return };
    let machine = draft.machine;
    let Some((state, map)) = map_of(machine, &outer.state) else { return };
    let Some(item) = draft.map_item(id, index) else { return };
    let input = match &map.item_selector {
        None => Ok(Payload::of(item.input())),
        Some(selector) => {
            let mut around = Surroundings::of(draft, id, None);
            around.set_item(index, &item);
            let Some(raw) = draft.map_input(id) else { return };
            around
                .input(&mut draft.observer, state, &raw)
                .and_then(|input| around.template(state, selector, &input))
                .and_then(|selected| around.bounded(state, selected))
        }
    };
    let mut child = Branch::new(Some((id, index)), &map.processor.start_at, draft.at);
    child.variables = outer.variables;
    child.map_item = Some((index, item));
    let name = state.name.clone();
    let previous = after.unwrap_or(outer.previous_event);
    child.previous_event = draft.record_after(previous, HistoryKind::MapIterationStarted { name, index });
    match input {
        Ok(input) => {
            child.input = input.value.clone();
            draft.insert(child_id, child);
            draft.work.push(Work::Enter(child_id, map.processor.start_at.clone(), input));
        }
        Err(raised) => {
            draft.insert(child_id, child);
            raise(draft, id, raised);
        }
    }
}

/// An iteration ended well; `last` is its last event.
pub(super) fn iteration_succeeded(draft: &mut Draft<impl Observer>, id: BranchId, index: u32, last: EventId) {
    let Some(name) = draft.branch(id).map(|branch| branch.state.clone()) else { return };
    let event = draft.record_after(last, HistoryKind::MapIterationSucceeded { name, index });
    let Some(branch) = draft.edit(id) else { return };
    let Doing::Map { running, concurrency, last_succeeded_event, .. } = &mut branch.doing else { return };
    *running = running.saturating_sub(1);
    *last_succeeded_event = event;
    // Where concurrency is bounded, the next iteration follows on the one that made room.
    if *concurrency > 0 {
        branch.previous_event = last;
    }
    go_on(draft, id);
}

/// A branch below failed and nobody handled it: of a Map, its iteration did.
pub(super) fn iteration_failed(draft: &mut Draft<impl Observer>, id: BranchId, index: u32, child: BranchId) {
    let Some(failed_at) = draft.branch(child).map(|b| b.previous_event) else { return };
    let Some(branch) = draft.branch(id) else { return };
    if let Doing::Map { .. } = branch.doing {
        let name = branch.state.clone();
        draft.record_after(failed_at, HistoryKind::MapIterationFailed { name, index });
    }
}

/// The next iteration, or the end of the Map.
fn go_on(draft: &mut Draft<impl Observer>, id: BranchId) {
    let Some(Doing::Map { next_index, running, length, last_succeeded_event, .. }) =
        draft.branch(id).map(|b| b.doing.clone())
    else {
        return;
    };
    if next_index < length {
        draft.work.push(Work::Iterate(id));
    } else if running == 0 {
        complete(draft, id, last_succeeded_event);
    }
}

fn complete(draft: &mut Draft<impl Observer>, id: BranchId, last_succeeded: EventId) {
    let (Some(raw), Some(branch)) = (draft.map_input(id), draft.branch(id)) else { return };
    let name = branch.state.clone();
    let Some((state, _)) = map_of(draft.machine, &name) else { return };
    draft.grant_effort();
    let outputs = gather(draft, id);
    draft.record_after(last_succeeded, HistoryKind::MapStateSucceeded);
    if let Some(branch) = draft.edit(id) {
        branch.previous_event = last_succeeded;
    }
    let around = Surroundings::of(draft, id, None);
    match around.result(&mut draft.observer, state, &raw, Arc::new(Value::Array(outputs))) {
        Ok(output) => {
            remove_children(draft, id);
            draft.drop_map_items(id);
            leave(draft, id, state, output, transition(state));
        }
        Err(raised) => raise(draft, id, raised),
    }
}

pub(super) fn map_of<'m>(machine: &'m conveyor_asl::StateMachine, name: &str) -> Option<(&'m State, &'m Map)> {
    let state = machine.state(name)?;
    match &state.kind {
        Kind::Map(map) => Some((state, map)),
        _ => None,
    }
}

/// What the state's input holds to go over: the items of an array, or the fields of an object.
pub(super) fn items(around: &Surroundings, state: &State, map: &Map, input: &Value) -> Result<Vec<Item>, Raised> {
    let (value, path) = match &map.items {
        Items::Template(template) => {
            let found = template.eval_as("array", &around.scope(input)).map_err(|e| around.failed(state, e))?;
            (found, "Items")
        }
        Items::Input if state.query_language == QueryLanguage::Jsonata && !input.is_array() => {
            let message = format!("Map state input must be an array but was: {}", kind_of(input));
            return Err(around.raised(state, QUERY_EVALUATION, &message).evaluating(None));
        }
        Items::Input => (input.clone(), "$"),
        Items::Query(query) => {
            let found = query.eval(&around.scope(input)).map_err(|e| around.failed(state, e))?;
            (found, query.text())
        }
    };
    match value {
        Value::Array(items) => Ok(items.into_iter().map(Item::of).collect()),
        Value::Object(fields) => {
            let item = |(key, value): (String, Value)| Item { key: Some(key.into()), ..Item::of(value) };
            Ok(fields.into_iter().map(item).collect())
        }
        _ => Err(around.raised(state, RUNTIME, &format!("Reference path \"{path}\" must point to array."))),
    }
}

pub(super) fn count(
    around: &Surroundings,
    state: &State,
    field: &str,
    count: &Count,
    input: &Value,
) -> Result<Option<f64>, Raised> {
    let query = match count {
        Count::Absent => return Ok(None),
        Count::Literal(number) => return Ok(Some(*number)),
        Count::Query(query) => query,
    };
    let is_percentage = field == "ToleratedFailurePercentage";
    if let Query::Jsonata(expression) = query {
        let value = expression.eval_as("number", &around.scope(input)).map_err(|e| around.failed(state, e))?;
        return match value.as_f64() {
            Some(number) if number >= 0.0 && (is_percentage || number.fract() == 0.0) => Ok(Some(number)),
            Some(number) if number < 0.0 => {
                let message = format!("{field} cannot be negative: {value}");
                Err(around.failed(state, expression.refused(&message)))
            }
            _ => {
                let message = format!("The {field} field refers to value \"{value}\" which is not a valid integer");
                Err(around.failed(state, expression.refused(&message)))
            }
        };
    }
    let field = &format!("{field}Path");
    let value = query.eval(&around.scope(input)).map_err(|e| around.failed(state, e))?;
    match value.as_f64() {
        Some(number) if number >= 0.0 && (is_percentage || number.fract() == 0.0) => Ok(Some(number)),
        _ => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let path = query.text();
            let message = match value.as_f64() {
                Some(number) if number < 0.0 => format!("{field} cannot be negative: {path} == {text}"),
                _ => format!("The {field} field refers to value \"{text}\" which is not a valid integer: {path}"),
            };
            Err(around.raised(state, RUNTIME, &message))
        }
    }
}

/// How many of a distributed Map's items may fail. Where neither is said, none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerated {
    pub count: Option<u64>,
    pub percentage: Option<f64>,
}

impl Tolerated {
    pub fn of(
        around: &Surroundings,
        seen: &mut impl Observer,
        state: &State,
        map: &Map,
        input: &Value,
    ) -> Result<Tolerated, Raised> {
        let number = count(around, state, "ToleratedFailureCount", &map.tolerated_failure_count, input)?;
        let percentage = count(around, state, "ToleratedFailurePercentage", &map.tolerated_failure_percentage, input)?;
        if let Some(number) = number {
            seen.observe("toleratedFailureCount", || Value::from(number as u64).into());
        }
        if let Some(percentage) = percentage {
            seen.observe("toleratedFailurePercentage", || Value::from(percentage).into());
        }
        // A cast saturates.
        Ok(Tolerated { count: number.map(|number| number as u64), percentage })
    }

    /// Of so many items, the smaller of what the two allow.
    pub fn items(&self, length: u32) -> u32 {
        let share = self.percentage.map(|p| (p / 100.0 * f64::from(length)).floor() as u64);
        let least = match (self.count, share) {
            (Some(count), Some(share)) => Some(count.min(share)),
            (one, other) => one.or(other),
        };
        least.map_or(0, |least| u32::try_from(least).unwrap_or(u32::MAX))
    }
}
