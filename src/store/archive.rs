//! Archives: the history of ended executions, compressed, in one file for each day on which executions ended.
//!
//! The database would grow for ever otherwise. Moving is safe to repeat: the archive is synced before the commit that
//! takes the rows out of the state file. Retention first forgets a day's executions, then removes the day's file
//! whole. Invariant: an execution's history is in the history table, in the file that its `archived` row names, or,
//! after a redrive, in both, one after the other.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::commit::Commit;
use super::disk::{Backends, Disk};
use super::overlay::{Direction, Overlay};
use super::reader::Reader;
use super::rows::{self, HeaderRow, HistoryRow, access, damaged};
use super::tables::{self, Table};
use super::writer::Writer;
use crate::base::{EventId, ExecutionId, Fault, Timestamp};
use crate::interpreter::{HistoryEvent, Status};

const BLOBS: TableDefinition<u128, &[u8]> = TableDefinition::new("history");
const ZSTD_LEVEL: i32 = 3;
const DAY_MS: i64 = 86_400_000;
/// Most executions in one commit of a pass.
const PER_COMMIT: usize = 200;
const CACHE_BYTES: usize = 4 << 20;

/// The files of the days, opened when touched.
pub(super) struct Archives {
    disk: Arc<dyn Backends>,
    open: Mutex<BTreeMap<u32, Arc<Database>>>,
}

fn day_of(at: Timestamp) -> u32 {
    u32::try_from(at.0.max(0) / DAY_MS).unwrap_or(u32::MAX)
}

fn file_name(day: u32) -> String {
    format!("history-{day:06}.redb")
}

fn file_day(name: &str) -> Option<u32> {
    name.strip_prefix("history-")?.strip_suffix(".redb")?.parse().ok()
}

fn archive_fault(day: u32, error: impl Into<redb::Error>) -> Fault {
    Fault::fatal(format!("the archive {} failed; check its disk, then restart", file_name(day)), error.into())
}

impl Archives {
    pub fn new(disk: Arc<dyn Backends>) -> Archives {
        Archives { disk, open: Mutex::default() }
    }

    fn day(&self, day: u32, make: bool) -> Result<Option<Arc<Database>>, Fault> {
        let mut open = self.open.lock();
        if let Some(database) = open.get(&day) {
            return Ok(Some(database.clone()));
        }
        let (name, io) = (file_name(day), |e: std::io::Error| archive_fault(day, redb::Error::Io(e)));
        if !self.disk.exists(&name).map_err(io)? {
            if !make {
                return Ok(None);
            }
            let temporary = format!("{name}.new");
            self.disk.remove(&temporary).map_err(io)?;
            let file = Disk(self.disk.open(&temporary).map_err(io)?);
            let database = redb::Builder::new().create_with_backend(file).map_err(|e| archive_fault(day, e))?;
            let transaction = database.begin_write().map_err(|e| archive_fault(day, e))?;
            transaction.open_table(BLOBS).map_err(|e| archive_fault(day, e))?;
            transaction.commit().map_err(|e| archive_fault(day, e))?;
            drop(database);
            self.disk.rename(&temporary, &name).map_err(io)?;
        }
        let file = Disk(self.disk.open(&name).map_err(io)?);
        let mut builder = redb::Builder::new();
        let database = builder.set_cache_size(CACHE_BYTES).create_with_backend(file);
        let database = Arc::new(database.map_err(|e| archive_fault(day, e))?);
        open.insert(day, database.clone());
        Ok(Some(database))
    }

    fn read(&self, day: u32, id: ExecutionId) -> Result<Option<Vec<HistoryEvent>>, Fault> {
        let Some(database) = self.day(day, false)? else { return Ok(None) };
        let transaction = database.begin_read().map_err(|e| archive_fault(day, e))?;
        let blobs = transaction.open_table(BLOBS).map_err(|e| archive_fault(day, e))?;
        let Some(blob) = blobs.get(id.0).map_err(|e| archive_fault(day, e))? else { return Ok(None) };
        let row = zstd::stream::decode_all(blob.value())
            .map_err(|e| damaged(Table::Archived, &format!("the archived history of {id} does not unpack ({e})")))?;
        rows::events_from(access::<HistoryRow>(Table::History, &row)?).map(Some)
    }

