//! What a transcode made: the files with their places, and the result in the shape of MediaConvert's job details.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use conveyor_base::escape::escaped;
use conveyor_base::{TaskError, Uri};
use conveyor_pixels::hdr::{METHOD, REFERENCE_WHITE};
use conveyor_settings::{GroupKind, Settings};
use serde_json::{Value, json};

use super::graph::{Graph, output_folder};
use super::plan::{Form, Make, Plan};
use super::playlist::{self, Segments, Variant};
use super::tally::{DecodeTally, EncodeTally};
use crate::input::Input;
use crate::mp4;
use crate::probe::Media;
use crate::time::picture_element::PictureTime;
use crate::time::sound_element::SoundTime;

/// Most files of one output that a result names.
const LISTED_MAX: usize = 100;

/// A finished file and where it belongs.
#[derive(Clone, Debug)]
pub struct Move {
    pub from: PathBuf,
    pub to: Uri,
}

/// The finished files.
#[derive(Debug, Default)]
pub struct Made {
    pub moves: Vec<Move>,
    pub outputs: Vec<MadeOutput>,
    /// Playlists of each group, master first.
    pub playlists: BTreeMap<usize, Vec<Uri>>,
}

/// When the pictures of each encode and each sound begin, in nanoseconds of running time.
#[derive(Debug, Default)]
pub struct Starts {
    pictures: Vec<Option<u64>>,
    sounds: Vec<Option<u64>>,
}

impl Starts {
    pub fn of(graph: &Graph) -> Starts {
        Starts {
            pictures: graph.rated.iter().map(PictureTime::first_ns).collect(),
            sounds: graph.placed.iter().map(SoundTime::first_ns).collect(),
        }
    }

    /// Seconds of sound before the first picture of an output.
    fn lead_seconds(&self, make: &Make) -> f64 {
        let of = |list: &[Option<u64>], index: Option<usize>| *list.get(index?)?;
        let (pictures, sound) = (of(&self.pictures, make.encode), of(&self.sounds, make.audio));
        pictures.zip(sound).map_or(0.0, |(pictures, sound)| pictures.saturating_sub(sound) as f64 / 1e9)
    }
}

/// One output of the job.
#[derive(Debug, Default)]
pub struct MadeOutput {
    pub group: usize,
    pub output: usize,
    pub paths: Vec<Uri>,
    pub duration_ms: u64,
    pub video: Option<Value>,
    pub bytes: u64,
}

/// Checks the files of all outputs, writes playlists, and lists what is to be moved where.
pub fn collect(
    settings: &Settings,
    plan: &Plan,
    input: &Input,
    work: &Path,
    encoded: &[EncodeTally],
    (captures, starts): (&BTreeMap<usize, Vec<PathBuf>>, &Starts),
) -> Result<Made, TaskError> {
    let mut made = Made::default();
    let mut renditions: Vec<(usize, Segments)> = Vec::new();
    for (index, make) in plan.makes.iter().enumerate() {
        let folder = output_folder(work, index);
        let tally = make.encode.map(|e| &encoded[e]);
        let mut output = MadeOutput { group: make.group, output: make.output, ..MadeOutput::default() };
        if let (Some(e), Some(tally)) = (make.encode, tally) {
            let encode = &plan.encodes[e];
            let seconds = tally.frames as f64 / encode.fps();
            output.duration_ms = (seconds * 1000.0).round() as u64;
            output.video = Some(json!({
                "WidthInPx": encode.geometry.frame.0,
                "HeightInPx": encode.geometry.frame.1,
                "AverageBitrate": (tally.bytes as f64 * 8.0 / seconds.max(0.001)).round() as u64,
                "Frames": tally.frames,
                "Framerate": encode.fps(),
            }));
        }
        match &make.form {
            Form::File { name, .. } => file(&mut made, &mut output, make, &folder.join(name), tally, input)?,
            Form::Captures { geometry, .. } => {
                let list = captures.get(&index).cloned().unwrap_or_default();
                if list.is_empty() {
                    return Err(incomplete(input, "no picture could be captured"));
                }
                for path in list {
                    add(&mut made, &mut output, make, &path, input)?;
                }
                output.video = Some(
                    json!({"WidthInPx": geometry.frame.0, "HeightInPx": geometry.frame.1, "Frames": output.paths.len()}),
                );
            }
            Form::Hls { stem, gops_per_segment } => {
                let (Some(e), Some(tally)) = (make.encode, tally) else { continue };
                let mut found = playlist::segments(&folder, stem, &plan.encodes[e], *gops_per_segment, tally.frames)
                    .map_err(|what| incomplete(input, &what))?;
                found.lead_in(starts.lead_seconds(make));
                for (path, _) in &found.list {
                    add(&mut made, &mut output, make, path, input)?;
                }
                renditions.push((index, found));
            }
        }
        made.outputs.push(output);
    }
    for (group, settings) in settings.groups.iter().enumerate() {
        if let GroupKind::Hls { fractions, manifests: true, resolution, .. } = settings.kind {
            let of_group: Vec<_> = renditions.iter().filter(|(i, _)| plan.makes[*i].group == group).collect();
            playlists(&mut made, plan, work, encoded, (group, fractions, resolution), &of_group)?;
        }
    }
    Ok(made)
}

