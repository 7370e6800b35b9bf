//! Express executions: in memory, at least once, logged; and what standard ones log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use conveyor_asl as asl;
use conveyor_base::limits::{Quotas, set_quotas};
use conveyor_base::{ExecutionId, SystemClock, TaskError, Timestamp};
use conveyor_interpreter::{
    Command, Entry, Env, Event, Execution, Header, Json, MachineRef, Outcome, RunTask, Status, step,
};
use conveyor_logs::{self as logs, Delivery, LogSettings};
use conveyor_run::{
    self as run, Attempted, Demand, Handle, Lanes, NewMachine, Resource, Resources, StartRequest, TaskContext,
    TaskOutcome,
};
use conveyor_store as store;
use conveyor_testing::until::until;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// `…:echo` gives its parameters back after `ms` milliseconds, on the lane `cpu` where they say so.
struct Echoes;
struct Echo;

impl Resources for Echoes {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>> {
        resource.ends_with(":echo").then(|| Arc::new(Echo) as Arc<dyn Resource>)
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Ok("{}".into())
    }
}

impl Resource for Echo {
    fn demand(&self, task: &RunTask) -> Option<Demand> {
        let on_lane = task.parameters.contains("\"lane\"");
        on_lane.then(|| Demand::cores(1))
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        async move {
            let parameters: Value = serde_json::from_str(&context.task.parameters).unwrap();
            if let Some(error) = parameters["error"].as_str() {
                return TaskOutcome::Failed(TaskError::new(error, "as asked")).into();
            }
            if let Some(ms) = parameters["ms"].as_u64() {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            TaskOutcome::Succeeded(context.task.parameters).into()
        }
        .boxed()
    }
}

struct Appliance {
    handle: Handle,
    logs: Delivery,
}

impl Appliance {
    async fn start(dir: &Path) -> Appliance {
        Appliance::recording(dir, None).await
    }

    /// With a record of express starts in that folder.
    async fn recording(dir: &Path, record: Option<&Path>) -> Appliance {
        let (writer, reader) = store::open(store::Options::at(dir.join("store"))).unwrap();
        let handle = run::start(run::Config {
            writer,
            reader,
            resources: Arc::new(Echoes),
            clock: Arc::new(SystemClock),
            lanes: Lanes { cpu: 1, ..Lanes::default() },
            account: "000000000000".into(),
            region: "us-east-1".into(),
            express_record: record.map(Path::to_owned),
        })
        .await
        .unwrap();
        let queue = handle.take_logs().unwrap();
        let logs = Delivery::new(queue, dir.join("logs"), LogSettings::default(), handle.clock().clone());
        Appliance { handle, logs }
    }

    async fn machine(&self, name: &str, express: bool, level: &str, definition: Value) {
        let group =
            json!({"cloudWatchLogsLogGroup": {"logGroupArn": "arn:aws:logs:us-east-1:0:log-group:/states/x:*"}});
        let logging = json!({"level": level, "includeExecutionData": true, "destinations": [group]});
        let new = NewMachine {
            name: name.into(),
            definition: definition.to_string(),
            role_arn: "arn:aws:iam::000000000000:role/r".into(),
            express,
            settings: json!({"loggingConfiguration": logging}).to_string(),
            ..NewMachine::default()
        };
        self.handle.create_machine(new).await.unwrap();
    }

