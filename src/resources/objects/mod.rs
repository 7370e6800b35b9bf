//! Objects: S3's calls on the files of the shares. A bucket is a share, a key is a path below its root.
//!
//! Writes go to a hidden name beside the target, are synced and renamed: a reader never sees half a file, and a
//! second run leaves the same result. What a put may replace is looked at when it gets its name, and nobody else on this box
//! changes the object meanwhile. Nothing here leaves a share's root, whoever exchanges links on it. What S3 keeps beside an object and a file
//! cannot (its type, its metadata) is a row of the store, which counts for as long as the file is the one that was put.

mod changing;
mod conditions;
mod list;
mod task;

use std::fs::File;
use std::io::{self, Seek, Write};

use conveyor_base::beneath::{Entry, Meta};
use conveyor_base::escape::unescaped;
use conveyor_base::fault::chain;
use conveyor_base::shares::ShareError;
use conveyor_base::{Place, ShareIo, Shares, TaskError, Timestamp, Uri};
use conveyor_run::{Fill, Handle};
use conveyor_store::{Commit, ObjectField, ObjectRow, Reader};
use serde_json::{Map, Value, json};

pub use task::{NAMES, adapter};

use super::aws::{self, require_text};
use super::{CallOutcome, Ended};
use changing::CHANGING;

/// Fields of a put that come back with the object.
const KEPT: [&str; 7] =
    ["CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Metadata", "Expires"];
/// Most keys of one deleteObjects (S3: 1,000).
const DELETES_MAX: usize = 1_000;
/// Largest object that can be a state's result.
const BODY_BYTES_MAX: u64 = 262_144;

/// The buckets of this box.
pub struct Objects {
    io: ShareIo,
    reader: Reader,
}

impl Objects {
    pub fn new(io: ShareIo, reader: Reader) -> Objects {
        Objects { io, reader }
    }

    /// Whether a bucket is one of the box's own.
    pub fn has(&self, bucket: &str) -> bool {
        is_share(self.io.shares(), bucket)
    }

    /// One call: `getObject` and the others of [`operate`]. `id`: the request's, for what is refused.
    async fn call(
        &self,
        handle: &Handle,
        operation: &str,
        parameters: Value,
        id: String,
    ) -> Result<CallOutcome, TaskError> {
        let touched = touched(operation, &parameters, self.io.shares());
        let touched: Vec<&str> = touched.iter().map(String::as_str).collect();
        let (reader, called) = (self.reader.clone(), operation.to_owned());
        let work = move |shares: &Shares| {
            let beside = |share: &str, key: &str| reader.object(share, key).ok().flatten();
            operate(shares, &called, &parameters, &id, &beside)
        };
        let done = match operation {
            "copyObject" | "listObjectsV2" | "listObjects" | "deleteObjects" => self.io.run_long(&touched, work).await,
            _ => self.io.run(&touched, work).await,
        };
        let Done { answer, beside } = done.map_err(|e| TaskError::new("S3.S3Exception", chain(&e)))??;
        if beside.is_empty() {
            return Ok(CallOutcome::done(answer));
        }
        let mut commit = Commit::new();
        for (uri, row) in beside {
            match row {
                Some(row) => commit.put_object(&uri.share, &uri.key, &row),
                None => commit.delete_object(&uri.share, &uri.key),
            };
        }
        let handle = handle.clone();
        Ok(CallOutcome::settle(move |attempt| attempt.commits(&handle, commit, Ended::Done(answer))))
    }
}

/// What an operation did: its answer, and what is to be kept beside objects.
struct Done {
    answer: Value,
    beside: Vec<(Uri, Option<ObjectRow>)>,
}

impl From<Value> for Done {
    fn from(answer: Value) -> Done {
        Done { answer, beside: Vec::new() }
    }
}

/// What is kept beside an object.
type Beside<'a> = &'a dyn Fn(&str, &str) -> Option<ObjectRow>;

/// An object's content.
pub(super) fn open(shares: &Shares, bucket: &str, key: &str) -> Result<File, TaskError> {
    Object::at(shares, bucket, key, "", &nothing_beside).and_then(|object| object.open()).map(|(file, _)| file)
}

