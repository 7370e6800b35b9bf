//! What a box was asked for and what it acknowledged, written down outside of it: executions whose effects can be counted.
//! Whatever then becomes of the box, each was begun once, ends, and has had its effect once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use conveyor_testing::served::http::{self, Client};
use conveyor_testing::served::{Served, execution_arn, machine_arn};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::house::until;

/// What the box needs in its configuration.
pub const CONFIGURATION: &str = "[tables.counts]\nkey = \"Id\"\n[queues.sent]\n";
const KINDS: [&str; 3] = ["count", "send", "rest"];
/// Tasks of one execution, all at the same time.
const ITEMS: usize = 4;
/// A row that all counting executions add to.
const TOTAL: &str = "total";

/// An execution: its kind and its name.
type Started = (&'static str, String);

#[derive(Default)]
pub struct Ledger(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    asked: Vec<Started>,
    /// By name.
    acknowledged: BTreeSet<String>,
    /// What the box said where it did not take one.
    refused: Vec<String>,
}

fn task(resource: &str, parameters: Value) -> Value {
    json!({"Type": "Task", "Resource": format!("arn:aws:states:::{resource}"), "Parameters": parameters,
        "ResultPath": null})
}

fn add(key: Value) -> Value {
    task(
        "dynamodb:updateItem",
        json!({"TableName": "counts", "Key": {"Id": key}, "UpdateExpression": "ADD n :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}}}),
    )
}

/// A Map over the items that are its input.
fn over_items(mut states: Vec<Value>) -> Value {
    let count = states.len();
    for (n, state) in states.iter_mut().enumerate() {
        let (key, value) = if n + 1 < count { ("Next", json!(format!("S{}", n + 1))) } else { ("End", json!(true)) };
        state[key] = value;
    }
    let states: serde_json::Map<String, Value> =
        states.into_iter().enumerate().map(|(n, state)| (format!("S{n}"), state)).collect();
    json!({"StartAt": "All", "States": {"All": {"Type": "Map", "End": true,
        "ItemProcessor": {"StartAt": "S0", "States": states}}}})
}

fn items(name: &str) -> Vec<String> {
    (0..ITEMS).map(|n| format!("{name}/{n}")).collect()
}

pub async fn create_machines(served: &Served) {
    let own = json!({"S.$": "$"});
    served.create("count", &over_items(vec![add(own.clone()), add(json!({"S": TOTAL}))])).await;
    let send = task("sqs:sendMessage", json!({"QueueUrl": "sent", "MessageBody.$": "$"}));
    served.create("send", &over_items(vec![send])).await;
    let rest = json!({"StartAt": "Rest", "States": {"Rest": {"Type": "Wait", "Seconds": 2, "End": true}}});
    served.create("rest", &rest).await;
    let mut read = task("aws-sdk:dynamodb:getItem", json!({"TableName": "counts", "Key": {"Id": own}}));
    read.as_object_mut().unwrap().remove("ResultPath");
    served.create("read", &over_items(vec![read])).await;
}

impl Ledger {
    /// Starts one after the other until the box answers no more, or for that long.
    pub async fn starts(&self, address: SocketAddr, mut rng: ChaCha8Rng, label: &str, payload: usize) {
        let Ok(mut client) = Client::connect(address).await else { return };
        for n in 0.. {
            let kind = KINDS[rng.random_range(0..KINDS.len())];
            let name = format!("{kind}-{label}-{n}");
            self.0.lock().unwrap().asked.push((kind, name.clone()));
            if !self.start(&mut client, kind, name, payload).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
        }
    }

    /// Whether somebody still answers.
    async fn start(&self, client: &mut Client, kind: &'static str, name: String, payload: usize) -> bool {
        let mut input = json!(items(&name));
        if kind == "rest" {
            input = json!({"filling": "x".repeat(payload)});
        }
        let request = json!({"stateMachineArn": machine_arn(kind), "name": name, "input": input.to_string()});
        let answer = client.exchange(&http::aws("AWSStepFunctions.StartExecution", &request)).await;
        let mut pages = self.0.lock().unwrap();
        match answer {
            // It may have begun, and ended, without that anybody was told.
            Ok(answer) if answer.is_success() || answer.text().contains("ExecutionAlreadyExists") => {
                pages.acknowledged.insert(name);
                true
            }
            Ok(answer) => {
                pages.refused.push(answer.text().to_owned());
                true
            }
            Err(_) => false,
        }
    }

    /// Asks again for what nobody knows of whether it began; the same name begins one once.
    pub async fn ask_again(&self, served: &Served) {
        let unanswered = self.unanswered();
        let mut client = served.client().await;
        for (kind, name) in unanswered {
            self.start(&mut client, kind, name, 0).await;
        }
    }

    fn unanswered(&self) -> Vec<Started> {
        let pages = self.0.lock().unwrap();
        pages.asked.iter().filter(|(_, name)| !pages.acknowledged.contains(name)).cloned().collect()
    }

    /// What the box said where it took nothing.
    pub fn refused(&self) -> Vec<String> {
        self.0.lock().unwrap().refused.clone()
    }

    pub fn acknowledged(&self) -> usize {
        self.0.lock().unwrap().acknowledged.len()
    }

    /// Waits until all have ended; then each was begun once, and has had its effect once.
    pub async fn judge(&self, served: &Served, limit: Duration) {
        self.ask_again(served).await;
        let asked = self.0.lock().unwrap().asked.clone();
        let left = self.unanswered();
        assert!(left.is_empty(), "the box does not take {left:?}: {:?}", self.refused().last());
        let mut client = served.client().await;
        for (kind, name) in &asked {
            let request = json!({"executionArn": execution_arn(kind, name)});
            let found = until(limit, format!("the end of {name}"), async || {
                let request = http::aws("AWSStepFunctions.DescribeExecution", &request);
                let answer = client.exchange(&request).await.unwrap();
                assert!(answer.is_success(), "LOST: {name} was acknowledged: {}", answer.text());
                Some(answer.json()).filter(|found| found["status"] != "RUNNING")
            });
            let found = found.await;
            assert_eq!(found["status"], "SUCCEEDED", "{found}");
        }
        self.judge_counters(served, &asked).await;
        let sent = served.drain("sent").await;
        let mut wrong: BTreeMap<String, i64> = BTreeMap::new();
        for (_, name) in asked.iter().filter(|(kind, _)| *kind == "send") {
            items(name).into_iter().for_each(|item| *wrong.entry(item).or_default() -= 1);
        }
        sent.iter().for_each(|message| *wrong.entry(message["Body"].as_str().unwrap().into()).or_default() += 1);
        wrong.retain(|_, times| *times != 0);
        assert!(wrong.is_empty(), "messages of executions that are there too often, or not (-1): {wrong:?}");
    }

    async fn judge_counters(&self, served: &Served, asked: &[Started]) {
        if crate::is_planted() {
            let mut one = add(json!({"S": TOTAL}));
            served.run("dynamodb:updateItem", one["Parameters"].take()).await.unwrap();
        }
        let mut keys: Vec<String> =
            asked.iter().filter(|(kind, _)| *kind == "count").flat_map(|(_, name)| items(name)).collect();
        let total = keys.len().to_string();
        keys.push(TOTAL.to_owned());
        let mut wrong = BTreeMap::new();
        for some in keys.chunks(200) {
            let request = json!({"stateMachineArn": machine_arn("read"), "input": json!(some).to_string()});
            let started = served.call("AWSStepFunctions.StartExecution", request).await;
            let found = until(Duration::from_secs(120), "the counters", async || {
                let request = json!({"executionArn": started["executionArn"]});
                let found = served.call("AWSStepFunctions.DescribeExecution", request).await;
                Some(found).filter(|found| found["status"] != "RUNNING")
            });
            let found = found.await;
            let output = found["output"].as_str().unwrap_or_else(|| panic!("the counters are not read: {found}"));
            let output: Vec<Value> = serde_json::from_str(output).unwrap();
            for (key, found) in some.iter().zip(&output) {
                let count = found["Item"]["n"]["N"].as_str().unwrap_or("0");
                let right = if key == TOTAL { &total } else { "1" };
                if count != right {
                    wrong.insert(key.clone(), format!("{count} and not {right}"));
                }
            }
        }
        assert!(wrong.is_empty(), "counters that are wrong: {wrong:?}");
    }
}
