//! A clip with sound, motion, cuts and a black second, for `conveyor demo` and the tests: made on the box, from nothing.

use std::path::Path;

use conveyor_base::TaskError;
use gstreamer as gst;
use gstreamer::prelude::*;

/// What to make.
#[derive(Clone, Copy, Debug)]
pub struct Clip {
    pub width: u32,
    pub height: u32,
    /// Frames a second.
    pub fps: u32,
    /// Length in seconds; at least 3.
    pub seconds: u32,
}

impl Default for Clip {
    fn default() -> Clip {
        Clip { width: 1280, height: 720, fps: 30, seconds: 12 }
    }
}

/// Bound on the making of one clip, in seconds of wall time.
const MAKING_SECONDS_MAX: u64 = 300;

/// Writes the clip as MP4 (H.264, AAC). The file appears under its name only when it is whole.
pub fn make(path: &Path, clip: Clip) -> Result<(), TaskError> {
    let failed = |cause: String| {
        TaskError::new("Media.ClipFailed", format!("could not make the clip {}: {cause}", path.display()))
    };
    gst::init().map_err(|e| failed(e.to_string()))?;
    let part = path.with_extension("part");
    let pipeline = gst::parse::launch(&description(clip)).map_err(|e| failed(e.to_string()))?;
    let pipeline =
        pipeline.downcast::<gst::Pipeline>().map_err(|_| failed("the description made no pipeline".into()))?;
    let sink = pipeline.by_name("file").ok_or_else(|| failed("the pipeline has no file sink".into()))?;
    sink.set_property("location", part.to_string_lossy().as_ref());
    let end = run(&pipeline);
    // Reaching NULL cannot fail for file elements, and nothing could be done about it.
    let _ = pipeline.set_state(gst::State::Null);
    end.map_err(failed)?;
    std::fs::rename(&part, path).map_err(|e| failed(e.to_string()))
}

/// Three shots, then a black second, over a tone, noise and silence. `identity` makes one time line of the joined
/// segments: an encoder that reorders pictures would carry some across a joint with the wrong offset.
fn description(clip: Clip) -> String {
    let Clip { width, height, fps, seconds } = clip;
    let shot = seconds.saturating_sub(1).max(3) / 3;
    let last = seconds.saturating_sub(1).max(3) - 2 * shot;
    let caps =
        format!("video/x-raw,format=I420,width={width},height={height},framerate={fps}/1,pixel-aspect-ratio=1/1");
    let picture = |pattern: &str, seconds: u32| {
        format!(
            "videotestsrc {pattern} num-buffers={} ! {caps} ! queue max-size-buffers=4 max-size-bytes=0 ! shots. ",
            seconds * fps
        )
    };
    let sound = |wave: &str, seconds: u32| {
        format!(
            "audiotestsrc {wave} samplesperbuffer=480 num-buffers={} ! audio/x-raw,rate=48000,channels=2 ! queue ! sounds. ",
            seconds * 100
        )
    };
    [
        "concat name=shots ! identity single-segment=true ! x264enc speed-preset=veryfast pass=qual quantizer=18 key-int-max=60 ! video/x-h264,profile=high ! h264parse ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! mux. ".to_owned(),
        "concat name=sounds ! identity single-segment=true ! audioconvert ! avenc_aac bitrate=160000 ! aacparse ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! mux. ".to_owned(),
        "mp4mux name=mux faststart=true ! filesink name=file ".to_owned(),
        picture("pattern=ball motion=sweep background-color=0xff203040", shot),
        picture("pattern=smpte horizontal-speed=3", shot),
        picture("pattern=zone-plate kx2=12 ky2=12 kt=2", last),
        picture("pattern=black", 1),
        sound("wave=sine freq=440 volume=0.3", shot),
        sound("wave=pink-noise volume=0.3", shot),
        sound("wave=ticks volume=0.6", last),
        sound("wave=silence", 1),
    ]
    .concat()
}

fn run(pipeline: &gst::Pipeline) -> Result<(), String> {
    pipeline.set_state(gst::State::Playing).map_err(|e| e.to_string())?;
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
    match bus.timed_pop_filtered(gst::ClockTime::from_seconds(MAKING_SECONDS_MAX), &wanted) {
        Some(message) => match message.view() {
            gst::MessageView::Error(e) => Err(format!("{} ({})", e.error(), e.debug().unwrap_or_default())),
            _ => Ok(()),
        },
        None => Err(format!("it was not done after {MAKING_SECONDS_MAX} seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_is_a_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clip.mp4");
        make(&path, Clip { width: 160, height: 90, fps: 25, seconds: 4 }).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[4..8], b"ftyp");
        assert!(bytes.windows(4).any(|w| w == b"moov"));
        assert!(!path.with_extension("part").exists());
    }
}
