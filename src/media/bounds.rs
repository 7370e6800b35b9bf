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
use parking_lot::Mutex;

use super::input::Input;
use super::probe::Media;

/// The details of an error message that is one of these.
const DETAILS: &str = "conveyor-too-large";
/// Pictures from which a rate is told.
const PICTURES_MIN: usize = 10;
/// The time of a stream over which a rate that changes is told.
const RATE_WINDOW_NS: u64 = 2_000_000_000;
/// How often the time of a stream may fall back by more than that without a seek.
const RESTARTS_MAX: u32 = 100;

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
        let is_of_pictures =
            factory.metadata("klass").is_some_and(|klass| klass.contains("Video") || klass.contains("Image"));
        if factory.has_type(Type::DECODER) && is_of_pictures {
            element.src_pads().iter().for_each(watch_rate);
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

/// Counts the pictures of each [`RATE_WINDOW_NS`] that comes out of a decoder: what a file has more than its beginning and its
/// average say. Fewer than that, however close together, are a burst and no rate.
fn watch_rate(pad: &gst::Pad) {
    let window = Mutex::new(Window::default());
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_FLUSH, move |pad, info| {
        let mut window = window.lock();
        if info.event().is_some_and(|event| event.type_() == gst::EventType::FlushStop) {
            // Whoever reads the file seeks, and may see the same pictures again.
            *window = Window::default();
        }
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        window.add(buffer.pts().map(gst::ClockTime::nseconds));
        let most = quotas().frames_per_second as f64;
        if window.rate() <= most * 1.01 {
            return gst::PadProbeReturn::Ok;
        }
        let what = format!(
            "has more than {most} pictures a second from {:.1} s on, and at most {most} are done; raise 'frames_per_second' in \
             [limits] and drop it again, or make it slower before",
            window.begin.unwrap_or_default() as f64 / 1e9
        );
        if let Some(element) = pad.parent_element() {
            post(&element, &what);
        }
        gst::PadProbeReturn::Drop
    });
}

/// A stretch of [`RATE_WINDOW_NS`] of a stream, and the pictures that came while it was the newest, in the order of decoding.
#[derive(Default)]
struct Window {
    /// Nanoseconds of the stream; `None` before the first picture that has a time. What never has one has no rate.
    begin: Option<u64>,
    pictures: u64,
    /// How often the time fell back.
    restarts: u32,
}

impl Window {
    /// `at`: nanoseconds of the stream. A picture without a time, and one that is before the stretch, counts for it: else a
    /// file would escape the bound with times that are missing, or that fall.
    fn add(&mut self, at: Option<u64>) {
        if let Some(at) = at {
            let falls = self.begin.is_some_and(|begin| begin.saturating_sub(at) >= RATE_WINDOW_NS);
            let begins = match self.begin {
                None => true,
                // Recordings that were joined begin anew in mid-stream.
                Some(_) if falls => self.restarts < RESTARTS_MAX,
                Some(begin) => at >= begin.saturating_add(RATE_WINDOW_NS),
            };
            self.restarts += u32::from(begins && falls);
            if begins {
                (self.begin, self.pictures) = (Some(at), 0);
            }
        }
        self.pictures += 1;
    }

    /// Pictures a second.
    fn rate(&self) -> f64 {
        if self.begin.is_none() { 0.0 } else { self.pictures as f64 * 1e9 / RATE_WINDOW_NS as f64 }
    }
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

/// Refuses a file by its pictures a second: where an index tells, by those of the whole file, and where pictures were
/// decoded, by those of that time. Both have to say so: an index may be that of a part, and a part may be unlike the rest. What
/// a container merely says of its rate is often the tick of its clock. `window_ns`: the time that was looked at.
///
/// # Errors
/// `Media.TooLarge`
pub fn check_rate(input: &Input, media: &Media, sample_ns: &[u64], window_ns: u64) -> Result<(), TaskError> {
    let most = quotas().frames_per_second as f64;
    let indexed = media.video.iter().filter_map(|video| video.frames).max();
    let Some(rate) = rate(indexed, media.duration_ns, sample_ns, window_ns).filter(|rate| *rate > most * 1.01) else {
        return Ok(());
    };
    Err(input.error(
        "Media.TooLarge",
        format!(
            "has {rate:.0} pictures a second, and at most {most} are done; raise 'frames_per_second' in [limits] and drop it \
             again, or make it slower before"
        ),
    ))
}

/// The lower of what the index and the sample say, as far as they say anything.
fn rate(indexed: Option<u64>, duration_ns: Option<u64>, sample_ns: &[u64], window_ns: u64) -> Option<f64> {
    let whole = duration_ns.filter(|ns| *ns > 0).map(|ns| ns as f64 / 1e9);
    let indexed = indexed.filter(|frames| *frames >= PICTURES_MIN as u64).zip(whole);
    let indexed = indexed.map(|(frames, whole)| frames as f64 / whole);
    let sampled = match (sample_ns.iter().min(), sample_ns.iter().max()) {
        // A burst is no rate: nothing may come for long behind it.
        (Some(first), Some(last)) if sample_ns.len() >= PICTURES_MIN => {
            Some((sample_ns.len() - 1) as f64 * 1e9 / (last - first).max(window_ns).max(1) as f64)
        }
        _ => None,
    };
    match (indexed, sampled) {
        (Some(indexed), Some(sampled)) => Some(indexed.min(sampled)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_fall_or_are_missing_do_not_hide_a_rate() {
        const S: u64 = 1_000_000_000;
        let most = |times: &mut dyn Iterator<Item = Option<u64>>| {
            let mut window = Window::default();
            times.fold(0.0_f64, |most, at| {
                window.add(at);
                most.max(window.rate())
            })
        };
        let thousand = |n: u64| n * S / 1_000;
        assert!(most(&mut (0..4_000).map(|n| Some(thousand(n)))) > 900.0);
        assert!(most(&mut (0..4_000).map(|n| Some(thousand(4_000 - n)))) > 900.0);
        assert!(most(&mut (0..4_000).map(|n| (n % 50 == 0).then(|| thousand(n)))) > 900.0);
        assert!(most(&mut (0..4_000).map(|n| Some((4_000 - n) * 3 * S))) > 900.0, "each far before the last");
        // Ten recordings of 240 pictures a second, one behind the other.
        assert!(most(&mut (0..10 * 2_400).map(|n| Some(n % 2_400 * S / 240))) < 250.0);
        assert!(most(&mut (0..4_000).map(|_| None)) < 1.0, "what has no times has no rate");
    }

    #[test]
    fn neither_an_index_of_a_part_nor_a_burst_is_a_rate() {
        const S: u64 = 1_000_000_000;
        let every = |ns: u64, count: u64| (0..count).map(|n| n * ns).collect::<Vec<_>>();
        let is = |rate: Option<f64>, meant: f64| assert!((rate.unwrap() / meant - 1.0).abs() < 0.1, "{rate:?}");
        // Fragments that were all counted, of which one is as far as the length is known.
        is(rate(Some(3_600), Some(4 * S), &every(S / 30, 12), 4 * S / 10), 30.0);
        // Sixteen pictures at once, then one in five seconds.
        is(rate(None, None, &every(2_000_000, 16), 2 * S), 7.5);
        is(rate(Some(20_000), Some(20 * S), &every(S / 1_000, 400), 4 * S / 10), 1_000.0);
        is(rate(None, None, &every(S / 1_000, 2_000), 2 * S), 1_000.0);
        assert!(rate(None, Some(S), &every(1, 3), S).is_none(), "of three pictures none can be told");
    }
}
