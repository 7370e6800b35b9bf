//! A store with something of everything in it, the questions that it is asked, and its files as bytes.

#[path = "steps.rs"]
mod steps;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use conveyor_base::{EventId, ExecutionId, Fault, Older, Timestamp};
use conveyor_store::sim::SimDisk;
use conveyor_store::{Commit, Direction, EndedBefore, MessageRow, Options, Scans, Stamp, Threads, Writer, open};

use steps::{Sleeper, revision};

const DAY_MS: i64 = 86_400_000;
const EXECUTIONS: u128 = 90;
pub const PAGE: usize = 4096;

/// Names and bytes.
#[derive(Clone)]
pub struct Files {
    pub files: BTreeMap<String, Vec<u8>>,
    /// A sector that the disk does not give back: of which file, and where.
    pub lost_sector: Option<(String, usize)>,
}

pub fn options(disk: &SimDisk) -> Options {
    let threads = Threads::Caller { checkpoint_every: 0 };
    Options { threads, segment_bytes: 64 << 10, ..Options::on(Arc::new(disk.clone())) }
}

fn sleeper(id: u128) -> Sleeper {
    Sleeper {
        id,
        input: format!("\"{}\"", "in ".repeat(id as usize * 7 % 300)),
        due: Timestamp(1_000 + id as i64),
        output: format!("[{id}]"),
        stopped_at: Timestamp((id as i64 % 3) * DAY_MS + 5),
    }
}

pub fn commit(writer: &Writer, build: impl FnOnce(&mut Commit) -> &mut Commit) {
    let mut commit = Commit::new();
    build(&mut commit);
    writer.commit_blocking(commit).unwrap();
}

fn message(n: u64) -> MessageRow {
    MessageRow {
        id: n.to_string(),
        body: format!("message {n} {}", "x".repeat(n as usize * 31 % 900)),
        attributes: String::new(),
        group: String::new(),
        deduplication: String::new(),
        sent_at: Stamp(1),
        visible_at: Stamp(1),
        first_received_at: Stamp(0),
        received: 0,
        receipt: 0,
        deleted: false,
    }
}

/// Executions that run, that ended and that are archived, items and a queue; the newest of it only in the journal.
fn fill(writer: &Writer) {
    for machine in 0..3 {
        commit(writer, |c| c.put_revision(&format!("m{machine}"), 1, &revision()));
    }
    let run = |id: u128| {
        commit(writer, |c| c.step(None, &sleeper(id).start()));
        if !id.is_multiple_of(5) {
            let (before, step) = sleeper(id).end();
            commit(writer, |c| c.step(Some(&before), &step));
        }
        commit(writer, |c| c.put_item("films", &format!("k{id:03}"), &format!("{{\"n\":\"{}\"}}", "é".repeat(99))));
        commit(writer, |c| c.put_message("work", id as u64, &message(id as u64)));
    };
    (1..=EXECUTIONS * 8 / 10).for_each(run);
    writer.checkpoint().unwrap();
    let day_after = Older::than(Timestamp(2 * DAY_MS));
    writer
        .archive_ended(&EndedBefore { succeeded: day_after.clone(), unsuccessful: day_after.clone() }, None, 1_000)
        .unwrap();
    writer.checkpoint().unwrap();
    (EXECUTIONS * 8 / 10 + 1..=EXECUTIONS).for_each(run);
}

fn files(disk: &SimDisk) -> Files {
    Files { files: disk.files(), lost_sector: None }
}

pub fn on_disk(files: &Files) -> SimDisk {
    let disk = SimDisk::of(&files.files);
    if let Some((name, byte)) = &files.lost_sector {
        disk.lose_sector(name, *byte);
    }
    disk
}

/// Questions and their answers.
pub type Answers = BTreeMap<String, Result<String, Fault>>;

fn ask<T: Debug>(answers: &mut Answers, question: impl Into<String>, answer: Result<T, Fault>) {
    answers.insert(question.into(), answer.map(|answer| format!("{answer:?}")));
}

/// Everything that the store is asked, by every way that leads to it.
pub fn everything(reader: &Scans) -> Answers {
    let mut found = Answers::new();
    let a = &mut found;
    for id in (1..=EXECUTIONS + 3).map(ExecutionId) {
        let (machine, name) = (format!("m{}", id.0 % 3), format!("run-{}", id.0));
        ask(a, format!("{id} header"), reader.header(id));
        ask(a, format!("{id} whole"), reader.execution(id));
        ask(a, format!("{id} known"), reader.is_known(id));
        ask(a, format!("{id} archived"), reader.is_archived(id));
        ask(a, format!("{id} name"), reader.by_name(&machine, &name));
        ask(a, format!("{id} history"), reader.history(id, EventId(1), 99, Direction::Forward));
        ask(a, format!("{id} last event"), reader.history(id, EventId(0), 1, Direction::Backward));
        ask(a, format!("{id} item"), reader.item("films", &format!("k{:03}", id.0)));
        ask(a, format!("{id} message"), reader.message("work", id.0 as u64));
    }
    ask(a, "executions", reader.executions(&Default::default(), None, 10_000).map(|page| page.items));
    ask(a, "timers", reader.timers(Timestamp::MAX, 10_000));
    ask(a, "outstanding", reader.outstanding(None, 10_000));
    ask(a, "deliveries", reader.deliveries().collect::<Result<Vec<_>, _>>());
    ask(a, "items", reader.items("films", None, 10_000));
    ask(a, "messages", reader.messages("work", 0, 10_000));
    ask(a, "counts", Ok(reader.counts()));
    for machine in 0..3 {
        ask(a, format!("m{machine} revision"), reader.revision(&format!("m{machine}"), 1));
        ask(a, format!("m{machine} newest"), reader.newest_revision(&format!("m{machine}")));
    }
    ask(a, "queues", reader.outbox(None, 99));
    ask(a, "schedules", reader.schedules());
    found
}

/// The files of a filled store as a kill leaves them and as the end of the appliance does, and what is true of both.
pub fn images() -> ([Files; 2], Arc<Answers>) {
    let disk = SimDisk::new(7);
    let (writer, reader) = open(options(&disk)).unwrap();
    fill(&writer);
    let truth = Arc::new(everything(&reader.clone().on_this_thread()));
    assert!(truth.values().all(Result::is_ok));
    let killed = files(&disk);
    writer.close().unwrap();
    drop(reader);
    ([killed, files(&disk)], truth)
}
