//! The `sanitize` stage: is this file whole, is it moving pictures, and may it go on?
//!
//! Decodes a stretch from the start, the middle and the end, and looks at every coded picture in between without decoding
//! it. Never changes or moves the file: quarantine is
//! for the workflow to decide.

use conveyor_base::TaskError;
use conveyor_job::{Job, Progress, Reporter};
use serde_json::{Value, json};

use super::container::{self, Kind};
use super::input::Input;
use super::probe::inspect::{Sample, inspect, open};
use super::probe::{Media, describe};
use super::survey;

/// Share of the claimed duration that may be missing at the end before a file counts as cut off.
const MISSING_FRACTION_MAX: f64 = 0.05;
/// Seconds at the end that are decoded; an end that starts this far off shows nothing.
const END_SECONDS: f64 = 3.0;

/// Films without an index that are no longer than this are decoded whole: jumps in them lead astray.
const WHOLE_SECONDS_MAX: u64 = 30;

/// `{"input", "minDurationSeconds"?, "maxDurationSeconds"?, "suffixes"?}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let limits = Limits::of(&job.parameters)?;
    let input = Input::from_parameter(job, "input")?;
    limits.check_name(&input)?;
    let on_progress =
        |fraction: f64| reporter.progress(Progress { fraction, doing: "checking".into(), ..Progress::default() });
    on_progress(0.0);
    let media = inspect(&input, job.threads)?;
    on_progress(0.4);
    refuse_pictureless(&input, &media)?;
    limits.check_duration(&input, &media)?;
    let samples = sample_all(&input, &media, job.threads, &on_progress)?;
    on_progress(0.6);
    let survey = survey::survey(&input, &media, &|share| on_progress(0.6 + 0.4 * share))?;
    let mut warnings = survey.judge(&input, &media)?;
    on_progress(1.0);
    if !media.unknown.is_empty() {
        warnings.push(format!("streams without a decoder are left out: {}", media.unknown.join(", ")));
    }
    Ok(json!({
        "accepted": true,
        "input": input.uri,
        "sizeBytes": input.size,
        "sampledFrames": samples,
        "surveyed": { "units": survey.units, "damaged": survey.damaged },
        "warnings": warnings,
        "metadata": describe::describe(&input, &media),
    }))
}

/// What the workflow allows.
struct Limits {
    seconds_min: Option<f64>,
    seconds_max: Option<f64>,
    suffixes: Vec<String>,
}

impl Limits {
    fn of(parameters: &Value) -> Result<Limits, TaskError> {
        let number = |name: &str| match parameters.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => v.as_f64().filter(|n| *n >= 0.0).map(Some).ok_or_else(|| {
                TaskError::new("Media.InvalidParameter", format!("/{name}: must be a number of seconds, is {v}"))
            }),
        };
        let suffixes = match parameters.get("suffixes") {
            None | Some(Value::Null) => Vec::new(),
            Some(v) => serde_json::from_value(v.clone()).map_err(|_| {
                TaskError::new(
                    "Media.InvalidParameter",
                    format!("/suffixes: must be a list such as [\".mp4\"], is {v}"),
                )
            })?,
        };
        Ok(Limits { seconds_min: number("minDurationSeconds")?, seconds_max: number("maxDurationSeconds")?, suffixes })
    }

    fn check_name(&self, input: &Input) -> Result<(), TaskError> {
        let name = input.uri.file_name().to_lowercase();
        if self.suffixes.is_empty() || self.suffixes.iter().any(|s| name.ends_with(&s.to_lowercase())) {
            return Ok(());
        }
        Err(input.error(
            "Media.WrongSuffix",
            format!("does not end in one of {}; rename it or extend the list", self.suffixes.join(", ")),
        ))
    }

    fn check_duration(&self, input: &Input, media: &Media) -> Result<(), TaskError> {
        let Some(seconds) = media.duration_ns.map(|ns| ns as f64 / 1e9) else { return Ok(()) };
        if let Some(min) = self.seconds_min.filter(|min| seconds < *min) {
            return Err(input.error(
                "Media.TooShort",
                format!("lasts {seconds:.3} s; at least {min} s are wanted (minDurationSeconds)"),
            ));
        }
        if let Some(max) = self.seconds_max.filter(|max| seconds > *max) {
            return Err(input.error(
                "Media.TooLong",
                format!("lasts {seconds:.3} s; at most {max} s are allowed (maxDurationSeconds)"),
            ));
        }
        Ok(())
    }
}

