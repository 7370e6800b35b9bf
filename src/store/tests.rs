//! What users of the store rely on, through its own doors, on real files.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::base::{Attempt, BranchId, EventId, ExecutionId, TaskToken, TimerId, Timestamp};
use crate::interpreter::execution::MapItems;
use crate::interpreter::history::Failure;
use crate::interpreter::{
    Branch, Command, Doing, Execution, Header, HistoryEvent, HistoryKind, MachineRef, Outcome, Parent, RunTask,
    StateType, Status, Step, TaskPhase,
};

fn header(id: ExecutionId, name: &str, status: Status) -> Header {
    Header {
        id,
        name: name.into(),
        machine: MachineRef { name: "main".into(), revision: 3, qualifier: Some("live".into()) },
        status,
        started_at: Timestamp(5),
        stopped_at: None,
        input: Arc::from(r#"{ "a": 1 }"#),
        outcome: None,
        last_event: EventId(4),
        next_branch: BranchId(2),
        next_attempt: Attempt(1),
        next_timer: TimerId(1),
        timeout_timer: Some((TimerId(0), Timestamp(900))),
        parent: Some(Parent { execution: ExecutionId(9), attempt: Attempt(2), shape: "sync2".into() }),
        redrive_count: 0,
        redriven_at: None,
        trace_header: None,
    }
}

fn branch(doing: Doing) -> Branch {
    Branch {
        parent: Some((BranchId(0), 1)),
        state: Arc::from("Probe"),
        state_entered_at: Timestamp(6),
        state_entered_event: EventId(2),
        input: Arc::new(json!({"b": [1, 2.5, "ü"], "a": null})),
        previous_event: EventId(3),
        variables: BTreeMap::from([("v".to_owned(), Arc::new(json!(7)))]),
        map_item: Some((1, Arc::new(json!("item")))),
        retries: vec![0, 2],
        silent: false,
        doing,
    }
}

fn task(phase: TaskPhase) -> Doing {
    Doing::Task {
        attempt: Attempt(0),
        phase,
        nonce: 77,
        timeout: Some((TimerId(0), Timestamp(900))),
        heartbeat: None,
        heartbeat_ms: Some(5),
    }
}

fn events(first: u64, kinds: Vec<HistoryKind>) -> Vec<HistoryEvent> {
    let event = |(n, kind)| HistoryEvent { id: EventId(n), previous: EventId(n - 1), at: Timestamp(6), kind };
    (first..).zip(kinds).map(event).collect()
}

/// A step that starts an execution with a task under way.
fn starting(id: ExecutionId, name: &str) -> Step {
    Step {
        header: Some(header(id, name, Status::Running)),
        branches: BTreeMap::from([
            (
                BranchId(0),
                Some(branch(Doing::Map {
                    first: BranchId(1),
                    next_index: 2,
                    running: 1,
                    failed: 0,
                    length: 3,
                    concurrency: 1,
                    tolerated: 0,
                    started_event: EventId(2),
                    last_succeeded_event: EventId(0),
                    resume: None,
                })),
            ),
            (BranchId(1), Some(branch(task(TaskPhase::Scheduled)))),
        ]),
        items: BTreeMap::from([(BranchId(0), Some(Arc::new(map_items())))]),
        history: events(
            1,
            vec![
                HistoryKind::ExecutionStarted { input: Arc::from("{}"), role_arn: "arn".into() },
                HistoryKind::StateEntered {
                    state_type: StateType::Task,
                    name: Arc::from("Probe"),
                    input: Arc::from("1"),
                },
                HistoryKind::TaskFailed {
                    resource_type: "conveyor".into(),
                    resource: "probe".into(),
                    failure: Failure { error: Some("E".into()), cause: None },
                },
                HistoryKind::StateExited {
                    state_type: StateType::Pass,
                    name: Arc::from("P"),
                    output: Arc::from("2"),
                    assigned: vec![("x".into(), Arc::from("1")), ("y".into(), Arc::from("2"))],
                },
            ],
        ),
        commands: vec![
            Command::RunTask(Box::new(run_task(id))),
            Command::SetTimer { timer: TimerId(0), due: Timestamp(900) },
        ],
    }
}

fn run_task(id: ExecutionId) -> RunTask {
    RunTask {
        attempt: Attempt(0),
        branch: BranchId(1),
        state: Arc::from("Probe"),
        resource: "arn:aws:states:::conveyor:probe".into(),
        parameters: Arc::from("{}"),
        token: Some(TaskToken { execution: id, attempt: Attempt(0), nonce: 77 }),
        timeout_ms: Some(60_000),
        heartbeat_ms: None,
        retry_count: 0,
        scheduled_at: Timestamp(6),
    }
}

/// The execution that results from a starting step.
fn after(step: &Step) -> Execution {
    let mut execution = Execution::load(step.header.clone().unwrap(), BTreeMap::new(), BTreeMap::new());
    execution.apply(step);
    execution
}

fn map_items() -> MapItems {
    MapItems { input: Arc::new(json!([1])), items: vec![Arc::new(json!("x")), Arc::new(json!({"y": 1}))] }
}

/// The step that ends it.
fn ending(before: &Execution) -> Step {
    let outcome = Outcome::Succeeded { output: Arc::from("[1]") };
    let mut header = before.header.clone();
    header.status = Status::Succeeded;
    header.stopped_at = Some(Timestamp(10));
    header.outcome = Some(outcome.clone());
    header.last_event = EventId(6);
    Step {
        header: Some(header),
        branches: before.branches.keys().map(|n| (*n, None)).collect(),
        items: before.items.keys().map(|n| (*n, None)).collect(),
        history: events(
            5,
            vec![
                HistoryKind::TaskStarted { resource_type: "conveyor".into(), resource: "probe".into() },
                HistoryKind::ExecutionSucceeded { output: Arc::from("[1]") },
            ],
        ),
        commands: vec![Command::ClearTimer { timer: TimerId(0), due: Timestamp(900) }, Command::Deliver(outcome)],
    }
}

fn commit(writer: &Writer, build: impl FnOnce(&mut Commit) -> &mut Commit) {
    let mut commit = Commit::new();
    build(&mut commit);
    writer.commit_blocking(commit).unwrap();
}

fn on_caller(dir: &std::path::Path) -> Options {
    Options { threads: Threads::Caller { checkpoint_every: 0 }, ..Options::at(dir) }
}

#[test]
fn an_execution_comes_back_as_it_was_stored_wherever_its_rows_lie() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    let id = ExecutionId::generate(Timestamp(1_000));
    let start = starting(id, "one");
    let running = after(&start);
    commit(&writer, |c| c.step(None, &start));

    let look = |reader: &Reader| {
        assert_eq!(reader.execution(id).unwrap().as_ref(), Some(&running));
        assert_eq!(reader.by_name("main", "one").unwrap(), Some(id));
        assert_eq!(reader.timers(Timestamp(900), 9).unwrap(), [(Timestamp(900), id, TimerId(0))]);
        assert_eq!(reader.timers(Timestamp(899), 9).unwrap(), []);
        assert_eq!(reader.outstanding().map(Result::unwrap).collect::<Vec<_>>(), [(id, run_task(id))]);
        assert_eq!(reader.count(Status::Running), 1);
        let all = reader.history(id, EventId(1), 100, Direction::Forward).unwrap();
        assert_eq!(all, start.history);
    };
    look(&reader);
    writer.checkpoint().unwrap();
    look(&reader);
    writer.close().unwrap();
    drop(reader);
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    look(&reader);

    // It ends: in the overlay over the state file, after a crash that loses no commit, and checkpointed.
    let end = ending(&running);
    commit(&writer, |c| c.step(Some(&running), &end));
    let look = |reader: &Reader| {
        let ended = reader.execution(id).unwrap().unwrap();
        assert_eq!(Some(&ended.header), end.header.as_ref());
        assert!(ended.branches.is_empty() && ended.items.is_empty());
        assert_eq!(reader.outstanding().count(), 0);
        assert_eq!(reader.timers(Timestamp::MAX, 9).unwrap(), []);
        assert_eq!(reader.deliveries().map(Result::unwrap).collect::<Vec<_>>(), [id]);
        assert_eq!(reader.counts(), BTreeMap::from([(("main".to_owned(), Status::Succeeded), 1)]));
        let ids = |from, limit, direction| -> Vec<u64> {
            reader.history(id, EventId(from), limit, direction).unwrap().iter().map(|e| e.id.0).collect()
        };
        assert_eq!(ids(3, 3, Direction::Forward), [3, 4, 5]);
        assert_eq!(ids(0, 4, Direction::Backward), [6, 5, 4, 3]);
        assert_eq!(ids(2, 4, Direction::Backward), [2, 1]);
    };
    look(&reader);
    drop((writer, reader));
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    look(&reader);
    writer.checkpoint().unwrap();
    look(&reader);
}

