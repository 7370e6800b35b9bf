//! The power goes at every write, sync, length change and rename of the store's disk, and again during recovery.
//!
//! The oracle is a plain map in this file that shares nothing with the store: what was acknowledged is there, a
//! commit is there whole or not at all, and `check` finds nothing. `STORE_CRASH_SEEDS` widens the search.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "store_rot/steps.rs"]
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conveyor_base::{EventId, Older, Timestamp};
use conveyor_interpreter::Status;
use conveyor_store::sim::SimDisk;
use conveyor_store::{Backends, Commit, Direction, EndedBefore, Options, Reader, Scans, Threads, Writer, check, open};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use steps::{Sleeper, revision};

const COMMITS: usize = 24;
const TABLES: [&str; 2] = ["jobs", "jobs-2"];

/// What the store must hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    items: BTreeMap<(String, String), String>,
    /// Executions: whether each still runs, and how many events it has.
    executions: BTreeMap<u128, (bool, u64)>,
}

/// One commit: a few changes that belong together.
#[derive(Clone, Debug)]
enum Change {
    Put(&'static str, String, String),
    Delete(&'static str, String),
    Start(u128),
    End(u128),
}

impl Model {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(table, key, json) => {
                    self.items.insert((table.to_string(), key.clone()), json.clone());
                }
                Change::Delete(table, key) => {
                    self.items.remove(&(table.to_string(), key.clone()));
                }
                Change::Start(id) => {
                    self.executions.insert(*id, (true, 1));
                }
                Change::End(id) => {
                    self.executions.insert(*id, (false, 2));
                }
            }
        }
    }
}

fn script(rng: &mut ChaCha8Rng) -> Vec<Vec<Change>> {
    let mut running = BTreeSet::new();
    let mut next = 1u128;
    let mut commits = Vec::new();
    for _ in 0..COMMITS {
        let mut changes = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            let table = TABLES[rng.random_range(0..2)];
            let key = format!("k{}", rng.random_range(0..12));
            match rng.random_range(0..10) {
                0..=4 => {
                    let length = if rng.random_range(0..8) == 0 { 9_000 } else { rng.random_range(1..200) };
                    let json = format!("\"{}\"", "x".repeat(length));
                    changes.push(Change::Put(table, key, json));
                }
                5 | 6 => changes.push(Change::Delete(table, key)),
                7 if !running.is_empty() => {
                    let id = *running.iter().nth(rng.random_range(0..running.len())).unwrap();
                    // Started by this same commit, it could not end by it: a step has a stored one before it.
                    if !changes.iter().any(|c| matches!(c, Change::Start(started) if *started == id)) {
                        running.remove(&id);
                        changes.push(Change::End(id));
                    }
                }
                _ => {
                    running.insert(next);
                    changes.push(Change::Start(next));
                    next += 1;
                }
            }
        }
        commits.push(changes);
    }
    commits
}

fn sleeper(id: u128) -> Sleeper {
    let due = Timestamp(1_000 - (id as i64 * 37) % 100);
    Sleeper { id, input: "{}".into(), due, output: "[]".into(), stopped_at: Timestamp(5) }
}

fn build(changes: &[Change]) -> Commit {
    let mut commit = Commit::new();
    for change in changes {
        match change {
            Change::Put(table, key, json) => commit.put_item(table, key, json),
            Change::Delete(table, key) => commit.delete_item(table, key),
            Change::Start(id) => {
                let sleeper = sleeper(*id);
                commit.put_revision(&sleeper.header().machine.name, 1, &revision()).step(None, &sleeper.start())
            }
            Change::End(id) => {
                let (before, step) = sleeper(*id).end();
                commit.step(Some(&before), &step)
            }
        };
    }
    commit
}

fn options(disk: &SimDisk, checkpoint_every: u64) -> Options {
    // So small that the journal turns to the next file every few commits.
    let segment_bytes = 16 << 10;
    Options { threads: Threads::Caller { checkpoint_every }, segment_bytes, ..Options::on(Arc::new(disk.clone())) }
}

/// What the store holds, by every way that leads to it.
fn read(reader: &Scans) -> Model {
    let mut model = Model::default();
    for table in TABLES {
        for (key, json) in reader.items(table, None, usize::MAX).unwrap() {
            model.items.insert((table.into(), key), json);
        }
    }
    let timers = reader.timers(Timestamp::MAX, usize::MAX).unwrap();
    assert!(timers.is_sorted());
    let timers: BTreeSet<u128> = timers.into_iter().map(|(_, id, _)| id.0).collect();
    for summary in reader.executions(&Default::default(), None, 10_000).unwrap().items {
        let execution = reader.execution(summary.id).unwrap().unwrap();
        let running = execution.header.status == Status::Running;
        assert_eq!(execution.branches.len(), usize::from(running));
        assert_eq!(timers.contains(&summary.id.0), running);
        assert_eq!(reader.by_name(&summary.machine.name, &summary.name).unwrap(), Some(summary.id));
        let history = reader.history(summary.id, EventId(1), 99, Direction::Forward).unwrap();
        assert_eq!(history.len() as u64, execution.header.last_event.0);
        model.executions.insert(summary.id.0, (running, history.len() as u64));
    }
    let running = model.executions.values().filter(|(running, _)| *running).count();
    assert_eq!(reader.count(Status::Running), running as u64);
    assert_eq!(reader.count(Status::Succeeded), (model.executions.len() - running) as u64);
    assert_eq!(timers.len(), running);
    model
}

/// Commits until the disk fails. Says how many commits were acknowledged.
fn run(writer: &Writer, script: &[Vec<Change>]) -> usize {
    script.iter().take_while(|changes| writer.commit_blocking(build(changes)).is_ok()).count()
}

