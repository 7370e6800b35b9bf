//! A look at every coded picture of a file without decoding any: are its bytes in order from the first to the last?
//!
//! Catches what lies between the places that `sanitize` decodes: space that was reserved and never filled, stretches
//! overwritten, packets lost. MPEG-TS is read as packets; from other containers each coded picture is taken and, for
//! H.264, HEVC and ProRes, its inner structure walked. It costs one reading of the file and little else. Damage within one
//! unit of a picture stays unseen: only decoding shows that, and the transcode counts it.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use conveyor_base::TaskError;
use gstreamer as gst;
use gstreamer::prelude::*;
use parking_lot::Mutex;

use super::bounds;
use super::container::Kind;
use super::input::Input;
use super::pipeline::{Pipeline, bug, link, make};
use super::probe::Media;

/// Share of the pictures that may be damaged before a file is refused; the transcode draws the same line.
const DAMAGED_FRACTION_MAX: f64 = 0.005;
const DAMAGED_FREE: u64 = 4;
/// Zero bytes in a row that no coder writes into a picture.
const HOLE_BYTES: usize = 64;
/// Seconds between two pictures, in the order of decoding, that are told.
const GAP_SECONDS: f64 = 1.0;
const CHUNK_BYTES: usize = 1 << 20;
/// Streams that a transport stream can tell apart.
const PIDS: usize = 1 << 13;

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Coded pictures, or packets of a transport stream.
    pub units: u64,
    pub damaged: u64,
    /// Where the first damage lies: in seconds, or as a share of the file.
    pub first: Option<String>,
    /// Longest time without a picture, in seconds, and where it begins.
    pub gap: Option<(f64, f64)>,
}

impl Survey {
    fn note(&mut self, place: impl FnOnce() -> String) {
        self.damaged += 1;
        if self.first.is_none() {
            self.first = Some(place());
        }
    }

    /// Refuses a file that is damaged beyond what a viewer would forgive; says the rest as warnings.
    pub fn judge(&self, input: &Input, media: &Media) -> Result<Vec<String>, TaskError> {
        let mut warnings = Vec::new();
        let video = media.video.first();
        let fps = video.map_or(25.0, |v| f64::from(v.fps.numer()) / f64::from(v.fps.denom().max(1)));
        let pictures = media.duration_ns.map_or(self.units as f64, |ns| ns as f64 / 1e9 * fps);
        let free = DAMAGED_FREE.max((pictures * DAMAGED_FRACTION_MAX) as u64);
        let place = self.first.as_deref().unwrap_or_default();
        let what = if media.container.kind == Kind::MpegTs { "lost packets" } else { "damaged pictures" };
        if self.damaged > free {
            return Err(input.error(
                "Media.Corrupt",
                format!("has {} {what}, the first {place}; copy it again from where it was made", self.damaged),
            ));
        }
        if self.damaged > 0 {
            warnings.push(format!("{} {what}, the first {place}", self.damaged));
        }
        if let Some((seconds, at)) = self.gap {
            warnings.push(format!("there is no picture for {seconds:.2} s from {at:.2} s on"));
        }
        Ok(warnings)
    }
}

/// Looks at the whole file; `on_progress` is called with the share of it that is done.
pub fn survey(input: &Input, media: &Media, on_progress: &dyn Fn(f64)) -> Result<Survey, TaskError> {
    match media.container.kind {
        Kind::MpegTs => packets(input, on_progress),
        _ => pictures(input, media, on_progress),
    }
}

