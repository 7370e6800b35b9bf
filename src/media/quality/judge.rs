//! From measurements to a judgement.
//!
//! Score of one output = 0.5 × fidelity + 0.5 × integrity.
//!
//! - *fidelity* = 0.6 × s + 0.4 × p, where s = 0.7 × ramp(mean SSIM) + 0.3 × ramp(SSIM that 95 % of the pictures reach)
//!   with the ramp going from 0 at 0.75 to 1 at 0.97, and p the luma PSNR on a ramp from 26 to 38 dB. Outputs without
//!   pictures of their own (sound, thumbnails) have fidelity 1.
//! - *integrity* = share of the output's other checks that passed, a critical one counting three times.
//!
//! `qualityScore` is the score of the worst output: one bad rendition spoils a delivery. `passed` asks for the score
//! and for no failed critical check.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::pass::{Found, Likeness};
use crate::analysis::report::round;
use crate::analysis::spans::{self, Span};

/// Limits, each of which the Task may set.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Thresholds {
    pub score_min: f64,
    /// Pictures that an encoder may add or drop at the ends.
    pub frames_off_max: f64,
    pub duration_off_ms_max: f64,
    pub psnr_db_min: f64,
    pub ssim_min: f64,
    pub unlike_share_max: f64,
    pub fault_seconds_max: f64,
    pub loudness_off_lu_max: f64,
    pub true_peak_dbtp_max: f64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            score_min: 0.8,
            frames_off_max: 4.0,
            duration_off_ms_max: 150.0,
            psnr_db_min: 28.0,
            ssim_min: 0.80,
            unlike_share_max: 0.02,
            fault_seconds_max: 1.0,
            loudness_off_lu_max: 3.0,
            true_peak_dbtp_max: 1.0,
        }
    }
}

/// Pictures that last long may not excuse more of a difference than this.
const FRAMES_OFF_MS_MAX: f64 = 1_000.0;

/// One question and its answer.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub output: String,
    pub passed: bool,
    pub critical: bool,
    pub value: Value,
    pub limit: Value,
    pub message: String,
}

/// Gathers the checks of one output.
pub struct Sheet {
    output: String,
    pub checks: Vec<Check>,
}

impl Sheet {
    pub fn of(output: impl ToString) -> Sheet {
        Sheet { output: output.to_string(), checks: Vec::new() }
    }

    pub fn add(
        &mut self,
        name: &'static str,
        critical: bool,
        passed: bool,
        value: Value,
        limit: Value,
        message: String,
    ) {
        let message = if passed { String::new() } else { message };
        self.checks.push(Check { name, output: self.output.clone(), passed, critical, value, limit, message });
    }

    /// The share of checks passed, critical ones counting three times; likeness counts under fidelity.
    fn integrity(&self) -> f64 {
        let weigh = |c: &&Check| if c.critical { 3.0 } else { 1.0 };
        let counted: Vec<&Check> = self.checks.iter().filter(|c| !["psnr", "ssim"].contains(&c.name)).collect();
        let all: f64 = counted.iter().map(weigh).sum();
        let good: f64 = counted.iter().filter(|c| c.passed).map(weigh).sum();
        if all > 0.0 { good / all } else { 1.0 }
    }

    pub fn score(&self, fidelity: f64) -> f64 {
        0.5 * fidelity + 0.5 * self.integrity()
    }
}

/// How like the source, 0 to 1.
pub fn fidelity(likeness: &Likeness) -> f64 {
    let ramp = |v: f64, from: f64, to: f64| ((v - from) / (to - from)).clamp(0.0, 1.0);
    let ssim = 0.7 * ramp(likeness.ssim_mean(), 0.75, 0.97) + 0.3 * ramp(likeness.ssim_low(), 0.75, 0.97);
    0.6 * ssim + 0.4 * ramp(likeness.psnr_total().0, 26.0, 38.0)
}

/// What is asked of an output beyond being like the source.
#[derive(Clone, Copy)]
pub struct Expect {
    pub video: bool,
    pub audio: bool,
}

/// All checks that come from decoding one output.
pub fn decoded(sheet: &mut Sheet, source: &Found, out: &Found, expect: Expect, t: &Thresholds) {
    let error = out.error.as_ref().map(ToString::to_string);
    let whole = error.is_none() && out.corrupted == 0 && (out.frames > 0 || !expect.video);
    let why = error.unwrap_or_else(|| format!("{} pictures decoded, {} of them damaged", out.frames, out.corrupted));
    sheet.add(
        "decodes",
        true,
        whole,
        json!(out.frames),
        json!("to its end, undamaged"),
        format!("it does not decode completely: {why}"),
    );
    if expect.video && out.frames > 0 {
        sheet.add(
            "standardRange",
            true,
            !out.tone_mapped,
            json!(if out.tone_mapped { "high dynamic range" } else { "standard range" }),
            json!("standard range"),
            "its pictures are marked as high dynamic range; players without HDR show them grey. Transcode it again"
                .into(),
        );
        pictures(sheet, source, out, t);
    }
    sound(sheet, source, out, expect, t);
}

