//! The stage `quality`: a judgement of every output, from what it really contains.
//!
//! Each output is decoded completely and compared with the source; playlists are held against RFC 8216 and thumbnails
//! are opened. What is measured stands in `pass` and `playlist`; what it means, and the formula of the
//! score, in `judge`. It must never change a file.

pub mod judge;
pub mod pass;
pub mod playlist;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Reporter};
use gstreamer_video::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use self::judge::{Check, Expect, Sheet, Thresholds};
use self::pass::Found;
use self::playlist::{Hls, Rendition};
use super::analysis::decode::{Decoder, Picture, Source, Want};
use super::analysis::report::{self, Ticker, round};
use super::input::Input;

/// Points of a plot in the stage's result; the file under `destination` has them all.
/// How opening fails what is not there.
const VANISHED: &str = "Media.Vanished";
const SERIES_POINTS_MAX: usize = 120;
/// Spans of one kind in the stage's result.
const SPANS_MAX: usize = 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    #[serde(alias = "input")]
    source: Uri,
    /// Outputs by name, or a transcode's groups.
    #[serde(default)]
    outputs: Vec<Listed>,
    /// A transcode's result as MediaConvert's `OutputGroupDetails`.
    #[serde(default, alias = "OutputGroupDetails", alias = "outputGroupDetails")]
    output_groups: Vec<Value>,
    #[serde(default)]
    thresholds: Thresholds,
    /// Short for `thresholds.scoreMin`.
    #[serde(default)]
    pass_score: Option<f64>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Listed {
    One(Output),
    Group(Value),
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    /// `mp4`, `hls` or `thumbnails`; else told from the name.
    #[serde(default)]
    format: Option<String>,
    uri: Uri,
    /// False where an output has no sound on purpose.
    #[serde(default = "yes")]
    audio: bool,
    #[serde(default)]
    width: Option<u32>,
    #[serde(default)]
    height: Option<u32>,
}

fn yes() -> bool {
    true
}

/// `{"source", "outputs" or "outputGroups", "thresholds"?, "destination"?}` to
/// `{"qualityScore", "passed", "checks", "outputs", "report"}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let mut p: Parameters = super::files::fault::parameters(job)?;
    super::init()?;
    p.thresholds.score_min = p.pass_score.unwrap_or(p.thresholds.score_min);
    let listed = p.outputs.iter().flat_map(|listed| match listed {
        Listed::One(output) => vec![output.clone()],
        Listed::Group(group) => outputs_of_group(group),
    });
    let outputs: Vec<Output> = listed.chain(p.output_groups.iter().flat_map(outputs_of_group)).collect();
    if outputs.is_empty() {
        return Err(TaskError::new(
            "Files.InvalidParameter",
            "there is nothing to judge: give 'outputs' or a transcode's 'outputGroups'",
        ));
    }
    let source = Input::open(job, &p.source.to_string())?;
    let mut plan = Plan::default();
    for output in &outputs {
        plan.add(job, output)?;
    }
    let mut ticker = Ticker::new(reporter, "measuring", 0.0);
    let (own, found) = pass::measure(Source::File(source), plan.targets, job.threads, &mut ticker)?;
    plan.pages.judged(job, reporter, &p.thresholds, &own, &found)
}

/// The outputs of one group, with AWS's names in the spelling of the API or of its SDKs.
fn outputs_of_group(group: &Value) -> Vec<Output> {
    let field = |v: &Value, name: &str| -> Value {
        let small = format!("{}{}", name[..1].to_ascii_lowercase(), &name[1..]);
        v.get(name).or_else(|| v.get(small)).cloned().unwrap_or_default()
    };
    let uris = |v: Value| -> Vec<Uri> {
        v.as_array().into_iter().flatten().filter_map(|u| u.as_str()?.parse().ok()).collect()
    };
    let output = |uri, width: Option<u32>, height| Output { format: None, uri, audio: true, width, height };
    // The first playlist of an HLS group is the master, which names the others.
    if let Some(master) = uris(field(group, "PlaylistFilePaths")).into_iter().next() {
        return vec![output(master, None, None)];
    }
    let mut outputs = Vec::new();
    for detail in field(group, "OutputDetails").as_array().into_iter().flatten() {
        let video = field(detail, "VideoDetails");
        let pixels = |name: &str| field(&video, name).as_u64().and_then(|v| u32::try_from(v).ok());
        let (width, height) = (pixels("WidthInPx"), pixels("HeightInPx"));
        outputs.extend(uris(field(detail, "OutputFilePaths")).into_iter().map(|uri| output(uri, width, height)));
    }
    outputs
}

