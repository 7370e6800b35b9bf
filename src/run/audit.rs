//! Entries of the audit log on their way into the commit of the change that they tell of.
//!
//! Invariant: an entry is stored with the change, or, where nothing was changed, by itself; never twice and never later
//! than the answer.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::Timestamp;
use crate::store::{AuditKey, AuditRow, Commit};

/// One thing that somebody did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub at: Timestamp,
    pub who: String,
    pub role: String,
    /// The door it came through: `rest` or `aws`.
    pub door: &'static str,
    /// The operation, such as `StopExecution` or `POST /executions/{id}/stop`.
    pub what: String,
    /// What it was done to, as far as the request says it.
    pub to: String,
    /// The HTTP status that it is answered with.
    pub status: u16,
}

impl AuditEntry {
    /// Adds the entry's row.
    pub fn store(&self, commit: &mut Commit) {
        let row = AuditRow {
            at: self.at.into(),
            who: self.who.clone(),
            role: self.role.clone(),
            door: self.door.to_owned(),
            what: self.what.clone(),
            to: self.to.clone(),
            status: self.status,
        };
        commit.put_audit(AuditKey { at: self.at, number: uuid::Uuid::new_v4().as_u64_pair().0 }, &row);
    }
}

/// On whose behalf a change is made: the first commit of the change takes the entry along. Clones are the same entry.
#[derive(Clone, Debug)]
pub struct OnBehalf(Arc<Mutex<Option<AuditEntry>>>);

/// Whose doing a change is, where the audit log is to say so.
pub(super) type By<'a> = Option<&'a OnBehalf>;

impl OnBehalf {
    pub fn of(entry: AuditEntry) -> OnBehalf {
        OnBehalf(Arc::new(Mutex::new(Some(entry))))
    }

    /// Adds the entry to a commit, if none has it yet.
    pub fn join(&self, commit: &mut Commit) {
        if let Some(entry) = self.0.lock().take() {
            entry.store(commit);
        }
    }

    /// The entry, where no commit took it along: nothing was changed.
    pub fn left_over(&self) -> Option<AuditEntry> {
        self.0.lock().take()
    }
}
