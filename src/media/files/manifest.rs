//! `manifest.json`: what was published, by which execution, with the hash of every file.
//!
//! Invariant: a manifest is written after the files that it lists are whole and synced, so whoever finds one may
//! rely on them.

use std::path::{Path, PathBuf};

use conveyor_base::{Clock, SystemClock, TaskError};
use serde_json::{Map, Value, json};

use super::disk::{self, Meter, Stamp};
use super::fault::About;

/// The name of the file that says what a published folder holds.
pub const NAME: &str = "manifest.json";

/// One published file, named relative to the folder.
pub struct Entry {
    pub path: String,
    pub size: u64,
    pub blake3: String,
}

impl Entry {
    fn as_json(&self) -> Value {
        let kind = mime_guess::from_path(&self.path).first_raw().unwrap_or("application/octet-stream");
        json!({ "path": self.path, "size": self.size, "blake3": self.blake3, "type": kind })
    }
}

/// Hashes and syncs all files of a folder and writes its manifest.
pub fn write(
    folder: &Path,
    execution: &str,
    extra: &Map<String, Value>,
    meter: &mut Meter<'_>,
) -> Result<Vec<Entry>, TaskError> {
    let mut entries = Vec::new();
    for file in listed(folder)? {
        let path = folder.join(&file);
        let size = Stamp::of(&path).about_path("read", &path)?.size;
        let blake3 = disk::hash(&path, meter).about_path("read", &path)?;
        std::fs::File::open(&path).and_then(|f| f.sync_all()).about_path("sync", &path)?;
        entries.push(Entry { path: file.to_string_lossy().into_owned(), size, blake3 });
    }
    let mut manifest = Map::new();
    manifest.insert("version".into(), json!(1));
    manifest.insert("execution".into(), json!(execution));
    let now = SystemClock.now();
    manifest.insert("published".into(), json!(now.to_string()));
    manifest.insert("publishedMs".into(), json!(now.0));
    manifest.insert("bytes".into(), json!(entries.iter().map(|e| e.size).sum::<u64>()));
    manifest.insert("files".into(), entries.iter().map(Entry::as_json).collect());
    for (key, value) in extra {
        manifest.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let (path, text) = (folder.join(NAME), format!("{:#}\n", Value::Object(manifest)));
    disk::write(&path, text.as_bytes()).about_path("write", &path)?;
    Ok(entries)
}

/// The manifest of a folder, if it has a readable one.
pub fn read(folder: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(folder.join(NAME)).ok()?).ok()
}

/// Which execution published this folder.
pub fn execution_of(folder: &Path) -> Option<String> {
    Some(read(folder)?["execution"].as_str()?.to_owned())
}

/// The files that a manifest of this folder lists: all but the manifest itself.
pub fn listed(folder: &Path) -> Result<Vec<PathBuf>, TaskError> {
    let mut files = disk::files_below(folder).about_path("list", folder)?;
    files.retain(|f| f != Path::new(NAME));
    Ok(files)
}
