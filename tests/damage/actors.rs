//! Executions of every kind that wait, one of them with a damaged row: it fails by that name or stands, and all others end
//! as they should.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conveyor_base::{BranchId, Clock, ExecutionId, Fault, ShareIo, Shares, TaskError, Timestamp};
use conveyor_ingest::Watcher;
use conveyor_interpreter::{Header, Json, Outcome, Parent, RunTask, Status};
use conveyor_run::{
    self as run, Attempted, Config, Demand, Handle, Lanes, NewMachine, Resource, Resources, StartRequest, TaskContext,
    TaskOutcome,
};
use conveyor_store::sim::SimDisk;
use conveyor_store::{Backends, Options, Reader, Scans, Threads, Writer, check, open};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

pub const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
/// redb's pages, and the blocks that are verified.
const BLOCK: usize = 4096;
/// Of each kind one may be damaged and one is not.
const KINDS: [&str; 5] = ["sleep", "work", "ask", "each", "around"];

pub type Files = BTreeMap<String, Vec<u8>>;

struct PausedClock(Timestamp, Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        self.0.plus_ms(self.1.elapsed().as_millis() as i64)
    }
}

/// `test:work` takes a core and ends once the box is started again; `test:around` starts a child and waits for it.
#[derive(Clone, Default)]
pub struct Work {
    ends: Arc<AtomicBool>,
}

impl Resources for Work {
    fn find(&self, resource: &str) -> Option<Arc<dyn Resource>> {
        resource.starts_with("arn:aws:states:::test:").then(|| Arc::new(self.clone()) as Arc<dyn Resource>)
    }

    fn child_ended(&self, _: &str, child: &Header, _: &str, _: &str) -> Result<Json, TaskError> {
        match &child.outcome {
            Some(Outcome::Succeeded { output }) => Ok(output.clone()),
            other => Err(TaskError::new("Child.Failed", format!("{other:?}"))),
        }
    }
}

impl Resource for Work {
    fn demand(&self, task: &RunTask) -> Option<Demand> {
        task.resource.ends_with("work").then(|| Demand::cores(1))
    }

    fn run(&self, context: TaskContext) -> BoxFuture<'static, Attempted> {
        let ends = self.ends.clone();
        Box::pin(async move {
            if context.task.resource.ends_with("work") {
                while !ends.load(Ordering::SeqCst) {
                    sleep(Duration::from_secs(1)).await;
                }
                return Attempted::Ended(TaskOutcome::Succeeded("{}".into()));
            }
            let parent = Parent { execution: context.execution, attempt: context.task.attempt, shape: "sync".into() };
            let start = StartRequest {
                machine: "sleep".into(),
                name: Some(format!("{}-child", context.execution)),
                input: context.task.parameters.clone(),
                parent: Some(parent),
                ..StartRequest::default()
            };
            context.handle.start(start).await.unwrap();
            Attempted::Ended(TaskOutcome::Submitted { output: "{}".into() })
        })
    }
}

fn definition(kind: &str) -> Value {
    let wait = json!({"Type": "Wait", "Seconds": 100, "End": true});
    let task = |resource: &str| json!({"Type": "Task", "Resource": resource, "End": true});
    let state = match kind {
        "sleep" => wait,
        "work" => task("arn:aws:states:::test:work"),
        "ask" => task("arn:aws:states:us-east-1:000000000000:activity:ask"),
        "each" => json!({"Type": "Map", "Label": "each", "ItemsPath": "$.items", "End": true, "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": "Wait", "States": {"Wait": wait},
        }}),
        _ => task("arn:aws:states:::test:around.waitForTaskToken"),
    };
    json!({"StartAt": "Do", "States": {"Do": state}})
}

pub async fn boot(disk: &SimDisk, at: Timestamp, work: Work) -> (Handle, Writer, Reader) {
    let threads = Threads::Caller { checkpoint_every: 3 };
    let options = Options { threads, segment_bytes: 64 << 10, ..Options::on(Arc::new(disk.clone())) };
    let (writer, reader) = open(options).unwrap();
    let config = Config {
        writer: writer.clone(),
        reader: reader.clone(),
        resources: Arc::new(work),
        clock: Arc::new(PausedClock(at, Instant::now())),
        lanes: Lanes::of_cores(4, 1),
        account: "000000000000".into(),
        region: "us-east-1".into(),
        express_record: None,
    };
    (run::start(config).await.unwrap(), writer, reader)
}

