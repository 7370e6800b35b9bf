//! Opening: create what is missing, recover what a crash left, refuse what does not belong together.
//!
//! A file is made under a temporary name, filled, synced and only then renamed: a power cut inside redb's first open
//! can leave a file that redb refuses. The journal is made before the state file, so a lone journal means that the
//! making was interrupted, and a lone state file that somebody took the journal away.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::disk::{Backends, Directory, Disk, JOURNAL, STATE, state_fault};
use super::engine::{APPLIED, Engine};
use super::journal::{Journal, RedbJournal};
use super::overlay::{Generation, Overlay, StateView};
use super::reader::Reader;
use super::tables::Table;
use super::writer::{Threads, Writer};
use crate::base::Fault;

/// The form of the files. A newer release reads older ones after `conveyor upgrade`; an older one refuses newer.
pub const FORMAT_VERSION: u32 = 2;

pub(super) const FORMAT: &[u8] = b"store.format";
const STORE_ID: &[u8] = b"store.id";
/// redb's cache of the state file.
const STATE_CACHE_BYTES: usize = 64 << 20;

/// Where the store lies and how it runs.
#[derive(Clone)]
pub struct Options {
    pub backends: Arc<dyn Backends>,
    pub checkpoint_ms: u64,
    pub threads: Threads,
}

impl Options {
    /// A store in a data directory, with threads of its own.
    pub fn at(directory: impl Into<PathBuf>) -> Options {
        Options::on(Arc::new(Directory::new(directory)))
    }

    /// A store on whatever keeps files.
    pub fn on(backends: Arc<dyn Backends>) -> Options {
        Options { backends, checkpoint_ms: 150, threads: Threads::Own }
    }
}

/// Opens the store, makes it where there is none, and recovers what was acknowledged.
///
/// The cost follows the length of the journal, not of the state file.
pub fn open(options: Options) -> Result<(Writer, Reader), Fault> {
    let disk = options.backends.clone();
    let lock = lock(&*disk)?;
    create(&*disk)?;
    let (state, mut journal) = open_files(&*disk)?;
    let (overlay, outbox_next) = recover(&state, &mut journal)?;
    let engine = Arc::new(Engine::new(overlay, state, Box::new(journal), disk, lock));
    engine.outbox_next.store(outbox_next, Ordering::Relaxed);
    let reader = Reader::new(engine.clone());
    Ok((Writer::start(engine, options.threads, options.checkpoint_ms)?, reader))
}

/// Keeps other processes out.
pub(super) fn lock(disk: &dyn Backends) -> Result<Box<dyn std::any::Any + Send + Sync>, Fault> {
    disk.lock().map_err(|e| {
        let place = disk.place();
        match e.kind() {
            std::io::ErrorKind::ResourceBusy => Fault::fatal_plain(format!(
                "the data directory {place} is in use by another conveyor process; stop it, or choose another \
                 directory with --data-dir"
            )),
            _ => Fault::fatal(format!("the data directory {place} cannot be used; check that it may be written"), e),
        }
    })
}

/// Opening a file makes it, and checking must not make a store.
pub(super) fn must_be_there(backends: &dyn Backends) -> Result<(), Fault> {
    let place = backends.place();
    for name in [JOURNAL, STATE] {
        if !backends.exists(name).map_err(|e| Fault::fatal(format!("{place}/{name} cannot be found"), e))? {
            return Err(Fault::fatal_plain(format!("there is no store in {place}: {name} is missing")));
        }
    }
    Ok(())
}

fn file_fault(disk: &dyn Backends, name: &str) -> impl Fn(std::io::Error) -> Fault {
    let what = format!("{}/{name} cannot be opened or made", disk.place());
    move |e| Fault::fatal(what.clone(), e)
}

fn create(disk: &dyn Backends) -> Result<(), Fault> {
    let has = |name: &str| disk.exists(name).map_err(file_fault(disk, name));
    match (has(JOURNAL)?, has(STATE)?) {
        (true, true) => return Ok(()),
        (false, true) => {
            return Err(Fault::fatal_plain(format!(
                "{place}/{JOURNAL} is missing beside {STATE}: it may hold acknowledged work; put it back, or restore \
                 both files from a backup",
                place = disk.place()
            )));
        }
        (true, false) if !open_journal(disk)?.is_empty()? => {
            return Err(Fault::fatal_plain(format!(
                "{place}/{STATE} is missing beside {JOURNAL}: put it back, or restore both files from a backup",
                place = disk.place()
            )));
        }
        _ => {}
    }
    let store_id = uuid::Uuid::new_v4().into_bytes();
    create_one(disk, JOURNAL, |file| RedbJournal::create(file, store_id))?;
    create_one(disk, STATE, |file| create_state(file, store_id))
}

