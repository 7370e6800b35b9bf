//! How an execution ends, and how it goes on after a redrive.
//!
//! After success no row is left. After failure, timeout or stop every branch stands still as a row: finished
//! ones with their outputs, others as [`Doing::Halted`] in the state they were in, Parallel and Map with the
//! numbers of their branches. A redrive enters the halted states again and nothing else, so what
//! succeeded is kept. Invariant: an ended execution has no timer set and no task running.

use std::sync::Arc;

use conveyor_asl::Kind;
use conveyor_base::{BranchId, EventId, limits};

use super::draft::{Draft, Payload, Work};
use super::event::Outcome;
use super::execution::{Doing, RunPhase, Status};
use super::history::{HistoryKind, StateType};
use super::observer::Observer;
use super::parallel::children;
use super::raise::{RUNTIME, Raised};

pub(super) fn set_execution_timeout(draft: &mut Draft<impl Observer>) {
    // A distributed Map's children run its processor, and the definition's own time is their parent's.
    let (own, most) = match &draft.header.child {
        None => (draft.machine.timeout_seconds, draft.env.execution_ms_max),
        Some(child) => (None, child.express.then_some(limits::EXPRESS_MS_MAX)),
    };
    let own_ms = own.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000));
    if let Some(ms) = own_ms.into_iter().chain(most).min() {
        let due = draft.box_at.plus_ms(ms);
        draft.header.timeout_timer = Some(draft.set_timer(due));
    }
}

pub(super) fn succeed(draft: &mut Draft<impl Observer>, payload: Payload) {
    let last = draft.branch(BranchId::ROOT).map_or(EventId(0), |b| b.previous_event);
    draft.append(last, HistoryKind::ExecutionSucceeded { output: payload.text.clone() });
    draft.remove(BranchId::ROOT);
    clear_execution_timeout(draft);
    draft.end(Status::Succeeded, Outcome::Succeeded { output: payload.text });
}

/// The branch's error is handled nowhere.
pub(super) fn fail(draft: &mut Draft<impl Observer>, id: BranchId, raised: Raised) {
    let last = draft.branch(id).map_or(draft.header.last_event, |b| b.previous_event);
    draft.append(last, HistoryKind::ExecutionFailed(raised.failure()));
    halt_all(draft);
    draft.end(Status::Failed, Outcome::Failed { error: raised.error, cause: raised.cause });
}

/// One event short of the limit, the last one says why.
pub(super) fn fail_for_history(draft: &mut Draft<impl Observer>) {
    if !draft.is_running() {
        return;
    }
    let limit = draft.env.history_events_max;
    let cause = format!("The execution reached the maximum number of history events ({limit}).");
    fail(draft, BranchId::ROOT, Raised::new(Some(RUNTIME.into()), Some(cause)));
}

pub(super) fn abort(draft: &mut Draft<impl Observer>, raised: Raised) {
    abort_runs(draft);
    draft.append(EventId(0), HistoryKind::ExecutionAborted(raised.failure()));
    halt_all(draft);
    draft.end(Status::Aborted, Outcome::Aborted { error: raised.error, cause: raised.cause });
}

/// The definition's own TimeoutSeconds are over.
pub(super) fn time_out(draft: &mut Draft<impl Observer>) {
    let raised = Raised::timeout();
    abort_runs(draft);
    draft.append(EventId(0), HistoryKind::ExecutionTimedOut(raised.failure()));
    halt_all(draft);
    draft.end(Status::TimedOut, Outcome::TimedOut { error: raised.error, cause: raised.cause });
}

