//! The lanes: one actor that leases the box's cores, disks and engines to stages.
//!
//! ```text
//! request ──> queue (who goes next) ──> place (where) ──> lease ──> stage
//!                ^                        ^                │
//!                └── moved on: its device failed ──────────┴── lease dropped: room again
//! ```
//!
//! One actor for all lanes, because a lease may hold several of them (a GPU's decoder, its encoder, and a core for the
//! sound) and must get all or none. The queue is volatile: what waits in it are outstanding rows, which are queued again
//! after a crash. An attempt that waits here costs a queue entry and nothing else.
//!
//! **When a device fails**, the attempt that ran on it does not: its lane is drained, and the same attempt runs again
//! elsewhere, on cores too unless its acceleration is `required`. History stays truthful, because an attempt there is a
//! try of the state, with its timeout and its heartbeat, and not a visit to a device; what happened is in the log, in
//! the metrics, and in the result's warnings. An attempt that has met [`MOVES_MAX`] failing devices fails with the last
//! one's error, which Retry can match.

pub(super) mod demand;
mod health;
mod place;
mod queue;
pub(super) mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{Attempt, ExecutionId, TaskError, Timestamp};
use conveyor_interpreter::RunTask;
use conveyor_job::Acceleration;
use conveyor_job::Device;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde::Serialize;
use tokio::time::Duration;

use super::core::SharedCore;
use super::events;
use super::supervise::as_part;
use demand::Demand;
use health::Health;

pub use demand::{Codec, Encodes, Pictures, Work};
pub use place::{Allocation, LanePool};
pub use queue::{Next, Queue, QueuePosition};
pub use spec::{CoreSpeed, Decoder, Encoder, EncoderCodec, Gpu};

/// Devices that one attempt may meet failing.
const MOVES_MAX: usize = 3;
/// Places counted before a stage that waits.
const BEFORE_COUNTED: usize = 1_000;

/// A lane as screens show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneStatus {
    pub name: String,
    pub capacity: u32,
    pub busy: u32,
    /// Stages that wait and could run here.
    pub waiting: usize,
    /// `open`, `drained`, `on trial`, or `absent`.
    pub state: &'static str,
    /// Why it is not open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When a drained lane is tried again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// A stage that waits, as screens show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingStage {
    #[serde(serialize_with = "as_text")]
    pub execution: ExecutionId,
    pub attempt: u32,
    pub state: Arc<str>,
    pub resource: String,
    pub since: i64,
    pub priority: i8,
    /// `urgent`, `normal`, `background`.
    pub band: &'static str,
    /// How many of its kind go first; from [`BEFORE_COUNTED`] on there may be more.
    pub before: usize,
    pub why: String,
    /// Devices that failed under it.
    pub moved: Vec<String>,
}

fn as_text<S: serde::Serializer>(id: &ExecutionId, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

/// The volatile right to run on lanes. Dropping it gives them back.
pub(super) struct Lease {
    lanes: ActorRef<Message>,
    shares: Vec<(usize, u32)>,
    label: String,
    /// Threads that the stage may use.
    pub cores: u32,
    pub device: Option<Device>,
    gpu: Option<usize>,
    ticket: Ticket,
}

/// What an attempt takes along when it moves on.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub position: QueuePosition,
    pub work: Work,
    since: Timestamp,
    /// What its devices failed of.
    pub moved: Vec<String>,
}

impl Lease {
    /// The lanes by name: the engines of a GPU, or the one lane.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn moved(&self) -> &[String] {
        &self.ticket.moved
    }

    /// Takes note that the device failed. The ticket on which the attempt may run again, where it may.
    pub fn failed(&self, error: &TaskError) -> Option<Ticket> {
        let gpu = self.gpu?;
        if !health::may_pass_elsewhere(&error.error) {
            return None;
        }
        // The actor is gone only when the appliance is.
        let _ = self.lanes.cast(Message::Failed { gpu, error: error.clone() });
        let mut ticket = self.ticket.clone();
        ticket.moved.push(format!("{}: {error}", self.label));
        let acceleration = ticket.work.acceleration_mut()?;
        let required = *acceleration == Acceleration::Required;
        // What no drained lane keeps away from the same device must not go there again; nor may one wander for ever.
        let no_gpu = health::device_failure(&error.error).is_none() || ticket.moved.len() >= MOVES_MAX;
        if required && no_gpu {
            return None;
        }
        if no_gpu {
            *acceleration = Acceleration::Disabled;
        }
        Some(ticket)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The actor is gone only when the appliance is.
        let _ = self.lanes.cast(Message::Release { shares: std::mem::take(&mut self.shares) });
    }
}

