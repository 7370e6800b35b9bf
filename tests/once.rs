//! Exactly once, where the effect is the box's own: what a Task changes in the box's store is in the same commit as the
//! Task's end, so that a power cut between them cannot be. The served binary is killed again and again while Tasks of
//! every such kind run, and in the end each effect is there once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use conveyor_testing::served::http::{self, Client};
use conveyor_testing::served::{Served, execution_arn, folder, machine_arn};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// The webhook is one that nobody serves, so that what was stored for it stays to be counted.
const CONFIGURATION: &str = r#"
listen = "127.0.0.1:0"
data_dir = "data"
[tables.counts]
key = "Id"
[queues.sent]
[queues.seen]
[rules.once]
pattern = { source = ["once"] }
[[rules.once.targets]]
queue = "seen"
input_path = "$.detail"
[notify]
webhook = "http://127.0.0.1:9/hook"
log = "notifications.jsonl"
"#;
const KILLS: usize = 20;
/// Tasks of one execution, all at the same time.
const ITEMS: usize = 8;
/// Executions of each kind that begin between two power cuts. Counters are many, since what else is done twice can
/// often be told from its first time, and a counter cannot.
const KINDS: [(&str, usize); 7] =
    [("count", 8), ("send", 1), ("put", 1), ("claim", 1), ("notify", 1), ("publish", 1), ("start", 1)];
const EXECUTIONS: usize = 14;

/// What is done for each item, which is a text of its own.
fn task(kind: &str) -> Value {
    let (resource, parameters) = match kind {
        "count" => (
            "dynamodb:updateItem",
            json!({"TableName": "counts", "Key": {"Id": {"S.$": "$"}}, "UpdateExpression": "ADD n :one",
                "ExpressionAttributeValues": {":one": {"N": "1"}}}),
        ),
        "send" => ("sqs:sendMessage", json!({"QueueUrl": "sent", "MessageBody.$": "$"})),
        "put" => {
            ("events:putEvents", json!({"Entries": [{"Source": "once", "DetailType": "t", "Detail": {"item.$": "$"}}]}))
        }
        "claim" => ("conveyor:claim", json!({"blake3.$": "$", "input": "s3://incoming/film.mp4"})),
        "notify" => ("conveyor:notify", json!({"event": "once", "item.$": "$"})),
        "publish" => ("sns:publish", json!({"TopicArn": "arn:aws:sns:us-east-1:000000000000:once", "Message.$": "$"})),
        "start" => {
            ("states:startExecution", json!({"StateMachineArn": machine_arn("child"), "Input": {"item.$": "$"}}))
        }
        "read" => ("aws-sdk:dynamodb:getItem", json!({"TableName": "counts", "Key": {"Id": {"S.$": "$"}}})),
        other => panic!("there is no kind {other}"),
    };
    json!({"Type": "Task", "Resource": format!("arn:aws:states:::{resource}"), "Parameters": parameters, "End": true})
}

/// A Map of that Task over the items that are its input.
fn machine(kind: &str) -> Value {
    json!({"StartAt": "All", "States": {"All": {"Type": "Map", "End": true,
        "ItemProcessor": {"StartAt": "One", "States": {"One": task(kind)}}}}})
}

fn items(execution: &str) -> Vec<String> {
    (0..ITEMS).map(|n| format!("{execution}/{n}")).collect()
}

