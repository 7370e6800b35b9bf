//! Opening: create what is missing, recover what a crash left, refuse what does not belong together.
//!
//! A file is made under a temporary name, filled, synced and only then renamed: a power cut inside redb's first open
//! can leave a file that redb refuses. The journal is made before the state file, so a lone journal means that the
//! making was interrupted, and a lone state file that somebody took the journal away.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use conveyor_base::{Fault, fault};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::blocks::{Blocks, Form, Rotten};
use super::damages::Damages;
use super::disk::{Backends, Directory, Disk, REPAIR, STATE, create_whole, file_fault, state_fault};
use super::engine::{APPLIED, Engine};
use super::envelope::{PLAIN, Sealed, seal};
use super::journal::{self, Journal, StoreId, Tail};
use super::overlay::{Counts, Overlay, StateView};
use super::reader::Reader;
use super::tables::{self, Table};
use super::upgrade::interrupted;
use super::writer::{Threads, Writer};

/// The form of the files. A newer release reads older ones after `conveyor upgrade`; an older one refuses newer.
/// Forms 1 to 3 were those of builds before the first release; form 4, of release 0.1, had no envelopes, and kept what is
/// the box's own among the users' items; form 5 had no checksums under redb's pages and in the journal's sectors.
pub const FORMAT_VERSION: u32 = 6;

pub(super) const FORMAT: &[u8] = b"store.format";
pub(super) const STORE_ID: &[u8] = b"store.id";
/// From which format the files are being upgraded. There only until that has come to its end.
pub(super) const UPGRADING: &[u8] = b"store.upgrading";
/// redb's cache of the state file.
const STATE_CACHE_BYTES: usize = 64 << 20;
/// Size of a file of the journal: some 2,000 commits that come one by one, or 80 ms of as many as the disk takes.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;

/// Where the store lies and how it runs.
#[derive(Clone)]
pub struct Options {
    pub backends: Arc<dyn Backends>,
    pub checkpoint_ms: u64,
    pub threads: Threads,
    /// Size of a new file of the journal.
    pub segment_bytes: u64,
}

impl Options {
    /// A store in a data directory, with threads of its own.
    pub fn at(directory: impl Into<PathBuf>) -> Options {
        Options::on(Arc::new(Directory::new(directory)))
    }

    /// A store on whatever keeps files.
    pub fn on(backends: Arc<dyn Backends>) -> Options {
        Options { backends, checkpoint_ms: 150, threads: Threads::Own, segment_bytes: SEGMENT_BYTES }
    }
}

/// Opens the store, makes it where there is none, and recovers what was acknowledged.
///
/// The cost follows the length of the journal, not of the state file.
pub fn open(options: Options) -> Result<(Writer, Reader), Fault> {
    let disk = options.backends.clone();
    let lock = lock(&*disk)?;
    create(&*disk, options.segment_bytes)?;
    let Files { state, journal, tail } = without_panic(&*disk, || open_files(&disk, options.segment_bytes))?;
    let damages = Arc::default();
    let (overlay, outbox_next) = recover(&state, tail, &damages)?;
    let engine = Arc::new(Engine::new(overlay, state, journal, disk, damages, lock, options.threads));
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
    match backends.exists(STATE).map_err(file_fault(backends, STATE))? {
        true => Ok(()),
        false => Err(Fault::fatal_plain(format!("there is no store in {}: {STATE} is missing", backends.place()))),
    }
}

fn create(disk: &dyn Backends, segment_bytes: u64) -> Result<(), Fault> {
    let place = disk.place();
    let has_state = disk.exists(STATE).map_err(file_fault(disk, STATE))?;
    match (journal::names(disk)?.as_slice(), has_state) {
        ([_, ..], true) => return Ok(()),
        ([], true) => {
            return Err(Fault::fatal_plain(format!(
                "the journal is missing in {place} beside {STATE}: it may hold acknowledged work; put its files back, or \
                 restore the data directory from a backup"
            )));
        }
        (left, false) => {
            // Of a making that was interrupted there is one file, with nothing in it.
            if !journal::is_unused(disk, left)? {
                return Err(Fault::fatal_plain(format!(
                    "{place}/{STATE} is missing beside the journal: put it back, or restore the data directory from a \
                     backup"
                )));
            }
            for name in left {
                disk.remove(name).map_err(file_fault(disk, name))?;
            }
        }
    }
    let store_id = uuid::Uuid::new_v4().into_bytes();
    Journal::create(disk, store_id, segment_bytes)?;
    create_whole(disk, STATE, |temporary| {
        create_state(Blocks::open(disk, temporary).map_err(file_fault(disk, STATE))?, store_id, 0).map(drop)
    })
}

