//! Files that people drop on a share become executions.
//!
//! ```text
//! notify events ─┐
//!                ├─▶ scan ──────▶ settle (whole?) ─▶ land (one commit: the start by name, the landing)
//! own scan ──────┘
//! ```
//!
//! [`settle`] says when a file is whole, with [`whole`] where its content tells it, [`name`] which names count and what an
//! execution for a file is called, [`land`] starts it, [`again`] says which are tried again, [`second`] what comes back out of
//! quarantine, and [`watch`] runs one share. Invariants: a file starts once, since its execution's name follows from its name
//! and content, and again only when that run failed and left it; a share that is away is never taken for an empty one; nothing
//! is deleted.
//!
//! Must never: decode what was dropped or read it through, or start anything but by the commit that also says so.

mod again;
mod events;
mod land;
mod name;
mod problems;
mod scan;
mod second;
mod settings;
mod settle;
mod watch;
mod whole;

use conveyor_base::{ExecutionId, Fault, Older, Span, Timestamp};
use conveyor_run::{self as run, Handle, OnBehalf};
use conveyor_store::Commit;
use futures::future::BoxFuture;

pub use land::Landing;
pub use settings::{WatchSettings, WatchStatus};
pub use watch::Watcher;

/// What ingest wants of the running appliance: of a [`Handle`], or of a recorder in tests.
pub trait Starter: Send + Sync + 'static {
    /// By the box's own time, which nobody sets.
    fn now(&self) -> Timestamp;
    /// By the wall clock.
    fn wall(&self) -> Timestamp;
    /// What is older than so long, whatever the wall clock showed meanwhile.
    fn older_than(&self, age: Span) -> Older;
    /// Starts the newest revision of the workflow, in one commit with the landing; resolves once both are durable. Where
    /// the execution exists the landing is stored by itself, and where the start is refused it is not.
    fn start(
        &self,
        workflow: &str,
        name: &str,
        input: String,
        landing: Landing,
    ) -> BoxFuture<'_, Result<StartOutcome, Fault>>;
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), Fault>>;
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
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

    fn wall(&self) -> Timestamp {
        Handle::wall(self)
    }

    fn older_than(&self, age: Span) -> Older {
        self.clock().older_than(i64::try_from(age.ms).unwrap_or(i64::MAX))
    }

    fn start(
        &self,
        workflow: &str,
        name: &str,
        input: String,
        landing: Landing,
    ) -> BoxFuture<'_, Result<StartOutcome, Fault>> {
        let request = run::StartRequest {
            machine: workflow.to_owned(),
            name: Some(name.to_owned()),
            input: input.into(),
            // The landing is durable; so must be what it says has started.
            once: true,
            ..run::StartRequest::default()
        };
        let along = OnBehalf::default().with(move |commit| landing.store(commit));
        let handle = self.on_behalf(along.clone());
        Box::pin(async move {
            let start = match handle.start(request).await {
                Ok(started) if started.existed => StartOutcome::Existed,
                Ok(started) => StartOutcome::Started(started.id),
                Err(refused) if refused.code == "ExecutionAlreadyExists" => StartOutcome::Existed,
                Err(refused) if refused.code == "InternalFailure" => return Err(Fault::fatal_plain(refused.message)),
                Err(refused) => return Ok(StartOutcome::Refused(refused.message)),
            };
            // What existed, or is express, had no commit to go along with.
            let mut left = Commit::new();
            along.join(&mut left);
            if !left.is_empty() {
                Handle::commit(self, left).await?;
            }
            Ok(start)
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(Handle::commit(self, commit))
    }
}
