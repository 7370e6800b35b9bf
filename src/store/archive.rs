//! Archives: what ended executions were given, gave back and went through, compressed, in one file for each day on
//! which executions ended.
//!
//! The files are written, read and removed whole; they are never rewritten, so that the database does not grow and
//! retention costs the removal of a file. Only a few are kept open. A fault here is a fault of one day's file and not
//! of the store: it never stops the appliance.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::disk::{Backends, Disk};
use super::envelope::{Sealed, seal};
use super::rows::{self, HistoryRow, PayloadsRow, Row, damaged};
use super::tables::Table;
use crate::base::{ExecutionId, Fault, Timestamp};
use crate::interpreter::HistoryEvent;
use crate::interpreter::event::Json;

/// One compressed blob for each execution, in the envelope of a row of that table of the database. They are apart because
/// lists want the payloads and not the history.
const PAYLOADS: Blobs = Blobs { of: Table::Payloads, definition: TableDefinition::new("payloads") };
const HISTORIES: Blobs = Blobs { of: Table::History, definition: TableDefinition::new("history") };
const ZSTD_LEVEL: i32 = 3;
const DAY_MS: i64 = 86_400_000;
const CACHE_BYTES: usize = 4 << 20;
/// Most files that stay open while nobody reads them.
const OPEN_MAX: usize = 6;

/// A table of a day's file.
#[derive(Clone, Copy)]
struct Blobs {
    of: Table,
    definition: TableDefinition<'static, u128, &'static [u8]>,
}

/// What leaves the database with an ended execution.
pub(super) struct Kept {
    pub id: ExecutionId,
    pub payloads: PayloadsRow,
    pub events: Vec<HistoryEvent>,
}

/// The files of the days, opened when touched.
pub(super) struct Archives {
    disk: Arc<dyn Backends>,
    open: Mutex<BTreeMap<u32, Arc<Database>>>,
}

pub(super) fn day_of(at: Timestamp) -> u32 {
    u32::try_from(at.0.max(0) / DAY_MS).unwrap_or(u32::MAX)
}

pub(super) fn file_name(day: u32) -> String {
    format!("history-{day:06}.redb")
}

fn file_day(name: &str) -> Option<u32> {
    name.strip_prefix("history-")?.strip_suffix(".redb")?.parse().ok()
}

