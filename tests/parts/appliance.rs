//! The appliance with a clock that makes a chosen part of it panic, and what must hold of each part then.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use conveyor_api::{Auth, Credentials};
use conveyor_appliance::{Appliance, Config};
use conveyor_base::{Clock, ExecutionId, Running, Timestamp};
use conveyor_interpreter::{Header, Status};
use conveyor_run::{NewMachine, StartRequest, current_part};
use conveyor_services::alarms;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

/// 2026-01-01.
pub const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
pub const TURNS: [u32; 2] = [1, 1_000];

/// Goes with tokio's time, and panics when a part asks for the time as often as was said.
pub struct FailingClock {
    since: Instant,
    armed: Mutex<Option<Armed>>,
    /// By how much it is wrong.
    ahead_ms: AtomicI64,
}

struct Armed {
    part: &'static str,
    /// Questions before the first panic.
    spare: u32,
    panics: u32,
}

impl FailingClock {
    pub fn new() -> Arc<FailingClock> {
        Arc::new(FailingClock { since: Instant::now(), armed: Mutex::new(None), ahead_ms: AtomicI64::new(0) })
    }

    /// The part whose name begins so panics at that question and at those after it, so often.
    pub fn arm(&self, part: &'static str, question: u32, panics: u32) {
        *self.armed.lock() = Some(Armed { part, spare: question - 1, panics });
    }

    pub fn set_ahead(&self, ms: i64) {
        self.ahead_ms.store(ms, Ordering::SeqCst);
    }

    pub fn is_armed(&self) -> bool {
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
        BEGIN.plus_ms(self.since.elapsed().as_millis() as i64 + self.ahead_ms.load(Ordering::SeqCst))
    }

    fn running(&self) -> Running {
        assert!(!self.must_panic(), "the test said so");
        Running { boot: 0, ms: self.since.elapsed().as_millis() as i64 }
    }
}

/// The appliance as it is served, but for the port.
pub struct Served {
    pub appliance: Appliance,
    pub clock: Arc<FailingClock>,
    pub router: Router,
    pub dir: Arc<tempfile::TempDir>,
}

pub fn config(dir: &Path) -> Config {
    std::fs::create_dir_all(dir.join("incoming")).unwrap();
    let text = format!(
        "data_dir = '{0}/data'\nlisten = '127.0.0.1:0'\n[shares.incoming]\npath = '{0}/incoming'\n\
         [[watch]]\nshare = 'incoming'\nworkflow = 'taken'\nsettle = '100ms'\nscan = '5s'\nin_flight = 2000\n\
         [tables.counts]\nkey = 'Id'\n[queues.jobs]\n[queues.heard]\n[rules.told]\npattern = {{ source = ['test'] }}\n[[rules.told.targets]]\nqueue = 'heard'\n\
         [schedules.often]\nrule = 'rate(1 minute)'\nworkflow = 'taken'\n\
         [schedules.each]\nrule = '* * * * *'\nworkflow = 'taken'\n\
         [notify]\nlog = '{0}/notifications.jsonl'\n",
        dir.display()
    );
    toml::from_str(&text).unwrap()
}

/// One that logs all.
pub fn machine(name: &str, definition: Value) -> NewMachine {
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
    pub async fn start() -> Served {
        Served::start_in(Arc::new(tempfile::tempdir().unwrap()), FailingClock::new()).await
    }

    pub async fn start_in(dir: Arc<tempfile::TempDir>, clock: Arc<FailingClock>) -> Served {
        let config = config(dir.path());
        let begun = std::time::Instant::now();
        let appliance = loop {
            match Appliance::start(&config, clock.clone()).await {
                Ok(appliance) => break appliance,
                // A thread that still reads for the appliance before it, or a task that is about to end, has the store's
                // files open.
                Err(e) if e.to_string().contains("in use") && begun.elapsed().as_secs() < 20 => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    sleep(Duration::from_millis(20)).await;
                }
                Err(e) => panic!("{e:?}"),
            }
        };
        let auth = Auth::for_address(config.listen, Credentials::new([])).unwrap();
        let router = appliance.router(&config, auth, Arc::new(String::new));
        let this = Served { appliance, clock, router, dir };
        this.create("taken", json!({"StartAt": "P", "States": {"P": {"Type": "Pass", "End": true}}})).await;
        this
    }

    pub async fn stop(self) {
        drop(self.router);
        self.appliance.stop().await.unwrap();
    }

    pub async fn create(&self, name: &str, definition: Value) {
        self.appliance.handle.create_machine(machine(name, definition)).await.unwrap();
    }

    pub async fn begin(&self, machine: &str, input: Value) -> ExecutionId {
        let start =
            StartRequest { machine: machine.into(), input: input.to_string().into(), ..StartRequest::default() };
        self.appliance.handle.start(start).await.unwrap().id
    }

    pub async fn ended(&self, id: ExecutionId) -> Header {
        let header = || self.appliance.handle.reader().on_this_thread().header(id).unwrap();
        self.until("its end", async || header().filter(|header| header.status != Status::Running)).await
    }

    /// Waits for what is to come, in the box's own time.
    pub async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        for _ in 0..20_000 {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not come: {what}; failed: {:?}", self.appliance.handle.failed_parts());
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        self.ask(Request::get(path).header("host", "127.0.0.1").body(Body::empty()).unwrap()).await
    }

    /// A call as AWS's SDKs make it, of a target such as `AmazonSQS.SendMessage`.
    pub async fn call(&self, target: &str, body: Value) -> Value {
        let request = Request::post("/").header("host", "127.0.0.1").header("x-amz-target", target);
        let request = request.header("content-type", "application/x-amz-json-1.0");
        let (status, answer) = self.ask(request.body(Body::from(body.to_string())).unwrap()).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    async fn ask(&self, request: Request<Body>) -> (u16, String) {
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
    pub async fn shows_and_forgets(&self, part: &str) {
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
pub async fn comes_back(part: &'static str, turn: impl AsyncFn(&Served, u32), holds: impl AsyncFn(&Served)) {
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
