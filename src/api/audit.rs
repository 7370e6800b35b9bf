//! Who did what: every change that came in through a door, kept as rows.
//!
//! Starting executions and reporting tasks through the AWS door is not kept here: those are the executions' own
//! history, and there are thousands of them a minute. All other changes are a row before they are answered.
//!
//! Invariants: newest first by key; a body is never kept, since it may hold a secret; the log stops growing.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Doors;
use super::gate::Caller;
use crate::base::{Fault, fault};
use crate::store::{AuditKey, AuditRow, Commit};

const ROWS_MAX: usize = 20_000;
/// How many rows come in between two looks at how many there are.
const TRIM_EVERY: u64 = 500;

/// One thing done.
pub struct Deed<'a> {
    pub caller: &'a Caller,
    /// `rest` or `aws`.
    pub door: &'static str,
    /// The operation, such as `StopExecution` or `POST /executions/{id}/stop`.
    pub what: &'a str,
    /// What it was done to, as far as the request's address says it.
    pub to: &'a str,
    pub status: StatusCode,
}

/// Keeps a row. The change itself is done already, so a store that cannot take the row is only said in the log.
pub async fn note(doors: &Doors, deed: Deed<'_>) {
    if let Err(fault) = try_note(doors, &deed).await {
        tracing::error!(who = deed.caller.name, what = deed.what, "not in the audit log: {}", fault::chain(&fault));
    }
}

async fn try_note(doors: &Doors, deed: &Deed<'_>) -> Result<(), Fault> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (now, count) = (doors.handle.now(), COUNT.fetch_add(1, Ordering::Relaxed));
    let row = AuditRow {
        at: now.into(),
        who: deed.caller.name.clone(),
        role: deed.caller.role.name().to_owned(),
        door: deed.door.to_owned(),
        what: deed.what.to_owned(),
        to: deed.to.to_owned(),
        status: deed.status.as_u16(),
    };
    let mut commit = Commit::new();
    commit.put_audit(AuditKey { at: now, number: count }, &row);
    if count.is_multiple_of(TRIM_EVERY) {
        let all = doors.reader.audit(None, ROWS_MAX + TRIM_EVERY as usize * 2)?;
        for (key, _) in all.iter().skip(ROWS_MAX) {
            commit.delete_audit(*key);
        }
    }
    doors.handle.commit(commit).await
}

/// Rows, newest first, and where the next page begins.
pub fn read(doors: &Doors, after: Option<&str>, limit: usize) -> Result<(Vec<Value>, Option<String>), Fault> {
    let after = match after.map(str::parse) {
        None => None,
        Some(Ok(key)) => Some(key),
        Some(Err(_)) => return Ok((Vec::new(), None)),
    };
    let rows = doors.reader.audit(after, limit)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.to_string());
    let shown = |(_, row): (AuditKey, AuditRow)| {
        json!({"at": row.at.0, "who": row.who, "role": row.role, "door": row.door, "what": row.what, "to": row.to,
            "status": row.status})
    };
    Ok((rows.into_iter().map(shown).collect(), next))
}
