//! What is in this box.
//!
//! A crate of its own on the lowest floor: it knows processors and memory, and nothing of workflows. It reads
//! what the kernel says and never guesses: a figure that cannot be read is absent.

use std::fs;

use serde::Serialize;

/// The parts of the box that decide how much work it carries at once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inventory {
    pub cpu: Cpu,
    pub memory: Memory,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cpu {
    /// As the processor names itself.
    pub model: Option<String>,
    /// Cores that this process may run on: what its affinity mask and its cgroup's quota leave of the machine's.
    pub cores: usize,
}

/// In bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    pub total: Option<u64>,
    /// What can be had without swapping.
    pub available: Option<u64>,
}

/// Reads the inventory from `/proc`.
pub fn inventory() -> Inventory {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Inventory {
        cpu: Cpu {
            model: model_name(&cpuinfo),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        },
        memory: Memory { total: kibibytes(&meminfo, "MemTotal"), available: kibibytes(&meminfo, "MemAvailable") },
    }
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A line such as `MemTotal:       24000000 kB`, in bytes.
fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find(|l| l.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))?;
    let number: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_text_is_read() {
        assert_eq!(kibibytes("MemTotal:  2 kB\nMemAvailable:  1 kB\n", "MemAvailable"), Some(1024));
        assert_eq!(kibibytes("MemTotalX: 2 kB", "MemTotal"), None);
        assert_eq!(model_name("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n").as_deref(), Some("Some CPU @ 3 GHz"));
        assert!(inventory().cpu.cores >= 1);
    }
}
