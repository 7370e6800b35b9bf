//! Starting an execution: one commit holds the start, its first states, and what goes along: the end of the Task that
//! starts it, an audit entry, rows of others.

use std::hash::{DefaultHasher, Hash, Hasher};

use conveyor_base::ExecutionId;
use conveyor_base::limits::quotas;
use conveyor_interpreter::{Command, Event, Execution, MachineRef, Status};
use conveyor_store::{Commit, MachineRow};

use super::audit::By;
use super::completion::Completion;
use super::core::SharedCore;
use super::execution::announce;
use super::handle::{StartRequest, Started};
use super::resource::TaskOutcome;
use super::{Refused, events, express, guarded};

/// A Task that starts an execution, and ends with it: in one commit.
pub(super) struct Starting {
    completion: Completion,
    /// What the Task's attempt comes to; taken once it is known.
    shape: Option<Shape>,
    has_joined: bool,
}

/// What a Task's attempt comes to that starts an execution.
pub(super) type Shape = Box<dyn FnOnce(&Result<Started, Refused>) -> TaskOutcome + Send>;

impl Starting {
    pub fn new(completion: Completion, shape: Shape) -> Starting {
        Starting { completion, shape: Some(shape), has_joined: false }
    }

    /// Adds the attempt's end to the commit of the start. False: the attempt is over, and nothing may be started for it.
    fn join(&mut self, started: &Started, commit: &mut Commit) -> bool {
        let outcome = self.shape.take().map(|shape| shape(&Ok(started.clone())));
        self.has_joined = outcome.is_some_and(|outcome| self.completion.join(outcome, commit));
        self.has_joined
    }

    /// The start is through, in whichever way.
    pub fn end(self, started: &Result<Started, Refused>) {
        match self {
            Starting { completion, has_joined: true, .. } if started.is_ok() => completion.durable(),
            Starting { completion, shape: Some(shape), .. } => completion.answer(shape(started)),
            // Nothing was stored. The attempt is issued again, if it is not over.
            Starting { .. } => {}
        }
    }
}

/// StartExecution. Idempotent by name: the same name with the same input answers the running execution.
pub(super) async fn start(
    core: &SharedCore,
    request: StartRequest,
    by: By<'_>,
    task: Option<&mut Starting>,
) -> Result<Started, Refused> {
    if core.is_closing() {
        return Err(Refused::closing());
    }
    let most = quotas().executions;
    if core.reader.count(Status::Running) as usize >= most {
        let what = format!("{most} executions are running; wait until some have ended");
        return Err(Refused::new("ExecutionLimitExceeded", what));
    }
    let row = core.reader.machine(&request.machine)?;
    if let Some(row) = row.as_ref().filter(|row| express::is_meant(row, &request)) {
        return express::start(core, request, row, by).await;
    }
    match request.name.clone() {
        None => begin(core, request, row, uuid::Uuid::new_v4().to_string(), by, task).await,
        Some(name) => {
            // Two starts of one name must not both find it free.
            let mut hasher = DefaultHasher::new();
            (&request.machine, &name).hash(&mut hasher);
            let _held = core.names[hasher.finish() as usize % core.names.len()].lock().await;
            if let Some(id) = core.reader.by_name(&request.machine, &name)? {
                return existing(core, &request, id, name).await;
            }
            begin(core, request, row, name, by, task).await
        }
    }
}

async fn existing(
    core: &SharedCore,
    request: &StartRequest,
    id: ExecutionId,
    name: String,
) -> Result<Started, Refused> {
    let header = core.reader.header(id).await?.ok_or_else(|| Refused::no_execution(id))?;
    // A child's name is its parent's to give: the same attempt asking again after a crash gets the same child,
    // whether that has ended or not.
    let same_parent = request.parent.is_some() && request.parent == header.parent;
    let same_input = header.input == request.input;
    let arn = core.execution_arn(&request.machine, &name);
    if same_input && (same_parent || request.once || header.status == Status::Running) {
        return Ok(Started { id, arn, name, started_at: header.started_at, existed: true });
    }
    Err(Refused::new("ExecutionAlreadyExists", format!("Execution Already Exists: '{arn}'")))
}

async fn begin(
    core: &SharedCore,
    request: StartRequest,
    row: Option<MachineRow>,
    name: String,
    by: By<'_>,
    mut task: Option<&mut Starting>,
) -> Result<Started, Refused> {
    let arn = || core.machine_arn(&request.machine);
    let row = row.ok_or_else(|| Refused::no_machine(&arn()))?;
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
    let step = guarded::begin(&machine, &execution, &entry);

    let mut commit = Commit::new();
    commit.step(None, &step);
    let announced = match &step.header {
        Some(header) => core.resources.begun(header, &mut commit),
        None => Vec::new(),
    };
    let arn = machine.env.execution_arn(&execution.header);
    let started = Started { id, arn, name, started_at: entry.at, existed: false };
    if task.as_mut().is_some_and(|task| !task.join(&started, &mut commit)) {
        return Err(Refused::task_timed_out());
    }
    if let Some(by) = by {
        by.join_of(id, &mut commit);
    }
    core.expect(id);
    core.commit(commit).await.inspect_err(|_| core.cancel_expected(id))?;
    core.resources.announced(announced);
    execution.apply(&step);
    events::ExecutionStarted { id, machine: &execution.header.machine.name, name: &started.name }.emit();
    announce(core, &execution.header);
    core.logs.push(&machine, &execution.header, step.history);
    act(core, execution, step.commands);
    // A Task that ends with the start was not cancelled meanwhile.
    if let (Some(parent), None) = (&request.parent, &task) {
        core.stop_orphan(parent, id)?;
    }
    Ok(started)
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
        core.send(id, super::execution::Message::Leased { task, lease: Ok(None) }, Some(known));
    }
    core.cancel_expected(id);
    core.act(&execution.header, commands);
}
