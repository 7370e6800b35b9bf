//! How long a transcode will take, told before it runs and checked against what it took.
//!
//! The model adds what the graphs do: decoding the source's pixels and encoding each distinct output's, at this box's
//! measured speeds ([`Speeds`], from `conveyor bench`), times what the measured ladder took beyond that, plus starting
//! the child. What the model gets wrong is learnt: every transcode that ends moves a factor (its logarithm, weighed
//! towards the last ones) by which the next prediction is multiplied. Without a benchmark the model has only the
//! proportions right, and nothing is predicted before the first job has been learnt from.
//!
//! Its inputs come from the box's own look at the file: `sanitize` and `probe` leave them here. A job whose file nobody
//! has looked at is probed in a child, one at a time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use conveyor_base::Shares;
use conveyor_base::speeds::{LaneSpeed, Speeds};
use conveyor_job::{Access, Job, TRANSCODE_CORES};
use conveyor_run::{Forecast, OnForecast};
use conveyor_sandbox::Spawn;
use conveyor_services::predictions::{self, Calibration, JobSample, Predictions};
use conveyor_settings::{self as settings, Rate, VideoCode};
use conveyor_store::Reader;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Call;

/// A child's start, its look at the file, and moving the results.
const START_SECONDS: f64 = 0.7;
/// How much of its cores a transcode uses that has them to itself; the rest waits for one thread or another.
const ALONE: f64 = 0.93;
/// Until a run has begun, others that were queued with it may not have: what it shares its cores with is asked later.
const ALL_BEGUN: Duration = Duration::from_millis(300);
/// Sources whose properties are remembered.
const SOURCES_MAX: usize = 10_000;
/// Jobs that wait for their file's probe, above which further ones get no prediction.
const PROBES_MAX: usize = 32;
/// As [`TRANSCODE_CORES`].
const CORES: f64 = TRANSCODE_CORES as f64;
/// Luma megapixels a second of two cores, by x264's presets: only their proportions count.
const PRESETS: &[(&str, f64)] = &[
    ("ultrafast", 330.0),
    ("superfast", 250.0),
    ("veryfast", 170.0),
    ("faster", 110.0),
    ("fast", 85.0),
    ("medium", 70.0),
    ("slow", 45.0),
    ("slower", 20.0),
    ("veryslow", 11.0),
];
const DECODE: f64 = 450.0;

/// What is known of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceInfo {
    pub seconds: f64,
    pub width: f64,
    pub height: f64,
    pub fps: f64,
    /// As speeds name it: `h264`.
    pub codec: String,
}

impl SourceInfo {
    /// Out of a probe's description of a file.
    pub fn of_probe(description: &Value) -> Option<SourceInfo> {
        let number = |key: &str| description[key].as_f64().filter(|n| n.is_finite() && *n > 0.0);
        Some(SourceInfo {
            seconds: number("duration")?,
            width: number("width")?,
            height: number("height")?,
            fps: number("fps")?,
            codec: codec(description["codec"].as_str().unwrap_or_default()),
        })
    }
}

impl SourceInfo {
    /// Out of a transcode's own result.
    fn of_result(result: &Value) -> Option<SourceInfo> {
        let input = result.pointer("/InputDetails/0")?;
        let number = |value: &Value| value.as_f64().filter(|n| *n > 0.0);
        let seconds = number(&input["DurationInMs"])? / 1_000.0;
        let (width, height) = (number(&input["WidthInPx"])?, number(&input["HeightInPx"])?);
        let fps = number(&result["Frames"])? / seconds;
        Some(SourceInfo { seconds, width, height, fps, codec: "h264".to_owned() })
    }
}

/// Names of codecs as speeds are keyed.
fn codec(name: &str) -> String {
    let plain: String = name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let known = [("h264", "h264"), ("avc", "h264"), ("h265", "hevc"), ("hevc", "hevc"), ("av1", "av1")];
    known.iter().find(|(part, _)| plain.contains(part)).map_or(plain.clone(), |(_, name)| (*name).to_owned())
}

/// The work of one job: luma megapixels to decode, and to encode by x264's preset.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub codec: String,
    pub decode_mpix: f64,
    pub encodes: Vec<(&'static str, f64)>,
}

