//! Changes under clients that hang up and under power cuts: each change that was made has exactly one audit entry, and
//! no entry tells of a change that was not made.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use conveyor_testing::served::hangup::hang_up;
use conveyor_testing::served::http::{self, Answer, Client};
use conveyor_testing::served::{ROLE, Served, execution_arn, folder, machine_arn};
use conveyor_testing::until::until_ok;
use serde_json::{Value, json};

const CONFIGURATION: &str = "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n";
const CLIENTS: usize = 8;
/// How long what was accepted from somebody who hung up may take to be done.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// One change that is asked for, as the audit log will call it, and how to see whether it was made.
#[derive(Clone)]
struct Change {
    what: &'static str,
    to: String,
    request: Vec<u8>,
    made: Made,
}

#[derive(Clone)]
enum Made {
    Machine(String),
    NoMachine(String),
    Definition { machine: String, says: &'static str },
    Tag(String),
    Version(String),
    Alias { machine: String, alias: String },
    Activity(String),
    Started(String),
    Ended { execution: String, status: &'static str },
    Redriven(String),
}

impl Made {
    async fn is_so(&self, client: &mut Client) -> bool {
        let arn = |name: &str| json!({"stateMachineArn": machine_arn(name)});
        let execution = |arn: &str| json!({"executionArn": arn});
        match self {
            Made::Machine(name) => ask(client, "DescribeStateMachine", arn(name)).await.is_success(),
            Made::NoMachine(name) => !ask(client, "DescribeStateMachine", arn(name)).await.is_success(),
            Made::Definition { machine, says } => {
                ask(client, "DescribeStateMachine", arn(machine)).await.text().contains(says)
            }
            Made::Tag(name) => {
                let tags = ask(client, "ListTagsForResource", json!({"resourceArn": machine_arn(name)})).await;
                tags.text().contains("colour")
            }
            Made::Version(name) => ask(client, "ListStateMachineVersions", arn(name)).await.text().contains(":1\""),
            Made::Alias { machine, alias } => {
                let request = json!({"stateMachineAliasArn": format!("{}:{alias}", machine_arn(machine))});
                ask(client, "DescribeStateMachineAlias", request).await.is_success()
            }
            Made::Activity(name) => {
                let arn = format!("arn:aws:states:us-east-1:000000000000:activity:{name}");
                ask(client, "DescribeActivity", json!({"activityArn": arn})).await.is_success()
            }
            Made::Started(arn) => ask(client, "DescribeExecution", execution(arn)).await.is_success(),
            Made::Ended { execution: arn, status } => {
                ask(client, "DescribeExecution", execution(arn)).await.json()["status"] == *status
            }
            Made::Redriven(arn) => ask(client, "DescribeExecution", execution(arn)).await.json()["redriveCount"] == 1,
        }
    }
}

async fn ask(client: &mut Client, operation: &str, request: Value) -> Answer {
    client.exchange(&http::aws(&format!("AWSStepFunctions.{operation}"), &request)).await.unwrap()
}

fn aws(what: &'static str, to: String, request: Value, made: Made) -> Change {
    Change { what, to, request: http::aws(&format!("AWSStepFunctions.{what}"), &request), made }
}

/// `what` is method and route, `path` what the route matches.
fn rest(what: &'static str, path: String, body: Value, made: Made) -> Change {
    let method = what.split(' ').next().unwrap();
    Change { what, request: http::rest(method, &path, &body), to: path, made }
}

fn state(state: Value) -> Value {
    json!({"StartAt": "S", "States": {"S": state}})
}

fn pass(says: &str) -> Value {
    state(json!({"Type": "Pass", "Comment": says, "End": true}))
}

fn create(name: &str) -> Change {
    let request = json!({"name": name, "definition": pass("first").to_string(), "roleArn": ROLE});
    aws("CreateStateMachine", name.to_owned(), request, Made::Machine(name.to_owned()))
}

/// What clients do once they have asked.
#[derive(Clone, Copy)]
enum Then {
    Stay,
    /// Given how long those who stayed waited for an answer.
    HangUp(Duration),
}

/// Asks for changes, every client for its part of them. How long one took on the average.
async fn by_all_clients(address: SocketAddr, changes: &[Change], then: Then) -> Duration {
    let begun = Instant::now();
    let parts = changes.chunks(changes.len().div_ceil(CLIENTS)).map(<[Change]>::to_vec);
    let running: Vec<_> = parts
        .map(|part| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await.unwrap();
                for (n, change) in part.iter().enumerate() {
                    if let Then::HangUp(answered_after) = then {
                        hang_up(address, &change.request, n, answered_after).await;
                        continue;
                    }
                    let answer = client.exchange(&change.request).await.unwrap();
                    assert!(answer.is_success(), "{} {}: {}", change.what, change.to, answer.text());
                }
            })
        })
        .collect();
    for task in running {
        task.await.unwrap();
    }
    begun.elapsed() / changes.len().div_ceil(CLIENTS) as u32
}

