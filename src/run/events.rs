//! Every log line and metric of this floor, each as a type. `emit` logs and counts together.
//!
//! Levels say what the operator must do: WARN, look at it some time, nothing is lost; ERROR, act. Ids are in the
//! log and never labels of a metric.

use std::time::Duration;

use conveyor_base::{Attempt, ExecutionId, Timestamp};
use conveyor_interpreter::{Header, Status};
use metrics::{counter, histogram};
use tracing::{debug, error, info, warn};

pub(super) struct ExecutionStarted<'a> {
    pub id: ExecutionId,
    pub machine: &'a str,
    pub name: &'a str,
}

impl ExecutionStarted<'_> {
    pub fn emit(self) {
        counter!("conveyor_executions_started_total", "machine" => self.machine.to_owned()).increment(1);
        debug!(id = %self.id, machine = self.machine, name = self.name, "execution started");
    }
}

pub(super) struct ExecutionEnded<'a> {
    pub id: ExecutionId,
    pub machine: &'a str,
    pub name: &'a str,
    pub status: Status,
    pub error: Option<&'a str>,
    pub duration_ms: i64,
}

impl<'a> ExecutionEnded<'a> {
    pub fn of(header: &'a Header, stopped_at: Timestamp) -> ExecutionEnded<'a> {
        ExecutionEnded {
            id: header.id,
            machine: &header.machine.name,
            name: &header.name,
            status: header.status,
            error: header.failure().0,
            // The clock may have been set back in between.
            duration_ms: stopped_at.since_ms(header.started_at).max(0),
        }
    }

    pub fn emit(self) {
        let status = self.status.name().replace('_', "").to_lowercase();
        counter!("conveyor_executions_ended_total", "machine" => self.machine.to_owned(), "status" => status)
            .increment(1);
        histogram!("conveyor_execution_seconds", "machine" => self.machine.to_owned())
            .record(self.duration_ms as f64 / 1000.0);
        match self.status {
            Status::Succeeded => debug!(id = %self.id, machine = self.machine, name = self.name, "execution succeeded"),
            status => info!(
                id = %self.id, machine = self.machine, name = self.name, error = self.error,
                "execution ended as {}", status.name()
            ),
        }
    }
}

pub(super) struct StageEnded<'a> {
    pub id: ExecutionId,
    pub attempt: Attempt,
    pub resource: &'a str,
    pub outcome: &'static str,
    pub duration_ms: i64,
}

impl StageEnded<'_> {
    pub fn emit(self) {
        counter!("conveyor_stages_ended_total", "resource" => self.resource.to_owned(), "outcome" => self.outcome)
            .increment(1);
        histogram!("conveyor_stage_seconds", "resource" => self.resource.to_owned())
            .record(self.duration_ms as f64 / 1000.0);
        debug!(id = %self.id, attempt = %self.attempt, resource = self.resource, outcome = self.outcome, "stage ended");
    }
}

/// A stage got its lanes.
pub(super) struct StageLeased {
    pub waited_ms: i64,
}

impl StageLeased {
    pub fn emit(self) {
        histogram!("conveyor_lane_wait_seconds").record(self.waited_ms as f64 / 1000.0);
    }
}

/// A stage's device failed under it; the attempt goes on elsewhere.
pub(super) struct StageMoved<'a> {
    pub id: ExecutionId,
    pub attempt: Attempt,
    pub lane: &'a str,
    pub error: &'a str,
    pub cause: &'a str,
}

impl StageMoved<'_> {
    pub fn emit(self) {
        counter!("conveyor_stages_moved_total", "lane" => self.lane.to_owned(), "error" => self.error.to_owned())
            .increment(1);
        warn!(
            id = %self.id, attempt = %self.attempt, lane = self.lane, error = self.error,
            "a stage's device failed, and the stage runs again elsewhere: {}", self.cause
        );
    }
}

/// A lane takes nothing for a while.
pub(super) struct LaneDrained<'a> {
    pub lane: &'a str,
    pub error: &'a str,
    pub cause: &'a str,
    pub until: Timestamp,
}

impl LaneDrained<'_> {
    pub fn emit(self) {
        counter!("conveyor_lanes_drained_total", "lane" => self.lane.to_owned(), "error" => self.error.to_owned())
            .increment(1);
        warn!(lane = self.lane, error = self.error, until = %self.until, "a lane is drained: {}", self.cause);
    }
}

pub(super) struct LaneOpened<'a> {
    pub lane: &'a str,
}

impl LaneOpened<'_> {
    pub fn emit(self) {
        info!(lane = self.lane, "a lane that was drained works again");
    }
}

