//! One pass over the source and all outputs at once: every file is decoded completely, the source only once.
//!
//! Output pictures are taken in the order of their times and compared with that picture of the source that is most
//! alike among those within about two frames: an encode may start a frame late without being worse for it.
//! Invariant: no more of the source is held than those few pictures.

use std::collections::VecDeque;
use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_pixels::{Plane, Resampler, Siting, View, ViewMut, likeness};
use gstreamer_video::prelude::*;
use parking_lot::Mutex;

use crate::analysis::decode::{Decoder, Frame, Picture, Source, Want};
use crate::analysis::report::Ticker;
use crate::analysis::sound::{self, SoundMeter};
use crate::analysis::spans::{Span, SpanFinder};
use crate::analysis::thumb::{Rect, Thumb, plane};
use crate::time::pictures;
use crate::transcode::scale;

/// Pictures of one output that are compared sample by sample; longer outputs are sampled evenly. Every picture is
/// compared coarsely, by its thumb.
const COMPARED_MAX: f64 = 1_200.0;
/// Mean difference of thumbs, in levels, above which two pictures do not show the same.
const ALIKE_MAX: f32 = 8.0;
const BLACK_SECONDS_MIN: f64 = 0.5;
const FREEZE_SECONDS_MIN: f64 = 1.0;

/// What was found about one file.
#[derive(Default)]
pub struct Found {
    /// Why it could not be decoded to its end.
    pub error: Option<TaskError>,
    pub frames: u64,
    pub fps: f64,
    pub size: (u32, u32),
    /// From the first picture to the end of the last, in seconds.
    pub video_seconds: f64,
    /// When the first picture comes, from the beginning on.
    pub first_seconds: f64,
    /// As `video_seconds`, where the last picture stands on while there is sound.
    pub shown_seconds: f64,
    /// Pictures whose time does not lie behind that of the one before.
    pub disordered: u64,
    pub sound: Option<sound::Measured>,
    pub has_audio: bool,
    pub black: Vec<Span>,
    pub freeze: Vec<Span>,
    pub corrupted: u64,
    /// It is high dynamic range, and was measured as the BT.709 pictures that it becomes.
    pub tone_mapped: bool,
    pub warnings: Vec<String>,
    pub likeness: Option<Likeness>,
    /// Time and coarse difference to the picture before, for judging how much moved in a span.
    pub motion: Vec<(f64, f32)>,
}

/// How like the source an output is.
#[derive(Default)]
pub struct Likeness {
    pub psnr: Vec<(f64, f64)>,
    pub ssim: Vec<(f64, f64)>,
    luma_error: (u64, u64),
    all_error: (u64, u64),
    /// Pictures that show something else than the source does at that time.
    pub unlike: u64,
    offsets: Vec<f64>,
    pub every: u64,
}

impl Likeness {
    /// PSNR of the mean squared error over all compared luma samples, and over all planes.
    pub fn psnr_total(&self) -> (f64, f64) {
        (
            likeness::psnr(self.luma_error.0, self.luma_error.1 as usize),
            likeness::psnr(self.all_error.0, self.all_error.1 as usize),
        )
    }

    pub fn ssim_mean(&self) -> f64 {
        self.ssim.iter().map(|s| s.1).sum::<f64>() / self.ssim.len().max(1) as f64
    }

