//! Media is untrusted, so it is only ever opened in a child process: this same binary, started as
//! `conveyor stage`.
//!
//! ```text
//! appliance                                   child
//!   spawn ──── job, as JSON, on stdin ──────>  jail::enter, then media::run
//!         <─── reports, JSON lines, one pipe ─  jailed, progress … made … result | failed
//!         <─── log, on stderr: its tail rides in a failure's cause
//! ```
//!
//! What a stage has made stays in its work folder; when it has ended well, a second child, which opens no media, places it.
//!
//! A decoder that crashes, hangs or eats memory on a hostile file costs that attempt and nothing else. The child
//! dies with its parent, and its whole process group dies when nobody waits for it any more.
//!
//! Must never: know what a stage does (whoever starts the child's side hands it over), or keep anything over a restart. Holds: a
//! child lives no longer than the attempt it was started for.

mod affinity;
mod cgroup;
mod child;
mod function;
mod jail;
pub mod process;
mod protocol;
mod registries;
mod said;
mod spawn;

pub use child::child_main;
pub use function::{Functions, function_main};
pub use jail::{Jail, Mode, Sandbox};
pub use protocol::Report;
pub use spawn::{ChildProcesses, OnProgress, Spawn, Standing};

/// How a stage fails that is not run, or that its jail has ended.
const NOT_CLOSED: &str = "Stage.Jail";
/// The stage that does nothing in its jail: its result is what the jail is.
const CHECK: &str = "jail";
/// The stage that only starts GStreamer, which makes its list of plug-ins.
const REGISTRY: &str = "registry";
