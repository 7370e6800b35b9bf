//! What the writer and the checkpointer do, without their threads: append and publish, freeze and carry over.
//!
//! Order, always: the journal syncs, readers see, the caller hears. And: the state file syncs, readers change over,
//! the journal is cut. So a crash at any point finds each acknowledged row in the journal, the state file, or both.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use redb::Database;

use super::archive::Archives;
use super::disk::{Backends, state_fault};
use super::envelope::{PLAIN, seal};
use super::journal::Journal;
use super::overlay::{Fate, Generation, Overlay, StateView};
use super::tables::Table;
use crate::base::Fault;

/// Number of the newest journal batch that the state file holds.
pub(super) const APPLIED: &[u8] = b"store.applied";

pub(super) struct Engine {
    pub overlay: RwLock<Overlay>,
    state: Database,
    journal: Mutex<Journal>,
    /// Batches up to here may leave the journal.
    cut: AtomicU64,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    /// The first fatal error: nothing is written after it.
    failed: OnceLock<String>,
    pub outbox_next: AtomicU64,
    pub archives: Archives,
    /// Held for as long as anybody may touch the files; dropped last.
    _lock: Box<dyn Any + Send + Sync>,
}

impl Engine {
    pub fn new(
        overlay: Overlay,
        state: Database,
        journal: Journal,
        disk: Arc<dyn Backends>,
        lock: Box<dyn Any + Send + Sync>,
    ) -> Engine {
        Engine {
            overlay: RwLock::new(overlay),
            state,
            journal: Mutex::new(journal),
            cut: AtomicU64::new(0),
            checkpointing: Mutex::new(()),
            failed: OnceLock::new(),
            outbox_next: AtomicU64::new(1),
            archives: Archives::new(disk),
            _lock: lock,
        }
    }

    /// The answer to everything after a fatal error.
    pub fn alive(&self) -> Result<(), Fault> {
        match self.failed.get() {
            None => Ok(()),
            Some(why) => Err(Fault::fatal_plain(format!("the store stopped: {why}"))),
        }
    }

    /// Remembers that nothing may be written any more.
    fn fail(&self, fault: Fault) -> Fault {
        let _ = self.failed.set(crate::base::fault::chain(&fault));
        tracing::error!(error = %crate::base::fault::chain(&fault), "the store stopped");
        fault
    }

    /// Makes the records durable as one batch, and visible.
    pub fn append(&self, records: &[Arc<Vec<u8>>]) -> Result<(), Fault> {
        self.alive()?;
        let mut journal = self.journal.lock();
        let number = self.overlay.read().active.newest + 1;
        let parts: Vec<&[u8]> = records.iter().map(|r| r.as_slice()).collect();
        journal.append(number, &parts, self.cut.load(Ordering::Acquire)).map_err(|fault| self.fail(fault))?;
        let mut overlay = self.overlay.write();
        for record in records {
            let publish = overlay.publish(number, record);
            publish.map_err(|e| self.fail(Fault::fatal("a commit was built wrongly", e)))?;
        }
        Ok(())
    }

    /// Carries what the overlay holds over to the state file. Says whether there was anything.
    pub fn checkpoint(&self) -> Result<bool, Fault> {
        let _one = self.checkpointing.lock();
        self.alive()?;
        let Some(frozen) = self.freeze() else { return Ok(false) };
        let view = self.carry_over(&frozen).map_err(|fault| self.fail(fault))?;
        let mut overlay = self.overlay.write();
        overlay.state = Arc::new(view);
        let done = overlay.frozen.take();
        drop(overlay);
        self.cut.store(frozen.newest, Ordering::Release);
        // Many rows are freed here, outside the lock.
        drop((frozen, done));
        Ok(true)
    }

    fn freeze(&self) -> Option<Arc<Generation>> {
        let mut overlay = self.overlay.write();
        if overlay.active.bytes == 0 {
            return None;
        }
        let mut next = Generation::new();
        next.newest = overlay.active.newest;
        let frozen = Arc::new(std::mem::replace(&mut overlay.active, next));
        overlay.frozen = Some(frozen.clone());
        Some(frozen)
    }

    fn carry_over(&self, frozen: &Generation) -> Result<StateView, Fault> {
        let mut transaction = self.state.begin_write().map_err(state_fault)?;
        transaction.set_quick_repair(true);
        for &table in Table::ALL {
            let rows = &frozen.tables[table as usize];
            if rows.is_empty() {
                continue;
            }
            let mut stored = transaction.open_table(table.definition()).map_err(state_fault)?;
            for (key, fate) in rows {
                match fate {
                    Fate::Put(value) | Fate::PutNew(value) => {
                        stored.insert(key.bytes(), value.bytes()).map_err(state_fault)?;
                    }
                    Fate::Deleted => {
                        stored.remove(key.bytes()).map_err(state_fault)?;
                    }
                }
            }
        }
        {
            let mut counts = transaction.open_table(Table::Counts.definition()).map_err(state_fault)?;
            for (key, count) in &frozen.counts {
                let value = seal(Table::Counts, PLAIN, key, &count.to_le_bytes());
                counts.insert(key.as_slice(), value.as_slice()).map_err(state_fault)?;
            }
            let mut settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
            let applied = seal(Table::Settings, PLAIN, APPLIED, &frozen.newest.to_le_bytes());
            settings.insert(APPLIED, applied.as_slice()).map_err(state_fault)?;
        }
        transaction.commit().map_err(state_fault)?;
        StateView::open(&self.state)
    }

    /// Removes files of the journal that only a burst needed, while nobody appends.
    pub fn tidy_journal(&self) -> Result<(), Fault> {
        self.alive()?;
        self.journal.lock().tidy(self.cut.load(Ordering::Acquire)).map_err(|fault| self.fail(fault))
    }

    /// How much waits for a checkpoint, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        let overlay = self.overlay.read();
        overlay.active.bytes + overlay.frozen.as_ref().map_or(0, |f| f.bytes)
    }
}
