//! The GPUs of the box: what NVML, CUDA, NVENC and NVDEC each say of the same device, put together.
//!
//! Devices are matched by their PCI address, because a partitioned (MIG) GPU has other UUIDs in CUDA. One that a
//! library does not show, or that is lost, still has its entry, with what is known of it.

use std::fmt;
use std::fs;
use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError;
use serde::{Serialize, Serializer};

use crate::cuda::{Context, CudaDevice};
use crate::drivers::Drivers;
use crate::fault::{Fault, FaultKind};
use crate::nvdec::DecodeCaps;
use crate::nvenc::{CodecCaps, Nvenc};
use crate::nvml::{self, Health, OpenSession};
use crate::probed::Probed;

/// Where counting the sessions stops: a box that grants so many has no limit that matters.
const SESSIONS_TRIED: usize = 32;

const HIDDEN: &str = "CUDA does not show this GPU to this process (CUDA_VISIBLE_DEVICES)";

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// In NVML's order, which is that of the PCI addresses.
    pub index: usize,
    pub uuid: Option<String>,
    pub name: Option<String>,
    pub pci: Option<PciAddress>,
    /// In bytes.
    pub memory: Option<u64>,
    /// As `8.9`.
    pub compute_capability: Option<String>,
    pub numa_node: Option<u32>,
    /// The processors beside it, as the kernel lists them.
    pub cpus: Option<String>,
    /// Why this device cannot be used, where that is so.
    pub fault: Option<String>,
    pub nvenc: Probed<Encoding>,
    pub nvdec: Probed<Decoding>,
    pub health: Probed<Health>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Encoding {
    pub engines: Option<u32>,
    pub codecs: Vec<CodecCaps>,
    pub sessions: SessionRoom,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionRoom {
    /// Of all processes, as NVML counts them.
    pub open: Option<u32>,
    pub held_by: Vec<OpenSession>,
    /// Sessions that the driver granted besides those; found by opening them, so only where asked for.
    pub more: Probed<usize>,
    /// Whether the counting stopped at its own bound, so that there may be more still.
    pub unlimited: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decoding {
    pub engines: Option<u32>,
    pub streams: Vec<DecodeCaps>,
}

/// As the kernel names it: `0000:3b:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// Takes the forms of NVML (`00000000:3B:00.0`), CUDA and the kernel.
    pub fn parse(text: &str) -> Option<PciAddress> {
        let (domain, rest) = text.trim().split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.').unwrap_or((rest, "0"));
        let byte = |digits| u8::from_str_radix(digits, 16).ok();
        Some(PciAddress {
            domain: u32::from_str_radix(domain, 16).ok()?,
            bus: byte(bus)?,
            device: byte(device)?,
            function: byte(function)?,
        })
    }

    /// A file of the kernel about this device.
    fn tells(self, file: &str) -> Option<String> {
        let text = fs::read_to_string(format!("/sys/bus/pci/devices/{self}/{file}")).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl Serialize for PciAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Drivers {
    /// What one GPU is doing now: cheap enough to ask every second, and opens nothing on the device.
    pub fn health(&self, uuid: &str) -> Probed<Health> {
        let nvml = match &self.nvml {
            Ok(nvml) => nvml,
            Err(fault) => return Probed::unknown(fault),
        };
        Probed::from(nvml.device_by_uuid(uuid).and_then(|device| nvml::health(&device)))
    }
}

/// Every device that any of the libraries knows.
pub(crate) fn read_all(drivers: &Drivers, count_sessions: bool) -> Vec<Gpu> {
    let mut gpus: Vec<Gpu> = Vec::new();
    if let Ok(nvml) = &drivers.nvml {
        for index in 0..nvml.device_count().unwrap_or(0) {
            let device = nvml.device_by_index(index);
            gpus.push(by_nvml(index as usize, device.as_ref().map_err(NvmlError::to_string)));
        }
    }
    let cuda = drivers.cuda.as_ref().map_err(Clone::clone).and_then(|cuda| cuda.devices());
    match cuda {
        Ok(devices) => {
            for device in devices {
                match device {
                    Ok(device) => by_cuda(&mut gpus, &device, drivers, count_sessions),
                    // A device that says nothing can only be the one that NVML calls lost; where NVML knows none so,
                    // it has a line of its own.
                    Err(fault) if gpus.iter().any(|gpu| gpu.fault.is_some()) => drop(fault),
                    Err(fault) => gpus.push(Gpu { fault: Some(fault.to_string()), ..Gpu::unseen(gpus.len()) }),
                }
            }
        }
        Err(fault) => gpus.iter_mut().for_each(|gpu| gpu.answers_nothing_because(&fault.to_string())),
    }
    for gpu in &mut gpus {
        if let Some(fault) = gpu.fault.clone() {
            gpu.answers_nothing_because(&fault);
        }
        gpu.numa_node = gpu.pci.and_then(|pci| pci.tells("numa_node")).and_then(|node| node.parse().ok());
        gpu.cpus = gpu.pci.and_then(|pci| pci.tells("local_cpulist"));
    }
    gpus
}

fn by_nvml(index: usize, device: Result<&Device, String>) -> Gpu {
    let mut gpu = Gpu::unseen(index);
    let device = match device {
        Ok(device) => device,
        Err(error) => return Gpu { fault: Some(error), ..gpu },
    };
    gpu.pci = device.pci_info().ok().and_then(|pci| PciAddress::parse(&pci.bus_id));
    gpu.name = device.name().ok();
    gpu.memory = device.memory_info().ok().map(|memory| memory.total);
    gpu.compute_capability = device.cuda_compute_capability().ok().map(|cc| format!("{}.{}", cc.major, cc.minor));
    match device.uuid() {
        Ok(uuid) => gpu.uuid = Some(uuid),
        Err(error) if nvml::is_lost(&error) => gpu.fault = Some(error.to_string()),
        Err(_) => {}
    }
    match nvml::health(device) {
        Ok(health) => gpu.health = Probed::Known(health),
        Err(error) => gpu.fault = Some(error.to_string()),
    }
    gpu.nvenc = Probed::unknown(HIDDEN);
    gpu.nvdec = Probed::unknown(HIDDEN);
    gpu
}

/// Adds what CUDA and the video libraries know of a device.
fn by_cuda(gpus: &mut Vec<Gpu>, device: &CudaDevice, drivers: &Drivers, count_sessions: bool) {
    let same = |gpu: &Gpu| gpu.pci == device.pci && gpu.pci.is_some() || gpu.uuid.as_ref() == Some(&device.uuid);
    let at = gpus.iter().position(same).unwrap_or_else(|| {
        let why = drivers.nvml.as_ref().err().map_or("NVML does not show this GPU".to_owned(), Fault::to_string);
        gpus.push(Gpu { health: Probed::unknown(why), ..Gpu::unseen(gpus.len()) });
        gpus.len() - 1
    });
    let gpu = &mut gpus[at];
    let (major, minor) = device.compute_capability;
    gpu.uuid.get_or_insert_with(|| device.uuid.clone());
    gpu.name.get_or_insert_with(|| device.name.clone());
    gpu.pci = gpu.pci.or(device.pci);
    gpu.memory.get_or_insert(device.memory);
    gpu.compute_capability.get_or_insert_with(|| format!("{major}.{minor}"));
    // A device that NVML calls lost is left alone: calls on it may take minutes to fail.
    if gpu.fault.is_some() {
        return;
    }
    let context = match device.context() {
        Ok(context) => context,
        Err(fault) => {
            gpu.fault = Some(fault.to_string());
            return;
        }
    };
    let nvml = drivers.nvml.as_ref().ok();
    let uuid = gpu.uuid.clone();
    let seen = uuid.and_then(|uuid| nvml.and_then(|nvml| nvml.device_by_uuid(uuid).ok()));
    gpu.nvenc = match &drivers.nvenc {
        Ok(nvenc) => encoding(nvenc, &context, seen.as_ref(), count_sessions),
        Err(fault) => Probed::unknown(fault),
    };
    gpu.nvdec = match &drivers.nvdec {
        Ok(nvdec) => decoding(nvdec.capabilities(&context)),
        Err(fault) => Probed::unknown(fault),
    };
}

fn encoding(
    nvenc: &Arc<Nvenc>,
    context: &Arc<Context>,
    seen: Option<&Device>,
    count_sessions: bool,
) -> Probed<Encoding> {
    // Before ours is open.
    let open = seen.and_then(|device| device.encoder_stats().ok()).map(|stats| stats.session_count);
    let held_by = seen.and_then(|device| nvml::open_sessions(device).ok()).unwrap_or_default();
    let codecs = nvenc.encoder(context).and_then(|encoder| {
        let codecs = encoder.codecs()?;
        codecs.into_iter().map(|codec| encoder.capabilities(codec)).collect::<Result<Vec<_>, Fault>>()
    });
    let codecs = match codecs {
        Ok(codecs) if codecs.is_empty() => {
            return Probed::absent("this GPU's encoder makes no codec that is known here");
        }
        Ok(codecs) => codecs,
        Err(fault) if fault.kind() == FaultKind::Unsupported => {
            return Probed::absent(format!("this GPU has no NVENC ({fault})"));
        }
        Err(fault) if fault.kind() == FaultKind::Exhausted => {
            return Probed::unknown(format!("no session was left to ask with ({fault})"));
        }
        Err(fault) => return Probed::unknown(fault),
    };
    let more = match count_sessions {
        true => Probed::from(nvenc.room(context, SESSIONS_TRIED)),
        false => Probed::unknown("not counted: counting takes every session for a moment"),
    };
    let unlimited = more.known() == Some(&SESSIONS_TRIED);
    let engines = codecs.iter().map(|codec| codec.engines).max().filter(|engines| *engines > 0);
    Probed::Known(Encoding { engines, codecs, sessions: SessionRoom { open, held_by, more, unlimited } })
}

fn decoding(streams: Result<Vec<DecodeCaps>, Fault>) -> Probed<Decoding> {
    match streams {
        Ok(streams) if streams.is_empty() => Probed::absent("this GPU has no NVDEC"),
        Ok(streams) => {
            let engines = streams.iter().filter_map(|stream| stream.engines).max();
            Probed::Known(Decoding { engines, streams })
        }
        Err(fault) => Probed::unknown(fault),
    }
}

impl Gpu {
    fn unseen(index: usize) -> Gpu {
        Gpu {
            index,
            uuid: None,
            name: None,
            pci: None,
            memory: None,
            compute_capability: None,
            numa_node: None,
            cpus: None,
            fault: None,
            nvenc: Probed::unknown("not asked"),
            nvdec: Probed::unknown("not asked"),
            health: Probed::unknown("not asked"),
        }
    }

    /// The engines of a device that nobody can talk to; what was read before it was lost stays.
    fn answers_nothing_because(&mut self, why: &str) {
        if self.nvenc.known().is_none() {
            self.nvenc = Probed::unknown(why);
        }
        if self.nvdec.known().is_none() {
            self.nvdec = Probed::unknown(why);
        }
        if self.health.known().is_none() {
            self.health = Probed::unknown(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_has_one_address_however_it_is_written() {
        let kernel = PciAddress::parse("0000:3b:00.0").unwrap();
        assert_eq!(PciAddress::parse("00000000:3B:00.0"), Some(kernel));
        assert_eq!(kernel.to_string(), "0000:3b:00.0");
        assert_eq!(PciAddress::parse("nothing"), None);
    }
}