/// Makes an empty state file, which has the journal's batches up to `applied`.
pub(super) fn create_state(file: Blocks, store_id: StoreId, applied: u64) -> Result<Database, Fault> {
    let database = redb::Builder::new().create_with_backend(file).map_err(state_fault)?;
    let mut transaction = database.begin_write().map_err(state_fault)?;
    transaction.set_quick_repair(true);
    for table in Table::ALL {
        transaction.open_table(table.definition()).map_err(state_fault)?;
    }
    {
        let mut settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
        settings.insert(FORMAT, FORMAT_VERSION.to_le_bytes().as_slice()).map_err(state_fault)?;
        let rows: [(&[u8], &[u8]); 2] = [(STORE_ID, &store_id), (APPLIED, &applied.to_le_bytes())];
        for (key, content) in rows {
            settings.insert(key, seal(Table::Settings, PLAIN, key, content).as_slice()).map_err(state_fault)?;
        }
    }
    transaction.commit().map_err(state_fault)?;
    Ok(database)
}

/// The state file, open.
pub(super) struct State {
    pub database: Database,
    /// What redb has it from.
    pub file: Blocks,
}

/// A store's files, open, and what the journal holds that the state file lacks.
pub(super) struct Files {
    pub state: State,
    pub journal: Journal,
    pub tail: Tail,
}

/// Opens the files and checks that they belong together and to this release.
pub(super) fn open_files(disk: &Arc<dyn Backends>, segment_bytes: u64) -> Result<Files, Fault> {
    let Opened { database, file } = open_state(&**disk)?;
    let format = format_of(&database)?;
    if format != FORMAT_VERSION {
        let advice = if format > FORMAT_VERSION { "start the newer release" } else { "run `conveyor upgrade`" };
        return Err(Fault::fatal_plain(format!(
            "{}/{STATE} has format {format}, and this release works on format {FORMAT_VERSION}; {advice}",
            disk.place()
        )));
    }
    let Some(file) = file else {
        let what = format!("{}/{STATE} says that it has format {format}, and has not; {REPAIR}", disk.place());
        return Err(Fault::damaged_plain(what));
    };
    let state = State { database, file };
    if interrupted(&state.database)?.is_some() {
        return Err(Fault::fatal_plain(format!(
            "{}/{STATE} was being upgraded when that was interrupted; run `conveyor upgrade` again",
            disk.place()
        )));
    }
    let store_id = setting(&state.database, STORE_ID)?.and_then(|id| id.try_into().ok());
    let store_id = store_id.ok_or_else(|| Fault::fatal_plain(format!("{STATE} does not say which store it is of")))?;
    let (journal, tail) = Journal::open(disk.clone(), store_id, segment_bytes, applied(&state.database)?)?;
    Ok(Files { state, journal, tail })
}

/// Opens the state file, of whichever form.
pub(super) fn open_state(disk: &dyn Backends) -> Result<Opened, Fault> {
    let place = disk.place();
    open_database(disk, STATE, STATE_CACHE_BYTES).map_err(|(why, e)| match e {
        redb::Error::Io(e) if Rotten::of(&e).is_none() => file_fault(disk, STATE)(e),
        e => Fault::damaged(format!("{place}/{STATE} {why}; {REPAIR}"), e),
    })
}

/// A file of redb's, open.
pub(super) struct Opened {
    pub database: Database,
    /// `None`: an older release wrote it, without checksums of blocks.
    pub file: Option<Blocks>,
}

