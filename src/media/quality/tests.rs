//! Good encodes pass; each way of being broken fails, by the check that names it.

use std::path::{Path, PathBuf};
use std::process::Command;

use conveyor_base::Shares;
use conveyor_job::{Access, Job};
use serde_json::{Value, json};

const SOURCE: &str =
    "-f lavfi -i testsrc2=size=640x360:rate=25:duration=6 -f lavfi -i sine=frequency=440:duration=6:sample_rate=48000";

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// A share with a source of 6 s, or nothing where there is no ffmpeg to make it with.
    fn new() -> Option<Bench> {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        if Command::new("ffmpeg").arg("-version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "ffmpeg is missing: run `make test`");
            eprintln!("skipped: ffmpeg, which makes the clips, is not installed");
            return None;
        }
        bench.ffmpeg(&format!("{SOURCE} -c:v libx264 -preset ultrafast -crf 10 -pix_fmt yuv420p -c:a aac src.mp4"));
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ffmpeg(&self, arguments: &str) {
        let all = format!("-v error -y {arguments}");
        let output = Command::new("ffmpeg").args(all.split_whitespace()).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Encodes the source with these settings.
    fn encode(&self, settings: &str, name: &str) {
        self.ffmpeg(&format!("-i src.mp4 -c:v libx264 -preset veryfast -crf 21 -g 50 -c:a aac {settings} {name}"));
    }

    fn judge(&self, outputs: &[&str]) -> Value {
        let outputs: Vec<Value> = outputs.iter().map(|o| json!({ "uri": format!("s3://s/{o}") })).collect();
        let parameters = json!({ "source": "s3://s/src.mp4", "outputs": outputs, "destination": "s3://s/report/" });
        let shares = Shares::new([("s".to_owned(), self.dir.path().to_owned())]);
        let work_dir = self.path("work");
        std::fs::create_dir_all(&work_dir).unwrap();
        let job = Job {
            stage: "quality".into(),
            parameters,
            work_dir,
            shares,
            threads: 1,
            access: Access::default(),
            device: None,
        };
        crate::run_here(&job).unwrap()
    }
}

fn failed(result: &Value) -> Vec<String> {
    let checks = result["checks"].as_array().unwrap();
    checks.iter().filter(|c| c["passed"] == false).map(|c| c["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_good_ladder_passes_and_is_measured() {
    let Some(b) = Bench::new() else { return };
    b.encode("", "a.mp4");
    b.encode("-vf scale=426:240:flags=bicubic", "b.mp4");
    b.encode("-f hls -hls_time 2 -hls_playlist_type vod", "h.m3u8");
    b.ffmpeg("-i src.mp4 -vf fps=1/2,scale=320:180 t%d.jpg");
    let result = b.judge(&["a.mp4", "b.mp4", "h.m3u8", "t1.jpg"]);
    assert_eq!((result["passed"].as_bool(), failed(&result)), (Some(true), vec![]), "{result:#}");
    let out = &result["outputs"][0];
    assert_eq!((out["frames"].as_u64(), out["durationMs"].as_f64()), (Some(150), Some(6000.0)));
    assert!(out["psnr"].as_f64().unwrap() > 34.0 && out["ssim"].as_f64().unwrap() > 0.95, "{out:#}");
    assert!(out["loudnessLufs"].as_f64().unwrap() < -10.0);
    assert_eq!(out["series"]["psnr"].as_array().unwrap().len(), 6);
    assert!(Path::new(&b.path("report/quality.json")).exists());
    // The same encode in another container is as good to a tenth of a decibel.
    let hls = &result["outputs"][2];
    assert!((hls["psnr"].as_f64().unwrap() - out["psnr"].as_f64().unwrap()).abs() < 0.5, "{hls:#}");
}

#[test]
fn every_way_of_being_broken_is_named() {
    let Some(b) = Bench::new() else { return };
    let cases: [(&str, &str, &str); 7] = [
        ("short.mp4", "-t 4", "duration"),
        ("lost.mp4", "-vf select='not(between(t,2,2.9))',setpts=N/25/TB", "duration"),
        ("frozen.mp4", "-vf loop=loop=75:size=1:start=50,trim=duration=6", "freeze"),
        ("black.mp4", "-vf drawbox=c=black:t=fill:enable='between(t,2,4)'", "black"),
        ("silent.mp4", "-af volume=0:enable='between(t,2,4)'", "silence"),
        ("mute.mp4", "-an", "audio"),
        ("other.mp4", "-vf hflip,vflip", "samePicture"),
    ];
    for (name, settings, check) in cases {
        b.encode(settings, name);
        let result = b.judge(&[name]);
        assert_eq!(result["passed"], false, "{name}");
        assert!(failed(&result).contains(&check.to_owned()), "{name}: {:?}\n{result:#}", failed(&result));
    }
    let whole = std::fs::read(b.path("src.mp4")).unwrap();
    b.ffmpeg("-i src.mp4 -c copy -movflags +faststart cut.mp4");
    let bytes = std::fs::read(b.path("cut.mp4")).unwrap();
    std::fs::write(b.path("cut.mp4"), &bytes[..whole.len() * 6 / 10]).unwrap();
    let result = b.judge(&["cut.mp4"]);
    assert!(failed(&result).iter().any(|c| c == "duration" || c == "decodes"), "{result:#}");
}

#[test]
fn the_score_falls_with_the_picture() {
    let Some(b) = Bench::new() else { return };
    b.encode("", "good.mp4");
    b.encode("-vf gblur=sigma=6", "blurred.mp4");
    b.encode("-crf 51", "starved.mp4");
    let score = |name: &str| b.judge(&[name])["qualityScore"].as_f64().unwrap();
    let (good, blurred, starved) = (score("good.mp4"), score("blurred.mp4"), score("starved.mp4"));
    assert!(good > 0.95 && blurred < 0.8 && starved < 0.8, "{good} {blurred} {starved}");
}

#[test]
fn bars_and_another_rate_are_no_faults() {
    let Some(b) = Bench::new() else { return };
    b.encode("-vf scale=480:270,pad=480:360:0:45", "bars.mp4");
    b.encode("-r 50", "fast.mp4");
    let result = b.judge(&["bars.mp4", "fast.mp4"]);
    assert_eq!((result["passed"].as_bool(), failed(&result)), (Some(true), vec![]), "{result:#}");
}

#[test]
fn wrong_playlists_are_found() {
    let Some(b) = Bench::new() else { return };
    b.encode("-f hls -hls_time 2 -hls_playlist_type vod", "h.m3u8");
    let good = std::fs::read_to_string(b.path("h.m3u8")).unwrap();
    let bad = |name: &str, text: String| {
        std::fs::write(b.path(name), text).unwrap();
        let result = b.judge(&[name]);
        assert_eq!(result["passed"], false, "{name}: {result:#}");
        failed(&result)
    };
    assert!(bad("live.m3u8", good.replace("#EXT-X-ENDLIST", "")).contains(&"playlist".into()));
    assert!(bad("target.m3u8", good.replace("TARGETDURATION:2", "TARGETDURATION:1")).contains(&"playlist".into()));
    assert!(bad("gone.m3u8", good.replace("h1.ts", "h9.ts")).contains(&"playlist".into()));
    assert!(bad("long.m3u8", good.replace("#EXTINF:2.0", "#EXTINF:1.0")).contains(&"playlistDuration".into()));
    let master = |bandwidth: u64| {
        format!(
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},RESOLUTION=640x360,CODECS=\"avc1.64001e,mp4a.40.2\"\nh.m3u8\n"
        )
    };
    std::fs::write(b.path("m.m3u8"), master(9_000_000)).unwrap();
    assert_eq!(failed(&b.judge(&["m.m3u8"])), Vec::<String>::new());
    std::fs::write(b.path("m.m3u8"), master(10_000)).unwrap();
    assert_eq!(failed(&b.judge(&["m.m3u8"])), ["bandwidth"]);
}

#[test]
fn the_transcodes_own_result_is_taken_and_passes() {
    let Some(b) = Bench::new() else { return };
    b.ffmpeg(
        "-f lavfi -i testsrc2=size=1280x720:rate=25:duration=8 -f lavfi -i sine=frequency=440:duration=8:sample_rate=48000 \
         -c:v libx264 -preset ultrafast -crf 12 -pix_fmt yuv420p -c:a aac src.mp4",
    );
    let text = include_str!("../../../configs/jobs/ladder.json").replace("{Destination}", "s3://s/out");
    let mut settings = serde_json::from_str::<Value>(&text).unwrap()["Settings"].take();
    settings["Inputs"] = json!([{ "FileInput": "s3://s/src.mp4", "AudioSelectors": { "Audio Selector 1": { "DefaultSelection": "DEFAULT" } } }]);
    let shares = Shares::new([("s".to_owned(), b.dir.path().to_owned())]);
    let mut job = Job {
        stage: "transcode".into(),
        parameters: json!({ "Settings": settings }),
        work_dir: b.path("work"),
        shares,
        threads: 2,
        access: Access::default(),
        device: None,
    };
    std::fs::create_dir_all(&job.work_dir).unwrap();
    let made = crate::run_here(&job).unwrap();
    job.stage = "quality".into();
    job.parameters = json!({ "input": "s3://s/src.mp4", "outputs": made["OutputGroupDetails"], "passScore": 0.8 });
    let result = crate::run_here(&job).unwrap();
    assert_eq!((result["passed"].as_bool(), failed(&result)), (Some(true), vec![]), "{made:#}\n{result:#}");
    assert!(result["outputs"].as_array().unwrap().len() >= 5, "{result:#}");
}

#[test]
fn segments_are_opened_and_must_begin_with_keyframes_at_the_same_places() {
    let Some(b) = Bench::new() else { return };
    // Keyframes every two seconds in one rendition; in the other too, one second later.
    let hls = "-f hls -hls_time 2 -hls_playlist_type vod -sc_threshold 0";
    b.encode(&format!("-force_key_frames expr:gte(t,n_forced*2) {hls} -hls_segment_filename a%d.ts"), "a.m3u8");
    let small = format!("-vf scale=320:180 -sc_threshold 0 -g 250 -bf 0 {hls}");
    b.encode(&format!("{small} -force_key_frames expr:gte(t,n_forced*2) -hls_segment_type fmp4 -hls_fmp4_init_filename f.mp4 -hls_segment_filename f%d.m4s"), "f.m3u8");
    b.encode(&format!("{small} -hls_flags split_by_time -hls_segment_filename n%d.ts"), "n.m3u8");
    b.encode(&format!("{small} -hls_flags split_by_time -hls_segment_type fmp4 -hls_fmp4_init_filename g.mp4 -hls_segment_filename g%d.m4s"), "g.m3u8");
    let master = |name: &str, renditions: &[&str]| {
        let line = |r: &&str| format!("#EXT-X-STREAM-INF:BANDWIDTH=9000000,CODECS=\"avc1.64001e,mp4a.40.2\"\n{r}\n");
        let text: String = renditions.iter().map(line).collect();
        std::fs::write(b.path(name), format!("#EXTM3U\n#EXT-X-VERSION:7\n{text}")).unwrap();
        failed(&b.judge(&[name]))
    };
    assert_eq!(master("good.m3u8", &["a.m3u8", "f.m3u8"]), Vec::<String>::new());
    for name in ["n.m3u8", "g.m3u8"] {
        let result = b.judge(&[name]);
        assert_eq!(failed(&result), ["segmentKeyframes"], "{name}: {result:#}");
        let check = result["checks"].as_array().unwrap().iter().find(|c| c["passed"] == false).unwrap();
        assert!(check["message"].as_str().unwrap().starts_with("segment 2:"), "{name}: {check:#}");
    }
    // The playlists agree, the pictures do not: segments cut half a second later take the places of others.
    b.encode(&format!("-g 250 -force_key_frames 2.5,4.5 {hls} -hls_segment_filename s%d.ts"), "s.m3u8");
    let text = std::fs::read_to_string(b.path("a.m3u8")).unwrap();
    std::fs::write(b.path("lie.m3u8"), text.replace("a1.ts", "s1.ts").replace("a2.ts", "s2.ts")).unwrap();
    let found = master("bad.m3u8", &["a.m3u8", "lie.m3u8"]);
    assert!(
        found.contains(&"segmentAlignment".to_owned()) && found.contains(&"segmentLengths".to_owned()),
        "{found:?}"
    );
    // Text where a segment should be.
    std::fs::write(b.path("a1.ts"), "no segment").unwrap();
    assert!(failed(&b.judge(&["a.m3u8"])).contains(&"segmentKeyframes".to_owned()));
}
