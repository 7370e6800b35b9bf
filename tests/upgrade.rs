//! A store that release 0.1 left when it was killed comes to this release's form: as it was, and wherever the power goes
//! meanwhile.
//!
//! The files are that release's own (`tests/data/release-0.1`), and so is the list of rows that they are judged by.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use conveyor_base::{Attempt, EventId, ExecutionId};
use conveyor_interpreter::{Doing, Status};
use conveyor_store::sim::SimDisk;
use conveyor_store::{
    Backends, Blocks, Direction, Directory, ExecutionFilter, ObjectField, Options, Scans, Stamp, Table, TableRow,
    Threads, check, open, upgrade,
};
use conveyor_testing::served::Served;
use redb::{ReadableDatabase, ReadableTable, TableHandle};
use serde_json::{Value, json};

const FILES: [&str; 3] = ["state.redb", "journal-0.log", "history-020787.redb"];
const ARCHIVE: &str = "history-020787.redb";

fn unpacked(name: &str) -> Vec<u8> {
    static UNPACKED: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut unpacked = UNPACKED.lock().unwrap();
    unpacked.entry(name.to_owned()).or_insert_with(|| unpack(name)).clone()
}

fn unpack(name: &str) -> Vec<u8> {
    let path = conveyor_testing::root().join("tests/data/release-0.1").join(format!("{name}.zst"));
    zstd::stream::decode_all(std::fs::File::open(path).unwrap()).unwrap()
}

fn in_folder(dir: &Path) {
    for name in FILES {
        std::fs::write(dir.join(name), unpacked(name)).unwrap();
    }
}

fn on_caller(backends: Arc<dyn Backends>) -> Options {
    Options { threads: Threads::Caller { checkpoint_every: 0 }, ..Options::on(backends) }
}

/// Rows as they lie: file and table, key, value.
type Rows = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn raw(file: &Path) -> Rows {
    let disk = Directory::new(file.parent().unwrap());
    let blocks = Blocks::open(&disk, file.file_name().unwrap().to_str().unwrap()).unwrap();
    let database = redb::Builder::new().create_with_backend(blocks).unwrap();
    let read = database.begin_read().unwrap();
    let mut rows = Rows::new();
    for handle in read.list_tables().unwrap() {
        let name = handle.name();
        let mut table = BTreeMap::new();
        if file.ends_with("state.redb") {
            let stored = read.open_table(redb::TableDefinition::<&[u8], &[u8]>::new(name)).unwrap();
            for (key, value) in stored.iter().unwrap().map(Result::unwrap) {
                table.insert(key.value().to_vec(), value.value().to_vec());
            }
        } else if name != "form" {
            let stored = read.open_table(redb::TableDefinition::<u128, &[u8]>::new(name)).unwrap();
            for (key, value) in stored.iter().unwrap().map(Result::unwrap) {
                table.insert(key.value().to_be_bytes().to_vec(), value.value().to_vec());
            }
        }
        rows.insert(name.to_owned(), table);
    }
    rows
}

/// The rows as release 0.1 read them back.
fn listed() -> Rows {
    let listed: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&unpacked("rows.json")).unwrap();
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let row = |(key, value): (String, String)| (bytes(&key), bytes(&value));
    listed.into_iter().map(|(table, rows)| (table, rows.into_iter().map(row).collect())).collect()
}

/// Takes a value out of its envelope, whose checksum is reckoned here by itself.
fn content(table: Table, key: &[u8], value: &[u8]) -> (u8, Vec<u8>) {
    let (version, content) = (value[0], &value[5..]);
    let parts = [&[table as u8, version][..], &(key.len() as u32).to_le_bytes(), key, content].concat();
    assert_eq!(value[1..5], crc32fast::hash(&parts).to_le_bytes(), "{table:?} {key:?}");
    (version, content.to_vec())
}

const PLAIN: [Table; 11] = [
    Table::Payloads,
    Table::Timers,
    Table::Deliveries,
    Table::ByMachine,
    Table::ByName,
    Table::Counts,
    Table::Settings,
    Table::Archived,
    Table::Children,
    Table::MapRunNames,
    Table::ItemPages,
];
/// Their rows are other rows now.
const CHANGED: [Table; 4] = [Table::Schedules, Table::Alarms, Table::RemoteJobs, Table::MapItems];

