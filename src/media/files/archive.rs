//! The stage `archive`: a source that is done is copied, verified by hash, and only then removed.
//!
//! ```text
//! open source -> copy to a hidden name, sync -> read the copy back, compare -> rename -> remove the source
//! ```
//!
//! Killed at any arrow and run again, it ends in one archived file. Once the source is gone, the only proof that the
//! archive holds it is its hash: give `blake3` (the stage `fingerprint` says it), or a second run after the removal
//! cannot tell the file from another of the same name and says so.
//!
//! The source is opened once, and what is hashed and copied is what was opened; content that is not what was to be archived
//! gets no name in the archive.
//!
//! A file whose content was done before (`held`: where the archive has that) is removed only where a copy that is surely
//! another file there has its content, read back; else it is archived as a source of its own. So no last copy ever goes.

use std::fs::File;
use std::io;
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Links, Meta, Part};
use conveyor_base::shares::ShareError;
use conveyor_base::{Place, TaskError, Uri};
use conveyor_job::{Job, Reporter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::disk::{self, Meter, Stamp};
use super::fault::{self, About};

/// Most files of one name and different content that an archive keeps.
const SAME_NAME_MAX: u32 = 10_000;
/// Most files of an execution's folder in the archive that are looked at: it has one, or a few of one name.
const HELD_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    input: Uri,
    /// A file, or a folder where it ends in `/`.
    destination: Uri,
    #[serde(default)]
    blake3: Option<String>,
    /// What the watch saw of the file when it started the execution, as [`Meta::version`] has it; whatever has the name where
    /// it is not given.
    version: Option<String>,
    /// The folder of the archive that may hold this content under another name, of the execution that did it. Where it does,
    /// nothing is copied.
    held: Option<Uri>,
    /// The file that was to be archived and that this one is by now, under another name. While that is there, or `held` has the
    /// content, nothing is done.
    instead_of: Option<Uri>,
}

/// `{"input", "destination", "blake3"?, "version"?, "held"?, "insteadOf"?}` to
/// `{"uri", "blake3", "size", "removed", "alreadyArchived"}`; with `held` the `blake3` must be told.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let mut p: Parameters = fault::parameters(job)?;
    if p.destination.key.is_empty() || p.destination.key.ends_with('/') {
        p.destination.key.push_str(p.input.file_name());
    }
    let (source, target) = (fault::place(job, &p.input)?, fault::place(job, &p.destination)?);
    // A link at the name itself that leads out is refused, and not replaced.
    target.check().about("look at", &p.destination)?;
    let folder = p.held.as_ref().map(|held| fault::place(job, held)).transpose()?;
    // An earlier run may have been killed at its very last step.
    if let Ok(own) = source.entry() {
        own.recover().about("look at", &p.input)?;
    }
    match source.read() {
        Ok(file) => {
            let stamp = Stamp::of_open(&file).about("archive", &p.input)?;
            let version = Meta::of(&file).about("archive", &p.input)?.version();
            if p.version.as_ref().is_some_and(|seen| *seen != version) {
                return Err(changed(&p, "was left where it is", "it is not the file that the watch saw"));
            }
            if let Some(instead_of) = &p.instead_of
                && fault::place(job, instead_of)?.check().about("look at", instead_of)?.is_some()
            {
                return Ok(left(&p, stamp));
            }
            match held(&p, folder.as_ref(), Some(&file), reporter)? {
                Some(_) if p.instead_of.is_some() => Ok(left(&p, stamp)),
                Some(held) => remove_held(&p, &source, &file, stamp, &held, reporter),
                None => archive(&p, &source, &file, &target, reporter),
            }
        }
        Err(ShareError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            match held(&p, folder.as_ref(), None, reporter)? {
                Some(held) => Ok(removed(&p, &held)),
                None => already_gone(&p, &target, &source, reporter),
            }
        }
        Err(e) => Err(e).about("archive", &p.input),
    }
}

/// A copy in the archive.
struct Held {
    uri: Uri,
    size: u64,
}

