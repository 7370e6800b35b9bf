//! The stage `quarantine`: a rejected file leaves the incoming share, with the reason beside it.
//!
//! The reason (`<name>.error.json`) is written first, so that a file never lies in quarantine without one; the file
//! follows by rename, or by copy, verification and removal where the shares are different disks. A file is never
//! deleted: one that has vanished gets its reason all the same.

use std::fs;
use std::io;
use std::path::Path;

use conveyor_base::{Clock, SystemClock, TaskError, Uri};
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
const REASON_SUFFIX: &str = ".error.json";

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
    let root = fault::resolve(job, &folder)?;
    fs::create_dir_all(&root).about("create", &folder)?;
    let source = fault::resolve(job, &p.input)?;

    let name = short_enough(p.input.file_name());
    let (name, begun) = free_name(&root, &name, &p)?;
    let (place, reason) = (root.join(&name), root.join(format!("{name}{REASON_SUFFIX}")));
    let mut vanished = false;
    if !begun {
        let size = Stamp::of(&source).map(|s| s.size).ok();
        vanished = size.is_none();
        let text = json!({
            "error": p.error,
            "cause": p.cause,
            "when": SystemClock.now().to_string(),
            "execution": p.execution,
            "original": p.input,
            "file": (!vanished).then_some(&name),
            "size": size,
            "note": vanished.then_some("the file was gone when it was to be moved here"),
        });
        disk::write(&reason, format!("{text:#}\n").as_bytes()).about_path("write", &reason)?;
    }
    let moved = if place.exists() && !source.exists() {
        true
    } else {
        match move_into(&source, &place, reporter) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !source.exists() => {
                vanished = true;
                false
            }
            Err(e) => return Err(fault::io_fault("move to quarantine", &p.input, &e)),
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
fn free_name(root: &Path, name: &str, p: &Parameters) -> Result<(String, bool), TaskError> {
    for number in 0..SAME_NAME_MAX {
        let candidate = numbered_name(name, number);
        let reason = root.join(format!("{candidate}{REASON_SUFFIX}"));
        match fs::read(&reason) {
            Ok(bytes) => {
                let told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                let ours = told["original"] == json!(p.input) && told["execution"] == json!(p.execution);
                if ours && !p.execution.is_empty() {
                    return Ok((candidate, true));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if root.join(&candidate).symlink_metadata().is_err() {
                    return Ok((candidate, false));
                }
            }
            Err(e) => return Err(fault::io_fault("read", reason.display(), &e)),
        }
    }
    Err(TaskError::new(
        "Files.Failed",
        format!("{} holds {SAME_NAME_MAX} files named '{name}'; tidy the quarantine", root.display()),
    ))
}

fn move_into(source: &Path, place: &Path, reporter: &dyn Reporter) -> io::Result<()> {
    match disk::rename_new(source, place) {
        Err(e) if disk::crosses_devices(&e) => {
            let stamp = Stamp::of(source)?;
            let mut meter = Meter::new(reporter, "moving", stamp.size * 2);
            let (part, read) = disk::copy_beside(source, place, &mut meter)?;
            if disk::hash(&part, &mut meter)? != read || Stamp::of(source)? != stamp {
                let _ = fs::remove_file(&part);
                return Err(io::Error::other("the copy differs from the file; the file was left where it is"));
            }
            disk::rename_new(&part, place)?;
            fs::remove_file(source)
        }
        other => other,
    }
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
