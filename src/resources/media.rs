//! Media stages: `arn:aws:states:::conveyor:<stage>` runs one child process per attempt.
//!
//! The child gets a private folder, `<data>/work/<execution>-<attempt>`, empty at its start and removed at its end
//! however it ends. What a crash leaves there is removed when the attempt is issued again, or by housekeeping.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conveyor_base::{ShareIo, TaskError, beneath};
use conveyor_hw::EnergyMeter;
use conveyor_interpreter::RunTask;
use conveyor_job::Acceleration;
use conveyor_job::{Job, TRANSCODE_CORES};
use conveyor_run::lanes::{Codec, Encodes, Pictures, Work};
use conveyor_run::{Demand, OnForecast};
use conveyor_sandbox::Spawn;
use conveyor_settings::{self as settings, VideoCode};
use nix::sys::statvfs::{Statvfs, statvfs};
use serde_json::{Value, json};

use super::predict::Predictor;
use super::{Adapter, Call, CallFuture, CallOutcome, access, aws, claims, fault, mounts};

/// What work folders leave of the disk that they share with the store.
const RESERVE_BYTES: u64 = 64 << 20;
/// Files that may still be made on it: a twentieth of all, and no more than a stage can make between two looks.
const RESERVE_FILES: u64 = 100_000;
const RESERVE_FILES_PART: u64 = 20;
/// How often the disk is looked at while a stage writes.
const DISK_EVERY: Duration = Duration::from_millis(500);

/// Every stage with what it needs, how much of it, and its rank: what decodes or encodes needs cores, what moves bytes the
/// disks. Lower ranks go first, and the end of the way has the lowest: of a hundred files that were dropped at once
/// the bad ones are told at once, the first is published while the last still waits, and few lie half done on the disks.
const STAGES: &[(&str, &str, u32, u8)] = &[
    ("sanitize", "cpu", 1, 60),
    ("probe", "cpu", 1, 60),
    ("transcode", "cpu", TRANSCODE_CORES, 70),
    ("labels", "cpu", 1, 50),
    ("transcript", "cpu", 1, 50),
    ("meaning", "cpu", 1, 50),
    ("quality", "cpu", 2, 30),
    ("fingerprint", "io", 1, 60),
    ("quarantine", "io", 1, 60),
    ("offer", "io", 1, 60),
    ("brief", "io", 1, 40),
    ("publish", "io", 1, 20),
    ("archive", "io", 1, 10),
];

/// Every stage by name.
pub const NAMES: &[&str] = &[
    "conveyor:sanitize",
    "conveyor:probe",
    "conveyor:transcode",
    "conveyor:labels",
    "conveyor:transcript",
    "conveyor:meaning",
    "conveyor:quality",
    "conveyor:fingerprint",
    "conveyor:quarantine",
    "conveyor:offer",
    "conveyor:brief",
    "conveyor:publish",
    "conveyor:archive",
];

/// What all stages use.
pub struct Stages {
    pub data_dir: PathBuf,
    pub io: ShareIo,
    /// Whether jobs that do not say so themselves may use GPUs.
    pub acceleration: Acceleration,
    /// Who runs them.
    pub spawn: Arc<dyn Spawn>,
    /// How long transcodes take on this box.
    pub predictor: Arc<Predictor>,
    /// The shares on which files are dropped.
    pub watched: Vec<String>,
}

pub fn adapter(name: &'static str, stages: &Arc<Stages>) -> Arc<dyn Adapter> {
    Arc::new(Stage { name: aws::last_part(name), stages: stages.clone() })
}

struct Stage {
    name: &'static str,
    stages: Arc<Stages>,
}

impl Adapter for Stage {
    fn demand(&self, task: &RunTask) -> Option<Demand> {
        Some(demand(self.name, &task.parameters, self.stages.acceleration))
    }

    fn predict(&self, task: &RunTask, on_forecast: &dyn Fn() -> OnForecast) {
        if self.name == "transcode" {
            self.stages.predictor.queued(&task.parameters, on_forecast);
        }
    }

    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(async {
            let ended = self.run(call).await;
            if self.name == "quarantine" { ended.map_err(|error| with_reason(error, &call.parameters)) } else { ended }
        })
    }
}