impl Workload {
    /// What a job asks for, of this source; nothing where its settings cannot be read or it has no pictures to make.
    pub fn of(parameters: &Value, source: &SourceInfo) -> Option<Workload> {
        let settings = settings::parse(parameters).ok()?;
        // Outputs of equal settings share one encode.
        let mut distinct = Vec::new();
        for video in settings.groups.iter().flat_map(|group| &group.outputs).filter_map(|output| output.video.as_ref())
        {
            if let VideoCode::H264(code) = &video.code
                && !distinct.contains(&(video.width, video.height, code))
            {
                distinct.push((video.width, video.height, code));
            }
        }
        let frames = source.seconds * source.fps;
        let encodes = distinct.iter().map(|(width, height, code)| {
            // Nothing is enlarged.
            let (width, height) = (fit(*width, source.width), fit(*height, source.height));
            let frames = match code.rate {
                Rate::Source => frames,
                Rate::Fixed { numerator, denominator } => {
                    source.seconds * f64::from(numerator) / f64::from(denominator).max(1.0)
                }
            };
            (code.preset, width * height / 1e6 * frames)
        });
        let encodes: Vec<_> = encodes.collect();
        let decode_mpix = source.width * source.height / 1e6 * frames;
        (!encodes.is_empty()).then(|| Workload { codec: source.codec.clone(), decode_mpix, encodes })
    }

    /// Seconds on the whole of a lane, by the model alone.
    fn seconds(&self, lane: Option<&LaneSpeed>) -> f64 {
        let veryfast = lane.and_then(|lane| lane.encode_mpix_s.get("h264/veryfast").copied());
        let scale = veryfast.map_or(1.0, |speed| speed / listed("veryfast"));
        let encode = |preset: &str| {
            let measured = lane.and_then(|lane| lane.encode_mpix_s.get(&format!("h264/{preset}")).copied());
            measured.unwrap_or_else(|| listed(preset) * scale)
        };
        let decode = lane.and_then(|lane| lane.decode_mpix_s.get(&self.codec).copied()).unwrap_or(DECODE * scale);
        let overhead = lane.and_then(|lane| lane.ladder).map_or(1.1, |ladder| ladder.overhead);
        let encodes: f64 = self.encodes.iter().map(|(preset, mpix)| mpix / encode(preset)).sum();
        (self.decode_mpix / decode + encodes) * overhead
    }
}

fn fit(wanted: Option<u32>, source: f64) -> f64 {
    wanted.map_or(source, |wanted| f64::from(wanted).min(source))
}

fn listed(preset: &str) -> f64 {
    PRESETS.iter().find(|(name, _)| *name == preset).map_or(70.0, |(_, speed)| *speed)
}

/// One per appliance.
pub struct Predictor {
    reader: Reader,
    /// Where the benchmark's speeds lie, and work folders.
    data_dir: PathBuf,
    shares: Shares,
    /// Who looks at files.
    spawn: Arc<dyn Spawn>,
    sources: Mutex<HashMap<String, SourceInfo>>,
    predictions: Predictions,
    probing: Mutex<usize>,
    one_probe: tokio::sync::Mutex<()>,
}

/// A prediction of a run that has begun, to be compared with how long it took.
pub struct PendingPrediction {
    workload: Workload,
    on_gpu: bool,
    /// That it keeps busy, about.
    cores: f64,
    predicted: Option<(f64, &'static str)>,
}

impl Predictor {
    pub fn new(
        reader: Reader,
        predictions: Predictions,
        data_dir: PathBuf,
        shares: Shares,
        spawn: Arc<dyn Spawn>,
    ) -> Predictor {
        let (sources, probing, one_probe) = Default::default();
        Predictor { reader, predictions, data_dir, shares, spawn, sources, probing, one_probe }
    }

    /// Remembers what a look at a file found.
    pub fn remember(&self, uri: &str, description: &Value) {
        let Some(source) = SourceInfo::of_probe(description) else { return };
        let mut sources = self.sources.lock();
        if sources.len() >= SOURCES_MAX {
            // Which of ten thousand goes hardly matters: it is probed again.
            let any = sources.keys().next().cloned();
            any.and_then(|any| sources.remove(&any));
        }
        sources.insert(uri.to_owned(), source);
    }

    fn source(&self, parameters: &Value) -> Option<SourceInfo> {
        self.sources.lock().get(input_of(parameters)?).cloned()
    }

    fn calibration(&self) -> Calibration {
        // A store that cannot be read ends the appliance by itself.
        predictions::read(&self.reader).unwrap_or_default()
    }

