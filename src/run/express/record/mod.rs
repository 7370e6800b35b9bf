//! The record of asynchronous starts: files of JSON lines, one where an execution starts, one where it ends.
//!
//! Lines are written before they are acknowledged and, unless asked for, not synced: they survive the process. One
//! thread has the files and writes what came meanwhile in one go, so that nobody else waits for a disk, and no start for
//! another's sync. When the files have grown and little in them is still in flight, the oldest is emptied: what has no
//! end is copied to the newest; a thread of its own syncs that and removes the oldest, while starts go on.

mod files;
mod line;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use conveyor_base::limits::EXPRESS_RECORD_BYTES_MAX;
use conveyor_base::{ExecutionId, Fault};
use conveyor_interpreter::Header;
use tokio::sync::oneshot;

use files::Files;
pub(super) use line::Recorded;
use line::{Reading, StartLine};

/// How often an execution is run, in all, during which the appliance ended out of order: what takes the box down must not
/// do so for ever.
pub(super) const RUNS_MAX: u32 = 3;
/// Starts that are written in one go.
const BATCH_MAX: usize = 1_024;

/// The record. Its thread ends, with everything written, when this is dropped.
pub(super) struct Record {
    folder: PathBuf,
    /// `None` only while it is dropped.
    changes: Option<mpsc::Sender<Change>>,
    thread: Option<JoinHandle<()>>,
}

/// A line, and who waits for it: told the file that has it.
struct Change {
    what: What,
    written: oneshot::Sender<io::Result<Arc<File>>>,
}

enum What {
    Start(ExecutionId, StartLine),
    Again(ExecutionId),
    End(ExecutionId),
    Orderly,
}

impl Record {
    /// Reads what is there, and begins a new file with what has no end. For threads that may block.
    pub fn open(folder: &Path) -> Result<(Record, Vec<Recorded>), Fault> {
        Record::with_length(folder, EXPRESS_RECORD_BYTES_MAX)
    }

    fn with_length(folder: &Path, bytes_max: u64) -> Result<(Record, Vec<Recorded>), Fault> {
        let failed = |e| Fault::fatal(format!("cannot read and write the starts in {}", folder.display()), e);
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut reading = Reading::default();
        for (_, path) in files::list(folder).map_err(failed)? {
            reading.read(io::BufReader::new(File::open(path).map_err(failed)?)).map_err(failed)?;
        }
        let unfinished = reading.unfinished();
        let lines: String = unfinished.iter().map(|recorded| recorded.line.text()).collect();
        let files = Files::replace(folder, &lines).map_err(failed)?;
        let newest = files.newest();
        let open = |recorded: &Recorded| {
            let bytes = recorded.line.text().len() as u64;
            (recorded.id, Open { line: recorded.line.clone(), bytes, file: newest })
        };
        let open: HashMap<_, _> = unfinished.iter().map(open).collect();
        let keeper = Keeper { open_bytes: lines.len() as u64, open, files, bytes_max, emptying: None, rest_until: 0 };
        let (changes, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new().name("express-record".into());
        let thread = thread.spawn(move || keeper.keep(&inbox)).map_err(failed)?;
        Ok((Record { folder: folder.to_owned(), changes: Some(changes), thread: Some(thread) }, unfinished))
    }

    /// Writes a start down; synced where that is asked for. A caller that goes away leaves open whether it is.
    ///
    /// # Errors
    /// The line was not written, or not synced. It is then ended, for who is refused must not have it run after a restart: only
    /// where the end cannot be written either it may.
    pub async fn started(&self, header: &Header, synced: bool) -> Result<(), Fault> {
        let written = self.change([What::Start(header.id, StartLine::of(header))], synced).await;
        if written.is_err() {
            self.ended(header.id).await;
        }
        written
    }

    /// These are run anew.
    pub async fn run_again(&self, ids: impl Iterator<Item = ExecutionId>) -> Result<(), Fault> {
        // Synced: what takes the whole box down is counted, too.
        self.change(ids.map(What::Again), true).await
    }

    /// The appliance ends in order. What has no end yet runs anew, and that does not count.
    pub async fn ends_in_order(&self) -> Result<(), Fault> {
        self.change([What::Orderly], true).await
    }

    /// It has ended. Where this cannot be written it runs once more after a restart, which was promised.
    pub async fn ended(&self, id: ExecutionId) {
        if let Err(fault) = self.change([What::End(id)], false).await {
            tracing::warn!("{}", conveyor_base::fault::chain(&fault));
        }
    }

    /// Writes lines, in their order, and syncs the files that have them where that is asked for.
    async fn change(&self, lines: impl IntoIterator<Item = What>, synced: bool) -> Result<(), Fault> {
        let mut answers = Vec::new();
        for what in lines {
            let (written, answer) = oneshot::channel();
            if let Some(changes) = &self.changes {
                // Where the thread is gone, so is the answer.
                let _ = changes.send(Change { what, written });
            }
            answers.push(answer);
        }
        let mut files: Vec<Arc<File>> = Vec::new();
        let failed =
            |e| Fault::retryable(format!("cannot write a start to {}; is its disk full?", self.folder.display()), e);
        for answer in answers {
            // Nobody would record the starts that follow, and each would be refused: a restart reads what is there.
            let Ok(written) = answer.await else {
                return Err(Fault::fatal_plain("the thread that records express starts has ended"));
            };
            let file = written.map_err(failed)?;
            if !files.last().is_some_and(|last| Arc::ptr_eq(last, &file)) {
                files.push(file);
            }
        }
        if !synced {
            return Ok(());
        }
        let folder = self.folder.clone();
        let sync = move || files.iter().try_for_each(|file| files::sync(&folder, file));
        let synced = tokio::task::spawn_blocking(sync).await;
        synced.unwrap_or_else(|e| Err(e.into())).map_err(failed)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            // It has logged what went wrong.
            let _ = thread.join();
        }
    }
}

