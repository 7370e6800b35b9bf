//! `bench-encode`: how fast one encoder codes the film at one preset, and what comes out of it.
//!
//! `{"encoder", "preset", "width", "height", "frames", "repetitions"?, "secondsMax"?}` to
//! `{"fps": [...], "frames", "bitrateKbps", "psnrDb", "ssim"}`, or `{"absent": why}` where it is not installed.
//!
//! The frames lie in memory before the clock runs. After `secondsMax` a repetition is given no more of them and ends
//! with those that it has: slow presets are measured over fewer pictures, never for ever.

use std::sync::Arc;
use std::time::Instant;

use conveyor_base::TaskError;
use conveyor_job::Encoder;
use conveyor_job::{Job, Progress, Reporter};
use conveyor_pixels::scene::Scene;
use conveyor_pixels::{Plane, View, likeness};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::codec::Element as _;
use super::{FPS, SEED, failed, launch, minute, one, raw_caps, run_to_end};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    encoder: Encoder,
    preset: String,
    width: usize,
    height: usize,
    frames: usize,
    #[serde(default = "one")]
    repetitions: usize,
    #[serde(default = "minute")]
    seconds_max: f64,
}

/// A frame that several runs read.
#[derive(Clone)]
struct Frame(Arc<Vec<u8>>);

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let p: Parameters = crate::files::fault::parameters(job)?;
    if !p.encoder.is_installed() {
        return Ok(json!({"absent": format!("GStreamer's {} is not installed", p.encoder.element())}));
    }
    if !p.preset.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(failed(format!("'{}' is no preset", p.preset)));
    }
    reporter.progress(Progress { doing: "painting".into(), ..Progress::default() });
    let mut scene = Scene::new(p.width, p.height, SEED);
    let frames: Vec<Frame> = (0..p.frames.max(2))
        .map(|n| {
            let mut frame = vec![0; scene.frame_bytes()];
            scene.paint(n, &mut frame);
            Frame(Arc::new(frame))
        })
        .collect();
    let (mut speeds, mut last) = (Vec::new(), Vec::new());
    for n in 0..p.repetitions.max(1) {
        let (fps, packets) = once(&p, &frames, job.threads)?;
        speeds.push(fps);
        last = packets;
        let fraction = (n + 1) as f64 / (p.repetitions + 1) as f64;
        reporter.progress(Progress { fraction, doing: "encoding".into(), ..Progress::default() });
    }
    let bits: usize = last.iter().filter_map(|s| s.buffer()).map(|b| b.size() * 8).sum();
    let (psnr, ssim, compared) = quality(&p, &frames, last)?;
    let seconds = compared as f64 / f64::from(FPS);
    Ok(json!({
        "fps": speeds,
        "frames": compared,
        "bitrateKbps": bits as f64 / 1000.0 / seconds.max(0.001),
        "psnrDb": psnr,
        "ssim": ssim,
    }))
}

/// One run: frames a second from the first that goes in to the end of the stream, and the packets.
fn once(p: &Parameters, frames: &[Frame], threads: usize) -> Result<(f64, Vec<gst::Sample>), TaskError> {
    let pipeline = launch(&format!(
        "appsrc name=pictures format=time caps={} block=true max-buffers=2 max-bytes=0 ! {} ! \
         appsink name=packets sync=false max-buffers=0",
        raw_caps(p.width, p.height),
        p.encoder.description(&p.preset, threads),
    ))?;
    let packets = collect(&pipeline, "packets")?;
    let begun = Instant::now();
    let pushed = feed(&pipeline, frames.iter().cloned(), p.seconds_max, None)?;
    let seconds = begun.elapsed().as_secs_f64();
    let packets = std::mem::take(&mut *packets.lock());
    Ok((pushed as f64 / seconds, packets))
}

