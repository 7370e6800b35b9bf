//! Landing: a whole file starts its execution, and the store remembers that it did.
//!
//! The start and the landing's row are one commit. The start is idempotent by name: a file that landed before its row
//! was forgotten, as when its share was replaced by an empty one, finds its execution again.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder, Links, Meta};
use conveyor_base::{ExecutionId, Fault, ShareIo, Shares, Timestamp, digest, fault};
use conveyor_store::{Commit, LandingRow, Scans, unless_damaged};
use serde_json::{Value, json};

use super::again::Tried;
use super::name;
use super::settings::{Duplicates, WatchSettings};
use super::settle::{FileState, Settling};
use super::{StartOutcome, Starter};

/// Rows read at once.
const PAGE: usize = 1_000;
pub(super) const REASON_SUFFIX: &str = ".error.json";

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
    pub settings: &'a WatchSettings,
    pub key: &'a str,
    pub file_state: FileState,
    /// What a look at its content showed: the quarantine takes the file only while it shows that.
    pub sample: Option<String>,
    pub name: String,
    /// The how manieth run of the file it is, from 1 on.
    pub run: u32,
    /// What the runs before it failed with, where this one is to be the last.
    pub tried: Option<Tried>,
}

/// Starts the execution for a whole file, and stores the landing with it.
pub async fn land(starter: &dyn Starter, start: &Start<'_>) -> Result<StartOutcome, Fault> {
    let Start { settings, key, file_state, sample, name, run, tried } = start;
    let mut input = json!({
        "jobId": name,
        "bucket": settings.share,
        "key": key,
        "size": file_state.size,
        "version": file_state.version(),
        "requestedAt": starter.wall().to_string(),
    });
    if let Some(sample) = sample {
        input["sample"] = sample.as_str().into();
    }
    if settings.priority != 0 {
        input["priority"] = settings.priority.into();
    }
    if settings.duplicates != Duplicates::Leave {
        input["duplicates"] = json!(settings.duplicates);
    }
    if *run > 1 {
        input["run"] = (*run).into();
    }
    if let Some(tried) = tried {
        input["tried"] = tried.as_json();
    }
    let row = LandingRow { sight: file_state.digest(), execution: name.clone() };
    let landing = Landing { share: settings.share.clone(), key: (*key).to_owned(), row };
    starter.start(&settings.workflow, name, input.to_string(), landing).await
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
        // Behind what is damaged nobody can look: what lies there counts as new, and finds its execution by its name.
        let Some(page) = unless_damaged(rows.landings(share, after.as_deref(), PAGE))? else { return Ok(()) };
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, row) in page {
            into.remember(&key, row.sight);
            see(&key, &row.execution)?;
        }
    }
}

/// All that runs of a share's files, with their keys; without what of it is damaged.
pub fn running(rows: &Scans, settings: &WatchSettings) -> Result<HashMap<ExecutionId, String>, Fault> {
    let mut running = HashMap::new();
    for id in rows.running()? {
        let execution = unless_damaged(rows.summary(id))?.flatten();
        if !execution.is_some_and(|of| of.machine.name == settings.machine() && of.child.is_none()) {
            continue;
        }
        let Some(header) = unless_damaged(rows.header(id))?.flatten() else { continue };
        let input: Value = serde_json::from_str(&header.input).unwrap_or_default();
        if input["bucket"] == settings.share {
            running.insert(id, input["key"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(running)
}

/// The landings of files that a complete scan did not see, as commits that drop them. May take long, as [`recall`].
pub fn forgotten(rows: &Scans, share: &str, seen: &HashSet<u64>) -> Result<Vec<Commit>, Fault> {
    let mut after: Option<String> = None;
    let mut commits = Vec::new();
    loop {
        let Some(page) = unless_damaged(rows.landings(share, after.as_deref(), PAGE))? else { return Ok(commits) };
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
        if quarantine.entry(&candidate).is_free() && quarantine.entry(format!("{candidate}{REASON_SUFFIX}")).is_free() {
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
    move_new(file, &place).inspect_err(|_| drop(beside.remove_file()))?;
    Ok(new_name)
}

/// Moves a file whose name is no text to the quarantine of its watch once it rests. Returns its new name; none where it does
/// not rest yet.
///
/// # Errors
/// As [`quarantine_foreign`], and that a share is away.
pub async fn put_away(
    io: &ShareIo,
    settings: &WatchSettings,
    quarantine: &str,
    path: PathBuf,
    now: Timestamp,
) -> io::Result<Option<String>> {
    let settle = settings.settle;
    let (from, to) = (settings.share.clone(), quarantine.to_owned());
    let work = move |shares: &Shares| {
        let root = shares.root(&from).map_err(io::Error::other)?;
        let file = foreign(root, &path)?;
        let Some(age) = file.meta()?.modified().and_then(|at| at.elapsed().ok()) else {
            let why = "its date is in the future, so nobody knows whether it is still written; rename it";
            return Err(io::Error::other(why));
        };
        let rests = age >= settle.duration() * 2;
        let quarantine = shares.top(&to).map_err(io::Error::other)?;
        if rests { quarantine_foreign(&file, &quarantine, now).map(Some) } else { Ok(None) }
    };
    let moved = io.run(&[&settings.share, quarantine], work).await;
    moved.unwrap_or_else(|e| Err(io::Error::other(fault::chain(&e))))
}

/// Moves a file to a name that is free, by a copy where that is on another disk.
///
/// # Errors
/// `AlreadyExists` where the name is taken, and what the file systems say; the file is then where it was.
pub fn move_new(file: &Entry, place: &Entry) -> io::Result<()> {
    match file.rename_new(place) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => copy_over(file, place),
        renamed => renamed,
    }
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
