//! The API over real HTTP: boto3 as a client, the recipe's route, media, events, and who may come in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "api/beneath.rs"]
mod beneath;
#[path = "api/crowd.rs"]
mod crowd;
#[path = "api/hostile.rs"]
mod hostile;
#[path = "api/refusals.rs"]
mod refusals;
#[path = "api/signing_in.rs"]
mod signing_in;
#[path = "api/uploads.rs"]
mod uploads;

use std::process::Command;

use conveyor_testing::api::Appliance;
use serde_json::{Value, json};

const MACHINE: &str = "arn:aws:states:us-east-1:000000000000:stateMachine:passes";

fn pass() -> Value {
    json!({"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": {"done": true}, "End": true}}})
}

/// The state machine that fails at a stage, on the second attempt for good.
fn failing() -> Value {
    json!({"StartAt": "Probe", "States": {
        "Probe": {"Type": "Task", "Resource": "arn:aws:states:::conveyor:scripted", "Next": "Never",
            "Parameters": {"ms": 10, "error": "Media.Truncated", "cause": "clip.mp4 ends after 3.2 s of 60 s"},
            "Retry": [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1, "IntervalSeconds": 1}]},
        "Never": {"Type": "Succeed"}}})
}

/// boto3 knows the service's own model: what it accepts has the right shape.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_starts_lists_reads_stops_and_reports() {
    let python = conveyor_testing::root().join("target/venv/bin/python");
    if !python.exists() {
        assert!(std::env::var_os("CI").is_none(), "target/venv is missing: run `make test`");
        eprintln!("skipped: there is no target/venv with boto3; `make test` makes it");
        return;
    }
    for credentials in [&[][..], &[("AKIDOPS", "a secret of some length")]] {
        let appliance = Appliance::start(credentials).await;
        let script = conveyor_testing::root().join("tests/api/client.py");
        let mut command = Command::new(&python);
        command
            .arg(script)
            .arg(appliance.url())
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_CONFIG_FILE", "/dev/null");
        command.env("AWS_ACCESS_KEY_ID", "AKIDOPS").env("AWS_SECRET_ACCESS_KEY", "a secret of some length");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_aws_command_line_drives_a_session() {
    let folder = conveyor_testing::root();
    let aws = std::env::var_os("AWS_CLI").map_or_else(|| folder.join("target/venv/bin/aws"), Into::into);
    if !aws.exists() {
        assert!(std::env::var_os("CI").is_none(), "target/venv has no awscli: run `make test`");
        eprintln!("skipped: there is no target/venv with awscli; `make test` makes it");
        return;
    }
    let appliance = Appliance::start(&[]).await;
    let mut command = Command::new(folder.join("tests/api/session.sh"));
    command.arg(aws).arg(appliance.url()).env("AWS_DEFAULT_REGION", "us-east-1").env("AWS_CONFIG_FILE", "/dev/null");
    command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_for_javascript_drives_a_session() {
    let folder = conveyor_testing::root().join("tests/api");
    if !folder.join("node_modules/@aws-sdk/client-sfn").exists() {
        assert!(std::env::var_os("CI").is_none(), "tests/api/node_modules is missing: run `make test`");
        eprintln!("skipped: tests/api/node_modules has no SDK; `make test` installs it");
        return;
    }
    let appliance = Appliance::start(&[]).await;
    let mut command = Command::new("node");
    command.arg(folder.join("session.mjs")).arg(appliance.url());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}");
}

#[tokio::test]
async fn bad_requests_are_refused_in_the_words_of_aws() {
    let appliance = Appliance::start(&[]).await;
    appliance.run("passes", pass(), json!({})).await;
    for (operation, request, code, message) in refusals::cases() {
        let (status, body) = appliance.aws(operation, request).await;
        assert_eq!((status, body["__type"].as_str()), (400, Some(code)), "{operation}: {body}");
        if !message.is_empty() {
            assert_eq!(body["message"], message, "{operation}");
        }
    }
    for (body, code) in [("{", "SerializationException"), ("[]", "SerializationException"), ("", "ValidationException")]
    {
        let target = ("x-amz-target", "AWSStepFunctions.DescribeExecution");
        let request = reqwest::Client::new().post(appliance.url()).header(target.0, target.1).body(body);
        let response = request.send().await.unwrap();
        let error = response.headers()["x-amzn-errortype"].to_str().unwrap();
        assert_eq!((response.status().as_u16(), error), (400, code), "{body}");
    }
}

/// Whatever is sent is answered, and the fault is never the box's own.
#[tokio::test]
async fn hostile_requests_are_refused_and_nothing_else_happens() {
    let appliance = Appliance::start(&[]).await;
    appliance.run("passes", pass(), json!({})).await;
    for (operation, request) in hostile::operations() {
        for field in request.as_object().unwrap().keys() {
            for value in hostile::values() {
                let mut request = request.clone();
                request[field] = value;
                let (status, body) = appliance.aws(operation, request.clone()).await;
                let sent = request[field].to_string();
                let sent: String = sent.chars().take(80).collect();
                assert!(status == 200 || status == 400, "{operation} {field} {sent}: {status} {body}");
                assert!(status == 200 || body["__type"].is_string(), "{operation} {field} {sent}: {body}");
            }
        }
    }
    let (_, listed) = appliance.aws("ListExecutions", json!({"stateMachineArn": MACHINE, "maxResults": 1})).await;
    assert!(listed["executions"][0]["executionArn"].is_string(), "{listed}");
}

#[tokio::test]
async fn a_state_tried_out_says_how_its_retry_and_catch_take_an_error() {
    let appliance = Appliance::start(&[]).await;
    let definition = json!({"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Next": "Never",
        "Parameters": {"FunctionName": "f", "Payload.$": "$"},
        "Retry": [{"ErrorEquals": ["Other"]}, {"ErrorEquals": ["Busy"], "IntervalSeconds": 3, "MaxAttempts": 2}],
        "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Mend", "ResultPath": "$.error"}]});
    let tried = async |retried: u32, error: &str| {
        let request = json!({"definition": definition.to_string(), "input": "{\"n\": 1}", "inspectionLevel": "DEBUG",
            "stateConfiguration": {"retrierRetryCount": retried}, "mock": {"errorOutput": {"error": error, "cause": "c"}}});
        appliance.aws("TestState", request).await.1
    };
    let again = tried(1, "Busy").await;
    assert_eq!(again["status"], "RETRIABLE", "{again}");
    let details = &again["inspectionData"]["errorDetails"];
    assert_eq!(details, &json!({"retryIndex": 1, "retryBackoffIntervalSeconds": 6}));
    let caught = tried(2, "Busy").await;
    assert_eq!((&caught["status"], &caught["nextState"]), (&json!("CAUGHT_ERROR"), &json!("Mend")), "{caught}");
    assert_eq!(caught["output"], r#"{"n":1,"error":{"Error":"Busy","Cause":"c"}}"#);
    assert_eq!(caught["inspectionData"]["errorDetails"], json!({"retryIndex": 1, "catchIndex": 0}));
}

