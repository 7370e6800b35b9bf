//! What the writer and the checkpointer do, without their threads: append and publish, freeze and carry over.
//!
//! Order, always: the journal syncs, readers see, the caller hears. And: the state file syncs, readers change over,
//! the journal is cut. So a crash at any point finds each acknowledged row in the journal, the state file, or both.

use std::any::Any;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use conveyor_base::{Blocking, Fault};
use conveyor_interpreter::Status;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::archive::Archives;
use super::blocks::Blocks;
use super::damages::Damages;
use super::disk::{Backends, REPAIR, STATE, state_fault};
use super::envelope::{PLAIN, Sealed, seal};
use super::journal::Journal;
use super::open::{Opened, State, open_state};
use super::overlay::{Change, Counts, Direction, Found, Generation, Overlay, Snapshot, StateView};
use super::reader::READS_MAX;
use super::scrub;
use super::tables::{self, Table};
use super::writer::Threads;

/// Number of the newest journal batch that the state file holds.
pub(super) const APPLIED: &[u8] = b"store.applied";
/// Commits that become visible under one lock: readers wait for no more, some 100 µs.
const PUBLISHED_AT_ONCE: usize = 64;
/// Uncheckpointed bytes up to which a checkpoint that comes upon damage is put off; above twice as many, commits would wait.
const PUT_OFF_BYTES_MAX: usize = 128 << 20;
/// Looks at a row whose file others have opened anew under it, before that is told.
const LOOKS_MAX: u32 = 32;

pub(super) struct Engine {
    overlay: RwLock<Overlay>,
    /// For whoever carries rows over to it or opens it anew: one at a time. `None`: that failed.
    state: Mutex<Option<State>>,
    pub disk: Arc<dyn Backends>,
    /// What was found damaged, and what stopped the store.
    pub damages: Arc<Damages>,
    journal: Mutex<Journal>,
    /// Batches up to here may leave the journal.
    cut: AtomicU64,
    pub outbox_next: AtomicU64,
    /// The last checkpoint came upon damage, and is to be tried again.
    put_off: AtomicBool,
    pub archives: Archives,
    /// Where reads are done that may take their time.
    pub reads: Blocking,
    /// Held for as long as anybody may touch the files; dropped last.
    _lock: Box<dyn Any + Send + Sync>,
}

impl Engine {
    pub fn new(
        overlay: Overlay,
        state: State,
        journal: Journal,
        disk: Arc<dyn Backends>,
        damages: Arc<Damages>,
        lock: Box<dyn Any + Send + Sync>,
        threads: Threads,
    ) -> Engine {
        Engine {
            overlay: RwLock::new(overlay),
            state: Mutex::new(Some(state)),
            disk: disk.clone(),
            damages: damages.clone(),
            journal: Mutex::new(journal),
            cut: AtomicU64::new(0),
            outbox_next: AtomicU64::new(1),
            put_off: AtomicBool::new(false),
            archives: Archives::new(disk, damages),
            reads: match threads {
                Threads::Own => Blocking::at_most(READS_MAX),
                Threads::Caller { .. } | Threads::Turns { .. } => Blocking::inline(),
            },
            _lock: lock,
        }
    }

    /// The answer to everything after a fatal error.
    pub fn alive(&self) -> Result<(), Fault> {
        self.damages.alive()
    }

    /// Remembers that nothing may be written any more.
    pub fn fail(&self, fault: Fault) -> Fault {
        self.damages.stop(&fault);
        tracing::error!(error = %conveyor_base::fault::chain(&fault), "the store stopped");
        fault
    }

    /// Makes the records durable as one batch, and visible.
    pub fn append(&self, records: &[Arc<Vec<u8>>]) -> Result<(), Fault> {
        self.alive()?;
        let mut journal = self.journal.lock();
        let number = self.overlay.read().newest() + 1;
        let parts: Vec<&[u8]> = records.iter().map(|r| r.as_slice()).collect();
        journal.append(number, &parts, self.cut.load(Ordering::Acquire)).map_err(|fault| self.fail(fault))?;
        let mut overlay = self.overlay.write();
        for some in records.chunks(PUBLISHED_AT_ONCE) {
            for record in some {
                let publish = overlay.publish(number, record);
                publish.map_err(|e| self.fail(Fault::fatal("a commit was built wrongly", e)))?;
            }
            // Readers get in here, a checkpoint does not: it waits for the journal.
            RwLockWriteGuard::bump(&mut overlay);
        }
        Ok(())
    }

