//! The main job as its user sees it: the served binary, a real file on a share, real stages, and `kill -9`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use conveyor_media::clip::{self, Clip};
use conveyor_testing::served::Served;
use serde_json::{Value, json};

/// Bound on anything that is waited for: a whole job of a few seconds of video on a busy machine of two cores.
const PATIENCE: Duration = Duration::from_secs(240);

struct Box {
    dir: tempfile::TempDir,
    server: Option<Served>,
}

impl Box {
    fn new() -> Box {
        let dir = tempfile::tempdir().unwrap();
        let mut config = "data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n".to_owned();
        for share in ["incoming", "outputs", "archive", "quarantine"] {
            fs::create_dir_all(dir.path().join(share)).unwrap();
            config += &format!("[shares.{share}]\npath = \"{share}\"\n");
        }
        config += "[[watch]]\nshare = \"incoming\"\nsettle = \"1s\"\nscan = \"1s\"\nquarantine = \"quarantine\"\n";
        config += "[notify]\nlog = \"notifications.jsonl\"\n";
        fs::write(dir.path().join("conveyor.toml"), config).unwrap();
        Box { dir, server: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn serve(&mut self) {
        self.server = Some(Served::start(self.dir.path()));
    }

    fn kill(&mut self) {
        self.server = None;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("{}/api/v1/{path}", self.server.as_ref().unwrap().url());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { reqwest::get(&url).await.unwrap().json().await.unwrap() })
    }

    fn executions(&self, query: &str) -> Vec<Value> {
        self.get(&format!("executions?limit=100&{query}"))["executions"].as_array().cloned().unwrap_or_default()
    }

    /// The execution of `main` for a file, once it has ended.
    fn ended(&self, file: &str) -> Value {
        self.until(&format!("the end of the job for {file}"), || {
            let mut rows = self.executions("machine=main").into_iter();
            rows.find(|row| row["file"] == json!(file) && !row["stoppedAt"].is_null())
        })
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

fn with_suffix(folder: &Path, suffix: &str) -> usize {
    files(folder).iter().filter(|path| path.to_string_lossy().ends_with(suffix)).count()
}

#[test]
fn a_dropped_file_is_published_though_the_box_is_killed_in_the_middle() {
    let mut conveyor = Box::new();
    let clip = conveyor.path("it's a clip.mp4");
    clip::make(&clip, Clip { width: 640, height: 360, fps: 25, seconds: 10 }).unwrap();
    conveyor.serve();
    fs::copy(&clip, conveyor.path("incoming/it's a clip.mp4")).unwrap();
    fs::write(conveyor.path("incoming/text.mp4"), "this is no film\n".repeat(500)).unwrap();

    let encodes = |conveyor: &Box| {
        let rows = conveyor.executions("nested=true&machine=conveyor-mediaconvert-job&status=RUNNING");
        rows.iter().any(|row| row["progress"]["fraction"].as_f64().is_some_and(|f| f > 0.0)).then_some(())
    };
    conveyor.until("the transcode", || encodes(&conveyor));
    conveyor.kill();
    conveyor.serve();

    let done = conveyor.ended("it's a clip.mp4");
    assert_eq!(done["status"], "SUCCEEDED", "{done:#}\n{}", conveyor.log());
    let outputs = conveyor.path("outputs");
    assert_eq!(with_suffix(&outputs, "_1080p.mp4"), 1, "{:?}", files(&outputs));
    assert_eq!(with_suffix(&outputs, "_720p.mp4"), 1);
    assert_eq!(with_suffix(&outputs, ".m3u8"), 3, "a master and two renditions: {:?}", files(&outputs));
    assert_eq!(with_suffix(&outputs, "manifest.json"), 1);
    assert_eq!(with_suffix(&outputs, ".jpg"), 1, "one thumbnail per ten seconds");
    assert!(!conveyor.path("incoming/it's a clip.mp4").exists(), "the source is archived");
    assert_eq!(with_suffix(&conveyor.path("archive"), ".mp4"), 1);
    assert_eq!(conveyor.executions("machine=main").iter().filter(|row| row["file"] == "it's a clip.mp4").count(), 1);

    let rejected = conveyor.ended("text.mp4");
    assert_eq!(rejected["status"], "FAILED");
    assert_eq!(rejected["error"], "Media.NotMedia");
    let reason = fs::read_to_string(conveyor.path("quarantine/text.mp4.error.json")).unwrap();
    assert!(reason.contains("Media.NotMedia"), "{reason}");
    assert!(conveyor.path("quarantine/text.mp4").exists());

    // The same content under another name is not done twice, and the execution says who did it.
    fs::copy(&clip, conveyor.path("incoming/again.mp4")).unwrap();
    let again = conveyor.ended("again.mp4");
    assert_eq!(again["status"], "SUCCEEDED");
    let whole = conveyor.get(&format!("executions/{}", again["id"].as_str().unwrap()));
    let text = whole.to_string();
    assert!(text.contains("ALREADY_PROCESSED") && text.contains(done["name"].as_str().unwrap()), "{whole:#}");

    let told = conveyor.until("the notification", || {
        let text = fs::read_to_string(conveyor.path("notifications.jsonl")).ok()?;
        (text.lines().count() >= 2).then_some(text)
    });
    assert!(told.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{told}");
}

#[test]
fn a_killed_child_costs_one_attempt_and_no_file() {
    let mut conveyor = Box::new();
    conveyor.serve();
    let clip = conveyor.path("film.mp4");
    clip::make(&clip, Clip { width: 640, height: 360, fps: 25, seconds: 10 }).unwrap();
    fs::rename(&clip, conveyor.path("incoming/film.mp4")).unwrap();
    let server = conveyor.server.as_ref().unwrap().id();
    let child = conveyor.until("the transcode's child", || {
        let rows = conveyor.executions("nested=true&machine=conveyor-mediaconvert-job&status=RUNNING");
        rows.iter().any(|row| row["progress"]["fraction"].as_f64().is_some_and(|f| f > 0.0)).then_some(())?;
        children_of(server).into_iter().next()
    });
    let killed = Command::new("kill").args(["-9", &child.to_string()]).status().unwrap();
    assert!(killed.success());

    let done = conveyor.ended("film.mp4");
    assert_eq!(done["status"], "SUCCEEDED", "{done:#}\n{}", conveyor.log());
    let job = conveyor.executions("nested=true&machine=conveyor-mediaconvert-job").remove(0);
    let history = conveyor.get(&format!("executions/{}/history", job["id"].as_str().unwrap())).to_string();
    assert!(history.contains("Stage.Killed") && history.contains("SIGKILL"), "{history}");
    assert_eq!(with_suffix(&conveyor.path("outputs"), "_1080p.mp4"), 1);
}

/// Damage by numbers that are the same in every run.
fn damaged(whole: &[u8], seed: u64, places: usize, keep: f64) -> Vec<u8> {
    let mut bytes = whole[..(whole.len() as f64 * keep) as usize].to_vec();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..places {
        let at = next(bytes.len() - 64);
        bytes[at..at + 64].iter_mut().for_each(|byte| *byte = next(256) as u8);
    }
    bytes
}

/// Whatever becomes of a damaged file: it is done, or in quarantine with its reason, or still there and to be tried again.
#[test]
fn of_damaged_files_none_is_left_without_a_word() {
    let mut conveyor = Box::new();
    let config = fs::read_to_string(conveyor.path("conveyor.toml")).unwrap();
    let suffixes = "settle = \"1s\"\nincomplete = \"2s\"\nsuffixes = [\".mp4\", \".mkv\", \".ts\", \".mxf\"]\n";
    fs::write(conveyor.path("conveyor.toml"), config.replacen("settle = \"1s\"\n", suffixes, 1)).unwrap();
    let film = "-f lavfi -i testsrc2=size=160x96:rate=25:duration=2 -f lavfi -i sine=duration=2:sample_rate=48000";
    let mut names = Vec::new();
    for (suffix, codecs) in [
        ("mp4", "-c:v libx264 -preset ultrafast -c:a aac"),
        ("mkv", "-c:v libx264 -preset ultrafast -c:a aac"),
        ("ts", "-c:v libx264 -preset ultrafast -c:a aac"),
        ("mxf", "-c:v mpeg2video -c:a pcm_s16le"),
    ] {
        let whole = conveyor.path(&format!("whole.{suffix}"));
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-y"]).args(film.split(' ')).args(codecs.split(' ')).arg(&whole);
        assert!(ffmpeg.status().unwrap().success());
        let whole = fs::read(whole).unwrap();
        for (seed, (places, keep)) in [(3, 1.0), (40, 1.0), (0, 0.6)].into_iter().enumerate() {
            let name = format!("{suffix}-{seed}.{suffix}");
            fs::write(conveyor.path(&name), damaged(&whole, seed as u64 + 7, places, keep)).unwrap();
            names.push(name);
        }
    }
    conveyor.serve();
    for name in &names {
        fs::rename(conveyor.path(name), conveyor.path("incoming").join(name)).unwrap();
    }
    let mut ends = std::collections::BTreeMap::new();
    for name in &names {
        let end = conveyor.ended(name);
        let (here, there) = (conveyor.path("incoming").join(name), conveyor.path("quarantine").join(name));
        let error = end["error"].as_str().unwrap_or_default();
        let what = match end["status"].as_str() {
            Some("SUCCEEDED") => {
                assert!(!here.exists() && !there.exists(), "{name}: {end:#}");
                "done"
            }
            _ if there.exists() => {
                let reason = fs::read_to_string(format!("{}.error.json", there.display())).unwrap();
                let reason: Value = serde_json::from_str(&reason).unwrap();
                assert_eq!(reason["error"], error, "{name}: {reason:#}");
                assert!(!here.exists() && reason["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{name}");
                "in quarantine"
            }
            _ => {
                assert!(here.exists(), "{name}: {end:#}");
                conveyor.until("the watch says so", || {
                    conveyor.get("watches").to_string().contains("are tried again").then_some(())
                });
                "to be tried again"
            }
        };
        println!("{name}: {what} {error}");
        *ends.entry(what).or_insert(0) += 1;
    }
    assert!(ends.contains_key("in quarantine"), "{ends:?}");
    assert_eq!(with_suffix(&conveyor.path("quarantine"), ".error.json"), ends["in quarantine"]);
}

/// Processes whose parent is `parent`, from `/proc`.
fn children_of(parent: u32) -> Vec<u32> {
    let of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| of(*pid) == Some(parent)).collect()
}