fn file(
    made: &mut Made,
    output: &mut MadeOutput,
    make: &Make,
    path: &Path,
    tally: Option<&EncodeTally>,
    input: &Input,
) -> Result<(), TaskError> {
    add(made, output, make, path, input)?;
    let finished = Input { uri: make.place(&make.main_name()), path: path.to_owned(), size: output.bytes };
    let index = mp4::read(&finished).map_err(|e| incomplete(input, &e.cause))?;
    for track in &index.tracks {
        if track.handler == "vide" && tally.is_some_and(|t| t.frames != track.samples) {
            let encoded = tally.map_or(0, |t| t.frames);
            return Err(incomplete(input, &format!("{} holds {} frames of {encoded}", finished.uri, track.samples)));
        }
        if tally.is_none() {
            output.duration_ms = output.duration_ms.max((track.seconds() * 1000.0) as u64);
        }
    }
    Ok(())
}

fn add(made: &mut Made, output: &mut MadeOutput, make: &Make, path: &Path, input: &Input) -> Result<(), TaskError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    if size == 0 {
        return Err(incomplete(input, &format!("{name} is missing or empty")));
    }
    let to = make.place(&name);
    output.bytes += size;
    output.paths.push(to.clone());
    made.moves.push(Move { from: path.to_owned(), to });
    Ok(())
}

fn playlists(
    made: &mut Made,
    plan: &Plan,
    work: &Path,
    encoded: &[EncodeTally],
    (group, fractions, resolution): (usize, bool, bool),
    renditions: &[&(usize, Segments)],
) -> Result<(), TaskError> {
    let failed = |what: String| TaskError::new("Media.WorkDir", format!("a playlist could not be written: {what}"));
    let (mut variants, mut media) = (Vec::new(), Vec::new());
    for (index, segments) in renditions {
        let make = &plan.makes[*index];
        let Some(e) = make.encode else { continue };
        let name = make.main_name();
        let path = output_folder(work, *index).join(&name);
        let text = playlist::media(segments, fractions).map_err(failed)?;
        std::fs::write(&path, text).map_err(|e| failed(e.to_string()))?;
        made.moves.push(Move { from: path, to: make.place(&name) });
        media.push(make.place(&name));
        let mut codecs = encoded[e].codec.clone().unwrap_or_else(|| "avc1.640028".into());
        if make.audio.is_some() {
            codecs.push_str(",mp4a.40.2");
        }
        variants.push(Variant { name: escaped(&name), segments, encode: &plan.encodes[e], codecs, resolution });
    }
    let Some((first, _)) = renditions.first() else { return Ok(()) };
    let make = &plan.makes[*first];
    let name = format!("{}.m3u8", make.base.file_name());
    let path = output_folder(work, *first).join(format!("master-{group}.m3u8"));
    std::fs::write(&path, playlist::master(&variants).map_err(failed)?).map_err(|e| failed(e.to_string()))?;
    let master = make.place(&name);
    // The master playlist comes last: who sees it finds everything that it names.
    made.moves.push(Move { from: path, to: master.clone() });
    made.playlists.insert(group, std::iter::once(master).chain(media).collect());
    Ok(())
}