/// What is decoded, and what is asked about it.
#[derive(Default)]
struct Plan {
    targets: Vec<Source>,
    pages: Pages,
}

#[derive(Default)]
struct Pages(Vec<Page>);

/// One thing to judge.
struct Page {
    sheet: Sheet,
    expect: Expect,
    /// Which target was measured for it.
    target: Option<usize>,
    size: Option<(u64, u64)>,
    /// Sum of the segments' lengths.
    playlist_seconds: Option<f64>,
}

impl Plan {
    fn add(&mut self, job: &Job, output: &Output) -> Result<(), TaskError> {
        let name = output.uri.file_name().to_ascii_lowercase();
        let kind = output.format.as_deref().map(str::to_ascii_lowercase).unwrap_or_default();
        let mut sheet = Sheet::of(&output.uri);
        let size = output.width.zip(output.height).map(|(w, h)| (w.into(), h.into()));
        let image = [".jpg", ".jpeg", ".png"].iter().any(|s| name.ends_with(s));
        let mut page = |sheet, expect, target, size| {
            self.pages.0.push(Page { sheet, expect, target, size, playlist_seconds: None })
        };
        let nothing = Expect { video: false, audio: false };
        if image || kind == "thumbnails" {
            for uri in images_at(job, &output.uri)? {
                let mut sheet = Sheet::of(&uri);
                thumbnail(job, &uri, size, &mut sheet);
                page(sheet, nothing, None, None);
            }
        } else if kind == "hls" || name.ends_with(".m3u8") {
            match playlist::read(job, &output.uri) {
                Ok(hls) => self.add_hls(&output.uri, hls, output.audio),
                Err(e) if e.error == VANISHED => return Err(gone(&output.uri)),
                Err(e) => {
                    sheet.add("playlist", true, false, json!(e.error), json!("readable"), e.cause);
                    page(sheet, nothing, None, None);
                }
            }
        } else {
            match Input::open(job, &output.uri.to_string()) {
                Ok(input) => {
                    page(sheet, Expect { video: true, audio: output.audio }, Some(self.targets.len()), size);
                    self.targets.push(Source::File(input));
                }
                Err(e) if e.error == VANISHED => return Err(gone(&output.uri)),
                Err(e) => {
                    sheet.add("decodes", true, false, json!(e.error), json!("readable"), e.cause);
                    page(sheet, nothing, None, None);
                }
            }
        }
        Ok(())
    }

    fn add_hls(&mut self, master: &Uri, hls: Hls, audio: bool) {
        let mut sheet = Sheet::of(master);
        breaches(&mut sheet, &hls.breaches);
        if hls.renditions.iter().filter(|r| !r.audio_only).count() > 1 {
            listed(&mut sheet, "segmentAlignment", &hls.misaligned);
        }
        let single = hls.renditions.len() == 1 && hls.renditions[0].uri == *master;
        if !single {
            let nothing = Expect { video: false, audio: false };
            self.pages.0.push(Page { sheet, expect: nothing, target: None, size: None, playlist_seconds: None });
        }
        for rendition in hls.renditions {
            let mut sheet = Sheet::of(&rendition.uri);
            breaches(&mut sheet, &rendition.breaches);
            bandwidth(&mut sheet, &rendition);
            if !rendition.openings.is_empty() {
                listed(&mut sheet, "segmentKeyframes", &rendition.without_keyframe());
                listed(&mut sheet, "segmentLengths", &rendition.wrong_lengths());
            }
            let expect = Expect {
                video: !rendition.audio_only,
                audio: audio && (rendition.audio_only || rendition.audio_group.is_none()),
            };
            let readable = rendition.breaches.is_empty() || !rendition.parts.is_empty();
            let page = Page {
                sheet,
                expect,
                target: readable.then_some(self.targets.len()),
                size: rendition.size,
                playlist_seconds: Some(rendition.total_seconds()),
            };
            self.pages.0.push(page);
            if readable {
                let source = Source::Chain(rendition.input, rendition.parts);
                self.targets.push(source);
            }
        }
    }
}