/// A start that has no end yet.
struct Open {
    line: StartLine,
    bytes: u64,
    /// The file that has its line.
    file: u64,
}

/// What the thread has.
struct Keeper {
    files: Files,
    open: HashMap<ExecutionId, Open>,
    open_bytes: u64,
    bytes_max: u64,
    /// The oldest file is being removed.
    emptying: Option<JoinHandle<io::Result<()>>>,
    /// Below this length nothing is tidied: it failed lately.
    rest_until: u64,
}

impl Keeper {
    fn keep(mut self, inbox: &mpsc::Receiver<Change>) {
        while let Ok(first) = inbox.recv() {
            let batch: Vec<Change> = std::iter::once(first).chain(inbox.try_iter().take(BATCH_MAX - 1)).collect();
            self.write(batch);
            if let Err(e) = self.tidy() {
                self.give_up(&e);
            }
        }
        if let Some(emptying) = self.emptying.take() {
            self.emptied(emptying);
        }
    }

    fn write(&mut self, batch: Vec<Change>) {
        let mut lines = String::new();
        for change in &batch {
            match &change.what {
                What::Start(_, line) => lines.push_str(&line.text()),
                What::Again(id) => lines.push_str(&line::again(*id)),
                What::Orderly => lines.push_str(&line::orderly()),
                What::End(id) if self.open.contains_key(id) => lines.push_str(&line::ended(*id)),
                // Its start is not here: nothing would run anew.
                What::End(_) => {}
            }
        }
        let written = self.files.append(&lines);
        for change in batch {
            let answer = match &written {
                Ok(()) => {
                    self.note(change.what);
                    Ok(self.files.file().clone())
                }
                Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
            };
            // Who does not wait any more does not want it.
            let _ = change.written.send(answer);
        }
    }

    fn note(&mut self, what: What) {
        match what {
            What::Start(id, line) => {
                let (bytes, file) = (line.text().len() as u64, self.files.newest());
                self.open_bytes += bytes;
                self.open.insert(id, Open { line, bytes, file });
            }
            What::Again(id) => {
                if let Some(open) = self.open.get_mut(&id) {
                    open.line.runs += 1;
                }
            }
            What::Orderly => {}
            What::End(id) => {
                if let Some(open) = self.open.remove(&id) {
                    self.open_bytes = self.open_bytes.saturating_sub(open.bytes);
                }
            }
        }
    }

    /// Goes on in a new file when the newest has its share, and empties the oldest when all are too long.
    fn tidy(&mut self) -> io::Result<()> {
        if let Some(done) = self.emptying.take_if(|emptying| emptying.is_finished()) {
            self.emptied(done);
        }
        let length = self.files.length();
        if length < self.rest_until {
            return Ok(());
        }
        if self.files.newest_length() > self.bytes_max / 4 {
            self.files.begin_next()?;
        }
        if length <= self.bytes_max || self.open_bytes >= length / 2 || self.emptying.is_some() {
            return Ok(());
        }
        let Some(oldest) = self.files.oldest() else { return Ok(()) };
        let left = || self.open.values().filter(|open| open.file == oldest);
        let lines: String = left().map(|open| open.line.text()).collect();
        self.files.append(&lines)?;
        let newest = self.files.newest();
        self.open.values_mut().filter(|open| open.file == oldest).for_each(|open| open.file = newest);
        let emptying = self.files.removal(oldest);
        self.emptying = Some(std::thread::Builder::new().name("express-empty".into()).spawn(emptying)?);
        Ok(())
    }