/// Opens what the crash left; where `again` is given, the power goes once more while that is done.
fn reopen(disk: &SimDisk, checkpoint_every: u64, again: Option<u64>) -> (SimDisk, Writer, Reader) {
    let mut disk = disk.restart();
    if let Some(operation) = again {
        disk.crash_at(operation);
        let _ = open(options(&disk, checkpoint_every)).map(|(writer, _)| writer.checkpoint());
        disk = disk.restart();
    }
    let (writer, reader) = open(options(&disk, checkpoint_every)).expect("a crash never leaves files that are refused");
    (disk, writer, reader)
}

fn crash_everywhere(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let script = script(&mut rng);
    let checkpoint_every = rng.random_range(1..9);
    let disk = SimDisk::new(seed);
    let (writer, reader) = open(options(&disk, checkpoint_every)).unwrap();
    assert_eq!(run(&writer, &script), script.len());
    drop((writer, reader));
    let operations = disk.operations();

    for operation in 1..=operations {
        let at = format!("seed {seed}, operation {operation} of {operations}");
        let disk = SimDisk::new(seed ^ operation << 20);
        disk.crash_at(operation);
        let acknowledged = match open(options(&disk, checkpoint_every)) {
            Ok((writer, _reader)) => run(&writer, &script),
            Err(_) => 0,
        };
        let again = (operation % 3 == 0).then(|| rng.random_range(1..60));
        let (disk, writer, reader) = reopen(&disk, checkpoint_every, again);

        let mut model = Model::default();
        script[..acknowledged].iter().for_each(|changes| model.apply(changes));
        let found = read(&reader.on_this_thread());
        let mut stored = acknowledged;
        if found != model {
            // The one commit that was under way may have reached the disk before the power went.
            assert!(acknowledged < script.len(), "{at}: something came from nowhere");
            model.apply(&script[acknowledged]);
            assert_eq!(found, model, "{at}");
            stored += 1;
        }
        // And it goes on as if nothing had been.
        assert_eq!(run(&writer, &script[stored..]), script.len() - stored, "{at}");
        script[stored..].iter().for_each(|changes| model.apply(changes));
        assert_eq!(read(&reader.on_this_thread()), model, "{at}");
        // What a crash leaves is not taken for rot.
        writer.scrub();
        assert_eq!(reader.damages(), [""; 0], "{at}");
        drop((writer, reader));
        if operation % 7 == 0 {
            let backends: Arc<dyn Backends> = Arc::new(disk);
            let report = check(&backends).unwrap();
            assert!(report.is_clean(), "{at}: {report}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    let seeds = std::env::var("STORE_CRASH_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    for seed in 0..seeds {
        crash_everywhere(seed);
    }
}

/// A failed disk is never written to again, and everybody hears of it.
#[test]
fn after_an_error_of_the_disk_every_commit_is_refused() {
    let disk = SimDisk::new(1);
    let (writer, reader) = open(Options { checkpoint_ms: 60_000, ..Options::on(Arc::new(disk.clone())) }).unwrap();
    writer.commit_blocking(build(&[Change::Put("jobs", "a".into(), "1".into())])).unwrap();
    disk.crash();
    for _ in 0..3 {
        assert!(writer.commit_blocking(build(&[Change::Put("jobs", "b".into(), "2".into())])).is_err());
    }
    assert_eq!(reader.on_this_thread().items("jobs", None, 9).unwrap().len(), 1);
    assert!(writer.close().is_err());
}

/// Moving histories into archives and dropping a day: at no point is a history torn or an execution half gone.
#[test]
fn archives_survive_a_crash_at_every_operation() {
    const EXECUTIONS: u128 = 5;
    let day_after = Older::than(Timestamp(86_400_000));
    let fill = |disk: &SimDisk| {
        let (writer, reader) = open(options(disk, 4)).unwrap();
        for id in 1..=EXECUTIONS {
            writer.commit_blocking(build(&[Change::Start(id)])).unwrap();
            writer.commit_blocking(build(&[Change::End(id)])).unwrap();
        }
        (writer, reader)
    };
    let keep_house = |writer: &Writer| {
        writer.archive_ended(
            &EndedBefore { succeeded: day_after.clone(), unsuccessful: day_after.clone() },
            None,
            100,
        )?;
        writer.forget_archived(&day_after)
    };
    let disk = SimDisk::new(0);
    let (writer, _reader) = fill(&disk);
    let first = disk.operations() + 1;
    assert_eq!(keep_house(&writer).unwrap(), EXECUTIONS as usize);
    let last = disk.operations();
    assert!(last > first + 20, "the passes write");

    for operation in first..=last {
        let disk = SimDisk::new(operation);
        let (writer, reader) = fill(&disk);
        disk.crash_at(operation);
        assert!(keep_house(&writer).is_err());
        drop((writer, reader));
        let (disk, writer, reader) = reopen(&disk, 4, None);
        let left = read(&reader.on_this_thread()).executions.len() as u128;
        assert!(left == 0 || left == EXECUTIONS, "operation {operation}: {left} are left");
        assert_eq!(keep_house(&writer).unwrap() as u128, left);
        assert_eq!(read(&reader.on_this_thread()), Model::default());
        assert_eq!(disk.names().unwrap().iter().filter(|name| name.ends_with("0.redb")).count(), 0);
        writer.scrub();
        assert_eq!(reader.damages(), [""; 0], "operation {operation}");
        drop((writer, reader));
        let report = check(&(Arc::new(disk) as Arc<dyn Backends>)).unwrap();
        assert!(report.is_clean(), "operation {operation}: {report}");
    }
}
