//! What the store takes: whether it stops growing under retention, what a million sleepers cost, and whether lists
//! over a million executions stay quick.
//!
//! `cargo bench --bench growth [-- churn | sleepers | lists]`; `CONVEYOR_BENCH_EXECUTIONS` sets how many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use conveyor_base::{EventId, ExecutionId, Older, Timestamp};
use conveyor_interpreter::{Execution, HistoryEvent, HistoryKind, Outcome, Status, Step};
use conveyor_store::{Commit, Direction, EndedBefore, ExecutionFilter, Options, Scans, Threads, Writer, open};
use conveyor_testing::yardstick;

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

const PER_COMMIT: usize = 100;
const DAY_MS: i64 = 86_400_000;
/// Days that executions stay.
const FORGET_DAYS: i64 = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let count = std::env::var("CONVEYOR_BENCH_EXECUTIONS").ok().and_then(|s| s.parse().ok());
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["open", folder] => reopened(Path::new(folder)),
        ["churn"] => churn(count.unwrap_or(200_000)),
        ["sleepers"] => sleepers(count.unwrap_or(1_000_000)),
        ["lists"] => lists(count.unwrap_or(1_000_000)),
        _ => {
            churn(count.unwrap_or(200_000));
            sleepers(count.unwrap_or(100_000));
            lists(count.unwrap_or(100_000));
        }
    }
}

fn options(folder: &Path) -> Options {
    Options { threads: Threads::Caller { checkpoint_every: 0 }, ..Options::at(folder) }
}

/// The step that ends a sleeper.
fn ending(before: &Execution, at: Timestamp) -> Step {
    let mut header = before.header.clone();
    let output = header.input.clone();
    header.status = Status::Succeeded;
    header.stopped_at = Some(at);
    header.outcome = Some(Outcome::Succeeded { output: output.clone() });
    header.last_event = EventId(3);
    let kind = HistoryKind::ExecutionSucceeded { output };
    Step {
        header: Some(header),
        branches: before.branches.keys().map(|id| (*id, None)).collect(),
        history: vec![HistoryEvent { id: EventId(3), previous: EventId(2), at, kind }],
        ..Step::default()
    }
}

fn start(writer: &Writer, at: Timestamp, count: usize) -> Vec<Execution> {
    let (mut commit, mut started) = (Commit::new(), Vec::new());
    for _ in 0..count {
        let step = yardstick::sleeping(ExecutionId::generate(at), at.plus_ms(60_000));
        commit.step(None, &step);
        let mut execution = Execution::load(step.header.clone().unwrap(), Default::default(), Default::default());
        execution.apply(&step);
        started.push(execution);
    }
    writer.commit_blocking(commit).unwrap();
    started
}

/// Days that each bring as many executions, archived after a day and forgotten after three.
fn churn(count: usize) {
    let folder = yardstick::folder("churn");
    let (writer, reader) = open(options(&folder)).unwrap();
    let reader = reader.on_this_thread();
    let per_day = count / 10;
    println!("{count} executions in 10 days, archived after 1 day, forgotten after {FORGET_DAYS}");
    for day in 0..10i64 {
        let begun = Instant::now();
        for n in (0..per_day).step_by(PER_COMMIT) {
            let at = Timestamp(day * DAY_MS + n as i64);
            let started = start(&writer, at, PER_COMMIT);
            // The rows reach the state file between start and end, as those of real work do.
            if n % 5_000 == 0 {
                writer.checkpoint().unwrap();
            }
            let mut commit = Commit::new();
            for execution in &started {
                commit.step(Some(execution), &ending(execution, at.plus_ms(10)));
            }
            writer.commit_blocking(commit).unwrap();
        }
        let worked = begun.elapsed();
        let night = Timestamp((day + 1) * DAY_MS);
        let archived = keep_house(&writer, night);
        writer.checkpoint().unwrap();
        println!(
            "day {day}: work {:5.1} s, housekeeping {:5.1} s ({} archived, {} forgotten); {:7} executions   state {:6.1} \
             MiB   archives {:6.1} MiB   all {:6.1} MiB",
            worked.as_secs_f64(),
            (begun.elapsed() - worked).as_secs_f64(),
            archived.0,
            archived.1,
            reader.count(Status::Succeeded),
            mib(&folder, "state"),
            mib(&folder, "history"),
            mib(&folder, ""),
        );
    }
    drop((writer, reader));
    std::fs::remove_dir_all(folder).unwrap();
}

fn keep_house(writer: &Writer, now: Timestamp) -> (usize, usize) {
    let a_day_ago = Older::than(now.plus_ms(-DAY_MS + 1));
    let before = EndedBefore { succeeded: a_day_ago.clone(), unsuccessful: a_day_ago };
    let (mut archived, mut reached) = (0, None);
    loop {
        let pass = writer.archive_ended(&before, reached, 500).unwrap();
        archived += pass.archived;
        reached = pass.reached;
        if reached.is_none() {
            return (archived, writer.forget_archived(&Older::than(now.plus_ms(-FORGET_DAYS * DAY_MS))).unwrap());
        }
    }
}

fn mib(folder: &Path, prefix: &str) -> f64 {
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = files.filter(|file| file.file_name().to_string_lossy().starts_with(prefix));
    files.map(|file| file.metadata().unwrap().blocks() * 512).sum::<u64>() as f64 / (1 << 20) as f64
}

