//! Opening a file with GStreamer and finding out what its streams are, by decoding a little of each.
//!
//! Every wait has a bound, and a file that decodes to nothing is an error here and never an empty answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use conveyor_base::TaskError;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_audio as gst_audio;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use super::super::bounds;
use super::super::container::{self, Container, Kind};
use super::super::input::Input;
use super::super::pipeline::{Ended, Pipeline};
use super::colour::Hdr;
use crate::hdr;
use crate::time;

/// Longest time to open a file and decode its first frames.
const OPEN_SECONDS_MAX: u64 = 45;
/// How far into a file its first picture is looked for.
const LATE_SECONDS_MAX: u64 = 20;
/// A measured rate that is higher by this factor than the one that is told is the true one.
const MEAN_RATE_OFF: f64 = 1.2;
/// Longest time for a sample from the middle.
const SAMPLE_SECONDS_MAX: u64 = 30;

/// What a file is.
#[derive(Debug)]
pub struct Media {
    pub container: Container,
    /// In a person's words, from the demultiplexer: `ISO MP4/M4A`, `Matroska` ...
    pub container_name: Option<String>,
    pub duration_ns: Option<u64>,
    pub seekable: bool,
    pub video: Vec<Video>,
    pub audio: Vec<Audio>,
    pub subtitles: Vec<Subtitle>,
    /// Streams that cannot be decoded here, as caps.
    pub unknown: Vec<String>,
    pub timecode: Option<String>,
}

/// A video stream.
#[derive(Clone, Debug)]
pub struct Video {
    pub stream_id: String,
    pub info: gst_video::VideoInfo,
    /// Caps before decoding: codec, profile, level.
    pub coded: Option<gst::Caps>,
    pub tags: gst::TagList,
    /// When its first picture comes, in nanoseconds of running time.
    pub first_ns: Option<u64>,
    /// Until when the last one stands, by an index that says so.
    pub until_ns: Option<u64>,
    pub fps: gst::Fraction,
    /// None where neither index nor sample tells.
    pub variable: Option<bool>,
    /// Frames that the container lists, where it does.
    pub frames: Option<u64>,
    /// Clockwise degrees that a player must turn the picture by; `mirrored` before that.
    pub rotation: u16,
    pub mirrored: bool,
    pub interlaced: bool,
    pub top_field_first: bool,
    pub captions: Vec<String>,
    pub hdr: Hdr,
    /// How its pictures are brought to standard range, where they are not and this box knows how.
    pub grade: Option<conveyor_pixels::hdr::Grade>,
}

/// An audio stream.
#[derive(Clone, Debug)]
pub struct Audio {
    pub stream_id: String,
    pub info: gst_audio::AudioInfo,
    pub coded: Option<gst::Caps>,
    pub tags: gst::TagList,
}

/// A subtitle stream.
#[derive(Clone, Debug)]
pub struct Subtitle {
    pub stream_id: String,
    pub caps: gst::Caps,
    pub tags: gst::TagList,
}

/// What was seen while a stretch of the first video stream was decoded.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub frames: u64,
    pub corrupted: u64,
    pub pts_ns: Vec<u64>,
    /// Where the last picture and the last sound end.
    pub end_ns: u64,
    pub sound_end_ns: u64,
    pub captions: Vec<String>,
    pub timecode: Option<String>,
}

/// An opened file: prerolled, ready for samples.
pub struct Opened {
    pipeline: Pipeline,
    pads: Vec<gst::Pad>,
    unknown: Vec<String>,
    container_name: Option<String>,
    sample: Arc<Mutex<Sample>>,
    firsts: Firsts,
}

/// When the first picture or sound of each stream comes, in nanoseconds of running time.
type Firsts = Arc<Mutex<Vec<(gst::Pad, u64)>>>;