/// An execution, by its kind and its name.
type Started = (&'static str, String);

/// Fails where the box is killed meanwhile.
async fn start(client: &mut Client, kind: &str, name: &str) -> std::io::Result<()> {
    let input = json!(items(name)).to_string();
    let request = json!({"stateMachineArn": machine_arn(kind), "name": name, "input": input});
    let answer = client.exchange(&http::aws("AWSStepFunctions.StartExecution", &request)).await?;
    // It may have begun, and ended, without that anybody was told.
    assert!(answer.is_success() || answer.text().contains("ExecutionAlreadyExists"), "{name}: {}", answer.text());
    Ok(())
}

/// All items that executions of a kind were started with.
fn all_items(started: &[Started], kind: &str) -> Vec<String> {
    started.iter().filter(|(of, _)| *of == kind).flat_map(|(_, name)| items(name)).collect()
}

/// What is not there exactly once of what should be.
fn not_once(expected: &[String], found: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = expected.iter().map(|item| (item.clone(), 0)).collect();
    found.into_iter().for_each(|item| *counts.entry(item).or_default() += 1);
    counts.retain(|_, n| *n != 1);
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_changes_in_the_box_is_there_once_after_twenty_power_cuts() {
    let seed = std::env::var("CONVEYOR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("CONVEYOR_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let dir = folder(CONFIGURATION);
    let mut served = Served::start(dir.path());
    served.create("child", &json!({"StartAt": "P", "States": {"P": {"Type": "Pass", "End": true}}})).await;
    assert_eq!(KINDS.map(|(_, count)| count).iter().sum::<usize>(), EXECUTIONS);
    for (kind, _) in KINDS {
        served.create(kind, &machine(kind)).await;
    }
    let (mut started, mut unanswered): (Vec<Started>, Vec<Started>) = (Vec::new(), Vec::new());
    for kill in 0..KILLS {
        let mut client = served.client().await;
        // Whether these were begun nobody knows; the same name begins one once.
        for (kind, name) in std::mem::take(&mut unanswered) {
            start(&mut client, kind, &name).await.unwrap();
        }
        let mut next: Vec<Started> = KINDS
            .iter()
            .flat_map(|(kind, count)| (0..*count).map(move |n| (*kind, format!("{kind}-{kill}-{n}"))))
            .collect();
        next.rotate_left(kill * 3 % EXECUTIONS);
        started.extend(next.clone());
        // Some begin one after the other while the box lives; the others all at once just before the power goes, so
        // that there is always something in flight.
        let last = next.split_off(EXECUTIONS / 2);
        for (kind, name) in next {
            start(&mut client, kind, &name).await.unwrap();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
        }
        let address = served.address;
        let starts = last.into_iter().map(|(kind, name)| {
            tokio::spawn(async move {
                let Ok(mut client) = Client::connect(address).await else { return Some((kind, name)) };
                start(&mut client, kind, &name).await.is_err().then_some((kind, name))
            })
        });
        let starts: Vec<_> = starts.collect();
        tokio::time::sleep(Duration::from_millis(random.random_range(5..60))).await;
        served.kill();
        for start in starts {
            unanswered.extend(start.await.unwrap());
        }
        served = Served::start(dir.path());
    }
    let mut client = served.client().await;
    for (kind, name) in unanswered {
        start(&mut client, kind, &name).await.unwrap();
    }
    served.idle().await;

    let mut wrong: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for (kind, name) in &started {
        let request = json!({"executionArn": execution_arn(kind, name)});
        let found = client.call("AWSStepFunctions.DescribeExecution", &request).await;
        assert_eq!(found["status"], "SUCCEEDED", "{found}");
        let output: Vec<Value> = serde_json::from_str(found["output"].as_str().unwrap()).unwrap();
        let refused = output.iter().filter(|claim| *kind == "claim" && claim["claimed"] != true).count();
        assert_eq!(refused, 0, "a claim is refused to the execution that has it: {output:?}");
    }
    let expected = |kind: &str| all_items(&started, kind);
    let counters = read(&served, &expected("count")).await;
    wrong.insert("count", counters.into_iter().filter(|(_, n)| *n != 1).collect());
    let bodies =
        |messages: Vec<Value>| messages.into_iter().map(|message| message["Body"].as_str().unwrap().to_owned());
    wrong.insert("send", not_once(&expected("send"), bodies(served.drain("sent").await)));
    let item = |text: &str| serde_json::from_str::<Value>(text).unwrap()["item"].as_str().unwrap().to_owned();
    let seen = bodies(served.drain("seen").await).map(|body| item(&body));
    wrong.insert("put", not_once(&expected("put"), seen));
    let children = served.get("/executions?machine=child&nested=true&limit=500").await;
    let inputs = children["executions"].as_array().unwrap().iter().map(|child| child["arn"].as_str().unwrap());
    let mut begun = Vec::new();
    for arn in inputs {
        let child = client.call("AWSStepFunctions.DescribeExecution", &json!({"executionArn": arn})).await;
        begun.push(item(child["input"].as_str().unwrap()));
    }
    wrong.insert("start", not_once(&expected("start"), begun));
    // Whoever comes later finds every content claimed.
    let another = machine_arn("claim");
    let claims = sync(&served, &mut client, &another, &expected("claim")).await;
    let free = claims.iter().zip(expected("claim")).filter(|(claim, _)| claim["claimed"] != false);
    wrong.insert("claim", free.map(|(_, item)| (item, 0)).collect());
    outbox(&served, dir.path(), &expected("notify"), &expected("publish"), &mut wrong).await;

    wrong.retain(|kind, found| {
        println!("{kind}: {} of {} not once", found.len(), expected(kind).len());
        !found.is_empty()
    });
    assert!(wrong.is_empty(), "effects that are not there once after {KILLS} kills: {wrong:#?}");
}

/// Runs a state machine on items to its end, and says what came of each.
async fn sync(served: &Served, client: &mut Client, machine: &str, items: &[String]) -> Vec<Value> {
    let request = json!({"stateMachineArn": machine, "input": json!(items).to_string()});
    let started = client.call("AWSStepFunctions.StartExecution", &request).await;
    served.idle().await;
    let request = json!({"executionArn": started["executionArn"]});
    let found = client.call("AWSStepFunctions.DescribeExecution", &request).await;
    serde_json::from_str(found["output"].as_str().unwrap_or_else(|| panic!("{found}"))).unwrap()
}

/// The counters of items.
async fn read(served: &Served, items: &[String]) -> BTreeMap<String, usize> {
    let reader = served.create("read", &machine("read")).await;
    let (mut client, mut counters) = (served.client().await, BTreeMap::new());
    for some in items.chunks(200) {
        let found = sync(served, &mut client, &reader, some).await;
        let count = |found: &Value| found["Item"]["n"]["N"].as_str().map_or(0, |n| n.parse().unwrap());
        counters.extend(some.iter().cloned().zip(found.iter().map(count)));
    }
    counters
}

/// What was stored to be notified, which is once, and what came to the log file, which is at least once under one id.
async fn outbox(
    served: &Served,
    dir: &Path,
    notified: &[String],
    published: &[String],
    wrong: &mut BTreeMap<&'static str, BTreeMap<String, usize>>,
) {
    // The box may have told of itself meanwhile.
    let item = |body: &Value| Some(body["item"].as_str().or(body["message"].as_str())?.to_owned());
    let waiting = conveyor_testing::until::until_ok("everything is in the log", async || {
        let found = served.get("/notifications").await;
        let rows = found["waiting"].as_array().unwrap();
        let (stay, go): (Vec<&Value>, Vec<&Value>) = rows.iter().partition(|row| row["target"] == "webhook");
        if go.is_empty() { Ok(stay.into_iter().cloned().collect::<Vec<Value>>()) } else { Err(go.len()) }
    })
    .await;
    let bodies: Vec<Value> =
        waiting.iter().map(|row| serde_json::from_str(row["body"].as_str().unwrap()).unwrap()).collect();
    let of = |event: &str| bodies.iter().filter(|body| body["event"] == event).filter_map(item).collect::<Vec<_>>();
    wrong.insert("notify", not_once(notified, of("once")));
    wrong.insert("publish", not_once(published, of("sns.published")));
    let log = std::fs::read_to_string(dir.join("notifications.jsonl")).unwrap();
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for line in log.lines() {
        let body: Value = serde_json::from_str(line).unwrap();
        let Some(item) = item(&body) else { continue };
        let id = body["id"].as_str().unwrap().to_owned();
        let first = ids.entry(item).or_insert(id.clone());
        assert_eq!(*first, id, "one notification has two ids");
    }
    assert_eq!(ids.len(), notified.len() + published.len(), "notifications are missing in the log file");
}
