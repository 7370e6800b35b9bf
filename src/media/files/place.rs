//! The stage `place`: what another stage has made in its work folder is moved to where it belongs.
//!
//! A stage that opens media writes nothing but its work folder; what it wants placed it names, and whoever started it has
//! looked at the names. The files themselves may be anything by now, if the decoder was taken over: only plain files
//! below the work folder are moved.
//!
//! Invariants: each file appears whole or not at all, in the order given; killed anywhere and run again, the rest follows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Placing, Reporter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::disk::{self, Meter};
use super::fault::{self, About};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    files: Vec<Placing>,
}

/// `{"files": [{"from", "to"}]}` to `{"count"}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let p: Parameters = fault::parameters(job)?;
    let work = job.work_dir.canonicalize().about_path("find", &job.work_dir)?;
    let found = p.files.iter().map(|file| Ok((find(&work, file)?, &file.to)));
    let found: Vec<(PathBuf, &Uri)> = found.collect::<Result<_, TaskError>>()?;
    let bytes = found.iter().filter_map(|(from, _)| from.symlink_metadata().ok()).map(|meta| meta.len()).sum();
    let mut meter = Meter::new(reporter, "moving results", bytes);
    for (from, to) in &found {
        let place = fault::resolve(job, to)?;
        fs::create_dir_all(disk::parent(&place)).about("create the folder of", to)?;
        own(from).and_then(|()| move_file(from, &place, &mut meter)).about("write", to)?;
    }
    remove_leftovers(job, &p.files)?;
    Ok(json!({ "count": found.len() }))
}

/// The file itself: no link, and reached over none.
fn find(work: &Path, file: &Placing) -> Result<PathBuf, TaskError> {
    let plain = file.from.components().all(|part| matches!(part, Component::Normal(_)));
    let path = work.join(&file.from);
    let is_file = plain
        && path.symlink_metadata().is_ok_and(|meta| meta.is_file())
        && disk::parent(&path).canonicalize().is_ok_and(|folder| folder == disk::parent(&path));
    if is_file {
        return Ok(path);
    }
    Err(TaskError::new(
        "Stage.BadReport",
        format!("what was made for '{}' is no plain file in the stage's work folder; run the state again", file.to),
    ))
}

/// A stage may have run as another user than the appliance; what it made shall not stay that user's.
fn own(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let (user, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let meta = path.symlink_metadata()?;
    if (meta.uid(), meta.gid()) == (user, group) {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(user), Some(group))
}

/// Rename; across file systems, a copy under a temporary name beside the target, synced, then renamed.
fn move_file(from: &Path, to: &Path, meter: &mut Meter<'_>) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if disk::crosses_devices(&e) => {}
        other => return other,
    }
    let (part, _) = disk::copy_beside(from, to, meter)?;
    fs::rename(&part, to).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })?;
    fs::remove_file(from)
}

/// Removes segments `<stem>_NNNNN.ts` beyond the last one that was placed: leftovers of an earlier, longer result under the
/// same name.
fn remove_leftovers(job: &Job, files: &[Placing]) -> Result<(), TaskError> {
    let mut runs: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for file in files {
        let (folder, name) = file.to.key.rsplit_once('/').unwrap_or(("", &file.to.key));
        if let Some((stem, number)) = segment(name) {
            let last = runs.entry((&file.to.share, folder, stem)).or_default();
            *last = number.max(*last);
        }
    }
    for ((share, folder, stem), last) in runs {
        let place = fault::resolve(job, &Uri::new(share, folder))?;
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let of_run = name.to_str().and_then(segment).filter(|(other, _)| *other == stem);
            if of_run.is_some_and(|(_, number)| number > last) {
                // It stays where it may not be removed; no playlist names it.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    Ok(())
}

/// `<stem>_NNNNN.ts`.
fn segment(name: &str) -> Option<(&str, usize)> {
    let (stem, number) = name.strip_suffix(".ts")?.rsplit_once('_')?;
    Some((stem, number.parse().ok()?))
}
