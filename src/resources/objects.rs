//! Objects: S3's calls on the files of the shares. A bucket is a share, a key is a path below its root.
//!
//! Writes go to a hidden name beside the target, are synced and renamed: a reader never sees half a file, and a
//! second run leaves the same result. Nothing here leaves a share's root.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::aws::{self, need_text};
use super::{Answer, Call};
use crate::base::escape::unescaped;
use crate::base::shares::ShareError;
use crate::base::{Shares, TaskError, Timestamp, Uri};
use crate::run::Fill;

/// Most keys of one listing (S3: 1,000).
const KEYS_MAX: u64 = 1_000;
/// Largest object that can be a state's result.
const BODY_BYTES_MAX: u64 = 262_144;

/// `copyObject`, `getObject`, `putObject`, `headObject`, `listObjectsV2`, `deleteObject`.
pub async fn call(call: &Call, operation: &str) -> Result<Answer, TaskError> {
    let (shares, parameters) = (call.services.shares.clone(), call.parameters.clone());
    let (operation, id) = (operation.to_owned(), aws::request_id(call));
    // Shares may be slow or hang: never on the threads that everything else runs on.
    let done = tokio::task::spawn_blocking(move || operate(&shares, &operation, &parameters, &id)).await;
    done.unwrap_or_else(|e| Err(TaskError::new("S3.S3Exception", format!("the operation broke off: {e}"))))
        .map(Answer::Done)
}

/// An object's content.
pub(super) fn open(shares: &Shares, bucket: &str, key: &str) -> Result<File, TaskError> {
    let id = uuid::Uuid::new_v4().to_string();
    Object::at(shares, bucket, key, &id).and_then(|object| object.open()).map(|(file, _)| file)
}

/// Writes an object, whole or not at all, and says how many bytes it has.
pub(super) fn write_whole(shares: &Shares, bucket: &str, key: &str, fill: Fill) -> Result<u64, TaskError> {
    let id = uuid::Uuid::new_v4().to_string();
    let object = Object::at(shares, bucket, key, &id)?;
    object.write(|file| {
        let mut to = io::BufWriter::with_capacity(1 << 16, file);
        fill(&mut to)?;
        to.flush()
    })?;
    fs::metadata(&object.path).map(|meta| meta.len()).map_err(|e| object.io(&e))
}

/// All objects of a bucket below a prefix, by key, as a distributed Map's items show them.
pub(super) fn list_all(shares: &Shares, bucket: &str, prefix: &str) -> Result<Vec<Value>, TaskError> {
    let id = uuid::Uuid::new_v4().to_string();
    let folder = Object::at(shares, bucket, ".", &id)?;
    let mut found = Vec::new();
    walk(&folder.path, "", &mut |key, meta| {
        if key.starts_with(prefix) {
            found.push((key, meta));
        }
    })
    .map_err(|e| folder.io(&e))?;
    found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let shown = |(key, meta): (String, fs::Metadata)| {
        json!({
            "Etag": etag(&meta), "Key": key, "LastModified": meta.mtime(), "Size": meta.len(), "StorageClass": "STANDARD",
        })
    };
    Ok(found.into_iter().map(shown).collect())
}

/// Whether a bucket is one of the box's shares.
pub fn is_share(shares: &Shares, bucket: &str) -> bool {
    let bucket = bucket.strip_prefix("arn:aws:s3:::").unwrap_or(bucket);
    shares.names().any(|name| name == bucket)
}

fn operate(shares: &Shares, operation: &str, p: &Value, id: &str) -> Result<Value, TaskError> {
    let bucket = need_text(p, "Bucket", "the S3 call")?;
    let of = |key: &str| Object::at(shares, bucket, key, id);
    let key = || need_text(p, "Key", "the S3 call");
    let answer = match operation {
        "copyObject" => copy(shares, p, &of(key()?)?, id)?,
        "getObject" => of(key()?)?.get()?,
        "putObject" => of(key()?)?.put(p)?,
        "headObject" => of(key()?)?.head()?,
        "deleteObject" => of(key()?)?.delete()?,
        "listObjectsV2" => list(shares, p, bucket, id)?,
        _ => {
            return Err(TaskError::new(
                "States.Runtime",
                format!(
                    "s3:{operation} is not provided by this box; it has copyObject, getObject, putObject, headObject, listObjectsV2 and deleteObject"
                ),
            ));
        }
    };
    Ok(answer)
}

/// One object: a file that may or may not exist.
struct Object<'a> {
    uri: Uri,
    path: PathBuf,
    id: &'a str,
}

