//! Medians, spreads, and the test that tells a difference from noise. Pure.
//!
//! The test. A figure is *better* or *worse* than before only if both hold:
//!
//! 1. The medians differ by more than three times the noise, and by more than [`FLOOR`]. The noise of a figure is the
//!    largest of: its own robust spread (1.4826 × the median absolute deviation, which is the standard deviation of a
//!    normal distribution, and which one outlier does not move) now and before; the median of all figures' spreads in
//!    its section, since three repetitions alone may agree by luck; and the spread of its medians over earlier runs,
//!    because a box differs more between two days than between two seconds.
//! 2. The repetitions are apart: every one of now lies on the same side of every one of before. Where that happens by
//!    chance (once in ten for three against three), the first condition still has to be met.
//!
//! Where a figure was measured only once on either side, the difference has to be twice as large instead.

use serde::{Deserialize, Serialize};

/// Differences below this part are never told apart: placement of memory and code alone moves figures by as much.
pub const FLOOR: f64 = 0.03;

/// Runs before this one from which the spread between runs is known.
const RUNS_MIN: usize = 4;

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// Within noise.
    Same,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

/// The middle one, or the mean of the middle two; 0 of nothing.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (n, half) if n % 2 == 1 => sorted[half],
        (_, half) => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}

/// The robust spread as a part of the median: 0.02 says that figures lie about 2 % around it.
pub fn spread(figures: &[f64]) -> f64 {
    let middle = median(figures);
    if middle == 0.0 || figures.len() < 2 {
        return 0.0;
    }
    let off: Vec<f64> = figures.iter().map(|figure| (figure - middle).abs()).collect();
    1.4826 * median(&off) / middle.abs()
}

/// The noise of a figure, from its spreads, its section's and the medians of earlier runs.
pub fn noise(own: &[f64], before: &[f64], section: f64, earlier_medians: &[f64]) -> f64 {
    let between = if earlier_medians.len() >= RUNS_MIN { spread(earlier_medians) } else { 0.0 };
    spread(own).max(spread(before)).max(section).max(between)
}

/// How far the medians are apart, as a part of what it was before, and what that means.
pub fn judge(before: &[f64], now: &[f64], better: Better, noise: f64) -> (f64, Verdict) {
    let (old, new) = (median(before), median(now));
    if old == 0.0 || before.is_empty() || now.is_empty() {
        return (0.0, Verdict::Same);
    }
    let change = new / old - 1.0;
    let repeated = before.len() > 1 && now.len() > 1;
    let threshold = (3.0 * noise).max(FLOOR) * if repeated { 1.0 } else { 2.0 };
    // The same distance both ways: half as fast is as far as twice as fast.
    let distance = (new / old).max(old / new) - 1.0;
    if distance <= threshold || (repeated && !apart(before, now)) {
        return (change, Verdict::Same);
    }
    let improved = (change > 0.0) == (better == Better::Higher);
    (change, if improved { Verdict::Better } else { Verdict::Worse })
}

fn apart(a: &[f64], b: &[f64]) -> bool {
    let low = |figures: &[f64]| figures.iter().copied().fold(f64::INFINITY, f64::min);
    let high = |figures: &[f64]| figures.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    high(a) < low(b) || high(b) < low(a)
}

/// The value below which so many percent lie.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_one_only_beyond_the_noise_and_apart() {
        let judged = |before: &[f64], now: &[f64], noise| judge(before, now, Better::Higher, noise).1;
        let steady = [100.0, 101.0, 99.0];
        assert_eq!(judged(&steady, &[90.0, 91.0, 89.0], 0.01), Verdict::Worse);
        assert_eq!(judged(&steady, &[110.0, 111.0, 112.0], 0.01), Verdict::Better);
        assert_eq!(judge(&steady, &[110.0, 111.0, 112.0], Better::Lower, 0.01).1, Verdict::Worse);
        // Two percent are never told apart, ten not on a box that wavers by four, and not where repetitions overlap.
        assert_eq!(judged(&steady, &[102.5, 102.4, 102.6], 0.0), Verdict::Same);
        assert_eq!(judged(&steady, &[90.0, 91.0, 89.0], 0.04), Verdict::Same);
        assert_eq!(judged(&steady, &[90.0, 91.0, 99.5], 0.01), Verdict::Same);
        // Measured once, it takes more.
        assert_eq!(judged(&[100.0], &[95.0], 0.01), Verdict::Same);
        assert_eq!(judged(&[100.0], &[80.0], 0.01), Verdict::Worse);
        assert_eq!(judged(&[], &[80.0], 0.01), Verdict::Same);
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_spread() {
        let figures = [100.0, 101.0, 99.0, 100.5, 3.0];
        assert_eq!(median(&figures), 100.0);
        assert!(spread(&figures) < 0.02, "{}", spread(&figures));
        assert_eq!(median(&[1.0, 3.0]), 2.0);
        // Runs that differ from day to day make a box noisy, however steady each run is.
        let days = [100.0, 120.0, 90.0, 110.0];
        assert!(noise(&[100.0; 3], &[100.0; 3], 0.0, &days) > 0.1);
        assert_eq!(noise(&[100.0; 3], &[100.0; 3], 0.0, &days[..3]), 0.0);
    }
}
