//! What the box has to lease: the appliance is started with it, and it does not change while it runs.

use std::fmt;

/// The lanes of a box.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    /// Cores; 0 where there is no such lane, and then work that needs one runs without.
    pub cpu: u32,
    /// What the lane of cores grants beyond them, in cores: a file's beginning, its end and what goes on one thread leave
    /// cores idle, unless another file is under way.
    pub overlap: u32,
    /// Stages that wait for disks at once; 0 as for `cpu`.
    pub io: u32,
    pub gpus: Vec<Gpu>,
    pub cores: CoreSpeed,
}

/// One GPU and its engines.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Begins the names of its lanes: `gpu0`.
    pub name: String,
    pub uuid: String,
    pub model: String,
    /// The processors beside it, as the kernel lists them.
    pub cpus: Option<String>,
    /// Or why there is none.
    pub nvenc: Result<Encoder, String>,
    pub nvdec: Result<Decoder, String>,
    /// Processes that compute on it at once, or why none can.
    pub cuda: Result<u32, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    /// Encode sessions at once.
    pub capacity: u32,
    pub codecs: Vec<EncoderCodec>,
    /// Luma megapixels a second, of all sessions together.
    pub mpix_s: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EncoderCodec {
    /// `h264`, `hevc`, `av1`.
    pub name: String,
    pub width_max: u32,
    pub height_max: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// Streams at once.
    pub capacity: u32,
    pub mpix_s: f64,
}

/// What all cores together do, in luma megapixels a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CoreSpeed {
    pub decode_mpix_s: f64,
    pub encode_mpix_s: f64,
}

impl CoreSpeed {
    /// Of a core and of an engine, until the box was measured. They only have to be in a likely proportion.
    pub const DECODE_MPIX_S: f64 = 250.0;
    pub const ENCODE_MPIX_S: f64 = 70.0;
}

impl Encoder {
    pub const MPIX_S: f64 = 900.0;
    /// Sessions that keep one engine busy.
    pub const SESSIONS_PER_ENGINE: u32 = 3;
}

impl Decoder {
    pub const MPIX_S: f64 = 1_500.0;
    pub const STREAMS_PER_ENGINE: u32 = 4;
}

impl Default for CoreSpeed {
    fn default() -> CoreSpeed {
        CoreSpeed { decode_mpix_s: CoreSpeed::DECODE_MPIX_S, encode_mpix_s: CoreSpeed::ENCODE_MPIX_S }
    }
}

impl Lanes {
    /// A box without GPUs.
    pub fn of_cores(cpu: u32, io: u32) -> Lanes {
        Lanes { cpu, io, ..Lanes::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.cpu == 0 && self.io == 0 && self.gpus.is_empty()
    }
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.model, self.uuid)
    }
}
