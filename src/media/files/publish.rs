//! The stage `publish`: staged outputs become the published folder in one rename.
//!
//! ```text
//! gather (same disk: the staging folder itself; else copies in a hidden folder beside the destination)
//!   -> hash, sync, manifest.json last -> set aside what another execution published there -> rename
//! ```
//!
//! Invariants: a reader sees the old folder, no folder, or the new folder, never half of one. A destination that
//! another execution wrote is kept as `<name>.version-N`. Killed at any arrow and run again, the same execution ends
//! in the same single folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder, Links, Meta};
use conveyor_base::{Place, TaskError, Uri};
use conveyor_job::{Job, Reporter};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::disk::{self, Meter, Stamp};
use super::fault::{self, About};
use super::{LISTED_MAX, manifest};
use crate::input::same_file;

/// Most earlier versions of one destination.
const VERSIONS_MAX: u32 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    /// A folder whose whole content is published …
    #[serde(default, alias = "from")]
    staging: Option<Uri>,
    /// … or single files, which keep their places relative to the folder that holds them all. Beside a `staging` it is
    /// a description, and goes into the manifest.
    #[serde(default)]
    outputs: Vec<Value>,
    destination: Uri,
    /// Goes into the manifest: quality, brief, whatever the workflow wants to keep with the files.
    #[serde(default)]
    manifest: Map<String, Value>,
    #[serde(default)]
    execution: String,
    /// What else the workflow passes goes into the manifest.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// `{"staging" or "outputs", "destination", "manifest"?, "execution"?, "input"?, "metadata"?}` to
/// `{"manifest", "destination", "count", "bytes", "files", "kept"?}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let mut p: Parameters = fault::parameters(job)?;
    p.destination.key = p.destination.key.trim_matches('/').to_owned();
    if p.destination.key.is_empty() {
        return Err(invalid("'destination' must name a folder below its share, such as s3://outputs/clip/"));
    }
    if let Some(staging) = &mut p.staging {
        staging.key.truncate(staging.key.trim_end_matches('/').len());
    }
    if p.execution.is_empty() {
        p.execution = p.manifest.get("execution").and_then(Value::as_str).unwrap_or_default().to_owned();
    }
    complete_manifest(&mut p);
    let name = fault::place(job, &p.destination)?;
    name.check().about("look at", &p.destination)?;
    let place = name.make_entry().about("create the folder of", &p.destination)?;

    let kept = match gather(job, &p, &place, reporter)? {
        Gathered::Nothing => return already_done(&p, &place),
        Gathered::Folder(entry) => {
            check_source(job, &p.manifest)?;
            let folder = Arc::new(entry.open_folder().about_path("list", &entry.path())?);
            let files = disk::files_below(&folder).about_path("list", folder.path())?;
            let sizes = files.iter().filter_map(|file| folder.look(file, Links::Refused).ok()).map(|meta| meta.size);
            let mut meter = Meter::new(reporter, "hashing", sizes.sum());
            manifest::write(&folder, &p.execution, &p.manifest, &mut meter)?;
            put_in_place(&entry, &folder, &place, &p.execution)?
        }
    };
    remove_leftovers(job, &p, &place);
    result(&p, &place, kept)
}

/// Whether the outputs are of the file that was looked at first, which may have lain in queues for hours. Of one that is gone
/// nobody knows otherwise.
fn check_source(job: &Job, told: &Map<String, Value>) -> Result<(), TaskError> {
    let input = told.get("input").and_then(Value::as_str).and_then(|input| input.parse::<Uri>().ok());
    let (Some(metadata), Some(input)) = (told.get("metadata"), input) else { return Ok(()) };
    match fault::place(job, &input)?.check().about("look at", &input)? {
        Some(meta) => same_file(&input, &meta, metadata),
        None => Ok(()),
    }
}

/// Takes the workflow's records into the manifest; names of staged files in them become those of the published ones.
fn complete_manifest(p: &mut Parameters) {
    if p.staging.is_some() && !p.outputs.is_empty() {
        p.manifest.entry("outputs").or_insert_with(|| Value::Array(std::mem::take(&mut p.outputs)));
        p.outputs.clear();
    }
    for (key, value) in std::mem::take(&mut p.others) {
        p.manifest.entry(key).or_insert(value);
    }
    if let Some(staging) = &p.staging {
        let from = format!("{}/", staging.to_string().trim_end_matches('/'));
        let to = format!("{}/", p.destination);
        p.manifest.values_mut().for_each(|v| renamed(v, &from, &to));
    }
}

