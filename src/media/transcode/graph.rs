//! The one pipeline of a transcode: decode once, prepare once, encode each rendition once, mux it where it is wanted.
//!
//! ```text
//! filesrc - decodebin -+- video - [tone map | convert] - [deinterlace] - [flip] - tee -+- pictures - tee -+- scale - x264 - tee -+- mp4mux
//!                      |                                                    |                  +- ...               +- splitmuxsink
//!                      |                                                    +- (due frames) - scale - jpegenc - appsink
//!                      +- audio - convert - sound - resample - convert - aac - tee -+- mp4mux
//!                                                                                   +- splitmuxsink
//! ```
//!
//! Invariants: raw queues are bounded by buffers, queues in front of muxers are not bounded; parsers stand behind
//! the tees, because MP4 and MPEG-TS want the same stream in different forms; no sink has `async=false`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_settings::{Capture, Container, Deinterlace};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use super::gpu::{self, Route};
use super::plan::{AudioEncode, CaptureNames, Encode, Form, Make, Plan};
use super::tally::{DecodeTally, EncodeTally};
use super::{encoder, priming, scale};
use crate::bounds;
use crate::engines::Engines;
use crate::input::Input;
use crate::pipeline::{Pipeline, bug, link, make};
use crate::probe::inspect::limit_decoders;
use crate::time;
use crate::time::ends::Ends;
use crate::time::picture_element::PictureTime;
use crate::time::pictures::Due;
use crate::time::sound_element::SoundTime;

/// Raw pictures that may wait between two threads: enough to keep both busy, few enough for memory (3 MB each at 1080p).
const RAW_BUFFERS_MAX: u32 = 6;

/// A pipeline that is ready to play, and what it will tell.
pub struct Graph {
    pub pipeline: Pipeline,
    pub decoded: Arc<Mutex<DecodeTally>>,
    pub encoded: Vec<Arc<Mutex<EncodeTally>>>,
    /// Paths of the captures of each output, in order, by index into the plan's outputs.
    pub captures: BTreeMap<usize, Arc<Mutex<Vec<PathBuf>>>>,
    pub route: Route,
    /// What gives each rate, in the order of the plan's encodes.
    pub rated: Vec<PictureTime>,
    /// What places each sound, in the order of the plan's.
    pub placed: Vec<SoundTime>,
    ends: Ends,
}

/// What the graph may use of the box.
pub struct Means<'a> {
    pub threads: usize,
    pub engines: Option<&'a Engines>,
}

/// Builds the pipeline of a plan; everything is written below `work`.
pub fn build(plan: &Plan, input: &Input, work: &Path, means: &Means) -> Result<Graph, TaskError> {
    let mut graph = Graph {
        pipeline: Pipeline::new()?,
        decoded: Arc::default(),
        encoded: Vec::new(),
        captures: BTreeMap::new(),
        route: Route::of(plan, means.engines)?,
        rated: Vec::new(),
        placed: Vec::new(),
        ends: Ends::default(),
    };
    let source = graph.pipeline.add("filesrc")?;
    source.set_property("location", &input.path);
    let decode = graph.pipeline.add("decodebin")?;
    link(&[&source, &decode])?;
    limit_decoders(&decode, means.threads);
    bounds::watch(&decode);
    time::one_zero(&decode);
    if let Some(decoder) = graph.route.decoder {
        leave_coded(&decode, decoder.coded);
    }

    let mut entries: Vec<(String, gst::Pad)> = Vec::new();
    let mut video_tees = Vec::new();
    if let Some(video) = plan.video.as_ref().filter(|_| plan.wants_video()) {
        let (entry, tee) = prepare_video(&graph, plan)?;
        entries.push((video.stream_id.clone(), entry));
        video_tees = encode_all(&mut graph, plan, &tee, means)?;
        for (index, make) in plan.makes.iter().enumerate() {
            if let Form::Captures { names, geometry, capture } = &make.form {
                let folder = make_folder(work, index)?;
                let sink = capture_branch(&graph, &tee, *geometry, *capture, (folder, names.clone()))?;
                graph.captures.insert(index, sink);
            }
        }
    }
    let mut audio_tees = Vec::new();
    for audio in &plan.audio {
        let (entry, tee) = encode_audio(&mut graph, plan, audio)?;
        entries.push((audio.stream_id.clone(), entry));
        audio_tees.push(tee);
    }
    for (index, make) in plan.makes.iter().enumerate() {
        let folder = make_folder(work, index)?;
        mux(&graph, plan, make, &folder, &video_tees, &audio_tees)?;
    }
    connect(&graph, &decode, entries);
    Ok(graph)
}

