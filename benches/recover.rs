//! Reopening after a crash with many executions asleep: the cost must follow the journal, not the state.
//!
//! `cargo bench --bench recover`; `CONVEYOR_BENCH_EXECUTIONS` sets how many sleep (100,000 unless told).

mod yard;

use std::time::Instant;

use conveyor::base::{ExecutionId, Timestamp};
use conveyor::store::{Commit, Options, Threads, open};

const PER_COMMIT: usize = 500;

fn main() {
    let count = std::env::var("CONVEYOR_BENCH_EXECUTIONS").ok().and_then(|s| s.parse().ok()).unwrap_or(100_000usize);
    for tail in [0, 1_000, 10_000] {
        let folder = yard::folder(&format!("recover-{tail}"));
        let options = || Options { threads: Threads::Caller { checkpoint_every: 0 }, ..Options::at(&folder) };
        let (writer, reader) = open(options()).unwrap();
        let fill = |from: usize, to: usize| {
            for first in (from..to).step_by(PER_COMMIT) {
                let mut commit = Commit::new();
                for n in first..to.min(first + PER_COMMIT) {
                    let id = ExecutionId::generate(Timestamp(n as i64));
                    commit.step(None, &yard::sleeping(id, Timestamp(1_000_000 + n as i64)));
                }
                writer.commit_blocking(commit).unwrap();
            }
        };
        for first in (0..count).step_by(50_000) {
            fill(first, count.min(first + 50_000));
            writer.checkpoint().unwrap();
        }
        fill(count, count + tail);
        // What a kill -9 leaves: the files as they lie there, not closed in order.
        let crashed = yard::folder(&format!("recover-{tail}-crashed"));
        for file in ["state.redb", "journal.redb"] {
            std::fs::copy(folder.join(file), crashed.join(file)).unwrap();
            // Else the first sync of the opening would pay for the copy.
            std::fs::File::open(crashed.join(file)).unwrap().sync_all().unwrap();
        }
        drop((writer, reader));
        let options = || Options { threads: Threads::Own, ..Options::at(&crashed) };

        let start = Instant::now();
        let (writer, reader) = open(options()).unwrap();
        let opened = start.elapsed();
        let due = reader.next_due().unwrap();
        let timers_known = start.elapsed();
        let mut commit = Commit::new();
        commit.put_setting("bench", b"1");
        writer.commit_blocking(commit).unwrap();
        let answered = start.elapsed();
        assert!(due.is_some());
        println!(
            "{count} asleep, {tail:6} in the journal   open {:7.1} ms   next timer known {:7.1} ms   first durable \
             answer {:7.1} ms   resident {:.0} MiB   {:.0} B on disk each",
            opened.as_secs_f64() * 1e3,
            timers_known.as_secs_f64() * 1e3,
            answered.as_secs_f64() * 1e3,
            yard::resident_mib(),
            size(&folder.join("state.redb")) as f64 / count as f64,
        );
        drop((writer, reader));
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::remove_dir_all(crashed).unwrap();
    }
}

fn size(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map_or(0, |m| m.blocks() * 512)
}
