//! Deinterlacing without its delay. GStreamer 1.22's `deinterlace` looks one picture ahead: it gives each picture the time
//! of the next one, and does not give out the last. Here the times that went in are given to what comes out.

use std::collections::VecDeque;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;

/// What went in and has not come out, by time in nanoseconds; the element gives one picture for each.
#[derive(Default)]
struct Delay {
    waiting: VecDeque<u64>,
    last: Option<gst::Buffer>,
    ended: bool,
    /// The element left that order: it undoes a pull-down, and tells times itself.
    lost: bool,
}

impl Delay {
    /// The time of the picture that comes out next, instead of the one that it is given; none for one that never went in.
    fn next(&mut self, told_ns: u64) -> Option<u64> {
        if self.lost {
            return Some(told_ns);
        }
        let own = self.waiting.pop_front()?;
        let period = self.waiting.front().map_or(told_ns.saturating_sub(own), |next| next.saturating_sub(own));
        // Half a picture is forgiven to rounding.
        if told_ns >= own && told_ns - own <= period + period / 2 {
            return Some(own);
        }
        self.lost = true;
        Some(told_ns)
    }
}

/// Gives what comes out of this `deinterlace` the times at which it went in, and has the last picture come out.
pub fn undelay(deinterlace: &gst::Element) {
    let (Some(sink), Some(src)) = (deinterlace.static_pad("sink"), deinterlace.static_pad("src")) else { return };
    let delay = Arc::new(Mutex::new(Delay::default()));
    let went_in = delay.clone();
    sink.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
        if let Some(buffer) = info.buffer()
            && let Some(pts) = buffer.pts()
        {
            let mut delay = went_in.lock();
            if !delay.ended {
                delay.waiting.push_back(pts.nseconds());
                delay.last = Some(buffer.clone());
            }
        }
        if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
            push_out(pad, &went_in);
        }
        gst::PadProbeReturn::Ok
    });
    src.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data else { return gst::PadProbeReturn::Ok };
        let Some(told) = buffer.pts() else { return gst::PadProbeReturn::Ok };
        match delay.lock().next(told.nseconds()) {
            Some(own) => buffer.make_mut().set_pts(gst::ClockTime::from_nseconds(own)),
            None => return gst::PadProbeReturn::Drop,
        }
        gst::PadProbeReturn::Ok
    });
}

/// One more picture, so that the one before it comes out; it does not count itself.
fn push_out(pad: &gst::Pad, delay: &Mutex<Delay>) {
    let last = {
        let mut delay = delay.lock();
        delay.ended = true;
        delay.last.take()
    };
    let Some(mut last) = last else { return };
    let buffer = last.make_mut();
    let length = buffer.duration().unwrap_or(gst::ClockTime::from_mseconds(40));
    buffer.set_pts(buffer.pts().map(|pts| pts + length));
    // Who does not take it says why on the bus.
    let _ = pad.chain(last);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_the_times_at_which_they_went_in() {
        let mut delay = Delay { waiting: (0..5).map(|i| i * 40).collect(), ..Delay::default() };
        let out: Vec<Option<u64>> = (1..7).map(|i| delay.next(i * 40)).collect();
        assert_eq!(out, [Some(0), Some(40), Some(80), Some(120), Some(160), None]);
        // Four for five: it undoes a pull-down.
        let mut delay = Delay { waiting: (0..20).map(|i| i * 40).collect(), ..Delay::default() };
        let out: Vec<Option<u64>> = (0..10).map(|i| delay.next(i * 50)).collect();
        assert!(delay.lost && out[9] == Some(450));
    }
}
