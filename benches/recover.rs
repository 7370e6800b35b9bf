//! The served box with very many executions asleep: what they cost, and how soon it is back after kill -9.
//!
//! `cargo bench --bench recover`; `CONVEYOR_BENCH_EXECUTIONS` sets how many sleep (20,000 unless told; NUMBERS are
//! for 1,000,000). A thousand more are due while the box is dead: they must fire once it is back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod yard;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use yard::http::Client;

/// Executions whose time comes while the box is dead.
const DUE: usize = 1_000;
/// How long they sleep.
const DUE_AFTER: Duration = Duration::from_secs(4);
const CLIENTS: usize = 64;
/// Over how long the idle box is watched.
const IDLE: Duration = Duration::from_secs(10);

fn main() {
    let count = std::env::var("CONVEYOR_BENCH_EXECUTIONS").ok().and_then(|s| s.parse().ok()).unwrap_or(20_000);
    let folder = yard::folder("recover");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(sleep_and_die(&folder, count));
    std::fs::remove_dir_all(folder).unwrap();
}

async fn sleep_and_die(folder: &Path, count: usize) {
    let mut served = Served::start(folder);
    let machine = create(served.address).await;
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
        size(&folder.join("store/state.redb")) as f64 / count as f64,
        (served.cpu() - busy).as_secs_f64() / since.elapsed().as_secs_f64() * 100.0,
    );
    start(served.address, &machine, DUE, DUE_AFTER).await;
    served.kill();
    tokio::time::sleep(DUE_AFTER + Duration::from_secs(1)).await;

    let begun = Instant::now();
    let served = Served::start(folder);
    let listening = begun.elapsed();
    start(served.address, &machine, 1, Duration::from_secs(86_400)).await;
    let answered = begun.elapsed();
    let (mut first, mut fired) = (None, 0);
    let mut client = Client::connect(served.address).await.unwrap();
    while fired < DUE {
        let request = json!({"stateMachineArn": machine, "statusFilter": "SUCCEEDED", "maxResults": 1000});
        fired = client.call("ListExecutions", &request.to_string()).await["executions"].as_array().unwrap().len();
        if fired > 0 && first.is_none() {
            first = Some(begun.elapsed());
        }
    }
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

/// The real binary, serving.
struct Served {
    child: Child,
    address: SocketAddr,
}

impl Served {
    /// Returns once it says where it listens.
    fn start(folder: &Path) -> Served {
        let mut child = Command::new(env!("CARGO_BIN_EXE_conveyor"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("http://").and_then(|(_, address)| address.trim_end_matches('/').parse().ok())
        });
        Served { child, address: address.expect("the box says where it listens") }
    }

    fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// User and system time so far (proc(5), fields 14 and 15, in hundredths of a second).
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn create(address: SocketAddr) -> String {
    let definition = json!({"StartAt": "WaitForJob", "States": {
        "WaitForJob": {"Type": "Wait", "SecondsPath": "$.seconds", "End": true}
    }});
    let request = json!({
        "name": "sleep", "definition": definition.to_string(), "roleArn": "arn:aws:iam::000000000000:role/any"
    });
    let mut client = Client::connect(address).await.unwrap();
    client.call("CreateStateMachine", &request.to_string()).await["stateMachineArn"].as_str().unwrap().to_owned()
}

async fn start(address: SocketAddr, machine: &str, count: usize, time: Duration) {
    let input = json!({"seconds": time.as_secs(), "key": "incoming/film.mp4"}).to_string();
    let request = json!({"stateMachineArn": machine, "input": input}).to_string();
    let clients = CLIENTS.min(count);
    let running = (0..clients).map(|client| {
        let request = request.clone();
        tokio::spawn(async move {
            let mut connection = Client::connect(address).await.unwrap();
            for _ in (client..count).step_by(clients) {
                connection.call("StartExecution", &request).await;
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
