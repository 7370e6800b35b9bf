//! The dashboard in a real browser: what failed and with what, rows that change while things run, HLS that plays.

#[path = "api/appliance.rs"]
mod appliance;

use std::path::{Path, PathBuf};
use std::process::Command;

use appliance::Appliance;
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dashboard")
}

/// Whether a browser, its driver and the built web app are here. In CI they must be.
fn can_look() -> bool {
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    let missing: Vec<&str> = [
        (!Path::new(&browser).exists(), "chromium"),
        (!folder().join("node_modules/playwright-core").exists(), "playwright-core (npm ci in tests/dashboard)"),
        (!conveyor::dashboard::is_built(), "the built dashboard (make web)"),
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

async fn look(appliance: &Appliance, what: &str, execution: &str, expect: &str) {
    let mut command = Command::new("node");
    command.arg(folder().join("look.mjs")).args([&appliance.url(), what, execution]).env("EXPECT", expect);
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
    look(&appliance, "failed", &id, "Probe failed|Media.Truncated|ends <b class=injected>early</b>|2 a.m. <script>")
        .await;

    let encode = json!({"StartAt": "Encode", "States": {"Encode": scripted(json!({"ms": 9000, "output": {}}))}});
    appliance.run("encode", encode, json!({"bucket": "incoming", "key": "long.mp4"})).await;
    look(&appliance, "list", "", "").await;
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
    look(&appliance, "play", &id, "").await;
}
