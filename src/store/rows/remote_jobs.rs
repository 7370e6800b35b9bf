//! Rows of jobs at other services for whose end attempts wait. Owned by `.sync` of those services.

use std::ops::Bound;

use conveyor_base::{Attempt, ExecutionId, Fault};
use rkyv::{Archive, Deserialize, Serialize};

use crate::commit::Commit;
use crate::overlay::Direction;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(RemoteJobRow);

/// A job at another service. Its requests and answers are that service's own, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct RemoteJobRow {
    /// The service, as resources spell it, such as `glue`.
    pub service: String,
    /// The operation that started it.
    pub start: String,
    /// The answer to that.
    pub answer: String,
    /// The request that asks how it is.
    pub ask: String,
    /// The request that stops it.
    pub stop: String,
}

impl Commit {
    /// A job at another service for whose end an attempt waits.
    pub fn put_remote_job(&mut self, id: ExecutionId, attempt: Attempt, row: &RemoteJobRow) -> &mut Commit {
        self.record.row(Op::Put, Table::RemoteJobs, &tables::attempt(id, attempt), row);
        self
    }

    pub fn drop_remote_job(&mut self, id: ExecutionId, attempt: Attempt) -> &mut Commit {
        self.record.delete(Table::RemoteJobs, &tables::attempt(id, attempt));
        self
    }
}

impl Reader {
    pub fn remote_job(&self, id: ExecutionId, attempt: Attempt) -> Result<Option<RemoteJobRow>, Fault> {
        self.one(Table::RemoteJobs, &tables::attempt(id, attempt))
    }
}

impl Scans {
    /// Jobs at other services for whose end attempts wait.
    pub fn remote_jobs(&self) -> Result<Vec<(ExecutionId, Attempt)>, Fault> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let split = tables::split_id_number;
        let found = self.collect::<_, RemoteJobRow>(Table::RemoteJobs, all, Direction::Forward, usize::MAX, split)?;
        Ok(found.into_iter().map(|((id, attempt), _)| (id, Attempt(attempt))).collect())
    }
}
