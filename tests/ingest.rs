//! Files dropped on real folders: which of them start an execution, how often, and what survives a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use conveyor_base::{Clock, ExecutionId, Fault, Older, Sample, ShareIo, Shares, Span, SystemClock, Timestamp};
use conveyor_ingest::{Landing, StartOutcome, Starter, WatchSettings, WatchStatus, Watcher};
use conveyor_store::{self as store, Commit, Reader, Writer};
use futures::future::BoxFuture;
use parking_lot::Mutex;

/// Stands for those who run executions: remembers what was started and keeps rows in a real store.
struct Recorder {
    started: Mutex<BTreeMap<String, String>>,
    /// How far the clock is ahead, in milliseconds.
    ahead: AtomicI64,
    writer: Writer,
}

impl Starter for Recorder {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_ms(self.ahead.load(SeqCst))
    }

    fn wall(&self) -> Timestamp {
        self.now()
    }

    fn older_than(&self, age: Span) -> Older {
        Older::than(self.now().plus_ms(-(age.ms as i64)))
    }

    fn start(
        &self,
        _workflow: &str,
        name: &str,
        input: String,
        landing: Landing,
    ) -> BoxFuture<'_, Result<StartOutcome, Fault>> {
        let fresh = self.started.lock().insert(name.to_owned(), input).is_none();
        let start =
            if fresh { StartOutcome::Started(ExecutionId::generate(self.now())) } else { StartOutcome::Existed };
        Box::pin(async move {
            let mut commit = Commit::new();
            landing.store(&mut commit);
            self.writer.commit(commit).await?;
            Ok(start)
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.writer.commit(commit))
    }
}

struct Bench {
    dir: tempfile::TempDir,
    recorder: Arc<Recorder>,
    reader: Reader,
    io: ShareIo,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let share = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            (name.to_owned(), path)
        };
        let io = ShareIo::new(Shares::new([share("incoming"), share("quarantine")]));
        let (writer, reader) = store::open(store::Options::at(dir.path().join("data"))).unwrap();
        let recorder = Arc::new(Recorder { started: Mutex::default(), ahead: AtomicI64::new(0), writer });
        Bench { dir, recorder, reader, io }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("incoming").join(name)
    }

    fn drop_file(&self, name: impl AsRef<Path>, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Starts a watcher; it ends with the returned guard.
    fn watch(&self) -> Watching {
        self.watch_with("")
    }

    fn watch_with(&self, more: &str) -> Watching {
        let common =
            "share = 'incoming'\nsettle = '150ms'\nscan = '200ms'\nquarantine = 'quarantine'\nin_flight = 2000\n";
        let settings: WatchSettings = toml::from_str(&format!("{common}{more}")).unwrap();
        let watcher = Watcher::new(settings, self.io.clone(), self.recorder.clone(), self.reader.clone());
        let watcher = watcher.rechecking("quarantine");
        let status = watcher.status();
        Watching { status, task: tokio::spawn(async move { watcher.run().await.unwrap() }) }
    }

    /// What was said of a file at its last start.
    fn told(&self, key: &str) -> Option<serde_json::Value> {
        let started = self.recorder.started.lock();
        let inputs = started.values().map(|input| serde_json::from_str::<serde_json::Value>(input).unwrap());
        inputs.into_iter().find(|input| input["key"] == key)
    }

    fn keys(&self) -> Vec<String> {
        let started = self.recorder.started.lock();
        let key = |input: &String| {
            let input: serde_json::Value = serde_json::from_str(input).unwrap();
            assert_eq!(input["bucket"], "incoming");
            input["key"].as_str().unwrap().to_owned()
        };
        let mut keys: Vec<String> = started.values().map(key).collect();
        keys.sort();
        keys
    }
}

