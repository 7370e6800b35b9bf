//! Decoded pictures, sound and text of one file, for whoever wants to measure them.
//!
//! Pictures are pulled by the caller, one at a time; sound and text are handed to callbacks on the decoder's own
//! threads, so that no stream can hold another up. Invariants: the graph is built from the streams that exist; every
//! wait ends in a frame, the end, an error with a name, or a stall; at most a handful of raw pictures are held.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use conveyor_base::TaskError;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_audio as gst_audio;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use crate::bounds;
use crate::container;
use crate::hdr;
use crate::input::Input;
use crate::pipeline::{Pipeline, STALL_SECONDS_MAX, bug, error_of, link, make};
use crate::probe::inspect::limit_decoders;
use crate::time;

/// How much of a chain of segments is handed on at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// What is decoded.
pub enum Source {
    File(Input),
    /// Files that are one stream when laid end to end: HLS segments, after their initialisation section. Errors name the
    /// playlist.
    Chain(Input, Vec<PathBuf>),
}

impl Source {
    fn input(&self) -> &Input {
        match self {
            Source::File(input) | Source::Chain(input, _) => input,
        }
    }
}

/// Decoded sound: interleaved samples.
pub struct Sound<'a> {
    /// Running time of the first sample, in seconds.
    pub at: f64,
    pub rate: u32,
    pub channels: u32,
    pub samples: &'a [f32],
}

/// A piece of timed text, markup removed.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedText {
    pub track: usize,
    pub start: f64,
    pub end: Option<f64>,
    pub text: String,
}

