//! Rows of activities: names under which workers ask for tasks.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Stamp, Tag};
use crate::commit::Commit;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(ActivityRow);

#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ActivityRow {
    pub name: String,
    pub created_at: Stamp,
    /// The encryption settings as JSON, as machines have them.
    pub settings: String,
    pub tags: Vec<Tag>,
}

impl Commit {
    pub fn put_activity(&mut self, row: &ActivityRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Activities, &tables::text(&row.name), row);
        self
    }

    pub fn delete_activity(&mut self, name: &str) -> &mut Commit {
        self.record.delete(Table::Activities, &tables::text(name));
        self
    }
}

impl Reader {
    pub fn activity(&self, name: &str) -> Result<Option<ActivityRow>, Fault> {
        self.one(Table::Activities, &tables::text(name))
    }
}

impl Scans {
    /// Activities by name, beginning at a name.
    pub fn activities(&self, from: Option<&str>, limit: usize) -> Result<Vec<ActivityRow>, Fault> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        Ok(self.under(Table::Activities, &[], from, limit)?.into_iter().map(|(_, row)| row).collect())
    }
}
