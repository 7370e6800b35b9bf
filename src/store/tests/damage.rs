//! What `check` is for: rows that do not fit, and values whose bits have flipped, also where redb's own checksums are
//! right.

use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, TableHandle};

use super::super::record::{Op, Record};
use super::super::rows;
use super::super::tables::{self, Payload};
use super::*;

/// Whatever bit of a stored value flips, on the way there or where it lies, `check` says so.
#[test]
fn check_finds_a_flipped_bit_in_every_value() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    three_days(&writer);
    assert_eq!(archive(&writer, DAY_MS, DAY_MS), 4);
    commit(&writer, |c| c.put_item("t", "k", "{}").put_setting("other", b"1"));
    writer.close().unwrap();
    drop(reader);
    is_clean(dir.path());
    for (file, told) in [("state.redb", "checksum"), ("history-000000.redb", "is not what was written")] {
        let path = dir.path().join(file);
        let intact = std::fs::read(&path).unwrap();
        let mut tables: BTreeMap<String, Vec<Raw>> = BTreeMap::new();
        raw(&path).into_iter().for_each(|row| tables.entry(row.0.clone()).or_default().push(row));
        assert!(tables.values().map(Vec::len).sum::<usize>() >= 8);
        for (table, rows) in tables {
            // The format is what opening goes by, and its number is its own check.
            let rows: Vec<Raw> =
                rows.into_iter().filter(|(_, key, _)| key.as_slice() != super::super::open::FORMAT).collect();
            let flip = |n: usize, mut value: Vec<u8>| {
                let bit = (n * 37 + 5) % (value.len() * 8);
                value[bit / 8] ^= 1 << (bit % 8);
                value
            };
            let wrong = rows.iter().enumerate().map(|(n, (_, key, value))| (key.clone(), flip(n, value.clone())));
            put_raw(&path, &table, wrong.collect());
            let report = check(&(Arc::new(Directory::new(dir.path())) as Arc<dyn Backends>));
            let report = report.map_or_else(|fault| conveyor_base::fault::chain(&fault), |report| report.to_string());
            let found = report.lines().filter(|line| line.contains(told)).count();
            // What is read at opening is refused there, with the first such row.
            let at_opening = ["settings", "counts"].contains(&table.as_str()) && found == 1;
            assert!(found >= rows.len() || at_opening, "{file} {table}: {report}");
            std::fs::write(&path, &intact).unwrap();
        }
    }
    is_clean(dir.path());
}

/// A state file of which a part is gone is refused, with what to do about it, also where it was never closed.
#[test]
fn a_state_file_that_is_cut_is_refused_and_left_as_it_is() {
    let (dir, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (writer, reader) = open(on_caller(dir.path())).unwrap();
    three_days(&writer);
    writer.checkpoint().unwrap();
    // As a kill leaves them.
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), cut.path().join(entry.file_name())).unwrap();
    }
    drop((writer, reader));
    let path = cut.path().join("state.redb");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 100, 4_096, whole.len() / 4, whole.len() / 2, whole.len() - 4_096] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let refused = match open(on_caller(cut.path())) {
            Ok(_) => panic!("{length} bytes of {} are opened", whole.len()),
            Err(fault) => conveyor_base::fault::chain(&fault),
        };
        assert!(refused.contains("conveyor check --repair"), "{length} bytes: {refused}");
    }
    std::fs::write(&path, b"").unwrap();
    drop(open(on_caller(cut.path())));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "nothing is made of it");
    std::fs::write(&path, &whole).unwrap();
    open(on_caller(cut.path())).unwrap();
}