type OnSound = Box<dyn FnMut(&Sound<'_>) + Send>;
type OnText = Box<dyn FnMut(TimedText) + Send>;
/// Stream, running time in seconds, form, and the bytes of one picture's closed captions.
type OnCaptions = Box<dyn FnMut(usize, Option<f64>, gst_video::VideoCaptionType, &[u8]) + Send>;

/// What the caller wants of a file.
#[derive(Default)]
pub struct Want {
    pub video: Option<Picture>,
    /// Rate that the sound is wanted at (its own where 0), and mixed down to one channel or not.
    pub audio: Option<(u32, bool, OnSound)>,
    pub text: Option<OnText>,
    /// Closed captions, in the order of decoding.
    pub captions: Option<OnCaptions>,
    /// Cores that decoders may use; all where 0.
    pub threads: usize,
}

/// How pictures are wanted: 8-bit I420, standard range.
#[derive(Clone, Default)]
pub struct Picture {
    /// Pictures scaled into this width (height follows the aspect), else as they are.
    pub width_max: Option<u32>,
    /// Deinterlaced and turned upright, as a player shows them.
    pub upright: bool,
    /// Convert to this colorimetry, so that two files may be compared.
    pub colorimetry: Option<String>,
}

/// One decoded picture.
pub struct Frame {
    /// Running time in seconds.
    pub at: f64,
    /// How long it lasts by its own word, in seconds.
    pub lasts: Option<f64>,
    pub picture: gst_video::VideoFrame<gst_video::video_frame::Readable>,
}

/// What the decoder has seen apart from the streams themselves.
#[derive(Default)]
struct Seen {
    audio_pads: AtomicUsize,
    video_pads: AtomicUsize,
    text_pads: AtomicUsize,
    /// Wanted streams, other than pictures, that have not come to their end.
    running: AtomicUsize,
    corrupted: AtomicU64,
    caption_pads: AtomicUsize,
    first_audio: Mutex<Option<f64>>,
    failed: Mutex<Option<TaskError>>,
    video_ended: AtomicBool,
    tone_mapped: AtomicBool,
}

/// A running decoder.
pub struct Decoder {
    input: Input,
    pipeline: Pipeline,
    video: Arc<Mutex<Option<gst_app::AppSink>>>,
    seen: Arc<Seen>,
    /// Warnings of the elements: damage that was skipped over.
    warnings: Vec<String>,
    first_video: Option<f64>,
}

impl Decoder {
    /// Builds the graph, brings it to its first pictures and starts it.
    pub fn open(source: Source, want: Want) -> Result<Decoder, TaskError> {
        if let Source::File(input) = &source {
            container::refuse_other(input, &input.read_at(0, container::HEAD_BYTES)?)?;
        }
        let pipeline = Pipeline::new()?;
        let head = head_of(&source, &pipeline)?;
        let decode = pipeline.add("decodebin")?;
        link(&[&head, &decode])?;
        let (seen, video) = (Arc::new(Seen::default()), Arc::new(Mutex::new(None)));
        stop_at_unwanted(&decode, &want);
        bounds::watch(&decode);
        time::one_zero(&decode);
        if want.threads > 0 {
            limit_decoders(&decode, want.threads);
        }
        attach_branches(&decode, &pipeline, want, &seen, &video);
        let input = source.input().clone();
        let mut decoder = Decoder { input, pipeline, video, seen, warnings: Vec::new(), first_video: None };
        decoder.pipeline.set(gst::State::Paused, &decoder.input)?;
        decoder.pipeline.wait(&decoder.input, true, None, |_| Ok(()))?;
        if let Some(error) = decoder.seen.failed.lock().take() {
            return Err(error);
        }
        let first = decoder.video.lock().as_ref().and_then(|sink| sink.try_pull_preroll(gst::ClockTime::ZERO));
        decoder.first_video = first.as_ref().and_then(running_time);
        decoder.pipeline.set(gst::State::Playing, &decoder.input)?;
        Ok(decoder)
    }

    pub fn has_video(&self) -> bool {
        self.video.lock().is_some()
    }

    pub fn has_audio(&self) -> bool {
        self.seen.audio_pads.load(Relaxed) > 0
    }

    pub fn text_tracks(&self) -> usize {
        self.seen.text_pads.load(Relaxed)
    }

    /// The pictures were high dynamic range, and are handed out as BT.709.
    pub fn tone_mapped(&self) -> bool {
        self.seen.tone_mapped.load(Relaxed)
    }

    /// When the first picture or sound comes: what the file's own time line is counted from.
    pub fn base(&self) -> f64 {
        let audio = *self.seen.first_audio.lock();
        match (self.first_video, audio) {
            (Some(v), Some(a)) => v.min(a),
            (v, a) => v.or(a).unwrap_or(0.0),
        }
    }

    /// How many pictures were marked damaged by their decoder, and what its elements warned of.
    pub fn damage(&self) -> (u64, &[String]) {
        (self.seen.corrupted.load(Relaxed), &self.warnings)
    }

    /// The next picture, or none at the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, TaskError> {
        let Some(sink) = self.video.lock().clone() else { return Ok(None) };
        let start = Instant::now();
        let mut beat = (self.pipeline.pulse.count(), start);
        loop {
            if let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) {
                return self.frame_of(&sample).map(Some);
            }
            self.look_at_bus()?;
            if sink.is_eos() {
                self.seen.video_ended.store(true, Relaxed);
                return Ok(None);
            }
            self.check_stall(&mut beat)?;
        }
    }

    /// Lets sound and text run to their end; pictures that were not pulled must have been before.
    pub fn finish(&mut self) -> Result<(), TaskError> {
        let mut beat = (self.pipeline.pulse.count(), Instant::now());
        while self.seen.running.load(Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(5));
            self.look_at_bus()?;
            self.check_stall(&mut beat)?;
        }
        self.look_at_bus()
    }

    /// How long the container says the file is, in seconds.
    pub fn duration(&self) -> Option<f64> {
        Some(self.pipeline.gst.query_duration::<gst::ClockTime>()?.nseconds() as f64 / 1e9)
    }

    fn frame_of(&self, sample: &gst::Sample) -> Result<Frame, TaskError> {
        let at = running_time(sample).unwrap_or(0.0);
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps()) else {
            return Err(bug("a picture without content"));
        };
        let lasts = buffer.duration().map(|d| d.nseconds() as f64 / 1e9).filter(|seconds| *seconds > 0.0);
        let info =
            gst_video::VideoInfo::from_caps(caps).map_err(|e| bug(&format!("a picture of no known form: {e}")))?;
        let picture = gst_video::VideoFrame::from_buffer_readable(buffer, &info)
            .map_err(|_| bug("a picture that cannot be mapped"))?;
        Ok(Frame { at, lasts, picture })
    }

    fn look_at_bus(&mut self) -> Result<(), TaskError> {
        let bus = self.pipeline.gst.bus().ok_or_else(|| bug("a pipeline without a bus"))?;
        while let Some(message) = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Warning]) {
            match message.view() {
                gst::MessageView::Warning(w) => {
                    if self.warnings.len() < 20 {
                        self.warnings.push(w.error().to_string());
                    }
                }
                _ => return Err(error_of(&message, &self.input)),
            }
        }
        Ok(())
    }

    fn check_stall(&self, beat: &mut (u64, Instant)) -> Result<(), TaskError> {
        let count = self.pipeline.pulse.count();
        if count != beat.0 {
            *beat = (count, Instant::now());
        }
        if beat.1.elapsed().as_secs() < STALL_SECONDS_MAX {
            return Ok(());
        }
        Err(self.input.error(
            "Media.Stalled",
            format!(
                "made no progress for {STALL_SECONDS_MAX} s while it was decoded; its share may hang, or it is damaged"
            ),
        ))
    }
}

