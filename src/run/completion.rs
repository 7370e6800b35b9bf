//! The end of a Task's attempt as part of another's commit: what the Task changed in the box's own store and the end of
//! its attempt become durable together, so that a crash repeats both or neither.
//!
//! ```text
//!  execution's actor                      service's actor                  writer
//!  lends the execution ── message ──────> decides
//!          (waits)                        joins: step(execution, outcome)
//!                                         one commit ────────────────────> durable
//!  applies the step, acts <───────────────────────────────────────────────────┘
//! ```
//!
//! Invariant: an execution is lent to one service at a time and its actor decides nothing meanwhile, so what the step
//! saw is what the store holds when the commit does.

use std::sync::Arc;

use conveyor_base::{Attempt, Fault, TaskError};
use conveyor_interpreter::{Lacks, Pace, Partial, Step, Unread};
use conveyor_store::{Commit, NotRead};
use tokio::sync::oneshot;

use super::audit::OnBehalf;
use super::catalog::Machine;
use super::core::SharedCore;
use super::guarded;
use super::resource::{Announced, TaskOutcome};
use super::stage;

/// The right to end an attempt, lent to a service of the box.
pub struct Completion(Option<Box<Lent>>);

/// How a service ends an attempt: gets the [`Completion`] and sends it on with its question. Waits for nothing.
pub type Settle = Box<dyn FnOnce(Completion) + Send>;

struct Lent {
    core: SharedCore,
    attempt: Attempt,
    /// Absent where the end is not stored: of express executions, and of a Task that is only tried out.
    stored: Option<Stored>,
    /// Who tries it out: the change that it makes takes this along.
    on_behalf: Option<OnBehalf>,
    /// What the step looks at that is too much to be read where the service decides.
    lacks: Option<Unread>,
    /// Why rows that the step looks at cannot be read.
    unread: Option<Fault>,
    /// Set once the end is part of a commit.
    joined: Option<Joined>,
    back: oneshot::Sender<Completed>,
}

struct Stored {
    execution: Box<Partial>,
    machine: Arc<Machine>,
}

struct Joined {
    outcome: TaskOutcome,
    step: Step,
    announced: Vec<Announced>,
}

/// What became of a lent attempt.
pub(super) enum Completed {
    /// Its end is durable. The execution comes back as it was lent.
    Durable { execution: Box<Partial>, step: Box<Step>, announced: Vec<Announced>, outcome: TaskOutcome },
    /// The attempt is over with this, and nothing of the execution is stored yet.
    Outcome { execution: Option<Box<Partial>>, outcome: TaskOutcome },
    /// The service panicked over the question itself. Nothing was stored, and the execution is to be read again.
    Lost,
    /// Nothing was stored: this is to be read first, and then the service asked again.
    Lacks { execution: Box<Partial>, unread: Unread },
    /// Nothing was stored: rows of the execution that the step looks at cannot be read.
    Unread(Fault),
}

/// A panic over the question is told from a service that is away just now, or failed over somebody else's question: that
/// asks for patience only.
impl Drop for Completion {
    fn drop(&mut self) {
        let Some(Lent { stored, lacks, unread, back, .. }) = self.0.take().map(|lent| *lent) else { return };
        // The actor that waits is gone only with the appliance.
        let _ = match (unread, stored, lacks) {
            (Some(fault), ..) => back.send(Completed::Unread(fault)),
            (None, Some(Stored { execution, .. }), Some(unread)) => back.send(Completed::Lacks { execution, unread }),
            _ if std::thread::panicking() => back.send(Completed::Lost),
            _ => return,
        };
    }
}

impl Completion {
    /// Lends an execution to whoever ends that attempt. What comes back errs where nobody ended it: the service that
    /// had it failed, and nothing was stored.
    pub(super) fn lend(
        core: &SharedCore,
        execution: Box<Partial>,
        machine: Arc<Machine>,
        attempt: Attempt,
    ) -> (Completion, oneshot::Receiver<Completed>) {
        Completion::new(core, Some(Stored { execution, machine }), attempt, None)
    }

