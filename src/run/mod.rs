//! The actors that carry out what `step` decided.
//!
//! ```text
//! Handle ──> Core ──> ExecutionActor (one per execution that has something to do now)
//!              │          └─ StageActor (one per attempt, linked) ──> Resource ──> child process
//!              ├─ services one actor each: what else on the box has state (`service`)
//!              ├─ lanes    one actor: who goes next, where, leases
//!              ├─ timers   one sleeper over the store's timer rows
//!              ├─ map runs one driver each: starts and counts the children of a distributed Map
//!              └─ express  executions that are kept in memory, a task each
//! ```
//!
//! Decide, commit, act: an actor steps, stores the step in one commit, and only then carries out its commands.
//! Whatever was commanded and not finished is a row, and is issued again after a crash ([`recover`]). An
//! execution that only waits has no actor. A wake-up that gets lost is harmless: rows are looked at again.
//!
//! Owns every actor's life: whatever runs is a part under the root ([`OnFailure`]), comes back or ends the process. Must never:
//! decide what a state does (the interpreter's), what a Resource does (an adapter's), or name a service. Holds: nothing is acted
//! upon before it is durable; no actor waits for a disk; a wake-up costs as much as the branches that it wakes.

mod activities;
mod audit;
mod catalog;
mod completion;
mod core;
mod deliver;
mod events;
mod execution;
mod express;
mod guarded;
mod handle;
pub mod lanes;
mod logging;
mod map_runs;
mod predictions;
mod progress;
mod recover;
mod refused;
mod resource;
mod retention;
pub mod service;
mod stage;
mod start;
mod supervise;
mod timers;
mod versions;

pub use activities::ActivityTask;
pub use audit::{AuditEntry, OnBehalf};
pub use catalog::{Changed, Machine, MachineChange, NewMachine};
pub use completion::{Completion, Settle};
pub use core::{Config, priority_of};
pub use deliver::OWNED;
pub use express::{By as ExpressBy, Counts, Ended, ExpressBoard, Running};
pub use handle::{Handle, StartRequest, Started};
pub use lanes::demand::Demand;
pub use lanes::spec::Lanes;
pub use logging::{LogBatch, LogLevel, LogTarget};
pub use map_runs::MapRunChange;
pub use predictions::{Forecast, OnForecast, Prediction};
pub use progress::{LiveUpdate, ProgressSink, RunningAttempt};
pub use recover::start;
pub use refused::Refused;
pub use resource::{Announced, Attempted, Fill, ItemSink, Resource, Resources, TaskContext, TaskOutcome};
pub use retention::{RetentionPeriods, Retired, not_redrivable};
pub use supervise::{FailedPart, OnFailure, RECENT_MS, current_part};
pub use versions::AliasChange;
