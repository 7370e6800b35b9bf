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
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Reporter};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::disk::{self, Meter, Stamp};
use super::fault::{self, About};
use super::{LISTED_MAX, manifest};

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

/// `{"staging" or "outputs", "destination", "manifest"?, "execution"?}` to
/// `{"manifest", "destination", "count", "bytes", "files", "kept"?}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let mut p: Parameters = fault::parameters(job)?;
    p.destination.key = p.destination.key.trim_matches('/').to_owned();
    if p.destination.key.is_empty() {
        return Err(invalid("'destination' must name a folder below its share, such as s3://outputs/clip/"));
    }
    if p.execution.is_empty() {
        p.execution = p.manifest.get("execution").and_then(Value::as_str).unwrap_or_default().to_owned();
    }
    complete_manifest(&mut p);
    let place = fault::resolve(job, &p.destination)?;
    fs::create_dir_all(disk::parent(&place)).about("create the folder of", &p.destination)?;

    let kept = match gather(job, &p, &place, reporter)? {
        Gathered::Nothing => return already_done(&p, &place),
        Gathered::Folder(folder) => {
            let total = disk::files_below(&folder)
                .about_path("list", &folder)?
                .iter()
                .filter_map(|f| Stamp::of(&folder.join(f)).ok())
                .map(|s| s.size)
                .sum();
            let mut meter = Meter::new(reporter, "hashing", total);
            manifest::write(&folder, &p.execution, &p.manifest, &mut meter)?;
            put_in_place(&folder, &place, &p.execution)?
        }
    };
    remove_leftovers(job, &p, &place);
    result(&p, &place, kept)
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
    Folder(PathBuf),
    /// Nothing is staged: an earlier run may have published it.
    Nothing,
}

fn gather(job: &Job, p: &Parameters, place: &Path, reporter: &dyn Reporter) -> Result<Gathered, TaskError> {
    let build = build_folder(place, &p.execution);
    let sources = match (&p.staging, p.outputs.is_empty()) {
        (Some(staging), true) => {
            let folder = fault::resolve(job, staging)?;
            if place.starts_with(&folder) || folder.starts_with(place) {
                return Err(invalid("'staging' and 'destination' must not lie within each other"));
            }
            if !folder.exists() {
                return Ok(if build.exists() { Gathered::Folder(build) } else { Gathered::Nothing });
            }
            if manifest::execution_of(place).as_deref() == Some(&p.execution) && !p.execution.is_empty() {
                // An earlier run of this execution exchanged the folders and was killed before it put the old one away.
                match manifest::read(&folder) {
                    Some(old) if old["execution"] != p.execution.as_str() => {
                        set_aside(&folder, place)?;
                        return Ok(Gathered::Nothing);
                    }
                    Some(old)
                        if manifest::read(place)
                            .is_some_and(|new| old["publishedMs"].as_i64() < new["publishedMs"].as_i64()) =>
                    {
                        fs::remove_dir_all(&folder).about_path("remove the replaced", &folder)?;
                        return Ok(Gathered::Nothing);
                    }
                    _ => {}
                }
            }
            if manifest::listed(&folder)?.is_empty() {
                return Ok(if build.exists() { Gathered::Folder(build) } else { Gathered::Nothing });
            }
            match same_disk(&folder, disk::parent(place)) {
                true => return Ok(Gathered::Folder(folder)),
                false => manifest::listed(&folder)?.into_iter().map(|f| (f.clone(), folder.join(f))).collect(),
            }
        }
        (None, false) => {
            let uris = p.outputs.iter().map(|u| u.as_str().and_then(|u| u.parse().ok()));
            let uris: Option<Vec<Uri>> = uris.collect();
            let uris = uris.ok_or_else(|| invalid("'outputs' must be a list of files as s3://share/key"))?;
            relative_places(job, &uris)?
        }
        _ => return Err(invalid("give either 'staging' (a folder) or 'outputs' (a list of files)")),
    };
    collect(&sources, &build, reporter)
}

/// Moves or copies each source into the hidden build folder; what an earlier run has brought there stays.
fn collect(sources: &BTreeMap<PathBuf, PathBuf>, build: &Path, reporter: &dyn Reporter) -> Result<Gathered, TaskError> {
    let missing: Vec<_> = sources.iter().filter(|(to, from)| !from.exists() && !build.join(to).exists()).collect();
    if missing.len() == sources.len() {
        return Ok(Gathered::Nothing);
    }
    if let Some((_, from)) = missing.first() {
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
    let total = sources.values().filter_map(|f| Stamp::of(f).ok()).map(|s| s.size * 2).sum();
    let mut meter = Meter::new(reporter, "copying", total);
    for (to, from) in sources {
        let to = build.join(to);
        if !from.exists() {
            continue;
        }
        fs::create_dir_all(disk::parent(&to)).about_path("create the folder of", &to)?;
        match disk::rename(from, &to) {
            Err(e) if disk::crosses_devices(&e) => {
                let (part, read) = disk::copy_beside(from, &to, &mut meter).about_path("copy", from)?;
                if disk::hash(&part, &mut meter).about_path("read back", &part)? != read {
                    return Err(TaskError::new(
                        "Files.ShareUnreachable",
                        format!(
                            "the copy of '{}' reads back differently; check the destination's disk",
                            from.display()
                        ),
                    ));
                }
                disk::rename(&part, &to).about_path("rename", &part)?;
            }
            other => other.about_path("move", from)?,
        }
    }
    Ok(Gathered::Folder(build.to_owned()))
}

/// Makes `folder` be `place`. Returns where an earlier version was put, if there was one.
fn put_in_place(folder: &Path, place: &Path, execution: &str) -> Result<Option<PathBuf>, TaskError> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    if place.symlink_metadata().is_err() {
        disk::rename_new(folder, place).about_path("publish as", place)?;
        return Ok(None);
    }
    let theirs = foreign(place, execution);
    match renameat2(AT_FDCWD, folder, AT_FDCWD, place, RenameFlags::RENAME_EXCHANGE) {
        // What was published before now lies at `folder`.
        Ok(()) => {
            disk::sync_folder(disk::parent(place));
            if theirs {
                return set_aside(folder, place).map(Some);
            }
            fs::remove_dir_all(folder).about_path("remove the replaced", folder)?;
            Ok(None)
        }
        // Network file systems cannot exchange: the destination is missing for a moment, but nothing is lost.
        Err(_) => {
            let aside = set_aside(place, place)?;
            disk::rename_new(folder, place).about_path("publish as", place)?;
            if theirs {
                return Ok(Some(aside));
            }
            fs::remove_dir_all(&aside).about_path("remove the replaced", &aside)?;
            Ok(None)
        }
    }
}