/// What has gone since it was staged says nothing of the file that it was made from.
fn gone(output: &Uri) -> TaskError {
    let what = format!(
        "{output} was staged to be judged and is not there any more: its share was away or was emptied meanwhile. \
         Look after the share; the file is worked on again"
    );
    TaskError::new("Media.OutputIncomplete", what)
}

fn breaches(sheet: &mut Sheet, breaches: &[playlist::Breach]) {
    for critical in [true, false] {
        let broken: Vec<&str> =
            breaches.iter().filter(|b| b.critical == critical).map(|b| b.message.as_str()).collect();
        let name = if critical { "playlist" } else { "playlistAdvice" };
        let message = broken.iter().take(8).copied().collect::<Vec<_>>().join("; ");
        sheet.add(name, critical, broken.is_empty(), json!(broken.len()), json!(0), message);
    }
}

/// A check that passes where nothing is listed; the first few of many are named.
fn listed(sheet: &mut Sheet, name: &'static str, faults: &[String]) {
    let first = faults.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = if faults.len() > 5 { format!("; and {} more", faults.len() - 5) } else { String::new() };
    sheet.add(name, true, faults.is_empty(), json!(faults.len()), json!(0), first + &more);
}

fn bandwidth(sheet: &mut Sheet, rendition: &Rendition) {
    let Some(stated) = rendition.bandwidth else { return };
    let (mean, peak) = rendition.bitrates();
    // A tenth of slack: what counts as the peak depends on how segments are grouped.
    let enough = stated as f64 * 1.1 >= peak;
    sheet.add(
        "bandwidth",
        false,
        enough,
        json!(round(peak, 0)),
        json!(stated),
        format!(
            "BANDWIDTH says {stated}, but its segments peak at {peak:.0} bit/s (mean {mean:.0}); players will stall"
        ),
    );
}

/// An image, or all images in a folder.
fn images_at(job: &Job, uri: &Uri) -> Result<Vec<Uri>, TaskError> {
    let path = super::input::resolve(job, uri)?;
    if !path.is_dir() {
        return Ok(vec![uri.clone()]);
    }
    let mut names: Vec<String> = std::fs::read_dir(&path)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|n| [".jpg", ".jpeg", ".png"].iter().any(|s| n.to_ascii_lowercase().ends_with(s)))
        .collect();
    names.sort();
    Ok(names.iter().map(|n| Uri::new(uri.share.clone(), format!("{}/{n}", uri.key.trim_end_matches('/')))).collect())
}

fn thumbnail(job: &Job, uri: &Uri, size: Option<(u64, u64)>, sheet: &mut Sheet) {
    let opened = Input::open(job, &uri.to_string()).and_then(|input| {
        let want = Want { video: Some(Picture::default()), threads: 1, ..Want::default() };
        Decoder::open(Source::File(input), want)?.next_frame()
    });
    match opened {
        Ok(Some(frame)) => {
            let is = (u64::from(frame.picture.width()), u64::from(frame.picture.height()));
            sheet.add("decodes", true, true, json!(is), json!("a picture"), String::new());
            if let Some(size) = size {
                sheet.add("size", false, is == size, json!(is), json!(size), format!("it is {} x {}", is.0, is.1));
            }
        }
        Ok(None) => sheet.add("decodes", true, false, json!(0), json!("a picture"), "it holds no picture".into()),
        Err(e) => sheet.add("decodes", true, false, json!(e.error), json!("a picture"), e.cause),
    }
}

