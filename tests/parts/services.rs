//! The services: what each acknowledged is there after it panicked, once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use conveyor_base::{Attempt, ExecutionId, Timestamp};
use conveyor_interpreter::Outcome;
use conveyor_run::OnBehalf;
use conveyor_services::approvals::{Decision, Verdict};
use conveyor_services::events::{DEFAULT_BUS, Lineage, NewEvent};
use conveyor_services::predictions::{self, JobSample};
use conveyor_services::queues::{NewMessage, Reply, Request as QueueRequest};
use conveyor_services::uploads::{NewUpload, UploadProgress};
use conveyor_store::{AuditKey, AuditRow, Commit};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::ServiceExt as _;

use crate::appliance::{BEGIN, FailingClock, Served, comes_back};

/// All messages that a queue has; each is received once.
async fn received_of(this: &Served, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let request = QueueRequest::Receive { most: 10, visibility_ms: 1_000_000_000, until: Timestamp(0) };
        let reply = this.appliance.parts.queues.ask(queue, request, None).await.unwrap();
        let Reply::Received(some) = reply else { panic!("{reply:?}") };
        if some.is_empty() {
            return bodies;
        }
        bodies.extend(some.into_iter().map(|message| message.row.body));
    }
}

#[tokio::test(start_paused = true)]
async fn the_queues_keep_what_they_took() {
    let (sent, received) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    let send = async |this: &Served, turn: u32| {
        let message = NewMessage { body: turn.to_string(), ..NewMessage::default() };
        let request = QueueRequest::Send(vec![message]);
        if let Ok(Reply::Sent(_)) = this.appliance.parts.queues.ask("jobs", request, None).await {
            sent.lock().insert(turn.to_string());
        }
    };
    let receive = async |this: &Served| {
        for body in received_of(this, "jobs").await {
            assert!(received.lock().insert(body), "twice");
        }
        assert_eq!(*received.lock(), *sent.lock());
    };
    comes_back("the queues", send, receive).await;
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_one_commit_with_what_goes_along_and_is_in_the_audit_log() {
    let this = Served::start().await;
    let queues = &this.appliance.parts.queues;
    let send = async |count: u32| {
        for _ in 0..count {
            let message = NewMessage { body: "work".into(), ..NewMessage::default() };
            queues.ask("jobs", QueueRequest::Send(vec![message]), None).await.unwrap();
        }
    };
    send(3).await;
    let went_along = Arc::new(Mutex::new(None));
    let along = went_along.clone();
    let on_behalf = OnBehalf::default().with(move |commit| *along.lock() = Some(!commit.is_empty()));
    let purged = queues.ask("jobs", QueueRequest::Purge, Some(on_behalf)).await.unwrap();
    assert!(matches!(purged, Reply::Purged), "{purged:?}");
    assert_eq!(*went_along.lock(), Some(true), "with the messages that go");
    assert_eq!(received_of(&this, "jobs").await, Vec::<String>::new());

    // Both protocols of SQS, and what only moves messages.
    send(1).await;
    let target = |operation: &str| ("x-amz-target", format!("AmazonSQS.{operation}"));
    let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
    for (header, body) in [
        (target("SendMessage"), r#"{"QueueUrl": "jobs", "MessageBody": "work"}"#),
        (target("purgeQueue"), r#"{"QueueUrl": "jobs"}"#),
        (target("PurgeQueue"), r#"{"QueueUrl": "missing"}"#),
        (form, "Action=PurgeQueue&QueueUrl=heard"),
    ] {
        let request = Request::post("/").header("host", "127.0.0.1").header(header.0, header.1);
        this.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    }
    let (_, text) = this.get("/api/v1/audit").await;
    let page: Value = serde_json::from_str(&text).unwrap();
    let entries = page["entries"].as_array().unwrap().iter().map(|entry| {
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        (text("what"), text("to"), entry["status"].as_u64().unwrap())
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort();
    let expected = [("heard", 200), ("jobs", 200), ("missing", 400)];
    assert_eq!(entries, expected.map(|(to, status)| ("PurgeQueue".to_owned(), to.to_owned(), status)));
    this.stop().await;
}

#[tokio::test(start_paused = true)]
async fn events_get_to_their_targets() {
    let (put, got) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    let put_event = async |this: &Served, turn: u32| {
        let events = this.appliance.parts.messaging().events;
        let event = NewEvent {
            id: turn.to_string(),
            bus: DEFAULT_BUS.into(),
            source: "test".into(),
            detail_type: "turn".into(),
            detail: json!({}),
            resources: Vec::new(),
            time: BEGIN,
            lineage: Lineage::default(),
        };
        if events.put(events.rows(&event, this.appliance.handle.now()), None).await.is_ok() {
            put.lock().insert(event.id);
        }
    };
    let arrived = async |this: &Served| {
        let all = async || {
            for body in received_of(this, "heard").await {
                let event: Value = serde_json::from_str(&body).unwrap();
                assert!(got.lock().insert(event["id"].as_str().unwrap().to_owned()), "twice: {body}");
            }
            (got.lock().len() >= put.lock().len()).then_some(())
        };
        this.until("each event at its target", all).await;
        assert_eq!(*got.lock(), *put.lock());
    };
    comes_back("the event dispatcher", put_event, arrived).await;
}

/// A machine of one Task, whose parameters are out of its input.
async fn make_task(this: &Served, name: &str, resource: &str, parameters: Value) {
    let resource = format!("arn:aws:states:::{resource}");
    let task = json!({"Type": "Task", "Resource": resource, "Parameters": parameters, "End": true});
    this.create(name, json!({"StartAt": "T", "States": {"T": task}})).await;
}

async fn output_of(this: &Served, id: ExecutionId) -> Value {
    let header = this.ended(id).await;
    let Some(Outcome::Succeeded { output }) = &header.outcome else { panic!("{header:?}") };
    serde_json::from_str(output).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_table_counts_each_task_once() {
    let begun = Mutex::new(0);
    let count = async |this: &Served, turn: u32| {
        if turn == 0 {
            let parameters = json!({"TableName": "counts", "Key": {"Id": {"S": "all"}},
                "UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}});
            make_task(this, "count", "dynamodb:updateItem", parameters).await;
        }
        let id = this.begin("count", json!({})).await;
        output_of(this, id).await;
        *begun.lock() += 1;
    };
    let counted = async |this: &Served| {
        let item = this.appliance.handle.reader().item("counts", r#"[{"S":"all"}]"#).unwrap().unwrap();
        let item: Value = serde_json::from_str(&item).unwrap();
        assert_eq!(item["n"]["N"], begun.lock().to_string());
    };
    comes_back("the tables of items", count, counted).await;
}

#[tokio::test(start_paused = true)]
async fn each_file_is_claimed_by_one() {
    let claim = async |this: &Served, turn: u32| {
        if turn == 0 {
            let parameters = json!({"blake3.$": "$.hash", "input": "s3://incoming/film.mp4"});
            make_task(this, "claim", "conveyor:claim", parameters).await;
        }
        let id = this.begin("claim", json!({"hash": turn.to_string()})).await;
        assert_eq!(output_of(this, id).await["claimed"], true, "turn {turn}");
    };
    comes_back("the claims", claim, async |_: &Served| ()).await;
}

#[tokio::test(start_paused = true)]
async fn each_decision_counts_once() {
    let decide = async |this: &Served, turn: u32| {
        if turn == 0 {
            make_task(this, "ask", "conveyor:approve.waitForTaskToken", json!({"Title": "May it?"})).await;
        }
        let id = this.begin("ask", json!({})).await;
        let to_do = || {
            this.appliance
                .handle
                .reader()
                .on_this_thread()
                .approvals(None, 10)
                .unwrap()
                .into_iter()
                .find(|(of, ..)| *of == id)
        };
        let (_, attempt, _) = this.until("the to-do", async || to_do()).await;
        let decide = async || {
            let decision = Decision::Approve("{}".into());
            this.appliance.parts.approvals.decide((id, attempt), decision, None).await.ok()
        };
        let verdict = this.until("an answer", decide).await;
        assert_eq!(output_of(this, id).await, json!({}));
        // Who was not answered the first time may find it decided.
        assert!(matches!(verdict, Verdict::Counts | Verdict::Unknown), "{verdict:?}");
    };
    comes_back("the approvals", decide, async |_: &Served| ()).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_uploaded_is_there() {
    let there = Mutex::new(Vec::new());
    let upload = async |this: &Served, turn: u32| {
        let uploads = &this.appliance.parts.uploads;
        let (share, folder, name) = ("incoming".into(), String::new(), format!("{turn}.mxf"));
        let Ok(id) = uploads.begin(NewUpload { share, folder, name, bytes: 4, by: "me".into() }, None).await else {
            return;
        };
        let (sender, pieces) = tokio::sync::mpsc::channel(1);
        sender.send("film".into()).await.unwrap();
        drop(sender);
        if let Ok(UploadProgress { key: Some(key), .. }) = uploads.write(&id, Some(0), pieces).await {
            there.lock().push(key);
        }
    };
    let whole = async |this: &Served| {
        for key in there.lock().iter() {
            assert_eq!(std::fs::read(this.dir.path().join("incoming").join(key)).unwrap(), b"film", "{key}");
        }
        assert!(there.lock().len() > 1);
    };
    comes_back("the uploads", upload, whole).await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_goes_on_with_goes() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let this = Served::start_in(dir.clone(), FailingClock::new()).await;
    let days_ago = |days: u64| {
        let begin = Duration::from_millis(BEGIN.0.unsigned_abs()) - Duration::from_secs(days * 86_400);
        std::time::UNIX_EPOCH + begin
    };
    let age = |path: &Path, days: u64| std::fs::File::open(path).unwrap().set_modified(days_ago(days)).unwrap();
    let (mut ids, folder) = (BTreeMap::new(), dir.path().join("incoming/new"));
    for name in ["idle.mxf", "gone.mxf", "fresh.mxf"] {
        let new =
            NewUpload { share: "incoming".into(), folder: "new".into(), name: name.into(), bytes: 9, by: "me".into() };
        ids.insert(name, this.appliance.parts.uploads.begin(new, None).await.unwrap());
    }
    let row = |this: &Served, name: &str| this.appliance.handle.reader().upload(&ids[name]).unwrap();
    let part = |name: &str| folder.join(row(&this, name).unwrap().part);
    age(&part("idle.mxf"), 8);
    age(&part("fresh.mxf"), 6);
    std::fs::remove_file(part("gone.mxf")).unwrap();
    // What a crash leaves between the part and its row, and what is not ours.
    let strays = [
        ("new/.a.mxf.0123abcd.part", 8),
        ("new/.b.mxf.0123abcd.part", 6),
        (".c.mxf.0123abcd.part", 8),
        ("new/.d.mxf.part", 8),
        ("kept/.e.mxf.0123abcd.part", 8),
    ];
    std::fs::create_dir(dir.path().join("incoming/kept")).unwrap();
    for (stray, days) in strays {
        let path = dir.path().join("incoming").join(stray);
        std::fs::write(&path, "film").unwrap();
        age(&path, days);
    }
    std::os::unix::fs::symlink(dir.path().join("incoming/kept"), folder.join(".f.mxf.0123abcd.part")).unwrap();
    this.stop().await;

    let this = Served::start_in(dir.clone(), FailingClock::new()).await;
    let swept = async || (row(&this, "idle.mxf").is_none() && row(&this, "gone.mxf").is_none()).then_some(());
    this.until("what is idle goes", swept).await;
    assert!(row(&this, "fresh.mxf").is_some());
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let fresh = format!(".fresh.mxf.{}.part", &ids["fresh.mxf"][..8]);
    let left = [".b.mxf.0123abcd.part", ".d.mxf.part", ".f.mxf.0123abcd.part", &fresh];
    assert_eq!(names(&folder), left.map(str::to_owned).into());
    assert_eq!(names(&dir.path().join("incoming")), ["kept", "new"].map(str::to_owned).into());
    assert!(dir.path().join("incoming/kept/.e.mxf.0123abcd.part").exists(), "no upload is known of that folder");
    this.stop().await;
}

#[tokio::test(start_paused = true)]
async fn predictions_forget_no_lesson() {
    let (learnt, attempts) = (Mutex::new(0), Mutex::new(0));
    let learn = async |this: &Served, _: u32| {
        let sample = |took| JobSample { on_gpu: false, modelled: 10.0, took };
        let before = predictions::read(this.appliance.handle.reader()).unwrap().cores.jobs;
        *attempts.lock() += 1;
        let of = (ExecutionId(1), Attempt(*attempts.lock()));
        this.appliance.parts.predictions.learn(of, sample(20.0)).await;
        // The same attempt once more, as after a crash before its end was stored.
        this.appliance.parts.predictions.learn(of, sample(20.0)).await;
        let after = predictions::read(this.appliance.handle.reader()).unwrap();
        assert!(after.cores.jobs == before || (after.cores.factor() - 2.0).abs() < 1e-9, "{after:?}");
        assert!(after.cores.jobs <= before + 1, "a repeated attempt counts once");
        *learnt.lock() += after.cores.jobs - before;
    };
    let known = async |this: &Served| {
        let lessons = predictions::read(this.appliance.handle.reader()).unwrap();
        assert_eq!(lessons.cores.jobs, *learnt.lock());
    };
    comes_back("the predictions", learn, known).await;
}

#[tokio::test(start_paused = true)]
async fn the_audit_log_keeps_the_newest_entries() {
    let this = Served::start().await;
    let (reader, mut commit) = (this.appliance.handle.reader().on_this_thread(), Commit::new());
    for number in 0..22_500 {
        let (who, role, api, what, to) = Default::default();
        let row = AuditRow { at: BEGIN.into(), who, role, api, what, to, status: 200 };
        commit.put_audit(AuditKey { at: BEGIN, number }, &row);
    }
    this.appliance.handle.commit(commit).await.unwrap();
    let numbers = || reader.audit(None, 30_000).unwrap().into_iter().map(|(key, _)| key.number).collect::<Vec<_>>();
    sleep(Duration::from_secs(600)).await;
    this.until("the oldest go", async || (numbers().len() <= 20_000).then_some(())).await;
    assert_eq!(numbers(), (2_500..22_500).rev().collect::<Vec<_>>());
}