fn pictures(sheet: &mut Sheet, source: &Found, out: &Found, t: &Thresholds) {
    let fps = if out.fps > 0.0 { out.fps } else { 25.0 };
    // The last picture may stand for its own time or for as long as there is sound.
    let beyond = |value: f64, from: f64, to: f64| (value - to).max(0.0) + (value - from).min(0.0);
    let off_ms = beyond(out.video_seconds, source.video_seconds, source.shown_seconds) * 1000.0;
    let limit_ms = t.duration_off_ms_max.max((t.frames_off_max * 1000.0 / fps).min(FRAMES_OFF_MS_MAX));
    let seconds = (out.video_seconds, source.video_seconds);
    sheet.add(
        "duration",
        true,
        off_ms.abs() <= limit_ms,
        json!(round(off_ms, 0)),
        json!(round(limit_ms, 0)),
        format!("it shows {:.2} s of the source's {:.2} s", seconds.0, seconds.1),
    );
    let (least, most) = (source.video_seconds * fps, source.shown_seconds * fps);
    let limit = t.frames_off_max + most * 0.001;
    sheet.add(
        "frameCount",
        false,
        beyond(out.frames as f64, least, most).abs() <= limit,
        json!(out.frames),
        json!([round(least - limit, 0), round(most + limit, 0)]),
        format!("it has {} pictures where {least:.0} were expected at {fps:.3} a second", out.frames),
    );
    sheet.add(
        "order",
        true,
        out.disordered == 0,
        json!(out.disordered),
        json!(0),
        format!("{} of its pictures do not come later than the one before; players stumble there", out.disordered),
    );
    if let Some(likeness) = &out.likeness {
        let (psnr, ssim) = (likeness.psnr_total().0, likeness.ssim_mean());
        sheet.add(
            "psnr",
            false,
            psnr >= t.psnr_db_min,
            json!(round(psnr, 2)),
            json!(t.psnr_db_min),
            format!("PSNR is {psnr:.1} dB: visibly worse than the source"),
        );
        sheet.add(
            "ssim",
            false,
            ssim >= t.ssim_min,
            json!(round(ssim, 4)),
            json!(t.ssim_min),
            format!("SSIM is {ssim:.3}: visibly worse than the source"),
        );
        let share = likeness.unlike as f64 / out.frames as f64;
        sheet.add(
            "samePicture",
            true,
            share <= t.unlike_share_max,
            json!(round(share, 4)),
            json!(t.unlike_share_max),
            format!("{} of {} pictures show something else than the source at that time", likeness.unlike, out.frames),
        );
        let (offset, limit) = (likeness.offset() * 1000.0, 1500.0 / fps);
        sheet.add(
            "timing",
            false,
            offset.abs() <= limit,
            json!(round(offset, 1)),
            json!(round(limit, 1)),
            format!("pictures come {offset:.0} ms off the source's time"),
        );
    }
    let black = spans::outside(&out.black, &source.black, 0.2, 0.0);
    spans_check(sheet, "black", "is black where the source is not", &black, t);
    spans_check(sheet, "freeze", "stands still where the source moves", &frozen(source, out), t);
}

/// Still spans of the output in which the source moved.
fn frozen(source: &Found, out: &Found) -> Vec<Span> {
    let moved = |s: &Span| {
        let inside = source.motion.iter().filter(|(at, _)| *at > s.start && *at < s.end);
        inside.map(|(_, d)| *d).sum::<f32>() / s.seconds().max(0.1) as f32
    };
    // An encoder rightly drops what hardly moves: at least one level a second must have been lost.
    spans::outside(&out.freeze, &source.freeze, 0.5, 0.0).into_iter().filter(|s| moved(s) > 1.0).collect()
}

fn sound(sheet: &mut Sheet, source: &Found, out: &Found, expect: Expect, t: &Thresholds) {
    let Some(own) = source.sound.as_ref() else { return };
    if !expect.audio {
        return;
    }
    sheet.add(
        "audio",
        true,
        out.sound.is_some(),
        json!(out.has_audio),
        json!(true),
        "the source has sound and this output has none".into(),
    );
    let Some(heard) = &out.sound else { return };
    let silent = spans::outside(&heard.silence, &own.silence, 0.3, 0.0);
    spans_check(sheet, "silence", "is silent where the source is not", &silent, t);
    // Silence in front, where the source has no sound yet, makes nothing longer.
    let off_ms = (heard.end_seconds - own.end_seconds) * 1000.0;
    // Sound may be cut or filled up to the length of the pictures.
    let slack = ((own.end_seconds - own.start_seconds) - source.video_seconds).abs() * 1000.0;
    let limit = t.duration_off_ms_max.max(200.0) + slack;
    sheet.add(
        "audioDuration",
        true,
        off_ms.abs() <= limit,
        json!(round(off_ms, 0)),
        json!(round(limit, 0)),
        format!("its sound ends {off_ms:+.0} ms off the source's"),
    );
    if let (Some(a), Some(b)) = (heard.loudness_lufs, own.loudness_lufs) {
        // A mix-down from more channels moves loudness by its nature.
        let limit = t.loudness_off_lu_max + if own.channels != heard.channels { 3.0 } else { 0.0 };
        sheet.add(
            "loudness",
            false,
            (a - b).abs() <= limit,
            json!(round(a - b, 1)),
            json!(limit),
            format!("its loudness is {a:.1} LUFS, the source's {b:.1} LUFS"),
        );
    }
    if let Some(peak) = heard.true_peak_dbtp {
        let limit = own.true_peak_dbtp.map_or(t.true_peak_dbtp_max, |p| (p + 1.0).max(t.true_peak_dbtp_max));
        sheet.add(
            "truePeak",
            false,
            peak <= limit,
            json!(round(peak, 1)),
            json!(round(limit, 1)),
            format!("its true peak is {peak:.1} dBTP: players will clip"),
        );
    }
}

fn spans_check(sheet: &mut Sheet, name: &'static str, what: &str, faults: &[Span], t: &Thresholds) {
    let longest = faults.iter().max_by(|a, b| a.seconds().total_cmp(&b.seconds()));
    let seconds = longest.map_or(0.0, Span::seconds);
    let message = longest.map_or(String::new(), |s| format!("it {what}, from {:.1} to {:.1} s", s.start, s.end));
    sheet.add(name, true, seconds < t.fault_seconds_max, json!(round(seconds, 2)), json!(t.fault_seconds_max), message);
}
