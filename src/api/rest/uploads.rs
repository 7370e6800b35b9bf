//! Uploads straight to a share, by the core of tus 1.0 (tus.io) with its creation extension: whoever is cut off asks how
//! far it came and goes on.
//!
//! ```text
//! POST /uploads ──▶ .NAME.ID.part ──PATCH … PATCH──▶ whole? sync, then rename to NAME
//! ```
//!
//! Invariants: a file has its own name only when it is whole and on the disk; nothing that was there is overwritten; the
//! length of the part is how far the upload came, also after a crash.

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;

use crate::api::gate::Caller;
use crate::api::{Doors, Refused, apart};
use crate::base::Uri;
use crate::store::{Commit, UploadRow};

const BYTES_MAX: u64 = 16 << 40;
/// What a share must have left when the upload is whole.
const ROOM_LEFT: u64 = 64 << 20;

/// The uploads that are being written to just now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Uploads(Arc<Mutex<HashSet<String>>>);

/// A place among those; given back when it is dropped.
struct Writing(Uploads, String);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.0.lock().remove(&self.1);
    }
}

pub async fn begin(
    doors: Doors,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let bytes: u64 = number(&headers, "upload-length").ok_or_else(|| refused("Upload-Length is missing"))?;
    let metadata = metadata(headers.get("upload-metadata").and_then(|v| v.to_str().ok()).unwrap_or_default());
    let field = |name: &str| metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let share = field("share").ok_or_else(|| refused("Upload-Metadata names no share"))?;
    let name = field("filename").ok_or_else(|| refused("Upload-Metadata names no filename"))?;
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(refused("a file's name is not empty, begins with no dot and has no slash"));
    }
    if bytes > BYTES_MAX {
        return Err(refused("the file is larger than 16 TiB"));
    }
    let folder = field("folder").unwrap_or_default();
    let folder = folder.trim_matches('/');
    let key = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
    let id = uuid::Uuid::new_v4().simple().to_string();
    let (shares, uri, part_name) = (doors.shares.clone(), Uri::new(&share, &key), format!(".{name}.{}.part", &id[..8]));
    let part = apart(move || open_part(&shares, &uri, &part_name, bytes)).await??;
    let part = part.to_string_lossy().into_owned();
    let upload = UploadRow { share, key, part, bytes, by: caller.name };
    let mut commit = Commit::new();
    commit.put_upload(&id, &upload);
    doors.handle.commit(commit).await?;
    let mut answer = reply(StatusCode::CREATED, &[("upload-offset", 0)]);
    set(&mut answer, header::LOCATION, &format!("/api/v1/uploads/{id}"));
    if bytes == 0 {
        finish(&doors, &id, &upload).await?;
    }
    Ok(answer)
}

