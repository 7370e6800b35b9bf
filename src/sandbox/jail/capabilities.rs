//! Rights that the kernel gives to root: all of them go, for good.

use conveyor_job::Job;
use nix::errno::Errno;
use nix::libc;

/// The last right that a kernel of these years knows; asking for later ones is an error and ends the loop.
const CAPABILITIES_MAX: libc::c_ulong = 63;
/// Version 3 of the interface (linux/capability.h).
const VERSION: u32 = 0x2008_0522;
/// What root needs to move files that belong to others: read and write them, and give them away.
const OF_MOVERS: u64 = 1 << 0 /* chown */ | 1 << 1 /* dac_override */ | 1 << 2 /* dac_read_search */ | 1 << 3 /* fowner */;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whether this process has rights that others have not.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// What is left to a stage: nothing to one that opens media, whoever it runs as.
pub fn kept(job: &Job) -> u64 {
    if is_root() && !job.access.shares.is_empty() { OF_MOVERS } else { 0 }
}

/// What a program of the owner may keep where the appliance runs as root: rights over files and users, and none over the
/// kernel, its devices, its clock, its modules or other processes' memory. About what containers get.
const OF_FUNCTIONS: u64 = OF_MOVERS
    | 1 << 4 /* fsetid */
    | 1 << 5 /* kill */
    | 1 << 6 /* setgid */
    | 1 << 7 /* setuid */
    | 1 << 10 /* net_bind_service */
    | 1 << 14 /* ipc_lock */
    | 1 << 23 /* sys_nice */;

/// # Errors
///
/// As [`drop_all`].
pub fn drop_to_function() -> Result<(), String> {
    let kept = if is_root() { OF_FUNCTIONS } else { 0 };
    drop_to(kept).map_err(|e| format!("its rights cannot be given up: {e}; report this"))
}

/// # Errors
///
/// The kernel's, which are faults of this program: giving up is always allowed.
pub fn drop_all(job: &Job) -> Result<(), String> {
    let kept = kept(job);
    drop_to(kept).map_err(|e| format!("the stage's rights cannot be given up: {e}; report this"))
}

fn drop_to(kept: u64) -> nix::Result<()> {
    for capability in 0..=CAPABILITIES_MAX {
        if kept & (1 << capability) != 0 {
            continue;
        }
        // SAFETY: takes numbers alone.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(dropped) {
            // Beyond the last one; or it was given up before, with the right to give up more.
            Err(Errno::EINVAL) => break,
            Err(Errno::EPERM) | Ok(_) => {}
            Err(e) => return Err(e),
        }
    }
    let header = Header { version: VERSION, pid: 0 };
    let half = |bits: u32| Data { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(kept as u32), half((kept >> 32) as u32)];
    // SAFETY: both are of the shape that this version of the call reads, and outlive it.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    Errno::result(set)?;
    // SAFETY: takes numbers alone.
    unsafe {
        Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        Errno::result(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0))?;
    }
    Ok(())
}