fn incomplete(input: &Input, what: &str) -> TaskError {
    input.error(
        "Media.OutputIncomplete",
        format!("did not give a complete output: {what}; run it again, and report it if it stays"),
    )
}

/// The job's details.
pub fn result(
    settings: &Settings,
    plan: &Plan,
    input: &Input,
    media: &Media,
    decoded: &DecodeTally,
    made: &Made,
) -> Value {
    let groups: Vec<Value> = settings
        .groups
        .iter()
        .enumerate()
        .map(|(g, group)| {
            let outputs: Vec<Value> =
                made.outputs.iter().filter(|o| o.group == g).map(|o| output_json(o, plan, made)).collect();
            let kind = if group.kind == GroupKind::File { "FILE_GROUP" } else { "HLS_GROUP" };
            let mut value = json!({"Type": kind, "Name": group.name, "OutputDetails": outputs});
            if let Some(playlists) = made.playlists.get(&g) {
                value["PlaylistFilePaths"] = json!(playlists);
            }
            value
        })
        .collect();
    let video = plan.video.as_ref();
    let grade = video.and_then(|v| Some((v, v.grade.filter(|_| plan.wants_video())?)));
    json!({
        "OutputGroupDetails": groups,
        "InputDetails": [{
            "Uri": input.uri,
            "FileSize": input.size,
            "DurationInMs": media.duration_ns.map(|ns| ns / 1_000_000),
            "WidthInPx": video.map(|v| v.info.width()),
            "HeightInPx": video.map(|v| v.info.height()),
            "FramesListed": video.and_then(|v| v.frames),
            "FramesDecoded": decoded.frames,
            "FramesBroken": decoded.corrupted,
        }],
        "Frames": decoded.frames,
        "ToneMapping": grade.map(|(v, g)| json!({
            "From": v.hdr.name(), "To": "BT.709", "PeakNits": g.peak, "WhiteNits": REFERENCE_WHITE, "Method": METHOD,
        })),
        "ProcessorSeconds": processor_seconds(),
        "Warnings": plan.warnings,
    })
}

/// What this process has computed so far, on all of its threads. What else ran on the cores does not change it, unlike
/// the time that a job takes.
fn processor_seconds() -> Option<f64> {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let used = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    Some((used.user_time() + used.system_time()).num_milliseconds() as f64 / 1_000.0)
}

fn output_json(output: &MadeOutput, plan: &Plan, made: &Made) -> Value {
    let make = plan.makes.iter().find(|m| (m.group, m.output) == (output.group, output.output));
    let hls = make.filter(|m| matches!(m.form, Form::Hls { .. }) && made.playlists.contains_key(&m.group));
    // As in the service: an HLS output is named by its playlist. Its segments are counted, since a film has thousands
    // and a state may carry 256 KiB; the playlist lists them, and so does the manifest once they are published.
    let mut value = match hls {
        Some(make) => {
            json!({"OutputFilePaths": [make.place(&make.main_name())], "SegmentCount": output.paths.len()})
        }
        None => json!({"OutputFilePaths": spread(&output.paths), "OutputFileCount": output.paths.len()}),
    };
    value["DurationInMs"] = json!(output.duration_ms);
    value["SizeInBytes"] = json!(output.bytes);
    if let Some(video) = &output.video {
        value["VideoDetails"] = video.clone();
    }
    value
}

/// All paths, or as many as a result may list, from the first to the last in even steps.
fn spread(paths: &[Uri]) -> Vec<&Uri> {
    let listed = paths.len().min(LISTED_MAX);
    (0..listed).map(|i| &paths[i * (paths.len() - 1) / (listed - 1).max(1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_thinned_from_end_to_end() {
        let paths: Vec<Uri> = (0..7_200).map(|n| Uri::new("s", format!("{n}.jpg"))).collect();
        let listed = spread(&paths);
        assert_eq!((listed.len(), listed[0], listed[LISTED_MAX - 1]), (LISTED_MAX, &paths[0], &paths[7_199]));
        assert_eq!(spread(&paths[..3]), [&paths[0], &paths[1], &paths[2]]);
        assert_eq!(spread(&paths[..1]).len(), 1);
        assert!(spread(&[]).is_empty());
    }
}
