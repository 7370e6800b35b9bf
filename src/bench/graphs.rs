//! Section `graphs`: the recipe's ladder through the very graphs that run every job, alone and several files at once,
//! with the likeness of what came out beside every speed, so that a fast bad lane shows.

use std::time::Instant;

use conveyor_base::TaskError;
use conveyor_hw::{EnergyMeter, Gpu};
use conveyor_job::{Device, TRANSCODE_CORES};
use futures::future::join_all;
use serde_json::{Value, json};

use super::report::{Clip, Curve, Row, Section, SectionKind};
use super::statistics::{Better, median};
use super::work::{SHARE, Work};

/// Settings and thumbnails as every file gets them.
const LADDER: &str = include_str!("../../configs/jobs/ladder.json");
/// More files at once are tried as long as each step adds as much.
const GROWTH_MIN: f64 = 0.03;
const FILES_MAX: usize = 16;
/// Into a quick run, after which the ladder is not repeated; after twice as long no more files at once are tried.
const LATE_SECONDS: f64 = 30.0;

/// Where the ladder runs.
#[derive(Clone, Debug)]
pub struct Lane {
    /// As the appliance names it: `cpu`, `gpu0.nvenc`, or `gpu0.nvdec` where a GPU decodes and cores encode.
    pub name: String,
    pub device: Option<Device>,
}

/// The cores, and each GPU with an engine.
pub fn lanes(gpus: &[Gpu]) -> Vec<Lane> {
    let mut lanes = vec![Lane { name: "cpu".to_owned(), device: None }];
    for gpu in gpus.iter().filter(|gpu| gpu.fault.is_none()) {
        let (encode, decode) = (gpu.nvenc.known().is_some(), gpu.nvdec.known().is_some());
        let (Some(uuid), true) = (gpu.uuid.clone(), encode || decode) else { continue };
        let name = format!("gpu{}", gpu.index);
        let lane = format!("{name}.{}", if encode { "nvenc" } else { "nvdec" });
        lanes.push(Lane { name: lane, device: Some(Device { name, uuid, cpus: gpu.cpus.clone(), decode, encode }) });
    }
    lanes
}

pub fn expected_seconds(work: &Work, lanes: usize, own_clip: bool) -> f64 {
    let once = work.mode.pick(7.0, 30.0);
    let lane = once * (work.mode.pick(3.0, 5.0) + work.mode.pick(2.0, 9.0)) + once;
    lane * lanes as f64 + if own_clip { once } else { 1.0 }
}

/// The film as a file, or what the given file holds.
pub async fn clip(work: &Work, given: Option<&str>) -> Result<Clip, TaskError> {
    let uri = given.map_or_else(|| format!("s3://{SHARE}/film.mp4"), str::to_owned);
    if given.is_none() {
        let parameters = json!({
            "destination": uri, "width": 1920, "height": 1080, "seconds": work.mode.pick(4, 20),
        });
        work.step("painting the film", work.mode.pick(6.0, 30.0), work.stage("bench-clip", parameters, work.cores))
            .await?;
    }
    let probe = work.stage("probe", json!({ "input": uri }), 1);
    let found = work.step("looking at the film", 1.0, probe).await?;
    let number = |key: &str| found[key].as_f64();
    let unusable = || {
        TaskError::new(
            "Media.NoVideo",
            format!("'{uri}' holds no pictures of a known length; give --clip another file"),
        )
    };
    let name = match given {
        Some(uri) => uri.rsplit('/').next().unwrap_or(uri).to_owned(),
        None => "conveyor's film of dead leaves with grain".to_owned(),
    };
    let clip = Clip {
        seconds: number("duration").filter(|seconds| *seconds > 0.0).ok_or_else(unusable)?,
        fps: number("fps").filter(|fps| *fps > 0.0).ok_or_else(unusable)?,
        width: found["width"].as_u64().ok_or_else(unusable)?,
        height: found["height"].as_u64().ok_or_else(unusable)?,
        bytes: found["file_size"].as_u64().unwrap_or(0),
        name,
        uri,
    };
    Ok(clip)
}

pub async fn measure(work: &Work, clip: &Clip, lanes: &[Lane]) -> Section {
    let mut section = Section::new(SectionKind::Graphs);
    section.say(format!(
        "The recipe's ladder (configs/jobs/ladder.json: MP4 and HLS in 1080p and 720p, thumbnails) of {}: {}x{}, {:.3} \
         frames a second, {:.1} s, {:.1} Mbit/s. PSNR and SSIM against the scaled source.",
        clip.name,
        clip.width,
        clip.height,
        clip.fps,
        clip.seconds,
        clip.bits_per_second() / 1e6
    ));
    for lane in lanes {
        if let Err(error) = of_lane(work, clip, lane, &mut section).await {
            section.say(format!("lane {}: the ladder failed: {}: {}", lane.name, error.error, error.cause));
        }
    }
    section
}

