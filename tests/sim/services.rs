//! The services of the box under the same powers as its executions: real cores, real adapters, a disk that loses power,
//! callers who hang up at any await, actors that die at any message, a clock that is set back and forth.
//!
//! People send and receive, create state machines, decide, upload and drop files, and start executions whose Tasks change
//! what the box keeps. What they were told is written down outside the box; `ledger` compares it with the rows that are
//! left, and shares no code with the services.

#[path = "files.rs"]
mod files;
#[path = "ledger.rs"]
mod ledger;
#[path = "people.rs"]
mod people;
#[path = "powers.rs"]
mod powers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use conveyor_appliance::{Config, Parts};
use conveyor_base::{Clock, Running, ShareIo, TaskError, Timestamp};
use conveyor_ingest::Watcher;
use conveyor_interpreter::Status;
use conveyor_job::Job;
use conveyor_run::{self as run, Handle, Lanes, NewMachine, OnFailure, current_part};
use conveyor_sandbox::{OnProgress, Spawn};
use conveyor_services::alarms::{Alarms, Conditions};
use conveyor_services::queues::{Reply, Request};
use conveyor_services::schedules::Schedules;
use conveyor_store::sim::SimDisk;
use conveyor_store::{Backends, Options, Reader, Threads, check, open};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::disk_time::stores;
use ledger::Told;
use people::{Person, Shared};
pub use powers::Powers;

/// 2026-01-01.
const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
const STUCK_AFTER: Duration = Duration::from_secs(3_600);
/// How long the disk takes at most: longer than a part that failed is away.
const STALL_MS_MAX: u64 = 300;
/// How far off the clock is set at most.
const CLOCK_STEP_MS: i64 = 5 * 3_600_000;

/// How much goes on in a life.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// How many there are of each kind of people.
    people: u64,
    /// How many things each of them does at most.
    things: u64,
    /// How long is waited in the end for whatever would come too late, or twice.
    rest: Duration,
}

impl Size {
    pub const WHOLE: Size = Size { people: 4, things: u64::MAX, rest: Duration::from_secs(400) };
    /// One of each kind, who does one thing.
    pub const SMALL: Size = Size { people: 1, things: 1, rest: Duration::from_secs(65) };
}

pub struct ServiceLife {
    seed: u64,
    powers: Powers,
    size: Size,
    rng: Arc<Mutex<ChaCha8Rng>>,
    told: Arc<Mutex<Told>>,
    /// What is wrong with the world just now.
    weather: Arc<Mutex<Conditions>>,
    disk: SimDisk,
    folder: tempfile::TempDir,
    offs: Vec<u64>,
    /// How often the power did go.
    pub cuts: u64,
    checkpoint_every: u64,
    now: Timestamp,
}

/// Says how to find the failure again.
impl Drop for ServiceLife {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ServiceLife { seed, powers, offs, cuts, .. } = self;
            eprintln!(
                "in the services' simulation with seed {seed}, {powers:?}, off at {offs:?}, after {cuts} power cuts"
            );
        }
    }
}

/// When and how a boot ended.
enum Ended {
    Well(Timestamp),
    Crashed(Timestamp),
}

/// The box's clock, which somebody sets, and which strikes a service's actor dead now and then.
struct SetClock {
    at: Timestamp,
    since: Instant,
    set_by_ms: AtomicI64,
    deaths: u64,
    rng: Arc<Mutex<ChaCha8Rng>>,
    struck: Mutex<BTreeMap<&'static str, u32>>,
}

impl SetClock {
    /// What no setting moves.
    fn passed(&self) -> Timestamp {
        self.at.plus_ms(self.since.elapsed().as_millis() as i64)
    }

    fn strike(&self) {
        let mortal = current_part().and_then(|part| MORTAL.iter().find(|mortal| part.contains(**mortal)));
        if let Some(mortal) = mortal
            && self.deaths > 0
            && self.rng.lock().random_range(0..100) < self.deaths
        {
            let mut struck = self.struck.lock();
            let struck = struck.entry(mortal).or_default();
            *struck += 1;
            if *struck <= STRUCK_MAX {
                // Without the panic hook, which would write a trace for each of these.
                std::panic::resume_unwind(Box::new("struck"));
            }
        }
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        self.strike();
        self.passed().plus_ms(self.set_by_ms.load(Ordering::Relaxed))
    }

