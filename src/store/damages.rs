//! What went wrong since the store was opened: damage, for whoever raises alarms over it, and what stopped the store.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use conveyor_base::{ExecutionId, Fault, fault};
use parking_lot::Mutex;

/// Most findings that are kept. More do not tell more: the files need a repair.
const KEPT_MAX: usize = 100;

/// The error of executions that failed because stored bytes of them are damaged. They never go on, so that of what they had
/// under way nothing needs to be kept.
pub const STORE_DAMAGED: &str = "Store.Damaged";

/// The cause beside [`STORE_DAMAGED`]. It names the execution: a workflow may fail with the error and the cause of another.
pub fn damage_cause(id: ExecutionId, what: &str) -> String {
    format!("{}: {what}", damage_of(id))
}

/// Whether an execution that failed so is damaged itself.
pub fn is_damaged(id: ExecutionId, error: Option<&str>, cause: Option<&str>) -> bool {
    error == Some(STORE_DAMAGED) && cause.is_some_and(|cause| cause.starts_with(&damage_of(id)))
}

fn damage_of(id: ExecutionId) -> String {
    format!("Stored bytes of the execution {id} are damaged, so it cannot go on")
}

/// What was read, or `None` where it is damaged: an alarm says so, and what else there is goes on.
pub fn unless_damaged<T>(read: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match read {
        Err(Fault::Damaged { .. }) => Ok(None),
        read => read.map(Some),
    }
}

#[derive(Debug, Default)]
pub(super) struct Damages {
    /// Each once.
    found: Mutex<BTreeSet<String>>,
    /// The first fatal error: nothing is written after it.
    stopped: OnceLock<String>,
}

impl Damages {
    /// Takes note of a fault, where it is of damage.
    pub fn note(&self, fault: &Fault) {
        let Fault::Damaged { .. } = fault else { return };
        let what = fault::chain(fault);
        let mut found = self.found.lock();
        if found.len() < KEPT_MAX && found.insert(what.clone()) {
            drop(found);
            tracing::error!(error = %what, "stored bytes are damaged");
        }
    }

    /// Remembers that nothing may be written any more.
    pub fn stop(&self, fault: &Fault) {
        self.note(fault);
        let _ = self.stopped.set(fault::chain(fault));
    }

    /// The answer to everything after a fatal error.
    pub fn alive(&self) -> Result<(), Fault> {
        match self.stopped.get() {
            None => Ok(()),
            Some(why) => Err(Fault::fatal_plain(format!("the store stopped: {why}"))),
        }
    }

    pub fn all(&self) -> Vec<String> {
        self.found.lock().iter().cloned().collect()
    }
}
