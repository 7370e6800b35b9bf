//! Waking sleepers: finding the due timers, and loading the executions that they belong to.
//!
//! `cargo bench --bench wake`; `CONVEYOR_BENCH_EXECUTIONS` sets how many sleep (100,000 unless told).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "verified.rs"]
mod verified;

use std::path::Path;
use std::time::Instant;

use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::Command;
use conveyor_store::{Commit, Options, Scans, Threads, Writer, open};
use conveyor_testing::yardstick;

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

const PER_COMMIT: usize = 500;
const WOKEN: usize = 1_000;

fn main() {
    let count = std::env::var("CONVEYOR_BENCH_EXECUTIONS").ok().and_then(|s| s.parse().ok()).unwrap_or(100_000usize);
    verified::reads(count as u64, 10_000);
    let folder = yardstick::folder("wake");
    let (writer, reader) = opened(&folder);
    for first in (0..count).step_by(PER_COMMIT) {
        let mut commit = Commit::new();
        for n in first..count.min(first + PER_COMMIT) {
            let id = ExecutionId::generate(Timestamp(n as i64));
            commit.step(None, &yardstick::sleeping(id, Timestamp((n * 7_919 % count) as i64)));
        }
        writer.commit_blocking(commit).unwrap();
        if first % 50_000 == 0 {
            writer.checkpoint().unwrap();
        }
    }
    writer.checkpoint().unwrap();
    println!("{count} asleep: resident {:.0} MiB", yardstick::resident_mib());

    let next = yardstick::measure(10_000, |_| assert!(reader.next_due().unwrap().is_some()));
    println!("next due                 p50 {:7.2} µs   p99 {:7.2} µs", next.at(50), next.at(99));
    let load = yardstick::measure(1, |_| {
        for (_, id, _) in reader.timers(Timestamp::MAX, WOKEN).unwrap() {
            assert!(reader.execution(id).unwrap().is_some());
        }
    });
    println!("find and load, each      {:9.2} µs", load.at(50) / WOKEN as f64);
    // The same out of the file, where each page is verified again: opened anew, the store has nothing in memory.
    drop((writer, reader));
    let (writer, reader) = opened(&folder);
    let cold = yardstick::measure(1, |_| {
        for (_, id, _) in reader.timers(Timestamp::MAX, WOKEN).unwrap() {
            assert!(reader.execution(id).unwrap().is_some());
        }
    });
    println!(
        "the same, opened anew    {:9.2} µs   {:.1} × what is in memory",
        cold.at(50) / WOKEN as f64,
        cold.at(50) / load.at(50)
    );

    let start = Instant::now();
    let mut woken = 0;
    while woken < 10 * WOKEN.min(count / 20) {
        let mut commit = Commit::new();
        for (due, id, timer) in reader.timers(Timestamp::MAX, WOKEN).unwrap() {
            let before = reader.execution(id).unwrap().unwrap();
            let mut step = yardstick::transition(&before);
            step.commands.push(Command::ClearTimer { timer, due });
            commit.step(Some(&before), &step);
            woken += 1;
        }
        writer.commit_blocking(commit).unwrap();
    }
    let each = start.elapsed().as_secs_f64() / woken as f64;
    println!("wake, step and commit    {:9.2} µs each, {:.0} a second", each * 1e6, 1.0 / each);
    drop((writer, reader));
    std::fs::remove_dir_all(folder).unwrap();
}

fn opened(folder: &Path) -> (Writer, Scans) {
    let threads = Threads::Caller { checkpoint_every: 0 };
    let (writer, reader) = open(Options { threads, ..Options::at(folder) }).unwrap();
    (writer, reader.on_this_thread())
}