/// What a stage needs. The box's own acceleration counts where the job says nothing.
fn demand(stage: &str, parameters: &str, acceleration: Acceleration) -> Demand {
    let known = STAGES.iter().find(|(name, ..)| *name == stage);
    let (lane, weight, rank) = known.map_or(("io", 1, Demand::RANK), |(_, lane, weight, rank)| (*lane, *weight, *rank));
    let work = match (stage, lane) {
        ("transcode", _) => pictures(parameters, weight, acceleration),
        (_, "cpu") => Work::Cores { weight },
        _ => Work::Disks { weight },
    };
    Demand { work, rank, priority: None }
}

/// What a transcode is to make. Settings that cannot be read are for the stage itself to refuse.
fn pictures(parameters: &str, cores: u32, acceleration: Acceleration) -> Work {
    let parsed = serde_json::from_str::<Value>(parameters).ok().and_then(|value| settings::parse(&value).ok());
    let Some(job) = parsed else { return Work::Cores { weight: cores } };
    // Outputs of equal settings share one encode.
    let mut distinct = Vec::new();
    for video in job.groups.iter().flat_map(|group| &group.outputs).filter_map(|output| output.video.as_ref()) {
        if let VideoCode::H264(code) = &video.code {
            let encode = (video.width, video.height, video.scaling, code);
            if !distinct.contains(&encode) {
                distinct.push(encode);
            }
        }
    }
    let cores_only = distinct.iter().any(|(.., code)| code.only_on_cores().is_some());
    // Without a size of its own an output has the source's, which is not known yet: mostly it is this one.
    let sizes = distinct.iter().map(|(width, height, ..)| (width.unwrap_or(1_920), height.unwrap_or(1_080)));
    let encodes = Encodes::of(Codec::H264, sizes, cores_only);
    Work::Pictures(Pictures { cores, encodes, acceleration: job.acceleration.unwrap_or(acceleration) })
}

impl Stage {
    /// Runs the stage in its child process.
    async fn run(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let (stage, stages) = (self.name, &*self.stages);
        let more = if stage == "offer" { stages.watched.as_slice() } else { &[] };
        let devices = mounts::check(call, &stages.io, more).await?;
        let folder = WorkDir::create(&stages.data_dir, format!("{}-{}", call.execution, call.task.attempt)).await?;
        let mut parameters = call.parameters.clone();
        if matches!(stage, "quarantine" | "offer")
            && let Some(fields) = parameters.as_object_mut()
        {
            fields.insert("tools".to_owned(), json!(stages.spawn.tools().await));
            fields.insert("watched".to_owned(), json!(stages.watched));
            if stage == "quarantine"
                && let Some(input) = dropped(call).await?
            {
                for name in ["version", "sample", "tried"] {
                    fields.entry(name).or_insert_with(|| input[name].clone());
                }
            }
        }
        let job = Job {
            stage: stage.to_owned(),
            access: access::of(stage, &parameters),
            parameters,
            work_dir: folder.path.clone(),
            // One that is unmounted meanwhile is written to no more.
            shares: stages.io.shares().clone().held_to(devices),
            threads: call.threads,
            device: call.device.clone(),
        };
        let transcodes = stage == "transcode";
        let (begun, meter) = (Instant::now(), EnergyMeter::start());
        let progress = call.progress.clone();
        let work = stages.spawn.spawn(job, Box::new(move |p| progress.report(p)));
        let mut pending = None;
        let update_forecast = async {
            if transcodes {
                pending = stages.predictor.begin(call).await;
            }
            std::future::pending().await
        };
        let result = tokio::select! {
            result = work => result,
            error = crowded(&folder.path) => Err(error),
            result = update_forecast => result,
        };
        drop(folder);
        if result.is_err() {
            // On a share that went away meanwhile every file has vanished: that passes, and is to be tried again.
            mounts::check(call, &stages.io, &[]).await?;
        }
        let mut result = result?;
        if matches!(stage, "sanitize" | "probe") {
            let uri = call.parameters["input"].as_str().unwrap_or_default();
            stages.predictor.remember(uri, result.get("metadata").unwrap_or(&result));
        }
        if transcodes {
            if let Some(joules) = meter.joules() {
                // Of all that ran meanwhile: the counters know no processes.
                result["Energy"] =
                    json!({ "ProcessorJoules": joules.round(), "Of": "all processors while the job ran" });
            }
            let seconds = begun.elapsed().as_secs_f64();
            stages.predictor.check(call, pending, seconds, &mut result).await;
        }
        Ok(CallOutcome::done(with_moves(result, &call.moved)))
    }
}