/// Writes an object, whole or not at all, and says how many bytes it has.
pub(super) fn write_whole(shares: &Shares, bucket: &str, key: &str, fill: Fill) -> Result<u64, TaskError> {
    let object = Object::at(shares, bucket, key, "", &nothing_beside)?;
    let meta = object.write(Replaces::Anything, |file| {
        let mut to = io::BufWriter::with_capacity(1 << 16, file);
        fill(&mut to)?;
        to.flush()
    })?;
    Ok(meta.size)
}

/// All objects of a bucket below a prefix, by key, as a distributed Map's items show them.
pub(super) fn list_all(shares: &Shares, bucket: &str, prefix: &str) -> Result<Vec<Value>, TaskError> {
    let folder = Object::at(shares, bucket, ".", "", &nothing_beside)?;
    let mut found = Vec::new();
    list::walk(&folder, |key, meta| {
        if key.starts_with(prefix) {
            found.push((key, meta));
        }
    })?;
    found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let shown = |(key, meta): (String, Meta)| {
        json!({
            "Etag": etag(&meta), "Key": key, "LastModified": meta.modified_ms().div_euclid(1_000), "Size": meta.size,
            "StorageClass": "STANDARD",
        })
    };
    Ok(found.into_iter().map(shown).collect())
}

fn nothing_beside(_: &str, _: &str) -> Option<ObjectRow> {
    None
}

/// Whether a bucket is one of the box's shares.
pub(crate) fn is_share(shares: &Shares, bucket: &str) -> bool {
    shares.has(share_of(bucket))
}

/// The share that a bucket's name or ARN means.
pub(super) fn share_of(bucket: &str) -> &str {
    bucket.strip_prefix("arn:aws:s3:::").unwrap_or(bucket)
}

/// The shares that a call waits for.
fn touched(operation: &str, p: &Value, shares: &Shares) -> Vec<String> {
    if operation == "listBuckets" {
        return shares.names().map(str::to_owned).collect();
    }
    let bucket = p.get("Bucket").and_then(Value::as_str).map(|bucket| share_of(bucket).to_owned());
    let source = p.get("CopySource").and_then(Value::as_str).and_then(source_of).map(|(share, _)| share);
    bucket.into_iter().chain(source).collect()
}

/// Bucket and key of a `CopySource`.
fn source_of(written: &str) -> Option<(String, String)> {
    let decoded = unescaped(written);
    let plain = decoded.trim_start_matches('/').split("?versionId=").next()?;
    let (bucket, key) = plain.split_once('/').filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())?;
    Some((share_of(bucket).to_owned(), key.to_owned()))
}

fn operate(shares: &Shares, operation: &str, p: &Value, id: &str, beside: Beside) -> Result<Done, TaskError> {
    if operation == "listBuckets" {
        return Ok(list::buckets(shares).into());
    }
    let bucket = require_text(p, "Bucket", "the S3 call")?;
    let of = |key: &str| Object::at(shares, bucket, key, id, beside);
    let key = || require_text(p, "Key", "the S3 call");
    Ok(match operation {
        "copyObject" => copy(shares, p, &of(key()?)?, id, beside)?,
        "getObject" => of(key()?)?.get(p)?.into(),
        "putObject" => of(key()?)?.put(p)?,
        "headObject" => of(key()?)?.head(p)?.into(),
        "deleteObject" => of(key()?)?.delete()?,
        "deleteObjects" => delete_all(p, &of)?,
        "headBucket" => of(".").and_then(|bucket| bucket.check()).map(|_| json!({}))?.into(),
        "listObjectsV2" | "listObjects" => list::objects(p, &of(".")?, operation == "listObjectsV2")?.into(),
        _ => {
            return Err(TaskError::new(
                "States.Runtime",
                format!(
                    "s3:{operation} is not provided by this box; it has copyObject, getObject, putObject, headObject, \
                     listObjectsV2, listObjects, deleteObject, deleteObjects, headBucket and listBuckets"
                ),
            ));
        }
    })
}

/// What a put may take the place of.
#[derive(Clone, Copy)]
enum Replaces<'a> {
    Anything,
    Nothing,
    /// The object of that entity tag.
    This(&'a str),
}

