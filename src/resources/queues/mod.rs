//! SQS's operations on the queues of this box ([`services::queues`](conveyor_services::queues)), for Tasks and for clients
//! outside: what a call's fields mean, and how answers and refusals are worded.

mod api;
mod message;
mod task;

pub use api::{SqsError, call, operation};
pub use task::{NAMES, adapter};
