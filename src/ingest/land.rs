//! Landing: a whole file starts its execution, and the store remembers that it did.
//!
//! The start and the landing's row are one commit. The start is idempotent by name: a file that landed before its row
//! was forgotten, as when its share was replaced by an empty one, finds its execution again.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder, Links, Meta};
use conveyor_base::{Fault, Timestamp, digest};
use conveyor_store::{Commit, LandingRow, Scans};
use serde_json::json;

use super::again::Tried;
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

/// The start of an execution for a whole file.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// Share, workflow and priority.
    pub place: (&'a str, &'a str, i8),
    pub key: &'a str,
    pub file_state: FileState,
    pub name: String,
    /// The how manieth run of the file it is, from 1 on.
    pub run: u32,
    /// What the runs before it failed with, where this one is to be the last.
    pub tried: Option<Tried>,
}

/// Starts the execution for a whole file, and stores the landing with it.
pub async fn land(starter: &dyn Starter, start: &Start<'_>) -> Result<StartOutcome, Fault> {
    let Start { place: (share, workflow, priority), key, file_state, name, run, tried } = start;
    let mut input = json!({
        "jobId": name,
        "bucket": share,
        "key": key,
        "size": file_state.size,
        "version": file_state.version(),
        "requestedAt": starter.wall().to_string(),
    });
    if *priority != 0 {
        input["priority"] = (*priority).into();
    }
    if *run > 1 {
        input["run"] = (*run).into();
    }
    if let Some(tried) = tried {
        input["tried"] = tried.as_json();
    }
    let row = LandingRow { sight: file_state.digest(), execution: name.clone() };
    let landing = Landing { share: (*share).to_owned(), key: (*key).to_owned(), row };
    starter.start(workflow, name, input.to_string(), landing).await
}

/// Reads the stored landings of a share, and says which execution each file started. May take long: never on a thread
/// that others need.
pub fn recall(
    rows: &Scans,
    share: &str,
    into: &mut Settling,
    see: &mut dyn FnMut(&str, &str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut after: Option<String> = None;
    loop {
        let page = rows.landings(share, after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, row) in page {
            into.remember(&key, row.sight);
            see(&key, &row.execution)?;
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

/// A file that a scan of this root met, by its path: reached over no link.
///
/// # Errors
/// Its folder is gone, or is a link now.
pub fn foreign(root: &Path, path: &Path) -> io::Result<Entry> {
    let below = path.strip_prefix(root).map_err(io::Error::other)?;
    let folder = Folder::top(root)?.folder(below.parent().unwrap_or(Path::new("")), Links::Refused)?;
    Ok(Arc::new(folder).entry(below.file_name().unwrap_or_default()))
}

/// Moves a file whose name is no text into the quarantine folder under a safe name, the reason beside it first.
/// Returns the new name.
///
/// # Errors
/// What the file systems say; the file is then where it was.
pub fn quarantine_foreign(file: &Entry, quarantine: &Arc<Folder>, at: Timestamp) -> io::Result<String> {
    let safe = name::safe_name(file.name());
    let mut number = 0;
    let new_name = loop {
        let candidate = if number == 0 { safe.clone() } else { format!("{number}-{safe}") };
        if quarantine.entry(&candidate).is_free()?
            && quarantine.entry(format!("{candidate}{REASON_SUFFIX}")).is_free()?
        {
            break candidate;
        }
        number += 1;
    };
    let reason = json!({
        "error": "Files.InvalidName",
        "cause": format!("the name of the file is not UTF-8; it was moved here as '{new_name}'. Rename it and drop it again"),
        "original": file.path().display().to_string(),
        "at": at.to_string(),
    });
    let (place, beside) = (quarantine.entry(&new_name), quarantine.entry(format!("{new_name}{REASON_SUFFIX}")));
    let mut told = beside.create_new()?;
    told.write_all(reason.to_string().as_bytes())?;
    told.sync_all()?;
    let moved = match file.rename_new(&place) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => copy_over(file, &place),
        renamed => renamed,
    };
    moved.inspect_err(|_| drop(beside.remove_file()))?;
    Ok(new_name)
}

/// Copies under a hidden name, syncs, and only then renames and removes.
fn copy_over(from: &Entry, to: &Entry) -> io::Result<()> {
    let part = to.beside(format!(".{}.part", &blake3::hash(to.name().as_encoded_bytes()).to_hex()[..16]));
    let copied = from.read().and_then(|mut file| {
        let (before, mut copy) = (Meta::of(&file)?, part.create()?);
        if !before.is_file() {
            return Err(io::Error::other("it is no plain file any more"));
        }
        io::copy(&mut file, &mut copy)?;
        copy.sync_all()?;
        if from.meta()? != before {
            return Err(io::Error::other("the file changed while it was moved"));
        }
        part.rename_new(to)
    });
    copied.inspect_err(|_| drop(part.remove_file()))?;
    from.remove_file()
}