/// Each row that stayed what it was, byte for byte, in its envelope.
fn every_row_is_as_it_was(dir: &Path) {
    let (listed, now) = (listed(), raw(&dir.join("state.redb")));
    for table in Table::ALL.iter().filter(|table| (**table as u8) < 30 && !CHANGED.contains(table)) {
        let (was, mut is) = (&listed[table.name()], now[table.name()].clone());
        for (key, value) in was {
            let moved = match table {
                Table::Items => [
                    &b"$"[..],
                    b".landings.incoming\0\x01E",
                    b".landings.incoming\0\x01b",
                    b"conveyor.objects\0\x01archive",
                ]
                .iter()
                .any(|own| key.starts_with(own)),
                // Where there are none there is no row.
                Table::Counts => value[..] == 0i64.to_le_bytes(),
                Table::Settings => {
                    key.starts_with(b"tables.") || key == b"predict.learnt" || key.starts_with(b"store.")
                }
                _ => false,
            };
            if moved {
                continue;
            }
            let found = is.remove(key).unwrap_or_else(|| panic!("{table:?} {key:?} is gone"));
            let (version, content) = content(*table, key, &found);
            assert_eq!(version, 1);
            if *table == Table::Timers && !content.is_empty() {
                // It leads to the branch that it wakes now: `check` sees to it that it is the right one.
                continue;
            }
            assert_eq!(content, value[usize::from(!PLAIN.contains(table))..], "{table:?} {key:?}");
        }
        is.retain(|key, _| !key.starts_with(b"store."));
        assert!(is.is_empty(), "{table:?} has more than before: {is:?}");
    }
    let archive = raw(&dir.join(ARCHIVE));
    for (name, table) in [("payloads", Table::Payloads), ("history", Table::History)] {
        let was = &listed[&format!("{ARCHIVE}/{name}")];
        assert_eq!(archive[name].len(), was.len());
        for (key, value) in &archive[name] {
            let (_, packed) = content(table, key, value);
            assert_eq!(zstd::stream::decode_all(packed.as_slice()).unwrap(), was[key][1..], "{name} {key:?}");
        }
    }
}

/// What the API of release 0.1 showed, but for the row that a workflow had put among the audit entries.
fn shown() -> Value {
    let mut shown: Value = serde_json::from_slice(&unpacked("shown.json")).unwrap();
    let entries = shown["/audit?limit=1000"]["deeds"].as_array_mut().unwrap();
    let all = entries.len();
    entries.retain(|entry| entry["at"].is_number());
    assert_eq!(entries.len(), all - 1);
    shown
}