/// Opens a file and describes it.
pub fn inspect(input: &Input, threads: usize) -> Result<Media, TaskError> {
    let container = container::check(input)?;
    bounds::check_tracks(input, container.mp4.as_ref().map_or(0, |mp4| mp4.tracks.len()))?;
    let opened = open(input, threads)?;
    // An index tells the rate; without one it is measured, which takes more pictures.
    let indexed = container.mp4.as_ref().is_some_and(|m| !m.fragmented);
    let window_ns = if indexed { 400_000_000 } else { 2_000_000_000 };
    let mut start = opened.sample(input, 0, window_ns)?;
    // Sound may come first.
    if start.frames == 0 && opened.pads.iter().any(|pad| is(pad, "video/")) {
        start = opened.sample(input, 0, LATE_SECONDS_MAX * 1_000_000_000)?;
    }
    let media = opened.describe(input, container, &start)?;
    bounds::check_rate(input, &media, &start.pts_ns, window_ns)?;
    Ok(media)
}

/// Opens a file; fails where nothing in it can be decoded.
pub fn open(input: &Input, threads: usize) -> Result<Opened, TaskError> {
    let pipeline = Pipeline::new()?;
    let source = pipeline.add("filesrc")?;
    source.set_property("location", &input.path);
    let decode = pipeline.add("decodebin")?;
    source.link(&decode).map_err(|_| super::super::pipeline::bug("filesrc does not link to decodebin"))?;
    limit_decoders(&decode, threads);
    bounds::watch(&decode);
    time::one_zero(&decode);
    let pads = Arc::new(Mutex::new(Vec::<gst::Pad>::new()));
    let unknown = Arc::new(Mutex::new(Vec::<String>::new()));
    let sample = Arc::new(Mutex::new(Sample::default()));
    let firsts = Firsts::default();
    connect(&pipeline, &decode, &pads, &unknown, (&sample, &firsts));
    pipeline.set(gst::State::Paused, input)?;
    let mut container_name = None;
    let ended = pipeline.wait(input, true, Some(Duration::from_secs(OPEN_SECONDS_MAX)), |messages| {
        for message in messages {
            if let gst::MessageView::Tag(tag) = message.view() {
                let name = tag.tags().get::<gst::tags::ContainerFormat>().map(|v| v.get().to_owned());
                container_name = container_name.take().or(name);
            }
        }
        Ok(())
    });
    let unknown_caps = unknown.lock().clone();
    match ended {
        Ok(Ended::Prerolled) => {}
        Ok(_) => {
            return Err(input.error(
                "Media.Stalled",
                format!(
                    "could not be opened within {OPEN_SECONDS_MAX} s; the file is damaged or its share is very slow"
                ),
            ));
        }
        Err(e) => return Err(of_opening(e, input, &unknown_caps, pads.lock().len())),
    }
    let pads = pads.lock().clone();
    Ok(Opened { pipeline, pads, unknown: unknown_caps, container_name, sample, firsts })
}

/// What an error at the opening means: a missing decoder ends in a general one, which then says which codec it is. What is
/// damaged, encrypted or cannot be read is that, whatever else is in the file, and so is what fails beside a stream that is
/// `decoded`.
fn of_opening(error: TaskError, input: &Input, unknown: &[String], decoded: usize) -> TaskError {
    const GENERAL: [&str; 3] = ["Media.Failed", "Media.NotMedia", "Media.UnsupportedCodec"];
    if unknown.is_empty() || decoded > 0 || !GENERAL.contains(&error.error.as_str()) {
        return error;
    }
    input.error(
        "Media.UnsupportedCodec",
        format!("holds only streams without a decoder here ({}); convert it to a common codec", unknown.join("; ")),
    )
}

/// Gives decoders the leased cores and no more.
pub fn limit_decoders(decode: &gst::Element, threads: usize) {
    let Some(bin) = decode.downcast_ref::<gst::Bin>() else { return };
    let threads = threads.clamp(1, 32) as i32;
    bin.connect_deep_element_added(move |_, _, element| {
        if element.find_property("max-threads").is_some_and(|p| p.value_type() == i32::static_type()) {
            element.set_property("max-threads", threads);
        }
    });
}

