//! Messages and events under clients that hang up: what was acknowledged comes once, and in order where there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use conveyor_testing::served::hangup::hang_up;
use conveyor_testing::served::http::{self, Client};
use conveyor_testing::served::{Served, folder};
use serde_json::{Value, json};

const CONFIGURATION: &str = r#"
listen = "127.0.0.1:0"
data_dir = "data"
[queues."orders.fifo"]
[queues.work]
visibility_timeout = "1s"
dead_letter = "dead"
max_receives = 2
[queues.dead]
visibility_timeout = "1s"
[queues.seen]
[rules.seen]
pattern = { source = ["studio"] }
[[rules.seen.targets]]
queue = "seen"
input_path = "$.detail"
"#;
/// Clients at once.
const CLIENTS: usize = 8;

/// Runs one task for each client and collects what they say.
async fn all_clients<T: Send + 'static, F: Future<Output = T> + Send + 'static>(run: impl Fn(usize) -> F) -> Vec<T> {
    let running: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(run(client))).collect();
    let mut all = Vec::new();
    for task in running {
        all.push(task.await.unwrap());
    }
    all
}

fn bodies(messages: &[Value]) -> Vec<String> {
    messages.iter().map(|message| message["Body"].as_str().unwrap().to_owned()).collect()
}

/// What is wrong with what came, given what was acknowledged in this order.
#[derive(Debug, Default, PartialEq)]
struct Wrong {
    lost: Vec<String>,
    doubled: Vec<String>,
    out_of_order: Vec<String>,
}

impl Wrong {
    fn of(acknowledged: &[String], came: &[String]) -> Wrong {
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        came.iter().for_each(|body| *counts.entry(body).or_default() += 1);
        let lost = acknowledged.iter().filter(|body| !counts.contains_key(body)).cloned().collect();
        let doubled = counts.iter().filter(|(_, n)| **n > 1).map(|(body, _)| (*body).clone()).collect();
        let places: BTreeMap<&String, usize> = acknowledged.iter().zip(0..).collect();
        let places: Vec<(usize, &String)> = came.iter().filter_map(|body| Some((*places.get(body)?, body))).collect();
        let late = places.windows(2).filter(|two| two[1].0 < two[0].0).map(|two| two[1].1.clone());
        Wrong { lost, doubled, out_of_order: late.collect() }
    }
}

/// Messages of one client in a FIFO queue: five groups, in turn.
#[derive(Clone)]
struct Sender {
    queue: String,
    stem: String,
}

impl Sender {
    const MESSAGES: usize = 50;
    const GROUPS: usize = 5;

    fn body(&self, n: usize) -> String {
        format!("{}-{}/{n}", self.stem, n % Self::GROUPS)
    }

    fn request(&self, n: usize) -> Vec<u8> {
        let request = json!({"QueueUrl": self.queue, "MessageBody": self.body(n), "MessageDeduplicationId": self.body(n),
            "MessageGroupId": format!("{}-{}", self.stem, n % Self::GROUPS)});
        http::aws("AmazonSQS.SendMessage", &request)
    }

    /// Sends each first as a client that hangs up and then, under the same deduplication id, as one that stays. Says the
    /// ids that were acknowledged.
    async fn send(&self, address: SocketAddr, first: usize) -> Vec<Value> {
        let (mut client, mut ids) = (Client::connect(address).await.unwrap(), Vec::new());
        let mut answered_after = Duration::ZERO;
        for n in 0..Self::MESSAGES {
            let request = self.request(n);
            hang_up(address, &request, first + n, answered_after).await;
            let begun = Instant::now();
            let answer = client.exchange(&request).await.unwrap();
            answered_after = begun.elapsed();
            assert!(answer.is_success(), "{} was answered {}: {}", self.body(n), answer.status, answer.text());
            ids.push(answer.json()["MessageId"].take());
        }
        ids
    }

    /// What is wrong with what came, group by group.
    fn wrong(&self, came: &[String]) -> Wrong {
        let mut wrong = Wrong::default();
        for group in 0..Self::GROUPS {
            let acknowledged: Vec<String> =
                (group..Self::MESSAGES).step_by(Self::GROUPS).map(|n| self.body(n)).collect();
            let start = format!("{}-{group}/", self.stem);
            let came: Vec<String> = came.iter().filter(|body| body.starts_with(&start)).cloned().collect();
            let found = Wrong::of(&acknowledged, &came);
            wrong.lost.extend(found.lost);
            wrong.doubled.extend(found.doubled);
            wrong.out_of_order.extend(found.out_of_order);
        }
        wrong
    }
}