/// What was the box's own, read through the store's own interface.
fn own_records_are_as_they_were(reader: &Scans) {
    let shown = shown();
    let audit = reader.audit(None, 1_000).unwrap().into_iter().map(|(_, row)| {
        json!({"at": row.at.0, "who": row.who, "role": row.role, "door": row.api, "what": row.what, "to": row.to,
            "status": row.status})
    });
    assert_eq!(json!(audit.collect::<Vec<_>>()), shown["/audit?limit=1000"]["deeds"]);

    let approvals = reader.approvals(None, 99).unwrap();
    assert_eq!(approvals.len(), 3);
    for (id, attempt, row) in &approvals {
        let shown = shown["/approvals"]["approvals"].as_array().unwrap();
        let shown = shown.iter().find(|shown| shown["id"] == format!("{id}-{attempt}")).unwrap();
        let asked: Value = serde_json::from_str(&row.asked).unwrap();
        assert_eq!(
            (json!(row.title), json!(row.state), asked),
            (shown["title"].clone(), shown["state"].clone(), shown["asked"].clone())
        );
        assert_eq!(json!(row.since.0), shown["since"]);
        assert_eq!(reader.approval(*id, *attempt).unwrap().as_ref(), Some(row));
    }
    let delivered = reader.delivered(99).unwrap();
    let was = shown["/notifications"]["delivered"].as_array().unwrap();
    // The newest was delivered after the API showed them.
    assert!(delivered.len() >= was.len() && delivered.is_sorted_by_key(|(number, _)| u64::MAX - number));
    for shown in was {
        let found = |row: &conveyor_store::DeliveredRow| {
            json!({"target": row.target, "body": row.body, "attempts": row.attempts, "createdAt": row.created_at.0,
                "deliveredAt": row.delivered_at.0})
        };
        let mut shown = shown.clone();
        shown.as_object_mut().unwrap().shift_remove("event");
        assert!(delivered.iter().any(|(_, row)| found(row) == shown), "{shown}");
    }

    let upload = shown["upload"].as_str().unwrap().rsplit('/').next().unwrap();
    let upload = reader.upload(upload).unwrap().unwrap();
    assert_eq!(
        (upload.share.as_str(), upload.key.as_str(), upload.bytes, upload.by.as_str()),
        ("archive", "in/half ü.mov", 10, "local")
    );
    assert!(upload.part.ends_with(".part"));
    let landings = reader.landings("incoming", None, 99).unwrap();
    assert_eq!(landings.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["Ein Film.txt", "b.txt"]);
    for (_, row) in landings {
        assert!(reader.by_name("ingested", &row.execution).unwrap().is_some() && row.sight > 0);
    }
    let object = reader.object("archive", "notes/j-1.txt").unwrap().unwrap();
    let field = |name: &str, json: &str| ObjectField { name: name.into(), json: json.into() };
    let metadata = r#"{"who":"me","why":"ünder"}"#;
    assert_eq!(
        object.fields,
        [field("CacheControl", "\"no-cache\""), field("ContentType", "\"text/x-log\""), field("Metadata", metadata)]
    );
    assert!(object.etag.starts_with('"'));
    assert!(reader.object("archive", "notes/j-2.txt").unwrap().is_some(), "only the journal had it");

    let table = |key: &str, range: Option<&str>| Some(TableRow { key: key.into(), range: range.map(str::to_owned) });
    assert_eq!(reader.table("films").unwrap(), table("Id", None));
    assert_eq!(reader.table("parts").unwrap(), table("Film", Some("Part")));
    assert_eq!((reader.table("$audit").unwrap(), reader.table("broken").unwrap()), (None, None));
    let learnt = reader.calibration().unwrap().unwrap();
    assert_eq!((learnt.cores.jobs, learnt.cores.log_ratio, learnt.gpus.jobs, learnt.last_on_gpu), (3, 0.25, 0, false));

    let schedules = &shown["/schedules"]["schedules"];
    for (name, row) in reader.schedules().unwrap() {
        let shown = schedules.as_array().unwrap().iter().find(|shown| shown["name"] == *name);
        assert!(shown.is_none_or(|shown| shown["lastAt"] == row.last.0), "{name}");
    }
    assert!(reader.schedule("hourly").unwrap().is_some());
    let alarms = reader.alarms().unwrap();
    for shown in shown["/alarms"]["alarms"].as_array().unwrap() {
        let (_, row) = alarms.iter().find(|(name, _)| *name == shown["name"]).unwrap();
        assert_eq!(
            (json!(row.raised), json!(row.reason), json!(row.since.0)),
            (shown["raised"].clone(), shown["reason"].clone(), shown["since"].clone())
        );
    }
    let (_, cleared) = alarms.iter().find(|(name, _)| name == "lane cpu").unwrap();
    let history: Vec<_> = cleared.history.iter().map(|change| (change.at, change.raised)).collect();
    assert_eq!(history, [(Stamp(1_700_000_003_000), false), (Stamp(1_700_000_002_000), true)]);
    assert_eq!(reader.remote_jobs().unwrap().len(), 2);
    let job = reader.remote_job(ExecutionId(77), Attempt(2)).unwrap().unwrap();
    assert_eq!(
        (job.service.as_str(), job.start.as_str(), job.answer.as_str()),
        ("glue", "StartJobRun", r#"{"JobRunId":"jr_2"}"#)
    );
    assert_eq!((job.ask.as_str(), job.stop.as_str()), (r#"{"RunId":"jr_2"}"#, "{}"));
}

/// Executions, items and queues, as whoever works with them finds them.
fn everything_is_found(reader: &Scans) {
    let page = reader.executions(&ExecutionFilter::default(), None, 1_000).unwrap();
    let listed = listed();
    let children = 3 + 4 + 1;
    assert_eq!(page.items.len() + children, listed["executions"].len());
    let mut archived = 0;
    let (mut submitted, mut items) = (0, 0);
    for summary in &page.items {
        let execution = reader.execution(summary.id).unwrap().unwrap();
        for (id, branch) in &execution.branches {
            if let Some(attempt) = branch.doing.attempt() {
                assert_eq!(reader.branch_of_attempt(summary.id, attempt).unwrap(), Some(*id));
                submitted += usize::from(reader.outstanding_task(summary.id, attempt).unwrap().is_none());
            }
            if let Doing::Map { length, .. } = branch.doing {
                assert_eq!(execution.items[id].items.len(), length as usize);
                items += length;
            }
        }
        assert_eq!(reader.by_name(&summary.machine.name, &summary.name).unwrap(), Some(summary.id));
        let history = reader.history(summary.id, EventId(1), 999, Direction::Forward).unwrap();
        assert_eq!(history.len() as u64, execution.header.last_event.0);
        archived += usize::from(reader.is_archived(summary.id).unwrap());
    }
    assert!(archived >= 7 && submitted >= 2 && items >= 2, "{archived} {submitted} {items}");
    let header = |machine: &str, name: &str| {
        let id = reader.by_name(machine, name).unwrap().unwrap();
        reader.header(id).unwrap().unwrap()
    };
    assert_eq!(&*header("passes", "pass-2").input, r#"{"n": 2}"#);
    assert_eq!(header("waits", "wait-1").status, Status::Aborted);
    // Only the journal had it.
    assert_eq!(
        (header("waits", "wait-2").status, &*header("waits", "wait-2").input),
        (Status::Running, r#"{"late": true}"#)
    );
    let items = |table: &str| reader.items(table, None, 99).unwrap();
    assert_eq!(items("jobs").len(), 2);
    assert_eq!(items("films")[0].1, r#"{"Id":{"S":"j-1"},"title":{"S":"Ä film"}}"#);
    // What a workflow had put where it had no business: kept where a user can name the table.
    assert_eq!(items("conveyor.objects").len(), 1);
    assert_eq!(items(".landings.incoming").len(), 1);
    for own in ["$audit", "$approvals", "$uploads", "$delivered"] {
        assert_eq!(items(own), []);
    }
    let messages = reader.messages("work", 0, 99).unwrap();
    assert_eq!(messages.iter().map(|(_, row)| row.body.as_str()).collect::<Vec<_>>(), ["m 0", "m 1", "m 2"]);
    assert_eq!(reader.messages("orders.fifo", 0, 99).unwrap().len(), 2);
    assert_eq!(
        (reader.events(None, 99).unwrap().len(), reader.outbox(None, 99).unwrap().len()),
        (1, listed["outbox"].len())
    );
    assert!(reader.claim("c0ffee").unwrap().is_some());
}

#[test]
fn a_store_of_release_0_1_is_refused_until_it_is_upgraded_and_then_all_is_there() {
    let dir = tempfile::tempdir().unwrap();
    in_folder(dir.path());
    let backends: Arc<dyn Backends> = Arc::new(Directory::new(dir.path()));
    let refused = open(on_caller(backends.clone())).err().unwrap().to_string();
    assert!(refused.contains("has format 4") && refused.ends_with("run `conveyor upgrade`"), "{refused}");
    assert!(check(&backends).is_err(), "and so is a check");

    let done = upgrade(&backends).unwrap();
    let left_out = [
        ("table '$audit'", 1),
        ("table '$uploads'", 1),
        ("the setting 'tables.$approvals'", 1),
        ("the setting 'tables.$audit'", 1),
        ("the setting 'tables.broken'", 1),
    ];
    assert_eq!(done.left_out, left_out.map(|(what, rows)| (what.to_owned(), rows)).into());
    let said = done.to_string();
    assert!(
        said.starts_with("upgraded the files from format 4 to format 6, with the archives of 1 day(s)\n"),
        "{said}"
    );
    every_row_is_as_it_was(dir.path());
    let report = check(&backends).unwrap();
    assert!(report.is_clean(), "{report}");
    let before = (raw(&dir.path().join("state.redb")), raw(&dir.path().join(ARCHIVE)));
    assert!(upgrade(&backends).unwrap().to_string().ends_with("nothing to do"));
    same(&(raw(&dir.path().join("state.redb")), raw(&dir.path().join(ARCHIVE))), &before, "a second time");

    let (writer, reader) = open(on_caller(backends.clone())).unwrap();
    own_records_are_as_they_were(&reader.on_this_thread());
    everything_is_found(&reader.on_this_thread());
    // And it goes on.
    let mut commit = conveyor_store::Commit::new();
    commit.put_item("films", "new", "{}");
    writer.commit_blocking(commit).unwrap();
    drop((writer, reader));
    let (_writer, reader) = open(on_caller(backends)).unwrap();
    assert_eq!(reader.item("films", "new").unwrap().as_deref(), Some("{}"));
}

/// The rows are too many to be shown: the first that differs is.
fn same(found: &(Rows, Rows), expected: &(Rows, Rows), at: &str) {
    for (found, expected) in [(&found.0, &expected.0), (&found.1, &expected.1)] {
        assert!(found.keys().eq(expected.keys()), "{at}: other tables");
        for (name, rows) in expected {
            for key in rows.keys().chain(found[name].keys()) {
                assert_eq!(found[name].get(key), rows.get(key), "{at}: table {name}, key {}", key.escape_ascii());
            }
        }
    }
}

/// A disk with the old files on it.
fn on_sim(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    for name in FILES {
        let file = disk.open(name).unwrap();
        file.write(0, &unpacked(name)).unwrap();
        file.sync_data().unwrap();
    }
    disk
}

/// The files of the disk, as rows.
fn rows_of(disk: &SimDisk) -> (Rows, Rows) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["state.redb", ARCHIVE] {
        let file = disk.open(name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read(0, &mut bytes).unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    (raw(&dir.path().join("state.redb")), raw(&dir.path().join(ARCHIVE)))
}

#[test]
fn an_upgrade_that_loses_power_anywhere_comes_to_the_same_files() {
    let backends = |disk: &SimDisk| -> Arc<dyn Backends> { Arc::new(disk.clone()) };
    let disk = on_sim(0);
    let first = disk.operations() + 1;
    upgrade(&backends(&disk)).unwrap();
    let last = disk.operations();
    let expected = rows_of(&disk);
    assert!(last > first + 20, "an upgrade writes");

    let mut interrupted = [0; 2];
    // `STORE_CRASH_SEEDS` widens the search, as it does for the store itself.
    let step = if std::env::var_os("STORE_CRASH_SEEDS").is_some() { 1 } else { 3 };
    for operation in (first..=last).step_by(step) {
        let at = format!("operation {operation} of {first} to {last}");
        let mut disk = on_sim(operation);
        disk.crash_at(operation);
        // The very last one may be lost without anybody being the wiser.
        let ended = upgrade(&backends(&disk)).is_ok();
        disk = disk.restart();
        if operation % 4 == 0 {
            disk.crash_at(1 + operation % 41);
            let _ = upgrade(&backends(&disk));
            disk = disk.restart();
        }
        match open(on_caller(backends(&disk))) {
            Ok(opened) => drop(opened),
            Err(fault) => {
                let fault = fault.to_string();
                assert!(!ended && fault.contains("run `conveyor upgrade`"), "{at}: {fault}");
                interrupted[usize::from(fault.contains("again"))] += 1;
            }
        }
        upgrade(&backends(&disk)).unwrap();
        same(&rows_of(&disk), &expected, &at);
        if operation % 5 == 0 {
            let report = check(&backends(&disk)).unwrap();
            assert!(report.is_clean(), "{at}: {report}");
        }
        let leftovers: Vec<String> = disk.names().unwrap().into_iter().filter(|name| name.ends_with(".new")).collect();
        assert_eq!(leftovers, [""; 0], "{at}");
    }
    assert!(interrupted.iter().all(|times| *times > 3), "before and after the first rename: {interrupted:?}");
}

const FORM_5: [&str; 4] = ["state.redb", "journal-0.log", "history-000000.redb", "history-000001.redb"];

fn in_form_5(dir: &Path) {
    for name in FORM_5 {
        let path = conveyor_testing::root().join("tests/data/form-5").join(format!("{name}.zst"));
        let bytes = zstd::stream::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    }
}

/// Form 5 had the same rows, and no checksums under its pages and in its journal's sectors.
#[test]
fn a_store_of_form_5_gets_checksums_and_keeps_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    in_form_5(dir.path());
    let backends: Arc<dyn Backends> = Arc::new(Directory::new(dir.path()));
    let refused = open(on_caller(backends.clone())).err().unwrap().to_string();
    assert!(refused.contains("has format 5") && refused.ends_with("run `conveyor upgrade`"), "{refused}");
    let said = upgrade(&backends).unwrap().to_string();
    assert_eq!(said, "upgraded the files from format 5 to format 6, with the archives of 2 day(s)");
    let report = check(&backends).unwrap();
    assert!(report.is_clean(), "{report}");

    let (writer, opened) = open(on_caller(backends.clone())).unwrap();
    let reader = opened.on_this_thread();
    let page = reader.executions(&ExecutionFilter::default(), None, 1_000).unwrap();
    assert_eq!(page.items.len(), 16);
    let archived = page.items.iter().filter(|one| reader.is_archived(one.id).unwrap()).count();
    assert_eq!((archived, reader.count(Status::Running), reader.count(Status::Succeeded)), (7, 4, 9));
    for summary in &page.items {
        let execution = reader.execution(summary.id).unwrap().unwrap();
        let history = reader.history(summary.id, EventId(1), 99, Direction::Forward).unwrap();
        assert_eq!(history.len() as u64, execution.header.last_event.0);
    }
    let late = reader.by_name("main", "late").unwrap().unwrap();
    assert_eq!(reader.execution(late).unwrap().unwrap().branches.len(), 2);
    let items = reader.items("t", None, 1_000).unwrap();
    assert_eq!(items.len(), 40);
    assert!(items.iter().any(|(key, _)| key == "late") && items.iter().all(|(key, _)| key != "k7"));
    // The old journal gives way to a new one.
    for n in 0..9 {
        let mut commit = conveyor_store::Commit::new();
        commit.put_item("t", &format!("new-{n}"), "{}");
        writer.commit_blocking(commit).unwrap();
    }
    writer.checkpoint().unwrap();
    drop((writer, opened, reader));
    let (_writer, reader) = open(on_caller(backends)).unwrap();
    assert_eq!(reader.on_this_thread().items("t", None, 1_000).unwrap().len(), 49);
}

/// What is damaged already must not get a checksum that says otherwise.
#[test]
fn damage_in_a_store_of_form_5_is_not_taken_along() {
    let dir = tempfile::tempdir().unwrap();
    for (name, places, least) in [("state.redb", 40, 5), ("history-000000.redb", 10, 1)] {
        in_form_5(dir.path());
        let path = dir.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        // Where pages are: a byte that is not 0.
        let bytes: Vec<usize> = (4096..whole.len()).filter(|at| whole[*at] != 0).collect();
        let mut refused = 0;
        for n in 0..places {
            in_form_5(dir.path());
            let mut flipped = whole.clone();
            flipped[bytes[n * bytes.len() / places]] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            let backends: Arc<dyn Backends> = Arc::new(Directory::new(dir.path()));
            match upgrade(&backends) {
                Err(fault) => {
                    let text = conveyor_base::fault::chain(&fault);
                    assert!(text.contains(name) || text.contains("one of history-*.redb"), "{text}");
                    refused += 1;
                }
                Ok(_) => assert!(check(&backends).unwrap().is_clean(), "it was in a page that nothing led to"),
            }
        }
        assert!(refused >= least, "{name}: {refused} of {places}");
    }
}

/// The API shows what it showed before.
#[tokio::test]
async fn an_upgraded_box_answers_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let (data, shares) = (dir.path().join("data"), dir.path().join("shares"));
    std::fs::create_dir_all(data.join("store")).unwrap();
    in_folder(&data.join("store"));
    let done = Command::new(conveyor_testing::binary()).args(["upgrade", "--data-dir"]).arg(&data).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && said.contains("left out 1 row(s) of table '$audit'"), "{said}");

    let mut config = format!("data_dir = \"{}\"\nlisten = \"127.0.0.1:0\"\n", data.display());
    for share in ["incoming", "outputs", "archive", "quarantine"] {
        std::fs::create_dir_all(shares.join(share)).unwrap();
        config += &format!("[shares.{share}]\npath = \"{}\"\n", shares.join(share).display());
    }
    std::fs::write(dir.path().join("conveyor.toml"), config).unwrap();
    let served = Served::start(dir.path());
    let shown = shown();
    for path in ["/audit?limit=1000", "/approvals"] {
        let mut answer = served.get(path).await;
        // What release 0.1 called deeds is called entries, and their doors apis; both are there under both names.
        if let Some(entries) = answer.as_object_mut().and_then(|answer| answer.shift_remove("entries")) {
            assert_eq!(entries, answer["deeds"]);
            for entry in answer["deeds"].as_array_mut().unwrap() {
                let api = entry.as_object_mut().unwrap().shift_remove("api").unwrap();
                assert_eq!(api, entry["door"]);
            }
        }
        assert_eq!(answer.to_string(), shown[path].to_string(), "{path}");
    }
}