    fn running(&self) -> Running {
        self.strike();
        Running { boot: 1, ms: self.passed().0 }
    }
}

/// How often a part dies at most: an attempt over which its service dies once more than that has failed.
const STRUCK_MAX: u32 = 2;
/// The state machine of the express executions.
const EXPRESS: &str = "counts_itself";
/// Parts whose death the box survives.
const MORTAL: &[&str] = &[
    "queues",
    "items",
    "claims",
    "notif",
    "events",
    "dispatch",
    "approvals",
    "uploads",
    "schedules",
    "watch of",
    "alarms",
    "predictions",
    "an execution",
];

struct NoMedia;

impl Spawn for NoMedia {
    fn spawn(&self, _: Job, _: OnProgress) -> BoxFuture<'static, Result<Value, TaskError>> {
        Box::pin(async { Err(TaskError::new("Stage.Failed", "there is no media in this world")) })
    }
}

fn configuration(folder: &Path) -> Config {
    let text = r#"
        [queues.plain]
        visibility_timeout = "2s"
        dead_letter = "dead"
        max_receives = 4
        [queues.dead]
        [queues."ordered.fifo"]
        visibility_timeout = "2s"
        [queues.tasks]
        [queues.seen]
        [tables.counters]
        key = "id"
        [rules.studio]
        pattern = { source = ["studio"] }
        [[rules.studio.targets]]
        queue = "seen"
        [[rules.studio.targets]]
        topic = "told"
        [notify]
        log = "FOLDER/notifications.log"
        topics = ["told"]
        [shares.incoming]
        path = "FOLDER/incoming"
        [shares.dropped]
        path = "FOLDER/dropped"
        [[watch]]
        share = "dropped"
        workflow = "ingested"
        settle = "300ms"
        scan = "1s"
        [schedules.strike]
        rule = "* * * * *"
        workflow = "beat"
        timezone = "UTC"
        [schedules.beat]
        rule = "rate(1 minute)"
        workflow = "beat"
        timezone = "UTC"
        "#;
    toml::from_str(&text.replace("FOLDER", folder.to_str().unwrap())).unwrap()
}

