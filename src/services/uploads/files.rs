//! What uploads do with files: the part, what is written to it, and the file that it becomes. May wait for a share, and
//! never runs in the service's actor.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use conveyor_base::shares::rename_new;
use conveyor_base::{ShareIo, Shares, Timestamp, Uri};
use conveyor_run::Refused;
use conveyor_store::UploadRow;
use tokio::sync::{mpsc, oneshot};

use super::refused;

/// What a share must have left when the upload is whole, in bytes.
const ROOM_LEFT: u64 = 64 << 20;
const BUFFER_BYTES: usize = 1 << 20;
/// Characters of an upload's id in its part's name.
const ID_CHARS: usize = 8;

/// Makes the part that a file begins as.
pub fn open_part(shares: &Shares, uri: &Uri, part: &str, bytes: u64) -> Result<PathBuf, Refused> {
    let whole = shares.resolve(uri).map_err(|e| refused(&e.to_string()))?;
    if whole.exists() {
        return Err(Refused::new("ConflictException", format!("{uri} is there already; give the file another name")));
    }
    let folder = whole.parent().unwrap_or(Path::new("/"));
    let unwritable = |e: io::Error| refused(&format!("{uri} cannot be written: {e}"));
    fs::create_dir_all(folder).map_err(unwritable)?;
    let room = nix::sys::statvfs::statvfs(folder).map_err(|e| unwritable(e.into()))?;
    let room = room.blocks_available() as u64 * room.fragment_size() as u64;
    if room < bytes.saturating_add(ROOM_LEFT) {
        let what = format!("The share '{}' has {room} bytes left, and the file has {bytes}", uri.share);
        return Err(Refused::new("InsufficientStorage", what));
    }
    let part = folder.join(part);
    OpenOptions::new().create_new(true).write(true).open(&part).map_err(unwritable)?;
    Ok(part)
}

/// How far an upload came, in bytes.
pub async fn offset(io: &ShareIo, upload: &UploadRow) -> Result<u64, Refused> {
    let gone = |e| Refused::new("ResourceNotFound", format!("What came of this upload is gone: {e}"));
    let part = upload.part.clone();
    Ok(io.run(&[&upload.share], move |_| fs::metadata(part)).await?.map_err(gone)?.len())
}

/// Writes what comes, as far as it comes; the end of the pieces is no error, it may go on later. Ends early where `stop`
/// is sent or dropped.
pub async fn write(
    io: &ShareIo,
    upload: &UploadRow,
    at: Option<u64>,
    pieces: mpsc::Receiver<Bytes>,
    stop: oneshot::Receiver<()>,
) -> Result<u64, Refused> {
    let reached = offset(io, upload).await?;
    if at != Some(reached) {
        return Err(Refused::new("ConflictException", format!("The upload is at {reached}; go on from there")));
    }
    let part = upload.part.clone();
    let opened = io.run(&[&upload.share], move |_| OpenOptions::new().append(true).open(part)).await?;
    let file = Arc::new(opened.map_err(|e| unwritable(upload, &e))?);
    let written = append(io, upload, &file, reached, pieces, stop).await;
    // To close it may wait for what a network share has still to write. It needs no place: there are no more of these
    // than files that were opened while the share answered.
    let _ = tokio::task::spawn_blocking(move || drop(file)).await;
    written
}

async fn append(
    io: &ShareIo,
    upload: &UploadRow,
    file: &Arc<File>,
    mut reached: u64,
    mut pieces: mpsc::Receiver<Bytes>,
    mut stop: oneshot::Receiver<()>,
) -> Result<u64, Refused> {
    let mut held = Vec::new();
    loop {
        let piece = tokio::select! {
            biased;
            _ = &mut stop => None,
            piece = pieces.recv() => piece,
        };
        let is_last = piece.is_none();
        let piece = piece.unwrap_or_default();
        let too_much = reached + piece.len() as u64 > upload.bytes;
        if !too_much {
            reached += piece.len() as u64;
            held.extend_from_slice(&piece);
        }
        if is_last || too_much || held.len() >= BUFFER_BYTES {
            let (file, held) = (file.clone(), std::mem::take(&mut held));
            let written = io.run(&[&upload.share], move |_| (&*file).write_all(&held)).await?;
            written.map_err(|e| unwritable(upload, &e))?;
        }
        if too_much {
            return Err(refused("there is more than Upload-Length said"));
        }
        if is_last {
            return Ok(reached);
        }
    }
}

