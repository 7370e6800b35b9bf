//! A state machine that is deleted while an execution of it runs: it stays as long as that, also over a restart, and
//! goes with all that hung on it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use conveyor_base::{SystemClock, TaskError};
use conveyor_interpreter::{Header, Json, Qualifier};
use conveyor_run::{self as run, AliasChange, Handle, NewMachine, Resource, Resources, StartRequest};
use conveyor_store::{self as store, Backends, Directory, Options, Route, Writer};
use conveyor_testing::until::until;

struct Nothing;

impl Resources for Nothing {
    fn find(&self, _: &str) -> Option<Arc<dyn Resource>> {
        None
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Ok("{}".into())
    }
}

/// The appliance on that folder.
async fn appliance(dir: &Path) -> (Handle, Writer) {
    let (writer, reader) = store::open(Options::at(dir)).unwrap();
    let config = run::Config {
        writer: writer.clone(),
        reader,
        resources: Arc::new(Nothing),
        clock: Arc::new(SystemClock),
        lanes: run::Lanes::default(),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        express_record: None,
    };
    (run::start(config).await.unwrap(), writer)
}

/// Ends the appliance, and looks whether what it left is whole.
async fn end(handle: Handle, writer: Writer, dir: &Path) {
    handle.shut_down().await;
    drop(handle);
    tokio::task::spawn_blocking(move || writer.close()).await.unwrap().unwrap();
    let files: Arc<dyn Backends> = Arc::new(Directory::new(dir));
    let checked = || match store::check(&files) {
        Ok(report) => Some(report),
        Err(busy) => {
            assert!(busy.to_string().contains("in use"), "{busy}");
            None
        }
    };
    let report = until("nobody has the store's files any more", checked).await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_with_its_last_execution_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let (handle, writer) = appliance(&path).await;
    let new = NewMachine {
        name: "m".into(),
        definition: r#"{"StartAt":"W","States":{"W":{"Type":"Wait","Seconds":3600,"End":true}}}"#.into(),
        role_arn: "arn:aws:iam::000000000000:role/r".into(),
        publish: Some("the first".into()),
        ..NewMachine::default()
    };
    assert_eq!(handle.create_machine(new).await.unwrap().version, Some(1));
    let routes = Some(vec![Route { version: 1, weight_percent: 100 }]);
    handle.create_alias("m", "live", AliasChange { routes, ..AliasChange::default() }).await.unwrap();
    let start = StartRequest {
        machine: "m".into(),
        qualifier: Some("live".into()),
        input: "{}".into(),
        ..StartRequest::default()
    };
    let id = handle.start(start.clone()).await.unwrap().id;
    handle.delete_machine("m").await.unwrap();
    assert!(handle.reader().machine("m").unwrap().unwrap().deleting);
    assert_eq!(handle.start(start).await.unwrap_err().code, "StateMachineDeleting");
    end(handle, writer, &path).await;

    let (handle, writer) = appliance(&path).await;
    let reader = handle.reader().on_this_thread();
    let qualifier = reader.header(id).unwrap().unwrap().machine.qualifier;
    assert_eq!(qualifier, Some(Qualifier::Alias { name: "live".into(), version: 1 }));
    assert!(reader.machine("m").unwrap().unwrap().deleting);
    handle.stop(id, None, None).await.unwrap();
    until("it goes with its last execution", || reader.machine("m").unwrap().is_none().then_some(())).await;
    assert!(reader.versions("m", None, 9).unwrap().is_empty() && reader.aliases("m").unwrap().is_empty());
    let revision = reader.header(id).unwrap().unwrap().machine.revision;
    assert!(reader.revision("m", revision).unwrap().is_some(), "what the execution ran can still be looked at");
    drop(reader);
    end(handle, writer, &path).await;
}
