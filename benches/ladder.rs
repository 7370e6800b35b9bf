//! The recipe's outputs in one pass, against the best single ffmpeg command and against five separate ones; and several
//! files at once on a served box, all lanes busy, against the better of ffmpeg's commands one after the other and all
//! at the same time.
//!
//! Runs are interleaved, so that a noisy neighbour disturbs all alike; the figures are medians and their
//! ratios. `LADDER_RUNS` sets the number of rounds (3), `LADDER_SECONDS` the length of the source (20), `LADDER_FILES`
//! how many files (4), each half as long, are there at once. Needs ffmpeg on the path, as a yardstick only.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use conveyor_testing::served::Served;
use serde_json::{Value, json};

fn main() {
    // `cargo test --benches` and `cargo bench` both run this binary; only the latter asks for measurements.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    if Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("ladder: skipped, ffmpeg (the yardstick) is not installed");
        return;
    }
    let rounds = number("LADDER_RUNS", 3);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let source = dir.path().join("alone/in/source.mp4");
    make_source(&source, number("LADDER_SECONDS", 20));

    alone(&dir.path().join("alone"), rounds, &source);
    all_lanes_busy(&dir.path().join("busy"), rounds);
}

/// One file: what the box makes of it against what ffmpeg does.
fn alone(dir: &Path, rounds: u32, source: &Path) {
    let (mut ours, mut one, mut five) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        ours.push(timed(|| transcode(source, &folder(dir, &format!("ours{round}")))));
        one.push(timed(|| ffmpeg_one(source, &folder(dir, &format!("one{round}")))));
        five.push(timed(|| ffmpeg_five(source, &folder(dir, &format!("five{round}")))));
    }
    let (ours, one, five) = (median(ours), median(one), median(five));
    println!(
        "ladder: conveyor {ours:.2} s, one ffmpeg command {one:.2} s, five ffmpeg commands {five:.2} s (medians of {rounds})"
    );
    println!(
        "ladder: {:.3} of the single command (at most 1.05), {:.3} of the five (below 0.5)",
        ours / one,
        ours / five
    );
}

/// Several files at once, as the box's own lanes place them.
fn all_lanes_busy(dir: &Path, rounds: u32) {
    let files = number("LADDER_FILES", 4);
    let seconds = (number("LADDER_SECONDS", 20) / 2).max(1);
    make_source(&dir.join("in/source0.mp4"), seconds);
    let sources: Vec<_> = (0..files).map(|n| dir.join(format!("in/source{n}.mp4"))).collect();
    for source in &sources[1..] {
        std::fs::copy(&sources[0], source).expect("a copy of the source");
    }
    let served = serve(dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut ours, mut turns, mut crowds) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let out = |kind: &str, n: usize| folder(dir, &format!("{kind}{round}-{n}"));
        ours.push(timed(|| runtime.block_on(transcode_all(&served, files, round))));
        turns.push(timed(|| sources.iter().enumerate().for_each(|(n, source)| ffmpeg_one(source, &out("turn", n)))));
        crowds.push(timed(|| {
            std::thread::scope(|scope| {
                for (n, source) in sources.iter().enumerate() {
                    scope.spawn(move || ffmpeg_one(source, &out("once", n)));
                }
            });
        }));
    }
    drop(served);
    let (ours, turns, crowds) = (median(ours), median(turns), median(crowds));
    println!(
        "ladder: {files} files: conveyor {ours:.2} s, ffmpeg one after the other {turns:.2} s, all at once {crowds:.2} s (medians of {rounds})"
    );
    println!("ladder: {:.3} of the throughput of ffmpeg's better way (at least 0.97)", turns.min(crowds) / ours);
}

fn folder(dir: &Path, name: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(&path).expect("an output folder");
    path
}

fn serve(dir: &Path) -> Served {
    let config =
        "listen = '127.0.0.1:0'\ndata_dir = 'data'\n[shares.incoming]\npath = 'in'\n[shares.outputs]\npath = 'out'\n";
    folder(dir, "out");
    std::fs::write(dir.join("conveyor.toml"), config).expect("a configuration");
    Served::start(dir)
}

