//! The stage `labels`: shots, what they are like, black and still parts, dominant colours.
//!
//! By measurement on small pictures; it recognises no objects, people or places and says so.

use std::collections::BTreeMap;

use conveyor_base::TaskError;
use conveyor_job::{Job, Reporter};
use gstreamer_video::prelude::*;
use serde_json::{Value, json};

use super::decode::{Decoder, Frame, Picture, Source, Want};
use super::report::{self, LISTED_MAX, Ticker};
use super::shots::{self, BINS, Features, Shot};
use super::spans::{SpanFinder, round};
use super::thumb::{Rect, Thumb, plane};
use crate::input::Input;

const WIDTH: u32 = 160;
/// Most pictures whose features are kept (about 1 KiB each): more than four hours at 25 a second.
const PICTURES_MAX: usize = 400_000;
const COLOURS: usize = 4;

/// `{"input", "destination"?}` to `{"shotCount", "shots", "black", "still", "colours", "method", "limits", "uri"}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let input = Input::from_parameter(job, "input")?;
    let result = measure(&input, job.threads, reporter)?;
    let uri = report::write(job, reporter, "labels.json", &result)?;
    let mut short = result;
    short["uri"] = uri;
    for list in ["shots", "black", "still"] {
        if let Some(items) = short[list].as_array_mut() {
            items.truncate(LISTED_MAX);
        }
    }
    Ok(short)
}

/// The whole result, unwritten.
pub fn measure(input: &Input, threads: usize, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    crate::init()?;
    let picture = Picture { width_max: Some(WIDTH), upright: true, colorimetry: None };
    let want = Want { video: Some(picture), threads, ..Want::default() };
    let mut decoder = Decoder::open(Source::File(input.clone()), want)?;
    if !decoder.has_video() {
        return Err(input.error("Media.NoVideo", "has no pictures to find shots in"));
    }
    let mut ticker = Ticker::new(reporter, "finding shots", decoder.duration().unwrap_or(0.0));
    let (base, mut seen) = (decoder.base(), Seen::default());
    while let Some(frame) = decoder.next_frame()? {
        ticker.frame(frame.at - base);
        seen.take(&frame, frame.at - base);
        if seen.features.len() > PICTURES_MAX {
            return Err(input.error("Media.TooLong", "has more pictures than shot detection keeps; cut it into parts"));
        }
    }
    Ok(seen.result(input))
}

#[derive(Default)]
struct Seen {
    features: Vec<Features>,
    /// Per picture, a histogram of coarse colours: (colour, pixels), the fullest few.
    colours: Vec<Vec<(u16, u32)>>,
    end: f64,
}

impl Seen {
    fn take(&mut self, frame: &Frame, at: f64) {
        let thumb = Thumb::of(frame, Rect::of(frame));
        let shift = self.features.last().map_or((0.0, 0.0), |last| shots::shift(&last.thumb, &thumb));
        let (histogram, detail) = histogram(frame);
        let black = thumb.is_black();
        // Colours change slowly: one picture in five says enough.
        self.colours.push(if self.features.len().is_multiple_of(5) { coarse_colours(frame) } else { Vec::new() });
        self.features.push(Features { at, histogram, thumb, detail, shift, black });
        let fps = frame.picture.info().fps();
        let length = if fps.numer() > 0 { f64::from(fps.denom()) / f64::from(fps.numer()) } else { 0.04 };
        self.end = at + length;
    }

    fn result(&self, input: &Input) -> Value {
        let cuts = shots::cuts(&self.features);
        let shots = shots::describe(&self.features, &cuts, self.end, |from, to| self.dominant(from, to));
        let (mut black, mut still) = (SpanFinder::new(0.5), SpanFinder::new(1.0));
        let mut reference: Option<&Features> = None;
        for (i, f) in self.features.iter().enumerate() {
            let until = self.features.get(i + 1).map_or(self.end, |n| n.at);
            black.feed(f.at, until, f.black);
            let same = reference.is_some_and(|r| f.thumb.same_as(&r.thumb));
            let from = if i > 0 { self.features[i - 1].at } else { f.at };
            still.feed(from, if same { until } else { f.at }, same);
            if !same {
                reference = Some(f);
            }
        }
        let mut kinds: BTreeMap<&str, f64> = BTreeMap::new();
        for shot in &shots {
            *kinds.entry(shot.kind).or_default() += shot.end - shot.start;
        }
        let mean = if shots.is_empty() { 0.0 } else { self.end / shots.len() as f64 };
        json!({
            "source": input.uri,
            "durationSeconds": round(self.end),
            "shotCount": shots.len(),
            "meanShotSeconds": round(mean),
            "pace": pace(mean, &shots),
            "secondsByKind": kinds.iter().map(|(k, v)| ((*k).to_owned(), json!(round(*v)))).collect::<serde_json::Map<_, _>>(),
            "colours": self.dominant(0, self.features.len()),
            "shots": shots,
            "black": black.finish(),
            "still": still.finish(),
            "method": "Pictures scaled to 160 wide. Cuts: jump of colour histogram and block means against the 24 pictures around, confirmed by the 5 after. Kinds: from the change between block means, and its horizontal flow for pans.",
            "limits": "Found by measurement: no objects, people, places or scenes are recognised. Slow dissolves may be missed; a very fast movement may count as a cut. Vertical pans and zooms count as motion.",
        })
    }