/// The input of the execution that gives a file up, where that is of this file: it has what the watch saw of it.
async fn dropped(call: &Call) -> Result<Option<Value>, TaskError> {
    let (reader, arn) = (call.handle.reader(), call.text("execution").unwrap_or(&call.execution_arn));
    let Some(id) = claims::named(reader, arn).map_err(|e| fault(&e))? else { return Ok(None) };
    let header = reader.blocking(move |rows| rows.header(id)).await.map_err(|e| fault(&e))?;
    let Some(header) = header else { return Ok(None) };
    let input: Value = serde_json::from_str(&header.input).unwrap_or_default();
    let text = |name: &str| input[name].as_str().unwrap_or_default();
    let is_of_it = call.text("input") == Some(&format!("s3://{}/{}", text("bucket"), text("key")));
    Ok(is_of_it.then_some(input))
}

/// Why a file could not be put away, and why it was to be.
fn with_reason(error: TaskError, parameters: &Value) -> TaskError {
    let text = |name: &str| parameters.get(name).and_then(Value::as_str).unwrap_or_default();
    let cause = format!(
        "{}. '{}' was to go to quarantine at '{}' because of {}: {}",
        error.cause,
        text("input"),
        text("destination"),
        text("error"),
        text("cause")
    );
    TaskError { cause, ..error }
}

/// A result that took more than one device says so.
fn with_moves(mut result: Value, moved: &[String]) -> Value {
    if let Some(fields) = result.as_object_mut()
        && !moved.is_empty()
    {
        let warnings = fields.entry("Warnings").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(warnings) = warnings.as_array_mut() {
            let words = moved.iter().map(|what| format!("a device failed, and the stage ran again elsewhere: {what}"));
            warnings.extend(words.map(Value::String));
        }
    }
    result
}

/// Resolves when the disk under the work folder has no room but the store's: work must never take that, since the
/// appliance itself could not go on.
async fn crowded(folder: &Path) -> TaskError {
    loop {
        if let Ok(disk) = statvfs(folder)
            && let Some(error) = Room::of(&disk).lack(folder)
        {
            return error;
        }
        tokio::time::sleep(DISK_EVERY).await;
    }
}

/// What a disk has left for the appliance's user.
struct Room {
    bytes: u64,
    files: u64,
    /// Files that it can have in all; 0 where it does not count them.
    files_total: u64,
}

impl Room {
    fn of(disk: &Statvfs) -> Room {
        let bytes = disk.blocks_available() * disk.fragment_size();
        Room { bytes, files: disk.files_available(), files_total: disk.files() }
    }

    fn lack(&self, folder: &Path) -> Option<TaskError> {
        let files_kept = RESERVE_FILES.min(self.files_total / RESERVE_FILES_PART);
        let (left, kept, advice) = if self.bytes < RESERVE_BYTES {
            (format!("{} MiB", self.bytes >> 20), format!("{} MiB", RESERVE_BYTES >> 20), "free some space")
        } else if self.files < files_kept {
            (format!("room for {} files (inodes)", self.files), format!("{files_kept} of them"), "remove files")
        } else {
            return None;
        };
        let cause = format!(
            "the disk of the work folder {} has {left} left, and {kept} are kept for the appliance's own store; {advice} \
             on the disk that holds data_dir",
            folder.display()
        );
        Some(TaskError::new("Media.DiskFull", cause))
    }
}

/// The folder where work folders stand.
pub(crate) fn work_root(data_dir: &Path) -> PathBuf {
    data_dir.join("work")
}

/// Begins the names of folders that are being removed.
pub(super) const GONE_PREFIX: &str = "gone-";

/// A work folder that goes when its attempt does, whether that ends, fails or is dropped.
pub(super) struct WorkDir {
    pub path: PathBuf,
}

