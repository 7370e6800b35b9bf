//! What state machines log, delivered to files of the box.
//!
//! ```text
//! run ──queue──> delivery ──> files    data_dir/logs/GROUP/2026-01-31.jsonl, .1.jsonl …
//!                   event      the spelling of a history event, which the API uses too
//! ```
//!
//! A state machine's `loggingConfiguration` names a log group; the group is a folder here, and its lines are those that
//! AWS writes to CloudWatch Logs. Best effort, as there: an execution never waits for its log, a disk that is full costs
//! lines and nothing else.
//!
//! Must never: hold an execution up, or write outside its folder. Holds: no group's name leads out of it; lines that
//! are lost are counted; only files that are named as this crate names them are ever removed.

mod delivery;
pub mod event;
mod files;

pub use delivery::Delivery;
pub use files::{LogFile, LogSettings, folder, list};
