//! The lanes that `serve` starts with: from the inventory, the last benchmark, and the configuration.
//!
//! What stands in the configuration counts; then what `conveyor bench` found to be best; then what the driver says of
//! its engines. A box whose driver does not answer in time starts without its GPUs, and says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use conveyor_base::speeds::{LaneSpeed, Speeds};
use conveyor_hw::{Ask, Drivers, Inventory, Probed};
use conveyor_job::TRANSCODE_CORES;
use conveyor_run::Lanes;
use conveyor_run::lanes::{CoreSpeed, Decoder, Encoder, EncoderCodec, Gpu};

use super::config::Config;

/// Capacities by lane, as `[lanes]` has them.
pub type LaneSettings = BTreeMap<String, u32>;

/// Copies, hashes and other work that waits for disks and not for cores.
const IO_CAPACITY: u32 = 8;
/// Functions that compute on one GPU at once: each may want all of its memory.
const CUDA_CAPACITY: u32 = 1;
/// The appliance does not wait longer for a driver that hangs.
const DRIVER_MAX: Duration = Duration::from_secs(20);

/// Everything that is wrong with `[lanes]`, each with its key.
pub fn faults(lanes: &LaneSettings) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, capacity) in lanes {
        let engine = name.strip_prefix("gpu").and_then(|rest| rest.split_once('.'));
        let of_a_gpu = engine.is_some_and(|(number, engine)| {
            number.parse::<u32>().is_ok() && matches!(engine, "nvenc" | "nvdec" | "cuda")
        });
        match name.as_str() {
            "cpu" | "io" if *capacity == 0 => {
                faults.push(format!("lanes.{name}: a lane without capacity would let its work wait for ever"));
            }
            "cpu" | "io" => {}
            _ if of_a_gpu => {}
            _ => faults.push(format!(
                "lanes.{name}: there is no such lane; there are cpu, io, and \"gpu0.nvenc\", \"gpu0.nvdec\", \"gpu0.cuda\" for each GPU"
            )),
        }
    }
    faults
}

/// Asks the box, on a thread of its own.
pub async fn read(config: &Config, data_dir: &Path) -> Lanes {
    let ask = Ask { driver_answers_within: DRIVER_MAX, ..Ask::default() };
    let read = tokio::task::spawn_blocking(move || Inventory::read(|| Arc::new(Drivers::open()), &ask));
    let speeds = Speeds::read(data_dir);
    match read.await {
        Ok(inventory) => {
            let lanes = lanes(&inventory, &config.lanes, speeds.as_ref());
            log_lanes(&lanes, &config.lanes);
            lanes
        }
        // The reading panicked: cores are there all the same.
        Err(_) => Lanes::of_cores(config.lanes.get("cpu").copied().unwrap_or(1), IO_CAPACITY),
    }
}

/// Lanes of an inventory. Pure.
fn lanes(inventory: &Inventory, settings: &LaneSettings, speeds: Option<&Speeds>) -> Lanes {
    let cores = u32::try_from(inventory.cpu.cores).unwrap_or(1).max(1);
    let set = |lane: &str| settings.get(lane).copied();
    let measured = |lane: &str| speeds.and_then(|speeds| speeds.lanes.get(lane)).cloned().unwrap_or_default();
    let on_cores = measured("cpu");
    // A quick run looks at few seconds of two files: too little to say how many are best.
    let thorough = speeds.is_some_and(|speeds| speeds.mode == "full" && !speeds.disturbed);
    let files_best = on_cores.ladder.filter(|_| thorough).map(|ladder| ladder.files_best);
    let per_core = |speed: f64| speed * f64::from(cores);
    Lanes {
        cpu: set("cpu").unwrap_or(cores),
        overlap: if set("cpu").is_some() { 0 } else { overlap(cores, files_best) },
        io: set("io").unwrap_or(IO_CAPACITY),
        gpus: inventory.gpus.iter().filter_map(|gpu| gpu_lanes(gpu, &set, &measured)).collect(),
        cores: CoreSpeed {
            decode_mpix_s: best(&on_cores.decode_mpix_s, "h264").unwrap_or(per_core(CoreSpeed::DECODE_MPIX_S)),
            encode_mpix_s: best(&on_cores.encode_mpix_s, "h264/veryfast").unwrap_or(per_core(CoreSpeed::ENCODE_MPIX_S)),
        },
    }
}