/// ISO/IEC 13818-1, 2.4.3: every packet begins with its sync byte, and those of a stream are counted.
fn packets(input: &Input, on_progress: &dyn Fn(f64)) -> Result<Survey, TaskError> {
    let mut file = File::open(&input.path).map_err(|e| input.io_error(&e))?;
    let (mut survey, mut counters) = (Survey::default(), [None; PIDS]);
    let (mut rest, mut read, mut size, mut told) = (Vec::new(), 0u64, 0usize, 0u64);
    loop {
        let mut chunk = std::mem::take(&mut rest);
        let kept = chunk.len();
        let got = file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut chunk).map_err(|e| input.io_error(&e))?;
        read += got as u64;
        if size == 0 {
            // Packets of discs and cameras carry a time stamp of four bytes in front.
            size = if chunk.first() == Some(&0x47) { 188 } else { 192 };
        }
        let lead = size - 188;
        let mut at = 0;
        while at + size <= chunk.len() {
            let packet = &chunk[at + lead..at + size];
            if packet[0] == 0x47 {
                count(packet, &mut counters, &mut survey, || place(input, read - (got + kept - at) as u64));
                at += size;
                continue;
            }
            counters = [None; PIDS];
            let lost_at = at;
            // On to the next byte that begins a packet and has another one behind it.
            at += 1;
            while at + lead + size < chunk.len() && (chunk[at + lead] != 0x47 || chunk[at + lead + size] != 0x47) {
                at += 1;
            }
            survey.note(|| place(input, read - (got + kept - lost_at) as u64));
            // One is counted already; the rest of what was passed over follows.
            survey.damaged += ((at - lost_at) / size) as u64;
        }
        rest = chunk.split_off(at.min(chunk.len()));
        if read - told > 64 << 20 {
            told = read;
            on_progress(read as f64 / input.size.max(1) as f64);
        }
        if got == 0 {
            return Ok(survey);
        }
    }
}

fn place(input: &Input, byte: u64) -> String {
    format!("at {:.1} % of the file (byte {byte})", byte as f64 * 100.0 / input.size.max(1) as f64)
}

fn count(packet: &[u8], counters: &mut [Option<u8>; PIDS], survey: &mut Survey, place: impl FnOnce() -> String) {
    survey.units += 1;
    let pid = usize::from(u16::from_be_bytes([packet[1], packet[2]])) % PIDS;
    let (broken, control, counter) = (packet[1] & 0x80 != 0, packet[3] >> 4 & 3, packet[3] & 15);
    // Null packets are not counted, and packets without payload do not count on.
    if pid == PIDS - 1 {
        return;
    }
    let announced = control & 2 != 0 && packet[4] > 0 && packet[5] & 0x80 != 0;
    let last = counters[pid].replace(counter);
    let follows = last.is_none_or(|last| counter == last || control & 1 == 0 || counter == (last + 1) & 15);
    if broken || (!follows && !announced) {
        survey.note(place);
    }
}

/// How the units of a coded picture are told apart.
#[derive(Clone, Copy)]
enum Structure {
    /// Units with a length of so many bytes in front.
    H264(usize),
    Hevc(usize),
    ProRes,
    Unknown,
}

fn pictures(input: &Input, media: &Media, on_progress: &dyn Fn(f64)) -> Result<Survey, TaskError> {
    let pipeline = Pipeline::new()?;
    let (source, split) = (pipeline.add("filesrc")?, pipeline.add("decodebin")?);
    source.set_property("location", &input.path);
    link(&[&source, &split])?;
    bounds::watch(&split);
    // What comes out of the demultiplexer is taken as it is.
    split.connect("autoplug-continue", false, |args| {
        let pad = args.get(1).and_then(|a| a.get::<gst::Pad>().ok());
        let inner = pad.and_then(|p| match p.downcast::<gst::GhostPad>() {
            Ok(ghost) => ghost.target(),
            Err(pad) => Some(pad),
        });
        let factory = inner.and_then(|p| p.parent_element()).and_then(|e| e.factory());
        Some(factory.is_some_and(|f| f.name() == "typefind").to_value())
    });
    let (survey, bin, pulse) =
        (Arc::new(Mutex::new(Survey::default())), pipeline.gst.downgrade(), pipeline.pulse.clone());
    let seen = survey.clone();
    let watched = Mutex::new(false);
    split.connect_pad_added(move |_, pad| {
        let Some(bin) = bin.upgrade() else { return };
        pulse.watch(pad);
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let name = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
        if name.starts_with("video/") && !std::mem::replace(&mut *watched.lock(), true) {
            watch(pad, seen.clone());
        }
        if let Err(e) = take_up(&bin, pad, name.starts_with("video/") || name.starts_with("audio/")) {
            gst::element_error!(bin, gst::CoreError::Pad, ("{e}"));
        }
    });
    pipeline.set(gst::State::Playing, input)?;
    let whole = media.duration_ns.unwrap_or(0).max(1) as f64;
    pipeline.wait(input, false, None, |_| {
        let at = pipeline.gst.query_position::<gst::ClockTime>().map_or(0.0, |t| t.nseconds() as f64);
        on_progress((at / whole).min(1.0));
        Ok(())
    })?;
    drop(pipeline);
    let survey = survey.lock().clone();
    Ok(survey)
}

