//! Energy that the processors took, where they count it (RAPL).
//!
//! RAPL's counters are the kernel's (`/sys/class/powercap`), one for each package, in microjoules, and wrap around at a
//! range that stands beside them. They say nothing of disks, fans and the power supply. Since 2020 most systems let only
//! root read them; where they cannot be read there is no figure.

use std::path::{Path, PathBuf};

const POWERCAP: &str = "/sys/class/powercap";

/// Counts from its start.
#[derive(Debug)]
pub struct EnergyMeter {
    packages: Vec<Package>,
}

#[derive(Debug)]
struct Package {
    counter: PathBuf,
    began: u64,
    range: u64,
}

impl EnergyMeter {
    /// Begins to count; cheap where there is nothing to read.
    pub fn start() -> EnergyMeter {
        EnergyMeter::start_at(Path::new(POWERCAP))
    }

    fn start_at(root: &Path) -> EnergyMeter {
        let mut packages = Vec::new();
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // `intel-rapl:0` is a package, on AMD too; `intel-rapl:0:1` is a part of it and `-mmio` the same again.
            let is_package = name.strip_prefix("intel-rapl:").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            let counter = entry.path().join("energy_uj");
            let range = number(&entry.path().join("max_energy_range_uj")).unwrap_or(u64::from(u32::MAX));
            if let Some(began) = number(&counter).filter(|_| is_package) {
                packages.push(Package { counter, began, range });
            }
        }
        EnergyMeter { packages }
    }

    /// Joules that all processor packages took since; nothing where none of them tells.
    pub fn joules(&self) -> Option<f64> {
        let mut microjoules = 0;
        for package in &self.packages {
            let now = number(&package.counter)?;
            // A counter that is behind has wrapped around, once: the range lasts for minutes at full load.
            microjoules += if now >= package.began { now - package.began } else { package.range - package.began + now };
        }
        (!self.packages.is_empty()).then_some(microjoules as f64 / 1e6)
    }
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_summed_over_their_wrap_and_parts_are_not_counted_twice() {
        let dir = tempfile::tempdir().unwrap();
        let set = |zone: &str, microjoules: u64| {
            let zone = dir.path().join(zone);
            std::fs::create_dir_all(&zone).unwrap();
            std::fs::write(zone.join("energy_uj"), format!("{microjoules}\n")).unwrap();
            std::fs::write(zone.join("max_energy_range_uj"), "10000000\n").unwrap();
        };
        assert_eq!(EnergyMeter::start_at(dir.path()).joules(), None);
        set("intel-rapl:0", 9_000_000);
        set("intel-rapl:1", 1_000_000);
        set("intel-rapl:0:0", 5_000_000);
        set("intel-rapl-mmio:0", 5_000_000);
        let meter = EnergyMeter::start_at(dir.path());
        set("intel-rapl:0", 500_000);
        set("intel-rapl:1", 3_000_000);
        set("intel-rapl:0:0", 9_000_000);
        assert_eq!(meter.joules(), Some(3.5));
    }
}
