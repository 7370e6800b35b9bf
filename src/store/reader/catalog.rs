//! Reads of what people define and what the box keeps books on.

use std::ops::{Bound, ControlFlow};

use super::Reader;
use crate::base::{Attempt, ExecutionId, Fault};
use crate::store::overlay::Direction;
use crate::store::rows::{
    ActivityRow, AliasRow, Catalog, DocumentRow, EventRow, FileRow, ItemRow, MachineRow, MessageRow, OutboxRow,
    RevisionRow, VersionRow, damaged,
};
use crate::store::tables::{self, Table};

/// An event, and the target of a rule that it has not reached.
type EventKey = (String, String);

impl Reader {
    pub fn machine(&self, name: &str) -> Result<Option<MachineRow>, Fault> {
        self.one(Table::Machines, &tables::text(name))
    }

    /// Machines by name, beginning at a name.
    pub fn machines(&self, from: Option<&str>, limit: usize) -> Result<Vec<MachineRow>, Fault> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        Ok(self.under(Table::Machines, &[], from, limit)?.into_iter().map(|(_, row)| row).collect())
    }

    pub fn revision(&self, machine: &str, revision: u64) -> Result<Option<RevisionRow>, Fault> {
        self.one(Table::Revisions, &tables::text_number(machine, revision))
    }

    /// The newest revision that was ever stored under this name, also of a deleted machine: numbers are not reused.
    pub fn newest_revision(&self, machine: &str) -> Result<Option<u64>, Fault> {
        let newest = self.numbered::<RevisionRow>(Table::Revisions, machine, u64::MAX, 1)?;
        Ok(newest.first().map(|(number, _)| *number))
    }

    pub fn version(&self, machine: &str, version: u64) -> Result<Option<VersionRow>, Fault> {
        self.one(Table::Versions, &tables::text_number(machine, version))
    }

    /// Published versions, newest first, beginning at a number.
    pub fn versions(&self, machine: &str, from: Option<u64>, limit: usize) -> Result<Vec<(u64, VersionRow)>, Fault> {
        self.numbered(Table::Versions, machine, from.unwrap_or(u64::MAX), limit)
    }

    pub fn alias(&self, machine: &str, alias: &str) -> Result<Option<AliasRow>, Fault> {
        self.one(Table::Aliases, &tables::texts(machine, alias))
    }

    /// All aliases of a machine, by name. There are few: AWS allows 100.
    pub fn aliases(&self, machine: &str) -> Result<Vec<(String, AliasRow)>, Fault> {
        self.under(Table::Aliases, &tables::text(machine), Bound::Unbounded, usize::MAX)
    }

    pub fn activity(&self, name: &str) -> Result<Option<ActivityRow>, Fault> {
        self.one(Table::Activities, &tables::text(name))
    }

    /// Activities by name, beginning at a name.
    pub fn activities(&self, from: Option<&str>, limit: usize) -> Result<Vec<ActivityRow>, Fault> {
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        Ok(self.under(Table::Activities, &[], from, limit)?.into_iter().map(|(_, row)| row).collect())
    }

    /// What was done with a content before.
    pub fn file(&self, hash: &str) -> Result<Option<FileRow>, Fault> {
        self.one(Table::Files, &tables::text(hash))
    }

    pub fn item(&self, table: &str, key: &str) -> Result<Option<String>, Fault> {
        Ok(self.one::<ItemRow>(Table::Items, &tables::texts(table, key))?.map(|row| row.json))
    }

    /// Items of a table by key, going on after a key.
    pub fn items(&self, table: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, String)>, Fault> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.under::<ItemRow>(Table::Items, &tables::text(table), after, limit)?;
        Ok(found.into_iter().map(|(key, row)| (key, row.json)).collect())
    }

    /// Undelivered notifications, oldest first, going on after a number.
    pub fn outbox(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, OutboxRow)>, Fault> {
        let after = after.map(u64::to_be_bytes);
        let start = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        self.collect(Table::Outbox, (start, Bound::Unbounded), Direction::Forward, limit, |key| {
            key.try_into().ok().map(u64::from_be_bytes)
        })
    }

    pub fn event(&self, event: &str, target: &str) -> Result<Option<EventRow>, Fault> {
        self.one(Table::Events, &tables::texts(event, target))
    }

    /// Events that have not reached a target of a rule, by event and target, going on after one.
    pub fn events(&self, after: Option<&EventKey>, limit: usize) -> Result<Vec<(EventKey, EventRow)>, Fault> {
        let after = after.map(|(event, target)| tables::texts(event, target));
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.collect(Table::Events, (start, Bound::Unbounded), Direction::Forward, limit, |key| {
            let (event, rest) = tables::take_text(key)?;
            Some((event, tables::take_text(rest)?.0))
        })
    }

    pub fn message(&self, queue: &str, sequence: u64) -> Result<Option<MessageRow>, Fault> {
        self.one(Table::Queues, &tables::text_number(queue, sequence))
    }

    /// Messages of a queue, oldest first, from a sequence number on.
    pub fn messages(&self, queue: &str, from: u64, limit: usize) -> Result<Vec<(u64, MessageRow)>, Fault> {
        let (first, last) = (tables::text_number(queue, from), tables::text_number(queue, u64::MAX));
        let range = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
        self.collect(Table::Queues, range, Direction::Forward, limit, |key| {
            key.last_chunk().copied().map(u64::from_be_bytes)
        })
    }

    pub fn remote_job(&self, id: ExecutionId, attempt: Attempt) -> Result<Option<String>, Fault> {
        Ok(self.one::<DocumentRow>(Table::RemoteJobs, &tables::attempt(id, attempt))?.map(|row| row.json))
    }

    /// Jobs at other services for whose end attempts wait.
    pub fn remote_jobs(&self) -> Result<Vec<(ExecutionId, Attempt)>, Fault> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let found = self.collect::<_, DocumentRow>(Table::RemoteJobs, all, Direction::Forward, usize::MAX, |key| {
            tables::split_id_number(key)
        })?;
        Ok(found.into_iter().map(|((id, attempt), _)| (id, Attempt(attempt))).collect())
    }

    pub fn schedule(&self, name: &str) -> Result<Option<String>, Fault> {
        Ok(self.one::<DocumentRow>(Table::Schedules, &tables::text(name))?.map(|row| row.json))
    }

    pub fn schedules(&self) -> Result<Vec<(String, String)>, Fault> {
        self.documents(Table::Schedules)
    }

    pub fn alarms(&self) -> Result<Vec<(String, String)>, Fault> {
        self.documents(Table::Alarms)
    }

    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        self.engine().get(Table::Settings, key.as_bytes(), |value| Ok(value.to_vec()))
    }

    fn documents(&self, table: Table) -> Result<Vec<(String, String)>, Fault> {
        let found = self.under::<DocumentRow>(table, &[], Bound::Unbounded, usize::MAX)?;
        Ok(found.into_iter().map(|(name, row)| (name, row.json)).collect())
    }

    fn one<T: Catalog>(&self, table: Table, key: &[u8]) -> Result<Option<T>, Fault> {
        self.engine().get(table, key, |row| T::read(table, row))
    }

    /// Rows whose key is `prefix` and a text, by that text.
    fn under<T: Catalog>(
        &self,
        table: Table,
        prefix: &[u8],
        from: Bound<&str>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Fault> {
        let end = tables::after_prefix(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut start = prefix.to_vec();
        if let Bound::Included(text) | Bound::Excluded(text) = from {
            tables::push_text(&mut start, text);
        }
        let start = match from {
            Bound::Excluded(_) => Bound::Excluded(start.as_slice()),
            Bound::Included(_) | Bound::Unbounded => Bound::Included(start.as_slice()),
        };
        self.collect(table, (start, end), Direction::Forward, limit, |key| {
            tables::take_text(key.get(prefix.len()..)?).map(|(text, _)| text)
        })
    }

    /// Rows whose key is a text and a number, from a number down.
    fn numbered<T: Catalog>(
        &self,
        table: Table,
        text: &str,
        highest: u64,
        limit: usize,
    ) -> Result<Vec<(u64, T)>, Fault> {
        let (first, last) = (tables::text_number(text, 0), tables::text_number(text, highest));
        let range = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
        self.collect(table, range, Direction::Backward, limit, |key| key.last_chunk().copied().map(u64::from_be_bytes))
    }

    fn collect<K, T: Catalog>(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
        name: impl Fn(&[u8]) -> Option<K>,
    ) -> Result<Vec<(K, T)>, Fault> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.engine().snapshot().scan(table, range, direction, |key, row| {
            let name = name(key).ok_or_else(|| damaged(table, "a key is not what was written"))?;
            found.push((name, T::read(table, row)?));
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }
}