/// The copy of the content that the archive holds for the execution that did it: read back, and no other name of the file that
/// is to go.
fn held(
    p: &Parameters,
    folder: Option<&Place>,
    file: Option<&File>,
    reporter: &dyn Reporter,
) -> Result<Option<Held>, TaskError> {
    let (Some(uri), Some(place), Some(blake3)) = (&p.held, folder, &p.blake3) else { return Ok(None) };
    let folder = match place.folder() {
        Err(e) if e.is_missing() => return Ok(None),
        folder => folder.about("look at", uri)?,
    };
    let own = file.map(Meta::of).transpose().about("look at", &p.input)?;
    for path in disk::files_below(&folder).about("list", uri)?.into_iter().take(HELD_MAX) {
        let (Some(name), Some(key)) = (path.file_name(), path.to_str()) else { continue };
        let Ok(within) = folder.folder(path.parent().unwrap_or_else(|| "".as_ref()), Links::Refused) else { continue };
        let copy = Arc::new(within).entry(name);
        let meta = copy.meta().about_path("look at", &copy.path())?;
        let other = own.as_ref().is_none_or(|own| own.size == meta.size && !own.is_same(&meta));
        if other && holds(&copy, None, blake3, reporter)? {
            let key = format!("{}/{key}", uri.key.trim_end_matches('/'));
            return Ok(Some(Held { uri: Uri::new(uri.share.clone(), key), size: meta.size }));
        }
    }
    Ok(None)
}

/// Removes a file whose content the archive holds, if it is what the execution worked on.
fn remove_held(
    p: &Parameters,
    source: &Place,
    file: &File,
    stamp: Stamp,
    held: &Held,
    reporter: &dyn Reporter,
) -> Result<Value, TaskError> {
    let mut meter = Meter::new(reporter, "verifying", stamp.size);
    let blake3 = disk::hash(file, &mut meter).about("read", &p.input)?;
    expected(p, &blake3)?;
    let now = source.look().about("look at", &p.input)?;
    if Stamp::of(&now).about("look at", &p.input)? != stamp {
        return Err(changed(p, "was not removed", "it was changed while it was read"));
    }
    let own = source.entry().about("remove", &p.input)?;
    own.remove_file().about("remove", &p.input)?;
    disk::sync_folder(&own);
    Ok(removed(p, held))
}

fn removed(p: &Parameters, held: &Held) -> Value {
    json!({
        "uri": held.uri,
        "source": p.input,
        "blake3": p.blake3,
        "size": held.size,
        "removed": true,
        "alreadyArchived": true,
    })
}

fn left(p: &Parameters, stamp: Stamp) -> Value {
    json!({ "source": p.input, "blake3": p.blake3, "size": stamp.size, "removed": false })
}