fn running_time(sample: &gst::Sample) -> Option<f64> {
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    Some(segment.to_running_time(sample.buffer()?.pts()?)?.nseconds() as f64 / 1e9)
}

fn head_of(source: &Source, pipeline: &Pipeline) -> Result<gst::Element, TaskError> {
    match source {
        Source::File(input) => {
            let head = pipeline.add("filesrc")?;
            head.set_property("location", input.path.to_string_lossy().as_ref());
            Ok(head)
        }
        Source::Chain(_, parts) => {
            let head = pipeline.add("appsrc")?;
            let appsrc = head.clone().downcast::<gst_app::AppSrc>().map_err(|_| bug("appsrc is no appsrc"))?;
            let mut chain = Chain { parts: parts.clone().into(), open: None };
            let need = move |src: &gst_app::AppSrc, _| match chain.next() {
                Ok(Some(bytes)) => {
                    let _ = src.push_buffer(gst::Buffer::from_slice(bytes));
                }
                Ok(None) => {
                    let _ = src.end_of_stream();
                }
                Err(e) => gst::element_error!(src, gst::ResourceError::Read, ("{e}")),
            };
            appsrc.set_callbacks(gst_app::AppSrcCallbacks::builder().need_data(need).build());
            Ok(head)
        }
    }
}

/// Files read one after the other.
struct Chain {
    parts: VecDeque<PathBuf>,
    open: Option<File>,
}

impl Chain {
    fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(file) = &mut self.open {
                let mut bytes = Vec::with_capacity(CHUNK_BYTES);
                file.take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
                if !bytes.is_empty() {
                    return Ok(Some(bytes));
                }
            }
            match self.parts.pop_front() {
                Some(path) => self.open = Some(File::open(path)?),
                None => return Ok(None),
            }
        }
    }
}

/// Streams that nobody wants are left undecoded, once they are parsed.
fn stop_at_unwanted(decode: &gst::Element, want: &Want) {
    let (video, audio, text) = (want.video.is_some(), want.audio.is_some(), want.text.is_some());
    let captions = want.captions.is_some();
    decode.connect("autoplug-continue", false, move |args| {
        let caps = args.get(2).and_then(|a| a.get::<gst::Caps>().ok());
        let structure = caps.as_ref().and_then(|c| c.structure(0));
        let name = structure.map(|s| s.name().as_str()).unwrap_or_default();
        let container = name.contains("quicktime") || name.contains("mpegts") || name.contains("matroska");
        let parsed = structure
            .is_some_and(|s| s.get::<bool>("parsed").unwrap_or(false) || s.get::<bool>("framed").unwrap_or(false));
        // MPEG-2 pictures have times of their own only once they are decoded; captions need them.
        let timeless = captions && name == "video/mpeg" && structure.is_some_and(|s| s.get("mpegversion") == Ok(2i32));
        let unwanted = (!video && name.starts_with("video/") && parsed && !timeless)
            || (!audio && name.starts_with("audio/") && parsed)
            || (!text && (name.starts_with("text/") || name.starts_with("subpicture/")));
        Some((container || !unwanted).to_value())
    });
}

