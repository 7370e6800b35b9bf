//! Where shots begin, and what each is like, from small pictures. Pure: fed with features, asked for shots.
//!
//! A cut is a jump of the colour histogram and of the picture against what is usual nearby, that lasts: where the
//! pictures a few frames later are like the ones before, it was a flash. Slow dissolves may be missed; a fade through
//! black ends one shot and begins the next.

use serde::Serialize;

use super::spans::round;
use super::thumb::Thumb;

/// Cells of the histogram: 32 of luma, 16 each of the two colour differences.
pub const BINS: usize = 64;
/// Pictures looked ahead to tell a flash from a cut.
const AHEAD: usize = 5;
/// Pictures that "usual nearby" is taken over.
const AROUND: usize = 12;
/// Least jump, on a scale from 0 (same) to 1 (nothing in common).
const JUMP_MIN: f32 = 0.16;
const JUMP_OVER_USUAL: f32 = 3.0;
const SHOT_SECONDS_MIN: f64 = 0.2;

/// What is kept of one picture.
pub struct Features {
    pub at: f64,
    pub histogram: [f32; BINS],
    pub thumb: Thumb,
    /// Mean absolute difference of neighbouring pixels: how much detail there is.
    pub detail: f32,
    /// Shift against the picture before, in thumb cells, and how well it explains the change (0 to 1).
    pub shift: (f32, f32),
    pub black: bool,
}

/// One shot.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shot {
    pub index: usize,
    pub start: f64,
    pub end: f64,
    /// `black`, `still`, `static`, `pan`, `motion`.
    pub kind: &'static str,
    /// `dark`, `bright`, `low-detail`, where they hold.
    pub traits: Vec<&'static str>,
    pub brightness: f64,
    pub motion: f64,
    pub detail: f64,
    /// A moment that stands for the shot.
    pub middle: f64,
    pub colours: Vec<String>,
}

/// Indices at which a new shot begins; the first is 0.
pub fn cuts(features: &[Features]) -> Vec<usize> {
    let jumps: Vec<f32> =
        (0..features.len()).map(|i| if i == 0 { 0.0 } else { distance(&features[i - 1], &features[i]) }).collect();
    let mut cuts = vec![0];
    let mut flash_until = 0;
    for i in 1..features.len() {
        let around: Vec<f32> = (i.saturating_sub(AROUND).max(1)..(i + AROUND).min(jumps.len()))
            .filter(|&j| j != i)
            .map(|j| jumps[j])
            .collect();
        if jumps[i] < JUMP_MIN || jumps[i] < JUMP_OVER_USUAL * median(around) {
            continue;
        }
        // After a flash the picture is again what it was before; its return is no cut either.
        let mut ahead = i + 1..(i + 1 + AHEAD).min(features.len());
        let back = |j: &usize| distance(&features[i - 1], &features[*j]);
        if let Some(j) = ahead.find(|j| back(j) < JUMP_MIN * 0.6 && back(j) < jumps[i] * 0.4) {
            flash_until = j;
        }
        let since = features[i].at - features[cuts.last().copied().unwrap_or(0)].at;
        if i > flash_until && since >= SHOT_SECONDS_MIN {
            cuts.push(i);
        }
    }
    fades(features, &mut cuts);
    cuts
}

/// A black stretch that no cut marks parts two shots: where it begins and where it ends.
fn fades(features: &[Features], cuts: &mut Vec<usize>) {
    for i in 1..features.len() {
        if features[i].black != features[i - 1].black {
            let near = cuts.iter().any(|&c| (features[c].at - features[i].at).abs() < SHOT_SECONDS_MIN);
            if !near {
                cuts.push(i);
            }
        }
    }
    cuts.sort_unstable();
}

/// Half histogram, half picture; 0 to 1.
fn distance(a: &Features, b: &Features) -> f32 {
    let histogram: f32 = a.histogram.iter().zip(&b.histogram).map(|(x, y)| (x - y).abs()).sum::<f32>() / 2.0;
    0.5 * histogram + 0.5 * (a.thumb.distance(&b.thumb) / 64.0).min(1.0)
}

fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The shots between the cuts, described.
pub fn describe(
    features: &[Features],
    cuts: &[usize],
    end: f64,
    colours: impl Fn(usize, usize) -> Vec<String>,
) -> Vec<Shot> {
    let mut shots = Vec::new();
    for (index, &from) in cuts.iter().enumerate() {
        let to = cuts.get(index + 1).copied().unwrap_or(features.len());
        let part = &features[from..to];
        let Some(first) = part.first() else { continue };
        let stop = features.get(to).map_or(end, |f| f.at);
        let count = part.len() as f64;
        let mean = |f: &dyn Fn(&Features) -> f64| part.iter().map(f).sum::<f64>() / count;
        let moved: f64 = part.windows(2).map(|p| f64::from(p[0].thumb.distance(&p[1].thumb))).sum();
        let motion = moved / (stop - first.at).max(0.04);
        let brightness = mean(&|f| f64::from(f.thumb.mean()));
        let detail = mean(&|f| f64::from(f.detail));
        let mut traits = Vec::new();
        if brightness < 50.0 {
            traits.push("dark");
        } else if brightness > 180.0 {
            traits.push("bright");
        }
        if detail < 1.5 {
            traits.push("low-detail");
        }
        shots.push(Shot {
            index,
            start: round(first.at),
            end: round(stop),
            kind: kind(part, motion),
            traits,
            brightness: super::report::round(brightness / 255.0, 3),
            motion: super::report::round(motion, 2),
            detail: super::report::round(detail, 2),
            middle: round((first.at + stop) / 2.0),
            colours: colours(from, to),
        });
    }
    shots
}

fn kind(part: &[Features], motion: f64) -> &'static str {
    let black = part.iter().filter(|f| f.black).count();
    if black * 10 >= part.len() * 9 {
        return "black";
    }
    if part.iter().all(|f| f.thumb.same_as(&part[0].thumb)) {
        return "still";
    }
    if motion < 4.0 {
        return "static";
    }
    // A pan: most pictures are the one before, shifted the same way.
    let shifted: Vec<f32> =
        part.iter().skip(1).filter(|f| f.shift.1 > 0.5 && f.shift.0.abs() > 0.02).map(|f| f.shift.0).collect();
    let one_way = shifted.iter().filter(|s| **s > 0.0).count();
    let agree = one_way.max(shifted.len() - one_way);
    if part.len() > 4 && agree * 10 >= part.len() * 6 { "pan" } else { "motion" }
}

/// How far the columns of one picture lie beside those of the one before, in fractions of a cell, and how much of the
/// change that explains.
pub fn shift(before: &Thumb, after: &Thumb) -> (f32, f32) {
    use super::thumb::{COLUMNS, ROWS};
    let columns = |t: &Thumb| -> [f32; COLUMNS] {
        std::array::from_fn(|c| (0..ROWS).map(|r| t.0[r * COLUMNS + c]).sum::<f32>() / ROWS as f32)
    };
    let (a, b) = (columns(before), columns(after));
    // One step of optical flow on the profile: change = -shift * slope, by least squares.
    let (mut slope_change, mut slope_slope, mut change_change) = (0f32, 1e-6f32, 1e-6f32);
    for c in 1..COLUMNS - 1 {
        let (slope, change) = ((a[c + 1] - a[c - 1]) / 2.0, b[c] - a[c]);
        slope_change += slope * change;
        slope_slope += slope * slope;
        change_change += change * change;
    }
    (-slope_change / slope_slope, slope_change * slope_change / (slope_slope * change_change))
}
