//! What is outside the box and survives its crashes: the time, the work that was done, the people who hold tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use conveyor_base::{Attempt, Clock, ExecutionId, Running, TaskError, Timestamp};
use conveyor_interpreter::{Header, Json, Outcome, Parent, RunTask};
use conveyor_job::Progress;
use conveyor_run::{
    Attempted, Demand, Forecast, OnForecast, Resource, Resources, StartRequest, TaskContext, TaskOutcome,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// The world. Clones are the same world.
#[derive(Clone)]
pub struct World(pub Arc<Mutex<Inner>>);

pub struct Inner {
    pub rng: ChaCha8Rng,
    /// The boot that runs now, from 1.
    pub boot: u32,
    /// When it began.
    begun: (Timestamp, Instant),
    /// Every attempt that was begun, with the boot in which.
    pub runs: Vec<(ExecutionId, Attempt, u32)>,
    /// Tokens that somebody holds, when he will report, and what was answered.
    pub tokens: BTreeMap<String, Token>,
    pub repaired: BTreeSet<ExecutionId>,
    pub outages: Vec<(Timestamp, Timestamp)>,
    /// By how much the wall clock was off, from which moment on.
    pub set: Vec<(Timestamp, i64)>,
    /// When the machine slept: all stood still, and time went on.
    pub suspensions: Vec<(Timestamp, Timestamp)>,
    /// When somebody knew of an execution's start first, and of its end.
    pub seen: BTreeMap<String, (Timestamp, Option<Timestamp>)>,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub report_at: Timestamp,
    pub answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Accepted,
    TooLate,
}

impl World {
    pub fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(Inner {
            rng: ChaCha8Rng::seed_from_u64(seed),
            boot: 0,
            begun: (Timestamp(0), Instant::now()),
            runs: Vec::new(),
            tokens: BTreeMap::new(),
            repaired: BTreeSet::new(),
            outages: Vec::new(),
            set: Vec::new(),
            suspensions: Vec::new(),
            seen: BTreeMap::new(),
        })))
    }

    /// The time that it really is.
    pub fn now(&self) -> Timestamp {
        let inner = self.0.lock();
        let (at, since) = inner.begun;
        let slept = inner.suspensions.iter().filter(|(from, _)| *from >= at).map(|(from, to)| to.since_ms(*from));
        at.plus_ms(since.elapsed().as_millis() as i64 + slept.sum::<i64>())
    }

    pub fn random(&self, below: u64) -> u64 {
        self.0.lock().rng.random_range(0..below)
    }

    /// Lets others go first, as the seed has it.
    pub async fn jitter(&self) {
        for _ in 0..self.random(4) {
            tokio::task::yield_now().await;
        }
        match self.random(3) {
            0 => sleep(Duration::from_millis(self.random(40))).await,
            _ => tokio::task::yield_now().await,
        }
    }

    pub fn hold(&self, token: String, report_at: Timestamp) {
        self.0.lock().tokens.entry(token).or_insert(Token { report_at, answer: None });
    }
}

/// The box's clocks: both go with tokio's paused time, so that timers and timestamps agree; the wall clock is off by as much
/// as the world has set it, and what it shows counts for nothing but what people see.
pub struct PausedClock {
    /// Another one where the machine starts anew, and not only the process.
    boot: u128,
    world: World,
}

impl PausedClock {
    pub fn at(at: Timestamp, boot: u128, world: World) -> PausedClock {
        world.0.lock().begun = (at, Instant::now());
        PausedClock { boot, world }
    }

    /// The time that it really is.
    pub fn passed(&self) -> Timestamp {
        self.world.now()
    }

    /// The machine sleeps for so long.
    pub fn suspend(&self, ms: i64) {
        let now = self.passed();
        self.world.0.lock().suspensions.push((now, now.plus_ms(ms)));
    }

    /// Somebody sets the wall clock, to be off by so much.
    pub fn set(&self, by_ms: i64) {
        let now = self.passed();
        self.world.0.lock().set.push((now, by_ms));
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let set_by_ms = self.world.0.lock().set.last().map_or(0, |(_, by_ms)| *by_ms);
        self.passed().plus_ms(set_by_ms)
    }

    fn running(&self) -> Running {
        Running { boot: self.boot, ms: self.passed().0 }
    }
}

impl Resources for World {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>> {
        resource.starts_with("arn:aws:states:::").then(|| Arc::new(Scripted(self.clone())) as Arc<dyn Resource>)
    }