/// Two executions of each kind, all of which wait.
async fn begin() -> (Files, BTreeMap<ExecutionId, (&'static str, usize)>) {
    let disk = SimDisk::new(1);
    let (handle, writer, reader) = boot(&disk, BEGIN, Work::default()).await;
    let mut all = BTreeMap::new();
    for kind in KINDS {
        let new = NewMachine {
            name: kind.into(),
            definition: definition(kind).to_string(),
            role_arn: "arn:aws:iam::000000000000:role/any".into(),
            ..NewMachine::default()
        };
        handle.create_machine(new).await.unwrap();
        for number in 0..2 {
            // So long that each has pages of its own.
            let input = json!({"items": [1, 2], "pad": format!("{kind}-{number}-").repeat(1_200)});
            let start = StartRequest {
                machine: kind.into(),
                name: Some(number.to_string()),
                input: input.to_string().into(),
                ..StartRequest::default()
            };
            all.insert(handle.start(start).await.unwrap().id, (kind, number));
        }
    }
    sleep(Duration::from_secs(5)).await;
    handle.shut_down().await;
    writer.close().unwrap();
    drop(reader);
    (disk.files(), all)
}

/// Which row of an execution is damaged, and nothing else of anybody's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rot {
    Branch,
    Input,
}

pub fn is_hurt<T>(read: Result<T, Fault>) -> bool {
    read.is_err()
}

/// Flips a bit of the file, in the first block after which the rows are as they are to be. `near`: only in blocks in which
/// that execution's id is.
pub fn flip_where(
    files: &Files,
    name: &str,
    near: Option<ExecutionId>,
    is_it: impl Fn(&Scans) -> bool,
) -> Option<Files> {
    let bytes = &files[name];
    for block in 2..bytes.len() / BLOCK {
        let here = &bytes[block * BLOCK..][..BLOCK];
        let key = near.map(|id| id.to_bytes());
        if here.iter().all(|byte| *byte == 0) || key.is_some_and(|key| !here.windows(16).any(|bytes| bytes == key)) {
            continue;
        }
        let mut hurt = files.clone();
        hurt.get_mut(name).unwrap()[block * BLOCK + 100] ^= 4;
        let threads = Threads::Caller { checkpoint_every: 0 };
        let Ok((writer, reader)) = open(Options { threads, ..Options::on(Arc::new(SimDisk::of(&hurt))) }) else {
            continue;
        };
        let found = is_it(&reader.on_this_thread());
        drop((writer, reader));
        if found {
            return Some(hurt);
        }
    }
    None
}

/// A bit flips in that row. Two branches may share a page: says of whom something is damaged.
fn hurt(files: &Files, id: ExecutionId, rot: Rot, all: &[ExecutionId]) -> Option<(Files, BTreeSet<ExecutionId>)> {
    let found = RefCell::default();
    let files = flip_where(files, "state.redb", Some(id), |rows| {
        let is_it = |id: &ExecutionId| {
            let (branch, header) = (is_hurt(rows.branch(*id, BranchId::ROOT)), is_hurt(rows.header(*id)));
            match rot {
                Rot::Branch => branch && !header,
                Rot::Input => header && !branch && !is_hurt(rows.summary(*id)),
            }
        };
        // Row by row: a walk reads the page behind its last row as well.
        let is_whole = |id: &ExecutionId| !is_hurt(rows.header(*id)) && !is_hurt(rows.branch(*id, BranchId::ROOT));
        let these: BTreeSet<ExecutionId> = all.iter().copied().filter(is_it).collect();
        let fits = these.contains(&id)
            && all.iter().all(|id| these.contains(id) || is_whole(id))
            && !is_hurt(rows.outstanding(None, 99))
            && !is_hurt(rows.timers(Timestamp::MAX, 99));
        found.replace(these);
        fits
    });
    Some((files?, found.into_inner()))
}

/// Answers whatever is asked of people.
async fn answer(handle: Handle) {
    loop {
        match handle.activity_task("ask", None).await {
            Ok(Some(task)) => handle.send_task_success(&task.token.to_string(), "{}".into()).await.unwrap(),
            Ok(None) => {}
            Err(refused) => panic!("a worker hears of another's damage: {refused}"),
        }
    }
}

