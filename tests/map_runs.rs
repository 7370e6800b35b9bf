//! Distributed Maps, and what else is in flight, on a served box that is killed in the midst of it: everything ends with
//! the histories of an undisturbed box, apart from times and from what is made up anew for each run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use conveyor_testing::served::{Served, machine_arn};
use conveyor_testing::until::until_ok;
use regex::Regex;
use serde_json::{Value, json};

/// Rows of the file that the large Map goes over.
const ROWS: usize = 10_000;
const TASKS: usize = 100;

/// The Step Functions operation's answer.
async fn call(served: &Served, operation: &str, request: Value) -> Value {
    served.call(&format!("AWSStepFunctions.{operation}"), request).await
}

/// Starts an execution with its machine's name; returns its ARN.
async fn begin(served: &Served, machine: &str, input: Value) -> String {
    let request = json!({"stateMachineArn": machine_arn(machine), "name": machine, "input": input.to_string()});
    let started = call(served, "StartExecution", request).await;
    started["executionArn"].as_str().unwrap_or_else(|| panic!("{started}")).to_owned()
}

async fn ended(served: &Served, arn: &str) -> Value {
    until_ok("it ends", async || {
        let described = call(served, "DescribeExecution", json!({"executionArn": arn})).await;
        if described["status"] == "RUNNING" { Err(described) } else { Ok(described) }
    })
    .await
}

async fn history(served: &Served, arn: &str) -> Value {
    let mut history = call(served, "GetExecutionHistory", json!({"executionArn": arn, "maxResults": 1000})).await;
    plain(&mut history);
    history["events"].take()
}

async fn map_run(served: &Served, execution: &str) -> Value {
    let runs = call(served, "ListMapRuns", json!({"executionArn": execution})).await;
    call(served, "DescribeMapRun", json!({"mapRunArn": runs["mapRuns"][0]["mapRunArn"]})).await
}

/// Every child of an execution's Map.
async fn children(served: &Served, execution: &str) -> Vec<Value> {
    let run = map_run(served, execution).await["mapRunArn"].take();
    served.list("ListExecutions", json!({"mapRunArn": run, "maxResults": 1000}), "executions").await
}

/// Takes out what differs from run to run: times, and the numbers of runs and requests.
fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("timestamp");
            fields.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::String(text) => *text = without_ids(text),
        _ => {}
    }
}

fn without_ids(text: &str) -> String {
    static IDS: LazyLock<Regex> = LazyLock::new(|| {
        let uuid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}";
        let trace = "Root=1-[0-9a-f]{8}-[0-9a-f]{24}";
        let date = "[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT";
        Regex::new(&format!("{uuid}|{trace}|{date}")).unwrap()
    });
    IDS.replace_all(text, "ID").into_owned()
}

fn map(processor: Value, more: Value) -> Value {
    let mut processor = processor;
    processor["ProcessorConfig"] = json!({"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"});
    let mut state = json!({"Type": "Map", "Label": "items", "ItemProcessor": processor, "End": true});
    for (field, value) in more.as_object().unwrap() {
        state[field] = value.clone();
    }
    json!({"StartAt": "Map", "States": {"Map": state}})
}

fn echo(next: Value) -> Value {
    let mut state = json!({
        "Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "OutputPath": "$.Payload",
        "Parameters": {"FunctionName": "echo", "Payload.$": "$"},
    });
    let field = if next.is_boolean() { "End" } else { "Next" };
    state[field] = next;
    state
}

async fn create_all(served: &Served) {
    let pass = json!({"StartAt": "Keep", "States": {"Keep": {"Type": "Pass", "End": true}}});
    let rows = json!({
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "FIRST_ROW"},
            "Parameters": {"Bucket": "lists", "Key": "rows.csv"},
        },
        "ItemSelector": {"index.$": "$$.Map.Item.Index", "row.$": "$$.Map.Item.Value"},
        "ResultWriter": {
            "Resource": "arn:aws:states:::s3:putObject", "Parameters": {"Bucket": "results", "Prefix": "rows"},
            "WriterConfig": {"Transformation": "COMPACT", "OutputType": "JSONL"},
        },
    });
    served.create("rows", &map(pass, rows)).await;
    let task =
        json!({"StartAt": "Echo", "States": {"Echo": echo(json!("Last")), "Last": {"Type": "Pass", "End": true}}});
    served.create("tasks", &map(task, json!({"MaxConcurrency": 25}))).await;
    let relay = json!({"StartAt": "A", "States": {
        "A": echo(json!("B")), "B": echo(json!("C")), "C": echo(json!("D")), "D": echo(json!("E")), "E": echo(json!(true)),
    }});
    served.create("relay", &relay).await;
    let activity = "arn:aws:states:us-east-1:000000000000:activity:ask";
    call(served, "CreateActivity", json!({"name": "ask"})).await;
    let ask = json!({"StartAt": "Ask", "States": {
        "Ask": {"Type": "Task", "Resource": activity, "Next": "Last"}, "Last": {"Type": "Pass", "End": true},
    }});
    served.create("ask", &ask).await;
}

