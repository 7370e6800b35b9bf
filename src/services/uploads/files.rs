//! What uploads do with files: the part, what is written to it, and the file that it becomes. May wait for a share, and
//! never runs in the service's actor.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use conveyor_base::{ShareIo, Shares, Uri};
use conveyor_run::Refused;
use conveyor_store::UploadRow;
use tokio::sync::{mpsc, oneshot};

use super::refused;

/// What a share must have left when the upload is whole, in bytes.
const ROOM_LEFT: u64 = 64 << 20;
const BUFFER_BYTES: usize = 1 << 20;

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
        if path.exists() {
            continue;
        }
        fs::rename(part, &path).map_err(failed)?;
        if let Some(folder) = path.parent() {
            // Some network file systems sync no folders; the file itself is safe.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        return Ok(candidate);
    }
    Err(Refused::new("ConflictException", format!("{uri} is there already, as are its numbered names")))
}

/// Removes a part. One that is gone already is what was asked for.
pub async fn remove(io: &ShareIo, upload: &UploadRow) -> Result<(), Refused> {
    let part = upload.part.clone();
    match io.run(&[&upload.share], move |_| fs::remove_file(part)).await? {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Refused::new("ServiceUnavailable", format!("what came of {} cannot be removed: {e}", upload.key)))
        }
        _ => Ok(()),
    }
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
        assert_eq!((remove(&io, &row).await, remove(&io, &row).await), (Ok(()), Ok(())));
    }
}
