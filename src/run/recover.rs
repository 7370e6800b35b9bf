//! The start of the appliance: actors, lanes, timers, and taking up what was in flight.
//!
//! Recovery looks at what was in flight and at nothing else: outstanding tasks and untold endings are tables of
//! their own. Executions that only wait stay rows.

use std::time::Duration;

use ractor::Actor;

use super::core::{Config, Core, SharedCore};
use super::lanes::{self, LanesActor};
use super::supervise::{Begun, OnFailure, Root, keep, supervise};
use super::{Handle, activities, events, timers};
use crate::base::{ExecutionId, Fault};
use crate::interpreter::RunTask;

const LANES: &str = "the lanes";
/// How long an attempt waits whose service failed under it.
const TAKE_UP_AGAIN: Duration = Duration::from_millis(200);
/// Tasks taken up between two yields to everybody else.
const TAKEN_UP_PER_TURN: usize = 256;

/// Starts the appliance's actors. Serving may begin when this returns: what was in flight is taken up beside it.
pub async fn start(mut config: Config) -> Result<Handle, Fault> {
    let lanes = std::mem::take(&mut config.lanes);
    let core = Core::new(config);
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
                Ok(Begun { actor: lanes.get_cell(), go: Box::new(|| {}) })
            })
        })
        .await?;
    }
    // Without these no Wait, time-out or Retry of the box would go on, and nothing would say so.
    let sleeping = core.clone();
    keep(&core, "the timers", OnFailure::End, move || timers::run(sleeping.clone())).await?;
    let taking_up = core.clone();
    keep(&core, "the recovery", OnFailure::End, move || take_up(taking_up.clone())).await?;
    Ok(Handle::of(core))
}

async fn take_up(core: SharedCore) -> Result<(), Fault> {
    let begun = core.clock.now();
    let (tasks, deliveries) = issue_again(&core).await?;
    if (tasks, deliveries) != (0, 0) {
        events::Recovered { tasks, deliveries, took_ms: core.clock.now().since_ms(begun) }.emit();
    }
    Ok(())
}

async fn issue_again(core: &SharedCore) -> Result<(usize, usize), Fault> {
    let mut tasks = 0;
    for row in core.reader.outstanding() {
        let (id, task) = row?;
        if task.scheduled_at > core.clock.now() {
            tracing::warn!(%id, "a task was scheduled in the future: the box's clock was set back");
        }
        issue(core, id, task)?;
        tasks += 1;
        if tasks % TAKEN_UP_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut deliveries = 0;
    for id in core.reader.deliveries() {
        if let Some(header) = core.reader.header(id?)? {
            core.deliver(header);
            deliveries += 1;
        }
    }
    core.stop_orphans()?;
    core.stop_orphan_runs()?;
    core.leave_all().await?;
    Ok((tasks, deliveries))
}

fn issue(core: &SharedCore, id: ExecutionId, task: RunTask) -> Result<(), Fault> {
    let with_worker = activities::is_activity(&task.resource) && core.is_with_a_worker(id, &task)?;
    if !with_worker {
        // Its input tells its priority, which counts only where it has to wait.
        let header = if core.needs_no_lane(&task) { None } else { core.reader.header(id)? };
        core.run_task(id, Box::new(task), header.as_ref().map_or("", |header| &header.input));
    }
    Ok(())
}

/// The same after a moment: what its attempt needs is on its way back.
pub(super) fn take_up_one_later(core: &SharedCore, id: ExecutionId) {
    let core = core.clone();
    tokio::spawn(async move {
        tokio::time::sleep(TAKE_UP_AGAIN).await;
        if !core.is_closing() {
            take_up_one(&core, id);
        }
    });
}

/// Takes up one execution from its rows.
pub(super) fn take_up_one(core: &SharedCore, id: ExecutionId) {
    if let Err(fault) = issue_one_again(core, id) {
        core.note(&fault);
    }
}

fn issue_one_again(core: &SharedCore, id: ExecutionId) -> Result<(), Fault> {
    let Some(execution) = core.reader.execution(id)? else { return Ok(()) };
    for attempt in execution.branches.values().filter_map(|branch| branch.doing.attempt()) {
        if let Some(task) = core.reader.is_outstanding(id, attempt)? {
            issue(core, id, task)?;
        }
    }
    if execution.header.stopped_at.is_some() {
        core.deliver(execution.header);
    }
    Ok(())
}
