//! What the crash tests of the whole store cannot aim at: damage that no power cut explains, and bytes made to deceive.

use std::fs;
use std::path::Path;

use super::sector::{SECTOR_BYTES, Seal};
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

/// Three batches of one block each, as they lie in the file.
fn three(dir: &Path) -> Vec<u8> {
    let (mut before, _) = journal(dir, 0).unwrap();
    for number in 1..=3 {
        before.append(number, &[&vec![number as u8; 1_500]], 0).unwrap();
    }
    fs::read(dir.join("journal-0.log")).unwrap()
}

/// A write that the power cut leaves valid sectors, some of them as they were before.
#[test]
fn a_torn_end_is_forgotten() {
    let dir = made();
    let path = dir.path().join("journal-0.log");
    let blank = fs::read(&path).unwrap();
    let whole = three(dir.path());
    for batch in 1..=3 {
        for sectors in 1..255u32 {
            let mut torn = whole.clone();
            for sector in (0..8).filter(|sector| sectors & (1 << sector) != 0) {
                let at = batch * BLOCK_BYTES + sector * SECTOR_BYTES;
                torn[at..at + SECTOR_BYTES].copy_from_slice(&blank[at..at + SECTOR_BYTES]);
            }
            fs::write(&path, torn).unwrap();
            match journal(dir.path(), 0) {
                Ok((_, tail)) => assert_eq!((numbers(&tail), batch), (vec![1, 2], 3)),
                Err(fault) => assert!(batch < 3 && fault.to_string().contains(&format!("batch {batch}")), "{fault}"),
            }
        }
    }
    // One write is torn, and the next one under its number again: their sectors make no batch together.
    fs::write(&path, &whole).unwrap();
    let (mut again, _) = journal(dir.path(), 0).unwrap();
    again.append(4, &[&[1; 1_500]], 0).unwrap();
    let first = fs::read(&path).unwrap();
    fs::write(&path, &whole).unwrap();
    let (mut again, _) = journal(dir.path(), 0).unwrap();
    again.append(4, &[&[2; 1_500]], 0).unwrap();
    let mut mixed = fs::read(&path).unwrap();
    let at = 4 * BLOCK_BYTES + SECTOR_BYTES;
    mixed[at..at + SECTOR_BYTES].copy_from_slice(&first[at..at + SECTOR_BYTES]);
    fs::write(&path, mixed).unwrap();
    assert_eq!(numbers(&journal(dir.path(), 0).unwrap().1), [1, 2, 3]);
}

/// Whatever bit flips of a batch that the state file lacks, also of the newest, opening says so; and so it does where whole
/// blocks are gone, or the file's end.
#[test]
fn rot_is_told_from_a_torn_end() {
    let dir = made();
    let path = dir.path().join("journal-0.log");
    let whole = three(dir.path());
    let opened = |bytes: &[u8], applied| {
        fs::write(&path, bytes).unwrap();
        journal(dir.path(), applied).map(|(_, tail)| numbers(&tail)).map_err(|fault| {
            assert!(matches!(fault, Fault::Damaged { .. }), "{fault}");
            fault.to_string()
        })
    };
    for bit in (BLOCK_BYTES * 8..5 * BLOCK_BYTES * 8).step_by(411) {
        let (batch, mut flipped) = (bit / 8 / BLOCK_BYTES, whole.clone());
        flipped[bit / 8] ^= 1 << (bit % 8);
        match opened(&flipped, 0) {
            Ok(tail) => assert!(batch > 3 && tail == [1, 2, 3], "bit {bit}"),
            Err(refused) => assert!(refused.contains(&format!("batch {batch} ")), "bit {bit}: {refused}"),
        }
        // Damage to what the state file has already harms nobody.
        assert_eq!(opened(&flipped, 3), Ok(vec![]), "bit {bit}");
    }
    for (first, blocks) in [(1, 1), (2, 1), (3, 1), (2, 2), (1, 3), (1, 6)] {
        let mut zeroed = whole.clone();
        zeroed[first * BLOCK_BYTES..][..blocks * BLOCK_BYTES].fill(0);
        assert!(opened(&zeroed, 0).is_err(), "{blocks} from {first}");
    }
    let mut swapped = whole.clone();
    let (front, back) = swapped[BLOCK_BYTES..].split_at_mut(BLOCK_BYTES);
    front.swap_with_slice(&mut back[..BLOCK_BYTES]);
    assert!(opened(&swapped, 0).is_err());
    for blocks in 0..whole.len() / BLOCK_BYTES {
        assert!(opened(&whole[..blocks * BLOCK_BYTES], 0).is_err(), "{blocks} are left");
    }
    // The head says nothing that is not known otherwise.
    let mut headless = whole.clone();
    headless[20] ^= 4;
    assert_eq!(opened(&headless, 0), Ok(vec![1, 2, 3]));
    assert_eq!(fs::read(&path).unwrap(), whole, "it is written anew");
}

#[test]
fn bytes_of_others_never_pass_for_a_batch() {
    let dir = made();
    let (mut before, _) = journal(dir.path(), 0).unwrap();
    // A payload that holds a batch of this store, sector by sector, as if for the place where it comes to lie.
    let mut deceit = Frame::new();
    deceit.fill(2, &[b"never committed"]);
    let mut payload = vec![0; 488 + 7 * 500];
    payload.extend_from_slice(deceit.at(16, Seal::of(STORE)));
    before.append(1, &[&payload], 0).unwrap();
    assert_eq!(numbers(&journal(dir.path(), 0).unwrap().1), [1]);
    let other = Journal::open(Arc::new(Directory::new(dir.path())), [9; 16], SEGMENT_BYTES, 0).err().unwrap();
    assert!(other.to_string().contains("another store"), "{other}");
}
