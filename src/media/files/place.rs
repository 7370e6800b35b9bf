//! The stage `place`: what another stage has made in its work folder is moved to where it belongs.
//!
//! A stage that opens media writes nothing but its work folder; what it wants placed it names, and whoever started it has
//! looked at the names. The files themselves may be anything by now, if the decoder was taken over: only plain files
//! below the work folder are moved.
//!
//! Invariants: each file appears whole or not at all, in the order given; killed anywhere and run again, the rest follows.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder, Links, Meta};
use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Placing, Reporter};
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, fchmod, fstat};
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
    let work = Folder::top(&job.work_dir).about_path("find", &job.work_dir)?;
    let found = p.files.iter().map(|file| Ok((find(&work, file)?, &file.to)));
    let found: Vec<(Found, &Uri)> = found.collect::<Result<_, TaskError>>()?;
    let mut meter = Meter::new(reporter, "moving results", found.iter().map(|(file, _)| file.meta.size).sum());
    for (file, to) in &found {
        let place = fault::place(job, to)?;
        place.check().about("look at", to)?;
        let place = place.make_entry().about("create the folder of", to)?;
        own(&work, file).and_then(|(from, it)| move_file(&from, &it, &place, &mut meter)).about("write", to)?;
    }
    remove_leftovers(job, &p.files)?;
    Ok(json!({ "count": found.len() }))
}

/// A file below the work folder, as it was found.
struct Found<'a> {
    path: &'a Path,
    meta: Meta,
}

/// The file itself: no link, and reached over none.
fn find<'a>(work: &Folder, file: &'a Placing) -> Result<Found<'a>, TaskError> {
    let plain = file.from.components().all(|part| matches!(part, Component::Normal(_)));
    match work.look(&file.from, Links::Refused) {
        Ok(meta) if plain && meta.is_file() => Ok(Found { path: &file.from, meta }),
        _ => Err(TaskError::new(
            "Stage.BadReport",
            format!("what was made for '{}' is no plain file in the stage's work folder; run the state again", file.to),
        )),
    }
}

/// Nobody runs what a stage made, and nobody gets its owner's rights by it, whatever mode it was made with.
const BEYOND_READING_AND_WRITING: u32 = 0o7111;
const PLAIN: Mode = Mode::from_bits_truncate(0o644);

/// A stage may have run as another user than the appliance; what it made shall not stay that user's.
fn own(work: &Folder, file: &Found<'_>) -> io::Result<(Entry, OwnedFd)> {
    let folder = work.folder(file.path.parent().unwrap_or(Path::new("")), Links::Refused)?;
    let entry = Arc::new(folder).entry(file.path.file_name().unwrap_or_default());
    let pinned = entry.pin()?;
    if !Meta::of(&pinned)?.is_same(&file.meta) {
        return Err(exchanged());
    }
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if (file.meta.user, file.meta.group) != (user.as_raw(), group.as_raw()) {
        nix::unistd::fchownat(&pinned, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)?;
    }
    if fstat(&pinned)?.st_mode & BEYOND_READING_AND_WRITING != 0 {
        let opened = entry.read()?;
        if !Meta::of(&opened)?.is_same(&Meta::of(&pinned)?) {
            return Err(exchanged());
        }
        fchmod(&opened, PLAIN)?;
    }
    Ok((entry, pinned))
}

fn exchanged() -> io::Error {
    io::Error::other("something else has taken its place in the work folder")
}

/// Rename; across file systems, a copy under a temporary name beside the target, synced, then renamed.
fn move_file(from: &Entry, pinned: &OwnedFd, to: &Entry, meter: &mut Meter<'_>) -> io::Result<()> {
    match from.rename(to) {
        Err(e) if disk::crosses_devices(&e) => {}
        renamed => return renamed.and_then(|()| disk::named(to, pinned)),
    }
    let file = from.read()?;
    if !Meta::of(&file)?.is_same(&Meta::of(pinned)?) {
        return Err(exchanged());
    }
    disk::copy_beside(&file, to, meter)?.0.rename(to)?;
    from.remove_file()
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
        let place = fault::place(job, &Uri::new(share, folder))?;
        let Ok(folder) = place.folder() else { continue };
        for listed in folder.list(Path::new(""), Links::Refused).into_iter().flatten().flatten() {
            let of_run = listed.name.to_str().and_then(segment).filter(|(other, _)| *other == stem);
            if of_run.is_some_and(|(_, number)| number > last) {
                // It stays where it may not be removed; no playlist names it.
                let _ = folder.entry(listed.name).remove_file();
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
