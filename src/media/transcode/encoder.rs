//! Job settings as properties of x264enc, and what colours leave the encoder.

use conveyor_base::TaskError;
use conveyor_settings::RateControl;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoTransferFunction,
};

use super::plan::Encode;
use crate::pipeline::make;

/// x264enc for one rendition.
///
/// | settings | x264 |
/// |---|---|
/// | QVBR level, MaxBitrate | CRF 37 − 2 × level, VBV at MaxBitrate |
/// | VBR, CBR | ABR at Bitrate, VBV at Bitrate |
/// | HrdBufferSize, absent | VBV buffer; two seconds of the maximum |
/// | SINGLE_PASS, SINGLE_PASS_HQ, MULTI_PASS_HQ | veryfast, medium, slow |
///
/// GOPs are closed and of one length, without keyframes at scene cuts: so keyframes of all renditions and the
/// borders of segments fall together.
pub fn x264(encode: &Encode, threads: usize) -> Result<gst::Element, TaskError> {
    let code = &encode.code;
    let element = make("x264enc")?;
    element.set_property_from_str("speed-preset", code.preset);
    let kbits = |bits: u64| (bits / 1000).clamp(1, 2_048_000) as u32;
    let bits_max = match code.control {
        RateControl::Qvbr { level_tenths, bits_max } => {
            element.set_property_from_str("pass", "qual");
            element.set_property("quantizer", RateControl::crf(level_tenths));
            bits_max
        }
        RateControl::Vbr { bits, .. } | RateControl::Cbr { bits } => {
            element.set_property_from_str("pass", "cbr");
            bits
        }
    };
    element.set_property("bitrate", kbits(bits_max));
    let buffer_ms = code.buffer_bits.map_or(2_000, |bits| bits * 1000 / bits_max.max(1)).clamp(100, 10_000);
    element.set_property("vbv-buf-capacity", buffer_ms as u32);
    element.set_property("key-int-max", encode.gop_frames);
    if let Some(bframes) = code.bframes {
        element.set_property("bframes", u32::from(bframes));
    }
    if let Some(refs) = code.refs {
        element.set_property("ref", u32::from(refs));
    }
    // As many as x264 itself would take on a machine of that size.
    element.set_property("threads", (threads.max(1) * 3).div_ceil(2) as u32);
    let mut options = format!("min-keyint={}:scenecut=0:open-gop=0", encode.gop_frames);
    if let Some(level) = code.level {
        options.push_str(&format!(":level={}.{}", level / 10, level % 10));
    }
    if matches!(code.control, RateControl::Cbr { .. }) {
        options.push_str(":nal-hrd=cbr");
    }
    element.set_property("option-string", options);
    Ok(element)
}

/// The colours in which 8-bit SDR leaves: the source's own where they are that already, in limited range.
///
/// High dynamic range comes here as BT.709 already, by way of the tone mapper.
pub fn output_colour(info: &gst_video::VideoInfo, force_709: bool) -> VideoColorimetry {
    let source = info.colorimetry();
    if force_709 || source.matrix() == VideoColorMatrix::Rgb || !info.format_info().is_yuv() {
        return bt709();
    }
    if source.primaries() == VideoColorPrimaries::Bt2020 {
        return bt709();
    }
    if source.range() == VideoColorRange::Range0_255 {
        return VideoColorimetry::new(
            VideoColorRange::Range16_235,
            source.matrix(),
            source.transfer(),
            source.primaries(),
        );
    }
    source
}

fn bt709() -> VideoColorimetry {
    VideoColorimetry::new(
        VideoColorRange::Range16_235,
        VideoColorMatrix::Bt709,
        VideoTransferFunction::Bt709,
        VideoColorPrimaries::Bt709,
    )
}
