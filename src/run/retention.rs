//! Ended executions: until when they can be redriven, and how they leave the database when their time is over.
//!
//! Invariant: what a redrive needs stays until its period is over, no redrive begins while executions are archived,
//! and what is archived is never redriven. Commits of other executions go on meanwhile.

use std::sync::Arc;

use conveyor_base::limits::REDRIVABLE_MS;
use conveyor_base::{Fault, Older, Span};
use conveyor_interpreter::{Header, Status};
use conveyor_store::{EndedBefore, Writer, is_damaged};

use super::core::Core;
use super::handle::Handle;

/// Executions looked at in one go, between which redrives and the shutdown get their turn.
const PER_TURN: usize = 500;

/// How long ended executions are retained, from their end on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionPeriods {
    /// Input, output and history then move into the archive of their day.
    pub archive: Span,
    /// They are forgotten with the rest of their day.
    pub forget: Span,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    pub archived: usize,
    pub forgotten: usize,
}

/// Why the execution cannot be redriven, in AWS's words; `None` where it can. `over`: what is older than [`REDRIVABLE_MS`].
pub fn not_redrivable(header: &Header, over: &Older) -> Option<String> {
    let (error, cause) = header.failure();
    if is_damaged(header.id, error, cause) {
        return Some("Stored bytes of the execution are damaged, and it cannot go on; start it anew".to_owned());
    }
    match (header.status, header.stopped_at) {
        (Status::Failed | Status::TimedOut | Status::Aborted, Some(ended)) if !over.has(ended) => None,
        (Status::Failed | Status::TimedOut | Status::Aborted, _) => {
            Some("Execution redrivable period exceeded".to_owned())
        }
        (status, _) => Some(format!("Execution is {} and cannot be redriven", status.name())),
    }
}

impl RetentionPeriods {
    /// What may be archived: of what failed nothing that could be redriven, unless it is forgotten by then anyhow.
    fn archivable(&self, older_than: impl Fn(i64) -> Older) -> EndedBefore {
        let unsuccessful = self.archive.ms.max(REDRIVABLE_MS.unsigned_abs()).min(self.forget.ms);
        EndedBefore { succeeded: older_than(signed(self.archive.ms)), unsuccessful: older_than(signed(unsuccessful)) }
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

impl Handle {
    /// Archives and forgets the executions whose time has come. May break off anywhere, and is then begun again.
    pub async fn retire(&self, periods: RetentionPeriods) -> Result<Retired, Fault> {
        let core = self.core();
        // Not the wall clock itself: what it shows by mistake must not cost anybody his executions.
        let before = periods.archivable(|ms| core.clock.older_than(ms));
        let mut retired = Retired::default();
        let archived = archive(core, &before, &mut retired.archived).await;
        // Whatever kept the others from being archived: what has been, goes when its time has come.
        let forgettable = core.clock.older_than(signed(periods.forget.ms));
        retired.forgotten = blocking(core, move |writer| writer.forget_archived(&forgettable)).await?;
        archived.map(|()| retired)
    }
}

async fn archive(core: &Arc<Core>, before: &EndedBefore, archived: &mut usize) -> Result<(), Fault> {
    let mut reached = None;
    loop {
        let ended = before.clone();
        let pass = undisturbed(core, move |writer| writer.archive_ended(&ended, reached, PER_TURN)).await?;
        *archived += pass.archived;
        reached = pass.reached;
        if reached.is_none() {
            return Ok(());
        }
    }
}

/// Runs the work while nobody redrives an execution.
async fn undisturbed<T: Send + 'static>(
    core: &Arc<Core>,
    work: impl FnOnce(&Writer) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    // The lock goes with the work and not with who waits for it: dropping the future does not end a thread.
    let held = core.redrives.clone().write_owned().await;
    blocking(core, move |writer| {
        let done = work(writer);
        drop(held);
        done
    })
    .await
}

/// Runs the work on a thread that may block.
async fn blocking<T: Send + 'static>(
    core: &Arc<Core>,
    work: impl FnOnce(&Writer) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let owner = core.clone();
    let done = tokio::task::spawn_blocking(move || work(&owner.writer));
    done.await.unwrap_or_else(|e| Err(Fault::retryable("a pass over ended executions broke off", e)))
}

#[cfg(test)]
mod tests {
    use conveyor_base::{ExecutionId, Timestamp};
    use conveyor_interpreter::{Execution, MachineRef, Outcome};
    use conveyor_store::{STORE_DAMAGED, damage_cause};

    use super::*;

    #[test]
    fn one_that_fails_with_the_damage_of_another_can_be_redriven() {
        let pinned = MachineRef { name: "m".into(), revision: 1, qualifier: None };
        let mut header = Execution::start(ExecutionId(7), "e".into(), pinned, "{}".into(), Timestamp(1)).header;
        (header.status, header.stopped_at) = (Status::Failed, Some(Timestamp(2)));
        let mut of = |id| {
            let (error, cause) = (Some(STORE_DAMAGED.to_owned()), Some(damage_cause(ExecutionId(id), "a branch")));
            header.outcome = Some(Outcome::Failed { error, cause });
            not_redrivable(&header, &Older::than(Timestamp(0)))
        };
        assert!(of(7).is_some());
        assert_eq!(of(8), None);
    }

    #[test]
    fn what_failed_waits_for_the_end_of_its_redrivable_period() {
        let now = Timestamp(1_000 * 86_400_000);
        let days_ago = |days: i64| Older::than(now.plus_ms(-days * 86_400_000));
        let before = |archive, forget| {
            let periods = RetentionPeriods { archive: Span::days(archive), forget: Span::days(forget) };
            periods.archivable(|ms| Older::than(now.plus_ms(-ms)))
        };
        assert_eq!(before(1, 90), EndedBefore { succeeded: days_ago(1), unsuccessful: days_ago(14) });
        assert_eq!(before(30, 90), EndedBefore { succeeded: days_ago(30), unsuccessful: days_ago(30) });
        assert_eq!(before(1, 5), EndedBefore { succeeded: days_ago(1), unsuccessful: days_ago(5) });
    }
}