    /// Seconds, and what they follow from; nothing where neither a benchmark nor a past job says.
    fn predict(&self, workload: &Workload, on_gpu: bool, cores: f64) -> Option<(f64, &'static str)> {
        let lane = self.speeds_of_cores();
        let learnt = self.calibration().of(on_gpu);
        // What cores were measured at says nothing of a GPU: only its own past jobs do.
        let by = match (lane.is_some() && !on_gpu, learnt.jobs) {
            (true, 0) => "benchmark",
            (true, _) => "benchmark and past jobs",
            (false, 0) => return None,
            (false, _) => "past jobs",
        };
        Some((modelled(workload, lane.as_ref(), cores) * learnt.factor() + START_SECONDS, by))
    }

    /// What the run that begins now is expected to take; whoever looks at it is told.
    pub async fn begin(&self, call: &Call) -> Option<PendingPrediction> {
        tokio::time::sleep(ALL_BEGUN).await;
        while self.source(&call.parameters).is_none() && *self.probing.lock() > 0 {
            tokio::time::sleep(ALL_BEGUN).await;
        }
        let pending = self.hold(&call.parameters, on_gpu(call), own_cores(call).await)?;
        if let Some((seconds, by)) = pending.predicted {
            let forecast = Forecast { run_ms: (seconds * 1_000.0) as i64, by };
            call.handle.update_forecast(call.execution, call.task.attempt, forecast);
        }
        Some(pending)
    }

    fn hold(&self, parameters: &Value, on_gpu: bool, cores: f64) -> Option<PendingPrediction> {
        let workload = Workload::of(parameters, &self.source(parameters)?)?;
        let predicted = self.predict(&workload, on_gpu, cores);
        Some(PendingPrediction { workload, on_gpu, cores, predicted })
    }

    /// Learns from a run that ended well, and says in its result how the prediction came out. What was not known of the
    /// source before is known from the result.
    pub async fn check(&self, call: &Call, pending: Option<PendingPrediction>, took: f64, result: &mut Value) {
        let (cores, on_gpu) = (call.threads as f64 * ALONE, on_gpu(call));
        let workload = || Workload::of(&call.parameters, &SourceInfo::of_result(result)?);
        let pending =
            pending.or_else(|| Some(PendingPrediction { workload: workload()?, on_gpu, cores, predicted: None }));
        let Some(mut pending) = pending else { return };
        // What was told while the attempt waited counts too.
        let told = || {
            let own = call.handle.predictions(call.execution).into_iter().find(|p| p.attempt == call.task.attempt)?;
            Some((own.run_ms as f64 / 1_000.0, own.by))
        };
        pending.predicted = pending.predicted.or_else(told);
        let lane = self.speeds_of_cores();
        // On cores what was computed counts: how long that took depended on what ran beside it.
        let computed = result["ProcessorSeconds"].as_f64().filter(|_| !pending.on_gpu).map(|used| used / pending.cores);
        let took_itself = computed.unwrap_or(took) - START_SECONDS;
        let modelled = modelled(&pending.workload, lane.as_ref(), pending.cores);
        let sample = JobSample { on_gpu: pending.on_gpu, modelled, took: took_itself };
        self.predictions.learn((call.execution, call.task.attempt), sample).await;
        if let Some((seconds, by)) = pending.predicted {
            metrics::histogram!("conveyor_prediction_error_ratio").record((seconds - took).abs() / took.max(0.001));
            metrics::counter!("conveyor_predictions_checked_total", "by" => by).increment(1);
            result["Prediction"] = json!({
                "Seconds": round(seconds), "TookSeconds": round(took),
                "ErrorPercent": round((seconds / took.max(0.001) - 1.0) * 100.0), "By": by,
            });
        }
    }

    fn speeds_of_cores(&self) -> Option<LaneSpeed> {
        Speeds::read(&self.data_dir)?.lanes.remove("cpu").filter(|lane| !lane.encode_mpix_s.is_empty())
    }

    /// A transcode was queued: tells at once where its file is known, else after a look at it.
    pub fn queued(self: &Arc<Self>, parameters: &str, on_forecast: &dyn Fn() -> OnForecast) {
        let Ok(parameters) = serde_json::from_str::<Value>(parameters) else { return };
        if self.source(&parameters).is_some() {
            return self.forecast(&parameters, on_forecast());
        }
        // Without speeds and without past jobs a look at the file would tell nothing.
        let learnt = self.calibration();
        let jobs = learnt.cores.jobs.max(learnt.gpus.jobs);
        let nothing_known = jobs == 0 && Speeds::read(&self.data_dir).is_none();
        if nothing_known || *self.probing.lock() >= PROBES_MAX {
            return;
        }
        let (predictor, on_forecast) = (self.clone(), on_forecast());
        *predictor.probing.lock() += 1;
        tokio::spawn(async move {
            if let Some(uri) = input_of(&parameters) {
                let _one = predictor.one_probe.lock().await;
                if predictor.source(&parameters).is_none() {
                    predictor.look(uri).await;
                }
            }
            *predictor.probing.lock() -= 1;
            predictor.forecast(&parameters, on_forecast);
        });
    }

