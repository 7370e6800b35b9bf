//! Where the store's files lie: a data directory, or whatever else implements [`Backends`].
//!
//! Knows names and opens files; never looks into them.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use conveyor_base::Fault;
use nix::libc;
use redb::StorageBackend;
use redb::backends::FileBackend;

use super::blocks::Rotten;

pub(super) const STATE: &str = "state.redb";
pub(super) const JOURNAL_PREFIX: &str = "journal-";
pub(super) const JOURNAL_SUFFIX: &str = ".log";
const LOCK: &str = "lock";
/// What to do about damage.
pub(super) const REPAIR: &str = "stop the appliance and run `conveyor check --repair`, or restore the data directory from a \
                                 backup";

/// A place for files. The simulator has one in memory that forgets what was not synced.
pub trait Backends: Send + Sync + 'static {
    fn exists(&self, name: &str) -> io::Result<bool>;
    /// Opens the file, empty if it is not there yet.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;
    /// The same for a file that is only ever appended to in whole blocks of 4 KiB, at offsets that are multiples of it,
    /// from memory so aligned: its writes may be durable at once, and `sync_data` then has nothing to do.
    fn open_log(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.open(name)
    }
    /// Opens a file that is there to be read as the disk has it, past the caches where that is possible: whole blocks of 4
    /// KiB, at offsets that are multiples of it, into memory so aligned.
    fn open_uncached(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.open(name)
    }
    /// Durable once it returns: the directory is synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// A file that is not there counts as removed.
    fn remove(&self, name: &str) -> io::Result<()>;
    fn names(&self) -> io::Result<Vec<String>>;
    /// Keeps other processes out until the answer is dropped.
    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// How messages call the place.
    fn place(&self) -> String;
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(path: impl Into<PathBuf>) -> Directory {
        Directory(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl Backends for Directory {
    fn exists(&self, name: &str) -> io::Result<bool> {
        self.0.join(name).try_exists()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.0.join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        FileBackend::new(file).map(|b| Box::new(b) as _).map_err(io::Error::other)
    }

    fn open_log(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        LogFile::open(&self.0.join(name)).map(|file| Box::new(file) as _)
    }

    fn open_uncached(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.0.join(name);
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let file = match open(libc::O_DIRECT) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => open(0)?,
            other => other?,
        };
        FileBackend::new(file).map(|b| Box::new(b) as _).map_err(io::Error::other)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => self.sync(),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        fs::create_dir_all(&self.0)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.0.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    fn place(&self) -> String {
        self.0.display().to_string()
    }
}

/// A file whose writes go past the page cache and are on the disk when they return: one command to the disk instead
/// of a write and a flush (`open(2)`, O_DIRECT and O_DSYNC).
#[derive(Debug)]
struct LogFile {
    writing: File,
    /// Reads need not be aligned.
    reading: File,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        let open = |flags| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path)
        };
        let writing = match open(libc::O_DIRECT | libc::O_DSYNC) {
            // Some file systems have no direct writes; durable at once they still are.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => open(libc::O_DSYNC)?,
            other => other?,
        };
        Ok(LogFile { writing, reading: File::open(path)? })
    }
}

impl StorageBackend for LogFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.reading.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.reading.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.writing.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.writing.write_all_at(data, offset)
    }
}

/// A file as older releases wrote it, without checksums. redb takes a backend by type; this one hands on to whichever it
/// holds.
pub(super) struct Disk(pub Box<dyn StorageBackend>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// An error of the state file. What is damaged stays so, and is an error of whoever reads it; redb then gives nothing more
/// out of the file until it is opened anew, which [`super::engine`] does; after an error of writing nothing may go on.
pub(super) fn state_fault(error: impl Into<redb::Error>) -> Fault {
    match error.into() {
        redb::Error::Io(e) if Rotten::of(&e).is_some() => {
            Fault::damaged(format!("the state file {STATE} is damaged; {REPAIR}"), e)
        }
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => Fault::Retryable {
            what: format!("the state file {STATE} is being opened anew after an error; ask again"),
            source: None,
        },
        error @ redb::Error::Io(_) => {
            Fault::fatal(format!("the state file {STATE} failed; restart to recover from the journal"), error)
        }
        error => Fault::damaged(format!("the state file {STATE} is damaged; {REPAIR}"), error),
    }
}

/// A file that cannot be opened, made or read.
pub(super) fn file_fault(disk: &dyn Backends, name: &str) -> impl Fn(io::Error) -> Fault + use<> {
    let what = format!("{}/{name} cannot be opened, made or read", disk.place());
    move |e| Fault::fatal(what.clone(), e)
}

/// Makes a file under a temporary name that it is told, and gives it its own once it is whole.
pub(super) fn create_whole(
    disk: &dyn Backends,
    name: &str,
    fill: impl FnOnce(&str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let temporary = format!("{name}.new");
    let fault = file_fault(disk, name);
    disk.remove(&temporary).map_err(&fault)?;
    fill(&temporary)?;
    disk.rename(&temporary, name).map_err(&fault)
}
