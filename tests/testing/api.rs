//! The appliance as the API's tests need it: the real store, actors and API on a port of its own, and scripted
//! stages in place of the media ones.
//!
//! `arn:aws:states:::conveyor:scripted` does what its parameters say: `{"ms": 200, "output": …}` or
//! `{"ms": 200, "error": "Media.Truncated", "cause": "…"}`, with progress on the way; `{"panic": true}` panics.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use conveyor_api::{self as api, ArnFormat, Auth, Credentials, Role};
use conveyor_base::{ShareIo, Shares, SystemClock, TaskError};
use conveyor_interpreter::{Header, Json, Outcome, Parent, RunTask};
use conveyor_job::Progress;
use conveyor_run::{
    self as run, Attempted, Demand, Handle, Resource, Resources, StartRequest, TaskContext, TaskOutcome,
};
use conveyor_services::approvals::Approvals;
use conveyor_services::sessions::Sessions;
use conveyor_services::uploads::Uploads;
use conveyor_store::{self as store, Options};
use futures::future::BoxFuture;
use serde_json::{Value, json};

pub struct Appliance {
    pub address: SocketAddr,
    pub incoming: std::path::PathBuf,
    pub outputs: std::path::PathBuf,
    pub client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Appliance {
    /// Serves until it is dropped with its runtime. `credentials`: as on an address that others can reach.
    pub async fn start(credentials: &[(&str, &str)]) -> Appliance {
        let admins: Vec<_> = credentials.iter().map(|(id, secret)| (*id, *secret, Role::Admin)).collect();
        Appliance::start_for(&admins).await
    }

    /// The same for people of several roles.
    pub async fn start_for(credentials: &[(&str, &str, Role)]) -> Appliance {
        let dir = tempfile::tempdir().unwrap();
        let (incoming, outputs) = (dir.path().join("incoming"), dir.path().join("outputs"));
        std::fs::create_dir_all(&incoming).unwrap();
        std::fs::create_dir_all(&outputs).unwrap();
        let (writer, reader) = store::open(Options::at(dir.path().join("data"))).unwrap();
        let lanes = run::Lanes::of_cores(2, 0);
        let config = run::Config {
            writer,
            reader,
            resources: Arc::new(Scripts),
            clock: Arc::new(SystemClock),
            lanes,
            account: "000000000000".into(),
            region: "us-east-1".into(),
            express_record: None,
        };
        let handle = run::start(config).await.unwrap();
        let credentials = credentials.iter().map(|(id, secret, role)| ((*id).to_owned(), (*secret).to_owned(), *role));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shares = Shares::new([("incoming".into(), incoming.clone()), ("outputs".into(), outputs.clone())]);
        let io = ShareIo::new(shares);
        let (approvals, uploads, sessions) = (Approvals::default(), Uploads::new(io.clone()), Sessions::default());
        approvals.start(&handle).await.unwrap();
        uploads.start(&handle).await.unwrap();
        sessions.start(&handle).await.unwrap();
        let router = api::router(api::Settings {
            handle,
            messaging: None,
            approvals,
            uploads,
            sessions,
            proxies: BTreeSet::new(),
            arns: ArnFormat { region: "us-east-1".into(), account: "000000000000".into() },
            auth: Auth::for_address(address, Credentials::with_roles(credentials)).unwrap(),
            io,
            served: BTreeSet::from(["outputs".to_owned()]),
            workflows: BTreeMap::new(),
            metrics: Arc::new(|| "# no metrics here\n".to_owned()),
            watches: Arc::new(|| serde_json::json!([])),
            jail: Arc::new(|| serde_json::json!({})),
            effective: json!({}),
            data_dir: dir.path().to_owned(),
        });
        tokio::spawn(api::serve(listener, router, api::Transport::default(), std::future::pending()));
        Appliance { address, incoming, outputs, client: reqwest::Client::new(), _dir: dir }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One AWS call: the status and the body.
    pub async fn aws(&self, operation: &str, request: Value) -> (u16, Value) {
        let response = self
            .client
            .post(self.url())
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AWSStepFunctions.{operation}"))
            .body(request.to_string())
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The same, where it must succeed.
    pub async fn call(&self, operation: &str, request: Value) -> Value {
        let (status, body) = self.aws(operation, request).await;
        assert_eq!(status, 200, "{operation}: {body}");
        body
    }

    /// Creates a machine and starts it; the execution's ARN.
    pub async fn run(&self, name: &str, definition: Value, input: Value) -> String {
        let role = "arn:aws:iam::000000000000:role/any";
        let request = json!({"name": name, "definition": definition.to_string(), "roleArn": role});
        let machine = self.call("CreateStateMachine", request).await["stateMachineArn"].clone();
        let started = self.call("StartExecution", json!({"stateMachineArn": machine, "input": input.to_string()}));
        started.await["executionArn"].as_str().unwrap().to_owned()
    }

    /// Waits until the execution has ended.
    pub async fn ended(&self, arn: &str) -> Value {
        for _ in 0..600 {
            let described = self.call("DescribeExecution", json!({"executionArn": arn})).await;
            if described["status"] != "RUNNING" {
                return described;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{arn} does not end");
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        reqwest::get(format!("{}{path}", self.url())).await.unwrap()
    }
}

struct Scripts;

impl Resources for Scripts {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>> {
        match resource {
            "arn:aws:states:::conveyor:scripted" => Some(Arc::new(Scripted)),
            "arn:aws:states:::states:startExecution.sync:2" => Some(Arc::new(Nested)),
            "arn:aws:states:::sns:publish.waitForTaskToken" => Some(Arc::new(Somebody)),
            _ => None,
        }
    }

    fn child_ended(&self, _: &str, child: &Header, child_arn: &str, _: &str) -> Result<Json, TaskError> {
        match &child.outcome {
            Some(Outcome::Succeeded { output }) => {
                let output: Value = serde_json::from_str(output).unwrap();
                Ok(json!({"ExecutionArn": child_arn, "Output": output}).to_string().into())
            }
            Some(Outcome::Failed { error, cause }) => {
                let cause = json!({"ExecutionArn": child_arn, "Error": error, "Cause": cause, "Status": "FAILED"});
                Err(TaskError::new("States.TaskFailed", cause.to_string()))
            }
            other => Err(TaskError::new("States.TaskFailed", format!("{other:?}"))),
        }
    }
}

struct Scripted;

impl Resource for Scripted {
    fn demand(&self, task: &RunTask) -> Option<Demand> {
        // What needs no lane can be tried out outside of an execution too.
        (!task.parameters.contains("\"panic\"")).then(|| Demand::cores(1))
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        Box::pin(async move {
            let script: Value = serde_json::from_str(&context.task.parameters).unwrap();
            assert!(script["panic"].is_null(), "the test said so");
            let ms = script["ms"].as_u64().unwrap_or(0);
            for part in 0..10u32 {
                context.progress.report(Progress {
                    fraction: f64::from(part) / 10.0,
                    fps: Some(120.0),
                    speed: Some(4.0),
                    doing: "encoding".into(),
                });
                tokio::time::sleep(Duration::from_millis(ms / 10)).await;
            }
            Attempted::Ended(match script["error"].as_str() {
                Some(error) => TaskOutcome::Failed(TaskError::new(error, script["cause"].as_str().unwrap_or_default())),
                None => TaskOutcome::Succeeded(script["output"].to_string().into()),
            })
        })
    }
}

struct Nested;

impl Resource for Nested {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        Box::pin(async move {
            let asked: Value = serde_json::from_str(&context.task.parameters).unwrap();
            let machine = asked["StateMachineArn"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
            let parent =
                Parent { execution: context.execution, attempt: context.task.attempt, shape: "sync2".to_owned() };
            let start = StartRequest {
                machine,
                input: asked["Input"].to_string().into(),
                parent: Some(parent),
                ..StartRequest::default()
            };
            nested(&context.handle, start).await.into()
        })
    }
}

async fn nested(handle: &Handle, start: StartRequest) -> TaskOutcome {
    let machine = start.machine.clone();
    match handle.start(start).await {
        Ok(started) => {
            let arn = format!("arn:aws:states:us-east-1:000000000000:execution:{machine}:{}", started.name);
            TaskOutcome::Submitted { output: json!({"ExecutionArn": arn}).to_string().into() }
        }
        Err(refused) => TaskOutcome::SubmitFailed(TaskError::new(refused.code, refused.message)),
    }
}

/// Somebody outside who got the token and reports later.
struct Somebody;

impl Resource for Somebody {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    fn run(&self, _: TaskContext) -> BoxFuture<'static, Attempted> {
        Box::pin(async { TaskOutcome::Submitted { output: "{}".into() }.into() })
    }
}
