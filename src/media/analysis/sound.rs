//! What sound is like: EBU R128 loudness, peaks, silence, and speech-like stretches by energy.

use ebur128::{EbuR128, Mode};
use serde::Serialize;

use super::decode::Sound;
use super::spans::{Span, SpanFinder, round};

/// Below this level a stretch counts as silent.
const SILENT_DBFS: f32 = -60.0;
const SILENT_SECONDS_MIN: f64 = 1.0;
/// Time without samples that is more than rounding.
const GAP_SECONDS_MIN: f64 = 0.02;
/// Length of one piece that level is taken over.
const WINDOW_SECONDS: f64 = 0.05;

/// Loudness and silence of one stream, measured as it is decoded.
pub struct SoundMeter {
    loudness: Option<EbuR128>,
    silence: SpanFinder,
    window: Vec<f32>,
    window_at: f64,
    /// Momentary loudness at each full second, for a plot.
    series: Vec<f64>,
    next_second: f64,
    first_at: Option<f64>,
    end_at: f64,
    channels: u32,
}

/// What a [`SoundMeter`] has measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    pub channels: u32,
    pub start_seconds: f64,
    pub end_seconds: f64,
    /// Integrated loudness; none where all of it is below the gate.
    pub loudness_lufs: Option<f64>,
    pub loudness_range_lu: Option<f64>,
    pub true_peak_dbtp: Option<f64>,
    pub silence: Vec<Span>,
    #[serde(skip)]
    pub series: Vec<f64>,
}

impl Measured {
    /// Counts all times from `base` on. What lies between `from` and the sound, and between its end and `until`, counted so,
    /// is silent too.
    pub fn count_from(&mut self, base: f64, (from, until): (f64, f64)) {
        self.start_seconds -= base;
        self.end_seconds -= base;
        let shifted = self.silence.iter().map(|s| Span { start: s.start - base, end: s.end - base });
        let (before, behind) = ((from, self.start_seconds), (self.end_seconds, until));
        let around = [before, behind].map(|(start, end)| Span { start, end });
        self.silence = shifted.chain(around).filter(|s| s.seconds() > GAP_SECONDS_MIN).collect();
    }
}

impl Default for SoundMeter {
    fn default() -> SoundMeter {
        SoundMeter {
            loudness: None,
            silence: SpanFinder::new(SILENT_SECONDS_MIN),
            window: Vec::new(),
            window_at: 0.0,
            series: Vec::new(),
            next_second: 0.0,
            first_at: None,
            end_at: 0.0,
            channels: 0,
        }
    }
}

impl SoundMeter {
    pub fn feed(&mut self, sound: &Sound<'_>) {
        let channels = sound.channels.max(1) as usize;
        if self.first_at.is_none() {
            self.first_at = Some(sound.at);
            self.next_second = sound.at + 1.0;
            self.channels = sound.channels;
            self.loudness = EbuR128::new(sound.channels, sound.rate, Mode::I | Mode::LRA | Mode::TRUE_PEAK).ok();
        }
        // Where there are no samples nothing is heard.
        if self.end_at > 0.0 && sound.at > self.end_at + GAP_SECONDS_MIN {
            self.window.clear();
            self.silence.feed(self.end_at, sound.at, true);
        }
        self.end_at = sound.at + (sound.samples.len() / channels) as f64 / f64::from(sound.rate);
        if let Some(loudness) = &mut self.loudness
            && loudness.channels() == sound.channels
        {
            let _ = loudness.add_frames_f32(sound.samples);
            if self.end_at >= self.next_second {
                self.series.push(loudness.loudness_momentary().unwrap_or(f64::NEG_INFINITY));
                self.next_second += 1.0;
            }
        }
        self.look_for_silence(sound, channels);
    }

    fn look_for_silence(&mut self, sound: &Sound<'_>, channels: usize) {
        let length = (f64::from(sound.rate) * WINDOW_SECONDS) as usize * channels;
        let mut at = sound.at;
        for piece in sound.samples.chunks(length.max(1)) {
            if self.window.is_empty() {
                self.window_at = at;
            }
            self.window.extend_from_slice(piece);
            at += (piece.len() / channels) as f64 / f64::from(sound.rate);
            if self.window.len() >= length {
                self.silence.feed(self.window_at, at, level_dbfs(&self.window) < SILENT_DBFS);
                self.window.clear();
            }
        }
    }