impl<'a> Object<'a> {
    fn at(shares: &Shares, bucket: &str, key: &str, id: &'a str) -> Result<Object<'a>, TaskError> {
        let bucket = bucket.strip_prefix("arn:aws:s3:::").unwrap_or(bucket);
        let uri = Uri::new(bucket, key);
        let path = shares.resolve(&uri).map_err(|e| share_error(&e, id))?;
        Ok(Object { uri, path, id })
    }

    fn open(&self) -> Result<(File, fs::Metadata), TaskError> {
        let file = File::open(&self.path).map_err(|e| self.io(&e))?;
        let meta = file.metadata().map_err(|e| self.io(&e))?;
        if meta.is_file() { Ok((file, meta)) } else { Err(self.no_such_key()) }
    }

    fn head(&self) -> Result<Value, TaskError> {
        let (_, meta) = self.open()?;
        Ok(described(&self.uri, &meta))
    }

    fn get(&self) -> Result<Value, TaskError> {
        let (mut file, meta) = self.open()?;
        if meta.len() > BODY_BYTES_MAX {
            return Err(TaskError::new(
                "States.DataLimitExceeded",
                format!(
                    "{} has {} bytes; a state's result has at most {BODY_BYTES_MAX}. Hand its name on instead",
                    self.uri,
                    meta.len()
                ),
            ));
        }
        let mut body = Vec::new();
        io::Read::read_to_end(&mut file, &mut body).map_err(|e| self.io(&e))?;
        let mut answer = described(&self.uri, &meta);
        answer["Body"] = Value::String(String::from_utf8_lossy(&body).into_owned());
        Ok(answer)
    }

    fn put(&self, p: &Value) -> Result<Value, TaskError> {
        let text = match p.get("Body") {
            Some(Value::String(text)) => text.clone(),
            // The SDK integration writes JSON that is no string as its text.
            Some(value) => value.to_string(),
            None => String::new(),
        };
        self.write(|file| file.write_all(text.as_bytes()))?;
        let meta = fs::metadata(&self.path).map_err(|e| self.io(&e))?;
        Ok(json!({ "ETag": etag(&meta) }))
    }

    fn write(&self, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), TaskError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let name = blake3::hash(format!("{}{}", self.id, self.uri.key).as_bytes()).to_hex();
        let part = folder.join(format!(".{}.part", &name[..24]));
        let written = fs::create_dir_all(folder).and_then(|()| {
            let mut file = File::create(&part)?;
            fill(&mut file)?;
            file.sync_all()?;
            fs::rename(&part, &self.path)
        });
        written.map_err(|e| {
            // A full disk stays full while the half file lies on it.
            let _ = fs::remove_file(&part);
            self.io(&e)
        })
    }

    fn delete(&self) -> Result<Value, TaskError> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.io(&e)),
            // As in S3, deleting what is not there succeeds.
            _ => Ok(json!({})),
        }
    }

    fn no_such_key(&self) -> TaskError {
        TaskError::new(
            "S3.NoSuchKeyException",
            aws::sdk_cause(&format!("The specified key does not exist: {}.", self.uri), "S3", 404, self.id),
        )
    }

    fn io(&self, e: &io::Error) -> TaskError {
        match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => self.no_such_key(),
            io::ErrorKind::PermissionDenied => TaskError::new(
                "S3.S3Exception",
                aws::sdk_cause(
                    &format!("Access Denied: the appliance's user may not use {}", self.uri),
                    "S3",
                    403,
                    self.id,
                ),
            ),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => TaskError::new(
                "S3.S3Exception",
                aws::sdk_cause(
                    &format!("no space is left on the share '{}' for {}", self.uri.share, self.uri),
                    "S3",
                    507,
                    self.id,
                ),
            ),
            _ => TaskError::new("S3.S3Exception", aws::sdk_cause(&format!("{}: {e}", self.uri), "S3", 500, self.id)),
        }
    }
}

fn share_error(error: &ShareError, id: &str) -> TaskError {
    match error {
        ShareError::Unknown { share, known } => TaskError::new(
            "S3.NoSuchBucketException",
            aws::sdk_cause(
                &format!(
                    "The specified bucket does not exist: there is no share named '{share}' (configured: {known})"
                ),
                "S3",
                404,
                id,
            ),
        ),
        ShareError::Unreachable { source, .. } => TaskError::new(
            "S3.S3Exception",
            aws::sdk_cause(&format!("{error}: {source}; mount it again, then retry"), "S3", 503, id),
        ),
        ShareError::Io { source, .. } => {
            TaskError::new("S3.S3Exception", aws::sdk_cause(&format!("{error}: {source}"), "S3", 500, id))
        }
        _ => TaskError::new("S3.S3Exception", aws::sdk_cause(&error.to_string(), "S3", 400, id)),
    }
}

fn copy(shares: &Shares, p: &Value, target: &Object, id: &str) -> Result<Value, TaskError> {
    let written = need_text(p, "CopySource", "s3:copyObject")?;
    let decoded = unescaped(written);
    let plain = decoded.trim_start_matches('/').split("?versionId=").next().unwrap_or_default();
    let (bucket, key) = plain.split_once('/').filter(|(b, k)| !b.is_empty() && !k.is_empty()).ok_or_else(|| {
        TaskError::new(
            "S3.S3Exception",
            aws::sdk_cause(
                &format!("Invalid copy source object key: '{written}' is not of the form bucket/key"),
                "S3",
                400,
                id,
            ),
        )
    })?;
    let source = Object::at(shares, bucket, key, id)?;
    let (mut from, _) = source.open()?;
    target.write(|to| io::copy(&mut from, to).map(drop))?;
    let meta = fs::metadata(&target.path).map_err(|e| target.io(&e))?;
    Ok(json!({ "CopyObjectResult": { "ETag": etag(&meta), "LastModified": modified(&meta) } }))
}

