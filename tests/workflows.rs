//! The nine workflows as they are shipped, on the real runtime: who calls whom with what, and how each end looks.
//! The stages are a script here; what they do to media is tested with them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "workflows/again.rs"]
mod again;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use conveyor_base::shares::mounted_setting;
use conveyor_base::{EventId, TaskError};
use conveyor_ingest::Watcher;
use conveyor_interpreter::{Header, HistoryKind, Outcome, Status};
use conveyor_job::Job;
use conveyor_resources::{builtin, jobs};
use conveyor_run::{AuditEntry, OnBehalf, StartRequest};
use conveyor_services::approvals::{Decision, Verdict};
use conveyor_services::uploads::{NewUpload, UploadProgress};
use conveyor_store::{ActivityRow, Commit, Direction, ExecutionFilter};
use conveyor_testing::appliance::Appliance;

use serde_json::{Value, json};

/// Whether what was wrong with the box is repaired.
static FIXED: AtomicBool = AtomicBool::new(false);
/// How often a file named `odd-…` came to its labels.
static ODD_RUNS: AtomicUsize = AtomicUsize::new(0);

/// Every stage in a word. A file named `[stage~error]` fails so at that stage. What goes wrong is told by the file's name.
fn script(job: &Job) -> Result<Value, TaskError> {
    let p = &job.parameters;
    let input = p["input"].as_str().or(p["Settings"]["Inputs"][0]["FileInput"].as_str()).unwrap_or_default();
    let wrong = |name: &str| input.contains(name);
    match job.stage.as_str() {
        // For that of its second run it is not to blame.
        "labels" if wrong("odd-") && ODD_RUNS.fetch_add(1, SeqCst) == 1 => {
            Err(TaskError::new("Files.PermissionDenied", "the share is read-only"))
        }
        stage if wrong(&format!("[{stage}~")) => {
            let error = input.split('~').nth(1).unwrap_or_default().split(']').next().unwrap_or_default();
            let cause = if wrong("killed") { "stage 'x' was ended by its jail: it made a call" } else { "it says why" };
            Err(TaskError::new(error, cause))
        }
        "sanitize" if wrong("unlucky") && !FIXED.load(SeqCst) => {
            Err(TaskError::new("Media.Unreadable", "may not be read by the appliance"))
        }
        "sanitize" if wrong("broken") => Err(TaskError::new("Media.Truncated", format!("'{input}' is cut off"))),
        "sanitize" => Ok(json!({ "accepted": true, "warnings": [], "metadata": { "duration": 20.4 } })),
        "fingerprint" => {
            let path = job.shares.resolve(&input.parse().unwrap()).unwrap();
            let bytes = fs::read(path).unwrap();
            Ok(json!({ "blake3": blake3::hash(&bytes).to_hex().to_string(), "size": bytes.len() }))
        }
        // It is tried again later, so the job runs on without a child.
        "transcode" if wrong("waiting") => Err(TaskError::new("Media.DiskFull", "no space")),
        // It works on the file until somebody moves that.
        "transcode" if wrong("day 1/clip") => {
            let path = job.shares.resolve(&input.parse().unwrap()).unwrap();
            tokio::task::block_in_place(|| {
                while path.exists() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            Err(TaskError::new("Media.Vanished", format!("'{input}' is gone")))
        }
        "transcode" if wrong("unencodable") => Err(TaskError::new("Media.UnsupportedHdr", "it is HDR")),
        "transcode" => {
            let place = p.pointer("/Settings/OutputGroups/0/OutputGroupSettings/FileGroupSettings/Destination");
            Ok(json!({ "OutputGroupDetails": [{ "Type": "FILE_GROUP", "Place": place }] }))
        }
        "labels" | "transcript" | "meaning" => Ok(json!({ "stage": job.stage, "seconds": p["metadata"]["duration"] })),
        "brief" => Ok(json!({ "merged": [p["labels"]["stage"], p["transcript"]["stage"], p["meaning"]["stage"]] })),
        "quality" if wrong("ugly") => Ok(json!({ "score": 0.4, "passed": false, "reasons": ["SSIM is 0.61"] })),
        "quality" => Ok(json!({ "score": 0.97, "passed": true, "reasons": [] })),
        "publish" if wrong("day 1/late") => {
            let before = job.shares.resolve(&input.parse().unwrap()).unwrap();
            let folder = before.parent().unwrap();
            fs::rename(folder, folder.with_file_name("day 2")).unwrap();
            Ok(json!({ "destination": p["destination"] }))
        }
        "publish" => Ok(json!({ "destination": p["destination"], "brief": p["brief"] })),
        "archive" if !p["version"].is_null() || wrong("day 1/late") => {
            let path = job.shares.resolve(&input.parse().unwrap()).unwrap();
            if !path.exists() {
                return Err(TaskError::new("Files.Vanished", "the source is gone"));
            }
            fs::remove_file(path).unwrap();
            Ok(json!({ "removed": true, "told": p }))
        }
        "archive" if wrong("unarchivable") => Err(TaskError::new("Media.Vanished", "the source is gone")),
        "archive" => Ok(json!({ "removed": true })),
        "quarantine" => {
            assert_eq!(p["destination"], "s3://quarantine/");
            let from = job.shares.resolve(&input.parse().unwrap()).unwrap();
            let to = job.shares.resolve(&input.replace("source", "quarantine").parse().unwrap()).unwrap();
            fs::write(format!("{}.error.json", to.display()), p["error"].as_str().unwrap()).unwrap();
            fs::write(format!("{}.parameters.json", to.display()), p.to_string()).unwrap();
            fs::rename(from, to).unwrap();
            Ok(json!({ "uri": input.replace("source", "quarantine"), "moved": true }))
        }
        "offer" => Ok(json!({ "offered": 0 })),
        other => panic!("no stage {other}"),
    }
}

async fn appliance(files: &[&str]) -> Appliance {
    let appliance = Appliance::start(script, BTreeMap::new()).await;
    for file in files {
        fs::write(appliance.dir.path().join("source").join(file), file).unwrap();
    }
    appliance
}

fn output(header: &Header) -> Value {
    match &header.outcome {
        Some(Outcome::Succeeded { output }) => serde_json::from_str(output).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn failure(header: &Header) -> (String, String) {
    match &header.outcome {
        Some(Outcome::Failed { error, cause }) => {
            (error.clone().unwrap_or_default(), cause.clone().unwrap_or_default())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_goes_all_the_way_and_its_content_only_once() {
    let conveyor = appliance(&["clip.mp4"]).await;
    fs::write(conveyor.dir.path().join("source/copy.mp4"), "clip.mp4").unwrap();
    let (header, history) = conveyor.run("main", "job-1", "clip.mp4").await;
    let end = output(&header);
    assert_eq!((end["status"].as_str(), end["score"].as_f64()), (Some("PUBLISHED"), Some(0.97)), "{end}");
    assert_eq!(end["published"]["destination"], "s3://outputs/job-1/");
    assert_eq!(end["published"]["brief"]["merged"], json!(["labels", "transcript", "meaning"]));
    let row = conveyor.row("jobs", "job-1");
    assert_eq!((&row["JobStatus"]["S"], &row["QualityScore"]["N"]), (&json!("PUBLISHED"), &json!("0.97")));
    // The main workflow delegates: every task of its history is the start of another workflow.
    for event in &history {
        if let HistoryKind::TaskScheduled { resource, .. } = &event.kind {
            assert_eq!(resource, "startExecution.sync:2");
        }
    }
    assert!(history.len() < 60, "{}", history.len());
    let (header, _) = conveyor.run("main", "job-2", "copy.mp4").await;
    let end = output(&header);
    assert_eq!(end["status"], "ALREADY_PROCESSED", "{end}");
    assert_eq!(end["earlier"]["execution"], "arn:aws:states:us-east-1:000000000000:execution:main:job-1");
    assert_eq!(end["earlier"]["result"]["destination"], "s3://outputs/job-1/");
    // One notification, delivered once.
    let none_left = || conveyor.handle.reader().on_this_thread().outbox(None, 1).unwrap().is_empty().then_some(());
    conveyor.until("the notification is taken", none_left).await;
    let log = fs::read_to_string(conveyor.dir.path().join("notifications.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("\"job.published\"") && log.contains("job-1"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_shows_its_own_error() {
    let conveyor = appliance(&["broken.mp4", "unencodable.mp4", "ugly.mp4", "unarchivable.mp4"]).await;
    let (header, _) = conveyor.run("main", "j-broken", "broken.mp4").await;
    let (error, cause) = failure(&header);
    assert_eq!((error.as_str(), cause.as_str()), ("Media.Truncated", "'s3://source/broken.mp4' is cut off"));
    let row = conveyor.row("jobs", "j-broken");
    assert_eq!(row["QuarantinedTo"]["S"], "s3://quarantine/broken.mp4");
    assert_eq!(row["JobStatus"]["S"], "REJECTED");

    let (header, _) = conveyor.run("main", "j-hdr", "unencodable.mp4").await;
    let (error, cause) = failure(&header);
    let row = conveyor.row("jobs", "j-hdr");
    assert_eq!(row["JobStatus"]["S"], "REJECTED", "what only the transcode finds is rejected as well");
    assert_eq!(row["QuarantinedTo"]["S"], "s3://quarantine/unencodable.mp4");
    assert_eq!((error.as_str(), cause.as_str()), ("Media.UnsupportedHdr", "it is HDR"));

    let (header, _) = conveyor.run("main", "j-ugly", "ugly.mp4").await;
    let (error, cause) = failure(&header);
    assert!(error == "Quality.Failed" && cause.contains("0.4") && cause.contains("SSIM is 0.61"), "{error}: {cause}");
    let row = conveyor.row("jobs", "j-ugly");
    assert!(row["ErrorDetails"]["S"].as_str().unwrap().contains("SSIM is 0.61") && row["JobStatus"]["S"] == "REJECTED");
    assert_eq!(row["QuarantinedTo"]["S"], "s3://quarantine/ugly.mp4");

    // A failed archive does not fail the job, and is not hidden.
    let (header, _) = conveyor.run("main", "j-archive", "unarchivable.mp4").await;
    let end = output(&header);
    assert_eq!((end["status"].as_str(), &end["archive"]["Error"]), (Some("PUBLISHED"), &json!("Media.Vanished")));

    // A failure gives the content free: the same file may be tried again.
    fs::write(conveyor.dir.path().join("source/ugly.mp4"), "ugly.mp4").unwrap();
    let (header, _) = conveyor.run("main", "j-again", "ugly.mp4").await;
    assert_eq!(failure(&header).0, "Quality.Failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polled_job_goes_with_the_execution_that_submitted_it() {
    let conveyor = appliance(&["waiting.mp4"]).await;
    let input = json!({"jobId": "j", "bucket": "source", "key": "waiting.mp4"});
    let start = StartRequest { machine: "main".into(), input: input.to_string().into(), ..StartRequest::default() };
    let main = conveyor.handle.start(start).await.unwrap().id;
    let job = || {
        let filter = ExecutionFilter { machine: Some(jobs::MACHINE.into()), status: None };
        let page = conveyor.handle.reader().on_this_thread().executions(&filter, None, 10).unwrap();
        page.items.first().map(|row| row.id)
    };
    let job = conveyor.until("the job is submitted", job).await;
    assert_eq!(conveyor.handle.reader().on_this_thread().header(job).unwrap().unwrap().status, Status::Running);
    conveyor.handle.stop(main, None, None).await.unwrap();
    let header = conveyor.ended(job).await;
    assert_eq!(header.status, Status::Aborted, "{header:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_share_that_is_away_nothing_vanishes_for_good() {
    let conveyor = appliance(&[]).await;
    // The share was mounted, and an empty folder is what is left of it.
    let mut commit = Commit::new();
    commit.put_setting(&mounted_setting("source"), b"1");
    conveyor.handle.commit(commit).await.unwrap();
    let input = json!({"jobId": "j", "bucket": "source", "key": "clip.mp4", "requestedAt": "2026-01-01T00:00:00"});
    let start = StartRequest { machine: "main".into(), input: input.to_string().into(), ..StartRequest::default() };
    let main = conveyor.handle.start(start).await.unwrap().id;
    let tried = || {
        let filter = ExecutionFilter { machine: Some("sanitize".into()), status: None };
        let child = conveyor.handle.reader().on_this_thread().executions(&filter, None, 1).unwrap().items.first()?.id;
        let history =
            conveyor.handle.reader().on_this_thread().history(child, EventId(1), 100, Direction::Forward).unwrap();
        history.into_iter().find_map(|event| match event.kind {
            HistoryKind::TaskFailed { failure, .. } => failure.error,
            _ => None,
        })
    };
    assert_eq!(conveyor.until("the stage is tried", tried).await, "Media.ShareUnreachable");
    // What lies in the folder by now makes no share of it.
    fs::write(conveyor.dir.path().join("source/clip.mp4"), "clip").unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(conveyor.handle.reader().header(main).await.unwrap().unwrap().status, Status::Running);
    // It is one, as its owner says, and the execution goes on by itself.
    let mut commit = Commit::new();
    commit.delete_setting(&mounted_setting("source"));
    conveyor.handle.commit(commit).await.unwrap();
    let end = conveyor.ended(main).await;
    assert_eq!(output(&end)["status"], "PUBLISHED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_line_of_an_execution_does_the_work_of_another() {
    let conveyor = appliance(&[]).await;
    let created_at = conveyor.handle.now().into();
    let row = ActivityRow { name: "look".into(), created_at, settings: String::new(), tags: Vec::new() };
    let mut commit = Commit::new();
    commit.put_activity(&row);
    conveyor.handle.commit(commit).await.unwrap();
    let activity = "arn:aws:states:us-east-1:000000000000:activity:look";
    let sfn = |action: &str| format!("arn:aws:states:::aws-sdk:sfn:{action}");
    let definition = json!({"StartAt": "Both", "States": {"Both": {"Type": "Parallel", "End": true, "Branches": [
        {"StartAt": "Look", "States": {
            "Look": {"Type": "Task", "Resource": activity, "Parameters": {"file.$": "$.key"}, "End": true}}},
        {"StartAt": "Fetch", "States": {
            "Fetch": {"Type": "Task", "Resource": sfn("getActivityTask"), "ResultPath": "$.task", "Next": "Report",
                "Parameters": {"ActivityArn": activity, "WorkerName": "the other line"}},
            "Report": {"Type": "Task", "Resource": sfn("sendTaskSuccess"), "ResultPath": null, "Next": "Again",
                "Parameters": {"TaskToken.$": "$.task.TaskToken", "Output.$": "$.task.Input"}},
            "Again": {"Type": "Task", "Resource": sfn("sendTaskHeartbeat"), "End": true,
                "Parameters": {"TaskToken.$": "$.task.TaskToken"},
                "Catch": [{"ErrorEquals": ["Sfn.TaskTimedOutException"], "Next": "Over"}]},
            "Over": {"Type": "Pass", "OutputPath": "$.Error", "End": true}}},
    ]}}});
    conveyor.create("lines", &definition.to_string()).await;
    let (header, _) = conveyor.run("lines", "job-1", "clip.mp4").await;
    assert_eq!(output(&header), json!([{"file": "clip.mp4"}, "Sfn.TaskTimedOutException"]));
}

/// What a person decides, the end of the Task, the end of the to-do and the entry of the audit log are one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_to_do_goes_with_its_task() {
    let appliance = appliance(&[]).await;
    let asks = json!({"StartAt": "Ask", "States": {"Ask": {"Type": "Task", "End": true,
        "Resource": "arn:aws:states:::conveyor:approve.waitForTaskToken", "Parameters": {"Title": "Good enough?"}}}});
    appliance.create("asks", &asks.to_string()).await;
    let reader = appliance.handle.reader().on_this_thread();
    let begin = async || {
        let id = appliance
            .handle
            .start(StartRequest { machine: "asks".into(), input: "{}".into(), ..StartRequest::default() })
            .await
            .unwrap()
            .id;
        let asked = || reader.approvals(None, 10).unwrap().into_iter().find(|(execution, ..)| *execution == id);
        let (_, attempt, row) = appliance.until("its to-do", asked).await;
        assert_eq!((row.title.as_str(), row.state.as_str()), ("Good enough?", "Ask"));
        assert!(
            reader.outstanding(None, 99).unwrap().iter().all(|task| task.0 != id),
            "it is asked in the commit of its submission"
        );
        (id, attempt)
    };
    let decide = async |key, who: &str| {
        let entry = AuditEntry {
            at: appliance.handle.now(),
            who: who.into(),
            role: "operator".into(),
            api: "rest",
            what: "approve".into(),
            to: String::new(),
            status: 200,
        };
        let decision = Decision::Approve(json!({"by": who}).to_string().into());
        appliance.parts.approvals.decide(key, decision, Some(OnBehalf::of(entry))).await.unwrap()
    };
    let key = begin().await;
    let both = tokio::join!(decide(key, "ann"), decide(key, "bob"));
    let first = match both {
        (Verdict::Counts, Verdict::Unknown | Verdict::Refused(_)) => "ann",
        (Verdict::Unknown | Verdict::Refused(_), Verdict::Counts) => "bob",
        both => panic!("{both:?}"),
    };
    assert_eq!(output(&appliance.ended(key.0).await), json!({"by": first}));
    assert_eq!(reader.approvals(None, 10).unwrap(), []);
    let audit: Vec<String> = reader.audit(None, 10).unwrap().into_iter().map(|(_, row)| row.who).collect();
    assert_eq!(audit, [first], "who changed nothing has no part in the commit");
    assert_eq!(decide(key, "cid").await, Verdict::Unknown);

    let key = begin().await;
    appliance.handle.stop(key.0, None, None).await.unwrap();
    assert!(matches!(decide(key, "ann").await, Verdict::Refused(refused) if refused.code == "TaskTimedOut"));
    let gone = || reader.approvals(None, 10).unwrap().is_empty().then_some(());
    appliance.until("the end of the to-do", gone).await;
}

/// A share hangs where whoever opens a file waits for ever: here the files are pipes that nobody reads. So many wait for it
/// that they would take all threads of this runtime.
#[test]
fn a_share_that_hangs_stops_nothing_but_what_needs_it() {
    const THREADS: usize = 48;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(THREADS).enable_all().build().unwrap();
    let test = async {
        let this = appliance(&[]).await;
        let (uploads, reader) = (this.parts.uploads.clone(), this.handle.reader().clone());
        let begin = async |share: &str, n: usize| {
            let new = NewUpload {
                share: share.into(),
                folder: String::new(),
                name: format!("{n}.mp4"),
                bytes: 4,
                by: "ops".into(),
            };
            uploads.begin(new, None).await.unwrap()
        };
        let write = |id: String| {
            let uploads = uploads.clone();
            async move {
                let (pieces, taken) = tokio::sync::mpsc::channel(1);
                pieces.send("film".into()).await.unwrap();
                drop(pieces);
                uploads.write(&id, Some(0), taken).await
            }
        };
        let mut ids = Vec::new();
        for n in 0..2 * THREADS {
            ids.push(begin("source", n).await);
        }
        for id in ids {
            let part = this.dir.path().join("source").join(reader.upload(&id).unwrap().unwrap().part);
            fs::remove_file(&part).unwrap();
            nix::unistd::mkfifo(&part, nix::sys::stat::Mode::S_IRWXU).unwrap();
            tokio::spawn(write(id));
        }
        let goes_on = async {
            let wait = json!({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 1, "End": true}}});
            this.create("waits", &wait.to_string()).await;
            let (header, _) = this.run("waits", "one", "a.mp4").await;
            assert!(matches!(header.outcome, Some(Outcome::Succeeded { .. })), "{header:?}");
            let list = |rows: &conveyor_store::Scans| rows.executions(&ExecutionFilter::default(), None, 10);
            assert_eq!(reader.blocking(list).await.unwrap().items.len(), 1);
            let whole = UploadProgress { offset: 4, key: Some("0.mp4".into()) };
            assert_eq!(write(begin("outputs", 0).await).await, Ok(whole));
        };
        let ended = tokio::time::timeout(Duration::from_secs(25), goes_on).await;
        ended.expect("nothing else stands still");
    };
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(test)));
    // What hangs is waited for by nobody.
    runtime.shutdown_background();
    ended.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_beside_an_object_is_there_for_the_next_state() {
    let this = appliance(&[]).await;
    let call = |operation: &str, more: Value, then: &str| {
        let mut parameters = json!({"Bucket": "outputs", "Key": "a.txt"});
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let resource = format!("arn:aws:states:::aws-sdk:s3:{operation}");
        let mut state = json!({"Type": "Task", "Resource": resource, "Parameters": parameters});
        match then {
            "" => state["End"] = true.into(),
            then => state["Next"] = then.into(),
        }
        state
    };
    let machine = json!({"StartAt": "Put", "States": {
        "Put": call("putObject", json!({"Body": "x", "ContentType": "text/x-log", "Metadata": {"who": "me"}}), "Head"),
        "Head": call("headObject", json!({}), ""),
    }});
    this.create("keeps", &machine.to_string()).await;
    let (header, _) = this.run("keeps", "one", "a.mp4").await;
    let Some(Outcome::Succeeded { output }) = header.outcome else { panic!("{header:?}") };
    let head: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&head["ContentType"], &head["Metadata"]["who"]), (&json!("text/x-log"), &json!("me")));
}

/// Puts pauses of a second in the place of those of the workflows.
async fn hurry(conveyor: &Appliance) {
    let substitutions = builtin::Substitutions {
        region: "us-east-1".into(),
        account: "000000000000".into(),
        outputs: "outputs".into(),
        archive: "archive".into(),
        quarantine: "quarantine".into(),
    };
    for (name, text) in builtin::WORKFLOWS {
        let mut text = substitutions.apply(text);
        for (slow, fast) in [
            ("\"BackoffRate\": 3.0", "\"BackoffRate\": 1.0"),
            ("\"IntervalSeconds\": 5", "\"IntervalSeconds\": 1"),
            ("\"IntervalSeconds\": 10", "\"IntervalSeconds\": 1"),
            ("\"MaxAttempts\": 150", "\"MaxAttempts\": 1"),
            ("\"seconds\": 5", "\"seconds\": 1"),
        ] {
            text = text.replace(slow, fast);
        }
        builtin::install(&conveyor.handle, name, &text).await.unwrap();
    }
}

/// Whatever a stage fails with: afterwards the file is done, or in quarantine with its reason, or where it was, and then
/// its execution says what is wrong with the box.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_file_that_a_run_gives_up_has_its_reason_beside_it() {
    let conveyor = appliance(&[]).await;
    hurry(&conveyor).await;
    let own = [
        "Media.Corrupt",
        "Media.Empty",
        "Media.EncodeMismatch",
        "Media.Encrypted",
        "Media.Failed",
        "Media.NoVideo",
        "Media.NotMedia",
        "Media.MissingElement",
        "Media.StillImage",
        "Media.TooLarge",
        "Media.TooLong",
        "Media.TooShort",
        "Media.Truncated",
        "Media.UnsupportedCodec",
        "Media.UnsupportedHdr",
        "Media.WrongSuffix",
        "Stage.BadReport",
        "Stage.Crashed",
        "Stage.LimitExceeded",
        "Stage.Panicked",
        "Device.Unsupported",
    ];
    let boxes = [
        "Media.Stalled",
        "Stage.Killed",
        "Media.DiskFull",
        "Media.WorkDir",
        "Media.Unreadable",
        "Media.ShareUnreachable",
        "Media.InvalidParameter",
        "Media.NoGStreamer",
        "Stage.Failed",
        "Stage.Jail",
        "Device.Lost",
        "Files.PermissionDenied",
        "States.Timeout",
        "Nobody.KnowsThis",
    ];
    let mut cases: Vec<(String, String, bool)> = Vec::new();
    for stage in ["sanitize", "transcode", "labels", "quality"] {
        cases.extend(own.iter().map(|error| (format!("[{stage}~{error}].mp4"), (*error).to_owned(), true)));
        cases.extend(boxes.iter().map(|error| (format!("[{stage}~{error}].mp4"), (*error).to_owned(), false)));
        cases.push((format!("killed-[{stage}~Stage.Jail].mp4"), "Stage.Jail".into(), true));
    }
    for stage in ["fingerprint", "brief", "publish"] {
        cases.push((format!("[{stage}~Files.DiskFull].mp4"), "Files.DiskFull".into(), false));
    }
    cases.push(("ugly.mp4".into(), "Quality.Failed".into(), true));
    let source = conveyor.dir.path().join("source");
    let runs = cases.iter().enumerate().map(|(n, (file, ..))| {
        fs::write(source.join(file), file).unwrap();
        let job = format!("j-{n}");
        let conveyor = &conveyor;
        async move { conveyor.run("main", &job, file).await }
    });
    let ends = futures::future::join_all(runs).await;
    for (n, ((file, error, is_own), (header, _))) in cases.iter().zip(&ends).enumerate() {
        let quarantined = conveyor.dir.path().join("quarantine").join(file);
        let (here, there) = (source.join(file).exists(), quarantined.exists());
        assert_eq!((here, there), (!is_own, *is_own), "{file}");
        let (said, cause) = failure(header);
        assert_eq!(said, *error, "{file}: {cause}");
        let row = conveyor.row("jobs", &format!("j-{n}"));
        assert_eq!(row["QuarantinedTo"].is_null(), here, "{file}: {row}");
        assert_eq!(row["JobStatus"]["S"], if here { "FAILED_PROCESSING" } else { "REJECTED" }, "{file}");
        if there {
            let reason = fs::read_to_string(format!("{}.error.json", quarantined.display())).unwrap();
            assert_eq!(reason, *error, "{file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_box_fails_at_is_tried_again_until_it_goes() {
    let conveyor = appliance(&[]).await;
    let source = conveyor.dir.path().join("source");
    let settings = json!({"share": "source", "settle": "100ms", "scan": "100ms", "retry": "300ms"});
    let watcher = Watcher::new(
        serde_json::from_value(settings).unwrap(),
        conveyor.parts.io.clone(),
        Arc::new(conveyor.handle.clone()),
        conveyor.handle.reader().clone(),
    );
    let status = watcher.status();
    let (first, second) = (watcher.anew(), watcher.anew());
    let watching = tokio::spawn(watcher.run());
    fs::write(source.join("unlucky.mp4"), "unlucky").unwrap();
    fs::write(source.join("broken.mp4"), "broken").unwrap();
    let runs = |file: &str| {
        let rows = conveyor.handle.reader().on_this_thread();
        let filter = ExecutionFilter { machine: Some("main".into()), status: None };
        let all = rows.executions(&filter, None, 1_000).unwrap().items;
        all.into_iter().filter(|run| run.name.starts_with(file)).collect::<Vec<_>>()
    };
    conveyor.until("the third run", || (runs("unlucky").len() >= 3).then_some(())).await;
    let problem =
        || status.lock().problems.iter().find(|what| what.contains("'unlucky.mp4' (Media.Unreadable)")).cloned();
    conveyor.until("the problem is said", problem).await;
    // The box is started anew, and does not forget it.
    watching.abort();
    let _ = watching.await;
    let so_far = runs("unlucky").len();
    let watching = tokio::spawn(first.run());
    conveyor.until("another run", || (runs("unlucky").len() > so_far).then_some(())).await;
    FIXED.store(true, SeqCst);
    let published = || runs("unlucky").iter().any(|run| run.status == Status::Succeeded).then_some(());
    conveyor.until("it is published", published).await;
    conveyor.until("nothing is wrong", || status.lock().problems.is_empty().then_some(())).await;
    let all = runs("unlucky");
    let names: Vec<&str> = all.iter().rev().map(|run| run.name.as_str()).collect();
    for (n, name) in names.iter().enumerate().skip(1) {
        assert_eq!(*name, format!("{}-{}", names[0], n + 1));
    }
    // What was the file's own fault was tried once, and is tried when somebody takes it back out of quarantine.
    assert_eq!(runs("broken").len(), 1);
    fs::rename(conveyor.dir.path().join("quarantine/broken.mp4"), source.join("broken.mp4")).unwrap();
    conveyor.until("its second run", || (runs("broken").len() == 2).then_some(())).await;
    conveyor.until("it is back", || conveyor.dir.path().join("quarantine/broken.mp4").exists().then_some(())).await;
    watching.abort();
    // Nothing of that starts anything again.
    let (done, gone) = (runs("unlucky").len(), runs("broken").len());
    let watching = tokio::spawn(second.run());
    let before = status.lock().last_scan_ms;
    conveyor.until("a scan", || (status.lock().last_scan_ms > before.map(|ms| ms + 500)).then_some(())).await;
    assert_eq!((runs("unlucky").len(), runs("broken").len()), (done, gone));
    watching.abort();
}
