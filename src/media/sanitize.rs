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
    let mut metadata = describe::describe(&input, &media);
    // Of which file all of this is: what is published hours later is compared with it.
    metadata["version"] = json!(input.meta()?.version());
    Ok(json!({
        "accepted": true,
        "input": input.uri,
        "sizeBytes": input.size,
        "sampledFrames": samples,
        "surveyed": { "units": survey.units, "damaged": survey.damaged },
        "warnings": warnings,
        "metadata": metadata,
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
    let start = opened.sample(input, 0, second.min(duration))?;
    judge(input, "start", 0.0, &start)?;
    on_progress(0.5);
    let at = duration / 2;
    let middle = opened.sample(input, at, (at + second).min(duration))?;
    judge(input, "middle", at as f64 / 1e9, &forgive(media, middle.clone()))?;
    on_progress(0.55);
    let at = duration.saturating_sub((END_SECONDS * 1e9) as u64);
    let end = opened.sample(input, at, duration.saturating_add(second))?;
    let last = end.pts_ns.iter().max().copied().unwrap_or(0) as f64 / 1e9;
    let whole = duration as f64 / 1e9;
    let missing = whole - last;
    if end.frames == 0 || missing > (whole * MISSING_FRACTION_MAX).max(END_SECONDS) {
        let audio = if media.audio.is_empty() { "" } else { " (its sound may go on longer than its picture)" };
        return Err(container::truncated(
            input,
            format!("it claims {whole:.2} s and its last picture stands at {last:.2} s{audio}"),
        ));
    }
    judge(input, "end", at as f64 / 1e9, &forgive(media, end.clone()))?;
    Ok([start.frames, middle.frames, end.frames])
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
