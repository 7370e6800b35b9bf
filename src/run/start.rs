//! Starting an execution: one commit holds the start and its first states.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::core::SharedCore;
use super::execution::announce;
use super::handle::{Start, Started};
use super::{Refused, events, quarantine};
use crate::base::ExecutionId;
use crate::base::limits::EXECUTIONS_ACTIVE_MAX;
use crate::interpreter::{Command, Event, Execution, MachineRef, Status};
use crate::store::{Commit, MachineKind};

/// StartExecution. Idempotent by name: the same name with the same input answers the running execution.
pub(super) async fn start(core: &SharedCore, request: Start) -> Result<Started, Refused> {
    if core.is_closing() {
        return Err(Refused::new("ServiceUnavailable", "the appliance is shutting down"));
    }
    if core.reader.count(Status::Running) as usize >= EXECUTIONS_ACTIVE_MAX {
        let what = format!("{EXECUTIONS_ACTIVE_MAX} executions are running; wait until some have ended");
        return Err(Refused::new("ExecutionLimitExceeded", what));
    }
    match request.name.clone() {
        None => begin(core, request, uuid::Uuid::new_v4().to_string()).await,
        Some(name) => {
            // Two starts of one name must not both find it free.
            let mut hasher = DefaultHasher::new();
            (&request.machine, &name).hash(&mut hasher);
            let _held = core.names[hasher.finish() as usize % core.names.len()].lock().await;
            // Names of express executions need not differ.
            if let Some(id) = core.reader.by_name(&request.machine, &name)?
                && !is_express(core, &request)?
            {
                return existing(core, &request, id, name);
            }
            begin(core, request, name).await
        }
    }
}

/// Of children, the parent's attempt finds its own again by name.
fn is_express(core: &SharedCore, request: &Start) -> Result<bool, Refused> {
    let stands_alone = request.parent.is_none() && !request.once;
    Ok(stands_alone && core.reader.machine(&request.machine)?.is_some_and(|row| row.kind == MachineKind::Express))
}

fn existing(core: &SharedCore, request: &Start, id: ExecutionId, name: String) -> Result<Started, Refused> {
    let header = core.reader.header(id)?.ok_or_else(|| Refused::no_execution(id))?;
    // A child's name is its parent's to give: the same attempt asking again after a crash gets the same child,
    // whether that has ended or not.
    let same_parent = request.parent.is_some() && request.parent == header.parent;
    let same_input = header.input == request.input;
    if same_input && (same_parent || request.once || header.status == Status::Running) {
        return Ok(Started { id, name, started_at: header.started_at, existed: true });
    }
    let arn = core.execution_arn(&request.machine, &name);
    Err(Refused::new("ExecutionAlreadyExists", format!("Execution Already Exists: '{arn}'")))
}

async fn begin(core: &SharedCore, request: Start, name: String) -> Result<Started, Refused> {
    let arn = || core.machine_arn(&request.machine);
    let row = core.reader.machine(&request.machine)?.ok_or_else(|| Refused::no_machine(&arn()))?;
    if row.deleting {
        return Err(Refused::new("StateMachineDeleting", format!("State Machine is being deleted: '{}'", arn())));
    }
    let entry = core.entry(Event::Started);
    let id = ExecutionId::generate(entry.at);
    let (qualifier, revision) = match &request.qualifier {
        None => (None, row.revision),
        Some(qualifier) => {
            let (qualifier, revision) = core.resolve(&row.name, qualifier, id)?;
            (Some(qualifier), revision)
        }
    };
    let reference = MachineRef { name: request.machine, revision, qualifier };
    let machine = core.machine(&reference)?;
    let mut execution = Execution::start(id, name.clone(), reference, request.input, entry.at);
    execution.header.parent = request.parent.clone();
    execution.header.trace_header = request.trace_header;
    let step = quarantine::step(&machine, &execution, &entry);

    let mut commit = Commit::new();
    commit.step(None, &step);
    core.expect(id);
    core.commit(commit).await.inspect_err(|_| core.expect_no_more(id))?;
    execution.apply(&step);
    events::ExecutionStarted { id, machine: &execution.header.machine.name, name: &name }.emit();
    announce(core, &execution);
    act(core, execution, step.commands);
    if let Some(parent) = &request.parent {
        core.stop_orphan(parent, id)?;
    }
    Ok(Started { id, name, started_at: entry.at, existed: false })
}

/// Carries out the first step's commands. Where a task can run at once, its actor gets the execution as it is
/// stored and need not read it.
pub(super) fn act(core: &SharedCore, execution: Execution, commands: Vec<Command>) {
    let mut commands = commands;
    let direct = commands.iter().position(|command| match command {
        Command::RunTask(task) => core.needs_no_lane(task),
        _ => false,
    });
    let id = execution.header.id;
    if let Some(Command::RunTask(task)) = direct.map(|place| commands.remove(place)) {
        // Before anything else is acted on: a lane's grant or a timer may change the execution.
        let known = Box::new(execution.clone());
        core.send(id, super::execution::Message::Leased { task, lease: None }, Some(known));
    }
    core.expect_no_more(id);
    core.act(&execution, commands);
}
