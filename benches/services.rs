//! What the box's own services carry: messages sent and received, events put and delivered, items and notifications.
//!
//! `cargo bench --bench services`, or with a word to measure only the lines that begin with it; each at concurrency 1,
//! 32 and 256, over the port of the served binary. `CONVEYOR_BENCH_SECONDS` sets how long each runs, and
//! `CONVEYOR_SERVED` names another build of the box to measure, so that two can be measured in turns. Rates are
//! also given as ratios to yardsticks run beside them: the store's plain commits of one row of 256 bytes at the same
//! concurrency, for what comes over HTTP; the same executions with a Task that only reads, for what executions do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conveyor_store::{self as store, Commit, Options, Writer};
use conveyor_testing::served::http::Client;
use conveyor_testing::served::{Served, machine_arn};
use conveyor_testing::yardstick;

use serde_json::{Value, json};

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

const CONCURRENCY: [usize; 3] = [1, 32, 256];
const BODY: &str = r#"{"bucket": "incoming", "key": "clips/interview-014.mov", "size": 734003200, "checksum": "0123456789abcdef0123456789abcdef", "camera": "B", "reel": "A014C007", "timecode": "10:22:31:05", "operator": "second unit", "priority": 3, "ready": true}"#;
/// Steps of one execution, of those that measure what executions do.
const STEPS: usize = 50;
/// How often what is measured and its yardstick take turns, so that a noisy neighbour disturbs both alike.
const TURNS: u32 = 5;
/// Between two looks at what is still to be delivered.
const POLL: Duration = Duration::from_millis(20);
const CONFIGURATION: &str = r#"
listen = "127.0.0.1:0"
data_dir = "data"
[tables.clips]
key = "Id"
[queues.clips]
visibility_timeout = "1h"
[queues."clips.fifo"]
[queues.events]
[rules.events]
pattern = { source = ["bench"] }
[[rules.events.targets]]
queue = "events"
[notify]
log = "notifications.jsonl"
"#;

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    yardstick::print_raw();
    let folder = yardstick::folder("services");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(&folder, &wanted));
    drop(runtime);
    std::fs::remove_dir_all(folder).unwrap();
}

async fn measure(folder: &Path, wanted: &str) {
    std::fs::write(folder.join("conveyor.toml"), CONFIGURATION).unwrap();
    let bench = Bench { served: Served::start(folder), yard: Yard::open(&folder.join("yard")), number: Arc::default() };
    bench.create_machines().await;
    let is_wanted = |name: &str| name.starts_with(wanted);
    for tasks in CONCURRENCY {
        if is_wanted("SendMessage") {
            let send = async |client: &mut Client, _, _| sent(client, json!({"QueueUrl": "clips"})).await;
            bench.crowd("SendMessage", tasks, yardstick::seconds(), TURNS, send).await;
        }
        if is_wanted("SendMessage, FIFO") {
            let send = async |client: &mut Client, group: usize, number: u64| {
                let request = json!({"QueueUrl": "clips.fifo", "MessageGroupId": group.to_string(),
                    "MessageDeduplicationId": number.to_string()});
                sent(client, request).await
            };
            bench.crowd("SendMessage, FIFO", tasks, yardstick::seconds(), TURNS, send).await;
        }
        if is_wanted("ReceiveMessage, DeleteMessage") {
            bench.receives(tasks).await;
        }
        if is_wanted("PutEvents") {
            bench.events(tasks).await;
        }
        if is_wanted("putItem over HTTP") {
            let put = async |client: &mut Client, _, number| sync(client, "put-once", number).await;
            bench.crowd("putItem over HTTP", tasks, yardstick::seconds(), TURNS, put).await;
        }
        if is_wanted("notify over HTTP") {
            bench.notifications(tasks).await;
        }
        if is_wanted("putItem in executions") {
            bench.executions(tasks).await;
        }
    }
    println!("resident                       {:.0} MiB", bench.served.memory_bytes() as f64 / 1_048_576.0);
}

/// Sends one message.
async fn sent(client: &mut Client, mut request: Value) -> bool {
    request["MessageBody"] = BODY.into();
    client.call("AmazonSQS.SendMessage", &request).await["MessageId"].is_string()
}

/// One express execution, from its start to its answer.
async fn sync(client: &mut Client, machine: &str, number: u64) -> bool {
    let input = json!({"id": number.to_string()}).to_string();
    let request = json!({"stateMachineArn": machine_arn(machine), "input": input});
    client.call("AWSStepFunctions.StartSyncExecution", &request).await["status"] == "SUCCEEDED"
}

