//! What a descriptor or a name stands for, without reading it.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::{FileStat, SFlag, fstat};

/// What something on a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    /// A pipe, a socket, a device.
    Other,
}

/// What the file system says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// Since 1970, in nanoseconds.
    pub modified_ns: i128,
    /// When its content, its name or its rights were changed last, since 1970, in nanoseconds: nobody can set it.
    pub changed_ns: i128,
    /// What it takes on the disk, in blocks of 512 bytes.
    pub blocks: u64,
    pub inode: u64,
    pub device: u64,
    pub user: u32,
    pub group: u32,
}

impl Meta {
    /// # Errors
    /// Those of `fstat`.
    pub fn of(file: impl AsFd) -> io::Result<Meta> {
        Ok(fstat(file)?.into())
    }

    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    pub fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }

    /// The state of a file, in a word that tells it from others of its name.
    pub fn version(&self) -> String {
        file_version(self.size, self.modified_ns, self.inode)
    }

    /// Whether it is of the same file, in whatever state.
    pub fn is_same(&self, other: &Meta) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether it is of the same file with what it held then. Its name, rights and place on the disk may have changed.
    pub fn is_unchanged(&self, since: &Meta) -> bool {
        let of = |meta: &Meta| (meta.kind, meta.size, meta.modified_ns);
        self.is_same(since) && of(self) == of(since)
    }

    /// Whole milliseconds since 1970.
    pub fn modified_ms(&self) -> i64 {
        i64::try_from(self.modified_ns.div_euclid(1_000_000)).unwrap_or(i64::MAX)
    }

    /// `None` for times before 1970.
    pub fn modified(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_nanos(u64::try_from(self.modified_ns).ok()?))
    }
}

/// A file's size in bytes, when it was changed in nanoseconds since 1970, and its inode, in one word.
pub fn file_version(size: u64, modified_ns: i128, inode: u64) -> String {
    format!("{size}-{modified_ns}-{inode}")
}

impl From<FileStat> for Meta {
    fn from(stat: FileStat) -> Meta {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Folder,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Other,
        };
        Meta {
            kind,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
            changed_ns: i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec),
            blocks: u64::try_from(stat.st_blocks).unwrap_or_default(),
            inode: stat.st_ino,
            device: stat.st_dev,
            user: stat.st_uid,
            group: stat.st_gid,
        }
    }
}
