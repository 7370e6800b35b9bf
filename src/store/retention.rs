//! Retention: ended executions leave the database in two steps, first into the archives, then altogether.
//!
//! ```text
//! live ──archive──> archived (header and index entries stay) ──forget──> gone, the day's file with them
//! ```
//!
//! Invariants: an execution's payloads and history are either rows or in the file of the day that its `archived` row
//! names, never neither; the file is synced before the commit that takes the rows out; index entries go in the commit
//! that takes the header, and the file goes last. Every pass may break off anywhere and be repeated. What may still
//! run again is never archived: the caller gives the times, and lets nobody redrive meanwhile. Express children of Map runs
//! are never archived and go when their parent is forgotten.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use conveyor_base::{EventId, ExecutionId, Fault, Older, Timestamp};
use conveyor_interpreter::{HistoryEvent, Json, Status, run_list};

use super::archive::{Kept, dates_of, day_of, file_name};
use super::commit::{Commit, Forgotten};
use super::damages::unless_damaged;
use super::envelope::Sealed;
use super::overlay::{Direction, Snapshot};
use super::reader::{Reader, Scans};
use super::record::Op;
use super::rows::{HeaderRow, PayloadsRow, damaged};
use super::tables::{self, Payload, Table};
use super::writer::Writer;

/// Most executions in one commit of a pass.
const PER_COMMIT: usize = 200;
/// Bytes of payloads and history above which a commit takes no further execution.
const BYTES_PER_COMMIT: usize = 8 << 20;

/// Which executions to archive: those whose end is older.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedBefore {
    pub succeeded: Older,
    /// Those that a redrive could continue for a while.
    pub unsuccessful: Older,
}

/// How far a pass of [`Writer::archive_ended`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    pub archived: usize,
    /// Where to go on; `None` at the end.
    pub reached: Option<ExecutionId>,
}

impl Writer {
    /// Moves payloads and histories of ended executions into the archives, going on after an execution that an
    /// earlier call reached and looking at no more than `limit`.
    ///
    /// For threads that may block, while nobody redrives an execution.
    pub fn archive_ended(&self, before: &EndedBefore, after: Option<ExecutionId>, limit: usize) -> Result<Pass, Fault> {
        let rows = Reader::new(self.engine().clone()).on_this_thread();
        let (mut reached, mut group) = (after, Group::default());
        let mut archived = 0;
        for _ in 0..limit {
            reached = rows.next_to_archive(reached)?;
            let Some(id) = reached else { break };
            // One that is damaged stays where it is, and keeps nobody else from leaving.
            let Some(ended) = unless_damaged(rows.ended(id))?.flatten().filter(|ended| ended.is_before(before)) else {
                continue;
            };
            if unless_damaged(group.take(&rows, &ended))?.is_none() {
                continue;
            }
            archived += 1;
            if group.is_full() {
                self.move_out(std::mem::take(&mut group))?;
            }
        }
        self.move_out(group)?;
        Ok(Pass { archived, reached })
    }

    fn move_out(&self, group: Group) -> Result<(), Fault> {
        for (day, kept) in &group.days {
            self.engine().archives.write(*day, kept)?;
        }
        self.commit_blocking(group.commit)
    }

    /// Forgets the archived executions of days that are older, all of each, and removes those days' files. Says how many
    /// it forgot.
    ///
    /// A day is kept while one of its executions has a parent that was not told yet. For threads that may block.
    pub fn forget_archived(&self, older: &Older) -> Result<usize, Fault> {
        let rows = Reader::new(self.engine().clone()).on_this_thread();
        let mut forgotten = 0;
        for day in self.engine().archives.days()? {
            if older.has_all(dates_of(day)) {
                // A day whose file or rows are damaged stays, and keeps no other day.
                forgotten += unless_damaged(self.forget_day(&rows, day))?.unwrap_or_default();
            }
        }
        Ok(forgotten)
    }

