//! EventBridge's `putEvents` on the rules of this box ([`services::events`](conveyor_services::events)), for Tasks and for
//! clients outside; and how the dispatcher of events calls functions and uses connections.

mod api;
mod outside;
mod task;

pub use api::{Origin, Put, put};
pub use outside::OutsideTargets;
pub use task::{NAMES, adapter};
