//! What went through the pipeline: counted where it happens, judged at the end.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;

use crate::pipeline::Pulse;
use crate::time;

/// What came out of the video decoder. Times are running times.
#[derive(Clone, Debug, Default)]
pub struct DecodeTally {
    pub frames: u64,
    pub corrupted: u64,
    pub first_ns: Option<u64>,
    /// End of the last frame.
    pub end_ns: u64,
    /// Longest stretch without a frame, and where it began.
    pub gap_ns_max: u64,
    pub gap_at_ns: u64,
}

impl DecodeTally {
    pub fn watch(tally: &Arc<Mutex<DecodeTally>>, pad: &gst::Pad) {
        let tally = tally.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if let Some(buffer) = info.buffer() {
                tally.lock().see(buffer, time::running_ns(pad, buffer));
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn see(&mut self, buffer: &gst::BufferRef, running_ns: Option<u64>) {
        self.frames += 1;
        self.corrupted += u64::from(buffer.flags().contains(gst::BufferFlags::CORRUPTED));
        let Some(pts) = running_ns else { return };
        if self.first_ns.is_none() {
            self.first_ns = Some(pts);
        } else if pts.saturating_sub(self.end_ns) > self.gap_ns_max {
            (self.gap_ns_max, self.gap_at_ns) = (pts - self.end_ns, self.end_ns);
        }
        let duration = buffer.duration().map_or(0, |t| t.nseconds());
        self.end_ns = self.end_ns.max(pts + duration);
    }
}

/// What came out of one video encoder.
#[derive(Clone, Debug, Default)]
pub struct EncodeTally {
    pub frames: u64,
    pub bytes: u64,
    /// Numbers of the frames that are keyframes.
    pub keyframes: Vec<u64>,
    /// Start of the last frame, from the first one on.
    pub last_ns: u64,
    /// Frames whose time of decoding does not lie behind that of the one before.
    pub disordered: u64,
    /// Profile, constraints and level from the stream's own header, as `avc1.` names them.
    pub codec: Option<String>,
    first_ns: Option<u64>,
    last_dts: Option<gst::ClockTime>,
}

impl EncodeTally {
    pub fn watch(pad: &gst::Pad, pulse: &Pulse) -> Arc<Mutex<EncodeTally>> {
        let tally: Arc<Mutex<EncodeTally>> = Arc::default();
        let (seen, pulse) = (tally.clone(), pulse.clone());
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            pulse.beat();
            if let Some(buffer) = info.buffer() {
                let mut seen = seen.lock();
                if seen.codec.is_none() {
                    seen.codec = pad.current_caps().and_then(|c| codec_name(&c));
                }
                seen.see(buffer);
            }
            gst::PadProbeReturn::Ok
        });
        tally
    }

    fn see(&mut self, buffer: &gst::BufferRef) {
        if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
            self.keyframes.push(self.frames);
        }
        self.frames += 1;
        self.bytes += buffer.size() as u64;
        let dts = buffer.dts().or(buffer.pts());
        self.disordered += u64::from(self.last_dts.is_some() && dts <= self.last_dts);
        self.last_dts = dts.or(self.last_dts);
        if let Some(pts) = buffer.pts().map(|t| t.nseconds()) {
            // The encoder moves all timestamps by a constant, so that none becomes negative.
            let first = *self.first_ns.get_or_insert(pts);
            self.last_ns = self.last_ns.max(pts.saturating_sub(first));
        }
    }
}

/// `avc1.640028` from the decoder configuration (ISO/IEC 14496-15, 5.3.3.1).
fn codec_name(caps: &gst::Caps) -> Option<String> {
    let data = caps.structure(0)?.get::<gst::Buffer>("codec_data").ok()?;
    let map = data.map_readable().ok()?;
    let bytes = map.get(1..4)?;
    Some(format!("avc1.{:02x}{:02x}{:02x}", bytes[0], bytes[1], bytes[2]))
}
