//! The served binary while its wall clock is set back and forth by hours and days, and while its process stands still. The
//! machine's clock stays as it is: libfaketime stands before the binary's, and its monotonic clock stays true.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use conveyor_base::Timestamp;
use conveyor_testing::served::http::{self, Client};
use conveyor_testing::served::{Served, execution_arn, folder, machine_arn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const CONFIGURATION: &str = r#"
listen = "127.0.0.1:0"
data_dir = "data"
[queues.asked]
[queues.delayed]
[schedules.often]
rule = "* * * * *"
workflow = "beat"
[notify]
log = "notifications.jsonl"
"#;

/// What is to last so long.
const LASTS: Duration = Duration::from_secs(3);
/// How much longer it may take until it is seen, on a machine that is busy. A wrong clock makes it hours.
const LATE_MAX: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Debian's `libfaketime`; scripts/install-deps has it.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
    let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).expect("libfaketime is installed: scripts/install-deps test")
}

/// A box whose wall clock this test sets.
struct Clocked {
    served: Served,
    clock: PathBuf,
}

impl Clocked {
    fn start(dir: &Path) -> Clocked {
        Clocked::start_at(dir, 0)
    }

    /// The same with a clock that is ahead by so many seconds from the beginning.
    fn start_at(dir: &Path, ahead: i64) -> Clocked {
        let clock = dir.join("clock");
        set(&clock, ahead);
        let served = Served::start_with(dir, |command| {
            command.env("LD_PRELOAD", libfaketime()).env("FAKETIME_TIMESTAMP_FILE", &clock);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1")
        });
        Clocked { served, clock }
    }