/// A step panicked: a bug of ours, held to the execution that met it.
pub(super) struct StepPanicked<'a> {
    pub id: ExecutionId,
    pub text: &'a str,
}

impl StepPanicked<'_> {
    pub fn emit(self) {
        counter!("conveyor_step_panics_total").increment(1);
        error!(id = %self.id, "deciding an execution's next step panicked: {}", self.text);
    }
}

/// Stored bytes of an execution are damaged. Where even its header is, it stands as it is; else it has failed.
pub(super) struct ExecutionDamaged<'a> {
    pub id: ExecutionId,
    pub what: &'a str,
    pub stands: bool,
}

impl ExecutionDamaged<'_> {
    pub fn emit(self) {
        counter!("conveyor_executions_damaged_total").increment(1);
        let end = if self.stands { "it stands still until the store is repaired" } else { "it fails" };
        error!(id = %self.id, "stored bytes of an execution are damaged, and {end}: {}", self.what);
    }
}

/// An execution's actor panicked outside `step`: a bug of ours. An operator must look where it is not resumed.
pub(super) struct ActorPanicked<'a> {
    pub id: ExecutionId,
    pub text: &'a str,
    /// How long until it is taken up again from its rows; an express execution has none.
    pub after: Option<Duration>,
}

impl ActorPanicked<'_> {
    pub fn emit(self) {
        counter!("conveyor_actor_panics_total").increment(1);
        let next = match self.after {
            Some(after) => format!("in {} s it is taken up again from its rows", after.as_secs_f64()),
            None => "it fails".to_owned(),
        };
        error!(id = %self.id, "carrying out an execution's step panicked ({next}): {}", self.text);
    }
}

pub(super) struct Recovered {
    pub tasks: usize,
    pub deliveries: usize,
    pub took_ms: i64,
}

impl Recovered {
    pub fn emit(self) {
        info!(tasks = self.tasks, deliveries = self.deliveries, took_ms = self.took_ms, "took up what was in flight");
    }
}

/// An acknowledged express start that will not be run any more. An operator must start it again where it matters.
pub(super) struct ExpressGivenUp<'a> {
    pub id: ExecutionId,
    pub machine: &'a str,
    pub why: &'a str,
}

impl ExpressGivenUp<'_> {
    pub fn emit(self) {
        counter!("conveyor_express_given_up_total").increment(1);
        error!(id = %self.id, machine = self.machine, "an express execution is not run anew: {}", self.why);
    }
}

/// Log lines that found no room: the disk does not keep up.
pub(super) struct LogLinesDropped<'a> {
    pub group: &'a str,
    pub lines: usize,
}

impl LogLinesDropped<'_> {
    pub fn emit(self) {
        counter!("conveyor_log_lines_dropped_total").increment(self.lines as u64);
        debug!(group = self.group, lines = self.lines, "log lines were dropped: the writer does not keep up");
    }
}

/// The box cannot go on with this process.
pub(super) struct FatalFault<'a> {
    pub what: &'a str,
}

impl FatalFault<'_> {
    pub fn emit(self) {
        error!("stopping, to recover by a restart: {}", self.what);
    }
}

/// A definition in the store that this release does not accept.
pub(super) struct DefinitionUnreadable<'a> {
    pub machine: &'a str,
    pub revision: u64,
    pub problems: &'a str,
}

impl DefinitionUnreadable<'_> {
    pub fn emit(self) {
        warn!(machine = self.machine, revision = self.revision, "a stored definition is refused: {}", self.problems);
    }
}

/// A part of the appliance failed; it is started again. Look at what it says.
pub(super) struct PartFailed<'a> {
    pub name: &'a str,
    pub what: &'a str,
}

impl PartFailed<'_> {
    pub fn emit(self) {
        // Without whose it is: an id is no label.
        let part = self.name.split(" of ").next().unwrap_or_default().to_owned();
        counter!("conveyor_parts_failed_total", "part" => part).increment(1);
        error!(part = self.name, "a part of the appliance failed: {}", self.what);
    }
}

pub(super) struct PartRestarted<'a> {
    pub name: &'a str,
}

impl PartRestarted<'_> {
    pub fn emit(self) {
        info!(part = self.name, "a part of the appliance that failed runs again");
    }
}

/// What follows from a commit panicked: a bug of ours, held to who would have been answered.
pub(super) struct AnswerPanicked<'a> {
    pub text: &'a str,
}

impl AnswerPanicked<'_> {
    pub fn emit(self) {
        counter!("conveyor_answer_panics_total").increment(1);
        error!("answering what is durable panicked: {}", self.text);
    }
}