fn take_up(bin: &gst::Pipeline, pad: &gst::Pad, timed: bool) -> Result<(), TaskError> {
    let sink = make("fakesink")?;
    sink.set_property("sync", false);
    // A subtitle's first line may be an hour away: it must not hold up the start.
    sink.set_property("async", timed);
    bin.add(&sink).map_err(|e| bug(&format!("a sink cannot be added: {e}")))?;
    let into = sink.static_pad("sink").ok_or_else(|| bug("a sink without a pad"))?;
    pad.link(&into).map_err(|e| bug(&format!("a stream cannot be linked: {e}")))?;
    sink.sync_state_with_parent().map_err(|e| bug(&format!("a sink does not start: {e}")))
}

fn watch(pad: &gst::Pad, survey: Arc<Mutex<Survey>>) {
    let known = pad.current_caps().map_or(Structure::Unknown, |caps| structure_of(&caps));
    let state = Mutex::new((known, None::<u64>));
    let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(what, move |_, info| {
        let mut state = state.lock();
        if let Some(gst::EventView::Caps(caps)) = info.event().map(|e| e.view()) {
            state.0 = structure_of(caps.caps());
        }
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        let at = buffer.dts_or_pts().map(|t| t.nseconds());
        let mut survey = survey.lock();
        survey.units += 1;
        if let (Some(at), Some(last)) = (at, state.1) {
            let gap = at.saturating_sub(last) as f64 / 1e9;
            if gap > survey.gap.map_or(GAP_SECONDS, |g| g.0) {
                survey.gap = Some((gap, last as f64 / 1e9));
            }
        }
        state.1 = at.or(state.1);
        if let Ok(map) = buffer.map_readable()
            && !in_order(state.0, map.as_slice())
        {
            survey.note(|| format!("at {:.2} s", at.unwrap_or(0) as f64 / 1e9));
        }
        gst::PadProbeReturn::Ok
    });
}

fn structure_of(caps: &gst::CapsRef) -> Structure {
    let Some(s) = caps.structure(0) else { return Structure::Unknown };
    let data = s.get::<gst::Buffer>("codec_data").ok();
    let byte = |at: usize| data.as_ref().and_then(|d| d.map_readable().ok()?.get(at).copied());
    let length = |at: usize| byte(at).map(|b| usize::from(b & 3) + 1);
    match s.name().as_str() {
        "video/x-h264" => length(4).map_or(Structure::Unknown, Structure::H264),
        "video/x-h265" => length(21).map_or(Structure::Unknown, Structure::Hevc),
        "video/x-prores" => Structure::ProRes,
        _ => Structure::Unknown,
    }
}

fn in_order(structure: Structure, picture: &[u8]) -> bool {
    let (length, hevc) = match structure {
        Structure::Unknown => return true,
        Structure::ProRes => return picture.get(4..8) == Some(b"icpf"),
        Structure::H264(length) => (length, false),
        Structure::Hevc(length) => (length, true),
    };
    let mut rest = picture;
    while !rest.is_empty() {
        let Some((head, behind)) = rest.split_at_checked(length) else { return false };
        let size = head.iter().fold(0usize, |n, b| n << 8 | usize::from(*b));
        let Some((unit, next)) = behind.split_at_checked(size) else { return false };
        let sound = match unit {
            // The forbidden bit, and types or layers that do not exist.
            [first, second, ..] if hevc => first & 0x80 == 0 && second & 7 != 0,
            [first, ..] => first & 0x80 == 0 && (1..=23).contains(&(first & 0x1f)),
            [] => false,
        };
        if !sound || has_hole(unit) {
            return false;
        }
        rest = next;
    }
    true
}

/// A run of zero bytes; looks at every 32nd byte, and closer where that is zero.
fn has_hole(unit: &[u8]) -> bool {
    (0..unit.len()).step_by(HOLE_BYTES / 2).any(|at| {
        unit[at] == 0 && {
            let before = unit[..at].iter().rev().take(HOLE_BYTES).take_while(|b| **b == 0).count();
            let behind = unit[at..].iter().take(HOLE_BYTES).take_while(|b| **b == 0).count();
            before + behind >= HOLE_BYTES
        }
    })
}