fn unwritable(upload: &UploadRow, e: &io::Error) -> Refused {
    Refused::new("ServiceUnavailable", format!("{} cannot be written: {e}", upload.key))
}

/// Gives a whole part its own name, or, where somebody took that meanwhile, one with a number.
pub fn land(shares: &Shares, part: &Path, uri: Uri) -> Result<Uri, Refused> {
    let failed = |e: io::Error| Refused::new("ServiceUnavailable", format!("{uri} cannot be finished: {e}"));
    File::open(part).and_then(|file| file.sync_all()).map_err(failed)?;
    for n in 1..1000 {
        let candidate = if n == 1 { uri.clone() } else { Uri::new(&uri.share, numbered(&uri.key, n)) };
        let path = shares.resolve(&candidate).map_err(|e| refused(&e.to_string()))?;
        match rename_new(part, &path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            renamed => renamed.map_err(failed)?,
        }
        if let Some(folder) = path.parent() {
            // Some network file systems sync no folders; the file itself is safe.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        return Ok(candidate);
    }
    Err(Refused::new("ConflictException", format!("{uri} is there already, as are its numbered names")))
}

/// What became of a part that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Gone,
    /// Something came of it meanwhile.
    Kept,
}

/// Removes a part, or, where a time is given, one that nothing was written to since. One that is gone already is what was
/// asked for.
pub fn remove(upload: &UploadRow, idle_since: Option<Timestamp>) -> Result<Removal, Refused> {
    let failed = |e| Refused::new("ServiceUnavailable", format!("what came of {} cannot be removed: {e}", upload.key));
    let part = Path::new(&upload.part);
    if let Some(since) = idle_since
        && written_at(part).map_err(failed)?.is_some_and(|at| at >= since)
    {
        return Ok(Removal::Kept);
    }
    match std::fs::remove_file(part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(Removal::Gone),
    }
}

/// When a file was last written to; `None` where there is none, or something else is in its place.
fn written_at(path: &Path) -> io::Result<Option<Timestamp>> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found).filter(std::fs::Metadata::is_file).map(|found| stamp(found.modified()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// A file of an unknown age is a new one.
fn stamp(modified: io::Result<SystemTime>) -> Timestamp {
    let since_epoch = modified.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Timestamp(since_epoch.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(i64::MAX))
}

/// The uploads among these, all of one share, that nothing was written to since then or whose part is gone. On the way it
/// removes parts that belong to none of them, where they are as old: what a crash left between the part and its row. Of
/// folders it knows the share's root and those of the uploads, and goes into no other. Nothing is said of a share that is
/// away.
pub fn sweep(shares: &Shares, share: &str, uploads: &[(String, UploadRow)], since: Timestamp) -> Vec<String> {
    let Ok(root) = shares.root(share) else { return Vec::new() };
    // What is an empty folder may be a share that is not mounted.
    if conveyor_base::shares::is_empty(root).unwrap_or(true) {
        return Vec::new();
    }
    let is_idle = |row: &UploadRow| match written_at(Path::new(&row.part)) {
        Ok(at) => at.is_none_or(|at| at < since),
        Err(_) => false,
    };
    let idle = uploads.iter().filter(|(_, row)| is_idle(row)).map(|(id, _)| id.clone()).collect();
    let parts: BTreeSet<&Path> = uploads.iter().map(|(_, row)| Path::new(&row.part)).collect();
    let folders = std::iter::once("part").chain(uploads.iter().map(|(_, row)| row.key.as_str()));
    let folders = folders.filter_map(|key| Some(shares.resolve(&Uri::new(share, key)).ok()?.parent()?.to_owned()));
    for folder in folders.collect::<BTreeSet<PathBuf>>() {
        for part in strays(&folder, &parts, since) {
            match std::fs::remove_file(&part) {
                Ok(()) => {
                    tracing::info!(part = %part.display(), "a part of an upload that nobody knows of was removed")
                }
                Err(error) => tracing::warn!(part = %part.display(), %error, "a part of an upload cannot be removed"),
            }
        }
    }
    idle
}

/// Parts in a folder that are none of those, and that nothing was written to since then.
fn strays(folder: &Path, known: &BTreeSet<&Path>, since: Timestamp) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_part_name)).map(|entry| entry.path());
    let is_stray = |part: &PathBuf| {
        !known.contains(part.as_path()) && matches!(written_at(part), Ok(Some(written_at)) if written_at < since)
    };
    parts.filter(is_stray).collect()
}