/// Decodes what came out and holds it against what went in: PSNR and SSIM of luma, and over how many pictures.
fn quality(p: &Parameters, frames: &[Frame], packets: Vec<gst::Sample>) -> Result<(f64, f64, usize), TaskError> {
    let installed = |name: &&&str| gst::ElementFactory::find(name).is_some();
    let decoder = p.encoder.decoders().iter().find(installed);
    let decoder = decoder.ok_or_else(|| failed(format!("no decoder for {} is installed", p.encoder.codec())))?;
    let pipeline = launch(&format!(
        "appsrc name=pictures format=time block=true max-buffers=8 max-bytes=0 ! {} ! {decoder} ! videoconvert ! \
         video/x-raw,format=I420 ! appsink name=packets sync=false max-buffers=0",
        p.encoder.parser(),
    ))?;
    let (w, h) = (p.width & !1, p.height & !1);
    let sums = Arc::new(Mutex::new((0u64, 0.0f64, 0usize)));
    let (adding, originals) = (sums.clone(), frames.to_vec());
    watch(&pipeline, "packets", move |sample| {
        let Some(map) = sample.buffer().and_then(|b| b.map_readable().ok()) else { return };
        let mut sums = adding.lock();
        let Some(original) = originals.get(sums.2) else { return };
        let plane = |bytes: &[u8], stride| Plane::cut(View { bytes, stride }, (0, 0), (w, h));
        // GStreamer pads I420 lines to multiples of four.
        let (ours, theirs) = (plane(original.as_ref(), w), plane(&map, w.next_multiple_of(4)));
        sums.0 += likeness::squared_error(&ours, &theirs);
        sums.1 += likeness::ssim(&ours, &theirs);
        sums.2 += 1;
    })?;
    let caps = packets.first().and_then(|s| s.caps_owned());
    let buffers = packets.into_iter().filter_map(|s| s.buffer_owned());
    feed_buffers(&pipeline, buffers, f64::INFINITY, caps)?;
    let (error, ssim, count) = *sums.lock();
    if count == 0 {
        return Err(failed(format!("{} made nothing that {decoder} decodes", p.encoder.name())));
    }
    Ok((likeness::psnr(error, w * h * count), ssim / count as f64, count))
}

fn feed(
    pipeline: &gst::Pipeline,
    frames: impl Iterator<Item = Frame> + Send,
    seconds_max: f64,
    caps: Option<gst::Caps>,
) -> Result<usize, TaskError> {
    let at = |n: usize| gst::ClockTime::SECOND * n as u64 / u64::from(FPS);
    let buffers = frames.enumerate().map(move |(n, frame)| {
        let mut buffer = gst::Buffer::from_slice(frame);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(at(n));
            buffer.set_duration(at(n + 1) - at(n));
        }
        buffer
    });
    feed_buffers(pipeline, buffers, seconds_max, caps)
}

/// Plays the pipeline on these buffers to its end; how many went in.
fn feed_buffers(
    pipeline: &gst::Pipeline,
    buffers: impl Iterator<Item = gst::Buffer> + Send,
    seconds_max: f64,
    caps: Option<gst::Caps>,
) -> Result<usize, TaskError> {
    let source = pipeline.by_name("pictures").and_then(|e| e.downcast::<gst_app::AppSrc>().ok());
    let source = source.ok_or_else(|| failed("the pipeline has no source"))?;
    if let Some(caps) = caps {
        source.set_caps(Some(&caps));
    }
    std::thread::scope(|scope| {
        let feeding = scope.spawn(move || {
            let (begun, mut pushed) = (Instant::now(), 0);
            for buffer in buffers {
                // A pipeline that failed takes no more, and says so on its bus.
                if source.push_buffer(buffer).is_err() {
                    break;
                }
                pushed += 1;
                if begun.elapsed().as_secs_f64() > seconds_max {
                    break;
                }
            }
            let _ = source.end_of_stream();
            pushed
        });
        run_to_end(pipeline)?;
        feeding.join().map_err(|_| failed("the thread that feeds the pipeline panicked"))
    })
}

fn collect(pipeline: &gst::Pipeline, name: &str) -> Result<Arc<Mutex<Vec<gst::Sample>>>, TaskError> {
    let samples = Arc::new(Mutex::new(Vec::new()));
    let adding = samples.clone();
    watch(pipeline, name, move |sample| adding.lock().push(sample))?;
    Ok(samples)
}

fn watch(pipeline: &gst::Pipeline, name: &str, each: impl Fn(gst::Sample) + Send + 'static) -> Result<(), TaskError> {
    let sink = pipeline.by_name(name).and_then(|e| e.downcast::<gst_app::AppSink>().ok());
    let sink = sink.ok_or_else(|| failed("the pipeline has no sink"))?;
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        each(sink.pull_sample().map_err(|_| gst::FlowError::Eos)?);
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    Ok(())
}
