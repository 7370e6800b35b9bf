//! The kinds of things that go wrong and that cross module borders.
//!
//! *Refused* (the caller's mistake) belongs to the API and lives in `run` and `api`; a *bug* is an
//! assertion. Here stand the other two: [`TaskError`], which is data, and [`Fault`], which is the environment.

use serde::{Deserialize, Serialize};

/// What a task reports when it fails. Stored data: it drives Retry and Catch and is shown in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// The error name that `ErrorEquals` matches, such as `States.TaskFailed` or `Media.Truncated`.
    pub error: String,
    /// What happened, to which file, and what to do about it.
    pub cause: String,
}

impl TaskError {
    pub fn new(error: impl Into<String>, cause: impl Into<String>) -> TaskError {
        TaskError { error: error.into(), cause: cause.into() }
    }
}

impl std::fmt::Display for TaskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.error, self.cause)
    }
}

impl std::error::Error for TaskError {}

/// The environment failed: a disk, a share, a process.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// May pass: trying again later is right.
    #[error("{what}")]
    Retryable {
        what: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Stored bytes are not what was written. What lies there cannot be answered, now or later, until the files are repaired;
    /// everything else can.
    #[error("{what}")]
    Damaged {
        what: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Nothing may go on with this process: exit, restart, recover. Every redb I/O error is one.
    #[error("{what}")]
    Fatal {
        what: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Fault {
    pub fn retryable(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Fault {
        Fault::Retryable { what: what.into(), source: Some(Box::new(source)) }
    }

    pub fn fatal(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Fault {
        Fault::Fatal { what: what.into(), source: Some(Box::new(source)) }
    }

    pub fn damaged(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Fault {
        Fault::Damaged { what: what.into(), source: Some(Box::new(source)) }
    }

    /// Damage that has no deeper source.
    pub fn damaged_plain(what: impl Into<String>) -> Fault {
        Fault::Damaged { what: what.into(), source: None }
    }

    /// A fatal fault that has no deeper source.
    pub fn fatal_plain(what: impl Into<String>) -> Fault {
        Fault::Fatal { what: what.into(), source: None }
    }
}

/// An error with all its sources, for logs and terminals: `a: b: c`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}
