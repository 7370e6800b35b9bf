//! GPUs as the appliance uses them, on boxes that this machine is not: GStreamer's own nvcodec elements over a scripted
//! driver, and the served binary on a box of two GPUs that both fail.
//!
//! The driver here registers, negotiates and refuses; it decodes and encodes nothing. What comes out of a real NVENC or
//! NVDEC is for a box that has one to show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use conveyor_base::Shares;
use conveyor_job::{Access, Device, Job};
use conveyor_media as media;
use conveyor_media::clip::{self, Clip};
use conveyor_testing::driver::FakeDriver;
use conveyor_testing::served::Served;

use serde_json::{Value, json};

const BOX: &str = "\
gpus 2
any_version 1
gpu0.name NVIDIA L4
gpu0.codecs h264 hevc
gpu1.name NVIDIA H200
gpu1.codecs none
";
const UUIDS: [&str; 2] = ["GPU-00000000-0000-0000-0000-000000000000", "GPU-01010101-0000-0000-0000-000000000000"];

fn ladder() -> Value {
    let text = include_str!("../configs/jobs/ladder.json").replace("{Destination}", "s3://s/out");
    let mut job = serde_json::from_str::<Value>(&text).unwrap();
    job["Settings"]["Inputs"] = json!([{ "FileInput": "s3://s/clip.mp4",
        "AudioSelectors": { "Audio Selector 1": { "DefaultSelection": "DEFAULT" } } }]);
    json!({ "Settings": job["Settings"] })
}

fn job(folder: &Path, device: Option<Device>, parameters: Value) -> Job {
    Job {
        stage: "transcode".into(),
        parameters,
        work_dir: folder.join("work"),
        shares: Shares::new([("s".to_owned(), folder.to_owned())]),
        access: Access::default(),
        threads: 2,
        device,
    }
}

fn device(gpu: usize, decode: bool, encode: bool) -> Device {
    Device { name: format!("gpu{gpu}"), uuid: UUIDS[gpu].into(), cpus: None, decode, encode }
}

/// Plays the child for the tests below, in a process that has the scripted driver.
#[test]
#[ignore = "started by the tests of graphs"]
fn child_side() {
    let Ok(text) = std::env::var("GPU_TEST_JOB") else { return };
    let job: Job = serde_json::from_str(&text).unwrap();
    match media::outline(&job) {
        Ok(lines) => lines.iter().for_each(|line| println!("element {line}")),
        Err(error) => println!("error {error}"),
    }
}

/// The graph that a job would run on, or `None` where this machine's GStreamer has no nvcodec plug-in.
fn outline(driver: &FakeDriver, job: &Job) -> Option<Vec<String>> {
    media::init().unwrap();
    if gstreamer::Registry::get().find_plugin("nvcodec").is_none() {
        assert!(std::env::var_os("CI").is_none(), "gstreamer1.0-plugins-bad with nvcodec is missing: run `make test`");
        eprintln!("skipped: this machine's GStreamer has no nvcodec plug-in (gstreamer1.0-plugins-bad)");
        return None;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_side", "--ignored", "--nocapture"])
        .env("GPU_TEST_JOB", serde_json::to_string(job).unwrap())
        .env("LD_LIBRARY_PATH", driver.path())
        .env("GST_REGISTRY", driver.path().join(format!("{}.registry", job.device.as_ref().unwrap().name)))
        .env("CUDA_VISIBLE_DEVICES", &job.device.as_ref().unwrap().uuid)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text.lines().filter(|l| l.starts_with("element ") || l.starts_with("error ")).map(str::to_owned).collect())
}

struct Graphs {
    folder: tempfile::TempDir,
    driver: FakeDriver,
}

impl Graphs {
    fn new(driver: FakeDriver) -> Graphs {
        let folder = tempfile::tempdir().unwrap();
        clip::make(&folder.path().join("clip.mp4"), Clip { width: 1920, height: 1080, fps: 25, seconds: 3 }).unwrap();
        Graphs { folder, driver }
    }

    fn of(&self, device: Device, parameters: Value) -> Option<String> {
        Some(outline(&self.driver, &job(self.folder.path(), Some(device), parameters))?.join("\n"))
    }
}

fn count(graph: &str, element: &str) -> usize {
    graph.lines().filter(|line| line.split(' ').nth(1) == Some(element)).count()
}

