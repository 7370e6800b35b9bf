//! Supervision: each part of the appliance panics at its first and at its thousandth turn. It comes back by itself, what
//! was acknowledged before is there, and who looks sees that it failed; where nothing goes on without it the process ends.
//!
//! Nothing in the appliance knows of this: its clock is the test's, and panics when the chosen part asks for the time.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use conveyor::api::{Auth, Credentials};
use conveyor::base::{Clock, ExecutionId, Timestamp};
use conveyor::cli::{self, Appliance, Config};
use conveyor::interpreter::{Header, Outcome, Status};
use conveyor::run::service::Asked;
use conveyor::run::{NewMachine, Start, current_part};
use conveyor::services::alarms;
use conveyor::services::events::{DEFAULT_BUS, Lineage, NewEvent};
use conveyor::services::predictions::{self, Lesson};
use conveyor::services::queues::{NewMessage, Reply, Request as QueueRequest};
use conveyor::store::{AuditKey, AuditRow, Commit, ExecutionFilter};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

/// 2026-01-01.
const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
const TURNS: [u32; 2] = [1, 1_000];

/// Goes with tokio's time, and panics when a part asks for the time as often as was said.
struct FailingClock {
    since: Instant,
    armed: Mutex<Option<Armed>>,
}

struct Armed {
    part: &'static str,
    /// Questions before the first panic.
    spare: u32,
    panics: u32,
}

impl FailingClock {
    fn new() -> Arc<FailingClock> {
        Arc::new(FailingClock { since: Instant::now(), armed: Mutex::new(None) })
    }

    /// The part whose name begins so panics at that question and at those after it, so often.
    fn arm(&self, part: &'static str, question: u32, panics: u32) {
        *self.armed.lock() = Some(Armed { part, spare: question - 1, panics });
    }

    fn is_armed(&self) -> bool {
        self.armed.lock().is_some()
    }

    fn must_panic(&self) -> bool {
        let mut armed = self.armed.lock();
        let Some(this) = armed.as_mut() else { return false };
        if current_part().is_none_or(|part| !part.starts_with(this.part)) {
            return false;
        }
        if this.spare > 0 {
            this.spare -= 1;
            return false;
        }
        this.panics -= 1;
        if this.panics == 0 {
            *armed = None;
        }
        true
    }
}

impl Clock for FailingClock {
    fn now(&self) -> Timestamp {
        assert!(!self.must_panic(), "the test said so");
        BEGIN.plus_ms(self.since.elapsed().as_millis() as i64)
    }
}

/// The appliance as it is served, but for the port.
struct Served {
    appliance: Appliance,
    clock: Arc<FailingClock>,
    router: Router,
    dir: Arc<tempfile::TempDir>,
}

fn config(dir: &Path) -> Config {
    std::fs::create_dir_all(dir.join("incoming")).unwrap();
    let text = format!(
        "data_dir = '{0}/data'\nlisten = '127.0.0.1:0'\n[shares.incoming]\npath = '{0}/incoming'\n\
         [[watch]]\nshare = 'incoming'\nworkflow = 'taken'\nsettle = '100ms'\nscan = '5s'\nin_flight = 2000\n\
         [queues.jobs]\n[queues.heard]\n[rules.told]\npattern = {{ source = ['test'] }}\n[[rules.told.targets]]\nqueue = 'heard'\n\
         [schedules.often]\nrule = 'rate(1 minute)'\nworkflow = 'taken'\n\
         [notify]\nlog = '{0}/notifications.jsonl'\n",
        dir.display()
    );
    toml::from_str(&text).unwrap()
}

/// One that logs all.
fn machine(name: &str, definition: Value) -> NewMachine {
    let group = json!({"cloudWatchLogsLogGroup": {"logGroupArn": "arn:aws:logs:us-east-1:0:log-group:all:*"}});
    let logging = json!({"level": "ALL", "destinations": [group]});
    NewMachine {
        name: name.into(),
        definition: definition.to_string(),
        role_arn: "arn:aws:iam::000000000000:role/r".into(),
        settings: json!({"loggingConfiguration": logging}).to_string(),
        ..NewMachine::default()
    }
}

impl Served {
    async fn start() -> Served {
        Served::start_in(Arc::new(tempfile::tempdir().unwrap()), FailingClock::new()).await
    }