/// Changes everything that a Task can change in the box's own store, once each. Its states are [`ledger::STATES`].
fn effects() -> Value {
    let task = |resource: &str, parameters: Value, next: &str| {
        json!({"Type": "Task", "Resource": format!("arn:aws:states:::{resource}"), "Parameters": parameters,
            "ResultPath": null, "Next": next})
    };
    let count = |id: Value, next: &str| {
        task(
            "dynamodb:updateItem",
            json!({"TableName": "counters", "Key": {"id": id},
            "UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}),
            next,
        )
    };
    json!({"StartAt": "Count", "States": {
        "Count": count(json!({"S.$": "$.name"}), "Total"),
        "Total": count(json!({"S": "total"}), "Send"),
        "Send": task("sqs:sendMessage", json!({"QueueUrl": "http://box/000000000000/tasks", "MessageBody.$": "$.name"}), "Tell"),
        "Tell": task("events:putEvents", json!({"Entries": [{"Source": "studio", "DetailType": "done",
            "Detail": {"name.$": "$.name"}}]}), "Notify"),
        "Notify": task("conveyor:notify", json!({"event": "notified", "name.$": "$.name"}), "Claim"),
        "Claim": {"Type": "Task", "Resource": "arn:aws:states:::conveyor:claim", "Parameters": {"blake3.$": "$.content",
            "input": "s3://in/file"}, "ResultPath": "$.claim", "Next": "Rest"},
        "Rest": {"Type": "Wait", "Seconds": 1, "Next": "End"},
        "End": {"Type": "Pass", "End": true},
    }})
}

/// Asks a person, and does not wait for ever.
fn asks() -> Value {
    let caught = |error: &str| json!({"ErrorEquals": [error], "ResultPath": "$.decision", "Next": "Decided"});
    json!({"StartAt": "Ask", "States": {
        "Ask": {"Type": "Task", "Resource": "arn:aws:states:::conveyor:approve.waitForTaskToken",
            "Parameters": {"Title.$": "$.name"}, "TimeoutSecondsPath": "$.timeout", "ResultPath": "$.decision",
            "Catch": [caught("Approval.Rejected"), caught("States.Timeout")], "Next": "Decided"},
        "Decided": {"Type": "Succeed"},
    }})
}

/// Counts itself and ends: an express execution.
fn counts_itself() -> Value {
    json!({"StartAt": "Count", "States": {"Count": {
        "Type": "Task", "Resource": "arn:aws:states:::dynamodb:updateItem", "End": true,
        "Parameters": {"TableName": "counters", "Key": {"id": {"S.$": "$.name"}}, "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}}},
    }}})
}

fn machines() -> [(&'static str, Value); 5] {
    let pass = || json!({"StartAt": "Seen", "States": {"Seen": {"Type": "Pass", "End": true}}});
    let counts = (EXPRESS, counts_itself());
    [("effects", effects()), ("asks", asks()), ("ingested", pass()), ("beat", pass()), counts]
}

impl ServiceLife {
    pub fn new(seed: u64, powers: Powers, size: Size) -> ServiceLife {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let checkpoint_every = rng.random_range(1..12);
        ServiceLife {
            seed,
            powers,
            size,
            rng: Arc::new(Mutex::new(rng)),
            told: Arc::default(),
            weather: Arc::default(),
            disk: SimDisk::new(seed),
            folder: folder(),
            offs: Vec::new(),
            cuts: 0,
            checkpoint_every,
            now: BEGIN,
        }
    }

    /// Lives to the end; the power goes at these operations of the disk, once a boot. Says how many operations the last
    /// boot had.
    pub fn live(&mut self, offs: &[u64]) -> u64 {
        for off in offs {
            self.offs.push(*off);
            self.disk.crash_at(*off);
            match self.boot() {
                Ended::Well(_) => return self.disk.operations(),
                Ended::Crashed(at) => {
                    self.cuts += 1;
                    let off_ms = {
                        let mut rng = self.rng.lock();
                        if rng.random_range(0..2) == 0 { 0 } else { rng.random_range(0..60_000) }
                    };
                    self.now = at.plus_ms(off_ms);
                    let mut told = self.told.lock();
                    let down = told.down_at.take().unwrap_or(at);
                    told.outages.push((down, self.now));
                    drop(told);
                    self.disk = self.disk.restart();
                }
            }
        }
        match self.boot() {
            Ended::Well(_) => self.disk.operations(),
            Ended::Crashed(_) => panic!("the disk failed, and the power was on"),
        }
    }

    fn boot(&mut self) -> Ended {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let ended = runtime.block_on(self.serve());
        drop(runtime);
        if let Ended::Well(at) = ended {
            if self.disk.has_crashed() {
                return Ended::Crashed(at);
            }
            self.disk.crash_at(0);
            let disk: Arc<dyn Backends> = Arc::new(self.disk.clone());
            let report = check(&disk).unwrap();
            assert!(report.is_clean(), "{report}");
        }
        ended
    }

    async fn serve(&self) -> Ended {
        let clock = Arc::new(SetClock {
            at: self.now,
            since: Instant::now(),
            set_by_ms: AtomicI64::new(0),
            deaths: self.powers.deaths,
            rng: self.rng.clone(),
            struck: Mutex::default(),
        });
        let threads = Threads::Turns { checkpoint_every: self.checkpoint_every };
        let opened = open(Options { threads, segment_bytes: 64 << 10, ..Options::on(Arc::new(self.disk.clone())) });
        let (writer, reader) = match opened {
            Ok(both) => both,
            Err(fault) => {
                assert!(self.disk.has_crashed(), "{fault:?}");
                return Ended::Crashed(clock.passed());
            }
        };
        tokio::spawn(stores(writer.clone(), self.seed ^ self.offs.len() as u64, STALL_MS_MAX));
        ledger::check_halves(&reader.on_this_thread(), &self.told.lock());
        let config = configuration(self.folder.path());
        let parts = Parts::new(&config, &config.aws, self.folder.path(), &reader, Arc::new(NoMedia), None).unwrap();
        let started = run::start(run::Config {
            writer: writer.clone(),
            reader: reader.clone(),
            resources: Arc::new(parts.registry().unwrap()),
            clock: clock.clone(),
            lanes: Lanes::of_cores(2, 1),
            account: config.account.clone(),
            region: config.region.clone(),
            // Its thread is a real one, for which the paused time would not stand still: tests/express.rs has it.
            express_record: None,
        });
        let note_it = {
            let (told, clock) = (self.told.clone(), clock.clone());
            move |handle: Handle| async move {
                broken(&handle).await;
                told.lock().down_at = Some(clock.passed());
            }
        };
        let crashed = |what: &dyn std::fmt::Debug| assert!(self.disk.has_crashed(), "{what:?}");
        let handle = match started.await {
            Ok(handle) => handle,
            Err(fault) => {
                crashed(&fault);
                return Ended::Crashed(clock.passed());
            }
        };
        tokio::spawn(note_it(handle.clone()));
        let ended = tokio::select! {
            ended = self.use_box(&handle, &parts, &config, &clock) => ended,
            () = broken(&handle) => Err("the power went".to_owned()),
        };
        match ended {
            Ok(()) => {
                // Whatever would come too late, or twice, comes now.
                sleep(self.size.rest).await;
                for _ in 0..200 {
                    if reader.count(Status::Running) > 0 {
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                if self.disk.has_crashed() {
                    return Ended::Crashed(clock.passed());
                }
                self.told.lock().lived_ms = clock.passed().since_ms(BEGIN);
                self.told.lock().over_at = Some(clock.passed());
                if let Err(what) = self.check(&reader, &parts).await {
                    crashed(&what);
                    return Ended::Crashed(clock.passed());
                }
                handle.shut_down().await;
                match writer.close() {
                    Ok(()) => Ended::Well(clock.passed()),
                    Err(fault) => {
                        crashed(&fault);
                        Ended::Crashed(clock.passed())
                    }
                }
            }
            Err(what) => {
                crashed(&what);
                Ended::Crashed(clock.passed())
            }
        }
    }

    async fn use_box(
        &self,
        handle: &Handle,
        parts: &Parts,
        config: &Config,
        clock: &Arc<SetClock>,
    ) -> Result<(), String> {
        let failed = |e: &dyn std::fmt::Debug| format!("{e:?}");
        parts.start(handle).await.map_err(|e| failed(&e))?;
        for (name, definition) in machines() {
            let new = NewMachine {
                name: name.into(),
                definition: definition.to_string(),
                role_arn: "arn:aws:iam::000000000000:role/box".into(),
                express: name == EXPRESS,
                ..NewMachine::default()
            };
            handle.create_machine(new).await.map_err(|e| failed(&e))?;
        }
        Schedules::new(config.schedules.clone()).start(handle).await.map_err(|e| failed(&e))?;
        let weather = self.weather.clone();
        let look = Arc::new(move || weather.lock().clone());
        Alarms::new(look, parts.notifications.clone()).start(handle).await.map_err(|e| failed(&e))?;
        let person = Person {
            handle: handle.clone(),
            queues: parts.queues.clone(),
            approvals: parts.approvals.clone(),
            uploads: parts.uploads.clone(),
            predictions: parts.predictions.clone(),
            weather: self.weather.clone(),
            folder: self.folder.path().to_owned(),
            life: self.shared(),
        };
        let mut people = JoinSet::new();
        for n in 0..self.size.people {
            people.spawn(person.clone().sends_in_order(n));
            people.spawn(person.clone().sends_plainly(n));
            people.spawn(person.clone().creates(n));
            people.spawn(person.clone().starts(n));
            people.spawn(person.clone().asks(n));
            people.spawn(person.clone().learns(n));
            people.spawn(person.clone().starts_express(n));
        }
        people.spawn(person.clone().makes_weather());
        if self.powers.files {
            self.watch(handle, config, &parts.io).await.map_err(|e| failed(&e))?;
            for n in 0..self.size.people.min(2) {
                people.spawn(person.clone().uploads(n));
                people.spawn(person.clone().drops(n));
            }
        }
        let mut staff = JoinSet::new();
        for queue in ["ordered.fifo", "ordered.fifo", "plain", "plain"] {
            staff.spawn(person.clone().receives(queue));
        }
        for who in ["ann", "bob"] {
            staff.spawn(person.clone().decides(who));
        }
        if self.powers.clock {
            staff.spawn(sets(clock.clone(), self.rng.clone(), self.told.clone()));
        }
        let all_done = async {
            while let Some(done) = people.join_next().await {
                done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            }
            // What is left in the queues that somebody empties is received.
            sleep(self.size.rest.min(Duration::from_secs(60))).await;
            if !self.disk.has_crashed() {
                ledger::check_deliveries(&handle.reader().on_this_thread(), handle.now());
            }
            Ok(())
        };
        tokio::select! {
            done = tokio::time::timeout(STUCK_AFTER, all_done) => match done {
                Ok(done) => done,
                Err(_) => panic!("stuck: {:?}{}", handle.failed_parts(), crate::oracle::unfinished(&handle.reader().on_this_thread())),
            },
            Some(broke_off) = staff.join_next() => {
                broke_off.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
            }
        }
    }

    async fn watch(&self, handle: &Handle, config: &Config, io: &ShareIo) -> Result<(), conveyor_base::Fault> {
        for watch in &config.watch {
            let (starter, reader) = (Arc::new(handle.clone()), handle.reader().clone());
            let watcher = Watcher::new(watch.clone(), io.clone(), starter, reader);
            let name = format!("the watch of share '{}'", watch.share);
            handle.run_supervised(&name, OnFailure::Restart, move || watcher.anew().run()).await?;
        }
        Ok(())
    }

    /// Compares what people were told with the rows, and the queues' counts with theirs.
    async fn check(&self, reader: &Reader, parts: &Parts) -> Result<(), String> {
        {
            let mut told = self.told.lock();
            told.is_calm = !self.powers.clock && self.powers.deaths == 0 && self.offs.is_empty();
            let rows = reader.on_this_thread();
            ledger::check(reader, &told, &self.folder.path().join("notifications.log"));
            ledger::check_alarms(&rows, &self.weather.lock());
            if self.powers.files {
                ledger::check_files(reader, &told, self.folder.path());
            }
        }
        let counts = ledger::counts(&reader.on_this_thread());
        for (queue, rows) in counts {
            let mut said = None;
            // A sweep may come between.
            for _ in 0..40 {
                match parts.queues.ask(queue, Request::Count, None).await {
                    Ok(Reply::Counts(counts)) => said = Some(counts.visible + counts.in_flight + counts.delayed),
                    Ok(other) => return Err(format!("{other:?}")),
                    // An actor may die at this very message.
                    Err(_) if self.disk.has_crashed() => return Err("the power went".to_owned()),
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
                if said == Some(rows) {
                    break;
                }
            }
            assert_eq!(said, Some(rows), "what the queue '{queue}' says that it has, and its rows");
        }
        Ok(())
    }

    fn shared(&self) -> Shared {
        let Powers { hang_ups, .. } = self.powers;
        Shared {
            rng: self.rng.clone(),
            told: self.told.clone(),
            things: self.size.things,
            hang_ups,
            is_punctual: !hang_ups,
        }
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files::make_folders(folder.path());
    folder
}

async fn broken(handle: &Handle) {
    let mut fatal = handle.fatal();
    while fatal.borrow_and_update().is_none() {
        if fatal.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Somebody sets the clock back and forth, now and then to 1970 or to next year.
async fn sets(clock: Arc<SetClock>, rng: Arc<Mutex<ChaCha8Rng>>, told: Arc<Mutex<Told>>) -> Result<(), String> {
    loop {
        let (pause, to) = {
            let mut rng = rng.lock();
            let to = match rng.random_range(0..12) {
                0 => -clock.passed().0,
                1 => 365 * 86_400_000,
                _ => rng.random_range(-CLOCK_STEP_MS..CLOCK_STEP_MS),
            };
            (rng.random_range(50..4_000), to)
        };
        sleep(Duration::from_millis(pause)).await;
        clock.set_by_ms.store(to, Ordering::Relaxed);
        told.lock().set += 1;
    }
}
