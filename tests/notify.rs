//! Notifications against a real receiver: signed, in order, each until it is taken, and none in the way of the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use conveyor_services::notifications::NotifySettings;
use conveyor_services::notifications::signature;
use conveyor_testing::appliance::Appliance;

use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;

const SECRET: &str = "a secret of the test";
const MACHINE: &str = r#"{"StartAt":"Tell","States":{"Tell":{"Type":"Task","End":true,
    "Resource":"arn:aws:states:::conveyor:notify","Parameters":{"event":"job.test","number.$":"$.key"}}}}"#;

/// What the receiver has taken, after it failed as often as it was told to.
#[derive(Default)]
struct Taken {
    numbers: Mutex<Vec<String>>,
    failures_left: AtomicUsize,
}

fn take(taken: &Taken, headers: &HeaderMap, body: &str) -> StatusCode {
    let signed = headers["X-Conveyor-Signature"].to_str().unwrap();
    let at = signed.strip_prefix("t=").and_then(|rest| rest.split_once(',')).unwrap().0.parse().unwrap();
    assert_eq!(signed, signature(SECRET, at, body));
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(headers["Idempotency-Key"].to_str().unwrap(), body["id"]);
    let number = body["number"].as_str().unwrap().to_owned();
    if number == "poison" {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    let fails = taken.failures_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if fails.is_ok() {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    taken.numbers.lock().push(number);
    StatusCode::NO_CONTENT
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_gets_everything_in_order_whatever_it_answers_at_first() {
    let taken = Arc::new(Taken { failures_left: AtomicUsize::new(2), ..Taken::default() });
    let receiver = taken.clone();
    let router = axum::Router::new().route(
        "/hook",
        axum::routing::post(move |headers: HeaderMap, body: String| {
            let answer = take(&receiver, &headers, &body);
            async move { answer }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = Some(format!("http://{}/hook", listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = NotifySettings { webhook, secret: Some(SECRET.into()), ..NotifySettings::default() };
    let conveyor = Appliance::start_with(|job| panic!("no stage {}", job.stage), BTreeMap::new(), settings).await;
    conveyor.create("tell", MACHINE).await;
    for number in ["1", "2", "poison", "3"] {
        conveyor.run("tell", &format!("job-{number}"), number).await;
    }
    conveyor.until("the last one arrives", || (taken.numbers.lock().len() == 3).then_some(())).await;
    assert_eq!(*taken.numbers.lock(), ["1", "2", "3"]);
    // What is refused for ever is kept; the rest is forgotten once it was taken.
    let left = || conveyor.handle.reader().on_this_thread().outbox(None, 10).unwrap();
    conveyor.until("only one is left", || (left().len() == 1).then_some(())).await;
    let body: Value = serde_json::from_str(&left()[0].1.body).unwrap();
    assert_eq!(body["number"], "poison");
}
