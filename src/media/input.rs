//! The file a stage works on: found on its share, opened, and named in every error.
//!
//! Invariant: whoever holds an [`Input`] knows that the file existed, was a plain file, was readable and not
//! empty when it was opened. What it holds is for `container` and `probe` to say.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use conveyor_base::beneath::Meta;
use conveyor_base::shares::ShareError;
use conveyor_base::{TaskError, Uri};
use conveyor_job::Job;
use serde_json::Value;

/// A source file that can be read.
#[derive(Clone, Debug)]
pub struct Input {
    pub uri: Uri,
    pub path: PathBuf,
    pub size: u64,
}

impl Input {
    /// Opens what `parameters.<name>` refers to.
    pub fn from_parameter(job: &Job, name: &str) -> Result<Input, TaskError> {
        let text = job.parameters.get(name).and_then(Value::as_str).ok_or_else(|| {
            TaskError::new(
                "Media.InvalidParameter",
                format!("/{name}: the stage '{}' needs this parameter, a file as s3://share/key", job.stage),
            )
        })?;
        Input::open(job, text)
    }

    /// Opens `s3://share/key`.
    pub fn open(job: &Job, text: &str) -> Result<Input, TaskError> {
        let uri: Uri = text.parse().map_err(|e: ShareError| TaskError::new("Media.InvalidParameter", e.to_string()))?;
        let path = resolve(job, &uri)?;
        let input = Input { uri, path, size: 0 };
        let meta = std::fs::metadata(&input.path).map_err(|e| input.io_error(&e))?;
        if !meta.is_file() {
            return Err(input.error("Media.Unreadable", "is a folder or a device, not a file; drop a media file"));
        }
        let input = Input { size: meta.len(), ..input };
        File::open(&input.path).map_err(|e| input.io_error(&e))?;
        if input.size == 0 {
            return Err(input.error("Media.Empty", "has no bytes at all; copy it again from where it was made"));
        }
        Ok(input)
    }

    pub fn meta(&self) -> Result<Meta, TaskError> {
        File::open(&self.path).and_then(Meta::of).map_err(|e| self.io_error(&e))
    }

    /// Up to `length` bytes from `offset` on; fewer at the end of the file.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>, TaskError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(length as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|e| self.io_error(&e))
    }

    /// An error about this file: `'s3://share/key' <what>`.
    pub fn error(&self, name: &str, what: impl std::fmt::Display) -> TaskError {
        TaskError::new(name, format!("'{}' {what}", self.uri))
    }

    /// An operating system's error about this file.
    pub fn io_error(&self, error: &io::Error) -> TaskError {
        match error.kind() {
            io::ErrorKind::NotFound => self.error(
                "Media.Vanished",
                "is not there any more; it was moved, renamed or deleted, or its share is not mounted. Drop it again",
            ),
            io::ErrorKind::PermissionDenied => self.error(
                "Media.Unreadable",
                "may not be read by the appliance; give its user the right to read the file and its folders",
            ),
            _ => self.error("Media.Unreadable", format!("cannot be read ({error}); check the share and its network")),
        }
    }
}

/// Whether this is still the file that `sanitize` described.
///
/// # Errors
/// `Files.Changed`
pub fn same_file(uri: &Uri, meta: &Meta, metadata: &Value) -> Result<(), TaskError> {
    let Some(version) = metadata["version"].as_str() else { return Ok(()) };
    // Size and time; some file systems give another inode after they were mounted anew.
    let of = |version: &str| version.rsplit_once('-').map(|(of, _)| of.to_owned());
    if of(&meta.version()) == of(version) {
        return Ok(());
    }
    let what = format!(
        "'{uri}' was changed or replaced while this worked on it, so nothing is published of it. What lies there now runs by \
         itself where a watch is on it; else start it anew"
    );
    Err(TaskError::new("Files.Changed", what))
}

/// The path of a file on a share, with the share's problems told apart.
pub fn resolve(job: &Job, uri: &Uri) -> Result<PathBuf, TaskError> {
    job.shares.resolve(uri).map_err(|e| match &e {
        ShareError::Unreachable { source, .. } => {
            TaskError::new("Media.ShareUnreachable", format!("{e}: {source}; mount the share again"))
        }
        ShareError::Io { source, .. } => TaskError::new("Media.Unreadable", format!("{e}: {source}")),
        _ => TaskError::new("Media.InvalidParameter", e.to_string()),
    })
}