/// What came of everything: histories, counts and results.
async fn live(dir: &Path, kills: &[usize]) -> Value {
    let mut config = format!("data_dir = \"{0}/data\"\nlisten = \"127.0.0.1:0\"\n", dir.display());
    for share in ["lists", "results"] {
        fs::create_dir_all(dir.join(share)).unwrap();
        config += &format!("[shares.{share}]\npath = \"{}/{share}\"\n", dir.display());
    }
    fs::write(dir.join("conveyor.toml"), config + "[functions.echo]\ncommand = [\"cat\"]\n").unwrap();
    let rows: String = (0..ROWS).map(|row| format!("{row},clip{row}.mp4\n")).collect();
    fs::write(dir.join("lists/rows.csv"), format!("id,name\n{rows}")).unwrap();
    let mut served = Served::start(dir);
    create_all(&served).await;
    let ask = begin(&served, "ask", json!({"q": 1})).await;
    let request = json!({"activityArn": "arn:aws:states:us-east-1:000000000000:activity:ask", "workerName": "w"});
    let token = call(&served, "GetActivityTask", request).await["taskToken"].clone();
    let tasks = begin(&served, "tasks", (0..TASKS).collect()).await;
    let relay = begin(&served, "relay", json!({"n": 7})).await;
    let all = begin(&served, "rows", json!({})).await;
    for at in kills {
        // In the midst, as far as the machine lets this be seen.
        until_ok("some children", async || {
            let run = map_run(&served, &all).await;
            let done = run["executionCounts"]["succeeded"].as_u64().unwrap_or(0) as usize;
            if done >= *at || run["status"] != "RUNNING" { Ok(()) } else { Err(run) }
        })
        .await;
        drop(served);
        served = Served::start(dir);
    }
    call(&served, "SendTaskSuccess", json!({"taskToken": token, "output": "\"answered\""})).await;
    let mut seen = json!({});
    for (name, arn) in [("rows", &all), ("tasks", &tasks), ("relay", &relay), ("ask", &ask)] {
        let mut described = ended(&served, arn).await;
        for field in ["startDate", "stopDate"] {
            described.as_object_mut().unwrap().remove(field);
        }
        plain(&mut described);
        assert_eq!(described["status"], "SUCCEEDED", "{described}");
        seen[name] = json!({"described": described, "history": history(&served, arn).await});
    }
    for (name, arn, count, sampled) in [("rows", &all, ROWS, 100), ("tasks", &tasks, TASKS, TASKS)] {
        let run = map_run(&served, arn).await;
        let counts = &run["executionCounts"];
        assert_eq!((counts["succeeded"].as_u64(), counts["total"].as_u64()), (Some(count as u64), Some(count as u64)));
        seen[name]["counts"] = json!([run["itemCounts"], counts]);
        let mut children = children(&served, arn).await;
        assert_eq!(children.len(), count);
        // Newest first; their names ascend with their numbers.
        children.sort_by_key(|child| child["name"].as_str().map(str::to_owned));
        let mut histories = Vec::new();
        for child in children.iter().step_by(count / sampled) {
            let history = history(&served, child["executionArn"].as_str().unwrap()).await;
            histories.push(if name == "rows" { of_any_row(history) } else { history });
        }
        // Ids of one process ascend, and those of the next one begin later.
        histories.sort_by_key(|history| history[0].to_string());
        seen[name]["children"] = histories.into();
    }
    let manifest = fs::read_dir(dir.join("results/rows")).unwrap().next().unwrap().unwrap().path();
    seen["results"] = fs::read_to_string(manifest.join("SUCCEEDED_0.jsonl")).unwrap().into();
    seen
}

