//! Amazon States Language, pure. Text in, a checked [`StateMachine`] out, or all of its problems.
//!
//! This module also evaluates what stands in a definition (paths, payload templates, intrinsic functions,
//! choice rules) against plain values. It knows no executions, no time and no I/O.
//!
//! ```text
//! definition/   text -> json (with positions) -> checker -> machine, or problems
//! machine       what comes out: states with everything in them compiled
//! path/ reference_path template intrinsic/ jsonata query condition timestamp
//!               the compiled pieces; each reads its own text and evaluates in a scope
//! flow/         what can happen to data on its way through a definition
//! scope         what they may look at, and how they fail
//! ```
//!
//! Invariants: a [`StateMachine`] has no transition that leads nowhere; no evaluation panics, recurses without
//! bound or depends on anything but its [`Scope`].

pub mod condition;
pub mod definition;
pub mod distributed;
pub mod flow;
pub mod intrinsic;
pub mod jsonata;
pub mod machine;
pub mod path;
pub mod problem;
pub mod query;
pub mod reference_path;
pub mod scope;
pub mod template;
pub mod timestamp;

#[cfg(test)]
mod properties;

pub use condition::Condition;
pub use definition::{STATE_ALONE, WorkflowType, check, check_state, may_label, parse, resources, review};
pub use distributed::*;
pub use intrinsic::Intrinsic;
pub use jsonata::Jsonata;
pub use machine::*;
pub use path::Path;
pub use problem::{Problem, Severity, describe};
pub use query::Query;
pub use reference_path::ReferencePath;
pub use scope::{ContextUse, EvalError, Scope, Variables};
pub use template::Template;
pub use timestamp::{parse_timestamp, whole_seconds};