    /// The value that 95 % of the compared pictures reach.
    pub fn ssim_low(&self) -> f64 {
        let mut all: Vec<f64> = self.ssim.iter().map(|s| s.1).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 20).copied().unwrap_or(1.0)
    }

    /// Median of how much later than the source an output shows the same picture, in seconds.
    pub fn offset(&self) -> f64 {
        let mut all = self.offsets.clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Measures the source and all targets. A target that fails keeps its error; a source that fails ends the pass.
pub fn measure(
    source: Source,
    targets: Vec<Source>,
    threads: usize,
    ticker: &mut Ticker<'_>,
) -> Result<(Found, Vec<Found>), TaskError> {
    let mut lanes: Vec<Lane> =
        targets.into_iter().map(|target| Lane::open(target, &Picture::default(), threads)).collect();
    let colorimetry = lanes.iter().find_map(|l| l.pending.as_ref()).map(|f| f.picture.info().colorimetry().to_string());
    let upright = Picture { width_max: None, upright: true, colorimetry };
    let mut reference = Reference { lane: Lane::open(source, &upright, threads), window: VecDeque::new() };
    if let Some(error) = reference.lane.found.error.take() {
        return Err(error);
    }
    // What encoders put before the sound makes a stream begin earlier than its source: times are counted from the first
    // picture, which comes as late as it does in the source.
    let lead = reference.lane.lead();
    for lane in &mut lanes {
        if let (Some(lead), Some(frame)) = (lead, &lane.pending) {
            lane.base = frame.at - lead;
        }
    }
    ticker.lasting(reference.seconds());
    while let Some(lane) = next_lane(&mut lanes) {
        let Some(frame) = lane.pending.take() else { continue };
        ticker.frame(frame.at - lane.base);
        reference.bring_to(frame.at - lane.base, lane.frame_seconds())?;
        lane.take(&frame, &mut reference);
        lane.pull();
    }
    while reference.pull()? {}
    let found = lanes.into_iter().map(Lane::finish).collect();
    let source = reference.lane.finish();
    match source.error {
        Some(error) => Err(error),
        None => Ok((source, found)),
    }
}

/// The lane whose next picture comes first.
fn next_lane(lanes: &mut [Lane]) -> Option<&mut Lane> {
    let time = |l: &Lane| l.pending.as_ref().map_or(f64::MAX, |f| f.at - l.base);
    lanes.iter_mut().filter(|l| l.pending.is_some()).min_by(|a, b| time(a).total_cmp(&time(b)))
}

/// One file being decoded.
struct Lane {
    chain: bool,
    decoder: Option<Decoder>,
    found: Found,
    pending: Option<Frame>,
    base: f64,
    sound: Arc<Mutex<SoundMeter>>,
    black: SpanFinder,
    freeze: SpanFinder,
    /// The picture that a still stretch began with, and when the last one came.
    still: Option<(Thumb, f64)>,
    last: Option<Thumb>,
    first_at: Option<f64>,
    last_at: Option<f64>,
    active: Option<Rect>,
}

impl Lane {
    fn open(source: Source, picture: &Picture, threads: usize) -> Lane {
        let sound = Arc::new(Mutex::new(SoundMeter::default()));
        let meter = sound.clone();
        let want = Want {
            video: Some(picture.clone()),
            audio: Some((48_000, false, Box::new(move |s| meter.lock().feed(s)))),
            threads,
            ..Want::default()
        };
        let mut lane = Lane {
            chain: matches!(source, Source::Chain(..)),
            decoder: None,
            found: Found::default(),
            pending: None,
            base: 0.0,
            sound,
            black: SpanFinder::new(BLACK_SECONDS_MIN),
            freeze: SpanFinder::new(FREEZE_SECONDS_MIN),
            still: None,
            last: None,
            first_at: None,
            last_at: None,
            active: None,
        };
        match Decoder::open(source, want) {
            Ok(decoder) => {
                lane.base = decoder.base();
                lane.found.has_audio = decoder.has_audio();
                lane.found.tone_mapped = decoder.tone_mapped();
                lane.decoder = Some(decoder);
                lane.pull();
            }
            Err(e) => lane.found.error = Some(e),
        }
        if let Some(frame) = &lane.pending {
            let fps = frame.picture.info().fps();
            lane.found.fps = f64::from(fps.numer()) / f64::from(fps.denom().max(1));
            lane.found.size = (frame.picture.width(), frame.picture.height());
        }
        lane
    }

    fn pull(&mut self) {
        self.pending = match self.decoder.as_mut().map(Decoder::next_frame) {
            Some(Ok(frame)) => frame,
            Some(Err(e)) => {
                self.found.error.get_or_insert(e);
                None
            }
            None => None,
        };
    }

    /// How long after the beginning the first picture comes, in seconds.
    fn lead(&self) -> Option<f64> {
        self.pending.as_ref().map(|frame| frame.at - self.base)
    }

    fn frame_seconds(&self) -> f64 {
        if self.found.fps > 1.0 { 1.0 / self.found.fps } else { 0.04 }
    }

    /// Notes what a picture is by itself: black, still, moving.
    fn look(&mut self, frame: &Frame, thumb: &Thumb) {
        let (at, length) = (frame.at - self.base, self.frame_seconds());
        let first = *self.first_at.get_or_insert(at);
        self.found.frames += 1;
        self.found.disordered += u64::from(self.last_at.replace(at).is_some_and(|last| at <= last));
        self.found.video_seconds = at + frame.lasts.unwrap_or(length) - first;
        self.black.feed(at, at + length, thumb.is_black());
        match &mut self.still {
            Some((reference, last_at)) => {
                let same = thumb.same_as(reference);
                // The last one stood until now, however long that was.
                self.freeze.feed(*last_at, at, true);
                if !same {
                    self.freeze.feed(at, at, false);
                    *reference = thumb.clone();
                }
                *last_at = at;
            }
            None => self.still = Some((thumb.clone(), at)),
        }
        let moved = self.last.replace(thumb.clone()).map_or(0.0, |last| last.distance(thumb));
        self.found.motion.push((at, moved));
    }

    /// Compares an output's picture with the source.
    fn take(&mut self, frame: &Frame, reference: &mut Reference) {
        let active = *self.active.get_or_insert_with(|| active_part(frame, reference.shape()));
        let (whole, inner) = (Rect::of(frame), active);
        let thumb = Thumb::of(frame, inner);
        self.look(frame, &thumb);
        let at = frame.at - self.base;
        let tick = self.frame_seconds();
        let expected = reference.seconds() / tick;
        let likeness = self.found.likeness.get_or_insert_with(|| Likeness {
            every: (expected / COMPARED_MAX).ceil().max(1.0) as u64,
            ..Likeness::default()
        });
        let Some(mate) = reference.most_alike((at, tick), &thumb) else { return };
        let distance = mate.thumb.distance(&thumb);
        likeness.unlike += u64::from(distance > ALIKE_MAX);
        if (self.found.frames - 1).is_multiple_of(likeness.every) {
            likeness.offsets.push(mate.off(at, tick));
            debug_assert!(inner.w <= whole.w && inner.h <= whole.h);
            let planes: [Plane; 3] = std::array::from_fn(|i| cut(frame, i, inner));
            let (error, ssim) = mate.compare(&planes);
            let samples: [u64; 3] = std::array::from_fn(|i| planes[i].data.len() as u64);
            likeness.luma_error.0 += error[0];
            likeness.luma_error.1 += samples[0];
            likeness.all_error.0 += error.iter().sum::<u64>();
            likeness.all_error.1 += samples.iter().sum::<u64>();
            likeness.psnr.push((at, likeness::psnr(error[0], samples[0] as usize)));
            likeness.ssim.push((at, ssim));
        }
    }

    fn finish(mut self) -> Found {
        if let Some(decoder) = &mut self.decoder {
            if self.found.error.is_none()
                && let Err(e) = decoder.finish()
            {
                self.found.error = Some(e);
            }
            let (corrupted, warnings) = decoder.damage();
            self.found.corrupted = corrupted;
            self.found.warnings = warnings.to_vec();
        }
        // An index may have a longer duration for the last picture than the picture itself.
        let claimed = self.decoder.as_ref().filter(|_| !self.chain).and_then(Decoder::duration).unwrap_or(0.0);
        self.decoder = None;
        self.found.black = self.black.finish();
        self.found.freeze = self.freeze.finish();
        self.found.sound = std::mem::take(&mut *self.sound.lock()).finish();
        let first = self.first_at.unwrap_or(0.0);
        let end = first + self.found.video_seconds;
        self.found.first_seconds = first;
        self.found.shown_seconds = self.found.video_seconds.max(claimed - first);
        if let Some(sound) = &mut self.found.sound {
            // The clock of a chain of segments comes with the pictures: sound before them is there, and is not demultiplexed.
            let from = if self.chain { first } else { 0.0 };
            sound.count_from(self.base, (from, end));
            let until = pictures::stands_until((end * 1e9) as u64, Some((sound.end_seconds * 1e9) as u64));
            self.found.shown_seconds = (until as f64 / 1e9 - first).max(self.found.shown_seconds);
        }
        self.found
    }
}

/// Width, height and checksum of an output's picture.
type Key = (usize, usize, u32);

/// A picture of the source, with what it was scaled to and compared with.
struct Kept {
    at: f64,
    /// Until when it stands: the next one's time; for ever as long as there is none.
    until: f64,
    frame: Frame,
    thumb: Thumb,
    scaled: Vec<[Plane; 3]>,
    /// Renditions that share one encode decode to the same bits: those are compared once.
    compared: Vec<(Key, [u64; 3], f64)>,
}

impl Kept {
    /// How much later than in the source a picture is shown at `at`, in seconds. One that is held is late from the end of
    /// its time on, less the tick that it lasts at least.
    fn off(&self, at: f64, tick: f64) -> f64 {
        let late = at - self.at;
        if late < tick {
            late
        } else if at < self.until {
            0.0
        } else {
            at - (self.until - tick).max(self.at)
        }
    }

    fn compare(&mut self, planes: &[Plane; 3]) -> ([u64; 3], f64) {
        let (w, h) = (planes[0].w, planes[0].h);
        let key = (w, h, crc32fast::hash(&planes[0].data) ^ crc32fast::hash(&planes[1].data).rotate_left(7));
        if let Some((_, error, ssim)) = self.compared.iter().find(|c| c.0 == key) {
            return (*error, *ssim);
        }
        if !self.scaled.iter().any(|p| (p[0].w, p[0].h) == (w, h)) {
            let rect = Rect::of(&self.frame);
            let siting = scale::siting(self.frame.picture.info());
            let own = |i: usize| {
                let siting = if i == 0 { Siting::default() } else { siting };
                scaled(cut(&self.frame, i, rect), (planes[i].w, planes[i].h), siting)
            };
            self.scaled.push([own(0), own(1), own(2)]);
        }
        let mut result = ([0; 3], 0.0);
        if let Some(own) = self.scaled.iter().find(|p| (p[0].w, p[0].h) == (w, h)) {
            result.0 = std::array::from_fn(|i| likeness::squared_error(&own[i], &planes[i]));
            result.1 = likeness::ssim(&own[0], &planes[0]);
        }
        self.compared.push((key, result.0, result.1));
        result
    }
}

/// A rectangle (in luma pixels) of one plane of a 4:2:0 picture.
fn cut(frame: &Frame, index: usize, rect: Rect) -> Plane {
    let shift = usize::from(index > 0);
    let (stride, bytes) = plane(frame, index as u32);
    let size = ((rect.w + shift) >> shift, (rect.h + shift) >> shift);
    Plane::cut(View { bytes, stride }, (rect.x >> shift, rect.y >> shift), size)
}

/// A plane in another size, by the arithmetic of the transcode.
fn scaled(plane: Plane, (w, h): (usize, usize), siting: Siting) -> Plane {
    if (plane.w, plane.h) == (w, h) {
        return plane;
    }
    let mut data = vec![0; w * h];
    let target = ViewMut { bytes: &mut data, stride: w };
    Resampler::new((plane.w, plane.h), (w, h), siting).run(plane.view(), target);
    Plane { w, h, data }
}

/// The source, with the few pictures around the present.
struct Reference {
    lane: Lane,
    window: VecDeque<Kept>,
}

impl Reference {
    /// Brings the window to the pictures around `at`.
    fn bring_to(&mut self, at: f64, frame_seconds: f64) -> Result<(), TaskError> {
        let reach = 2.2 * frame_seconds.max(self.lane.frame_seconds());
        while self.window.back().is_none_or(|k| k.at < at + reach) && self.pull()? {}
        while self.window.len() > 1 && self.window[1].at < at - reach {
            self.window.pop_front();
        }
        Ok(())
    }

    /// Takes one more picture in; false at the end.
    fn pull(&mut self) -> Result<bool, TaskError> {
        let Some(frame) = self.lane.pending.take() else { return Ok(false) };
        let thumb = Thumb::of(&frame, Rect::of(&frame));
        self.lane.look(&frame, &thumb);
        let at = frame.at - self.lane.base;
        if let Some(before) = self.window.back_mut() {
            before.until = at;
        }
        self.window.push_back(Kept {
            at,
            until: f64::INFINITY,
            frame,
            thumb,
            scaled: Vec::new(),
            compared: Vec::new(),
        });
        // Bounded even while no output is left that moves it on.
        while self.window.len() > 64 {
            self.window.pop_front();
        }
        self.lane.pull();
        match self.lane.found.error.take() {
            Some(error) => Err(error),
            None => Ok(true),
        }
    }

    /// The picture that stands at this time, unless another nearby is clearly more alike.
    fn most_alike(&mut self, (at, tick): (f64, f64), thumb: &Thumb) -> Option<&mut Kept> {
        let own = self.lane.frame_seconds();
        let reach = 2.2 * own;
        // Half a picture's time is forgiven: pictures of another rate come between those of the source.
        let stands = self.window.iter().rposition(|kept| kept.at <= at + own.min(tick) / 2.0);
        let nearest = stands.unwrap_or(0).min(self.window.len().checked_sub(1)?);
        let mut best = (nearest, self.window[nearest].thumb.distance(thumb));
        for (i, kept) in self.window.iter().enumerate() {
            let distance = kept.thumb.distance(thumb);
            if (kept.at - at).abs() <= reach && distance < best.1 * 0.8 - 0.02 {
                best = (i, distance);
            }
        }
        self.window.get_mut(best.0)
    }

    fn seconds(&self) -> f64 {
        self.lane.decoder.as_ref().and_then(Decoder::duration).unwrap_or(60.0)
    }

    /// Width to height as shown.
    fn shape(&self) -> f64 {
        let frame = self.window.front().map(|k| &k.frame).or(self.lane.pending.as_ref());
        frame.map_or(16.0 / 9.0, shape_of)
    }
}

fn shape_of(frame: &Frame) -> f64 {
    let par = frame.picture.info().par();
    let par = f64::from(par.numer()) / f64::from(par.denom().max(1));
    f64::from(frame.picture.width()) * par / f64::from(frame.picture.height().max(1))
}

/// The part of an output's picture that shows the source: all but the bars that keep its shape.
fn active_part(frame: &Frame, shape: f64) -> Rect {
    let whole = Rect::of(frame);
    let own = shape_of(frame);
    let even = |v: f64| ((v / 2.0).round() * 2.0) as usize;
    if (own / shape - 1.0).abs() < 0.02 || shape <= 0.0 {
        return whole;
    }
    if own > shape {
        let w = even(whole.w as f64 * shape / own).clamp(2, whole.w);
        Rect { x: ((whole.w - w) / 2) & !1, w, ..whole }
    } else {
        let h = even(whole.h as f64 * own / shape).clamp(2, whole.h);
        Rect { y: ((whole.h - h) / 2) & !1, h, ..whole }
    }
}