fn attach_branches(
    decode: &gst::Element,
    pipeline: &Pipeline,
    mut want: Want,
    seen: &Arc<Seen>,
    video: &Arc<Mutex<Option<gst_app::AppSink>>>,
) {
    let (weak, pulse) = (pipeline.gst.downgrade(), pipeline.pulse.clone());
    let (seen, video) = (seen.clone(), video.clone());
    let text = want.text.take().map(|f| Arc::new(Mutex::new(f)));
    let captions = want.captions.take().map(|f| Arc::new(Mutex::new(f)));
    let want = Mutex::new(want);
    decode.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        pulse.watch(pad);
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let name = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
        if let Some(on_captions) =
            captions.as_ref().filter(|_| name.starts_with("video/") || name.starts_with("closedcaption/"))
        {
            captions_probe(pad, on_captions.clone(), &seen);
        }
        let mut want = want.lock();
        let done = if name == "video/x-raw" && seen.video_pads.fetch_add(1, Relaxed) == 0 && want.video.is_some() {
            let picture = want.video.take().unwrap_or_default();
            video_branch(&pipeline, pad, &picture, &seen).map(|sink| *video.lock() = Some(sink))
        } else if name == "audio/x-raw" && seen.audio_pads.fetch_add(1, Relaxed) == 0 && want.audio.is_some() {
            match want.audio.take() {
                Some((rate, mono, on_sound)) => audio_branch(&pipeline, pad, (rate, mono), on_sound, &seen),
                None => Ok(()),
            }
        } else {
            if name == "text/x-raw"
                && let Some(on_text) = &text
            {
                text_probe(pad, on_text.clone(), &seen);
            }
            dump_branch(&pipeline, pad)
        };
        if let Err(e) = done {
            seen.failed.lock().get_or_insert(e);
        }
    });
}

fn into_pipeline(pipeline: &gst::Pipeline, pad: &gst::Pad, chain: &[&gst::Element]) -> Result<(), TaskError> {
    for element in chain {
        pipeline.add(*element).map_err(|e| bug(&format!("an element cannot be added: {e}")))?;
    }
    link(chain)?;
    // Downstream first, so that nothing flows into an element that is not ready.
    for element in chain.iter().rev() {
        element.sync_state_with_parent().map_err(|e| bug(&format!("an element does not start: {e}")))?;
    }
    let into = chain.first().and_then(|e| e.static_pad("sink")).ok_or_else(|| bug("an element without a sink pad"))?;
    pad.link(&into).map_err(|e| bug(&format!("a stream cannot be linked: {e}")))?;
    Ok(())
}

fn video_branch(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    picture: &Picture,
    seen: &Arc<Seen>,
) -> Result<gst_app::AppSink, TaskError> {
    let counted = seen.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if info.buffer().is_some_and(|b| b.flags().contains(gst::BufferFlags::CORRUPTED)) {
            counted.corrupted.fetch_add(1, Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    let queue = make("queue")?;
    queue.set_property("max-size-buffers", 3u32);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    let (convert, sink) = (make("videoconvertscale")?, make("appsink")?);
    let graded = pad.current_caps().is_some_and(|caps| hdr::grade(&caps).is_some());
    seen.tone_mapped.store(graded, Relaxed);
    let (to_ten_bits, tone_map) = (make("videoconvert")?, make("conveyortonemap")?);
    let mut caps = gst::Caps::builder("video/x-raw").field("format", "I420");
    if let Some(width) = picture.width_max {
        caps = caps.field("width", width as i32).field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    }
    if let Some(colorimetry) = &picture.colorimetry {
        caps = caps.field("colorimetry", colorimetry);
    }
    let sink = sink.downcast::<gst_app::AppSink>().map_err(|_| bug("appsink is no appsink"))?;
    sink.set_caps(Some(&caps.build()));
    sink.set_max_buffers(2);
    sink.set_property("sync", false);
    let mut chain = vec![&queue];
    if graded {
        chain.extend([&to_ten_bits, &tone_map]);
    }
    let (deinterlace, flip) = (make("deinterlace")?, make("videoflip")?);
    flip.set_property_from_str("video-direction", "auto");
    if picture.upright {
        chain.extend([&deinterlace, &flip]);
    }
    chain.extend([&convert, sink.upcast_ref()]);
    into_pipeline(pipeline, pad, &chain)?;
    Ok(sink)
}

fn audio_branch(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    (rate, mono): (u32, bool),
    mut on_sound: OnSound,
    seen: &Arc<Seen>,
) -> Result<(), TaskError> {
    let (queue, convert, resample) = (make("queue")?, make("audioconvert")?, make("audioresample")?);
    let sink = make("appsink")?.downcast::<gst_app::AppSink>().map_err(|_| bug("appsink is no appsink"))?;
    let mut caps = gst::Caps::builder("audio/x-raw").field("format", "F32LE").field("layout", "interleaved");
    if rate > 0 {
        caps = caps.field("rate", rate as i32);
    }
    if mono {
        caps = caps.field("channels", 1i32);
    }
    sink.set_caps(Some(&caps.build()));
    sink.set_max_buffers(8);
    sink.set_property("sync", false);
    seen.running.fetch_add(1, Relaxed);
    let (first, ended) = (seen.clone(), seen.clone());
    let preroll = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_preroll().map_err(|_| gst::FlowError::Eos)?;
        first.first_audio.lock().get_or_insert(running_time(&sample).unwrap_or(0.0));
        Ok(gst::FlowSuccess::Ok)
    };
    let sample = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let (Some(at), Some(buffer), Some(caps)) = (running_time(&sample), sample.buffer(), sample.caps()) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let info = gst_audio::AudioInfo::from_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?;
        let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        let samples: Vec<f32> =
            map.as_slice().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        on_sound(&Sound { at, rate: info.rate(), channels: info.channels(), samples: &samples });
        Ok(gst::FlowSuccess::Ok)
    };
    let eos = move |_: &gst_app::AppSink| {
        ended.running.fetch_sub(1, Relaxed);
    };
    sink.set_callbacks(gst_app::AppSinkCallbacks::builder().new_preroll(preroll).new_sample(sample).eos(eos).build());
    into_pipeline(pipeline, pad, &[&queue, &convert, &resample, sink.upcast_ref()])
}

