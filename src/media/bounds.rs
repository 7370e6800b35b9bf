//! What a file may ask of its decoders: pixels of a picture, pictures a second, streams (`[limits]`).
//!
//! A file of a few kilobytes can claim pictures of gigabytes, and thousands of streams. What it claims is looked at before a
//! decoder sees it, wherever it stands: in the container, behind a parser, and again whenever it changes in mid-stream;
//! what only the decoder finds out, as of a picture whose container lies, ends the graph before the picture goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use conveyor_base::TaskError;
use conveyor_base::limits::quotas;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::input::Input;
use super::probe::Media;

/// The details of an error message that is one of these.
const DETAILS: &str = "conveyor-too-large";
/// Pictures from which a rate is told.
const PICTURES_MIN: usize = 10;

/// Watches over everything that a `decodebin` takes a file apart with. Ask [`exceeded`] of its errors.
pub fn watch(decode: &gst::Element) {
    let Some(bin) = decode.downcast_ref::<gst::Bin>() else { return };
    let over = Arc::new(AtomicBool::new(false));
    let is_over = over.clone();
    decode.connect("autoplug-continue", false, move |_| Some((!is_over.load(Relaxed)).to_value()));
    bin.connect_deep_element_added(move |_, _, element| {
        use gst::ElementFactoryType as Type;
        let Some(factory) = element.factory() else { return };
        if factory.has_type(Type::DEMUXER) {
            let over = over.clone();
            element.connect_pad_added(move |element, _| {
                if let Some(what) = too_many(u64::from(element.num_src_pads()))
                    && !over.swap(true, Relaxed)
                {
                    post(element, &what);
                }
            });
        }
        if factory.has_type(Type::DECODER) || factory.has_type(Type::PARSER) {
            element.pads().iter().for_each(watch_pad);
        }
    });
}

fn watch_pad(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |pad, info| {
        let Some(gst::EventView::Caps(caps)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(what) = caps.caps().structure(0).and_then(too_large) else { return gst::PadProbeReturn::Ok };
        if let Some(element) = pad.parent_element() {
            post(&element, &what);
        }
        gst::PadProbeReturn::Drop
    });
}

fn too_large(caps: &gst::StructureRef) -> Option<String> {
    let side = |name: &str| caps.get::<i32>(name).ok().and_then(|n| u64::try_from(n).ok());
    let is_picture = caps.name().starts_with("video/") || caps.name().starts_with("image/");
    let (width, height) = (side("width").filter(|_| is_picture)?, side("height")?);
    let (pixels, most) = (width.saturating_mul(height), quotas().pixels);
    (pixels > most).then(|| {
        format!(
            "has pictures of {width} x {height}, {pixels} pixels, and at most {most} are decoded; raise 'pixels' in [limits] \
             and drop it again, or scale it before"
        )
    })
}

fn too_many(streams: u64) -> Option<String> {
    let most = quotas().streams;
    (streams > most).then(|| {
        format!(
            "has {streams} streams or more, and at most {most} are taken up; raise 'streams' in [limits] and drop it again, or \
             leave out what is not needed"
        )
    })
}

fn post(element: &gst::Element, what: &str) {
    let details = gst::Structure::builder(DETAILS).field("what", what).build();
    let message = gst::message::Error::builder(gst::StreamError::Failed, what).details(details).src(element).build();
    // An element without a bus is in no graph any more.
    let _ = element.post_message(message);
}

/// The error that stands behind a message of the bus, where that is one of these.
pub fn exceeded(message: &gst::message::Error, input: &Input) -> Option<TaskError> {
    let what = message.details().filter(|details| details.name() == DETAILS)?.get::<String>("what").ok()?;
    Some(input.error("Media.TooLarge", what))
}

/// Refuses a file by how many tracks its index has.
///
/// # Errors
/// `Media.TooLarge`
pub fn check_tracks(input: &Input, tracks: usize) -> Result<(), TaskError> {
    too_many(tracks as u64).map_or(Ok(()), |what| Err(input.error("Media.TooLarge", what)))
}

/// Refuses a file by its pictures a second, on the average of what is known: of all of them where there is an index, else
/// of those that were decoded. What a container merely says of its rate is often the tick of its clock.
///
/// # Errors
/// `Media.TooLarge`
pub fn check_rate(input: &Input, media: &Media, sample_ns: &[u64]) -> Result<(), TaskError> {
    let indexed = media.video.iter().filter_map(|video| video.frames).max().map(|frames| frames as f64);
    let whole = media.duration_ns.map(|ns| ns as f64 / 1e9).filter(|seconds| *seconds > 0.0);
    let sampled = match (sample_ns.iter().min(), sample_ns.iter().max()) {
        (Some(first), Some(last)) if sample_ns.len() >= PICTURES_MIN && last > first => {
            Some((sample_ns.len() - 1) as f64 * 1e9 / (last - first) as f64)
        }
        _ => None,
    };
    let rate = indexed.filter(|frames| *frames >= PICTURES_MIN as f64).zip(whole).map(|(frames, whole)| frames / whole);
    let most = quotas().frames_per_second as f64;
    match rate.or(sampled).filter(|rate| *rate > most * 1.01) {
        None => Ok(()),
        Some(rate) => Err(input.error(
            "Media.TooLarge",
            format!(
                "has {rate:.0} pictures a second, and at most {most} are done; raise 'frames_per_second' in [limits] and drop it \
                 again, or make it slower before"
            ),
        )),
    }
}
