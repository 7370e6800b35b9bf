//! `upgrade` brings the files of older releases to this release's form, before anything opens them.
//!
//! ```text
//! state.redb (old) ──┐
//! journal's tail ────┴─> state.redb.new ──rename──> state.redb (form 6, marked: the archives are to follow)
//! history-N.redb (old) ──> history-N.redb.new ──rename──> history-N.redb      one after the other, then the mark goes
//! ```
//!
//! Invariants: nothing that is there is changed, it is only replaced, whole and by a rename; so an upgrade that was
//! interrupted anywhere is begun again and comes to the same files. From the first rename on no release but this one
//! opens the store, and this one only once the upgrade has come to its end. What the journal had is in the state file
//! then: its old batches count for nothing, and the next ones take their place.
//!
//! A row whose form changes raises its type's `VERSION`, and is rewritten here: [`form4`] knows what came before. The rows of
//! form 5 are this one's; what is new is under redb's pages ([`super::blocks`]) and in the journal's sectors. Before anything
//! is taken over redb verifies its own checksums, and every row that has an envelope is verified: damage that is there
//! already must not get a checksum that says otherwise.

mod form4;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use conveyor_base::Fault;
use redb::Database;

use self::form4::Form4;
use super::archive::Archives;
use super::blocks::Blocks;
use super::disk::{Backends, STATE, create_whole, file_fault, state_fault};
use super::engine::APPLIED;
use super::envelope::{PLAIN, seal};
use super::open::{
    FORMAT, FORMAT_VERSION, STORE_ID, UPGRADING, format_of, lock, must_be_there, open_state, setting, without_panic,
};
use super::tables::Table;

/// Bytes of rows in one transaction of the new file.
const BATCH_BYTES: usize = 16 << 20;

/// What `upgrade` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrade {
    pub from: u32,
    pub to: u32,
    /// Archives of days that were rewritten.
    pub archives: u32,
    /// Rows that no release wrote in this form, and which are not taken along: how many, by what they were found as.
    pub left_out: BTreeMap<String, u64>,
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Upgrade { from, to, archives, left_out } = self;
        match (from == to, *archives) {
            (true, 0) => write!(f, "the files have format {to}, which is this release's: nothing to do")?,
            (true, days) => write!(f, "upgraded the archives of {days} day(s) to format {to}")?,
            (false, 0) => write!(f, "upgraded the files from format {from} to format {to}")?,
            (false, days) => {
                write!(f, "upgraded the files from format {from} to format {to}, with the archives of {days} day(s)")?;
            }
        }
        for (what, rows) in left_out {
            write!(f, "\nleft out {rows} row(s) of {what}, which no release wrote in this form")?;
        }
        Ok(())
    }
}

/// Brings the files to this release's format.
///
/// # Errors
/// Files that are in use, damaged, or of a format that this release does not know; an error of the disk. The files are
/// then as they were, or the upgrade must be begun again: opening the store says which.
pub fn upgrade(backends: &Arc<dyn Backends>) -> Result<Upgrade, Fault> {
    let _lock = lock(&**backends)?;
    must_be_there(&**backends)?;
    without_panic(&**backends, || upgrade_locked(backends))
}

