//! Bytes rot in every file of a store: whatever is read then is right or an error, and nothing panics.
//!
//! The truth is what the same readers said before. Damage is drawn by a seed: flipped bits, runs of other bytes, blank sectors
//! and pages, sectors that the disk does not give back, pages in each other's place, and files that end early. `STORE_ROT_MUTATIONS` says how many are tried.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use conveyor_base::{BranchId, EventId, ExecutionId, Fault, TimerId, Timestamp, fault};
use conveyor_interpreter::{
    Branch, Command, Doing, Execution, Header, HistoryEvent, HistoryKind, MachineRef, Outcome, Status, Step,
};
use conveyor_store::sim::SimDisk;
use conveyor_store::{
    Backends, Commit, Direction, EndedBefore, MessageRow, Options, RevisionRow, Scans, Stamp, Threads, Writer, check,
    open, repair,
};
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DAY_MS: i64 = 86_400_000;
const EXECUTIONS: u128 = 90;
const PAGE: usize = 4096;

/// Names and bytes.
#[derive(Clone)]
struct Files {
    files: BTreeMap<String, Vec<u8>>,
    /// A sector that the disk does not give back: of which file, and where.
    lost_sector: Option<(String, usize)>,
}

fn options(disk: &SimDisk) -> Options {
    let threads = Threads::Caller { checkpoint_every: 0 };
    Options { threads, segment_bytes: 64 << 10, ..Options::on(Arc::new(disk.clone())) }
}

fn header(id: u128) -> Header {
    Header {
        child: None,
        id: ExecutionId(id),
        name: format!("run-{id}"),
        machine: MachineRef { name: format!("m{}", id % 3), revision: 1, qualifier: None },
        status: Status::Running,
        started_at: Timestamp(1),
        stopped_at: None,
        input: Arc::from(format!("\"{}\"", "in ".repeat(id as usize * 7 % 300))),
        outcome: None,
        last_event: EventId(1),
        next_branch: BranchId(1),
        next_attempt: Default::default(),
        next_timer: TimerId(1),
        timeout_timer: None,
        parent: None,
        redrive_count: 0,
        redriven_at: None,
        trace_header: None,
    }
}

fn event(number: u64, kind: HistoryKind) -> HistoryEvent {
    HistoryEvent { id: EventId(number), previous: EventId(number - 1), at: Timestamp(1), kind }
}

fn start(id: u128) -> Step {
    let due = Timestamp(1_000 + id as i64);
    let branch = Branch {
        parent: None,
        state: Arc::from("Wait"),
        state_entered_at: Timestamp(1),
        state_entered_event: EventId(1),
        input: Arc::new(serde_json::json!({ "n": id as u64 })),
        previous_event: EventId(1),
        variables: BTreeMap::new(),
        map_item: None,
        retries: Vec::new(),
        doing: Doing::Wait { timer: TimerId(0), due },
    };
    Step {
        header: Some(header(id)),
        branches: BTreeMap::from([(BranchId(0), Some(branch))]),
        history: vec![event(1, HistoryKind::ParallelStateStarted)],
        commands: vec![Command::SetTimer { timer: TimerId(0), due }],
        ..Step::default()
    }
}

fn end(id: u128) -> (Execution, Step) {
    let started = start(id);
    let mut before = Execution::load(header(id), BTreeMap::new(), BTreeMap::new());
    before.apply(&started);
    let mut header = header(id);
    let output: Arc<str> = Arc::from(format!("[{id}]"));
    header.status = Status::Succeeded;
    header.stopped_at = Some(Timestamp((id as i64 % 3) * DAY_MS + 5));
    header.outcome = Some(Outcome::Succeeded { output: output.clone() });
    header.last_event = EventId(2);
    let due = Timestamp(1_000 + id as i64);
    let step = Step {
        header: Some(header),
        branches: BTreeMap::from([(BranchId(0), None)]),
        history: vec![event(2, HistoryKind::ExecutionSucceeded { output })],
        commands: vec![Command::ClearTimer { timer: TimerId(0), due }],
        ..Step::default()
    };
    (before, step)
}

