//! An appliance for tests: the real store, actors, resources and workflows on temporary shares; only the media
//! child is a script.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conveyor_appliance::{Config, Parts, ShareSettings};
use conveyor_base::{EventId, ExecutionId, Shares, SystemClock, TaskError};
use conveyor_interpreter::{Header, HistoryEvent, Status};
use conveyor_job::Job;
use conveyor_resources::builtin;
use conveyor_resources::functions::FunctionSettings;
use conveyor_run::{self as run, Handle, NewMachine, StartRequest};
use conveyor_sandbox::{OnProgress, Spawn};
use conveyor_services::notifications::NotifySettings;
use conveyor_store as store;
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// What stands for the media child.
pub type Script = fn(&Job) -> Result<Value, TaskError>;

struct Scripted(Script);

impl Spawn for Scripted {
    fn spawn(&self, job: Job, _: OnProgress) -> BoxFuture<'static, Result<Value, TaskError>> {
        let script = self.0;
        Box::pin(async move {
            assert!(job.work_dir.is_dir(), "a stage has a work folder");
            script(&job)
        })
    }
}

pub struct Appliance {
    pub dir: tempfile::TempDir,
    pub handle: Handle,
    pub parts: Parts,
    pub shares: Shares,
}

impl Appliance {
    pub async fn start(script: Script, functions: BTreeMap<String, FunctionSettings>) -> Appliance {
        Appliance::start_with(script, functions, NotifySettings::default()).await
    }

    /// Notifications always go to a log file as well.
    pub async fn start_with(
        script: Script,
        functions: BTreeMap<String, FunctionSettings>,
        notify: NotifySettings,
    ) -> Appliance {
        let dir = tempfile::tempdir().unwrap();
        let share = |name: &str| -> (String, ShareSettings) {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            (name.to_owned(), ShareSettings { path, serve: false, mounted: None })
        };
        let data_dir = dir.path().join("data");
        let (writer, reader) = store::open(store::Options::at(&data_dir)).unwrap();
        let log = Some(dir.path().join("notifications.jsonl"));
        let config = Config {
            shares: ["source", "outputs", "archive", "quarantine"].map(share).into(),
            functions,
            watch: vec![serde_json::from_value(json!({ "share": "source" })).unwrap()],
            notify: NotifySettings { log, ..notify },
            ..Config::default()
        };
        // Nothing of the surroundings: these tests call nobody.
        let parts = Parts::new(&config, &config.aws, &data_dir, &reader, Arc::new(Scripted(script)), None).unwrap();
        let handle = run::start(run::Config {
            writer,
            reader,
            resources: Arc::new(parts.registry().unwrap()),
            clock: Arc::new(SystemClock),
            lanes: run::Lanes::of_cores(2, 8),
            account: config.account.clone(),
            region: config.region.clone(),
            express_record: None,
        })
        .await
        .unwrap();
        parts.start(&handle).await.unwrap();
        builtin::install_all(&handle, &config.substitutions(), true).await.unwrap();
        Appliance { dir, handle, parts, shares: config.shares() }
    }

    pub async fn create(&self, name: &str, definition: &str) {
        let role_arn = "arn:aws:iam::000000000000:role/r".to_owned();
        let (name, definition) = (name.to_owned(), definition.to_owned());
        let new = NewMachine { name, definition, role_arn, ..NewMachine::default() };
        self.handle.create_machine(new).await.unwrap();
    }

    /// Runs a machine on a file of the share `source` to its end.
    pub async fn run(&self, machine: &str, job: &str, key: &str) -> (Header, Vec<HistoryEvent>) {
        let input = json!({"jobId": job, "bucket": "source", "key": key, "requestedAt": "2026-01-01T00:00:00"});
        let start = StartRequest {
            machine: machine.into(),
            name: Some(job.into()),
            input: input.to_string().into(),
            ..StartRequest::default()
        };
        let id = self.handle.start(start).await.unwrap().id;
        let header = self.ended(id).await;
        let history =
            self.handle.reader().on_this_thread().history(id, EventId(1), 1_000, store::Direction::Forward).unwrap();
        (header, history)
    }

    pub async fn ended(&self, id: ExecutionId) -> Header {
        let ended = || {
            self.handle.reader().on_this_thread().header(id).unwrap().filter(|header| header.status != Status::Running)
        };
        self.until("its end", ended).await
    }

    /// Waits for what is to come. How long it takes is no part of any test.
    pub async fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "it does not come: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The item of a job.
    pub fn row(&self, table: &str, job: &str) -> Value {
        let key = json!([{ "S": job }]).to_string();
        serde_json::from_str(&self.handle.reader().item(table, &key).unwrap().unwrap()).unwrap()
    }
}