fn create_one(disk: &dyn Backends, name: &str, fill: impl FnOnce(Disk) -> Result<(), Fault>) -> Result<(), Fault> {
    let temporary = format!("{name}.new");
    let fault = file_fault(disk, name);
    disk.remove(&temporary).map_err(&fault)?;
    fill(Disk(disk.open(&temporary).map_err(&fault)?))?;
    disk.rename(&temporary, name).map_err(&fault)
}

fn create_state(file: Disk, store_id: [u8; 16]) -> Result<(), Fault> {
    let database = redb::Builder::new().create_with_backend(file).map_err(state_fault)?;
    let mut transaction = database.begin_write().map_err(state_fault)?;
    transaction.set_quick_repair(true);
    for table in Table::ALL {
        transaction.open_table(table.definition()).map_err(state_fault)?;
    }
    {
        let mut settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
        let rows: [(&[u8], &[u8]); 3] =
            [(FORMAT, &FORMAT_VERSION.to_le_bytes()), (STORE_ID, &store_id), (APPLIED, &0u64.to_le_bytes())];
        for (key, value) in rows {
            settings.insert(key, value).map_err(state_fault)?;
        }
    }
    transaction.commit().map_err(state_fault)
}

fn open_journal(disk: &dyn Backends) -> Result<RedbJournal, Fault> {
    RedbJournal::open(Disk(disk.open(JOURNAL).map_err(file_fault(disk, JOURNAL))?))
}

/// Opens both files and checks that they belong together and to this release.
pub(super) fn open_files(disk: &dyn Backends) -> Result<(Database, RedbJournal), Fault> {
    let file = Disk(disk.open(STATE).map_err(file_fault(disk, STATE))?);
    let mut builder = redb::Builder::new();
    let state = builder.set_cache_size(STATE_CACHE_BYTES).create_with_backend(file).map_err(state_fault)?;
    let format = format_of(&state)?;
    if format != FORMAT_VERSION {
        let advice = if format > FORMAT_VERSION { "start the newer release" } else { "run `conveyor upgrade`" };
        return Err(Fault::fatal_plain(format!(
            "{}/{STATE} has format {format}, and this release works on format {FORMAT_VERSION}; {advice}",
            disk.place()
        )));
    }
    let journal = open_journal_of(disk, &state)?;
    Ok((state, journal))
}

/// Opens the journal that belongs to the state file.
pub(super) fn open_journal_of(disk: &dyn Backends, state: &Database) -> Result<RedbJournal, Fault> {
    let journal = open_journal(disk)?;
    if setting(state, STORE_ID)? != journal.store_id()? {
        return Err(Fault::fatal_plain(format!(
            "{STATE} and {JOURNAL} in {} are of different stores; restore both from the same backup",
            disk.place()
        )));
    }
    Ok(journal)
}

pub(super) fn format_of(state: &Database) -> Result<u32, Fault> {
    let bytes = setting(state, FORMAT)?.and_then(|b| b.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or_else(|| Fault::fatal_plain(format!("{STATE} does not say its format")))
}

fn setting(state: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let transaction = state.begin_read().map_err(state_fault)?;
    let settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
    Ok(settings.get(key).map_err(state_fault)?.map(|value| value.value().to_vec()))
}

/// Loads the counts and replays the journal's tail; says the next outbox number too.
pub(super) fn recover(state: &Database, journal: &mut RedbJournal) -> Result<(Overlay, u64), Fault> {
    let applied = setting(state, APPLIED)?.and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let view = StateView::open(state)?;
    let mut counts = BTreeMap::new();
    for row in view.table(Table::Counts).iter().map_err(state_fault)? {
        let (key, value) = row.map_err(state_fault)?;
        counts.insert(key.value().to_vec(), value.value().try_into().map_or(0, i64::from_le_bytes));
    }
    let mut active = Generation::new();
    active.newest = applied;
    let mut overlay = Overlay { active, frozen: None, state: Arc::new(view), counts };
    journal.replay(applied, &mut |number, records| {
        let damaged = |e| Fault::fatal(format!("batch {number} of the journal cannot be replayed"), e);
        overlay.publish(number, &Arc::new(records)).map_err(damaged)
    })?;
    let mut newest_outbox = 0;
    let last = |table: &redb::ReadOnlyTable<&'static [u8], &'static [u8]>| {
        Ok::<_, Fault>(table.last().map_err(state_fault)?.and_then(|(key, _)| key.value().try_into().ok()))
    };
    if let Some(key) = last(overlay.state.table(Table::Outbox))? {
        newest_outbox = u64::from_be_bytes(key);
    }
    for key in overlay.active.tables[Table::Outbox as usize].keys() {
        newest_outbox = newest_outbox.max(key.bytes().try_into().map_or(0, u64::from_be_bytes));
    }
    Ok((overlay, newest_outbox + 1))
}
