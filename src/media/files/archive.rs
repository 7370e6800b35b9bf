//! The stage `archive`: a source that is done is copied, verified by hash, and only then removed.
//!
//! ```text
//! hash source -> copy to a hidden name, sync -> read the copy back, compare -> rename -> remove the source
//! ```
//!
//! Killed at any arrow and run again, it ends in one archived file. Once the source is gone, the only proof that the
//! archive holds it is its hash: give `blake3` (the stage `fingerprint` says it), or a second run after the removal
//! cannot tell the file from another of the same name and says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Reporter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::disk::{self, Meter, Stamp};
use super::fault::{self, About};

/// Most files of one name and different content that an archive keeps.
const SAME_NAME_MAX: u32 = 10_000;

#[derive(Deserialize)]
struct Parameters {
    input: Uri,
    /// A file, or a folder where it ends in `/`.
    destination: Uri,
    #[serde(default)]
    blake3: Option<String>,
}

/// `{"input", "destination", "blake3"?}` to `{"uri", "blake3", "size", "removed", "alreadyArchived"}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let mut p: Parameters = fault::parameters(job)?;
    if p.destination.key.is_empty() || p.destination.key.ends_with('/') {
        p.destination.key.push_str(p.input.file_name());
    }
    let source = fault::resolve(job, &p.input)?;
    let target = fault::resolve(job, &p.destination)?;
    if source == target {
        return Err(TaskError::new(
            "Files.InvalidParameter",
            format!("'{}' would be archived onto itself; choose another destination", p.input),
        ));
    }
    match Stamp::of(&source) {
        Ok(stamp) => archive(&p, &source, &target, stamp, reporter),
        Err(e) if e.kind() == io::ErrorKind::NotFound => already_gone(&p, &target, &e, reporter),
        Err(e) => Err(fault::io_fault("archive", &p.input, &e)),
    }
}

fn archive(
    p: &Parameters,
    source: &Path,
    target: &Path,
    stamp: Stamp,
    reporter: &dyn Reporter,
) -> Result<Value, TaskError> {
    fs::create_dir_all(disk::parent(target)).about("create the folder of", &p.destination)?;
    let mut meter = Meter::new(reporter, "archiving", stamp.size * 2);
    // A run before this one may have come as far as the rename. Reading the source once more is the price of
    // knowing, and is paid only where the name is taken.
    let (place, number, blake3, existed) = if target.exists() {
        let blake3 = disk::hash(source, &mut meter).about("read", &p.input)?;
        let (place, number, same) = place_for(target, stamp.size, &blake3, reporter)?;
        (place, number, Some(blake3), same)
    } else {
        (target.to_owned(), 0, None, false)
    };
    let blake3 = match (existed, blake3) {
        (true, Some(blake3)) => blake3,
        _ => copy_verified(p, source, &place, &mut meter)?,
    };
    if p.blake3.as_ref().is_some_and(|expected| *expected != blake3) {
        return Err(changed(p, "its content is not what the execution worked on"));
    }
    if Stamp::of(source).about("look at", &p.input)? != stamp {
        return Err(changed(p, "it was changed while it was archived"));
    }
    fs::remove_file(source).about("remove", &p.input)?;
    disk::sync_folder(disk::parent(source));
    Ok(json!({
        "uri": numbered_uri(&p.destination, number),
        "source": p.input,
        "blake3": blake3,
        "size": stamp.size,
        "removed": true,
        "alreadyArchived": existed,
        "mbPerSecond": (meter.mb_per_second() * 10.0).round() / 10.0,
    }))
}

fn changed(p: &Parameters, what: &str) -> TaskError {
    TaskError::new(
        "Files.Changed",
        format!(
            "'{}' was copied to the archive but not removed: {what}. Let the new content run as a file of its own",
            p.input
        ),
    )
}

/// Copies, reads the copy back, compares and renames; returns the hash.
fn copy_verified(p: &Parameters, source: &Path, place: &Path, meter: &mut Meter<'_>) -> Result<String, TaskError> {
    let (part, read) = disk::copy_beside(source, place, meter).about("copy to the archive", &p.input)?;
    let written = disk::hash(&part, meter).about("read back the copy of", &p.input)?;
    if read != written {
        let _ = fs::remove_file(&part);
        return Err(TaskError::new(
            "Files.ShareUnreachable",
            format!(
                "the copy of '{}' on '{}' reads back differently; the source was kept. Check the disk and the network of that share",
                p.input, p.destination
            ),
        ));
    }
    disk::rename_new(&part, place).about("rename the copy of", &p.input)?;
    Ok(read)
}

/// The first of `name.ext`, `name-1.ext` … that is free or holds this very content.
fn place_for(
    target: &Path,
    size: u64,
    blake3: &str,
    reporter: &dyn Reporter,
) -> Result<(PathBuf, u32, bool), TaskError> {
    for number in 0..SAME_NAME_MAX {
        let place = numbered(target, number);
        let Ok(stamp) = Stamp::of(&place) else { return Ok((place, number, false)) };
        if stamp.size == size {
            let mut meter = Meter::new(reporter, "verifying", size);
            if disk::hash(&place, &mut meter).about_path("read", &place)? == blake3 {
                return Ok((place, number, true));
            }
        }
    }
    Err(TaskError::new(
        "Files.Failed",
        format!("{} holds {SAME_NAME_MAX} files of this name; tidy the archive", disk::parent(target).display()),
    ))
}

/// The source is not there: done by an earlier run, if the archive holds its content.
fn already_gone(p: &Parameters, target: &Path, gone: &io::Error, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let Some(blake3) = &p.blake3 else {
        return Err(TaskError::new(
            "Files.Vanished",
            format!(
                "'{}' is gone ({gone}) and the stage was not told its 'blake3', so it cannot tell whether '{}' holds it; look there by hand",
                p.input, p.destination
            ),
        ));
    };
    for number in 0..SAME_NAME_MAX {
        let place = numbered(target, number);
        let Ok(stamp) = Stamp::of(&place) else { break };
        let mut meter = Meter::new(reporter, "verifying", stamp.size);
        if disk::hash(&place, &mut meter).about_path("read", &place)? == *blake3 {
            return Ok(json!({
                "uri": numbered_uri(&p.destination, number),
                "source": p.input,
                "blake3": blake3,
                "size": stamp.size,
                "removed": true,
                "alreadyArchived": true,
            }));
        }
    }
    Err(TaskError::new(
        "Files.Vanished",
        format!(
            "'{}' is gone and the archive does not hold its content at '{}'; restore it from a backup",
            p.input, p.destination
        ),
    ))
}

fn numbered(target: &Path, number: u32) -> PathBuf {
    let name = target.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(numbered_name(&name, number))
}

fn numbered_uri(uri: &Uri, number: u32) -> Uri {
    let folder = uri.key.len() - uri.file_name().len();
    Uri::new(uri.share.clone(), format!("{}{}", &uri.key[..folder], numbered_name(uri.file_name(), number)))
}

/// `clip.mov`, `clip-1.mov`, `clip-2.mov` …
pub fn numbered_name(name: &str, number: u32) -> String {
    match (number, name.rsplit_once('.')) {
        (0, _) => name.to_owned(),
        (n, Some((stem, suffix))) if !stem.is_empty() => format!("{stem}-{n}.{suffix}"),
        (n, _) => format!("{name}-{n}"),
    }
}
