//! What becomes of ended executions as time passes: archived and still readable, redrivable for fourteen days,
//! forgotten after ninety, and their names free again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use conveyor_base::{Clock, EventId, ExecutionId, Running, Span, TaskError, Timestamp};
use conveyor_interpreter::{Header, Json, Status, run_list};
use conveyor_run::{
    self as run, Config, Handle, NewMachine, Resource, Resources, RetentionPeriods, Retired, StartRequest,
};
use conveyor_store::{self as store, Backends, Direction, Directory, Writer};
use conveyor_testing::until::until;

const DAY_MS: i64 = 86_400_000;
const AGES: RetentionPeriods = RetentionPeriods { archive: Span::days(1), forget: Span::days(90) };

/// A clock that stands still until it is told to move, and a wall clock that is ahead of it.
struct StillClock(AtomicI64, AtomicI64);

impl StillClock {
    fn advance_to(&self, to: Timestamp) {
        self.0.fetch_max(to.0, Ordering::SeqCst);
    }

    fn set_ahead(&self, ms: i64) {
        self.1.store(ms, Ordering::SeqCst);
    }
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst) + self.1.load(Ordering::SeqCst))
    }

    fn running(&self) -> Running {
        Running { boot: 0, ms: self.0.load(Ordering::SeqCst) }
    }
}

/// A box without any resource: a Task fails.
struct Nothing;

impl Resources for Nothing {
    fn find(&self, _: &str) -> Option<Arc<dyn Resource>> {
        None
    }

