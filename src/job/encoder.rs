//! The encoders that a box may have on cores, as benchmarks name them.

use serde::{Deserialize, Serialize};

/// An encoder on cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoder {
    X264,
    X265,
    /// libaom.
    Aom,
    /// SVT-AV1.
    Svt,
    Rav1e,
}

impl Encoder {
    pub const ALL: [Encoder; 5] = [Encoder::X264, Encoder::X265, Encoder::Aom, Encoder::Svt, Encoder::Rav1e];

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Encoder::X264 => "x264",
            Encoder::X265 => "x265",
            Encoder::Aom => "libaom AV1",
            Encoder::Svt => "SVT-AV1",
            Encoder::Rav1e => "rav1e AV1",
        }
    }

    /// What it makes, as speeds are keyed.
    pub fn codec(self) -> &'static str {
        match self {
            Encoder::X264 => "h264",
            Encoder::X265 => "hevc",
            Encoder::Aom | Encoder::Svt | Encoder::Rav1e => "av1",
        }
    }
}