fn connect(
    pipeline: &Pipeline,
    decode: &gst::Element,
    pads: &Arc<Mutex<Vec<gst::Pad>>>,
    unknown: &Arc<Mutex<Vec<String>>>,
    (sample, firsts): (&Arc<Mutex<Sample>>, &Firsts),
) {
    let (bin, pulse) = (pipeline.gst.downgrade(), pipeline.pulse.clone());
    let (pads, sample, firsts) = (pads.clone(), sample.clone(), firsts.clone());
    decode.connect_pad_added(move |_, pad| {
        let Some(bin) = bin.upgrade() else { return };
        let Ok(sink) = gst::ElementFactory::make("fakesink").property("sync", false).build() else { return };
        let Some(sink_pad) = sink.static_pad("sink") else { return };
        pulse.watch(pad);
        watch_first(pad, firsts.clone());
        let mut known = pads.lock();
        let video = is(pad, "video/");
        if video && !known.iter().any(|p| is(p, "video/")) {
            watch_frames(pad, sample.clone());
        }
        if is(pad, "audio/") {
            watch_sound(pad, sample.clone());
        }
        let timed = video || is(pad, "audio/");
        known.push(pad.clone());
        drop(known);
        // A subtitle's first line may be an hour away: it must not hold up the preroll.
        sink.set_property("async", timed);
        if bin.add(&sink).is_ok() && pad.link(&sink_pad).is_ok() {
            let _ = sink.sync_state_with_parent();
        }
    });
    let unknown = unknown.clone();
    decode.connect("unknown-type", false, move |values| {
        if let Some(caps) = values.get(2).and_then(|v| v.get::<gst::Caps>().ok()) {
            unknown.lock().push(caps.structure(0).map_or_else(|| caps.to_string(), |s| s.name().to_string()));
        }
        None
    });
}

fn is(pad: &gst::Pad, prefix: &str) -> bool {
    caps_of(pad).and_then(|c| c.structure(0).map(|s| s.name().starts_with(prefix))).unwrap_or(false)
}

fn caps_of(pad: &gst::Pad) -> Option<gst::Caps> {
    pad.current_caps().or_else(|| Some(pad.query_caps(None))).filter(|c| !c.is_empty() && !c.is_any())
}

/// Notes when the first buffer comes, before anything is sought.
fn watch_first(pad: &gst::Pad, firsts: Firsts) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(at) = info.buffer().and_then(|buffer| time::running_ns(pad, buffer)) else {
            return gst::PadProbeReturn::Ok;
        };
        firsts.lock().push((pad.clone(), at));
        gst::PadProbeReturn::Remove
    });
}

fn watch_sound(pad: &gst::Pad, sample: Arc<Mutex<Sample>>) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(end) = info.buffer().and_then(|buffer| end_of(buffer)) {
            let mut sample = sample.lock();
            sample.sound_end_ns = sample.sound_end_ns.max(end);
        }
        gst::PadProbeReturn::Ok
    });
}

fn end_of(buffer: &gst::BufferRef) -> Option<u64> {
    Some(buffer.pts()?.nseconds() + buffer.duration().map_or(0, |d| d.nseconds()))
}

fn watch_frames(pad: &gst::Pad, sample: Arc<Mutex<Sample>>) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let mut sample = sample.lock();
            sample.frames += 1;
            sample.end_ns = sample.end_ns.max(end_of(buffer).unwrap_or(0));
            sample.corrupted += u64::from(buffer.flags().contains(gst::BufferFlags::CORRUPTED));
            if let Some(pts) = buffer.pts()
                && sample.pts_ns.len() < 4096
            {
                sample.pts_ns.push(pts.nseconds());
            }
            for caption in buffer.iter_meta::<gst_video::VideoCaptionMeta>() {
                let name = match caption.caption_type() {
                    gst_video::VideoCaptionType::Cea608Raw | gst_video::VideoCaptionType::Cea608S3341a => "CEA-608",
                    _ => "CEA-708",
                };
                if !sample.captions.iter().any(|c| c == name) {
                    sample.captions.push(name.to_owned());
                }
            }
            if sample.timecode.is_none() {
                sample.timecode = buffer.meta::<gst_video::VideoTimeCodeMeta>().map(|m| m.tc().to_string());
            }
        }
        gst::PadProbeReturn::Ok
    });
}