/// A watch on the workflow goes on.
async fn watches(handle: &Handle, reader: &Reader, workflow: &str) {
    let dir = tempfile::tempdir().unwrap();
    let io = ShareIo::new(Shares::new([("in".to_owned(), dir.path().to_owned())]));
    let settings = serde_json::from_value(json!({"share": "in", "workflow": workflow})).unwrap();
    let watcher = Watcher::new(settings, io, Arc::new(handle.clone()), reader.clone());
    let ended = tokio::time::timeout(Duration::from_secs(10), watcher.run()).await;
    assert!(ended.is_err(), "the watch on '{workflow}' ended: {ended:?}");
}

async fn goes_on(
    files: &Files,
    all: &BTreeMap<ExecutionId, (&'static str, usize)>,
    hurt: Option<(&BTreeSet<ExecutionId>, Rot)>,
) {
    let disk = SimDisk::of(files);
    let work = Work { ends: Arc::new(AtomicBool::new(true)) };
    let (handle, writer, reader) = boot(&disk, BEGIN.plus_ms(10_000), work).await;
    let people = tokio::spawn(answer(handle.clone()));
    sleep(Duration::from_secs(1_000)).await;
    let at = hurt.map(|(ids, rot)| (ids.iter().map(|id| all[id]).collect::<Vec<_>>(), rot));
    assert_eq!(*handle.fatal().borrow(), None, "{at:?}: the box ended");
    assert!(handle.failed_parts().is_empty(), "{at:?}: {:?}", handle.failed_parts());
    assert!(!people.is_finished(), "{at:?}");
    for id in hurt.into_iter().flat_map(|(ids, _)| ids) {
        watches(&handle, &reader, all[id].0).await;
    }
    people.abort();
    for (id, kind) in all {
        let header = reader.header(*id).await;
        match hurt.filter(|(of, _)| of.contains(id)) {
            None => assert_eq!(header.unwrap().unwrap().status, Status::Succeeded, "{at:?}: {kind:?} is to be as ever"),
            Some((_, Rot::Branch)) => {
                let header = header.unwrap().unwrap();
                let (error, cause) = header.failure();
                assert_eq!((header.status, error), (Status::Failed, Some("Store.Damaged")), "{at:?}");
                let cause = cause.unwrap();
                assert!(cause.contains("'branches'") && cause.contains("conveyor check --repair"), "{at:?}: {cause}");
                let rows = reader.on_this_thread();
                assert_eq!(rows.attempts_of(*id).unwrap(), [], "{at:?}: nothing of it stays under way");
            }
            Some((_, Rot::Input)) => {
                let Err(Fault::Damaged { what, .. }) = header else { panic!("{at:?}: {header:?}") };
                assert!(what.contains(&id.to_string()), "{at:?}: {what}");
            }
        }
    }
    let told = reader.damages();
    assert_eq!(told.is_empty(), hurt.is_none(), "{at:?}: {told:?}");
    for id in hurt.into_iter().flat_map(|(ids, _)| ids) {
        assert!(told.iter().any(|what| what.contains(&id.to_string())), "{at:?}: {told:?}");
    }
    assert_eq!(handle.awake(), 0, "{at:?}: nothing is tried for ever");
    handle.shut_down().await;
    writer.close().unwrap();
    drop((reader, handle));
    let report = check(&(Arc::new(disk) as Arc<dyn Backends>)).unwrap();
    let table = hurt.map_or("", |(_, rot)| if rot == Rot::Branch { "'branches'" } else { "'payloads'" });
    assert!(report.to_string().contains(table), "{at:?}: {report}");
    assert_eq!(report.is_clean(), hurt.is_none(), "{at:?}: {report}");
}

#[test]
fn one_that_is_damaged_fails_by_that_name_and_all_others_go_on() {
    let paused = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (files, all) = paused().block_on(begin());
    paused().block_on(goes_on(&files, &all, None));
    let ids: Vec<ExecutionId> = all.keys().copied().collect();
    for (id, kind) in all.iter().filter(|(_, (_, number))| *number == 0) {
        for rot in [Rot::Branch, Rot::Input] {
            let (files, these) =
                hurt(&files, *id, rot, &ids).unwrap_or_else(|| panic!("{kind:?} {rot:?}: no such page"));
            paused().block_on(goes_on(&files, &all, Some((&these, rot))));
        }
    }
}
