//! Between parents and children: a child's end is told to the attempt that waits for it, and stopping a parent
//! stops the child.
//!
//! The end of a child with a parent is a row until the parent's commit holds it, so it is told at least once;
//! the attempt fences out what is told twice.

use super::core::{Core, SharedCore};
use crate::base::{Attempt, ExecutionId, Fault};
use crate::interpreter::{Event, Header, Status};
use crate::store::{Commit, ExecutionFilter};

/// Executions looked at per page when a child is searched after a restart.
const PAGE: usize = 500;

impl Core {
    /// Tells the parent of an execution that ended, if it has one.
    pub fn deliver(self: &SharedCore, child: Header) {
        let Some(parent) = child.parent.clone() else { return };
        let core = self.clone();
        tokio::spawn(async move {
            core.children.lock().remove(&(parent.execution, parent.attempt));
            let event = core.outcome_for_parent(&child, parent.attempt, &parent.shape);
            // An error other than the appliance's end means that the parent is no more: nobody is left to tell.
            let told = core.post_and_wait(parent.execution, event).await;
            let ours =
                matches!(&told, Err(refused) if matches!(refused.code, "ServiceUnavailable" | "InternalFailure"));
            if !ours {
                let mut commit = Commit::new();
                commit.delivered(child.id);
                // A fault is noted by `commit`, and the row is told again after the restart.
                let _ = core.commit(commit).await;
            }
        });
    }

    fn outcome_for_parent(&self, child: &Header, attempt: Attempt, shape: &str) -> Event {
        let prefix = format!("arn:aws:states:{}:{}", self.region, self.account);
        let child_arn = format!("{prefix}:execution:{}:{}", child.machine.name, child.name);
        let machine_arn = format!("{prefix}:stateMachine:{}", child.machine.name);
        match self.resources.child_ended(shape, child, &child_arn, &machine_arn) {
            Ok(output) => Event::TaskSucceeded { attempt, output },
            Err(e) => Event::TaskFailed { attempt, error: Some(e.error), cause: Some(e.cause) },
        }
    }

    /// Stops the child that a cancelled attempt waits for.
    pub fn stop_child_of(self: &SharedCore, parent: ExecutionId, attempt: Attempt) {
        let known = self.children.lock().remove(&(parent, attempt));
        let core = self.clone();
        tokio::spawn(async move {
            let child = match known {
                Some(child) => Some(child),
                None => core.search_child(parent, attempt).unwrap_or_else(|fault| {
                    core.note(&fault);
                    None
                }),
            };
            if let Some(child) = child {
                core.post(
                    child,
                    Event::Stopped { error: None, cause: Some("The execution that started it ended.".into()) },
                );
            }
        });
    }

    /// After a restart it is not known who is whose child: the running ones are looked through. Children are
    /// younger than their parents, and lists run from young to old.
    fn search_child(&self, parent: ExecutionId, attempt: Attempt) -> Result<Option<ExecutionId>, Fault> {
        let filter = ExecutionFilter { machine: None, status: Some(Status::Running) };
        let mut token: Option<String> = None;
        loop {
            let page = self.reader.executions(&filter, token.as_deref(), PAGE)?;
            for row in &page.items {
                if row.id < parent {
                    return Ok(None);
                }
                if row.parent.as_ref().is_some_and(|p| (p.execution, p.attempt) == (parent, attempt)) {
                    return Ok(Some(row.id));
                }
            }
            match page.next {
                Some(next) => token = Some(next),
                None => return Ok(None),
            }
        }
    }
}