impl Opened {
    pub fn duration_ns(&self) -> Option<u64> {
        self.pipeline.gst.query_duration::<gst::ClockTime>().map(|t| t.nseconds()).filter(|d| *d > 0)
    }

    pub fn seekable(&self) -> bool {
        let mut query = gst::query::Seeking::new(gst::Format::Time);
        self.pipeline.gst.query(&mut query) && query.result().0
    }

    /// Decodes the stretch `[from, to]` and says what was seen.
    pub fn sample(&self, input: &Input, from_ns: u64, to_ns: u64) -> Result<Sample, TaskError> {
        let gst = &self.pipeline.gst;
        if from_ns > 0 || self.seekable() {
            *self.sample.lock() = Sample::default();
            let sought = gst.seek(
                1.0,
                gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE,
                gst::SeekType::Set,
                gst::ClockTime::from_nseconds(from_ns),
                gst::SeekType::Set,
                gst::ClockTime::from_nseconds(to_ns),
            );
            if sought.is_err() {
                return Err(input.error(
                    "Media.Corrupt",
                    format!(
                        "cannot be read from {:.1} s on: its index is damaged; copy it again",
                        from_ns as f64 / 1e9
                    ),
                ));
            }
        }
        self.pipeline.set(gst::State::Playing, input)?;
        // Without an index there is no stopping point: what comes within the time is the sample.
        let limit = Duration::from_secs(if self.seekable() { SAMPLE_SECONDS_MAX } else { 5 });
        self.pipeline.wait(input, false, Some(limit), |_| Ok(()))?;
        self.pipeline.set(gst::State::Paused, input)?;
        Ok(self.sample.lock().clone())
    }

    fn describe(&self, input: &Input, container: Container, start: &Sample) -> Result<Media, TaskError> {
        let mut media = Media {
            container_name: self.container_name.clone(),
            duration_ns: self.duration_ns(),
            seekable: self.seekable(),
            video: Vec::new(),
            audio: Vec::new(),
            subtitles: Vec::new(),
            unknown: self.unknown.clone(),
            timecode: None,
            container,
        };
        for pad in &self.pads {
            let Some(caps) = caps_of(pad) else { continue };
            let stream_id = pad.stream_id().map(|s| s.to_string()).unwrap_or_default();
            let (tags, coded) = (tags_of(pad), coded_caps(pad));
            if let Ok(info) = gst_video::VideoInfo::from_caps(&caps) {
                let firsts = self.firsts.lock();
                let first_ns = firsts.iter().find(|(of, _)| of == pad).map(|(_, at)| *at);
                let video = video(stream_id, info, coded, tags, start);
                media.video.push(Video { grade: hdr::grade(&caps), first_ns, ..video });
            } else if let Ok(info) = gst_audio::AudioInfo::from_caps(&caps) {
                media.audio.push(Audio { stream_id, info, coded, tags });
            } else {
                media.subtitles.push(Subtitle { stream_id, caps, tags });
            }
        }
        // Demultiplexers expose streams in the order in which their data comes; people count them in the file's order.
        media.video.sort_by(|a, b| a.stream_id.cmp(&b.stream_id));
        media.audio.sort_by(|a, b| a.stream_id.cmp(&b.stream_id));
        media.subtitles.sort_by(|a, b| a.stream_id.cmp(&b.stream_id));
        if media.video.is_empty() && media.audio.is_empty() {
            return Err(input.error(
                "Media.NotMedia",
                "holds neither picture nor sound that can be decoded; check what was exported",
            ));
        }
        refine(&mut media, start);
        Ok(media)
    }
}

