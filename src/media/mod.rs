//! What a stage does to media. All of it runs inside the sandboxed child process.
//!
//! A stage is a function from a [`Job`] to a JSON result; it says how far it is through a [`Reporter`].
//! It knows jobs and files, never workflows or the store.
//!
//! Owns the graphs, the time lines and the judge of what came out. Must never: be called in the appliance's own process, touch
//! the network, or, where it opens media, write outside its work folder. Holds: a file that is damaged, hostile or
//! unknown ends as a [`TaskError`](conveyor_base::TaskError) that says what was found in which stream; results appear under
//! their own names whole or not at all.

mod analysis;
mod bench;
mod bounds;
pub mod clip;
mod container;
mod demuxers;
mod engines;
mod files;
mod hdr;
mod input;
mod mp4;
mod pipeline;
mod probe;
mod quality;
mod sanitize;
mod survey;
mod time;
mod transcode;

pub use transcode::outline;

use conveyor_base::TaskError;
use conveyor_job::{Job, Placing, Progress, Reporter};
use serde_json::Value;

/// Does one job: the stage named in it, on the files named in its parameters. Files that it makes stay in its work folder,
/// and the reporter is told where they belong; the stage `place` brings them there.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    // What opens no media needs no GStreamer.
    match job.stage.as_str() {
        "place" => return files::place::run(job, reporter),
        "fingerprint" => return files::fingerprint::run(job, reporter),
        "publish" => return files::publish::run(job, reporter),
        "archive" => return files::archive::run(job, reporter),
        "quarantine" => return files::quarantine::run(job, reporter),
        "offer" => return files::offer::run(job, reporter),
        "brief" => return analysis::brief::run(job, reporter),
        _ => init()?,
    }
    match job.stage.as_str() {
        // Starting does most of what is wanted: GStreamer's list of plug-ins is written.
        "registry" => Ok(serde_json::json!({ "tools": tools() })),
        "probe" => probe::run(job, reporter),
        "sanitize" => sanitize::run(job, reporter),
        "quality" => quality::run(job, reporter),
        "labels" => analysis::labels::run(job, reporter),
        "transcript" => analysis::transcript::run(job, reporter),
        "meaning" => analysis::meaning::run(job, reporter),
        "transcode" => transcode::run(job, reporter),
        "bench-clip" => bench::clip::run(job, reporter),
        "bench-encode" => bench::encode::run(job, reporter),
        "bench-decode" => bench::decode::run(job, reporter),
        other => Err(TaskError::new(
            "Media.UnknownStage",
            format!("there is no media stage named '{other}'; correct the Task's Resource"),
        )),
    }
}

/// What this release can open, in a word that changes when that does: its version, GStreamer's and all elements.
fn tools() -> String {
    use gstreamer::prelude::*;
    let features = gstreamer::Registry::get().features(gstreamer::ElementFactory::static_type());
    let mut names: Vec<String> = features.iter().map(|feature| feature.name().to_string()).collect();
    names.sort_unstable();
    let all = format!("{}\n{}", gstreamer::version_string(), names.join("\n"));
    format!("{} {}", env!("CARGO_PKG_VERSION"), &blake3::hash(all.as_bytes()).to_hex()[..16])
}

/// For who trusts the files: does a job in this very process, and places what it made.
pub fn run_here(job: &Job) -> Result<Value, TaskError> {
    #[derive(Default)]
    struct Notes(parking_lot::Mutex<Vec<Placing>>);
    impl Reporter for Notes {
        fn progress(&self, _: Progress) {}
        fn made(&self, file: Placing) {
            self.0.lock().push(file);
        }
    }
    let notes = Notes::default();
    let result = run(job, &notes)?;
    let files = notes.0.into_inner();
    if !files.is_empty() {
        let parameters = serde_json::json!({ "files": files });
        run(&Job { stage: "place".into(), parameters, ..job.clone() }, &Notes::default())?;
    }
    Ok(result)
}

/// Starts GStreamer and registers the elements that are built into this program. Repeating it is harmless.
pub fn init() -> Result<(), TaskError> {
    use std::sync::OnceLock;
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            gstreamer::init().map_err(|e| format!("GStreamer does not start: {e}"))?;
            engines::hide();
            demuxers::restrict();
            transcode::scale::register().map_err(|e| format!("the scaler cannot be registered: {e}"))?;
            time::register().map_err(|e| format!("the elements of time cannot be registered: {e}"))?;
            hdr::register().map_err(|e| format!("the tone mapper cannot be registered: {e}"))
        })
        .clone()
        .map_err(|cause| TaskError::new("Media.NoGStreamer", format!("{cause}; reinstall the GStreamer packages")))
}
