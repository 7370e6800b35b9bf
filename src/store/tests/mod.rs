//! What users of the store rely on, through its own interface, on real files.

mod counts;
mod damage;
mod walks;

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, EventId, ExecutionId, Older, TaskToken, TimerId, Timestamp};
use conveyor_interpreter::{
    Branch, Command, Doing, Execution, Failure, Header, HistoryEvent, HistoryKind, Item, MachineRef, MapChild,
    MapItems, Outcome, Parent, Qualifier, Rows as _, RunTask, StateType, Status, Step, TaskPhase,
};
use serde_json::json;

use super::*;

fn header(id: ExecutionId, name: &str, status: Status) -> Header {
    Header {
        id,
        name: name.into(),
        machine: MachineRef {
            name: "main".into(),
            revision: 3,
            qualifier: Some(Qualifier::Alias { name: "live".into(), version: 2 }),
        },
        status,
        started_at: Timestamp(5),
        stopped_at: None,
        input: Arc::from(r#"{ "a": 1 }"#),
        outcome: None,
        last_event: EventId(4),
        next_branch: BranchId(2),
        next_attempt: Attempt(1),
        next_timer: TimerId(2),
        timeout_timer: Some((TimerId(1), Timestamp(950))),
        parent: Some(Parent { execution: ExecutionId(9), attempt: Attempt(id.0 as u32), shape: "sync2".into() }),
        child: None,
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
        map_item: Some((1, Item { key: Some("k".into()), ..Item::of(json!("item")) })),
        retries: vec![0, 2],
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
                    length: 70,
                    concurrency: 1,
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
    // More than one row of them.
    let items = (0..70).map(|n| Item { key: Some(format!("k{n}").into()), ..Item::of(json!({"y": n})) });
    MapItems { input: Arc::new(json!([1])), items: items.collect() }
}

/// The step that ends it.
fn ending(before: &Execution) -> Step {
    let outcome = Outcome::Succeeded { output: Arc::from("[1]") };
    let mut header = before.header.clone();
    header.status = Status::Succeeded;
    header.stopped_at = Some(Timestamp(10));
    header.outcome = Some(outcome.clone());
    header.timeout_timer = None;
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

fn opened(options: Options) -> (Writer, Scans) {
    let (writer, reader) = open(options).unwrap();
    (writer, reader.on_this_thread())
}

fn on_caller(dir: &std::path::Path) -> Options {
    Options { threads: Threads::Caller { checkpoint_every: 0 }, ..Options::at(dir) }
}

#[test]
fn an_execution_comes_back_as_it_was_stored_wherever_its_rows_lie() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = opened(on_caller(dir.path()));
    let id = ExecutionId::generate(Timestamp(1_000));
    let start = starting(id, "one");
    let running = after(&start);
    commit(&writer, |c| c.step(None, &start));

    let look = |reader: &Scans| {
        assert_eq!(reader.execution(id).unwrap().as_ref(), Some(&running));
        let (rows, map) = (reader.rows(id), map_items());
        assert_eq!(rows.map_input(BranchId(0)).unwrap(), Some(map.input));
        let item = |index: u32| rows.map_item(BranchId(0), index).unwrap();
        for index in [0, 63, 64, 69] {
            assert_eq!(item(index).as_ref(), Some(&map.items[index as usize]));
        }
        assert_eq!((item(70), item(200)), (None, None));
        assert_eq!(rows.branch(BranchId(1)).unwrap().as_ref(), running.branches.get(&BranchId(1)));
        let numbers = |first, count| -> Vec<u32> {
            rows.branches(BranchId(first), count).unwrap().iter().map(|(id, _)| id.0).collect()
        };
        assert_eq!((numbers(0, u32::MAX), numbers(1, 9), numbers(2, 9)), (vec![0, 1], vec![1], vec![]));
        assert_eq!(reader.by_name("main", "one").unwrap(), Some(id));
        assert_eq!(reader.timers(Timestamp(900), 9).unwrap(), [(Timestamp(900), id, TimerId(0))]);
        assert_eq!(reader.timers(Timestamp(899), 9).unwrap(), []);
        assert_eq!(reader.outstanding(None, 9).unwrap(), [(id, run_task(id))]);
        assert_eq!(reader.count(Status::Running), 1);
        let all = reader.history(id, EventId(1), 100, Direction::Forward).unwrap();
        assert_eq!(all, start.history);
    };
    look(&reader);
    writer.checkpoint().unwrap();
    look(&reader);
    writer.close().unwrap();
    drop(reader);
    let (writer, reader) = opened(on_caller(dir.path()));
    look(&reader);

    // It ends: in the overlay over the state file, after a crash that loses no commit, and checkpointed.
    let end = ending(&running);
    commit(&writer, |c| c.step(Some(&running), &end));
    let look = |reader: &Scans| {
        let ended = reader.execution(id).unwrap().unwrap();
        assert_eq!(Some(&ended.header), end.header.as_ref());
        assert!(ended.branches.is_empty() && ended.items.is_empty());
        assert_eq!(reader.outstanding(None, 9).unwrap(), []);
        assert_eq!(reader.timers(Timestamp::MAX, 9).unwrap(), []);
        assert_eq!(reader.deliveries().map(Result::unwrap).collect::<Vec<_>>(), [id]);
        assert_eq!(reader.counts(), BTreeMap::from([(("main".to_owned(), Status::Succeeded), 1)]));
        let ids = |from, limit, direction| -> Vec<u64> {
            reader.history(id, EventId(from), limit, direction).unwrap().iter().map(|e| e.id.0).collect()
        };
        assert_eq!(ids(3, 3, Direction::Forward), [3, 4, 5]);
        assert_eq!(ids(0, 4, Direction::Backward), [6, 5, 4, 3]);
        assert_eq!(ids(2, 4, Direction::Backward), [2, 1]);
        // However little a page may hold, it has one event, and the pages together have each once.
        for (direction, all) in
            [(Direction::Forward, vec![1, 2, 3, 4, 5, 6]), (Direction::Backward, vec![6, 5, 4, 3, 2, 1])]
        {
            for bytes in [0, 1, 40, usize::MAX] {
                let (mut from, mut seen, mut pages) = (Some(EventId(0)), Vec::new(), 0);
                while let Some(first) = from {
                    let (page, next) = reader.history_page(id, first, 4, bytes, direction).unwrap();
                    assert!((1..=4).contains(&page.len()), "{page:?}");
                    seen.extend(page.iter().map(|event| event.id.0));
                    (from, pages) = (next, pages + 1);
                }
                assert_eq!((seen, pages >= if bytes < 2 { 3 } else { 2 }), (all.clone(), true), "{bytes}");
            }
        }
    };
    look(&reader);
    drop((writer, reader));
    let (writer, reader) = opened(on_caller(dir.path()));
    look(&reader);
    writer.checkpoint().unwrap();
    look(&reader);
}

#[test]
fn a_task_is_outstanding_until_it_is_submitted_and_leads_to_its_branch_until_it_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = opened(on_caller(dir.path()));
    let id = ExecutionId::generate(Timestamp(1_000));
    let start = starting(id, "one");
    let mut execution = after(&start);
    commit(&writer, |c| c.step(None, &start));
    let waits = Some(BranchId(1));
    assert_eq!(reader.timer(Timestamp(900), id, TimerId(0)).unwrap(), Some(waits));
    assert_eq!(reader.timer(Timestamp(950), id, TimerId(1)).unwrap(), Some(None), "it is the execution's own");
    let done = Doing::Done { output: Arc::new(json!(1)) };
    for (doing, outstanding, waits) in
        [(task(TaskPhase::Started), true, waits), (task(TaskPhase::Submitted), false, waits), (done, false, None)]
    {
        let step = Step {
            header: Some(execution.header.clone()),
            branches: BTreeMap::from([(BranchId(1), Some(branch(doing)))]),
            ..Step::default()
        };
        commit(&writer, |c| c.step(Some(&execution), &step));
        execution.apply(&step);
        assert_eq!(reader.outstanding_task(id, Attempt(0)).unwrap().is_some(), outstanding);
        assert_eq!(reader.branch_of_attempt(id, Attempt(0)).unwrap(), waits);
        assert_eq!(reader.timer(Timestamp(900), id, TimerId(0)).unwrap(), waits.map(Some));
    }
}

#[test]
fn lists_are_newest_first_and_pages_meet() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = opened(on_caller(dir.path()));
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

/// A delivered notification keeps its number: one that was given out again would take its row's place.
#[test]
fn numbers_of_delivered_notifications_are_not_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    for checkpointed in [false, true] {
        let (writer, _) = open(on_caller(dir.path())).unwrap();
        let number = writer.outbox_number();
        let row = DeliveredRow {
            target: "log".into(),
            body: "{}".into(),
            created_at: Stamp(1),
            delivered_at: Stamp(2),
            attempts: 1,
        };
        let mut commit = Commit::new();
        commit.put_delivered(number, &row);
        writer.commit_blocking(commit).unwrap();
        if checkpointed {
            writer.close().unwrap();
        } else {
            drop(writer);
        }
        let (writer, _) = open(on_caller(dir.path())).unwrap();
        assert!(writer.outbox_number() > number, "checkpointed: {checkpointed}");
    }
}

