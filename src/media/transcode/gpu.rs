//! The parts of the graph that run on a GPU. The output contract is that of the cores.
//!
//! ```text
//! both engines, and nothing to be done to the pictures but scaling: they stay in the GPU's memory
//!   parse - nvdec - queue - tee -+- pictures - tee -+- cudaconvertscale - nvenc - h264parse - tee
//!                                |                  +- ...
//!                                +- (due frames) - cudadownload - videoconvert - scale - jpegenc
//! decoder alone, or pictures that are to be turned, graded, deinterlaced or framed:
//!   parse - nvdec - cudadownload - queue - videoconvert - [as on cores] - scale - nvenc or x264
//! encoder alone: the source is decoded on cores, and the encoder takes pictures from there.
//! ```
//!
//! What the decoder of a GPU does not say: which of its pictures are broken. Damage shows in the survey before, in missing
//! pictures, and in the quality control of what came out.

use conveyor_base::TaskError;
use conveyor_settings::RateControl;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::encoder;
use super::geometry::Geometry;
use super::plan::{Encode, Plan};
use crate::engines::{self, Decoder, Engines, coded_h264};
use crate::pipeline::{Pipeline, make};

/// The memory that a GPU's pictures lie in, as caps name it.
pub const CUDA_MEMORY: &str = "memory:CUDAMemory";

/// What of a plan runs on the GPU.
#[derive(Clone, Debug, Default)]
pub struct Route {
    pub decoder: Option<Decoder>,
    pub encodes: bool,
    /// The scaler, where pictures stay in the GPU's memory from the decoder to the encoder.
    pub resident: Option<&'static str>,
}

impl Route {
    /// Decides for a whole plan: all encodes run in one place.
    pub fn of(plan: &Plan, engines: Option<&Engines>) -> Result<Route, TaskError> {
        let Some(engines) = engines else { return Ok(Route::default()) };
        let video = plan.video.as_ref().filter(|_| plan.wants_video());
        let decoder = video.and_then(|video| engines.decoder(video.coded.as_ref()?));
        let on_cores = plan.encodes.iter().any(|encode| encode.code.only_on_cores().is_some());
        let encodes = engines.h264.is_some() && !plan.encodes.is_empty() && !on_cores;
        if encodes {
            for encode in &plan.encodes {
                engines.encodes(encode.geometry.frame, encode.code.profile)?;
            }
        }
        let plain = video.is_some_and(|video| {
            let colour = encoder::output_colour(&video.info, plan.force_709);
            let as_it_is = plan.deinterlace.is_none() && plan.rotate == 0 && !plan.mirrored && video.grade.is_none();
            let eight_bit = video.info.format() == gstreamer_video::VideoFormat::I420;
            as_it_is && eight_bit && colour == video.info.colorimetry()
        });
        let scaled = plan.encodes.iter().all(|encode| fills(&encode.geometry));
        let resident = engines.scaler.filter(|_| decoder.is_some() && encodes && plain && scaled);
        Ok(Route { decoder, encodes, resident })
    }

    /// In words, for results and logs.
    pub fn describe(&self) -> String {
        let decoder = self.decoder.map_or("cores", |decoder| decoder.element);
        let encoder = if self.encodes { "NVENC" } else { "cores" };
        let between = if self.resident.is_some() { "in GPU memory" } else { "through main memory" };
        format!("decoded by {decoder}, encoded by {encoder}, {between}")
    }
}

/// The whole picture fills the whole frame: the one thing that the scaler on the GPU does.
fn fills(geometry: &Geometry) -> bool {
    let whole = (0, 0, geometry.source.0, geometry.source.1);
    geometry.crop == whole && geometry.content == geometry.frame
}

/// Parser and decoder; behind them the pictures lie in the GPU's memory.
pub fn decode(pipeline: &Pipeline, decoder: Decoder) -> Result<Vec<gst::Element>, TaskError> {
    Ok(vec![pipeline.add(decoder.parser)?, pipeline.add(decoder.element)?])
}

/// Scales within the GPU's memory.
pub fn scale(
    pipeline: &Pipeline,
    chain: &mut Vec<gst::Element>,
    scaler: &str,
    geometry: &Geometry,
) -> Result<(), TaskError> {
    if geometry.is_identity() {
        return Ok(());
    }
    let scale = pipeline.add(scaler)?;
    // The frame has the source's shape already, but for the rounding to even sizes.
    set(&scale, &["add-borders"], "false");
    let caps = gst::Caps::builder("video/x-raw")
        .features([CUDA_MEMORY])
        .field("width", geometry.frame.0 as i32)
        .field("height", geometry.frame.1 as i32)
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .build();
    let filter = pipeline.add("capsfilter")?;
    filter.set_property("caps", caps);
    chain.extend([scale, filter]);
    Ok(())
}

