//! Rows of approvals: what waits for a person's decision. Owned by the approvals.

use std::ops::Bound;

use conveyor_base::{Attempt, ExecutionId, Fault};
use rkyv::{Archive, Deserialize, Serialize};

use super::Stamp;
use crate::commit::Commit;
use crate::overlay::Direction;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(ApprovalRow);

/// What an attempt asks a person.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ApprovalRow {
    /// The task token that the decision is sent with.
    pub token: String,
    /// The name of the state that asks.
    pub state: String,
    pub title: String,
    /// All that was asked, as JSON: the Task's parameters.
    pub asked: String,
    pub since: Stamp,
}

impl Commit {
    /// The same attempt twice is the same approval.
    pub fn put_approval(&mut self, id: ExecutionId, attempt: Attempt, row: &ApprovalRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Approvals, &tables::attempt(id, attempt), row);
        self
    }

    pub fn delete_approval(&mut self, id: ExecutionId, attempt: Attempt) -> &mut Commit {
        self.record.delete(Table::Approvals, &tables::attempt(id, attempt));
        self
    }
}

impl Reader {
    pub fn approval(&self, id: ExecutionId, attempt: Attempt) -> Result<Option<ApprovalRow>, Fault> {
        self.one(Table::Approvals, &tables::attempt(id, attempt))
    }
}

impl Scans {
    /// What waits for a decision, those of the oldest executions first, going on after one of them.
    pub fn approvals(
        &self,
        after: Option<(ExecutionId, Attempt)>,
        limit: usize,
    ) -> Result<Vec<(ExecutionId, Attempt, ApprovalRow)>, Fault> {
        let after = after.map(|(id, attempt)| tables::attempt(id, attempt));
        let range = (after.as_deref().map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let found = self.collect(Table::Approvals, range, Direction::Forward, limit, tables::split_id_number)?;
        Ok(found.into_iter().map(|((id, attempt), row)| (id, Attempt(attempt), row)).collect())
    }
}
