//! What goes along into the commit of a change: the audit entry that tells of it, what the execution that it changed
//! keeps of who did it, and rows of others that hold only with it.
//!
//! Invariant: an entry is stored with the change, or, where nothing was changed, by itself; never twice and never later
//! than the answer. What an execution keeps is stored with the change or not at all.

use std::sync::Arc;

use conveyor_base::{ExecutionId, Timestamp};
use conveyor_store::{ActionRow, AuditKey, AuditRow, Commit};
use parking_lot::Mutex;

/// One thing that somebody did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub at: Timestamp,
    pub who: String,
    pub role: String,
    /// Which of the two APIs it came through: `rest` or `aws`.
    pub api: &'static str,
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
            api: self.api.to_owned(),
            what: self.what.clone(),
            to: self.to.clone(),
            status: self.status,
        };
        commit.put_audit(AuditKey { at: self.at, number: uuid::Uuid::new_v4().as_u64_pair().0 }, &row);
    }
}

impl AuditEntry {
    /// What the execution keeps that this was done to.
    fn action(&self) -> ActionRow {
        ActionRow {
            at: self.at.into(),
            who: self.who.clone(),
            role: self.role.clone(),
            api: self.api.to_owned(),
            what: self.what.clone(),
        }
    }
}

/// On whose behalf a change is made, and rows of others that hold only with it: the first commit of the change takes
/// both along. Clones are the same.
#[derive(Clone, Default)]
pub struct OnBehalf(Arc<Mutex<Along>>);

#[derive(Default)]
struct Along {
    entry: Option<AuditEntry>,
    /// For the first execution that is changed.
    action: Option<ActionRow>,
    rows: Vec<Rows>,
}

/// Adds rows to a commit.
type Rows = Box<dyn FnOnce(&mut Commit) + Send>;

/// Whose doing a change is, where the audit log is to say so.
pub(super) type By<'a> = Option<&'a OnBehalf>;

impl OnBehalf {
    pub fn of(entry: AuditEntry) -> OnBehalf {
        let action = Some(entry.action());
        OnBehalf(Arc::new(Mutex::new(Along { entry: Some(entry), action, rows: Vec::new() })))
    }

    /// The same for what is done too often for the audit log: the execution alone keeps it.
    pub fn unlisted(entry: &AuditEntry) -> OnBehalf {
        OnBehalf(Arc::new(Mutex::new(Along { entry: None, action: Some(entry.action()), rows: Vec::new() })))
    }

    /// With rows that become durable with the change, or not at all.
    pub fn with(self, rows: impl FnOnce(&mut Commit) + Send + 'static) -> OnBehalf {
        self.0.lock().rows.push(Box::new(rows));
        self
    }

    /// Adds all of it to a commit, but for what another commit has.
    pub fn join(&self, commit: &mut Commit) {
        let Along { entry, rows, .. } = std::mem::take(&mut *self.0.lock());
        if let Some(entry) = entry {
            entry.store(commit);
        }
        rows.into_iter().for_each(|rows| rows(commit));
    }

    /// The same for the commit of a change to an execution, which keeps who made it.
    pub fn join_of(&self, id: ExecutionId, commit: &mut Commit) {
        if let Some(action) = self.0.lock().action.take() {
            commit.put_action(id, uuid::Uuid::new_v4().as_fields().0, &action);
        }
        self.join(commit);
    }

    /// The same entry about something else, for a change that is several: `to` is what each of them is done to. None where
    /// a commit took the entry along.
    pub fn about(&self, to: String) -> Option<OnBehalf> {
        let along = self.0.lock();
        along.entry.as_ref().map(|entry| OnBehalf::of(AuditEntry { to, ..entry.clone() }))
    }

    /// The name of the caller's credential. None once a commit took it along.
    pub fn who(&self) -> Option<String> {
        self.0.lock().action.as_ref().map(|action| action.who.clone())
    }

    /// The entry, where no commit took it along: nothing was changed.
    pub fn left_over(&self) -> Option<AuditEntry> {
        self.0.lock().entry.take()
    }
}
