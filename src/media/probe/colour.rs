//! What the colours of a stream mean, in the names people use, and which of them are high dynamic range.

use gstreamer_video as gst_video;
use gstreamer_video::{VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoTransferFunction};

/// High dynamic range, by the transfer function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hdr {
    None,
    /// SMPTE ST 2084 (PQ).
    Hdr10,
    /// ARIB STD-B67.
    Hlg,
}

impl Hdr {
    pub fn name(self) -> &'static str {
        match self {
            Hdr::None => "none",
            Hdr::Hdr10 => "HDR10",
            Hdr::Hlg => "HLG",
        }
    }

    pub fn of(colour: &gst_video::VideoColorimetry) -> Hdr {
        match colour.transfer() {
            VideoTransferFunction::Smpte2084 => Hdr::Hdr10,
            VideoTransferFunction::AribStdB67 => Hdr::Hlg,
            _ => Hdr::None,
        }
    }
}

/// Names as ITU-T H.273 and ffprobe write them.
pub fn primaries(colour: &gst_video::VideoColorimetry) -> Option<&'static str> {
    Some(match colour.primaries() {
        VideoColorPrimaries::Bt709 => "bt709",
        VideoColorPrimaries::Bt470m => "bt470m",
        VideoColorPrimaries::Bt470bg => "bt470bg",
        VideoColorPrimaries::Smpte170m => "smpte170m",
        VideoColorPrimaries::Smpte240m => "smpte240m",
        VideoColorPrimaries::Film => "film",
        VideoColorPrimaries::Bt2020 => "bt2020",
        VideoColorPrimaries::Smptest428 => "smpte428",
        VideoColorPrimaries::Smpterp431 => "smpte431",
        VideoColorPrimaries::Smpteeg432 => "smpte432",
        _ => return None,
    })
}

pub fn transfer(colour: &gst_video::VideoColorimetry) -> Option<&'static str> {
    Some(match colour.transfer() {
        VideoTransferFunction::Bt709 => "bt709",
        VideoTransferFunction::Bt601 => "smpte170m",
        VideoTransferFunction::Smpte240m => "smpte240m",
        VideoTransferFunction::Srgb => "iec61966-2-1",
        VideoTransferFunction::Gamma10 => "linear",
        VideoTransferFunction::Gamma22 => "bt470m",
        VideoTransferFunction::Gamma28 => "bt470bg",
        VideoTransferFunction::Bt202010 => "bt2020-10",
        VideoTransferFunction::Bt202012 => "bt2020-12",
        VideoTransferFunction::Smpte2084 => "smpte2084",
        VideoTransferFunction::AribStdB67 => "arib-std-b67",
        _ => return None,
    })
}

pub fn matrix(colour: &gst_video::VideoColorimetry) -> Option<&'static str> {
    Some(match colour.matrix() {
        VideoColorMatrix::Rgb => "gbr",
        VideoColorMatrix::Bt709 => "bt709",
        VideoColorMatrix::Fcc => "fcc",
        VideoColorMatrix::Bt601 => "smpte170m",
        VideoColorMatrix::Smpte240m => "smpte240m",
        VideoColorMatrix::Bt2020 => "bt2020nc",
        _ => return None,
    })
}

pub fn range(colour: &gst_video::VideoColorimetry) -> Option<&'static str> {
    match colour.range() {
        VideoColorRange::Range0_255 => Some("full"),
        VideoColorRange::Range16_235 => Some("limited"),
        _ => None,
    }
}
