//! What one process of a stage may take of the box. The kernel holds these; init watches over all of them together.

use std::path::Path;

use conveyor_job::Job;
use nix::libc::rlim_t;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal};

use super::Sandbox;

/// Threads and processes: a ladder of many renditions has hundreds of threads.
pub const TASKS_MAX: u64 = 2_048;
/// Inputs, outputs, segments and what libraries need.
const OPEN_FILES_MAX: u64 = 4_096;
/// Seconds of one process's computing: a film of four hours in the slowest settings takes a tenth of it.
const CPU_SECONDS_MAX: u64 = 1_000 * 3_600;
/// Room for what is mapped and not memory: the files themselves, libraries, heaps that threads reserve.
const MAPPED_BYTES: u64 = 8 << 30;
/// Room that allocators reserve before they use it.
const RESERVED_BYTES: u64 = 2 << 30;
/// Of the disk, for the store beside the work folders.
const RESERVE_BYTES: u64 = 128 << 20;
const MEMORY_BYTES_MIN: u64 = 2 << 30;

/// Bytes of memory that a stage may take with all of its processes.
pub fn memory_bytes(sandbox: &Sandbox) -> u64 {
    let half = || {
        let pages = nix::unistd::sysconf(nix::unistd::SysconfVar::_PHYS_PAGES).ok().flatten().unwrap_or(0);
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4_096);
        (pages.unsigned_abs() * page.unsigned_abs() / 2).max(MEMORY_BYTES_MIN)
    };
    sandbox.memory_mib.map_or_else(half, |mib| mib << 20)
}

/// How a stage that takes more is told of.
pub fn too_much_memory(memory_bytes: u64) -> String {
    format!(
        "took more than the {} MiB of memory that it may ([sandbox] memory_mib); its pictures may be larger than this box is made for",
        memory_bytes >> 20
    )
}

/// # Errors
///
/// The kernel's, which are faults of this program: lowering is always allowed.
pub fn set(job: &Job, sandbox: &Sandbox) -> Result<(), String> {
    let memory = memory_bytes(sandbox);
    let file = file_bytes(&job.work_dir);
    let mut limits: Vec<(Resource, rlim_t)> = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, OPEN_FILES_MAX),
        (Resource::RLIMIT_NPROC, TASKS_MAX),
        (Resource::RLIMIT_CPU, CPU_SECONDS_MAX),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
        (Resource::RLIMIT_NICE, 0),
    ];
    // Drivers of GPUs map their own memory and the box's many times over, and pin it.
    if job.device.is_none() {
        limits.push((Resource::RLIMIT_DATA, memory + RESERVED_BYTES));
        limits.push((Resource::RLIMIT_AS, memory + MAPPED_BYTES));
        limits.push((Resource::RLIMIT_MEMLOCK, 64 << 10));
    }
    // What moves files writes on other disks, whose space is the limit.
    if job.access.shares.is_empty() {
        limits.push((Resource::RLIMIT_FSIZE, file));
    }
    // A file that grows too long is an error of its writer and not the end of it.
    // SAFETY: to be ignored takes no handler.
    let ignored = unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
    ignored.map_err(|e| format!("a signal cannot be ignored: {e}; report this"))?;
    for (resource, limit) in limits {
        lower(resource, limit)
            .map_err(|e| format!("the stage's limit {resource:?} cannot be set: {e}; report this"))?;
    }
    Ok(())
}

/// Never above what the process has now.
fn lower(resource: Resource, limit: rlim_t) -> nix::Result<()> {
    let (_, hard) = nix::sys::resource::getrlimit(resource)?;
    let limit = limit.min(hard);
    setrlimit(resource, limit, limit)
}

/// What is free on the disk of the work folder, less what the appliance keeps for its store.
fn file_bytes(work_dir: &Path) -> u64 {
    let free = |disk: nix::sys::statvfs::Statvfs| disk.blocks_available() * disk.fragment_size();
    let free = nix::sys::statvfs::statvfs(work_dir).map_or(u64::MAX, free);
    // A file system that does not say how much it has has enough.
    if free == 0 { u64::MAX } else { free.saturating_sub(RESERVE_BYTES).max(RESERVE_BYTES) }
}
