//! The served binary for tests and benches: starts it on a folder, calls it over its port, kills it as a power cut does.

pub mod hangup;
pub mod http;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::until::{PATIENCE, until_ok};
use http::Client;

/// Any role will do: the box has no accounts.
pub const ROLE: &str = "arn:aws:iam::000000000000:role/any";

pub fn machine_arn(name: &str) -> String {
    format!("arn:aws:states:us-east-1:000000000000:stateMachine:{name}")
}

pub fn execution_arn(machine: &str, name: &str) -> String {
    format!("arn:aws:states:us-east-1:000000000000:execution:{machine}:{name}")
}

/// A folder for a box with this configuration.
pub fn folder(configuration: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("conveyor.toml"), configuration).unwrap();
    dir
}

/// The real binary, serving. It ends with this.
pub struct Served {
    child: Child,
    pub address: SocketAddr,
}

impl Served {
    /// Serves `conveyor.toml` of the folder; returns once the box says where it listens. Its log goes to `log` there.
    pub fn start(folder: &Path) -> Served {
        Served::start_with(folder, |command| command)
    }

    /// The same, with what `change` does to the command.
    pub fn start_with(folder: &Path, change: impl FnOnce(&mut Command) -> &mut Command) -> Served {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new(crate::binary());
        command.args(["serve", "--config"]).arg(folder.join("conveyor.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = change(&mut command).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("://")?;
            address.split_whitespace().next()?.trim_end_matches('/').parse().ok()
        });
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        Served { child, address: address.unwrap_or_else(|| panic!("the box does not serve: {}", log())) }
    }

    /// As a power cut: nothing is put in order.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its process, by the kernel's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address).await.unwrap()
    }

    /// One call that must succeed.
    pub async fn call(&self, target: &str, request: Value) -> Value {
        self.client().await.call(target, &request).await
    }

    /// One question of the REST API that must be answered.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.client().await.exchange(&http::rest("GET", path, &Value::Null)).await.unwrap();
        assert!(answer.is_success(), "GET {path} answered {}: {}", answer.status, answer.text());
        answer.json()
    }

    /// Makes a state machine and says its ARN.
    pub async fn create(&self, name: &str, definition: &Value) -> String {
        self.create_as(name, definition, "STANDARD").await
    }

    pub async fn create_as(&self, name: &str, definition: &Value, kind: &str) -> String {
        let request = json!({"name": name, "definition": definition.to_string(), "roleArn": ROLE, "type": kind});
        let created = self.call("AWSStepFunctions.CreateStateMachine", request).await;
        created["stateMachineArn"].as_str().unwrap().to_owned()
    }

    /// The end of a Task: its result, or its error and cause.
    pub async fn run(&self, resource: &str, parameters: Value) -> Result<Value, (String, String)> {
        let state = json!({
            "Type": "Task", "Resource": format!("arn:aws:states:::{resource}"), "Parameters": parameters, "End": true,
        });
        let request = json!({"definition": state.to_string(), "roleArn": ROLE});
        let found = self.call("AWSStepFunctions.TestState", request).await;
        match found["output"].as_str() {
            Some(output) => Ok(serde_json::from_str(output).unwrap()),
            None => Err((found["error"].as_str().unwrap().into(), found["cause"].as_str().unwrap().into())),
        }
    }

    /// Everything that a queue has to give, in its order; each message is deleted. A queue counts as empty once it has
    /// neither visible nor hidden messages.
    pub async fn drain(&self, queue: &str) -> Vec<Value> {
        let (mut client, mut all) = (self.client().await, Vec::new());
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "the queue {queue} never is empty");
            let request = json!({"QueueUrl": queue, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1});
            let mut got = client.call("AmazonSQS.ReceiveMessage", &request).await;
            let Some(messages) = got["Messages"].as_array_mut().map(std::mem::take) else {
                match self.messages_in(queue).await {
                    0 => return all,
                    _ => continue,
                }
            };
            let entries = messages
                .iter()
                .enumerate()
                .map(|(n, message)| json!({"Id": n.to_string(), "ReceiptHandle": message["ReceiptHandle"]}));
            let request = json!({"QueueUrl": queue, "Entries": entries.collect::<Vec<_>>()});
            client.call("AmazonSQS.DeleteMessageBatch", &request).await;
            all.extend(messages);
        }
    }

    /// How many messages a queue has: visible, in somebody's hands, or delayed.
    pub async fn messages_in(&self, queue: &str) -> u64 {
        let request = json!({"QueueUrl": queue, "AttributeNames": ["All"]});
        let found = self.call("AmazonSQS.GetQueueAttributes", request).await;
        let count = |name: &str| found["Attributes"][name].as_str().unwrap().parse::<u64>().unwrap();
        ["", "NotVisible", "Delayed"].map(|kind| count(&format!("ApproximateNumberOfMessages{kind}"))).iter().sum()
    }

    /// All pages of a list of the Step Functions API.
    pub async fn list(&self, operation: &str, request: Value, key: &str) -> Vec<Value> {
        let (mut client, mut request, mut all) = (self.client().await, request, Vec::new());
        loop {
            let mut page = client.call(&format!("AWSStepFunctions.{operation}"), &request).await;
            all.append(page[key].as_array_mut().unwrap_or_else(|| panic!("{operation} lists no {key}")));
            match page["nextToken"].take() {
                Value::Null => return all,
                token => request["nextToken"] = token,
            }
        }
    }

    /// Waits until no execution runs any more.
    pub async fn idle(&self) {
        until_ok("no execution runs", async || {
            let running = self.get("/executions?status=RUNNING&nested=true&limit=1").await;
            if running["executions"].as_array().unwrap().is_empty() { Ok(()) } else { Err(running) }
        })
        .await;
    }

    pub fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// User and system time so far (proc(5), fields 14 and 15, in hundredths of a second).
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}
