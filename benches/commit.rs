//! Durable transitions: one at a time, and many at once. Prints times and their ratio to the yardsticks.
//!
//! `cargo bench --bench commit`; `CONVEYOR_BENCH_SECONDS` sets how long each of the crowds runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "verified.rs"]
mod verified;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::Execution;
use conveyor_store::{Commit, Options, Writer, open};
use conveyor_testing::yardstick;

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

/// Transitions of one execution before it makes room for a new one.
const TRANSITIONS: usize = 10;

fn main() {
    let raw = yardstick::print_raw();
    let redb = yardstick::redb_commit(1_000);
    println!("redb, one row                  p50 {:6.0} µs   p99 {:6.0} µs", redb.at(50), redb.at(99));

    verified::commits(1_000);

    let folder = yardstick::folder("commit");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (writer, _reader) = open(Options::at(&folder)).unwrap();
    let mut execution = fresh();
    let one = yardstick::measure(2_000, |n| {
        if n % TRANSITIONS == 0 {
            execution = fresh();
        }
        runtime.block_on(transition(&writer, &mut execution));
    });
    let ratio = raw.as_ref().map_or(f64::NAN, |raw| one.at(50) / raw.at(50));
    println!(
        "store, one transition          p50 {:6.0} µs   p99 {:6.0} µs   {ratio:.1} × raw, {:.1} × redb",
        one.at(50),
        one.at(99),
        one.at(50) / redb.at(50)
    );
    println!("encoding one transition        p50 {:6.1} µs", encoding().at(50));
    for tasks in [32, 256, 2_048] {
        crowd(&runtime, &writer, tasks, yardstick::seconds());
    }
    println!("resident                       {:.0} MiB", yardstick::resident_mib());
    writer.close().unwrap();
    drop(_reader);
    std::fs::remove_dir_all(folder).unwrap();
}

fn fresh() -> Execution {
    let id = ExecutionId::generate(Timestamp(1));
    Execution::load(yardstick::header(id), BTreeMap::new(), BTreeMap::new())
}

async fn transition(writer: &Writer, execution: &mut Execution) {
    let step = yardstick::transition(execution);
    let mut commit = Commit::new();
    let before = (execution.header.last_event.0 > 0).then_some(&*execution);
    commit.step(before, &step);
    writer.commit(commit).await.unwrap();
    execution.apply(&step);
}

fn encoding() -> yardstick::Series {
    let mut execution = fresh();
    let step = yardstick::transition(&execution);
    execution.apply(&step);
    let step = yardstick::transition(&execution);
    yardstick::measure(10_000, |_| {
        let mut commit = Commit::new();
        commit.step(Some(&execution), &step);
        std::hint::black_box(commit);
    })
}

fn crowd(runtime: &tokio::runtime::Runtime, writer: &Writer, tasks: usize, time: Duration) {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (writer, done, stop) = (writer.clone(), done.clone(), stop.clone());
            runtime.spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut execution = fresh();
                    for _ in 0..TRANSITIONS {
                        let start = Instant::now();
                        transition(&writer, &mut execution).await;
                        times.push(start.elapsed());
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
                times
            })
        })
        .collect();
    std::thread::sleep(time);
    let (count, elapsed) = (done.load(Ordering::Relaxed), start.elapsed());
    stop.store(true, Ordering::Relaxed);
    let times = runtime.block_on(async {
        let mut times = Vec::new();
        for task in running {
            times.extend(task.await.unwrap());
        }
        times
    });
    let series = yardstick::Series::new(times);
    println!(
        "store, {tasks:5} at once           p50 {:6.1} ms   p99 {:6.1} ms   {:8.0} transitions/s",
        series.at(50) / 1e3,
        series.at(99) / 1e3,
        count as f64 / elapsed.as_secs_f64()
    );
}