    /// The colours that most pixels of these pictures have, as `#rrggbb`.
    fn dominant(&self, from: usize, to: usize) -> Vec<String> {
        let mut sums: BTreeMap<u16, u64> = BTreeMap::new();
        // A shot shorter than the sampling takes the colours sampled before it.
        let from = from - from % 5;
        for (colour, count) in self.colours[from..to].iter().flatten() {
            *sums.entry(*colour).or_default() += u64::from(*count);
        }
        let mut all: Vec<(u16, u64)> = sums.into_iter().collect();
        all.sort_by_key(|(colour, count)| (std::cmp::Reverse(*count), *colour));
        all.iter().take(COLOURS).map(|(c, _)| rgb(*c)).collect()
    }
}

fn pace(mean: f64, shots: &[Shot]) -> &'static str {
    match (shots.len(), mean) {
        (0 | 1, _) => "single shot",
        (_, m) if m < 2.0 => "very fast",
        (_, m) if m < 4.0 => "fast",
        (_, m) if m < 10.0 => "moderate",
        _ => "slow",
    }
}

/// Shares of pixels per luma and chroma bin, and the mean difference of neighbouring luma pixels.
fn histogram(frame: &Frame) -> ([f32; BINS], f32) {
    let (w, h) = (frame.picture.width() as usize, frame.picture.height() as usize);
    let mut bins = [0f32; BINS];
    let (stride, luma) = plane(frame, 0);
    let (mut difference, mut lines) = (0u64, 0usize);
    for line in luma.chunks(stride.max(1)).take(h).filter(|l| l.len() >= w) {
        for &v in &line[..w] {
            bins[usize::from(v >> 3)] += 1.0;
        }
        difference += line[..w].windows(2).map(|p| u64::from(p[0].abs_diff(p[1]))).sum::<u64>();
        lines += 1;
    }
    for (index, offset) in [(1, 32), (2, 48)] {
        let (stride, chroma) = plane(frame, index);
        for line in chroma.chunks(stride.max(1)).take(h.div_ceil(2)) {
            // Chroma has a quarter of the samples; counted twice, the two planes weigh as much as luma does.
            line.iter().take(w.div_ceil(2)).for_each(|v| bins[offset + usize::from(v >> 4)] += 2.0);
        }
    }
    let total = bins.iter().sum::<f32>().max(1.0);
    bins.iter_mut().for_each(|b| *b /= total);
    (bins, difference as f32 / (lines * w).max(1) as f32)
}

/// Luma in 16 steps, colour differences in 16 each: the 8 fullest colours of a picture.
fn coarse_colours(frame: &Frame) -> Vec<(u16, u32)> {
    let (w, h) = (frame.picture.width() as usize / 2, frame.picture.height() as usize / 2);
    let ((ys, y), (us, u), (vs, v)) = (plane(frame, 0), plane(frame, 1), plane(frame, 2));
    let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
    for row in 0..h {
        for column in 0..w {
            let at = (y.get(row * 2 * ys + column * 2), u.get(row * us + column), v.get(row * vs + column));
            if let (Some(y), Some(u), Some(v)) = at {
                let key = u16::from(y >> 4) << 8 | u16::from(u >> 4) << 4 | u16::from(v >> 4);
                *counts.entry(key).or_default() += 1;
            }
        }
    }
    let mut all: Vec<(u16, u32)> = counts.into_iter().collect();
    all.sort_by_key(|c| std::cmp::Reverse(c.1));
    all.truncate(8);
    all
}

/// A coarse colour as BT.709 limited range has it.
fn rgb(colour: u16) -> String {
    let part = |shift: u16| f32::from((colour >> shift & 15) * 16 + 8);
    let (y, u, v) = ((part(8) - 16.0) * 1.164, part(4) - 128.0, part(0) - 128.0);
    let byte = |v: f32| v.clamp(0.0, 255.0) as u8;
    format!("#{:02x}{:02x}{:02x}", byte(y + 1.793 * v), byte(y - 0.213 * u - 0.533 * v), byte(y + 2.112 * u))
}