/// The folder in which one output is written.
pub fn output_folder(work: &Path, index: usize) -> PathBuf {
    work.join(format!("output-{index}"))
}

fn make_folder(work: &Path, index: usize) -> Result<PathBuf, TaskError> {
    let folder = output_folder(work, index);
    std::fs::create_dir_all(&folder)
        .map_err(|e| TaskError::new("Media.WorkDir", format!("cannot make {}: {e}", folder.display())))?;
    Ok(folder)
}

/// Has decodebin hand out these streams as they are coded.
fn leave_coded(decode: &gst::Element, coded: &'static str) {
    decode.connect("autoplug-continue", false, move |args| {
        let caps = args.get(2).and_then(|caps| caps.get::<gst::Caps>().ok());
        let is_it = caps.is_some_and(|caps| caps.structure(0).is_some_and(|s| s.name() == coded));
        Some((!is_it).to_value())
    });
}

/// Links the decoder's streams to the branches that want them; the others stay unlinked and cost nothing.
fn connect(graph: &Graph, decode: &gst::Element, entries: Vec<(String, gst::Pad)>) {
    let (pulse, tally) = (graph.pipeline.pulse.clone(), graph.decoded.clone());
    let entries = Arc::new(Mutex::new(entries));
    let waiting = entries.clone();
    let links = graph.pipeline.gst.downgrade();
    decode.connect_pad_added(move |_, pad| {
        let id = pad.stream_id().map(|s| s.to_string()).unwrap_or_default();
        let mut waiting = waiting.lock();
        let wanted: Vec<gst::Pad> = waiting.extract_if(.., |(wanted, _)| *wanted == id).map(|(_, p)| p).collect();
        let Some(first) = wanted.first() else { return };
        pulse.watch(pad);
        let caps = pad.current_caps();
        if caps.is_some_and(|c| c.structure(0).is_some_and(|s| s.name() == "video/x-raw")) {
            DecodeTally::watch(&tally, pad);
        }
        // Several encodings of one sound track: the stream is shared by a tee of its own.
        let target =
            if wanted.len() == 1 { Some(first.clone()) } else { links.upgrade().and_then(|p| share(&p, &wanted)) };
        let linked = target.is_some_and(|t| pad.link(&t).is_ok());
        if !linked && let Some(pipeline) = links.upgrade() {
            gst::element_error!(pipeline, gst::CoreError::Negotiation, ("the stream {id} could not be taken up"));
        }
    });
    let pipeline = graph.pipeline.gst.downgrade();
    decode.connect_no_more_pads(move |_| {
        let missing = entries.lock().len();
        if missing > 0
            && let Some(pipeline) = pipeline.upgrade()
        {
            gst::element_error!(
                pipeline,
                gst::StreamError::Decode,
                ("{missing} stream(s) that were there when the file was probed cannot be decoded any more")
            );
        }
    });
}

fn share(pipeline: &gst::Pipeline, targets: &[gst::Pad]) -> Option<gst::Pad> {
    let tee = gst::ElementFactory::make("tee").build().ok()?;
    pipeline.add(&tee).ok()?;
    for target in targets {
        tee.request_pad_simple("src_%u")?.link(target).ok()?;
    }
    tee.sync_state_with_parent().ok()?;
    tee.static_pad("sink")
}

fn raw_queue(graph: &Graph) -> Result<gst::Element, TaskError> {
    let queue = graph.pipeline.add("queue")?;
    queue.set_property("max-size-buffers", RAW_BUFFERS_MAX);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    Ok(queue)
}

fn open_queue(graph: &Graph) -> Result<gst::Element, TaskError> {
    let queue = raw_queue(graph)?;
    queue.set_property("max-size-buffers", 0u32);
    Ok(queue)
}

fn caps_filter(graph: &Graph, caps: &gst::Caps) -> Result<gst::Element, TaskError> {
    let filter = graph.pipeline.add("capsfilter")?;
    filter.set_property("caps", caps);
    Ok(filter)
}

fn sink_pad(element: &gst::Element) -> Result<gst::Pad, TaskError> {
    element.static_pad("sink").ok_or_else(|| bug("an element without a sink pad"))
}