fn commit(writer: &Writer, build: impl FnOnce(&mut Commit) -> &mut Commit) {
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
    let text = String::new;
    let revision =
        RevisionRow { definition: text(), role_arn: text(), settings: text(), revision_id: None, created_at: Stamp(1) };
    for machine in 0..3 {
        commit(writer, |c| c.put_revision(&format!("m{machine}"), 1, &revision));
    }
    let run = |id: u128| {
        commit(writer, |c| c.step(None, &start(id)));
        if !id.is_multiple_of(5) {
            let (before, step) = end(id);
            commit(writer, |c| c.step(Some(&before), &step));
        }
        commit(writer, |c| c.put_item("films", &format!("k{id:03}"), &format!("{{\"n\":\"{}\"}}", "é".repeat(99))));
        commit(writer, |c| c.put_message("work", id as u64, &message(id as u64)));
    };
    (1..=EXECUTIONS * 8 / 10).for_each(run);
    writer.checkpoint().unwrap();
    let day_after = Timestamp(2 * DAY_MS);
    writer.archive_ended(EndedBefore { succeeded: day_after, unsuccessful: day_after }, None, 1_000).unwrap();
    writer.checkpoint().unwrap();
    (EXECUTIONS * 8 / 10 + 1..=EXECUTIONS).for_each(run);
}

fn files(disk: &SimDisk) -> Files {
    let read = |name: String| {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read(0, &mut bytes).unwrap();
        (name, bytes)
    };
    Files { files: disk.names().unwrap().into_iter().map(read).collect(), lost_sector: None }
}

fn on_disk(files: &Files) -> SimDisk {
    let disk = SimDisk::new(1);
    for (name, bytes) in &files.files {
        let file = disk.open(name).unwrap();
        file.write(0, bytes).unwrap();
        file.sync_data().unwrap();
    }
    if let Some((name, byte)) = &files.lost_sector {
        disk.lose_sector(name, *byte);
    }
    disk
}

/// Questions and their answers.
type Answers = BTreeMap<String, Result<String, Fault>>;

fn ask<T: Debug>(answers: &mut Answers, question: impl Into<String>, answer: Result<T, Fault>) {
    answers.insert(question.into(), answer.map(|answer| format!("{answer:?}")));
}

/// Everything that the store is asked, by every way that leads to it.
fn everything(reader: &Scans) -> Answers {
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

/// One way in which bytes come to be others.
fn damage(rng: &mut ChaCha8Rng, files: &mut Files) -> String {
    let kinds = ["state.redb", "journal-", "history-"];
    let kind = *kinds.choose(rng).unwrap();
    let names: Vec<String> = files.files.keys().filter(|name| name.starts_with(kind)).cloned().collect();
    let name = names.choose(rng).unwrap().clone();
    let bytes = files.files.get_mut(&name).unwrap();
    let pages = bytes.len() / PAGE;
    let (what, count) = match rng.random_range(0..10) {
        0 | 1 => ("bit", 1),
        2 => ("bits", 20),
        3 => ("bits", 100),
        4 => ("run", 1),
        5 => ("blank page", 1),
        6 => ("blank sector", 1),
        7 => ("cut", 1),
        8 => ("lost sector", 1),
        _ => ("swap", 1),
    };
    let mut at = 0;
    for _ in 0..count {
        at = rng.random_range(0..bytes.len());
        match what {
            "bit" | "bits" => bytes[at] ^= 1 << rng.random_range(0..8),
            "run" => {
                let end = (at + rng.random_range(1..5_000)).min(bytes.len());
                rng.fill_bytes(&mut bytes[at..end]);
            }
            "lost sector" => files.lost_sector = Some((name.clone(), at)),
            "blank page" => bytes[at / PAGE * PAGE..][..PAGE].fill(0),
            "blank sector" => bytes[at / 512 * 512..][..512].fill(0),
            "cut" if rng.random_range(0..2) == 0 => bytes.truncate(at),
            "cut" => bytes.truncate(at / PAGE * PAGE),
            _ => {
                let other = rng.random_range(0..pages);
                let (one, other) = ((at / PAGE).min(other), (at / PAGE).max(other));
                if one < other {
                    let (front, back) = bytes.split_at_mut(other * PAGE);
                    front[one * PAGE..][..PAGE].swap_with_slice(&mut back[..PAGE]);
                }
            }
        }
    }
    format!("{name}: {what} at {at}")
}

/// How a store of damaged files behaved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Behaviour {
    /// The damage lay where nothing is.
    Harmless,
    SomeErrors,
    Refused,
}

