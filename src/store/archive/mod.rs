//! Archives: what ended executions were given, gave back and went through, compressed, in one file for each day on
//! which executions ended.
//!
//! The files are written, read and removed whole; they are never rewritten but by an upgrade, so that the database does
//! not grow and retention costs the removal of a file. A file says in which form it was written. Only a few are kept
//! open, each under a lock of its own. A fault here is a fault of one day's file and not of the store: it never stops
//! the appliance.

mod anew;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use conveyor_base::{ExecutionId, Fault, Timestamp};
use conveyor_interpreter::{HistoryEvent, Json};
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::blocks::{Blocks, Rotten};
use super::damages::Damages;
use super::disk::{Backends, REPAIR};
use super::envelope::{Sealed, seal};
use super::open::{Opened, open_database};
use super::rows::{self, HistoryRow, PayloadsRow, Row, damaged};
use super::scrub;
use super::tables::Table;

/// One compressed blob for each execution, in the envelope of a row of that table of the database. They are apart because
/// lists want the payloads and not the history.
const PAYLOADS: Blobs = Blobs { of: Table::Payloads, definition: TableDefinition::new("payloads") };
const HISTORIES: Blobs = Blobs { of: Table::History, definition: TableDefinition::new("history") };
/// The store's format since which the files have this form.
const FORM_VERSION: u32 = 6;
/// `form` → the form of the file.
const FORM: TableDefinition<&str, u32> = TableDefinition::new("form");
const ZSTD_LEVEL: i32 = 3;
const DAY_MS: i64 = 86_400_000;
const CACHE_BYTES: usize = 4 << 20;
/// How often a read is begun that fails over what others found damaged.
const TRIES_MAX: u32 = 5;
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
    damages: Arc<Damages>,
    /// Locked to find a place, and never while a file is opened, made or closed. Places stay: there is one for each day.
    places: Mutex<BTreeMap<u32, Arc<Place>>>,
}

/// One day's file, where it is open. Locked while it is opened, made, closed or removed: the same file must not be
/// opened twice, and the other days' need not wait for that.
#[derive(Default)]
struct Place {
    open: Mutex<Option<Arc<Day>>>,
    /// Held by whoever writes to the file, or needs it while nobody does. Taken before the other.
    writing: Mutex<()>,
}

/// One day's file, open.
struct Day {
    database: Database,
    file: Blocks,
}

pub(super) fn day_of(at: Timestamp) -> u32 {
    u32::try_from(at.0.max(0) / DAY_MS).unwrap_or(u32::MAX)
}

/// The dates of a day.
pub(super) fn dates_of(day: u32) -> Range<Timestamp> {
    let begin = i64::from(day) * DAY_MS;
    Timestamp(begin)..Timestamp(begin + DAY_MS)
}

pub(super) fn file_name(day: u32) -> String {
    format!("history-{day:06}.redb")
}

fn file_day(name: &str) -> Option<u32> {
    name.strip_prefix("history-")?.strip_suffix(".redb")?.parse().ok()
}

fn archive_fault(day: u32, error: impl Into<redb::Error>) -> Fault {
    let name = file_name(day);
    match error.into() {
        redb::Error::Io(e) if Rotten::of(&e).is_some() => {
            Fault::damaged(format!("the archive {name} is damaged; {REPAIR}"), e)
        }
        redb::Error::Corrupted(why) => {
            Fault::damaged(format!("the archive {name} is damaged; {REPAIR}"), redb::Error::Corrupted(why))
        }
        redb::Error::PreviousIo => Fault::Retryable {
            what: format!("the archive {name} is being opened anew after an error; ask again"),
            source: None,
        },
        error => Fault::retryable(format!("the archive {name} failed; check its disk"), error),
    }
}

impl Archives {
    pub fn new(disk: Arc<dyn Backends>, damages: Arc<Damages>) -> Archives {
        Archives { disk, damages, places: Mutex::default() }
    }

    /// Where the day's file is, whether or not there is one.
    fn place(&self, day: u32) -> Arc<Place> {
        self.places.lock().entry(day).or_default().clone()
    }

    fn day(&self, day: u32, make: bool) -> Result<Option<Arc<Day>>, Fault> {
        let place = self.place(day);
        let mut file = place.open.lock();
        if let Some(open) = &*file {
            return Ok(Some(open.clone()));
        }
        let (name, io) = (file_name(day), |e: std::io::Error| archive_fault(day, redb::Error::Io(e)));
        if !self.disk.exists(&name).map_err(io)? {
            if !make {
                return Ok(None);
            }
            self.create(day)?;
        }
        let opened = open_database(&*self.disk, &name, CACHE_BYTES).map_err(|(_, e)| archive_fault(day, e))?;
        let Opened { database, file: Some(blocks) } = opened else { return Err(of_an_older_release(&name)) };
        if form_of(day, &database)? != Some(FORM_VERSION) {
            return Err(of_an_older_release(&name));
        }
        let open = Arc::new(Day { database, file: blocks });
        *file = Some(open.clone());
        drop(file);
        self.close_idle(day);
        Ok(Some(open))
    }