struct Watching {
    status: Arc<Mutex<WatchStatus>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until it holds; how long that takes is no part of the test.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Two scans from now, so that whatever would be seen was seen.
async fn two_scans(watching: &Watching) {
    for _ in 0..2 {
        let before = watching.status.lock().last_scan_ms;
        until("a scan", || watching.status.lock().last_scan_ms != before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_files_start_once_whatever_their_names_are() {
    let bench = Bench::new();
    let long = format!("{}.mp4", "x".repeat(250));
    let odd = ["a.mp4", "B.MOV", "two words 'q' \"d\".mp4", "line\nbreak.mp4", "day 1/deep/c.mp4", long.as_str()];
    for name in odd {
        bench.drop_file(name, name);
    }
    for name in ["half.mp4.part", ".hidden.mp4", "notes.txt", "@eaDir/thumb.mp4", "x.mp4.tmp"] {
        bench.drop_file(name, "no");
    }
    fs::write(bench.dir.path().join("outside.mp4"), "secret").unwrap();
    std::os::unix::fs::symlink(bench.dir.path().join("outside.mp4"), bench.path("link.mp4")).unwrap();
    let watching = bench.watch();
    until("six starts", || bench.keys().len() == odd.len()).await;
    // A rename at the end of a copy brings the file in.
    fs::rename(bench.path("half.mp4.part"), bench.path("half.mp4")).unwrap();
    until("the renamed file", || bench.keys().len() == odd.len() + 1).await;
    two_scans(&watching).await;
    let mut expected: Vec<String> = odd.iter().map(|s| (*s).to_owned()).chain(["half.mp4".to_owned()]).collect();
    expected.sort();
    assert_eq!(bench.keys(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_grows_waits_and_new_content_under_an_old_name_starts_again() {
    let bench = Bench::new();
    let watching = bench.watch();
    for n in 0..10 {
        bench.drop_file("grows.mp4", &"x".repeat(n + 1));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    until("the grown file", || bench.keys().len() == 1).await;
    let size = fs::metadata(bench.path("grows.mp4")).unwrap().len();
    assert!(bench.recorder.started.lock().values().all(|input| input.contains(&format!("\"size\":{size}"))));
    bench.drop_file("grows.mp4", "other content");
    until("the new content", || bench.keys().len() == 2).await;
    drop(watching);
    // A restart finds what was dropped meanwhile, and nothing twice.
    bench.drop_file("while-off.mp4", "z");
    let watching = bench.watch();
    until("the file of the night", || bench.keys().len() == 3).await;
    two_scans(&watching).await;
    assert_eq!(bench.keys(), ["grows.mp4", "grows.mp4", "while-off.mp4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_that_goes_away_is_not_an_empty_share() {
    let bench = Bench::new();
    bench.drop_file("a.mp4", "a");
    let watching = bench.watch();
    until("the first file", || bench.keys().len() == 1).await;
    let (root, aside) = (bench.path(""), bench.dir.path().join("aside"));
    fs::rename(&root, &aside).unwrap();
    until("the share is away", || watching.status.lock().away.is_some()).await;
    assert_eq!(bench.reader.on_this_thread().landings("incoming", None, 10).unwrap().len(), 1);
    fs::write(aside.join("b.mp4"), "b").unwrap();
    fs::rename(&aside, &root).unwrap();
    until("the second file", || bench.keys().len() == 2).await;
    assert_eq!(bench.keys(), ["a.mp4", "b.mp4"]);
    assert_eq!(watching.status.lock().away, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_no_text_goes_to_quarantine_with_a_reason() {
    let bench = Bench::new();
    fs::write(bench.path(OsStr::from_bytes(b"caf\xe9.mp4")), "x").unwrap();
    let _watching = bench.watch();
    let quarantine = bench.dir.path().join("quarantine");
    until("quarantine", || quarantine.join("caf%E9.mp4").exists()).await;
    let reason = fs::read_to_string(quarantine.join("caf%E9.mp4.error.json")).unwrap();
    assert!(reason.contains("not UTF-8"), "{reason}");
    assert_eq!(fs::read(quarantine.join("caf%E9.mp4")).unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_files_at_once_start_once_each() {
    let bench = Bench::new();
    for n in 0..1_000 {
        bench.drop_file(format!("{}/{n}.mp4", n % 10), "x");
    }
    let watching = bench.watch();
    until("a thousand starts", || bench.recorder.started.lock().len() == 1_000).await;
    two_scans(&watching).await;
    assert_eq!(bench.recorder.started.lock().len(), 1_000);
    assert_eq!(bench.reader.on_this_thread().landings("incoming", None, 2_000).unwrap().len(), 1_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_stops_no_scan() {
    let bench = Bench::new();
    bench.recorder.ahead.store(3_600_000, SeqCst);
    let watching = bench.watch();
    two_scans(&watching).await;
    bench.recorder.ahead.store(0, SeqCst);
    two_scans(&watching).await;
    bench.drop_file("a.mp4", "a");
    until("the file", || bench.keys() == ["a.mp4"]).await;
}

fn sample(path: &Path) -> String {
    Sample::of(&fs::File::open(path).unwrap()).unwrap().digest
}

/// Boxes of a film whose index comes last.
fn film(bytes: usize) -> Vec<u8> {
    let a_box = |kind: &[u8], body: &[u8]| [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat();
    [a_box(b"ftyp", b"qt  "), a_box(b"mdat", &vec![7; bytes]), a_box(b"moov", &[7; 5_000])].concat()
}

/// Size and times of a copy may stand still while its bytes come, and it may stall for longer than files need to rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_starts_when_its_last_byte_is_there_however_it_comes() {
    let bench = Bench::new();
    let watching = bench.watch();
    let (film, at) = (film(1 << 20), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let (reserved, grows, other) = (bench.path("reserved.mp4"), bench.path("grows.mp4"), bench.path("other.mp4"));
    let open = |path: &Path| fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    let size_first = |path: &Path| {
        let file = open(path);
        file.set_len(film.len() as u64).unwrap();
        file.set_modified(at).unwrap();
        file
    };
    let (whole, half) = (film.len(), film.len() / 2);
    for (from, to) in [(0, half), (half, whole)] {
        size_first(&reserved).write_all_at(&film[from..to], from as u64).unwrap();
        size_first(&reserved);
        open(&grows).write_all_at(&film[from..to], from as u64).unwrap();
        // Zeros that were written, and so no hole.
        let zeros = vec![0; whole - to];
        open(&other).write_all_at(&[&film[from..to], &zeros].concat(), from as u64).unwrap();
        if to == half {
            for _ in 0..4 {
                two_scans(&watching).await;
            }
            assert_eq!(bench.keys(), [""; 0]);
        }
    }
    until("all three start", || bench.keys().len() == 3).await;
    two_scans(&watching).await;
    assert_eq!(bench.keys(), ["grows.mp4", "other.mp4", "reserved.mp4"]);
    for name in ["grows.mp4", "other.mp4", "reserved.mp4"] {
        assert_eq!(bench.told(name).unwrap()["sample"], sample(&grows), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_incomplete_is_judged_as_it_is() {
    let bench = Bench::new();
    let _watching = bench.watch_with("incomplete = '700ms'");
    fs::write(bench.path("cut.mp4"), &film(9_000)[..5_000]).unwrap();
    until("it starts", || bench.keys() == ["cut.mp4"]).await;
}

/// What is judged again holds something else than what was judged, and the rest stays where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_in_quarantine_is_taken_up_again() {
    let bench = Bench::new();
    let quarantine = bench.dir.path().join("quarantine");
    let reason = |name: &str| quarantine.join(format!("{name}.error.json"));
    let put_away = |name: &str, original: &str, sample: Option<&str>| {
        let told = serde_json::json!({"error": "Media.Truncated", "original": original, "sample": sample});
        fs::write(reason(name), told.to_string()).unwrap();
    };
    let (film, at) = (film(1 << 20), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    // It landed, as a copy of reserved size and frozen times that stalled for too long.
    let (path, aside) = (bench.path("day/film.mp4"), quarantine.join("film.mp4"));
    fs::create_dir(bench.path("day")).unwrap();
    fs::write(&path, [&film[..9_000], &vec![0; film.len() - 9_000]].concat()).unwrap();
    let writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
    writer.set_modified(at).unwrap();
    let watching = bench.watch_with("incomplete = '0s'");
    until("it starts", || bench.keys() == ["day/film.mp4"]).await;
    let judged = bench.told("day/film.mp4").unwrap()["sample"].as_str().unwrap().to_owned();
    for (name, original) in [
        ("same.mp4", "s3://incoming/same.mp4"),
        ("theirs.mp4", "s3://theirs/theirs.mp4"),
        ("old.mp4", "s3://incoming/old.mp4"),
        ("taken.mp4", "s3://incoming/taken.mp4"),
    ] {
        fs::write(quarantine.join(name), name).unwrap();
        let sample = sample(&quarantine.join(name));
        put_away(
            name,
            original,
            match name {
                "old.mp4" => None,
                "same.mp4" => Some(&sample),
                _ => Some("another"),
            },
        );
    }
    bench.drop_file("taken.mp4", "another file");
    put_away("film.mp4", "s3://incoming/day/film.mp4", Some(&judged));
    fs::rename(&path, &aside).unwrap();
    fs::remove_dir(bench.path("day")).unwrap();
    // The copy goes on where it is by now.
    writer.write_all_at(&film, 0).unwrap();
    writer.set_modified(at).unwrap();
    until("it is back and starts", || bench.told("day/film.mp4").unwrap()["sample"] == sample_of(&film)).await;
    assert_eq!((fs::read(&path).unwrap() == film, aside.exists(), reason("film.mp4").exists()), (true, false, false));
    // Of one whose reason tells nothing only a change is known that is seen.
    for _ in 0..6 {
        two_scans(&watching).await;
    }
    for name in ["same.mp4", "theirs.mp4", "old.mp4", "taken.mp4"] {
        assert_eq!((fs::read_to_string(quarantine.join(name)).unwrap().as_str(), reason(name).exists()), (name, true));
    }
    assert_eq!(bench.keys(), ["day/film.mp4", "taken.mp4"]);
    fs::write(quarantine.join("old.mp4"), "mended").unwrap();
    until("what was mended starts", || bench.keys().contains(&"old.mp4".to_owned())).await;
    assert_eq!(bench.told("old.mp4").unwrap()["size"], 6);
}

fn sample_of(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    sample(file.path())
}
