//! Distributed Maps, and what else is in flight, on a served box that is killed in the midst of it: everything ends with
//! the histories of an undisturbed box, apart from times and from what is made up anew for each run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::000000000000:role/box";
/// Rows of the file that the large Map goes over.
const ROWS: usize = 10_000;
const TASKS: usize = 100;

/// A box as people start it. Ends with the test.
struct Served {
    process: Child,
    url: String,
    client: reqwest::Client,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Served {
    async fn start(dir: &Path) -> Served {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "data_dir = \"{0}/data\"\nlisten = \"127.0.0.1:{port}\"\n[shares.lists]\npath = \"{0}/lists\"\n\
             [shares.results]\npath = \"{0}/results\"\n[functions.echo]\ncommand = [\"cat\"]\n",
            dir.display()
        );
        fs::write(dir.join("conveyor.toml"), config).unwrap();
        let process = Command::new(conveyor_testing::binary())
            .args(["serve", "--config"])
            .arg(dir.join("conveyor.toml"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}/");
        let served = Served { process, url, client: reqwest::Client::new() };
        let health = format!("{}healthz", served.url);
        until("the box serves", async || served.client.get(&health).send().await.ok().map(drop)).await;
        served
    }

    async fn call(&self, op: &str, request: Value) -> Value {
        let sent = self
            .client
            .post(&self.url)
            .header("X-Amz-Target", format!("AWSStepFunctions.{op}"))
            .header("Content-Type", "application/x-amz-json-1.0")
            .body(request.to_string());
        let text = sent.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn create(&self, name: &str, definition: &Value) {
        let request = json!({"name": name, "definition": definition.to_string(), "roleArn": ROLE});
        let created = self.call("CreateStateMachine", request).await;
        assert!(created["stateMachineArn"].is_string(), "{created}");
    }

    async fn begin(&self, machine: &str, input: Value) -> String {
        let arn = format!("arn:aws:states:us-east-1:000000000000:stateMachine:{machine}");
        let request = json!({"stateMachineArn": arn, "name": machine, "input": input.to_string()});
        let started = self.call("StartExecution", request).await;
        started["executionArn"].as_str().unwrap_or_else(|| panic!("{started}")).to_owned()
    }

    async fn ended(&self, arn: &str) -> Value {
        until("it ends", async || {
            let described = self.call("DescribeExecution", json!({"executionArn": arn})).await;
            (described["status"] != "RUNNING").then_some(described)
        })
        .await
    }

    async fn history(&self, arn: &str) -> Value {
        let request = json!({"executionArn": arn, "maxResults": 1000});
        let mut history = self.call("GetExecutionHistory", request).await;
        plain(&mut history);
        history["events"].take()
    }

    async fn map_run(&self, execution: &str) -> Value {
        let runs = self.call("ListMapRuns", json!({"executionArn": execution})).await;
        self.call("DescribeMapRun", json!({"mapRunArn": runs["mapRuns"][0]["mapRunArn"]})).await
    }

    /// Every child of an execution's Map, in pages.
    async fn children(&self, execution: &str) -> Vec<Value> {
        let run = self.map_run(execution).await["mapRunArn"].clone();
        let (mut all, mut token) = (Vec::new(), Value::Null);
        loop {
            let mut request = json!({"mapRunArn": run, "maxResults": 1000});
            if token.is_string() {
                request["nextToken"] = token;
            }
            let mut page = self.call("ListExecutions", request).await;
            all.append(page["executions"].as_array_mut().unwrap_or_else(|| panic!("no list")));
            token = page["nextToken"].take();
            if !token.is_string() {
                return all;
            }
        }
    }
}

/// Waits for what is to come. How long it takes is no part of any test.
async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not come: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
    served.call("CreateActivity", json!({"name": "ask"})).await;
    let ask = json!({"StartAt": "Ask", "States": {
        "Ask": {"Type": "Task", "Resource": activity, "Next": "Last"}, "Last": {"Type": "Pass", "End": true},
    }});
    served.create("ask", &ask).await;
}

/// What came of everything: histories, counts and results.
async fn live(dir: &Path, kills: &[usize]) -> Value {
    for share in ["lists", "results"] {
        fs::create_dir_all(dir.join(share)).unwrap();
    }
    let rows: String = (0..ROWS).map(|row| format!("{row},clip{row}.mp4\n")).collect();
    fs::write(dir.join("lists/rows.csv"), format!("id,name\n{rows}")).unwrap();
    let mut served = Served::start(dir).await;
    create_all(&served).await;
    let ask = served.begin("ask", json!({"q": 1})).await;
    let request = json!({"activityArn": "arn:aws:states:us-east-1:000000000000:activity:ask", "workerName": "w"});
    let token = served.call("GetActivityTask", request).await["taskToken"].clone();
    let tasks = served.begin("tasks", (0..TASKS).collect()).await;
    let relay = served.begin("relay", json!({"n": 7})).await;
    let all = served.begin("rows", json!({})).await;
    for at in kills {
        // In the midst, as far as the machine lets this be seen.
        until("some children", async || {
            let run = served.map_run(&all).await;
            let done = run["executionCounts"]["succeeded"].as_u64().unwrap_or(0) as usize;
            (done >= *at || run["status"] != "RUNNING").then_some(())
        })
        .await;
        drop(served);
        served = Served::start(dir).await;
    }
    served.call("SendTaskSuccess", json!({"taskToken": token, "output": "\"answered\""})).await;
    let mut seen = json!({});
    for (name, arn) in [("rows", &all), ("tasks", &tasks), ("relay", &relay), ("ask", &ask)] {
        let mut described = served.ended(arn).await;
        for field in ["startDate", "stopDate"] {
            described.as_object_mut().unwrap().remove(field);
        }
        plain(&mut described);
        assert_eq!(described["status"], "SUCCEEDED", "{described}");
        seen[name] = json!({"described": described, "history": served.history(arn).await});
    }
    for (name, arn, count, sampled) in [("rows", &all, ROWS, 100), ("tasks", &tasks, TASKS, TASKS)] {
        let run = served.map_run(arn).await;
        let counts = &run["executionCounts"];
        assert_eq!((counts["succeeded"].as_u64(), counts["total"].as_u64()), (Some(count as u64), Some(count as u64)));
        seen[name]["counts"] = json!([run["itemCounts"], counts]);
        let mut children = served.children(arn).await;
        assert_eq!(children.len(), count);
        // Newest first; their names ascend with their numbers.
        children.sort_by_key(|child| child["name"].as_str().map(str::to_owned));
        let mut histories = Vec::new();
        for child in children.iter().step_by(count / sampled) {
            let history = served.history(child["executionArn"].as_str().unwrap()).await;
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
