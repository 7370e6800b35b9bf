//! Whoever hangs up changes nothing of what was accepted: the served binary under clients that leave in every way at
//! every moment. A change runs to its end with its audit entry in the same commit, whether or not its caller still
//! listens, and a message that was acknowledged reaches its receiver without a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "hangups/audit.rs"]
mod audit;
#[path = "hangups/queues.rs"]
mod queues;