impl Replaces<'_> {
    /// `IfNoneMatch: *` and `IfMatch` of a put.
    fn of(p: &Value) -> Replaces<'_> {
        match (p.get("IfNoneMatch"), p.get("IfMatch").and_then(Value::as_str)) {
            (Some(tag), _) if tag == "*" => Replaces::Nothing,
            (_, Some(tag)) => Replaces::This(tag),
            _ => Replaces::Anything,
        }
    }
}

/// One object: a file that may or may not exist.
struct Object<'a> {
    uri: Uri,
    place: Place,
    id: &'a str,
    beside: Beside<'a>,
}

impl<'a> Object<'a> {
    fn at(shares: &Shares, bucket: &str, key: &str, id: &'a str, beside: Beside<'a>) -> Result<Object<'a>, TaskError> {
        let uri = Uri::new(share_of(bucket), key);
        let place = shares.place(&uri).map_err(|e| share_error(&e, id))?;
        Ok(Object { uri, place, id, beside })
    }

    fn open(&self) -> Result<(File, Meta), TaskError> {
        let file = self.place.read().map_err(|e| self.share(&e))?;
        let meta = Meta::of(&file).map_err(|e| self.io(&e))?;
        if meta.is_file() { Ok((file, meta)) } else { Err(self.no_such_key()) }
    }

    /// What there is; refuses what leads out of the share.
    fn check(&self) -> Result<Option<Meta>, TaskError> {
        self.place.check().map_err(|e| self.share(&e))
    }

    fn head(&self, p: &Value) -> Result<Value, TaskError> {
        let (_, meta) = self.open()?;
        conditions::check(p, &etag(&meta), modified_at(&meta), "").map_err(|refusal| self.refused(&refusal))?;
        Ok(self.described(&meta))
    }

    fn get(&self, p: &Value) -> Result<Value, TaskError> {
        let (mut file, meta) = self.open()?;
        conditions::check(p, &etag(&meta), modified_at(&meta), "").map_err(|refusal| self.refused(&refusal))?;
        let range = match p.get("Range").and_then(Value::as_str) {
            Some(range) => conditions::range(range, meta.size).map_err(|refusal| self.refused(&refusal))?,
            None => None,
        };
        let (first, length) = range.unwrap_or((0, meta.size));
        if length > BODY_BYTES_MAX {
            return Err(TaskError::new(
                "States.DataLimitExceeded",
                format!(
                    "{} has {length} bytes; a state's result has at most {BODY_BYTES_MAX}. Hand its name on instead",
                    self.uri
                ),
            ));
        }
        let mut body = Vec::new();
        file.seek(io::SeekFrom::Start(first)).map_err(|e| self.io(&e))?;
        io::Read::read_to_end(&mut io::Read::take(file, length), &mut body).map_err(|e| self.io(&e))?;
        let mut answer = self.described(&meta);
        answer["ContentLength"] = json!(body.len());
        if range.is_some() {
            answer["ContentRange"] = json!(format!("bytes {first}-{}/{}", first + length - 1, meta.size));
        }
        answer["Body"] = Value::String(String::from_utf8_lossy(&body).into_owned());
        Ok(answer)
    }

    fn put(&self, p: &Value) -> Result<Done, TaskError> {
        let text = match p.get("Body") {
            Some(Value::String(text)) => text.clone(),
            // The SDK integration writes JSON that is no string as its text.
            Some(value) => value.to_string(),
            None => String::new(),
        };
        let replaces = Replaces::of(p);
        let meta = self.write(replaces, |file| file.write_all(text.as_bytes()))?;
        Ok(Done { answer: json!({ "ETag": etag(&meta) }), beside: vec![self.kept(p, &meta)] })
    }

    /// Whether the object is as a put wants it that is to replace it.
    fn permits(&self, replaces: Replaces<'_>) -> Result<(), TaskError> {
        let is = match (replaces, self.check()?) {
            (Replaces::Anything, _) => true,
            (Replaces::Nothing, there) => there.is_none(),
            (Replaces::This(tag), Some(meta)) => tag == etag(&meta),
            (Replaces::This(_), None) => return Err(self.no_such_key()),
        };
        if is { Ok(()) } else { Err(self.refused(&conditions::ConditionError::failed())) }
    }

    /// What of the request is kept beside the object.
    fn kept(&self, p: &Value, meta: &Meta) -> (Uri, Option<ObjectRow>) {
        let given = KEPT.iter().filter_map(|name| Some((*name, p.get(*name)?))).filter(|(_, value)| !value.is_null());
        let field = |(name, value): (&str, &Value)| ObjectField { name: name.to_owned(), json: value.to_string() };
        let fields: Vec<ObjectField> = given.map(field).collect();
        let row = (!fields.is_empty()).then(|| ObjectRow { etag: etag(meta), fields });
        (self.uri.clone(), row)
    }

    fn described(&self, meta: &Meta) -> Value {
        let mut described = json!({
            "AcceptRanges": "bytes",
            "ContentLength": meta.size,
            "ContentType": content_type(self.uri.file_name()),
            "ETag": etag(meta),
            "LastModified": modified(meta),
            "Metadata": {},
        });
        let beside = (self.beside)(&self.uri.share, &self.uri.key);
        // Of a file that was written since by somebody else nothing is known.
        if let Some(row) = beside.filter(|row| described["ETag"] == *row.etag) {
            described.as_object_mut().into_iter().for_each(|map| map.extend(fields_of(&row)));
        }
        described
    }

    /// Writes the object whole, or leaves what is there; what it is then comes back.
    fn write(&self, replaces: Replaces<'_>, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<Meta, TaskError> {
        // What is refused is not written first.
        self.permits(replaces)?;
        let target = self.place.make_entry().map_err(|e| self.share(&e))?;
        let name = blake3::hash(format!("{}{}", self.id, self.uri.key).as_bytes()).to_hex();
        let part = target.beside(format!(".{}.part", &name[..24]));
        let written = part.create().and_then(|mut file| {
            fill(&mut file)?;
            file.sync_all()
        });
        let written = written.map_err(|e| self.io(&e)).and_then(|()| self.name(&part, &target, replaces));
        written.inspect_err(|_| {
            // A full disk stays full while the half file lies on it.
            let _ = part.remove_file();
        })
    }

    /// Gives a whole part the object's name, if the object is as it is to be.
    fn name(&self, part: &Entry, target: &Entry, replaces: Replaces<'_>) -> Result<Meta, TaskError> {
        let _alone = CHANGING.hold(target).map_err(|e| self.io(&e))?;
        self.permits(replaces)?;
        let named = match replaces {
            // Those who are no part of the box may put a file there too.
            Replaces::Nothing => part.rename_new(target),
            Replaces::Anything | Replaces::This(_) => part.rename(target),
        };
        named.map_err(|e| match (replaces, e.kind()) {
            (Replaces::Nothing, io::ErrorKind::AlreadyExists) => self.refused(&conditions::ConditionError::failed()),
            _ => self.io(&e),
        })?;
        target.meta().map_err(|e| self.io(&e))
    }

    fn delete(&self) -> Result<Done, TaskError> {
        let gone = match self.check()? {
            Some(_) => self.remove(),
            None => Ok(()),
        };
        match gone {
            Err(e) if !e.is_missing() => Err(self.share(&e)),
            // As in S3, deleting what is not there succeeds.
            _ => Ok(Done {
                answer: json!({}),
                beside: match (self.beside)(&self.uri.share, &self.uri.key) {
                    Some(_) => vec![(self.uri.clone(), None)],
                    None => Vec::new(),
                },
            }),
        }
    }

    fn remove(&self) -> Result<(), ShareError> {
        let failed = |source| ShareError::Io { uri: self.uri.clone(), source };
        let entry = self.place.entry()?;
        let _alone = CHANGING.hold(&entry).map_err(failed)?;
        entry.remove_file().map_err(failed)
    }

    fn refused(&self, refusal: &conditions::ConditionError) -> TaskError {
        TaskError::new(
            "S3.S3Exception",
            aws::sdk_cause(&format!("{}: {}", refusal.message, self.uri), "S3", refusal.status, self.id),
        )
    }

    fn no_such_key(&self) -> TaskError {
        TaskError::new(
            "S3.NoSuchKeyException",
            aws::sdk_cause(&format!("The specified key does not exist: {}.", self.uri), "S3", 404, self.id),
        )
    }

    fn share(&self, e: &ShareError) -> TaskError {
        match e {
            ShareError::Io { source, .. } => self.io(source),
            other => share_error(other, self.id),
        }
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

fn copy(shares: &Shares, p: &Value, target: &Object, id: &str, beside: Beside) -> Result<Done, TaskError> {
    let written = require_text(p, "CopySource", "s3:copyObject")?;
    let (bucket, key) = source_of(written).ok_or_else(|| {
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
    let source = Object::at(shares, &bucket, &key, id, beside)?;
    let (mut from, meta) = source.open()?;
    let checked = conditions::check(p, &etag(&meta), modified_at(&meta), "CopySource");
    checked.map_err(|_| source.refused(&conditions::ConditionError::failed()))?;
    let copied = target.write(Replaces::Anything, |to| io::copy(&mut from, to).map(drop))?;
    let kept = match p.get("MetadataDirective").and_then(Value::as_str) {
        Some("REPLACE") => target.kept(p, &copied),
        _ => {
            let source = beside(&source.uri.share, &source.uri.key).filter(|row| row.etag == etag(&meta));
            target.kept(&Value::Object(source.as_ref().map(fields_of).unwrap_or_default()), &copied)
        }
    };
    let answer = json!({ "CopyObjectResult": { "ETag": etag(&copied), "LastModified": modified(&copied) } });
    Ok(Done { answer, beside: vec![kept] })
}

/// Each object by itself: what could not be deleted is listed, and the call succeeds.
fn delete_all<'a>(p: &Value, of: &dyn Fn(&str) -> Result<Object<'a>, TaskError>) -> Result<Done, TaskError> {
    let objects = p["Delete"]["Objects"].as_array().filter(|list| (1..=DELETES_MAX).contains(&list.len()));
    let objects = objects.ok_or_else(|| {
        let what = format!("s3:deleteObjects needs 1 to {DELETES_MAX} of Delete.Objects");
        TaskError::new("S3.S3Exception", what)
    })?;
    let (mut deleted, mut errors, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for object in objects {
        let key = require_text(object, "Key", "s3:deleteObjects")?;
        match of(key).and_then(|object| object.delete()) {
            Ok(done) => {
                beside.extend(done.beside);
                deleted.push(json!({ "Key": key }));
            }
            Err(error) => errors.push(json!({ "Key": key, "Code": "InternalError", "Message": error.cause })),
        }
    }
    let mut answer = json!({});
    if !errors.is_empty() {
        answer["Errors"] = errors.into();
    }
    if !deleted.is_empty() && p["Delete"]["Quiet"] != true {
        answer["Deleted"] = deleted.into();
    }
    Ok(Done { answer, beside })
}

/// What was put with an object, as its describing calls show it.
fn fields_of(row: &ObjectRow) -> Map<String, Value> {
    let field = |field: &ObjectField| (field.name.clone(), serde_json::from_str(&field.json).unwrap_or_default());
    row.fields.iter().map(field).collect()
}

fn content_type(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().essence_str().to_owned()
}

fn modified(meta: &Meta) -> String {
    modified_at(meta).to_string()
}

fn modified_at(meta: &Meta) -> Timestamp {
    Timestamp(meta.modified_ms())
}

/// Changes whenever the file does; it is no MD5, since that would read the file.
fn etag(meta: &Meta) -> String {
    format!("\"{:x}-{:x}-{:x}\"", meta.inode, meta.size, meta.modified_ns as i64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use conveyor_testing::exchange::Exchange;

    use super::*;

    #[test]
    fn objects_are_files_on_shares() {
        let dir = tempfile::tempdir().unwrap();
        let shares =
            Shares::new([("source".to_owned(), dir.path().join("a")), ("archive".to_owned(), dir.path().join("b"))]);
        fs::create_dir_all(dir.path().join("a/day 1")).unwrap();
        fs::create_dir_all(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("a/day 1/x+y.mp4"), b"pictures").unwrap();
        let rows = std::cell::RefCell::new(std::collections::BTreeMap::<Uri, ObjectRow>::new());
        let run = |operation: &str, p: Value| -> Result<Value, TaskError> {
            let beside = |share: &str, key: &str| rows.borrow().get(&Uri::new(share, key)).cloned();
            let done = operate(&shares, operation, &p, "id", &beside)?;
            for (object, row) in done.beside {
                let _ = match row {
                    Some(row) => rows.borrow_mut().insert(object, row),
                    None => rows.borrow_mut().remove(&object),
                };
            }
            Ok(done.answer)
        };
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

        let at = |key: &str| json!({"Bucket": "archive", "Key": key});
        let with = |key: &str, more: Value| {
            let mut p = at(key);
            p.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            p
        };
        let put =
            with("n/a.txt", json!({"Body": "0123456789", "ContentType": "text/x-log", "Metadata": {"who": "me"}}));
        let tag = run("putObject", put.clone()).unwrap()["ETag"].clone();
        let got = run("getObject", with("n/a.txt", json!({"Range": "bytes=2-4"}))).unwrap();
        assert_eq!((&got["Body"], &got["ContentRange"]), (&json!("234"), &json!("bytes 2-4/10")));
        assert_eq!((&got["ContentType"], &got["Metadata"]["who"]), (&json!("text/x-log"), &json!("me")));
        let beyond = run("getObject", with("n/a.txt", json!({"Range": "bytes=10-"}))).unwrap_err();
        assert!(beyond.cause.contains("Status Code: 416"), "{beyond}");
        assert!(run("getObject", with("n/a.txt", json!({"IfMatch": tag}))).is_ok());
        let same = run("getObject", with("n/a.txt", json!({"IfNoneMatch": tag}))).unwrap_err();
        assert!(same.cause.contains("Status Code: 304"), "{same}");
        let there = run("putObject", with("n/a.txt", json!({"IfNoneMatch": "*", "Body": "x"}))).unwrap_err();
        assert!(there.cause.contains("Status Code: 412"), "{there}");
        let copied = json!({"Bucket": "archive", "Key": "n/b.txt", "CopySource": "archive/n/a.txt"});
        run("copyObject", copied).unwrap();
        assert_eq!(run("headObject", at("n/b.txt")).unwrap()["Metadata"]["who"], "me");
        fs::write(dir.path().join("b/n/b.txt"), b"other").unwrap();
        assert_eq!(run("headObject", at("n/b.txt")).unwrap()["Metadata"], json!({}), "it is another file now");

        let page = run("listObjectsV2", json!({"Bucket": "archive", "Prefix": "", "MaxKeys": 2})).unwrap();
        assert_eq!((&page["IsTruncated"], &page["Contents"][1]["Key"]), (&json!(true), &json!("n/a.txt")));
        let next = json!({"Bucket": "archive", "ContinuationToken": page["NextContinuationToken"]});
        assert_eq!(run("listObjectsV2", next).unwrap()["Contents"][0]["Key"], "n/b.txt");
        let folders = run("listObjectsV2", json!({"Bucket": "archive", "Delimiter": "/"})).unwrap();
        assert_eq!(folders["CommonPrefixes"], json!([{"Prefix": "done/"}, {"Prefix": "n/"}]));
        let gone = json!({"Bucket": "archive", "Delete": {"Objects": [{"Key": "n/a.txt"}, {"Key": "none"}]}});
        assert_eq!(run("deleteObjects", gone).unwrap(), json!({"Deleted": [{"Key": "n/a.txt"}, {"Key": "none"}]}));
        assert!(run("headBucket", json!({"Bucket": "nowhere"})).is_err());
        assert_eq!(run("listBuckets", json!({})).unwrap()["Buckets"][0]["Name"], "archive");
    }

    /// Executions that take a key as a lock, or count in an object, rely on it.
    #[test]
    fn of_puts_at_once_that_want_the_same_object_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let shares = Shares::new([("archive".to_owned(), dir.path().to_owned())]);
        let start = std::sync::Barrier::new(8);
        let put_all = |condition: Value| -> Vec<(String, Result<Done, TaskError>)> {
            let put = |n: usize, condition: Value| {
                let (id, mut p) = (n.to_string(), json!({"Bucket": "archive", "Key": "lock", "Body": n.to_string()}));
                p.as_object_mut().unwrap().extend(condition.as_object().unwrap().clone());
                start.wait();
                (id.clone(), operate(&shares, "putObject", &p, &id, &nothing_beside))
            };
            std::thread::scope(|scope| {
                let spawn = |n| {
                    let (put, condition) = (&put, condition.clone());
                    scope.spawn(move || put(n, condition))
                };
                let threads: Vec<_> = (0..8).map(spawn).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        };
        let mut tag = Value::Null;
        for round in 0..5 {
            let condition = if round == 0 { json!({"IfNoneMatch": "*"}) } else { json!({"IfMatch": tag}) };
            let (put, refused): (Vec<_>, Vec<_>) = put_all(condition).into_iter().partition(|(_, done)| done.is_ok());
            assert_eq!(put.len(), 1, "round {round}");
            assert_eq!(fs::read_to_string(dir.path().join("lock")).unwrap(), put[0].0);
            tag = put[0].1.as_ref().map(|done| done.answer["ETag"].clone()).unwrap();
            for error in refused.into_iter().filter_map(|(_, done)| done.err()) {
                assert!(error.cause.contains("Status Code: 412"), "{error}");
            }
        }
        let gone = json!({"Bucket": "archive", "Key": "none", "Body": "", "IfMatch": tag});
        let missing = operate(&shares, "putObject", &gone, "id", &nothing_beside).err().unwrap();
        assert_eq!(missing.error, "S3.NoSuchKeyException");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no part is left");
    }

    /// Whoever may write to the share exchanges an object, or its folder, with a link that leads out.
    #[test]
    fn no_call_leaves_the_share_while_links_are_exchanged() {
        const ROUNDS: usize = 400;
        // A put waits for the disk.
        const PUTS: usize = 60;
        for exchanges_folder in [false, true] {
            let (share, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let shares = Shares::new([("archive".to_owned(), share.path().to_owned())]);
            let (folder, secret) = (share.path().join("folder"), outside.path().join("object"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("object"), "inside").unwrap();
            fs::write(&secret, "the secret").unwrap();
            let _exchanging = match exchanges_folder {
                true => Exchange::with_link(&folder, outside.path()),
                false => Exchange::with_link(folder.join("object"), &secret),
            };
            let call = |operation: &str, more: Value| {
                let mut p = json!({"Bucket": "archive", "Key": "folder/object"});
                p.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                operate(&shares, operation, &p, "id", &nothing_beside).map(|done| done.answer)
            };
            let mut read = 0;
            for round in 0..ROUNDS {
                if let Ok(object) = call("getObject", json!({})) {
                    assert_eq!(object["Body"], "inside");
                    read += 1;
                }
                let listed = call("listObjectsV2", json!({})).unwrap();
                let sizes =
                    listed["Contents"].as_array().unwrap().iter().map(|object| (&object["Key"], &object["Size"]));
                assert!(sizes.clone().all(|(_, size)| *size == 6), "{:?}", sizes.collect::<Vec<_>>());
                if round >= PUTS {
                    continue;
                }
                let copied = json!({"Key": "copy", "CopySource": "archive/folder/object"});
                if call("copyObject", copied).is_ok() {
                    assert_eq!(fs::read_to_string(share.path().join("copy")).unwrap(), "inside");
                }
                let _ = call("putObject", json!({"Key": "folder/planted", "Body": "plants"}));
                let _ = call("putObject", json!({"Key": "folder/deep/planted", "Body": "plants"}));
            }
            assert!(read > 0, "it is read in between");
            for _ in 0..PUTS {
                let _ = call("putObject", json!({"Body": "inside"}));
                let _ = call("deleteObject", json!({}));
            }
            let names = fs::read_dir(outside.path()).unwrap().flatten().map(|entry| entry.file_name());
            assert_eq!(names.collect::<Vec<_>>(), ["object"], "nothing came and nothing went");
            assert_eq!(fs::read_to_string(&secret).unwrap(), "the secret");
        }
    }
}
