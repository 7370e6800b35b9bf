//! The journal: batches of commits under ever-growing numbers, each durable before it is acknowledged.
//!
//! Invariant: a batch is replayed whole or not at all, and batches are replayed in the order of their numbers.

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::disk::{Disk, journal_fault};
use crate::base::Fault;

/// Where durability comes from.
pub(super) trait Journal: Send {
    /// Appends one batch of records and syncs. Batches numbered up to `cut` are in the state file and may go.
    fn append(&mut self, number: u64, records: &[&[u8]], cut: u64) -> Result<(), Fault>;

    /// Hands over every batch after `applied`, oldest first.
    fn replay(&mut self, applied: u64, take: &mut dyn FnMut(u64, Vec<u8>) -> Result<(), Fault>) -> Result<(), Fault>;

    /// Drops the batches up to `cut`, at leisure: when nothing is being appended.
    fn cut(&mut self, cut: u64) -> Result<(), Fault>;
}

const BATCHES: TableDefinition<u64, &[u8]> = TableDefinition::new("batches");
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
const STORE_ID: &str = "store_id";

const BATCH_VERSION: u8 = 1;
/// Version and checksum.
const BATCH_HEAD_BYTES: usize = 5;
/// Most old batches that one append takes out with it, so that a cut never makes a commit wait.
const CUT_PER_APPEND: usize = 32;

/// A redb file of its own, with one row for each batch.
pub(super) struct RedbJournal {
    database: Database,
    /// Up to where old batches have been taken out.
    cut: u64,
}

impl RedbJournal {
    /// Makes an empty journal that belongs to the store of that id.
    pub fn create(disk: Disk, store_id: [u8; 16]) -> Result<(), Fault> {
        let database = redb::Builder::new().create_with_backend(disk).map_err(journal_fault)?;
        let transaction = database.begin_write().map_err(journal_fault)?;
        transaction.open_table(BATCHES).map_err(journal_fault)?;
        transaction
            .open_table(ABOUT)
            .map_err(journal_fault)?
            .insert(STORE_ID, store_id.as_slice())
            .map_err(journal_fault)?;
        transaction.commit().map_err(journal_fault)
    }

    pub fn open(disk: Disk) -> Result<RedbJournal, Fault> {
        let mut builder = redb::Builder::new();
        let database = builder.set_cache_size(16 << 20).create_with_backend(disk).map_err(journal_fault)?;
        Ok(RedbJournal { database, cut: 0 })
    }

    pub fn store_id(&self) -> Result<Option<Vec<u8>>, Fault> {
        let transaction = self.database.begin_read().map_err(journal_fault)?;
        let about = transaction.open_table(ABOUT).map_err(journal_fault)?;
        Ok(about.get(STORE_ID).map_err(journal_fault)?.map(|id| id.value().to_vec()))
    }

    pub fn is_empty(&self) -> Result<bool, Fault> {
        let transaction = self.database.begin_read().map_err(journal_fault)?;
        let batches = transaction.open_table(BATCHES).map_err(journal_fault)?;
        Ok(batches.first().map_err(journal_fault)?.is_none())
    }

    pub fn check_integrity(&mut self) -> Result<bool, Fault> {
        self.database.check_integrity().map_err(journal_fault)
    }

    fn write(&mut self, batch: Option<(u64, &[&[u8]])>, cut: u64, cut_max: usize) -> Result<usize, Fault> {
        let transaction = self.database.begin_write().map_err(journal_fault)?;
        let mut gone = 0;
        {
            let mut table = transaction.open_table(BATCHES).map_err(journal_fault)?;
            if let Some((number, records)) = batch {
                let length = BATCH_HEAD_BYTES + records.iter().map(|r| r.len()).sum::<usize>();
                let mut place = table.insert_reserve(number, length).map_err(journal_fault)?;
                frame(place.as_mut(), records);
            }
            let mut reached = cut;
            let old = table.extract_from_if(self.cut..=cut, |_, _| true).map_err(journal_fault)?;
            for row in old.take(cut_max) {
                reached = row.map_err(journal_fault)?.0.value();
                gone += 1;
            }
            self.cut = if gone == cut_max { reached } else { cut };
        }
        transaction.commit().map_err(journal_fault)?;
        Ok(gone)
    }
}

impl Journal for RedbJournal {
    fn append(&mut self, number: u64, records: &[&[u8]], cut: u64) -> Result<(), Fault> {
        self.write(Some((number, records)), cut, CUT_PER_APPEND).map(drop)
    }

    fn replay(&mut self, applied: u64, take: &mut dyn FnMut(u64, Vec<u8>) -> Result<(), Fault>) -> Result<(), Fault> {
        let transaction = self.database.begin_read().map_err(journal_fault)?;
        let batches = transaction.open_table(BATCHES).map_err(journal_fault)?;
        for row in batches.range(applied + 1..).map_err(journal_fault)? {
            let (number, batch) = row.map_err(journal_fault)?;
            take(number.value(), unframe(number.value(), batch.value())?)?;
        }
        Ok(())
    }

    fn cut(&mut self, cut: u64) -> Result<(), Fault> {
        if self.cut < cut {
            self.write(None, cut, usize::MAX)?;
        }
        Ok(())
    }
}

fn frame(place: &mut [u8], records: &[&[u8]]) {
    let (head, mut rest) = place.split_at_mut(BATCH_HEAD_BYTES);
    let mut sum = crc32fast::Hasher::new();
    for record in records {
        sum.update(record);
        let (here, after) = rest.split_at_mut(record.len());
        here.copy_from_slice(record);
        rest = after;
    }
    head[0] = BATCH_VERSION;
    head[1..].copy_from_slice(&sum.finalize().to_le_bytes());
}

fn unframe(number: u64, batch: &[u8]) -> Result<Vec<u8>, Fault> {
    let damaged = |what: &str| {
        Fault::fatal_plain(format!("batch {number} of the journal {what}; run `conveyor check` on the data directory"))
    };
    let (head, records) = batch.split_at_checked(BATCH_HEAD_BYTES).ok_or_else(|| damaged("is cut short"))?;
    if head[0] != BATCH_VERSION {
        return Err(damaged(&format!("has version {}, and this release reads version {BATCH_VERSION}", head[0])));
    }
    if crc32fast::hash(records).to_le_bytes() != head[1..] {
        return Err(damaged("fails its checksum"));
    }
    Ok(records.to_vec())
}