    async fn lines(self, dir: &Path) -> Vec<Value> {
        self.logs.finish().await;
        let mut lines = Vec::new();
        for file in logs::list(&dir.join("logs")).unwrap() {
            assert_eq!(file.group, "states/x");
            let text = std::fs::read_to_string(file.path).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        lines
    }
}

fn start(machine: &str, name: Option<&str>, input: Value) -> StartRequest {
    StartRequest {
        machine: machine.into(),
        name: name.map(str::to_owned),
        input: input.to_string().into(),
        ..StartRequest::default()
    }
}

fn everything() -> Value {
    let task = |name: &str, lane: bool| {
        let mut parameters = json!({"ms": 20});
        if lane {
            parameters["lane"] = true.into();
        }
        json!({"StartAt": name, "States": {name: {"Type": "Task", "Resource": "arn:aws:states:::x:echo",
            "Parameters": parameters, "End": true}}})
    };
    json!({"StartAt": "Wait", "States": {
        "Wait": {"Type": "Wait", "Seconds": 1, "Next": "Both"},
        "Both": {"Type": "Parallel", "Branches": [task("A", false), task("B", true), task("C", true)], "Next": "Fails"},
        "Fails": {"Type": "Task", "Resource": "arn:aws:states:::x:echo", "Parameters": {"error": "Known"},
            "Catch": [{"ErrorEquals": ["Known"], "Next": "Done"}], "Next": "Done"},
        "Done": {"Type": "Pass", "Result": "done", "End": true}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_express_execution_runs_in_memory_and_leaves_its_log_and_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let conveyor = Appliance::start(dir.path()).await;
    conveyor.machine("fast", true, "ALL", everything()).await;
    let handle = &conveyor.handle;
    let header = handle.start_sync(start("fast", Some("one"), json!({"a": 1}))).await.unwrap();
    assert_eq!(header.outcome, Some(Outcome::Succeeded { output: "\"done\"".into() }));
    assert_eq!(handle.reader().on_this_thread().header(header.id).unwrap(), None, "nothing of it is stored");

    // Names of asynchronous ones may repeat, and each has a run of its own.
    let (a, b) = (start("fast", Some("two"), json!({})), start("fast", Some("two"), json!({})));
    let (a, b) = (handle.start(a).await.unwrap(), handle.start(b).await.unwrap());
    assert!(a.arn.starts_with("arn:aws:states:us-east-1:000000000000:express:fast:two:") && a.arn != b.arn);
    assert_eq!(handle.express().running.len(), 2);
    assert!(handle.stop_express(a.id, Some("Enough".into()), None).await);
    until("both have ended", || (handle.express().running_total == 0).then_some(())).await;
    let board = handle.express();
    let counts = board.counts["fast"];
    assert_eq!((counts.started, counts.succeeded, counts.aborted), (3, 2, 1));
    assert_eq!(board.ended.iter().find(|e| e.arn == a.arn).unwrap().error.as_deref(), Some("Enough"));

    let lines = conveyor.lines(dir.path()).await;
    let of_first: Vec<&Value> =
        lines.iter().filter(|l| l["execution_arn"].as_str().unwrap().contains(":one:")).collect();
    assert_eq!(of_first[0]["type"], "ExecutionStarted");
    assert_eq!(of_first[0]["details"]["input"], r#"{"a":1}"#);
    assert_eq!((&of_first[1]["id"], &of_first[1]["previous_event_id"]), (&json!("2"), &json!("0")));
    assert!(of_first.iter().any(|l| l["type"] == "TaskFailed" && l["details"]["error"] == "Known"));
    assert_eq!(of_first.last().unwrap()["type"], "ExecutionSucceeded");
    assert_eq!(of_first.len(), header.last_event.0 as usize);
}

/// The process ends while one runs: the next one runs it anew, under its name, and no more than thrice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_flight_runs_anew_after_a_restart() {
    let (dir, record) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let waits = json!({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": true}}});
    let start_on = async |name: &str| Appliance::recording(&dir.path().join(name), Some(record.path())).await;
    let first = start_on("a").await;
    first.machine("waits", true, "OFF", waits.clone()).await;
    // Recovery and events start executions before what was in flight runs anew.
    let started = first.handle.start(start("waits", Some("w"), json!({"n": 1}))).await.unwrap();
    // Another store, as after a power cut that lost nothing of the machines: `first` is still alive, and not asked again.
    let second = start_on("b").await;
    second.machine("waits", true, "OFF", waits).await;
    assert_eq!(second.handle.resume_express().await, 1);
    assert_eq!(second.handle.resume_express().await, 0, "once");
    assert_eq!(second.handle.express().running[0].arn, started.arn);
    until("it has ended", || (second.handle.express().running_total == 0).then_some(())).await;
    assert_eq!(second.handle.express().counts["waits"].succeeded, 1);
    let third = start_on("c").await;
    assert_eq!(third.handle.resume_express().await, 0, "it has its end now");
}

/// Starts that come together wait for their record, and one whose record fails is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_run_than_may_and_of_one_that_is_refused_nothing_is_told() {
    const MOST: usize = 4;
    assert!(set_quotas(Quotas { express_executions: MOST, ..Quotas::default() }), "a test is a process of its own");
    let (dir, records) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let record = records.path().join("record");
    let conveyor = Appliance::recording(dir.path(), Some(&record)).await;
    let waits = json!({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 200, "End": true}}});
    conveyor.machine("waits", true, "ALL", waits).await;
    let handle = &conveyor.handle;
    let once = || StartRequest { once: true, ..start("waits", None, json!({})) };
    std::fs::rename(&record, records.path().join("away")).unwrap();
    handle.start(once()).await.unwrap_err();
    std::fs::rename(records.path().join("away"), &record).unwrap();
    let board = handle.express();
    assert!(board.counts.is_empty() && board.running_total == 0, "{board:?}");

    let all = futures::future::join_all((0..8 * MOST).map(|_| handle.start(once()))).await;
    let (started, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    assert_eq!((started.len(), handle.express().running_total), (MOST, MOST));
    assert!(refused.iter().all(|one| one.as_ref().is_err_and(|refused| refused.code == "ExecutionLimitExceeded")));
    let one = started[0].as_ref().unwrap();
    assert!(handle.stop_express(one.id, None, None).await);
    until("its place is free", || (handle.express().running_total < MOST).then_some(())).await;
    handle.start(once()).await.unwrap();
    assert_eq!(handle.express().counts["waits"].started as usize, MOST + 1);
    let lines = conveyor.lines(dir.path()).await;
    assert_eq!(lines.iter().filter(|line| line["type"] == "ExecutionStarted").count(), MOST + 1);
}

/// Standard executions log at the level that was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standard_execution_logs_what_its_level_lets_through() {
    let dir = tempfile::tempdir().unwrap();
    let conveyor = Appliance::start(dir.path()).await;
    let fails = json!({"StartAt": "P", "States": {"P": {"Type": "Pass", "Next": "F"},
        "F": {"Type": "Fail", "Error": "E", "Cause": "c"}}});
    for (name, level) in [("all", "ALL"), ("error", "ERROR"), ("fatal", "FATAL"), ("off", "OFF")] {
        conveyor.machine(name, false, level, fails.clone()).await;
        conveyor.handle.start(start(name, None, json!({}))).await.unwrap();
    }
    let lines = conveyor.lines(dir.path()).await;
    let types = |machine: &str| -> Vec<&str> {
        let part = format!(":execution:{machine}:");
        let of = lines.iter().filter(|l| l["execution_arn"].as_str().unwrap().contains(&part));
        of.map(|l| l["type"].as_str().unwrap()).collect()
    };
    assert_eq!(types("fatal"), ["ExecutionFailed"]);
    assert_eq!(types("error"), ["FailStateEntered", "ExecutionFailed"]);
    assert_eq!(types("all").len(), 5);
    assert!(types("off").is_empty());
}

#[test]
fn an_express_execution_ends_after_five_minutes_whatever_its_definition_says() {
    let wait =
        r#"{"TimeoutSeconds": 9000, "StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 8000, "End": true}}}"#;
    let machine = asl::parse(wait).unwrap();
    let env = Env::new("us-east-1", "0", "m", "r").as_express();
    let reference = MachineRef { name: "m".into(), revision: 1, qualifier: None };
    let mut execution =
        Execution::start(ExecutionId::generate(Timestamp(0)), "n".into(), reference, "{}".into(), Timestamp(0));
    let begun = step(
        &machine,
        &execution,
        &Entry { at: Timestamp(0), box_at: Timestamp(0), seed: 1, event: Event::Started },
        &env,
    );
    execution.apply(&begun);
    let first = begun.commands.iter().find_map(|command| match command {
        Command::SetTimer { timer, due: Timestamp(300_000) } => Some(*timer),
        _ => None,
    });
    let event = Event::TimerFired { timer: first.unwrap() };
    let over =
        step(&machine, &execution, &Entry { at: Timestamp(300_000), box_at: Timestamp(300_000), seed: 1, event }, &env);
    let header = over.header.unwrap();
    assert_eq!(header.status, Status::TimedOut);
    assert_eq!(header.outcome, Some(Outcome::TimedOut { error: Some("States.Timeout".into()), cause: None }));
}
