//! What becomes of a file whose run failed, as its watch sees it.

use conveyor_base::names::name_of;
use conveyor_ingest::WatchStatus;
use conveyor_store::ExecutionSummary;
use parking_lot::Mutex;

use super::*;

struct Watched {
    conveyor: Appliance,
    watching: tokio::task::JoinHandle<()>,
    status: Arc<Mutex<WatchStatus>>,
    watcher: Watcher,
}

impl Watched {
    async fn begin(conveyor: Appliance, more: Value) -> Watched {
        let mut settings = json!({"share": "source", "settle": "100ms", "scan": "100ms", "retry": "100ms"});
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let watcher = Watcher::new(
            serde_json::from_value(settings).unwrap(),
            conveyor.parts.io.clone(),
            Arc::new(conveyor.handle.clone()),
            conveyor.handle.reader().clone(),
        );
        let (status, next) = (watcher.status(), watcher.anew());
        let watching = tokio::spawn(async move { watcher.run().await.unwrap() });
        Watched { conveyor, watching, status, watcher: next }
    }

    /// As a box that is started anew does.
    async fn restart(&mut self) {
        self.watching.abort();
        *self.status.lock() = WatchStatus::default();
        let next = self.watcher.anew();
        let watcher = std::mem::replace(&mut self.watcher, next);
        self.watching = tokio::spawn(async move { watcher.run().await.unwrap() });
    }

    fn runs(&self, machine: &str, file: &str) -> Vec<ExecutionSummary> {
        let rows = self.conveyor.handle.reader().on_this_thread();
        let filter = ExecutionFilter { machine: Some(machine.into()), status: None };
        let all = rows.executions(&filter, None, 1_000).unwrap().items;
        all.into_iter().rev().filter(|run| run.name.starts_with(file)).collect()
    }

    fn path(&self, place: &str) -> std::path::PathBuf {
        self.conveyor.dir.path().join(place)
    }
}

/// It fails so each time, and no other file does: it is put away with what was seen of it, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_alike_too_often_is_put_away() {
    let conveyor = appliance(&[]).await;
    let staged = |name: &str| conveyor.dir.path().join("outputs/.staging").join(name);
    for other in ["job-1", "odd-0123456789abcdef"] {
        fs::create_dir_all(staged(other)).unwrap();
    }
    let this = Watched::begin(conveyor, json!({"tries": 2, "tried_for": "0s"})).await;
    let file = "odd-[labels~Nobody.KnowsThis].mp4";
    fs::write(this.path("source").join(file), "odd").unwrap();
    let version = conveyor_base::beneath::Folder::top(&this.path("source")).unwrap();
    let version = version.look(file.as_ref(), conveyor_base::beneath::Links::Refused).unwrap().version();
    let first = this.conveyor.until("a run", || Some(this.runs("main", "odd-labels").first()?.name.clone())).await;
    let staged = |name: &str| this.path("outputs/.staging").join(name);
    fs::create_dir_all(staged(&first).join("mp4")).unwrap();
    let told = this.path("quarantine").join(format!("{file}.parameters.json"));
    this.conveyor.until("it is put away", || told.exists().then_some(())).await;
    let told: Value = serde_json::from_str(&fs::read_to_string(told).unwrap()).unwrap();
    assert_eq!((&told["error"], &told["version"]), (&json!("Nobody.KnowsThis"), &json!(version)));
    assert_eq!((&told["tried"]["runs"], &told["tried"]["error"]), (&json!(2), &told["error"]));
    let names: Vec<String> = this.runs("main", "odd-labels").into_iter().map(|run| run.name).collect();
    assert_eq!(names, [1, 2, 3, 4].map(|run| name_of(&first, run)), "one run said nothing of the file");
    assert!(!staged(&first).exists(), "what its first run staged is gone");
    assert!(staged("job-1").exists() && staged("odd-0123456789abcdef").exists(), "and nothing else");
    this.watching.abort();
}

/// The share of the quarantine is full or gone: who looks is told of that, and of what was wrong at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_put_away_says_both_reasons_and_stays() {
    for file in ["broken-[quarantine~Files.PermissionDenied].mp4", "ugly-[quarantine~Files.PermissionDenied].mp4"] {
        let conveyor = appliance(&[file]).await;
        let (header, _) = conveyor.run("main", "j", file).await;
        let (error, cause) = failure(&header);
        assert_eq!(error, "Files.PermissionDenied", "{cause}");
        let at_first = if file.starts_with("broken") { "Media.Truncated" } else { "Quality.Failed" };
        for part in ["it says why", "s3://quarantine/", file, at_first] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        assert_eq!(conveyor.row("jobs", "j")["JobStatus"]["S"], "FAILED_PROCESSING");
        assert!(conveyor.dir.path().join("source").join(file).exists());
    }
}

