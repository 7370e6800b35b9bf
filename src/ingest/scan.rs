//! Looking at a share: a walk over its folders, and a look at one file. Blocking; never follows a symbolic link,
//! also where one is exchanged for a folder meanwhile.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use conveyor_base::beneath::{Folder, Kind, Links, Meta, leads_out};
use conveyor_base::digest;

use super::name;
use super::settle::FileState;
use super::whole::Look;

/// Deepest folder below a share's root that is looked into.
const DEPTH_MAX: usize = 64;
/// Files whose name is no text, or which are none, that one scan reports; the next one reports the rest.
const FOREIGN_MAX: usize = 100;
/// Folders and files that cannot be looked at, of which one scan says where they are; of the rest it says how many.
const UNREADABLE_MAX: usize = 100;

/// What a scan met besides files.
#[derive(Debug, Default)]
pub struct Scan {
    /// Hashes of the keys of all files that count.
    pub seen: HashSet<u64>,
    /// Folders and files that could not be looked at, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    /// How many more there are.
    pub unreadable_more: usize,
    /// Files whose name is no UTF-8.
    pub foreign: Vec<PathBuf>,
    /// Links, pipes and devices with a name that counts: they are no files of this share.
    pub odd: Vec<PathBuf>,
}

impl Scan {
    /// Whether a file that was not seen is really gone.
    pub fn is_complete(&self) -> bool {
        self.unreadable.is_empty()
    }

    fn cannot_read(&mut self, path: impl FnOnce() -> PathBuf, why: &io::Error) {
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push((path(), why.to_string()));
        } else {
            self.unreadable_more += 1;
        }
    }
}

/// Walks over the share and tells `see` of each file that counts. Fails only where the root itself does.
pub fn scan(root: &Path, suffixes: &[String], mut see: impl FnMut(&str, FileState)) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let top = Folder::top(root)?;
    let mut folders = vec![(PathBuf::new(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let mut listing = match top.list(&folder, Links::Refused) {
            Ok(listing) => listing,
            Err(e) if depth == 0 => return Err(e),
            // It was removed, renamed or exchanged while the walk was on its way.
            Err(e) if is_gone(&e) => continue,
            Err(e) => {
                scan.cannot_read(|| root.join(folder), &e);
                continue;
            }
        };
        while let Some(listed) = listing.next() {
            let listed = match listed {
                Ok(listed) => listed,
                Err(e) if depth == 0 => return Err(e),
                Err(e) => {
                    scan.cannot_read(|| root.join(&folder), &e);
                    break;
                }
            };
            let is_file = listed.kind == Kind::File;
            let Some(file_name) = listed.name.to_str() else {
                if is_file && scan.foreign.len() < FOREIGN_MAX {
                    scan.foreign.push(root.join(&folder).join(&listed.name));
                }
                continue;
            };
            let is_odd = matches!(listed.kind, Kind::Link | Kind::Other);
            if is_odd && name::counts(file_name, suffixes) && scan.odd.len() < FOREIGN_MAX {
                scan.odd.push(root.join(&folder).join(file_name));
            }
            if listed.kind == Kind::Folder && depth < DEPTH_MAX && name::folder_counts(file_name) {
                folders.push((folder.join(file_name), format!("{prefix}{file_name}/"), depth + 1));
            } else if is_file && name::counts(file_name, suffixes) {
                match listing.meta(&listed) {
                    Ok(meta) if meta.is_file() => {
                        let key = format!("{prefix}{file_name}");
                        scan.seen.insert(digest(key.as_bytes()));
                        see(&key, file_state(&meta));
                    }
                    // It was exchanged for something else.
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => scan.cannot_read(|| root.join(&folder).join(file_name), &e),
                }
            }
        }
    }
    Ok(scan)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) || leads_out(error)
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
    /// It could not be looked at, as where the rights to a folder are missing: what is known of the file stays so.
    Unreadable {
        why: String,
    },
    /// Nothing that counts.
    Other,
}

/// Looks at a file and at what it holds. None of the latter where that cannot be read: who works on the file says why.
pub fn inspect_content(root: &Path, path: &Path, suffixes: &[String]) -> (PathState, Option<Look>) {
    let state = inspect(root, path, suffixes);
    let PathState::File { file_state: seen, .. } = &state else { return (state, None) };
    let look = || {
        let file = Folder::top(root)?.read(path.strip_prefix(root).map_err(io::Error::other)?, Links::Refused)?;
        let meta = Meta::of(&file)?;
        if !meta.is_file() || file_state(&meta).version() != seen.version() {
            return Err(io::Error::other("it was exchanged for another"));
        }
        Look::at(&file)
    };
    let look = look().ok();
    (state, look)
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
    match Folder::top(root).and_then(|top| top.look(relative, Links::Refused)) {
        Ok(meta) if meta.is_folder() => PathState::Folder,
        Ok(meta) if meta.is_file() && name::counts(file_name, suffixes) => {
            PathState::File { key: key.to_owned(), file_state: file_state(&meta) }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => PathState::Gone { key: key.to_owned() },
        Err(e) if !is_gone(&e) => PathState::Unreadable { why: format!("{}: {e}", path.display()) },
        _ => PathState::Other,
    }
}

pub fn file_state(meta: &Meta) -> FileState {
    FileState {
        size: meta.size,
        mtime_ns: meta.modified_ns,
        inode: meta.inode,
        changed_ns: meta.changed_ns,
        blocks: meta.blocks,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::sync::Arc;

    use conveyor_base::Timestamp;
    use conveyor_testing::exchange::Exchange;

    use super::*;
    use crate::land::{foreign, quarantine_foreign};

    /// Whoever may write to the share exchanges a watched folder, or a file in it, with a link that leads out.
    #[test]
    fn nothing_outside_is_found_or_moved_while_links_are_exchanged() {
        const ROUNDS: usize = 2_000;
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (root, kept) = (dir.path().join("in"), outside.path().join("out.mp4"));
        fs::create_dir_all(root.join("day")).unwrap();
        fs::create_dir(dir.path().join("quarantine")).unwrap();
        let odd = OsStr::from_bytes(b"caf\xe9.mp4");
        for path in [root.join("day/in.mp4"), root.join("day").join(odd), root.join("file.mp4")] {
            fs::write(path, "in").unwrap();
        }
        for path in [&kept, &outside.path().join(odd)] {
            fs::write(path, "outside").unwrap();
        }
        let quarantine = Arc::new(Folder::top(&dir.path().join("quarantine")).unwrap());
        let _exchanging =
            [Exchange::with_link(root.join("day"), outside.path()), Exchange::with_link(root.join("file.mp4"), &kept)];
        let (mut found, mut moved) = (0, 0);
        for _ in 0..ROUNDS {
            let see = |key: &str, state: FileState| {
                assert_eq!(state.size, 2, "{key}");
                found += 1;
            };
            let _ = scan(&root, &[], see).unwrap();
            for path in ["day/out.mp4", "day/in.mp4", "file.mp4"] {
                let state = inspect(&root, &root.join(path), &[]);
                assert!(!matches!(state, PathState::File { file_state, .. } if file_state.size != 2), "{path}");
            }
            let file = foreign(&root, &root.join("day").join(odd));
            if file.and_then(|file| quarantine_foreign(&file, &quarantine, Timestamp(0))).is_ok() {
                moved += 1;
            }
        }
        assert!(found > 0 && moved == 1, "{found} found, {moved} moved");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    }
}