    /// Closes files beyond the most that stay open, but for that day's and those that somebody uses.
    fn close_idle(&self, newest: u32) {
        let places = self.places.lock().clone();
        let is_open = |place: &&Arc<Place>| place.open.try_lock().is_none_or(|file| file.is_some());
        let mut open = places.values().filter(is_open).count();
        for (_, place) in places.iter().filter(|(day, _)| **day != newest) {
            // Whoever has it locked opens or closes it; whoever holds the day reads it.
            if open > OPEN_MAX
                && let Some(mut file) = place.open.try_lock()
                && file.as_ref().is_some_and(|open| Arc::strong_count(open) == 1)
            {
                *file = None;
                open -= 1;
            }
        }
    }

    fn create(&self, day: u32) -> Result<(), Fault> {
        let (name, io) = (file_name(day), |e: std::io::Error| archive_fault(day, redb::Error::Io(e)));
        let temporary = format!("{name}.new");
        self.disk.remove(&temporary).map_err(io)?;
        let file = Blocks::open(&*self.disk, &temporary).map_err(io)?;
        drop(create_tables(day, file)?);
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
        let read = self.reading(day, |database| {
            let transaction = database.begin_read().map_err(|e| archive_fault(day, e))?;
            let rows = transaction.open_table(blobs.definition).map_err(|e| archive_fault(day, e))?;
            let Some(blob) = rows.get(id.0).map_err(|e| archive_fault(day, e))? else { return Ok(None) };
            let key = id.to_bytes();
            let packed = Sealed::new(blobs.of, &key, blob.value()).content(T::VERSION)?;
            zstd::stream::decode_all(packed).map(Some).map_err(|e| does_not_unpack(day, id, &e))
        });
        let found = read.map_err(|fault| match fault {
            Fault::Damaged { source, .. } => {
                let name = file_name(day);
                let what =
                    format!("what the archive {name} has of execution {id} cannot be read, because it is damaged");
                Fault::Damaged { what: format!("{what}; {REPAIR}"), source }
            }
            fault => fault,
        });
        Ok(found.inspect_err(|fault| self.damages.note(fault))?.flatten())
    }

    /// Reads a day's file. Out of one in which something could not be read redb gives nothing more: it is closed, and is opened
    /// anew by whoever comes next, which may be this one where the error was another's. `None`: there is no file.
    fn reading<T>(&self, day: u32, read: impl Fn(&Database) -> Result<T, Fault>) -> Result<Option<T>, Fault> {
        let mut tries = 0;
        loop {
            let Some(open) = self.day(day, false)? else { return Ok(None) };
            let fault = match read(&open.database) {
                Ok(found) => return Ok(Some(found)),
                Err(fault) => fault,
            };
            self.close(day, &open);
            tries += 1;
            if tries == TRIES_MAX || !matches!(fault, Fault::Retryable { .. }) {
                return Err(fault);
            }
        }
    }

    /// The day's file, as redb has it. `None`: there is none.
    pub fn blocks(&self, day: u32) -> Result<Option<Blocks>, Fault> {
        Ok(self.day(day, false)?.map(|open| open.file.clone()))
    }

    /// Has redb walk all of a day's file, while nobody writes to it. Names the damage by whose it is, where it can.
    pub fn walk(&self, day: u32, suspects: &[u64]) -> Result<(), Fault> {
        let place = self.place(day);
        let _alone = place.writing.lock();
        let Some(open) = self.day(day, false)? else { return Ok(()) };
        scrub::walk(&open.file, suspects).map_err(|e| archive_fault(day, e))
    }

    fn close(&self, day: u32, of: &Arc<Day>) {
        let place = self.place(day);
        let mut file = place.open.lock();
        if file.as_ref().is_some_and(|open| Arc::ptr_eq(open, of)) {
            *file = None;
        }
    }

    /// Verifies the checksums of a day's file. Says of which executions something is damaged.
    pub fn verify(&self, day: u32) -> Result<Vec<ExecutionId>, Fault> {
        let read = self.reading(day, |database| {
            let mut damaged = Vec::new();
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
        });
        Ok(read.inspect_err(|fault| self.damages.note(fault))?.unwrap_or_default())
    }

    /// Durable once it returns. What is there already is replaced by the same.
    pub fn write(&self, day: u32, kept: &[Kept]) -> Result<(), Fault> {
        let place = self.place(day);
        let _alone = place.writing.lock();
        let open = self.day(day, true)?.ok_or_else(|| damaged(Table::Archived, "an archive went away"))?;
        let written = write(day, &open.database, kept);
        if let Err(fault) = &written {
            self.damages.note(fault);
            self.close(day, &open);
        }
        written
    }