async fn transcode_all(served: &Served, files: u32, round: u32) {
    let mut settings = ladder_settings();
    settings["Inputs"][0].as_object_mut().expect("an input").remove("FileInput");
    settings["Inputs"][0]["FileInput.$"] = json!("States.Format('s3://incoming/source{}.mp4', $)");
    for group in settings["OutputGroups"].as_array_mut().expect("groups") {
        for of_type in group["OutputGroupSettings"].as_object_mut().expect("settings").values_mut() {
            let Some(place) = of_type.as_object_mut().and_then(|fields| fields.remove("Destination")) else { continue };
            let place =
                place.as_str().expect("a place").replace("s3://outputs/", &format!("s3://outputs/{round}-{{}}/"));
            of_type["Destination.$"] = json!(format!("States.Format('{place}', $)"));
        }
    }
    let definition = json!({"StartAt": "All", "States": {"All": {"Type": "Map", "End": true, "ItemProcessor": {
        "StartAt": "Transcode", "States": {"Transcode": {
            "Type": "Task", "Resource": "arn:aws:states:::conveyor:transcode", "End": true,
            "Parameters": {"Settings": settings},
        }},
    }}}});
    let machine = served.create(&format!("all-{round}"), &definition).await;
    let mut client = served.client().await;
    let input = json!((0..files).collect::<Vec<_>>()).to_string();
    let request = json!({"stateMachineArn": machine, "input": input});
    let execution = client.call("AWSStepFunctions.StartExecution", &request).await["executionArn"].clone();
    loop {
        let found = client.call("AWSStepFunctions.DescribeExecution", &json!({"executionArn": execution})).await;
        match found["status"].as_str() {
            Some("RUNNING") => tokio::time::sleep(Duration::from_millis(20)).await,
            Some("SUCCEEDED") => return,
            _ => panic!("the transcodes failed: {found}"),
        }
    }
}

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn ffmpeg(arguments: &[&str]) {
    let status = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(arguments)
        .status()
        .expect("ffmpeg starts");
    assert!(status.success(), "ffmpeg {arguments:?}");
}

/// 1080p30 with motion and noise at about 25 Mbit/s, so that decoding costs what a camera's file costs.
fn make_source(path: &Path, seconds: u32) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a source folder");
    let video = format!("testsrc2=size=1920x1080:rate=30:duration={seconds},noise=alls=12:allf=t");
    let audio = format!("sine=frequency=440:duration={seconds}:sample_rate=48000");
    let path = path.to_string_lossy();
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        &video,
        "-f",
        "lavfi",
        "-i",
        &audio,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-b:v",
        "25M",
        "-maxrate",
        "30M",
        "-bufsize",
        "30M",
        "-pix_fmt",
        "yuv420p",
        "-g",
        "60",
        "-c:a",
        "aac",
        "-ac",
        "2",
        &path,
    ]);
}

/// The recipe's job through the same child process that the appliance starts.
fn transcode(source: &Path, out: &Path) {
    let incoming = source.parent().expect("a source folder");
    let work = out.join("work");
    std::fs::create_dir_all(&work).expect("a work folder");
    let job = json!({
        "stage": "transcode",
        "parameters": { "Settings": ladder_settings() },
        "work_dir": work,
        "shares": { "roots": { "incoming": incoming, "outputs": out } },
        "threads": std::thread::available_parallelism().map_or(1, |n| n.get()),
    });
    let mut child = Command::new(conveyor_testing::binary())
        .arg("stage")
        // As the appliance does: the list of plugins is made once, not by every child.
        .env("GST_REGISTRY", incoming.with_file_name("registry.bin"))
        .env("GST_REGISTRY_FORK", "no")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the stage starts");
    serde_json::to_writer(child.stdin.take().expect("standard input"), &job).expect("the job is written");
    assert!(child.wait().expect("the stage ends").success(), "the stage failed");
}

/// Both sizes at level 8, whose CRF is the commands' 21: the same encodes on each side.
fn ladder_settings() -> Value {
    let rung = |modifier: &str, container: &str, width: u32, height: u32, bitrate: u32| {
        json!({
            "NameModifier": modifier,
            "ContainerSettings": { "Container": container },
            "VideoDescription": { "Width": width, "Height": height, "CodecSettings": { "Codec": "H_264", "H264Settings": {
                "RateControlMode": "QVBR", "QvbrSettings": { "QvbrQualityLevel": 8 }, "MaxBitrate": bitrate } } },
            "AudioDescriptions": [{ "CodecSettings": { "Codec": "AAC", "AacSettings": {
                "Bitrate": 128_000, "CodingMode": "CODING_MODE_2_0", "SampleRate": 48_000 } } }],
        })
    };
    json!({
        "Inputs": [{ "FileInput": "s3://incoming/source.mp4", "AudioSelectors": { "Audio Selector 1": { "DefaultSelection": "DEFAULT" } } }],
        "OutputGroups": [
            { "Name": "MP4", "OutputGroupSettings": { "Type": "FILE_GROUP_SETTINGS", "FileGroupSettings": { "Destination": "s3://outputs/mp4/" } },
              "Outputs": [rung("_1080p", "MP4", 1920, 1080, 5_000_000), rung("_720p", "MP4", 1280, 720, 3_000_000)] },
            { "Name": "HLS", "OutputGroupSettings": { "Type": "HLS_GROUP_SETTINGS", "HlsGroupSettings": {
                "Destination": "s3://outputs/hls/", "SegmentLength": 6, "MinSegmentLength": 0 } },
              "Outputs": [rung("_hls_1080p", "M3U8", 1920, 1080, 5_000_000), rung("_hls_720p", "M3U8", 1280, 720, 3_000_000)] },
            { "Name": "Thumbnails", "OutputGroupSettings": { "Type": "FILE_GROUP_SETTINGS", "FileGroupSettings": { "Destination": "s3://outputs/thumbnails/" } },
              "Outputs": [{ "NameModifier": "_thumb", "ContainerSettings": { "Container": "RAW" },
                "VideoDescription": { "Width": 640, "Height": 360, "CodecSettings": { "Codec": "FRAME_CAPTURE", "FrameCaptureSettings": {
                    "FramerateNumerator": 1, "FramerateDenominator": 10, "MaxCaptures": 5, "Quality": 80 } } } }] },
        ],
    })
}