    fn forget_day(&self, rows: &Scans, day: u32) -> Result<usize, Fault> {
        let (mut forgotten, mut needed) = (0, false);
        for group in self.engine().archives.ids(day)?.chunks(PER_COMMIT) {
            let mut commit = Commit::new();
            for &id in group {
                match unless_damaged(self.forget(rows, id, day, &mut commit))? {
                    Some(Disposition::NotInThisFile) => {}
                    // One that is damaged stays, and the file with it: a repair may still need that.
                    Some(Disposition::Needed) | None => needed = true,
                    Some(Disposition::Forgettable(_)) => forgotten += 1,
                }
            }
            self.commit_blocking(commit)?;
        }
        if !needed {
            self.engine().archives.remove(day)?;
        }
        Ok(forgotten)
    }

    /// Adds to the commit that the execution goes, where it may. On an error nothing is added.
    fn forget(&self, rows: &Scans, id: ExecutionId, day: u32, commit: &mut Commit) -> Result<Disposition, Fault> {
        let disposition = rows.disposition_of(id, day)?;
        if let Disposition::Forgettable(gone) = &disposition {
            // All is read before anything is taken out.
            let mut keys = Vec::new();
            for table in [Table::MapRuns, Table::Actions] {
                keys.extend(rows.keys_under(table, id)?.into_iter().map(|(key, _)| (table, key)));
            }
            let names = rows.map_runs_of(id)?.into_iter().map(|(_, row)| row.run.0.to_be_bytes().to_vec());
            keys.extend(names.map(|key| (Table::MapRunNames, key)));
            self.erase_express_children(rows, id)?;
            commit.forget(id, gone);
            keys.iter().for_each(|(table, key)| commit.record.delete(*table, key));
        }
        Ok(disposition)
    }