pub(super) enum Message {
    Request {
        execution: ExecutionId,
        task: Box<RunTask>,
        demand: Demand,
    },
    Again {
        execution: ExecutionId,
        task: Box<RunTask>,
        ticket: Ticket,
    },
    Cancel {
        execution: ExecutionId,
        attempt: Attempt,
    },
    Release {
        shares: Vec<(usize, u32)>,
    },
    Failed {
        gpu: usize,
        error: TaskError,
    },
    /// A drained lane may be tried again.
    Look,
    Status(RpcReplyPort<Vec<LaneStatus>>),
    Waiting {
        of: Option<ExecutionId>,
        most: usize,
        reply: RpcReplyPort<Vec<WaitingStage>>,
    },
}

/// Under the name of its part.
pub(super) struct LanesActor(pub Arc<str>);

pub(super) struct Arguments {
    pub lanes: spec::Lanes,
    pub core: SharedCore,
}

struct Waits {
    execution: ExecutionId,
    task: Box<RunTask>,
    since: Timestamp,
    moved: Vec<String>,
}

pub(super) struct State {
    pool: LanePool,
    core: SharedCore,
    next: u64,
    queue: Queue<Waits>,
    /// Where an attempt waits, so that cancelling it does not search the queue.
    positions: BTreeMap<(ExecutionId, Attempt), (Work, QueuePosition)>,
}

impl Actor for LanesActor {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, _: ActorRef<Message>, a: Arguments) -> Result<State, ActorProcessingErr> {
        Ok(State {
            pool: LanePool::new(a.lanes),
            core: a.core,
            next: 0,
            queue: Queue::default(),
            positions: BTreeMap::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        as_part(&self.0, || state.handle(&myself, message));
        Ok(())
    }
}

impl State {
    fn handle(&mut self, myself: &ActorRef<Message>, message: Message) {
        let now = self.core.clock.now();
        match message {
            Message::Request { execution, task, demand } => {
                let position = QueuePosition::new(demand.priority.unwrap_or(0), demand.rank, self.next);
                self.next += 1;
                self.wait(position, demand.work, Waits { execution, task, since: now, moved: Vec::new() });
            }
            Message::Again { execution, task, ticket } => {
                let Ticket { position, work, since, moved } = ticket;
                self.wait(position, work, Waits { execution, task, since, moved });
            }
            Message::Cancel { execution, attempt } => {
                if let Some((work, position)) = self.positions.remove(&(execution, attempt)) {
                    self.queue.remove(work, position);
                }
            }
            Message::Release { shares } => self.release(&shares, now),
            Message::Failed { gpu, error } => self.failed(myself, gpu, &error, now),
            Message::Look => {}
            // Who asked may have gone.
            Message::Status(reply) => {
                let _ = reply.send(self.status(now));
                return;
            }
            Message::Waiting { of, most, reply } => {
                let _ = reply.send(self.waiting(of, most, now));
                return;
            }
        }
        self.grant(myself, now);
    }

    fn wait(&mut self, position: QueuePosition, work: Work, waits: Waits) {
        self.positions.insert((waits.execution, waits.task.attempt), (work, position));
        self.queue.push(&self.pool, work, position, waits);
    }

    fn release(&mut self, shares: &[(usize, u32)], now: Timestamp) {
        self.pool.give_back(shares);
        for (lane, _) in shares {
            let lane = &mut self.pool.lanes[*lane];
            if lane.health.worked(now) {
                events::LaneOpened { lane: &lane.name }.emit();
            }
        }
    }

    fn failed(&mut self, myself: &ActorRef<Message>, gpu: usize, error: &TaskError, now: Timestamp) {
        let Some(failure) = health::device_failure(&error.error) else { return };
        for lane in self.pool.lanes.iter_mut().filter(|lane| lane.gpu == Some(gpu) && lane.absent.is_none()) {
            if !failure.whole_gpu && !lane.name.ends_with(".nvenc") {
                continue;
            }
            lane.health.failed(failure, &error.to_string(), now);
            if let Health::Drained { until, .. } = &lane.health {
                events::LaneDrained { lane: &lane.name, error: &error.error, cause: &error.cause, until: *until }
                    .emit();
                let wait = Duration::from_millis(until.0.saturating_sub(now.0).max(0) as u64 + 1);
                // Sent to this very actor, which may have ended by then.
                drop(myself.send_after(wait, || Message::Look));
            }
        }
    }