fn video(
    stream_id: String,
    info: gst_video::VideoInfo,
    coded: Option<gst::Caps>,
    tags: gst::TagList,
    start: &Sample,
) -> Video {
    let orientation = tags.get::<gst::tags::ImageOrientation>().map(|v| v.get().to_owned()).unwrap_or_default();
    let (mirrored, degrees) = match orientation.split_once("rotate-") {
        Some((flip, degrees)) => (flip.starts_with("flip"), degrees.parse().unwrap_or(0)),
        None => (false, 0),
    };
    let mode = info.interlace_mode();
    let order = info.field_order();
    let hdr = Hdr::of(&info.colorimetry());
    Video {
        stream_id,
        first_ns: None,
        until_ns: None,
        fps: info.fps(),
        variable: None,
        frames: None,
        rotation: degrees,
        mirrored,
        interlaced: mode != gst_video::VideoInterlaceMode::Progressive,
        top_field_first: order != gst_video::VideoFieldOrder::BottomFieldFirst,
        captions: start.captions.clone(),
        hdr,
        grade: None,
        info,
        coded,
        tags,
    }
}

/// Adds what the index and the decoded sample say about rate, frame count and timecode.
fn refine(media: &mut Media, start: &Sample) {
    media.timecode = start.timecode.clone();
    if let Some(mp4) = &media.container.mp4 {
        media.timecode = mp4.tracks.iter().find_map(|t| t.timecode.clone()).or(media.timecode.take());
        let mut tracks = mp4.tracks.iter().filter(|t| t.handler == "vide");
        for video in &mut media.video {
            let Some(track) = tracks.next() else { break };
            video.frames = Some(track.presented_samples());
            let shown = track.presented_seconds.unwrap_or_else(|| track.seconds());
            video.until_ns = (!mp4.fragmented).then(|| video.first_ns.unwrap_or(0) + (shown * 1e9) as u64);
            video.variable = Some(!mp4.fragmented && track.uncommon > 0.02);
            if track.common_delta > 0 && track.timescale > 0 {
                video.fps =
                    standard_rate(f64::from(track.timescale) / f64::from(track.common_delta)).unwrap_or_else(|| {
                        gst::Fraction::new(
                            track.timescale.min(i32::MAX as u32) as i32,
                            track.common_delta.min(i32::MAX as u32) as i32,
                        )
                    });
            }
        }
    }
    let first = media.video.first_mut();
    if let Some(video) = first
        && media.container.kind != Kind::Mp4
        && let Some((rate, variable)) = measured_rate(&start.pts_ns)
    {
        video.variable = Some(variable);
        // Where pictures stand for long, some containers tell their mean: at that rate most of the others would be lost.
        let of = |rate: gst::Fraction| f64::from(rate.numer()) / f64::from(rate.denom().max(1));
        let mean = !variable && of(rate) > of(video.fps) * MEAN_RATE_OFF;
        if video.fps.numer() <= 0 || mean {
            (video.fps, video.variable) = (rate, Some(variable || mean && video.fps.numer() > 0));
        }
    }
    for video in &mut media.video {
        if video.fps.numer() <= 0 {
            video.fps = measured_rate(&start.pts_ns).map_or(gst::Fraction::new(25, 1), |(rate, _)| rate);
        }
        // Some muxers write the tick rate of their clock as the frame rate.
        if video.fps.numer() > video.fps.denom().saturating_mul(240)
            && let Some((rate, _)) = measured_rate(&start.pts_ns)
        {
            video.fps = rate;
            video.variable = Some(true);
        }
    }
}

/// The rate of the most frequent distance between frames, and whether more than a tenth of them differ by a quarter.
fn measured_rate(pts_ns: &[u64]) -> Option<(gst::Fraction, bool)> {
    let mut sorted = pts_ns.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut deltas: BTreeMap<u64, usize> = BTreeMap::new();
    for pair in sorted.windows(2) {
        // Whole milliseconds: Matroska and FLV cannot say more.
        *deltas.entry((pair[1] - pair[0] + 500_000) / 1_000_000).or_default() += 1;
    }
    let total: usize = deltas.values().sum();
    let (&common, _) = deltas.iter().max_by_key(|(_, n)| **n)?;
    if total < 4 || common == 0 {
        return None;
    }
    let near: Vec<f64> = sorted
        .windows(2)
        .map(|p| (p[1] - p[0]) as f64)
        .filter(|d| (d / 1e6 - common as f64).abs() <= common as f64 / 4.0 + 1.0)
        .collect();
    let mean = near.iter().sum::<f64>() / near.len().max(1) as f64;
    let rate = standard_rate(1e9 / mean).unwrap_or_else(|| gst::Fraction::new((1e12 / mean).round() as i32, 1000));
    Some((rate, near.len() * 10 < total * 9))
}

