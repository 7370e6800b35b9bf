//! `bench-decode`: how fast one decoder decodes a file, alone or as several streams at once.
//!
//! `{"file", "element", "parser", "streams"?, "repetitions"?, "secondsMax"?}` to `{"fps": [...], "frames"}`, or
//! `{"absent": why}` where the decoder is not installed or its device does not take the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conveyor_base::TaskError;
use conveyor_job::{Job, Progress, Reporter};
use gstreamer as gst;
use gstreamer::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{failed, launch, minute, one, wait_for_end};
use crate::input::Input;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    file: String,
    element: String,
    parser: String,
    #[serde(default = "one")]
    streams: usize,
    #[serde(default = "one")]
    repetitions: usize,
    /// No repetition is begun after this.
    #[serde(default = "minute")]
    seconds_max: f64,
}

/// Pictures that came out, and when the first and the last did.
#[derive(Default)]
struct Count {
    frames: AtomicU64,
    first_ns: AtomicU64,
    last_ns: AtomicU64,
}

pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let p: Parameters = crate::files::fault::parameters(job)?;
    let input = Input::open(job, &p.file)?;
    if !is_name(&p.element) || !is_name(&p.parser) {
        return Err(failed("a decoder's name holds letters, digits, '-' and '_'"));
    }
    if gst::ElementFactory::find(&p.element).is_none() {
        return Ok(json!({"absent": format!("GStreamer's {} is not installed", p.element)}));
    }
    let (mut speeds, mut frames, begun) = (Vec::new(), 0, Instant::now());
    for n in 0..p.repetitions.max(1) {
        if n > 0 && begun.elapsed().as_secs_f64() > p.seconds_max {
            break;
        }
        let (count, seconds) = once(&p, &input, job.threads)?;
        frames = count;
        speeds.push(count as f64 / seconds);
        let fraction = (n + 1) as f64 / p.repetitions as f64;
        reporter.progress(Progress { fraction, doing: "decoding".into(), ..Progress::default() });
    }
    Ok(json!({"fps": speeds, "frames": frames}))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// All streams from the first picture of any to the last of all.
fn once(p: &Parameters, input: &Input, threads: usize) -> Result<(u64, f64), TaskError> {
    let (clock, mut pipelines) = (Instant::now(), Vec::new());
    let count = Arc::new(Count { first_ns: AtomicU64::new(u64::MAX), ..Count::default() });
    for _ in 0..p.streams.max(1) {
        let pipeline = launch(&format!(
            "filesrc name=file ! qtdemux name=demux demux.video_0 ! queue ! {} ! {} name=decoder ! \
             fakesink sync=false name=sink",
            p.parser, p.element
        ))?;
        let element = |name: &str| pipeline.by_name(name).ok_or_else(|| failed(format!("no element {name}")));
        element("file")?.set_property("location", input.path.to_string_lossy().as_ref());
        let decoder = element("decoder")?;
        if decoder.has_property("max-threads") {
            let each = threads.div_ceil(p.streams.max(1)).max(1);
            decoder.set_property_from_str("max-threads", &each.to_string());
        }
        let pad = element("sink")?.static_pad("sink").ok_or_else(|| failed("the sink has no pad"))?;
        let counting = count.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let now = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
            counting.frames.fetch_add(1, Ordering::Relaxed);
            counting.first_ns.fetch_min(now, Ordering::Relaxed);
            counting.last_ns.fetch_max(now, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        pipelines.push(pipeline);
    }
    let played = play(&pipelines);
    for pipeline in &pipelines {
        // Nothing could be done about a pipeline that does not stop; the process ends soon.
        let _ = pipeline.set_state(gst::State::Null);
    }
    played?;
    let frames = count.frames.load(Ordering::Relaxed);
    let (first, last) = (count.first_ns.load(Ordering::Relaxed), count.last_ns.load(Ordering::Relaxed));
    if frames < 2 || last <= first {
        return Err(failed(format!("{} gave {frames} pictures of '{}'", p.element, input.uri)));
    }
    Ok((frames - 1, Duration::from_nanos(last - first).as_secs_f64()))
}

fn play(pipelines: &[gst::Pipeline]) -> Result<(), TaskError> {
    for pipeline in pipelines {
        pipeline.set_state(gst::State::Playing).map_err(|e| failed(e.to_string()))?;
    }
    pipelines.iter().try_for_each(wait_for_end)
}