/// Sound alone, and codecs that nobody here can decode, go no further.
pub fn refuse_pictureless(input: &Input, media: &Media) -> Result<(), TaskError> {
    if !media.video.is_empty() {
        return Ok(());
    }
    let video: Vec<&str> = media.unknown.iter().map(String::as_str).filter(|c| c.starts_with("video/")).collect();
    if !video.is_empty() {
        return Err(input.error(
            "Media.UnsupportedCodec",
            format!(
                "has pictures in a codec without a decoder here ({}); convert it to a common codec",
                video.join(", ")
            ),
        ));
    }
    Err(input.error("Media.NoVideo", "holds sound and no picture; drop a file with video"))
}

/// Decodes start, middle and end; the number of frames seen in each.
fn sample_all(input: &Input, media: &Media, threads: usize, on_progress: &dyn Fn(f64)) -> Result<[u64; 3], TaskError> {
    let opened = open(input, threads)?;
    let Some(duration) = media.duration_ns.filter(|_| opened.seekable()) else {
        let start = opened.sample(input, 0, 2_000_000_000)?;
        judge(input, "start", 0.0, &start)?;
        return Ok([start.frames, 0, 0]);
    };
    let second = 1_000_000_000;
    let jumps = !matches!(media.container.kind, Kind::MpegTs | Kind::MpegPs);
    if !jumps && duration <= WHOLE_SECONDS_MAX * second {
        let all = opened.sample(input, 0, duration.saturating_add(second))?;
        judge(input, "start", 0.0, &all)?;
        reaches_end(input, media, duration, &all)?;
        return Ok([all.frames; 3]);
    }
    // Sound may come before the first picture.
    let first = media.video.first().and_then(|video| video.first_ns).unwrap_or(0);
    let start = opened.sample(input, 0, first.saturating_add(second).min(duration))?;
    judge(input, "start", 0.0, &start)?;
    on_progress(0.5);
    let at = duration / 2;
    let middle = opened.sample(input, at, (at + second).min(duration))?;
    judge(input, "middle", at as f64 / 1e9, &forgive(media, middle.clone()))?;
    on_progress(0.55);
    let at = duration.saturating_sub((END_SECONDS * 1e9) as u64);
    let end = opened.sample(input, at, duration.saturating_add(second))?;
    reaches_end(input, media, duration, &end)?;
    // Sound may go on alone: then no picture is left to be judged.
    if end.frames > 0 {
        judge(input, "end", at as f64 / 1e9, &forgive(media, end.clone()))?;
    }
    Ok([start.frames, middle.frames, end.frames])
}

/// A file that was cut off has neither pictures nor sound at its end; the last picture may stand on below the sound.
fn reaches_end(input: &Input, media: &Media, duration: u64, end: &Sample) -> Result<(), TaskError> {
    // All that an index lists is there, as was looked at before; the last picture it lists may stand for long.
    if media.container.mp4.as_ref().is_some_and(|mp4| !mp4.fragmented) && end.frames > 0 {
        return Ok(());
    }
    let whole = duration as f64 / 1e9;
    let last = end.end_ns.max(end.sound_end_ns) as f64 / 1e9;
    if whole - last <= (whole * MISSING_FRACTION_MAX).max(END_SECONDS) && end.frames + end.sound_end_ns > 0 {
        return Ok(());
    }
    let what = if media.audio.is_empty() { "its last picture ends" } else { "its last picture and sound end" };
    Err(container::truncated(input, format!("it claims {whole:.2} s and {what} at {last:.2} s")))
}

/// Where there is no index, a jump lands between keyframes and the first pictures after it are broken by nature.
fn forgive(media: &Media, mut sample: Sample) -> Sample {
    if matches!(media.container.kind, Kind::MpegTs | Kind::MpegPs | Kind::Other) {
        sample.corrupted = 0;
    }
    sample
}

fn judge(input: &Input, place: &str, at: f64, sample: &Sample) -> Result<(), TaskError> {
    if sample.frames == 0 {
        return Err(input.error(
            "Media.Corrupt",
            format!("gives no picture at its {place} ({at:.1} s); copy it again from where it was made"),
        ));
    }
    if sample.corrupted * 4 > sample.frames {
        return Err(input.error(
            "Media.Corrupt",
            format!(
                "is damaged at its {place} ({at:.1} s): {} of {} pictures are broken; copy it again from where it was made",
                sample.corrupted, sample.frames
            ),
        ));
    }
    Ok(())
}
