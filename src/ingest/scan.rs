//! Looking at a share: a walk over its folders, and a look at one file. Blocking; never follows a symbolic link.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use conveyor_base::digest;

use super::name;
use super::settle::FileState;

/// Deepest folder below a share's root that is looked into.
const DEPTH_MAX: usize = 64;
/// Files whose name is no text that one scan reports; the next one reports the rest.
const FOREIGN_MAX: usize = 100;

/// What a scan met besides files.
#[derive(Debug, Default)]
pub struct Scan {
    /// Hashes of the keys of all files that count.
    pub seen: HashSet<u64>,
    /// Folders and files that could not be looked at, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Files whose name is no UTF-8.
    pub foreign: Vec<PathBuf>,
}

impl Scan {
    /// Whether a file that was not seen is really gone.
    pub fn is_complete(&self) -> bool {
        self.unreadable.is_empty()
    }
}

/// Walks over the share and tells `see` of each file that counts. Fails only where the root itself does.
pub fn scan(root: &Path, suffixes: &[String], mut see: impl FnMut(&str, FileState)) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut folders = vec![(root.to_path_buf(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if depth == 0 => return Err(e),
            // It was removed or renamed while the walk was on its way.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                scan.unreadable.push((folder, e.to_string()));
                continue;
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) if depth == 0 => return Err(e),
                Err(e) => {
                    scan.unreadable.push((folder.clone(), e.to_string()));
                    break;
                }
            };
            let Ok(kind) = entry.file_type() else { continue };
            let os_name = entry.file_name();
            let Some(file_name) = os_name.to_str() else {
                if kind.is_file() && scan.foreign.len() < FOREIGN_MAX {
                    scan.foreign.push(entry.path());
                }
                continue;
            };
            if kind.is_dir() && depth < DEPTH_MAX && name::folder_counts(file_name) {
                folders.push((entry.path(), format!("{prefix}{file_name}/"), depth + 1));
            } else if kind.is_file() && name::counts(file_name, suffixes) {
                match entry.metadata() {
                    Ok(meta) => {
                        let key = format!("{prefix}{file_name}");
                        scan.seen.insert(digest(key.as_bytes()));
                        see(&key, file_state(&meta));
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => scan.unreadable.push((entry.path(), e.to_string())),
                }
            }
        }
    }
    Ok(scan)
}

/// What a path on the share is now.
#[derive(Debug, PartialEq, Eq)]
pub enum PathState {
    File {
        key: String,
        file_state: FileState,
    },
    Folder,
    Gone {
        key: String,
    },
    /// Nothing that counts.
    Other,
}

/// Looks at one path below the root.
pub fn inspect(root: &Path, path: &Path, suffixes: &[String]) -> PathState {
    let Ok(relative) = path.strip_prefix(root) else { return PathState::Other };
    let Some(key) = relative.to_str().filter(|k| !k.is_empty()) else { return PathState::Other };
    let mut parts: Vec<&str> = key.split('/').collect();
    let Some(file_name) = parts.pop() else { return PathState::Other };
    if parts.iter().any(|folder| !name::folder_counts(folder)) {
        return PathState::Other;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => PathState::Folder,
        Ok(meta) if meta.is_file() && name::counts(file_name, suffixes) => {
            PathState::File { key: key.to_owned(), file_state: file_state(&meta) }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => PathState::Gone { key: key.to_owned() },
        _ => PathState::Other,
    }
}

fn file_state(meta: &Metadata) -> FileState {
    let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    FileState { size: meta.len(), mtime_ns, inode: meta.ino() }
}
