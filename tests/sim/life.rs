//! The box's life: boots, the people who use it, the power that goes, and the next boot on what survived.
//!
//! A boot is a tokio runtime of its own, so that a crash takes every task with it at once, as `kill -9` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::Status;
use conveyor_run::{self as run, Config, Handle, Lanes, NewMachine, Refused, StartRequest};
use conveyor_store::sim::SimDisk;
use conveyor_store::{Backends, Options, Reader, Threads, Writer, check, open};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::disk_time::stores;
use crate::machines::{self, Spec, Then};
use crate::oracle;
use crate::world::{Answer, PausedClock, World};

/// How long all of it may take, in the box's own time, from a boot on.
const STUCK_AFTER: Duration = Duration::from_secs(3_600);
/// 2026-01-01.
const BEGIN: Timestamp = Timestamp(1_767_225_600_000);

/// Somebody wants an execution.
#[derive(Clone, Debug)]
pub struct Plan {
    pub spec: Spec,
    pub name: String,
    pub start_at: Timestamp,
    /// Starts by the same name at the same time.
    pub starters: u64,
}

/// What the box has acknowledged.
#[derive(Clone, Default)]
pub struct Acknowledged(pub Arc<Mutex<Promises>>);

#[derive(Default)]
pub struct Promises {
    pub started: BTreeMap<String, ExecutionId>,
    pub stopped: Vec<ExecutionId>,
}

pub struct Life {
    seed: u64,
    pub world: World,
    pub plans: Vec<Plan>,
    pub acknowledged: Acknowledged,
    disk: SimDisk,
    /// How the boots ended, but for the last one.
    offs: Vec<Off>,
    checkpoint_every: u64,
    now: Timestamp,
    /// Somebody sets the clock, and the machine sleeps now and then.
    pub clock_is_set: bool,
    /// The machine starts with a wrong clock each time.
    pub starts: Option<Starts>,
}

/// The clock with which a machine starts, until somebody sets it right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starts {
    In1970,
    AYearAhead,
}

/// Says how to find the failure again.
impl Drop for Life {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the simulation with seed {}, switched off by {:?}", self.seed, self.offs);
        }
    }
}

/// How a boot ends before its work is done.
#[derive(Clone, Copy, Debug)]
pub enum Off {
    /// The power goes at that operation of the disk.
    Power(u64),
    /// Somebody shuts the box down in order, that many milliseconds after its start.
    Order(u64),
}

enum Ended {
    Well(Timestamp),
    Crashed(Timestamp),
}

impl Life {
    pub fn new(seed: u64, plans_max: usize) -> Life {
        let world = World::new(seed);
        let mut specs = machines::all();
        while specs.len() > plans_max {
            specs.remove(world.random(specs.len() as u64) as usize);
        }
        let plan = |spec: Spec| Plan {
            name: format!("{}-run", spec.name),
            start_at: BEGIN.plus_ms(world.random(3_000) as i64),
            starters: 1 + world.random(3) / 2,
            spec,
        };
        let plans = specs.into_iter().map(plan).collect();
        let checkpoint_every = 1 + world.random(12);
        Life {
            seed,
            world,
            plans,
            acknowledged: Acknowledged::default(),
            disk: SimDisk::new(seed),
            offs: Vec::new(),
            checkpoint_every,
            now: BEGIN,
            clock_is_set: false,
            starts: None,
        }
    }

    /// The same with a clock that is set back and forth by hours, on a machine that sleeps.
    pub fn with_a_clock_that_is_set(seed: u64) -> Life {
        let mut life = Life::new(seed, usize::MAX);
        life.clock_is_set = true;
        life
    }

    /// The same on a machine that starts with a wrong clock, which is set right a while later.
    pub fn with_a_clock_that_starts_wrong(seed: u64, starts: Starts) -> Life {
        let mut life = Life::with_a_clock_that_is_set(seed);
        life.starts = Some(starts);
        life
    }

