//! What the host is doing right now: processor time, load, temperatures. Cheap enough to ask every second.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// Processor time since boot, in the kernel's ticks. Two of them make a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuTime {
    pub busy: u64,
    pub total: u64,
}

/// A sensor with a name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Temperature {
    pub name: String,
    pub celsius: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostLoad {
    pub cpu: CpuTime,
    /// Mean number of tasks that run or want to, over 1, 5 and 15 minutes.
    pub load_average: Option<[f64; 3]>,
    /// Empty where the kernel shows no sensors, as in most virtual machines.
    pub temperatures: Vec<Temperature>,
}

impl CpuTime {
    /// The share of the time between two readings that was worked, in percent.
    pub fn percent_since(self, earlier: CpuTime) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total).filter(|total| *total > 0)?;
        Some(100.0 * self.busy.saturating_sub(earlier.busy) as f64 / total as f64)
    }

    /// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
    fn parse(stat: &str) -> Option<CpuTime> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().filter_map(|t| t.parse().ok()).take(8).collect();
        let idle = ticks.get(3)? + ticks.get(4).copied().unwrap_or(0);
        let total = ticks.iter().sum();
        Some(CpuTime { busy: total - idle, total })
    }
}

impl HostLoad {
    pub fn read() -> HostLoad {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        HostLoad {
            cpu: CpuTime::parse(&text("/proc/stat")).unwrap_or_default(),
            load_average: averages(&text("/proc/loadavg")),
            temperatures: temperatures(Path::new("/sys/class/thermal")),
        }
    }
}

fn averages(text: &str) -> Option<[f64; 3]> {
    let mut parts = text.split_whitespace().map_while(|part| part.parse().ok());
    Some([parts.next()?, parts.next()?, parts.next()?])
}

fn temperatures(folder: &Path) -> Vec<Temperature> {
    let mut all: Vec<Temperature> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("thermal_zone"))
        .filter_map(|entry| {
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).ok();
            let millis: f64 = read("temp")?.trim().parse().ok()?;
            let name = read("type").map_or_else(|| "sensor".to_owned(), |name| name.trim().to_owned());
            Some(Temperature { name, celsius: millis / 1000.0 })
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readings_make_a_load() {
        let first = CpuTime::parse("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!(first, CpuTime { busy: 200, total: 1000 });
        let later = CpuTime { busy: 250, total: 1100 };
        assert_eq!(later.percent_since(first), Some(50.0));
        assert_eq!(first.percent_since(first), None);
        assert_eq!(averages("0.50 1.25 2.00 1/200 999"), Some([0.5, 1.25, 2.0]));
    }
}
