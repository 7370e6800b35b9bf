//! Rows of state machines: their definitions, published versions and aliases. Owned by the catalog of machines.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Stamp, Tag};
use crate::commit::Commit;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(MachineRow, RevisionRow, VersionRow, AliasRow);

/// Whether executions are durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum MachineKind {
    Standard,
    Express,
}

/// A state machine: what its revisions share.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct MachineRow {
    pub name: String,
    pub kind: MachineKind,
    /// The revision that new executions run.
    pub revision: u64,
    /// The newest published version; 0 for none.
    pub version: u64,
    /// DELETING: takes no new executions, and goes when its last one has ended.
    pub deleting: bool,
    pub created_at: Stamp,
    pub updated_at: Stamp,
    pub tags: Vec<Tag>,
}

/// One definition of a machine, immutable.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct RevisionRow {
    /// The definition exactly as it came in.
    pub definition: String,
    pub role_arn: String,
    /// Logging, tracing and encryption settings as JSON: the API reads them, the store does not.
    pub settings: String,
    /// What AWS calls `revisionId`; the first revision of a machine has none.
    pub revision_id: Option<String>,
    pub created_at: Stamp,
}

/// A published version: a number that points at a revision for ever.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct VersionRow {
    pub revision: u64,
    pub description: String,
    pub created_at: Stamp,
}

/// A name for one version, or two by weight.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct AliasRow {
    pub description: String,
    pub routes: Vec<Route>,
    pub created_at: Stamp,
    pub updated_at: Stamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Route {
    pub version: u64,
    pub weight_percent: u8,
}

impl Commit {
    pub fn put_machine(&mut self, row: &MachineRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Machines, &tables::text(&row.name), row);
        self
    }

    /// The machine goes; its revisions stay for the executions that ran them.
    pub fn delete_machine(&mut self, name: &str) -> &mut Commit {
        self.record.delete(Table::Machines, &tables::text(name));
        self
    }

    pub fn put_revision(&mut self, machine: &str, revision: u64, row: &RevisionRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Revisions, &tables::text_number(machine, revision), row);
        self
    }

    pub fn put_version(&mut self, machine: &str, version: u64, row: &VersionRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Versions, &tables::text_number(machine, version), row);
        self
    }

    pub fn delete_version(&mut self, machine: &str, version: u64) -> &mut Commit {
        self.record.delete(Table::Versions, &tables::text_number(machine, version));
        self
    }

    pub fn put_alias(&mut self, machine: &str, alias: &str, row: &AliasRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Aliases, &tables::texts(machine, alias), row);
        self
    }

    pub fn delete_alias(&mut self, machine: &str, alias: &str) -> &mut Commit {
        self.record.delete(Table::Aliases, &tables::texts(machine, alias));
        self
    }
}

impl Reader {
    pub fn machine(&self, name: &str) -> Result<Option<MachineRow>, Fault> {
        self.one(Table::Machines, &tables::text(name))
    }

    pub fn revision(&self, machine: &str, revision: u64) -> Result<Option<RevisionRow>, Fault> {
        self.one(Table::Revisions, &tables::text_number(machine, revision))
    }

    pub fn version(&self, machine: &str, version: u64) -> Result<Option<VersionRow>, Fault> {
        self.one(Table::Versions, &tables::text_number(machine, version))
    }

    pub fn alias(&self, machine: &str, alias: &str) -> Result<Option<AliasRow>, Fault> {
        self.one(Table::Aliases, &tables::texts(machine, alias))
    }
}

impl Scans {
    /// Machines by name, beginning at a name.
    pub fn machines(&self, from: Option<&str>, limit: usize) -> Result<Vec<MachineRow>, Fault> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        Ok(self.under(Table::Machines, &[], from, limit)?.into_iter().map(|(_, row)| row).collect())
    }

    /// The newest revision that was ever stored under this name, also of a deleted machine: numbers are not reused.
    pub fn newest_revision(&self, machine: &str) -> Result<Option<u64>, Fault> {
        let newest = self.numbered::<RevisionRow>(Table::Revisions, machine, u64::MAX, 1)?;
        Ok(newest.first().map(|(number, _)| *number))
    }

    /// Published versions, newest first, beginning at a number.
    pub fn versions(&self, machine: &str, from: Option<u64>, limit: usize) -> Result<Vec<(u64, VersionRow)>, Fault> {
        self.numbered(Table::Versions, machine, from.unwrap_or(u64::MAX), limit)
    }

    /// All aliases of a machine, by name. There are few: AWS allows 100.
    pub fn aliases(&self, machine: &str) -> Result<Vec<(String, AliasRow)>, Fault> {
        self.under(Table::Aliases, &tables::text(machine), Bound::Unbounded, usize::MAX)
    }
}
