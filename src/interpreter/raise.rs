//! An error on its way: to the state's Retry, its Catch, the Parallel or Map around it, the execution's end.
//!
//! ```text
//! state fails -> Retry? -> Catch? -> halted; its Parallel or Map fails with it: siblings aborted -> Retry? -> Catch? ...
//!                                    at the root: the execution fails
//! ```
//! Halted branches keep their rows until the error is handled further out (then they are removed) or the
//! execution has failed (then a redrive continues from them).

use conveyor_asl::{Kind, State};
use conveyor_base::{BranchId, EventId, limits};

use super::catch::Caught;
use super::draft::Draft;
use super::execution::{Doing, RunPhase};
use super::history::{Failure, HistoryKind};
use super::observer::Observer;
use super::{catch, end, map, parallel, retry};

pub(super) const RUNTIME: &str = "States.Runtime";
pub(super) const DATA_LIMIT_EXCEEDED: &str = "States.DataLimitExceeded";
pub(super) const QUERY_EVALUATION: &str = "States.QueryEvaluationError";
pub(super) const TIMEOUT: &str = "States.Timeout";

/// Where an evaluation failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Evaluated {
    pub location: Option<String>,
}

/// An error's name and its cause. AWS leaves out what a Fail state leaves out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Raised {
    pub error: Option<String>,
    pub cause: Option<String>,
    /// The name that `ErrorEquals` knows it by too: AWS documents some errors under another name than it reports.
    also: Option<&'static str>,
    /// An evaluation failed, perhaps that of a field. Its event is recorded before anything is done about the error.
    pub evaluated: Option<Evaluated>,
}

impl Raised {
    pub fn new(error: Option<String>, cause: Option<String>) -> Raised {
        Raised { error, cause, also: None, evaluated: None }
    }

    /// The same, of the expression that stands there.
    pub fn evaluating(self, location: Option<String>) -> Raised {
        Raised { evaluated: Some(Evaluated { location }), ..self }
    }

    pub fn timeout() -> Raised {
        Raised::new(Some(TIMEOUT.into()), None)
    }

    pub fn missed_heartbeat() -> Raised {
        Raised { also: Some("States.HeartbeatTimeout"), ..Raised::timeout() }
    }

    /// More iterations of a Map failed than it tolerates.
    pub fn threshold_exceeded() -> Raised {
        let cause = "The specified tolerated failure threshold was exceeded".to_owned();
        Raised::new(Some("States.ExceedToleratedFailureThreshold".into()), Some(cause))
    }

    /// The result could not be put where ResultPath says.
    pub fn result_path(cause: String) -> Raised {
        let error = Some("States.ReferencePathConflict".to_owned());
        Raised { also: Some("States.ResultPathMatchFailure"), ..Raised::new(error, Some(cause)) }
    }

    /// AWS's sentence.
    pub fn in_state(state: &str, entered: EventId, error: &str, message: &str) -> Raised {
        let cause = format!(
            "An error occurred while executing the state '{state}' (entered at the event id #{entered}). {message}"
        );
        Raised::new(Some(error.to_owned()), Some(cause))
    }

    pub fn too_large(state: &str) -> Raised {
        let cause = format!(
            "The state/task '{state}' returned a result with a size exceeding the maximum number of bytes service limit."
        );
        Raised::new(Some(DATA_LIMIT_EXCEEDED.into()), Some(cause))
    }

    pub fn too_many_variables(state: &str, bytes: usize) -> Raised {
        let most = limits::quotas().variables_bytes();
        let cause = format!(
            "The state '{state}' assigns variables that make {bytes} bytes with those that there are, and at most {most} are kept."
        );
        Raised::new(Some(DATA_LIMIT_EXCEEDED.into()), Some(cause))
    }

    pub fn too_deep(state: &str) -> Raised {
        let most = limits::PAYLOAD_DEPTH_MAX;
        let cause = format!("The state/task '{state}' returned a result that is nested more than {most} deep.");
        Raised::new(Some(DATA_LIMIT_EXCEEDED.into()), Some(cause))
    }

    pub fn failure(&self) -> Failure {
        Failure { error: self.error.clone(), cause: self.cause.clone() }
    }

    /// Whether a list of `ErrorEquals` names it. Nothing takes States.Runtime, not even by its name.
    pub fn is_named_in(&self, names: &[String]) -> bool {
        let error = self.error.as_deref().unwrap_or_default();
        error != RUNTIME
            && names.iter().any(|name| match name.as_str() {
                "States.ALL" => error != DATA_LIMIT_EXCEEDED,
                "States.TaskFailed" => error != DATA_LIMIT_EXCEEDED && error != TIMEOUT,
                name => name == error || Some(name) == self.also,
            })
    }
}