/// From the decoder to the tee: 8-bit planar, progressive, upright.
fn prepare_video(graph: &Graph, plan: &Plan) -> Result<(gst::Pad, gst::Element), TaskError> {
    let video = plan.video.as_ref().ok_or_else(|| bug("no video to prepare"))?;
    let mut chain = Vec::new();
    if let Some(decoder) = graph.route.decoder {
        chain.extend(gpu::decode(&graph.pipeline, decoder)?);
        let decoded = chain.last().and_then(|decoder| decoder.static_pad("src"));
        let decoded = decoded.ok_or_else(|| bug("a decoder without a source pad"))?;
        graph.pipeline.pulse.watch(&decoded);
        DecodeTally::watch(&graph.decoded, &decoded);
    }
    if graph.route.resident.is_some() {
        let tee = graph.pipeline.add("tee")?;
        chain.extend([raw_queue(graph)?, tee.clone()]);
        link(&chain.iter().collect::<Vec<_>>())?;
        return Ok((sink_pad(&chain[0])?, tee));
    }
    // A GPU's decoder gives two planes where the cores' decoders give three.
    let two_planes = graph.route.decoder.is_some();
    if two_planes {
        chain.push(graph.pipeline.add("cudadownload")?);
    }
    chain.push(raw_queue(graph)?);
    let colour = encoder::output_colour(&video.info, plan.force_709);
    if video.grade.is_some() {
        // The converter brings other depths and layouts to the one that the tone mapper takes; mostly it has nothing to do.
        chain.extend([graph.pipeline.add("videoconvert")?, graph.pipeline.add("conveyortonemap")?]);
    } else if two_planes || video.info.format() != gst_video::VideoFormat::I420 || colour != video.info.colorimetry() {
        let convert = graph.pipeline.add("videoconvert")?;
        convert.set_property_from_str(
            "primaries-mode",
            if colour.primaries() == video.info.colorimetry().primaries() { "none" } else { "fast" },
        );
        let caps =
            gst::Caps::builder("video/x-raw").field("format", "I420").field("colorimetry", colour.to_string()).build();
        chain.extend([convert, caps_filter(graph, &caps)?]);
    }
    if let Some(how) = plan.deinterlace {
        let deinterlace = graph.pipeline.add("deinterlace")?;
        deinterlace.set_property_from_str("method", if how == Deinterlace::Adaptive { "yadif" } else { "linear" });
        deinterlace.set_property_from_str("fields", if video.top_field_first { "top" } else { "bottom" });
        time::fields::undelay(&deinterlace);
        chain.push(deinterlace);
    }
    if plan.rotate != 0 || plan.mirrored {
        let flip = graph.pipeline.add("videoflip")?;
        let direction = match (plan.mirrored, plan.rotate) {
            (false, 90) => "90r",
            (false, 180) => "180",
            (false, 270) => "90l",
            (true, 90) => "ur-ll",
            (true, 180) => "vert",
            (true, 270) => "ul-lr",
            (true, _) => "horiz",
            (false, _) => "identity",
        };
        flip.set_property_from_str("video-direction", direction);
        chain.push(flip);
    }
    let tee = graph.pipeline.add("tee")?;
    chain.push(tee.clone());
    link(&chain.iter().collect::<Vec<_>>())?;
    Ok((sink_pad(&chain[0])?, tee))
}

/// A constant rate for each rate, a scaler for each size, an encoder for each coding; the tees behind the encoders.
fn encode_all(
    graph: &mut Graph,
    plan: &Plan,
    tee: &gst::Element,
    means: &Means,
) -> Result<Vec<gst::Element>, TaskError> {
    let mut rates: Vec<(gst::Fraction, PictureTime, gst::Element)> = Vec::new();
    let mut tees = Vec::new();
    for encode in &plan.encodes {
        let (rated, from) = match rates.iter().find(|(rate, ..)| *rate == encode.rate) {
            Some((_, rated, tee)) => (rated.clone(), tee.clone()),
            None => {
                let (rated, out) = constant_rate(graph, tee, plan, encode.rate)?;
                rates.push((encode.rate, rated.clone(), out.clone()));
                (rated, out)
            }
        };
        let (out, tally) = encode_one(graph, encode, &from, means)?;
        graph.encoded.push(tally);
        graph.rated.push(rated);
        tees.push(out);
    }
    Ok(tees)
}

fn constant_rate(
    graph: &Graph,
    from: &gst::Element,
    plan: &Plan,
    rate: gst::Fraction,
) -> Result<(PictureTime, gst::Element), TaskError> {
    let until_ns = plan.video.as_ref().and_then(|video| video.until_ns);
    let rated = PictureTime::new(rate, plan.has_rate(rate), until_ns, graph.ends.clone());
    let rated = rated.ok_or_else(|| bug(&format!("{rate} is no rate")))?;
    let element: gst::Element = rated.clone().upcast();
    graph.pipeline.gst.add(&element).map_err(|e| bug(&format!("the element of time cannot be added: {e}")))?;
    let tee = graph.pipeline.add("tee")?;
    link(&[from, &element, &tee])?;
    Ok((rated, tee))
}

