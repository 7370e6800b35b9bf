//! The served box with very many executions asleep: what they cost, and how soon it is back after kill -9.
//!
//! `cargo bench --bench recover`; `CONVEYOR_BENCH_EXECUTIONS` sets how many sleep (20,000 unless told; NUMBERS are
//! for 1,000,000). A thousand more are due while the box is dead: they must fire once it is back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use conveyor_testing::served::Served;
use conveyor_testing::served::http::{self, Client};
use conveyor_testing::yardstick;
use serde_json::json;

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

/// Executions whose time comes while the box is dead.
const DUE: usize = 1_000;
/// How long they sleep.
const DUE_AFTER: Duration = Duration::from_secs(4);
const CLIENTS: usize = 64;
/// Over how long the idle box is watched.
const IDLE: Duration = Duration::from_secs(10);

fn main() {
    let count = std::env::var("CONVEYOR_BENCH_EXECUTIONS").ok().and_then(|s| s.parse().ok()).unwrap_or(20_000);
    let folder = yardstick::folder("recover");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(sleep_and_die(&folder, count));
    std::fs::remove_dir_all(folder).unwrap();
}

async fn sleep_and_die(folder: &Path, count: usize) {
    std::fs::write(folder.join("conveyor.toml"), "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n").unwrap();
    let served = Served::start(folder);
    let definition = json!({"StartAt": "WaitForJob", "States": {
        "WaitForJob": {"Type": "Wait", "SecondsPath": "$.seconds", "End": true}
    }});
    let machine = served.create("sleep", &definition).await;
    let empty = served.memory_bytes();
    let begun = Instant::now();
    start(served.address, &machine, count, Duration::from_secs(86_400)).await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (busy, since) = (served.cpu(), Instant::now());
    tokio::time::sleep(IDLE).await;
    println!(
        "{count} asleep (started at {rate:.0}/s)    resident {:.0} MiB, {:.0} B each    {:.0} B on disk each    idle \
         {:.2} % of a core",
        served.memory_bytes() as f64 / 1048576.0,
        served.memory_bytes().saturating_sub(empty) as f64 / count as f64,
        size(&folder.join("data/store/state.redb")) as f64 / count as f64,
        (served.cpu() - busy).as_secs_f64() / since.elapsed().as_secs_f64() * 100.0,
    );
    start(served.address, &machine, DUE, DUE_AFTER).await;
    served.kill();
    tokio::time::sleep(DUE_AFTER + Duration::from_secs(1)).await;

    // The yardstick of a start: all of the store's bytes, read once.
    let begun = Instant::now();
    let bytes = read_all(&folder.join("data/store"));
    let read = begun.elapsed();
    let begun = Instant::now();
    let served = Served::start(folder);
    let listening = begun.elapsed();
    start(served.address, &machine, 1, Duration::from_secs(86_400)).await;
    let answered = begun.elapsed();
    let (mut first, mut fired) = (None, 0);
    let mut client = Client::connect(served.address).await.unwrap();
    while fired < DUE {
        let request = json!({"stateMachineArn": machine, "statusFilter": "SUCCEEDED", "maxResults": 1000});
        fired = client.call("AWSStepFunctions.ListExecutions", &request).await["executions"].as_array().unwrap().len();
        if fired > 0 && first.is_none() {
            first = Some(begun.elapsed());
        }
    }
    println!(
        "reading the store's {:.0} MiB    {:.0} ms; until it listens {:.1} × that",
        bytes as f64 / 1048576.0,
        read.as_secs_f64() * 1e3,
        listening.as_secs_f64() / read.as_secs_f64(),
    );
    println!(
        "after kill -9                  listening {:.0} ms   first durable answer {:.0} ms   first due timer fired {:.0} \
         ms   all {DUE} fired {:.0} ms   resident {:.0} MiB",
        listening.as_secs_f64() * 1e3,
        answered.as_secs_f64() * 1e3,
        first.unwrap_or_default().as_secs_f64() * 1e3,
        begun.elapsed().as_secs_f64() * 1e3,
        served.memory_bytes() as f64 / 1048576.0,
    );
}

async fn start(address: SocketAddr, machine: &str, count: usize, time: Duration) {
    let input = json!({"seconds": time.as_secs(), "key": "incoming/film.mp4"}).to_string();
    let request = http::aws("AWSStepFunctions.StartExecution", &json!({"stateMachineArn": machine, "input": input}));
    let clients = CLIENTS.min(count);
    let running = (0..clients).map(|client| {
        let request = request.clone();
        tokio::spawn(async move {
            let mut connection = Client::connect(address).await.unwrap();
            for _ in (client..count).step_by(clients) {
                assert!(connection.exchange(&request).await.unwrap().is_success());
            }
        })
    });
    for task in running.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// What the file takes on the disk.
fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.blocks() * 512)
}

/// How many bytes there are.
fn read_all(store: &Path) -> usize {
    let files = std::fs::read_dir(store).unwrap().map(Result::unwrap).filter(|file| file.path().is_file());
    files.map(|file| std::fs::read(file.path()).unwrap().len()).sum()
}