async fn drain_all(served: &Served, queues: &BTreeSet<String>) -> Vec<String> {
    bodies(&futures::future::join_all(queues.iter().map(|queue| served.drain(queue))).await.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifo_messages_are_received_once_and_in_order_whoever_hung_up_on_sending_them() {
    let mut configuration = CONFIGURATION.to_owned();
    (0..CLIENTS).for_each(|client| configuration += &format!("[queues.\"own-{client}.fifo\"]\n"));
    let dir = folder(&configuration);
    let mut served = Served::start(dir.path());
    let mut wrong = Vec::new();
    // Each client with a queue of its own, received at once; and all with one queue, received only after a power cut.
    for (stem, cut_first) in [("own", false), ("shared", true)] {
        let senders: Vec<Sender> = (0..CLIENTS)
            .map(|client| {
                let queue = if cut_first { "orders.fifo".to_owned() } else { format!("own-{client}.fifo") };
                Sender { queue, stem: format!("{stem}-{client}") }
            })
            .collect();
        let queues: BTreeSet<String> = senders.iter().map(|sender| sender.queue.clone()).collect();
        let address = served.address;
        let ids = all_clients(|client| {
            let sender = senders[client].clone();
            async move { sender.send(address, client * Sender::MESSAGES).await }
        });
        let ids = ids.await;
        if cut_first {
            served.kill();
            served = Served::start(dir.path());
        }
        let mut came = drain_all(&served, &queues).await;
        let delivered = came.len();
        // A copy of what was received already is known as one, also by a box that has restarted.
        served.kill();
        served = Served::start(dir.path());
        let mut client = served.client().await;
        for (sender, ids) in senders.iter().zip(&ids) {
            let again = client.exchange(&sender.request(7)).await.unwrap().json();
            assert_eq!(again["MessageId"], ids[7], "a second copy is the first message");
        }
        came.extend(drain_all(&served, &queues).await);
        println!("{stem}: {} messages came only after a restart", came.len() - delivered);
        for sender in &senders {
            let found = [&came[..delivered], &came[..]].map(|came| sender.wrong(came));
            wrong.extend(found.into_iter().find(|found| *found != Wrong::default()));
        }
    }
    let count = |of: fn(&Wrong) -> usize| wrong.iter().map(of).sum::<usize>();
    let (lost, doubled) = (count(|wrong| wrong.lost.len()), count(|wrong| wrong.doubled.len()));
    let all = 2 * CLIENTS * Sender::MESSAGES;
    assert!(wrong.is_empty(), "of {all} acknowledged messages {lost} were not delivered, {doubled} twice: {wrong:#?}");
}

/// What became of the messages of the standard queue, as those saw it who stayed.
#[derive(Default)]
struct Fates {
    /// Message ids by body.
    ids: BTreeMap<String, BTreeSet<String>>,
    /// Deleted, and the deletion acknowledged.
    deleted: BTreeSet<String>,
    /// Received after that.
    risen: Vec<String>,
}

impl Fates {
    fn received(&mut self, message: &Value) {
        let text = |key: &str| message[key].as_str().unwrap().to_owned();
        self.ids.entry(text("Body")).or_default().insert(text("MessageId"));
        if self.deleted.contains(&text("MessageId")) {
            self.risen.push(text("Body"));
        }
    }
}

/// Receives from both queues until nothing is left in them, deleting some messages and giving others back, and hanging
/// up on each change before it is made for good.
async fn work_off(served: &Served, fates: &mut Fates) {
    let (mut client, address) = (served.client().await, served.address);
    let begun = Instant::now();
    let (mut n, mut answered_after) = (0, Duration::ZERO);
    loop {
        let mut idle = true;
        for queue in ["work", "dead"] {
            // Long enough that nobody else gets a message while it is dealt with here.
            let request = json!({"QueueUrl": queue, "MaxNumberOfMessages": 10, "VisibilityTimeout": 30,
                "AttributeNames": ["All"]});
            let got = client.call("AmazonSQS.ReceiveMessage", &request).await;
            for message in got["Messages"].as_array().into_iter().flatten() {
                (idle, n) = (false, n + 1);
                fates.received(message);
                let receipt = json!({"QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"]});
                if queue == "work" && n % 3 == 0 {
                    let mut request = receipt.clone();
                    request["VisibilityTimeout"] = 0.into();
                    let request = http::aws("AmazonSQS.ChangeMessageVisibility", &request);
                    hang_up(address, &request, n, answered_after).await;
                    // It is in no hands any more where the first one was heard.
                    let answer = client.exchange(&request).await.unwrap();
                    let given_back = answer.is_success() || answer.text().contains("MessageNotInflight");
                    assert!(given_back, "{}: {}", answer.status, answer.text());
                    continue;
                }
                let request = http::aws("AmazonSQS.DeleteMessage", &receipt);
                hang_up(address, &request, n, answered_after).await;
                let since = Instant::now();
                assert!(client.exchange(&request).await.unwrap().is_success());
                answered_after = since.elapsed();
                fates.deleted.insert(message["MessageId"].as_str().unwrap().to_owned());
            }
        }
        if idle {
            match served.messages_in("work").await + served.messages_in("dead").await {
                0 => return,
                left => assert!(begun.elapsed() < Duration::from_secs(60), "{left} messages never become visible"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_messages_are_neither_lost_nor_risen_whoever_hung_up_on_receiving_them() {
    const EACH: usize = 25;
    let dir = folder(CONFIGURATION);
    let served = Served::start(dir.path());
    let address = served.address;
    // Half of the senders hang up; what became of theirs nobody knows, but each is there once at most.
    let sent = all_clients(|client| async move {
        let (mut stays, mut ids) = (Client::connect(address).await.unwrap(), Vec::new());
        let mut answered_after = Duration::ZERO;
        for n in 0..EACH {
            let send = |who: &str| json!({"QueueUrl": "work", "MessageBody": format!("{who}/{client}/{n}")});
            let request = http::aws("AmazonSQS.SendMessage", &send("gone"));
            hang_up(address, &request, client * EACH + n, answered_after).await;
            let begun = Instant::now();
            let answer = stays.call("AmazonSQS.SendMessage", &send("stays")).await;
            answered_after = begun.elapsed();
            ids.push(answer["MessageId"].as_str().unwrap().to_owned());
        }
        (ids, answered_after)
    });
    let (sent, answered_after): (Vec<_>, Vec<_>) = sent.await.into_iter().unzip();
    let sent: BTreeSet<String> = sent.concat().into_iter().collect();
    let answered_after = answered_after[0];
    // Receivers that hang up three times over: what they took becomes visible again after its time-out, and in the end
    // goes to the dead letters.
    for round in 0..3 {
        all_clients(|client| async move {
            let request = json!({"QueueUrl": "work", "MaxNumberOfMessages": 5});
            let request = http::aws("AmazonSQS.ReceiveMessage", &request);
            for n in 0..EACH {
                hang_up(address, &request, round + client * EACH + n, answered_after).await;
            }
        })
        .await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    let mut fates = Fates::default();
    work_off(&served, &mut fates).await;
    let before = fates.deleted.clone();
    served.kill();
    let served = Served::start(dir.path());
    work_off(&served, &mut fates).await;
    let lost = sent.difference(&before).count();
    let late = fates.deleted.difference(&before).count();
    let doubled: Vec<_> = fates.ids.iter().filter(|(_, ids)| ids.len() > 1).collect();
    let all = sent.len();
    assert!(
        lost == 0 && late == 0 && doubled.is_empty() && fates.risen.is_empty(),
        "of {all} acknowledged messages {lost} were not delivered; {late} of all came only after a restart; doubled: \
         {doubled:?}; deleted and come again: {:?}",
        fates.risen
    );
    let unknown = fates.deleted.difference(&sent).count();
    assert!(unknown <= all, "{unknown} messages of those who hung up on {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_their_targets_whoever_hung_up_on_putting_them() {
    const EACH: usize = 25;
    let dir = folder(CONFIGURATION);
    let served = Served::start(dir.path());
    let address = served.address;
    let put = |who: &str, client: usize, n: usize| {
        let detail = json!({"event": format!("{who}/{client}/{n}")}).to_string();
        json!({"Entries": [{"Source": "studio", "DetailType": "t", "Detail": detail}]})
    };
    all_clients(|client| async move {
        let (mut stays, mut answered_after) = (Client::connect(address).await.unwrap(), Duration::ZERO);
        for n in 0..EACH {
            let request = http::aws("AWSEvents.PutEvents", &put("gone", client, n));
            hang_up(address, &request, client * EACH + n, answered_after).await;
            let begun = Instant::now();
            let answer = stays.call("AWSEvents.PutEvents", &put("stays", client, n)).await;
            answered_after = begun.elapsed();
            assert_eq!(answer["FailedEntryCount"], 0, "{answer}");
        }
    })
    .await;
    let acknowledged: BTreeSet<String> =
        (0..CLIENTS).flat_map(|c| (0..EACH).map(move |n| format!("stays/{c}/{n}"))).collect();
    let events = |messages: Vec<Value>| -> Vec<String> {
        let detail = |body: String| serde_json::from_str::<Value>(&body).unwrap()["event"].as_str().unwrap().to_owned();
        bodies(&messages).into_iter().map(detail).collect()
    };
    // They may be on their way to the queue still. Behind the last one nothing is.
    served.call("AWSEvents.PutEvents", put("last", 0, 0)).await;
    let (mut came, begun) = (Vec::new(), Instant::now());
    while !came.iter().any(|event| event == "last/0/0") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the last event does not come: {came:?}");
        came.extend(events(served.drain("seen").await));
    }
    served.kill();
    let served = Served::start(dir.path());
    let late = events(served.drain("seen").await);
    let acknowledged: Vec<String> = acknowledged.into_iter().collect();
    let Wrong { lost, doubled, .. } = Wrong::of(&acknowledged, &came);
    assert!(
        lost.is_empty() && doubled.is_empty() && late.is_empty(),
        "of {} acknowledged events {} did not come; {} of all came only after a restart; doubled: {doubled:?}",
        acknowledged.len(),
        lost.len(),
        late.len()
    );
}
