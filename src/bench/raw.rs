//! Section `raw`: the engines of each GPU by themselves: NVENC by codec, preset and size, sessions at once until that
//! adds nothing, NVDEC, and copies over the bus.
//!
//! NVENC is measured through this box's own session API on frames in the device's memory. NVDEC is measured through
//! GStreamer's elements, in a child like all media.

use std::sync::Arc;
use std::time::Duration;

use conveyor_hw::bench::{self, EncodeSpeed};
use conveyor_hw::{
    Ask, Codec, CodecCaps, Context, Drivers, Fault, Gpu, Inventory, Nvenc, PixelFormat, Preset, Probed, Rate,
    SessionSettings, Tuning,
};
use conveyor_job::Device;
use conveyor_pixels::scene::Scene;
use serde_json::json;

use super::cores::{SIZES, Size, samples};
use super::report::{Curve, Mode, Row, Section, SectionKind};
use super::statistics::Better;
use super::work::{SHARE, Work};

const GROWTH_MIN: f64 = 0.03;
const SESSIONS_MAX: usize = 32;
const PICTURES: usize = 8;

/// The GPUs of this box, and the driver that was opened for them.
pub struct Engines {
    pub inventory: Inventory,
    drivers: Arc<Drivers>,
}

impl Engines {
    pub fn look() -> Engines {
        let drivers = Arc::new(Drivers::open());
        let opened = drivers.clone();
        Engines { inventory: Inventory::read(move || opened, &Ask::default()), drivers }
    }

    pub fn names(&self) -> Vec<String> {
        let name = |gpu: &Gpu| gpu.name.clone().unwrap_or_else(|| "a GPU that does not name itself".to_owned());
        self.inventory.gpus.iter().map(name).collect()
    }
}

pub fn expected_seconds(mode: Mode, gpus: usize) -> f64 {
    mode.pick(20.0, 200.0) * gpus as f64 + 0.2
}

pub async fn measure(work: &Work, gpus: &Engines) -> Section {
    let mut section = Section::new(SectionKind::Raw);
    if gpus.inventory.gpus.is_empty() {
        section.say("No GPU that a driver shows: there are no engines to measure, and everything runs on the cores.");
        return section;
    }
    section.say(
        "NVENC at 30 frames a second, variable rate, from frames in the GPU's memory; NVDEC through GStreamer; copies of \
         pictures in ordinary memory.",
    );
    for gpu in &gpus.inventory.gpus {
        of_gpu(work, gpus, gpu, &mut section).await;
    }
    section
}

async fn of_gpu(work: &Work, gpus: &Engines, gpu: &Gpu, section: &mut Section) {
    let title = format!("GPU {} ({})", gpu.index, gpu.name.as_deref().unwrap_or("no name"));
    if let Some(fault) = &gpu.fault {
        return section.say(format!("{title}: {fault}"));
    }
    let context = match context(&gpus.drivers, gpu) {
        Ok(context) => context,
        Err(fault) => return section.say(format!("{title}: {fault}")),
    };
    let time = Duration::from_millis(work.mode.pick(300, 3_000));
    let device = context.clone();
    let copying = tokio::task::spawn_blocking(move || bench::copies(&device, 1920, 1080, time));
    match work.step(&format!("{title}: copies"), 0.5, copying).await {
        Ok(Ok(speed)) => section.rows.push(
            Row::new(format!("gpu{}/copies", gpu.index), format!("{title}: copies of 1080p pictures"))
                .with("to GPU", "MB/s", Better::Higher, vec![speed.to_device])
                .with("from GPU", "MB/s", Better::Higher, vec![speed.from_device]),
        ),
        Ok(Err(fault)) => section.say(format!("{title}: copies: {fault}")),
        Err(error) => section.say(format!("{title}: copies broke off: {error}")),
    }
    match (&gpu.nvenc, &gpus.drivers.nvenc) {
        (Probed::Known(encoding), Ok(nvenc)) => {
            let lane = format!("gpu{}.nvenc", gpu.index);
            let engine = Engine { work, nvenc: nvenc.clone(), context, lane, title: title.clone() };
            engine.presets(&encoding.codecs, section).await;
            if let Some(caps) = encoding.codecs.first() {
                engine.sessions(caps.codec, section).await;
            }
        }
        (Probed::Known(_), Err(fault)) => section.say(format!("{title}: NVENC: {fault}")),
        (other, _) => section.say(format!("{title}: NVENC: {}", other.why().unwrap_or_default())),
    }
    match &gpu.nvdec {
        Probed::Known(_) => decode(work, gpu, &title, section).await,
        other => section.say(format!("{title}: NVDEC: {}", other.why().unwrap_or_default())),
    }
}