/// The branch's state failed.
pub(super) fn raise(draft: &mut Draft<impl Observer>, failed: BranchId, raised: Raised) {
    let machine = draft.machine;
    draft.observer.failed(&raised);
    let (mut id, mut raised) = (failed, raised);
    loop {
        let Some(branch) = draft.branch(id) else { return };
        let Some(state) = machine.state(&branch.state) else {
            return end::fail(draft, id, raised);
        };
        let evaluated = record_evaluation(draft, id, state, &mut raised);
        if retry::again(draft, id, state, &raised) {
            return;
        }
        record_failed(draft, id, state, &raised, evaluated);
        match catch::caught(draft, id, state, &raised) {
            Caught::Left => return,
            Caught::Not => {}
            Caught::Failed(mut instead) => {
                record_evaluation(draft, id, state, &mut instead);
                raised = instead;
            }
        }
        match halt_and_fail_parent(draft, id) {
            Halted::ParentFailed(parent) => id = parent,
            Halted::IsRoot => return end::fail(draft, id, raised),
        }
    }
}

/// `EvaluationFailed`. What fails before the state does anything follows, on AWS, not on the state's own entry but
/// on the event before it; only a moment that is none follows on the entry.
fn record_evaluation(draft: &mut Draft<impl Observer>, id: BranchId, state: &State, raised: &mut Raised) -> bool {
    let Some(Evaluated { location }) = raised.evaluated.take() else { return false };
    let Some(branch) = draft.branch(id) else { return true };
    let nothing_since = branch.previous_event == branch.state_entered_event && location.as_deref() != Some("Timestamp");
    let before = draft.entered_after.filter(|(entered, _)| *entered == id && nothing_since).map(|(_, event)| event);
    let previous = before.unwrap_or(branch.previous_event);
    let kind = HistoryKind::EvaluationFailed { failure: raised.failure(), location, state: state.name.clone() };
    let event = draft.record_after(previous, kind);
    if let Some(branch) = draft.edit(id) {
        branch.previous_event = event;
    }
    true
}

/// `ParallelStateFailed`, `MapStateFailed`: of those that had started their branches, or could not for an expression.
fn record_failed(draft: &mut Draft<impl Observer>, id: BranchId, state: &State, raised: &Raised, evaluated: bool) {
    let doing = draft.branch(id).map(|b| &b.doing);
    let run_failed = matches!(doing, Some(Doing::MapRun { phase: RunPhase::Halted | RunPhase::Running, .. }));
    let started = evaluated || matches!(doing, Some(Doing::Parallel { .. } | Doing::Map { .. } | Doing::MapRun { .. }));
    if run_failed {
        draft.record(id, HistoryKind::MapRunFailed(raised.failure()));
    }
    match &state.kind {
        Kind::Parallel(_) if started => draft.record(id, HistoryKind::ParallelStateFailed(raised.failure())),
        Kind::Map(_) if started => draft.record(id, HistoryKind::MapStateFailed(raised.failure())),
        _ => return,
    };
}

enum Halted {
    IsRoot,
    ParentFailed(BranchId),
}

/// Nobody handles the error in this branch: it stands still, and the state around it fails too.
fn halt_and_fail_parent(draft: &mut Draft<impl Observer>, id: BranchId) -> Halted {
    // A Parallel or Map whose branches ended well failed by itself: it begins anew in a redrive. A run of a distributed
    // Map is redriven.
    let run_halted = draft.branch(id).is_some_and(|b| matches!(b.doing, Doing::MapRun { phase: RunPhase::Halted, .. }));
    if !run_halted && !has_halted_child(draft, id) {
        restart_later(draft, id);
    }
    let Some((previous, parent)) = draft.branch(id).map(|b| (b.previous_event, b.parent)) else {
        return Halted::IsRoot;
    };
    let Some((parent, index)) = parent else { return Halted::IsRoot };
    map::iteration_failed(draft, parent, index, id);
    end::abort_children(draft, parent, previous, id);
    if let Some(branch) = draft.edit(parent) {
        branch.previous_event = previous;
    }
    Halted::ParentFailed(parent)
}

fn has_halted_child(draft: &Draft<impl Observer>, id: BranchId) -> bool {
    let unsettled = |child: &BranchId| draft.branch(*child).is_some_and(|b| !matches!(b.doing, Doing::Done { .. }));
    parallel::children(draft, id).iter().any(unsettled)
}

/// Leaves the state such that it can be entered again: no branches below it, its input in its row.
pub(super) fn restart_later(draft: &mut Draft<impl Observer>, id: BranchId) {
    end::release(draft, id);
    parallel::remove_children(draft, id);
    draft.drop_map_items(id);
    if let Some(branch) = draft.edit(id) {
        branch.doing = Doing::Halted;
    }
}
