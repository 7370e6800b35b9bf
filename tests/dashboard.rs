//! The dashboard in a real browser: what failed and with what, rows that change while things run, HLS that plays, one
//! execution found among many, signing in, and a person's day at a served box with real media.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use conveyor_testing::api::Appliance;
use conveyor_testing::served::Served;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    conveyor_testing::root().join("tests/dashboard")
}

/// Whether a browser, its driver and the built web app are here. In CI they must be.
fn can_look() -> bool {
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    let missing: Vec<&str> = [
        (!Path::new(&browser).exists(), "chromium"),
        (!folder().join("node_modules/axe-core").exists(), "playwright-core and axe-core (make test-deps)"),
        (!conveyor_dashboard::is_built(), "the built dashboard (make web)"),
    ]
    .into_iter()
    .filter_map(|(is_missing, what)| is_missing.then_some(what))
    .collect();
    assert!(missing.is_empty() || std::env::var_os("CI").is_none(), "missing: {missing:?}; run `make test`");
    if !missing.is_empty() {
        eprintln!("skipped, missing: {missing:?}; `make test` installs it");
    }
    missing.is_empty()
}

async fn look(url: &str, arguments: &[&str], environment: &[(&str, &str)]) {
    let mut command = Command::new("node");
    command.arg(folder().join("look.mjs")).arg(url).args(arguments).envs(environment.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}");
}

fn scripted(parameters: Value) -> Value {
    json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:scripted", "Parameters": parameters, "End": true})
}

