//! Amazon States Language, pure. Text in, a checked [`StateMachine`] out, or all of its problems.
//!
//! This module also evaluates what stands in a definition (paths, payload templates, intrinsic functions,
//! choice rules) against plain values.
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
//! Must never: know an execution, a clock, or anything that is read or written. Holds: a [`StateMachine`] has no
//! transition that leads nowhere; no evaluation panics, recurses without bound or depends on anything but its
//! [`Scope`].

mod condition;
mod definition;
mod distributed;
pub mod flow;
mod intrinsic;
mod jsonata;
mod machine;
mod path;
mod problem;
mod query;
mod reference_path;
mod scope;
mod template;
mod timestamp;

#[cfg(test)]
mod properties;

pub use condition::Condition;
pub use conveyor_jsonata::Effort;
pub use definition::{STATE_ALONE, WorkflowType, check, check_state, may_label, parse, resources, review};
pub use distributed::{
    Distributed, Format, InputType, ItemBatcher, ItemReader, ReadWith, ResultForm, ResultWriter, Transformation,
};
pub use intrinsic::Intrinsic;
pub use jsonata::{Jsonata, kind_of};
pub use machine::{
    Catcher, Choice, Count, DataFlow, InputPath, Items, Kind, Map, Name, Processor, ProcessorMode, QueryLanguage,
    ResultPath, Retrier, Rule, Seconds, State, StateMachine, Task, Text, Transition, Wait,
};
pub use path::Path;
pub use problem::{Problem, Severity, describe};
pub use query::Query;
pub use reference_path::ReferencePath;
pub use scope::{ContextUse, EvalError, Scope, Variables, mix};
pub use template::Template;
pub use timestamp::{parse_timestamp, whole_seconds};
