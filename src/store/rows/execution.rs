//! Rows of an execution: header and branches. JSON is kept as text.
//!
//! The header leaves out input and output, which may be large and have a table of their own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, EventId, ExecutionId, Fault, TimerId, Timestamp};
use conveyor_interpreter::{
    Branch, Doing, Header, Item, Json, MachineRef, MapChild, Outcome, Parent, Qualifier, RunPhase, Status, TaskPhase,
    run_list,
};
use rkyv::{Archive, Serialize};
use serde_json::Value;

use super::maps::{ArchivedChildRow, ChildRow, MapItemRow};
use super::{Row, damaged, status_code, status_of};
use crate::tables::Table;

#[derive(Archive, Serialize)]
pub(crate) struct HeaderRow {
    pub name: String,
    pub machine: String,
    pub revision: u64,
    pub status: u8,
    pub started_at: i64,
    pub stopped_at: Option<i64>,
    ended: Option<Box<EndRow>>,
    pub last_event: u64,
    pub next_branch: u32,
    pub next_attempt: u32,
    pub next_timer: u32,
    rare: Option<Box<RareRow>>,
}

/// What most executions do not have.
#[derive(Archive, Serialize, Default)]
struct RareRow {
    qualifier: Option<QualifierRow>,
    timeout_timer: Option<TimerRow>,
    parent: Option<ParentRow>,
    redrive_count: u32,
    redriven_at: Option<i64>,
    trace_header: Option<String>,
    child: Option<ChildRow>,
}

/// The version that it was started as, and the alias that led there.
#[derive(Archive, Serialize)]
struct QualifierRow {
    version: u64,
    alias: Option<String>,
}

impl QualifierRow {
    fn of(qualifier: &Qualifier) -> QualifierRow {
        QualifierRow { version: qualifier.version(), alias: qualifier.alias().map(str::to_owned) }
    }
}

impl ArchivedQualifierRow {
    fn qualifier(&self) -> Qualifier {
        let version = self.version.to_native();
        match self.alias.as_ref() {
            None => Qualifier::Version(version),
            Some(name) => Qualifier::Alias { name: name.to_string(), version },
        }
    }
}

/// How it ended, without the output.
#[derive(Archive, Serialize)]
struct EndRow {
    kind: u8,
    error: Option<String>,
    cause: Option<String>,
}

#[derive(Archive, Serialize)]
struct ParentRow {
    execution: u128,
    attempt: u32,
    shape: String,
}

#[derive(Archive, Serialize)]
struct TimerRow {
    timer: u32,
    due: i64,
}

#[derive(Archive, Serialize)]
pub(crate) struct BranchRow {
    state: String,
    state_entered_at: i64,
    state_entered_event: u64,
    input: String,
    previous_event: u64,
    rare: Option<Box<RareBranchRow>>,
    doing: DoingRow,
}

/// What the root of a simple machine does not have.
#[derive(Archive, Serialize)]
struct RareBranchRow {
    parent: Option<(u32, u32)>,
    variables: Vec<(String, String)>,
    map_item: Option<MapItemRow>,
    retries: Vec<u32>,
}

/// The large ones lie apart: a value takes as much as the largest of its kinds.
#[derive(Archive, Serialize)]
enum DoingRow {
    Task(Box<TaskDoingRow>),
    Wait(TimerRow),
    Retry(TimerRow),
    Parallel(Box<ParallelRow>),
    Map(Box<MapDoingRow>),
    MapRun(Box<MapRunDoingRow>),
    Done { output: String },
    Ready(TimerRow),
    Halted,
}

#[derive(Archive, Serialize)]
struct TaskDoingRow {
    attempt: u32,
    phase: u8,
    nonce: u128,
    timeout: Option<TimerRow>,
    heartbeat: Option<TimerRow>,
    heartbeat_ms: Option<i64>,
}

#[derive(Archive, Serialize)]
struct ParallelRow {
    first: u32,
    count: u32,
    running: u32,
    started_event: u64,
}