/// Keeps a folder as the next free `<place>.version-N`.
fn set_aside(folder: &Path, place: &Path) -> Result<PathBuf, TaskError> {
    for number in 1..VERSIONS_MAX {
        let version = version_of(place, number);
        match disk::rename_new(folder, &version) {
            Ok(()) => return Ok(version),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(fault::io_fault("set aside", folder.display(), &e)),
        }
    }
    Err(TaskError::new("Files.Failed", format!("{} has {VERSIONS_MAX} earlier versions; remove some", place.display())))
}

fn version_of(place: &Path, number: u32) -> PathBuf {
    let name = place.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    place.with_file_name(format!("{name}.version-{number}"))
}

/// Whether a folder bears the work of somebody else than this execution. Without a manifest it does, unless it is empty.
fn foreign(folder: &Path, execution: &str) -> bool {
    match manifest::execution_of(folder) {
        Some(other) => other.is_empty() || other != execution,
        None => fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_some()),
    }
}

fn already_done(p: &Parameters, place: &Path) -> Result<Value, TaskError> {
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

fn result(p: &Parameters, place: &Path, kept: Option<PathBuf>) -> Result<Value, TaskError> {
    let manifest = manifest::read(place).ok_or_else(|| {
        TaskError::new(
            "Files.Vanished",
            format!("'{}' was published but its manifest cannot be read back; look at the share", p.destination),
        )
    })?;
    let under = |path: &str| Uri::new(p.destination.share.clone(), format!("{}/{path}", p.destination.key));
    let files = manifest["files"].as_array().cloned().unwrap_or_default();
    let listed: Vec<Value> = files
        .iter()
        .take(LISTED_MAX)
        .map(|f| json!({ "uri": under(f["path"].as_str().unwrap_or_default()), "size": f["size"], "blake3": f["blake3"], "type": f["type"] }))
        .collect();
    let folder_key = p.destination.key.rsplit_once('/').map_or(String::new(), |(f, _)| format!("{f}/"));
    let kept =
        kept.and_then(|k| Some(format!("s3://{}/{folder_key}{}/", p.destination.share, k.file_name()?.to_str()?)));
    Ok(json!({
        "manifest": under(manifest::NAME),
        "destination": format!("{}/", p.destination),
        "count": files.len(),
        "bytes": manifest["bytes"],
        "files": listed,
        "kept": kept,
    }))
}

/// After a publication by copy the staged originals are of no use; failing to remove them costs disk, nothing else.
fn remove_leftovers(job: &Job, p: &Parameters, place: &Path) {
    if let Some(Ok(folder)) = p.staging.as_ref().map(|s| fault::resolve(job, s)) {
        let _ = fs::remove_dir_all(folder);
    }
    let _ = fs::remove_dir_all(build_folder(place, &p.execution));
}

fn build_folder(place: &Path, execution: &str) -> PathBuf {
    let tag = &blake3::hash(execution.as_bytes()).to_hex()[..12];
    disk::hidden(place, &format!("{tag}.publishing"))
}

/// Each file's place relative to the deepest folder that holds them all.
fn relative_places(job: &Job, outputs: &[Uri]) -> Result<BTreeMap<PathBuf, PathBuf>, TaskError> {
    let folder = |u: &Uri| PathBuf::from(&u.share).join(&u.key).parent().map(Path::to_owned).unwrap_or_default();
    let mut common = outputs.first().map(folder).unwrap_or_default();
    for uri in outputs {
        let full = folder(uri);
        while !full.starts_with(&common) {
            common.pop();
        }
    }
    outputs
        .iter()
        .map(|uri| {
            let full = PathBuf::from(&uri.share).join(&uri.key);
            Ok((full.strip_prefix(&common).unwrap_or(&full).to_owned(), fault::resolve(job, uri)?))
        })
        .collect()
}

fn same_disk(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev(),
        _ => false,
    }
}

fn invalid(what: &str) -> TaskError {
    TaskError::new("Files.InvalidParameter", format!("{what}; correct the state's Parameters"))
}