impl Pages {
    fn judged(
        self,
        job: &Job,
        reporter: &dyn Reporter,
        t: &Thresholds,
        source: &Found,
        found: &[Found],
    ) -> Result<Value, TaskError> {
        let (mut checks, mut outputs, mut whole): (Vec<Check>, Vec<Value>, Vec<Value>) = Default::default();
        let mut score = 1.0f64;
        for mut page in self.0 {
            let measured = page.target.and_then(|i| found.get(i));
            if let Some(out) = measured {
                judge::decoded(&mut page.sheet, source, out, page.expect, t);
                page.extra_checks(out);
            }
            let likeness = measured.and_then(|m| m.likeness.as_ref());
            // Pictures that were expected and could not be compared are as unlike as can be.
            let fidelity = likeness.map_or(if page.expect.video { 0.0 } else { 1.0 }, judge::fidelity);
            let own = page.sheet.score(fidelity);
            score = score.min(own);
            let uri = page.sheet.checks.first().map(|c| c.output.clone()).unwrap_or_default();
            outputs.push(described(&uri, own, measured, SERIES_POINTS_MAX));
            whole.push(described(&uri, own, measured, usize::MAX));
            checks.append(&mut page.sheet.checks);
        }
        let broken = checks.iter().any(|c| c.critical && !c.passed);
        let passed = !broken && score >= t.score_min;
        let mut result = json!({
            "qualityScore": round(score, 4),
            "score": round(score, 4),
            "passed": passed,
            "summary": summary(&checks, score, passed),
            "reasons": reasons(&checks),
            "checks": checks,
            "source": described("source", 1.0, Some(source), 0),
            "outputs": whole,
        });
        let report = report::write(job, reporter, "quality.json", &result)?;
        result["outputs"] = json!(outputs);
        result["report"] = report;
        shorten_checks(&mut result);
        Ok(result)
    }
}

impl Page {
    fn extra_checks(&mut self, out: &Found) {
        let fps = if out.fps > 1.0 { out.fps } else { 25.0 };
        if let (Some(seconds), true) = (self.playlist_seconds, out.frames > 0) {
            // It begins with the sound, where that comes before the pictures.
            let lead = out.first_seconds.max(0.0);
            let off = seconds - out.video_seconds - lead.min((seconds - out.video_seconds).max(0.0));
            self.sheet.add(
                "playlistDuration",
                true,
                off.abs() <= 0.5 + 4.0 / fps,
                json!(round(seconds, 3)),
                json!(round(out.video_seconds, 3)),
                format!("its segments are said to last {seconds:.2} s and last {:.2} s", out.video_seconds),
            );
        }
        if let (Some(size), true) = (self.size, out.frames > 0) {
            let is = (u64::from(out.size.0), u64::from(out.size.1));
            self.sheet.add(
                "size",
                false,
                is == size,
                json!(is),
                json!(size),
                format!("its pictures are {} x {}", is.0, is.1),
            );
        }
    }
}

/// Many thumbnails make many checks; those that passed may go where the result would grow too large for a state.
fn shorten_checks(result: &mut Value) {
    if let Some(checks) = result["checks"].as_array_mut()
        && checks.len() > 200
    {
        let mut room = 100;
        checks.retain(|c| {
            let keep = c["passed"] == false || room > 0;
            room -= i32::from(keep);
            keep
        });
        checks.truncate(300);
    }
}

/// Why it did not pass, worst first, in sentences.
fn reasons(checks: &[Check]) -> Vec<String> {
    let mut failed: Vec<&Check> = checks.iter().filter(|c| !c.passed).collect();
    failed.sort_by_key(|c| !c.critical);
    // Not the address first: a result names no file but the stage's own, and a sentence that begins so would be one's name.
    failed.iter().take(20).map(|c| format!("'{}': {}", c.output, c.message)).collect()
}