#[tokio::test]
async fn credentials_are_asked_for_where_they_are_set() {
    let appliance = Appliance::start(&[("ops", "correct horse battery")]).await;
    let (status, body) = appliance.aws("ListStateMachines", json!({})).await;
    assert_eq!((status, body["__type"].as_str()), (403, Some("MissingAuthenticationToken")));
    let client = reqwest::Client::new();
    let lanes = || client.get(format!("{}/api/v1/lanes", appliance.url()));
    assert_eq!(lanes().send().await.unwrap().status(), 401);
    assert_eq!(lanes().basic_auth("ops", Some("wrong")).send().await.unwrap().status(), 401);
    assert_eq!(lanes().basic_auth("ops", Some("correct horse battery")).send().await.unwrap().status(), 200);
    assert_eq!(appliance.get("/healthz").await.status(), 200);
    assert_eq!(appliance.get("/metrics").await.status(), 401);
}

#[tokio::test]
async fn foreign_pages_cannot_change_anything() {
    let appliance = Appliance::start(&[]).await;
    let client = reqwest::Client::new();
    let post = || client.post(format!("{}/start-workflow", appliance.url())).body("{}");
    assert_eq!(post().header("origin", "http://evil.example").send().await.unwrap().status(), 403);
    assert_eq!(post().header("host", "evil.example").send().await.unwrap().status(), 403);
    assert_eq!(post().header("origin", appliance.url()).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn the_recipes_route_starts_the_main_workflow() {
    let appliance = Appliance::start(&[]).await;
    appliance.run("main", pass(), json!({})).await;
    let client = reqwest::Client::new();
    let post = |body: Value| client.post(format!("{}/start-workflow", appliance.url())).body(body.to_string()).send();
    let missing = post(json!({"bucket": "incoming"})).await.unwrap();
    assert_eq!(missing.status(), 400);
    assert_eq!(missing.json::<Value>().await.unwrap(), json!({"error": "Missing bucket or key parameter"}));
    let escaping = post(json!({"bucket": "incoming", "key": "../../etc/passwd"})).await.unwrap();
    assert_eq!(escaping.status(), 400);
    let started: Value = post(json!({"bucket": "incoming", "key": "a b.mp4"})).await.unwrap().json().await.unwrap();
    assert_eq!(started["message"], "Video processing workflow started successfully");
    let ended = appliance.ended(started["executionArn"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "SUCCEEDED");
    let input: Value = serde_json::from_str(ended["input"].as_str().unwrap()).unwrap();
    assert_eq!((&input["jobId"], &input["key"]), (&started["jobId"], &json!("a b.mp4")));
    let listed: Value = appliance.get("/api/v1/executions?q=A%20b").await.json().await.unwrap();
    assert_eq!(listed["executions"][0]["file"], "a b.mp4");
    assert_eq!(listed["executions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_failure_is_told_with_its_state_input_and_error_also_from_the_execution_above() {
    let appliance = Appliance::start(&[]).await;
    appliance.run("inner", failing(), json!({})).await;
    let outer = json!({"StartAt": "Delegate", "States": {"Delegate": {"Type": "Task", "End": true,
        "Resource": "arn:aws:states:::states:startExecution.sync:2",
        "Parameters": {"StateMachineArn": "arn:aws:states:us-east-1:000000000000:stateMachine:inner",
            "Input.$": "$"}}}});
    let arn = appliance.run("outer", outer, json!({"bucket": "incoming", "key": "clip.mp4"})).await;
    assert_eq!(appliance.ended(&arn).await["status"], "FAILED");
    let listed: Value = appliance.get("/api/v1/executions?machine=outer&status=FAILED").await.json().await.unwrap();
    assert_eq!(listed["executions"][0]["error"], "Media.Truncated", "rows say what the nested execution failed with");
    let id = listed["executions"][0]["id"].as_str().unwrap();
    let shown: Value = appliance.get(&format!("/api/v1/executions/{id}")).await.json().await.unwrap();
    let failure = &shown["failure"];
    assert_eq!(failure["workflow"], "inner");
    assert_eq!(failure["state"], "Probe");
    assert_eq!(failure["error"], "Media.Truncated");
    assert_eq!(failure["cause"], "clip.mp4 ends after 3.2 s of 60 s");
    assert_eq!(serde_json::from_str::<Value>(failure["input"].as_str().unwrap()).unwrap()["key"], "clip.mp4");
    let child = shown["states"][0]["children"][0].as_str().unwrap();
    let child: Value = appliance.get(&format!("/api/v1/executions/{child}")).await.json().await.unwrap();
    assert_eq!(child["parent"], id);
    assert_eq!(child["states"][0]["attempts"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn results_are_served_in_ranges_and_nothing_else_is() {
    let appliance = Appliance::start(&[]).await;
    std::fs::create_dir(appliance.outputs.join("a b")).unwrap();
    std::fs::write(appliance.outputs.join("a b/x.mp4"), b"0123456789").unwrap();
    std::fs::write(appliance.outputs.join("page.html"), b"<script>alert(1)</script>").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", appliance.outputs.join("link.json")).unwrap();
    let url = format!("{}/media/outputs/a%20b/x.mp4", appliance.url());
    let part = reqwest::Client::new().get(&url).header("range", "bytes=2-4").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-type"], "video/mp4");
    assert_eq!(part.headers()["content-range"], "bytes 2-4/10");
    assert_eq!(part.text().await.unwrap(), "234");
    let page = appliance.get("/media/outputs/page.html").await;
    assert_eq!(page.headers()["content-disposition"], "attachment");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    for path in
        ["outputs/link.json", "outputs/..%2fdata%2fstate", "outputs/%2fetc%2fpasswd", "incoming/x.mp4", "outputs/a%20b"]
    {
        assert_eq!(appliance.get(&format!("/media/{path}")).await.status(), 404, "{path}");
    }
}

#[tokio::test]
async fn a_stream_of_events_tells_of_progress_and_end() {
    let appliance = Appliance::start(&[]).await;
    let mut stream = appliance.get("/api/v1/events").await;
    let definition = json!({"StartAt": "Encode", "States": {"Encode": {"Type": "Task", "End": true,
        "Resource": "arn:aws:states:::conveyor:scripted", "Parameters": {"ms": 1500, "output": {}}}}});
    appliance.run("encode", definition, json!({})).await;
    let mut text = String::new();
    while !text.contains("SUCCEEDED") {
        text.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()));
    }
    assert!(text.contains("event: progress") && text.contains("\"state\":\"Encode\""), "{text}");
    assert!(text.contains("\"fps\":120.0") && text.contains("id: "), "{text}");
}

#[tokio::test]
async fn the_audit_log_says_which_executions_and_knows_of_what_panicked() {
    let appliance = Appliance::start(&[]).await;
    let waits = json!({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 600, "End": true}}});
    appliance.run("waits", waits, json!({})).await;
    let machine = MACHINE.replace("passes", "waits");
    appliance.call("StartExecution", json!({"stateMachineArn": machine})).await;
    let listed: Value = appliance.get("/api/v1/executions?machine=waits").await.json().await.unwrap();
    let ids: Vec<&str> =
        listed["executions"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    let post = async |path: &str, body: Value| {
        let url = format!("{}/api/v1{path}", appliance.url());
        let request = appliance.client.post(url).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        println!("{path}: {status} {}", answer.text().await.unwrap());
        status
    };
    assert_eq!(post("/executions/stop", json!({"ids": [ids[0], ids[1], "nonsense"]})).await, 200);
    assert_eq!(post("/executions/redrive", json!({"ids": [ids[0]]})).await, 200);
    assert_eq!(post("/executions/stop", json!({"ids": 7})).await, 400);
    let tried = |state: Value| json!({"definition": state.to_string(), "input": "{}"});
    assert_eq!(post("/test-state", tried(json!({"Type": "Pass", "End": true}))).await, 200);
    let panics = json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:scripted", "Parameters": {"panic": true},
        "End": true});
    assert_eq!(post("/test-state", tried(panics.clone())).await, 500);
    assert_eq!(appliance.aws("TestState", tried(panics)).await.0, 500);
    let audit: Value = appliance.get("/api/v1/audit").await.json().await.unwrap();
    let at_aws = audit["entries"].as_array().unwrap().iter().find(|entry| entry["what"] == "TestState").unwrap();
    assert_eq!(at_aws["to"], "arn:aws:states:::conveyor:scripted");
    let mut entries: Vec<(String, u64)> = Vec::new();
    for entry in audit["entries"].as_array().unwrap() {
        if entry["api"] == "rest" {
            let text = |key: &str| entry[key].as_str().unwrap();
            entries.push((format!("{} of {}", text("what"), text("to")), entry["status"].as_u64().unwrap()));
        }
    }
    // Of one millisecond any may be the first.
    entries.sort();
    let stop = |to: &str| format!("POST /executions/stop of {to}");
    let mut expected = [
        (stop(&format!("/executions/{}", ids[0])), 200),
        (stop(&format!("/executions/{}", ids[1])), 200),
        (stop("/executions/nonsense"), 400),
        (format!("POST /executions/redrive of /executions/{}", ids[0]), 200),
        (stop("/executions/stop"), 400),
        ("POST /test-state of /test-state".to_owned(), 200),
        ("POST /test-state of arn:aws:states:::conveyor:scripted".to_owned(), 500),
    ];
    expected.sort();
    assert_eq!(entries, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_cannot_be_read_is_refused_as_everything_else_is() {
    let appliance = Appliance::start(&[]).await;
    for path in ["/executions/%FF", "/executions?limit=many", "/machines/%FF", "/executions/x/states/p"] {
        let answer = appliance.get(&format!("/api/v1{path}")).await;
        assert_eq!((path, answer.status().as_u16()), (path, 400));
        let body: Value = answer.json().await.expect(path);
        assert!(body["error"].as_str().is_some_and(|words| !words.is_empty()), "{path}: {body}");
    }
}
