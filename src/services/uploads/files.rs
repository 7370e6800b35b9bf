//! What uploads do with files: the part, what is written to it, and the file that it becomes. May wait for a share, and
//! never runs in the service's actor.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use conveyor_base::beneath::{Entry, Meta};
use conveyor_base::shares::ShareError;
use conveyor_base::{Older, ShareIo, Shares, Timestamp, Uri};
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
pub fn open_part(shares: &Shares, uri: &Uri, part: &str, bytes: u64) -> Result<Entry, Refused> {
    let place = shares.place(uri).map_err(|e| refused(&e.to_string()))?;
    let unreached = |e: ShareError| match e {
        ShareError::Io { source, .. } => unwritable(&uri.to_string(), &source),
        other => refused(&other.to_string()),
    };
    if place.check().map_err(unreached)?.is_some() {
        return Err(Refused::new("ConflictException", format!("{uri} is there already; give the file another name")));
    }
    let whole = place.make_entry().map_err(unreached)?;
    let room = whole.folder().space_left().map_err(|e| unwritable(&uri.to_string(), &e))?;
    if room < bytes.saturating_add(ROOM_LEFT) {
        let what = format!("The share '{}' has {room} bytes left, and the file has {bytes}", uri.share);
        return Err(Refused::new("InsufficientStorage", what));
    }
    let part = whole.beside(part);
    part.create_new().map_err(|e| unwritable(&uri.to_string(), &e))?;
    Ok(part)
}

/// An upload's part: beside the file that it becomes.
pub fn part(shares: &Shares, upload: &UploadRow) -> Result<Entry, Refused> {
    let whole = shares.place(&Uri::new(&upload.share, &upload.key)).and_then(|place| place.entry());
    let whole = whole.map_err(|e| match e {
        ShareError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => gone(source),
        ShareError::Io { source, .. } => unwritable(&upload.key, &source),
        other => refused(&other.to_string()),
    })?;
    let name = Path::new(&upload.part).file_name().ok_or_else(|| gone("its part has no name"))?;
    Ok(whole.beside(name))
}

/// How far an upload came, in bytes.
pub async fn offset(io: &ShareIo, upload: &UploadRow) -> Result<u64, Refused> {
    let of = upload.clone();
    io.run(&[&upload.share], move |shares| part(shares, &of)?.meta().map(|meta| meta.size).map_err(gone)).await?
}

fn gone(why: impl Display) -> Refused {
    Refused::new("ResourceNotFound", format!("What came of this upload is gone: {why}"))
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
    let of = upload.clone();
    let open = move |shares: &Shares| -> Result<(u64, File), Refused> {
        let file = part(shares, &of)?.append().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => gone(e),
            _ => unwritable(&of.key, &e),
        })?;
        let meta = Meta::of(&file).map_err(|e| unwritable(&of.key, &e))?;
        if !meta.is_file() {
            return Err(unwritable(&of.key, &io::Error::other("something else is in its place")));
        }
        match meta.size {
            reached if at == Some(reached) => Ok((reached, file)),
            reached => Err(Refused::new("ConflictException", format!("The upload is at {reached}; go on from there"))),
        }
    };
    let (reached, file) = io.run(&[&upload.share], open).await??;
    let file = Arc::new(file);
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
            written.map_err(|e| unwritable(&upload.key, &e))?;
        }
        if too_much {
            return Err(refused("there is more than Upload-Length said"));
        }
        if is_last {
            return Ok(reached);
        }
    }
}

fn unwritable(what: &str, e: &io::Error) -> Refused {
    Refused::new("ServiceUnavailable", format!("{what} cannot be written: {e}"))
}