#[test]
fn many_commits_share_the_threads_and_all_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = opened(Options { checkpoint_ms: 5, ..Options::at(dir.path()) });
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

fn revision() -> RevisionRow {
    let text = String::new;
    RevisionRow { definition: text(), role_arn: text(), settings: text(), revision_id: None, created_at: Stamp(1) }
}

const DAY_MS: i64 = 86_400_000;

/// Three days with five executions each: one that runs on, three that succeeded, one that failed.
fn three_days(writer: &Writer) -> BTreeMap<ExecutionId, i64> {
    let mut days = BTreeMap::new();
    commit(writer, |c| c.put_revision("main", 3, &revision()));
    for day in 0..3i64 {
        for n in 0..5 {
            let id = ExecutionId::generate(Timestamp(day * DAY_MS + n));
            let start = starting(id, &format!("{day}-{n}"));
            let running = after(&start);
            commit(writer, |c| c.step(None, &start));
            days.insert(id, day);
            if n == 0 {
                continue;
            }
            let mut end = ending(&running);
            let header = end.header.as_mut().unwrap();
            header.stopped_at = Some(Timestamp(day * DAY_MS + 500));
            if n == 1 {
                header.status = Status::Failed;
                header.outcome = Some(Outcome::Failed { error: Some("E".into()), cause: None });
                // What a redrive goes on from.
                let halted = branch(Doing::Halted);
                end.branches = BTreeMap::from([(BranchId(1), Some(halted))]);
                end.items.clear();
                commit(writer, |c| c.outstanding_done(id, Attempt(0)));
            }
            commit(writer, |c| c.step(Some(&running), &end).delivered(&running.header));
        }
    }
    days
}

