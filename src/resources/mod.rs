//! What a Task may name.
//!
//! ```text
//! Resource ARN --Registry::find--> Adapter --call(Call)--> Answer | TaskError
//!                                     └── service (queues, items, claims ...): state and rows
//! ```
//!
//! An adapter reads a Task's parameters and words the answer as the service that it stands for does; what it does, it
//! does with the services that it was built with. Which names there are, and who has them, is the wiring's to say.
//!
//! Must never: keep what may not be lost at any time (services do), or open media (the child does). Holds: a name belongs to
//! one adapter; what a Task changes in the box's store is in the commit that ends the Task. Beside it stand only rows
//! without which a restart could not go on with work elsewhere: of jobs at other services ([`forward`], whose followers are
//! supervised and begin again from their rows) and of what a Task mounted (`mounts`).

mod access;
pub mod activities;
mod adapter;
pub mod approve;
mod aws;
mod bounded;
pub mod builtin;
pub mod claims;
pub mod events;
pub mod executions;
pub mod forward;
pub mod functions;
pub mod housekeeping;
pub mod http;
pub mod items;
pub mod jobs;
pub mod map_items;
pub mod media;
pub mod mounts;
pub mod notify;
pub mod objects;
pub mod predict;
pub mod queues;
mod registry;
pub mod topics;
pub mod wire;

pub use adapter::{Adapter, AttemptCompletion, Call, CallFuture, CallOutcome, Ended, SettleFn};
pub use registry::{EndedChild, NameTaken, OnChildEnded, Registry, covers, task_name};

use conveyor_base::{Fault, TaskError, fault};

/// A fault of the environment as a task's error: it may pass, so that Retry may take it.
pub(crate) fn fault(fault: &Fault) -> TaskError {
    TaskError::new("States.TaskFailed", fault::chain(fault))
}
