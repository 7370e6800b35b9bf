//! The problems of files, as errors that a workflow can match and a person can act on.
//!
//! | error | when |
//! |---|---|
//! | `Files.InvalidParameter` | a parameter is missing or of a wrong form, a name leads out of its share |
//! | `Files.Vanished` | a file is gone |
//! | `Files.DiskFull` | no space or quota left |
//! | `Files.PermissionDenied` | the appliance's user may not, or the file system is read-only |
//! | `Files.ShareUnreachable` | the share, its network or its disk does not answer |
//! | `Files.Changed` | a file changed while it was worked on |
//! | `Files.Failed` | anything else the operating system said |

use std::io;
use std::path::{Path, PathBuf};

use conveyor_base::shares::ShareError;
use conveyor_base::{Place, TaskError, Uri};
use conveyor_job::Job;
use nix::libc;
use serde::de::DeserializeOwned;

/// The stage's parameters, or an error that says which one is wrong.
pub fn parameters<T: DeserializeOwned>(job: &Job) -> Result<T, TaskError> {
    T::deserialize(&job.parameters).map_err(|e| {
        TaskError::new(
            "Files.InvalidParameter",
            format!("the parameters of stage '{}' cannot be used: {e}; correct the state's Parameters", job.stage),
        )
    })
}

/// Where a name leads, with the share's problems told apart: a name to compare, and none to open.
pub fn resolve(job: &Job, uri: &Uri) -> Result<PathBuf, TaskError> {
    job.shares.resolve(uri).about("resolve", uri)
}

/// A file's place on its share, which is open from here on.
pub fn place(job: &Job, uri: &Uri) -> Result<Place, TaskError> {
    job.shares.place(uri).about("resolve", uri)
}

/// The operating system's error about one file, such as `cannot copy 's3://in/a.mov': …`.
pub fn io_fault(action: &str, what: impl std::fmt::Display, error: &io::Error) -> TaskError {
    let (name, hint) = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => {
            ("Files.Vanished", "it was moved, renamed or deleted, or its share is not mounted; drop it again")
        }
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
            ("Files.DiskFull", "the disk or the quota is full; free some space, then retry")
        }
        (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem, _) => {
            ("Files.PermissionDenied", "give the appliance's user the right to read and write there")
        }
        (io::ErrorKind::StaleNetworkFileHandle | io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable, _)
        | (io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown | io::ErrorKind::NotConnected, _)
        | (_, Some(libc::EIO | libc::EHOSTDOWN | libc::ENODEV | libc::ENXIO)) => {
            ("Files.ShareUnreachable", "check the share, its network and its disk, then retry")
        }
        _ => ("Files.Failed", "see the message of the operating system"),
    };
    TaskError::new(name, format!("cannot {action} '{what}': {error}; {hint}"))
}

/// Adds the file and the action to an I/O result.
pub trait About<T> {
    fn about(self, action: &str, what: impl std::fmt::Display) -> Result<T, TaskError>;

    fn about_path(self, action: &str, path: &Path) -> Result<T, TaskError>
    where
        Self: Sized,
    {
        self.about(action, path.display())
    }
}

impl<T> About<T> for io::Result<T> {
    fn about(self, action: &str, what: impl std::fmt::Display) -> Result<T, TaskError> {
        self.map_err(|e| io_fault(action, what, &e))
    }
}

impl<T> About<T> for Result<T, ShareError> {
    fn about(self, action: &str, what: impl std::fmt::Display) -> Result<T, TaskError> {
        self.map_err(|e| match &e {
            ShareError::Unreachable { source, .. } => {
                TaskError::new("Files.ShareUnreachable", format!("{e}: {source}; mount the share again, then retry"))
            }
            ShareError::Io { source, .. } => io_fault(action, what, source),
            _ => TaskError::new("Files.InvalidParameter", e.to_string()),
        })
    }
}