fn context(drivers: &Drivers, gpu: &Gpu) -> Result<Arc<Context>, Fault> {
    let cuda = drivers.cuda.as_ref().map_err(Clone::clone)?;
    let mut devices = cuda.devices()?.into_iter().filter_map(Result::ok);
    let device = devices.find(|device| Some(&device.uuid) == gpu.uuid.as_ref());
    device.ok_or_else(|| Fault::Misuse("CUDA does not show this GPU to this process".to_owned()))?.context()
}

/// One GPU's encoder.
struct Engine<'a> {
    work: &'a Work,
    nvenc: Arc<Nvenc>,
    context: Arc<Context>,
    lane: String,
    title: String,
}

impl Engine<'_> {
    async fn presets(&self, codecs: &[CodecCaps], section: &mut Section) {
        let wanted = match self.work.mode {
            Mode::Quick => &[Preset::P1, Preset::P4, Preset::P7][..],
            Mode::Full => &Preset::ALL[..],
        };
        for caps in codecs {
            for size in SIZES.iter().filter(|(_, w, h)| fits(caps, *w, *h)) {
                for preset in wanted.iter().filter(|preset| caps.presets.contains(preset)) {
                    let end = self.repeated(caps.codec, *preset, size).await;
                    let name = format!("{}: {} {preset:?} {}", self.title, caps.codec, size.0);
                    match end {
                        Ok((speeds, kbps)) => section.rows.push(
                            Row::new(format!("{}/{}/{preset:?}/{}", self.lane, key(caps.codec), size.0), name)
                                .with("speed", "fps", Better::Higher, speeds)
                                .with("bitrate", "kbit/s", Better::Lower, kbps),
                        ),
                        Err(fault) => section.say(format!("{name}: {fault}")),
                    }
                }
            }
        }
    }

    async fn repeated(&self, codec: Codec, preset: Preset, size: &Size) -> Result<(Vec<f64>, Vec<f64>), Fault> {
        let (mut speeds, mut kbps) = (Vec::new(), Vec::new());
        for _ in 0..self.work.mode.pick(3, 5) {
            let speed = self.encode(codec, preset, size, 1).await?;
            speeds.push(speed.frames_per_second);
            kbps = vec![speed.bytes_per_frame * 8.0 * 30.0 / 1000.0];
        }
        Ok((speeds, kbps))
    }

    async fn sessions(&self, codec: Codec, section: &mut Section) {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for sessions in 1..=SESSIONS_MAX {
            match self.encode(codec, Preset::P4, &SIZES[1], sessions).await {
                Ok(speed) => {
                    let before = points.last().map_or(0.0, |point| point.1);
                    points.push((sessions as f64, speed.frames_per_second));
                    if speed.frames_per_second < before * (1.0 + GROWTH_MIN) {
                        break;
                    }
                }
                Err(fault) => {
                    section.say(format!("{}: {sessions} sessions at once: {fault}", self.title));
                    break;
                }
            }
        }
        let Some(best) = points.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        section.rows.push(
            Row::new(format!("{}/sessions", self.lane), format!("{}: {codec} 1080p P4, sessions at once", self.title))
                .with("speed of all", "fps", Better::Higher, vec![best.1])
                .with("sessions", "", Better::Higher, vec![best.0]),
        );
        section.curves.push(Curve {
            key: format!("{}/sessions", self.lane),
            title: format!("{}: {codec} 1080p sessions at once", self.title),
            x: "sessions".to_owned(),
            y: "frames a second, all together".to_owned(),
            points,
        });
    }

    async fn encode(&self, codec: Codec, preset: Preset, size: &Size, sessions: usize) -> Result<EncodeSpeed, Fault> {
        let (name, width, height) = *size;
        let settings = SessionSettings {
            codec,
            preset,
            tuning: Tuning::HighQuality,
            format: PixelFormat::Nv12,
            width: width as u32,
            height: height as u32,
            frames_per_second: (30, 1),
            rate: Rate::Variable {
                bits_per_second: (width * height * 2) as u32,
                max_bits_per_second: (width * height * 3) as u32,
            },
            gop: 60,
            b_frames: 0,
        };
        let time = Duration::from_millis(self.work.mode.pick(250, 2_000));
        let (nvenc, context, stop) = (self.nvenc.clone(), self.context.clone(), self.work.stop());
        let encoding = tokio::task::spawn_blocking(move || {
            let pictures = pictures(width, height);
            bench::encode(&nvenc, &context, &settings, &pictures, sessions, time, stop.flag())
        });
        let doing = format!("{}: {codec} {preset:?} {name}, {sessions} at once", self.title);
        let end = self.work.step(&doing, time.as_secs_f64() + 0.3, encoding).await;
        end.unwrap_or_else(|error| Err(Fault::Misuse(format!("the measurement broke off: {error}"))))
    }
}