#[derive(Archive, Serialize)]
struct MapDoingRow {
    first: u32,
    next_index: u32,
    running: u32,
    length: u32,
    concurrency: u32,
    started_event: u64,
    last_succeeded_event: u64,
    resume: Option<TimerRow>,
}

#[derive(Archive, Serialize)]
struct MapRunDoingRow {
    attempt: u32,
    run: u128,
    redrives: u32,
    halted: bool,
}

impl Row for HeaderRow {}
impl Row for BranchRow {}

impl TimerRow {
    fn of((timer, due): (TimerId, Timestamp)) -> TimerRow {
        TimerRow { timer: timer.0, due: due.0 }
    }
}

impl ArchivedTimerRow {
    fn get(&self) -> (TimerId, Timestamp) {
        (TimerId(self.timer.to_native()), Timestamp(self.due.to_native()))
    }
}

/// What an archived execution was given and gave back.
#[derive(Archive, Serialize)]
pub(crate) struct PayloadsRow {
    pub input: String,
    pub output: Option<String>,
}

impl Row for PayloadsRow {}

pub(crate) fn payloads_from(row: &ArchivedPayloadsRow) -> (Json, Option<Json>) {
    (Arc::from(row.input.as_str()), row.output.as_ref().map(|output| Arc::from(output.as_str())))
}

/// A child as its parent finds it: its id, and the shape in which its end is told.
pub(crate) fn child(id: ExecutionId, shape: &str) -> Vec<u8> {
    [&id.to_bytes(), shape.as_bytes()].concat()
}

pub(crate) fn child_from(row: &[u8]) -> Result<(ExecutionId, &str), Fault> {
    let read = || {
        let (id, shape) = row.split_first_chunk::<16>()?;
        Some((ExecutionId(u128::from_be_bytes(*id)), std::str::from_utf8(shape).ok()?))
    };
    read().ok_or_else(|| damaged(Table::Children, "a row is no child"))
}

impl From<&Header> for HeaderRow {
    fn from(header: &Header) -> HeaderRow {
        HeaderRow {
            name: header.name.clone(),
            machine: header.machine.name.clone(),
            revision: header.machine.revision,
            status: status_code(header.status),
            started_at: header.started_at.0,
            stopped_at: header.stopped_at.map(|t| t.0),
            ended: header.outcome.as_ref().map(|outcome| Box::new(EndRow::from(outcome))),
            last_event: header.last_event.0,
            next_branch: header.next_branch.0,
            next_attempt: header.next_attempt.0,
            next_timer: header.next_timer.0,
            rare: RareRow::of(header).map(Box::new),
        }
    }
}

impl RareRow {
    fn of(header: &Header) -> Option<RareRow> {
        let nothing = header.machine.qualifier.is_none()
            && header.timeout_timer.is_none()
            && header.parent.is_none()
            && header.redrive_count == 0
            && header.redriven_at.is_none()
            && header.child.is_none()
            && header.trace_header.is_none();
        (!nothing).then(|| RareRow {
            qualifier: header.machine.qualifier.as_ref().map(QualifierRow::of),
            timeout_timer: header.timeout_timer.map(TimerRow::of),
            parent: header.parent.as_ref().map(|p| ParentRow {
                execution: p.execution.0,
                attempt: p.attempt.0,
                shape: p.shape.clone(),
            }),
            redrive_count: header.redrive_count,
            redriven_at: header.redriven_at.map(|t| t.0),
            trace_header: header.trace_header.clone(),
            child: header.child.as_deref().map(ChildRow::of),
        })
    }
}

impl From<&Outcome> for EndRow {
    fn from(outcome: &Outcome) -> EndRow {
        let (kind, error, cause) = match outcome {
            Outcome::Succeeded { .. } => (0, &None, &None),
            Outcome::Failed { error, cause } => (1, error, cause),
            Outcome::TimedOut { error, cause } => (2, error, cause),
            Outcome::Aborted { error, cause } => (3, error, cause),
        };
        EndRow { kind, error: error.clone(), cause: cause.clone() }
    }
}

