//! When pictures and sound are shown and heard: one set of rules for all stages, and the elements that apply them.
//!
//! `pictures`, `sound` and `ends` are pure arithmetic on nanoseconds of running time and know no GStreamer; the elements
//! `conveyorpictures` and `conveyorsound` hold them against the streams of a graph. GStreamer 1.22's own `videorate`
//! and `audiorate` are not used: the one shows the picture that is nearest in time, runs its clock backwards where the first
//! picture does not come at zero and loses the last one; the other fills gaps that are only announced, and then drops the
//! sound that comes after all.

pub mod ends;
pub mod fields;
pub mod picture_element;
pub mod pictures;
pub mod sound;
pub mod sound_element;

use gstreamer as gst;
use gstreamer::prelude::*;

/// Makes the elements known under their names.
pub fn register() -> Result<(), gst::glib::BoolError> {
    let rank = gst::Rank::NONE;
    gst::Element::register(None, "conveyorpictures", rank, picture_element::PictureTime::static_type())?;
    gst::Element::register(None, "conveyorsound", rank, sound_element::SoundTime::static_type())
}

/// Has what is demultiplexed in this decodebin count its times from one zero. Matroska's demultiplexer lets them begin with
/// the first picture or sound that it reads, and starts anew where another one turns out to come earlier: what was handed on
/// by then would be too early by as much. The file's own zero is that of both.
pub fn one_zero(decode: &gst::Element) {
    let Some(bin) = decode.downcast_ref::<gst::Bin>() else { return };
    bin.connect_deep_element_added(|_, _, element| {
        if element.factory().is_some_and(|factory| factory.name() == "matroskademux") {
            element.connect_pad_added(|_, pad| {
                pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
                    if let Some(event) = info.event().and_then(from_zero) {
                        info.data = Some(gst::PadProbeData::Event(event));
                    }
                    gst::PadProbeReturn::Ok
                });
            });
        }
    });
}

/// The same segment from zero on; none where it is none of a first run through the file.
fn from_zero(event: &gst::Event) -> Option<gst::Event> {
    let gst::EventView::Segment(segment) = event.view() else { return None };
    let mut own = segment.segment().downcast_ref::<gst::ClockTime>()?.clone();
    if own.base() != Some(gst::ClockTime::ZERO) || own.start() == Some(gst::ClockTime::ZERO) {
        return None;
    }
    own.set_start(gst::ClockTime::ZERO);
    own.set_time(gst::ClockTime::ZERO);
    own.set_position(gst::ClockTime::ZERO);
    Some(gst::event::Segment::builder(&own).seqnum(event.seqnum()).build())
}

/// Running time of a buffer that passes this pad, in nanoseconds; none before the start of its segment or without a time.
pub fn running_ns(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<u64> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    Some(segment.to_running_time(buffer.pts()?)?.nseconds())
}
