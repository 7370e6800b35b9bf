//! Lists of keys and of buckets.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conveyor_base::beneath::Meta;
use conveyor_base::{Shares, TaskError};
use serde_json::{Value, json};

use super::{Object, etag, modified};

/// Most keys of one listing (S3: 1,000).
const KEYS_MAX: u64 = 1_000;

/// The shares.
pub fn buckets(shares: &Shares) -> Value {
    let created = |name: &str| shares.top(name).ok().and_then(|top| Meta::of(&*top).ok()).map(|meta| modified(&meta));
    let buckets = shares.names().map(|name| json!({ "Name": name, "CreationDate": created(name) }));
    json!({ "Buckets": buckets.collect::<Vec<_>>() })
}

/// Keys below a prefix, in order, at most `MaxKeys` after `StartAfter` or the continuation token; those that go on
/// beyond the delimiter as what they have in common. `new`: in the form of listObjectsV2.
pub fn objects(p: &Value, folder: &Object, new: bool) -> Result<Value, TaskError> {
    let text = |name: &str| p.get(name).and_then(Value::as_str);
    let (prefix, delimiter) = (text("Prefix").unwrap_or_default(), text("Delimiter").filter(|d| !d.is_empty()));
    let token = text("ContinuationToken").map(|token| {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| token.to_owned())
    });
    let after = token.or(text("StartAfter").or(text("Marker")).map(str::to_owned)).unwrap_or_default();
    let wanted = p.get("MaxKeys").and_then(Value::as_u64).unwrap_or(KEYS_MAX).min(KEYS_MAX) as usize;
    // A key with its file, or what several keys have in common.
    let mut found: BTreeMap<String, Option<Meta>> = BTreeMap::new();
    walk(folder, |key, meta| {
        let Some(rest) = key.strip_prefix(prefix) else { return };
        let common = delimiter.and_then(|d| rest.find(d).map(|at| prefix.len() + at + d.len()));
        let (key, meta) = match common {
            Some(end) => (key[..end].to_owned(), None),
            None => (key, Some(meta)),
        };
        if key.as_str() > after.as_str() && !(meta.is_none() && after.starts_with(&key)) {
            found.insert(key, meta);
            // One more than wanted says whether there are more.
            if found.len() > wanted + 1 {
                found.pop_last();
            }
        }
    })?;
    let truncated = found.len() > wanted;
    let last = found.keys().take(wanted).next_back().cloned();
    let (mut contents, mut common) = (Vec::new(), Vec::new());
    for (key, meta) in found.into_iter().take(wanted) {
        match meta {
            Some(meta) => contents.push(json!({
                "Key": key, "Size": meta.size, "LastModified": modified(&meta), "ETag": etag(&meta),
                "StorageClass": "STANDARD",
            })),
            None => common.push(json!({ "Prefix": key })),
        }
    }
    let mut answer = json!({
        "Name": folder.uri.share, "Prefix": prefix, "MaxKeys": wanted, "IsTruncated": truncated,
    });
    if new {
        answer["KeyCount"] = json!(contents.len() + common.len());
    }
    for (name, value) in [("Delimiter", delimiter), ("StartAfter", text("StartAfter")), ("Marker", text("Marker"))] {
        if let Some(value) = value {
            answer[name] = value.into();
        }
    }
    if let Some(last) = last.filter(|_| truncated) {
        match new {
            true => answer["NextContinuationToken"] = URL_SAFE_NO_PAD.encode(last).into(),
            false => answer["NextMarker"] = last.into(),
        }
    }
    answer["Contents"] = contents.into();
    if !common.is_empty() {
        answer["CommonPrefixes"] = common.into();
    }
    Ok(answer)
}

/// Goes over the objects of a bucket. Those in a folder that a link leads to are objects where they lie.
pub(super) fn walk(bucket: &Object, mut see: impl FnMut(String, Meta)) -> Result<(), TaskError> {
    let folder = bucket.place.folder().map_err(|e| bucket.share(&e))?;
    let walked = folder.walk(
        Path::new(""),
        // A name that is no UTF-8 is no key.
        |name| name.to_str().is_some(),
        |path, listing, listed| {
            let Some(key) = path.to_str().filter(|_| listed.name.as_encoded_bytes().first() != Some(&b'.')) else {
                return Ok(());
            };
            match listing.meta(listed) {
                Ok(meta) if meta.is_file() => see(key.to_owned(), meta),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                // It was removed or exchanged meanwhile.
                _ => {}
            }
            Ok(())
        },
    );
    walked.map_err(|e| bucket.io(&e))
}
