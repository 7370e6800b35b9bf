//! Which samples of a line go into each sample of the result, and how much.

use super::WEIGHT_BITS;

/// For each sample of the result, the first sample that it is made of and the weights of that and the following ones.
/// Invariant: `starts[i] < from`, so that a line with `width` more samples behind its end serves every set of weights.
pub struct Taps {
    pub starts: Vec<u32>,
    /// `width` for each sample of the result.
    pub weights: Vec<i16>,
    pub width: usize,
}

impl Taps {
    /// The number of weights is a multiple of `lanes`.
    /// `cosited` samples lie on the first of each two that they stand for, in the source as in the result.
    pub fn new(from: usize, to: usize, cosited: bool, lanes: usize) -> Taps {
        let to = if from == 0 { 0 } else { to };
        let ratio = from as f64 / to.max(1) as f64;
        let stretch = ratio.max(1.0);
        let reach = 2.0 * stretch;
        // The middles of both lines agree; the sites of cosited samples lie a quarter of their distance before.
        let shift = if cosited { (ratio - 1.0) / -4.0 } else { 0.0 };
        let width = (2 * reach.ceil() as usize).next_multiple_of(lanes);
        let mut taps = Taps { starts: Vec::with_capacity(to), weights: vec![0; to * width], width };
        let clamp = |n: i64| n.clamp(0, from as i64 - 1) as usize;
        let mut exact = vec![0f64; width];
        for weights in taps.weights.chunks_exact_mut(width).take(to) {
            let centre = (taps.starts.len() as f64 + 0.5) * ratio - 0.5 + shift;
            let (first, last) = ((centre - reach).floor() as i64 + 1, (centre + reach).ceil() as i64 - 1);
            let start = clamp(first);
            exact.fill(0.0);
            for at in first..=last {
                exact[clamp(at) - start] += catmull_rom((at as f64 - centre) / stretch);
            }
            round(&exact, weights);
            taps.starts.push(start as u32);
        }
        taps
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &[i16])> {
        self.starts.iter().map(|s| *s as usize).zip(self.weights.chunks_exact(self.width))
    }
}

/// Weights in fixed point whose sum is one: the largest takes what rounding leaves.
fn round(exact: &[f64], weights: &mut [i16]) {
    let one = f64::from(1u32 << WEIGHT_BITS) / exact.iter().sum::<f64>();
    for (weight, exact) in weights.iter_mut().zip(exact) {
        *weight = (exact * one).round() as i16;
    }
    let left = (1 << WEIGHT_BITS) - weights.iter().map(|w| i32::from(*w)).sum::<i32>();
    if let Some(largest) = weights.iter_mut().max() {
        *largest += left as i16;
    }
}

fn catmull_rom(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}
