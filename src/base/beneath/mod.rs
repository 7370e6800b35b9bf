//! Files below a folder, whatever anybody does to its links meanwhile: the kernel walks each path and stops at whatever
//! leads out (`openat2(2)`, Linux 5.6), and what was opened is worked on by its descriptor.
//!
//! Invariant: nothing here opens, makes, renames or removes what is not below the folder that it was asked of. A name that
//! is renamed or removed is one component in an open folder, and a link that has the name is itself meant, not what it
//! points at.

mod entry;
mod list;
mod meta;
mod moving;
mod part;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

pub use entry::Entry;
pub use list::{Listed, Listing};
pub use meta::{Kind, Meta, file_version};
pub use part::{Part, hash};

/// How often a walk is begun anew that somebody's renaming disturbed: the kernel says so and means just that.
const TRIES_MAX: usize = 64;

/// What becomes of symbolic links on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Relative ones that stay below the folder are followed; absolute ones and those that lead out are refused.
    Followed,
    /// Any link is refused.
    Refused,
}

/// Removes what lies at a path: a file or a link itself, a folder with all that is in it, however deep.
///
/// # Errors
/// `NotFound` where nothing is there, and those of `unlink`.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let not = || io::Error::from(Errno::EINVAL);
    let (parent, name) = (path.parent().ok_or_else(not)?, path.file_name().ok_or_else(not)?);
    if path.symlink_metadata()?.is_dir() {
        return entry::remove_folder(&Folder::top(parent)?.fd, Path::new(name));
    }
    std::fs::remove_file(path)
}