fn fits(caps: &CodecCaps, width: usize, height: usize) -> bool {
    let takes = |side: usize, least: u32, most: u32| (least as usize..=most as usize).contains(&side);
    takes(width, caps.width_min, caps.width_max) && takes(height, caps.height_min, caps.height_max)
}

/// As speeds are keyed.
fn key(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::Hevc => "hevc",
        Codec::Av1 => "av1",
    }
}

/// The film's first pictures as NV12.
fn pictures(width: usize, height: usize) -> Vec<Vec<u8>> {
    let mut scene = Scene::new(width, height, 2_026);
    let mut planar = vec![0; scene.frame_bytes()];
    (0..PICTURES)
        .map(|n| {
            scene.paint(n, &mut planar);
            let (luma, chroma) = planar.split_at(width * height);
            let (u, v) = chroma.split_at(chroma.len() / 2);
            luma.iter().copied().chain(u.iter().zip(v).flat_map(|(u, v)| [*u, *v])).collect()
        })
        .collect()
}

/// The child sees this GPU and no other, and so as its first.
async fn decode(work: &Work, gpu: &Gpu, title: &str, section: &mut Section) {
    let element = "nvh264dec";
    let device = gpu.uuid.clone().map(|uuid| Device {
        name: format!("gpu{}", gpu.index),
        uuid,
        cpus: gpu.cpus.clone(),
        decode: true,
        encode: false,
    });
    let file = format!("s3://{SHARE}/decode-gpu.mp4");
    let clip = json!({
        "destination": file, "width": 1920, "height": 1080, "seconds": work.mode.pick(3, 10),
    });
    let decode = |streams: usize| {
        json!({
            "file": file, "element": element, "parser": "h264parse", "streams": streams,
            "repetitions": work.mode.pick(3, 5), "secondsMax": 10.0,
        })
    };
    let doing = format!("{title}: painting");
    let painting = work.step(&doing, 4.0, work.stage("bench-clip", clip, work.cores));
    if let Err(error) = painting.await {
        return section.say(format!("{title}: NVDEC: {}", error.cause));
    }
    let doing = format!("{title}: decoding h264 1080p");
    for streams in [1, 4] {
        match work.step(&doing, 2.0, work.stage_on(device.clone(), "bench-decode", decode(streams), work.cores)).await {
            Ok(result) if result["absent"].is_string() => {
                return section.say(format!("{title}: NVDEC: {}", result["absent"].as_str().unwrap_or_default()));
            }
            Ok(result) => {
                let (key, name) = match streams {
                    1 => ("h264/1080p", format!("{title}: NVDEC, decoding 1080p")),
                    n => ("streams", format!("{title}: NVDEC, {n} streams of 1080p at once")),
                };
                let row = Row::new(format!("gpu{}.nvdec/{key}", gpu.index), name);
                let figure = if streams == 1 { "speed" } else { "speed of all" };
                section.rows.push(row.with(figure, "fps", Better::Higher, samples(&result["fps"])));
            }
            Err(error) => return section.say(format!("{title}: NVDEC: {}", error.cause)),
        }
    }
}