/// NVENC for one rendition, up to a stream of the form that x264 gives.
///
/// | settings | NVENC |
/// |---|---|
/// | QVBR level, MaxBitrate | variable rate, constant quality 37 − 2 × level, at most MaxBitrate |
/// | VBR | variable rate at Bitrate, at most MaxBitrate |
/// | CBR | constant rate at Bitrate |
/// | HrdBufferSize, absent | rate buffer, where the device has one to set; two seconds of the maximum |
/// | SINGLE_PASS, SINGLE_PASS_HQ, MULTI_PASS_HQ | preset default; hq; hq and the slower rate control |
/// | NumberBFramesBetweenReferenceFrames, absent | B-frames as the device has them; 2 |
///
/// GOPs are closed and of one length: no keyframe is put in at scene cuts. CodecLevel and NumberReferenceFrames cannot
/// be set through these elements, and such jobs are encoded on cores.
pub fn encode(
    pipeline: &Pipeline,
    engines: &Engines,
    encode: &Encode,
    resident: bool,
) -> Result<Vec<gst::Element>, TaskError> {
    let code = &encode.code;
    let name = engines.encodes(encode.geometry.frame, code.profile)?;
    let element = make(name)?;
    let mut chain = Vec::new();
    if !resident && !engines::takes_planar(name) {
        // Cores give three planes; encoders that take two only get them from here.
        chain.push(pipeline.add("videoconvert")?);
    }
    let kbits = |bits: u64| (bits / 1000).clamp(1, 2_048_000);
    let slow = code.preset == "slow";
    let (bits, bits_max, quality, mode) = match code.control {
        RateControl::Qvbr { level_tenths, bits_max } => {
            (bits_max, bits_max, Some(RateControl::crf(level_tenths)), if slow { "vbr-hq" } else { "vbr" })
        }
        RateControl::Vbr { bits, bits_max } => (bits, bits_max, None, if slow { "vbr-hq" } else { "vbr" }),
        RateControl::Cbr { bits } => (bits, bits, None, if slow { "cbr-hq" } else { "cbr" }),
    };
    let plain = mode.trim_end_matches("-hq");
    set(&element, &["rc-mode", "rate-control"], plain);
    // Of the slower modes a device keeps only those that it has.
    if mode != plain && !try_mode(&element, mode) {
        set(&element, &["rc-mode", "rate-control"], plain);
    }
    set(&element, &["bitrate"], &kbits(bits).to_string());
    set(&element, &["max-bitrate"], &kbits(bits_max).to_string());
    if let Some(quality) = quality {
        set(&element, &["const-quality"], &quality.to_string());
    }
    let buffer = code.buffer_bits.unwrap_or(bits_max * 2);
    set(&element, &["vbv-buffer-size"], &kbits(buffer).to_string());
    set(&element, &["preset"], if code.preset == "veryfast" { "default" } else { "hq" });
    set(&element, &["gop-size"], &encode.gop_frames.to_string());
    set(&element, &["i-adapt"], "false");
    set(&element, &["spatial-aq"], "true");
    // The property is there only where the device makes B-frames, and its range ends at as many as it makes.
    let bframes = if code.profile == "baseline" { 0 } else { code.bframes.unwrap_or(2) };
    set_at_most(&element, &["bframes", "b-frames"], u32::from(bframes));
    pipeline.gst.add(&element).map_err(|e| crate::pipeline::bug(&format!("the encoder cannot be added: {e}")))?;
    let (profile, parse, form) = (pipeline.add("capsfilter")?, pipeline.add("h264parse")?, pipeline.add("capsfilter")?);
    profile.set_property("caps", coded_h264(code.profile));
    let caps = gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au").build();
    form.set_property("caps", caps);
    chain.extend([element, profile, parse, form]);
    Ok(chain)
}

/// Sets the first of these properties that the element has: releases and devices differ.
fn set(element: &gst::Element, names: &[&str], value: &str) {
    if let Some(name) = names.iter().find(|name| element.find_property(name).is_some()) {
        element.set_property_from_str(name, value);
    }
}

fn try_mode(element: &gst::Element, mode: &str) -> bool {
    set(element, &["rc-mode", "rate-control"], mode);
    let name = ["rc-mode", "rate-control"].into_iter().find(|name| element.find_property(name).is_some());
    let kept = name.and_then(|name| element.property_value(name).serialize().ok());
    kept.is_some_and(|kept| kept == mode)
}

fn set_at_most(element: &gst::Element, names: &[&str], value: u32) {
    let found = names.iter().find_map(|name| Some((name, element.find_property(name)?)));
    if let Some((name, spec)) = found {
        let most = spec.downcast_ref::<gst::glib::ParamSpecUInt>().map_or(value, |spec| spec.maximum());
        element.set_property_from_str(name, &value.min(most).to_string());
    }
}
