//! The start of the appliance: actors, lanes, timers, and resuming what was in flight.
//!
//! Recovery looks at what was in flight and at nothing else: outstanding tasks and untold endings are tables of
//! their own. Executions that only wait stay rows. What is damaged of one execution is that one's, and keeps no other from
//! being resumed.

use std::sync::Arc;
use std::time::Duration;

use conveyor_base::{Attempt, Backoff, BoxClock, ClockMark, ExecutionId, Fault, fault};
use conveyor_interpreter::Json;
use conveyor_interpreter::{Doing, RunTask, TaskPhase};
use conveyor_store::{Scans, unless_damaged};
use ractor::Actor;

use super::core::{Config, Core, SharedCore};
use super::execution::Message;
use super::lanes::{self, LanesActor};
use super::supervise::{OnFailure, Root, StartedPart, run_supervised, supervise};
use super::{Handle, activities, events, express, timers};

const LANES: &str = "the lanes";
/// How long an attempt waits whose service failed under it, or is away.
const RESUME_AFTER: Backoff = Backoff { min_ms: 100, max_ms: 5_000 };
/// How often, and after which pauses, reads are tried whose error passes.
const PASSES_MAX: u32 = 10;
const PASSES_AFTER: Backoff = Backoff { min_ms: 5, max_ms: 500 };
/// Tasks resumed between two reads.
const RESUMED_PER_TURN: usize = 256;

/// Starts the appliance's actors. Serving may begin when this returns: what was in flight is resumed beside it.
pub async fn start(mut config: Config) -> Result<Handle, Fault> {
    let lanes = std::mem::take(&mut config.lanes);
    let express_record = config.express_record.take();
    // Where the mark is damaged the box's time is the wall clock's, as at its first start: so it is after a repair, too.
    let mark = unless_damaged(config.reader.setting(timers::CLOCK))?.flatten();
    let mark = mark.and_then(|mark| ClockMark::of_bytes(&mark));
    let clock = Arc::new(BoxClock::new(config.clock.clone(), mark));
    let core = Core::new(config, clock);
    // Before anything can be started: what runs unrecorded is lost with the process.
    if let Some(folder) = express_record {
        express::open_record(&core, folder).await?;
    }
    let failed = |what: &str, e: ractor::SpawnErr| Fault::fatal(format!("{what} does not start"), e);
    let (root, _) = Root::spawn(None, Root, core.clone()).await.map_err(|e| failed("the root actor", e))?;
    // Both are set here only, once.
    let _ = core.root.set(root.get_cell());
    if !lanes.is_empty() {
        let leasing = core.clone();
        // What waits for a lane is in its memory alone, which only a restart builds again.
        supervise(&core, LANES, OnFailure::End, move |root| {
            let (core, lanes) = (leasing.clone(), lanes.clone());
            Box::pin(async move {
                let arguments = lanes::Arguments { lanes, core: core.clone() };
                let spawned = LanesActor::spawn_linked(None, LanesActor(LANES.into()), arguments, root).await;
                let (lanes, _) = spawned.map_err(|e| e.to_string())?;
                // Set here only, once.
                let _ = core.lanes.set(lanes.clone());
                Ok(StartedPart { actor: lanes.get_cell(), go: Box::new(|| {}) })
            })
        })
        .await?;
    }
    // Without these no Wait, time-out or Retry of the box would go on, and nothing would say so.
    let sleeping = core.clone();
    run_supervised(&core, "the timers", OnFailure::End, move || timers::run(sleeping.clone())).await?;
    let resuming = core.clone();
    run_supervised(&core, "the recovery", OnFailure::End, move || resume_all(resuming.clone())).await?;
    Ok(Handle::of(core))
}

async fn resume_all(core: SharedCore) -> Result<(), Fault> {
    let begun = core.clock.now();
    // What is issued twice is done once.
    let (tasks, deliveries) = passing(|| issue_again(&core)).await?;
    if (tasks, deliveries) != (0, 0) {
        events::Recovered { tasks, deliveries, took_ms: core.clock.now().since_ms(begun) }.emit();
    }
    Ok(())
}

/// Does it again while the state file is being opened anew, because somebody came upon damage in it.
pub(super) async fn passing<T, W>(mut work: impl FnMut() -> W) -> Result<T, Fault>
where
    W: Future<Output = Result<T, Fault>>,
{
    for times in 1..PASSES_MAX {
        match work().await {
            Err(Fault::Retryable { .. }) => tokio::time::sleep(PASSES_AFTER.pause(times)).await,
            done => return done,
        }
    }
    work().await
}

async fn issue_again(core: &SharedCore) -> Result<(usize, usize), Fault> {
    let (mut tasks, mut reached) = (0, None);
    loop {
        let (reading, after) = (core.clone(), reached);
        let turn = core.reader.blocking(move |rows| next_to_issue(&reading, rows, after)).await;
        // The list is damaged: whoever runs is looked at.
        let Some(turn) = unless_damaged(turn)? else {
            tasks += resume_running(core).await?;
            break;
        };
        let issued = turn.issued.len();
        turn.issued.into_iter().for_each(|issued| issued.go(core));
        tasks += issued;
        reached = turn.reached;
        if reached.is_none() {
            break;
        }
    }
    let mut deliveries = 0;
    // What lies behind a damaged row nobody knows; each of what comes is one execution's, and none of the box's.
    let untold: Vec<ExecutionId> = core
        .reader
        .blocking(|rows| rows.deliveries().filter_map(|id| unless_damaged(id).transpose()).collect())
        .await?;
    for id in untold {
        if let Some(header) = unless_damaged(core.reader.header(id).await)?.flatten() {
            core.deliver(header);
            deliveries += 1;
        }
    }
    unless_damaged(core.stop_orphans().await)?;
    unless_damaged(core.stop_orphan_runs().await)?;
    unless_damaged(core.leave_all().await)?;
    Ok((tasks, deliveries))
}