/// The broadcast or film rate that a measured rate stands for.
pub fn standard_rate(fps: f64) -> Option<gst::Fraction> {
    const RATES: [(i32, i32); 16] = [
        (24_000, 1001),
        (24, 1),
        (25, 1),
        (30_000, 1001),
        (30, 1),
        (48, 1),
        (50, 1),
        (60_000, 1001),
        (60, 1),
        (120, 1),
        (100, 1),
        (15, 1),
        (12, 1),
        (10, 1),
        (20, 1),
        (240, 1),
    ];
    RATES
        .iter()
        .map(|&(n, d)| (((f64::from(n) / f64::from(d)) / fps - 1.0).abs(), n, d))
        .filter(|(off, _, _)| *off < 0.004)
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, n, d)| gst::Fraction::new(n, d))
}

/// All tags that came down a pad.
fn tags_of(pad: &gst::Pad) -> gst::TagList {
    let mut all = gst::TagList::new();
    pad.sticky_events_foreach(|event| {
        if let gst::EventView::Tag(tag) = event.view()
            && let Some(list) = all.get_mut()
        {
            list.insert(tag.tag(), gst::TagMergeMode::Append);
        }
        std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
    });
    all
}

/// The caps in front of the decoder that feeds a pad.
fn coded_caps(pad: &gst::Pad) -> Option<gst::Caps> {
    let mut pad = pad.clone();
    while let Some(ghost) = pad.downcast_ref::<gst::GhostPad>() {
        pad = ghost.target()?;
    }
    let mut element = pad.parent_element()?;
    for _ in 0..8 {
        let factory = element.factory()?;
        let sink = element.sink_pads().into_iter().next()?;
        if factory.has_type(gst::ElementFactoryType::DECODER) {
            return sink.current_caps();
        }
        let mut up = sink.peer()?;
        while let Some(ghost) = up.downcast_ref::<gst::GhostPad>() {
            up = ghost.target()?;
        }
        element = up.parent_element()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_snap_to_what_people_call_them() {
        assert_eq!(standard_rate(29.97), Some(gst::Fraction::new(30_000, 1001)));
        assert_eq!(standard_rate(23.98), Some(gst::Fraction::new(24_000, 1001)));
        assert_eq!(standard_rate(30.0), Some(gst::Fraction::new(30, 1)));
        assert_eq!(standard_rate(17.3), None);
        let even: Vec<u64> = (0..40).map(|i| i * 40_000_000).collect();
        assert_eq!(measured_rate(&even), Some((gst::Fraction::new(25, 1), false)));
    }

    #[test]
    fn only_what_lacks_a_decoder_is_called_so() {
        let input = Input { uri: conveyor_base::Uri::new("in", "a.mov"), path: "a.mov".into(), size: 1 };
        let odd = ["video/x-odd".to_owned()];
        let said = |error: &str, unknown: &[String], decoded| {
            of_opening(TaskError::new(error, "why"), &input, unknown, decoded).error
        };
        assert_eq!(said("Media.Failed", &odd, 0), "Media.UnsupportedCodec");
        assert_eq!(said("Media.Failed", &odd, 1), "Media.Failed", "another stream of it was opened");
        assert_eq!(said("Media.Failed", &[], 0), "Media.Failed");
        for error in ["Media.Corrupt", "Media.Encrypted", "Media.DiskFull", "Media.TooLarge", "Media.Vanished"] {
            assert_eq!(said(error, &odd, 0), error);
        }
    }
}
