//! Bytes of a store rot while it rests, and the box is started on it: what is wrong is an error of the execution that it
//! belongs to, by name, with an alarm and a way on, and nobody else notices.
//!
//! `actors`: in this process and in a paused time, each kind of execution with each of its rows damaged. `served`: the
//! binary, its API, its command line and its repair. `dispensable`: what the box starts without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "damage/actors.rs"]
mod actors;
#[path = "damage/dispensable.rs"]
mod dispensable;
#[path = "damage/served.rs"]
mod served;
