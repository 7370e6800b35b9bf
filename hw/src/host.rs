//! Processors, memory and NUMA nodes, as the kernel tells them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cpu {
    /// As the processor names itself.
    pub model: Option<String>,
    /// Cores that this process may run on: what its affinity mask and its cgroup's quota leave of the machine's.
    pub cores: usize,
    /// Logical processors that the kernel lists for the whole machine.
    pub online: usize,
    pub sockets: Option<usize>,
    pub numa: Vec<NumaNode>,
}

/// One memory domain and the processors beside it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumaNode {
    pub node: u32,
    /// As the kernel lists them: `0-15,32-47`.
    pub cpus: String,
    /// In bytes.
    pub memory: Option<u64>,
}

/// In bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    pub total: Option<u64>,
    /// What can be had without swapping.
    pub available: Option<u64>,
}

impl Cpu {
    /// Reads `/proc/cpuinfo` and `/sys/devices/system/node`.
    pub fn read() -> Cpu {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let sockets: BTreeSet<&str> = values(&cpuinfo, "physical id").collect();
        Cpu {
            model: values(&cpuinfo, "model name").next().map(str::to_owned),
            cores,
            online: values(&cpuinfo, "processor").count().max(1),
            sockets: (!sockets.is_empty()).then_some(sockets.len()),
            numa: numa_nodes(Path::new("/sys/devices/system/node")),
        }
    }
}

impl Memory {
    /// Reads `/proc/meminfo`.
    pub fn read() -> Memory {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Memory { total: kibibytes(&meminfo, "MemTotal"), available: kibibytes(&meminfo, "MemAvailable") }
    }
}

/// The values of all lines `key   : value`.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

fn numa_nodes(folder: &Path) -> Vec<NumaNode> {
    let mut nodes: Vec<NumaNode> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let node: u32 = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let cpus = fs::read_to_string(entry.path().join("cpulist")).ok()?.trim().to_owned();
            let meminfo = fs::read_to_string(entry.path().join("meminfo")).unwrap_or_default();
            // Here every line begins with `Node 0 `.
            let plain: String = meminfo
                .lines()
                .filter_map(|line| line.splitn(3, ' ').nth(2))
                .fold(String::new(), |text, line| text + line + "\n");
            Some(NumaNode { node, cpus, memory: kibibytes(&plain, "MemTotal") })
        })
        .collect();
    nodes.sort_by_key(|node| node.node);
    nodes
}

/// A line such as `MemTotal:       24000000 kB`, in bytes.
fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let number: u64 = values(meminfo, key).next()?.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_text_is_read() {
        assert_eq!(kibibytes("MemTotal:  2 kB\nMemAvailable:  1 kB\n", "MemAvailable"), Some(1024));
        assert_eq!(kibibytes("MemTotalX: 2 kB", "MemTotal"), None);
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU\n";
        assert_eq!(values(cpuinfo, "model name").next(), Some("Some CPU @ 3 GHz"));
        assert_eq!(values(cpuinfo, "processor").count(), 2);
        assert!(Cpu::read().cores >= 1);
    }

    #[test]
    fn numa_nodes_come_with_their_processors_and_memory() {
        let folder = tempfile::tempdir().unwrap();
        for (node, cpus, kib) in [(1, "8-15\n", 200), (0, "0-7\n", 100)] {
            let place = folder.path().join(format!("node{node}"));
            fs::create_dir(&place).unwrap();
            fs::write(place.join("cpulist"), cpus).unwrap();
            fs::write(place.join("meminfo"), format!("Node {node} MemTotal:       {kib} kB\n")).unwrap();
        }
        fs::create_dir(folder.path().join("power")).unwrap();
        let nodes = numa_nodes(folder.path());
        assert_eq!(nodes[0], NumaNode { node: 0, cpus: "0-7".into(), memory: Some(102_400) });
        assert_eq!((nodes.len(), nodes[1].cpus.as_str()), (2, "8-15"));
    }
}