/// Keys below a prefix, in order, at most `MaxKeys` after `StartAfter` or the continuation token.
fn list(shares: &Shares, p: &Value, bucket: &str, id: &str) -> Result<Value, TaskError> {
    let folder = Object::at(shares, bucket, ".", id)?;
    let text = |name: &str| p.get(name).and_then(Value::as_str);
    let prefix = text("Prefix").unwrap_or_default();
    let after = text("ContinuationToken").or(text("StartAfter")).unwrap_or_default();
    let wanted = p.get("MaxKeys").and_then(Value::as_u64).unwrap_or(KEYS_MAX).min(KEYS_MAX) as usize;
    let mut keys = std::collections::BTreeMap::new();
    walk(&folder.path, "", &mut |key, meta| {
        if key.starts_with(prefix) && key.as_str() > after {
            keys.insert(key, meta);
            // One more than wanted says whether there are more.
            if keys.len() > wanted + 1 {
                keys.pop_last();
            }
        }
    })
    .map_err(|e| folder.io(&e))?;
    let truncated = keys.len() > wanted;
    let contents: Vec<Value> = keys
        .into_iter()
        .take(wanted)
        .map(|(key, meta)| {
            json!({"Key": key, "Size": meta.len(), "LastModified": modified(&meta), "ETag": etag(&meta), "StorageClass": "STANDARD"})
        })
        .collect();
    let mut answer = json!({
        "Name": folder.uri.share, "Prefix": prefix, "MaxKeys": wanted, "KeyCount": contents.len(), "IsTruncated": truncated,
    });
    if truncated {
        answer["NextContinuationToken"] = contents.last().and_then(|c| c.get("Key")).cloned().unwrap_or_default();
    }
    answer["Contents"] = Value::Array(contents);
    Ok(answer)
}

fn walk(folder: &Path, prefix: &str, see: &mut impl FnMut(String, fs::Metadata)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // A name that is no UTF-8 is no key.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let key = format!("{prefix}{name}");
        if kind.is_dir() {
            walk(&entry.path(), &format!("{key}/"), see)?;
        } else if kind.is_file() && !name.starts_with('.') {
            see(key, entry.metadata()?);
        }
    }
    Ok(())
}

fn described(uri: &Uri, meta: &fs::Metadata) -> Value {
    json!({
        "ContentLength": meta.len(),
        "ContentType": content_type(uri.file_name()),
        "LastModified": modified(meta),
        "ETag": etag(meta),
        "Metadata": {},
    })
}

fn content_type(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().essence_str().to_owned()
}

fn modified(meta: &fs::Metadata) -> String {
    Timestamp(meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000).to_string()
}

/// Changes whenever the file does; it is no MD5, since that would read the file.
fn etag(meta: &fs::Metadata) -> String {
    format!("\"{:x}-{:x}-{:x}\"", meta.ino(), meta.len(), meta.mtime() * 1_000_000_000 + meta.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_files_on_shares() {
        let dir = tempfile::tempdir().unwrap();
        let shares =
            Shares::new([("source".to_owned(), dir.path().join("a")), ("archive".to_owned(), dir.path().join("b"))]);
        fs::create_dir_all(dir.path().join("a/day 1")).unwrap();
        fs::create_dir_all(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("a/day 1/x+y.mp4"), b"pictures").unwrap();
        let run = |operation: &str, p: Value| operate(&shares, operation, &p, "id");
        run("copyObject", json!({"Bucket": "archive", "Key": "done/x.mp4", "CopySource": "source/day%201/x+y.mp4"}))
            .unwrap();
        assert_eq!(fs::read(dir.path().join("b/done/x.mp4")).unwrap(), b"pictures");
        let head = run("headObject", json!({"Bucket": "archive", "Key": "done/x.mp4"})).unwrap();
        assert_eq!((head["ContentLength"].as_u64(), head["ContentType"].as_str()), (Some(8), Some("video/mp4")));
        let list = run("listObjectsV2", json!({"Bucket": "archive", "Prefix": "done/"})).unwrap();
        assert_eq!(list["Contents"][0]["Key"], "done/x.mp4");
        let missing =
            run("copyObject", json!({"Bucket": "archive", "Key": "k", "CopySource": "source/none.mp4"})).unwrap_err();
        assert_eq!(missing.error, "S3.NoSuchKeyException");
        let bucket =
            run("copyObject", json!({"Bucket": "archive", "Key": "k", "CopySource": "job-1/x.mp4"})).unwrap_err();
        assert!(bucket.error == "S3.NoSuchBucketException" && bucket.cause.contains("'job-1'"), "{bucket}");
        assert!(run("putObject", json!({"Bucket": "archive", "Key": "../out", "Body": "x"})).is_err());
    }
}
