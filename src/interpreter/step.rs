//! `step`: one event in, one decision out.
//!
//! Owns which event wakes whom, and the loop that runs states until each line of control waits for
//! something outside. Pure and total: an event that is not current (an attempt of yesterday, a timer that was
//! cleared, anything after the end) changes nothing and gives an empty [`Step`].
//!
//! One step runs at most [`limits::STATES_PER_STEP_MAX`] states, and no further one once its expressions have done
//! [`limits::STEP_WORK_MAX`]. What is then left goes on in a step of its own, woken by a timer that is due at once; so a
//! definition that loops for ever holds no machine. A step at [`Pace::Brief`] leaves what takes longer to others.

use conveyor_asl::{Effort, Kind, Name, State, StateMachine, Transition};
use conveyor_base::{BranchId, EventId, TimerId, Timestamp, limits};

use super::dataflow::Output;
use super::draft::{Draft, Payload, Work};
use super::env::Env;
use super::event::{Entry, Event};
use super::execution::{Branch, Doing, Execution, Step};
use super::history::{HistoryKind, StateType};
use super::observer::Observer;
use super::partial::{Base, Partial, Unread};
use super::raise::{RUNTIME, Raised, raise};
use super::{choice, end, map, map_run, parallel, pass, task, wait};

/// How long a step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// No longer than what else runs on the thread can wait ([`limits::BRIEF_WORK_MAX`]).
    Brief,
    /// As long as its states are allowed to.
    Whole,
}

/// Why no step was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacks {
    /// The row was not read.
    Row(Unread),
    /// It takes longer than [`Pace::Brief`]: to be decided at [`Pace::Whole`], where that may be.
    Time,
}

/// Decides what an event means for an execution.
pub fn step(machine: &StateMachine, execution: &Execution, entry: &Entry, env: &Env) -> Step {
    // Of an execution that is whole no row is unread, and whatever time it takes is given.
    decide(machine, Base::Whole(execution), entry, env, Pace::Whole).unwrap_or_default()
}

/// The same at [`Pace::Brief`]; `None` where it takes longer. The first step of an execution never does: what takes longer
/// is put off.
pub fn step_briefly(machine: &StateMachine, execution: &Execution, entry: &Entry, env: &Env) -> Option<Step> {
    decide(machine, Base::Whole(execution), entry, env, Pace::Brief).ok()
}

/// The same, of an execution of which only some rows were read: what it would be of the whole, or what is lacking to
/// say so. Once that is read ([`Partial::read`]), the same entry is to be decided again.
pub fn step_partly(
    machine: &StateMachine,
    partial: &Partial,
    entry: &Entry,
    env: &Env,
    pace: Pace,
) -> Result<Step, Lacks> {
    decide(machine, Base::Part(partial), entry, env, pace)
}

/// Where a state takes longer than the pace allows, what was decided so far is decided again, and that state put off.
fn decide(machine: &StateMachine, base: Base, entry: &Entry, env: &Env, pace: Pace) -> Result<Step, Lacks> {
    let mut most = usize::MAX;
    loop {
        let effort = Effort::of(match pace {
            Pace::Brief => limits::BRIEF_WORK_MAX,
            Pace::Whole => limits::STATE_WORK_MAX,
        });
        let mut draft = Draft::new(machine, base, entry, env, &effort);
        draft.pace = pace;
        let is_current = take(&mut draft, &entry.event);
        let begun = if is_current { run_on(&mut draft, most) } else { 0 };
        if draft.takes_too_long() {
            let in_time = begun.checked_sub(1).filter(|whole| *whole < most);
            // Who was put off before is not put off again: it is its turn.
            let put_off_before = matches!(entry.event, Event::TimerFired { .. });
            match in_time.filter(|whole| *whole > 0 || !put_off_before) {
                Some(whole) => most = whole,
                None => return Err(draft.unread().map_or(Lacks::Time, Lacks::Row)),
            }
            continue;
        }
        if is_current && draft.history_is_full() {
            end::fail_for_history(&mut draft);
        }
        let step = draft.into_step().map_err(Lacks::Row)?;
        return Ok(if is_current { step } else { Step::default() });
    }
}

/// Hands the event to whom it wakes. False where it is not current.
fn take(draft: &mut Draft<impl Observer>, event: &Event) -> bool {
    let running = draft.is_running();
    match event {
        Event::Redriven => return !running && end::redrive(draft),
        _ if !running => return false,
        Event::Started => return start(draft),
        Event::Stopped { error, cause } => end::abort(draft, Raised::new(error.clone(), cause.clone())),
        Event::TimerFired { timer } => return fire(draft, *timer),
        Event::TaskStarted { attempt, .. }
        | Event::TaskSubmitted { attempt, .. }
        | Event::TaskSucceeded { attempt, .. }
        | Event::TaskFailed { attempt, .. }
        | Event::TaskSubmitFailed { attempt, .. }
        | Event::TaskStartFailed { attempt, .. }
        | Event::HeartbeatSeen { attempt } => {
            let Some(id) = draft.branch_of_attempt(*attempt) else { return false };
            // News that come after the time was over come too late, also where the box was off and nobody fired the timer.
            if let Some(timer) = overdue(draft, id) {
                draft.clear_timer(timer);
                let fired = fire(draft, timer.0);
                if event.ends_attempt() {
                    draft.has_ended(*attempt);
                }
                return fired;
            }
            return match draft.branch(id).map(|branch| &branch.doing) {
                Some(Doing::MapRun { .. }) => map_run::report(draft, id, event),
                _ => task::report(draft, id, event),
            };
        }
    }
    true
}

