//! Very many callers at once.

use conveyor_testing::api::Appliance;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// More callers than requests may be under way: who waits for a task, who sends half a request, and who sends half a body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_or_dawdles_shuts_nobody_out() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(16_384), hard).unwrap();
    let appliance = Appliance::start(&[]).await;
    let activity = appliance.call("CreateActivity", json!({"name": "nobody-works"})).await["activityArn"].clone();
    let poll = json!({"activityArn": activity}).to_string();
    let head = |target: &str, bytes: usize| {
        format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-amz-json-1.0\r\n\
             x-amz-target: AWSStepFunctions.{target}\r\ncontent-length: {bytes}\r\n\r\n"
        )
    };
    let polls = format!("{}{poll}", head("GetActivityTask", poll.len()));
    let half_a_body = format!("{}{{", head("ListStateMachines", 200_000));
    let half_a_small_body = format!("{}{{", head("ListStateMachines", 200));
    let half_a_head = "POST / HTTP/1.1\r\nhost: local".to_owned();
    let mut held = Vec::new();
    for (text, count) in [(polls, 1_100), (half_a_body, 300), (half_a_small_body, 1_100), (half_a_head, 100)] {
        for _ in 0..count {
            let mut connection = TcpStream::connect(appliance.address).await.unwrap();
            connection.write_all(text.as_bytes()).await.unwrap();
            held.push(connection);
        }
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    appliance.run("passes", json!({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}), json!({})).await;
    assert_eq!(appliance.get("/api/v1/overview").await.status(), 200);
    assert_eq!(appliance.get("/healthz").await.status(), 200);
}
