//! Floor 1: what a stage does to media. All of it runs inside the sandboxed child process.
//!
//! A stage is a function from a [`Job`] to a JSON result; it says how far it is through a [`Progress`] sink.
//! It knows jobs and files, never workflows or the store.

pub mod clip;
pub mod job;

pub use job::{Job, Progress, Reporter};
