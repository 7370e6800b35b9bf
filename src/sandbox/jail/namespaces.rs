//! Namespaces of the kernel: a worker has a user, processes, a network, mounts and names of its own.
//!
//! An ordinary user gets the right to make them with a namespace of users (`user_namespaces(7)`); root has it, uses it to
//! mount, and becomes the stage's own user afterwards. Files are moved as whoever the appliance is, since they belong to
//! its users: such a stage opens none of them.

use std::fs;
use std::io;
use std::process::ExitCode;

use conveyor_base::TaskError;
use conveyor_job::Job;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, getegid, geteuid, getgid, getuid, setgroups, setresgid, setresuid};

use super::{Jail, NotEntered, Sandbox, init, limits, root};

/// Where this process stands.
pub enum Side {
    Worker,
    /// Keeper or init, when it is over: how it ends, and what it has to report where the worker cannot.
    Over {
        code: ExitCode,
        last_word: Option<TaskError>,
    },
}

/// Signals that end a process. Whoever exits with another's number has exited.
const ENDING: &[Signal] = &[
    Signal::SIGSEGV,
    Signal::SIGABRT,
    Signal::SIGKILL,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
    Signal::SIGTERM,
    Signal::SIGINT,
];
/// A status above this says by which signal a process ended, as shells do.
pub const SIGNALLED: i32 = 128;

/// Makes the namespaces and returns as the worker in them.
///
/// # Errors
///
/// Which of them the kernel refuses, and what to change.
pub fn enter(job: &Job, sandbox: &Sandbox, jail: &mut Jail) -> Result<Side, NotEntered> {
    let is_root = geteuid().is_root();
    let parent = nix::unistd::getppid();
    let (user, group) = (geteuid(), getegid());
    let apart = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    if is_root {
        unshare(apart).map_err(|e| refused("namespaces", e))?;
    } else {
        unshare(apart | CloneFlags::CLONE_NEWUSER).map_err(|e| refused("namespaces of users", e))?;
        map_user(user, group).map_err(|e| format!("the stage's user cannot be mapped: {e}; report this"))?;
    }
    split(parent, |alive| {
        let proc = root::enter(job, sandbox)?;
        if !proc && job.access.shares.is_empty() {
            // Without it nobody counts what the stage's processes take, nor are they kept from making namespaces.
            return Err(refused("/proc of its own", nix::errno::Errno::EPERM).into());
        }
        let stage_user = root::stage_user(job, sandbox);
        if let Some(user) = stage_user {
            become_user(user, proc)?;
        }
        if !is_root || stage_user.is_some() {
            // The quota is of the namespace that this process made, and holds for all that are made in it.
            let quota = fs::write("/proc/sys/user/max_user_namespaces", "0");
            if proc && quota.is_ok() {
                jail.closes("quota");
            }
            jail.closes("user");
        }
        for name in ["pid", "net", "mount", "ipc", "uts"] {
            jail.closes(name);
        }
        super::capabilities::drop_all(job)?;
        Ok(init::run(&format!("stage '{}'", job.stage), Some(limits::memory_bytes(sandbox)), alive)?)
    })
}

/// Splits this process in two: the keeper, which waits and dies with its parent, and init, the first in the new namespace of
/// processes, which does the rest and dies with the keeper.
pub fn split<E: From<String>>(
    parent: Pid,
    as_init: impl FnOnce(&io::PipeReader) -> Result<Side, E>,
) -> Result<Side, E> {
    let gone = || E::from("the appliance has ended".to_owned());
    // A change of rights may have cleared what `process::start` asked for.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| refused("parent-death signals", e))?;
    if nix::unistd::getppid() != parent {
        return Err(gone());
    }
    let (alive, keeper) = io::pipe().map_err(|e| format!("the stage has no pipe: {e}; see the box's limits"))?;
    let no_fork = |e| format!("the stage cannot start its own processes: {e}; see the box's limits of processes");
    // SAFETY: the process has one thread, so that its copy may do anything.
    match unsafe { fork() }.map_err(no_fork)? {
        ForkResult::Parent { child } => {
            drop(alive);
            let code = wait_for(child);
            drop(keeper);
            Ok(Side::Over { code, last_word: None })
        }
        ForkResult::Child => {
            drop(keeper);
            init::dies_with(&alive)?;
            as_init(&alive)
        }
    }
}

/// This user and this group and nobody else: inside they have the numbers that they have outside.
pub fn map_user(user: Uid, group: Gid) -> io::Result<()> {
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Root becomes the stage's own user, in a namespace where there is no other.
fn become_user(user: u32, proc: bool) -> Result<(), String> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    let become_it = || -> nix::Result<()> {
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
        // What root was is no longer in this process, and its own files under /proc shall be its own.
        prctl::set_dumpable(true)?;
        if proc {
            unshare(CloneFlags::CLONE_NEWUSER)?;
        }
        Ok(())
    };
    become_it().map_err(|e| refused("the stage's own user", e))?;
    if (getuid(), getgid()) == (Uid::from_raw(0), Gid::from_raw(0)) {
        return Err("the stage is still root; report this".to_owned());
    }
    if proc {
        map_user(user, group).map_err(|e| format!("the stage's user cannot be mapped: {e}; report this"))?;
    }
    Ok(())
}

/// Waits for init and ends as the worker did, so that whoever waits for this process sees how that was.
fn wait_for(init: Pid) -> ExitCode {
    // The job was read, and what is reported is written by the worker.
    let _ = nix::unistd::close(0);
    let code = loop {
        match waitpid(init, None) {
            Ok(WaitStatus::Exited(_, code)) => break code,
            Ok(WaitStatus::Signaled(_, signal, _)) => break SIGNALLED + signal as i32,
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(_) => break 1,
        }
    };
    if let Some(signal) = Signal::try_from(code - SIGNALLED).ok().filter(|signal| ENDING.contains(signal)) {
        // SAFETY: back to what the kernel does by itself, which is to end this process.
        let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
        let _ = raise(signal);
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// What a kernel that refuses is asked to do.
pub fn refused(what: &str, error: nix::errno::Errno) -> String {
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned();
    let hint = if setting("kernel/unprivileged_userns_clone") == "0" {
        "set kernel.unprivileged_userns_clone = 1"
    } else if setting("user/max_user_namespaces") == "0" {
        "set user.max_user_namespaces to some thousands"
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "give the appliance an AppArmor profile with 'userns,', or set kernel.apparmor_restrict_unprivileged_userns = 0"
    } else if error as i32 == libc::EPERM {
        "in a container, allow it to make namespaces and to mount a /proc (Docker: --security-opt seccomp=unconfined --security-opt systempaths=unconfined; systemd: no RestrictNamespaces=, no ProtectKernelTunables=)"
    } else {
        "see the kernel's log"
    };
    format!("the kernel gives the stage no {what}: {error}; {hint}")
}