/// Goes on from where the execution failed. Each line of control goes on from its own last event, so that
/// one can follow it back through its Parallel or Map. False where there is nothing to go on from.
pub(super) fn redrive(draft: &mut Draft<impl Observer>) -> bool {
    if !matches!(draft.header.status, Status::Failed | Status::TimedOut | Status::Aborted) {
        return false;
    }
    let ids = draft.branch_ids();
    if ids.is_empty() {
        return false;
    }
    let last = draft.header.last_event;
    draft.header.status = Status::Running;
    draft.header.stopped_at = None;
    draft.header.outcome = None;
    draft.header.redrive_count += 1;
    draft.header.redriven_at = Some(draft.at);
    draft.append(last, HistoryKind::ExecutionRedriven { redrive_count: draft.header.redrive_count });
    set_execution_timeout(draft);
    for id in ids.into_iter().rev() {
        let Some(branch) = draft.branch(id) else { continue };
        let work = match &branch.doing {
            Doing::Halted => Work::Enter(id, branch.state.clone(), Payload::of(branch.input.clone())),
            Doing::Map { next_index, length, .. } if next_index < length => Work::Iterate(id),
            Doing::MapRun { .. } => Work::Redrive(id),
            _ => continue,
        };
        draft.work.push(work);
    }
    true
}

/// Nothing wakes the branch any more. A Parallel or Map keeps its count.
pub(super) fn release(draft: &mut Draft<impl Observer>, id: BranchId) {
    let Some(doing) = draft.branch(id).map(|b| b.doing.clone()) else { return };
    for timer in doing.timers() {
        draft.clear_timer(timer);
    }
    if let Some(attempt) = doing.attempt() {
        draft.cancel_task(attempt);
    }
    let after = match doing {
        Doing::Task { .. } | Doing::Wait { .. } | Doing::Retry { .. } | Doing::Ready { .. } => Doing::Halted,
        mut doing @ Doing::Map { resume: Some(_), .. } => {
            if let Doing::Map { resume, .. } = &mut doing {
                *resume = None;
            }
            doing
        }
        Doing::MapRun { attempt, run, redrives, phase: RunPhase::Running } => {
            Doing::MapRun { attempt, run, redrives, phase: RunPhase::Halted }
        }
        _ => return,
    };
    if let Some(branch) = draft.edit(id) {
        branch.doing = after;
    }
}

/// The siblings of a failed branch end with it: their states, then their iterations, in order. All these
/// events point to the one that failed.
pub(super) fn abort_children(draft: &mut Draft<impl Observer>, parent: BranchId, cause: EventId, failed: BranchId) {
    let machine = draft.machine;
    let Some(name) = draft.branch(parent).map(|b| b.state.clone()) else { return };
    let iterations = matches!(machine.state(&name).map(|state| &state.kind), Some(Kind::Map(_)));
    for child in children(draft, parent) {
        let Some(branch) = draft.branch(child) else { continue };
        if child == failed || branch.doing.is_settled() {
            continue;
        }
        let index = branch.parent.map_or(0, |(_, index)| index);
        abort_branch(draft, child, cause);
        if iterations {
            draft.record_after(cause, HistoryKind::MapIterationAborted { name: Arc::clone(&name), index });
        }
    }
}

fn abort_branch(draft: &mut Draft<impl Observer>, id: BranchId, cause: EventId) {
    abort_children(draft, id, cause, id);
    let Some(branch) = draft.branch(id) else { return };
    let entered = !matches!(branch.doing, Doing::Ready { .. });
    if matches!(branch.doing, Doing::MapRun { phase: RunPhase::Running, .. }) {
        draft.record_after(cause, HistoryKind::MapRunAborted);
    }
    let Some(branch) = draft.branch(id) else { return };
    if let (true, Some(state)) = (entered, draft.machine.state(&branch.state)) {
        draft.record_after(cause, HistoryKind::StateAborted { state_type: StateType::of(&state.kind) });
    }
    release(draft, id);
}

/// The children of distributed Maps end with the execution.
fn abort_runs(draft: &mut Draft<impl Observer>) {
    for id in draft.branch_ids() {
        if draft.branch(id).is_some_and(|b| matches!(b.doing, Doing::MapRun { phase: RunPhase::Running, .. })) {
            draft.record(id, HistoryKind::MapRunAborted);
        }
    }
}

fn halt_all(draft: &mut Draft<impl Observer>) {
    for id in draft.branch_ids() {
        release(draft, id);
    }
    clear_execution_timeout(draft);
}

fn clear_execution_timeout(draft: &mut Draft<impl Observer>) {
    if let Some(timer) = draft.header.timeout_timer.take() {
        draft.clear_timer(timer);
    }
}