    fn emptied(&mut self, emptying: JoinHandle<io::Result<()>>) {
        match emptying.join().unwrap_or_else(|_| Err(io::Error::other("it panicked"))) {
            Ok(()) => self.files.forget_oldest(),
            Err(e) => self.give_up(&e),
        }
    }

    /// Nothing is lost by longer files: the next try comes when they have grown by a file.
    fn give_up(&mut self, error: &io::Error) {
        self.rest_until = self.files.length() + self.bytes_max / 4;
        tracing::warn!("the record of express starts cannot be shortened: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use conveyor_base::Timestamp;
    use conveyor_interpreter::{Execution, MachineRef, Qualifier};

    use super::*;

    fn header(name: &str) -> Header {
        let machine = MachineRef { name: "m".into(), revision: 7, qualifier: Some(Qualifier::Version(3)) };
        let id = ExecutionId::generate(Timestamp(1_000));
        Execution::start(id, name.into(), machine, r#"{ "a": "ä\n" }"#.into(), Timestamp(1_000)).header
    }

    #[tokio::test]
    async fn what_has_no_end_is_found_again_and_a_torn_line_hurts_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (record, nothing) = Record::open(folder.path()).unwrap();
        assert!(nothing.is_empty());
        let (over, open) = (header("over"), header("open"));
        record.started(&over, false).await.unwrap();
        record.started(&open, true).await.unwrap();
        record.ended(over.id).await;
        drop(record);
        // As the one file of an older release, torn by a power cut.
        let [(1, only)] = &files::list(folder.path()).unwrap()[..] else { panic!("one file") };
        let first = folder.path().join("starts.jsonl");
        std::fs::rename(only, &first).unwrap();
        std::fs::OpenOptions::new().append(true).open(first).unwrap().write_all(br#"{"start":{"id":"0"#).unwrap();

        for runs in 1..=3 {
            let (record, found) = Record::open(folder.path()).unwrap();
            let [one] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((one.id, one.revision(), one.runs()), (open.id, 7, runs));
            assert_eq!(one.qualifier(), Some(Qualifier::Version(3)));
            let start = one.to_start();
            assert_eq!((start.name.as_deref(), &start.input), (Some("open"), &open.input));
            record.run_again([one.id].into_iter()).await.unwrap();
        }
        // What the appliance ends in order after takes nothing down.
        for _ in 0..3 {
            let (record, found) = Record::open(folder.path()).unwrap();
            assert_eq!(found[0].runs(), 4);
            record.run_again([open.id].into_iter()).await.unwrap();
            record.ends_in_order().await.unwrap();
        }
        let (record, _) = Record::open(folder.path()).unwrap();
        record.ended(open.id).await;
        assert!(Record::open(folder.path()).unwrap().1.is_empty());
    }

    #[tokio::test]
    async fn a_start_that_was_refused_does_not_run_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, away) = (dir.path().join("record"), dir.path().join("away"));
        let (record, _) = Record::open(&folder).unwrap();
        // What is written still reaches its file, and that it is there cannot be synced.
        std::fs::rename(&folder, &away).unwrap();
        let (refused, accepted) = (header("refused"), header("accepted"));
        record.started(&accepted, false).await.unwrap();
        record.started(&refused, true).await.unwrap_err();
        std::fs::rename(&away, &folder).unwrap();
        drop(record);
        let (_, found) = Record::open(&folder).unwrap();
        assert_eq!(found.iter().map(|one| one.id).collect::<Vec<_>>(), [accepted.id]);
    }

    #[tokio::test]
    async fn files_stay_few_and_keep_what_runs_on() {
        const BYTES_MAX: u64 = 8_192;
        let folder = tempfile::tempdir().unwrap();
        let (record, _) = Record::with_length(folder.path(), BYTES_MAX).unwrap();
        let long = header("long");
        record.started(&long, false).await.unwrap();
        record.run_again([long.id].into_iter()).await.unwrap();
        let pass = async |n: u32| {
            let short = header(&n.to_string());
            record.started(&short, false).await.unwrap();
            record.ended(short.id).await;
        };
        for n in 0..500 {
            pass(n).await;
        }
        // Old files go as quickly as the disk syncs; with what comes next they are looked at again.
        let left = || {
            let files = files::list(folder.path()).unwrap();
            let bytes: u64 = files.iter().filter_map(|(_, path)| path.metadata().ok()).map(|meta| meta.len()).sum();
            (files[0].0, bytes)
        };
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while left().0 == 1 || left().1 >= 4 * BYTES_MAX {
            assert!(std::time::Instant::now() < until, "{:?} are left", left());
            pass(501).await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        drop(record);
        let (_, found) = Record::open(folder.path()).unwrap();
        assert_eq!(found.iter().map(|one| (one.id, one.runs())).collect::<Vec<_>>(), [(long.id, 2)]);
    }
}