fn start(draft: &mut Draft<impl Observer>) -> bool {
    if draft.header.last_event != EventId(0) {
        return false;
    }
    let (input, role_arn) = (draft.header.input.clone(), draft.env.role_arn.clone());
    draft.append(EventId(0), HistoryKind::ExecutionStarted { input: input.clone(), role_arn });
    end::set_execution_timeout(draft);
    let start_at = start_of(draft);
    let root = Branch::new(None, &start_at, draft.at);
    draft.insert(BranchId::ROOT, root);
    match serde_json::from_str::<serde_json::Value>(&input) {
        // The first state shows the caller's own text.
        Ok(value) => {
            let payload = Payload { value: value.into(), text: input };
            draft.work.push(Work::Enter(BranchId::ROOT, start_at, payload));
        }
        Err(error) => {
            let cause = format!("The execution's input is not JSON: {error}.");
            end::fail(draft, BranchId::ROOT, Raised::new(Some(RUNTIME.into()), Some(cause)));
        }
    }
    true
}

/// The first state: a distributed Map's child runs that Map's processor.
fn start_of(draft: &Draft<impl Observer>) -> Name {
    let map = draft.header.child.as_ref().and_then(|child| draft.machine.state(&child.state));
    match map.map(|state| &state.kind) {
        Some(Kind::Map(map)) => map.processor.start_at.clone(),
        _ => draft.machine.root.start_at.clone(),
    }
}

/// The timer of the execution's own time or of the attempt's, where that is over; the first of both.
fn overdue(draft: &Draft<impl Observer>, id: BranchId) -> Option<(TimerId, Timestamp)> {
    let of_attempt = match draft.branch(id).map(|branch| &branch.doing) {
        Some(Doing::Task { timeout, .. }) => *timeout,
        _ => None,
    };
    let both = draft.header.timeout_timer.into_iter().chain(of_attempt);
    both.filter(|(_, due)| *due <= draft.box_at).min_by_key(|(_, due)| *due)
}

fn fire(draft: &mut Draft<impl Observer>, timer: TimerId) -> bool {
    if draft.header.timeout_timer.is_some_and(|(id, _)| id == timer) {
        draft.header.timeout_timer = None;
        end::time_out(draft);
        return true;
    }
    let Some(id) = draft.branch_of_timer(timer) else { return false };
    let Some(branch) = draft.branch(id) else { return false };
    match &branch.doing {
        Doing::Task { .. } => task::time_out(draft, id, timer),
        Doing::Wait { .. } => wait::over(draft, id),
        Doing::Retry { .. } => run_again(draft, id),
        Doing::Ready { .. } => {
            let (name, payload) = (branch.state.clone(), Payload::of(branch.input.clone()));
            if let Some(branch) = draft.edit(id) {
                branch.doing = Doing::Halted;
            }
            draft.work.push(Work::Enter(id, name, payload));
        }
        Doing::Map { .. } => {
            if let Some(Branch { doing: Doing::Map { resume, .. }, .. }) = draft.edit(id) {
                *resume = None;
            }
            draft.work.push(Work::Iterate(id));
        }
        Doing::Parallel { .. } | Doing::MapRun { .. } | Doing::Done { .. } | Doing::Halted => return false,
    }
    true
}

/// Runs states until every line of control waits, `most` pieces of work at most. How many were begun.
fn run_on(draft: &mut Draft<impl Observer>, most: usize) -> usize {
    let (mut begun, mut states) = (0, 0);
    while let Some(work) = draft.work.pop() {
        if draft.history_is_full() || !draft.is_running() || draft.is_void() {
            break;
        }
        let is_enough = states == limits::STATES_PER_STEP_MAX || begun >= most || !draft.has_effort_for_more();
        match work {
            Work::Redrive(id) => map_run::redrive(draft, id),
            work if is_enough => {
                put_off(draft, work);
                continue;
            }
            Work::Enter(id, name, payload) => {
                states += 1;
                enter(draft, id, &name, payload);
            }
            Work::Iterate(id) => map::iterate(draft, id),
        }
        begun += 1;
    }
    begun
}

