//! What the figures mean: how many ladders the box carries in real time and what limits them, and the speeds of its
//! lanes for those who plan by them. Pure.

use std::collections::BTreeMap;

use conveyor_base::speeds::{FORMAT, LadderSpeed, LaneSpeed, Speeds};

use super::cores::SIZES;
use super::report::{Capacity, Clip, Report, Section, SectionKind};

/// Both rungs at their highest, each as MP4 and as HLS.
const OUTPUT_BITS: f64 = 2.0 * (5e6 + 3e6);
/// The encoder's preset in the ladder's single-pass settings.
const PRESET: &str = "h264/veryfast";

/// What the box carries, where its ladder was measured.
pub fn capacity(report: &Report) -> Option<Capacity> {
    let (graphs, clip) = (report.section(SectionKind::Graphs)?, report.clip.as_ref()?);
    let mut bounds: Vec<(String, f64)> = Vec::new();
    let (engines, fps) = engines_of(report, graphs)?;
    bounds.push((engines, fps / clip.fps));
    for row in report.section(SectionKind::Shares).into_iter().flat_map(|section| &section.rows) {
        let Some(share) = row.key.strip_suffix("/sequential") else { continue };
        let megabytes = |bits: f64| bits / 8e6;
        // Shares on one file system are measured once and carry both ways.
        if let (Some(write), Some(read)) = (row.median("write"), row.median("read")) {
            let busy = megabytes(clip.bits_per_second()) / read + megabytes(OUTPUT_BITS) / write;
            bounds.push((format!("the share '{share}' ({read:.0} MB/s read, {write:.0} MB/s written)"), 1.0 / busy));
        }
    }
    bounds.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (limited_by, exact) = bounds.first().cloned()?;
    let kind = format!("{}p{:.0}", clip.width.min(clip.height), clip.fps);
    let ladders = exact.floor().min(1e6) as u32;
    let sentence = match ladders {
        0 => format!(
            "This box carries no {kind} ladder in real time: its best is {exact:.2} of it, limited by {limited_by}."
        ),
        n => format!(
            "This box carries {n} simultaneous {kind} ladder{} in real time ({exact:.2} measured), limited by {limited_by}.",
            if n == 1 { "" } else { "s" }
        ),
    };
    Some(Capacity { ladders, ladders_exact: exact, limited_by, sentence, bounds })
}

/// What the ladder runs on, and frames a second of all files together. GPUs with encoders count together; where cores
/// encode, the best of them does. Cores beside GPUs are not counted: the GPUs' own ladders need them too.
fn engines_of(report: &Report, graphs: &Section) -> Option<(String, f64)> {
    let measured =
        graphs.rows.iter().filter_map(|row| Some((row.key.strip_suffix("/files")?, row.median("speed of all")?)));
    let (encoders, others): (Vec<_>, Vec<_>) = measured.partition(|(lane, _)| lane.ends_with(".nvenc"));
    let names: Vec<&str> = encoders.iter().map(|(lane, _)| *lane).collect();
    let gpus = (!encoders.is_empty())
        .then(|| (format!("its encoders {}", names.join(", ")), encoders.iter().map(|(_, fps)| fps).sum::<f64>()));
    let cores = others.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(lane, fps)| {
        let helped = if lane == "cpu" { String::new() } else { format!(", decoding on {lane}") };
        (format!("its {} cores{helped}", report.host.cores), fps)
    });
    [gpus, cores].into_iter().flatten().filter(|(_, fps)| *fps > 0.0).max_by(|a, b| a.1.total_cmp(&b.1))
}

/// The lanes' speeds, over those that are known from earlier runs: a run of some sections forgets no others.
pub fn speeds(report: &Report, before: Option<Speeds>) -> Speeds {
    let mut lanes = before.map(|speeds| speeds.lanes).unwrap_or_default();
    if let Some(section) = report.section(SectionKind::Cpu) {
        cores(section, lanes.entry("cpu".to_owned()).or_default());
    }
    if let Some(section) = report.section(SectionKind::Raw) {
        engines(section, &mut lanes);
    }
    if let (Some(section), Some(clip)) = (report.section(SectionKind::Graphs), &report.clip) {
        ladders(section, clip, &mut lanes);
    }
    Speeds {
        format: FORMAT,
        measured_at: report.started_at,
        mode: report.mode.name().to_owned(),
        disturbed: !report.disturbed.is_empty(),
        lanes,
    }
}

