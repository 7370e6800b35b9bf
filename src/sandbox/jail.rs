//! What a child gives up before it opens anything that came from outside.
//!
//! Landlock, where the kernel has it: the child reads the system's libraries, its own work directory and the
//! shares, writes the work directory and the shares, and sees no other file: neither the store nor anybody's home.

use std::path::{Path, PathBuf};

use conveyor_job::Job;
use landlock::{ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, path_beneath_rules};

/// Where programs, plug-ins, their configuration and devices lie.
const READ_ONLY: &[&str] = &["/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/proc", "/sys"];
/// Devices: GPUs are opened for writing; `/dev/shm` and `/tmp` serve drivers and libraries.
const READ_WRITE: &[&str] = &["/dev", "/tmp"];

/// Confines this process. An old kernel without Landlock is no reason not to work: the process
/// boundary, the limits and the parent's watch remain.
pub fn enter(job: &Job, extra: &[PathBuf]) {
    // Out of memory, the kernel shall take a child and not the appliance. Refused in some containers.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    if let Err(error) = restrict(job, extra) {
        eprintln!("the stage runs without Landlock: {error}");
    }
}

fn restrict(job: &Job, extra: &[PathBuf]) -> Result<(), landlock::RulesetError> {
    let abi = ABI::V3;
    let shares = job.shares.names().filter_map(|name| job.shares.root(name).ok());
    let write: Vec<&Path> = shares
        .chain([job.work_dir.as_path()])
        .chain(extra.iter().map(PathBuf::as_path))
        .chain(READ_WRITE.iter().map(Path::new))
        .filter(|path| path.exists())
        .collect();
    let own = own_places();
    let read = READ_ONLY.iter().map(Path::new).chain(own.iter().map(PathBuf::as_path));
    let read: Vec<&Path> = read.filter(|path| path.exists()).collect();
    Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(read, AccessFs::from_read(abi)))?
        .add_rules(path_beneath_rules(write, AccessFs::from_all(abi)))?
        .restrict_self()?;
    Ok(())
}

/// Libraries and plug-ins that were put elsewhere.
fn own_places() -> Vec<PathBuf> {
    let variables = ["LD_LIBRARY_PATH", "GST_PLUGIN_PATH", "GST_PLUGIN_SYSTEM_PATH"];
    let values: Vec<_> = variables.into_iter().filter_map(std::env::var_os).collect();
    values.iter().flat_map(std::env::split_paths).filter(|path| path.is_absolute()).collect()
}
