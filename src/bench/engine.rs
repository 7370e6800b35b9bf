//! Section `store`: the appliance's own engine, with a store of its own on the disk that holds the data.
//!
//! Beside it stands what that disk does by itself: 4 KiB, written past the cache and durable (O_DIRECT, O_DSYNC). All
//! figures of the engine are of acknowledged, durable work: decide, commit, act, as in production, with tasks that
//! answer at once.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conveyor_base::{ExecutionId, Fault, SystemClock, TaskError, Timestamp};
use conveyor_interpreter::{Header, Json, RunTask, Status};
use conveyor_run::{
    self as run, Attempted, Demand, Handle, Lanes, LiveUpdate, NewMachine, Refused, Resource, Resources, StartRequest,
    TaskContext, TaskOutcome,
};
use conveyor_store::{self as store, Commit, Options, Writer};
use futures::future::{BoxFuture, join_all};
use nix::libc::{O_DIRECT, O_DSYNC};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::oneshot;

use super::report::{Row, Section, SectionKind};
use super::statistics::{Better, percentile};
use super::work::{Stop, Work};

/// Tasks of the measured workflow: each is a state, a commit and a sync.
const STEPS: usize = 10;
const CROWD: usize = 256;
/// How far ahead sleepers are set, so that all of them sleep before the first is due.
const SLEEP_MS: i64 = 2_500;

pub fn expected_seconds(work: &Work) -> f64 {
    work.mode.pick(9.0, 60.0)
}

/// Why the engine could not be measured.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the store")]
    Store(#[from] Fault),
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Refused),
    #[error("the folder {path}")]
    Io { path: String, source: io::Error },
    #[error("a workflow did not end within {0} s")]
    Late(u64),
    #[error("a part of it broke off")]
    Broken,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Failure::Refused(refused)
    }
}

pub async fn measure(work: &Work) -> Section {
    let mut section = Section::new(SectionKind::Store);
    section.say(format!(
        "A store of its own in {}. A step is a Task that answers at once: decided, committed and synced.",
        work.folder().display()
    ));
    if let Err(failure) = rows(work, &mut section).await {
        let mut chain = vec![failure.to_string()];
        let mut source = std::error::Error::source(&failure);
        while let Some(cause) = source {
            chain.push(cause.to_string());
            source = cause.source();
        }
        section.say(format!("the engine could not be measured: {}", chain.join(": ")));
    }
    section
}

async fn rows(work: &Work, section: &mut Section) -> Result<(), Failure> {
    let (folder, stop) = (work.folder().join("store"), work.stop());
    let io = |source| Failure::Io { path: work.folder().display().to_string(), source };
    let at = folder.clone();
    let rounds = work.mode.pick(300, 3_000);
    let raw = tokio::task::spawn_blocking(move || raw_writes(&at, rounds, &stop));
    let raw = work.step("the disk by itself", 0.5, raw).await.map_err(|_| Failure::Broken)?.map_err(io)?;
    match raw {
        Some(times) => section.rows.push(
            Row::new("raw", "4 KiB, O_DIRECT and O_DSYNC")
                .with("p50", "µs", Better::Lower, times.iter().map(|batch| percentile(batch, 50)).collect())
                .with("p99", "µs", Better::Lower, times.iter().map(|batch| percentile(batch, 99)).collect()),
        ),
        None => section.say("The disk's file system takes no direct writes: the yardstick is absent."),
    }
    let (writer, reader) = store::open(Options::at(&folder))?;
    let answering = Answering::default();
    let handle = run::start(run::Config {
        writer: writer.clone(),
        reader,
        resources: Arc::new(answering.clone()),
        clock: Arc::new(SystemClock),
        lanes: Lanes::default(),
        account: "000000000000".to_owned(),
        region: "us-east-1".to_owned(),
        express_record: None,
    })
    .await?;
    let end = engine(work, section, &handle, &writer, &answering).await;
    handle.shut_down().await;
    drop(handle);
    let closed = tokio::task::spawn_blocking(move || writer.close()).await.map_err(|_| Failure::Broken)?;
    end.and(closed.map_err(Failure::from))
}

