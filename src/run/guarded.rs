//! An execution whose next step cannot be decided, because `step` panics over it, is failed by hand: it must neither
//! take others along nor come back with every start.
//!
//! `step` is pure, so trying the same again would panic again. Every line of control is left halted, as `step` leaves
//! them: a release that has the bug mended can redrive the execution.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use conveyor_base::limits::CAUSE_CHARS_MAX;
use conveyor_base::{Attempt, BranchId, EventId, TaskError, Timestamp, fault};
use conveyor_interpreter::{
    self as interpreter, Branch, Command, Doing, Entry, Execution, Failure, Header, HistoryEvent, HistoryKind, Lacks,
    Outcome, Pace, Partial, RunPhase, RunTask, Status, Step, Unread,
};
use conveyor_store::{STORE_DAMAGED, damage_cause};

use super::catalog::Machine;
use super::resource::Resource;
use super::{Demand, events};

type Branches = BTreeMap<BranchId, Branch>;

/// What a Task fails with whose resource was asked something and panicked.
pub(super) fn resource_panicked(panic: &(dyn Any + Send)) -> TaskError {
    let text = fault::panic_text(panic);
    let cause = format!(
        "The part of the appliance that this Task asks failed over it; please report it with the definition and the \
         input: {text}"
    );
    TaskError::new("Stage.Panicked", cause)
}

/// What an attempt needs to run, of a resource that may panic over it.
pub(super) fn demand(resource: &dyn Resource, task: &RunTask) -> Result<Option<Demand>, TaskError> {
    catch_unwind(AssertUnwindSafe(|| resource.demand(task))).map_err(|panic| resource_panicked(&*panic))
}

/// Decides, whatever happens.
pub(super) fn step(machine: &Machine, execution: &Execution, entry: &Entry) -> Step {
    let decide = || interpreter::step(&machine.definition, execution, entry, &machine.env);
    catch_unwind(AssertUnwindSafe(decide))
        .unwrap_or_else(|panic| panicked(machine, &execution.header, &execution.branches, entry.at, &*panic))
}

/// The same on a thread of the runtime; `None` where it takes longer than that may. The first step never does.
pub(super) fn step_briefly(machine: &Machine, execution: &Execution, entry: &Entry) -> Option<Step> {
    let decide = || interpreter::step_briefly(&machine.definition, execution, entry, &machine.env);
    catch_unwind(AssertUnwindSafe(decide))
        .unwrap_or_else(|panic| Some(panicked(machine, &execution.header, &execution.branches, entry.at, &*panic)))
}

/// The first step of an execution.
pub(super) fn begin(machine: &Machine, execution: &Execution, entry: &Entry) -> Step {
    step_briefly(machine, execution, entry).unwrap_or_else(|| step(machine, execution, entry))
}

/// The same, of an execution of which only some rows were read.
pub(super) fn step_partly(machine: &Machine, execution: &Partial, entry: &Entry, pace: Pace) -> Result<Step, Lacks> {
    let decide = || interpreter::step_partly(&machine.definition, execution, entry, &machine.env, pace);
    catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|panic| match execution.branches() {
        Some(branches) => Ok(panicked(machine, execution.header(), branches, entry.at, &*panic)),
        // Whoever is failed by hand leaves nothing behind that waits.
        None => Err(Lacks::Row(Unread::ALL_BRANCHES)),
    })
}

fn panicked(machine: &Machine, header: &Header, branches: &Branches, at: Timestamp, panic: &(dyn Any + Send)) -> Step {
    let text = fault::panic_text(panic);
    events::StepPanicked { id: header.id, text: &text }.emit();
    if header.status != Status::Running {
        // It has its end, and a redrive that cannot be decided changes nothing about that.
        return Step::default();
    }
    let cause = format!(
        "Deciding the execution's next step failed inside the appliance; please report it with the definition and the \
         input, and redrive the execution once it is mended: {text}"
    );
    failing(header, branches, at, "States.Runtime", &cause, &machine.env.role_arn)
}

/// The step that ends an execution of which something stored is damaged. Its branches stay as they are stored: nobody knows
/// them all. `attempts`: those that are known to be under way.
pub(super) fn damaged(machine: &Machine, header: &Header, attempts: &[Attempt], at: Timestamp, what: &str) -> Step {
    let cause = damage_cause(header.id, what);
    let mut step = failing(header, &Branches::new(), at, STORE_DAMAGED, &cause, &machine.env.role_arn);
    let cancel = attempts.iter().map(|attempt| Command::CancelTask { attempt: *attempt });
    step.commands.splice(0..0, cancel);
    step
}

