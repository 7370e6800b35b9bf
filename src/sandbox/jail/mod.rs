//! What a stage's child gives up before it opens anything that came from outside.
//!
//! ```text
//! appliance ── conveyor stage (the keeper): reads the job, makes the namespaces, waits
//!                └── init: process 1 of them; makes the root, drops all rights, reaps, watches memory and processes
//!                      └── the worker: locks itself in by Landlock and filter, then opens the file
//! ```
//!
//! Each thing that the worker cannot do is held by two locks at least:
//!
//! | it cannot | by | and by |
//! |---|---|---|
//! | reach a network | a network namespace without any | the filter: no sockets but pairs |
//! | see or signal another process | a process namespace with its own /proc | the filter: signals to itself alone |
//! | read or write anybody's files | a root of its own ([`root`]), in which they are not | Landlock: [`landlock`] |
//! | gain rights, make namespaces, mount | no capabilities, `no_new_privs`, a quota of no namespaces | the filter |
//! | trace, load programs into the kernel, ring buffers of requests | a user and processes of its own | the filter |
//! | take more than its share | limits of the process ([`limits`]) | init's watch over all of them |
//! | outlive the stage or the appliance | init's death ends its namespace | the process group, the parent-death signal |
//! | leave its memory on a disk | no core size | not dumpable |
//!
//! Of these only Landlock is missing from some kernels in use; every row holds without it but for the third, which is then
//! held by the root alone. A GPU's driver needs more of the system, so a job with a lease on one gets its nodes, all device
//! requests and no limit of address space.
//!
//! Must never: open the input, or go on where a lock does not close, unless the owner asked for that in so many words.

mod capabilities;
mod device;
mod filter;
pub mod function;
mod init;
mod landlock;
pub mod limits;
mod namespaces;
mod root;
mod system;

use std::process::ExitCode;

use conveyor_base::TaskError;
use conveyor_job::Job;
use serde::{Deserialize, Serialize};

pub use filter::Denied;

/// What to do where the kernel cannot close a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Run no stage.
    #[default]
    Enforce,
    /// Run it behind the locks that close. For a machine that only ever sees its owner's own files.
    BestEffort,
}

/// How children are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    pub mode: Mode,
    /// Memory that one stage may take, in MiB; half of the box's where it is not said, and 2 GiB at least.
    pub memory_mib: Option<u64>,
    /// Who stages run as where the appliance runs as root: a number that no account on the box has.
    pub user: u32,
}

/// Beyond what systemd and Debian give to accounts, services and containers (https://systemd.io/UIDS-GIDS/).
const STAGE_USER: u32 = 1_900_000_000;

impl Default for Sandbox {
    fn default() -> Sandbox {
        Sandbox { mode: Mode::default(), memory_mib: None, user: STAGE_USER }
    }
}

/// The locks that are closed around a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    pub closed: Vec<String>,
    /// Those that are open, each with the reason and what to change.
    pub open: Vec<String>,
}

impl Jail {
    fn closes(&mut self, lock: impl Into<String>) {
        self.closed.push(lock.into());
    }
}

/// Which way out of [`enter`] this process takes.
pub enum Entered {
    /// This is the worker, and these locks are closed.
    Worker(Jail),
    /// This is one of those around it, and its work is done; the worker may have left it the last word.
    Over { code: ExitCode, last_word: Option<TaskError> },
}

/// Why a stage is not run.
pub enum NotEntered {
    /// A lock does not close: which, why, and what to change.
    Open(String),
    /// What the job names may not be shown to it.
    Job(TaskError),
}

impl From<String> for NotEntered {
    fn from(why: String) -> NotEntered {
        NotEntered::Open(why)
    }
}

/// Locks this process in: what returns as the worker is another process, two floors down. Must be called while the process
/// has one thread.
///
/// # Errors
///
/// Nothing was opened then.
pub fn enter(job: &Job, sandbox: &Sandbox) -> Result<Entered, NotEntered> {
    let mut jail = Jail::default();
    let lenient = sandbox.mode == Mode::BestEffort;
    // Out of memory, the kernel shall take a child and not the appliance. Refused in some containers.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    match namespaces::enter(job, sandbox, &mut jail) {
        Ok(namespaces::Side::Worker) => {}
        Ok(namespaces::Side::Over { code, last_word }) => return Ok(Entered::Over { code, last_word }),
        Err(NotEntered::Open(why)) if lenient => jail.open.push(why),
        Err(why) => return Err(why),
    }
    // Landlock is the second lock everywhere, so that a kernel without it is good enough.
    match landlock::restrict(job) {
        Ok(version) => jail.closes(format!("landlock {version}")),
        Err(why) => jail.open.push(why),
    }
    let locks: [(&str, Result<(), String>); 3] = [
        ("limits", limits::set(job, sandbox)),
        ("capabilities", capabilities::drop_all(job)),
        ("filter", filter::install(job)),
    ];
    for (name, closed) in locks {
        match closed {
            Ok(()) => jail.closes(name),
            Err(why) if lenient => jail.open.push(why),
            Err(why) => return Err(why.into()),
        }
    }
    Ok(Entered::Worker(jail))
}
