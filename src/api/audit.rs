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
use crate::store::Commit;

/// Rows lie among the items, in a table whose name no DynamoDB call can say.
const TABLE: &str = "$audit";
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
    let row = json!({"at": now.0, "who": deed.caller.name, "role": deed.caller.role, "door": deed.door,
        "what": deed.what, "to": deed.to, "status": deed.status.as_u16()});
    // Keys sort the newest first, also within a millisecond.
    let key = format!("{:020}-{:020}", u64::MAX - now.0.max(0) as u64, u64::MAX - count);
    let mut commit = Commit::new();
    commit.put_item(TABLE, &key, &row.to_string());
    if count.is_multiple_of(TRIM_EVERY) {
        let all = doors.reader.items(TABLE, None, ROWS_MAX + TRIM_EVERY as usize * 2)?;
        for (key, _) in all.iter().skip(ROWS_MAX) {
            commit.delete_item(TABLE, key);
        }
    }
    doors.handle.commit(commit).await
}

/// Rows, newest first, and where the next page begins.
pub fn read(doors: &Doors, after: Option<&str>, limit: usize) -> Result<(Vec<Value>, Option<String>), Fault> {
    let rows = doors.reader.items(TABLE, after, limit)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.clone());
    Ok((rows.iter().filter_map(|(_, row)| serde_json::from_str(row).ok()).collect(), next))
}