/// Takes text off its pad: a sink would wait for the first line of a sparse stream before anything may start.
fn text_probe(pad: &gst::Pad, on_text: Arc<Mutex<OnText>>, seen: &Arc<Seen>) {
    let track = seen.text_pads.fetch_add(1, Relaxed);
    seen.running.fetch_add(1, Relaxed);
    let (seen, ended) = (seen.clone(), AtomicBool::new(false));
    let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(what, move |pad, info| {
        if info.event().is_some_and(|e| e.type_() == gst::EventType::Eos) && !ended.swap(true, Relaxed) {
            seen.running.fetch_sub(1, Relaxed);
        }
        if let Some(buffer) = info.buffer()
            && let Some(start) = buffer.pts()
            && let Ok(map) = buffer.map_readable()
        {
            let text = String::from_utf8_lossy(map.as_slice()).trim_end_matches('\0').to_owned();
            let markup = pad.current_caps().is_some_and(|c| {
                c.structure(0).and_then(|s| s.get::<String>("format").ok()).as_deref() == Some("pango-markup")
            });
            let text = if markup { super::captions::without_markup(&text) } else { text };
            let seconds = |t: gst::ClockTime| t.nseconds() as f64 / 1e9;
            let end = buffer.duration().map(|d| seconds(start) + seconds(d));
            if !text.trim().is_empty() {
                on_text.lock()(TimedText { track, start: seconds(start), end, text: text.trim().to_owned() });
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Takes closed captions off the pictures that carry them, or off a track of their own.
fn captions_probe(pad: &gst::Pad, on_captions: Arc<Mutex<OnCaptions>>, seen: &Arc<Seen>) {
    let stream = seen.caption_pads.fetch_add(1, Relaxed);
    seen.running.fetch_add(1, Relaxed);
    let (seen, ended) = (seen.clone(), AtomicBool::new(false));
    let track = caption_track(pad);
    let what = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(what, move |pad, info| {
        if info.event().is_some_and(|e| e.type_() == gst::EventType::Eos) && !ended.swap(true, Relaxed) {
            seen.running.fetch_sub(1, Relaxed);
        }
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        let segment = pad.sticky_event::<gst::event::Segment>(0);
        let at = segment
            .and_then(|e| e.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts()?))
            .map(|t| t.nseconds() as f64 / 1e9);
        if let (Some(form), Ok(map)) = (track, buffer.map_readable()) {
            on_captions.lock()(stream, at, form, map.as_slice());
        }
        for meta in buffer.iter_meta::<gst_video::VideoCaptionMeta>() {
            on_captions.lock()(stream, at, meta.caption_type(), meta.data());
        }
        gst::PadProbeReturn::Ok
    });
}

/// What the buffers of a caption track hold; none for pictures.
fn caption_track(pad: &gst::Pad) -> Option<gst_video::VideoCaptionType> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    caps.structure(0).filter(|s| s.name().starts_with("closedcaption/"))?;
    Some(gst_video::VideoCaptionType::from_caps(&caps))
}

fn dump_branch(pipeline: &gst::Pipeline, pad: &gst::Pad) -> Result<(), TaskError> {
    let sink = make("fakesink")?;
    // Its end is not waited for, so it need not hold up the start of the others either.
    sink.set_property("async", false);
    sink.set_property("sync", false);
    into_pipeline(pipeline, pad, &[&sink])
}