/// The store's plain commits: what a service can reach at most that makes each of its changes durable.
struct Yard {
    writer: Writer,
    count: Arc<AtomicU64>,
}

impl Yard {
    fn open(folder: &Path) -> Yard {
        let (writer, _) = store::open(Options::at(folder)).unwrap();
        Yard { writer, count: Arc::default() }
    }

    /// Commits per second at that concurrency.
    async fn rate(&self, tasks: usize, time: Duration) -> f64 {
        let begun = Instant::now();
        let running = (0..tasks).map(|_| {
            let (writer, count) = (self.writer.clone(), self.count.clone());
            tokio::spawn(async move {
                let mut done = 0u64;
                while begun.elapsed() < time {
                    let mut commit = Commit::new();
                    let key = format!("row-{:012}", count.fetch_add(1, Ordering::Relaxed));
                    commit.put_setting(&key, &BODY.as_bytes()[..240]);
                    writer.commit(commit).await.unwrap();
                    done += 1;
                }
                done
            })
        });
        let done: u64 = futures::future::join_all(running).await.into_iter().map(Result::unwrap).sum();
        done as f64 / begun.elapsed().as_secs_f64()
    }
}

struct Bench {
    served: Served,
    yard: Yard,
    /// Tells apart what must not be the same.
    number: Arc<AtomicU64>,
}

impl Bench {
    async fn create_machines(&self) {
        let id = json!({"S.$": "$.id"});
        let put = json!({"TableName": "clips", "Item": {"Id": id, "Clip": {"S": BODY}}});
        let get = json!({"TableName": "clips", "Key": {"Id": id}});
        let notify = json!({"event": "clip", "clip": BODY, "id.$": "$.id"});
        let tasks =
            [("put", "dynamodb:putItem", put), ("get", "dynamodb:getItem", get), ("notify", "conveyor:notify", notify)];
        for (name, resource, parameters) in tasks {
            let task = |next: Option<usize>| {
                let mut task = json!({"Type": "Task", "Resource": format!("arn:aws:states:::{resource}"),
                    "Parameters": parameters, "ResultPath": null});
                match next {
                    Some(next) => task["Next"] = format!("Step{next}").into(),
                    None => task["End"] = true.into(),
                }
                task
            };
            let steps: serde_json::Map<String, Value> =
                (1..=STEPS).map(|n| (format!("Step{n}"), task((n < STEPS).then_some(n + 1)))).collect();
            self.served.create(name, &json!({"StartAt": "Step1", "States": steps})).await;
            let once = json!({"StartAt": "Step1", "States": {"Step1": task(None)}});
            self.served.create_as(&format!("{name}-once"), &once, "EXPRESS").await;
        }
    }

    /// Does one thing after the other from as many clients as told, for that long or until one says that there is
    /// nothing left to do, in turns with the yardstick. Prints how that went; says how often it was done, and how long
    /// that took.
    async fn crowd(
        &self,
        name: &str,
        tasks: usize,
        time: Duration,
        turns: u32,
        work: impl AsyncFn(&mut Client, usize, u64) -> bool,
    ) -> (usize, Duration) {
        let (mut plain, mut times, mut took) = (0.0, Vec::new(), Duration::ZERO);
        for _ in 0..turns {
            plain += self.yard.rate(tasks, time / turns / 3).await / f64::from(turns);
            let connections = (0..tasks).map(async |_| self.served.client().await);
            let connections = futures::future::join_all(connections).await;
            let begun = Instant::now();
            let running = connections.into_iter().enumerate().map(async |(client, mut connection)| {
                let mut times = Vec::new();
                while begun.elapsed() < time / turns {
                    let since = Instant::now();
                    if !work(&mut connection, client, self.number.fetch_add(1, Ordering::Relaxed)).await {
                        break;
                    }
                    times.push(since.elapsed());
                }
                times
            });
            times.extend(futures::future::join_all(running).await.concat());
            took += begun.elapsed();
        }
        let count = times.len();
        assert!(count > 0, "{name}: nothing was done");
        let (rate, series) = (count as f64 / took.as_secs_f64(), yardstick::Series::new(times));
        println!(
            "{name:<30} at {tasks:3}   p50 {:7.2} ms   p99 {:7.2} ms   {rate:8.0}/s   {:.2} × plain commits",
            series.at(50) / 1e3,
            series.at(99) / 1e3,
            rate / plain
        );
        (count, took)
    }

