//! Supervision: each part of the appliance panics at its first and at its thousandth turn. It comes back by itself, what
//! was acknowledged before is there, and who looks sees that it failed; where nothing goes on without it the process ends.
//!
//! Nothing in the appliance knows of this: its clock is the test's, and panics when the chosen part asks for the time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "parts/appliance.rs"]
mod appliance;
#[path = "parts/services.rs"]
mod services;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use conveyor_cli as cli;
use conveyor_interpreter::{Outcome, Status};
use conveyor_run::service::Requester;
use conveyor_run::{NewMachine, StartRequest};
use conveyor_store::ExecutionFilter;

use appliance::{BEGIN, FailingClock, Served, TURNS, comes_back, config, machine};
use axum::body::Body;
use axum::http::Request;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::ServiceExt as _;

/// Names and inputs of what was started of the machine that watches and schedules start.
fn taken(this: &Served) -> Vec<(String, Value)> {
    let (reader, filter) = (
        this.appliance.handle.reader().on_this_thread(),
        ExecutionFilter { machine: Some("taken".into()), status: None },
    );
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let page = reader.executions(&filter, next.as_deref(), 500).unwrap();
        let headers = page.items.iter().map(|found| reader.header(found.id).unwrap().unwrap());
        all.extend(headers.map(|header| (header.name.clone(), serde_json::from_str(&header.input).unwrap())));
        next = page.next;
        if next.is_none() {
            return all;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_starts_each_file_once() {
    let dropped = Mutex::new(BTreeSet::new());
    let drop_file = async |this: &Served, turn: u32| {
        let name = format!("{turn}.mp4");
        std::fs::write(this.dir.path().join("incoming").join(&name), "film").unwrap();
        dropped.lock().insert(name);
        sleep(Duration::from_secs(5)).await;
    };
    let started = async |this: &Served| {
        let keys = || -> Vec<String> {
            taken(this).iter().filter_map(|(_, input)| Some(input["key"].as_str()?.to_owned())).collect()
        };
        let all = async || (keys().len() >= dropped.lock().len()).then_some(());
        this.until("an execution of each file", all).await;
        let mut keys = keys();
        keys.sort();
        assert_eq!(keys, dropped.lock().iter().cloned().collect::<Vec<_>>());
        let status = &this.appliance.watches[0];
        let now = this.appliance.handle.now();
        let is_new = async || status.lock().last_scan_ms.is_some_and(|at| at > now.0).then_some(());
        this.until("a scan that screens see", is_new).await;
    };
    comes_back("the watch of share 'incoming'", drop_file, started).await;
}

#[tokio::test(start_paused = true)]
async fn a_schedule_goes_on() {
    let wait = async |_: &Served, _: u32| sleep(Duration::from_secs(30)).await;
    // A start that waits for the disk is minutes of a paused time: which of them were missed is not looked at.
    let goes_on = async |this: &Served| {
        let now = this.appliance.handle.now();
        let newest =
            || taken(this).iter().filter_map(|(name, _)| name.strip_prefix("often-b")?.parse::<i64>().ok()).max();
        this.until("the next due time", async || newest().is_some_and(|due| due >= now.0).then_some(())).await;
        let last = this.appliance.handle.reader().schedule("often").unwrap().unwrap().last;
        assert!(last.0 <= newest().unwrap(), "what is settled was started");
    };
    comes_back("the schedules", wait, goes_on).await;
}

/// A clock that runs ahead by a year, is put right and then set back: neither does a time start twice, nor a schedule stand
/// still.
#[tokio::test(start_paused = true)]
async fn a_schedule_is_neither_silenced_nor_doubled_by_a_clock_that_is_set() {
    const MINUTE_MS: i64 = 60_000;
    const YEAR_MS: i64 = 365 * 86_400_000;
    let this = Served::start().await;
    let due = |of: &str| -> Vec<i64> {
        let taken = taken(&this);
        let times = taken.iter().filter(|(name, _)| name.starts_with(of));
        let time = |input: &Value| input["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let mut due: Vec<i64> = times.map(|(_, input)| time(input).as_millisecond()).collect();
        due.sort_unstable();
        due
    };
    let times = || due("each-");
    let newest = |of: &str| this.appliance.handle.reader().schedule(of).unwrap().map(|row| row.last.0);
    this.until("the wrong time is believed", async || {
        this.clock.set_ahead(YEAR_MS);
        times().into_iter().max().filter(|at| *at > BEGIN.0 + YEAR_MS)
    })
    .await;
    this.clock.set_ahead(0);
    let set_at = this.appliance.handle.wall().0;
    let on_time = || times().into_iter().filter(|at| (set_at..BEGIN.0 + YEAR_MS).contains(at)).max();
    let twice = async || on_time().filter(|at| *at > set_at + 2 * MINUTE_MS);
    let seen = this.until("runs by the right time", twice).await;
    // They come by again, and are not run again; then others come.
    this.clock.set_ahead(-2 * MINUTE_MS);
    this.until("a run of what was not run", async || on_time().filter(|at| *at > seen)).await;
    assert!(times().is_sorted_by(|one, next| one < next), "a time started twice: {:?}", times());
    // A rate goes on evenly: by the minute of the box's own time.
    let now = this.appliance.handle.now().0;
    this.until("the next of a rate", async || newest("often").filter(|at| *at > now)).await;
    let taken = taken(&this);
    let mut rate: Vec<i64> = taken.iter().filter_map(|(name, _)| name.strip_prefix("often-b")?.parse().ok()).collect();
    rate.sort_unstable();
    assert!(rate.iter().all(|at| *at <= now + 2 * MINUTE_MS), "a rate goes by the wall clock: {rate:?}");
    assert!(rate.is_sorted_by(|one, next| one < next), "{rate:?}");
    this.stop().await;
}

/// The box's own time stays as it was when somebody sets the clock; people see what that shows.
#[tokio::test(start_paused = true)]
async fn what_people_read_is_dated_by_the_wall_clock() {
    let this = Served::start().await;
    this.clock.set_ahead(-3 * 3_600_000);
    let begun = this.appliance.handle.wall().0;
    let event = json!({"Source": "test", "DetailType": "t", "Detail": "{}"});
    this.call("AWSEvents.PutEvents", json!({"Entries": [event]})).await;
    let ask = json!({"QueueUrl": "heard", "AttributeNames": ["All"], "WaitTimeSeconds": 20});
    let heard = this.call("AmazonSQS.ReceiveMessage", ask).await;
    let message = &heard["Messages"][0];
    let of = |name: &str| message["Attributes"][name].as_str().unwrap().parse::<i64>().unwrap();
    let event: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
    let put = event["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let mut dates = vec![put, of("SentTimestamp"), of("ApproximateFirstReceiveTimestamp")];
    let (asked, stored) = Requester::caller();
    this.appliance.parts.notifications.publish(vec![json!({"event": "test", "id": 1})], asked);
    stored.await.unwrap();
    this.clock.arm("the watch of", 1, 1);
    let shown = async |path: &str| -> Value { serde_json::from_str(&this.get(path).await.1).unwrap() };
    let delivered = async || {
        let all = shown("/api/v1/notifications").await["delivered"].as_array()?.clone();
        all.iter().find(|row| row["event"] == "test")?["createdAt"].as_i64()
    };
    dates.push(this.until("it is delivered", delivered).await);
    let raised = async || shown("/api/v1/alarms").await["alarms"][0]["since"].as_i64();
    dates.push(this.until("an alarm", raised).await);
    dates.push(shown("/api/v1/alarms").await["alarms"][0]["history"][0]["at"].as_i64().unwrap());
    let scanned = || this.appliance.watches[0].lock().last_scan_ms.filter(|at| *at < BEGIN.0);
    dates.push(this.until("a scan", async || scanned()).await);
    let now = this.appliance.handle.wall().0;
    assert!(dates.iter().all(|at| (begun - 1_000..=now).contains(at)), "{dates:?} are not from {begun} to {now}");
    this.stop().await;
}

#[tokio::test(start_paused = true)]
async fn alarms_are_raised_by_alarms_that_failed() {
    let wait = async |_: &Served, _: u32| sleep(Duration::from_secs(15)).await;
    comes_back("the alarms", wait, async |_: &Served| ()).await;
}

#[tokio::test(start_paused = true)]
async fn notifications_are_delivered() {
    let sent = Mutex::new(BTreeSet::new());
    let send = async |this: &Served, turn: u32| {
        let (asked, stored) = Requester::caller();
        this.appliance.parts.notifications.publish(vec![json!({"event": "test", "id": turn})], asked);
        if stored.await.is_ok() {
            sent.lock().insert(u64::from(turn));
        }
    };
    let written = |this: &Served| {
        let text = std::fs::read_to_string(this.dir.path().join("notifications.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["event"] == "test").map(|line| line["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let delivered = async |this: &Served| {
        this.until("the newest", async || (written(this).last() == sent.lock().last()).then_some(())).await;
        // At least once, and in their order.
        let mut ids = written(this);
        ids.dedup();
        assert_eq!(ids, sent.lock().iter().copied().collect::<Vec<_>>());
    };
    comes_back("the notifications", send, delivered).await;
}

#[tokio::test(start_paused = true)]
async fn what_executions_log_is_written() {
    let begun = Mutex::new(BTreeSet::new());
    let begin = async |this: &Served, _: u32| {
        let id = this.begin("taken", json!({})).await;
        let name = this.ended(id).await.name;
        begun.lock().insert(name);
        sleep(Duration::from_millis(20)).await;
    };
    let written = async |this: &Served| {
        let text = async || {
            let files = conveyor_logs::list(&this.dir.path().join("data/logs")).unwrap();
            let texts = files.iter().map(|file| std::fs::read_to_string(&file.path).unwrap());
            let text: String = texts.collect();
            let ended = text.lines().filter(|line| line.contains("\"ExecutionSucceeded\""));
            let missing = begun.lock().iter().filter(|name| !text.contains(name.as_str())).count();
            (missing == 0 && ended.count() >= begun.lock().len()).then_some(())
        };
        this.until("the lines of each execution", text).await;
    };
    comes_back("the log writer", begin, written).await;
}

#[tokio::test(start_paused = true)]
async fn screens_hear_on() {
    let (frames, newest) = (Arc::new(Mutex::new(String::new())), Mutex::new(String::new()));
    let listening = frames.clone();
    let begin = async |this: &Served, turn: u32| {
        if turn == 0 {
            let request = Request::get("/api/v1/events").header("host", "127.0.0.1").body(Body::empty()).unwrap();
            let mut stream = this.router.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
            let listening = listening.clone();
            tokio::spawn(async move {
                while let Some(Ok(bytes)) = stream.next().await {
                    listening.lock().push_str(&String::from_utf8_lossy(&bytes));
                }
            });
        }
        *newest.lock() = this.begin("taken", json!({})).await.to_string();
        sleep(Duration::from_millis(250)).await;
    };
    let heard = async |this: &Served| {
        let newest = newest.lock().clone();
        this.until("the newest change", async || frames.lock().contains(&newest).then_some(())).await;
        assert!(frames.lock().contains("event: resync"), "who listens reads again what was lost");
    };
    comes_back("the live stream", begin, heard).await;
}

async fn make_map(this: &Served) {
    let processor = json!({"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, "StartAt": "P",
        "States": {"P": {"Type": "Pass", "End": true}}});
    let map = json!({"StartAt": "M", "States": {"M": {"Type": "Map", "ItemProcessor": processor, "End": true}}});
    this.create("spread", map).await;
}

#[tokio::test(start_paused = true)]
async fn a_map_run_goes_on_from_its_row() {
    let begun = Mutex::new(Vec::new());
    let items = json!([1, 2, 3, 4, 5, 6, 7, 8]);
    let begin = async |this: &Served, turn: u32| {
        if turn == 0 {
            make_map(this).await;
        }
        let id = this.begin("spread", items.clone()).await;
        begun.lock().push(id);
        sleep(Duration::from_millis(100)).await;
    };
    let ended = async |this: &Served| {
        let all = begun.lock().clone();
        for id in all {
            let header = this.ended(id).await;
            let Some(Outcome::Succeeded { output }) = &header.outcome else { panic!("{header:?}") };
            assert_eq!(serde_json::from_str::<Value>(output).unwrap(), items);
        }
    };
    comes_back("the Map run driver", begin, ended).await;
}

#[tokio::test(start_paused = true)]
async fn a_map_run_whose_driver_fails_on_and_on_fails_and_ends() {
    let this = Served::start().await;
    make_map(&this).await;
    this.clock.arm("the Map run driver", 1, 5);
    let header = this.ended(this.begin("spread", json!([1, 2])).await).await;
    let Some(Outcome::Failed { error, .. }) = &header.outcome else { panic!("{header:?}") };
    assert_eq!(error.as_deref(), Some("States.Runtime"));
    assert!(!this.clock.is_armed());
    this.shows_and_forgets("the Map run driver").await;
    let runs = this.appliance.handle.reader().on_this_thread().map_runs().unwrap();
    assert!(runs.iter().all(|(.., row)| row.ended.is_some()), "nobody works for it any more: {runs:?}");
}

#[tokio::test(start_paused = true)]
async fn an_express_execution_fails_alone() {
    let this = Served::start().await;
    let wait = json!({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": true}}});
    this.appliance.handle.create_machine(NewMachine { express: true, ..machine("short", wait) }).await.unwrap();
    for question in TURNS {
        this.clock.arm("the express executions", question, 1);
        let (mut failed, mut succeeded) = (0, 0);
        while this.clock.is_armed() || succeeded == 0 {
            let start = || StartRequest { machine: "short".into(), input: "{}".into(), ..StartRequest::default() };
            let ends = (0..10).map(|_| this.appliance.handle.start_sync(start()));
            for end in futures::future::join_all(ends).await {
                match &end.unwrap().outcome {
                    Some(Outcome::Succeeded { .. }) => succeeded += 1,
                    Some(Outcome::Aborted { error, .. }) if error.as_deref() == Some("States.Runtime") => failed += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(failed, 1, "of {succeeded} others none");
    }
    assert_eq!(this.appliance.handle.express().running.len(), 0);
}

/// Nothing goes on without these: who serves is told to end, with the reason.
async fn ends(part: &'static str, turn: impl AsyncFn(&Served)) {
    for question in TURNS {
        let this = Served::start().await;
        this.clock.arm(part, question, 1);
        let mut turns = 0;
        while this.clock.is_armed() {
            turn(&this).await;
            turns += 1;
            assert!(turns < 10_000, "{part} is never asked");
        }
        says_why(&this, part).await;
    }
}

async fn says_why(this: &Served, part: &str) {
    let mut fatal = this.appliance.handle.fatal();
    let why = fatal.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(why.starts_with(&format!("{part} failed: ")) && why.contains("the test said so"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn the_box_ends_without_timers() {
    let machine = json!({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": true}}});
    let wait = async |this: &Served| {
        if this.appliance.handle.reader().machine("waits").unwrap().is_none() {
            this.create("waits", machine.clone()).await;
        }
        this.begin("waits", json!({})).await;
        sleep(Duration::from_secs(2)).await;
    };
    ends("the timers", wait).await;
}

#[tokio::test(start_paused = true)]
async fn the_box_ends_without_lanes() {
    ends("the lanes", async |this: &Served| drop(this.appliance.handle.lanes().await)).await;
}

#[tokio::test(start_paused = true)]
async fn the_box_ends_without_recovery() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let this = Served::start_in(dir.clone(), FailingClock::new()).await;
    let task =
        json!({"Type": "Task", "Resource": "arn:aws:states:us-east-1:000000000000:activity:nobody", "End": true});
    this.create("waits", json!({"StartAt": "T", "States": {"T": task}})).await;
    let mut begun = Vec::new();
    for _ in 0..TURNS[1] {
        begun.push(this.begin("waits", json!({})).await);
    }
    this.stop().await;
    // At its beginning and at its end.
    for question in [1, 2] {
        let clock = FailingClock::new();
        clock.arm("the recovery", question, 1);
        let this = Served::start_in(dir.clone(), clock).await;
        says_why(&this, "the recovery").await;
        this.stop().await;
    }
    let this = Served::start_in(dir, FailingClock::new()).await;
    for id in begun {
        assert_eq!(
            this.appliance.handle.reader().on_this_thread().header(id).unwrap().unwrap().status,
            Status::Running
        );
    }
}

#[tokio::test]
async fn who_serves_ends_where_the_timers_do() {
    let dir = tempfile::tempdir().unwrap();
    let clock = FailingClock::new();
    clock.arm("the timers", 1, 1);
    let end = cli::serve(config(dir.path()), clock).await.unwrap();
    assert_eq!(end, ExitCode::FAILURE);
}