fn summary(checks: &[Check], score: f64, passed: bool) -> String {
    let failed: Vec<&Check> = checks.iter().filter(|c| !c.passed).collect();
    let head = format!("{} with a score of {score:.2}", if passed { "passed" } else { "failed" });
    match failed.iter().find(|c| c.critical).or(failed.first()) {
        None => format!("{head}; all {} checks are good", checks.len()),
        Some(c) => format!(
            "{head}; {} of {} checks failed, first '{}' of {}: {}",
            failed.len(),
            checks.len(),
            c.name,
            c.output,
            c.message
        ),
    }
}

fn described(uri: &str, score: f64, found: Option<&Found>, points_max: usize) -> Value {
    let mut value = json!({ "uri": uri, "score": round(score, 4) });
    let Some(f) = found else { return value };
    let spans = |s: &[super::analysis::spans::Span]| json!(s.iter().take(SPANS_MAX).collect::<Vec<_>>());
    value["frames"] = json!(f.frames);
    value["fps"] = json!(round(f.fps, 3));
    value["width"] = json!(f.size.0);
    value["height"] = json!(f.size.1);
    value["durationMs"] = json!(round(f.video_seconds * 1000.0, 0));
    if f.tone_mapped {
        value["toneMapped"] = json!(conveyor_pixels::hdr::METHOD);
    }
    value["black"] = spans(&f.black);
    value["freeze"] = spans(&f.freeze);
    if !f.warnings.is_empty() {
        value["warnings"] = json!(f.warnings);
    }
    if let Some(likeness) = &f.likeness {
        let (luma, overall) = likeness.psnr_total();
        value["psnr"] = json!(round(luma, 2));
        value["psnrOverall"] = json!(round(overall, 2));
        value["ssim"] = json!(round(likeness.ssim_mean(), 4));
        value["ssimLow"] = json!(round(likeness.ssim_low(), 4));
        value["offsetMs"] = json!(round(likeness.offset() * 1000.0, 1));
        value["comparedEvery"] = json!(likeness.every);
    }
    if let Some(sound) = &f.sound {
        value["loudnessLufs"] = json!(sound.loudness_lufs);
        value["loudnessRangeLu"] = json!(sound.loudness_range_lu);
        value["truePeakDbtp"] = json!(sound.true_peak_dbtp);
        value["audioChannels"] = json!(sound.channels);
        value["silence"] = spans(&sound.silence);
    }
    if points_max > 0 {
        value["series"] = series(f, points_max);
    }
    value
}

/// Means per second, or per as many seconds as it takes to stay within `points_max`.
fn series(f: &Found, points_max: usize) -> Value {
    let step = (f.video_seconds.ceil() / points_max as f64).ceil().max(1.0);
    let mean = |points: &[(f64, f64)], digits| -> Vec<Value> {
        let mut buckets: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
        for (at, v) in points {
            let bucket = buckets.entry((at / step) as i64).or_default();
            *bucket = (bucket.0 + v, bucket.1 + 1.0);
        }
        let last = buckets.keys().last().copied().unwrap_or(-1);
        (0..=last).map(|i| buckets.get(&i).map_or(Value::Null, |(s, n)| json!(round(s / n, digits)))).collect()
    };
    let likeness = f.likeness.as_ref();
    let loudness: Vec<(f64, f64)> =
        f.sound.iter().flat_map(|s| &s.series).enumerate().map(|(i, v)| (i as f64, v.max(-99.0))).collect();
    json!({
        "stepSeconds": step,
        "psnr": likeness.map_or(vec![], |l| mean(&l.psnr, 2)),
        "ssim": likeness.map_or(vec![], |l| mean(&l.ssim, 4)),
        "loudnessLufs": mean(&loudness, 1),
    })
}
