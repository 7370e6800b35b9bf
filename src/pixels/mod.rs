//! Arithmetic on pictures in memory.
//!
//! ```text
//! plane      what a plane of samples is, borrowed or owned
//! resample   another size: cubic convolution with edges and chroma sites as they should be
//! likeness   PSNR and SSIM of two planes
//! hdr        PQ and HLG to BT.709
//! scene      moving pictures that compress as camera pictures do, for benchmarks
//! ```
//!
//! A crate of its own, since these loops must be optimised in every profile: a test that scales a film without it takes
//! fifty times as long, and the rest of the system builds four times as fast when it is not optimised for tests.
//!
//! Must never: open a file, or know a codec, GStreamer or a clock. Holds: buffers come from decoders, so one that is
//! shorter than its picture says leaves samples out and never panics; every processor gives the same samples.

pub mod hdr;
pub mod likeness;
mod plane;
mod resample;
pub mod scene;

pub use plane::{Plane, View, ViewMut};
pub use resample::{Resampler, Siting};
