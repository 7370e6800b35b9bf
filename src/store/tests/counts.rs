//! Counts of executions: each has a row for as long as it counts something.

use super::super::envelope::{PLAIN, seal};
use super::super::tables;
use super::damage::{put_raw, raw};
use super::*;

/// How many counts there are: in memory, and in the state file once that is carried over.
fn counts(writer: &Writer, dir: &std::path::Path) -> (usize, usize) {
    writer.checkpoint().unwrap();
    let in_memory = writer.engine().snapshot().counts.len();
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("state.redb");
    std::fs::copy(dir.join("state.redb"), &path).unwrap();
    (in_memory, raw(&path).iter().filter(|(table, ..)| table == tables::Table::Counts.name()).count())
}

/// Every Map run has counts of its own, which nobody asks for once its children are gone.
#[test]
fn a_map_run_whose_children_are_gone_leaves_no_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = opened(on_caller(dir.path()));
    let id = ExecutionId::generate(Timestamp(1_000));
    let mut start = starting(id, "one");
    let header = start.header.as_mut().unwrap();
    header.parent = None;
    header.child = Some(Arc::new(MapChild {
        run: 5,
        parent: ExecutionId(9),
        attempt: Attempt(0),
        state: "Each".into(),
        label: "Each".into(),
        express: true,
        number: 0,
        items: 3,
    }));
    let list = header.list().into_owned();
    let running = after(&start);
    commit(&writer, |c| c.step(None, &start));
    assert_eq!(counts(&writer, dir.path()), (2, 2), "the child, and its items beyond the first");
    commit(&writer, |c| c.step(Some(&running), &ending(&running)));
    assert_eq!(counts(&writer, dir.path()), (2, 2));
    assert_eq!(reader.run_counts(&list).items.iter().sum::<u64>(), 3);
    commit(&writer, |c| c.erase_child(id, &list, Status::Succeeded, 3));
    assert_eq!(counts(&writer, dir.path()), (0, 0));
    assert_eq!(reader.run_counts(&list), RunCounts::default());
    commit(&writer, |c| c.step(None, &start));
    assert_eq!(counts(&writer, dir.path()), (2, 2), "a count may begin anew");
}

/// Builds that kept counts of nothing left them in the file.
#[test]
fn counts_of_nothing_leave_an_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    let start = starting(ExecutionId::generate(Timestamp(1_000)), "one");
    commit(&writer, |c| c.put_revision("main", 3, &revision()).step(None, &start));
    writer.close().unwrap();
    drop(reader);
    let of_nothing = ["main/Each:1", "main/Each:2"].map(|list| {
        let key = tables::machine_status(list, Status::Succeeded);
        let value = seal(tables::Table::Counts, PLAIN, &key, &0i64.to_le_bytes());
        (key, value)
    });
    put_raw(&dir.path().join("state.redb"), tables::Table::Counts.name(), of_nothing.to_vec());
    assert!(check(&(Arc::new(Directory::new(dir.path())) as Arc<dyn Backends>)).unwrap().is_clean());
    let (writer, _) = opened(on_caller(dir.path()));
    assert_eq!(writer.engine().snapshot().counts.len(), 1);
    commit(&writer, |c| c.put_setting("any", b"1"));
    assert_eq!(counts(&writer, dir.path()), (1, 1));
}
