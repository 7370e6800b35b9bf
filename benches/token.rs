//! What a task token costs, by how many iterations of its Map are under way: it must cost the same.
//!
//! `cargo bench --bench token`; `CONVEYOR_BENCH_ITEMS` sets how wide the wide Map is (10,000 unless told). Both widths
//! are measured in turn, call by call, so that a disk that is slow for a while is slow for both. Asleep: nobody has the
//! execution in memory; awake: a stage beside the Map keeps its actor. The bound: a ratio of 1.3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use conveyor_base::limits::{Quotas, set_quotas};
use conveyor_base::{ExecutionId, SystemClock, TaskError};
use conveyor_interpreter::{Header, Json, RunTask};
use conveyor_run::{
    self as run, Attempted, Config, Demand, Handle, Lanes, NewMachine, Resource, Resources, StartRequest, TaskContext,
    TaskOutcome,
};
use conveyor_store::{Options, open};
use conveyor_testing::yardstick;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

const NARROW: usize = 50;
const HEARTBEATS: usize = 300;
/// Fewer than the narrow Map has iterations: none of the two may end.
const SUCCESSES: usize = 40;

/// The tokens that were handed out, by execution.
#[derive(Clone, Default)]
struct Tokens(Arc<Mutex<HashMap<ExecutionId, Vec<String>>>>);

impl Tokens {
    fn count(&self, id: ExecutionId) -> usize {
        self.0.lock().unwrap().get(&id).map_or(0, Vec::len)
    }
}

impl Resources for Tokens {
    fn find(&self, _: &str) -> Option<Arc<dyn Resource>> {
        Some(Arc::new(self.clone()))
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Ok("{}".into())
    }
}

impl Resource for Tokens {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        let Some(token) = context.task.token else { return futures::future::pending().boxed() };
        self.0.lock().unwrap().entry(context.execution).or_default().push(token.to_string());
        futures::future::ready(TaskOutcome::Submitted { output: "{}".into() }.into()).boxed()
    }
}

fn main() {
    let wide = std::env::var("CONVEYOR_BENCH_ITEMS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let quotas = Quotas { history_events: 100 * wide as u64, payload_kib: 4_096, ..Quotas::default() };
    assert!(set_quotas(quotas), "nothing has asked for a quota yet");
    yardstick::print_raw();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(wide));
}

async fn measure(wide: usize) {
    let folder = yardstick::folder("token");
    let (writer, reader) = open(Options::at(&folder)).unwrap();
    let tokens = Tokens::default();
    let config = Config {
        writer: writer.clone(),
        reader,
        resources: Arc::new(tokens.clone()),
        clock: Arc::new(SystemClock),
        lanes: Lanes::default(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        express_record: None,
    };
    let handle = run::start(config).await.unwrap();
    let task = json!({"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"Token.$": "$$.Task.Token"}, "HeartbeatSeconds": 86_400, "End": true});
    let map = json!({"Type": "Map", "ItemProcessor": {"StartAt": "T", "States": {"T": task}}, "End": true});
    let stage = json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:probe", "End": true});
    let asleep = json!({"StartAt": "M", "States": {"M": map}});
    let awake = json!({"StartAt": "P", "States": {"P": {"Type": "Parallel", "End": true, "Branches": [
        {"StartAt": "S", "States": {"S": stage}}, {"StartAt": "M", "States": {"M": map}}]}}});
    for (name, definition) in [("asleep", asleep), ("awake", awake)] {
        let role_arn = "arn:aws:iam::000000000000:role/bench".into();
        let new =
            NewMachine { name: name.into(), definition: definition.to_string(), role_arn, ..NewMachine::default() };
        handle.create_machine(new).await.unwrap();
        let mut executions = Vec::new();
        for items in [NARROW, wide] {
            let input = json!((0..items).collect::<Vec<_>>()).to_string();
            let start = StartRequest { machine: name.into(), input: input.into(), ..StartRequest::default() };
            let (id, begun) = (handle.start(start).await.unwrap().id, Instant::now());
            while tokens.count(id) < items {
                assert!(begun.elapsed() < Duration::from_secs(600), "{} of {items} were begun", tokens.count(id));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            println!("{name}: {items} begun in {:.1} s", begun.elapsed().as_secs_f64());
            executions.push(id);
        }
        let sleeps = name == "asleep";
        settle(&handle, sleeps).await;
        let held: Vec<Vec<String>> = executions.iter().map(|id| tokens.0.lock().unwrap()[id].clone()).collect();
        let mut beats = [Vec::new(), Vec::new()];
        for n in 0..HEARTBEATS {
            for (held, times) in held.iter().zip(&mut beats) {
                settle(&handle, sleeps).await;
                let begun = Instant::now();
                handle.send_task_heartbeat(&held[n * 7 % held.len()]).await.unwrap();
                times.push(begun.elapsed());
            }
        }
        print(&format!("SendTaskHeartbeat, {name}"), wide, beats);
        let mut ends = [Vec::new(), Vec::new()];
        for n in 0..SUCCESSES {
            for (held, times) in held.iter().zip(&mut ends) {
                settle(&handle, sleeps).await;
                let begun = Instant::now();
                handle.send_task_success(&held[n], "{}".into()).await.unwrap();
                times.push(begun.elapsed());
            }
        }
        print(&format!("SendTaskSuccess, {name}"), wide, ends);
    }
    handle.shut_down().await;
    drop(handle);
    writer.close().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

/// Until nobody has the executions in memory, where that is what is measured.
async fn settle(handle: &Handle, sleeps: bool) {
    while sleeps && handle.awake() > 0 {
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
}

fn print(what: &str, wide: usize, [few, many]: [Vec<Duration>; 2]) {
    let (few, many) = (yardstick::Series::new(few), yardstick::Series::new(many));
    println!(
        "{what:<26} p50 {:7.0} µs of {NARROW}, {:7.0} µs of {wide}: ratio {:.2}",
        few.at(50),
        many.at(50),
        many.at(50) / few.at(50)
    );
}
