//! Floor 1: Amazon States Language, pure. Text in, a checked [`StateMachine`] out, or all of its problems.
//!
//! This module also evaluates what stands in a definition (paths, payload templates, intrinsic functions,
//! choice rules) against plain values. It knows no executions, no time and no I/O.

pub mod machine;
pub mod query;

pub use machine::*;
pub use query::*;
