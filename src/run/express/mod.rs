//! Express executions: decided by the same `step`, kept in memory, gone when they have ended.
//!
//! ```text
//! start ──> first step ──ended──> log, board
//!              │ waits for something
//!              v
//!           record of the start (asynchronous ones) ──> live: step, act, step, act … ──> log, board, record
//! ```
//!
//! No step of theirs is stored and none waits for a sync. What an operator has of them is their log, and the board: what
//! runs, what ended lately, and counts since the appliance started.
//!
//! - Started by StartExecution they run *at least once*: a start that cannot end in its first step is a line in a file
//!   before it is acknowledged, and what has no end in that file runs anew, from its start, when the appliance
//!   starts again. The line is written and not synced: it survives the process and not a power cut. Starts of which the
//!   caller says that they must not get lost (a file that was dropped) are synced. One that cannot be written, or not
//!   be synced, is refused, and does not run: an end is written behind its line. Where that cannot be written either, or a power
//!   cut comes before both are on the disk, it may run anew all the same.
//! - Started by StartSyncExecution they run *at most once*: who waits for the answer sees that it does not come.
//! - Children for whose end a Standard execution waits are not run here: they are stored like their parents.

mod board;
mod live;
mod record;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use conveyor_base::limits::quotas;
use conveyor_base::{ExecutionId, Fault};
use conveyor_interpreter::{Command, Event, Execution, Header, HistoryEvent, MachineRef, Status};
use conveyor_store::{MachineKind, MachineRow};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub use board::{By, Counts, Ended, ExpressBoard, Running};

use super::audit::{self, OnBehalf};
use super::core::{Core, SharedCore};
use super::execution::Message;
use super::handle::{StartRequest, Started};
use super::supervise::within_part;
use super::{Refused, events, guarded};
use board::Board;
use live::LiveExecution;
use record::{Record, Recorded};

use super::catalog::Machine;

/// What all express executions of the appliance share.
pub(super) struct Express {
    inboxes: Mutex<HashMap<ExecutionId, mpsc::UnboundedSender<Message>>>,
    board: Board,
    /// What executions at work are called together. One that fails fails alone.
    part: Arc<str>,
    /// Where starts are written down; none where nothing shall outlive the process.
    record: std::sync::OnceLock<Record>,
    /// What the former process had in flight, until it runs anew.
    unfinished: Mutex<Vec<Recorded>>,
}

impl Express {
    /// The appliance ends in order: what runs still did not take it down, and runs anew after the restart.
    pub async fn end_in_order(&self) {
        if let Some(record) = self.record.get() {
            // Where that cannot be written the end counts as one out of order.
            let _ = record.ends_in_order().await;
        }
    }

    pub fn new() -> Express {
        let (inboxes, board, record, unfinished) = Default::default();
        Express { inboxes, board, part: Arc::from("the express executions"), record, unfinished }
    }

    /// Hands a message to the express execution of that id; gives it back where there is none.
    pub fn send(&self, id: ExecutionId, message: Message) -> Option<Message> {
        let inboxes = self.inboxes.lock();
        match inboxes.get(&id) {
            Some(inbox) => inbox.send(message).err().map(|back| back.0),
            None => Some(message),
        }
    }

    pub fn board(&self) -> ExpressBoard {
        self.board.show()
    }
}

/// Whether the start is one for this module: of an express machine, and nobody's child.
pub(super) fn is_meant(row: &MachineRow, request: &StartRequest) -> bool {
    row.kind == MachineKind::Express && request.parent.is_none()
}

/// StartExecution.
pub(super) async fn start(
    core: &SharedCore,
    request: StartRequest,
    row: &MachineRow,
    by: audit::By<'_>,
) -> Result<Started, Refused> {
    let must_not_get_lost = request.once;
    let begun = Begun::new(core, request, row, None)?.by(by);
    let header = &begun.execution.header;
    let arn = begun.machine.env.execution_arn(header);
    let (id, started_at) = (header.id, header.started_at);
    let started = Started { id, arn, name: header.name.clone(), started_at, existed: false };
    if begun.is_over() {
        begun.end_at_once();
        return Ok(started);
    }
    if let Some(record) = core.express.record.get() {
        record.started(header, must_not_get_lost).await.inspect_err(|fault| core.note(fault))?;
    }
    begun.go_on(None);
    Ok(started)
}