    /// Every execution that the day's file holds.
    pub fn ids(&self, day: u32) -> Result<Vec<ExecutionId>, Fault> {
        let read = self.reading(day, |database| {
            let transaction = database.begin_read().map_err(|e| archive_fault(day, e))?;
            let blobs = transaction.open_table(HISTORIES.definition).map_err(|e| archive_fault(day, e))?;
            let rows = blobs.iter().map_err(|e| archive_fault(day, e))?;
            rows.map(|row| row.map(|(id, _)| ExecutionId(id.value())).map_err(|e| archive_fault(day, e))).collect()
        });
        Ok(read.inspect_err(|fault| self.damages.note(fault))?.unwrap_or_default())
    }

    pub fn remove(&self, day: u32) -> Result<(), Fault> {
        let place = self.place(day);
        let mut file = place.open.lock();
        *file = None;
        self.disk.remove(&file_name(day)).map_err(|e| archive_fault(day, redb::Error::Io(e)))
    }

    pub fn days(&self) -> Result<Vec<u32>, Fault> {
        let names = self.disk.names().map_err(|e| Fault::retryable("the archives cannot be listed", e))?;
        Ok(names.iter().filter_map(|name| file_day(name)).collect())
    }

    /// redb's own check of one file. False: it was repaired.
    pub fn check_integrity(&self, day: u32) -> Result<bool, Fault> {
        let place = self.place(day);
        let mut open = place.open.lock();
        *open = None;
        let opened = open_database(&*self.disk, &file_name(day), CACHE_BYTES);
        let mut database = opened.map_err(|(_, e)| archive_fault(day, e))?.database;
        database.check_integrity().map_err(|e| archive_fault(day, e))
    }
}

fn write(day: u32, database: &Database, kept: &[Kept]) -> Result<(), Fault> {
    let mut transaction = database.begin_write().map_err(|e| archive_fault(day, e))?;
    transaction.set_quick_repair(true);
    {
        let mut payloads = transaction.open_table(PAYLOADS.definition).map_err(|e| archive_fault(day, e))?;
        let mut histories = transaction.open_table(HISTORIES.definition).map_err(|e| archive_fault(day, e))?;
        for kept in kept {
            let packed = blob(PAYLOADS, kept.id, &kept.payloads)?;
            payloads.insert(kept.id.0, packed.as_slice()).map_err(|e| archive_fault(day, e))?;
            let packed = blob(HISTORIES, kept.id, &HistoryRow::new(&kept.events))?;
            histories.insert(kept.id.0, packed.as_slice()).map_err(|e| archive_fault(day, e))?;
        }
    }
    transaction.commit().map_err(|e| archive_fault(day, e))
}

/// A file's tables, empty.
fn create_tables(day: u32, file: Blocks) -> Result<Database, Fault> {
    let database = redb::Builder::new().create_with_backend(file).map_err(|e| archive_fault(day, e))?;
    let mut transaction = database.begin_write().map_err(|e| archive_fault(day, e))?;
    transaction.set_quick_repair(true);
    for blobs in [PAYLOADS, HISTORIES] {
        transaction.open_table(blobs.definition).map_err(|e| archive_fault(day, e))?;
    }
    let mut form = transaction.open_table(FORM).map_err(|e| archive_fault(day, e))?;
    form.insert("form", FORM_VERSION).map_err(|e| archive_fault(day, e))?;
    drop(form);
    transaction.commit().map_err(|e| archive_fault(day, e))?;
    Ok(database)
}

/// Since which form of the store the file is as it is. `None`: it is of release 0.1, which did not say.
fn form_of(day: u32, database: &Database) -> Result<Option<u32>, Fault> {
    let transaction = database.begin_read().map_err(|e| archive_fault(day, e))?;
    match transaction.open_table(FORM) {
        Ok(form) => Ok(form.get("form").map_err(|e| archive_fault(day, e))?.map(|form| form.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(e) => Err(archive_fault(day, e)),
    }
}

fn of_an_older_release(name: &str) -> Fault {
    let what = format!("the archive {name} was written by an older release; run `conveyor upgrade`");
    Fault::Retryable { what, source: None }
}

fn does_not_unpack(day: u32, id: ExecutionId, e: &std::io::Error) -> Fault {
    damaged(Table::Archived, &format!("what {} holds of execution {id} does not unpack ({e})", file_name(day)))
}

fn blob<T: Row>(blobs: Blobs, id: ExecutionId, row: &T) -> Result<Vec<u8>, Fault> {
    let mut archive = Vec::new();
    rows::write(row, &mut archive);
    packed(blobs, id, T::VERSION, &archive)
}

fn packed(blobs: Blobs, id: ExecutionId, version: u8, archive: &[u8]) -> Result<Vec<u8>, Fault> {
    let packed = zstd::bulk::compress(archive, ZSTD_LEVEL)
        .map_err(|e| Fault::retryable(format!("the rows of execution {id} cannot be packed"), e))?;
    Ok(seal(blobs.of, version, &id.to_bytes(), &packed))
}