/// Gives a whole part its own name, or, where somebody took that meanwhile, one with a number.
pub fn land(part: &Entry, uri: Uri) -> Result<Uri, Refused> {
    let failed = |e: io::Error| Refused::new("ServiceUnavailable", format!("{uri} cannot be finished: {e}"));
    part.read().and_then(|file| file.sync_all()).map_err(failed)?;
    for n in 1..1000 {
        let candidate = if n == 1 { uri.clone() } else { Uri::new(&uri.share, numbered(&uri.key, n)) };
        match part.rename_new(&part.beside(candidate.file_name())) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            renamed => renamed.map_err(failed)?,
        }
        // Some network file systems sync no folders; the file itself is safe.
        let _ = part.folder().sync();
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

/// Removes a part, or, where an age is given, one that was not written to since then. One that is gone already is what was
/// asked for.
pub fn remove(shares: &Shares, upload: &UploadRow, idle: Option<&Older>) -> Result<Removal, Refused> {
    let failed = |e| Refused::new("ServiceUnavailable", format!("what came of {} cannot be removed: {e}", upload.key));
    let part = match part(shares, upload) {
        Err(refused) if refused.code == "ResourceNotFound" => return Ok(Removal::Gone),
        part => part?,
    };
    if let Some(idle) = idle
        && written_at(&part).map_err(failed)?.is_some_and(|at| !idle.has(at))
    {
        return Ok(Removal::Kept);
    }
    match part.remove_file() {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
        _ => Ok(Removal::Gone),
    }
}

/// When a file was last written to; `None` where there is none, or something else is in its place.
fn written_at(part: &Entry) -> io::Result<Option<Timestamp>> {
    match part.meta() {
        Ok(found) => Ok(Some(found).filter(Meta::is_file).map(|found| Timestamp(found.modified_ms()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The uploads among these, all of one share, that nothing was written to since then or whose part is gone. On the way it
/// removes parts that belong to none of them, where they are as old: what a crash left between the part and its row. Of
/// folders it knows the share's root and those of the uploads, and goes into no other. Nothing is said of a share that is
/// away.
pub fn sweep(shares: &Shares, share: &str, uploads: &[(String, UploadRow)], old: &Older) -> Vec<String> {
    let root = shares.place(&Uri::new(share, ""));
    // What is an empty folder may be a share that is not mounted.
    if root.and_then(|root| root.list()).map_or(true, |mut listing| listing.next().is_none()) {
        return Vec::new();
    }
    let is_idle = |row: &UploadRow| match part(shares, row) {
        Ok(part) => written_at(&part).is_ok_and(|at| at.is_none_or(|at| old.has(at))),
        Err(refused) => refused.code == "ResourceNotFound",
    };
    let idle = uploads.iter().filter(|(_, row)| is_idle(row)).map(|(id, _)| id.clone()).collect();
    let known: BTreeSet<&OsStr> = uploads.iter().filter_map(|(_, row)| Path::new(&row.part).file_name()).collect();
    let folders = uploads.iter().map(|(_, row)| row.key.rsplit_once('/').map_or("", |(folder, _)| folder));
    for folder in folders.chain([""]).collect::<BTreeSet<&str>>() {
        for part in strays(shares, &Uri::new(share, folder), &known, old) {
            match part.remove_file() {
                Ok(()) => {
                    tracing::info!(part = %part.path().display(), "a part of an upload that nobody knows of was removed")
                }
                Err(error) => {
                    tracing::warn!(part = %part.path().display(), %error, "a part of an upload cannot be removed")
                }
            }
        }
    }
    idle
}

/// Parts in a folder that are none of those, and that were not written to for so long.
fn strays(shares: &Shares, folder: &Uri, known: &BTreeSet<&OsStr>, old: &Older) -> Vec<Entry> {
    let Ok(place) = shares.place(folder) else { return Vec::new() };
    let (Ok(opened), Ok(listing)) = (place.folder(), place.list()) else { return Vec::new() };
    let names = listing.flatten().map(|listed| listed.name);
    let names = names.filter(|name| name.to_str().is_some_and(is_part_name) && !known.contains(name.as_os_str()));
    let parts = names.map(|name| opened.entry(name));
    parts.filter(|part| matches!(written_at(part), Ok(Some(written_at)) if old.has(written_at))).collect()
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
    use conveyor_testing::exchange::Exchange;

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
                    std::fs::write(folder.path().join("a/.clip.mp4.2.part"), b"abc").unwrap();
                    shares.place(&uri).unwrap().entry().unwrap().beside(".clip.mp4.2.part")
                }
            };
            assert_eq!(land(&part, uri.clone()).unwrap().key, expected);
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
                let part = shares.place(&uri).unwrap().entry().unwrap().beside(format!(".{round}.mp4.{n}.part"));
                std::fs::write(part.path(), n.to_string()).unwrap();
                start.wait();
                (n, land(&part, uri.clone()).unwrap())
            };
            let landed: Vec<(usize, Uri)> = std::thread::scope(|scope| {
                let threads: Vec<_> = numbers.iter().map(|n| scope.spawn(|| land_one(*n))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for (n, file) in landed {
                let landed = shares.place(&file).unwrap().read().unwrap();
                assert_eq!(io::read_to_string(landed).unwrap(), n.to_string(), "{file}");
            }
        }
    }

    #[tokio::test]
    async fn a_part_is_as_long_as_what_came() {
        let folder = tempfile::tempdir().unwrap();
        let shares = Shares::new([("incoming".to_owned(), folder.path().to_owned())]);
        let io = ShareIo::new(shares.clone());
        // Earlier releases kept the whole path.
        let part = folder.path().join(".clip.mp4.1.part").to_string_lossy().into_owned();
        std::fs::write(&part, b"").unwrap();
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
        let remove = || remove(&shares, &row, None);
        assert_eq!((remove(), remove()), (Ok(Removal::Gone), Ok(Removal::Gone)));
    }

    /// Whoever may write to the share exchanges the part, or its folder, with a link that leads out.
    #[tokio::test]
    async fn nothing_is_written_or_removed_outside_while_links_are_exchanged() {
        const ROUNDS: usize = 500;
        for exchanges_folder in [false, true] {
            let (share, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let shares = Shares::new([("incoming".to_owned(), share.path().to_owned())]);
            let io = ShareIo::new(shares.clone());
            let (uri, name) = (Uri::new("incoming", "day/clip.mp4"), part_name("clip.mp4", "01234567"));
            let (kept, stray) = (outside.path().join(&name), outside.path().join(part_name("stray", "01234567")));
            let day = share.path().join("day");
            std::fs::create_dir(&day).unwrap();
            for path in [&kept, &stray, &day.join(&name)] {
                std::fs::write(path, "").unwrap();
            }
            let (part, by) = (name.clone(), "ops".to_owned());
            let row = UploadRow { share: uri.share.clone(), key: uri.key.clone(), part, bytes: u64::MAX, by };
            let _exchanging = match exchanges_folder {
                true => Exchange::with_link(&day, outside.path()),
                false => Exchange::with_link(day.join(&name), &kept),
            };
            let mut reached = 0;
            for round in 0..ROUNDS {
                let (pieces, taken) = mpsc::channel(1);
                pieces.send(Bytes::from_static(b"x")).await.unwrap();
                drop(pieces);
                let (_still, stop) = oneshot::channel();
                reached = write(&io, &row, Some(reached), taken, stop).await.unwrap_or(reached);
                let _ = open_part(&shares, &uri, &part_name("new", &format!("{round:08x}")), 0);
            }
            assert!(reached > 0, "it goes on in between");
            let there = || {
                let names = std::fs::read_dir(outside.path()).unwrap().flatten().map(|entry| entry.file_name());
                names.collect::<BTreeSet<_>>()
            };
            let untouched = BTreeSet::from([&kept, &stray].map(|path| path.file_name().unwrap().to_owned()));
            assert_eq!((std::fs::read_to_string(&kept).unwrap(), there()), (String::new(), untouched.clone()));
            for _ in 0..ROUNDS {
                sweep(&shares, "incoming", &[("id".to_owned(), row.clone())], &Older::than(Timestamp::MAX));
                let _ = remove(&shares, &row, None);
            }
            assert_eq!(there(), untouched, "nothing is removed there either");
        }
    }
}