/// A child's history without the number of its row: which rows a sample holds does not matter.
fn of_any_row(history: Value) -> Value {
    let input = history[0]["executionStartedEventDetails"]["input"].as_str().unwrap();
    let index = serde_json::from_str::<Value>(input).unwrap()["index"].to_string();
    let mut text = history.to_string();
    for (with, without) in [("\\\"index\\\":#,", "INDEX"), ("\\\"id\\\":\\\"#\\\"", "ID"), ("clip#.", "CLIP")] {
        text = text.replace(&with.replace('#', &index), without);
    }
    Value::from(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_box_in_the_midst_changes_no_history() {
    let (quiet, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = live(quiet.path(), &[]).await;
    let seen = live(killed.path(), &[1, 3_000, 7_000]).await;
    for (name, value) in expected.as_object().unwrap() {
        let (is, was) =
            (serde_json::to_string_pretty(&seen[name]).unwrap(), serde_json::to_string_pretty(value).unwrap());
        let difference = is.lines().zip(was.lines()).find(|(is, was)| is != was);
        assert_eq!(difference, None, "of '{name}'");
        assert_eq!(is.len(), was.len(), "of '{name}'");
    }
    let first = expected["results"].as_str().unwrap().lines().next().unwrap();
    assert_eq!(first, r#"{"index":0,"row":{"id":"0","name":"clip0.mp4"}}"#);
}

/// A redrive may come while the children that the stop before it ends are still ending: it must not be lost on that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_that_is_stopped_and_redriven_at_once_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!("data_dir = \"{0}/data\"\nlisten = \"127.0.0.1:0\"\n", dir.path().display());
    fs::write(dir.path().join("conveyor.toml"), config).unwrap();
    let served = Served::start(dir.path());
    let waits = json!({"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 2, "End": true}}});
    served.create("waits", &map(waits, json!({}))).await;
    let arn = begin(&served, "waits", (0..500).collect()).await;
    until_ok("the children run", async || {
        let run = map_run(&served, &arn).await;
        if run["executionCounts"]["running"].as_u64() >= Some(300) { Ok(()) } else { Err(run) }
    })
    .await;
    for operation in ["StopExecution", "RedriveExecution"] {
        call(&served, operation, json!({"executionArn": arn})).await;
    }
    let described = ended(&served, &arn).await;
    let run = map_run(&served, &arn).await;
    assert_eq!(described["status"], "SUCCEEDED", "{described} {run}");
    assert_eq!((&run["executionCounts"]["succeeded"], &run["redriveCount"]), (&json!(500), &json!(1)), "{run}");
}

/// What the process has held at most, in MiB.
fn held_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// Three gigabytes in three megabytes: one field of them, and rows of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packed_bomb_ends_its_map_in_seconds_and_costs_the_box_nothing() {
    const MEMBERS: usize = 3_072;
    let dir = tempfile::tempdir().unwrap();
    let (root, lists) = (dir.path().display(), dir.path().join("lists"));
    fs::create_dir(&lists).unwrap();
    let config = format!(
        "data_dir = \"{root}/data\"\nlisten = \"127.0.0.1:0\"\n[shares.lists]\npath = \"{}\"\n",
        lists.display()
    );
    fs::write(dir.path().join("conveyor.toml"), config).unwrap();
    let served = Served::start(dir.path());
    let pass = json!({"StartAt": "Keep", "States": {"Keep": {"Type": "Pass", "End": true}}});
    let before = held_mib(served.id());
    for (name, text, said) in [
        ("field", "x".repeat(1 << 20), "one item has more than 8388608 bytes"),
        ("rows", "\"bucket\",\"key\"\n".repeat(1 << 16), "more than 200 times as long"),
    ] {
        let plain = lists.join(name);
        fs::write(&plain, text).unwrap();
        let packed = Command::new("gzip").arg("-9c").arg(&plain).output().unwrap();
        fs::write(lists.join(format!("{name}.csv.gz")), packed.stdout.repeat(MEMBERS)).unwrap();
        let manifest = json!({
            "fileFormat": "CSV", "fileSchema": "Bucket, Key", "files": [{"key": format!("{name}.csv.gz")}],
            "destinationBucket": "arn:aws:s3:::lists",
        });
        fs::write(lists.join(format!("{name}.json")), manifest.to_string()).unwrap();
        let reader = json!({"MaxConcurrency": 1, "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject", "ReaderConfig": {"InputType": "MANIFEST"},
            "Parameters": {"Bucket": "lists", "Key": format!("{name}.json")},
        }});
        served.create(name, &map(pass.clone(), reader)).await;
        let begun = Instant::now();
        let arn = begin(&served, name, json!({})).await;
        let end = ended(&served, &arn).await;
        assert_eq!((&end["status"], &end["error"]), (&json!("FAILED"), &json!("States.ItemReaderFailed")), "{end}");
        let cause = end["cause"].as_str().unwrap();
        assert!(cause.contains(said) && cause.contains(&format!("s3://lists/{name}.csv.gz")), "{cause}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{name}: {:?}", begun.elapsed());
        let held = held_mib(served.id());
        println!("{name}: {:?}, {before} MiB before, {held} MiB at most", begun.elapsed());
        // Of three gibibytes.
        assert!(held < before + 256, "{name}: {before} MiB before, {held} MiB at most");
    }
}
