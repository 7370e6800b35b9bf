//! Stages that only `conveyor bench` starts: they measure what this box codes and decodes, and make the film for it.
//!
//! No workflow can name them. Like every stage they run in a child process, since encoders and decoders may crash; times
//! are taken inside, so that starting the process is not part of them.
//!
//! | stage | makes |
//! |---|---|
//! | `bench-clip` | a file with [`conveyor_pixels::scene`]'s film and a tone of noise |
//! | `bench-encode` | speeds of one encoder at one preset, with bitrate, PSNR and SSIM of what came out |
//! | `bench-decode` | speeds of one decoder, one or more streams at once |

pub mod clip;
pub mod codec;
pub mod decode;
pub mod encode;

use std::time::Duration;

use conveyor_base::TaskError;
use gstreamer as gst;
use gstreamer::prelude::*;

/// How long one measured run may take before it counts as hung.
const RUN_MAX: Duration = Duration::from_secs(600);

/// Pictures a second of everything that is made here.
pub const FPS: u32 = 30;

/// What parameters are where a job leaves them out: one of a thing, and no repetition after a minute.
fn one() -> usize {
    1
}

fn minute() -> f64 {
    60.0
}

/// The film's seed: every box measures with the same pictures.
const SEED: u64 = 2_026;

fn failed(cause: impl Into<String>) -> TaskError {
    TaskError::new("Media.BenchFailed", cause)
}

/// Parses a description whose named elements are there by construction.
fn launch(description: &str) -> Result<gst::Pipeline, TaskError> {
    let element = gst::parse::launch(description).map_err(|e| failed(format!("{e}, in: {description}")))?;
    element.downcast::<gst::Pipeline>().map_err(|_| failed(format!("no pipeline: {description}")))
}

/// Runs to the end of the stream; the pipeline is stopped however it ended.
fn run_to_end(pipeline: &gst::Pipeline) -> Result<(), TaskError> {
    let end = (|| {
        pipeline.set_state(gst::State::Playing).map_err(|e| failed(e.to_string()))?;
        wait_for_end(pipeline)
    })();
    // Nothing could be done about a pipeline that does not stop; the process ends soon.
    let _ = pipeline.set_state(gst::State::Null);
    end
}

fn wait_for_end(pipeline: &gst::Pipeline) -> Result<(), TaskError> {
    let bus = pipeline.bus().ok_or_else(|| failed("the pipeline has no bus"))?;
    let limit = gst::ClockTime::from_seconds(RUN_MAX.as_secs());
    match bus.timed_pop_filtered(limit, &[gst::MessageType::Eos, gst::MessageType::Error]) {
        Some(message) => match message.view() {
            gst::MessageView::Error(e) => Err(failed(format!("{} ({})", e.error(), e.debug().unwrap_or_default()))),
            _ => Ok(()),
        },
        None => Err(failed(format!("a run was not done after {} s", RUN_MAX.as_secs()))),
    }
}

/// The caps of raw frames of the film.
fn raw_caps(width: usize, height: usize) -> String {
    format!(
        "video/x-raw,format=I420,width={width},height={height},framerate={FPS}/1,pixel-aspect-ratio=1/1,\
         interlace-mode=progressive,colorimetry=bt709"
    )
}