/// StartSyncExecution: resolves with the execution as it ended.
pub(super) async fn start_sync(core: &SharedCore, request: StartRequest, by: audit::By<'_>) -> Result<Header, Refused> {
    let row = machine_row(core, &request)?;
    let begun = Begun::new(core, request, &row, None)?.by(by);
    if begun.is_over() {
        return Ok(begun.end_at_once());
    }
    let (end, ended) = oneshot::channel();
    begun.go_on(Some(end));
    ended.await.map_err(|_| Refused::closing())
}

fn machine_row(core: &Core, request: &StartRequest) -> Result<MachineRow, Refused> {
    let missing = || Refused::no_machine(&core.machine_arn(&request.machine));
    core.reader.machine(&request.machine)?.ok_or_else(missing)
}

/// Stops one that runs. False where there is none of that id.
pub(super) async fn stop(
    core: &SharedCore,
    id: ExecutionId,
    error: Option<String>,
    cause: Option<String>,
    by: audit::By<'_>,
) -> bool {
    core.express.board.stops(id, by.and_then(OnBehalf::who));
    let (answer, stopped) = oneshot::channel();
    let event = Event::Stopped { error, cause };
    let message = Message::Event { event, answer: Some(answer), on_behalf: None };
    core.express.send(id, message).is_none() && matches!(stopped.await, Ok(Ok(true)))
}

/// Opens the record of starts in that folder. To be called once, before anything is started.
pub(super) async fn open_record(core: &SharedCore, folder: PathBuf) -> Result<(), Fault> {
    let opened = tokio::task::spawn_blocking(move || Record::open(&folder)).await;
    let (record, unfinished) =
        opened.unwrap_or_else(|e| Err(Fault::fatal("the record of express starts was not read", e)))?;
    // Set here only, once.
    let _ = core.express.record.set(record);
    *core.express.unfinished.lock() = unfinished;
    Ok(())
}

/// Runs anew what was in flight when the record was opened.
pub(super) async fn resume(core: &SharedCore) -> usize {
    let unfinished = std::mem::take(&mut *core.express.unfinished.lock());
    let Some(record) = core.express.record.get() else { return 0 };
    let is_spent = |recorded: &Recorded| recorded.runs() >= record::RUNS_MAX;
    let anew = unfinished.iter().filter(|recorded| !is_spent(recorded)).map(|recorded| recorded.id);
    // For all of them at once: there may be very many, and each is a sync by itself.
    if let Err(fault) = record.run_again(anew).await {
        core.note(&fault);
        return 0;
    }
    let mut again = 0;
    for recorded in unfinished {
        let begun = match is_spent(&recorded) {
            true => Err(Refused::new(
                "InternalFailure",
                format!("the appliance ended {} times while it ran", recorded.runs()),
            )),
            false => begin_again(core, &recorded),
        };
        match begun {
            Ok(begun) => {
                again += 1;
                if begun.is_over() {
                    record.ended(recorded.id).await;
                    begun.end_at_once();
                } else {
                    begun.go_on(None);
                }
            }
            Err(refused) => {
                events::ExpressGivenUp { id: recorded.id, machine: recorded.machine(), why: &refused.message }.emit();
                record.ended(recorded.id).await;
            }
        }
    }
    again
}

fn begin_again(core: &SharedCore, recorded: &Recorded) -> Result<Begun, Refused> {
    let request = recorded.to_start();
    let row = machine_row(core, &request)?;
    Begun::new(core, request, &row, Some(recorded))
}

/// The place of one execution among those that run. It is free again when this is dropped.
struct Place {
    core: SharedCore,
    id: ExecutionId,
}