/// The header with its payloads put back.
pub(crate) fn header_from(
    id: ExecutionId,
    row: &ArchivedHeaderRow,
    input: Json,
    output: Option<Json>,
) -> Result<Header, Fault> {
    Ok(Header {
        id,
        name: row.name.to_string(),
        machine: row.machine(),
        status: row.status()?,
        started_at: row.started_at(),
        stopped_at: row.stopped_at(),
        input,
        outcome: outcome_of(row, output)?,
        last_event: EventId(row.last_event.to_native()),
        next_branch: BranchId(row.next_branch.to_native()),
        next_attempt: Attempt(row.next_attempt.to_native()),
        next_timer: TimerId(row.next_timer.to_native()),
        timeout_timer: row.timeout_timer(),
        parent: row.parent(),
        child: row.child().map(Arc::new),
        redrive_count: row.redrive_count(),
        redriven_at: row.redriven_at(),
        trace_header: row.rare().and_then(|rare| rare.trace_header.as_ref()).map(|t| t.to_string()),
    })
}

impl ArchivedHeaderRow {
    pub(crate) fn machine(&self) -> MachineRef {
        MachineRef {
            name: self.machine.to_string(),
            revision: self.revision.to_native(),
            qualifier: self.rare().and_then(|rare| rare.qualifier.as_ref()).map(ArchivedQualifierRow::qualifier),
        }
    }

    pub(crate) fn redriven_at(&self) -> Option<Timestamp> {
        self.rare().and_then(|rare| rare.redriven_at.as_ref()).map(|t| Timestamp(t.to_native()))
    }

    fn rare(&self) -> Option<&ArchivedRareRow> {
        self.rare.as_deref()
    }

    pub(crate) fn timeout_timer(&self) -> Option<(TimerId, Timestamp)> {
        self.rare()?.timeout_timer.as_ref().map(ArchivedTimerRow::get)
    }

    pub(crate) fn redrive_count(&self) -> u32 {
        self.rare().map_or(0, |rare| rare.redrive_count.to_native())
    }

    /// The error name that it ended with.
    pub(crate) fn error(&self) -> Option<&str> {
        self.ended.as_ref()?.error.as_ref().map(|error| error.as_str())
    }

    pub(crate) fn cause(&self) -> Option<&str> {
        self.ended.as_ref()?.cause.as_ref().map(|cause| cause.as_str())
    }

    pub(crate) fn child(&self) -> Option<MapChild> {
        self.rare()?.child.as_ref().map(ArchivedChildRow::get)
    }

    /// The list that shows the execution.
    pub(crate) fn list(&self) -> Cow<'_, str> {
        match self.rare().and_then(|rare| rare.child.as_ref()) {
            None => Cow::Borrowed(self.machine.as_str()),
            Some(child) => Cow::Owned(run_list(&self.machine, &child.label, child.run.to_native())),
        }
    }

    pub(crate) fn is_child(&self) -> bool {
        self.rare().is_some_and(|rare| rare.child.is_some())
    }

    /// Children of express runs leave no history.
    pub(crate) fn keeps_history(&self) -> bool {
        !self.rare().and_then(|rare| rare.child.as_ref()).is_some_and(|child| child.express)
    }

    pub(crate) fn parent(&self) -> Option<Parent> {
        self.rare()?.parent.as_ref().map(|p| Parent {
            execution: ExecutionId(p.execution.to_native()),
            attempt: Attempt(p.attempt.to_native()),
            shape: p.shape.to_string(),
        })
    }

    pub(crate) fn status(&self) -> Result<Status, Fault> {
        status_of(Table::Executions, self.status)
    }

    pub(crate) fn started_at(&self) -> Timestamp {
        Timestamp(self.started_at.to_native())
    }

    pub(crate) fn stopped_at(&self) -> Option<Timestamp> {
        self.stopped_at.as_ref().map(|t| Timestamp(t.to_native()))
    }

    /// Whether it has an output, which lies in a row of its own.
    pub(crate) fn succeeded(&self) -> bool {
        self.ended.as_ref().is_some_and(|e| e.kind == 0)
    }
}