/// The name of the part of an upload of that id.
pub fn part_name(name: &str, id: &str) -> String {
    format!(".{name}.{}.part", &id[..ID_CHARS])
}

fn is_part_name(name: &str) -> bool {
    let of = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part")).and_then(|name| name.rsplit_once('.'));
    of.is_some_and(|(name, id)| {
        !name.is_empty() && id.len() == ID_CHARS && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn numbered(key: &str, n: u32) -> String {
    match key.rsplit_once('.').filter(|(stem, suffix)| !stem.is_empty() && !suffix.contains('/')) {
        Some((stem, suffix)) => format!("{stem} ({n}).{suffix}"),
        None => format!("{key} ({n})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lands_has_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let shares = Shares::new([("incoming".to_owned(), folder.path().to_owned())]);
        let uri = Uri::new("incoming", "a/clip.mp4");
        for expected in ["a/clip.mp4", "a/clip (2).mp4"] {
            let part = match expected {
                "a/clip.mp4" => open_part(&shares, &uri, ".clip.mp4.1.part", 3).unwrap(),
                _ => {
                    let taken = open_part(&shares, &uri, ".clip.mp4.2.part", 3).unwrap_err();
                    assert_eq!(taken.code, "ConflictException");
                    let part = folder.path().join("a/.clip.mp4.2.part");
                    std::fs::write(&part, b"abc").unwrap();
                    part
                }
            };
            assert_eq!(land(&shares, &part, uri.clone()).unwrap().key, expected);
        }
        let full = open_part(&shares, &Uri::new("incoming", "b.mp4"), ".b.part", u64::MAX).unwrap_err();
        assert_eq!(full.code, "InsufficientStorage");
        assert!(open_part(&shares, &Uri::new("incoming", "../b.mp4"), ".b.part", 1).is_err());
    }

    #[test]
    fn of_what_lands_under_one_name_at_once_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let shares = Shares::new([("incoming".to_owned(), folder.path().to_owned())]);
        let numbers: Vec<usize> = (0..8).collect();
        let start = std::sync::Barrier::new(numbers.len());
        for round in 0..20 {
            let uri = Uri::new("incoming", format!("{round}.mp4"));
            let land_one = |n: usize| {
                let part = folder.path().join(format!(".{round}.mp4.{n}.part"));
                std::fs::write(&part, n.to_string()).unwrap();
                start.wait();
                (n, land(&shares, &part, uri.clone()).unwrap())
            };
            let landed: Vec<(usize, Uri)> = std::thread::scope(|scope| {
                let threads: Vec<_> = numbers.iter().map(|n| scope.spawn(|| land_one(*n))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for (n, file) in landed {
                assert_eq!(std::fs::read_to_string(shares.resolve(&file).unwrap()).unwrap(), n.to_string(), "{file}");
            }
        }
    }

    #[tokio::test]
    async fn a_part_is_as_long_as_what_came() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join(".clip.mp4.1.part");
        std::fs::write(&part, b"").unwrap();
        let io = ShareIo::new(Shares::new([("incoming".to_owned(), folder.path().to_owned())]));
        let part = part.to_string_lossy().into_owned();
        let row = UploadRow { share: "incoming".into(), key: "clip.mp4".into(), part, bytes: 6, by: "ops".into() };
        let go_on = async |at, text: &'static [u8]| {
            let (pieces, taken) = mpsc::channel(4);
            pieces.send(Bytes::from_static(text)).await.unwrap();
            drop(pieces);
            let (_still, stop) = oneshot::channel();
            write(&io, &row, Some(at), taken, stop).await
        };
        assert_eq!(go_on(0, b"abc").await, Ok(3));
        assert_eq!(go_on(0, b"abc").await.unwrap_err().code, "ConflictException");
        assert_eq!(go_on(3, b"defg").await.unwrap_err().code, "ValidationException");
        assert_eq!((offset(&io, &row).await, go_on(3, b"def").await), (Ok(3), Ok(6)));
        let (_pieces, taken) = mpsc::channel(4);
        let (cut_off, stop) = oneshot::channel();
        drop(cut_off);
        assert_eq!(write(&io, &row, Some(6), taken, stop).await, Ok(6), "a writer that is cut off ends");
        assert_eq!((remove(&row, None), remove(&row, None)), (Ok(Removal::Gone), Ok(Removal::Gone)));
    }
}