async fn of_lane(work: &Work, clip: &Clip, lane: &Lane, section: &mut Section) -> Result<(), TaskError> {
    let expected = work.mode.pick(7.0, 30.0);
    let (mut speeds, mut joules) = (Vec::new(), Vec::new());
    let mut last = Value::Null;
    for n in 0..work.mode.pick(3, 5) {
        if n > 0 && work.is_late(LATE_SECONDS) {
            section.say(format!("lane {}: {n} repetitions only, so that a quick run ends in time", lane.name));
            break;
        }
        let meter = EnergyMeter::start();
        let begun = Instant::now();
        let doing = format!("ladder on {}, run {}", lane.name, n + 1);
        last = work.step(&doing, expected, ladder(work, clip, lane, 0, work.cores)).await?;
        speeds.push(clip.frames() / begun.elapsed().as_secs_f64());
        joules.extend(meter.joules().map(|joules| joules / clip.seconds));
    }
    let judged = work.step("judging the ladder", expected, quality(work, clip, &last)).await?;
    let factor = speeds.iter().map(|fps| fps / clip.fps).collect();
    section.rows.push(
        Row::new(format!("{}/ladder", lane.name), format!("ladder on {}", lane.name))
            .with("speed", "fps", Better::Higher, speeds.clone())
            .with("real time", "x", Better::Higher, factor)
            .with("energy", "J/s of film", Better::Lower, joules),
    );
    for rung in rungs(&last, &judged) {
        section.rows.push(Row { key: format!("{}/{}", lane.name, rung.key), ..rung });
    }
    parallel(work, clip, lane, median(&speeds), section).await
}

/// More and more files at once, until that adds nothing.
async fn parallel(work: &Work, clip: &Clip, lane: &Lane, alone: f64, section: &mut Section) -> Result<(), TaskError> {
    let mut points = vec![(1.0, alone)];
    let most = work.mode.pick(2, FILES_MAX);
    let mut files = 2;
    while files <= most {
        if work.is_late(2.0 * LATE_SECONDS) {
            section
                .say(format!("lane {}: {files} files at once left out, so that a quick run ends in time", lane.name));
            break;
        }
        let begun = Instant::now();
        // As many as the appliance gives each of so many.
        let threads = (work.cores / files).max(work.cores.min(TRANSCODE_CORES as usize)).max(1);
        let all = (0..files).map(|n| ladder(work, clip, lane, n, threads));
        let doing = format!("ladder on {}, {files} files at once", lane.name);
        let ends = work.step(&doing, work.mode.pick(7.0, 30.0) * files as f64, join_all(all)).await;
        ends.into_iter().collect::<Result<Vec<_>, _>>()?;
        let fps = clip.frames() * files as f64 / begun.elapsed().as_secs_f64();
        let before = points.last().map_or(0.0, |point| point.1);
        points.push((files as f64, fps));
        if fps < before * (1.0 + GROWTH_MIN) {
            break;
        }
        files += if files < 4 { 1 } else { files / 2 };
    }
    let best = points.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((1.0, alone));
    section.rows.push(
        Row::new(format!("{}/files", lane.name), format!("files at once on {}", lane.name))
            .with("speed of all", "fps", Better::Higher, vec![best.1])
            .with("files", "", Better::Higher, vec![best.0]),
    );
    section.curves.push(Curve {
        key: format!("{}/files", lane.name),
        title: format!("Ladders at once on {}", lane.name),
        x: "files at once".to_owned(),
        y: "frames a second, all together".to_owned(),
        points,
    });
    Ok(())
}

async fn ladder(work: &Work, clip: &Clip, lane: &Lane, number: usize, threads: usize) -> Result<Value, TaskError> {
    work.stage_on(lane.device.clone(), "transcode", settings(clip, lane, number)?, threads).await
}

fn settings(clip: &Clip, lane: &Lane, number: usize) -> Result<Value, TaskError> {
    let text = LADDER.replace("{Destination}", &format!("s3://{SHARE}/out-{}-{number}", lane.name));
    let template: Value = serde_json::from_str(&text)
        .map_err(|e| TaskError::new("Media.InvalidParameter", format!("ladder.json: {e}")))?;
    let mut settings = template["Settings"].clone();
    settings["Inputs"] = json!([{
        "FileInput": clip.uri,
        "AudioSelectors": { "Audio Selector 1": { "DefaultSelection": "DEFAULT" } },
    }]);
    Ok(json!({ "Settings": settings }))
}

/// PSNR and SSIM of the files; the HLS outputs share their encodes.
async fn quality(work: &Work, clip: &Clip, result: &Value) -> Result<Value, TaskError> {
    let groups = result["OutputGroupDetails"].as_array().cloned().unwrap_or_default();
    let files: Vec<Value> = groups.into_iter().take(1).collect();
    work.stage("quality", json!({ "source": clip.uri, "outputGroups": files }), work.cores).await
}

/// One row for each rung: what it costs and how it looks.
fn rungs(result: &Value, judged: &Value) -> Vec<Row> {
    let outputs = result.pointer("/OutputGroupDetails/0/OutputDetails").and_then(Value::as_array);
    let checks = judged["checks"].as_array().cloned().unwrap_or_default();
    let mut rows: Vec<Row> = Vec::new();
    for output in outputs.into_iter().flatten() {
        let uri = output.pointer("/OutputFilePaths/0").and_then(Value::as_str).unwrap_or_default();
        let found = |name: &str| -> Vec<f64> {
            let own = checks.iter().find(|c| c["name"] == name && c["output"] == uri);
            own.and_then(|c| c["value"].as_f64()).into_iter().collect()
        };
        let video = &output["VideoDetails"];
        let height = video["HeightInPx"].as_u64().unwrap_or(0);
        let kbps = video["AverageBitrate"].as_f64().map(|bits| bits / 1000.0);
        // A small source has several rungs of its own height, and a row is found by its key.
        let stem = format!("rung/{height}p");
        let number = 1 + rows.iter().filter(|row| row.key.starts_with(&stem)).count();
        let key = if number == 1 { stem } else { format!("{stem}/{number}") };
        rows.push(
            Row::new(key, format!("its {height}p rung"))
                .with("bitrate", "kbit/s", Better::Lower, kbps.into_iter().collect())
                .with("PSNR", "dB", Better::Higher, found("psnr"))
                .with("SSIM", "", Better::Higher, found("ssim")),
        );
    }
    rows
}