    /// Sets the clock to be ahead by so many seconds.
    fn set(&self, ahead: i64) {
        set(&self.clock, ahead);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.served.id() as i32), signal).unwrap();
    }

    /// The time that the box shows.
    async fn shows(&self) -> i64 {
        self.served.get("/overview").await["now"].as_i64().unwrap() / 1_000
    }

    async fn begin(&self, machine: &str, name: &str, input: Value) -> Begun {
        let request = json!({"stateMachineArn": machine_arn(machine), "name": name, "input": input.to_string()});
        // Before it is asked for: an answer that is late must not make it look short.
        let at = Instant::now();
        self.served.call("AWSStepFunctions.StartExecution", request).await;
        Begun { arn: execution_arn(machine, name), at }
    }

    async fn status(&self, begun: &Begun) -> String {
        let found = self.served.call("AWSStepFunctions.DescribeExecution", json!({"executionArn": begun.arn})).await;
        found["status"].as_str().unwrap().to_owned()
    }

    async fn runs(&self, begun: &Begun) -> bool {
        self.status(begun).await == "RUNNING"
    }

    /// It ends when its time is over: not before, and not much later.
    async fn lasts(&self, begun: &Begun, lasts: Duration, ends: &str) {
        while self.runs(begun).await {
            assert!(begun.at.elapsed() < lasts + LATE_MAX, "{} runs after {:?}", begun.arn, begun.at.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let took = begun.at.elapsed() + Duration::from_millis(500);
        assert!(took >= lasts, "{} took {took:?}", begun.arn);
        assert_eq!(self.status(begun).await, ends, "{}", begun.arn);
        let request = json!({"executionArn": begun.arn, "maxResults": 1000});
        let history = self.served.call("AWSStepFunctions.GetExecutionHistory", request).await;
        let dates = history["events"].as_array().unwrap().iter().map(|event| event["timestamp"].as_f64().unwrap());
        assert!(dates.is_sorted(), "the history of {} goes back: {history:#}", begun.arn);
    }

    /// The token of the Task that has asked.
    async fn token(&self) -> String {
        let request = json!({"QueueUrl": "asked", "MaxNumberOfMessages": 1, "WaitTimeSeconds": 5});
        let mut found = self.served.call("AmazonSQS.ReceiveMessage", request).await;
        let message = found["Messages"][0].take();
        let request = json!({"QueueUrl": "asked", "ReceiptHandle": message["ReceiptHandle"]});
        self.served.call("AmazonSQS.DeleteMessage", request).await;
        message["Body"].as_str().expect("a token").to_owned()
    }

    async fn beats(&self) -> usize {
        self.served.list("ListExecutions", json!({"stateMachineArn": machine_arn("beat")}), "executions").await.len()
    }
}

fn set(clock: &Path, ahead: i64) {
    // At once and whole, as it is read all the time.
    let new = clock.with_extension("new");
    std::fs::write(&new, format!("{ahead:+}\n")).unwrap();
    std::fs::rename(new, clock).unwrap();
}

struct Begun {
    arn: String,
    at: Instant,
}

fn alone(state: Value) -> Value {
    let mut state = state;
    state["End"] = true.into();
    json!({"StartAt": "One", "States": {"One": state}})
}

/// Gives its token away.
fn ask(limit: &str, seconds: u64) -> Value {
    let mut state = json!({"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"QueueUrl": "asked", "MessageBody.$": "$$.Task.Token"}});
    state["TimeoutSeconds"] = 600.into();
    state[limit] = seconds.into();
    alone(state)
}

async fn machines(served: &Served) {
    let seconds = LASTS.as_secs();
    let missing = json!({"Type": "Task", "Resource": "arn:aws:states:::states:startExecution",
        "Parameters": {"StateMachineArn": machine_arn("nobody")},
        "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": seconds, "MaxAttempts": 1}]});
    let timed = alone(json!({"Type": "Wait", "SecondsPath": "$.seconds"}));
    for (name, definition) in [
        ("wait", timed.clone()),
        ("until", alone(json!({"Type": "Wait", "TimestampPath": "$.moment"}))),
        ("limited", ask("TimeoutSeconds", seconds)),
        ("silent", ask("HeartbeatSeconds", seconds)),
        ("beaten", ask("HeartbeatSeconds", 5)),
        ("again", alone(missing)),
        ("tidy", alone(json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:housekeeping"}))),
        ("beat", alone(json!({"Type": "Pass"}))),
    ] {
        served.create(name, &definition).await;
    }
    served.create_as("express", &timed, "EXPRESS").await;
}

/// Nothing that lasts, lasts longer or shorter, with the clock set at once after all of it has begun.
async fn all_last(the_box: &Clocked, name: &str, ahead: i64) {
    let seconds = json!({"seconds": LASTS.as_secs()});
    let wait = the_box.begin("wait", name, seconds.clone()).await;
    let again = the_box.begin("again", name, json!({})).await;
    let limited = the_box.begin("limited", name, json!({})).await;
    the_box.token().await;
    let silent = the_box.begin("silent", name, json!({})).await;
    the_box.token().await;
    let queue = json!({"QueueUrl": "delayed", "MessageBody": name, "DelaySeconds": LASTS.as_secs()});
    the_box.served.call("AmazonSQS.SendMessage", queue).await;
    let sent = Instant::now();
    let address = the_box.served.address;
    let express = tokio::spawn(async move {
        let began = Instant::now();
        let request = json!({"stateMachineArn": machine_arn("express"), "input": seconds.to_string()});
        let ended = Client::connect(address).await.unwrap();
        let ended = { ended }.call("AWSStepFunctions.StartSyncExecution", &request).await;
        (ended["status"].clone(), began.elapsed())
    });
    the_box.set(ahead);
    the_box.lasts(&wait, LASTS, "SUCCEEDED").await;
    the_box.lasts(&again, LASTS, "FAILED").await;
    the_box.lasts(&limited, LASTS, "FAILED").await;
    the_box.lasts(&silent, LASTS, "FAILED").await;
    let (status, took) = express.await.unwrap();
    assert_eq!(status, "SUCCEEDED");
    assert!(took >= LASTS && took < LASTS + LATE_MAX, "an express execution took {took:?}");
    let request =
        json!({"QueueUrl": "delayed", "MaxNumberOfMessages": 1, "WaitTimeSeconds": 10, "VisibilityTimeout": 1});
    let found = the_box.served.call("AmazonSQS.ReceiveMessage", request.clone()).await;
    assert_eq!(found["Messages"][0]["Body"], name, "the delay is over after {:?}", sent.elapsed());
    assert!(sent.elapsed() >= LASTS, "a message came after {:?}", sent.elapsed());
    // Nobody deletes it, and so it comes again.
    let found = the_box.served.call("AmazonSQS.ReceiveMessage", request).await;
    let request = json!({"QueueUrl": "delayed", "ReceiptHandle": found["Messages"][0]["ReceiptHandle"]});
    the_box.served.call("AmazonSQS.DeleteMessage", request).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lasts_lasts_as_long_however_the_clock_is_set() {
    let dir = folder(CONFIGURATION);
    let the_box = Clocked::start(dir.path());
    machines(&the_box.served).await;
    let right = the_box.shows().await;
    all_last(&the_box, "back", -3 * HOUR).await;
    assert!(the_box.shows().await < right - 2 * HOUR, "the test does not set the box's clock");
    let moment = |seconds: i64| Timestamp(seconds * 1_000).to_string();
    let until = the_box.begin("until", "in-between", json!({"moment": moment(right + 12 * HOUR)})).await;
    let later = the_box.begin("until", "later", json!({"moment": moment(right + 2 * DAY)})).await;
    let begun = Instant::now();
    let (beats, long) = (the_box.beats().await, Duration::from_secs(10));
    let wait = the_box.begin("wait", "over-a-day", json!({"seconds": long.as_secs()})).await;
    all_last(&the_box, "on", DAY).await;
    assert!(!the_box.runs(&until).await, "its moment has come");
    assert!(the_box.runs(&later).await, "its moment has not come");
    the_box.lasts(&wait, long, "SUCCEEDED").await;
    // A day has 1440 minutes: one start for all of them, and one for each that came since.
    let more = the_box.beats().await - beats;
    let minutes = 2 + begun.elapsed().as_secs() as usize / 60;
    assert!((1..=1 + minutes).contains(&more), "{more} starts of a schedule");

    // What is kept for days is not gone because the clock says so.
    the_box.set(400 * DAY);
    let tidy = the_box.begin("tidy", "tidy", json!({})).await;
    the_box.lasts(&tidy, Duration::ZERO, "SUCCEEDED").await;
    let found = the_box.served.call("AWSStepFunctions.DescribeExecution", json!({"executionArn": tidy.arn})).await;
    let output: Value = serde_json::from_str(found["output"].as_str().unwrap()).unwrap();
    assert_eq!((&output["executionsArchived"], &output["executionsForgotten"]), (&json!(0), &json!(0)), "{output}");
    let set = Instant::now();
    while the_box.runs(&later).await {
        assert!(set.elapsed() < LATE_MAX, "its moment has come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    all_last(&the_box, "put-right", 0).await;
}

/// A restart finds the clock set: what was begun goes on in the box's own time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_in_the_boxs_own_time() {
    let dir = folder(CONFIGURATION);
    let the_box = Clocked::start(dir.path());
    machines(&the_box.served).await;
    let long = Duration::from_secs(8);
    let wait = the_box.begin("wait", "long", json!({"seconds": long.as_secs()})).await;
    // How the clocks stood was stored before anything was served.
    the_box.served.kill();
    for (name, ahead) in [("back", -3 * HOUR), ("on", DAY)] {
        let the_box = Clocked::start_at(dir.path(), ahead);
        // Where the starts took that long it may be over by now.
        let runs = the_box.runs(&wait).await;
        assert!(runs || wait.at.elapsed() >= long, "it is over at once, with the clock {name}");
        the_box.served.kill();
    }
    let the_box = Clocked::start(dir.path());
    the_box.lasts(&wait, long, "SUCCEEDED").await;
}

/// A process that stood still goes on: what was due meanwhile comes, and signs of life that nobody took count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stood_still_goes_on() {
    const STANDS_STILL: Duration = Duration::from_secs(7);
    let dir = folder(CONFIGURATION);
    let the_box = Clocked::start(dir.path());
    machines(&the_box.served).await;
    let wait = the_box.begin("wait", "short", json!({"seconds": 2})).await;
    let long = Duration::from_secs(9);
    let after = the_box.begin("wait", "long", json!({"seconds": long.as_secs()})).await;
    let beaten = the_box.begin("beaten", "beats", json!({})).await;
    let token = the_box.token().await;
    let (address, over) = (the_box.served.address, std::sync::Arc::new(AtomicBool::new(false)));
    let (of, until) = (token.clone(), over.clone());
    let beats = tokio::spawn(async move {
        let mut client = Client::connect(address).await.unwrap();
        while !until.load(Ordering::SeqCst) {
            let beat = http::aws("AWSStepFunctions.SendTaskHeartbeat", &json!({"taskToken": of}));
            let answer = client.exchange(&beat).await.unwrap();
            assert!(answer.is_success(), "a sign of life was refused: {}", answer.text());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    the_box.signal(Signal::SIGSTOP);
    tokio::time::sleep(STANDS_STILL).await;
    the_box.signal(Signal::SIGCONT);
    let went_on = Instant::now();
    while the_box.runs(&wait).await {
        assert!(went_on.elapsed() < LATE_MAX, "what was due meanwhile does not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    the_box.lasts(&after, long, "SUCCEEDED").await;
    over.store(true, Ordering::SeqCst);
    beats.await.unwrap();
    let output = json!({"taskToken": token, "output": "{}"});
    the_box.served.call("AWSStepFunctions.SendTaskSuccess", output).await;
    the_box.lasts(&beaten, Duration::ZERO, "SUCCEEDED").await;
}
