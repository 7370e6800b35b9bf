//! The few careful operations on disks that the file stages are made of: hash, copy, move, write, each synced.
//!
//! Invariant: what one of these has put under its final name is whole and on the disk; half-done work stands under
//! a hidden temporary name only.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use conveyor_job::{Progress, Reporter};

const CHUNK_BYTES: usize = 1 << 20;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    pub mtime_ns: i128,
    inode: u64,
}

impl Stamp {
    pub fn of(path: &Path) -> io::Result<Stamp> {
        let meta = fs::metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(Stamp { size: meta.len(), mtime_ns, inode: meta.ino() })
    }
}

/// Progress in bytes over all that a stage reads.
pub struct Meter<'a> {
    reporter: &'a dyn Reporter,
    doing: &'static str,
    total: u64,
    done: u64,
    start: Instant,
}

impl<'a> Meter<'a> {
    pub fn new(reporter: &'a dyn Reporter, doing: &'static str, total: u64) -> Meter<'a> {
        Meter { reporter, doing, total, done: 0, start: Instant::now() }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let fraction = if self.total == 0 { 1.0 } else { (self.done as f64 / self.total as f64).min(1.0) };
        self.reporter.progress(Progress { fraction, doing: self.doing.into(), ..Progress::default() });
    }

    /// Megabytes a second so far, for the result.
    pub fn mb_per_second(&self) -> f64 {
        self.done as f64 / 1e6 / self.start.elapsed().as_secs_f64().max(1e-3)
    }
}

/// The BLAKE3 hash of a file's content, streamed.
pub fn hash(path: &Path, meter: &mut Meter<'_>) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&chunk[..n]);
        meter.add(n as u64);
    }
}

/// Copies a file under a temporary name beside its destination and syncs it; returns that name and the hash of what
/// was read. The caller verifies and renames.
pub fn copy_beside(from: &Path, to: &Path, meter: &mut Meter<'_>) -> io::Result<(PathBuf, String)> {
    let part = hidden(to, "part");
    let (mut source, mut hasher) = (File::open(from)?, blake3::Hasher::new());
    let copied = (|| {
        let mut target = File::create(&part)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let n = source.read(&mut chunk)?;
            if n == 0 {
                break;
            }
            hasher.update(&chunk[..n]);
            target.write_all(&chunk[..n])?;
            meter.add(n as u64);
        }
        target.sync_all()
    })();
    if let Err(e) = copied {
        // A disk that is full stays full while the half copy lies on it.
        let _ = fs::remove_file(&part);
        return Err(e);
    }
    Ok((part, hasher.finalize().to_hex().to_string()))
}

/// Writes a small file whole: temporary name, sync, rename, sync of the folder.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = hidden(path, "part");
    let written = File::create(&part).and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()));
    written.and_then(|()| rename(&part, path)).inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

/// Renames and makes the new name durable.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(parent(to));
    Ok(())
}

/// The same unless the new name is taken.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    conveyor_base::shares::rename_new(from, to)?;
    sync_folder(parent(to));
    Ok(())
}

/// Makes the entries of a folder durable, where its file system can. Some network shares refuse to sync folders and
/// sync on close instead, so a refusal is no error.
pub fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// Whether a rename failed only because the two names are on different file systems.
pub fn crosses_devices(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::CrossesDevices
}

/// A file's folder.
pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// A hidden name beside `path`, short enough whatever the length of the name: watchers pass over leading dots.
pub fn hidden(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().map(OsString::from).unwrap_or_default();
    let tag = &blake3::hash(name.as_encoded_bytes()).to_hex()[..16];
    path.with_file_name(format!(".{tag}.{what}"))
}

/// All plain files below a folder, as paths relative to it, in order. Hidden names are left out.
pub fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fn walk(root: &Path, folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().first() == Some(&b'.') {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                walk(root, &entry.path(), into)?;
            } else if kind.is_file() {
                into.push(entry.path().strip_prefix(root).unwrap_or(&entry.path()).to_owned());
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    walk(folder, folder, &mut files)?;
    files.sort();
    Ok(files)
}