/// Sleepers on the disk, and what a process that opens their store after a crash takes.
fn sleepers(count: usize) {
    let folder = yardstick::folder("sleepers");
    let (writer, reader) = open(options(&folder)).unwrap();
    let reader = reader.on_this_thread();
    let begun = Instant::now();
    for n in (0..count).step_by(PER_COMMIT) {
        start(&writer, Timestamp(n as i64), PER_COMMIT.min(count - n));
        if n % 5_000 == 0 {
            writer.checkpoint().unwrap();
        }
    }
    writer.checkpoint().unwrap();
    println!(
        "{count} asleep after {:.0} s: {:.0} B on disk each",
        begun.elapsed().as_secs_f64(),
        mib(&folder, "state") * (1 << 20) as f64 / count as f64
    );
    start(&writer, Timestamp(count as i64), 1_000);
    // Neither end says goodbye: as after kill -9, the files lie as they are.
    std::mem::forget((writer, reader));
    let crashed = yardstick::folder("sleepers-crashed");
    for file in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), crashed.join(file.file_name())).unwrap();
        std::fs::File::open(crashed.join(file.file_name())).unwrap().sync_all().unwrap();
    }
    for _ in 0..3 {
        let opener = Command::new(std::env::current_exe().unwrap()).arg("open").arg(&crashed).status().unwrap();
        assert!(opener.success());
    }
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::remove_dir_all(crashed).unwrap();
}

/// In a process of its own.
fn reopened(folder: &Path) {
    let before = yardstick::resident_mib();
    let begun = Instant::now();
    let (writer, reader) = open(Options::at(folder)).unwrap();
    let reader = reader.on_this_thread();
    let opened = begun.elapsed();
    let due = reader.next_due().unwrap();
    assert!(due.is_some());
    let timers_known = begun.elapsed();
    let mut commit = Commit::new();
    commit.put_setting("bench", b"1");
    writer.commit_blocking(commit).unwrap();
    let answered = begun.elapsed();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let running = reader.count(Status::Running);
    println!(
        "reopened after a crash: {:.1} ms, next timer known after {:.1} ms, first durable answer after {:.1} ms; {:.1} \
         MiB resident ({:.1} before), {:.1} B for each of {running} asleep",
        opened.as_secs_f64() * 1e3,
        timers_known.as_secs_f64() * 1e3,
        answered.as_secs_f64() * 1e3,
        yardstick::resident_mib(),
        before,
        (yardstick::resident_mib() - before) * (1 << 20) as f64 / running as f64,
    );
    // The next one finds what a crash leaves, too.
    std::process::exit(0);
}

fn lists(count: usize) {
    let folder = yardstick::folder("lists");
    let (writer, reader) = open(options(&folder)).unwrap();
    let reader = reader.on_this_thread();
    for n in (0..count).step_by(PER_COMMIT) {
        let mut started = start(&writer, Timestamp(n as i64), PER_COMMIT);
        // One in ten runs on.
        started.truncate(PER_COMMIT * 9 / 10);
        let mut commit = Commit::new();
        for execution in &started {
            commit.step(Some(execution), &ending(execution, Timestamp(n as i64 + 10)));
        }
        writer.commit_blocking(commit).unwrap();
        if n % 5_000 == 0 {
            writer.checkpoint().unwrap();
        }
    }
    writer.checkpoint().unwrap();
    let main = || Some("main".to_owned());
    for (what, filter) in [
        ("all", ExecutionFilter::default()),
        ("by machine", ExecutionFilter { machine: main(), status: None }),
        ("by status", ExecutionFilter { machine: None, status: Some(Status::Running) }),
        ("by machine and status", ExecutionFilter { machine: main(), status: Some(Status::Succeeded) }),
        ("by a status that none has", ExecutionFilter { machine: None, status: Some(Status::Failed) }),
    ] {
        page_through(&reader, what, &filter);
    }
    let newest = reader.executions(&ExecutionFilter::default(), None, 1).unwrap().items[0].id;
    let describe = yardstick::measure(1_000, |_| drop(reader.header(newest).unwrap()));
    let history = yardstick::measure(1_000, |_| {
        drop(reader.history(newest, EventId(1), 100, Direction::Forward).unwrap());
    });
    println!("describe {:.1} µs, history {:.1} µs at the median", describe.at(50), history.at(50));
    drop((writer, reader));
    std::fs::remove_dir_all(folder).unwrap();
}

fn page_through(reader: &Scans, what: &str, filter: &ExecutionFilter) {
    const PAGE: usize = 100;
    let (mut token, mut times, mut found) = (None, Vec::new(), 0);
    loop {
        let begun = Instant::now();
        let page = reader.executions(filter, token.as_deref(), PAGE).unwrap();
        times.push(begun.elapsed());
        found += page.items.len();
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    let first = times[0].as_secs_f64() * 1e6;
    let all = yardstick::Series::new(times);
    println!(
        "{what:26} {found:8} found; pages of {PAGE}: first {first:7.0} µs, median {:7.0} µs, p99 {:7.0} µs, worst {:7.0} µs",
        all.at(50),
        all.at(99),
        all.at(100),
    );
}
