//! Shares: named folders that play the part of S3 buckets. `s3://share/key` names a file on one.
//!
//! Invariant: no [`Uri`] leads to a file outside its share's root, whatever its key holds and wherever symbolic links
//! inside the share point. What is opened, is opened through a [`Place`](super::place::Place), so that this holds while links
//! are exchanged, too.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::place::is_plain;

/// Suffixes under which copies and downloads are written before they get their own name.
const UNDER_WAY: &[&str] =
    &[".part", ".partial", ".tmp", ".temp", ".crdownload", ".filepart", ".download", ".!qb", ".!ut"];

/// `s3://share/key`. Keys are UTF-8, as in S3, and use `/` whatever the file system does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uri {
    pub share: String,
    pub key: String,
}

impl Uri {
    pub fn new(share: impl Into<String>, key: impl Into<String>) -> Uri {
        Uri { share: share.into(), key: key.into() }
    }

    /// The last part of the key: the file's name.
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or(&self.key)
    }

    /// The file's name without its last suffix.
    pub fn stem(&self) -> &str {
        let name = self.file_name();
        name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.share, self.key)
    }
}

impl FromStr for Uri {
    type Err = ShareError;
    fn from_str(s: &str) -> Result<Uri, ShareError> {
        let not = || ShareError::NotAUri(s.to_owned());
        let (share, key) = s.strip_prefix("s3://").ok_or_else(not)?.split_once('/').ok_or_else(not)?;
        if share.is_empty() {
            return Err(not());
        }
        Ok(Uri::new(share, key))
    }
}

impl Serialize for Uri {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Uri {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Uri, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a name does not lead to a file on a share.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("'{0}' is not of the form s3://share/key")]
    NotAUri(String),
    #[error("there is no share named '{share}'; configured: {known}")]
    Unknown { share: String, known: String },
    #[error("'{0}' leads outside its share")]
    Escapes(Uri),
    #[error("share '{share}' is not reachable at {path}")]
    Unreachable { share: String, path: String, source: std::io::Error },
    #[error("cannot resolve {uri}")]
    Io { uri: Uri, source: std::io::Error },
}

impl ShareError {
    /// Whether it says that there is no such file, or that a folder on its way is none.
    pub fn is_missing(&self) -> bool {
        let missing = |e: &io::Error| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        matches!(self, ShareError::Io { source, .. } if missing(source))
    }
}

/// The configured shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Name to root folder.
    roots: BTreeMap<String, PathBuf>,
    /// Of those whose owner says so: whether the root must be a mount point.
    #[serde(default)]
    mounted: BTreeMap<String, bool>,
    /// The file systems that were mounted when a piece of work began, by share: what is opened must lie on them.
    #[serde(default)]
    devices: BTreeMap<String, u64>,
}

impl Shares {
    pub fn new(roots: impl IntoIterator<Item = (String, PathBuf)>) -> Shares {
        Shares { roots: roots.into_iter().collect(), ..Shares::default() }
    }

    /// The same, where the owner says of some shares whether their roots are mount points. Of the others it is learnt: one
    /// that was seen mounted must be.
    #[must_use]
    pub fn with_mounted(self, mounted: impl IntoIterator<Item = (String, bool)>) -> Shares {
        Shares { mounted: mounted.into_iter().collect(), ..self }
    }

    /// The same for a piece of work that ends where one of these is not mounted any more: [`Shares::top`] fails then.
    #[must_use]
    pub fn held_to(self, devices: BTreeMap<String, u64>) -> Shares {
        Shares { devices, ..self }
    }

    /// The same, held to these shares alone: whoever sees no more than some files of a share cannot tell its root.
    #[must_use]
    pub fn held_to_only(mut self, shares: &[String]) -> Shares {
        self.devices.retain(|share, _| shares.contains(share));
        self
    }

    pub(crate) fn device(&self, share: &str) -> Option<u64> {
        self.devices.get(share).copied()
    }

