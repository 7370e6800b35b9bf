//! Whole workflows over HTTP: what a client sees of the box when the work itself costs nothing.
//!
//! `cargo bench --bench workflows`: ten steps that are each durable (Task states with a resource that answers at
//! once), and ten that have no effect (Pass states, one commit for all), at concurrency 1, 32 and 256; and the same as
//! express executions, which are kept in memory. A workflow is timed from the request's first byte to its end being
//! durable, or, of express ones (StartSyncExecution), to its answer. `CONVEYOR_BENCH_SECONDS` sets how long each runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conveyor_api::{self as api, ArnFormat, Auth, Credentials};
use conveyor_base::{ShareIo, Shares, SystemClock, TaskError};
use conveyor_interpreter::{Header, Json, RunTask, Status};
use conveyor_run::{self as run, Attempted, Demand, Handle, LiveUpdate, Resource, Resources, TaskContext, TaskOutcome};
use conveyor_services::approvals::Approvals;
use conveyor_services::sessions::Sessions;
use conveyor_services::uploads::Uploads;
use conveyor_store::{self as store, Options};
use conveyor_testing::served::http::{self, Client};
use conveyor_testing::yardstick;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

const STEPS: usize = 10;

fn main() {
    yardstick::print_raw();
    let folder = yardstick::folder("workflows");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (handle, address) = serve(&folder).await;
        let ended = Ended::watch(&handle);
        let all = [
            ("effect-free", pass(), Kind::Standard),
            ("every step synced", task(), Kind::Standard),
            ("express, Pass", pass(), Kind::Express),
            ("express, Task", task(), Kind::Express),
        ];
        for (name, state, kind) in all {
            let machine = create(address, name, &state, kind).await;
            for concurrency in [1, 32, 256] {
                crowd(address, &machine, &ended, concurrency, yardstick::seconds(), name, kind).await;
            }
        }
        println!("resident                       {:.0} MiB", yardstick::resident_mib());
        handle.shut_down().await;
    });
    drop(runtime);
    std::fs::remove_dir_all(folder).unwrap();
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Standard,
    Express,
}

fn pass() -> Value {
    json!({"Type": "Pass"})
}

fn task() -> Value {
    json!({"Type": "Task", "Resource": "arn:aws:lambda:us-east-1:000000000000:function:echo"})
}

async fn serve(folder: &std::path::Path) -> (Handle, SocketAddr) {
    let (writer, reader) = store::open(Options::at(folder)).unwrap();
    let config = run::Config {
        writer,
        reader,
        resources: Arc::new(Echoes),
        clock: Arc::new(SystemClock),
        lanes: run::Lanes::default(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        express_record: None,
    };
    let handle = run::start(config).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = api::router(api::Settings {
        handle: handle.clone(),
        arns: ArnFormat { region: "us-east-1".into(), account: "000000000000".into() },
        auth: Auth::for_address(address, Credentials::new([])).unwrap(),
        io: ShareIo::new(Shares::default()),
        served: BTreeSet::new(),
        workflows: BTreeMap::new(),
        watches: Arc::new(|| json!([])),
        metrics: Arc::new(String::new),
        jail: Arc::new(|| serde_json::json!({})),
        effective: json!({}),
        messaging: None,
        approvals: Approvals::default(),
        sessions: Sessions::default(),
        proxies: BTreeSet::new(),
        uploads: Uploads::new(ShareIo::new(Shares::default())),
        data_dir: std::path::PathBuf::new(),
    });
    tokio::spawn(api::serve(listener, router, api::Transport::default(), std::future::pending()));
    (handle, address)
}

struct Echoes;

impl Resources for Echoes {
    fn find(&self, _: &str) -> Option<Arc<dyn Resource>> {
        Some(Arc::new(Echo))
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Err(TaskError::new("States.Runtime", "nobody has children here"))
    }
}

struct Echo;

impl Resource for Echo {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        Box::pin(async move { TaskOutcome::Succeeded(context.task.parameters).into() })
    }
}

/// Who waits for which execution's end; an end that nobody waits for yet is kept.
#[derive(Clone, Default)]
struct Ended(Arc<Mutex<HashMap<String, Option<oneshot::Sender<()>>>>>);

impl Ended {
    fn watch(handle: &Handle) -> Ended {
        let (ended, mut updates) = (Ended::default(), handle.subscribe());
        let all = ended.clone();
        tokio::spawn(async move {
            while let Ok(update) = updates.recv().await {
                if let LiveUpdate::Changed { name, status, .. } = update
                    && status != Status::Running
                    && let Some(Some(waiting)) = all.0.lock().insert(name, None)
                {
                    let _ = waiting.send(());
                }
            }
        });
        ended
    }

    async fn wait(&self, name: &str) {
        let (sender, receiver) = oneshot::channel();
        if self.0.lock().insert(name.to_owned(), Some(sender)).is_none() {
            receiver.await.unwrap();
        }
        self.0.lock().remove(name);
    }
}

async fn create(address: SocketAddr, name: &str, state: &Value, kind: Kind) -> String {
    let states: serde_json::Map<String, Value> = (0..STEPS)
        .map(|n| {
            let mut state = state.clone();
            match n + 1 {
                STEPS => state["End"] = json!(true),
                next => state["Next"] = json!(format!("Step{next}")),
            }
            (format!("Step{n}"), state)
        })
        .collect();
    let definition = json!({"StartAt": "Step0", "States": states}).to_string();
    let request = json!({
        "name": name.replace([' ', ','], "-"), "definition": definition, "roleArn": "arn:aws:iam::000000000000:role/any",
        "type": if kind == Kind::Express { "EXPRESS" } else { "STANDARD" }
    });
    let mut client = Client::connect(address).await.unwrap();
    client.call("AWSStepFunctions.CreateStateMachine", &request).await["stateMachineArn"].as_str().unwrap().to_owned()
}

async fn crowd(
    address: SocketAddr,
    machine: &str,
    ended: &Ended,
    tasks: usize,
    time: Duration,
    name: &str,
    kind: Kind,
) {
    let request = json!({"stateMachineArn": machine, "input": r#"{"key": "incoming/film.mp4"}"#});
    let operation = if kind == Kind::Express { "StartSyncExecution" } else { "StartExecution" };
    let request = http::aws(&format!("AWSStepFunctions.{operation}"), &request);
    let start = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (ended, request) = (ended.clone(), request.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(address).await.unwrap();
                let mut times = Vec::new();
                while start.elapsed() < time {
                    let begun = Instant::now();
                    let answer = client.exchange(&request).await.unwrap().json();
                    if kind == Kind::Express {
                        assert_eq!(answer["status"], "SUCCEEDED", "{answer}");
                    } else {
                        ended.wait(answer["executionArn"].as_str().unwrap().rsplit(':').next().unwrap()).await;
                    }
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in running {
        times.extend(task.await.unwrap());
    }
    let (count, elapsed) = (times.len(), start.elapsed());
    let series = yardstick::Series::new(times);
    println!(
        "{name:<18} at {tasks:3}       p50 {:7.2} ms   p99 {:7.2} ms   {:8.0} workflows/s",
        series.at(50) / 1e3,
        series.at(99) / 1e3,
        count as f64 / elapsed.as_secs_f64()
    );
}