    /// Lives to the end, switched off like this before, once per boot. Says how many operations of the disk the
    /// last boot had.
    pub fn live(&mut self, offs: &[Off]) -> u64 {
        for off in offs {
            self.offs.push(*off);
            let mut order = None;
            match off {
                Off::Power(operation) => self.disk.crash_at(*operation),
                Off::Order(ms) => order = Some(Duration::from_millis(*ms)),
            }
            match self.boot(order) {
                Ended::Well(_) => return self.disk.operations(),
                Ended::Crashed(at) => self.restart(at),
            }
        }
        match self.boot(None) {
            Ended::Well(_) => self.disk.operations(),
            Ended::Crashed(_) => panic!("the disk failed, and the power was on"),
        }
    }

    /// Lives until it is switched off like that. `None`: it was through before; else the disk as it is found then.
    pub fn until(&mut self, off: Off) -> Option<SimDisk> {
        self.offs.push(off);
        let order = match off {
            Off::Power(operation) => {
                self.disk.crash_at(operation);
                None
            }
            Off::Order(ms) => Some(Duration::from_millis(ms)),
        };
        let Ended::Crashed(at) = self.boot(order) else { return None };
        self.restart(at);
        Some(self.disk.clone())
    }

    /// When it is switched on again.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    fn restart(&mut self, crashed_at: Timestamp) {
        // Often at once, sometimes after most of what was waited for should have happened.
        let off_ms = [0, self.world.random(5_000), self.world.random(5_000), self.world.random(500_000)];
        self.now = crashed_at.plus_ms(off_ms[self.world.random(4) as usize] as i64);
        self.world.0.lock().outages.push((crashed_at, self.now));
        self.disk = self.disk.restart();
    }

    fn boot(&mut self, order: Option<Duration>) -> Ended {
        self.world.0.lock().boot += 1;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let ended = runtime.block_on(self.serve(order));
        drop(runtime);
        if let Ended::Well(at) = ended {
            // Dropping the files writes to them too.
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

    async fn serve(&self, order: Option<Duration>) -> Ended {
        let boot = self.starts.map_or(1, |_| self.offs.len() as u128);
        let clock = Arc::new(PausedClock::at(self.now, boot, self.world.clone()));
        match self.starts {
            None => {}
            Some(Starts::In1970) => clock.set(-self.now.0),
            Some(Starts::AYearAhead) => clock.set(YEAR_MS),
        }
        let threads = Threads::Turns { checkpoint_every: self.checkpoint_every };
        let opened = open(Options { threads, segment_bytes: 32 << 10, ..Options::on(Arc::new(self.disk.clone())) });
        let now = || clock.passed();
        let (writer, reader) = match opened {
            Ok(both) => both,
            Err(fault) => {
                assert!(self.disk.has_crashed(), "{fault:?}");
                return Ended::Crashed(now());
            }
        };
        tokio::spawn(stores(writer.clone(), self.seed ^ self.offs.len() as u64, 0));
        let config = Config {
            writer: writer.clone(),
            reader: reader.clone(),
            resources: Arc::new(self.world.clone()),
            clock: clock.clone(),
            lanes: Lanes::of_cores(2, 1),
            account: "000000000000".into(),
            region: "us-east-1".into(),
            express_record: None,
        };
        let handle = run::start(config).await.unwrap();
        if self.clock_is_set {
            match self.starts {
                None => tokio::spawn(sets(clock.clone(), self.world.clone())),
                Some(_) => tokio::spawn(sets_right(clock.clone(), self.world.clone())),
            };
        }
        let ended = tokio::select! {
            ended = self.use_box(&handle) => ended,
            () = sleep(order.unwrap_or_default()), if order.is_some() => {
                handle.shut_down().await;
                writer.close().unwrap();
                return Ended::Crashed(now());
            }
            () = broken(&handle) => Err(Refused::new("InternalFailure", "the power went")),
        };
        match ended {
            Ok(()) if self.rest_and_close(handle, writer, reader).await => Ended::Well(now()),
            Ok(()) => Ended::Crashed(now()),
            Err(refused) => {
                assert!(self.disk.has_crashed(), "{refused:?}");
                Ended::Crashed(now())
            }
        }
    }

    async fn use_box(&self, handle: &Handle) -> Result<(), Refused> {
        for spec in machines::all() {
            let definition = spec.definition.to_string();
            let role_arn = "arn:aws:iam::000000000000:role/box".into();
            let name = spec.name.to_owned();
            let new = NewMachine { name, definition, role_arn, ..NewMachine::default() };
            handle.create_machine(new).await?;
        }
        let mut people = JoinSet::new();
        for plan in &self.plans {
            for _ in 0..plan.starters {
                people.spawn(want(handle.clone(), self.world.clone(), plan.clone(), self.acknowledged.clone()));
            }
        }
        let mut staff = JoinSet::new();
        for _ in 0..2 {
            staff.spawn(take_activities(handle.clone(), self.world.clone()));
        }
        staff.spawn(report_tokens(handle.clone(), self.world.clone()));
        let all_ended = async {
            while let Some(ended) = people.join_next().await {
                ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
            }
            Ok(())
        };
        tokio::select! {
            ended = tokio::time::timeout(STUCK_AFTER, all_ended) => match ended {
                Ok(ended) => ended,
                Err(_) => panic!("stuck: {}", oracle::unfinished(&handle.reader().on_this_thread())),
            },
            Some(broke_off) = staff.join_next() => {
                broke_off.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
            }
        }
    }

    /// After the end nothing is left to do, and the box knows it. False: the power went.
    async fn rest_and_close(&self, handle: Handle, writer: Writer, reader: Reader) -> bool {
        sleep(Duration::from_secs(2)).await;
        if self.disk.has_crashed() {
            return false;
        }
        oracle::leaves_no_rows(&reader.on_this_thread());
        // Whoever held a token for too long reports too.
        sleep(Duration::from_secs(300)).await;
        if self.disk.has_crashed() {
            return false;
        }
        oracle::check(self, &reader.on_this_thread());
        assert_eq!(handle.awake(), 0, "an execution is awake and has nothing to do");
        assert!(handle.all_running_attempts().is_empty(), "{:?}", handle.all_running_attempts());
        for id in oracle::ids(&reader.on_this_thread()) {
            assert!(handle.predictions(id).is_empty(), "nothing runs: {:?}", handle.predictions(id));
        }
        for lane in handle.lanes().await {
            assert_eq!((lane.busy, lane.waiting), (0, 0), "lane {} was not given back", lane.name);
        }
        let since = tokio::time::Instant::now();
        handle.shut_down().await;
        assert!(since.elapsed() < Duration::from_millis(500), "shutting down an idle box took {:?}", since.elapsed());
        let closed = writer.close();
        assert!(closed.is_ok() || self.disk.has_crashed(), "{closed:?}");
        closed.is_ok()
    }
}

/// Until when the clock is set. Then it is right, and stays so.
const SET_UNTIL: Timestamp = Timestamp(BEGIN.0 + 300_000);
/// How far off the clock is set at most.
const SET_MS_MAX: u64 = 5 * 3_600_000;

const YEAR_MS: i64 = 365 * 86_400_000;

/// The network has answered.
async fn sets_right(clock: Arc<PausedClock>, world: World) {
    sleep(Duration::from_millis(1 + world.random(100_000))).await;
    clock.set(0);
}

/// Somebody sets the wall clock back and forth; now and then the machine sleeps.
async fn sets(clock: Arc<PausedClock>, world: World) {
    // What the box knows of its own time is stored by then.
    sleep(Duration::from_millis(500)).await;
    while clock.passed() < SET_UNTIL {
        sleep(Duration::from_millis(50 + world.random(20_000))).await;
        match world.random(4) {
            0 => clock.suspend(1 + world.random(60_000) as i64),
            _ => clock.set(world.random(2 * SET_MS_MAX) as i64 - SET_MS_MAX as i64),
        }
    }
    clock.set(0);
}

async fn broken(handle: &Handle) {
    let mut fatal = handle.fatal();
    while fatal.borrow_and_update().is_none() {
        if fatal.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Starts an execution, and does to it what the plan says, until it has ended.
async fn want(handle: Handle, world: World, plan: Plan, acknowledged: Acknowledged) -> Result<(), Refused> {
    let early_ms = plan.start_at.since_ms(world.now()).max(0) as u64;
    sleep(Duration::from_millis(early_ms)).await;
    world.jitter().await;
    let start = StartRequest {
        machine: plan.spec.name.into(),
        name: Some(plan.name.clone()),
        input: plan.spec.input.to_string().into(),
        once: true,
        ..StartRequest::default()
    };
    let (started, ()) = tokio::join!(handle.start(start), stop_young(&handle, &plan));
    let id = started?.id;
    let began = world.now();
    world.0.lock().seen.entry(plan.name.clone()).or_insert((began, None));
    let first = *acknowledged.0.lock().started.entry(plan.name.clone()).or_insert(id);
    assert_eq!(first, id, "one name, two executions");
    loop {
        let header = handle.reader().header(id).await?.expect("an acknowledged start is lost");
        match (plan.spec.then, header.status) {
            (Then::Stop | Then::StopYoung, Status::Running) => {
                sleep(Duration::from_millis(world.random(2_000))).await;
                handle.stop(id, None, None).await?;
                acknowledged.0.lock().stopped.push(id);
            }
            (Then::RepairAndRedrive, Status::Failed) => {
                world.0.lock().repaired.insert(id);
                world.jitter().await;
                match handle.redrive(id).await {
                    Err(refused) if refused.code == "ExecutionNotRedrivable" => {}
                    other => drop(other?),
                }
            }
            (_, Status::Running) => sleep(Duration::from_millis(200)).await,
            _ => {
                let now = world.now();
                let mut inner = world.0.lock();
                inner.seen.get_mut(&plan.name).expect("its start").1.get_or_insert(now);
                return Ok(());
            }
        }
    }
}

/// Stops an execution that its starter has not heard of yet.
async fn stop_young(handle: &Handle, plan: &Plan) {
    if plan.spec.then != Then::StopYoung {
        return;
    }
    for _ in 0..60 {
        if let Ok(Some(id)) = handle.reader().by_name(plan.spec.name, &plan.name) {
            // Where the power went, the next boot stops it.
            let _ = handle.stop(id, None, None).await;
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Those who hold tokens report, once, when it is time; after a crash they do not know, and report again.
async fn report_tokens(handle: Handle, world: World) -> Result<(), Refused> {
    loop {
        let now = world.now();
        let due: Vec<String> = {
            let inner = world.0.lock();
            let open = inner.tokens.iter().filter(|(_, t)| t.answer.is_none() && t.report_at <= now);
            open.map(|(token, _)| token.clone()).collect()
        };
        let reports = due.into_iter().map(|token| {
            let (handle, world) = (&handle, &world);
            async move {
                world.jitter().await;
                let report = || handle.send_task_success(&token, "{\"reported\":true}".into());
                let (one, other) = tokio::join!(report(), report());
                assert!(one.is_err() || other.is_err(), "a token was taken twice");
                let answer = match one.or(other) {
                    Ok(()) => Answer::Accepted,
                    Err(refused) if refused.code == "TaskTimedOut" => Answer::TooLate,
                    Err(refused) => return Err(refused),
                };
                world.0.lock().tokens.get_mut(&token).unwrap().answer = Some(answer);
                Ok(())
            }
        });
        futures::future::try_join_all(reports).await?;
        sleep(Duration::from_millis(50)).await;
    }
}

async fn take_activities(handle: Handle, world: World) -> Result<(), Refused> {
    loop {
        if let Some(task) = handle.activity_task("crop", Some("worker".into())).await? {
            let parameters: serde_json::Value = serde_json::from_str(&task.input).unwrap();
            let report_ms = parameters["report_ms"].as_i64().unwrap();
            let report_at = world.now().plus_ms(report_ms);
            world.hold(task.token.to_string(), report_at);
        }
    }
}