#[test]
fn pictures_stay_on_the_gpu_where_it_has_both_engines() {
    let graphs = Graphs::new(FakeDriver::new(BOX));
    let Some(graph) = graphs.of(device(0, true, true), ladder()) else { return };
    let counts =
        ["nvh264dec", "nvh264enc", "cudaconvertscale", "x264enc", "conveyorscale", "cudadownload", "avdec_h264"];
    // Two renditions of which one is the source's size; thumbnails alone leave the GPU's memory, and are scaled on cores.
    assert_eq!(counts.map(|element| count(&graph, element)), [1, 2, 1, 0, 1, 1, 0], "{graph}");
    let encoder = graph.lines().find(|line| line.contains("nvh264enc")).unwrap();
    for setting in [
        "rc-mode=vbr",
        "const-quality=21",
        "max-bitrate=5000",
        "vbv-buffer-size=10000",
        "gop-size=50",
        "bframes=2",
        "spatial-aq=true",
    ] {
        assert!(encoder.contains(setting), "{setting} in {encoder}");
    }
    assert!(!encoder.contains("i-adapt=true"), "{encoder}");

    let mut turned = ladder();
    turned["Settings"]["Inputs"][0]["VideoSelector"] = json!({ "Rotate": "DEGREES_90" });
    let graph = graphs.of(device(0, true, true), turned).unwrap();
    let counts = ["nvh264dec", "nvh264enc", "cudaconvertscale", "videoflip", "cudadownload"];
    assert_eq!(counts.map(|element| count(&graph, element)), [1, 2, 0, 1, 1], "through main memory: {graph}");
}

#[test]
fn each_engine_serves_alone_and_what_it_cannot_do_stays_on_cores() {
    let graphs = Graphs::new(FakeDriver::new(BOX));
    let Some(graph) = graphs.of(device(1, true, false), ladder()) else { return };
    let counts = ["nvh264dec", "nvh264enc", "x264enc", "cudadownload"];
    assert_eq!(counts.map(|element| count(&graph, element)), [1, 0, 2, 1], "NVDEC without NVENC: {graph}");
    let graph = graphs.of(device(0, false, true), ladder()).unwrap();
    assert_eq!(counts.map(|element| count(&graph, element)), [0, 2, 0, 0], "NVENC alone: {graph}");

    let mut constant = ladder();
    for group in constant["Settings"]["OutputGroups"].as_array_mut().unwrap() {
        for output in group["Outputs"].as_array_mut().unwrap() {
            if let Some(h264) = output.pointer_mut("/VideoDescription/CodecSettings/H264Settings") {
                *h264 = json!({ "RateControlMode": "CBR", "Bitrate": 4_000_000, "QualityTuningLevel": "MULTI_PASS_HQ",
                    "NumberBFramesBetweenReferenceFrames": 7 });
            }
        }
    }
    let graph = graphs.of(device(0, true, true), constant.clone()).unwrap();
    let encoder = graph.lines().find(|line| line.contains("nvh264enc")).unwrap();
    for setting in ["rc-mode=cbr-hq", "preset=hq", "bitrate=4000", "bframes=4"] {
        assert!(encoder.contains(setting), "{setting} in {encoder}");
    }
    let level = constant.pointer_mut("/Settings/OutputGroups/0/Outputs/0/VideoDescription/CodecSettings/H264Settings");
    level.unwrap()["CodecLevel"] = json!("LEVEL_4_1");
    let graph = graphs.of(device(0, true, true), constant).unwrap();
    assert_eq!((count(&graph, "nvh264dec"), count(&graph, "nvh264enc")), (1, 0), "a level cannot be set: {graph}");
    assert!(count(&graph, "x264enc") > 0);

    // Without NVRTC nothing scales on the GPU, and the pictures go through main memory.
    fs::remove_file(graphs.driver.path().join("libnvrtc.so")).unwrap();
    fs::remove_file(graphs.driver.path().join("gpu0.registry")).unwrap();
    let graph = graphs.of(device(0, true, true), ladder()).unwrap();
    let counts = ["nvh264dec", "nvh264enc", "cudaconvertscale", "cudadownload"];
    assert_eq!(counts.map(|element| count(&graph, element)), [1, 2, 0, 1], "{graph}");
}

#[test]
fn a_gpu_that_gstreamer_cannot_use_is_told_with_the_package_that_is_missing() {
    let graphs = Graphs::new(FakeDriver::new(BOX).without("libnvidia-encode.so.1"));
    let Some(error) = graphs.of(device(0, true, true), ladder()) else { return };
    assert!(error.starts_with("error Device.Unusable") && error.contains("gstreamer1.0-plugins-bad"), "{error}");
}

/// Bound on anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(240);