/// How it ended.
pub(crate) fn outcome_of(row: &ArchivedHeaderRow, output: Option<Json>) -> Result<Option<Outcome>, Fault> {
    let Some(end) = row.ended.as_ref() else { return Ok(None) };
    let error = end.error.as_ref().map(|e| e.to_string());
    let cause = end.cause.as_ref().map(|c| c.to_string());
    Ok(Some(match end.kind {
        0 => {
            let output = output.ok_or_else(|| damaged(Table::Payloads, "an execution that succeeded has no output"))?;
            Outcome::Succeeded { output }
        }
        1 => Outcome::Failed { error, cause },
        2 => Outcome::TimedOut { error, cause },
        3 => Outcome::Aborted { error, cause },
        other => return Err(damaged(Table::Executions, &format!("an execution ended in a way {other}"))),
    }))
}

impl From<&Branch> for BranchRow {
    fn from(branch: &Branch) -> BranchRow {
        BranchRow {
            state: branch.state.to_string(),
            state_entered_at: branch.state_entered_at.0,
            state_entered_event: branch.state_entered_event.0,
            input: branch.input.to_string(),
            previous_event: branch.previous_event.0,
            rare: RareBranchRow::of(branch).map(Box::new),
            doing: DoingRow::from(&branch.doing),
        }
    }
}

impl RareBranchRow {
    fn of(branch: &Branch) -> Option<RareBranchRow> {
        let nothing = branch.parent.is_none()
            && branch.variables.is_empty()
            && branch.map_item.is_none()
            && branch.retries.is_empty();
        (!nothing).then(|| RareBranchRow {
            parent: branch.parent.map(|(parent, index)| (parent.0, index)),
            variables: branch.variables.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
            map_item: branch.map_item.as_ref().map(|(index, item)| MapItemRow {
                index: *index,
                value: item.value.to_string(),
                key: item.key.as_deref().map(str::to_owned),
            }),
            retries: branch.retries.clone(),
        })
    }
}

impl From<&Doing> for DoingRow {
    fn from(doing: &Doing) -> DoingRow {
        match doing {
            Doing::Task { attempt, phase, nonce, timeout, heartbeat, heartbeat_ms } => {
                DoingRow::Task(Box::new(TaskDoingRow {
                    attempt: attempt.0,
                    phase: match phase {
                        TaskPhase::Scheduled => 0,
                        TaskPhase::Started => 1,
                        TaskPhase::Submitted => 2,
                    },
                    nonce: *nonce,
                    timeout: timeout.map(TimerRow::of),
                    heartbeat: heartbeat.map(TimerRow::of),
                    heartbeat_ms: *heartbeat_ms,
                }))
            }
            Doing::Wait { timer, due } => DoingRow::Wait(TimerRow::of((*timer, *due))),
            Doing::Retry { timer, due } => DoingRow::Retry(TimerRow::of((*timer, *due))),
            Doing::Parallel { first, count, running, started_event } => DoingRow::Parallel(Box::new(ParallelRow {
                first: first.0,
                count: *count,
                running: *running,
                started_event: started_event.0,
            })),
            Doing::Map {
                first,
                next_index,
                running,
                length,
                concurrency,
                started_event,
                last_succeeded_event,
                resume,
            } => DoingRow::Map(Box::new(MapDoingRow {
                first: first.0,
                next_index: *next_index,
                running: *running,
                length: *length,
                concurrency: *concurrency,
                started_event: started_event.0,
                last_succeeded_event: last_succeeded_event.0,
                resume: resume.map(TimerRow::of),
            })),
            Doing::MapRun { attempt, run, redrives, phase } => DoingRow::MapRun(Box::new(MapRunDoingRow {
                attempt: attempt.0,
                run: *run,
                redrives: *redrives,
                halted: *phase != RunPhase::Running,
            })),
            Doing::Done { output } => DoingRow::Done { output: output.to_string() },
            Doing::Ready { timer, due } => DoingRow::Ready(TimerRow::of((*timer, *due))),
            Doing::Halted => DoingRow::Halted,
        }
    }
}