impl WorkDir {
    pub async fn create(data_dir: &Path, name: String) -> Result<WorkDir, TaskError> {
        let path = work_root(data_dir).join(name);
        let place = path.clone();
        let made = tokio::task::spawn_blocking(move || match beneath::remove_all(&place) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => std::fs::create_dir_all(&place),
        });
        made.await.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(|e| {
            TaskError::new(
                "Media.WorkDir",
                format!("cannot make the work folder {}: {e}; check the disk that holds data_dir", path.display()),
            )
        })?;
        Ok(WorkDir { path })
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // Under another name, so that the same attempt may have its folder anew meanwhile; what a transcode wrote takes
        // long to remove.
        let gone = self.path.with_file_name(format!("{GONE_PREFIX}{}", uuid::Uuid::new_v4().simple()));
        let renamed = std::fs::rename(&self.path, &gone);
        let remove = move || {
            if let Err(error) = renamed.and_then(|()| beneath::remove_all(&gone)) {
                // Housekeeping removes it later.
                tracing::warn!(folder = %gone.display(), %error, "a work folder could not be removed");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_stage_has_its_name() {
        let mut names: Vec<String> = STAGES.iter().map(|(stage, ..)| format!("conveyor:{stage}")).collect();
        let mut known = NAMES.to_vec();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn a_job_says_what_it_needs_and_shares_encodes() {
        let template: Value = serde_json::from_str(include_str!("../../configs/jobs/ladder.json")).unwrap();
        let text = template["Settings"].to_string().replace("{Destination}", "s3://outputs/x");
        let mut settings: Value = serde_json::from_str(&text).unwrap();
        settings["Inputs"] = json!([{ "FileInput": "s3://in/a.mp4" }]);
        let work = |job: &Value| demand("transcode", &job.to_string(), Acceleration::Preferred).work;
        let mut job = json!({ "Settings": settings });
        let encodes = Encodes::of(Codec::H264, [(1920, 1080), (1280, 720)], false);
        let ladder = Pictures { cores: 4, encodes, acceleration: Acceleration::Preferred };
        assert_eq!(work(&job), Work::Pictures(ladder), "four outputs, two encodes");
        job["AccelerationSettings"] = json!({ "Mode": "ENABLED" });
        assert_eq!(work(&job), Work::Pictures(Pictures { acceleration: Acceleration::Required, ..ladder }));
        let h264 = "/Settings/OutputGroups/0/Outputs/0/VideoDescription/CodecSettings/H264Settings";
        job.pointer_mut(h264).unwrap()["CodecLevel"] = json!("LEVEL_4_1");
        let Work::Pictures(Pictures { encodes: Some(encodes), .. }) = work(&job) else { panic!() };
        assert!(encodes.cores_only && encodes.sessions == 3, "{encodes:?}");
        assert_eq!(work(&json!({ "Settings": {} })), Work::Cores { weight: 4 }, "the stage itself refuses it");
    }

    #[test]
    fn a_stage_leaves_the_store_bytes_and_files() {
        let lack = |bytes, files, files_total| {
            let error = Room { bytes, files, files_total }.lack(Path::new("/data/work/x"));
            error.map(|error| (error.error, error.cause))
        };
        assert_eq!(lack(1 << 30, 1 << 20, 1 << 22), None);
        assert_eq!(lack(1 << 30, 0, 0), None, "a disk that counts no files");
        assert_eq!(lack(1 << 30, 60, 1_000), None, "a small one");
        for (lacking, what) in
            [(lack(1 << 20, 1 << 20, 1 << 22), "1 MiB"), (lack(1 << 30, 99_999, 1 << 22), "99999 files")]
        {
            let (error, cause) = lacking.unwrap();
            assert!(error == "Media.DiskFull" && cause.contains(what) && cause.contains("/data/work/x"), "{cause}");
        }
    }

    #[test]
    fn an_input_s_priority_counts_where_it_is_one() {
        use conveyor_run::priority_of;
        assert_eq!(priority_of(r#"{"Priority": 7}"#), Some(7));
        assert_eq!(priority_of(r#"{"priority": -50, "key": "a.mp4"}"#), Some(-50));
        for none in
            [r#"{"Priority": 51}"#, r#"{"Priority": "high"}"#, r#"{"a": {"priority": 3}}"#, "{}", "no priority\""]
        {
            assert_eq!(priority_of(none), None, "{none}");
        }
    }
}
