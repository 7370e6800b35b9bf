//! Conveyor: the runtime of an on-prem media appliance.
//!
//! The modules are floors: each may import only from those below it (`tests/tidy.rs` checks that).
//!
//! ```text
//! floor 8  cli
//! floor 7  ingest   api   dashboard
//! floor 6  resources   logs   bench
//! floor 5  services
//! floor 4  run
//! floor 3  store
//! floor 2  interpreter
//! floor 1  asl   media   sandbox
//! floor 0  base   aws   jsonata   (and the crates conveyor-hw, conveyor-pixels)
//! ```
//!
//! `api` shows what `resources` and `services` keep (approvals, notifications, alarms), and hands calls of the box's
//! queues and rules on to `resources`; executions it changes through [`run::Handle`] alone.
//!
//! Three words carry the design: decide, commit, act. [`interpreter::step`] decides and touches
//! nothing, [`store`] makes one durable commit of the decision, and [`run`] carries it out.

pub mod api;
pub mod asl;
pub mod aws;
pub mod base;
pub mod bench;
pub mod cli;
pub mod dashboard;
pub mod ingest;
pub mod interpreter;
pub mod jsonata;
pub mod logs;
pub mod media;
pub mod resources;
pub mod run;
pub mod sandbox;
pub mod services;
pub mod store;
