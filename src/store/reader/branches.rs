//! Reads of single branches, and of who waits for what: what they cost does not grow with the execution. Where a step
//! needs very many of them, it says so, and whoever steps it asks [`Scans`] for them.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, ExecutionId, Fault, TimerId, Timestamp};
use conveyor_interpreter::{Branch, Item, Partial, Rows};
use serde_json::Value;

use super::{Reader, Scans, branch_of};
use crate::envelope::Sealed;
use crate::overlay::Direction;
use crate::rows::{self, BranchRow, ITEMS_PER_PAGE, MapPageRow, TaskRow};
use crate::tables::{self, Table};

/// Branches that are read one by one: as many as a Parallel state may well have.
const BRANCHES_NEAR: u32 = 64;
/// Branches that are read one by one where a walk came upon damage.
const BRANCHES_CONFIRMED: u32 = 100_000;

impl Reader {
    /// The execution's header; the rest of it is read as steps need it, from [`Reader::rows`]. One that is archived is
    /// read on a thread that may block.
    pub async fn partial(&self, id: ExecutionId) -> Result<Option<Partial>, Fault> {
        Ok(self.header(id).await?.map(Partial::of))
    }

    /// The rows of one execution, one by one.
    pub fn rows(&self, id: ExecutionId) -> StoredRows<'_> {
        StoredRows { reader: self, id, walks: false }
    }

    pub fn branch(&self, id: ExecutionId, branch: BranchId) -> Result<Option<Branch>, Fault> {
        let read = |row: Sealed| rows::branch_from(row.access::<BranchRow>()?);
        self.engine().get(Table::Branches, &tables::branch(id, branch), read)
    }

    /// The branch that waits for the attempt's outcome; `None` where nobody does any more.
    pub fn branch_of_attempt(&self, id: ExecutionId, attempt: Attempt) -> Result<Option<BranchId>, Fault> {
        let key = tables::attempt(id, attempt);
        self.engine().again(|| {
            // At one moment: a submission moves the attempt from one table to the other.
            let [submitted, outstanding] = self.engine().find([(Table::Submitted, &key), (Table::Outstanding, &key)]);
            match submitted.look(Table::Submitted, &key, waiter)? {
                Some(branch) => Ok(Some(branch)),
                None => outstanding
                    .look(Table::Outstanding, &key, |row| Ok(BranchId(row.access::<TaskRow>()?.branch.to_native()))),
            }
        })
    }

    /// Whom a timer wakes: a branch, or (the inner `None`) the execution itself. The outer `None` where the timer is not
    /// set any more.
    pub fn timer(&self, due: Timestamp, id: ExecutionId, timer: TimerId) -> Result<Option<Option<BranchId>>, Fault> {
        self.engine().get(Table::Timers, &tables::timer(due, id, timer), |value| {
            if value.plain()?.is_empty() { Ok(None) } else { waiter(value).map(Some) }
        })
    }
}

fn waiter(value: Sealed) -> Result<BranchId, Fault> {
    tables::waiter_from(value.plain()?).ok_or_else(|| value.damaged("a row leads to no branch"))
}

impl Scans {
    /// The rows of one execution, however many are asked for.
    pub fn rows(&self, id: ExecutionId) -> StoredRows<'_> {
        StoredRows { reader: self, id, walks: true }
    }
}

/// The rows of one execution as they are stored, for [`Partial::read`].
#[derive(Clone, Copy)]
pub struct StoredRows<'r> {
    reader: &'r Reader,
    id: ExecutionId,
    /// They are read on a thread that may block.
    walks: bool,
}

/// Why rows of an execution were not read.
#[derive(Debug)]
pub enum NotRead {
    Fault(Fault),
    /// So many branches are read by [`Scans::rows`] only.
    TooMany,
}

impl From<NotRead> for Fault {
    fn from(not_read: NotRead) -> Fault {
        match not_read {
            NotRead::Fault(fault) => fault,
            NotRead::TooMany => {
                Fault::fatal_plain("branches of an execution were asked for where they cannot be walked")
            }
        }
    }
}

impl From<Fault> for NotRead {
    fn from(fault: Fault) -> NotRead {
        NotRead::Fault(fault)
    }
}

impl StoredRows<'_> {
    fn walk(&self, first: BranchId, end: BranchId) -> Result<Vec<(BranchId, Branch)>, Fault> {
        let (first, end) = (tables::branch(self.id, first), tables::branch(self.id, end));
        let range = (Bound::Included(first.as_slice()), Bound::Excluded(end.as_slice()));
        let mut branches = Vec::new();
        self.reader.engine().snapshot().scan(Table::Branches, range, Direction::Forward, |key, row| {
            let branch = rows::branch_from(row.access::<BranchRow>()?)?;
            branches.push((branch_of(Table::Branches, key)?, branch));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(branches)
    }
}

impl Rows for StoredRows<'_> {
    type Fault = NotRead;

    fn branch(&self, id: BranchId) -> Result<Option<Branch>, NotRead> {
        Ok(self.reader.branch(self.id, id)?)
    }

    fn branches(&self, first: BranchId, count: u32) -> Result<Vec<(BranchId, Branch)>, NotRead> {
        let end = BranchId(first.0.saturating_add(count));
        let one_by_one = || {
            let there = |number| {
                let id = BranchId(number);
                self.reader.branch(self.id, id).map(|branch| Some((id, branch?))).transpose()
            };
            (first.0..end.0).filter_map(there).collect::<Result<Vec<_>, Fault>>()
        };
        if count <= BRANCHES_NEAR {
            return Ok(one_by_one()?);
        }
        if !self.walks {
            return Err(NotRead::TooMany);
        }
        match self.walk(first, end) {
            // A walk looks at the page behind the last row as well, which may be another execution's.
            Err(Fault::Damaged { .. }) if count <= BRANCHES_CONFIRMED => Ok(one_by_one()?),
            walked => Ok(walked?),
        }
    }

    fn awaits(&self, attempt: Attempt) -> Result<Option<BranchId>, NotRead> {
        Ok(self.reader.branch_of_attempt(self.id, attempt)?)
    }

    fn map_input(&self, id: BranchId) -> Result<Option<Arc<Value>>, NotRead> {
        let key = tables::branch(self.id, id);
        Ok(self.reader.engine().get(Table::MapItems, &key, |row| rows::map_input_from(row.plain()?))?)
    }

    fn map_item(&self, id: BranchId, index: u32) -> Result<Option<Item>, NotRead> {
        let key = tables::map_page(self.id, id, index / ITEMS_PER_PAGE);
        let read = |row: Sealed| rows::map_page_from(row.access::<MapPageRow>()?);
        let page = self.reader.engine().get(Table::MapPages, &key, read)?;
        Ok(page.and_then(|items| items.into_iter().nth((index % ITEMS_PER_PAGE) as usize)))
    }
}
