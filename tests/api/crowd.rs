//! Very many callers at once.

use conveyor_testing::api::Appliance;
use conveyor_testing::hostile;
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

/// Definitions as large as they may be and made to take long, as many at once as somebody likes to send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_sent_to_hurt_the_box_keep_nobody_waiting() {
    let appliance = Appliance::start(&[]).await;
    let asked = ["passes that assign", "ladder", "complete graph", "loop that assigns", "maps side by side"];
    let shapes = hostile::shapes(hostile::BYTES).into_iter().filter(|(name, _)| asked.contains(name));
    let shapes: Vec<String> = shapes.map(|(_, text)| text).collect();
    assert_eq!(shapes.len(), asked.len());
    let sent = (0..8).map(|n| {
        let definition = &shapes[n % shapes.len()];
        let request = json!({"definition": definition, "severity": "WARNING"});
        appliance.aws("ValidateStateMachineDefinition", request)
    });
    let sent = futures::future::join_all(sent);
    tokio::pin!(sent);
    let mut answered = 0;
    let told = loop {
        tokio::select! {
            biased;
            told = &mut sent => break told,
            health = appliance.get("/healthz") => {
                assert_eq!(health.status(), 200);
                answered += 1;
            }
        }
    };
    assert!(answered > 8, "/healthz answered {answered} times while eight definitions were looked at");
    let mut cut = 0;
    for (status, body) in told {
        assert_eq!((status, &body["result"]), (200, &json!("OK")), "{body}");
        let of_it = |d: &&serde_json::Value| d["code"] == "NOT_FOLLOWED_FURTHER" && d["severity"] == "WARNING";
        cut += body["diagnostics"].as_array().unwrap().iter().filter(of_it).count();
    }
    assert!(cut >= 3, "{cut} of eight say that they were not followed to their ends");
}
