//! What a folder holds, name by name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, OwningIter, Type};
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use super::{Folder, Kind, Links, Meta, leads_out};

/// The names in a folder, in the order in which the file system gives them.
pub struct Listing {
    names: OwningIter,
    folder: OwnedFd,
}

/// One of them.
pub struct Listed {
    pub name: OsString,
    pub kind: Kind,
}

impl Listing {
    pub(super) fn of(folder: OwnedFd) -> io::Result<Listing> {
        Ok(Listing { names: Dir::from_fd(folder.try_clone()?)?.into_iter(), folder })
    }

    /// What a name stands for now; a link that has it is itself meant.
    ///
    /// # Errors
    /// Those of `fstatat`: it may be gone meanwhile.
    pub fn meta(&self, listed: &Listed) -> io::Result<Meta> {
        self.meta_of(&listed.name)
    }

    fn meta_of(&self, name: &OsStr) -> io::Result<Meta> {
        Ok(fstatat(&self.folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?.into())
    }
}

impl Iterator for Listing {
    type Item = io::Result<Listed>;

    fn next(&mut self) -> Option<io::Result<Listed>> {
        loop {
            let entry = match self.names.next()? {
                Ok(entry) => entry,
                Err(e) => return Some(Err(e.into())),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                Some(Type::File) => Kind::File,
                Some(Type::Directory) => Kind::Folder,
                Some(Type::Symlink) => Kind::Link,
                Some(_) => Kind::Other,
                // Some file systems do not say.
                None => match self.meta_of(name) {
                    Ok(meta) => meta.kind,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Some(Err(e)),
                },
            };
            return Some(Ok(Listed { name: name.to_owned(), kind }));
        }
    }
}

impl Folder {
    /// Goes over all plain files below the folder at `path`, over no link, and into those folders that `goes_into` names
    /// by their own name. `see` is told of each file by its path below `path`. What goes away meanwhile is passed over.
    ///
    /// # Errors
    /// As [`Folder::list`], of the first folder that cannot be read.
    pub fn walk(
        &self,
        path: &Path,
        goes_into: impl Fn(&OsStr) -> bool,
        mut see: impl FnMut(PathBuf, &Listing, &Listed) -> io::Result<()>,
    ) -> io::Result<()> {
        let top = self.folder(path, Links::Followed)?;
        // By paths and not by descriptors: folders may be nested deeper than a process may have files.
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let mut listing = match top.list(&folder, Links::Refused) {
                Err(e) if !folder.as_os_str().is_empty() && is_gone(&e) => continue,
                listing => listing?,
            };
            while let Some(listed) = listing.next() {
                let listed = listed?;
                match listed.kind {
                    Kind::Folder if goes_into(&listed.name) => folders.push(folder.join(&listed.name)),
                    Kind::File => see(folder.join(&listed.name), &listing, &listed)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// Whether something else, or nothing, is where a folder was.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) || leads_out(error)
}