/// The step that ends the execution with that error: no timer stays, no task, nothing that could wake it.
fn failing(header: &Header, branches: &Branches, at: Timestamp, error: &str, cause: &str, role_arn: &str) -> Step {
    let mut header = header.clone();
    let error = Some(error.to_owned());
    let cause = Some(cause.chars().take(CAUSE_CHARS_MAX).collect::<String>());
    let (mut history, mut commands) = (Vec::new(), Vec::new());
    let mut add = |header: &mut Header, kind| {
        let previous = header.last_event;
        header.last_event = EventId(previous.0 + 1);
        history.push(HistoryEvent { id: header.last_event, previous, at, kind });
    };
    if header.last_event == EventId(0) {
        let (input, role_arn) = (header.input.clone(), role_arn.to_owned());
        add(&mut header, HistoryKind::ExecutionStarted { input, role_arn });
    }
    add(&mut header, HistoryKind::ExecutionFailed(Failure { error: error.clone(), cause: cause.clone() }));
    if let Some((timer, due)) = header.timeout_timer.take() {
        commands.push(Command::ClearTimer { timer, due });
    }
    let mut changed = BTreeMap::new();
    for (id, branch) in branches {
        commands.extend(branch.doing.timers().map(|(timer, due)| Command::ClearTimer { timer, due }));
        commands.extend(branch.doing.attempt().map(|attempt| Command::CancelTask { attempt }));
        if let Some(doing) = halted(&branch.doing) {
            changed.insert(*id, Some(Branch { doing, ..branch.clone() }));
        }
    }
    let outcome = Outcome::Failed { error, cause };
    header.status = Status::Failed;
    header.stopped_at = Some(at);
    header.outcome = Some(outcome.clone());
    commands.push(Command::Deliver(outcome));
    Step { header: Some(header), branches: changed, history, commands, ..Step::default() }
}

/// What the branch does from now on, where that is something else.
fn halted(doing: &Doing) -> Option<Doing> {
    match doing {
        Doing::Task { .. } | Doing::Wait { .. } | Doing::Retry { .. } | Doing::Ready { .. } => Some(Doing::Halted),
        Doing::Map { resume: Some(_), .. } => {
            let mut after = doing.clone();
            if let Doing::Map { resume, .. } = &mut after {
                *resume = None;
            }
            Some(after)
        }
        Doing::MapRun { attempt, run, redrives, phase: RunPhase::Running } => {
            Some(Doing::MapRun { attempt: *attempt, run: *run, redrives: *redrives, phase: RunPhase::Halted })
        }
        Doing::Map { .. } | Doing::MapRun { .. } | Doing::Parallel { .. } | Doing::Done { .. } | Doing::Halted => None,
    }
}

#[cfg(test)]
mod tests {
    use conveyor_base::ExecutionId;
    use conveyor_interpreter::{Env, Event, MachineRef, step};

    use super::*;

    #[test]
    fn a_quarantined_execution_has_nothing_that_could_wake_it_but_a_redrive() {
        let text = r#"{"StartAt":"A","TimeoutSeconds":9,"States":{"A":{"Type":"Parallel","End":true,"Branches":[
            {"StartAt":"W","States":{"W":{"Type":"Wait","Seconds":5,"End":true}}},
            {"StartAt":"T","States":{"T":{"Type":"Task","Resource":"arn:aws:states:::x:y","End":true}}}]}}}"#;
        let machine = conveyor_asl::parse(text).unwrap();
        let pinned = MachineRef { name: "m".into(), revision: 1, qualifier: None };
        let id = ExecutionId::generate(Timestamp(1));
        let mut execution = Execution::start(id, "e".into(), pinned, "{}".into(), Timestamp(1));
        let entry = Entry { at: Timestamp(1), box_at: Timestamp(1), seed: 1, event: Event::Started };
        let env = Env::new("r", "a", "m", "");
        execution.apply(&step(&machine, &execution, &entry, &env));
        let timers = execution.branches.values().flat_map(|b| b.doing.timers()).count() + 1;
        let last = execution.header.last_event;

        let end = failing(&execution.header, &execution.branches, Timestamp(2), "States.Runtime", "boom", "");
        execution.apply(&end);
        let cleared = end.commands.iter().filter(|c| matches!(c, Command::ClearTimer { .. })).count();
        assert_eq!(cleared, timers);
        assert!(execution.branches.values().all(|b| b.doing.timers().count() == 0 && b.doing.attempt().is_none()));
        assert!(execution.header.timeout_timer.is_none());
        assert_eq!(execution.header.status, Status::Failed);
        assert_eq!(execution.header.last_event, EventId(last.0 + 1));
        assert!(matches!(end.commands.last(), Some(Command::Deliver(_))));

        let entry = Entry { at: Timestamp(3), box_at: Timestamp(3), seed: 2, event: Event::Redriven };
        let again = step(&machine, &execution, &entry, &env);
        execution.apply(&again);
        assert_eq!(execution.header.status, Status::Running);
        assert!(again.commands.iter().any(|c| matches!(c, Command::RunTask(_))));
    }
}
