//! Floor 6: files that people drop on a share become executions.
//!
//! ```text
//! notify events ─┐
//!                ├─▶ scan::look ─▶ settle (whole?) ─▶ land (start by name, store the landing)
//! own scan ──────┘
//! ```
//!
//! [`settle`] says when a file is whole, [`name`] which names count and what an execution for a file is called,
//! [`land`] starts it, and [`watch`] runs one share. Invariants: a file starts once, since its execution's name
//! follows from its name and content; a share that is away is never taken for an empty one; nothing is deleted.

pub mod land;
pub mod name;
pub mod scan;
pub mod settle;
pub mod watch;

use futures::future::BoxFuture;

use crate::base::{ExecutionId, Fault, Timestamp};
use crate::run::{self, Handle};
use crate::store::Commit;

pub use watch::{WatchSettings, WatchStatus, Watcher};

/// What ingest wants of the running appliance: of a [`Handle`], or of a recorder in tests.
pub trait Starter: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    /// Starts the newest revision of the workflow; resolves once the start is durable.
    fn start(&self, workflow: &str, name: &str, input: String) -> BoxFuture<'_, Result<Start, Fault>>;
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), Fault>>;
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    Started(ExecutionId),
    /// An execution of that name exists: this very file was started before.
    Existed,
    /// The appliance refuses: no such workflow, too many executions. Trying again later is right.
    Refused(String),
}

impl Starter for Handle {
    fn now(&self) -> Timestamp {
        Handle::now(self)
    }

    fn start(&self, workflow: &str, name: &str, input: String) -> BoxFuture<'_, Result<Start, Fault>> {
        let request = run::Start {
            machine: workflow.to_owned(),
            name: Some(name.to_owned()),
            input: input.into(),
            ..run::Start::default()
        };
        Box::pin(async move {
            match Handle::start(self, request).await {
                Ok(started) if started.existed => Ok(Start::Existed),
                Ok(started) => Ok(Start::Started(started.id)),
                Err(refused) if refused.code == "ExecutionAlreadyExists" => Ok(Start::Existed),
                Err(refused) if refused.code == "InternalFailure" => Err(Fault::fatal_plain(refused.message)),
                Err(refused) => Ok(Start::Refused(refused.message)),
            }
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(Handle::commit(self, commit))
    }
}