/// What lies there by then is looked at anew: what came in its place is another file, and its content belongs to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_file_that_fails_later_is_done_in_its_place() {
    let conveyor = appliance(&["copy.mp4", "replaced.mp4"]).await;
    hurry(&conveyor).await;
    let holds = json!({"StartAt": "Claim", "States": {
        "Claim": {"Type": "Task", "Resource": "arn:aws:states:::conveyor:claim", "Next": "Long"},
        "Long": {"Type": "Wait", "Seconds": 3_600, "End": true}}});
    conveyor.create("holds", &holds.to_string()).await;
    let rows = conveyor.handle.reader().on_this_thread();
    let mut first = Vec::new();
    for content in ["copy.mp4", "replaced.mp4"] {
        let hash = blake3::hash(content.as_bytes()).to_hex().to_string();
        let input = json!({"blake3": hash, "input": "s3://source/first", "size": 8}).to_string();
        let start = StartRequest { machine: "holds".into(), input: input.into(), ..StartRequest::default() };
        first.push(conveyor.handle.start(start).await.unwrap().id);
        conveyor.until("the first has the content", || rows.claim(&hash).unwrap()).await;
    }
    let first_end = async {
        let filter = ExecutionFilter { machine: Some("sanitize".into()), status: Some(Status::Running) };
        let waits = |id| {
            let events = rows.history(id, EventId(1), 99, Direction::Forward).unwrap();
            format!("{events:?}").contains("Wait for the other")
        };
        let both = || {
            let all = rows.executions(&filter, None, 9).unwrap().items;
            (all.iter().filter(|run| waits(run.id)).count() == 2).then_some(())
        };
        conveyor.until("both copies wait", both).await;
        fs::write(conveyor.dir.path().join("source/replaced.mp4"), "something else").unwrap();
        for id in first {
            conveyor.handle.stop(id, None, None).await.unwrap();
        }
    };
    let (copy, replaced) =
        (conveyor.run("main", "j-copy", "copy.mp4"), conveyor.run("main", "j-replaced", "replaced.mp4"));
    let ((copy, _), (replaced, _), ()) = tokio::join!(copy, replaced, first_end);
    assert_eq!(output(&copy)["status"], "PUBLISHED");
    let (error, cause) = failure(&replaced);
    assert_eq!(error, "Files.Changed", "{cause}");
    assert!(cause.contains("s3://source/replaced.mp4 has other content"), "{cause}");
    assert!(conveyor.dir.path().join("source/replaced.mp4").exists(), "it runs by itself");
    fs::write(conveyor.dir.path().join("source/later.mp4"), "replaced.mp4").unwrap();
    for file in ["replaced.mp4", "later.mp4"] {
        let (done, _) = conveyor.run("main", &format!("again-{file}"), file).await;
        assert_eq!(output(&done)["status"], "PUBLISHED", "{file}");
    }
}

/// The film is done once, under the name that it has by then; the run that lost it says so and leaves nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_film_whose_folder_is_renamed_under_its_run_is_published_once() {
    let conveyor = appliance(&[]).await;
    hurry(&conveyor).await;
    let this = Watched::begin(conveyor, json!({})).await;
    let (before, after) = (this.path("source/day 1"), this.path("source/day 2"));
    fs::create_dir(&before).unwrap();
    fs::write(before.join("clip.mp4"), "film").unwrap();
    let hash = blake3::hash(b"film").to_hex().to_string();
    let claimed = || this.conveyor.handle.reader().on_this_thread().claim(&hash).unwrap();
    this.conveyor.until("the content is claimed", claimed).await;
    fs::rename(&before, &after).unwrap();
    let ended = || {
        let runs = this.runs("main", "clip");
        (runs.len() == 2 && runs.iter().all(|run| run.status != Status::Running)).then_some(runs)
    };
    let runs = this.conveyor.until("both runs end", ended).await;
    assert_eq!(runs[0].error.as_deref(), Some("Media.Vanished"));
    let header = this.conveyor.ended(runs[1].id).await;
    assert!(header.input.contains("day 2/clip.mp4") && output(&header)["status"] == "PUBLISHED", "{header:?}");
    let scanned = this.status.lock().last_scan_ms;
    let later = || (this.status.lock().last_scan_ms > scanned.map(|ms| ms + 500)).then_some(());
    this.conveyor.until("some scans", later).await;
    assert_eq!((this.runs("main", "clip").len(), this.status.lock().problems.as_slice()), (2, [].as_slice()));
    this.watching.abort();
}

