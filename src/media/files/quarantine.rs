//! The stage `quarantine`: a rejected file leaves the incoming share, with the reason beside it.
//!
//! The reason (`<name>.error.json`) is written first, so that a file never lies in quarantine without one; the file
//! follows by rename, or by copy, verification and removal where the shares are different disks. Where it cannot follow, the
//! reason goes again. A file is never deleted: one that has vanished gets its reason all the same.
//!
//! What moves is the file that the watch saw (`version`), and no other that has its name by now.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder, Kind, Meta};
use conveyor_base::{Clock, Place, Sample, SystemClock, TaskError, Uri};
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
/// Errors of files with which nothing may be wrong. What is in no format that is known here is mostly no media at all, and then
/// offered in vain, once to each release; a film in a new format is not given up for it.
const CANNOT: [&str; 5] =
    ["Media.UnsupportedCodec", "Media.UnsupportedHdr", "Media.NotMedia", "Media.MissingElement", "Device.Unsupported"];
const CHANGED: &str = "Files.Changed";

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
    /// What the watch saw of the file when it started the execution, as [`Meta::version`] has it; whatever has the name where
    /// it is not known.
    version: Option<String>,
    /// What a look at its content showed the watch then, as [`Sample`] has it. While a copy comes into space that was reserved for it
    /// the version stands still, and this does not.
    sample: Option<String>,
    /// How often, since when and with what error the watch saw it fail, where that was too often: no other file is worse for
    /// it, and another release may do it.
    tried: Option<Tried>,
}

#[derive(Deserialize)]
struct Tried {
    runs: u32,
    error: String,
    since: String,
}

/// `{"input", "destination", "error", "cause", "execution", "version"?}` to `{"uri", "reason", "moved", "vanished"}`.
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
    // An earlier run may have been killed at its very last step.
    if let Ok(own) = source.entry() {
        own.recover().about("look at", &p.input)?;
    }
    let there = source.check().about("look at", &p.input)?;

    let name = short_enough(p.input.file_name());
    let (name, begun) = free_name(&root, &name, &p)?;
    let (place, reason) = (root.entry(&name), root.entry(format!("{name}{REASON_SUFFIX}")));
    let taken = !place.is_free().about_path("look at", &place.path())?;
    let is_it = |meta: &Meta| p.version.as_ref().is_none_or(|version| *version == meta.version());
    if let Some(sample) = p.sample.as_ref().filter(|_| there.is_some_and(|meta| is_it(&meta)))
        && source.read().is_ok_and(|file| Sample::of(&file).is_ok_and(|now| now.digest != *sample))
    {
        return Err(changed(&source.path()));
    }
    let (mut vanished, mut written) = (false, false);
    if !begun {
        let size = there.and_then(|meta| Stamp::of(&meta).ok()).map(|stamp| stamp.size);
        vanished = size.is_none();
        let tried = p.tried.as_ref().filter(|tried| tried.error == p.error);
        let note = match (vanished, tried) {
            (true, _) => Some("the file was gone when it was to be moved here".to_owned()),
            (false, tried) => tried.map(|Tried { runs, since, .. }| {
                format!("it failed so in each of {} runs since {since}, on the same bytes", runs + 1)
            }),
        };
        let cannot = CANNOT.contains(&p.error.as_str()) || tried.is_some();
        let text = json!({
            "error": p.error,
            "cause": p.cause,
            "kind": if cannot { BOX_CANNOT } else { OF_THE_FILE },
            "tools": p.tools,
            "when": SystemClock.now().to_string(),
            "execution": p.execution,
            "original": p.input,
            "file": (!vanished).then_some(&name),
            "size": size,
            "sample": p.sample,
            "note": note,
        });
        if there.is_none_or(|meta| is_it(&meta)) {
            // Of two that put a file of one name away at once, the other tries again and finds the next name.
            disk::write_new(&reason, format!("{text:#}\n").as_bytes()).about_path("write", &reason.path())?;
            written = true;
        }
    }
    let moved = match there {
        // An earlier try came as far as that.
        None if taken => true,
        Some(_) if taken => remove_twin(&source, &place, reporter).map(|()| true)?,
        _ => match move_into(&source, &place, &is_it, reporter) {
            Ok(()) => true,
            Err(e) if e.error == "Files.Vanished" && matches!(source.check(), Ok(None)) => {
                vanished = true;
                false
            }
            Err(e) => {
                // It stays where it is: with the next reason it may come here under this very name.
                if written && place.is_free().unwrap_or(false) {
                    let _ = reason.remove_file();
                }
                return Err(e);
            }
        },
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
                let place = root.entry(&candidate);
                if place.is_free().about_path("look at", &place.path())? {
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

/// Moves a file to a name that is free, if it is the one that is meant.
///
/// # Errors
/// `Files.Changed` where another file has its name; it is then where it was, or there again.
pub(super) fn move_into(
    source: &Place,
    place: &Entry,
    is_it: &dyn Fn(&Meta) -> bool,
    reporter: &dyn Reporter,
) -> Result<(), TaskError> {
    let path = source.path();
    let own = source.entry().about_path("move", &path)?;
    // A link is moved as one, and what it stands for is looked at.
    let is_link = own.meta().about_path("move", &path)?.kind == Kind::Link;
    let pinned = if is_link { None } else { Some(own.pin().about_path("move", &path)?) };
    let meta = pinned
        .as_ref()
        .map_or_else(|| source.look().about_path("move", &path), |pinned| Meta::of(pinned).about_path("move", &path))?;
    if !is_it(&meta) {
        return Err(changed(&path));
    }
    match disk::rename_new(&own, place) {
        Err(e) if disk::crosses_devices(&e) => {
            let file = source.read().about_path("move", &path)?;
            if !is_it(&Meta::of(&file).about_path("move", &path)?) {
                return Err(changed(&path));
            }
            let size = Stamp::of_open(&file).about_path("move", &path)?.size;
            let mut meter = Meter::new(reporter, "moving", size * 2);
            return own.move_copied(&file, place, &mut |bytes| meter.add(bytes)).about_path("move", &path);
        }
        renamed => renamed.about_path("move", &path)?,
    }
    if pinned.is_some_and(|pinned| disk::named(place, &pinned).is_err()) {
        // Somebody was quicker; where that name is taken again the file stays here, beside its reason.
        disk::rename_new(place, &own).about_path("give back", &path)?;
        return Err(changed(&path));
    }
    Ok(())
}

fn changed(path: &Path) -> TaskError {
    let what = "is not the file any more that failed: it was changed, or another has its name now. It stays where it is and \
                runs as a file of its own";
    TaskError::new(CHANGED, format!("'{}' {what}", path.display()))
}

/// An earlier try was killed between the copy and the removal, if the source is the same; another file stays.
fn remove_twin(source: &Place, place: &Entry, reporter: &dyn Reporter) -> Result<(), TaskError> {
    let path = source.path();
    let (file, own) = (source.read().about_path("read", &path)?, source.entry().about_path("remove", &path)?);
    let size = Meta::of(&file).about_path("read", &path)?.size;
    let mut meter = Meter::new(reporter, "verifying", size * 2);
    own.remove_copied(&file, place, &mut |bytes| meter.add(bytes)).about_path("remove", &path)?;
    Ok(())
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
