//! The services of the box under the same powers as its executions: real cores, real adapters, a disk that loses power,
//! callers who hang up at any await, actors that die at any message, a clock that is set back and forth.
//!
//! People send and receive, create state machines and start executions whose Tasks change what the box keeps. What they
//! were told is written down outside the box; the oracle below compares it with the rows that are left, and shares no
//! code with the services.

#[path = "people.rs"]
mod people;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use conveyor_appliance::{Config, Parts};
use conveyor_base::{Clock, TaskError, Timestamp};
use conveyor_interpreter::Status;
use conveyor_job::Job;
use conveyor_run::{self as run, Handle, Lanes, NewMachine, current_part};
use conveyor_sandbox::{OnProgress, Spawn};
use conveyor_store::sim::SimDisk;
use conveyor_store::{Backends, MessageRow, Options, Scans, Threads, check, open};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::disk_time::stores;
use people::{Person, Shared};

/// 2026-01-01.
const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
const STUCK_AFTER: Duration = Duration::from_secs(3_600);
/// How far the clock is set at once: less than copies of messages are remembered for, or they would count as new.
const CLOCK_STEP_MS: i64 = 20_000;

/// How bad the world is to the box.
#[derive(Clone, Copy, Debug, Default)]
pub struct Powers {
    /// Callers hang up.
    pub hang_ups: bool,
    /// Somebody sets the clock.
    pub clock: bool,
    /// An actor dies at some of its messages: of a hundred, at so many.
    pub deaths: u64,
}

/// What was asked of the box, and what it said.
#[derive(Default)]
pub struct Told {
    /// Bodies of a FIFO queue's messages → whether the sending was acknowledged.
    ordered: BTreeMap<String, bool>,
    /// Bodies of a standard queue's messages → how often they were sent and how often that was acknowledged.
    plain: BTreeMap<String, (u32, u32)>,
    /// Sequence numbers whose deletion was asked for, and of those the ones whose was acknowledged: by queue.
    delete_asked: BTreeSet<(String, u64)>,
    deleted: BTreeSet<(String, u64)>,
    /// The group of each message of the FIFO queue that was received.
    groups: BTreeMap<u64, String>,
    machines: BTreeMap<String, bool>,
    executions: BTreeMap<String, bool>,
}

pub struct ServiceLife {
    seed: u64,
    powers: Powers,
    rng: Arc<Mutex<ChaCha8Rng>>,
    told: Arc<Mutex<Told>>,
    disk: SimDisk,
    folder: tempfile::TempDir,
    offs: Vec<u64>,
    checkpoint_every: u64,
    now: Timestamp,
}

/// Says how to find the failure again.
impl Drop for ServiceLife {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the services' simulation with seed {}, {:?}, off at {:?}", self.seed, self.powers, self.offs);
        }
    }
}

enum Ended {
    Well,
    Crashed(Timestamp),
}

/// The box's clock, which somebody sets, and which strikes a service's actor dead now and then.
struct SetClock {
    at: Timestamp,
    since: Instant,
    set_by_ms: AtomicI64,
    deaths: u64,
    rng: Arc<Mutex<ChaCha8Rng>>,
    struck: AtomicU64,
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        let mortal = current_part().is_some_and(|part| MORTAL.iter().any(|mortal| part.contains(mortal)));
        if self.deaths > 0 && mortal && self.rng.lock().random_range(0..100) < self.deaths {
            // So many that the box makes progress all the same.
            if self.struck.fetch_add(1, Ordering::Relaxed) < 12 {
                // Without the panic hook, which would write a trace for each of these.
                std::panic::resume_unwind(Box::new("struck"));
            }
        }
        self.at.plus_ms(self.since.elapsed().as_millis() as i64 + self.set_by_ms.load(Ordering::Relaxed))
    }
}

/// Parts whose death the box survives.
const MORTAL: &[&str] = &["queues", "items", "claims", "notif", "events", "dispatch", "approvals"];

struct NoMedia;

impl Spawn for NoMedia {
    fn spawn(&self, _: Job, _: OnProgress) -> BoxFuture<'static, Result<Value, TaskError>> {
        Box::pin(async { Err(TaskError::new("Stage.Failed", "there is no media in this world")) })
    }
}

fn configuration() -> Config {
    toml::from_str(
        r#"
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
        "#,
    )
    .unwrap()
}