fn archive(writer: &Writer, succeeded: i64, unsuccessful: i64) -> usize {
    let before = EndedBefore {
        succeeded: Older::than(Timestamp(succeeded)),
        unsuccessful: Older::than(Timestamp(unsuccessful)),
    };
    let (mut archived, mut reached) = (0, None);
    loop {
        let pass = writer.archive_ended(&before, reached, 3).unwrap();
        archived += pass.archived;
        reached = pass.reached;
        if reached.is_none() {
            return archived;
        }
    }
}

fn is_clean(dir: &std::path::Path) -> Report {
    let report = check(&(Arc::new(Directory::new(dir)) as Arc<dyn Backends>)).unwrap();
    assert!(report.is_clean(), "{report}");
    report
}

#[test]
fn ended_executions_move_into_archives_and_old_days_are_dropped_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = opened(on_caller(dir.path()));
    let days = three_days(&writer);
    let look = |reader: &Scans| -> Vec<_> {
        let history = |id| reader.history(id, EventId(1), 99, Direction::Forward).unwrap();
        days.keys().map(|id| (reader.header(*id).unwrap(), history(*id))).collect()
    };
    let everything = look(&reader);
    assert_eq!(archive(&writer, 2 * DAY_MS, DAY_MS), 7);
    assert_eq!(archive(&writer, 2 * DAY_MS, DAY_MS), 0);
    // Nobody can tell which is where.
    assert_eq!(look(&reader), everything);
    for (id, (_, history)) in days.keys().zip(&everything) {
        let last = reader.history(*id, EventId(0), 2, Direction::Backward).unwrap();
        assert_eq!(last, history.iter().rev().take(2).cloned().collect::<Vec<_>>());
        assert_eq!(reader.history(*id, EventId(2), 2, Direction::Forward).unwrap(), history[1..3]);
    }
    writer.close().unwrap();
    drop(reader);
    let report = is_clean(dir.path());
    // The failed one of the second day may still be redriven and has all that this takes.
    assert_eq!((report.rows["archived"], report.rows["history"]), (7, 3 + 2 * 5));
    assert_eq!(report.rows["payloads"], 3 + 2 + 2 * 3);

    let (writer, reader) = opened(on_caller(dir.path()));
    assert_eq!(look(&reader), everything);
    assert_eq!(writer.forget_archived(&Older::than(Timestamp(DAY_MS + 1))).unwrap(), 4);
    for (n, (id, day)) in days.iter().enumerate() {
        assert_eq!(reader.header(*id).unwrap().is_none(), *day == 0 && n > 0);
        assert_eq!(reader.history(*id, EventId(1), 99, Direction::Forward).unwrap().is_empty(), *day == 0 && n > 0);
    }
    assert_eq!((reader.count(Status::Succeeded), reader.count(Status::Failed)), (6, 2));
    assert_eq!(reader.by_name("main", "0-3").unwrap(), None, "the name is free again");
    assert!(!dir.path().join("history-000000.redb").exists());
    assert!(dir.path().join("history-000001.redb").exists());
    drop((writer, reader));
    let report = is_clean(dir.path());
    assert_eq!((report.rows["executions"], report.rows["by_machine"], report.rows["by_name"]), (11, 11, 11));
}

#[test]
fn a_damaged_archive_costs_its_day_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = opened(on_caller(dir.path()));
    let days = three_days(&writer);
    assert_eq!(archive(&writer, 2 * DAY_MS, 2 * DAY_MS), 8);
    drop((writer, reader));
    std::fs::write(dir.path().join("history-000000.redb"), b"nonsense").unwrap();
    let report = check(&(Arc::new(Directory::new(dir.path())) as Arc<dyn Backends>)).unwrap();
    assert!(report.problems.iter().any(|p| p.contains("history-000000.redb")), "{report}");

    let (writer, reader) = opened(on_caller(dir.path()));
    for (n, (id, day)) in days.iter().enumerate() {
        let read = reader.header(*id);
        assert_eq!(read.is_err(), *day == 0 && n > 0);
        assert!(read.is_ok() || matches!(read, Err(conveyor_base::Fault::Damaged { .. })), "it stops nobody");
    }
    assert_eq!(reader.executions(&ExecutionFilter::default(), None, 99).unwrap().items.len(), days.len());
    commit(&writer, |c| c.put_item("t", "k", "{}"));
}