/// redb would make an empty file into a database of its own, and panics over some kinds of damage.
pub(super) fn open_database(
    disk: &dyn Backends,
    name: &str,
    cache_bytes: usize,
) -> Result<Opened, (&'static str, redb::Error)> {
    let damaged = |e: std::io::Error| ("is damaged", redb::Error::Io(e));
    let blocks = Blocks::open(disk, name).map_err(damaged)?;
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    let form = blocks.form().map_err(damaged)?;
    let file = (form == Form::Blocks).then(|| blocks.clone());
    let opened = match form {
        Form::Empty => return Err(("is empty", redb::Error::Corrupted("it has no byte".to_owned()))),
        Form::Blocks => catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(blocks))),
        Form::Plain => {
            let file = Disk(disk.open(name).map_err(damaged)?);
            catch_unwind(AssertUnwindSafe(|| builder.create_with_backend(file)))
        }
    };
    let panicked = |panic: Box<dyn std::any::Any + Send>| redb::Error::Corrupted(fault::panic_text(&*panic));
    match opened.map_err(panicked).and_then(|opened| opened.map_err(redb::Error::from)) {
        Ok(database) => Ok(Opened { database, file }),
        Err(e) => Err(("is damaged", e)),
    }
}

/// Does something with files that have no checksums of their own: redb panics over some kinds of damage, which is an error
/// like others.
pub(super) fn without_panic<T>(disk: &dyn Backends, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let (place, what) = (disk.place(), fault::panic_text(&*panic));
        Err(Fault::damaged_plain(format!(
            "a file of {place} ({STATE} or one of history-*.redb) is damaged: {what}; restore the data directory from a backup"
        )))
    })
}

/// The newest batch of the journal that the state file has.
fn applied(state: &Database) -> Result<u64, Fault> {
    Ok(setting(state, APPLIED)?.and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes))
}

pub(super) fn format_of(state: &Database) -> Result<u32, Fault> {
    let bytes = value(state, FORMAT)?.and_then(|b| b.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or_else(|| Fault::fatal_plain(format!("{STATE} does not say its format")))
}

/// One of the store's own settings, verified: everything else hangs on them.
pub(super) fn setting(state: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let Some(value) = value(state, key)? else { return Ok(None) };
    let row = Sealed::new(Table::Settings, key, &value);
    row.verify()?;
    Ok(Some(row.plain()?.to_vec()))
}

/// The value as it lies there, with its envelope: the format has none.
fn value(state: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let transaction = state.begin_read().map_err(state_fault)?;
    let settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
    Ok(settings.get(key).map_err(state_fault)?.map(|value| value.value().to_vec()))
}

/// Loads the counts and replays the journal's tail; says the next outbox number too.
pub(super) fn recover(state: &State, tail: Tail, damages: &Arc<Damages>) -> Result<(Overlay, u64), Fault> {
    let view = StateView::open(state, damages)?;
    let mut counts = Counts::new();
    for row in view.table(Table::Counts, &[])?.iter().map_err(state_fault)? {
        let (key, value) = row.map_err(state_fault)?;
        let row = Sealed::new(Table::Counts, key.value(), value.value());
        row.verify()?;
        let count = row.plain()?.try_into().map_err(|_| row.damaged("a row is no count"))?;
        counts.insert(key.value().into(), i64::from_le_bytes(count));
    }
    let mut overlay = Overlay::new(view, counts, applied(&state.database)?);
    for (number, records) in tail {
        let damaged = |e| Fault::fatal(format!("batch {number} of the journal cannot be replayed"), e);
        overlay.publish(number, &Arc::new(records)).map_err(damaged)?;
    }
    let newest = newest_outbox(&overlay)?;
    Ok((overlay, newest + 1))
}

/// The newest number of a notification: one that was delivered keeps its own.
fn newest_outbox(overlay: &Overlay) -> Result<u64, Fault> {
    let recovered = overlay.snapshot();
    let waiting = |key: &[u8]| key.try_into().ok().map(u64::from_be_bytes);
    let last = recovered.state.table(Table::Outbox, &[])?.last().map_err(state_fault)?;
    let first = recovered.state.table(Table::Delivered, &[])?.first().map_err(state_fault)?;
    let stored = [
        last.and_then(|(key, _)| waiting(key.value())),
        first.and_then(|(key, _)| tables::split_newest_first(key.value())),
    ];
    let replayed = |table: Table| recovered.active().tables[table as usize].keys();
    let outbox = replayed(Table::Outbox).filter_map(|key| waiting(key.bytes()));
    let delivered = replayed(Table::Delivered).filter_map(|key| tables::split_newest_first(key.bytes()));
    Ok(stored.into_iter().flatten().chain(outbox).chain(delivered).max().unwrap_or(0))
}
