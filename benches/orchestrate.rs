//! What the box itself adds to a file's way: from "settled" to the first stage at work, and the whole main workflow
//! with stages that answer at once.
//!
//! `cargo bench --bench orchestrate`; `CONVEYOR_BENCH_FILES` sets how many files are dropped, one after the other. The
//! time that the workflow spends in Wait states, between two looks at the transcode, is taken off.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conveyor_base::{EventId, TaskError};
use conveyor_ingest::{WatchSettings, Watcher};
use conveyor_interpreter::{HistoryKind, StateType, Status};
use conveyor_job::Job;
use conveyor_store::{Direction, ExecutionFilter};
use conveyor_testing::appliance::Appliance;
use conveyor_testing::yardstick;

use serde_json::{Value, json};

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

const SETTLE_MS: u64 = 100;

/// When the first stage of the file that was dropped last began.
static FIRST_STAGE: Mutex<Option<Instant>> = Mutex::new(None);

fn main() {
    let files = std::env::var("CONVEYOR_BENCH_FILES").ok().and_then(|s| s.parse().ok()).unwrap_or(20);
    yardstick::print_raw();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(drop_files(files));
}

async fn drop_files(files: usize) {
    let appliance = Appliance::start(at_once, BTreeMap::new()).await;
    let settings: WatchSettings =
        toml::from_str(&format!("share = \"source\"\nsettle = \"{SETTLE_MS}ms\"\nscan = \"5s\"")).unwrap();
    let (io, reader) = (appliance.parts.io.clone(), appliance.handle.reader().clone());
    tokio::spawn(Watcher::new(settings, io, Arc::new(appliance.handle.clone()), reader).run());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut to_first_stage, mut whole) = (Vec::new(), Vec::new());
    for n in 0..files {
        FIRST_STAGE.lock().unwrap().take();
        std::fs::write(appliance.dir.path().join("source").join(format!("film-{n}.mp4")), format!("film {n}")).unwrap();
        let settled = Instant::now() + Duration::from_millis(SETTLE_MS);
        whole.push(orchestration(&appliance, n).await);
        to_first_stage.push(FIRST_STAGE.lock().unwrap().unwrap().saturating_duration_since(settled));
    }
    for (what, times) in [("settled to first stage", to_first_stage), ("main without its stages", whole)] {
        let series = yardstick::Series::new(times);
        println!("{what:<30} p50 {:6.1} ms   p99 {:6.1} ms", series.at(50) / 1e3, series.at(99) / 1e3);
    }
    crowd(&appliance).await;
}

/// Very many files at once: none may be lost, none done twice, and memory must stay bounded.
async fn crowd(appliance: &Appliance) {
    const CROWD: usize = 1_000;
    let published = || {
        let filter = ExecutionFilter { machine: Some("main".into()), status: None };
        let page = appliance.handle.reader().on_this_thread().executions(&filter, None, 10 * CROWD).unwrap();
        page.items.iter().filter(|row| row.status == Status::Succeeded).count()
    };
    let (before, begun, resident) = (published(), Instant::now(), yardstick::resident_mib());
    for n in 0..CROWD {
        std::fs::write(appliance.dir.path().join(format!("source/crowd-{n}.mp4")), format!("crowd {n}")).unwrap();
    }
    let mut peak = resident;
    while published() < before + CROWD {
        tokio::time::sleep(Duration::from_millis(100)).await;
        peak = peak.max(yardstick::resident_mib());
    }
    let took = begun.elapsed();
    // Whatever would be done twice would come now.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(published(), before + CROWD, "nothing is lost and nothing is done twice");
    println!(
        "{CROWD} files at once              all done in {:.1} s   resident {resident:.0} to {peak:.0} MiB",
        took.as_secs_f64()
    );
}

/// Follows the newest file to its end: how long that took, without the waits between two looks at the transcode.
async fn orchestration(appliance: &Appliance, n: usize) -> Duration {
    let reader = appliance.handle.reader().on_this_thread();
    let newest = |machine: &str| {
        let filter = ExecutionFilter { machine: Some(machine.into()), status: Some(Status::Succeeded) };
        let page = reader.executions(&filter, None, n + 1).unwrap();
        (page.items.len() == n + 1).then(|| reader.header(page.items[0].id).unwrap().unwrap())
    };
    let main = appliance.until("the end of main", || newest("main")).await;
    let job = newest("preprocess").unwrap();
    let history = reader.history(job.id, EventId(1), 1_000, Direction::Forward).unwrap();
    let mut waited_ms = 0;
    for event in &history {
        match &event.kind {
            HistoryKind::StateEntered { state_type: StateType::Wait, .. } => waited_ms -= event.at.0,
            HistoryKind::StateExited { state_type: StateType::Wait, .. } => waited_ms += event.at.0,
            _ => {}
        }
    }
    let took_ms = main.stopped_at.unwrap().since_ms(main.started_at) - waited_ms;
    Duration::from_millis(took_ms.max(0) as u64)
}

/// Every stage, with what the workflows read of its result.
fn at_once(job: &Job) -> Result<Value, TaskError> {
    FIRST_STAGE.lock().unwrap().get_or_insert_with(Instant::now);
    let input = job.parameters["input"].as_str().unwrap_or_default();
    Ok(match job.stage.as_str() {
        "sanitize" => json!({ "accepted": true, "warnings": [], "metadata": { "duration": 20.4 } }),
        "fingerprint" => json!({ "blake3": blake3::hash(input.as_bytes()).to_hex().to_string(), "size": 1 }),
        "transcode" => json!({ "OutputGroupDetails": [] }),
        "quality" => json!({ "score": 0.97, "passed": true, "reasons": [] }),
        _ => json!({}),
    })
}
