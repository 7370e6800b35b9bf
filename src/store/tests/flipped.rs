//! Values whose bits have flipped: `check` finds each of them, also where redb's own checksums are right.

use std::path::Path;

use redb::{ReadableDatabase, ReadableTable, TableHandle};

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
            let report = report.map_or_else(|fault| crate::base::fault::chain(&fault), |report| report.to_string());
            let found = report.lines().filter(|line| line.contains(told)).count();
            // What is read at opening is refused there, with the first such row.
            let at_opening = ["settings", "counts"].contains(&table.as_str()) && found == 1;
            assert!(found >= rows.len() || at_opening, "{file} {table}: {report}");
            std::fs::write(&path, &intact).unwrap();
        }
    }
    is_clean(dir.path());
}

type Raw = (String, Vec<u8>, Vec<u8>);

/// The rows of a redb file as they lie there. Archives have numbers for keys.
fn raw(path: &Path) -> Vec<Raw> {
    let database = redb::Database::open(path).unwrap();
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

fn put_raw(path: &Path, table: &str, rows: Vec<(Vec<u8>, Vec<u8>)>) {
    let database = redb::Database::open(path).unwrap();
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