fn is_told(fault: &Fault, at: &str) {
    let text = fault::chain(fault);
    assert!(matches!(fault, Fault::Damaged { .. }) || text.contains("the store stopped"), "{at}: {text}");
    assert!(text.contains("check --repair") && (text.contains(".redb") || text.contains("journal")), "{at}: {text}");
}

/// Compares what is answered with the truth. Says how many answers were errors.
fn compare(found: &Answers, truth: &Answers, at: &str) -> usize {
    let mut errors = 0;
    for (question, answer) in found {
        match (answer, &truth[question]) {
            (Ok(found), Ok(right)) => assert_eq!(found, right, "{at}: WRONG: {question}"),
            (Err(fault), _) => {
                is_told(fault, at);
                errors += 1;
            }
            (_, Err(fault)) => panic!("{at}: the truth has an error: {fault}"),
        }
    }
    errors
}

fn behave(files: &Files, truth: &Answers, at: &str) -> Behaviour {
    let disk = on_disk(files);
    let backends: Arc<dyn Backends> = Arc::new(on_disk(files));
    let clean = check(&backends).is_ok_and(|report| report.is_clean());
    let (writer, reader) = match open(options(&disk)) {
        Ok((writer, reader)) => (writer, reader.on_this_thread()),
        Err(fault) => {
            is_told(&fault, at);
            assert!(!clean, "{at}: a check finds nothing, and it cannot be opened");
            return Behaviour::Refused;
        }
    };
    writer.scrub();
    let scrubbed = reader.damages();
    let errors = compare(&everything(&reader), truth, at);
    assert!(errors == 0 || !scrubbed.is_empty(), "{at}: {errors} errors, and a scrub finds nothing");
    assert!(errors == 0 || !clean, "{at}: {errors} errors, and a check finds nothing");
    // It goes on, or says why not.
    let mut new = Commit::new();
    new.put_item("new", "k", "{}");
    let stored = writer.commit_blocking(new).map(|()| writer.checkpoint());
    let again = compare(&everything(&reader), truth, at);
    assert!(again >= errors, "{at}: an error went away: {errors}, {again}");
    drop((writer, reader));
    if let (Ok(_), Ok((_writer, reader))) = (&stored, open(options(&disk))) {
        let reader = reader.on_this_thread();
        compare(&everything(&reader), truth, at);
        assert!(!matches!(reader.item("new", "k"), Ok(None)), "{at}: what was acknowledged is lost");
    }
    if errors == 0 { Behaviour::Harmless } else { Behaviour::SomeErrors }
}

/// What came of a repair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Mended {
    Whole,
    /// What is gone was named.
    InPart,
    /// The file's head is gone, in both copies.
    NotAtAll,
}

