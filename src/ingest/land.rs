//! Landing: a whole file starts its execution, and the store remembers that it did.
//!
//! The start and the landing's row are one commit. The start is idempotent by name: a file that landed before its row
//! was forgotten, as when its share was replaced by an empty one, finds its execution again.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use conveyor_base::{Fault, Timestamp, digest};
use conveyor_store::{Commit, LandingRow, Scans};
use serde_json::json;

use super::name;
use super::settle::{FileState, Settling};
use super::{StartOutcome, Starter};

/// Rows read at once.
const PAGE: usize = 1_000;
const REASON_SUFFIX: &str = ".error.json";

/// A file that starts its execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landing {
    pub share: String,
    pub key: String,
    pub row: LandingRow,
}

impl Landing {
    pub fn store(&self, commit: &mut Commit) {
        commit.put_landing(&self.share, &self.key, &self.row);
    }
}

/// Starts the execution for a whole file, and stores the landing with it.
pub async fn land(
    starter: &dyn Starter,
    (share, workflow, priority): (&str, &str, i8),
    key: &str,
    file_state: FileState,
) -> Result<StartOutcome, Fault> {
    let name = name::execution_name(share, key, file_state);
    let mut input = json!({
        "jobId": name,
        "bucket": share,
        "key": key,
        "size": file_state.size,
        "requestedAt": starter.now().to_string(),
    });
    if priority != 0 {
        input["priority"] = priority.into();
    }
    let row = LandingRow { sight: file_state.digest(), execution: name.clone() };
    let landing = Landing { share: share.to_owned(), key: key.to_owned(), row };
    starter.start(workflow, &name, input.to_string(), landing).await
}

/// Reads the stored landings of a share. May take long: never on a thread that others need.
pub fn recall(rows: &Scans, share: &str, into: &mut Settling) -> Result<usize, Fault> {
    let mut after: Option<String> = None;
    let mut count = 0;
    loop {
        let page = rows.landings(share, after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        after = Some(last.clone());
        for (key, row) in page {
            into.remember(&key, row.sight);
            count += 1;
        }
    }
}

/// The landings of files that a complete scan did not see, as commits that drop them. May take long, as [`recall`].
pub fn forgotten(rows: &Scans, share: &str, seen: &HashSet<u64>) -> Result<Vec<Commit>, Fault> {
    let mut after: Option<String> = None;
    let mut commits = Vec::new();
    loop {
        let page = rows.landings(share, after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(commits) };
        after = Some(last.clone());
        let mut commit = Commit::new();
        for (key, _) in page.iter().filter(|(key, _)| !seen.contains(&digest(key.as_bytes()))) {
            commit.delete_landing(share, key);
        }
        if !commit.is_empty() {
            commits.push(commit);
        }
    }
}

/// Moves a file whose name is no text into the quarantine folder under a safe name, the reason beside it first.
/// Returns the new name.
pub fn quarantine_foreign(path: &Path, quarantine: &Path, at: Timestamp) -> io::Result<String> {
    let own = path.file_name().unwrap_or_default();
    let safe = name::safe_name(own);
    let mut number = 0;
    let place = loop {
        let candidate = if number == 0 { safe.clone() } else { format!("{number}-{safe}") };
        let place = quarantine.join(&candidate);
        if place.symlink_metadata().is_err() && !quarantine.join(format!("{candidate}{REASON_SUFFIX}")).exists() {
            break place;
        }
        number += 1;
    };
    let new_name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let reason = json!({
        "error": "Files.InvalidName",
        "cause": format!("the name of the file is not UTF-8; it was moved here as '{new_name}'. Rename it and drop it again"),
        "original": path.display().to_string(),
        "at": at.to_string(),
    });
    let beside = quarantine.join(format!("{new_name}{REASON_SUFFIX}"));
    let mut file = fs::File::create(&beside)?;
    file.write_all(reason.to_string().as_bytes())?;
    file.sync_all()?;
    match fs::rename(path, &place) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => copy_over(path, &place)?,
        other => other.inspect_err(|_| drop(fs::remove_file(&beside)))?,
    }
    Ok(new_name)
}

/// Copies, syncs, and only then removes.
fn copy_over(from: &Path, to: &Path) -> io::Result<()> {
    let copied = fs::copy(from, to).and_then(|bytes| {
        fs::File::open(to)?.sync_all()?;
        if fs::metadata(from)?.len() == bytes {
            Ok(())
        } else {
            Err(io::Error::other("the file grew while it was moved"))
        }
    });
    copied.inspect_err(|_| drop(fs::remove_file(to)))?;
    fs::remove_file(from)
}