fn upgrade_locked(backends: &Arc<dyn Backends>) -> Result<Upgrade, Fault> {
    let place = backends.place();
    let mut state = open_state(&**backends)?.database;
    let mut done = Upgrade { from: FORMAT_VERSION, to: FORMAT_VERSION, ..Upgrade::default() };
    match format_of(&state)? {
        FORMAT_VERSION => {
            done.from = interrupted(&state)?.unwrap_or(FORMAT_VERSION);
            // The same file must not be open twice.
            drop(state);
        }
        format @ (form4::FORMAT | form4::FORMAT_5) => {
            done.from = format;
            if !state.check_integrity().map_err(state_fault)? {
                tracing::info!("redb repaired {place}/{STATE} before the upgrade");
            }
            let old = Form4::open(backends, state, format)?;
            create_whole(&**backends, STATE, |temporary| {
                let file = Blocks::open(&**backends, temporary).map_err(file_fault(&**backends, STATE))?;
                rewrite(old, file, &mut done)
            })?;
        }
        newer if newer > FORMAT_VERSION => {
            return Err(Fault::fatal_plain(format!(
                "{place}/{STATE} has format {newer}, which a newer release wrote; this release knows formats up to \
                 {FORMAT_VERSION}: start the newer release, or restore a backup"
            )));
        }
        unknown => {
            return Err(Fault::fatal_plain(format!(
                "{place}/{STATE} has format {unknown}, which no release wrote; begin with an empty data directory"
            )));
        }
    }
    let archives = Archives::new(backends.clone(), Arc::default());
    for day in archives.days()? {
        done.archives += u32::from(archives.upgrade(day, form4::without_version)?);
    }
    if done.from == done.to {
        return Ok(done);
    }
    let state = open_state(&**backends)?.database;
    let mut transaction = state.begin_write().map_err(state_fault)?;
    transaction.set_quick_repair(true);
    let mut settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
    settings.remove(UPGRADING).map_err(state_fault)?;
    drop(settings);
    transaction.commit().map_err(state_fault)?;
    Ok(done)
}

/// The format from which an upgrade was begun that has not come to its end.
pub(super) fn interrupted(state: &Database) -> Result<Option<u32>, Fault> {
    Ok(setting(state, UPGRADING)?.and_then(|from| from.try_into().ok()).map(u32::from_le_bytes))
}

/// Fills a new state file with all that the old files hold.
fn rewrite(old: Form4, file: Blocks, done: &mut Upgrade) -> Result<(), Fault> {
    let database = redb::Builder::new().create_with_backend(file).map_err(state_fault)?;
    let mut batch = Batch::new(&database);
    let mut left_out = BTreeMap::<String, u64>::new();
    old.each(|row| match row {
        Ok(row) => batch.put(row),
        Err(form4::LeftOut(what)) => {
            *left_out.entry(what).or_default() += 1;
            Ok(())
        }
    })?;
    batch.flush()?;
    done.left_out = left_out;
    let mut transaction = database.begin_write().map_err(state_fault)?;
    transaction.set_quick_repair(true);
    for table in Table::ALL {
        transaction.open_table(table.definition()).map_err(state_fault)?;
    }
    let mut settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
    settings.insert(FORMAT, FORMAT_VERSION.to_le_bytes().as_slice()).map_err(state_fault)?;
    let (applied, from) = (old.newest.to_le_bytes(), done.from.to_le_bytes());
    let rows: [(&[u8], &[u8]); 3] = [(STORE_ID, &old.store_id), (APPLIED, &applied), (UPGRADING, &from)];
    for (key, content) in rows {
        settings.insert(key, seal(Table::Settings, PLAIN, key, content).as_slice()).map_err(state_fault)?;
    }
    drop(settings);
    transaction.commit().map_err(state_fault)
}

/// A row in this release's form.
pub(super) struct NewRow {
    pub table: Table,
    pub key: Vec<u8>,
    /// With its envelope.
    pub value: Vec<u8>,
}

/// Rows on their way into the new file.
pub(super) struct Batch<'a> {
    database: &'a Database,
    rows: Vec<NewRow>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub fn new(database: &'a Database) -> Batch<'a> {
        Batch { database, rows: Vec::new(), bytes: 0 }
    }

    pub fn put(&mut self, row: NewRow) -> Result<(), Fault> {
        self.bytes += row.key.len() + row.value.len();
        self.rows.push(row);
        if self.bytes < BATCH_BYTES { Ok(()) } else { self.flush() }
    }

    pub fn flush(&mut self) -> Result<(), Fault> {
        let mut transaction = self.database.begin_write().map_err(state_fault)?;
        transaction.set_quick_repair(true);
        self.rows.sort_by_key(|row| row.table);
        for rows in self.rows.chunk_by(|one, other| one.table == other.table) {
            let mut table = transaction.open_table(rows[0].table.definition()).map_err(state_fault)?;
            for row in rows {
                table.insert(row.key.as_slice(), row.value.as_slice()).map_err(state_fault)?;
            }
        }
        transaction.commit().map_err(state_fault)?;
        self.rows.clear();
        self.bytes = 0;
        Ok(())
    }
}