    fn write(&self, day: u32, histories: &[(ExecutionId, Vec<HistoryEvent>)]) -> Result<(), Fault> {
        let database = self.day(day, true)?.ok_or_else(|| damaged(Table::Archived, "an archive went away"))?;
        let mut transaction = database.begin_write().map_err(|e| archive_fault(day, e))?;
        transaction.set_quick_repair(true);
        {
            let mut blobs = transaction.open_table(BLOBS).map_err(|e| archive_fault(day, e))?;
            for (id, events) in histories {
                let mut row = Vec::new();
                rows::write(&HistoryRow::new(events), &mut row);
                let blob = zstd::bulk::compress(&row, ZSTD_LEVEL)
                    .map_err(|e| Fault::retryable(format!("the history of {id} cannot be packed"), e))?;
                blobs.insert(id.0, blob.as_slice()).map_err(|e| archive_fault(day, e))?;
            }
        }
        transaction.commit().map_err(|e| archive_fault(day, e))
    }

    fn ids(&self, day: u32) -> Result<Vec<ExecutionId>, Fault> {
        let Some(database) = self.day(day, false)? else { return Ok(Vec::new()) };
        let transaction = database.begin_read().map_err(|e| archive_fault(day, e))?;
        let blobs = transaction.open_table(BLOBS).map_err(|e| archive_fault(day, e))?;
        let rows = blobs.iter().map_err(|e| archive_fault(day, e))?;
        rows.map(|row| row.map(|(id, _)| ExecutionId(id.value())).map_err(|e| archive_fault(day, e))).collect()
    }

    fn remove(&self, day: u32) -> Result<(), Fault> {
        self.open.lock().remove(&day);
        self.disk.remove(&file_name(day)).map_err(|e| archive_fault(day, redb::Error::Io(e)))
    }

    fn days(&self) -> Result<Vec<u32>, Fault> {
        let names = self.disk.names().map_err(|e| Fault::fatal("the archives cannot be listed", e))?;
        Ok(names.iter().filter_map(|name| file_day(name)).collect())
    }
}

/// The day whose file holds the execution's history, or its beginning.
pub(super) fn archived_day(overlay: &Overlay, id: ExecutionId) -> Result<Option<u32>, Fault> {
    overlay.get(Table::Archived, &id.to_bytes(), |day| {
        day.try_into().map(u32::from_be_bytes).map_err(|_| damaged(Table::Archived, "a row is no day"))
    })
}

impl Reader {
    /// The events that lie in an archive.
    pub(super) fn archived_history(&self, day: u32, id: ExecutionId) -> Result<Vec<HistoryEvent>, Fault> {
        if let Some(events) = self.engine().archives.read(day, id)? {
            return Ok(events);
        }
        match archived_day(&self.engine().overlay.read(), id)? {
            // Retention forgot it a moment ago.
            None => Ok(Vec::new()),
            Some(day) => Err(damaged(Table::Archived, &format!("{} lacks the history of {id}", file_name(day)))),
        }
    }
}

/// An execution that ended, as a pass finds it.
struct Ended {
    id: ExecutionId,
    stopped_at: Timestamp,
}

impl Writer {
    /// Moves the histories of executions that ended before then into the archives, beginning after an execution that
    /// an earlier call reached, and looking at no more than `limit`. Says where it stopped; `None` at the end.
    ///
    /// To be called by housekeeping, now and then, from a thread that may block.
    pub fn archive_history(
        &self,
        ended_before: Timestamp,
        after: Option<ExecutionId>,
        limit: usize,
    ) -> Result<Option<ExecutionId>, Fault> {
        let reader = Reader::new(self.engine().clone());
        let (mut reached, mut ended) = (after, Vec::new());
        for _ in 0..limit {
            let Some(id) = reader.next_with_history(reached)? else {
                reached = None;
                break;
            };
            reached = Some(id);
            let found = reader.ended(id)?.filter(|found| found.stopped_at < ended_before);
            ended.extend(found);
        }
        for group in ended.chunks(PER_COMMIT) {
            self.move_histories(&reader, group)?;
        }
        Ok(reached)
    }

