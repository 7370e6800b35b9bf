//! The record of asynchronous starts: a file of JSON lines, one where an execution starts, one where it ends.
//!
//! Lines are written before they are acknowledged and, unless asked for, not synced: they survive the process. A line
//! that a power cut tore, or that is none, is passed over. When the file has grown and little in it is still in flight,
//! the rest is copied to a new one, which then takes its place.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::base::limits::EXPRESS_RECORD_BYTES_MAX;
use crate::base::{ExecutionId, Fault};
use crate::interpreter::{Header, Qualifier};
use crate::run::handle::Start;

/// How often an execution is run anew that never saw its end: what takes the box down must not do so for ever.
pub(super) const RUNS_MAX: u32 = 3;

const FILE: &str = "starts.jsonl";

pub(super) struct Record(Arc<Mutex<State>>);

struct State {
    folder: PathBuf,
    file: File,
    bytes: u64,
    /// The lines of what is in flight, and their length.
    open: HashMap<ExecutionId, String>,
    open_bytes: u64,
}

/// A start that has no end.
#[derive(Debug)]
pub(super) struct Recorded {
    pub id: ExecutionId,
    pub machine: String,
    pub revision: u64,
    /// How often it was begun.
    pub runs: u32,
    line: Line,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    start: Option<StartLine>,
    /// An execution that ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    end: Option<String>,
    /// An execution that is run anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    again: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StartLine {
    id: String,
    machine: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    alias: Option<String>,
    name: String,
    input: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    trace_header: Option<String>,
    #[serde(default)]
    runs: u32,
}

impl Recorded {
    pub fn to_start(&self) -> Start {
        let Some(line) = &self.line.start else { return Start::default() };
        Start {
            machine: line.machine.clone(),
            name: Some(line.name.clone()),
            input: line.input.as_str().into(),
            trace_header: line.trace_header.clone(),
            ..Start::default()
        }
    }

    pub fn qualifier(&self) -> Option<Qualifier> {
        let line = self.line.start.as_ref()?;
        let version = line.version?;
        Some(match &line.alias {
            Some(name) => Qualifier::Alias { name: name.clone(), version },
            None => Qualifier::Version(version),
        })
    }
}

impl Record {
    /// Reads what is there, and begins a new file with what has no end.
    pub fn open(folder: &Path) -> Result<(Record, Vec<Recorded>), Fault> {
        let failed = |what: &str, e| Fault::fatal(format!("cannot {what} {}", folder.join(FILE).display()), e);
        std::fs::create_dir_all(folder).map_err(|e| failed("make the folder of", e))?;
        let unfinished = match File::open(folder.join(FILE)) {
            Ok(file) => read(BufReader::new(file)).map_err(|e| failed("read", e))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed("open", e)),
        };
        let open: HashMap<ExecutionId, String> =
            unfinished.iter().map(|recorded| (recorded.id, text(&recorded.line))).collect();
        let (file, bytes) = rewrite(folder, open.values()).map_err(|e| failed("write", e))?;
        let state = State { folder: folder.to_owned(), file, bytes, open, open_bytes: bytes };
        Ok((Record(Arc::new(Mutex::new(state))), unfinished))
    }

    /// Writes a start down; synced where that is asked for.
    pub async fn started(&self, header: &Header, synced: bool) -> Result<(), Fault> {
        let qualifier = header.machine.qualifier.as_ref();
        let start = StartLine {
            id: header.id.to_string(),
            machine: header.machine.name.clone(),
            revision: header.machine.revision,
            version: qualifier.map(Qualifier::version),
            alias: qualifier.and_then(|q| q.alias().map(str::to_owned)),
            name: header.name.clone(),
            input: header.input.to_string(),
            trace_header: header.trace_header.clone(),
            runs: 1,
        };
        let line = text(&Line { start: Some(start), ..Line::default() });
        let id = header.id;
        self.change(synced, move |state| {
            state.write(&line)?;
            state.open_bytes += line.len() as u64;
            state.open.insert(id, line);
            Ok(())
        })
        .await
    }

    /// It is run anew.
    pub async fn runs_again(&self, id: ExecutionId) -> Result<(), Fault> {
        let line = text(&Line { again: Some(id.to_string()), ..Line::default() });
        // Synced: what takes the whole box down is counted, too.
        self.change(true, move |state| state.write(&line)).await
    }

    /// It has ended. Where this cannot be written it runs once more after a restart, which was promised.
    pub fn ended(&self, id: ExecutionId) {
        let line = text(&Line { end: Some(id.to_string()), ..Line::default() });
        let mut state = self.0.lock();
        let Some(start) = state.open.remove(&id) else { return };
        state.open_bytes = state.open_bytes.saturating_sub(start.len() as u64);
        let written = state.write(&line).and_then(|()| state.tidy());
        if let Err(e) = written {
            tracing::warn!("cannot write to {}: {e}", state.folder.join(FILE).display());
        }
    }

    /// A write to the page cache is done where it stands; only a sync gets a thread that may wait for a disk.
    async fn change(
        &self,
        synced: bool,
        change: impl FnOnce(&mut State) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), Fault> {
        let done = {
            let mut state = self.0.lock();
            change(&mut state).and_then(|()| if synced { state.file.try_clone().map(Some) } else { Ok(None) })
        };
        let done = match done {
            Ok(Some(file)) => {
                tokio::task::spawn_blocking(move || file.sync_data()).await.unwrap_or_else(|e| Err(e.into()))
            }
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        done.map_err(|e| {
            let file = self.0.lock().folder.join(FILE);
            Fault::retryable(format!("cannot write to {}; is its disk full?", file.display()), e)
        })
    }
}

