//! High dynamic range brought to standard range: PQ and HLG pictures become BT.709 ones.
//!
//! ```text
//! curve    what colour a colour becomes: transfer functions, tone curve, gamut; exact and slow
//! table    the same over whole pictures, with tables in place of powers; fast
//! ```
//!
//! Transcode, quality and the analyses all use the one element, so that an output is compared with what it was made of.

mod curve;
mod table;

pub use curve::{Grade, PQ_PEAK, Primaries, REFERENCE_WHITE, Transfer, USUAL_PEAK};
pub use table::Table;

/// What a table does, in the words of a result.
pub const METHOD: &str = "ITU-R BT.2390 tone curve on the largest component, BT.2408 reference white at 203 cd/m², gamut to BT.709 at constant luminance";
