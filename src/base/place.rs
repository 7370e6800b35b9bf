//! [`Place`]: a file's place on a share that is open.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

use super::beneath::{Entry, Folder, Links, Listing, Meta, leads_out};
use super::shares::{ShareError, Shares, Uri};

/// Where a key leads on a share whose root is open. Whatever is opened from here on lies below that root: relative links
/// that stay below are followed, all others refused.
#[derive(Clone, Debug)]
pub struct Place {
    uri: Uri,
    top: Arc<Folder>,
    links: Links,
}

impl Shares {
    /// Opens a share's root. Nothing of it is kept: the next call finds what is mounted there by then.
    ///
    /// # Errors
    /// `Unknown`, and `Unreachable` where there is no folder that may be opened, or not the one of [`Shares::held_to`].
    pub fn top(&self, share: &str) -> Result<Arc<Folder>, ShareError> {
        let root = self.root(share)?;
        let unreachable =
            |source| ShareError::Unreachable { share: share.to_owned(), path: root.display().to_string(), source };
        let top = Folder::top(root).map_err(unreachable)?;
        if let Some(device) = self.device(share)
            && Meta::of(&top).map_err(unreachable)?.device != device
        {
            return Err(unreachable(io::Error::other("it was mounted when this began, and is not any more")));
        }
        Ok(Arc::new(top))
    }

    /// The place of a file that may or may not exist.
    ///
    /// # Errors
    /// As [`Shares::top`]; `Escapes` for keys with `..`, absolute keys and NUL.
    pub fn place(&self, uri: &Uri) -> Result<Place, ShareError> {
        self.root(&uri.share)?;
        if !is_plain(&uri.key) {
            return Err(ShareError::Escapes(uri.clone()));
        }
        Ok(Place { top: self.top(&uri.share)?, uri: uri.clone(), links: Links::Followed })
    }
}

/// Whether a key leads down only.
pub(crate) fn is_plain(key: &str) -> bool {
    let down = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    Path::new(key).components().all(down) && !key.contains('\0')
}

impl Place {
    /// The same, where the key alone says what is read: any symbolic link below the root is refused, as what leads out is.
    pub fn itself(self) -> Place {
        Place { links: Links::Refused, ..self }
    }

    /// The path that the key has below the share's root, for messages and comparisons: a name, and no more.
    pub fn path(&self) -> PathBuf {
        self.top.path().join(&self.uri.key)
    }

    /// Opens it for reading. It may be a folder, a pipe or a device: see its [`Meta`].
    ///
    /// # Errors
    /// `Escapes`, or `Io` with what the system says.
    pub fn read(&self) -> Result<File, ShareError> {
        self.top.read(self.key(), self.links).map_err(|e| self.failed(e))
    }

    /// What is there, after all links.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn look(&self) -> Result<Meta, ShareError> {
        self.top.look(self.key(), self.links).map_err(|e| self.failed(e))
    }

    /// Refuses a place that leads out of its share. One that is not there does not.
    ///
    /// # Errors
    /// As [`Place::read`], but for what is missing.
    pub fn check(&self) -> Result<Option<Meta>, ShareError> {
        match self.look() {
            Err(e) if e.is_missing() => Ok(None),
            found => found.map(Some),
        }
    }

    /// Opens the folder that the key names.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn folder(&self) -> Result<Arc<Folder>, ShareError> {
        self.top.folder(self.key(), self.links).map(Arc::new).map_err(|e| self.failed(e))
    }

    /// The same, and makes the folders that are missing.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn make_folder(&self) -> Result<Arc<Folder>, ShareError> {
        self.top.make_folder(self.key()).map(Arc::new).map_err(|e| self.failed(e))
    }

    /// What the folder that the key names holds.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub fn list(&self) -> Result<Listing, ShareError> {
        self.top.list(self.key(), self.links).map_err(|e| self.failed(e))
    }

    /// The key's last part in its folder, which is there.
    ///
    /// # Errors
    /// As [`Place::read`]; `NotADirectory` for a key that can only be a folder's.
    pub fn entry(&self) -> Result<Entry, ShareError> {
        let (folder, name) = self.parts()?;
        let folder = self.top.folder(folder, Links::Followed).map_err(|e| self.failed(e))?;
        Ok(Arc::new(folder).entry(name))
    }

    /// The same, and makes the folders that are missing.
    ///
    /// # Errors
    /// As [`Place::entry`].
    pub fn make_entry(&self) -> Result<Entry, ShareError> {
        let (folder, name) = self.parts()?;
        let folder = self.top.make_folder(folder).map_err(|e| self.failed(e))?;
        Ok(Arc::new(folder).entry(name))
    }

    fn key(&self) -> &Path {
        Path::new(&self.uri.key)
    }

    fn parts(&self) -> Result<(&Path, &std::ffi::OsStr), ShareError> {
        let no_file = || self.failed(Errno::ENOTDIR.into());
        let name = self.key().file_name().filter(|_| !self.uri.key.ends_with('/')).ok_or_else(no_file)?;
        Ok((self.key().parent().unwrap_or(Path::new("")), name))
    }

    /// What the system said of this file, as an error of its share.
    pub fn failed(&self, source: io::Error) -> ShareError {
        match leads_out(&source) {
            true => ShareError::Escapes(self.uri.clone()),
            false => ShareError::Io { uri: self.uri.clone(), source },
        }
    }
}