    async fn start_in(dir: Arc<tempfile::TempDir>, clock: Arc<FailingClock>) -> Served {
        let config = config(dir.path());
        let appliance = Appliance::start(&config, clock.clone()).await.unwrap();
        let auth = Auth::for_address(config.listen, Credentials::new([])).unwrap();
        let router = appliance.router(&config, auth, Arc::new(String::new));
        let this = Served { appliance, clock, router, dir };
        this.create("taken", json!({"StartAt": "P", "States": {"P": {"Type": "Pass", "End": true}}})).await;
        this
    }

    async fn stop(self) {
        drop(self.router);
        self.appliance.stop().await.unwrap();
    }

    async fn create(&self, name: &str, definition: Value) {
        self.appliance.handle.create_machine(machine(name, definition)).await.unwrap();
    }

    async fn begin(&self, machine: &str, input: Value) -> ExecutionId {
        let start = Start { machine: machine.into(), input: input.to_string().into(), ..Start::default() };
        self.appliance.handle.start(start).await.unwrap().id
    }

    async fn ended(&self, id: ExecutionId) -> Header {
        let header = || self.appliance.handle.reader().on_this_thread().header(id).unwrap();
        self.until("its end", async || header().filter(|header| header.status != Status::Running)).await
    }

    /// Waits for what is to come, in the box's own time.
    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        for _ in 0..20_000 {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not come: {what}; failed: {:?}", self.appliance.handle.failed_parts());
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", "127.0.0.1").body(Body::empty()).unwrap();
        // Tokio's paused time stands while something blocks: a commit's wait for the disk is no minute of the box.
        let (done, answered) = std::sync::mpsc::channel::<()>();
        let blocking = tokio::task::spawn_blocking(move || answered.recv());
        let response = self.router.clone().oneshot(request).await.unwrap();
        drop(done);
        assert!(blocking.await.unwrap().is_err(), "nothing was sent");
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Whether an alarm says that a part of that name failed.
    fn alarm(&self, part: &str) -> bool {
        let alarms = alarms::read(&self.appliance.handle.reader().on_this_thread()).unwrap();
        let name = format!("part {part}");
        alarms.iter().any(|(alarm, state)| alarm.starts_with(&name) && state.raised)
    }

    /// The failure is shown to whoever looks, and is over after a while.
    async fn shows_and_forgets(&self, part: &str) {
        let failed = || self.appliance.handle.failed_parts().into_iter().find(|failed| failed.name.starts_with(part));
        let seen = self.until("the failure is noted", async || failed()).await;
        assert!(seen.what.contains("the test said so"), "{seen:?}");
        let (status, health) = self.get("/healthz").await;
        assert!(status == 503 && health.contains(part) && health.contains("the test said so"), "{status} {health}");
        self.until("the alarm", async || self.alarm(part).then_some(())).await;
        assert!(self.get("/api/v1/overview").await.1.contains(&format!("\"part {part}")));
        self.until("it runs again", async || failed().is_none().then_some(())).await;
        assert_eq!(self.get("/healthz").await.0, 200);
        self.until("the end of the alarm", async || (!self.alarm(part)).then_some(())).await;
    }
}

/// `turn` gives the part something to do; `holds` is what people rely on whatever happened to it.
async fn comes_back(part: &'static str, turn: impl AsyncFn(&Served, u32), holds: impl AsyncFn(&Served)) {
    let this = Served::start().await;
    let mut turns = 0;
    let mut take_turn = async || {
        turn(&this, turns).await;
        turns += 1;
        assert!(turns < 10_000, "{part} is never asked");
    };
    take_turn().await;
    for question in TURNS {
        this.clock.arm(part, question, 1);
        while this.clock.is_armed() {
            take_turn().await;
        }
        this.shows_and_forgets(part).await;
        take_turn().await;
        holds(&this).await;
    }
    this.stop().await;
}

/// All messages that a queue has; each is received once.
async fn received_of(this: &Served, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let request = QueueRequest::Receive { most: 10, visibility_ms: 1_000_000_000, until: Timestamp(0) };
        let reply = this.appliance.parts.queues.ask(queue, request, None).await.unwrap();
        let Reply::Received(some) = reply else { panic!("{reply:?}") };
        if some.is_empty() {
            return bodies;
        }
        bodies.extend(some.into_iter().map(|message| message.row.body));
    }
}

