//! `manifest.json`: what was published, by which execution, with the hash of every file.
//!
//! Invariant: a manifest is written after the files that it lists are whole and synced, so whoever finds one may
//! rely on them.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder, Links};
use conveyor_base::{Clock, SystemClock, TaskError};
use serde_json::{Map, Value, json};

use super::disk::{self, Meter, Stamp};
use super::fault::About;

/// The name of the file that says what a published folder holds.
pub const NAME: &str = "manifest.json";
/// How much of one is read, in bytes: that of a day of HLS in segments has some ten million.
const BYTES_MAX: u64 = 64 << 20;

/// One published file, named relative to the folder.
pub struct PublishedFile {
    pub path: String,
    pub size: u64,
    pub blake3: String,
}

impl PublishedFile {
    fn as_json(&self) -> Value {
        let kind = mime_guess::from_path(&self.path).first_raw().unwrap_or("application/octet-stream");
        json!({ "path": self.path, "size": self.size, "blake3": self.blake3, "type": kind })
    }
}

/// Hashes and syncs all files of a folder and writes its manifest.
pub fn write(
    folder: &Arc<Folder>,
    execution: &str,
    extra: &Map<String, Value>,
    meter: &mut Meter<'_>,
) -> Result<Vec<PublishedFile>, TaskError> {
    let mut entries = Vec::new();
    for file in listed(folder)? {
        let path = folder.path().join(&file);
        let opened = folder.read(&file, Links::Refused).about_path("read", &path)?;
        let size = Stamp::of_open(&opened).about_path("read", &path)?.size;
        let blake3 = disk::hash(&opened, meter).about_path("read", &path)?;
        opened.sync_all().about_path("sync", &path)?;
        entries.push(PublishedFile { path: file.to_string_lossy().into_owned(), size, blake3 });
    }
    let mut manifest = Map::new();
    manifest.insert("version".into(), json!(1));
    manifest.insert("execution".into(), json!(execution));
    let now = SystemClock.now();
    manifest.insert("published".into(), json!(now.to_string()));
    manifest.insert("publishedMs".into(), json!(now.0));
    manifest.insert("bytes".into(), json!(entries.iter().map(|e| e.size).sum::<u64>()));
    manifest.insert("files".into(), entries.iter().map(PublishedFile::as_json).collect());
    for (key, value) in extra {
        manifest.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let (own, text) = (folder.entry(NAME), format!("{:#}\n", Value::Object(manifest)));
    disk::write(&own, text.as_bytes()).about_path("write", &own.path())?;
    Ok(entries)
}

/// The manifest of a folder, if it has a readable one.
pub fn read(folder: &Entry) -> Option<Value> {
    let file = folder.open_folder().and_then(|folder| folder.read(Path::new(NAME), Links::Refused)).ok()?;
    serde_json::from_str(&io::read_to_string(file.take(BYTES_MAX)).ok()?).ok()
}

/// Which execution published this folder.
pub fn execution_of(folder: &Entry) -> Option<String> {
    Some(read(folder)?["execution"].as_str()?.to_owned())
}

/// The files that a manifest of this folder lists: all but the manifest itself.
pub fn listed(folder: &Folder) -> Result<Vec<PathBuf>, TaskError> {
    let mut files = disk::files_below(folder).about_path("list", folder.path())?;
    files.retain(|f| f != Path::new(NAME));
    Ok(files)
}
