//! A bug of ours outside `step` must not leave an execution behind that nobody carries on, nor one that takes a part of the
//! appliance along for ever.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conveyor_base::{SystemClock, TaskError};
use conveyor_interpreter::{Header, Json, RunTask, Status};
use conveyor_run::service::{Address, Requester, Service, Turn};
use conveyor_run::{
    self as run, Announced, Attempted, Completion, Demand, Handle, NewMachine, Resource, Resources, StartRequest,
    TaskContext, TaskOutcome,
};
use conveyor_store::{self as store, Commit};
use futures::FutureExt as _;
use futures::future::BoxFuture;

/// Panics when the second state's task is looked up for the first time, in the midst of carrying out a step, and when an
/// execution is about to succeed for the first two times.
#[derive(Default)]
struct Rotten {
    looked_up: AtomicUsize,
    succeeding: AtomicUsize,
}

struct Echo;

impl Resources for Rotten {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>> {
        if resource.ends_with(":second") && self.looked_up.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("a bug that the test has planted");
        }
        if resource.ends_with(":elsewhere.sync") { Some(Arc::new(Elsewhere)) } else { Some(Arc::new(Echo)) }
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Ok("{}".into())
    }

    fn status_changed(&self, header: &Header, _: &mut Commit) -> Vec<Announced> {
        if header.status == Status::Succeeded && self.succeeding.fetch_add(1, Ordering::SeqCst) < 2 {
            panic!("a bug that the test has planted");
        }
        Vec::new()
    }
}

/// Its work is done elsewhere, by somebody who tells of its end once.
struct Elsewhere;

impl Resource for Elsewhere {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        tokio::spawn(async move {
            context.handle.report_end(context.execution, context.task.attempt, Ok("{}".into())).await.unwrap();
        });
        async move { TaskOutcome::Submitted { output: "{}".into() }.into() }.boxed()
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

async fn start_with(dir: &Path, resources: Arc<dyn Resources>) -> Handle {
    let (writer, reader) = store::open(store::Options::at(dir.join("store"))).unwrap();
    run::start(run::Config {
        writer,
        reader,
        resources,
        clock: Arc::new(SystemClock),
        lanes: run::Lanes::default(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        express_record: None,
    })
    .await
    .unwrap()
}

async fn run_to_its_end(handle: &Handle, definition: &str) -> Status {
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
    loop {
        let status = handle.reader().on_this_thread().header(id).unwrap().unwrap().status;
        if status != Status::Running {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not come to its end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_whose_actor_panicked_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start_with(dir.path(), Arc::new(Rotten::default())).await;
    let definition = r#"{"StartAt":"A","States":{
        "A":{"Type":"Task","Resource":"arn:aws:states:::x:first","Next":"B"},
        "B":{"Type":"Task","Resource":"arn:aws:states:::x:second","End":true}}}"#;
    assert_eq!(run_to_its_end(&handle, definition).await, Status::Succeeded);
}

/// Neither a timer nor what happened elsewhere is told twice by itself: who tells of it must notice that it was not heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_panicking_actor_was_being_told_is_told_again() {
    let wait = r#"{"StartAt":"A","States":{"A":{"Type":"Wait","Seconds":1,"Next":"B"},"B":{"Type":"Succeed"}}}"#;
    let task =
        r#"{"StartAt":"A","States":{"A":{"Type":"Task","Resource":"arn:aws:states:::x:elsewhere.sync","End":true}}}"#;
    for definition in [wait, task] {
        let dir = tempfile::tempdir().unwrap();
        let handle = start_with(dir.path(), Arc::new(Rotten::default())).await;
        assert_eq!(run_to_its_end(&handle, definition).await, Status::Succeeded);
        handle.shut_down().await;
    }
}

/// A part of the appliance that panics over every question until so many were asked.
struct Fragile {
    asked: Arc<AtomicUsize>,
    panics: usize,
}

impl Service for Fragile {
    type Message = Requester<()>;

    fn handle(&mut self, turn: &mut Turn<'_, Requester<()>>, requester: Requester<()>) {
        if self.asked.fetch_add(1, Ordering::SeqCst) < self.panics {
            panic!("a bug that the test has planted");
        }
        turn.answer(requester, ());
    }
}

/// Every Task asks that part.
#[derive(Clone, Default)]
struct Asking(Address<Requester<()>>);

impl Resources for Asking {
    fn find(&self, _: &str) -> Option<Arc<dyn Resource>> {
        Some(Arc::new(self.clone()))
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Ok("{}".into())
    }
}

impl Resource for Asking {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        None
    }

    fn run(&self, _: TaskContext) -> BoxFuture<'static, Attempted> {
        let address = self.0.clone();
        let settle = move |completion: Completion| {
            // Where it is on its way back the question is dropped, and asked again.
            drop(address.send(Requester::task(completion, |()| TaskOutcome::Succeeded("{}".into()))));
        };
        async move { Attempted::Settle(Box::new(settle)) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_a_service_panics_over_fails_after_three_times() {
    for (panics, asked_in_all, status) in [(2, 3, Status::Succeeded), (usize::MAX, 3, Status::Failed)] {
        let dir = tempfile::tempdir().unwrap();
        let asking = Asking::default();
        let handle = start_with(dir.path(), Arc::new(asking.clone())).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let load = move |_: &_| Ok(Fragile { asked: counted.clone(), panics });
        handle.serve("the fragile part", asking.0.clone(), load).await.unwrap();
        let definition =
            r#"{"StartAt":"A","States":{"A":{"Type":"Task","Resource":"arn:aws:states:::x:any","End":true}}}"#;
        assert_eq!(run_to_its_end(&handle, definition).await, status);
        assert_eq!(asked.load(Ordering::SeqCst), asked_in_all);
        handle.shut_down().await;
    }
}