pub(super) fn json(table: Table, text: &str) -> Result<Arc<Value>, Fault> {
    serde_json::from_str(text).map(Arc::new).map_err(|e| damaged(table, &format!("a row holds no JSON ({e})")))
}

pub(crate) fn branch_from(row: &ArchivedBranchRow) -> Result<Branch, Fault> {
    let table = Table::Branches;
    let mut branch = Branch {
        parent: None,
        state: Arc::from(row.state.as_str()),
        state_entered_at: Timestamp(row.state_entered_at.to_native()),
        state_entered_event: EventId(row.state_entered_event.to_native()),
        input: json(table, &row.input)?,
        previous_event: EventId(row.previous_event.to_native()),
        variables: BTreeMap::new(),
        map_item: None,
        retries: Vec::new(),
        doing: doing_from(&row.doing)?,
    };
    if let Some(rare) = row.rare.as_ref() {
        branch.parent = rare.parent.as_ref().map(|p| (BranchId(p.0.to_native()), p.1.to_native()));
        for entry in rare.variables.iter() {
            branch.variables.insert(entry.0.to_string(), json(table, &entry.1)?);
        }
        if let Some(item) = rare.map_item.as_ref() {
            let key = item.key.as_ref().map(|key| Arc::from(key.as_str()));
            let value = json(table, &item.value)?;
            branch.map_item = Some((item.index.to_native(), Item { key, ..Item::of(value) }));
        }
        branch.retries = rare.retries.iter().map(|r| r.to_native()).collect();
    }
    Ok(branch)
}

fn doing_from(row: &ArchivedDoingRow) -> Result<Doing, Fault> {
    Ok(match row {
        ArchivedDoingRow::Task(task) => Doing::Task {
            attempt: Attempt(task.attempt.to_native()),
            phase: match task.phase {
                0 => TaskPhase::Scheduled,
                1 => TaskPhase::Started,
                2 => TaskPhase::Submitted,
                other => return Err(damaged(Table::Branches, &format!("a task is in a phase {other}"))),
            },
            nonce: task.nonce.to_native(),
            timeout: task.timeout.as_ref().map(ArchivedTimerRow::get),
            heartbeat: task.heartbeat.as_ref().map(ArchivedTimerRow::get),
            heartbeat_ms: task.heartbeat_ms.as_ref().map(|ms| ms.to_native()),
        },
        ArchivedDoingRow::Wait(row) => {
            let (timer, due) = row.get();
            Doing::Wait { timer, due }
        }
        ArchivedDoingRow::Retry(row) => {
            let (timer, due) = row.get();
            Doing::Retry { timer, due }
        }
        ArchivedDoingRow::Parallel(parallel) => Doing::Parallel {
            first: BranchId(parallel.first.to_native()),
            count: parallel.count.to_native(),
            running: parallel.running.to_native(),
            started_event: EventId(parallel.started_event.to_native()),
        },
        ArchivedDoingRow::Map(map) => Doing::Map {
            first: BranchId(map.first.to_native()),
            next_index: map.next_index.to_native(),
            running: map.running.to_native(),
            length: map.length.to_native(),
            concurrency: map.concurrency.to_native(),
            started_event: EventId(map.started_event.to_native()),
            last_succeeded_event: EventId(map.last_succeeded_event.to_native()),
            resume: map.resume.as_ref().map(ArchivedTimerRow::get),
        },
        ArchivedDoingRow::MapRun(run) => Doing::MapRun {
            attempt: Attempt(run.attempt.to_native()),
            run: run.run.to_native(),
            redrives: run.redrives.to_native(),
            phase: if run.halted { RunPhase::Halted } else { RunPhase::Running },
        },
        ArchivedDoingRow::Done { output } => Doing::Done { output: json(Table::Branches, output)? },
        ArchivedDoingRow::Ready(row) => {
            let (timer, due) = row.get();
            Doing::Ready { timer, due }
        }
        ArchivedDoingRow::Halted => Doing::Halted,
    })
}