#[test]
fn a_task_is_outstanding_until_it_is_submitted_or_over() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    let id = ExecutionId::generate(Timestamp(1_000));
    let start = starting(id, "one");
    let mut execution = after(&start);
    commit(&writer, |c| c.step(None, &start));
    for (phase, still) in [(TaskPhase::Started, true), (TaskPhase::Submitted, false)] {
        let step = Step {
            header: Some(execution.header.clone()),
            branches: BTreeMap::from([(BranchId(1), Some(branch(task(phase))))]),
            ..Step::default()
        };
        commit(&writer, |c| c.step(Some(&execution), &step));
        execution.apply(&step);
        assert_eq!(reader.is_outstanding(id, Attempt(0)).unwrap().is_some(), still);
    }
}

#[test]
fn lists_are_newest_first_and_pages_meet() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    let mut expected = BTreeMap::new();
    for n in 0..60i64 {
        let id = ExecutionId::generate(Timestamp(n));
        let mut start = starting(id, &n.to_string());
        let machine = ["a", "ab", "b"][n as usize % 3];
        start.header.as_mut().unwrap().machine.name = machine.into();
        commit(&writer, |c| c.step(None, &start));
        let mut status = Status::Running;
        if n % 4 == 0 {
            let running = after(&start);
            commit(&writer, |c| c.step(Some(&running), &ending(&running)));
            status = Status::Succeeded;
        }
        if n % 25 == 0 {
            writer.checkpoint().unwrap();
        }
        expected.insert(id, (machine, status));
    }
    for machine in [None, Some("a"), Some("ab"), Some("none")] {
        for status in [None, Some(Status::Running), Some(Status::Succeeded), Some(Status::Failed)] {
            let filter = ExecutionFilter { machine: machine.map(str::to_owned), status };
            let wanted: Vec<ExecutionId> = (expected.iter().rev())
                .filter(|(_, (m, s))| machine.is_none_or(|w| w == *m) && status.is_none_or(|w| w == *s))
                .map(|(id, _)| *id)
                .collect();
            let (mut found, mut token) = (Vec::new(), None);
            loop {
                let page = reader.executions(&filter, token.as_deref(), 7).unwrap();
                found.extend(page.items.iter().map(|item| item.id));
                token = page.next;
                if token.is_none() {
                    break;
                }
            }
            assert_eq!(found, wanted, "{filter:?}");
        }
    }
}