    fn move_histories(&self, reader: &Reader, group: &[Ended]) -> Result<(), Fault> {
        let mut days: BTreeMap<u32, Vec<(ExecutionId, Vec<HistoryEvent>)>> = BTreeMap::new();
        let mut commit = Commit::new();
        for ended in group {
            let day = day_of(ended.stopped_at);
            // The keys first: a redrive may add rows meanwhile, and what is deleted must have been read.
            for key in reader.keys_under(Table::History, ended.id)? {
                commit.record.delete(Table::History, &key);
            }
            let events = reader.history(ended.id, EventId(1), usize::MAX, Direction::Forward)?;
            days.entry(day).or_default().push((ended.id, events));
            commit.record.plain(super::record::Op::Put, Table::Archived, &ended.id.to_bytes(), &day.to_be_bytes());
        }
        for (day, histories) in &days {
            self.engine().archives.write(*day, histories)?;
        }
        self.commit_blocking(commit)
    }

    /// Forgets the executions that ended on a day before `ended_before`'s, and removes those days' files.
    /// Says how many it forgot.
    ///
    /// A day is kept while one of its executions runs again, or has a parent that was not told yet. To be called from
    /// a thread that may block, while nobody redrives executions that old.
    pub fn drop_archives(&self, ended_before: Timestamp) -> Result<usize, Fault> {
        let reader = Reader::new(self.engine().clone());
        let mut forgotten = 0;
        for day in self.engine().archives.days()? {
            if day < day_of(ended_before) {
                forgotten += self.drop_day(&reader, day)?;
            }
        }
        Ok(forgotten)
    }

    fn drop_day(&self, reader: &Reader, day: u32) -> Result<usize, Fault> {
        let (mut forgotten, mut needed) = (0, false);
        for group in self.engine().archives.ids(day)?.chunks(PER_COMMIT) {
            let mut commit = Commit::new();
            for &id in group {
                let overlay = self.engine().overlay.read();
                // Of a redriven execution, a newer file may hold all.
                if archived_day(&overlay, id)? != Some(day) {
                    continue;
                }
                let told = overlay.get(Table::Deliveries, &id.to_bytes(), |_| Ok(()))?.is_none();
                drop(overlay);
                let over = reader.ended(id)?.is_some_and(|ended| day_of(ended.stopped_at) <= day);
                let Some(header) = reader.header(id)?.filter(|_| told && over) else {
                    needed = true;
                    continue;
                };
                let owns = reader.by_name(&header.machine.name, &header.name)? == Some(id);
                commit.forget(id, &header.machine.name, &header.name, header.status, owns);
                commit.record.delete(Table::Archived, &id.to_bytes());
                // What a redrive would have continued from.
                for table in [Table::Branches, Table::MapItems, Table::History] {
                    for key in reader.keys_under(table, id)? {
                        commit.record.delete(table, &key);
                    }
                }
                forgotten += 1;
            }
            self.commit_blocking(commit)?;
        }
        if !needed {
            self.engine().archives.remove(day)?;
        }
        Ok(forgotten)
    }
}

impl Reader {
    /// The next execution that has rows in the history table.
    fn next_with_history(&self, after: Option<ExecutionId>) -> Result<Option<ExecutionId>, Fault> {
        let start = after.map(|id| tables::history(id, EventId(u64::MAX)));
        let start = start.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut next = None;
        self.engine().overlay.read().scan(
            Table::History,
            (start, Bound::Unbounded),
            Direction::Forward,
            |key, _| {
                next = tables::split_id(key).map(|(id, _)| id);
                Ok(ControlFlow::Break(()))
            },
        )?;
        Ok(next)
    }

    fn keys_under(&self, table: Table, id: ExecutionId) -> Result<Vec<Vec<u8>>, Fault> {
        let first = id.to_bytes();
        let end = tables::after_prefix(&first);
        let range = (Bound::Included(first.as_slice()), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let mut keys = Vec::new();
        self.engine().overlay.read().scan(table, range, Direction::Forward, |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
    }

    fn ended(&self, id: ExecutionId) -> Result<Option<Ended>, Fault> {
        let ended = self.engine().overlay.read().get(Table::Executions, &id.to_bytes(), |row| {
            let row = access::<HeaderRow>(Table::Executions, row)?;
            let over = !matches!(row.status()?, Status::Running | Status::PendingRedrive);
            Ok(row.stopped_at().filter(|_| over).map(|stopped_at| Ended { id, stopped_at }))
        })?;
        Ok(ended.flatten())
    }
}
