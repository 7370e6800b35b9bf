//! What it costs that stored bytes are verified whenever they are read: redb on a file as it is, and redb on blocks with
//! checksums as the store has it, with the same work side by side.

use std::path::Path;
use std::sync::Arc;

use conveyor_store::{Backends, Blocks, Directory};
use conveyor_testing::yardstick::{self, Series};
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, TableDefinition};

const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");
const ROW: [u8; 256] = [7; 256];
/// So little that nearly every page comes from the file.
const CACHE_BYTES: usize = 1 << 20;

/// Where redb has its pages from.
#[derive(Clone, Copy)]
enum Under {
    File,
    Blocks,
}

fn database(folder: &Path, under: Under) -> Database {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    let opened = match under {
        Under::File => {
            let path = folder.join("plain");
            let file =
                std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
            builder.create_with_backend(FileBackend::new(file).unwrap())
        }
        Under::Blocks => {
            let disk: Arc<dyn Backends> = Arc::new(Directory::new(folder));
            builder.create_with_backend(Blocks::open(&*disk, "blocks").unwrap())
        }
    };
    opened.unwrap()
}

fn commit(database: &Database, rows: impl Iterator<Item = u64>) {
    let mut transaction = database.begin_write().unwrap();
    // In two phases, which blocks ask for.
    transaction.set_quick_repair(true);
    let mut table = transaction.open_table(ROWS).unwrap();
    for row in rows {
        table.insert(row, ROW.as_slice()).unwrap();
    }
    drop(table);
    transaction.commit().unwrap();
}

/// A row of 256 bytes in a commit of its own, after which the disk has it.
#[allow(dead_code)]
pub fn commits(rounds: usize) {
    compare("redb in two phases, one row", |folder, under| {
        let database = database(folder, under);
        yardstick::measure(rounds, |n| commit(&database, std::iter::once(n as u64)))
    });
}

/// A row of 256 bytes out of so many, most of which are in no cache of redb's.
#[allow(dead_code)]
pub fn reads(rows: u64, rounds: usize) {
    compare("redb, one row from the file", |folder, under| {
        commit(&database(folder, under), 0..rows);
        let database = database(folder, under);
        yardstick::measure(rounds, |n| {
            let table = database.begin_read().unwrap().open_table(ROWS).unwrap();
            assert!(table.get(n as u64 * 7_919 % rows).unwrap().is_some());
        })
    });
}

fn compare(what: &str, run: impl Fn(&Path, Under) -> Series) {
    let folder = yardstick::folder("verified");
    let (plain, verified) = (run(&folder, Under::File), run(&folder, Under::Blocks));
    for (how, series) in [("plain", &plain), ("verified", &verified)] {
        println!("{what:<28} {how:<9} p50 {:7.1} µs   p99 {:7.1} µs", series.at(50), series.at(99));
    }
    println!(
        "{what:<28} verified / plain  p50 {:.2}   p99 {:.2}",
        verified.at(50) / plain.at(50),
        verified.at(99) / plain.at(99)
    );
    std::fs::remove_dir_all(folder).unwrap();
}