#[test]
fn a_second_process_and_a_missing_file_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(on_caller(dir.path())).unwrap();
    let busy = open(on_caller(dir.path())).err().unwrap().to_string();
    assert!(busy.contains("in use by another conveyor process"), "{busy}");
    drop(opened);
    std::fs::rename(dir.path().join("journal-0.log"), dir.path().join("gone")).unwrap();
    let missing = open(on_caller(dir.path())).err().unwrap().to_string();
    assert!(missing.contains("the journal is missing"), "{missing}");
}

#[test]
fn many_commits_share_the_threads_and_all_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(Options { checkpoint_ms: 5, ..Options::at(dir.path()) }).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let writer = writer.clone();
            std::thread::spawn(move || {
                for n in 0..50 {
                    commit(&writer, |c| c.put_item("t", &format!("{thread}-{n:03}"), "{}"));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(reader.items("t", None, usize::MAX).unwrap().len(), 400);
    assert_eq!(reader.items("t", Some("3-049"), 1).unwrap()[0].0, "4-000");
    let other = writer.clone();
    writer.close().unwrap();
    let mut late = Commit::new();
    late.put_item("t", "late", "{}");
    assert!(other.commit_blocking(late).unwrap_err().to_string().contains("closed"));
}

#[test]
fn histories_move_into_archives_and_old_days_are_dropped_whole() {
    const DAY_MS: i64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    let mut histories = BTreeMap::new();
    for day in 0..3i64 {
        for n in 0..4 {
            let id = ExecutionId::generate(Timestamp(day * DAY_MS + n));
            let start = starting(id, &format!("{day}-{n}"));
            let running = after(&start);
            commit(&writer, |c| c.step(None, &start));
            // One of each day goes on running.
            if n > 0 {
                let mut end = ending(&running);
                end.header.as_mut().unwrap().stopped_at = Some(Timestamp(day * DAY_MS + 500));
                commit(&writer, |c| c.step(Some(&running), &end).delivered(id));
            }
            histories.insert(id, (day, n, reader.history(id, EventId(1), 99, Direction::Forward).unwrap()));
        }
    }
    let mut reached = None;
    loop {
        reached = writer.archive_history(Timestamp(2 * DAY_MS), reached, 3).unwrap();
        if reached.is_none() {
            break;
        }
    }
    let same = |reader: &Reader| {
        for (id, (_, _, history)) in &histories {
            assert_eq!(&reader.history(*id, EventId(1), 99, Direction::Forward).unwrap(), history);
            let last = reader.history(*id, EventId(0), 2, Direction::Backward).unwrap();
            assert_eq!(last, history.iter().rev().take(2).cloned().collect::<Vec<_>>());
        }
    };
    same(&reader);
    writer.close().unwrap();
    drop(reader);
    let backends: Arc<dyn Backends> = Arc::new(Directory::new(dir.path()));
    let report = check(&backends).unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.rows["archived"], 6);

    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    same(&reader);
    assert_eq!(writer.drop_archives(Timestamp(DAY_MS + 1)).unwrap(), 3);
    for (id, (day, n, _)) in &histories {
        assert_eq!(reader.header(*id).unwrap().is_none(), *day == 0 && *n > 0);
    }
    assert_eq!(reader.count(Status::Succeeded), 6);
    assert!(!dir.path().join("history-000000.redb").exists());
    assert!(dir.path().join("history-000001.redb").exists());
    drop((writer, reader));
    assert!(check(&backends).unwrap().is_clean());
}
