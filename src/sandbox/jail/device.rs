//! The nodes of the GPU that a stage was leased, and what its driver reads. No other GPU's node is there.

use std::path::{Path, PathBuf};

use conveyor_job::{Device, Job};

/// What all GPUs of NVIDIA share: control, unified memory, capabilities.
const SHARED: &[&str] = &["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-caps"];
const CARDS: &str = "/proc/driver/nvidia/gpus";
/// Where the driver looks up how the cards are connected.
const TOPOLOGY: &[&str] = &["/sys/bus/pci", "/sys/devices", "/sys/module/nvidia", "/sys/class/drm"];

/// Device nodes of the job's lease; none without one.
pub fn paths(job: &Job) -> Vec<PathBuf> {
    let Some(device) = &job.device else { return Vec::new() };
    let shared = SHARED.iter().map(PathBuf::from);
    shared.chain(node(Path::new(CARDS), device)).collect()
}

/// What of the system its driver reads beside the usual.
pub fn reads(job: &Job) -> Vec<PathBuf> {
    if job.device.is_some() { TOPOLOGY.iter().map(PathBuf::from).collect() } else { Vec::new() }
}

/// The driver lists each card in a folder: `GPU UUID: GPU-8f3c...`, `Device Minor: 0`.
fn node(cards: &Path, device: &Device) -> Option<PathBuf> {
    let texts = std::fs::read_dir(cards).ok()?.flatten();
    let texts = texts.filter_map(|card| std::fs::read_to_string(card.path().join("information")).ok());
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'))?;
        Some(line.trim().to_owned())
    };
    let of_device = texts.into_iter().find(|text| field(text, "GPU UUID").is_some_and(|uuid| uuid == device.uuid))?;
    let minor: u32 = field(&of_device, "Device Minor")?.parse().ok()?;
    Some(PathBuf::from(format!("/dev/nvidia{minor}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leased_card_s_node_is_found_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for (place, uuid, minor) in [("0000:01:00.0", "GPU-aa", 1), ("0000:02:00.0", "GPU-bb", 0)] {
            std::fs::create_dir(dir.path().join(place)).unwrap();
            let text =
                format!("Model: \t\t NVIDIA L4\nIRQ:   \t\t 42\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\n");
            std::fs::write(dir.path().join(place).join("information"), text).unwrap();
        }
        let device =
            |uuid: &str| Device { name: "gpu0".into(), uuid: uuid.into(), cpus: None, decode: true, encode: true };
        assert_eq!(node(dir.path(), &device("GPU-aa")), Some(PathBuf::from("/dev/nvidia1")));
        assert_eq!(node(dir.path(), &device("GPU-cc")), None);
    }
}