/// Resumes each execution that runs, from its own rows. Says how many.
async fn resume_running(core: &SharedCore) -> Result<usize, Fault> {
    let running = core.reader.blocking(|rows| rows.running()).await?;
    for id in &running {
        match resume_execution(core, *id).await {
            Err(fault @ Fault::Damaged { .. }) => {
                core.send(*id, Message::Damaged { what: fault::chain(&fault) }, None);
            }
            resumed => resumed?,
        }
    }
    Ok(running.len())
}

/// The tasks of one turn, and the one that it reached; `None` at the end.
struct Turn {
    issued: Vec<Issued>,
    reached: Option<(ExecutionId, Attempt)>,
}

fn next_to_issue(core: &SharedCore, rows: &Scans, after: Option<(ExecutionId, Attempt)>) -> Result<Turn, Fault> {
    let outstanding = rows.outstanding(after, RESUMED_PER_TURN)?;
    let full = outstanding.len() == RESUMED_PER_TURN;
    let reached = outstanding.last().map(|(id, task)| (*id, task.attempt)).filter(|_| full);
    let mut issued = Vec::with_capacity(outstanding.len());
    for (id, task) in outstanding {
        issued.extend(Issued::again(core, rows, id, task)?);
    }
    Ok(Turn { issued, reached })
}

/// A task to be queued again.
struct Issued {
    execution: ExecutionId,
    task: Box<RunTask>,
    /// The execution's, which tells the priority. Empty where that does not count, since nothing has to be waited for.
    input: Json,
}

impl Issued {
    /// `None`: a worker is at it.
    fn again(core: &SharedCore, rows: &Scans, id: ExecutionId, task: RunTask) -> Result<Option<Issued>, Fault> {
        // What is damaged its own actor meets, as soon as it takes up the task.
        let with_a_worker = || unless_damaged(is_with_a_worker(rows, id, &task));
        if activities::is_activity(&task.resource) && with_a_worker()?.unwrap_or_default() {
            return Ok(None);
        }
        let header = if core.needs_no_lane(&task) { None } else { unless_damaged(rows.header(id))?.flatten() };
        let input = header.map_or_else(|| Json::from(""), |header| header.input);
        Ok(Some(Issued { execution: id, task: Box::new(task), input }))
    }

    fn go(self, core: &SharedCore) {
        core.run_task(self.execution, self.task, &self.input);
    }
}

fn is_with_a_worker(rows: &Scans, id: ExecutionId, task: &RunTask) -> Result<bool, Fault> {
    let doing = rows.branch(id, task.branch)?.map(|branch| branch.doing);
    Ok(matches!(doing, Some(Doing::Task { phase: TaskPhase::Started, attempt, .. }) if attempt == task.attempt))
}

/// Issues an attempt again, and no other of its execution, after a moment: what it needs is on its way back. `times` is
/// how often that was in vain.
pub(super) fn resume_attempt_later(core: &SharedCore, id: ExecutionId, attempt: Attempt, times: u32) {
    let core = core.clone();
    tokio::spawn(async move {
        for times in times.. {
            tokio::time::sleep(RESUME_AFTER.pause(times)).await;
            if core.is_closing() {
                return;
            }
            let reading = core.clone();
            let read = core.reader.blocking(move |rows| match rows.outstanding_task(id, attempt)? {
                Some(task) => Issued::again(&reading, rows, id, task),
                None => Ok(None),
            });
            match read.await {
                Ok(issued) => return issued.into_iter().for_each(|issued| issued.go(&core)),
                Err(fault @ Fault::Damaged { .. }) => {
                    return core.send(id, Message::Damaged { what: fault::chain(&fault) }, None);
                }
                // One that ends the appliance is noted; any other may pass.
                Err(fault) => core.note(&fault),
            }
        }
    });
}

/// Resumes an execution after its actor failed, which may not have carried out all of a step: its timers too are read
/// anew.
pub(super) fn reload_execution(core: &SharedCore, id: ExecutionId, pause: Duration) {
    let core = core.clone();
    tokio::spawn(async move {
        tokio::time::sleep(pause).await;
        for times in 0.. {
            if core.is_closing() {
                return;
            }
            core.timers.read_anew();
            match resume_execution(&core, id).await {
                Ok(()) => return,
                Err(fault @ Fault::Damaged { .. }) => {
                    return core.send(id, Message::Damaged { what: fault::chain(&fault) }, None);
                }
                // One that ends the appliance is noted; any other may pass.
                Err(fault) => core.note(&fault),
            }
            tokio::time::sleep(RESUME_AFTER.pause(times)).await;
        }
    });
}

/// Resumes one execution from its rows.
async fn resume_execution(core: &SharedCore, id: ExecutionId) -> Result<(), Fault> {
    let reading = core.clone();
    let read = core.reader.blocking(move |rows| {
        let Some(execution) = rows.execution(id)? else { return Ok::<_, Fault>(None) };
        let mut issued = Vec::new();
        for attempt in execution.branches.values().filter_map(|branch| branch.doing.attempt()) {
            if let Some(task) = rows.outstanding_task(id, attempt)? {
                issued.extend(Issued::again(&reading, rows, id, task)?);
            }
        }
        Ok(Some((execution.header, issued)))
    });
    if let Some((header, issued)) = read.await? {
        issued.into_iter().for_each(|issued| issued.go(core));
        if header.stopped_at.is_some() {
            core.deliver(header);
        }
    }
    Ok(())
}