    fn forecast(&self, parameters: &Value, on_forecast: OnForecast) {
        let cores = cores_of_box().min(CORES) * ALONE;
        let on_gpu = self.calibration().last_on_gpu;
        let pending = self.hold(parameters, on_gpu, cores);
        if let Some((seconds, by)) = pending.and_then(|pending| pending.predicted) {
            on_forecast(Forecast { run_ms: (seconds * 1_000.0) as i64, by });
        }
    }

    /// Probes a file in a child. What is wrong with the file is for its job to say.
    async fn look(&self, uri: &str) {
        let name = format!("predict-{}", uuid::Uuid::new_v4().simple());
        let Ok(folder) = super::media::WorkDir::create(&self.data_dir, name).await else { return };
        let job = Job {
            stage: "probe".to_owned(),
            parameters: json!({ "input": uri }),
            work_dir: folder.path.clone(),
            shares: self.shares.clone(),
            access: Access::reading(uri.parse().ok()),
            threads: 1,
            device: None,
        };
        if let Ok(found) = self.spawn.spawn(job, Box::new(|_| {})).await {
            self.remember(uri, &found);
        }
    }
}

/// Whether a GPU encodes for this attempt.
fn on_gpu(call: &Call) -> bool {
    call.device.as_ref().is_some_and(|device| device.encode)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// On so many of the box's cores: speeds were measured with all of them, and nothing beside it.
fn modelled(workload: &Workload, lane: Option<&LaneSpeed>, cores: f64) -> f64 {
    let all = cores_of_box() * ALONE;
    workload.seconds(lane) * all / cores.clamp(0.1, all.max(0.1))
}

fn cores_of_box() -> f64 {
    conveyor_hw::Cpu::read().cores.max(1) as f64
}

/// What a run keeps busy of the cores that were leased, or is left of them where the lane has granted more than there
/// are: those are never idle.
async fn own_cores(call: &Call) -> f64 {
    let lanes = call.handle.lanes().await;
    let granted = lanes.iter().find(|lane| lane.name == "cpu").map_or(0.0, |lane| f64::from(lane.busy));
    let crowd = granted / cores_of_box();
    if crowd > 1.0 { call.threads as f64 / crowd } else { call.threads as f64 * ALONE }
}

/// The file that a job reads.
fn input_of(parameters: &Value) -> Option<&str> {
    parameters.pointer("/Settings/Inputs/0/FileInput").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> SourceInfo {
        SourceInfo { seconds: 100.0, width: 1920.0, height: 1080.0, fps: 30.0, codec: "h264".into() }
    }

    fn ladder() -> Value {
        let (_, text) = super::super::builtin::JOB_TEMPLATES[0];
        let mut job: Value = serde_json::from_str(&text.replace("{Destination}", "s3://out/x")).unwrap();
        job["Settings"]["Inputs"] = json!([{ "FileInput": "s3://in/a.mp4" }]);
        json!({ "Settings": job["Settings"] })
    }

    #[test]
    fn the_ladders_work_is_its_pixels_and_equal_outputs_count_once() {
        let workload = Workload::of(&ladder(), &source()).unwrap();
        let full = 1920.0 * 1080.0 / 1e6 * 3_000.0;
        assert_eq!(workload.decode_mpix, full);
        assert_eq!(workload.encodes.len(), 2, "MP4 and HLS share: {workload:?}");
        assert_eq!(workload.encodes[0], ("veryfast", full));
        let small = SourceInfo { width: 640.0, height: 360.0, ..source() };
        let of_small = Workload::of(&ladder(), &small).unwrap();
        assert!(of_small.encodes.iter().all(|(_, mpix)| *mpix <= 640.0 * 360.0 / 1e6 * 3_000.0), "nothing is enlarged");
        let lane = LaneSpeed {
            encode_mpix_s: [("h264/veryfast".to_owned(), 100.0)].into(),
            decode_mpix_s: [("h264".to_owned(), 400.0)].into(),
            ..LaneSpeed::default()
        };
        let seconds = workload.seconds(Some(&lane));
        let by_hand = (full / 400.0 + full * (1.0 + 4.0 / 9.0) / 100.0) * 1.1;
        assert!((seconds - by_hand).abs() < 1e-6, "{seconds} against {by_hand}");
    }
}
