//! The `transcode` stage: a MediaConvert-shaped job on one file, in one pass.
//!
//! Parameters are the body of a `CreateJob` request. Everything is written below the job's work directory, judged,
//! and only then told to be placed; running it twice leaves one result.

mod encoder;
mod geometry;
mod gpu;
mod graph;
mod plan;
mod playlist;
mod priming;
mod report;
pub mod scale;
mod tally;
mod verify;

use std::path::Path;
use std::time::Instant;

use conveyor_base::TaskError;
use conveyor_job::{Job, Placing, Progress, Reporter};
use conveyor_settings as settings;
use gstreamer as gst;
use serde_json::Value;

use super::engines::{self, Engines};
use super::input::Input;
use super::pipeline::Ended;
use super::probe::{self, Media};
use super::time::picture_element::PictureTime;
use super::time::sound_element::SoundTime;
use graph::{Graph, Means};
use plan::{Form, Plan};
use report::{Move, Starts};

/// Decodes once, encodes each distinct rendition once, and puts the outputs where the job says.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    match &job.device {
        None => run_with(job, None, reporter),
        Some(device) => Engines::of(device)
            .and_then(|engines| run_with(job, Some(&engines), reporter))
            .map_err(|error| engines::blame(device, error)),
    }
}

/// The elements of the graph that a job would run on, one a line, without running it: for tests, and for who wants to
/// know what becomes of a file.
pub fn outline(job: &Job) -> Result<Vec<String>, TaskError> {
    super::init()?;
    let settings = settings::parse(&job.parameters)?;
    let input = Input::open(job, &settings.input.file)?;
    let media = probe::inspect(&input, job.threads)?;
    let plan = plan::plan(&settings, &input, &media)?;
    let engines = job.device.as_ref().map(Engines::of).transpose()?;
    let means = Means { threads: job.threads, engines: engines.as_ref() };
    let graph = graph::build(&plan, &input, &job.work_dir.join("transcode"), &means)?;
    Ok(graph.pipeline.outline())
}

fn run_with(job: &Job, engines: Option<&Engines>, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let settings = settings::parse(&job.parameters)?;
    reporter.progress(Progress { doing: "probing".into(), ..Progress::default() });
    let input = Input::open(job, &settings.input.file)?;
    let media = probe::inspect(&input, job.threads)?;
    let mut plan = plan::plan(&settings, &input, &media)?;
    let work = job.work_dir.join("transcode");
    // An earlier run of this attempt may have died half way.
    let _ = std::fs::remove_dir_all(&work);
    let graph = graph::build(&plan, &input, &work, &Means { threads: job.threads, engines })?;
    if engines.is_some() {
        // For the log's tail, should this fail.
        eprintln!("{}", graph.route.describe());
    }
    play(&graph, &plan, &input, &media, reporter)?;
    let shown: Vec<_> = graph.rated.iter().map(PictureTime::tally).collect();
    let starts = Starts::of(&graph);
    let Graph { pipeline, decoded, encoded, captures, placed, .. } = graph;
    drop(pipeline);
    let decoded = decoded.lock().clone();
    let encoded: Vec<_> = encoded.iter().map(|t| t.lock().clone()).collect();
    plan.warnings.extend(verify::source(&plan, &input, &media, &decoded)?);
    verify::encodes(&plan, &input, &shown, &encoded)?;
    prime(&plan, &input, &work, &placed)?;
    let captures = captures.into_iter().map(|(i, list)| (i, list.lock().clone())).collect();
    let made = report::collect(&settings, &plan, &input, &work, &encoded, (&captures, &starts))?;
    for Move { from, to } in &made.moves {
        let from = from.strip_prefix(&job.work_dir).unwrap_or(from).to_owned();
        reporter.made(Placing { from, to: to.clone() });
    }
    Ok(report::result(&settings, &plan, &input, &media, &decoded, &made))
}

/// Says in each file what the encoder put before its sound.
fn prime(plan: &Plan, input: &Input, work: &Path, placed: &[SoundTime]) -> Result<(), TaskError> {
    for (index, make) in plan.makes.iter().enumerate() {
        let (Form::File { name, .. }, Some(sound)) = (&make.form, make.audio) else { continue };
        let Some(seconds) = placed.get(sound).map(SoundTime::seconds).filter(|seconds| *seconds > 0.0) else {
            continue;
        };
        let path = graph::output_folder(work, index).join(name);
        priming::write(&path, (priming::AAC_FRAMES, plan.audio[sound].code.rate), seconds).map_err(|e| {
            input.error(
                "Media.OutputIncomplete",
                format!("did not give a complete output: {name} cannot be told where its sound begins ({e}); run it again, and report it if it stays"),
            )
        })?;
    }
    Ok(())
}

/// Runs the pipeline to its end, saying about four times a second how far it is.
fn play(graph: &Graph, plan: &Plan, input: &Input, media: &Media, reporter: &dyn Reporter) -> Result<(), TaskError> {
    let start = Instant::now();
    let whole = media.duration_ns.unwrap_or(0) as f64 / 1e9;
    graph.pipeline.set(gst::State::Playing, input)?;
    let ended = graph.pipeline.wait(input, false, None, |_| {
        let (seconds, frames) = reached(graph);
        let elapsed = start.elapsed().as_secs_f64().max(0.001);
        verify::running(plan, input, media, &graph.decoded.lock())?;
        reporter.progress(Progress {
            fraction: if whole > 0.0 { (seconds / whole).min(1.0) * 0.98 } else { 0.0 },
            fps: Some(frames as f64 / elapsed),
            speed: Some(seconds / elapsed),
            doing: "encoding".into(),
        });
        Ok(())
    })?;
    match ended {
        Ended::EndOfStream => Ok(()),
        other => Err(input.error("Media.Failed", format!("ended as {other:?}"))),
    }
}

/// Media seconds and frames that the slowest encoder has done.
fn reached(graph: &Graph) -> (f64, u64) {
    let slowest = graph.encoded.iter().map(|t| t.lock()).min_by_key(|t| t.last_ns).map(|t| (t.last_ns, t.frames));
    let (ns, frames) = slowest.unwrap_or_else(|| {
        let decoded = graph.decoded.lock();
        (decoded.end_ns, decoded.frames)
    });
    (ns as f64 / 1e9, frames)
}
