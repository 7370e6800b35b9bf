//! What the crash tests of the whole store cannot aim at: damage that no power cut explains, and bytes made to deceive.

use std::fs;
use std::path::Path;

use super::segment::Frame;
use super::*;
use crate::disk::Directory;

const STORE: StoreId = [7; 16];
const SEGMENT_BYTES: u64 = 32 << 10;

fn journal(path: &Path, applied: u64) -> Result<(Journal, Tail), Fault> {
    Journal::open(Arc::new(Directory::new(path)), STORE, SEGMENT_BYTES, applied)
}

fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Journal::create(&Directory::new(dir.path()), STORE, SEGMENT_BYTES).unwrap();
    dir
}

fn record(number: u64) -> Vec<u8> {
    vec![number as u8; (number as usize * 997) % 12_000]
}

fn numbers(tail: &Tail) -> Vec<u64> {
    tail.keys().copied().collect()
}

#[test]
fn batches_come_back_over_many_files_and_their_reuse() {
    let dir = made();
    let (mut journal_before, _) = journal(dir.path(), 0).unwrap();
    let mut applied = 0;
    for number in 1..=200 {
        let record = record(number);
        let (head, rest) = record.split_at(record.len() / 3);
        journal_before.append(number, &[head, rest], applied).unwrap();
        // The state file falls behind by up to 20 batches, then catches up.
        if number.is_multiple_of(20) {
            applied = number - 3;
            journal_before.tidy(applied).unwrap();
        }
        if number.is_multiple_of(7) {
            let (again, tail) = journal(dir.path(), applied).unwrap();
            assert_eq!(numbers(&tail), (applied + 1..=number).collect::<Vec<_>>());
            assert!(tail.iter().all(|(number, records)| *records == super::tests::record(*number)));
            journal_before = again;
        }
    }
    assert!(names(&Directory::new(dir.path())).unwrap().len() <= 2 + FREE_KEPT, "growth stops");
}

#[test]
fn a_torn_end_is_forgotten_and_damage_before_it_is_refused() {
    let dir = made();
    let (mut before, _) = journal(dir.path(), 0).unwrap();
    for number in 1..=3 {
        before.append(number, &[b"records"], 0).unwrap();
    }
    let path = dir.path().join("journal-0.log");
    let whole = fs::read(&path).unwrap();
    for (batch, expected) in [(3, Ok(vec![1, 2])), (2, Err("batch 2")), (1, Err("batch 1"))] {
        for byte in [0, 5, 9, 17, 25, 30] {
            let mut damaged = whole.clone();
            damaged[batch * BLOCK_BYTES + byte] ^= 0x40;
            fs::write(&path, damaged).unwrap();
            match (journal(dir.path(), 0), &expected) {
                (Ok((_, tail)), Ok(wanted)) => assert_eq!(&numbers(&tail), wanted),
                (Err(fault), Err(wanted)) => assert!(fault.to_string().contains(wanted), "{fault}"),
                (other, _) => panic!("batch {batch}, byte {byte}: {:?}", other.map(|(_, tail)| tail)),
            }
        }
    }
    // Damage to what the state file has already harms nobody.
    assert_eq!(numbers(&journal(dir.path(), 1).unwrap().1), [2, 3]);
}

#[test]
fn bytes_of_others_never_pass_for_a_batch() {
    let dir = made();
    let (mut before, _) = journal(dir.path(), 0).unwrap();
    // A payload that holds a batch of another store, where a block begins.
    let mut deceit = Frame::new();
    deceit.fill([8; 16], 2, &[b"never committed"]);
    let mut payload = vec![0; BLOCK_BYTES - 28];
    payload.extend_from_slice(deceit.bytes());
    before.append(1, &[&payload], 0).unwrap();
    let path = dir.path().join("journal-0.log");
    let mut torn = fs::read(&path).unwrap();
    torn[BLOCK_BYTES + 40] ^= 1;
    fs::write(&path, torn).unwrap();
    assert!(journal(dir.path(), 0).unwrap().1.is_empty());
    let other = Journal::open(Arc::new(Directory::new(dir.path())), [9; 16], SEGMENT_BYTES, 0).err().unwrap();
    assert!(other.to_string().contains("another store"), "{other}");
}