    /// Looks at one row, in place and outside of every lock. Costs a look into memory, and at most the state file's
    /// pages on the way to the row.
    pub fn get<T>(
        &self,
        table: Table,
        key: &[u8],
        look: impl Fn(Sealed<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        self.again(|| {
            let [found] = self.find([(table, key)]);
            found.look(table, key, &look)
        })
    }

    /// Looks at rows, once more where the state file was being opened anew, since somebody else came upon damage in it:
    /// nobody is to hear of what is not his.
    pub fn again<T>(&self, look: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
        for _ in 1..LOOKS_MAX {
            match look() {
                Err(Fault::Retryable { .. }) => {}
                done => return done,
            }
        }
        look()
    }

    /// What memory knows of some rows at one moment.
    pub fn find<const N: usize>(&self, rows: [(Table, &[u8]); N]) -> [Found; N] {
        let overlay = self.readable();
        rows.map(|(table, key)| overlay.find(table, key))
    }

    /// What readers may see, with a state file that can be read: after damage was found it is opened anew. Where that fails
    /// nothing is written any more, and what is not in memory stays an error.
    fn readable(&self) -> RwLockReadGuard<'_, Overlay> {
        let overlay = self.overlay.read();
        if !overlay.state_has_failed() {
            return overlay;
        }
        drop(overlay);
        let mut state = self.state.lock();
        if self.alive().is_ok() {
            // The engine remembers a failure; commits answer with it.
            let _ = self.open_anew(&mut state).map_err(|fault| self.fail(fault));
        }
        drop(state);
        self.overlay.read()
    }

    /// Opens the state file anew where redb gives nothing more out of it, because something in it could not be read. All
    /// that it has committed is there again; what it read meanwhile for others is an error that passes.
    fn open_anew(&self, state: &mut Option<State>) -> Result<(), Fault> {
        if state.as_ref().is_some_and(|state| !state.file.reading_failed()) {
            return Ok(());
        }
        // Where a write failed it is recovery that finds out what is on the disk.
        if state.as_ref().is_none_or(|state| state.file.writing_failed()) {
            return Err(state_fault(redb::Error::PreviousIo));
        }
        // The same file must not be open twice.
        drop(state.take());
        let Opened { database, file: Some(file) } = open_state(&*self.disk)? else {
            return Err(Fault::damaged_plain(format!("the state file {STATE} became another file; {REPAIR}")));
        };
        let opened = state.insert(State { database, file });
        self.overlay.write().opened_anew(StateView::open(opened, &self.damages)?);
        Ok(())
    }

    pub fn count(&self, key: &[u8]) -> u64 {
        u64::try_from(self.overlay.read().count(key)).unwrap_or(0)
    }

    /// How many executions are in that status, but for the children of Map runs.
    pub fn total(&self, status: Status) -> u64 {
        self.overlay.read().total(status)
    }

    /// How many executions there are, by machine and status, at one moment.
    pub fn counts(&self) -> Counts {
        self.overlay.read().counts()
    }

    /// Everything as it is now, for threads that may block.
    pub fn snapshot(&self) -> Snapshot {
        self.readable().snapshot()
    }

