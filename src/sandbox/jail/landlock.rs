//! Landlock: the second lock on files, and on kernels that know how on the network, signals and abstract sockets.

use std::path::{Path, PathBuf};

use conveyor_job::Job;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};

use super::{device, root, system};

/// The newest version whose rules are written here.
const KNOWN: ABI = ABI::V6;

/// Confines this process, and says by which version.
///
/// # Errors
///
/// Why it does not hold at all.
pub fn restrict(job: &Job) -> Result<String, String> {
    let broken = |e: landlock::RulesetError| format!("Landlock does not close: {e}");
    let system = system::READ.iter().map(|(path, _)| PathBuf::from(path));
    let devices = system::DEVICES.iter().map(PathBuf::from).chain(device::paths(job));
    let proc = (job.access.shares.is_empty()).then(|| PathBuf::from("/proc"));
    let read = system.chain(root::own_places()).chain(root::reads(job)).chain(proc).filter(|path| path.exists());
    let write = [job.work_dir.clone()].into_iter().chain(root::shares(job)).filter(|path| path.exists());
    // Captions are looked for in a folder, which in here holds nothing but them and the file.
    let listed = job.access.captions_of.iter().filter_map(|uri| root::place(job, uri)?.parent().map(Path::to_owned));
    // Nothing is ever executed: what is loaded is mapped.
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = AccessFs::from_all(KNOWN) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
    let of_devices = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(KNOWN)))
        .and_then(|rules| rules.scope(Scope::from_all(KNOWN)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(read, reading)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(devices.filter(|path| path.exists()), of_devices)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(listed.filter(|path| path.exists()), AccessFs::ReadDir)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(write, writing)))
        .and_then(|rules| rules.restrict_self())
        .map_err(broken)?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err("Landlock is not enabled in this kernel (add landlock to lsm= on its command line)".to_owned())
        }
        (RulesetStatus::NotEnforced, _) => {
            Err("this kernel has no Landlock (5.13 and later have), which would be the second lock on files".to_owned())
        }
        (_, LandlockStatus::Available { effective_abi, .. }) => Ok((effective_abi as i32).to_string()),
        (..) => Ok(String::new()),
    }
}

/// Whether the kernel has it, and knows of names that change their folder.
pub fn is_there() -> bool {
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    rules.handle_access(AccessFs::from_all(ABI::V2)).and_then(Ruleset::create).is_ok()
}
