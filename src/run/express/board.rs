//! What operators see of express executions: what runs, what ended lately, counts since the appliance started. Volatile.

use std::collections::{BTreeMap, HashMap, VecDeque};

use conveyor_base::limits::{EXPRESS_FAILED_SHOWN_MAX, EXPRESS_SHOWN_MAX};
use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::{Header, Status};
use parking_lot::Mutex;

use crate::catalog::Machine;

/// Longest cause that is kept for showing, in characters: the log has it whole.
const CAUSE_SHOWN_CHARS_MAX: usize = 2_000;

/// An express execution that runs now.
#[derive(Clone, Debug)]
pub struct Running {
    pub id: ExecutionId,
    pub arn: String,
    pub machine: String,
    pub name: String,
    pub started_at: Timestamp,
    /// Somebody waits for its answer.
    pub sync: bool,
    pub by: By,
}

/// Whose doing it was: names of credentials. Nobody's where a rule, a watch or another execution did it, or it runs anew
/// after a restart.
#[derive(Clone, Debug, Default)]
pub struct By {
    pub started: Option<String>,
    pub stopped: Option<String>,
}

/// One that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub arn: String,
    pub machine: String,
    pub name: String,
    pub status: Status,
    pub started_at: Timestamp,
    pub stopped_at: Timestamp,
    pub error: Option<String>,
    pub cause: Option<String>,
    /// How many steps its history had.
    pub events: u64,
    pub by: By,
}

/// Executions of one machine since the appliance started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub started: u64,
    pub succeeded: u64,
    pub failed: u64,
    pub timed_out: u64,
    pub aborted: u64,
}

/// The board at one moment.
#[derive(Clone, Debug, Default)]
pub struct ExpressBoard {
    /// Oldest first, and how many there are beyond those shown.
    pub running: Vec<Running>,
    pub running_total: usize,
    /// Newest first. Failures are kept longer than successes.
    pub ended: Vec<Ended>,
    pub counts: BTreeMap<String, Counts>,
}

#[derive(Default)]
pub(super) struct Board {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: HashMap<ExecutionId, Running>,
    succeeded: VecDeque<Ended>,
    failed: VecDeque<Ended>,
    counts: BTreeMap<String, Counts>,
}

impl Board {
    pub fn started(&self, machine: &str) {
        let mut state = self.state.lock();
        match state.counts.get_mut(machine) {
            Some(counts) => counts.started += 1,
            None => drop(state.counts.insert(machine.to_owned(), Counts { started: 1, ..Counts::default() })),
        }
    }

    pub fn runs(&self, machine: &Machine, header: &Header, sync: bool, by: By) {
        let running = Running {
            id: header.id,
            arn: machine.env.execution_arn(header),
            machine: header.machine.name.clone(),
            name: header.name.clone(),
            started_at: header.started_at,
            sync,
            by,
        };
        self.state.lock().running.insert(header.id, running);
    }

    /// Notes who is about to stop one that runs.
    pub fn stops(&self, id: ExecutionId, who: Option<String>) {
        if let Some(running) = self.state.lock().running.get_mut(&id) {
            running.by.stopped = who;
        }
    }

    /// `by`: of one that never ran.
    pub fn ended(&self, machine: &Machine, header: &Header, by: By) {
        let (error, cause) = header.failure();
        let mut ended = Ended {
            arn: machine.env.execution_arn(header),
            machine: header.machine.name.clone(),
            name: header.name.clone(),
            status: header.status,
            started_at: header.started_at,
            stopped_at: header.stopped_at.unwrap_or(header.started_at),
            error: error.map(str::to_owned),
            cause: cause.map(|cause| cause.chars().take(CAUSE_SHOWN_CHARS_MAX).collect()),
            events: header.last_event.0,
            by,
        };
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(running) = state.running.remove(&header.id) {
            ended.by = running.by;
        }
        if header.status != Status::Aborted {
            // It ended before it could be stopped.
            ended.by.stopped = None;
        }
        if let Some(counts) = state.counts.get_mut(&header.machine.name) {
            match header.status {
                Status::Succeeded => counts.succeeded += 1,
                Status::TimedOut => counts.timed_out += 1,
                Status::Aborted => counts.aborted += 1,
                _ => counts.failed += 1,
            }
        }
        let (list, most) = match header.status {
            Status::Succeeded => (&mut state.succeeded, EXPRESS_SHOWN_MAX),
            _ => (&mut state.failed, EXPRESS_FAILED_SHOWN_MAX),
        };
        if list.len() >= most {
            list.pop_front();
        }
        list.push_back(ended);
    }

    /// One that was dropped without an end.
    pub fn forget(&self, id: ExecutionId) {
        self.state.lock().running.remove(&id);
    }

    pub fn show(&self) -> ExpressBoard {
        let state = self.state.lock();
        let mut running: Vec<Running> = state.running.values().cloned().collect();
        running.sort_by_key(|one| (one.started_at, one.id));
        running.truncate(EXPRESS_SHOWN_MAX);
        let mut ended: Vec<Ended> = state.succeeded.iter().chain(&state.failed).cloned().collect();
        ended.sort_by_key(|one| std::cmp::Reverse(one.stopped_at));
        ExpressBoard { running, running_total: state.running.len(), ended, counts: state.counts.clone() }
    }
}