    fn child_ended(&self, shape: &str, child: &Header, child_arn: &str, _: &str) -> Result<Json, TaskError> {
        assert_eq!(shape, "sync");
        match &child.outcome {
            Some(Outcome::Succeeded { output }) => Ok(output.clone()),
            other => Err(TaskError::new("Sim.ChildFailed", format!("{child_arn}: {other:?}"))),
        }
    }
}

/// Does what its parameters say.
struct Scripted(World);

fn parameters(task: &RunTask) -> Value {
    serde_json::from_str(&task.parameters).unwrap()
}

impl Resource for Scripted {
    fn demand(&self, task: &RunTask) -> Option<Demand> {
        let demand = match parameters(task)["lane"].as_str()? {
            "cpu" => Demand::cores(1),
            _ => Demand::disks(),
        };
        Some(Demand { rank: (task.attempt.0 % 3) as u8, ..demand })
    }

    fn predict(&self, task: &RunTask, on_forecast: &dyn Fn() -> OnForecast) {
        // Of some it is known at once, of others never.
        let on_forecast = on_forecast();
        if !task.attempt.0.is_multiple_of(3) {
            on_forecast(Forecast { run_ms: 1_000, by: "the script" });
        }
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        let world = self.0.clone();
        {
            let mut inner = world.0.lock();
            let boot = inner.boot;
            inner.runs.push((context.execution, context.task.attempt, boot));
        }
        Box::pin(async move {
            world.jitter().await;
            let resource = context.task.resource.clone();
            Attempted::Ended(match resource.as_str() {
                "arn:aws:states:::sim:work" => work(world, context).await,
                "arn:aws:states:::sim:job.waitForTaskToken" => submit(world, context).await,
                _ => nest(world, context).await,
            })
        })
    }
}

async fn wait_ms(parameters: &Value, key: &str) {
    sleep(Duration::from_millis(parameters[key].as_u64().unwrap_or(0))).await;
}

async fn work(world: World, context: TaskContext) -> TaskOutcome {
    let parameters = parameters(&context.task);
    let what = parameters["do"].as_str().unwrap().to_owned();
    wait_ms(&parameters, "ms").await;
    let failed = match what.as_str() {
        "hang" => std::future::pending().await,
        // Without the panic hook, which would write a trace for each of these.
        "panic" => std::panic::resume_unwind(Box::new("scripted")),
        "flaky" => u64::from(context.task.retry_count) < parameters["fails"].as_u64().unwrap(),
        "broken" => !world.0.lock().repaired.contains(&context.execution),
        "beat" => {
            for _ in 0..parameters["beats"].as_u64().unwrap() {
                sleep(Duration::from_secs(1)).await;
                context.progress.report(Progress::default());
            }
            false
        }
        _ => false,
    };
    match failed {
        true => TaskOutcome::Failed(TaskError::new("Sim.Flaky", "as the script says")),
        false => TaskOutcome::Succeeded(format!("{{\"did\":\"{what}\"}}").into()),
    }
}

/// Hands a token to somebody outside, and goes.
async fn submit(world: World, context: TaskContext) -> TaskOutcome {
    let parameters = parameters(&context.task);
    let token = context.task.token.expect("the resource waits for a token").to_string();
    assert_eq!(parameters["token"], token.as_str());
    let report_ms = parameters["report_ms"].as_i64().unwrap();
    let report_at = world.now().plus_ms(report_ms);
    world.hold(token, report_at);
    wait_ms(&parameters, "submit_ms").await;
    TaskOutcome::Submitted { output: "{}".into() }
}

async fn nest(world: World, context: TaskContext) -> TaskOutcome {
    let parameters = parameters(&context.task);
    let attempt = context.task.attempt;
    let parent = Parent { execution: context.execution, attempt, shape: "sync".into() };
    let start = StartRequest {
        machine: parameters["machine"].as_str().unwrap().to_owned(),
        name: Some(format!("{}-{attempt}", context.execution)),
        input: parameters["input"].to_string().into(),
        parent: Some(parent),
        ..StartRequest::default()
    };
    let started = context.handle.start(start).await;
    world.jitter().await;
    match started {
        Ok(started) => TaskOutcome::Submitted { output: format!("{{\"Name\":\"{}\"}}", started.name).into() },
        Err(refused) => TaskOutcome::SubmitFailed(TaskError::new(refused.code, refused.message)),
    }
}
