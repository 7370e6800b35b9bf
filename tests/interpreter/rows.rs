//! The rows of an execution as a store would give them, one by one, and how many of them were read.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use conveyor_base::{Attempt, BranchId};
use conveyor_interpreter::{Branch, Execution, Item, Lacks, Partial, Rows, Step};
use serde_json::Value;

pub struct Counted<'e> {
    execution: &'e Execution,
    pub read: Cell<usize>,
}

impl<'e> Counted<'e> {
    pub fn of(execution: &'e Execution) -> Counted<'e> {
        Counted { execution, read: Cell::new(0) }
    }

    /// Decides, reading what is lacking, and nothing twice.
    pub fn decide(&self, partial: &mut Partial, decide: impl Fn(&Partial) -> Result<Step, Lacks>) -> Step {
        let mut asked = BTreeSet::new();
        loop {
            match decide(partial) {
                Ok(step) => return step,
                Err(Lacks::Time) => panic!("nothing here takes long"),
                Err(Lacks::Row(unread)) => {
                    assert!(asked.insert(format!("{unread:?}")), "{unread:?} was read, and is lacking again");
                    partial.read(unread, self).unwrap();
                }
            }
        }
    }

    fn count(&self, rows: usize) {
        self.read.set(self.read.get() + rows);
    }
}

impl Rows for Counted<'_> {
    type Fault = Infallible;

    fn branch(&self, id: BranchId) -> Result<Option<Branch>, Infallible> {
        self.count(1);
        Ok(self.execution.branches.get(&id).cloned())
    }

    fn branches(&self, first: BranchId, count: u32) -> Result<Vec<(BranchId, Branch)>, Infallible> {
        let range = first..BranchId(first.0.saturating_add(count));
        let found: Vec<_> = self.execution.branches.range(range).map(|(id, branch)| (*id, branch.clone())).collect();
        self.count(found.len());
        Ok(found)
    }

    fn awaits(&self, attempt: Attempt) -> Result<Option<BranchId>, Infallible> {
        self.count(1);
        Ok(self.execution.branch_of_attempt(attempt))
    }

    fn map_input(&self, id: BranchId) -> Result<Option<Arc<Value>>, Infallible> {
        self.count(1);
        Ok(self.execution.items.get(&id).map(|map| map.input.clone()))
    }

    fn map_item(&self, id: BranchId, index: u32) -> Result<Option<Item>, Infallible> {
        self.count(1);
        Ok(self.execution.items.get(&id).and_then(|map| map.items.get(index as usize)).cloned())
    }
}