fn archive_fault(day: u32, error: impl Into<redb::Error>) -> Fault {
    let what = format!("the archive {} failed; check its disk, or restore the file from a backup", file_name(day));
    Fault::retryable(what, error.into())
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
            self.create(day)?;
        }
        // One that somebody reads stays: the same file must not be opened twice.
        if let Some(idle) = open.iter().find(|(_, d)| Arc::strong_count(d) == 1).map(|(day, _)| *day)
            && open.len() >= OPEN_MAX
        {
            open.remove(&idle);
        }
        let file = Disk(self.disk.open(&name).map_err(io)?);
        let mut builder = redb::Builder::new();
        let database = builder.set_cache_size(CACHE_BYTES).create_with_backend(file);
        let database = Arc::new(database.map_err(|e| archive_fault(day, e))?);
        open.insert(day, database.clone());
        Ok(Some(database))
    }

    fn create(&self, day: u32) -> Result<(), Fault> {
        let (name, io) = (file_name(day), |e: std::io::Error| archive_fault(day, redb::Error::Io(e)));
        let temporary = format!("{name}.new");
        self.disk.remove(&temporary).map_err(io)?;
        let file = Disk(self.disk.open(&temporary).map_err(io)?);
        let database = redb::Builder::new().create_with_backend(file).map_err(|e| archive_fault(day, e))?;
        let transaction = database.begin_write().map_err(|e| archive_fault(day, e))?;
        for blobs in [PAYLOADS, HISTORIES] {
            transaction.open_table(blobs.definition).map_err(|e| archive_fault(day, e))?;
        }
        transaction.commit().map_err(|e| archive_fault(day, e))?;
        drop(database);
        self.disk.rename(&temporary, &name).map_err(io)
    }

    /// `None`: the day has no file, or the file does not know the execution.
    pub fn payloads(&self, day: u32, id: ExecutionId) -> Result<Option<(Json, Option<Json>)>, Fault> {
        let Some(row) = self.unpacked::<PayloadsRow>(day, id, PAYLOADS)? else { return Ok(None) };
        Ok(Some(rows::payloads_from(rows::archived::<PayloadsRow>(Table::Archived, &row)?)))
    }

    /// `None`: the day has no file, or the file does not know the execution.
    pub fn history(&self, day: u32, id: ExecutionId) -> Result<Option<Vec<HistoryEvent>>, Fault> {
        let Some(row) = self.unpacked::<HistoryRow>(day, id, HISTORIES)? else { return Ok(None) };
        rows::events_from(rows::archived::<HistoryRow>(Table::Archived, &row)?).map(Some)
    }

    fn unpacked<T: Row>(&self, day: u32, id: ExecutionId, blobs: Blobs) -> Result<Option<Vec<u8>>, Fault> {
        let Some(database) = self.day(day, false)? else { return Ok(None) };
        let transaction = database.begin_read().map_err(|e| archive_fault(day, e))?;
        let rows = transaction.open_table(blobs.definition).map_err(|e| archive_fault(day, e))?;
        let Some(blob) = rows.get(id.0).map_err(|e| archive_fault(day, e))? else { return Ok(None) };
        let key = id.to_bytes();
        let packed = Sealed::new(blobs.of, &key, blob.value()).content(T::VERSION)?;
        zstd::stream::decode_all(packed).map(Some).map_err(|e| {
            let what = format!("what {} holds of execution {id} does not unpack ({e})", file_name(day));
            damaged(Table::Archived, &what)
        })
    }

    /// Verifies the checksums of a day's file. Says of which executions something is damaged.
    pub fn verify(&self, day: u32) -> Result<Vec<ExecutionId>, Fault> {
        let mut damaged = Vec::new();
        let Some(database) = self.day(day, false)? else { return Ok(damaged) };
        let transaction = database.begin_read().map_err(|e| archive_fault(day, e))?;
        for blobs in [PAYLOADS, HISTORIES] {
            let rows = transaction.open_table(blobs.definition).map_err(|e| archive_fault(day, e))?;
            for row in rows.iter().map_err(|e| archive_fault(day, e))? {
                let (id, blob) = row.map_err(|e| archive_fault(day, e))?;
                let id = ExecutionId(id.value());
                if Sealed::new(blobs.of, &id.to_bytes(), blob.value()).verify().is_err() {
                    damaged.push(id);
                }
            }
        }
        Ok(damaged)
    }

    /// Durable once it returns. What is there already is replaced by the same.
    pub fn write(&self, day: u32, kept: &[Kept]) -> Result<(), Fault> {
        let database = self.day(day, true)?.ok_or_else(|| damaged(Table::Archived, "an archive went away"))?;
        let mut transaction = database.begin_write().map_err(|e| archive_fault(day, e))?;
        transaction.set_quick_repair(true);
        {
            let mut payloads = transaction.open_table(PAYLOADS.definition).map_err(|e| archive_fault(day, e))?;
            let mut histories = transaction.open_table(HISTORIES.definition).map_err(|e| archive_fault(day, e))?;
            for kept in kept {
                let blob = packed(PAYLOADS, kept.id, &kept.payloads)?;
                payloads.insert(kept.id.0, blob.as_slice()).map_err(|e| archive_fault(day, e))?;
                let blob = packed(HISTORIES, kept.id, &HistoryRow::new(&kept.events))?;
                histories.insert(kept.id.0, blob.as_slice()).map_err(|e| archive_fault(day, e))?;
            }
        }
        transaction.commit().map_err(|e| archive_fault(day, e))
    }

    /// Every execution that the day's file holds.
    pub fn ids(&self, day: u32) -> Result<Vec<ExecutionId>, Fault> {
        let Some(database) = self.day(day, false)? else { return Ok(Vec::new()) };
        let transaction = database.begin_read().map_err(|e| archive_fault(day, e))?;
        let blobs = transaction.open_table(HISTORIES.definition).map_err(|e| archive_fault(day, e))?;
        let rows = blobs.iter().map_err(|e| archive_fault(day, e))?;
        rows.map(|row| row.map(|(id, _)| ExecutionId(id.value())).map_err(|e| archive_fault(day, e))).collect()
    }

    pub fn remove(&self, day: u32) -> Result<(), Fault> {
        self.open.lock().remove(&day);
        self.disk.remove(&file_name(day)).map_err(|e| archive_fault(day, redb::Error::Io(e)))
    }

    pub fn days(&self) -> Result<Vec<u32>, Fault> {
        let names = self.disk.names().map_err(|e| Fault::retryable("the archives cannot be listed", e))?;
        Ok(names.iter().filter_map(|name| file_day(name)).collect())
    }

    /// redb's own check of one file. False: it was repaired.
    pub fn check_integrity(&self, day: u32) -> Result<bool, Fault> {
        self.open.lock().remove(&day);
        let name = file_name(day);
        let file = Disk(self.disk.open(&name).map_err(|e| archive_fault(day, redb::Error::Io(e)))?);
        let mut database = redb::Builder::new().create_with_backend(file).map_err(|e| archive_fault(day, e))?;
        database.check_integrity().map_err(|e| archive_fault(day, e))
    }
}

fn packed<T: Row>(blobs: Blobs, id: ExecutionId, row: &T) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    rows::write(row, &mut bytes);
    let packed = zstd::bulk::compress(&bytes, ZSTD_LEVEL)
        .map_err(|e| Fault::retryable(format!("the rows of execution {id} cannot be packed"), e))?;
    Ok(seal(blobs.of, T::VERSION, &id.to_bytes(), &packed))
}
