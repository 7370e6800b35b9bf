//! Rows of the users' tables: their items, and what the key of a table is that began with its first use. Owned by the
//! tables of items.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use crate::commit::Commit;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(ItemRow, TableRow);

/// An item of a table of the user's.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ItemRow {
    pub json: String,
}

/// The key of a table that no configuration names: what its first use said.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct TableRow {
    /// The attribute that is the partition key.
    pub key: String,
    /// The attribute that is the sort key.
    pub range: Option<String>,
}

impl Commit {
    pub fn put_item(&mut self, table: &str, key: &str, json: &str) -> &mut Commit {
        let row = ItemRow { json: json.to_owned() };
        self.record.row(Op::Put, Table::Items, &tables::texts(table, key), &row);
        self
    }

    pub fn delete_item(&mut self, table: &str, key: &str) -> &mut Commit {
        self.record.delete(Table::Items, &tables::texts(table, key));
        self
    }

    pub fn put_table(&mut self, table: &str, row: &TableRow) -> &mut Commit {
        self.record.row(Op::Put, Table::TableKeys, &tables::text(table), row);
        self
    }
}

impl Reader {
    pub fn item(&self, table: &str, key: &str) -> Result<Option<String>, Fault> {
        Ok(self.one::<ItemRow>(Table::Items, &tables::texts(table, key))?.map(|row| row.json))
    }

    /// What the key of a table is that began with its first use.
    pub fn table(&self, table: &str) -> Result<Option<TableRow>, Fault> {
        self.one(Table::TableKeys, &tables::text(table))
    }
}

impl Scans {
    /// Items of a table by key, going on after a key.
    pub fn items(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, String)>, Fault> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.under::<ItemRow>(Table::Items, &tables::text(table), after, limit)?;
        Ok(found.into_iter().map(|(key, row)| (key, row.json)).collect())
    }
}