/// A repair leaves a store that answers everything: as before, or not at all where it said so.
fn mend(files: &Files, truth: &Answers, at: &str) -> Mended {
    let disk = on_disk(files);
    let backends: Arc<dyn Backends> = Arc::new(disk.clone());
    let done = match repair(&backends) {
        Ok(done) => done,
        Err(fault) => {
            let text = fault::chain(&fault);
            assert!(text.contains("nothing of") && text.contains("backup"), "{at}: {text}");
            return Mended::NotAtAll;
        }
    };
    // What leads to a definition that is gone stays a problem.
    let clean = done.report.is_clean();
    assert!(clean || done.lost.iter().any(|lost| lost.contains("'revisions'")), "{at}: {done}");
    assert!(done.nothing_to_do || !done.kept.is_empty());
    let (writer, reader) = open(options(&disk)).unwrap_or_else(|e| panic!("{at}: {}", fault::chain(&e)));
    let reader = reader.on_this_thread();
    let lost = done.lost.join("\n");
    // What a batch that is lost had changed is as it was before.
    let earlier = lost.contains("journal");
    for (question, answer) in everything(&reader) {
        let answer = answer.unwrap_or_else(|e| panic!("{at}: {question}: {}", fault::chain(&e)));
        if answer == *truth[&question].as_ref().unwrap() || earlier {
            continue;
        }
        assert!(!lost.is_empty(), "{at}: {question} became {answer}");
        let of = question.split(' ').next().unwrap();
        if of.len() == 36 {
            let gone = matches!(answer.as_str(), "None" | "false" | "[]");
            let named = ["item", "message"].iter().any(|what| question.contains(what))
                || lost.contains(of)
                || lost.contains("rows of the table 'executions' from");
            assert!(gone && named, "{at}: {question} became {answer}, and {lost}");
        }
    }
    commit(&writer, |c| c.put_item("new", "k", "{}"));
    writer.close().unwrap();
    drop(reader);
    assert_eq!(check(&backends).unwrap().is_clean(), clean, "{at}");
    assert_eq!(repair(&backends).unwrap().nothing_to_do, clean);
    if lost.is_empty() { Mended::Whole } else { Mended::InPart }
}

#[test]
fn whatever_rots_is_an_error_and_never_an_answer() {
    let count = std::env::var("STORE_ROT_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let disk = SimDisk::new(7);
    let (writer, reader) = open(options(&disk)).unwrap();
    fill(&writer);
    let truth = Arc::new(everything(&reader.clone().on_this_thread()));
    assert!(truth.values().all(Result::is_ok));
    // As a kill leaves them, and as the end of the appliance does.
    let killed = files(&disk);
    writer.close().unwrap();
    drop(reader);
    let images = [killed, files(&disk)];
    for (image, name) in images.iter().zip(["killed", "closed"]) {
        assert_eq!(behave(image, &truth, name), Behaviour::Harmless);
    }

    let mut table: BTreeMap<(String, Behaviour, Mended), u32> = BTreeMap::new();
    for seed in 0..count {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut files = images[usize::from(seed % 2 == 1)].clone();
        let what = damage(&mut rng, &mut files);
        let (at, truth) = (format!("seed {seed}, {what}"), truth.clone());
        let (tell, told) = mpsc::channel();
        let label = at.clone();
        let thread = std::thread::spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| (behave(&files, &truth, &at), mend(&files, &truth, &at))));
            let _ = tell.send(outcome);
        });
        let outcome = told.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|_| panic!("{label}: it hangs"));
        thread.join().unwrap();
        let (behaviour, mended) = outcome.unwrap_or_else(|_| panic!("{label}: see above"));
        let file = what.split(['.', '-']).next().unwrap().to_owned();
        *table.entry((file, behaviour, mended)).or_default() += 1;
    }
    for ((file, behaviour, mended), times) in &table {
        println!("{file:<8} {behaviour:?}, mended {mended:?}: {times}");
    }
    assert!(table.keys().any(|(_, behaviour, _)| *behaviour == Behaviour::SomeErrors), "damage is met: {table:?}");
    assert!(table.keys().any(|(_, _, mended)| *mended == Mended::InPart), "something is lost: {table:?}");
}