/// How often the audit log says that a change was made.
async fn entries(served: &Served) -> BTreeMap<(String, String), usize> {
    let (mut all, mut next) = (BTreeMap::new(), String::new());
    loop {
        let page = served.get(&format!("/audit?limit=1000{next}")).await;
        let rows = page["entries"].as_array().or(page["deeds"].as_array()).unwrap();
        for row in rows.iter().filter(|row| row["status"].as_u64().unwrap() / 100 == 2) {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            *all.entry((text("what"), text("to"))).or_default() += 1;
        }
        match page["next"].as_str() {
            Some(from) => next = format!("&next={from}"),
            None => return all,
        }
    }
}

/// Where changes and audit log disagree, by kind of change.
#[derive(Debug, Default, PartialEq)]
struct Wrong {
    made: usize,
    without_entry: usize,
    entry_without_change: usize,
    several_entries: usize,
}

impl Wrong {
    fn is_wrong(&self) -> bool {
        self.without_entry + self.entry_without_change + self.several_entries > 0
    }
}

async fn compare(served: &Served, changes: &[Change]) -> BTreeMap<&'static str, Wrong> {
    let (entries, mut client) = (entries(served).await, served.client().await);
    // Several changes may have the same address, as all starts have.
    let mut asked: BTreeMap<(&'static str, &str), usize> = BTreeMap::new();
    for change in changes {
        *asked.entry((change.what, &change.to)).or_default() += usize::from(change.made.is_so(&mut client).await);
    }
    let mut found: BTreeMap<&'static str, Wrong> = BTreeMap::new();
    for ((what, to), made) in asked {
        let noted = entries.get(&(what.to_owned(), to.to_owned())).copied().unwrap_or_default();
        let wrong = found.entry(what).or_default();
        wrong.made += made;
        wrong.without_entry += made.saturating_sub(noted);
        match made {
            0 => wrong.entry_without_change += noted,
            made => wrong.several_entries += noted.saturating_sub(made),
        }
    }
    found
}

