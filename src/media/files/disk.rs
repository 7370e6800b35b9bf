//! The few careful operations on disks that the file stages are made of: hash, copy, move, write, each synced.
//!
//! Invariant: what one of these has put under its final name is whole and on the disk; half-done work stands under
//! a hidden temporary name only. All of them work on files and folders that are open, and follow no link.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use conveyor_base::beneath::{self, Entry, Folder, Meta, Part};
use conveyor_job::{Progress, Reporter};

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    pub mtime_ns: i128,
    inode: u64,
}

impl Stamp {
    /// # Errors
    /// It is no plain file.
    pub fn of(meta: &Meta) -> io::Result<Stamp> {
        if !meta.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        Ok(Stamp { size: meta.size, mtime_ns: meta.modified_ns, inode: meta.inode })
    }

    /// # Errors
    /// As [`Stamp::of`], and those of `fstat`.
    pub fn of_open(file: &File) -> io::Result<Stamp> {
        Stamp::of(&Meta::of(file)?)
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

    /// Tells of bytes that were read.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let fraction = if self.total == 0 { 1.0 } else { (self.done as f64 / self.total as f64).min(1.0) };
        self.reporter.progress(Progress { fraction, doing: self.doing.into(), ..Progress::default() });
    }

    /// Megabytes a second so far, for the result.
    pub fn mb_per_second(&self) -> f64 {
        self.done as f64 / 1e6 / self.start.elapsed().as_secs_f64().max(1e-3)
    }
}

/// The BLAKE3 hash of a file's content, streamed from its beginning.
pub fn hash(file: &File, meter: &mut Meter<'_>) -> io::Result<String> {
    beneath::hash(file, &mut |bytes| meter.add(bytes))
}

/// Whether a name came to stand for this very file: whoever may write to a folder may exchange what is renamed there.
pub fn named(name: &Entry, file: impl AsFd) -> io::Result<()> {
    match name.is_of(file)? {
        true => Ok(()),
        false => Err(io::Error::other("another program put something else under its name meanwhile")),
    }
}

/// Copies a file under a temporary name beside its destination and syncs it; returns the copy and the hash of what was
/// read. The caller verifies and renames.
pub fn copy_beside(from: &File, to: &Entry, meter: &mut Meter<'_>) -> io::Result<(Part, String)> {
    Part::copy(from, to, &mut |bytes| meter.add(bytes))
}

/// Writes a small file whole: temporary name, sync, rename, sync of the folder.
pub fn write(to: &Entry, bytes: &[u8]) -> io::Result<()> {
    Part::write(to, bytes)?.rename(to)?;
    sync_folder(to);
    Ok(())
}

/// The same unless the name is taken.
///
/// # Errors
/// `AlreadyExists` where it is.
pub fn write_new(to: &Entry, bytes: &[u8]) -> io::Result<()> {
    Part::write(to, bytes)?.rename_new(to)?;
    sync_folder(to);
    Ok(())
}

/// Renames and makes the new name durable.
pub fn rename(from: &Entry, to: &Entry) -> io::Result<()> {
    from.rename(to)?;
    sync_folder(to);
    Ok(())
}

/// The same unless the new name is taken.
pub fn rename_new(from: &Entry, to: &Entry) -> io::Result<()> {
    from.rename_new(to)?;
    sync_folder(to);
    Ok(())
}

/// Makes the names in an entry's folder durable, where its file system can. Some network shares refuse to sync folders and
/// sync on close instead, so a refusal is no error.
pub fn sync_folder(of: &Entry) {
    let _ = of.folder().sync();
}

/// Whether a rename failed only because the two names are on different file systems.
pub fn crosses_devices(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::CrossesDevices
}

/// All plain files below a folder, as paths relative to it, in order. Hidden names are left out.
pub fn files_below(folder: &Folder) -> io::Result<Vec<PathBuf>> {
    let is_shown = |name: &OsStr| name.as_encoded_bytes().first() != Some(&b'.');
    let mut files = Vec::new();
    folder.walk(Path::new(""), is_shown, |path, _, listed| {
        if is_shown(&listed.name) {
            files.push(path);
        }
        Ok(())
    })?;
    files.sort();
    Ok(files)
}
