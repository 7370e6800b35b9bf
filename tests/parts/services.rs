//! The services: what each acknowledged is there after it panicked, once.

use std::collections::BTreeSet;
use std::time::Duration;

use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::Outcome;
use conveyor_services::approvals::{Decision, Verdict};
use conveyor_services::events::{DEFAULT_BUS, Lineage, NewEvent};
use conveyor_services::predictions::{self, JobSample};
use conveyor_services::queues::{NewMessage, Reply, Request as QueueRequest};
use conveyor_services::uploads::{NewUpload, UploadProgress};
use conveyor_store::{AuditKey, AuditRow, Commit};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::appliance::{BEGIN, Served, comes_back};

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
async fn predictions_forget_no_lesson() {
    let learnt = Mutex::new(0);
    let learn = async |this: &Served, _: u32| {
        let sample = |took| JobSample { on_gpu: false, modelled: 10.0, took };
        let before = predictions::read(this.appliance.handle.reader()).unwrap().cores.jobs;
        this.appliance.parts.predictions.learn(sample(20.0)).await;
        let after = predictions::read(this.appliance.handle.reader()).unwrap();
        assert!(after.cores.jobs == before || (after.cores.factor() - 2.0).abs() < 1e-9, "{after:?}");
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
        let (who, role, door, what, to) = Default::default();
        let row = AuditRow { at: BEGIN.into(), who, role, door, what, to, status: 200 };
        commit.put_audit(AuditKey { at: BEGIN, number }, &row);
    }
    this.appliance.handle.commit(commit).await.unwrap();
    let numbers = || reader.audit(None, 30_000).unwrap().into_iter().map(|(key, _)| key.number).collect::<Vec<_>>();
    sleep(Duration::from_secs(600)).await;
    this.until("the oldest go", async || (numbers().len() <= 20_000).then_some(())).await;
    assert_eq!(numbers(), (2_500..22_500).rev().collect::<Vec<_>>());
}