    /// One message received and deleted; there are always enough of them.
    async fn receives(&self, tasks: usize) {
        let enough = (3_000.0 * yardstick::seconds().as_secs_f64()) as u64;
        let entries: Vec<Value> = (0..10).map(|n| json!({"Id": n.to_string(), "MessageBody": BODY})).collect();
        let fill = json!({"QueueUrl": "clips", "Entries": entries});
        let missing = enough.saturating_sub(self.served.messages_in("clips").await).div_ceil(10);
        let filling = (0..32).map(async |client| {
            let mut connection = self.served.client().await;
            for _ in (client..missing).step_by(32) {
                connection.call("AmazonSQS.SendMessageBatch", &fill).await;
            }
        });
        futures::future::join_all(filling).await;
        let receive = async |client: &mut Client, _, _| {
            let got = client.call("AmazonSQS.ReceiveMessage", &json!({"QueueUrl": "clips"})).await;
            let Some(receipt) = got["Messages"][0]["ReceiptHandle"].as_str() else { return false };
            let request = json!({"QueueUrl": "clips", "ReceiptHandle": receipt});
            client.call("AmazonSQS.DeleteMessage", &request).await.is_object()
        };
        self.crowd("ReceiveMessage, DeleteMessage", tasks, yardstick::seconds(), TURNS, receive).await;
    }

    /// Events put, and the time until the last one is in its target's queue.
    async fn events(&self, tasks: usize) {
        let entry = json!({"Source": "bench", "DetailType": "clip", "Detail": BODY});
        let request = json!({"Entries": [entry]});
        let put = async |client: &mut Client, _, _| {
            client.call("AWSEvents.PutEvents", &request).await["FailedEntryCount"] == 0
        };
        let (count, took) = self.crowd("PutEvents", tasks, yardstick::seconds(), 1, put).await;
        let ended = Instant::now();
        while self.served.messages_in("events").await < count as u64 {
            tokio::time::sleep(POLL).await;
        }
        delivered("PutEvents, to their queue", tasks, count, took + ended.elapsed());
        self.served.call("AmazonSQS.PurgeQueue", json!({"QueueUrl": "events"})).await;
    }

    /// Notifications stored, and the time until the last one is in the log file. Of the latter there are fewer, since
    /// each is on the disk before the next.
    async fn notifications(&self, tasks: usize) {
        let notify = async |client: &mut Client, _, number| sync(client, "notify-once", number).await;
        let (count, took) = self.crowd("notify over HTTP", tasks, yardstick::seconds() / 3, 1, notify).await;
        let ended = Instant::now();
        while !self.served.get("/notifications").await["waiting"].as_array().unwrap().is_empty() {
            tokio::time::sleep(POLL).await;
        }
        delivered("notify, to the log file", tasks, count, took + ended.elapsed());
    }

    /// Items put by as many executions as told at the same time, in turns with the same executions that only read.
    async fn executions(&self, tasks: usize) {
        let (mut reads, mut puts) = (0.0, 0.0);
        let mut rounds = 0;
        while puts < yardstick::seconds().as_secs_f64() {
            reads += self.round("get", tasks).await;
            puts += self.round("put", tasks).await;
            rounds += 1;
        }
        println!(
            "{:<30} at {tasks:3}   {:42}{:8.0}/s   {:.2} × getItem in executions",
            "putItem in executions",
            "",
            (rounds * tasks * STEPS) as f64 / puts,
            reads / puts
        );
    }

    /// Runs executions of that machine to their ends. How many seconds that took, by the box's own clock.
    async fn round(&self, machine: &str, tasks: usize) -> f64 {
        let starts = (0..tasks).map(async |_| {
            let input = json!({"id": self.number.fetch_add(1, Ordering::Relaxed).to_string()}).to_string();
            let request = json!({"stateMachineArn": machine_arn(machine), "input": input});
            self.served.call("AWSStepFunctions.StartExecution", request).await;
        });
        futures::future::join_all(starts).await;
        self.served.idle().await;
        let request = json!({"stateMachineArn": machine_arn(machine), "maxResults": tasks});
        let listed = self.served.call("AWSStepFunctions.ListExecutions", request).await;
        let rows = listed["executions"].as_array().unwrap();
        assert!(rows.len() == tasks && rows.iter().all(|row| row["status"] == "SUCCEEDED"), "{listed}");
        let dates = |key: &str| rows.iter().map(|row| row[key].as_f64().unwrap()).collect::<Vec<_>>();
        dates("stopDate").into_iter().fold(0.0, f64::max) - dates("startDate").into_iter().fold(f64::MAX, f64::min)
    }
}

fn delivered(name: &str, tasks: usize, count: usize, took: Duration) {
    let rate = count as f64 / took.as_secs_f64();
    println!("{name:<30} at {tasks:3}   {:42}{rate:8.0}/s", "");
}
