//! What of the box has state besides executions, each a service under the law of the kernel
//! ([`run::service`](conveyor_run::service)).
//!
//! A service has a folder: its settings and its pure core, which decides; the actor that owns the core's memory; and
//! what others hold of it, which is an address to send messages to. Rows are tables of its own in the store. What a
//! Task's parameters or a request's fields mean is none of its business: that is for `resources` and the API. Two have no actor: `audit`,
//! which has no memory (entries are stored with the changes that they tell of, and here the oldest go), and `sessions`, of
//! which each stands for itself.
//!
//! Must never: wait for its own commit, be called but by message, read another service's rows, or speak AWS's wire forms. Holds:
//! what was answered is durable; a service's memory is what its rows say, so that an actor that died comes back as it was;
//! whoever hangs up changes nothing of what was taken.

pub mod alarms;
pub mod approvals;
pub mod audit;
pub mod claims;
pub mod events;
pub mod items;
pub mod notifications;
pub mod predictions;
pub mod queues;
pub mod schedules;
pub mod sessions;
pub mod uploads;