    /// The same where the end is stored by nobody, or elsewhere.
    pub(super) fn alone(
        core: &SharedCore,
        attempt: Attempt,
        on_behalf: Option<OnBehalf>,
    ) -> (Completion, oneshot::Receiver<Completed>) {
        Completion::new(core, None, attempt, on_behalf)
    }

    fn new(
        core: &SharedCore,
        stored: Option<Stored>,
        attempt: Attempt,
        on_behalf: Option<OnBehalf>,
    ) -> (Completion, oneshot::Receiver<Completed>) {
        let (back, ended) = oneshot::channel();
        let lent =
            Lent { core: core.clone(), attempt, stored, on_behalf, lacks: None, unread: None, joined: None, back };
        (Completion(Some(Box::new(lent))), ended)
    }

    /// Adds the attempt's end to a commit. False, and nothing may be stored for it: the attempt is over already, or is to
    /// be ended again once more of its execution was read.
    pub(super) fn join(&mut self, outcome: TaskOutcome, commit: &mut Commit) -> bool {
        let Some(lent) = &mut self.0 else { return false };
        let Some(Stored { execution, machine }) = &mut lent.stored else {
            if let Some(entry) = &lent.on_behalf {
                entry.join(commit);
            }
            lent.joined = Some(Joined { outcome, step: Step::default(), announced: Vec::new() });
            return true;
        };
        let event = stage::event(lent.attempt, outcome.clone()).0;
        let entry = match lent.core.entry_of(execution, event) {
            Ok(entry) => entry,
            Err(fault) => {
                lent.unread = Some(fault);
                return false;
            }
        };
        let rows = lent.core.reader.rows(execution.header().id);
        // What brings a Map's iterations together was read before this was lent; what fails very many of them was not.
        let mut pace = Pace::Brief;
        let step = loop {
            let unread = match guarded::step_partly(machine, execution, &entry, pace) {
                Ok(step) => break step,
                Err(Lacks::Row(unread)) => unread,
                // What the Task's own expressions make of its result cannot be put off.
                Err(Lacks::Time) => {
                    pace = Pace::Whole;
                    continue;
                }
            };
            match execution.read(unread, &rows) {
                Ok(()) => {}
                Err(NotRead::TooMany) => {
                    lent.lacks = Some(unread);
                    return false;
                }
                // Its actor takes note of it.
                Err(NotRead::Fault(fault)) => {
                    lent.unread = Some(fault);
                    return false;
                }
            }
        };
        if step.header.is_none() {
            return false;
        }
        commit.step_of(execution, &step);
        let announced = lent.core.status_changed(machine, execution.header(), &step, commit);
        lent.joined = Some(Joined { outcome, step, announced });
        true
    }

    /// Whether the attempt's end is a row of the store.
    pub(super) fn is_stored(&self) -> bool {
        self.0.as_ref().is_some_and(|lent| lent.stored.is_some())
    }

    /// The commit that it joined is durable.
    pub(super) fn durable(mut self) {
        let Some(Lent { stored, joined: Some(joined), back, .. }) = self.0.take().map(|lent| *lent) else { return };
        let Joined { outcome, step, announced } = joined;
        // The actor that waits is gone only with the appliance.
        let _ = back.send(match stored {
            Some(Stored { execution, .. }) => {
                Completed::Durable { execution, step: Box::new(step), announced, outcome }
            }
            None => Completed::Outcome { execution: None, outcome },
        });
    }

    /// Ends the attempt where the service changed nothing.
    pub fn answer(mut self, outcome: TaskOutcome) {
        let Some(Lent { stored, back, .. }) = self.0.take().map(|lent| *lent) else { return };
        let execution = stored.map(|stored| stored.execution);
        let _ = back.send(Completed::Outcome { execution, outcome });
    }
}

/// The outcome where the service that had the attempt failed.
pub(super) fn lost() -> TaskOutcome {
    TaskOutcome::Failed(TaskError::new(
        "States.TaskFailed",
        "The part of the appliance that this Task asks failed and is being started again; its log has the details.",
    ))
}