    /// Leases as long as anybody who waits can go.
    fn grant(&mut self, myself: &ActorRef<Message>, now: Timestamp) {
        while let Some(next) = self.queue.next(&self.pool, now) {
            match next {
                Next::Cannot(waits, why) => {
                    self.positions.remove(&(waits.execution, waits.task.attempt));
                    let what = format!("{why}; set its acceleration to preferred, or run it on a box that can");
                    let error = TaskError::new("Device.Unsupported", what);
                    self.core.lease(waits.execution, waits.task, Err(error));
                }
                Next::Goes(position, waits, allocation) => {
                    self.pool.take(&allocation);
                    let Waits { execution, task, since, moved } = waits;
                    let work = self.positions.remove(&(execution, task.attempt)).map(|(work, _)| work);
                    events::StageLeased { waited_ms: now.since_ms(since) }.emit();
                    let work = work.unwrap_or(Work::Disks { weight: 1 });
                    let ticket = Ticket { position, work, since, moved };
                    let lease = self.lease(myself, allocation, ticket);
                    self.core.lease(execution, task, Ok(Some(lease)));
                }
            }
        }
    }

    fn lease(&self, myself: &ActorRef<Message>, allocation: place::Allocation, ticket: Ticket) -> Lease {
        let names = |engines: bool| {
            let lanes = allocation.shares.iter().map(|(lane, _)| &self.pool.lanes[*lane]);
            lanes.filter(move |lane| lane.gpu.is_some() == engines).map(|lane| lane.name.as_str()).collect::<Vec<_>>()
        };
        let label = names(allocation.gpu.is_some()).join("+");
        let device = allocation.gpu.map(|gpu| {
            let gpu = &self.pool.gpus[gpu];
            Device {
                name: gpu.name.clone(),
                uuid: gpu.uuid.clone(),
                cpus: gpu.cpus.clone(),
                decode: allocation.decodes,
                encode: allocation.encodes,
            }
        });
        Lease {
            lanes: myself.clone(),
            shares: allocation.shares,
            label,
            cores: allocation.cores,
            device,
            gpu: allocation.gpu,
            ticket,
        }
    }

    fn status(&self, now: Timestamp) -> Vec<LaneStatus> {
        let lanes = self.pool.lanes.iter().enumerate();
        lanes
            .map(|(index, lane)| {
                let (state, why, retry_at) = match (&lane.absent, &lane.health) {
                    (Some(why), _) => ("absent", Some(why.clone()), None),
                    (None, Health::Open) => ("open", None, None),
                    (None, Health::Drained { until, why, .. }) if *until > now => {
                        ("drained", Some(why.clone()), Some(until.0))
                    }
                    (None, Health::Drained { why, .. }) => ("on trial", Some(why.clone()), None),
                };
                LaneStatus {
                    name: lane.name.clone(),
                    capacity: lane.capacity,
                    busy: lane.busy,
                    waiting: self.queue.waiting_for(index),
                    state,
                    why,
                    retry_at,
                    device: lane.gpu.map(|gpu| self.pool.gpus[gpu].to_string()),
                }
            })
            .collect()
    }

    fn waiting(&self, of: Option<ExecutionId>, most: usize, now: Timestamp) -> Vec<WaitingStage> {
        let describe = |work: Work, position: QueuePosition, waits: &Waits| WaitingStage {
            execution: waits.execution,
            attempt: waits.task.attempt.0,
            state: waits.task.state.clone(),
            resource: waits.task.resource.clone(),
            since: waits.since.0,
            priority: position.priority(),
            band: demand::band(position.priority()),
            before: self.queue.before(&work, &position, BEFORE_COUNTED),
            why: self.pool.explain(&work, now),
            moved: waits.moved.clone(),
        };
        match of {
            None => {
                self.queue.firsts(most).into_iter().map(|(work, position, w)| describe(work, position, w)).collect()
            }
            Some(id) => {
                let range = (id, Attempt(0))..=(id, Attempt(u32::MAX));
                let positions = self.positions.range(range).take(most).map(|(_, position)| *position);
                positions
                    .filter_map(|(work, position)| Some(describe(work, position, self.queue.get(&work, &position)?)))
                    .collect()
            }
        }
    }
}