    /// Carries what the overlay holds over to the state file. Says whether that was done: there may be nothing, or damage where
    /// a row belongs, and then all of it stays where it is until the next time.
    pub fn checkpoint(&self) -> Result<bool, Fault> {
        let mut state = self.state.lock();
        self.alive()?;
        let Some(frozen) = self.freeze() else { return Ok(false) };
        let view = match self.carry_over(&mut state, &frozen) {
            Ok(view) => view,
            // A page is damaged that a row belongs on. What is in the journal and in memory is as good, for so long.
            Err(fault @ Fault::Damaged { .. }) if self.waiting_bytes() < PUT_OFF_BYTES_MAX => {
                self.damages.note(&fault);
                self.put_off.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            Err(fault) => return Err(self.fail(fault)),
        };
        self.put_off.store(false, Ordering::Relaxed);
        let done = self.overlay.write().carried_over(view);
        self.cut.store(frozen.newest, Ordering::Release);
        // Many rows are freed here, outside the lock.
        drop((frozen, done));
        Ok(true)
    }

    /// The state file, as redb has it now. `None`: the store stopped.
    pub fn state_file(&self) -> Option<Blocks> {
        self.state.lock().as_ref().map(|state| state.file.clone())
    }

    /// Has redb walk the whole state file, while no checkpoint changes it. Names what is damaged by whose it is.
    pub fn walk_state(&self, suspects: &[u64]) -> Result<(), Fault> {
        {
            let state = self.state.lock();
            let Some(state) = state.as_ref() else { return self.alive() };
            let Err(e) = scrub::walk(&state.file, suspects) else { return Ok(()) };
            self.damages.note(&state_fault(e));
        }
        for &table in Table::ALL {
            let all = (Bound::Unbounded, Bound::Unbounded);
            // The walk takes note of what it comes upon.
            let _ = self.snapshot().scan(table, all, Direction::Forward, |_, _| Ok(ControlFlow::Continue(())));
        }
        Ok(())
    }

    /// Between two batches: the journal's lock is held while one is half published.
    fn freeze(&self) -> Option<Arc<Generation>> {
        let _journal = self.journal.lock();
        self.overlay.write().freeze()
    }

    /// Once more where a reader came upon damage meanwhile, over which redb lets nobody write either. Twice carried over
    /// is as good as once.
    fn carry_over(&self, state: &mut Option<State>, frozen: &Generation) -> Result<StateView, Fault> {
        for _ in 1..LOOKS_MAX {
            self.open_anew(state)?;
            match self.write(state, frozen) {
                Err(Fault::Retryable { .. }) if state.as_ref().is_some_and(|state| state.file.reading_failed()) => {}
                done => return done,
            }
        }
        self.open_anew(state)?;
        self.write(state, frozen)
    }

    fn write(&self, state: &Option<State>, frozen: &Generation) -> Result<StateView, Fault> {
        let state = state.as_ref().ok_or_else(|| state_fault(redb::Error::PreviousIo))?;
        let mut transaction = state.database.begin_write().map_err(state_fault)?;
        transaction.set_quick_repair(true);
        for &table in Table::ALL {
            let rows = &frozen.tables[table as usize];
            if rows.is_empty() {
                continue;
            }
            let mut stored = transaction.open_table(table.definition()).map_err(|e| not_written(table, &[], e))?;
            for (key, change) in rows {
                match change {
                    Change::Put(value) | Change::PutNew(value) => {
                        stored.insert(key.bytes(), value.bytes()).map_err(|e| not_written(table, key.bytes(), e))?;
                    }
                    Change::Deleted => {
                        stored.remove(key.bytes()).map_err(|e| not_written(table, key.bytes(), e))?;
                    }
                }
            }
        }
        {
            let mut counts = transaction.open_table(Table::Counts.definition()).map_err(state_fault)?;
            for (key, count) in &frozen.counts {
                if *count == 0 {
                    counts.remove(&**key).map_err(state_fault)?;
                    continue;
                }
                let value = seal(Table::Counts, PLAIN, key, &count.to_le_bytes());
                counts.insert(&**key, value.as_slice()).map_err(state_fault)?;
            }
            let mut settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
            let applied = seal(Table::Settings, PLAIN, APPLIED, &frozen.newest.to_le_bytes());
            settings.insert(APPLIED, applied.as_slice()).map_err(state_fault)?;
        }
        transaction.commit().map_err(state_fault)?;
        StateView::open(state, &self.damages)
    }

    /// Removes files of the journal that only a burst needed, while nobody appends.
    pub fn tidy_journal(&self) -> Result<(), Fault> {
        self.alive()?;
        self.journal.lock().tidy(self.cut.load(Ordering::Acquire)).map_err(|fault| self.fail(fault))
    }

    /// Whether the last checkpoint could not be made, because it came upon damage.
    pub fn is_put_off(&self) -> bool {
        self.put_off.load(Ordering::Relaxed)
    }

    /// How much waits for a checkpoint, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.overlay.read().waiting_bytes()
    }
}

/// A row that cannot be put in its place, with whose it is: the page that it belongs on may be damaged.
fn not_written(table: Table, key: &[u8], error: impl Into<redb::Error>) -> Fault {
    match state_fault(error) {
        Fault::Damaged { source, .. } => {
            let whose = tables::whose(table, key);
            let what = format!("{whose} cannot be written, because the state file {STATE} is damaged there; {REPAIR}");
            Fault::Damaged { what, source }
        }
        fault => fault,
    }
}
