//! Rows that do not fit: `check` tells each of them.

use super::*;

/// What `check` is for: each kind of damage, made with raw changes of rows, is told.
#[test]
fn check_finds_every_row_that_does_not_fit() {
    use super::super::record::Op;
    use super::super::tables::{self, Payload};
    let intact = tempfile::tempdir().unwrap();
    let id = {
        let (writer, reader) = open(on_caller(intact.path())).unwrap();
        let days = three_days(&writer);
        assert_eq!(archive(&writer, DAY_MS, DAY_MS), 4);
        writer.close().unwrap();
        drop(reader);
        // The one that runs on, the failed one, one that succeeded; the archived one last.
        let ids: Vec<ExecutionId> = days.into_keys().collect();
        [ids[5], ids[6], ids[7], ids[1]]
    };
    is_clean(intact.path());
    let [running, failed, succeeded, archived] = id;
    type Damage = Box<dyn Fn(&mut super::super::record::Record)>;
    let delete = |table, key: Vec<u8>| -> Damage { Box::new(move |record| record.delete(table, &key)) };
    let put = |table, key: Vec<u8>, row: Vec<u8>| -> Damage {
        Box::new(move |record| record.plain(Op::Put, table, &key, &row))
    };
    let stranger = ExecutionId::generate(Timestamp(7));
    let mut page = Vec::new();
    super::super::rows::write(&super::super::rows::map_pages(&map_items().items).next().unwrap(), &mut page);
    let of = |id: ExecutionId| id.to_bytes().to_vec();
    let link = tables::attempt(ExecutionId(9), Attempt(running.0 as u32));
    let damages: Vec<(&str, Damage)> = vec![
        ("lacks a row", delete(Table::ByMachine, tables::by_machine("main", Status::Failed, failed))),
        ("belongs to nothing", put(Table::ByMachine, tables::by_machine("main", Status::Failed, succeeded), vec![])),
        ("cannot be found by its name", delete(Table::ByName, tables::texts("main", "1-1"))),
        ("does not bear it", put(Table::ByName, tables::texts("main", "other"), of(running))),
        ("lacks a row", delete(Table::Timers, tables::timer(Timestamp(900), running, TimerId(0)))),
        ("belongs to nothing", put(Table::Timers, tables::timer(Timestamp(5), failed, TimerId(0)), vec![])),
        ("lacks a row", delete(Table::Outstanding, tables::attempt(running, Attempt(0)))),
        (
            "to another branch",
            put(
                Table::Timers,
                tables::timer(Timestamp(900), running, TimerId(0)),
                tables::waiter(BranchId(0)).to_vec(),
            ),
        ),
        (
            "belongs to nothing",
            put(Table::Submitted, tables::attempt(running, Attempt(0)), tables::waiter(BranchId(1)).to_vec()),
        ),
        ("has no input", delete(Table::Payloads, tables::payload(running, Payload::Input))),
        ("lacks its output", delete(Table::Payloads, tables::payload(succeeded, Payload::Output))),
        ("archived or gone", put(Table::Payloads, tables::payload(archived, Payload::Input), b"1".to_vec())),
        ("lacks event 1", delete(Table::History, tables::history(succeeded, EventId(1)))),
        ("its header says", delete(Table::History, tables::history(succeeded, EventId(5)))),
        ("items are gone", delete(Table::MapItems, tables::branch(running, BranchId(0)))),
        ("items are gone", delete(Table::MapPages, tables::map_page(running, BranchId(0), 1))),
        ("no branch is in", put(Table::MapPages, tables::map_page(running, BranchId(5), 0), page)),
        ("has no input", delete(Table::Archived, of(archived))),
        ("lacks the history", put(Table::Archived, of(succeeded), 0u32.to_be_bytes().to_vec())),
        ("belongs to nothing", put(Table::Archived, of(stranger), 0u32.to_be_bytes().to_vec())),
        ("cannot be found from its parent", delete(Table::Children, link.clone())),
        ("does not exist", put(Table::Children, link.clone(), super::super::rows::child(stranger, "sync2"))),
        (
            "whose end was told",
            put(
                Table::Children,
                tables::attempt(ExecutionId(9), Attempt(failed.0 as u32)),
                super::super::rows::child(failed, "sync2"),
            ),
        ),
        ("has none or no parent", put(Table::Deliveries, of(running), vec![])),
        ("which is gone", delete(Table::Revisions, tables::text_number("main", 3))),
        (
            "a count of executions",
            Box::new(|r| r.add(Table::Counts, &tables::machine_status("main", Status::Failed), 1)),
        ),
        ("a row is not what was written", put(Table::Executions, of(succeeded), vec![1, 2, 3])),
        ("archived or gone", delete(Table::Executions, of(running))),
    ];
    for (n, (expected, damage)) in damages.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(intact.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
        }
        let (writer, reader) = open(on_caller(dir.path())).unwrap();
        let mut commit = Commit::new();
        damage(&mut commit.record);
        writer.commit_blocking(commit).unwrap();
        drop((writer, reader));
        let report = check(&(Arc::new(Directory::new(dir.path())) as Arc<dyn Backends>)).unwrap();
        let told = report.problems.iter().any(|problem| problem.contains(expected));
        assert!(told, "damage {n} should be told as '{expected}': {report}");
    }
}