/// Changes everything that a Task can change in the box's own store, once each.
fn deeds() -> Value {
    let task = |resource: &str, parameters: Value, next: &str| {
        json!({"Type": "Task", "Resource": format!("arn:aws:states:::{resource}"), "Parameters": parameters,
            "ResultPath": null, "Next": next})
    };
    json!({"StartAt": "Count", "States": {
        "Count": task("dynamodb:updateItem", json!({"TableName": "counters", "Key": {"id": {"S.$": "$.name"}},
            "UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}), "Send"),
        "Send": task("sqs:sendMessage", json!({"QueueUrl": "http://box/000000000000/tasks", "MessageBody.$": "$.name"}), "Tell"),
        "Tell": task("events:putEvents", json!({"Entries": [{"Source": "studio", "DetailType": "done",
            "Detail": {"name.$": "$.name"}}]}), "Claim"),
        "Claim": {"Type": "Task", "Resource": "arn:aws:states:::conveyor:claim", "Parameters": {"blake3.$": "$.content",
            "input": "s3://in/file"}, "ResultPath": "$.claim", "Next": "End"},
        "End": {"Type": "Pass", "End": true},
    }})
}

impl ServiceLife {
    pub fn new(seed: u64, powers: Powers) -> ServiceLife {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let checkpoint_every = rng.random_range(1..12);
        ServiceLife {
            seed,
            powers,
            rng: Arc::new(Mutex::new(rng)),
            told: Arc::default(),
            disk: SimDisk::new(seed),
            folder: tempfile::tempdir().unwrap(),
            offs: Vec::new(),
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
                Ended::Well => return self.disk.operations(),
                Ended::Crashed(at) => {
                    let off_ms = {
                        let mut rng = self.rng.lock();
                        if rng.random_range(0..2) == 0 { 0 } else { rng.random_range(0..60_000) }
                    };
                    self.now = at.plus_ms(off_ms);
                    self.disk = self.disk.restart();
                }
            }
        }
        match self.boot() {
            Ended::Well => self.disk.operations(),
            Ended::Crashed(_) => panic!("the disk failed, and the power was on"),
        }
    }

    fn boot(&mut self) -> Ended {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let ended = runtime.block_on(self.serve());
        drop(runtime);
        if let Ended::Well = ended {
            if self.disk.has_crashed() {
                return Ended::Crashed(self.now);
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
            struck: AtomicU64::new(0),
        });
        let threads = Threads::Turns { checkpoint_every: self.checkpoint_every };
        let opened = open(Options { threads, segment_bytes: 64 << 10, ..Options::on(Arc::new(self.disk.clone())) });
        let (writer, reader) = match opened {
            Ok(both) => both,
            Err(fault) => {
                assert!(self.disk.has_crashed(), "{fault:?}");
                return Ended::Crashed(clock.now());
            }
        };
        tokio::spawn(stores(writer.clone(), self.seed ^ self.offs.len() as u64));
        let config = configuration();
        let parts = Parts::new(&config, &config.aws, self.folder.path(), &reader, Arc::new(NoMedia)).unwrap();
        let started = run::start(run::Config {
            writer: writer.clone(),
            reader: reader.clone(),
            resources: Arc::new(parts.registry().unwrap()),
            clock: clock.clone(),
            lanes: Lanes::of_cores(2, 1),
            account: config.account.clone(),
            region: config.region.clone(),
            express_record: None,
        });
        let crashed = |what: &dyn std::fmt::Debug| assert!(self.disk.has_crashed(), "{what:?}");
        let handle = match started.await {
            Ok(handle) => handle,
            Err(fault) => {
                crashed(&fault);
                return Ended::Crashed(clock.now());
            }
        };
        let ended = tokio::select! {
            ended = self.use_box(&handle, &parts, &clock) => ended,
            () = broken(&handle) => Err("the power went".to_owned()),
        };
        match ended {
            Ok(()) => {
                // Whatever would come too late, or twice, comes now.
                sleep(Duration::from_secs(400)).await;
                if self.disk.has_crashed() {
                    return Ended::Crashed(clock.now());
                }
                self.check(&reader.on_this_thread());
                handle.shut_down().await;
                match writer.close() {
                    Ok(()) => Ended::Well,
                    Err(fault) => {
                        crashed(&fault);
                        Ended::Crashed(clock.now())
                    }
                }
            }
            Err(what) => {
                crashed(&what);
                Ended::Crashed(clock.now())
            }
        }
    }

    async fn use_box(&self, handle: &Handle, parts: &Parts, clock: &Arc<SetClock>) -> Result<(), String> {
        let failed = |e: &dyn std::fmt::Debug| format!("{e:?}");
        parts.start(handle).await.map_err(|e| failed(&e))?;
        let new = NewMachine {
            name: "deeds".into(),
            definition: deeds().to_string(),
            role_arn: "arn:aws:iam::000000000000:role/box".into(),
            ..NewMachine::default()
        };
        handle.create_machine(new).await.map_err(|e| failed(&e))?;
        let person = Person { handle: handle.clone(), queues: parts.queues.clone(), life: self.shared() };
        let mut people = JoinSet::new();
        for n in 0..4 {
            people.spawn(person.clone().sends_in_order(n));
            people.spawn(person.clone().sends_plainly(n));
            people.spawn(person.clone().creates(n));
            people.spawn(person.clone().starts(n));
        }
        let mut staff = JoinSet::new();
        for queue in ["ordered.fifo", "ordered.fifo", "plain", "plain"] {
            staff.spawn(person.clone().receives(queue));
        }
        if self.powers.clock {
            staff.spawn(sets(clock.clone(), self.rng.clone()));
        }
        let all_done = async {
            while let Some(done) = people.join_next().await {
                done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            }
            // What is left in the queues that somebody empties is received.
            sleep(Duration::from_secs(60)).await;
            Ok(())
        };
        tokio::select! {
            done = tokio::time::timeout(STUCK_AFTER, all_done) => match done {
                Ok(done) => done,
                Err(_) => panic!("stuck: {:?}", handle.failed_parts()),
            },
            Some(broke_off) = staff.join_next() => {
                broke_off.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
            }
        }
    }

    fn shared(&self) -> Shared {
        let Powers { hang_ups, clock, .. } = self.powers;
        Shared { rng: self.rng.clone(), told: self.told.clone(), hang_ups, is_punctual: !hang_ups && !clock }
    }
}

async fn broken(handle: &Handle) {
    let mut fatal = handle.fatal();
    while fatal.borrow_and_update().is_none() {
        if fatal.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Somebody sets the clock back and forth.
async fn sets(clock: Arc<SetClock>, rng: Arc<Mutex<ChaCha8Rng>>) -> Result<(), String> {
    loop {
        let (pause, to) = {
            let mut rng = rng.lock();
            (rng.random_range(50..4_000), rng.random_range(-CLOCK_STEP_MS..CLOCK_STEP_MS))
        };
        sleep(Duration::from_millis(pause)).await;
        clock.set_by_ms.store(to, Ordering::Relaxed);
    }
}

impl ServiceLife {
    fn check(&self, reader: &Scans) {
        let told = self.told.lock();
        let left = |queue: &str| -> Vec<(u64, MessageRow)> {
            let rows = reader.messages(queue, 0, usize::MAX).unwrap();
            rows.into_iter().filter(|(_, row)| !row.deleted).collect()
        };
        // In order: each message once, as long as nobody has asked for its deletion.
        let ordered = left("ordered.fifo");
        for (body, acknowledged) in &told.ordered {
            assert!(*acknowledged);
            let copies = ordered.iter().filter(|(_, row)| row.body == *body).count();
            assert!(copies <= 1, "{body} is there {copies} times");
        }
        for (sequence, row) in &ordered {
            let key = ("ordered.fifo".to_owned(), *sequence);
            assert!(!told.deleted.contains(&key), "{} was deleted and is there", row.body);
        }
        let never_deleted = |queue: &str, sequence: u64| !told.delete_asked.contains(&(queue.to_owned(), sequence));
        let known: BTreeSet<u64> = ordered.iter().map(|(sequence, _)| *sequence).collect();
        for sequence in told.groups.keys().filter(|sequence| never_deleted("ordered.fifo", **sequence)) {
            assert!(known.contains(sequence), "a message that nobody deleted is gone");
        }
        // Plainly: as many as were acknowledged at least, as were sent at most; what was received too often is dead.
        let (plain, dead) = (left("plain"), left("dead"));
        for (body, (sent, acknowledged)) in &told.plain {
            let there = plain.iter().chain(&dead).filter(|(_, row)| row.body == *body).count() as u32;
            assert!(there <= *sent, "{body} was sent {sent} times and is there {there} times");
            assert!(*acknowledged > 0);
        }
        self.check_tasks(reader, &told);
        let entries = reader.audit(None, usize::MAX).unwrap();
        for name in told.machines.keys() {
            let exists = reader.machine(name).unwrap().is_some();
            let count = entries.iter().filter(|(_, row)| row.to == *name).count();
            assert_eq!(count, usize::from(exists), "{name}: {count} entries of the audit log, exists: {exists}");
        }
        assert!(told.machines.iter().all(|(name, told)| !told || reader.machine(name).unwrap().is_some()));
    }

    /// What Tasks did, they did once.
    fn check_tasks(&self, reader: &Scans, told: &Told) {
        let rows = |queue: &str| reader.messages(queue, 0, usize::MAX).unwrap();
        let (tasks, seen) = (rows("tasks"), rows("seen"));
        let mut claims: BTreeMap<String, u32> = BTreeMap::new();
        for name in told.executions.keys() {
            let id = reader.by_name("deeds", name).unwrap().unwrap_or_else(|| panic!("{name} is lost"));
            let header = reader.header(id).unwrap().unwrap();
            assert_eq!(header.status, Status::Succeeded, "{name}: {:?}", header.outcome);
            let output: Value = serde_json::from_str(header.output().unwrap()).unwrap();
            *claims.entry(output["content"].as_str().unwrap().to_owned()).or_default() +=
                u32::from(output["claim"]["claimed"] == true);
            let items = reader.items("counters", None, usize::MAX).unwrap();
            let item = items.iter().find(|(key, _)| key.contains(&format!("\"{name}\""))).expect("its counter");
            let item: Value = serde_json::from_str(&item.1).unwrap();
            assert_eq!(item["n"]["N"], "1", "{name} counted twice");
            let sent = tasks.iter().filter(|(_, row)| row.body == *name).count();
            assert_eq!(sent, 1, "{name} sent {sent} messages");
            let events = seen.iter().filter(|(_, row)| row.body.contains(&format!("\"{name}\""))).count();
            assert_eq!(events, 1, "{events} events of {name} came");
        }
        assert!(claims.values().all(|holders| *holders == 1), "holders of contents: {claims:?}");
        assert!(reader.events(None, 10).unwrap().is_empty(), "an event waits for its target");
    }
}
