//! A lane: one engine of the box with a capacity. One actor each, which leases shares of it by priority.
//!
//! The queue is volatile: what waits in it are outstanding rows, which are queued again after a crash. An
//! attempt that waits here costs a queue entry and nothing else.

use std::collections::BTreeMap;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde::Serialize;

use super::core::SharedCore;
use crate::base::{Attempt, ExecutionId};
use crate::interpreter::RunTask;

/// A lane as screens show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    pub name: String,
    pub capacity: u32,
    pub busy: u32,
    pub waiting: usize,
}

/// The volatile right to run on a lane. Dropping it gives the share back.
pub(super) struct Lease {
    lane: ActorRef<Message>,
    name: String,
    weight: u32,
}

impl Lease {
    pub fn lane(&self) -> &str {
        &self.name
    }

    pub fn weight(&self) -> u32 {
        self.weight
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The lane is gone only when the appliance is.
        let _ = self.lane.cast(Message::Release { weight: self.weight });
    }
}

pub(super) enum Message {
    Request { execution: ExecutionId, task: Box<RunTask>, weight: u32, priority: u8 },
    Cancel { execution: ExecutionId, attempt: Attempt },
    Release { weight: u32 },
    Status(RpcReplyPort<LaneStatus>),
}

pub(super) struct LaneActor;

pub(super) struct Arguments {
    pub name: String,
    pub capacity: u32,
    pub core: SharedCore,
}

type Place = (u8, u64);

pub(super) struct State {
    name: String,
    capacity: u32,
    busy: u32,
    core: SharedCore,
    next: u64,
    queue: BTreeMap<Place, (ExecutionId, Box<RunTask>, u32)>,
    /// Where an attempt waits, so that cancelling it does not search the queue.
    places: BTreeMap<(ExecutionId, Attempt), Place>,
}

impl Actor for LaneActor {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, _: ActorRef<Message>, a: Arguments) -> Result<State, ActorProcessingErr> {
        Ok(State {
            name: a.name,
            capacity: a.capacity.max(1),
            busy: 0,
            core: a.core,
            next: 0,
            queue: BTreeMap::new(),
            places: BTreeMap::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Request { execution, task, weight, priority } => {
                let place = (priority, state.next);
                state.next += 1;
                state.places.insert((execution, task.attempt), place);
                state.queue.insert(place, (execution, task, weight.clamp(1, state.capacity)));
            }
            Message::Cancel { execution, attempt } => {
                if let Some(place) = state.places.remove(&(execution, attempt)) {
                    state.queue.remove(&place);
                }
            }
            Message::Release { weight } => state.busy = state.busy.saturating_sub(weight),
            Message::Status(reply) => {
                let status = LaneStatus {
                    name: state.name.clone(),
                    capacity: state.capacity,
                    busy: state.busy,
                    waiting: state.queue.len(),
                };
                // Who asked may have gone.
                let _ = reply.send(status);
            }
        }
        state.grant(&myself);
        Ok(())
    }
}

impl State {
    /// Leases to the head of the queue as long as it fits. A large need at the head is not overtaken, or it
    /// would wait for ever behind small ones.
    fn grant(&mut self, myself: &ActorRef<Message>) {
        while let Some(head) = self.queue.first_entry() {
            let weight = head.get().2;
            if self.busy + weight > self.capacity {
                return;
            }
            let (execution, task, weight) = head.remove();
            self.places.remove(&(execution, task.attempt));
            self.busy += weight;
            let lease = Lease { lane: myself.clone(), name: self.name.clone(), weight };
            self.core.lease(execution, task, Some(lease));
        }
    }
}
