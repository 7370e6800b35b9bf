//! Parallel: its branches, and who lies below whom.

use std::sync::Arc;

use conveyor_asl::{Processor, State};
use conveyor_base::{BranchId, EventId};
use serde_json::Value;

use super::dataflow::Surroundings;
use super::draft::{Draft, Payload, Work};
use super::end;
use super::execution::{Branch, Doing};
use super::history::HistoryKind;
use super::observer::Observer;
use super::raise::{Raised, raise};
use super::step::{leave, transition};

/// How many bytes of outputs are gathered, and what it takes to let go of a branch, in units of work.
const BYTES_PER_UNIT: u64 = 64;
const RELEASE_UNITS: u64 = 10;

pub(super) fn run(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    processors: &[Processor],
    payload: Payload,
) -> Result<(), Raised> {
    let around = Surroundings::of(draft, id, None);
    let input = around.input(&mut draft.observer, state, &payload.value)?;
    let input = around.bounded(state, around.parameters(&mut draft.observer, state, &input)?)?;
    let started_event = draft.record(id, HistoryKind::ParallelStateStarted);
    let count = u32::try_from(processors.len()).unwrap_or(u32::MAX);
    let first = draft.reserve_branches(count);
    let at = draft.at;
    let Some(branch) = draft.edit(id) else { return Ok(()) };
    branch.doing = Doing::Parallel { first, count, running: count, started_event };
    let outer = branch.clone();
    for (index, processor) in (0..count).zip(processors).rev() {
        let mut child = Branch::new(Some((id, index)), &processor.start_at, at);
        child.previous_event = started_event;
        child.input = input.value.clone();
        child.variables = outer.variables.clone();
        child.map_item = outer.map_item.clone();
        let child_id = BranchId(first.0 + index);
        draft.insert(child_id, child);
        draft.work.push(Work::Enter(child_id, processor.start_at.clone(), input.clone()));
    }
    Ok(())
}

/// A branch ended well; `last` is its last event.
pub(super) fn branch_finished(draft: &mut Draft<impl Observer>, id: BranchId, last: EventId) {
    let Some(branch) = draft.edit(id) else { return };
    let Doing::Parallel { running, .. } = &mut branch.doing else { return };
    *running = running.saturating_sub(1);
    let all_done = *running == 0;
    branch.previous_event = last;
    if !all_done {
        return;
    }
    let (name, raw) = (branch.state.clone(), branch.input.clone());
    let Some(state) = draft.machine.state(&name) else { return };
    draft.grant_effort();
    let outputs = gather(draft, id);
    // The exit points to the same event as this one, so the branch's own row does not move on.
    draft.record_after(last, HistoryKind::ParallelStateSucceeded);
    let around = Surroundings::of(draft, id, None);
    match around.result(&mut draft.observer, state, &raw, Arc::new(Value::Array(outputs))) {
        Ok(output) => {
            remove_children(draft, id);
            leave(draft, id, state, output, transition(state));
        }
        Err(raised) => raise(draft, id, raised),
    }
}

/// The outputs of the branches below, in their order.
pub(super) fn gather(draft: &Draft<impl Observer>, id: BranchId) -> Vec<Value> {
    let output = |child: &BranchId| match draft.branch(*child).map(|b| &b.doing) {
        // Of a step that takes too long nothing counts.
        Some(Doing::Done { output }) if !draft.is_void() => {
            draft.effort.spend(1 + weight(output) / BYTES_PER_UNIT);
            Some((**output).clone())
        }
        _ => None,
    };
    children(draft, id).iter().filter_map(output).collect()
}

/// About what the value takes in memory, in bytes.
fn weight(value: &Value) -> u64 {
    16 + match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(name, field)| name.len() as u64 + weight(field)).sum(),
        _ => 0,
    }
}

/// The branches right below one that is in a Parallel or Map.
pub(super) fn children(draft: &Draft<impl Observer>, id: BranchId) -> Vec<BranchId> {
    match draft.branch(id).map(|b| &b.doing) {
        Some(Doing::Parallel { first, count, .. }) => draft.branches_from(*first, *count),
        Some(Doing::Map { first, next_index, .. }) => draft.branches_from(*first, *next_index),
        _ => Vec::new(),
    }
}

/// Removes all that lies below, at any depth, with whatever it still waited for.
pub(super) fn remove_children(draft: &mut Draft<impl Observer>, id: BranchId) {
    let mut below = children(draft, id);
    while let Some(child) = below.pop() {
        draft.effort.spend(RELEASE_UNITS);
        if draft.is_void() {
            return;
        }
        below.extend(children(draft, child));
        end::release(draft, child);
        draft.drop_map_items(child);
        draft.remove(child);
    }
}