const X264: &[&str] = &[
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-profile:v",
    "high",
    "-pix_fmt",
    "yuv420p",
    "-g",
    "60",
    "-keyint_min",
    "60",
    "-sc_threshold",
    "0",
];
const AAC: &[&str] = &["-c:a", "aac", "-b:a", "128k", "-ar", "48000", "-ac", "2"];

/// Decode once, two encodes, one AAC, a tee into two MP4 and two HLS, thumbnails.
fn ffmpeg_one(source: &Path, out: &Path) {
    let (source, out) = (source.to_string_lossy(), out.display());
    let filter = "[0:v]split=3[a][b][c];[a]scale=1920:1080:flags=bicubic,setsar=1[v1];[b]scale=1280:720:flags=bicubic,setsar=1[v2];\
        [c]select='isnan(prev_selected_t)+gte(t-prev_selected_t\\,10)',scale=640:360:flags=bicubic[t]";
    let tee = format!(
        "[select=\\'v:0,a\\':f=mp4:movflags=+faststart]{out}/a1.mp4|[select=\\'v:1,a\\':f=mp4:movflags=+faststart]{out}/a2.mp4|\
         [select=\\'v:0,a\\':f=hls:hls_time=6:hls_playlist_type=vod]{out}/a1.m3u8|[select=\\'v:1,a\\':f=hls:hls_time=6:hls_playlist_type=vod]{out}/a2.m3u8"
    );
    let thumbs = format!("{out}/thumb%02d.jpg");
    let rates = [
        "-crf:v:0",
        "21",
        "-maxrate:v:0",
        "5M",
        "-bufsize:v:0",
        "10M",
        "-crf:v:1",
        "21",
        "-maxrate:v:1",
        "3M",
        "-bufsize:v:1",
        "6M",
    ];
    let mut arguments = vec!["-i", &source, "-filter_complex", filter, "-map", "[v1]", "-map", "[v2]", "-map", "0:a:0"];
    arguments.extend(X264.iter().chain(&rates).chain(AAC));
    arguments.extend(["-f", "tee", &tee, "-map", "[t]", "-frames:v", "5", "-c:v", "mjpeg", "-q:v", "4", &thumbs]);
    ffmpeg(&arguments);
}

/// One command per output, as a job that knows nothing of shared work would run them.
fn ffmpeg_five(source: &Path, out: &Path) {
    let (source, out) = (source.to_string_lossy(), out.display());
    for (size, max, buffer, name) in [("1920:1080", "5M", "10M", "b1"), ("1280:720", "3M", "6M", "b2")] {
        let scale = format!("scale={size}:flags=bicubic,setsar=1");
        let rates = ["-crf", "21", "-maxrate", max, "-bufsize", buffer];
        let mp4 = format!("{out}/{name}.mp4");
        let hls = format!("{out}/{name}.m3u8");
        for tail in [
            vec!["-movflags", "+faststart", &mp4],
            vec!["-f", "hls", "-hls_time", "6", "-hls_playlist_type", "vod", &hls],
        ] {
            let mut arguments = vec!["-i", &*source, "-vf", &scale];
            arguments.extend(X264.iter().chain(&rates).chain(AAC));
            arguments.extend(tail);
            ffmpeg(&arguments);
        }
    }
    let thumbs = format!("{out}/thumb%02d.jpg");
    ffmpeg(&["-i", &source, "-vf", "fps=1/10,scale=640:360:flags=bicubic", "-frames:v", "5", "-q:v", "4", &thumbs]);
}