    /// Express children of an execution's Map runs are in no archive: with the rows of the runs goes what names them. In
    /// commits of their own, since a run may have very many; after a crash the runs still name the rest.
    fn erase_express_children(&self, rows: &Scans, parent: ExecutionId) -> Result<(), Fault> {
        for (_, run) in rows.map_runs_of(parent)? {
            let list = run_list(&run.machine, &run.label, run.run.0);
            for status in [Status::Succeeded, Status::Failed, Status::TimedOut, Status::Aborted] {
                let children = rows.run_children(&list, status)?;
                for group in children.chunks(PER_COMMIT) {
                    let mut commit = Commit::new();
                    for child in group {
                        if rows.is_express_child(child.id)? {
                            for table in [Table::Branches, Table::MapItems, Table::MapPages, Table::Actions] {
                                for (key, _) in rows.keys_under(table, child.id)? {
                                    commit.record.delete(table, &key);
                                }
                            }
                            commit.erase_child(child.id, &list, status, child.items);
                        }
                    }
                    if !commit.is_empty() {
                        self.commit_blocking(commit)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Executions that are archived by one commit.
#[derive(Default)]
struct Group {
    days: BTreeMap<u32, Vec<Kept>>,
    commit: Commit,
    executions: usize,
    bytes: usize,
}

impl Group {
    fn take(&mut self, rows: &Scans, ended: &Ended) -> Result<(), Fault> {
        let (id, day) = (ended.id, day_of(ended.stopped_at));
        // All is read before anything is taken out.
        let events = rows.history(id, EventId(1), usize::MAX, Direction::Forward)?;
        let payloads = rows.payloads(id)?;
        let mut leaving = Vec::new();
        for table in
            [Table::History, Table::Branches, Table::MapItems, Table::MapPages, Table::Payloads, Table::ItemPages]
        {
            leaving.extend(rows.keys_under(table, id)?.into_iter().map(|(key, bytes)| (table, key, bytes)));
        }
        let record = &mut self.commit.record;
        for (table, key, bytes) in leaving {
            record.delete(table, &key);
            self.bytes += bytes;
        }
        record.plain(Op::Put, Table::Archived, &id.to_bytes(), &day.to_be_bytes());
        self.days.entry(day).or_default().push(Kept { id, payloads, events });
        self.executions += 1;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.executions >= PER_COMMIT || self.bytes >= BYTES_PER_COMMIT
    }
}

/// An execution that ended, as a pass finds it.
struct Ended {
    id: ExecutionId,
    stopped_at: Timestamp,
    succeeded: bool,
}

impl Ended {
    fn is_before(&self, before: &EndedBefore) -> bool {
        let older = if self.succeeded { &before.succeeded } else { &before.unsuccessful };
        older.has(self.stopped_at)
    }
}

/// What retention may do with an execution that a day's file holds.
enum Disposition {
    Forgettable(Forgotten),
    Needed,
    /// A crash came between writing the file and taking the rows out.
    NotInThisFile,
}

/// The day whose file holds the execution's payloads and history.
pub(super) fn archived_day(snapshot: &Snapshot, id: ExecutionId) -> Result<Option<u32>, Fault> {
    snapshot.get(Table::Archived, &id.to_bytes(), day_from)
}

pub(super) fn day_from(row: Sealed<'_>) -> Result<u32, Fault> {
    row.plain()?.try_into().map(u32::from_be_bytes).map_err(|_| row.damaged("a row is no day"))
}

impl Reader {
    /// Whether the execution has left the database but for its header and index entries. It never comes back.
    pub fn is_archived(&self, id: ExecutionId) -> Result<bool, Fault> {
        Ok(self.archived_day(id)?.is_some())
    }

    pub(super) fn archived_day(&self, id: ExecutionId) -> Result<Option<u32>, Fault> {
        self.engine().get(Table::Archived, &id.to_bytes(), day_from)
    }
}

impl Scans {
    /// The events of an archived execution. Empty where retention forgot it a moment ago.
    pub(super) fn archived_history(&self, day: u32, id: ExecutionId) -> Result<Vec<HistoryEvent>, Fault> {
        let found = self.engine().archives.history(day, id);
        Ok(self.unless_forgotten(day, id, found)?.unwrap_or_default())
    }

    /// Input and output of an archived execution. `None` where retention forgot it a moment ago.
    pub(super) fn archived_payloads(&self, day: u32, id: ExecutionId) -> Result<Option<(Json, Option<Json>)>, Fault> {
        let found = self.engine().archives.payloads(day, id);
        self.unless_forgotten(day, id, found)
    }

    /// A file without the execution, or no file at all, is a fault only while a row says that it is there.
    fn unless_forgotten<T>(
        &self,
        day: u32,
        id: ExecutionId,
        found: Result<Option<T>, Fault>,
    ) -> Result<Option<T>, Fault> {
        if let Ok(Some(_)) = found {
            return found;
        }
        match self.archived_day(id)? {
            None => Ok(None),
            Some(_) => Err(found.err().unwrap_or_else(|| lacks(day, id))),
        }
    }

    /// The next execution that may be archived: one that has rows in the history table. Where that is damaged, the next
    /// one that there is at all and that was not archived.
    fn next_to_archive(&self, after: Option<ExecutionId>) -> Result<Option<ExecutionId>, Fault> {
        match unless_damaged(self.next_with_history(after))? {
            Some(next) => Ok(next),
            None => Ok(unless_damaged(self.next_unarchived(after))?.flatten()),
        }
    }

    fn next_unarchived(&self, after: Option<ExecutionId>) -> Result<Option<ExecutionId>, Fault> {
        let start = after.map(|id| id.to_bytes());
        let start = start.as_ref().map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_slice()));
        let (snapshot, mut next) = (self.engine().snapshot(), None);
        snapshot.scan(Table::Executions, (start, Bound::Unbounded), Direction::Forward, |key, row| {
            let Some((id, _)) = tables::split_id(key) else { return Ok(ControlFlow::Continue(())) };
            let is_express = unless_damaged(row.access::<HeaderRow>())?
                .is_none_or(|row| row.child().is_some_and(|child| child.express));
            if is_express || archived_day(&snapshot, id)?.is_some() {
                return Ok(ControlFlow::Continue(()));
            }
            next = Some(id);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(next)
    }

    fn next_with_history(&self, after: Option<ExecutionId>) -> Result<Option<ExecutionId>, Fault> {
        let start = after.map(|id| tables::history(id, EventId(u64::MAX)));
        let start = start.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut next = None;
        self.engine().snapshot().scan(Table::History, (start, Bound::Unbounded), Direction::Forward, |key, _| {
            next = tables::split_id(key).map(|(id, _)| id);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(next)
    }

    /// The keys that begin with the execution, each with how much it and its row take.
    fn keys_under(&self, table: Table, id: ExecutionId) -> Result<Vec<(Vec<u8>, usize)>, Fault> {
        let first = id.to_bytes();
        let end = tables::after_prefix(&first);
        let range = (Bound::Included(first.as_slice()), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let mut keys = Vec::new();
        self.engine().snapshot().scan(table, range, Direction::Forward, |key, row| {
            keys.push((key.to_vec(), row.bytes()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
    }

    fn payloads(&self, id: ExecutionId) -> Result<PayloadsRow, Fault> {
        let snapshot = self.engine().snapshot();
        let text = |which| {
            snapshot.get(Table::Payloads, &tables::payload(id, which), |text| {
                String::from_utf8(text.plain()?.to_vec()).map_err(|_| damaged(Table::Payloads, "a row is no text"))
            })
        };
        let input = text(Payload::Input)?;
        let input = input.ok_or_else(|| damaged(Table::Payloads, &format!("execution {id} has no input")))?;
        Ok(PayloadsRow { input, output: text(Payload::Output)? })
    }

    fn ended(&self, id: ExecutionId) -> Result<Option<Ended>, Fault> {
        let ended = self.engine().get(Table::Executions, &id.to_bytes(), |row| {
            let row = row.access::<HeaderRow>()?;
            let over = !matches!(row.status()?, Status::Running | Status::PendingRedrive);
            let succeeded = row.succeeded();
            Ok(row.stopped_at().filter(|_| over).map(|stopped_at| Ended { id, stopped_at, succeeded }))
        })?;
        Ok(ended.flatten())
    }

    /// Those of standard runs are archived and forgotten by themselves.
    fn is_express_child(&self, id: ExecutionId) -> Result<bool, Fault> {
        let found = self.engine().get(Table::Executions, &id.to_bytes(), |row| {
            Ok(row.access::<HeaderRow>()?.child().is_some_and(|child| child.express))
        })?;
        Ok(found.unwrap_or_default())
    }

    fn disposition_of(&self, id: ExecutionId, day: u32) -> Result<Disposition, Fault> {
        let snapshot = self.engine().snapshot();
        if archived_day(&snapshot, id)? != Some(day) {
            return Ok(Disposition::NotInThisFile);
        }
        let told = snapshot.get(Table::Deliveries, &id.to_bytes(), |_| Ok(()))?.is_none();
        let found = snapshot.get(Table::Executions, &id.to_bytes(), |row| {
            let row = row.access::<HeaderRow>()?;
            let (list, name, status) = (row.list().into_owned(), row.name.to_string(), row.status()?);
            let owner =
                snapshot.get(Table::ByName, &tables::texts(&list, &name), |row| Ok(row.plain()? == id.to_bytes()))?;
            let items = row.child().map_or(1, |child| child.items);
            Ok(Disposition::Forgettable(Forgotten { list, name, status, owns_name: owner == Some(true), items }))
        })?;
        Ok(found.filter(|_| told).unwrap_or(Disposition::Needed))
    }
}

fn lacks(day: u32, id: ExecutionId) -> Fault {
    let what = format!(
        "the archive {} lacks execution {id}; restore the file from a backup, or leave it to retention",
        file_name(day)
    );
    Fault::Retryable { what, source: None }
}