    /// Why a share counts as away whose root is there. An unmounted one leaves a folder of the box's own disk behind, on which
    /// files seem to have vanished for good, and results would lie where nobody looks for them.
    pub fn away(&self, share: &str, was_mounted: bool, is_mounted: bool) -> Option<String> {
        let must_be = self.mounted.get(share).copied().unwrap_or(was_mounted);
        (must_be && !is_mounted).then(|| {
            let at = self.root(share).map(|root| format!(" at {}", root.display())).unwrap_or_default();
            format!(
                "the share '{share}'{at} was mounted and is a plain folder now; mount it again. Where it is meant to be one, set \
                 mounted = false in [shares.{share}]. Nothing is written to it"
            )
        })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.roots.keys().map(String::as_str)
    }

    pub fn has(&self, share: &str) -> bool {
        self.roots.contains_key(share)
    }

    pub fn root(&self, share: &str) -> Result<&Path, ShareError> {
        self.roots.get(share).map(PathBuf::as_path).ok_or_else(|| ShareError::Unknown {
            share: share.to_owned(),
            known: if self.roots.is_empty() { "none".into() } else { self.names().collect::<Vec<_>>().join(", ") },
        })
    }

    /// The name of a file that may or may not exist yet.
    ///
    /// Refuses keys with `..`, absolute keys and NUL, and existing parents that are symbolic links out of the share. That
    /// holds for the moment of the look alone: a name is for a stage whose own root has no more bound than its inputs, and
    /// for comparisons. Everybody else asks for a [`Place`](Shares::place).
    pub fn resolve(&self, uri: &Uri) -> Result<PathBuf, ShareError> {
        let root = self.root(&uri.share)?;
        let real_root = root.canonicalize().map_err(|source| ShareError::Unreachable {
            share: uri.share.clone(),
            path: root.display().to_string(),
            source,
        })?;
        let key = Path::new(&uri.key);
        if !is_plain(&uri.key) {
            return Err(ShareError::Escapes(uri.clone()));
        }
        let path = real_root.join(key);
        let mut existing = path.as_path();
        loop {
            match existing.canonicalize() {
                Ok(real) if real.starts_with(&real_root) => return Ok(path),
                Ok(_) => return Err(ShareError::Escapes(uri.clone())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    // A dangling link does not exist either, but writing through it would leave the share.
                    if existing.is_symlink() {
                        return Err(ShareError::Escapes(uri.clone()));
                    }
                    existing = existing.parent().ok_or_else(|| ShareError::Escapes(uri.clone()))?;
                }
                Err(source) => return Err(ShareError::Io { uri: uri.clone(), source }),
            }
        }
    }
}

/// Whether a share's root stands on a file system of its own: a mounted network share does.
pub fn is_mount_point(root: &Path) -> io::Result<bool> {
    let parent = root.parent().unwrap_or(root);
    Ok(fs::metadata(root)?.dev() != fs::metadata(parent)?.dev())
}

/// Whether a file's name says that it is not whole yet, or not meant for others: it is hidden, or has one of the suffixes.
pub fn is_under_way(file_name: &str) -> bool {
    let lower = file_name.to_lowercase();
    lower.starts_with('.')
        || lower.starts_with("~$")
        || lower.ends_with('~')
        || UNDER_WAY.iter().any(|suffix| lower.ends_with(suffix))
}

/// The store's setting that is there for a share that was seen mounted.
pub fn mounted_setting(share: &str) -> String {
    format!("ingest.mounted.{share}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_a_share() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", root.join("dangling")).unwrap();
        let shares = Shares::new([("in".to_owned(), root)]);
        for bad in ["../x", "/etc/passwd", "sub/../../x", "out/passwd", "dangling", "out", "a\0b"] {
            let uri = Uri::new("in", bad);
            assert!(shares.resolve(&uri).is_err(), "{bad}");
            let refused = |e| matches!(e, ShareError::Escapes(_));
            assert!(refused(shares.place(&uri).and_then(|place| place.read()).unwrap_err()), "{bad}");
            assert!(shares.place(&uri).is_err_and(refused) || shares.place(&uri).unwrap().check().is_err(), "{bad}");
        }
        for good in ["a.mp4", "sub/b.mp4", "new/folder/c d'\"\n.mp4"] {
            let uri = Uri::new("in", good);
            assert!(shares.resolve(&uri).is_ok(), "{good}");
            assert!(shares.place(&uri).unwrap().make_entry().unwrap().is_free().unwrap(), "{good}");
        }
        assert!(shares.resolve(&Uri::new("other", "x")).is_err());
    }
}