/// A folder that is open, to be walked from and not read; closed when dropped.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at the top. Links on the way to it are the owner's and are followed.
    ///
    /// # Errors
    /// Those of `open`; `NotADirectory` where it is none.
    pub fn top(root: &Path) -> io::Result<Folder> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Folder { fd: nix::fcntl::open(root, flags, Mode::empty())?, path: root.to_owned() })
    }

    /// The path it was opened at, for messages: something else may be there by now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens what lies at `path` below the folder; an empty path is the folder itself.
    ///
    /// # Errors
    /// Those of `openat2`; [`leads_out`] tells those that mean the path leads out. `Unsupported` on a kernel before 5.6.
    pub fn open(&self, path: &Path, links: Links, flags: OFlag) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let mut resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if links == Links::Refused {
            resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
        }
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        for _ in 0..TRIES_MAX {
            match openat2(&self.fd, path, how) {
                Err(Errno::EAGAIN) => {}
                Err(Errno::ENOSYS) => {
                    let what =
                        "the kernel has no openat2, which keeps files within their share; run Linux 5.6 or newer";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, what));
                }
                opened => return Ok(opened?),
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Opens a file for reading. It may be a folder, a pipe or a device: see its [`Meta`].
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn read(&self, path: &Path, links: Links) -> io::Result<File> {
        // A pipe that nobody writes to would hold up whoever opens it.
        match self.open(path, links, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            // So is a file refused that a file server has leased to one of its clients: to open it waits for that one.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && self.look(path, links)?.is_file() => {
                Ok(self.open(path, links, OFlag::O_RDONLY)?.into())
            }
            opened => Ok(opened?.into()),
        }
    }

    /// What lies at `path`.
    ///
    /// # Errors
    /// As [`Folder::open`], but for the right to read: that is not needed.
    pub fn look(&self, path: &Path, links: Links) -> io::Result<Meta> {
        Meta::of(self.open(path, links, OFlag::O_PATH)?)
    }

    /// Opens the folder at `path`.
    ///
    /// # Errors
    /// As [`Folder::open`]; `NotADirectory` where it is none.
    pub fn folder(&self, path: &Path, links: Links) -> io::Result<Folder> {
        let fd = self.open(path, links, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(Folder { fd, path: self.path.join(path) })
    }

    /// The same, and makes the folders that are missing. Links that stay below are followed.
    ///
    /// # Errors
    /// As [`Folder::folder`], and those of `mkdir`.
    pub fn make_folder(&self, path: &Path) -> io::Result<Folder> {
        match self.folder(path, Links::Followed) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        // One by one from the top: those in the middle may be missing, and a path may be deep.
        let mut made = PathBuf::new();
        let mut folder = self.folder(&made, Links::Followed)?;
        for part in path.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::CurDir => continue,
                _ => return Err(Errno::EXDEV.into()),
            };
            made.push(name);
            folder = match self.folder(&made, Links::Followed) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    match nix::sys::stat::mkdirat(&folder.fd, Path::new(name), Mode::from_bits_truncate(0o777)) {
                        Ok(()) | Err(Errno::EEXIST) => {}
                        Err(e) => return Err(e.into()),
                    }
                    self.folder(&made, Links::Followed)?
                }
                opened => opened?,
            };
        }
        Ok(folder)
    }

    /// What the folder at `path` holds.
    ///
    /// # Errors
    /// As [`Folder::folder`], and that it may not be read.
    pub fn list(&self, path: &Path, links: Links) -> io::Result<Listing> {
        Listing::of(self.open(path, links, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)
    }

    /// A name in the folder, whether or not anything has it.
    pub fn entry(self: &Arc<Folder>, name: impl Into<std::ffi::OsString>) -> Entry {
        Entry::new(self.clone(), name.into())
    }

    /// The space that is left to the appliance's user on the folder's file system, in bytes.
    ///
    /// # Errors
    /// Those of `fstatvfs`.
    pub fn space_left(&self) -> io::Result<u64> {
        let found = nix::sys::statvfs::fstatvfs(&self.fd)?;
        Ok(found.blocks_available() as u64 * found.fragment_size() as u64)
    }

    /// Makes what was named in the folder durable.
    ///
    /// # Errors
    /// Those of `fsync`: some network file systems sync no folders.
    pub fn sync(&self) -> io::Result<()> {
        File::from(self.open(Path::new(""), Links::Refused, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?).sync_all()
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether an error says that the path leads out of the folder, or over more links than it may.
pub fn leads_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EXDEV | Errno::ELOOP))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_stay_below_are_followed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("file"), "in").unwrap();
        fs::write(dir.path().join("secret"), "out").unwrap();
        symlink("../file", root.join("a/stays")).unwrap();
        symlink("b", root.join("a/folder")).unwrap();
        symlink("../../secret", root.join("a/climbs")).unwrap();
        symlink(root.join("file"), root.join("absolute")).unwrap();
        symlink("../../nowhere", root.join("a/dangles")).unwrap();
        symlink(dir.path(), root.join("out")).unwrap();
        let top = Folder::top(&root).unwrap();
        let text = |path: &str, links| top.read(Path::new(path), links).and_then(io::read_to_string);
        assert_eq!(text("a/stays", Links::Followed).unwrap(), "in");
        for path in ["a/climbs", "absolute", "a/dangles", "out/secret", "../secret", "a/../../secret"] {
            assert!(leads_out(&text(path, Links::Followed).unwrap_err()), "{path}");
            assert!(leads_out(&top.make_folder(Path::new(path)).unwrap_err()), "{path}");
        }
        assert!(leads_out(&text("a/stays", Links::Refused).unwrap_err()));
        assert_eq!(text("a/none", Links::Followed).unwrap_err().kind(), io::ErrorKind::NotFound);
        top.make_folder(Path::new("a/folder/new/deep")).unwrap();
        assert!(root.join("a/b/new/deep").is_dir());
        assert!(top.make_folder(Path::new("file/x")).is_err());
        assert!(!dir.path().join("nowhere").exists());
        nix::unistd::mkfifo(&root.join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
        assert!(!Meta::of(top.read(Path::new("pipe"), Links::Followed).unwrap()).unwrap().is_file());
    }
}