    pub fn finish(self) -> Option<Measured> {
        let start = self.first_at?;
        let loudness = self.loudness.as_ref();
        let peak = loudness.and_then(|l| (0..l.channels()).filter_map(|c| l.true_peak(c).ok()).reduce(f64::max));
        let finite = |v: f64| v.is_finite().then(|| (v * 100.0).round() / 100.0);
        Some(Measured {
            channels: self.channels,
            start_seconds: round(start),
            end_seconds: round(self.end_at),
            loudness_lufs: loudness.and_then(|l| l.loudness_global().ok()).and_then(finite),
            loudness_range_lu: loudness.and_then(|l| l.loudness_range().ok()).and_then(finite),
            true_peak_dbtp: peak.and_then(|p| finite(20.0 * p.log10())),
            silence: self.silence.finish(),
            series: self.series,
        })
    }
}

/// Root mean square level.
pub fn level_dbfs(samples: &[f32]) -> f32 {
    let sum: f32 = samples.iter().map(|s| s * s).sum();
    10.0 * (sum / samples.len().max(1) as f32).max(1e-12).log10()
}

/// Speech-like stretches, from 16 kHz mono sound: loud against the noise floor, most of the energy between 300 and
/// 3,400 Hz, and a level that rises and falls as syllables do.
#[derive(Default)]
pub struct VoiceMeter {
    at: Option<f64>,
    window: Vec<f32>,
    windows: Vec<Window>,
    low: [f32; 2],
    high: [f32; 2],
}

#[derive(Clone, Copy)]
struct Window {
    level: f32,
    band_share: f32,
}

/// 20 ms at 16 kHz.
pub const VOICE_RATE: u32 = 16_000;
const VOICE_WINDOW: usize = 320;
const VOICE_SECONDS: f64 = 0.02;
const ABOVE_FLOOR_DB: f32 = 9.0;
const BAND_SHARE_MIN: f32 = 0.45;
/// Within a second of speech the level swings at least this much (steady tones and hum do not).
const SWING_DB_MIN: f32 = 8.0;

impl VoiceMeter {
    pub fn feed(&mut self, sound: &Sound<'_>) {
        self.at.get_or_insert(sound.at);
        for &sample in sound.samples {
            self.window.push(sample);
            if self.window.len() == VOICE_WINDOW {
                let window = self.measure();
                self.windows.push(window);
                self.window.clear();
            }
        }
    }

    fn measure(&mut self) -> Window {
        // One-pole filters at 300 and 3,400 Hz, in twos: gentle, cheap, and enough for a share of energy.
        let pole = |hz: f32| 1.0 - (-2.0 * std::f32::consts::PI * hz / VOICE_RATE as f32).exp();
        let (a_high, a_low) = (pole(300.0), pole(3400.0));
        let (mut band, mut all) = (0f32, 0f32);
        for &x in &self.window {
            let mut y = x;
            for low in &mut self.low {
                *low += a_low * (y - *low);
                y = *low;
            }
            for high in &mut self.high {
                *high += a_high * (y - *high);
                y -= *high;
            }
            band += y * y;
            all += x * x;
        }
        Window { level: level_dbfs(&self.window), band_share: if all > 1e-9 { band / all } else { 0.0 } }
    }

    /// Speech-like and silent spans.
    pub fn finish(self) -> (Vec<Span>, Vec<Span>) {
        let base = self.at.unwrap_or(0.0);
        let time = |i: usize| base + i as f64 * VOICE_SECONDS;
        let mut levels: Vec<f32> = self.windows.iter().map(|w| w.level).collect();
        levels.sort_by(f32::total_cmp);
        // The quietest tenth is taken for the floor; digital silence says nothing about the noise under speech.
        let floor = levels.get(levels.len() / 10).copied().unwrap_or(-90.0).clamp(-75.0, -30.0);
        let (mut speech, mut silence) = (SpanFinder::new(0.3), SpanFinder::new(SILENT_SECONDS_MIN));
        let mut hangover = 0usize;
        for (i, window) in self.windows.iter().enumerate() {
            let around = &self.windows[i.saturating_sub(25)..(i + 25).min(self.windows.len())];
            let (low, high) = around.iter().fold((f32::MAX, f32::MIN), |(l, h), w| (l.min(w.level), h.max(w.level)));
            let voiced =
                window.level > floor + ABOVE_FLOOR_DB && window.level > -50.0 && window.band_share > BAND_SHARE_MIN;
            let lively = high - low > SWING_DB_MIN;
            hangover = if voiced && lively { 20 } else { hangover.saturating_sub(1) };
            speech.feed(time(i), time(i + 1), hangover > 0);
            silence.feed(time(i), time(i + 1), window.level < SILENT_DBFS);
        }
        (speech.finish(), silence.finish())
    }
}