/// Leaves what this step does not run to a timer that is due at once.
fn put_off(draft: &mut Draft<impl Observer>, work: Work) {
    let id = match &work {
        Work::Enter(id, ..) | Work::Iterate(id) | Work::Redrive(id) => *id,
    };
    if draft.branch(id).is_none() {
        return;
    }
    let (timer, due) = draft.set_timer(draft.box_at);
    let Some(branch) = draft.edit(id) else { return };
    match work {
        Work::Enter(_, name, payload) => {
            branch.state = name;
            branch.input = payload.value;
            branch.doing = Doing::Ready { timer, due };
        }
        Work::Iterate(_) => match &mut branch.doing {
            Doing::Map { resume: resume @ None, .. } => *resume = Some((timer, due)),
            _ => draft.clear_timer((timer, due)),
        },
        // Never put off: it starts nothing here.
        Work::Redrive(_) => draft.clear_timer((timer, due)),
    }
}

fn enter(draft: &mut Draft<impl Observer>, id: BranchId, name: &Name, payload: Payload) {
    let at = draft.at;
    let Some(branch) = draft.edit(id) else { return };
    branch.state = name.clone();
    branch.state_entered_at = at;
    branch.input = payload.value.clone();
    branch.retries.clear();
    let Some(state) = draft.machine.state(name) else {
        let cause = format!("The definition of this execution has no state named '{name}'.");
        return end::fail(draft, id, Raised::new(Some(RUNTIME.into()), Some(cause)));
    };
    let state_type = StateType::of(&state.kind);
    draft.entered_after = draft.branch(id).map(|branch| (id, branch.previous_event));
    let event = draft
        .record(id, HistoryKind::StateEntered { state_type, name: state.name.clone(), input: payload.text.clone() });
    if let Some(branch) = draft.edit(id) {
        branch.state_entered_event = event;
    }
    run(draft, id, state, payload);
}

/// A back-off is over: the state runs again, without being entered again.
fn run_again(draft: &mut Draft<impl Observer>, id: BranchId) {
    let Some(branch) = draft.edit(id) else { return };
    branch.doing = Doing::Halted;
    let (name, payload) = (branch.state.clone(), Payload::of(branch.input.clone()));
    match draft.machine.state(&name) {
        Some(state) => run(draft, id, state, payload),
        None => end::fail(draft, id, Raised::new(Some(RUNTIME.into()), None)),
    }
}

pub(super) fn run(draft: &mut Draft<impl Observer>, id: BranchId, state: &State, payload: Payload) {
    let ran = match &state.kind {
        Kind::Pass { result } => pass::run(draft, id, state, result.as_ref(), payload),
        Kind::Succeed => pass::succeed(draft, id, state, payload),
        Kind::Fail { error, cause } => pass::fail(draft, id, state, error, cause, payload),
        Kind::Choice(choice) => choice::run(draft, id, state, choice, payload),
        Kind::Wait(wait) => wait::run(draft, id, state, wait, payload),
        Kind::Task(task) => task::run(draft, id, state, task, payload),
        Kind::Parallel(processors) => parallel::run(draft, id, state, processors, payload),
        Kind::Map(map) => map::run(draft, id, state, map, payload),
    };
    if let Err(raised) = ran {
        raise(draft, id, raised);
    }
}

/// The state is over: records it and goes where the transition leads.
pub(super) fn leave(draft: &mut Draft<impl Observer>, id: BranchId, state: &State, output: Output, to: &Transition) {
    let Output { payload, assigned } = output;
    draft.record(
        id,
        HistoryKind::StateExited {
            state_type: StateType::of(&state.kind),
            name: state.name.clone(),
            output: payload.text.clone(),
            assigned: assigned.iter().map(|(name, _, text)| (name.clone(), text.clone())).collect(),
        },
    );
    if let Some(branch) = draft.edit(id) {
        branch.variables.extend(assigned.into_iter().map(|(name, value, _)| (name, value)));
        branch.doing = Doing::Halted;
    }
    match to {
        Transition::Next(name) => draft.work.push(Work::Enter(id, name.clone(), payload)),
        Transition::End => finish(draft, id, payload),
    }
}

/// The line of control is over.
fn finish(draft: &mut Draft<impl Observer>, id: BranchId, payload: Payload) {
    let Some(branch) = draft.edit(id) else { return };
    let Some((parent, index)) = branch.parent else { return end::succeed(draft, payload) };
    // Nothing of the row but its output is needed any more.
    branch.doing = Doing::Done { output: payload.value.clone() };
    branch.input = payload.value;
    branch.map_item = None;
    branch.variables.clear();
    let last = branch.previous_event;
    match draft.branch(parent).map(|b| &b.doing) {
        Some(Doing::Parallel { .. }) => parallel::branch_finished(draft, parent, last),
        Some(Doing::Map { .. }) => map::iteration_succeeded(draft, parent, index, last),
        _ => {}
    }
}

/// Where a state without rules of its own goes next.
pub(super) fn transition(state: &State) -> &Transition {
    state.transition.as_ref().unwrap_or(&Transition::End)
}
