//! NVML: what a GPU is doing right now. Each figure on its own: a card that has no fan sensor still has a temperature.

use std::path::Path;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, EncoderType, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::Serialize;

use crate::drivers::unopened;
use crate::fault::Fault;

pub(crate) const LIBRARY: &str = "libnvidia-ml.so.1";

/// What NVML reads at one moment; what a card does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    pub temperature_celsius: Option<u32>,
    pub power_watts: Option<f64>,
    pub power_limit_watts: Option<f64>,
    pub clocks_mhz: Clocks,
    pub gpu_load_percent: Option<u32>,
    /// Of the memory's bandwidth, as NVML means it.
    pub memory_load_percent: Option<u32>,
    pub encoder_load_percent: Option<u32>,
    pub decoder_load_percent: Option<u32>,
    /// In bytes.
    pub memory_used: Option<u64>,
    /// In bytes.
    pub memory_free: Option<u64>,
    /// Why the clocks are below what they could be; empty at full speed or when idle.
    pub throttled_by: Vec<&'static str>,
    pub idle: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Clocks {
    pub graphics: Option<u32>,
    pub memory: Option<u32>,
    /// Drives NVENC and NVDEC.
    pub video: Option<u32>,
}

/// An encode session that some process holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpenSession {
    pub pid: u32,
    pub codec: &'static str,
    pub width: u32,
    pub height: u32,
    pub average_fps: u32,
    pub average_latency_us: u32,
}

/// What holds a card back, in words; the reasons that are no problem (idle, a clock that someone set) are not here.
const THROTTLES: &[(ThrottleReasons, &str)] = &[
    (ThrottleReasons::SW_POWER_CAP, "power limit"),
    (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
    (ThrottleReasons::SYNC_BOOST, "sync boost"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "temperature (driver)"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "temperature (hardware)"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power brake"),
];

pub(crate) fn open(folder: Option<&Path>) -> Result<Nvml, Fault> {
    let path = folder.map_or_else(|| LIBRARY.into(), |folder| folder.join(LIBRARY));
    Nvml::builder().lib_path(path.as_os_str()).init().map_err(|error| {
        let why = match error {
            NvmlError::LibloadingError(error) => return unopened(LIBRARY, &error.to_string()),
            NvmlError::DriverNotLoaded => "the NVIDIA kernel driver is not loaded".to_owned(),
            NvmlError::LibRmVersionMismatch => {
                "the kernel's NVIDIA driver is of another version; restart the machine".to_owned()
            }
            error => error.to_string(),
        };
        Fault::LibraryUnusable { library: LIBRARY, why }
    })
}

/// Whether the device itself is gone, as opposed to a question that it does not answer.
pub(crate) fn is_lost(error: &NvmlError) -> bool {
    matches!(error, NvmlError::GpuLost | NvmlError::ResetRequired)
}

/// An error where the device is gone; a device that answers little still has a `Health`.
pub(crate) fn health(device: &Device) -> Result<Health, NvmlError> {
    let temperature = match device.temperature(TemperatureSensor::Gpu) {
        Err(error) if is_lost(&error) => return Err(error),
        other => other.ok(),
    };
    let watts = |milliwatts: u32| f64::from(milliwatts) / 1000.0;
    let load = device.utilization_rates().ok();
    let memory = device.memory_info().ok();
    let reasons = device.current_throttle_reasons().ok();
    let clock = |kind| device.clock_info(kind).ok();
    Ok(Health {
        temperature_celsius: temperature,
        power_watts: device.power_usage().ok().map(watts),
        power_limit_watts: device.enforced_power_limit().ok().map(watts),
        clocks_mhz: Clocks {
            graphics: clock(Clock::Graphics),
            memory: clock(Clock::Memory),
            video: clock(Clock::Video),
        },
        gpu_load_percent: load.as_ref().map(|load| load.gpu),
        memory_load_percent: load.as_ref().map(|load| load.memory),
        encoder_load_percent: device.encoder_utilization().ok().map(|load| load.utilization),
        decoder_load_percent: device.decoder_utilization().ok().map(|load| load.utilization),
        memory_used: memory.as_ref().map(|memory| memory.used),
        memory_free: memory.as_ref().map(|memory| memory.free),
        throttled_by: reasons.map(in_words).unwrap_or_default(),
        idle: reasons.map(|reasons| reasons.contains(ThrottleReasons::GPU_IDLE)),
    })
}

fn in_words(reasons: ThrottleReasons) -> Vec<&'static str> {
    THROTTLES.iter().filter(|(reason, _)| reasons.contains(*reason)).map(|(_, words)| *words).collect()
}

/// The sessions one by one. NVML's wrapper knows no AV1 here and then gives none: `encoder_stats` counts them all.
pub(crate) fn open_sessions(device: &Device) -> Result<Vec<OpenSession>, NvmlError> {
    let session = |session: nvml_wrapper::struct_wrappers::device::EncoderSessionInfo| OpenSession {
        pid: session.pid,
        codec: match session.codec_type {
            EncoderType::H264 => "H.264",
            EncoderType::HEVC => "HEVC",
        },
        width: session.hres,
        height: session.vres,
        average_fps: session.average_fps,
        average_latency_us: session.average_latency,
    };
    Ok(device.encoder_sessions()?.into_iter().map(session).collect())
}
