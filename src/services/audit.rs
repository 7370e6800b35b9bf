//! The audit log's size. Its entries are stored with the changes that they tell of ([`run::audit`](conveyor_run::AuditEntry));
//! here the oldest go.

use std::time::Duration;

use conveyor_base::Fault;
use conveyor_run::{Handle, OnFailure};
use conveyor_store::{AuditKey, Commit, Scans};

/// Entries that are kept.
const ENTRIES_MAX: usize = 20_000;
/// Entries that are read at once, and dropped in one commit.
const ENTRIES_PER_PAGE: usize = 1_000;
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// Keeps the log from growing, for as long as the appliance runs.
pub async fn keep_trimmed(handle: &Handle) -> Result<(), Fault> {
    let trimming = handle.clone();
    let trim = move || {
        let handle = trimming.clone();
        async move {
            loop {
                trim(&handle, ENTRIES_MAX).await?;
                tokio::time::sleep(TRIM_EVERY).await;
            }
        }
    };
    handle.run_supervised("the audit log", OnFailure::Restart, trim).await
}

/// Drops the oldest entries beyond so many.
async fn trim(handle: &Handle, most: usize) -> Result<(), Fault> {
    let (begun, mut dropped) = (handle.now(), 0);
    loop {
        let old = handle.reader().blocking(move |rows| beyond(rows, most)).await?;
        if old.is_empty() {
            break;
        }
        let mut commit = Commit::new();
        for key in &old {
            commit.delete_audit(*key);
        }
        handle.commit(commit).await?;
        dropped += old.len();
    }
    if dropped > 0 {
        tracing::info!(
            entries = dropped,
            took_ms = handle.now().since_ms(begun),
            "the oldest entries of the audit log went"
        );
    }
    Ok(())
}

/// Some of the entries that are older than the newest so many.
fn beyond(rows: &Scans, most: usize) -> Result<Vec<AuditKey>, Fault> {
    let (mut after, mut newer) = (None, 0);
    while newer < most {
        let page = rows.audit(after, ENTRIES_PER_PAGE.min(most - newer))?;
        let Some((last, _)) = page.last() else { return Ok(Vec::new()) };
        after = Some(*last);
        newer += page.len();
    }
    Ok(rows.audit(after, ENTRIES_PER_PAGE)?.into_iter().map(|(key, _)| key).collect())
}