async fn engine(
    work: &Work,
    section: &mut Section,
    handle: &Handle,
    writer: &Writer,
    answering: &Answering,
) -> Result<(), Failure> {
    let repetitions = work.mode.pick(3, 7);
    let commits =
        work.step("single commits", 0.5, single_commits(writer, repetitions, work.mode.pick(100, 1_000))).await?;
    section.rows.push(
        Row::new("commit", "one commit, synced")
            .with("p50", "µs", Better::Lower, commits.iter().map(|batch| percentile(batch, 50)).collect())
            .with("p99", "µs", Better::Lower, commits.iter().map(|batch| percentile(batch, 99)).collect()),
    );
    create(handle, "bench-steps", &steps()).await?;
    create(handle, "bench-sleep", &sleep()).await?;
    let alone = work.step("one workflow", 0.7, one_at_a_time(handle, repetitions, work.mode.pick(15, 100))).await?;
    section.rows.push(
        Row::new("workflow", format!("one workflow of {STEPS} steps"))
            .with("p50", "ms", Better::Lower, alone.iter().map(|batch| percentile(batch, 50)).collect())
            .with("p99", "ms", Better::Lower, alone.iter().map(|batch| percentile(batch, 99)).collect()),
    );
    let seconds = work.mode.pick(0.7, 4.0);
    let crowd = crowd(handle, answering, repetitions, Duration::from_secs_f64(seconds));
    let crowd = work.step("many workflows", seconds * repetitions as f64, crowd).await?;
    section.rows.push(
        Row::new("crowd", format!("{CROWD} workflows at once"))
            .with("workflows", "/s", Better::Higher, crowd.iter().map(|rate| rate / STEPS as f64).collect())
            .with("steps", "/s", Better::Higher, crowd),
    );
    let sleepers = work.mode.pick(2_000, 20_000);
    let woken = work.step("waking sleepers", 4.0, wake(handle, answering, sleepers)).await?;
    section.rows.push(
        Row::new("wake", format!("{sleepers} executions that wake at one time"))
            .with("wake-ups", "/s", Better::Higher, vec![woken.0])
            .with("p50 late", "ms", Better::Lower, vec![woken.1]),
    );
    Ok(())
}