/// Luma megapixels of one picture.
fn megapixels(size: &str) -> Option<f64> {
    SIZES.iter().find(|(name, ..)| *name == size).map(|(_, w, h)| (w * h) as f64 / 1e6)
}

/// Takes a speed where it is the first of its kind or the picture is the ladder's: 1080p.
fn put(speeds: &mut BTreeMap<String, f64>, fresh: &mut Vec<String>, key: String, size: &str, speed: f64) {
    if !fresh.contains(&key) || size == "1080p" {
        fresh.push(key.clone());
        speeds.insert(key, speed);
    }
}

fn cores(section: &Section, lane: &mut LaneSpeed) {
    let (mut encodes, mut decodes) = (Vec::new(), Vec::new());
    for row in &section.rows {
        let parts: Vec<&str> = row.key.split('/').collect();
        let ([what, preset, size], Some(fps)) = (parts.as_slice(), row.median("speed")) else { continue };
        let Some(area) = megapixels(size) else { continue };
        match *what {
            "decode" => put(&mut lane.decode_mpix_s, &mut decodes, (*preset).to_owned(), size, fps * area),
            encoder => {
                let codec = match encoder {
                    "x264" => "h264",
                    "x265" => "hevc",
                    "svt" => "av1/svt",
                    "rav1e" => "av1/rav1e",
                    _ => "av1/aom",
                };
                put(&mut lane.encode_mpix_s, &mut encodes, format!("{codec}/{preset}"), size, fps * area);
            }
        }
    }
}

/// Rows of GPUs: `gpu0.nvenc/h264/P4/1080p`, `gpu0.nvdec/h264/1080p`, `gpu0.nvenc/sessions`.
fn engines(section: &Section, lanes: &mut BTreeMap<String, LaneSpeed>) {
    let mut fresh: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in &section.rows {
        let parts: Vec<&str> = row.key.split('/').collect();
        match (parts.as_slice(), row.median("speed")) {
            ([lane, codec, preset, size], Some(fps)) => {
                let Some(area) = megapixels(size) else { continue };
                let speeds = &mut lanes.entry((*lane).to_owned()).or_default().encode_mpix_s;
                put(
                    speeds,
                    fresh.entry((*lane).to_owned()).or_default(),
                    format!("{codec}/{preset}"),
                    size,
                    fps * area,
                );
            }
            ([lane, codec, size], Some(fps)) => {
                let Some(area) = megapixels(size) else { continue };
                lanes.entry((*lane).to_owned()).or_default().decode_mpix_s.insert((*codec).to_owned(), fps * area);
            }
            ([lane, "sessions"], _) => {
                let best = row.median("sessions").map(|n| n as u32);
                lanes.entry((*lane).to_owned()).or_default().sessions_best = best;
            }
            _ => {}
        }
    }
}

fn ladders(section: &Section, clip: &Clip, lanes: &mut BTreeMap<String, LaneSpeed>) {
    for row in &section.rows {
        let Some(name) = row.key.strip_suffix("/ladder") else { continue };
        let Some(alone) = row.median("speed") else { continue };
        let all = section.row(&format!("{name}/files"));
        let lane = lanes.entry(name.to_owned()).or_default();
        let source = (clip.width * clip.height) as f64 / 1e6;
        // Nothing is enlarged: a smaller source makes smaller rungs.
        let rungs = [1920.0 * 1080.0 / 1e6, 1280.0 * 720.0 / 1e6].map(|rung: f64| rung.min(source)).iter().sum::<f64>();
        let decode = lane.decode_mpix_s.get("h264").map_or(0.0, |speed| source / speed);
        let encode = lane.encode_mpix_s.get(PRESET).map(|speed| rungs / speed);
        let overhead = encode.map_or(1.0, |encode| 1.0 / alone / (decode + encode));
        lane.ladder = Some(LadderSpeed {
            fps_alone: alone,
            fps_best: all.and_then(|row| row.median("speed of all")).unwrap_or(alone).max(alone),
            files_best: all.and_then(|row| row.median("files")).map_or(1, |n| n as u32),
            overhead: if overhead.is_finite() { overhead.clamp(0.1, 10.0) } else { 1.0 },
        });
    }
}