impl Place {
    /// Looked for and taken in one, before anybody waits for a disk: of starts that come together none may be too many.
    fn take(core: &SharedCore, id: ExecutionId) -> Result<(Place, mpsc::UnboundedReceiver<Message>), Refused> {
        let most = quotas().express_executions;
        let (sender, inbox) = mpsc::unbounded_channel();
        let mut inboxes = core.express.inboxes.lock();
        if inboxes.len() >= most {
            let what = format!("{most} express executions are running; wait until some have ended");
            return Err(Refused::new("ExecutionLimitExceeded", what));
        }
        inboxes.insert(id, sender);
        Ok((Place { core: core.clone(), id }, inbox))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.express.inboxes.lock().remove(&self.id);
    }
}

/// An execution after its first step. Nothing is told of it until it ends or goes on: it may be refused.
struct Begun {
    machine: Arc<Machine>,
    execution: Execution,
    history: Vec<HistoryEvent>,
    commands: Vec<Command>,
    by: By,
    place: Place,
    inbox: mpsc::UnboundedReceiver<Message>,
}

impl Begun {
    fn new(
        core: &SharedCore,
        request: StartRequest,
        row: &MachineRow,
        again: Option<&Recorded>,
    ) -> Result<Begun, Refused> {
        if core.is_closing() {
            return Err(Refused::closing());
        }
        if row.deleting {
            let arn = core.machine_arn(&row.name);
            return Err(Refused::new("StateMachineDeleting", format!("State Machine is being deleted: '{arn}'")));
        }
        if row.kind != MachineKind::Express {
            let words = "This operation is not supported by this type of state machine";
            return Err(Refused::new("StateMachineTypeNotSupported", words));
        }
        let entry = core.entry(Event::Started);
        let id = again.map_or_else(|| ExecutionId::generate(entry.at), |recorded| recorded.id);
        let (place, inbox) = Place::take(core, id)?;
        let (qualifier, revision) = match (again, &request.qualifier) {
            (Some(recorded), _) => (recorded.qualifier(), recorded.revision()),
            (None, None) => (None, row.revision),
            (None, Some(qualifier)) => {
                let (qualifier, revision) = core.resolve(&row.name, qualifier, id)?;
                (Some(qualifier), revision)
            }
        };
        let name = request.name.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let reference = MachineRef { name: request.machine, revision, qualifier };
        let machine = core.machine(&reference)?;
        let mut execution = Execution::start(id, name, reference, request.input, entry.at);
        execution.header.trace_header = request.trace_header;
        let step = guarded::begin(&machine, &execution, &entry);
        execution.apply(&step);
        let (history, commands, by) = (step.history, step.commands, By::default());
        Ok(Begun { machine, execution, history, commands, by, place, inbox })
    }

    fn by(mut self, by: audit::By<'_>) -> Begun {
        self.by.started = by.and_then(OnBehalf::who);
        self
    }

    fn is_over(&self) -> bool {
        self.execution.header.status != Status::Running
    }

    /// Tells logs, metrics and the board that it has started.
    fn tell(&mut self) {
        let (core, header) = (&self.place.core, &self.execution.header);
        events::ExecutionStarted { id: header.id, machine: &header.machine.name, name: &header.name }.emit();
        core.express.board.started(&header.machine.name);
        core.logs.push(&self.machine, header, std::mem::take(&mut self.history));
    }

    fn end_at_once(mut self) -> Header {
        self.tell();
        self.place.core.express.ended(&self.machine, &self.execution.header, self.by);
        self.execution.header
    }

    /// Runs on in a task of its own.
    fn go_on(mut self, end: Option<oneshot::Sender<Header>>) {
        self.tell();
        let core = self.place.core.clone();
        core.express.board.runs(&self.machine, &self.execution.header, end.is_some(), self.by);
        let live = LiveExecution::new(self.place, self.machine, self.execution, self.inbox, end);
        tokio::spawn(within_part(&core.express.part, live.run(self.commands)));
    }
}

impl Express {
    /// Tells logs, metrics and the board of an execution that ended.
    fn ended(&self, machine: &Machine, header: &Header, by: By) {
        events::ExecutionEnded::of(header, header.stopped_at.unwrap_or(header.started_at)).emit();
        self.board.ended(machine, header, by);
    }
}
