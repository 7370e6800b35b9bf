//! A box whose files rot while it is off: what the API, the command line, the alarm, `check` and its repair say of it.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conveyor_base::{BranchId, ExecutionId};
use conveyor_store::Scans;
use conveyor_testing::served::http::aws;
use conveyor_testing::served::{Served, execution_arn, folder, machine_arn};
use conveyor_testing::until::until_ok;
use serde_json::{Value, json};

use crate::actors::{Files, flip_where, is_hurt};

const CONFIGURATION: &str = r#"
listen = "127.0.0.1:0"
data_dir = "data"
[retention]
archive = "0s"
"#;

fn read(store: &Path) -> Files {
    let files = std::fs::read_dir(store).unwrap().map(Result::unwrap);
    files
        .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
        .filter(|(name, _)| name != "lock")
        .collect()
}

/// In order, as a service manager does it.
fn stop(served: Served) {
    let id = served.id().to_string();
    assert!(Command::new("kill").arg(&id).status().unwrap().success());
    let begun = Instant::now();
    let runs = || std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while runs() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not stop");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn conveyor(arguments: &[&str]) -> Output {
    Command::new(conveyor_testing::binary()).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn describe(served: &Served, machine: &str, name: &str) -> (u16, Value) {
    let request = json!({"executionArn": execution_arn(machine, name)});
    let answer = served.client().await.exchange(&aws("AWSStepFunctions.DescribeExecution", &request)).await.unwrap();
    (answer.status, answer.json())
}

async fn start(served: &Served, machine: &str, name: &str) {
    let mut text = format!("{machine}-{name}-");
    // Of letters that no packing makes much smaller, so that each has pages of its own.
    let mut state = name.bytes().fold(7u64, |sum, byte| sum * 31 + u64::from(byte));
    while text.len() < 12_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(char::from(b'!' + (state >> 33) as u8 % 90));
    }
    let request =
        json!({"stateMachineArn": machine_arn(machine), "name": name, "input": json!({"t": text}).to_string()});
    served.call("AWSStepFunctions.StartExecution", request).await;
}

/// Ids by name.
async fn ids(served: &Served, machine: &str) -> Vec<(String, ExecutionId)> {
    let found = served.get(&format!("/executions?machine={machine}&limit=100")).await;
    let id = |row: &Value| (row["name"].as_str().unwrap().to_owned(), row["id"].as_str().unwrap().parse().unwrap());
    found["executions"].as_array().unwrap().iter().map(id).collect()
}

async fn ended(served: &Served, machine: &str, name: &str) -> Value {
    until_ok("it has ended", async || match describe(served, machine, name).await {
        (200, found) if found["status"] != "RUNNING" => Ok(found),
        (_, found) => Err(found),
    })
    .await
}