fn renamed(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) => {
            if let Some(rest) = text.strip_prefix(from) {
                *text = format!("{to}{rest}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| renamed(v, from, to)),
        Value::Object(fields) => fields.values_mut().for_each(|v| renamed(v, from, to)),
        _ => {}
    }
}

enum Gathered {
    /// Everything that is to be published lies in this folder, on the destination's disk.
    Folder(Entry),
    /// Nothing is staged: an earlier run may have published it.
    Nothing,
}

fn gather(job: &Job, p: &Parameters, place: &Entry, reporter: &dyn Reporter) -> Result<Gathered, TaskError> {
    let build = build_folder(place, &p.execution);
    let begun = || match build.is_free().about_path("look at", &build.path())? {
        true => Ok(Gathered::Nothing),
        false => Ok(Gathered::Folder(build.clone())),
    };
    let sources = match (&p.staging, p.outputs.is_empty()) {
        (Some(staging), true) => {
            let (from, to) = (fault::resolve(job, staging)?, fault::resolve(job, &p.destination)?);
            if to.starts_with(&from) || from.starts_with(&to) {
                return Err(invalid("'staging' and 'destination' must not lie within each other"));
            }
            let staged = fault::place(job, staging)?;
            let folder = match staged.folder() {
                Err(e) if e.is_missing() => return begun(),
                folder => folder.about("list", staging)?,
            };
            // A share's root has no name that could be taken from it, and a link's is another one.
            let own = staged.entry().ok().filter(|own| disk::named(own, &*folder).is_ok());
            if let Some(own) = &own
                && manifest::execution_of(place).as_deref() == Some(&p.execution)
                && !p.execution.is_empty()
            {
                // An earlier run of this execution exchanged the folders and was killed before it put the old one away.
                match manifest::read(own) {
                    Some(old) if old["execution"] != p.execution.as_str() => {
                        set_aside(own, place)?;
                        return Ok(Gathered::Nothing);
                    }
                    Some(old)
                        if manifest::read(place)
                            .is_some_and(|new| old["publishedMs"].as_i64() < new["publishedMs"].as_i64()) =>
                    {
                        own.remove_all().about_path("remove the replaced", &own.path())?;
                        return Ok(Gathered::Nothing);
                    }
                    _ => {}
                }
            }
            let files = manifest::listed(&folder)?;
            if files.is_empty() {
                return begun();
            }
            match own {
                Some(own) if is_same_disk(&folder, place.folder()) => return Ok(Gathered::Folder(own)),
                _ => {
                    let uri = |file: &PathBuf| file.to_str().map(|file| under(staging, file));
                    let uris = files.into_iter().map(|file| uri(&file).map(|uri| (file, uri)));
                    let uris: Option<BTreeMap<PathBuf, Uri>> = uris.collect();
                    uris.ok_or_else(|| {
                        let what = format!("a file in '{staging}' has a name that is not UTF-8; rename it, then retry");
                        TaskError::new("Files.Failed", what)
                    })?
                }
            }
        }
        (None, false) => {
            let uris = p.outputs.iter().map(|u| u.as_str().and_then(|u| u.parse().ok()));
            let uris: Option<Vec<Uri>> = uris.collect();
            let uris = uris.ok_or_else(|| invalid("'outputs' must be a list of files as s3://share/key"))?;
            relative_places(&uris)
        }
        _ => return Err(invalid("give either 'staging' (a folder) or 'outputs' (a list of files)")),
    };
    collect(job, &sources, &build, reporter)
}

fn under(folder: &Uri, path: &str) -> Uri {
    let key = if folder.key.is_empty() { path.to_owned() } else { format!("{}/{path}", folder.key) };
    Uri::new(folder.share.clone(), key)
}

/// Moves or copies each source into the hidden build folder; what an earlier run has brought there stays.
fn collect(
    job: &Job,
    sources: &BTreeMap<PathBuf, Uri>,
    build: &Entry,
    reporter: &dyn Reporter,
) -> Result<Gathered, TaskError> {
    let brought = build.open_folder().ok();
    let is_brought = |to: &Path| brought.as_ref().is_some_and(|folder| folder.look(to, Links::Refused).is_ok());
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for (to, uri) in sources {
        let from = fault::place(job, uri)?;
        match from.check().about("look at", uri)? {
            Some(meta) => there.push((to, uri, meta)),
            None if !is_brought(to) => missing.push(from.path()),
            None => {}
        }
    }
    if missing.len() == sources.len() {
        return Ok(Gathered::Nothing);
    }
    if let Some(from) = missing.first() {
        return Err(TaskError::new(
            "Files.Vanished",
            format!(
                "{} of {} outputs are gone, first '{}'; run the transcode again",
                missing.len(),
                sources.len(),
                from.display()
            ),
        ));
    }
    let mut meter = Meter::new(reporter, "copying", there.iter().map(|(_, _, meta)| meta.size * 2).sum());
    let made = build.folder().make_folder(Path::new(build.name())).about_path("create the folder of", &build.path())?;
    for (to, uri, _) in there {
        let folder = made
            .make_folder(to.parent().unwrap_or(Path::new("")))
            .about_path("create the folder of", &made.path().join(to))?;
        let to = Arc::new(folder).entry(to.file_name().unwrap_or_default());
        bring(&fault::place(job, uri)?, &to, &mut meter)?;
    }
    Ok(Gathered::Folder(build.clone()))
}

/// Moves one file, or copies it where a name cannot be moved.
fn bring(from: &Place, to: &Entry, meter: &mut Meter<'_>) -> Result<(), TaskError> {
    let path = from.path();
    let own = from.entry().about_path("move", &path)?;
    // What a link stands for is published, and not the link.
    if let Ok(pinned) = own.pin() {
        match disk::rename(&own, to) {
            Err(e) if disk::crosses_devices(&e) => {}
            renamed => return renamed.and_then(|()| disk::named(to, &pinned)).about_path("move", &path),
        }
    }
    let file = from.read().about_path("copy", &path)?;
    Stamp::of_open(&file).about_path("copy", &path)?;
    let (part, read) = disk::copy_beside(&file, to, meter).about_path("copy", &path)?;
    if part.hash(&mut |bytes| meter.add(bytes)).about_path("read back", &to.path())? != read {
        return Err(TaskError::new(
            "Files.ShareUnreachable",
            format!("the copy of '{}' reads back differently; check the destination's disk", path.display()),
        ));
    }
    part.rename(to).about_path("rename", &to.path())?;
    disk::sync_folder(to);
    Ok(())
}

/// Makes `staged` be `place`. Returns where an earlier version was put, if there was one. `folder`: what `staged` is the name
/// of, and what `place` is to be.
pub(super) fn put_in_place(
    staged: &Entry,
    folder: &Folder,
    place: &Entry,
    execution: &str,
) -> Result<Option<Entry>, TaskError> {
    let is_it = || disk::named(place, folder).about_path("publish as", &place.path());
    if place.is_free().about_path("look at", &place.path())? {
        disk::rename_new(staged, place).about_path("publish as", &place.path())?;
        return is_it().map(|()| None);
    }
    // Whose it is that is replaced is asked of that itself, and not of what has the name before: others publish too.
    match staged.exchange(place) {
        // What was published before now lies at `staged`.
        Ok(()) => {
            disk::sync_folder(place);
            is_it()?;
            if is_foreign(staged, execution) {
                return set_aside(staged, place).map(Some);
            }
            staged.remove_all().about_path("remove the replaced", &staged.path())?;
            Ok(None)
        }
        // Network file systems cannot exchange: the destination is missing for a moment, but nothing is lost.
        Err(_) => {
            let aside = set_aside(place, place)?;
            disk::rename_new(staged, place).about_path("publish as", &place.path())?;
            is_it()?;
            if is_foreign(&aside, execution) {
                return Ok(Some(aside));
            }
            aside.remove_all().about_path("remove the replaced", &aside.path())?;
            Ok(None)
        }
    }
}

/// Keeps a folder as the next free `<place>.version-N`.
fn set_aside(folder: &Entry, place: &Entry) -> Result<Entry, TaskError> {
    for number in 1..VERSIONS_MAX {
        let version = place.beside(format!("{}.version-{number}", place.name().to_string_lossy()));
        match disk::rename_new(folder, &version) {
            Ok(()) => return Ok(version),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(fault::io_fault("set aside", folder.path().display(), &e)),
        }
    }
    let what = format!("{} has {VERSIONS_MAX} earlier versions; remove some", place.path().display());
    Err(TaskError::new("Files.Failed", what))
}

/// Whether a folder bears the work of somebody else than this execution. Without a manifest it does, unless it is empty.
fn is_foreign(place: &Entry, execution: &str) -> bool {
    match manifest::execution_of(place) {
        Some(other) => other.is_empty() || other != execution,
        None => {
            let listing = place.open_folder().and_then(|folder| folder.list(Path::new(""), Links::Refused));
            listing.map_or(true, |mut listing| listing.next().is_some())
        }
    }
}

fn already_done(p: &Parameters, place: &Entry) -> Result<Value, TaskError> {
    if !p.execution.is_empty() && manifest::execution_of(place).as_deref() == Some(&p.execution) {
        return result(p, place, None);
    }
    Err(TaskError::new(
        "Files.Vanished",
        format!(
            "there is nothing to publish as '{}': the staged outputs are gone and no manifest of this execution is there; run the transcode again",
            p.destination
        ),
    ))
}

fn result(p: &Parameters, place: &Entry, kept: Option<Entry>) -> Result<Value, TaskError> {
    let manifest = manifest::read(place).ok_or_else(|| {
        TaskError::new(
            "Files.Vanished",
            format!("'{}' was published but its manifest cannot be read back; look at the share", p.destination),
        )
    })?;
    let below = |path: &str| under(&p.destination, path);
    let files = manifest["files"].as_array().cloned().unwrap_or_default();
    let listed: Vec<Value> = files
        .iter()
        .take(LISTED_MAX)
        .map(|f| json!({ "uri": below(f["path"].as_str().unwrap_or_default()), "size": f["size"], "blake3": f["blake3"], "type": f["type"] }))
        .collect();
    let folder_key = p.destination.key.rsplit_once('/').map_or(String::new(), |(f, _)| format!("{f}/"));
    let kept = kept.and_then(|k| Some(format!("s3://{}/{folder_key}{}/", p.destination.share, k.name().to_str()?)));
    Ok(json!({
        "manifest": below(manifest::NAME),
        "destination": format!("{}/", p.destination),
        "count": files.len(),
        "bytes": manifest["bytes"],
        "files": listed,
        "kept": kept,
    }))
}

/// After a publication by copy the staged originals are of no use; failing to remove them costs disk, nothing else.
fn remove_leftovers(job: &Job, p: &Parameters, place: &Entry) {
    let staged = p.staging.as_ref().and_then(|staging| fault::place(job, staging).ok()?.entry().ok());
    for leftover in staged.into_iter().chain([build_folder(place, &p.execution)]) {
        let _ = leftover.remove_all();
    }
}

fn build_folder(place: &Entry, execution: &str) -> Entry {
    let tag = &blake3::hash(execution.as_bytes()).to_hex()[..12];
    place.hidden(&format!("{tag}.publishing"))
}

/// Each file's place relative to the deepest folder that holds them all.
fn relative_places(outputs: &[Uri]) -> BTreeMap<PathBuf, Uri> {
    let folder = |u: &Uri| PathBuf::from(&u.share).join(&u.key).parent().map(Path::to_owned).unwrap_or_default();
    let mut common = outputs.first().map(folder).unwrap_or_default();
    for uri in outputs {
        let full = folder(uri);
        while !full.starts_with(&common) {
            common.pop();
        }
    }
    let relative = |uri: &Uri| {
        let full = PathBuf::from(&uri.share).join(&uri.key);
        (full.strip_prefix(&common).unwrap_or(&full).to_owned(), uri.clone())
    };
    outputs.iter().map(relative).collect()
}

fn is_same_disk(one: &Folder, other: &Folder) -> bool {
    matches!((Meta::of(one), Meta::of(other)), (Ok(one), Ok(other)) if one.device == other.device)
}

fn invalid(what: &str) -> TaskError {
    TaskError::new("Files.InvalidParameter", format!("{what}; correct the state's Parameters"))
}