/// What is damaged is an error of whoever reads it, and of nobody who reads or writes something else at that moment: redb
/// gives nothing more out of a file after an error, and it is opened anew under everybody.
#[test]
fn nobody_hears_of_anothers_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { checkpoint_ms: 1, ..Options::at(dir.path()) };
    let (writer, reader) = open(options()).unwrap();
    let text = |name: &str| format!("\"{}\"", name.repeat(2_000));
    commit(&writer, |c| c.put_item("t", "bad", &text("bad")).put_item("t", "good", &text("good")));
    writer.close().unwrap();
    drop(reader);
    let path = dir.path().join("state.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|bytes| bytes == b"badbadbad").unwrap();
    bytes[at + 3_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let (writer, reader) = open(options()).unwrap();
    let (stop, rows) = (std::sync::atomic::AtomicBool::new(false), &reader);
    std::thread::scope(|scope| {
        let bad = scope.spawn(|| {
            let rows = rows.on_this_thread();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let read = rows.item("t", "bad");
                assert!(matches!(read, Err(conveyor_base::Fault::Damaged { .. })), "{read:?}");
            }
        });
        let good = scope.spawn(|| {
            let rows = rows.on_this_thread();
            (0..300).for_each(|_| assert_eq!(rows.item("t", "good").unwrap(), Some(text("good"))));
        });
        for n in 0..100 {
            commit(&writer, |c| c.put_item("t", &format!("new-{n}"), "{}"));
        }
        let good = good.join();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        bad.join().unwrap();
        good.unwrap();
    });
    // What belongs on a page that is damaged stays in the journal, and in memory, with all that comes after it.
    commit(&writer, |c| c.put_item("t", "bad", "\"new\"").put_item("t", "other", "1"));
    let holds = |reader: &Reader| {
        let rows = reader.on_this_thread();
        for (key, json) in [("bad", "\"new\""), ("other", "1"), ("good", &*text("good")), ("new-99", "{}")] {
            assert_eq!(rows.item("t", key).unwrap().as_deref(), Some(json));
        }
    };
    writer.checkpoint().unwrap();
    commit(&writer, |c| c.put_item("t", "new-99", "{}"));
    writer.checkpoint().unwrap();
    holds(&reader);
    assert!(reader.damages().iter().any(|what| what.contains("cannot be written")), "{:?}", reader.damages());
    writer.close().unwrap();
    drop(reader);
    let (writer, reader) = open(options()).unwrap();
    holds(&reader);
    drop((writer, reader));
    let disk: Arc<dyn Backends> = Arc::new(Directory::new(dir.path()));
    let done = repair(&disk).unwrap();
    assert!(done.report.is_clean() && !done.nothing_to_do, "{done}");
    holds(&open(options()).unwrap().1);
}

pub(super) type Raw = (String, Vec<u8>, Vec<u8>);

fn database(path: &Path) -> redb::Database {
    let disk = Directory::new(path.parent().unwrap());
    let file = Blocks::open(&disk, path.file_name().unwrap().to_str().unwrap()).unwrap();
    redb::Builder::new().create_with_backend(file).unwrap()
}

/// The rows of a redb file as they lie there. Archives have numbers for keys.
pub(super) fn raw(path: &Path) -> Vec<Raw> {
    let database = database(path);
    let read = database.begin_read().unwrap();
    let mut rows = Vec::new();
    for handle in read.list_tables().unwrap().filter(|handle| handle.name() != "form") {
        let name = handle.name().to_owned();
        let definition = redb::TableDefinition::<&[u8], &[u8]>::new(&name);
        match read.open_table(definition) {
            Ok(table) => rows.extend(table.iter().unwrap().map(|row| {
                let (key, value) = row.unwrap();
                (name.clone(), key.value().to_vec(), value.value().to_vec())
            })),
            Err(_) => {
                let definition = redb::TableDefinition::<u128, &[u8]>::new(&name);
                rows.extend(read.open_table(definition).unwrap().iter().unwrap().map(|row| {
                    let (key, value) = row.unwrap();
                    (name.clone(), key.value().to_be_bytes().to_vec(), value.value().to_vec())
                }));
            }
        }
    }
    rows
}

pub(super) fn put_raw(path: &Path, table: &str, rows: Vec<(Vec<u8>, Vec<u8>)>) {
    let database = database(path);
    let write = database.begin_write().unwrap();
    for (key, value) in rows {
        if path.ends_with("state.redb") {
            let mut table = write.open_table(redb::TableDefinition::<&[u8], &[u8]>::new(table)).unwrap();
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        } else {
            let key = u128::from_be_bytes(key.try_into().unwrap());
            let mut table = write.open_table(redb::TableDefinition::<u128, &[u8]>::new(table)).unwrap();
            table.insert(key, value.as_slice()).unwrap();
        }
    }
    write.commit().unwrap();
}

/// Each kind of damage, made with raw changes of rows, is told.
#[test]
fn check_finds_every_row_that_does_not_fit() {
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
    type Damage = Box<dyn Fn(&mut Record)>;
    let delete = |table, key: Vec<u8>| -> Damage { Box::new(move |record| record.delete(table, &key)) };
    let put = |table, key: Vec<u8>, row: Vec<u8>| -> Damage {
        Box::new(move |record| record.plain(Op::Put, table, &key, &row))
    };
    let stranger = ExecutionId::generate(Timestamp(7));
    let mut page = Vec::new();
    rows::write(&rows::map_pages(&map_items().items).next().unwrap(), &mut page);
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
        ("does not exist", put(Table::Children, link.clone(), rows::child(stranger, "sync2"))),
        (
            "whose end was told",
            put(
                Table::Children,
                tables::attempt(ExecutionId(9), Attempt(failed.0 as u32)),
                rows::child(failed, "sync2"),
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