/// Microseconds of each write, sorted, in three batches; nothing where the file system has no direct writes.
fn raw_writes(folder: &Path, rounds: usize, stop: &Stop) -> io::Result<Option<Vec<Vec<f64>>>> {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    const PAGES: usize = 1_024;
    std::fs::create_dir_all(folder)?;
    let path = folder.join("raw");
    let mut file = std::fs::File::create(&path)?;
    file.write_all(&vec![0; PAGES * 4096])?;
    file.sync_all()?;
    let page = Page([7; 4096]);
    let Ok(file) = OpenOptions::new().write(true).custom_flags(O_DIRECT | O_DSYNC).open(&path) else { return Ok(None) };
    if file.write_at(&page.0, 0).is_err() {
        return Ok(None);
    }
    let mut batches = Vec::new();
    for _ in 0..3 {
        let mut times = Vec::new();
        for n in 0..rounds {
            stop.check()?;
            let begun = Instant::now();
            file.write_all_at(&page.0, (n % PAGES * 4096) as u64)?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        batches.push(times);
    }
    std::fs::remove_file(path)?;
    Ok(Some(batches))
}

async fn single_commits(writer: &Writer, repetitions: usize, rounds: usize) -> Result<Vec<Vec<f64>>, Failure> {
    let mut batches = Vec::new();
    for _ in 0..repetitions {
        let mut times = Vec::new();
        for n in 0..rounds {
            let mut commit = Commit::new();
            commit.put_setting("bench", &[n as u8; 200]);
            let begun = Instant::now();
            writer.commit(commit).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        batches.push(times);
    }
    Ok(batches)
}

async fn create(handle: &Handle, name: &str, definition: &str) -> Result<(), Failure> {
    let new = NewMachine {
        name: name.to_owned(),
        definition: definition.to_owned(),
        role_arn: "arn:aws:iam::000000000000:role/bench".to_owned(),
        ..NewMachine::default()
    };
    handle.create_machine(new).await?;
    Ok(())
}

fn steps() -> String {
    let mut states = serde_json::Map::new();
    for n in 0..STEPS {
        let mut state = json!({ "Type": "Task", "Resource": "arn:aws:states:::conveyor:probe" });
        match n + 1 == STEPS {
            true => state["End"] = true.into(),
            false => state["Next"] = format!("Step{}", n + 1).into(),
        }
        states.insert(format!("Step{n}"), state);
    }
    json!({ "StartAt": "Step0", "States": states }).to_string()
}

fn sleep() -> String {
    json!({ "StartAt": "Sleep", "States": {
        "Sleep": { "Type": "Wait", "TimestampPath": "$.at", "Next": "Awake" },
        "Awake": { "Type": "Task", "Resource": "arn:aws:states:::conveyor:probe", "End": true },
    } })
    .to_string()
}

fn start_of(machine: &str, input: &serde_json::Value) -> StartRequest {
    StartRequest { machine: machine.to_owned(), input: input.to_string().into(), ..StartRequest::default() }
}

/// Milliseconds of each workflow from its start to its durable end, sorted, in batches.
async fn one_at_a_time(handle: &Handle, repetitions: usize, rounds: usize) -> Result<Vec<Vec<f64>>, Failure> {
    const LATE: u64 = 60;
    let mut updates = handle.subscribe();
    let mut batches = Vec::new();
    for _ in 0..repetitions {
        let mut times = Vec::new();
        for n in 0..rounds {
            let begun = Instant::now();
            let started = handle.start(start_of("bench-steps", &json!({ "n": n }))).await?;
            let ended = async {
                loop {
                    match updates.recv().await {
                        Ok(LiveUpdate::Changed { execution, status, .. })
                            if execution == started.id && status != Status::Running =>
                        {
                            return Ok(());
                        }
                        Ok(_) => {}
                        Err(_) => return Err(Failure::Broken),
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(LATE), ended).await.map_err(|_| Failure::Late(LATE))??;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        batches.push(times);
    }
    Ok(batches)
}

/// Steps a second, with as many workflows under way as the crowd has.
async fn crowd(
    handle: &Handle,
    answering: &Answering,
    repetitions: usize,
    time: Duration,
) -> Result<Vec<f64>, Failure> {
    let stopper = super::work::Stopper::default();
    let stopping = stopper.stop();
    let workers = (0..CROWD).map(|_| {
        let (handle, answering, stop) = (handle.clone(), answering.clone(), stopping.clone());
        async move {
            while !stop.is_set() {
                let started = handle.start(start_of("bench-steps", &json!({}))).await?;
                answering.last_step_of(started.id).await?;
            }
            Ok::<(), Failure>(())
        }
    });
    let counts = answering.0.clone();
    let clock = async move {
        // The first moments fill the crowd.
        tokio::time::sleep(time / 4).await;
        let mut rates = Vec::new();
        for _ in 0..repetitions {
            let (begun, before) = (Instant::now(), counts.steps.load(Ordering::Relaxed));
            tokio::time::sleep(time).await;
            let steps = counts.steps.load(Ordering::Relaxed) - before;
            rates.push(steps as f64 / begun.elapsed().as_secs_f64());
        }
        drop(stopper);
        rates
    };
    let (rates, ends) = tokio::join!(clock, join_all(workers));
    ends.into_iter().collect::<Result<Vec<()>, Failure>>()?;
    Ok(rates)
}

/// Wake-ups a second of executions that all wake at one time, and by how many milliseconds the middle one was late.
async fn wake(handle: &Handle, answering: &Answering, sleepers: usize) -> Result<(f64, f64), Failure> {
    const LATE: u64 = 120;
    // Waits count in whole seconds, as on AWS.
    let at = Timestamp((handle.now().0 + SLEEP_MS + sleepers as i64 / 4) / 1_000 * 1_000);
    let input = json!({ "at": at.to_string() });
    let mut asleep = Vec::new();
    for _ in 0..sleepers.div_ceil(CROWD) {
        let some = (0..CROWD.min(sleepers - asleep.len())).map(|_| handle.start(start_of("bench-sleep", &input)));
        for started in join_all(some).await {
            asleep.push(started?.id);
        }
    }
    let waiting = join_all(asleep.iter().map(|id| answering.last_step_of(*id)));
    let woken = tokio::time::timeout(Duration::from_secs(LATE), waiting).await.map_err(|_| Failure::Late(LATE))?;
    let mut late = Vec::new();
    for moment in woken {
        late.push(moment?.since_ms(at).max(0) as f64);
    }
    late.sort_by(f64::total_cmp);
    let last = late.last().copied().unwrap_or(0.0).max(1.0);
    Ok((sleepers as f64 * 1_000.0 / last, percentile(&late, 50)))
}

/// Tasks that succeed at once.
#[derive(Clone, Default)]
struct Answering(Arc<Counts>);

#[derive(Default)]
struct Counts {
    steps: AtomicU64,
    /// Who waits for the last step of which execution, or when it was reached.
    last: Mutex<HashMap<ExecutionId, Last>>,
}

enum Last {
    Awaited(oneshot::Sender<Timestamp>),
    Reached(Timestamp),
}

impl Answering {
    async fn last_step_of(&self, id: ExecutionId) -> Result<Timestamp, Failure> {
        let reached = {
            let mut last = self.0.last.lock();
            match last.remove(&id) {
                Some(Last::Reached(at)) => return Ok(at),
                _ => {
                    let (tell, reached) = oneshot::channel();
                    last.insert(id, Last::Awaited(tell));
                    reached
                }
            }
        };
        reached.await.map_err(|_| Failure::Broken)
    }

    fn reached(&self, id: ExecutionId, at: Timestamp) {
        let mut last = self.0.last.lock();
        match last.remove(&id) {
            // Who waited may have gone.
            Some(Last::Awaited(tell)) => drop(tell.send(at)),
            _ => drop(last.insert(id, Last::Reached(at))),
        }
    }
}

impl Resource for Answering {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        let this = self.clone();
        Box::pin(async move {
            this.0.steps.fetch_add(1, Ordering::Relaxed);
            let state: &str = &context.task.state;
            if state == "Awake" || state.strip_prefix("Step").is_some_and(|n| n.parse() == Ok(STEPS - 1)) {
                this.reached(context.execution, context.handle.now());
            }
            TaskOutcome::Succeeded(Json::from("{}")).into()
        })
    }
}

impl Resources for Answering {
    fn find(&self, _: &str) -> Option<Arc<dyn Resource>> {
        Some(Arc::new(self.clone()))
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Err(TaskError::new("States.Runtime", "the benchmark starts no children"))
    }
}