impl State {
    fn write(&mut self, line: &str) -> std::io::Result<()> {
        self.file.write_all(line.as_bytes())?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn tidy(&mut self) -> std::io::Result<()> {
        if self.bytes > EXPRESS_RECORD_BYTES_MAX && self.open_bytes < self.bytes / 2 {
            let (file, bytes) = rewrite(&self.folder, self.open.values())?;
            (self.file, self.bytes, self.open_bytes) = (file, bytes, bytes);
        }
        Ok(())
    }
}

fn text(line: &Line) -> String {
    // Nothing in a line can fail to be written as JSON.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

/// A new file with these lines, in the place of the old one.
fn rewrite<'l>(folder: &Path, lines: impl Iterator<Item = &'l String>) -> std::io::Result<(File, u64)> {
    let (fresh, place) = (folder.join("starts.new"), folder.join(FILE));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&fresh)?;
    let mut bytes = 0;
    let mut all = String::new();
    for line in lines {
        all.push_str(line);
    }
    file.write_all(all.as_bytes())?;
    bytes += all.len() as u64;
    file.sync_data()?;
    std::fs::rename(&fresh, &place)?;
    File::open(folder)?.sync_all()?;
    Ok((file, bytes))
}

fn read(lines: impl std::io::BufRead) -> std::io::Result<Vec<Recorded>> {
    let mut found: Vec<Recorded> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut ended = Vec::new();
    for line in lines.split(b'\n') {
        let Ok(line) = serde_json::from_slice::<Line>(&line?) else { continue };
        if let Some(id) = line.end.as_ref().and_then(|id| places.get(id)) {
            ended.push(*id);
        }
        if let Some(at) = line.again.as_ref().and_then(|id| places.get(id)) {
            let recorded = &mut found[*at];
            recorded.runs += 1;
            if let Some(start) = &mut recorded.line.start {
                start.runs = recorded.runs;
            }
        }
        if let Some(start) = &line.start
            && let Ok(id) = start.id.parse()
        {
            let (machine, revision, runs) = (start.machine.clone(), start.revision, start.runs);
            places.insert(start.id.clone(), found.len());
            found.push(Recorded { id, machine, revision, runs, line });
        }
    }
    let ended: std::collections::HashSet<usize> = ended.into_iter().collect();
    let mut at = 0;
    found.retain(|_| {
        at += 1;
        !ended.contains(&(at - 1))
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Timestamp;
    use crate::interpreter::{Execution, MachineRef};

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
        record.ended(over.id);
        drop(record);
        let mut file = OpenOptions::new().append(true).open(folder.path().join(FILE)).unwrap();
        file.write_all(br#"{"start":{"id":"0"#).unwrap();

        for runs in 1..=3 {
            let (record, found) = Record::open(folder.path()).unwrap();
            let [one] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((one.id, one.revision, one.runs), (open.id, 7, runs));
            assert_eq!(one.qualifier(), Some(Qualifier::Version(3)));
            let start = one.to_start();
            assert_eq!((start.name.as_deref(), &start.input), (Some("open"), &open.input));
            record.runs_again(one.id).await.unwrap();
        }
        let (record, _) = Record::open(folder.path()).unwrap();
        record.ended(open.id);
        assert!(Record::open(folder.path()).unwrap().1.is_empty());
    }
}