pub async fn how_far(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, Refused> {
    let upload = find(&doors, &id)?;
    let offset = offset(FilePath::new(&upload.part)).await?;
    let mut answer = reply(StatusCode::OK, &[("upload-offset", offset), ("upload-length", upload.bytes)]);
    set(&mut answer, header::CACHE_CONTROL, "no-store");
    Ok(answer)
}

pub async fn go_on(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, Refused> {
    let upload = find(&doors, &id)?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    if kind != Some("application/offset+octet-stream") {
        return Err(refused("the body's type must be application/offset+octet-stream"));
    }
    if !doors.uploads.0.lock().insert(id.clone()) {
        return Err(Refused::new("ConflictException", "This upload is being written to by another request"));
    }
    let _writing = Writing(doors.uploads.clone(), id.clone());
    let at = offset(FilePath::new(&upload.part)).await?;
    if number(&headers, "upload-offset") != Some(at) {
        return Err(Refused::new("ConflictException", format!("The upload is at {at}; go on from there")));
    }
    let reached = write(&upload, at, body).await?;
    let mut answer = reply(StatusCode::NO_CONTENT, &[("upload-offset", reached)]);
    if reached == upload.bytes {
        let key = finish(&doors, &id, &upload).await?;
        set(&mut answer, HeaderName::from_static("x-conveyor-key"), &crate::base::escape::escaped(&key));
    }
    Ok(answer)
}

pub async fn give_up(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, Refused> {
    let upload = find(&doors, &id)?;
    forget(&doors, &id).await?;
    // A part that is gone already is what was asked for.
    let _ = tokio::fs::remove_file(&upload.part).await;
    Ok(reply(StatusCode::NO_CONTENT, &[]))
}

fn refused(what: &str) -> Refused {
    Refused::validation(format!("This upload cannot begin: {what}"))
}

fn open_part(shares: &crate::base::Shares, uri: &Uri, part: &str, bytes: u64) -> Result<PathBuf, Refused> {
    let whole = shares.resolve(uri).map_err(|e| refused(&e.to_string()))?;
    if whole.exists() {
        return Err(Refused::new("ConflictException", format!("{uri} is there already; give the file another name")));
    }
    let folder = whole.parent().unwrap_or(FilePath::new("/"));
    let unwritable = |e: std::io::Error| refused(&format!("{uri} cannot be written: {e}"));
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    let room = nix::sys::statvfs::statvfs(folder).map_err(|e| unwritable(e.into()))?;
    let room = room.blocks_available() as u64 * room.fragment_size() as u64;
    if room < bytes.saturating_add(ROOM_LEFT) {
        let what = format!("The share '{}' has {room} bytes left, and the file has {bytes}", uri.share);
        return Err(Refused::new("InsufficientStorage", what));
    }
    let part = folder.join(part);
    std::fs::OpenOptions::new().create_new(true).write(true).open(&part).map_err(unwritable)?;
    Ok(part)
}

/// Writes what comes, as far as it comes; the end of the connection is no error, it may go on later.
async fn write(upload: &UploadRow, at: u64, body: HttpBody) -> Result<u64, Refused> {
    let unwritable =
        |e: std::io::Error| Refused::new("ServiceUnavailable", format!("{} cannot be written: {e}", upload.key));
    let file = tokio::fs::OpenOptions::new().append(true).open(&upload.part).await.map_err(unwritable)?;
    let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
    let (mut reached, mut pieces) = (at, body.into_data_stream());
    while let Some(Ok(piece)) = pieces.next().await {
        if reached + piece.len() as u64 > upload.bytes {
            file.flush().await.map_err(unwritable)?;
            return Err(refused("there is more than Upload-Length said"));
        }
        file.write_all(&piece).await.map_err(unwritable)?;
        reached += piece.len() as u64;
    }
    file.flush().await.map_err(unwritable)?;
    Ok(reached)
}

/// The key that it came to have.
async fn finish(doors: &Doors, id: &str, upload: &UploadRow) -> Result<String, Refused> {
    let (shares, uri) = (doors.shares.clone(), Uri::new(&upload.share, &upload.key));
    let part = PathBuf::from(&upload.part);
    let landed = apart(move || land(&shares, &part, uri)).await??;
    forget(doors, id).await?;
    tracing::info!(file = %landed, bytes = upload.bytes, by = upload.by, "an upload landed");
    Ok(landed.key)
}

/// Under its own name, or, where somebody took that meanwhile, under one with a number.
fn land(shares: &crate::base::Shares, part: &FilePath, uri: Uri) -> Result<Uri, Refused> {
    let failed = |e: std::io::Error| Refused::new("ServiceUnavailable", format!("{uri} cannot be finished: {e}"));
    std::fs::File::open(part).and_then(|file| file.sync_all()).map_err(failed)?;
    for n in 1..1000 {
        let candidate = if n == 1 { uri.clone() } else { Uri::new(&uri.share, numbered(&uri.key, n)) };
        let path = shares.resolve(&candidate).map_err(|e| refused(&e.to_string()))?;
        if path.exists() {
            continue;
        }
        std::fs::rename(part, &path).map_err(failed)?;
        if let Some(folder) = path.parent() {
            // Some network file systems sync no folders; the file itself is safe.
            let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        }
        return Ok(candidate);
    }
    Err(Refused::new("ConflictException", format!("{uri} is there already, as are its numbered names")))
}

fn numbered(key: &str, n: u32) -> String {
    match key.rsplit_once('.').filter(|(stem, suffix)| !stem.is_empty() && !suffix.contains('/')) {
        Some((stem, suffix)) => format!("{stem} ({n}).{suffix}"),
        None => format!("{key} ({n})"),
    }
}

async fn forget(doors: &Doors, id: &str) -> Result<(), Refused> {
    let mut commit = Commit::new();
    commit.delete_upload(id);
    Ok(doors.handle.commit(commit).await?)
}

fn find(doors: &Doors, id: &str) -> Result<UploadRow, Refused> {
    let missing = || Refused::new("ResourceNotFound", "There is no such upload; it may have ended");
    doors.reader.upload(id)?.ok_or_else(missing)
}

async fn offset(part: &FilePath) -> Result<u64, Refused> {
    let gone = |e| Refused::new("ResourceNotFound", format!("What came of this upload is gone: {e}"));
    Ok(tokio::fs::metadata(part).await.map_err(gone)?.len())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// `filename d29ybGQ=,share aW4=`
fn metadata(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (key, value) = part.trim().split_once(' ').unwrap_or((part.trim(), ""));
        let value = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
        Some((key.to_owned(), value))
    };
    text.split(',').filter_map(pair).collect()
}

fn reply(status: StatusCode, numbers: &[(&'static str, u64)]) -> Response {
    let mut answer = status.into_response();
    set(&mut answer, HeaderName::from_static("tus-resumable"), "1.0.0");
    for (name, number) in numbers {
        set(&mut answer, HeaderName::from_static(name), &number.to_string());
    }
    answer
}

fn set(answer: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lands_has_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let shares = crate::base::Shares::new([("incoming".to_owned(), folder.path().to_owned())]);
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
    fn metadata_is_read_as_tus_writes_it() {
        let read = metadata("filename YSBiLm1wNA==,share aW5jb21pbmc=, empty");
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(read, [pair("filename", "a b.mp4"), pair("share", "incoming"), pair("empty", "")]);
    }
}