/// Room for as many ladders at once as a full benchmark found best, and for one more than the cores have threads for
/// until there is a benchmark; never more than two for the same cores.
fn overlap(cores: u32, files_best: Option<u32>) -> u32 {
    let ladder = TRANSCODE_CORES.min(cores);
    let beyond = files_best.map_or(ladder, |files| (files.max(1) * ladder).saturating_sub(cores));
    beyond.min(cores)
}

/// The highest speed of a codec, in whichever preset.
fn best(speeds: &BTreeMap<String, f64>, codec: &str) -> Option<f64> {
    let of_codec = speeds.iter().filter(|(name, _)| name.starts_with(codec)).map(|(_, speed)| *speed);
    of_codec.max_by(f64::total_cmp)
}

/// None for a device that has no name to be asked for by.
fn gpu_lanes(
    gpu: &conveyor_hw::Gpu,
    set: &dyn Fn(&str) -> Option<u32>,
    measured: &dyn Fn(&str) -> LaneSpeed,
) -> Option<Gpu> {
    let name = format!("gpu{}", gpu.index);
    let uuid = gpu.uuid.clone()?;
    let why = |why: Option<&str>| gpu.fault.clone().or(why.map(str::to_owned)).unwrap_or_default();
    let (nvenc, nvdec) = (format!("{name}.nvenc"), format!("{name}.nvdec"));
    let encoder = match &gpu.nvenc {
        Probed::Known(encoding) if gpu.fault.is_none() => {
            let (speed, engines) = (measured(&nvenc), encoding.engines.unwrap_or(1).max(1));
            let codecs = encoding.codecs.iter().map(|caps| EncoderCodec {
                name: codec_name(caps.codec.name()),
                width_max: caps.width_max,
                height_max: caps.height_max,
            });
            Ok(Encoder {
                capacity: set(&nvenc).or(speed.sessions_best).unwrap_or(engines * Encoder::SESSIONS_PER_ENGINE),
                codecs: codecs.collect(),
                mpix_s: best(&speed.encode_mpix_s, "h264").unwrap_or(Encoder::MPIX_S * f64::from(engines)),
            })
        }
        other => Err(why(other.why())),
    };
    let decoder = match &gpu.nvdec {
        Probed::Known(decoding) if gpu.fault.is_none() => {
            let (speed, engines) = (measured(&nvdec), decoding.engines.unwrap_or(1).max(1));
            Ok(Decoder {
                capacity: set(&nvdec).or(speed.sessions_best).unwrap_or(engines * Decoder::STREAMS_PER_ENGINE),
                mpix_s: best(&speed.decode_mpix_s, "h264").unwrap_or(Decoder::MPIX_S * f64::from(engines)),
            })
        }
        other => Err(why(other.why())),
    };
    let model = gpu.name.clone().unwrap_or_else(|| "a GPU without a name".to_owned());
    let cuda = gpu.fault.clone().map_or_else(|| Ok(set(&format!("{name}.cuda")).unwrap_or(CUDA_CAPACITY)), Err);
    Some(Gpu { name, uuid, model, cpus: gpu.cpus.clone(), nvenc: encoder, nvdec: decoder, cuda })
}

/// `h264` for "H.264", as caps and speeds have it.
fn codec_name(name: &str) -> String {
    name.to_lowercase().replace('.', "")
}

/// Says what the box starts with, and what of the configuration has no engine to stand for.
fn log_lanes(lanes: &Lanes, settings: &LaneSettings) {
    for gpu in &lanes.gpus {
        let engine =
            |engine: Result<u32, &String>| engine.map_or_else(|why| format!("none ({why})"), |n| n.to_string());
        tracing::info!(
            "{gpu}: {} encode sessions, {} decode streams",
            engine(gpu.nvenc.as_ref().map(|e| e.capacity)),
            engine(gpu.nvdec.as_ref().map(|d| d.capacity)),
        );
    }
    for name in settings.keys().filter(|name| name.starts_with("gpu")) {
        let there = lanes.gpus.iter().any(|gpu| match name.strip_prefix(&gpu.name) {
            Some(".nvenc") => gpu.nvenc.is_ok(),
            Some(".nvdec") => gpu.nvdec.is_ok(),
            Some(".cuda") => gpu.cuda.is_ok(),
            _ => false,
        });
        if !there {
            tracing::warn!("lanes.{name}: this box has no such engine (`conveyor hw` shows what there is)");
        }
    }
}
