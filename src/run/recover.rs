//! The start of the appliance: actors, lanes, timers, and taking up what was in flight.
//!
//! Recovery looks at what was in flight and at nothing else: outstanding tasks and untold endings are tables of
//! their own. Executions that only wait stay rows.

use ractor::Actor;

use super::core::{Config, Core, Root, SharedCore};
use super::lanes::{self, LanesActor};
use super::{Handle, activities, events, timers};
use crate::base::{ExecutionId, Fault};
use crate::interpreter::RunTask;

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
        let arguments = lanes::Arguments { lanes, core: core.clone() };
        let spawned = LanesActor::spawn_linked(None, LanesActor, arguments, root.get_cell()).await;
        let _ = core.lanes.set(spawned.map_err(|e| failed("leasing lanes", e))?.0);
    }
    tokio::spawn(timers::run(core.clone()));
    tokio::spawn(take_up(core.clone()));
    Ok(Handle::of(core))
}

async fn take_up(core: SharedCore) {
    let begun = core.clock.now();
    match issue_again(&core).await {
        Ok((0, 0)) => {}
        Ok((tasks, deliveries)) => {
            events::Recovered { tasks, deliveries, took_ms: core.clock.now().since_ms(begun) }.emit();
        }
        Err(fault) => core.note(&fault),
    }
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
        let input = core.reader.header(id)?.map(|header| header.input).unwrap_or_default();
        core.run_task(id, Box::new(task), &input);
    }
    Ok(())
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