fn encode_one(
    graph: &Graph,
    encode: &Encode,
    from: &gst::Element,
    means: &Means,
) -> Result<(gst::Element, Arc<Mutex<EncodeTally>>), TaskError> {
    let mut chain = vec![from.clone(), raw_queue(graph)?];
    match graph.route.resident {
        Some(scaler) => gpu::scale(&graph.pipeline, &mut chain, scaler, &encode.geometry)?,
        None => scale_into(graph, &mut chain, encode.geometry)?,
    }
    match means.engines.filter(|_| graph.route.encodes) {
        Some(engines) => chain.extend(gpu::encode(&graph.pipeline, engines, encode, graph.route.resident.is_some())?),
        None => {
            let x264 = encoder::x264(encode, means.threads)?;
            graph.pipeline.gst.add(&x264).map_err(|e| bug(&format!("x264enc cannot be added: {e}")))?;
            let caps = gst::Caps::builder("video/x-h264")
                .field("stream-format", "avc")
                .field("alignment", "au")
                .field("profile", encode.code.profile)
                .build();
            chain.extend([x264, caps_filter(graph, &caps)?]);
        }
    }
    let tee = graph.pipeline.add("tee")?;
    let tally = EncodeTally::watch(&sink_pad(&tee)?, &graph.pipeline.pulse);
    chain.push(tee.clone());
    link(&chain.iter().collect::<Vec<_>>())?;
    Ok((tee, tally))
}

fn scale_into(
    graph: &Graph,
    chain: &mut Vec<gst::Element>,
    geometry: super::geometry::Geometry,
) -> Result<(), TaskError> {
    if geometry.is_identity() {
        return Ok(());
    }
    let scaler: gst::Element = scale::Scaler::new(geometry).upcast();
    graph.pipeline.gst.add(&scaler).map_err(|e| bug(&format!("the scaler cannot be added: {e}")))?;
    chain.push(scaler);
    Ok(())
}

/// Sound is placed before it is resampled: the resampler takes gaps of less than an eighth of a second for rounding.
fn encode_audio(graph: &mut Graph, plan: &Plan, audio: &AudioEncode) -> Result<(gst::Pad, gst::Element), TaskError> {
    let add = |name: &str| graph.pipeline.add(name);
    let (queue, convert, resample, layout) =
        (add("queue")?, add("audioconvert")?, add("audioresample")?, add("audioconvert")?);
    let (aac, tee) = (add("avenc_aac")?, add("tee")?);
    let placed = SoundTime::new(plan.pictures_from_ns(), priming::ns(audio.code.rate), graph.ends.clone());
    let place: gst::Element = placed.clone().upcast();
    graph.pipeline.gst.add(&place).map_err(|e| bug(&format!("the element of time cannot be added: {e}")))?;
    let mut caps = gst::Caps::builder("audio/x-raw")
        .field("rate", audio.code.rate as i32)
        .field("channels", i32::from(audio.code.channels));
    match audio.code.channels {
        2 => caps = caps.field("channel-mask", gst::Bitmask::new(0x3)),
        6 => caps = caps.field("channel-mask", gst::Bitmask::new(0x3f)),
        _ => {}
    }
    aac.set_property("bitrate", audio.code.bitrate as i32);
    let filter = caps_filter(graph, &caps.build())?;
    link(&[&queue, &convert, &place, &resample, &layout, &filter, &aac, &tee])?;
    graph.pipeline.pulse.watch(&sink_pad(&tee)?);
    graph.placed.push(placed);
    Ok((sink_pad(&queue)?, tee))
}

