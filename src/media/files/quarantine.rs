//! The stage `quarantine`: a rejected file leaves the incoming share, with the reason beside it.
//!
//! The reason (`<name>.error.json`) is written first, so that a file never lies in quarantine without one; the file
//! follows by rename, or by copy, verification and removal where the shares are different disks. A file is never
//! deleted: one that has vanished gets its reason all the same.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder};
use conveyor_base::shares::ShareError;
use conveyor_base::{Clock, Place, SystemClock, TaskError, Uri};
use conveyor_job::{Job, Reporter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::archive::numbered_name;
use super::disk::{self, Meter, Stamp};
use super::fault::{self, About};

/// Most files of one name in quarantine.
const SAME_NAME_MAX: u32 = 10_000;
/// Longest name that file systems carry, less the room that `.error.json` and a number take.
const NAME_BYTES_MAX: usize = 255 - 20;
pub(super) const REASON_SUFFIX: &str = ".error.json";
/// How much of a reason is read, in bytes: those that are written here are shorter, and others are nobody's.
pub(super) const REASON_BYTES_MAX: u64 = 1 << 20;
/// What a reason says of a file that is at fault itself, and of one that another release may be able to do.
const OF_THE_FILE: &str = "the file";
pub(super) const BOX_CANNOT: &str = "this box cannot";
/// Errors of files with which nothing may be wrong.
const CANNOT: [&str; 2] = ["Media.UnsupportedCodec", "Media.UnsupportedHdr"];

#[derive(Deserialize)]
struct Parameters {
    input: Uri,
    /// The quarantine's share, as a name or as `s3://share/prefix/`.
    destination: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    cause: String,
    #[serde(default)]
    execution: String,
    /// What this box can do, in a word that changes when that does: the box itself says it.
    tools: Option<String>,
}

/// `{"input", "destination", "error", "cause", "execution"}` to `{"uri", "reason", "moved", "vanished"}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let p: Parameters = fault::parameters(job)?;
    let mut folder: Uri = match p.destination.strip_prefix("s3://") {
        Some(rest) if !rest.contains('/') => Uri::new(rest, ""),
        Some(_) => p.destination.parse().map_err(|e| TaskError::new("Files.InvalidParameter", format!("{e}")))?,
        None => Uri::new(p.destination.clone(), ""),
    };
    if !folder.key.is_empty() && !folder.key.ends_with('/') {
        folder.key.push('/');
    }
    let root = fault::place(job, &folder)?.make_folder().about("create", &folder)?;
    let source = fault::place(job, &p.input)?;
    let there = source.check().about("look at", &p.input)?;

    let name = short_enough(p.input.file_name());
    let (name, begun) = free_name(&root, &name, &p)?;
    let (place, reason) = (root.entry(&name), root.entry(format!("{name}{REASON_SUFFIX}")));
    let mut vanished = false;
    if !begun {
        let size = there.and_then(|meta| Stamp::of(&meta).ok()).map(|stamp| stamp.size);
        vanished = size.is_none();
        let text = json!({
            "error": p.error,
            "cause": p.cause,
            "kind": if CANNOT.contains(&p.error.as_str()) { BOX_CANNOT } else { OF_THE_FILE },
            "tools": p.tools,
            "when": SystemClock.now().to_string(),
            "execution": p.execution,
            "original": p.input,
            "file": (!vanished).then_some(&name),
            "size": size,
            "note": vanished.then_some("the file was gone when it was to be moved here"),
        });
        disk::write(&reason, format!("{text:#}\n").as_bytes()).about_path("write", &reason.path())?;
    }
    let moved = if there.is_none() && !place.is_free() {
        true
    } else {
        match move_into(&source, &place, reporter) {
            Ok(()) => true,
            Err(e) if e.is_missing() && matches!(source.check(), Ok(None)) => {
                vanished = true;
                false
            }
            Err(e) => return Err(e).about("move to quarantine", &p.input),
        }
    };
    let at = |name: &str| Uri::new(folder.share.clone(), format!("{}{name}", folder.key));
    Ok(json!({
        "uri": moved.then(|| at(&name)),
        "reason": at(&format!("{name}{REASON_SUFFIX}")),
        "moved": moved,
        "vanished": vanished,
    }))
}

/// A name that is free, or the one that an earlier run of this same execution has begun to use.
fn free_name(root: &Arc<Folder>, name: &str, p: &Parameters) -> Result<(String, bool), TaskError> {
    for number in 0..SAME_NAME_MAX {
        let candidate = numbered_name(name, number);
        let reason = root.entry(format!("{candidate}{REASON_SUFFIX}"));
        match reason.read().and_then(|file| io::read_to_string(file.take(REASON_BYTES_MAX))) {
            Ok(text) => {
                let told: Value = serde_json::from_str(&text).unwrap_or_default();
                let ours = told["original"] == json!(p.input) && told["execution"] == json!(p.execution);
                if ours && !p.execution.is_empty() {
                    return Ok((candidate, true));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if root.entry(&candidate).is_free() {
                    return Ok((candidate, false));
                }
            }
            // No reason of ours: a link, a folder, no text.
            Err(_) if reason.meta().is_ok_and(|meta| !meta.is_file()) => {}
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
            Err(e) => return Err(fault::io_fault("read", reason.path().display(), &e)),
        }
    }
    Err(TaskError::new(
        "Files.Failed",
        format!("{} holds {SAME_NAME_MAX} files named '{name}'; tidy the quarantine", root.path().display()),
    ))
}

pub(super) fn move_into(source: &Place, place: &Entry, reporter: &dyn Reporter) -> Result<(), ShareError> {
    let own = source.entry()?;
    match disk::rename_new(&own, place) {
        Err(e) if disk::crosses_devices(&e) => copy_into(source, &source.read()?, &own, place, reporter),
        renamed => renamed,
    }
    .map_err(|e| source.failed(e))
}

fn copy_into(source: &Place, file: &File, own: &Entry, place: &Entry, reporter: &dyn Reporter) -> io::Result<()> {
    let stamp = Stamp::of_open(file)?;
    let mut meter = Meter::new(reporter, "moving", stamp.size * 2);
    let (part, read) = disk::copy_beside(file, place, &mut meter)?;
    let unchanged = source.look().is_ok_and(|meta| Stamp::of(&meta).is_ok_and(|now| now == stamp));
    if part.hash(&mut meter)? != read || !unchanged {
        return Err(io::Error::other("the copy differs from the file; the file was left where it is"));
    }
    part.rename_new(place)?;
    disk::sync_folder(place);
    own.remove_file()
}

/// Cuts a name that leaves no room for the reason's suffix, and marks it so that two long names stay apart.
fn short_enough(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let tag = &blake3::hash(name.as_bytes()).to_hex()[..8];
    let suffix = name.rsplit_once('.').map_or("", |(_, s)| if s.len() <= 10 { s } else { "" });
    let mut end = NAME_BYTES_MAX - suffix.len() - 12;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    if suffix.is_empty() { format!("{}~{tag}", &name[..end]) } else { format!("{}~{tag}.{suffix}", &name[..end]) }
}
