//! A bug of ours outside `step` must not leave an execution behind that nobody carries on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conveyor_base::{SystemClock, TaskError};
use conveyor_interpreter::event::Json;
use conveyor_interpreter::{Header, RunTask, Status};
use conveyor_run::{
    self as run, Attempted, Demand, NewMachine, Resource, Resources, StartRequest, TaskContext, TaskOutcome,
};
use conveyor_store as store;
use futures::FutureExt as _;
use futures::future::BoxFuture;

/// Panics when the second state's task is looked up for the first time: in the midst of carrying out a step.
#[derive(Default)]
struct Rotten(AtomicUsize);

struct Echo;

impl Resources for Rotten {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>> {
        if resource.ends_with(":second") && self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("a bug that the test has planted");
        }
        Some(Arc::new(Echo))
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Ok("{}".into())
    }
}

impl Resource for Echo {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        async move { TaskOutcome::Succeeded(context.task.parameters).into() }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_whose_actor_panicked_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = store::open(store::Options::at(dir.path().join("store"))).unwrap();
    let handle = run::start(run::Config {
        writer,
        reader,
        resources: Arc::new(Rotten::default()),
        clock: Arc::new(SystemClock),
        lanes: run::Lanes::default(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        express_record: None,
    })
    .await
    .unwrap();
    let definition = r#"{"StartAt":"A","States":{
        "A":{"Type":"Task","Resource":"arn:aws:states:::x:first","Next":"B"},
        "B":{"Type":"Task","Resource":"arn:aws:states:::x:second","End":true}}}"#;
    let new = NewMachine {
        name: "m".into(),
        definition: definition.into(),
        role_arn: "arn:aws:iam::000000000000:role/r".into(),
        ..NewMachine::default()
    };
    handle.create_machine(new).await.unwrap();
    let start = StartRequest { machine: "m".into(), input: "{}".into(), ..StartRequest::default() };
    let id = handle.start(start).await.unwrap().id;
    let begun = Instant::now();
    let status = loop {
        let status = handle.reader().on_this_thread().header(id).unwrap().unwrap().status;
        if status != Status::Running {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody carries it on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(status, Status::Succeeded);
}
