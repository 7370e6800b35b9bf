//! What else happens on the box while it is measured: figures of a busy box are true of nothing.
//!
//! It only looks, in `/proc`: neither the store's lock nor anything else of the appliance is touched.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::resource::{UsageWho, getrusage};

use super::report::Host;

/// Others' part of all cores above which figures count as disturbed.
pub const OTHERS_MAX: f64 = 0.10;

/// The process that holds the store of this data directory, where one does: a running appliance.
pub fn appliance(data_dir: &Path) -> Option<u32> {
    let inode = std::fs::metadata(data_dir.join("store/lock")).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF`
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let held = words.get(1) == Some(&"FLOCK") && words.get(5)?.rsplit(':').next()?.parse() == Ok(inode);
        held.then(|| words.get(4)?.parse().ok())?
    })
}

/// Processor time, of this process with its children and of the whole box.
pub struct Usage {
    own_seconds: f64,
    busy_ticks: f64,
    all_ticks: f64,
}

impl Usage {
    pub fn now() -> Option<Usage> {
        let mut own_seconds = 0.0;
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who).ok()?;
            for time in [usage.user_time(), usage.system_time()] {
                own_seconds += time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            }
        }
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guests are within user.
        let all_ticks: f64 = ticks.iter().take(8).sum();
        let idle: f64 = ticks.iter().skip(3).take(2).sum();
        (ticks.len() >= 8).then_some(Usage { own_seconds, busy_ticks: all_ticks - idle, all_ticks })
    }

    /// The part of all cores that was used since by others: other programs, and a hypervisor's other guests.
    pub fn others_since(&self) -> Option<f64> {
        let now = Usage::now()?;
        let ticks_a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()?? as f64;
        let all = now.all_ticks - self.all_ticks;
        let own = (now.own_seconds - self.own_seconds) * ticks_a_second;
        // Below a few ticks nothing can be said.
        (all > 20.0).then(|| ((now.busy_ticks - self.busy_ticks - own) / all).clamp(0.0, 1.0))
    }
}

/// The box, as reports name it.
pub fn host(gpus: Vec<String>) -> Host {
    let cpu = conveyor_hw::Cpu::read();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Host {
        cpu: cpu.model.unwrap_or_else(|| "a processor that does not name itself".to_owned()),
        cores: cpu.cores,
        memory_bytes: conveyor_hw::Memory::read().total,
        gpus,
        kernel: kernel.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appliance_that_holds_the_store_is_seen_without_touching_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(appliance(dir.path()), None);
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let lock = std::fs::File::create(dir.path().join("store/lock")).unwrap();
        assert_eq!(appliance(dir.path()), None);
        lock.lock().unwrap();
        // Where a sandbox hides the kernel's list of locks nothing can be said.
        if std::fs::read_to_string("/proc/locks").is_ok_and(|locks| !locks.is_empty()) {
            assert_eq!(appliance(dir.path()), Some(std::process::id()));
        }
    }
}