async fn id_of(appliance: &Appliance, machine: &str) -> String {
    let path = format!("/api/v1/executions?machine={machine}");
    let listed: Value = appliance.get(&path).await.json().await.unwrap();
    listed["executions"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_execution_says_what_failed_and_rows_live() {
    if !can_look() {
        return;
    }
    let appliance = Appliance::start(&[]).await;
    // Names and errors that would be markup, if they were let.
    let mut probe =
        scripted(json!({"ms": 50, "error": "Media.Truncated", "cause": "ends <b class=injected>early</b>"}));
    probe["Retry"] = json!([{"ErrorEquals": ["States.ALL"], "MaxAttempts": 1, "IntervalSeconds": 1}]);
    appliance.run("sanitize", json!({"StartAt": "Probe", "States": {"Probe": probe}}), json!({})).await;
    let delegate = json!({"Type": "Task", "Resource": "arn:aws:states:::states:startExecution.sync:2", "End": true,
        "Parameters": {"StateMachineArn": "arn:aws:states:us-east-1:000000000000:stateMachine:sanitize", "Input.$": "$"}});
    let main = json!({"StartAt": "Receive", "States": {
        "Receive": {"Type": "Pass", "Next": "Sanitize"}, "Sanitize": delegate}});
    let input = json!({"bucket": "incoming", "key": "2 a.m. <script>alert(1)</script>.mp4"});
    let failed = appliance.run("main", main, input).await;
    appliance.ended(&failed).await;
    let fine = json!({"StartAt": "Copy", "States": {"Copy": {"Type": "Pass", "End": true}}});
    appliance.run("copy", fine, json!({"bucket": "incoming", "key": "holiday.mov"})).await;

    let id = id_of(&appliance, "main").await;
    let expected = "Probe failed|Media.Truncated|ends <b class=injected>early</b>|2 a.m. <script>";
    look(&appliance.url(), &["failed", &id], &[("EXPECT", expected)]).await;

    let encode = json!({"StartAt": "Encode", "States": {"Encode": scripted(json!({"ms": 9000, "output": {}}))}});
    appliance.run("encode", encode, json!({"bucket": "incoming", "key": "long.mp4"})).await;
    look(&appliance.url(), &["list"], &[]).await;
}

/// Two renditions of six seconds, made by ffmpeg, which the tests have anyway to check media with.
fn make_hls(folder: &Path) -> bool {
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=6"])
        .args(["-f", "lavfi", "-i", "sine=d=6", "-map", "0:v", "-map", "1:a", "-map", "0:v", "-map", "1:a"])
        .args(["-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "50", "-preset", "ultrafast", "-c:a", "aac"])
        .args(["-s:v:1", "320x180", "-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod"])
        .args(["-var_stream_map", "v:0,a:0 v:1,a:1", "-master_pl_name", "master.m3u8", "v%v.m3u8"])
        .current_dir(folder)
        .status();
    let thumb = ["-v", "error", "-y", "-i", "v0.m3u8", "-frames:v", "1", "thumb.jpg"];
    made.is_ok_and(|s| s.success())
        && Command::new("ffmpeg").args(thumb).current_dir(folder).status().is_ok_and(|s| s.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hls_outputs_play() {
    if !can_look() {
        return;
    }
    let appliance = Appliance::start(&[]).await;
    if !make_hls(&appliance.outputs) {
        assert!(std::env::var_os("CI").is_none(), "ffmpeg is missing or made no HLS");
        eprintln!("skipped: no ffmpeg");
        return;
    }
    let report = appliance.outputs.join("quality.json");
    std::fs::write(report, json!({"score": 0.93, "passed": true}).to_string()).unwrap();
    let output = json!({"hls": "s3://outputs/master.m3u8", "thumbnails": ["s3://outputs/thumb.jpg"],
        "report": "s3://outputs/quality.json"});
    let publish = json!({"StartAt": "Publish", "States": {"Publish": scripted(json!({"ms": 10, "output": output}))}});
    let arn = appliance.run("publish", publish, json!({"bucket": "incoming", "key": "clip.mp4"})).await;
    appliance.ended(&arn).await;
    let id = id_of(&appliance, "publish").await;
    look(&appliance.url(), &["play", &id], &[]).await;
}

/// How many executions one is found among here; a store with a million of them is measured by hand.
const MANY: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_execution_is_found_among_many() {
    if !can_look() {
        return;
    }
    let appliance = Appliance::start(&[]).await;
    let pass = json!({"StartAt": "Pass", "States": {"Pass": {"Type": "Pass", "End": true}}});
    appliance.run("many", pass, json!({"bucket": "incoming", "key": "the one with Needle in it.mov"})).await;
    let machine = "arn:aws:states:us-east-1:000000000000:stateMachine:many";
    let start = |n: usize| {
        let input = json!({"bucket": "incoming", "key": format!("clip {n}.mp4")}).to_string();
        appliance.call("StartExecution", json!({"stateMachineArn": machine, "input": input}))
    };
    for hundred in 0..MANY / 100 {
        futures::future::join_all((0..100).map(|n| start(hundred * 100 + n))).await;
    }
    look(&appliance.url(), &["find", "needle"], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_sign_in() {
    if !can_look() {
        return;
    }
    let appliance = Appliance::start(&[("ops", "correct horse battery")]).await;
    look(&appliance.url(), &["signin"], &[("USER_PASSWORD", "ops:correct horse battery")]).await;
}

fn serve(dir: &Path) -> (Served, String) {
    let mut config = "data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for share in ["incoming", "outputs", "archive", "quarantine"] {
        std::fs::create_dir_all(dir.join(share)).unwrap();
        config += &format!("[shares.{share}]\npath = \"{share}\"\nserve = true\n");
    }
    config += "[[watch]]\nshare = \"incoming\"\nsettle = \"1s\"\nscan = \"1s\"\nquarantine = \"quarantine\"\n";
    std::fs::write(dir.join("conveyor.toml"), config).unwrap();
    let served = Served::start(dir);
    let url = served.url();
    (served, url)
}

async fn call(url: &str, operation: &str, request: Value) -> Value {
    let post = reqwest::Client::new().post(url).header("x-amz-target", format!("AWSStepFunctions.{operation}"));
    let answer = post.body(request.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{operation}");
    answer.json().await.unwrap()
}

async fn begin(url: &str, name: &str, definition: &Value, inputs: &[Value]) {
    let role = "arn:aws:iam::000000000000:role/any";
    let request = json!({"name": name, "definition": definition.to_string(), "roleArn": role});
    let machine = call(url, "CreateStateMachine", request).await["stateMachineArn"].clone();
    for input in inputs {
        let request = json!({"stateMachineArn": machine, "input": input.to_string()});
        call(url, "StartExecution", request).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_persons_day_at_a_served_box() {
    if !can_look() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_served, url) = serve(dir.path());
    let clip = dir.path().join("evening <i>news.mp4");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=4", "-f", "lavfi", "-i", "sine=d=4"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "50", "-c:a", "aac"])
        .arg(&clip)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "ffmpeg is missing or made no clip");
        eprintln!("skipped: no ffmpeg");
        return;
    }
    let broken = dir.path().join("broken.mp4");
    let whole = std::fs::read(&clip).unwrap();
    std::fs::write(&broken, &whole[..whole.len() / 3]).unwrap();

    let fetch = json!({"StartAt": "Fetch", "States": {"Fetch": {"Type": "Task", "End": true,
        "Resource": "arn:aws:states:::aws-sdk:s3:headObject", "Parameters": {"Bucket": "outputs", "Key": "late.txt"}}}});
    begin(&url, "fetch", &fetch, &[json!({})]).await;
    let release = json!({"StartAt": "Look", "States": {"Look": {"Type": "Task", "End": true,
        "Resource": "arn:aws:states:::conveyor:approve.waitForTaskToken",
        "Parameters": {"Title.$": "$.key", "Question": "Shall it leave the house?", "Media": "s3://outputs/late.txt"}}}});
    begin(&url, "release", &release, &[json!({"key": "one.mp4"}), json!({"key": "two.mp4"})]).await;
    // It fails for want of the file first.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    std::fs::write(dir.path().join("outputs/late.txt"), "here").unwrap();

    look(&url, &["whole", clip.to_str().unwrap(), broken.to_str().unwrap()], &[]).await;
    let listed = reqwest::get(format!("{url}/api/v1/executions?machine=main&status=SUCCEEDED")).await.unwrap();
    let listed: Value = listed.json().await.unwrap();
    look(&url, &["pages", listed["executions"][0]["id"].as_str().unwrap()], &[]).await;
}