/// Killed with the test, however that ends.
struct Server {
    served: Served,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(driver: &FakeDriver) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let mut config = "data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n".to_owned();
        for share in ["incoming", "outputs"] {
            fs::create_dir_all(folder.path().join(share)).unwrap();
            config += &format!("[shares.{share}]\npath = \"{share}\"\n");
        }
        fs::write(folder.path().join("conveyor.toml"), config).unwrap();
        let served = Served::start_with(folder.path(), |command| {
            command.env("LD_LIBRARY_PATH", driver.path()).env_remove("CUDA_VISIBLE_DEVICES")
        });
        Server { served, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ask(&self, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/api/v1/{path}", self.served.url());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = reqwest::Client::new();
            let request = match body {
                Some(body) => client.post(&url).json(&body),
                None => client.get(&url),
            };
            request.send().await.unwrap().json().await.unwrap()
        })
    }

    fn lane(&self, name: &str) -> Value {
        let lanes = self.ask("lanes", None)["lanes"].as_array().cloned().unwrap();
        lanes.into_iter().find(|lane| lane["name"] == name).unwrap_or_else(|| panic!("no lane {name}"))
    }

    /// The execution, once it has ended.
    fn ended(&self, id: &Value) -> Value {
        let begun = Instant::now();
        loop {
            let execution = self.ask(&format!("executions/{}", id.as_str().unwrap()), None);
            if !execution["stoppedAt"].is_null() {
                return execution;
            }
            let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "{id} does not end: {execution:#}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn transcode(&self, acceleration: Option<&str>, destination: &str) -> Value {
        let text = include_str!("../configs/jobs/ladder.json").replace("{Destination}", destination);
        let mut job: Value = serde_json::from_str(&text).unwrap();
        job["Settings"]["Inputs"] = json!([{ "FileInput": "s3://incoming/clip.mp4" }]);
        let mut input = json!({ "Settings": job["Settings"] });
        if let Some(mode) = acceleration {
            input["AccelerationSettings"] = json!({ "Mode": mode });
        }
        self.ask("executions", Some(json!({ "machine": "conveyor-mediaconvert-job", "input": input })))["id"].clone()
    }
}

#[test]
fn every_file_finishes_on_a_box_whose_gpus_fail() {
    let driver = FakeDriver::new(BOX);
    let server = Server::start(&driver);
    let clip = Clip { width: 320, height: 180, fps: 25, seconds: 3 };
    clip::make(&server.path("incoming/clip.mp4"), clip).unwrap();
    assert_eq!(server.lane("gpu0.nvenc")["capacity"], 6);
    assert_eq!(server.lane("gpu1.nvenc")["state"], "absent");
    assert!(server.lane("gpu1.nvenc")["why"].as_str().unwrap().contains("no NVENC"));

    // The first card falls off the bus when work is on its way to it; the other one's decoder refuses.
    driver.says(&format!("{BOX}gpu0.lost 1\n"));
    let jobs: Vec<Value> = (0..3).map(|n| server.transcode(None, &format!("s3://outputs/{n}"))).collect();
    let mut moved = 0;
    for (n, id) in jobs.iter().enumerate() {
        let execution = server.ended(id);
        assert_eq!(execution["status"], "SUCCEEDED", "{execution:#}");
        assert!(server.path(&format!("outputs/{n}/mp4/clip_1080p.mp4")).exists());
        let output = execution["output"].as_str().unwrap();
        moved += usize::from(output.contains("Device.Lost") && output.contains("ran again elsewhere"));
        let history = server.ask(&format!("executions/{}/history", id.as_str().unwrap()), None);
        let events = history["events"].as_array().unwrap();
        let scheduled = events.iter().filter(|event| event["type"] == "TaskScheduled").count();
        assert_eq!(scheduled, 1, "the attempt moved on, and the state was tried once: {history:#}");
    }
    assert!(moved > 0, "somebody met the card that was lost");
    let lost = server.lane("gpu0.nvenc");
    assert_eq!(lost["state"], "drained", "{lost}");
    assert!(lost["why"].as_str().unwrap().contains("Device.Lost") && lost["retryAt"].is_i64(), "{lost}");

    // What must run on a GPU is told that none can, or waits for the one that is drained; it never runs on cores.
    let required = server.transcode(Some("ENABLED"), "s3://outputs/required");
    let waits = || {
        let shown = server.ask(&format!("executions/{}", required.as_str().unwrap()), None);
        let why = shown["waiting"][0]["why"].as_str().map(str::to_owned);
        why.filter(|why| why.contains("gpu0.nvenc is drained until"))
    };
    let begun = Instant::now();
    while waits().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it does not say what it waits for");
        std::thread::sleep(Duration::from_millis(50));
    }
    let disabled = server.ended(&server.transcode(Some("DISABLED"), "s3://outputs/disabled"));
    assert_eq!(disabled["status"], "SUCCEEDED");
    assert!(!disabled["output"].as_str().unwrap().contains("Device."), "{disabled:#}");
}
