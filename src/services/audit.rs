//! The audit log's size. Its entries are stored with the changes that they tell of ([`run::audit`](conveyor_run::AuditEntry));
//! here the oldest go.

use std::time::Duration;

use conveyor_base::Fault;
use conveyor_run::{Handle, OnFailure};
use conveyor_store::{AuditKey, Commit, Scans};

/// Entries that are kept: of changes, and of who came in or tried to. Apart, so that nobody can try until what was changed is
/// forgotten.
const ENTRIES_MAX: Most = Most { changes: 20_000, coming_in: 5_000 };
/// Entries that are read at once, and dropped in one commit.
const ENTRIES_PER_PAGE: usize = 1_000;
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// What entries say of who came in, who left, and who tried to.
pub const SIGN_IN: &str = "sign in";
pub const SIGN_OUT: &str = "sign out";
pub const BY_BASIC: &str = "come in by HTTP Basic";
pub const BY_SIGNATURE: &str = "come in by signature";

#[derive(Clone, Copy)]
struct Most {
    changes: usize,
    coming_in: usize,
}

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

/// Drops the oldest entries beyond so many of each kind.
async fn trim(handle: &Handle, most: Most) -> Result<(), Fault> {
    let (begun, mut dropped, mut look) = (handle.now(), 0, Look { left: most, after: None });
    loop {
        let (old, next) = handle.reader().blocking(move |rows| look.page(rows)).await?;
        if !old.is_empty() {
            let mut commit = Commit::new();
            for key in &old {
                commit.delete_audit(*key);
            }
            handle.commit(commit).await?;
            dropped += old.len();
        }
        match next {
            Some(next) => look = next,
            None => break,
        }
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

/// A walk from the newest entry to the oldest.
struct Look {
    /// So many of each kind may stay yet.
    left: Most,
    after: Option<AuditKey>,
}

impl Look {
    /// Those of a page that are too many, and how the walk goes on.
    fn page(mut self, rows: &Scans) -> Result<(Vec<AuditKey>, Option<Look>), Fault> {
        let page = rows.audit(self.after, ENTRIES_PER_PAGE)?;
        let Some((last, _)) = page.last() else { return Ok((Vec::new(), None)) };
        self.after = Some(*last);
        let old = page.into_iter().filter(|(_, row)| {
            let coming_in = [SIGN_IN, SIGN_OUT, BY_BASIC, BY_SIGNATURE].contains(&row.what.as_str());
            let left = if coming_in { &mut self.left.coming_in } else { &mut self.left.changes };
            let stays = *left > 0;
            *left = left.saturating_sub(1);
            !stays
        });
        let old = old.map(|(key, _)| key).collect();
        Ok((old, Some(self)))
    }
}