    fn child_ended(&self, _: &str, _: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        Ok("{}".into())
    }
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<StillClock>,
    handle: Handle,
    writer: Writer,
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let (writer, reader) = store::open(store::Options::at(dir.path())).unwrap();
        let clock = Arc::new(StillClock(AtomicI64::new(20_000 * DAY_MS), AtomicI64::new(0)));
        let config = Config {
            writer: writer.clone(),
            reader,
            resources: Arc::new(Nothing),
            clock: clock.clone(),
            lanes: run::Lanes::default(),
            account: "000000000000".into(),
            region: "us-east-1".into(),
            express_record: None,
        };
        let handle = run::start(config).await.unwrap();
        for (name, state) in [
            ("passes", r#"{"Type":"Pass","Result":{"large":"payload"},"End":true}"#),
            ("fails", r#"{"Type":"Task","Resource":"arn:aws:states:::no:such","End":true}"#),
            ("waits", r#"{"Type":"Wait","Seconds":99999999,"End":true}"#),
        ] {
            let definition = format!(r#"{{"StartAt":"S","States":{{"S":{state}}}}}"#);
            let new = NewMachine { name: name.into(), definition, ..NewMachine::default() };
            handle.create_machine(new).await.unwrap();
        }
        World { dir, clock, handle, writer }
    }

    async fn start(&self, machine: &str, name: &str) -> ExecutionId {
        let start = StartRequest {
            machine: machine.into(),
            name: Some(name.into()),
            input: r#"{"file":"a.mp4"}"#.into(),
            ..StartRequest::default()
        };
        let id = self.handle.start(start).await.unwrap().id;
        if machine != "waits" {
            self.ended(id).await;
        }
        id
    }

    async fn ended(&self, id: ExecutionId) {
        until("it has ended", || (self.describe(id).unwrap().status != Status::Running).then_some(())).await;
    }

    fn describe(&self, id: ExecutionId) -> Option<Header> {
        self.handle.reader().on_this_thread().header(id).unwrap()
    }

    fn all_of(&self, id: ExecutionId) -> (Option<Header>, usize) {
        let history = self.handle.reader().on_this_thread().history(id, EventId(1), 99, Direction::Forward).unwrap();
        (self.describe(id), history.len())
    }

    /// What the store's own check finds once nobody works on it any more.
    async fn checked(self) -> store::Report {
        let World { dir, handle, writer, .. } = self;
        drop(handle);
        tokio::task::spawn_blocking(move || writer.close()).await.unwrap().unwrap();
        let files: Arc<dyn Backends> = Arc::new(Directory::new(dir.path()));
        let checked = || match store::check(&files) {
            Ok(report) => Some(report),
            Err(busy) => {
                assert!(busy.to_string().contains("in use"), "{busy}");
                None
            }
        };
        until("nobody has the store's files any more", checked).await
    }

    async fn days_later(&self, days: i64) -> Retired {
        self.clock.advance_to(self.handle.now().plus_ms(days * DAY_MS));
        self.handle.retire(AGES).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_executions_are_archived_redriven_in_time_and_forgotten() {
    let world = World::new().await;
    let passed = world.start("passes", "one").await;
    let failed = world.start("fails", "one").await;
    let waiting = world.start("waits", "one").await;
    let everything = [passed, failed, waiting].map(|id| world.all_of(id));

    assert_eq!(world.days_later(0).await, Retired { archived: 0, forgotten: 0 });
    assert_eq!(world.days_later(2).await, Retired { archived: 1, forgotten: 0 });
    assert_eq!([passed, failed, waiting].map(|id| world.all_of(id)), everything);

    // What failed keeps all that a redrive takes, for as long as AWS lets it be redriven.
    assert_eq!(world.days_later(11).await, Retired::default());
    world.handle.redrive(failed).await.unwrap();
    world.ended(failed).await;
    assert_eq!(world.describe(failed).unwrap().redrive_count, 1);
    assert_eq!(world.days_later(13).await, Retired::default(), "its time began anew");
    let redriven = world.all_of(failed);
    assert_eq!(world.days_later(2).await, Retired { archived: 1, forgotten: 0 });
    assert_eq!(world.all_of(failed), redriven);
    let refused = world.handle.redrive(failed).await.unwrap_err();
    assert_eq!(refused.code, "ExecutionNotRedrivable");
    assert!(refused.message.contains("redrivable period exceeded"), "{}", refused.message);

    // A name is taken until its execution is forgotten.
    let again = StartRequest { machine: "passes".into(), name: Some("one".into()), ..StartRequest::default() };
    assert_eq!(world.handle.start(again).await.unwrap_err().code, "ExecutionAlreadyExists");
    assert_eq!(world.days_later(63).await, Retired { archived: 0, forgotten: 1 });
    assert_eq!(world.all_of(passed), (None, 0));
    assert_ne!(world.start("passes", "one").await, passed);
    assert_eq!(world.days_later(30).await.forgotten, 1);
    assert_eq!(world.all_of(failed), (None, 0));
    assert_eq!(world.all_of(waiting), everything[2]);

    world.handle.shut_down().await;
    let report = world.checked().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.rows["executions"], report.rows["archived"]), (2, 1));
}

/// The machine's clock has a dead battery: it shows 1970 until the network sets it. What ran meanwhile is dated so.
#[tokio::test(flavor = "multi_thread")]
async fn what_ended_in_1970_is_kept_as_long_as_anything_else() {
    let world = World::new().await;
    world.clock.set_ahead(-20_000 * DAY_MS);
    let (passed, failed) = (world.start("passes", "one").await, world.start("fails", "one").await);
    assert!(world.describe(passed).unwrap().stopped_at.unwrap() < Timestamp(DAY_MS));
    assert_eq!(world.days_later(0).await, Retired::default());
    world.clock.set_ahead(0);
    assert_eq!(world.days_later(0).await, Retired::default(), "they look as if they were decades old");
    assert_eq!(world.days_later(2).await, Retired { archived: 1, forgotten: 0 });
    assert_eq!(world.days_later(11).await, Retired::default());
    world.handle.redrive(failed).await.unwrap();
    world.ended(failed).await;
    assert_eq!(world.days_later(76).await, Retired { archived: 1, forgotten: 0 });
    assert!(world.describe(passed).is_some());
    assert_eq!(world.days_later(3).await, Retired { archived: 0, forgotten: 1 });
    assert_eq!((world.describe(passed), world.describe(failed).is_some()), (None, true));
    world.handle.shut_down().await;
    let report = world.checked().await;
    assert!(report.is_clean(), "{report}");
}

/// They have no history, so no archive has them: what would else stay of them is their headers, inputs and branches.
#[tokio::test(flavor = "multi_thread")]
async fn express_children_of_a_map_run_go_with_their_parent() {
    let world = World::new().await;
    let definition = r#"{"StartAt":"M","States":{"M":{"Type":"Map","End":true,"ToleratedFailurePercentage":50,
        "ItemProcessor":{"ProcessorConfig":{"Mode":"DISTRIBUTED","ExecutionType":"EXPRESS"},"StartAt":"C","States":{
            "C":{"Type":"Choice","Choices":[{"Variable":"$","NumericGreaterThan":1,"Next":"F"}],"Default":"P"},
            "P":{"Type":"Pass","End":true},"F":{"Type":"Fail","Error":"Known"}}}}}}"#;
    let new = NewMachine { name: "spreads".into(), definition: definition.into(), ..NewMachine::default() };
    world.handle.create_machine(new).await.unwrap();
    let start = StartRequest { machine: "spreads".into(), input: "[1, 2, 3, 4]".into(), ..StartRequest::default() };
    let parent = world.handle.start(start).await.unwrap().id;
    world.ended(parent).await;
    assert_eq!(world.describe(parent).unwrap().status, Status::Failed);
    let rows = world.handle.reader().on_this_thread();
    let (.., run) = rows.map_runs().unwrap().remove(0);
    let list = run_list(&run.machine, &run.label, run.run.0);
    let left = |status| rows.run_children(&list, status).unwrap().len();
    let all = || left(Status::Succeeded) + left(Status::Failed) + left(Status::Aborted);
    assert!(left(Status::Failed) > 0);
    let children = all();
    assert_eq!(world.days_later(20).await, Retired { archived: 1, forgotten: 0 });
    assert_eq!(all(), children);
    assert_eq!(world.days_later(90).await.forgotten, 1);
    assert_eq!((all(), world.describe(parent)), (0, None));

