//! A plane of eight-bit samples in another size, by cubic convolution (Catmull-Rom; Keys 1981, a = -1/2), which is
//! widened by the ratio when the plane shrinks so that nothing aliases.
//!
//! Down first and then across: a line of the result is a weighted sum of lines of the source, which reads memory in
//! order, and is kept as one line of 16-bit samples (10.6 fixed point) that stays in the nearest cache. Samples outside
//! the plane are those of its edge. `avx2` does the same arithmetic to the bit where the processor can.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod taps;

use crate::plane::{View, ViewMut};
use taps::Taps;

/// Bits behind the point of the line between the two passes.
const LINE_BITS: u32 = 6;
/// Bits behind the point of the weights, which may be a little more than one where samples of the edge add up.
const WEIGHT_BITS: u32 = 14;
/// What samples are shifted by before they are weighed, so that a rounded product of 16 bits is in the line's form.
const SAMPLE_BITS: u32 = LINE_BITS + 15 - WEIGHT_BITS;
/// What a sum across is shifted by.
const ACROSS_SHIFT: u32 = LINE_BITS + WEIGHT_BITS;
/// Weights across come in sets of a multiple of this, filled up with zeros.
const LANES: usize = 8;

/// Where the samples of a subsampled plane lie (ITU-T H.273, figure 2): on the left and upper of the luma samples that
/// they stand for, or else in the middle between them. Luma and planes that are not subsampled are not cosited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Siting {
    pub left: bool,
    pub top: bool,
}

/// One change of size, ready for any number of planes.
pub struct Resampler {
    from: (usize, usize),
    down: Taps,
    across: Taps,
    /// The line between the passes, with zeros behind its end as far as the weights reach.
    line: Vec<i16>,
}

impl Resampler {
    /// Width and height of the plane before and after.
    pub fn new(from: (usize, usize), to: (usize, usize), siting: Siting) -> Resampler {
        let down = Taps::new(from.1, to.1, siting.top, 1);
        let across = Taps::new(from.0, to.0, siting.left, LANES);
        let line = vec![0; from.0 + across.width];
        Resampler { from, down, across, line }
    }

    /// Resamples the upper left part of `source` into that of `target`. Lines that either lacks are left out.
    pub fn run(&mut self, source: View<'_>, target: ViewMut<'_>) {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as was just asked.
            return unsafe { self.lines_avx2(source, target) };
        }
        self.lines(source, target, down, across);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn lines_avx2(&mut self, source: View<'_>, target: ViewMut<'_>) {
        let down = |source: View<'_>, weights: &[i16], line: &mut [i16]| avx2::down(source, weights, line);
        let across = |line: &[i16], taps: &Taps, out: &mut [u8]| avx2::across(line, taps, out);
        self.lines(source, target, down, across);
    }

    fn lines(
        &mut self,
        source: View<'_>,
        target: ViewMut<'_>,
        down: impl Fn(View<'_>, &[i16], &mut [i16]),
        across: impl Fn(&[i16], &Taps, &mut [u8]),
    ) {
        let width = self.across.starts.len();
        let lines = target.bytes.chunks_mut(target.stride.max(1));
        for ((start, weights), line) in self.down.iter().zip(lines) {
            let Some(line) = line.get_mut(..width) else { return };
            let used = weights.iter().rposition(|w| *w != 0).map_or(0, |last| last + 1);
            let weights = &weights[..used];
            down(source.from(0, start), weights, &mut self.line[..self.from.0]);
            across(&self.line, &self.across, line);
        }
    }
}

/// The weighted sum of as many lines as there are weights.
fn down(source: View<'_>, weights: &[i16], line: &mut [i16]) {
    line.fill(0);
    for (row, &weight) in weights.iter().enumerate() {
        let samples = source.from(0, row).bytes;
        for (sum, &sample) in line.iter_mut().zip(samples) {
            *sum += weighed(sample, weight);
        }
    }
}

/// A sample in the line's fixed point times a weight, rounded.
fn weighed(sample: u8, weight: i16) -> i16 {
    let product = (i32::from(sample) << SAMPLE_BITS) * i32::from(weight);
    (((product >> 14) + 1) >> 1) as i16
}

fn across(line: &[i16], taps: &Taps, out: &mut [u8]) {
    for (to, (start, weights)) in out.iter_mut().zip(taps.iter()) {
        let products =
            line[start..].iter().zip(weights).map(|(&sample, &weight)| i32::from(sample) * i32::from(weight));
        let sum = products.sum::<i32>() + (1 << (ACROSS_SHIFT - 1));
        *to = (sum >> ACROSS_SHIFT).clamp(0, 255) as u8;
    }
}

#[cfg(test)]
mod tests;
