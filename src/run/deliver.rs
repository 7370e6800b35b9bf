//! Between parents and children: a child's end is told to the attempt that waits for it, and stopping a parent
//! stops the child.
//!
//! A child may also be *owned*: its parent's task only submitted it and looks at it from time to time. Nobody waits
//! for its end, yet it must not work on for a parent that failed or was stopped. What an owned child of a parent that
//! succeeded does is its own affair.
//!
//! Which child an attempt waits for is a row from the child's start until its end was told, so that cancelling the
//! attempt finds it, after a crash too. The end of a child with a parent is a row until the parent's commit holds it,
//! so it is told at least once; the attempt fences out what is told twice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use conveyor_base::{Attempt, ExecutionId, Fault};
use conveyor_interpreter::{Event, Header, Parent, Status};
use conveyor_store::{Child, Commit, Scans, unless_damaged};

use super::core::{Core, SharedCore};
use super::guarded::resource_panicked;

/// The shape of a [`Parent`] that does not wait for its child and takes it along when it fails.
pub const OWNED: &str = "owned";

impl Core {
    /// Tells the parent of an execution that ended, if it has one.
    pub fn deliver(self: &SharedCore, child: Header) {
        let Some(parent) = child.parent.clone() else { return };
        let core = self.clone();
        tokio::spawn(async move {
            if parent.shape != OWNED {
                let event = core.outcome_for_parent(&child, parent.attempt, &parent.shape);
                // An error other than the appliance's end means that the parent is no more, and nobody is left to tell;
                // or that it is damaged: then the row stays for whatever a repair makes of it.
                let told = core.post_until_heard(parent.execution, event).await;
                if told.is_err_and(|refused| refused.is_transient() || refused.is_damage()) {
                    return;
                }
            }
            let mut commit = Commit::new();
            commit.delivered(&child);
            // A fault is noted by `commit`, and the row is told again after the restart.
            let _ = core.commit(commit).await;
        });
    }

    fn outcome_for_parent(&self, child: &Header, attempt: Attempt, shape: &str) -> Event {
        let child_arn = self.execution_arn(&child.arn_machine(), &child.name);
        let machine_arn = self.machine_arn(&child.machine.name);
        let ended = || self.resources.child_ended(shape, child, &child_arn, &machine_arn);
        let ended = catch_unwind(AssertUnwindSafe(ended)).unwrap_or_else(|panic| Err(resource_panicked(&*panic)));
        match ended {
            Ok(output) => Event::TaskSucceeded { attempt, output },
            Err(e) => Event::TaskFailed { attempt, error: Some(e.error), cause: Some(e.cause) },
        }
    }

    /// Stops the child that a cancelled attempt waits for.
    pub fn stop_child_of(self: &SharedCore, parent: ExecutionId, attempt: Attempt) {
        match self.reader.child_of(parent, attempt) {
            Ok(child) => self.stop_child(child.map(|child| child.id)),
            Err(fault) => self.note(&fault),
        }
    }

    /// Stops what an execution owns that ended without success.
    pub async fn stop_owned(self: &SharedCore, parent: ExecutionId) {
        match self.reader.blocking(move |rows| rows.children_of(parent)).await {
            Ok(children) => {
                let owned = children.into_iter().filter(|child| child.parent.shape == OWNED);
                owned.for_each(|child| self.stop_child(Some(child.id)));
            }
            Err(fault) => self.note(&fault),
        }
    }

    /// A child whose parent's attempt was cancelled while it was being started would run for nobody.
    pub fn stop_orphan(self: &SharedCore, parent: &Parent, child: ExecutionId) -> Result<(), Fault> {
        if self.reader.outstanding_task(parent.execution, parent.attempt)?.is_none() {
            self.stop_child(Some(child));
        }
        Ok(())
    }

    /// After a restart: stops the children whose parents' attempts were cancelled and which were not told so.
    pub async fn stop_orphans(self: &SharedCore) -> Result<(), Fault> {
        let orphans = self.reader.blocking(orphans).await?;
        orphans.into_iter().for_each(|child| self.stop_child(Some(child)));
        Ok(())
    }

    fn stop_child(self: &SharedCore, child: Option<ExecutionId>) {
        if let Some(child) = child {
            let cause = Some("The execution that started it ended.".into());
            self.post(child, Event::Stopped { error: None, cause });
        }
    }
}

/// The children whose parents' attempts do not wait for them, and that their parents do not own.
fn orphans(rows: &Scans) -> Result<Vec<ExecutionId>, Fault> {
    let (mut orphans, mut last) = (Vec::new(), None::<(ExecutionId, bool)>);
    for child in rows.children() {
        let Some(Child { id, parent }) = unless_damaged(child)? else { continue };
        let wanted = match last {
            // Of a parent that is damaged nobody knows; it meets that by itself.
            _ if parent.shape != OWNED => {
                unless_damaged(rows.branch_of_attempt(parent.execution, parent.attempt))?.is_none_or(|of| of.is_some())
            }
            // The children of one parent follow each other.
            Some((of, wanted)) if of == parent.execution => wanted,
            _ => {
                let header = unless_damaged(rows.header(parent.execution))?.flatten();
                // An owned child may outlive even the memory of the parent that succeeded.
                header.is_none_or(|header| matches!(header.status, Status::Running | Status::Succeeded))
            }
        };
        if parent.shape == OWNED {
            last = Some((parent.execution, wanted));
        }
        if !wanted {
            orphans.push(id);
        }
    }
    Ok(orphans)
}