    world.handle.shut_down().await;
    drop(rows);
    let report = world.checked().await;
    assert!(report.is_clean(), "{report}");
    for table in ["executions", "payloads", "branches", "map_runs"] {
        assert_eq!(report.rows.get(table).copied().unwrap_or_default(), 0, "{table}");
    }
}

fn script(_: &conveyor_job::Job) -> Result<serde_json::Value, TaskError> {
    Ok(serde_json::json!({}))
}

/// Long ago, as far as the file system knows.
fn age(path: &std::path::Path) {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(100 * 86_400);
    std::fs::File::open(path).unwrap().set_modified(then).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_housekeeping_workflow_removes_what_nothing_refers_to() {
    let appliance = conveyor_testing::appliance::Appliance::start(script, BTreeMap::new()).await;
    appliance.create("waits", r#"{"StartAt":"S","States":{"S":{"Type":"Wait","Seconds":9999999,"End":true}}}"#).await;
    let start = StartRequest {
        machine: "waits".into(),
        name: Some("job-1".into()),
        input: "{}".into(),
        ..StartRequest::default()
    };
    appliance.handle.start(start).await.unwrap();

    let dead = format!("work/{}-0", ExecutionId::generate(Timestamp(1)));
    let root = appliance.dir.path();
    for folder in [&format!("data/{dead}"), "data/work/mine", "outputs/.staging/job-1", "outputs/.staging/job-2"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        age(&root.join(folder));
    }
    for file in ["taken.mp4.error.json", "there.mp4.error.json", "there.mp4"] {
        std::fs::write(root.join("quarantine").join(file), "{}").unwrap();
        age(&root.join("quarantine").join(file));
    }
    let (header, _) = appliance.run("housekeeping", "night", "").await;
    assert_eq!(header.status, Status::Succeeded, "{:?}", header.outcome);
    let left = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(left("data/work"), ["mine"], "what is not the box's stays");
    assert_eq!(left("outputs/.staging"), ["job-1"], "what is still worked on stays");
    assert_eq!(left("quarantine"), ["there.mp4", "there.mp4.error.json"]);
}