/// Compares until both agree: what was accepted may take a moment still.
async fn settled(served: &Served, changes: &[Change]) -> BTreeMap<&'static str, Wrong> {
    let begun = Instant::now();
    loop {
        let found = compare(served, changes).await;
        if begun.elapsed() > SETTLES_WITHIN || !found.values().any(Wrong::is_wrong) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_has_its_audit_entry_whoever_hung_up_on_it() {
    const EACH: usize = 24;
    let dir = folder(CONFIGURATION);
    let served = Served::start(dir.path());
    let (changes, answered_after) = prepare(&served, EACH).await;
    let then = Then::HangUp(answered_after);
    let made: Vec<Change> = (0..400).map(|n| create(&format!("made-{n}"))).collect();
    by_all_clients(served.address, &made, then).await;
    by_all_clients(served.address, &changes, then).await;
    let all = [made, changes].concat();
    let found = settled(&served, &all).await;
    for (what, wrong) in &found {
        println!("{what}: {} made, {} without an audit entry", wrong.made, wrong.without_entry);
    }
    assert!(!found.values().any(Wrong::is_wrong), "changes and audit log disagree: {found:#?}");
    // Most ways of hanging up leave a request that was read, and what was read is done.
    let done: usize = found.values().map(|wrong| wrong.made).sum();
    assert!(done > 0, "of {} changes {done} were made: {found:#?}", all.len());
    served.kill();
    let served = Served::start(dir.path());
    assert_eq!(compare(&served, &all).await, found, "nothing of it was only in memory");
}

/// Makes what can be changed. Says the changes to ask for, and how long the box takes to answer one.
async fn prepare(served: &Served, each: usize) -> (Vec<Change>, Duration) {
    let names = |stem: &'static str| (0..each).map(move |n| format!("{stem}-{n}"));
    let stems = ["updated", "gone", "tagged", "published", "put"];
    let machines: Vec<Change> = stems.iter().flat_map(|stem| names(stem)).map(|name| create(&name)).collect();
    let answered_after = by_all_clients(served.address, &machines, Then::Stay).await;
    let approve = json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:approve.waitForTaskToken",
        "Parameters": {"Title": "Fine?"}, "End": true});
    for (name, definition) in [
        ("passes", pass("first")),
        ("waits", state(json!({"Type": "Wait", "Seconds": 86_400, "End": true}))),
        ("fails", state(json!({"Type": "Fail", "Error": "Known"}))),
        ("asks", state(approve)),
    ] {
        let request = json!({"name": name, "definition": definition.to_string(), "roleArn": ROLE, "publish": true});
        served.call("AWSStepFunctions.CreateStateMachine", request).await;
    }
    let mut client = served.client().await;
    for (machine, stems) in [("waits", ["stop", "rest-stop"]), ("fails", ["fail", "-"]), ("asks", ["yes", "no"])] {
        for name in stems.iter().filter(|stem| **stem != "-").flat_map(|stem| names(stem)) {
            let request = json!({"stateMachineArn": machine_arn(machine), "name": name});
            client.call("AWSStepFunctions.StartExecution", &request).await;
        }
    }
    let approvals = until_ok("everybody is asked", async || {
        let found = served.get("/approvals").await["approvals"].as_array().unwrap().clone();
        let failed = served.get("/executions?machine=fails&status=FAILED&limit=500").await;
        let failed = failed["executions"].as_array().unwrap().len();
        if (found.len(), failed) == (2 * each, each) { Ok(found) } else { Err((found.len(), failed)) }
    });
    let approvals = approvals.await;
    let waiting = served.get("/executions?machine=waits&limit=500").await;
    let ids = |rows: &Value| -> BTreeMap<String, String> {
        let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        rows["executions"].as_array().unwrap().iter().map(|row| (text(row, "name"), text(row, "id"))).collect()
    };
    let (waiting, asking) = (ids(&waiting), ids(&served.get("/executions?machine=asks&limit=500").await));
    let approval = |name: &str| {
        let of = |row: &&Value| row["execution"] == asking[name].as_str();
        approvals.iter().find(of).unwrap()["id"].as_str().unwrap()
    };

    let mut changes = Vec::new();
    for name in names("updated") {
        let request = json!({"stateMachineArn": machine_arn(&name), "definition": pass("second").to_string()});
        let made = Made::Definition { machine: name.clone(), says: "second" };
        changes.push(aws("UpdateStateMachine", machine_arn(&name), request, made));
    }
    for name in names("gone") {
        let request = json!({"stateMachineArn": machine_arn(&name)});
        changes.push(aws("DeleteStateMachine", machine_arn(&name), request, Made::NoMachine(name)));
    }
    for name in names("tagged") {
        let tags = json!([{"key": "colour", "value": "blue"}]);
        let request = json!({"resourceArn": machine_arn(&name), "tags": tags});
        changes.push(aws("TagResource", machine_arn(&name), request, Made::Tag(name)));
    }
    for name in names("published") {
        let request = json!({"stateMachineArn": machine_arn(&name)});
        changes.push(aws("PublishStateMachineVersion", machine_arn(&name), request, Made::Version(name)));
    }
    for alias in names("alias") {
        let version = format!("{}:1", machine_arn("passes"));
        let routes = json!([{"stateMachineVersionArn": version, "weight": 100}]);
        let request = json!({"name": alias, "routingConfiguration": routes});
        let made = Made::Alias { machine: "passes".into(), alias: alias.clone() };
        changes.push(aws("CreateStateMachineAlias", alias, request, made));
    }
    for name in names("activity") {
        changes.push(aws("CreateActivity", name.clone(), json!({"name": name}), Made::Activity(name)));
    }
    for arn in names("stop").map(|name| execution_arn("waits", &name)) {
        let made = Made::Ended { execution: arn.clone(), status: "ABORTED" };
        changes.push(aws("StopExecution", arn.clone(), json!({"executionArn": arn}), made));
    }
    for arn in names("fail").map(|name| execution_arn("fails", &name)) {
        let request = json!({"executionArn": arn});
        changes.push(aws("RedriveExecution", arn.clone(), request, Made::Redriven(arn)));
    }
    for name in names("rest-stop") {
        let made = Made::Ended { execution: execution_arn("waits", &name), status: "ABORTED" };
        changes.push(rest(
            "POST /executions/{id}/stop",
            format!("/executions/{}/stop", waiting[&name]),
            json!({}),
            made,
        ));
    }
    for name in names("rest-start") {
        let made = Made::Started(execution_arn("passes", &name));
        changes.push(rest("POST /executions", "/executions".into(), json!({"machine": "passes", "name": name}), made));
    }
    for name in names("put") {
        let body = json!({"definition": pass("second").to_string()});
        let made = Made::Definition { machine: name.clone(), says: "second" };
        changes.push(rest("PUT /machines/{name}", format!("/machines/{name}"), body, made));
    }
    for name in names("yes") {
        let made = Made::Ended { execution: execution_arn("asks", &name), status: "SUCCEEDED" };
        let path = format!("/approvals/{}/approve", approval(&name));
        changes.push(rest("POST /approvals/{id}/approve", path, json!({}), made));
    }
    for name in names("no") {
        let made = Made::Ended { execution: execution_arn("asks", &name), status: "FAILED" };
        let path = format!("/approvals/{}/reject", approval(&name));
        changes.push(rest("POST /approvals/{id}/reject", path, json!({"reason": "dark"}), made));
    }
    (changes, answered_after)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_and_its_audit_entry_outlive_a_power_cut_together() {
    const ROUNDS: u64 = 6;
    let dir = folder(CONFIGURATION);
    let mut served = Served::start(dir.path());
    let (mut asked, mut acknowledged) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let address = served.address;
        let running: Vec<_> = (0..2 * CLIENTS)
            .map(|client| tokio::spawn(change_until_it_dies(address, format!("cut-{round}-{client}"))))
            .collect();
        tokio::time::sleep(Duration::from_millis(100 + (round * 61) % 200)).await;
        served.kill();
        for task in running {
            let (made, answered) = task.await.unwrap();
            acknowledged.extend(made[..answered].to_vec());
            asked.extend(made);
        }
        served = Served::start(dir.path());
    }
    let (mut client, mut lost) = (served.client().await, 0);
    for change in &acknowledged {
        lost += usize::from(!change.made.is_so(&mut client).await);
    }
    assert_eq!(lost, 0, "changes of {} acknowledged ones are gone", acknowledged.len());
    let found = compare(&served, &asked).await;
    assert!(!found.values().any(Wrong::is_wrong), "changes and audit log disagree after power cuts: {found:#?}");
}

/// Makes state machines and activities until the box is killed. Says what it asked for, and how many were answered.
async fn change_until_it_dies(address: SocketAddr, stem: String) -> (Vec<Change>, usize) {
    let mut client = Client::connect(address).await.unwrap();
    let mut asked = Vec::new();
    loop {
        let name = format!("{stem}-{}", asked.len());
        let change = match asked.len() % 2 {
            0 => create(&name),
            _ => aws("CreateActivity", name.clone(), json!({"name": name}), Made::Activity(name)),
        };
        asked.push(change.clone());
        match client.exchange(&change.request).await {
            Ok(answer) => assert!(answer.is_success(), "{}: {}", change.to, answer.text()),
            Err(_) => return (asked.clone(), asked.len() - 1),
        }
    }
}
