//! `bench-clip`: the film as a file, as a camera or an editing suite would hand it over: few bits are saved.
//!
//! `{"destination", "width", "height", "seconds", "encoder"?}` to `{"bytes", "seconds", "bitrateKbps"}`.

use std::path::PathBuf;

use conveyor_base::{TaskError, Uri};
use conveyor_job::Encoder;
use conveyor_job::{Job, Placing, Progress, Reporter};
use conveyor_pixels::scene::Scene;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use serde::Deserialize;
use serde_json::{Value, json};

use super::codec::Element as _;
use super::{FPS, SEED, failed, launch, raw_caps, run_to_end};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    destination: Uri,
    width: usize,
    height: usize,
    seconds: u32,
    #[serde(default = "h264")]
    encoder: Encoder,
}

fn h264() -> Encoder {
    Encoder::X264
}

pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let p: Parameters = crate::files::fault::parameters(job)?;
    let name = PathBuf::from(p.destination.file_name());
    let path = job.work_dir.join(&name);
    let video = match p.encoder {
        Encoder::X264 => "x264enc speed-preset=veryfast pass=qual quantizer=19 bitrate=100000 key-int-max=60 ! \
             video/x-h264,profile=high ! h264parse"
            .to_owned(),
        other => other.description(if other == Encoder::X265 { "ultrafast" } else { "8" }, job.threads),
    };
    let pipeline = launch(&format!(
        "appsrc name=pictures format=time caps={} block=true max-buffers=4 max-bytes=0 ! {video} ! \
         queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! mux. \
         audiotestsrc wave=pink-noise volume=0.2 samplesperbuffer=480 num-buffers={} ! \
         audio/x-raw,rate=48000,channels=2 ! audioconvert ! avenc_aac bitrate=160000 ! aacparse ! \
         queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! mux. \
         mp4mux name=mux faststart=true ! filesink name=file",
        raw_caps(p.width, p.height),
        p.seconds * 100,
    ))?;
    let element = |name: &str| pipeline.by_name(name).ok_or_else(|| failed(format!("no element {name}")));
    element("file")?.set_property("location", path.to_string_lossy().as_ref());
    let pictures =
        element("pictures")?.downcast::<gst_app::AppSrc>().map_err(|_| failed("the source takes no pictures"))?;
    let frames = (p.seconds * FPS) as usize;
    let end = std::thread::scope(|scope| {
        scope.spawn(|| paint(&pictures, &p, frames, reporter));
        run_to_end(&pipeline)
    });
    end?;
    let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
    let kbps = bytes as f64 * 8.0 / 1000.0 / f64::from(p.seconds.max(1));
    reporter.made(Placing { from: name, to: p.destination.clone() });
    Ok(json!({"bytes": bytes, "seconds": p.seconds, "bitrateKbps": kbps.round()}))
}

fn paint(pictures: &gst_app::AppSrc, p: &Parameters, frames: usize, reporter: &dyn Reporter) {
    let mut scene = Scene::new(p.width, p.height, SEED);
    for n in 0..frames {
        let mut frame = vec![0; scene.frame_bytes()];
        scene.paint(n, &mut frame);
        let mut buffer = gst::Buffer::from_mut_slice(frame);
        if let Some(buffer) = buffer.get_mut() {
            let at = |n: usize| gst::ClockTime::SECOND * n as u64 / u64::from(FPS);
            buffer.set_pts(at(n));
            buffer.set_duration(at(n + 1) - at(n));
        }
        // A pipeline that failed takes no more, and says so on its bus.
        if pictures.push_buffer(buffer).is_err() {
            return;
        }
        let fraction = n as f64 / frames as f64;
        reporter.progress(Progress { fraction, doing: "painting".into(), ..Progress::default() });
    }
    let _ = pictures.end_of_stream();
}