#[tokio::test(start_paused = true)]
async fn the_queues_keep_what_they_took() {
    let (sent, received) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    let send = async |this: &Served, turn: u32| {
        let message = NewMessage { body: turn.to_string(), ..NewMessage::default() };
        let request = QueueRequest::Send(vec![message]);
        if let Ok(Reply::Sent(_)) = this.appliance.parts.queues.ask("jobs", request, None).await {
            sent.lock().insert(turn.to_string());
        }
    };
    let receive = async |this: &Served| {
        for body in received_of(this, "jobs").await {
            assert!(received.lock().insert(body), "twice");
        }
        assert_eq!(*received.lock(), *sent.lock());
    };
    comes_back("the queues", send, receive).await;
}

#[tokio::test(start_paused = true)]
async fn events_get_to_their_targets() {
    let (put, got) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    let put_event = async |this: &Served, turn: u32| {
        let events = this.appliance.parts.messaging().events;
        let event = NewEvent {
            id: turn.to_string(),
            bus: DEFAULT_BUS.into(),
            source: "test".into(),
            detail_type: "turn".into(),
            detail: json!({}),
            resources: Vec::new(),
            time: BEGIN,
            lineage: Lineage::default(),
        };
        if events.put(events.rows(&event, this.appliance.handle.now()), None).await.is_ok() {
            put.lock().insert(event.id);
        }
    };
    let arrived = async |this: &Served| {
        let all = async || {
            for body in received_of(this, "heard").await {
                let event: Value = serde_json::from_str(&body).unwrap();
                assert!(got.lock().insert(event["id"].as_str().unwrap().to_owned()), "twice: {body}");
            }
            (got.lock().len() >= put.lock().len()).then_some(())
        };
        this.until("each event at its target", all).await;
        assert_eq!(*got.lock(), *put.lock());
    };
    comes_back("the event dispatcher", put_event, arrived).await;
}

#[tokio::test(start_paused = true)]
async fn predictions_forget_no_lesson() {
    let learnt = Mutex::new(0);
    let learn = async |this: &Served, _: u32| {
        let lesson = |took| Lesson { on_gpu: false, modelled: 10.0, took };
        let before = predictions::read(this.appliance.handle.reader()).unwrap().cores.jobs;
        this.appliance.parts.predictions.learn(lesson(20.0)).await;
        let after = predictions::read(this.appliance.handle.reader()).unwrap();
        assert!(after.cores.jobs == before || (after.cores.factor() - 2.0).abs() < 1e-9, "{after:?}");
        *learnt.lock() += after.cores.jobs - before;
    };
    let known = async |this: &Served| {
        let lessons = predictions::read(this.appliance.handle.reader()).unwrap();
        assert_eq!(lessons.cores.jobs, *learnt.lock());
    };
    comes_back("the predictions", learn, known).await;
}

#[tokio::test(start_paused = true)]
async fn the_audit_log_keeps_the_newest_entries() {
    let this = Served::start().await;
    let (reader, mut commit) = (this.appliance.handle.reader().on_this_thread(), Commit::new());
    for number in 0..22_500 {
        let (who, role, door, what, to) = Default::default();
        let row = AuditRow { at: BEGIN.into(), who, role, door, what, to, status: 200 };
        commit.put_audit(AuditKey { at: BEGIN, number }, &row);
    }
    this.appliance.handle.commit(commit).await.unwrap();
    let numbers = || reader.audit(None, 30_000).unwrap().into_iter().map(|(key, _)| key.number).collect::<Vec<_>>();
    sleep(Duration::from_secs(600)).await;
    this.until("the oldest go", async || (numbers().len() <= 20_000).then_some(())).await;
    assert_eq!(numbers(), (2_500..22_500).rev().collect::<Vec<_>>());
}

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
async fn a_schedule_leaves_no_time_out() {
    let wait = async |_: &Served, _: u32| sleep(Duration::from_secs(30)).await;
    let no_gaps = async |this: &Served| {
        let mut due: Vec<i64> =
            taken(this).iter().filter_map(|(name, _)| name.strip_prefix("often-")?.parse().ok()).collect();
        due.sort_unstable();
        assert!(due.len() > 1 && due.windows(2).all(|two| two[1] - two[0] == 60_000), "{due:?}");
    };
    comes_back("the schedules", wait, no_gaps).await;
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
        let (asked, stored) = Asked::by_caller();
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
        begun.lock().insert(this.ended(id).await.name);
        sleep(Duration::from_millis(20)).await;
    };
    let written = async |this: &Served| {
        let text = async || {
            let files = conveyor::logs::list(&this.dir.path().join("data/logs")).unwrap();
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
        begun.lock().push(this.begin("spread", items.clone()).await);
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
            let start = || Start { machine: "short".into(), input: "{}".into(), ..Start::default() };
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
    for question in TURNS {
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