fn archive(
    p: &Parameters,
    source: &Place,
    file: &File,
    target: &Place,
    reporter: &dyn Reporter,
) -> Result<Value, TaskError> {
    let stamp = Stamp::of_open(file).about("archive", &p.input)?;
    let own = source.entry().about("archive", &p.input)?;
    let known = own.meta().about("archive", &p.input)?;
    let target = target.make_entry().about("create the folder of", &p.destination)?;
    if own.name() == target.name() && is_same_folder(&own, &target).about("look at", &p.input)? {
        return Err(TaskError::new(
            "Files.InvalidParameter",
            format!("'{}' would be archived onto itself; choose another destination", p.input),
        ));
    }
    let mut meter = Meter::new(reporter, "archiving", stamp.size * 2);
    // A run before this one may have come as far as the rename. Reading the source once more is the price of
    // knowing, and is paid only where the name is taken.
    let (place, number, blake3) = if target.is_free().about("look at", &p.destination)? {
        (target, 0, None)
    } else {
        let blake3 = disk::hash(file, &mut meter).about("read", &p.input)?;
        let (place, number, same) = place_for(&target, stamp.size, &blake3, reporter)?;
        (place, number, same.then_some(blake3))
    };
    let as_it_was = || Ok(Stamp::of(&source.look().about("look at", &p.input)?).about("look at", &p.input)? == stamp);
    let existed = blake3.is_some();
    let blake3 = match blake3 {
        Some(blake3) => {
            expected(p, &blake3)?;
            blake3
        }
        None => {
            let (part, blake3) = copy_verified(p, file, &place, &mut meter)?;
            expected(p, &blake3)?;
            if !as_it_was()? {
                return Err(changed(p, "was not archived", "it was changed while it was copied"));
            }
            part.rename_new(&place).about("rename the copy of", &p.input)?;
            disk::sync_folder(&place);
            blake3
        }
    };
    if !as_it_was()? || !own.remove_this(file, &known).about("remove", &p.input)? {
        return Err(changed(p, "was copied to the archive but not removed", "it was changed while it was archived"));
    }
    disk::sync_folder(&own);
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

fn is_same_folder(one: &Entry, other: &Entry) -> io::Result<bool> {
    Ok(Meta::of(&**one.folder())?.is_same(&Meta::of(&**other.folder())?))
}

/// Refuses content that the execution never saw.
fn expected(p: &Parameters, blake3: &str) -> Result<(), TaskError> {
    match &p.blake3 {
        Some(expected) if expected != blake3 => {
            Err(changed(p, "was not archived", "its content is not what the execution worked on"))
        }
        _ => Ok(()),
    }
}

fn changed(p: &Parameters, what: &str, why: &str) -> TaskError {
    TaskError::new(
        "Files.Changed",
        format!("'{}' {what}: {why}. Let the new content run as a file of its own", p.input),
    )
}

/// Copies, reads the copy back and compares; returns the copy, which has no name yet, and the hash.
fn copy_verified(
    p: &Parameters,
    file: &File,
    place: &Entry,
    meter: &mut Meter<'_>,
) -> Result<(Part, String), TaskError> {
    let (part, read) = disk::copy_beside(file, place, meter).about("copy to the archive", &p.input)?;
    if part.hash(&mut |bytes| meter.add(bytes)).about("read back the copy of", &p.input)? != read {
        return Err(TaskError::new(
            "Files.ShareUnreachable",
            format!(
                "the copy of '{}' on '{}' reads back differently; the source was kept. Check the disk and the network of that share",
                p.input, p.destination
            ),
        ));
    }
    Ok((part, read))
}

/// The first of `name.ext`, `name-1.ext` … that is free or holds this very content.
fn place_for(
    target: &Entry,
    size: u64,
    blake3: &str,
    reporter: &dyn Reporter,
) -> Result<(Entry, u32, bool), TaskError> {
    for number in 0..SAME_NAME_MAX {
        let place = numbered(target, number);
        if place.is_free().about_path("look at", &place.path())? {
            return Ok((place, number, false));
        }
        if holds(&place, Some(size), blake3, reporter)? {
            return Ok((place, number, true));
        }
    }
    Err(TaskError::new(
        "Files.Failed",
        format!("{} holds {SAME_NAME_MAX} files of this name; tidy the archive", target.folder().path().display()),
    ))
}

/// Whether a name stands for a file of that content, and of that size if that is known.
fn holds(place: &Entry, size: Option<u64>, blake3: &str, reporter: &dyn Reporter) -> Result<bool, TaskError> {
    // A link, a folder or a pipe holds nothing.
    match place.meta() {
        Ok(meta) if meta.is_file() && size.is_none_or(|size| size == meta.size) => {}
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).about_path("look at", &place.path()),
        _ => return Ok(false),
    }
    let file = place.read().about_path("read", &place.path())?;
    let stamp = Stamp::of_open(&file).about_path("read", &place.path())?;
    let mut meter = Meter::new(reporter, "verifying", stamp.size);
    Ok(disk::hash(&file, &mut meter).about_path("read", &place.path())? == blake3)
}

/// The source is not there: done by an earlier run, if the archive holds its content.
fn already_gone(p: &Parameters, target: &Place, gone: &io::Error, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let Some(blake3) = &p.blake3 else {
        return Err(TaskError::new(
            "Files.Vanished",
            format!(
                "'{}' is gone ({gone}) and the stage was not told its 'blake3', so it cannot tell whether '{}' holds it; look there by hand",
                p.input, p.destination
            ),
        ));
    };
    let target = match target.entry() {
        Err(e) if e.is_missing() => None,
        entry => Some(entry.about("look at", &p.destination)?),
    };
    let places = target.iter().flat_map(|target| (0..SAME_NAME_MAX).map(|number| (number, numbered(target, number))));
    for (number, place) in places {
        if place.is_free().about_path("look at", &place.path())? {
            break;
        }
        if holds(&place, None, blake3, reporter)? {
            return Ok(json!({
                "uri": numbered_uri(&p.destination, number),
                "source": p.input,
                "blake3": blake3,
                "size": place.meta().about_path("look at", &place.path())?.size,
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

fn numbered(target: &Entry, number: u32) -> Entry {
    target.beside(numbered_name(&target.name().to_string_lossy(), number))
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