/// It is published under its old name by then, and archived under its new one whatever becomes of duplicates.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_film_that_is_renamed_before_it_is_archived_is_archived_all_the_same() {
    let this = Watched::begin(appliance(&[]).await, json!({})).await;
    fs::create_dir(this.path("source/day 1")).unwrap();
    fs::write(this.path("source/day 1/late.mp4"), "film").unwrap();
    let gone = || {
        let runs = this.runs("main", "late");
        (runs.len() == 2 && !this.path("source/day 2/late.mp4").exists()).then_some(runs)
    };
    let runs = this.conveyor.until("its second run puts it away", gone).await;
    let (first, second) = (this.conveyor.ended(runs[0].id).await, this.conveyor.ended(runs[1].id).await);
    assert_eq!(
        (&output(&first)["status"], &output(&first)["archive"]["Error"]),
        (&json!("PUBLISHED"), &json!("Files.Vanished"))
    );
    let end = output(&second);
    assert_eq!(end["status"], "ALREADY_PROCESSED", "{end}");
    let told = &end["duplicate"]["told"];
    let place = format!("s3://archive/archived/{}/day 2/late.mp4", runs[0].name);
    assert_eq!((&told["destination"], &told["insteadOf"]), (&json!(place), &json!("s3://source/day 1/late.mp4")));
    this.watching.abort();
}

/// What was done before stays, or goes as the watch says: the very file that it saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_says_what_becomes_of_duplicates() {
    for duplicates in ["leave", "archive", "remove"] {
        let this = Watched::begin(appliance(&[]).await, json!({"duplicates": duplicates})).await;
        fs::write(this.path("source/film.mp4"), "film").unwrap();
        let ended = |file: &str, count: usize| {
            let runs = this.runs("main", file);
            (runs.len() == count && runs.iter().all(|run| run.status != Status::Running)).then_some(runs)
        };
        let first = this.conveyor.until("the film is done", || ended("film", 1)).await.remove(0);
        fs::write(this.path("source/copy.mp4"), "film").unwrap();
        let copy = this.conveyor.until("its copy's run ends", || ended("copy", 1)).await.remove(0);
        let end = output(&this.conveyor.ended(copy.id).await);
        assert_eq!(end["status"], "ALREADY_PROCESSED", "{end}");
        assert_eq!(this.path("source/copy.mp4").exists(), duplicates == "leave", "{duplicates}: {end}");
        let told = &end["duplicate"]["told"];
        let held = format!("s3://archive/archived/{}/", first.name);
        assert_eq!(told["held"].as_str(), (duplicates == "remove").then_some(held.as_str()), "{duplicates}: {end}");
        if duplicates != "leave" {
            let place = format!("s3://archive/archived/{}/copy.mp4", copy.name);
            assert_eq!((&told["destination"], told["version"].is_string()), (&json!(place), true));
            assert_eq!(told["blake3"], blake3::hash(b"film").to_hex().to_string());
        }
        this.watching.abort();
    }
}

/// A run counts however many have begun since, and that of what had the name before says nothing of what has it now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_knows_all_of_its_runs_and_of_which_file_each_is() {
    let conveyor = appliance(&[]).await;
    let end = json!({"StartAt": "Old?", "States": {
        "Old?": {"Type": "Choice", "Choices": [{"Variable": "$.size", "NumericEquals": 3, "Next": "Soon"}],
            "Default": "Long"},
        "Soon": {"Type": "Wait", "Seconds": 1, "Next": "Fail"},
        "Fail": {"Type": "Fail", "Error": "Nobody.KnowsThis"},
        "Long": {"Type": "Wait", "Seconds": 3_600, "End": true}}});
    conveyor.create("holds", &end.to_string()).await;
    let mut this = Watched::begin(conveyor, json!({"workflow": "holds", "in_flight": 2})).await;
    let (file, next) = (this.path("source/clip.mp4"), this.path("source/.next"));
    fs::write(&file, "old").unwrap();
    this.conveyor.until("its run", || (this.runs("holds", "clip").len() == 1).then_some(())).await;
    fs::write(&next, "longer").unwrap();
    fs::rename(&next, &file).unwrap();
    let old_ended = || {
        let runs = this.runs("holds", "clip");
        (runs.len() == 2 && runs[0].status == Status::Failed).then_some(())
    };
    this.conveyor.until("the new one runs and the old one's run failed", old_ended).await;
    for n in 0..4 {
        let input = json!({"bucket": "another", "key": "a.mp4", "size": 9}).to_string();
        let name = Some(format!("other-{n}"));
        let start = StartRequest { machine: "holds".into(), name, input: input.into(), ..StartRequest::default() };
        this.conveyor.handle.start(start).await.unwrap();
    }
    for _ in 0..2 {
        let seen = this.status.lock().last_scan_ms;
        let later = || (this.status.lock().last_scan_ms > seen.map(|ms| ms + 400)).then_some(());
        this.conveyor.until("some scans", later).await;
        assert_eq!(this.status.lock().in_flight, 1);
        assert_eq!(this.runs("holds", "clip").len(), 2, "what runs is not started again");
        this.restart().await;
        this.conveyor.until("a scan", || this.status.lock().last_scan_ms).await;
    }
    this.watching.abort();
}