#[tokio::test]
async fn an_operator_hears_of_rot_by_name_and_has_a_way_on() {
    let dir = folder(CONFIGURATION);
    let store = dir.path().join("data/store");
    let data = dir.path().join("data").display().to_string();
    let served = Served::start(dir.path());
    let pass = json!({"StartAt": "Do", "States": {"Do": {"Type": "Pass", "End": true}}});
    let wait = json!({"StartAt": "Do", "States": {"Do": {"Type": "Wait", "Seconds": 4, "End": true}}});
    let tidy = json!({"StartAt": "Do", "States": {
        "Do": {"Type": "Task", "Resource": "arn:aws:states:::conveyor:housekeeping", "Parameters": {}, "End": true}}});
    for (name, definition) in [("past", &pass), ("wait", &wait), ("tidy", &tidy)] {
        served.create(name, definition).await;
    }
    for name in ["one", "two", "three"] {
        start(&served, "past", name).await;
        ended(&served, "past", name).await;
    }
    let request = json!({"stateMachineArn": machine_arn("tidy"), "name": "now", "input": "{}"});
    served.call("AWSStepFunctions.StartExecution", request).await;
    assert_eq!(ended(&served, "tidy", "now").await["status"], "SUCCEEDED");
    for name in ["one", "two"] {
        start(&served, "wait", name).await;
    }
    let (past, waiting) = (ids(&served, "past").await, ids(&served, "wait").await);
    stop(served);

    // One of those that ended, in its archive, and one of those that wait.
    let files = read(&store);
    let archive = files.keys().find(|name| name.starts_with("history-")).unwrap().clone();
    let (_, tired) = waiting.iter().find(|(name, _)| name == "one").unwrap();
    let files = flip_where(&files, "state.redb", Some(*tired), |rows: &Scans| {
        let others = past.iter().chain(&waiting).all(|(_, id)| id == tired || !is_hurt(rows.execution(*id)));
        is_hurt(rows.branch(*tired, BranchId::ROOT)) && !is_hurt(rows.header(*tired)) && others
    });
    let files = files.expect("the branch has a page of its own");
    let hurt = Arc::new(std::sync::Mutex::new(None));
    let files = flip_where(&files, &archive, None, |rows: &Scans| {
        let mut all = past.iter().filter(|(_, id)| is_hurt(rows.header(*id)));
        let found = all.next().filter(|_| all.next().is_none());
        *hurt.lock().unwrap() = found.cloned();
        found.is_some()
    });
    for (name, bytes) in files.expect("one archived execution has a page of its own") {
        std::fs::write(store.join(name), bytes).unwrap();
    }
    let (hurt, hurt_id) = hurt.lock().unwrap().clone().unwrap();

    let told = |text: &str, what: &str| {
        assert!(text.contains("damaged") && text.contains("conveyor check --repair"), "{what}: {text}");
    };
    let served = Served::start(dir.path());
    let (status, answer) = describe(&served, "past", &hurt).await;
    assert_eq!((status, answer["__type"].as_str().unwrap_or_default()), (500, "StoreDamaged"), "{answer}");
    let message = answer["message"].as_str().unwrap();
    told(message, "the API");
    assert!(message.contains(&archive) && message.contains(&hurt_id.to_string()), "{message}");
    let shown = conveyor(&["executions", "--url", &served.url(), "show", &hurt_id.to_string()]);
    assert!(!shown.status.success());
    told(&said(&shown), "the command line");
    for (name, _) in past.iter().filter(|(name, _)| *name != hurt) {
        let (status, found) = describe(&served, "past", name).await;
        assert_eq!((status, &found["status"]), (200, &json!("SUCCEEDED")));
        assert_eq!(found["output"], found["input"], "a Pass state's");
    }
    let failed = ended(&served, "wait", "one").await;
    assert_eq!((&failed["status"], &failed["error"]), (&json!("FAILED"), &json!("Store.Damaged")));
    told(failed["cause"].as_str().unwrap(), "the execution");
    assert_eq!(ended(&served, "wait", "two").await["status"], "SUCCEEDED");
    let alarm = async || {
        let all = served.get("/alarms").await;
        let mut all = all["alarms"].as_array().unwrap().iter();
        all.find(|alarm| alarm["name"] == "store: damage" && alarm["raised"] == true).cloned()
    };
    let alarm = until_ok("the alarm", async || alarm().await.ok_or("it is not raised")).await;
    told(alarm["reason"].as_str().unwrap(), "the alarm");
    let metrics = reqwest::get(format!("{}/metrics", served.url())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("conveyor_executions_damaged_total 1"), "{metrics}");
    stop(served);

    let check = conveyor(&["check", "--data-dir", &data]);
    assert!(!check.status.success());
    let text = said(&check);
    assert!(text.contains(&archive) && text.contains("state.redb") && text.contains("--repair"), "{text}");
    let repair = conveyor(&["check", "--data-dir", &data, "--repair"]);
    let text = said(&repair);
    assert!(!repair.status.success(), "something is lost: {text}");
    assert!(text.contains(&format!("execution {hurt_id}")) && text.contains(&hurt), "{text}");
    let check = conveyor(&["check", "--data-dir", &data]);
    assert!(check.status.success(), "{}", said(&check));

    let served = Served::start(dir.path());
    let (status, answer) = describe(&served, "past", &hurt).await;
    assert_eq!((status, answer["__type"].as_str().unwrap_or_default()), (400, "ExecutionDoesNotExist"), "{answer}");
    for (name, _) in past.iter().filter(|(name, _)| *name != hurt) {
        assert_eq!(describe(&served, "past", name).await.1["status"], "SUCCEEDED");
    }
    assert_eq!(describe(&served, "wait", "one").await.1["error"], "Store.Damaged", "its end is kept");
    assert_eq!(describe(&served, "wait", "two").await.1["status"], "SUCCEEDED");
    until_ok("the alarm is cleared", async || {
        let all = served.get("/alarms").await;
        let raised =
            all["alarms"].as_array().unwrap().iter().any(|a| a["name"] == "store: damage" && a["raised"] == true);
        if raised { Err(all) } else { Ok(()) }
    })
    .await;
    stop(served);
}

#[tokio::test]
async fn a_built_in_workflow_whose_definition_is_lost_is_made_anew() {
    let dir = folder(CONFIGURATION);
    let store = dir.path().join("data/store");
    let data = dir.path().join("data").display().to_string();
    stop(Served::start(dir.path()));
    let files = flip_where(&read(&store), "state.redb", None, |rows: &Scans| {
        is_hurt(rows.revision("housekeeping", 1)) && !is_hurt(rows.machine("housekeeping"))
    });
    for (name, bytes) in files.expect("the definition has a page of its own") {
        std::fs::write(store.join(name), bytes).unwrap();
    }
    let repair = conveyor(&["check", "--data-dir", &data, "--repair"]);
    assert!(said(&repair).contains("revision 1 of state machine 'housekeeping'"), "{}", said(&repair));
    let served = Served::start(dir.path());
    let request = json!({"stateMachineArn": machine_arn("housekeeping"), "name": "now", "input": "{}"});
    served.call("AWSStepFunctions.StartExecution", request).await;
    assert_eq!(ended(&served, "housekeeping", "now").await["status"], "SUCCEEDED");
    stop(served);
    let check = conveyor(&["check", "--data-dir", &data]);
    assert!(check.status.success(), "{}", said(&check));
}