/// Lets the frames through that are due, scales them and writes each as a JPEG.
fn capture_branch(
    graph: &Graph,
    tee: &gst::Element,
    geometry: super::geometry::Geometry,
    capture: Capture,
    (folder, names): (PathBuf, CaptureNames),
) -> Result<Arc<Mutex<Vec<PathBuf>>>, TaskError> {
    let queue = raw_queue(graph)?;
    drop_undue(&sink_pad(&queue)?, capture);
    let mut chain = vec![tee.clone(), queue];
    if graph.route.resident.is_some() {
        let planar = gst::Caps::builder("video/x-raw").field("format", "I420").build();
        let (download, convert) = (graph.pipeline.add("cudadownload")?, graph.pipeline.add("videoconvert")?);
        chain.extend([download, convert, caps_filter(graph, &planar)?]);
    }
    scale_into(graph, &mut chain, geometry)?;
    let jpeg = graph.pipeline.add("jpegenc")?;
    jpeg.set_property("quality", i32::from(capture.quality));
    let sink = gst_app::AppSink::builder().sync(false).max_buffers(16).build();
    let written: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let list = written.clone();
    sink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let map = sample.buffer().and_then(|b| b.map_readable().ok()).ok_or(gst::FlowError::Error)?;
                let mut list = list.lock();
                let path = folder.join(names.name(list.len() as u64));
                std::fs::write(&path, map.as_slice()).map_err(|e| {
                    gst::element_error!(
                        sink,
                        gst::ResourceError::NoSpaceLeft,
                        ("{} cannot be written: {e}", path.display())
                    );
                    gst::FlowError::Error
                })?;
                list.push(path);
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    let sink: gst::Element = sink.upcast();
    graph.pipeline.gst.add(&sink).map_err(|e| bug(&format!("the capture sink cannot be added: {e}")))?;
    chain.extend([jpeg, sink]);
    link(&chain.iter().collect::<Vec<_>>())?;
    Ok(written)
}

/// Lets through what [`Due`] takes.
fn drop_undue(pad: &gst::Pad, capture: Capture) {
    let due = Mutex::new(Due::new((capture.seconds_n, capture.seconds_d), capture.captures_max));
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let at = info.buffer().and_then(|buffer| time::running_ns(pad, buffer));
        if due.lock().take(at.unwrap_or(0)) { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled }
    });
}

fn mux(
    graph: &Graph,
    plan: &Plan,
    output: &Make,
    folder: &Path,
    video: &[gst::Element],
    audio: &[gst::Element],
) -> Result<(), TaskError> {
    let pictures = output.encode.map(|i| (&video[i], &plan.encodes[i]));
    let sound = output.audio.map(|i| &audio[i]);
    let (sink, video_pad, audio_pad) = match &output.form {
        Form::Captures { .. } => return Ok(()),
        Form::File { name, container } => {
            let mux = graph.pipeline.add(if *container == Container::Mov { "qtmux" } else { "mp4mux" })?;
            mux.set_property("faststart", true);
            mux.set_property("faststart-file", folder.join("payload.tmp").to_string_lossy().into_owned());
            let file = graph.pipeline.add("filesink")?;
            file.set_property("location", folder.join(name));
            link(&[&mux, &file])?;
            (mux, "video_%u", "audio_%u")
        }
        Form::Hls { stem, gops_per_segment } => {
            let split = graph.pipeline.add("splitmuxsink")?;
            split.set_property("muxer", make("mpegtsmux")?);
            split.set_property("location", segment_pattern(folder, stem));
            split.set_property("start-index", 1i32);
            let (gop_ns, frame_ns) =
                pictures.map_or((2e9, 4e7), |(_, e)| (f64::from(e.gop_frames) / e.fps() * 1e9, 1e9 / e.fps()));
            // A GOP joins a segment while the whole stays below this; half a frame of slack is for rounding.
            split.set_property("max-size-time", (gop_ns * f64::from(*gops_per_segment) + frame_ns / 2.0) as u64);
            (split, "video", "audio_%u")
        }
    };
    if let Some((tee, _)) = pictures {
        let (queue, parse) = (open_queue(graph)?, graph.pipeline.add("h264parse")?);
        if matches!(output.form, Form::Hls { .. }) {
            parse.set_property("config-interval", -1i32);
            // MPEG-TS cannot say that sound begins with what the encoder put before it: pictures come later by as much.
            if let (Some(audio), Some(pad)) = (output.audio, parse.static_pad("src")) {
                pad.set_offset(i64::try_from(priming::ns(plan.audio[audio].code.rate)).unwrap_or(0));
            }
        }
        link(&[tee, &queue, &parse])?;
        link_request(&parse, &sink, video_pad)?;
    }
    if let Some(tee) = sound {
        let (queue, parse) = (open_queue(graph)?, graph.pipeline.add("aacparse")?);
        link(&[tee, &queue, &parse])?;
        link_request(&parse, &sink, audio_pad)?;
    }
    Ok(())
}

fn link_request(from: &gst::Element, to: &gst::Element, template: &str) -> Result<(), TaskError> {
    from.link_pads(Some("src"), to, Some(template))
        .map_err(|_| bug(&format!("{} does not link to {}", from.name(), to.name())))
}

fn segment_pattern(folder: &Path, stem: &str) -> String {
    // The element formats this with printf.
    folder.join(format!("{}_%05d.ts", stem.replace('%', "%%"))).to_string_lossy().into_owned()
}
