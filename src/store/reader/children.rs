//! Which execution started which: the children whose end has not been told yet.

use conveyor_base::{Attempt, ExecutionId, Fault};
use conveyor_interpreter::Parent;

use super::{Paged, Reader, Scans, each};
use crate::envelope::Sealed;
use crate::rows::{child_from, damaged};
use crate::tables::{self, Table};

/// A child, from its start until its parent was told how it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    pub id: ExecutionId,
    pub parent: Parent,
}

fn child(key: &[u8], row: Sealed<'_>) -> Result<Child, Fault> {
    let (execution, attempt) =
        tables::split_id_number(key).ok_or_else(|| damaged(Table::Children, "a key is no attempt"))?;
    let (id, shape) = child_from(row.plain()?)?;
    Ok(Child { id, parent: Parent { execution, attempt: Attempt(attempt), shape: shape.to_owned() } })
}

impl Reader {
    /// The child that the attempt started.
    pub fn child_of(&self, parent: ExecutionId, attempt: Attempt) -> Result<Option<Child>, Fault> {
        let key = tables::attempt(parent, attempt);
        self.engine().get(Table::Children, &key, |row| child(&key, row))
    }
}

impl Scans {
    /// The children that the execution started, by attempt.
    pub fn children_of(&self, parent: ExecutionId) -> Result<Vec<Child>, Fault> {
        let mut children = Vec::new();
        each(&self.engine().snapshot(), Table::Children, &parent.to_bytes(), |key, row| {
            children.push(child(key, row)?);
            Ok(())
        })?;
        Ok(children)
    }

    /// All children, those of one parent after another.
    pub fn children(&self) -> impl Iterator<Item = Result<Child, Fault>> + use<> {
        let rows = self.on_this_thread();
        Paged::new(move |after| rows.page(Table::Children, after, child))
    }
}
