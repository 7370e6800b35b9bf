//! Landing: a whole file starts its execution, and the store remembers that it did.
//!
//! The start and the landing's row are one commit. The start is idempotent by name: a file that landed before its row
//! was forgotten, as when its share was replaced by an empty one, finds its execution again.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder, Links, Part};
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
/// How much of a reason is read, in bytes: those that are written here are shorter, and others are nobody's.
const REASON_BYTES_MAX: u64 = 1 << 20;
/// Most files of one name in quarantine.
const SAME_NAME_MAX: u32 = 10_000;

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
/// What the file systems say; the file is then where it was. Its reason is left only with a copy of it, where nobody can know
/// whether the file was removed: the next call for the file finds both again.
pub fn quarantine_foreign(file: &Entry, quarantine: &Arc<Folder>, at: Timestamp) -> io::Result<String> {
    let (safe, original) = (name::safe_name(file.name()), file.path().display().to_string());
    for number in 0..SAME_NAME_MAX {
        let new_name = if number == 0 { safe.clone() } else { format!("{number}-{safe}") };
        let (place, beside) = (quarantine.entry(&new_name), quarantine.entry(format!("{new_name}{REASON_SUFFIX}")));
        match (place.is_free()?, beside.is_free()?) {
            (true, true) => {
                let cause = format!(
                    "the name of the file is not UTF-8; it was moved here as '{new_name}'. Rename it and drop it again"
                );
                let reason = json!({
                    "error": "Files.InvalidName",
                    "cause": cause,
                    "original": original,
                    "at": at.to_string(),
                });
                Part::write(&beside, reason.to_string().as_bytes())?.rename_new(&beside)?;
                move_new(file, &place).inspect_err(|_| {
                    if place.is_free().unwrap_or(false) {
                        let _ = beside.remove_file();
                    }
                })?;
                return Ok(new_name);
            }
            (false, false)
                if is_of(&beside, &original) && file.remove_copied(&file.read()?, &place, &mut |_| {})? =>
            {
                return Ok(new_name);
            }
            _ => {}
        }
    }
    let what = format!("{} holds {SAME_NAME_MAX} files named '{safe}'; tidy it", quarantine.path().display());
    Err(io::Error::other(what))
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

/// Moves a file to a name that is free, by a copy where that is on another file system.
///
/// # Errors
/// `AlreadyExists` where the name is taken, and what the file systems say; see [`Entry::move_copied`] for where the file is
/// then.
pub fn move_new(file: &Entry, place: &Entry) -> io::Result<()> {
    match file.rename_new(place) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => file.move_copied(&file.read()?, place, &mut |_| {}),
        renamed => renamed,
    }
}

/// Whether a reason is of the file that was found at that path.
fn is_of(reason: &Entry, original: &str) -> bool {
    let text = reason.read().and_then(|file| io::read_to_string(file.take(REASON_BYTES_MAX)));
    let told = text.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    told.is_some_and(|told| told["original"] == original)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;

    use conveyor_testing::rights;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            let dir = tempfile::tempdir().unwrap();
            ["in", "quarantine"].iter().for_each(|name| fs::create_dir(dir.path().join(name)).unwrap());
            let bench = Bench { dir };
            bench.write();
            bench
        }

        fn odd(&self) -> std::path::PathBuf {
            self.dir.path().join("in").join(OsStr::from_bytes(b"caf\xe9.mp4"))
        }

        fn write(&self) {
            fs::write(self.odd(), "a film").unwrap();
        }

        fn quarantine(&self) -> std::path::PathBuf {
            self.dir.path().join("quarantine")
        }

        /// What comes of a scan that found the file.
        fn scanned(&self) -> io::Result<String> {
            let file = foreign(&self.dir.path().join("in"), &self.odd())?;
            quarantine_foreign(&file, &Arc::new(Folder::top(&self.quarantine())?), Timestamp(0))
        }

        fn names(&self) -> Vec<String> {
            let listed = fs::read_dir(self.quarantine()).unwrap();
            let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn a_quarantine_that_cannot_be_looked_into_ends_the_move() {
        let bench = Bench::new();
        let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(bench.dir.path(), 0o755);
        mode(&bench.quarantine(), 0o600);
        rights::as_anybody(|| assert_eq!(bench.scanned().unwrap_err().kind(), io::ErrorKind::PermissionDenied));
        mode(&bench.quarantine(), 0o700);
        assert!(bench.odd().exists() && bench.names().is_empty());
    }

    #[test]
    fn what_cannot_be_moved_leaves_nothing_however_often_it_is_tried() {
        let bench = Bench::new();
        let allowed = rights::with_mounts(|| {
            let (quarantine, file) = (bench.quarantine(), bench.odd());
            rights::mount_small(&quarantine, 1 << 20);
            rights::mount_over_itself(&file);
            assert_eq!(bench.scanned().unwrap_err().kind(), io::ErrorKind::ResourceBusy);
            rights::unmount(&file);
            rights::mount_read_only(&bench.dir.path().join("in"));
            assert_eq!(bench.scanned().unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
            assert_eq!(bench.names(), Vec::<String>::new());
            rights::unmount(&bench.dir.path().join("in"));
            rights::unmount(&quarantine);
            // No room for the reason, and then none for the file.
            for bytes in [4 << 10, 8 << 10] {
                fs::write(bench.odd(), "a film".repeat(2_000)).unwrap();
                rights::mount_small(&quarantine, bytes);
                fs::write(quarantine.join("other"), vec![0; 4 << 10]).unwrap();
                for _ in 0..3 {
                    assert_eq!(bench.scanned().unwrap_err().kind(), io::ErrorKind::StorageFull);
                }
                assert_eq!(bench.names(), ["other"]);
                rights::unmount(&quarantine);
            }
            rights::mount_small(&quarantine, 1 << 20);
            bench.write();
            assert_eq!(bench.scanned().unwrap(), "caf%E9.mp4");
            assert_eq!(fs::read_to_string(quarantine.join("caf%E9.mp4")).unwrap(), "a film");
        });
        assert!(!allowed || !bench.odd().exists());
    }

    #[test]
    fn a_file_whose_removal_nobody_knew_of_is_known_again() {
        let bench = Bench::new();
        bench.scanned().unwrap();
        bench.write();
        assert_eq!(bench.scanned().unwrap(), "caf%E9.mp4");
        assert_eq!(bench.names(), ["caf%E9.mp4", "caf%E9.mp4.error.json"]);
        assert!(!bench.odd().exists());
        // Another file of that name is another one.
        fs::write(bench.odd(), "filmed").unwrap();
        assert_eq!(bench.scanned().unwrap(), "1-caf%E9.mp4");
        assert_eq!(fs::read_to_string(bench.quarantine().join("caf%E9.mp4")).unwrap(), "a film");
    }
}
