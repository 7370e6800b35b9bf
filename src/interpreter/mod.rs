//! The interpreter. `step` decides and touches nothing.
//!
//! Pure and total: no clock, no randomness, no I/O, no hash-map order. Time and randomness come in with
//! each [`Entry`]; what shall happen goes out as [`Command`]s; what was decided is the [`Step`] that one
//! durable commit stores.
//!
//! Must never: know the store, actors, or what a Resource does. Holds: the same execution and the same entry give the same step,
//! on every machine and after every crash; an execution that has ended takes no step.

mod catch;
mod choice;
mod context;
mod dataflow;
mod draft;
mod end;
mod env;
mod event;
mod execution;
mod history;
mod inspect;
mod map;
pub mod map_run;
mod observer;
mod parallel;
mod partial;
mod pass;
mod raise;
mod retry;
mod step;
mod task;
mod wait;

pub use conveyor_asl::Effort;
pub use env::Env;
pub use event::{Command, Entry, Event, Json, Outcome, RunTask};
pub use execution::{
    Branch, Doing, Execution, Header, Item, MachineRef, MapChild, MapItems, Parent, Qualifier, RunPhase, Status, Step,
    TaskPhase, run_list,
};
pub use history::{Failure, HistoryEvent, HistoryKind, StateType};
pub use inspect::{Ended, Finding, Mock, Trial, inspect};
pub use partial::{Known, Partial, Rows, Unread};
pub use step::{Lacks, Pace, step, step_briefly, step_partly};
