//! What comes back is what was written, whatever becomes of the bytes.

use super::*;
use crate::sim::SimDisk;

fn filled(disk: &SimDisk, count: u64) -> Blocks {
    let blocks = Blocks::open(disk, "f").unwrap();
    blocks.set_len(count * BLOCK).unwrap();
    blocks.write(0, &[9; 320]).unwrap();
    for number in 1..count {
        blocks.write(number * BLOCK, &[number as u8; BLOCK_BYTES]).unwrap();
    }
    blocks.sync_data().unwrap();
    blocks
}

#[test]
fn what_was_written_comes_back_over_groups_and_lengths() {
    let disk = SimDisk::new(1);
    for count in [2, 1023, 1024, 1025, 2049] {
        let blocks = filled(&disk, count);
        assert_eq!(blocks.len().unwrap(), count * BLOCK, "{count}");
        let again = Blocks::open(&disk, "f").unwrap();
        assert_eq!((again.form().unwrap(), again.len().unwrap()), (Form::Blocks, count * BLOCK));
        let mut all = vec![0; (count as usize - 1) * BLOCK_BYTES];
        again.read(BLOCK, &mut all).unwrap();
        assert!(all.chunks(BLOCK_BYTES).zip(1u64..).all(|(block, n)| block.iter().all(|b| *b == n as u8)));
        assert_eq!(again.suspects(&*disk.open("f").unwrap(), 0, count).unwrap(), [0; 0]);
    }
    // What was cut off does not come back with the length.
    let blocks = Blocks::open(&disk, "f").unwrap();
    blocks.set_len(10 * BLOCK).unwrap();
    blocks.set_len(20 * BLOCK).unwrap();
    blocks.sync_data().unwrap();
    let mut block = vec![0; BLOCK_BYTES];
    for blocks in [blocks, Blocks::open(&disk, "f").unwrap()] {
        blocks.read(9 * BLOCK, &mut block).unwrap();
        assert!(Rotten::of(&blocks.read(10 * BLOCK, &mut block).unwrap_err()).is_some());
    }
}

/// Every bit of every sector that is read, a block in another's place, and a file that ends early.
#[test]
fn nothing_that_changed_is_read() {
    let disk = SimDisk::new(1);
    let count = 4;
    filled(&disk, count);
    let raw = disk.open("f").unwrap();
    let mut whole = vec![0; raw.len().unwrap() as usize];
    raw.read(0, &mut whole).unwrap();
    let read = |bytes: &[u8]| -> Vec<bool> {
        let disk = SimDisk::new(1);
        disk.open("f").unwrap().write(0, bytes).unwrap();
        let blocks = Blocks::open(&disk, "f").unwrap();
        let mut out = vec![0; BLOCK_BYTES];
        let mut header = [0; 320];
        let head = match blocks.read(0, &mut header) {
            Ok(()) => header == [9; 320],
            Err(e) => Rotten::of(&e).is_none(),
        };
        assert!(head || bytes[..BLOCK_BYTES] != whole[..BLOCK_BYTES], "a head is right or an error");
        (1..count)
            .map(|number| match blocks.read(number * BLOCK, &mut out) {
                Ok(()) => {
                    assert!(out.iter().all(|byte| u64::from(*byte) == number));
                    true
                }
                Err(e) => {
                    assert!(Rotten::of(&e).is_some(), "{e}");
                    false
                }
            })
            .collect()
    };
    assert_eq!(read(&whole), [true; 3]);
    for bit in (BLOCK_BYTES * 2 * 8..whole.len() * 8).step_by(131) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let in_sums = bit / 8 < BLOCK_BYTES * 3;
        let unread = in_sums && !(BLOCK_BYTES * 2 + 4..BLOCK_BYTES * 2 + 16).contains(&(bit / 8));
        let wrong = read(&bytes).iter().filter(|right| !**right).count();
        assert_eq!(wrong, usize::from(!unread && bit / 8 / BLOCK_BYTES != 3), "bit {bit}");
    }
    let mut swapped = whole.clone();
    let at = |number: u64| physical(number) as usize..physical(number + 1) as usize;
    let (one, two) = (whole[at(1)].to_vec(), whole[at(2)].to_vec());
    swapped[at(1)].copy_from_slice(&two);
    swapped[at(2)].copy_from_slice(&one);
    assert_eq!(read(&swapped), [false, false, true]);
    assert_eq!(read(&whole[..at(3).start]), [true, true, false]);
    let mut blank = whole.clone();
    blank[sums_at(0) as usize..].fill(0);
    assert_eq!(read(&blank), [false; 3]);
}

#[test]
fn one_copy_of_the_head_is_enough() {
    let disk = SimDisk::new(1);
    filled(&disk, 2);
    let raw = disk.open("f").unwrap();
    for (first, second) in [(false, true), (true, false), (true, true)] {
        filled(&disk, 2);
        for (copy, rots) in [(0, first), (1, second)] {
            if rots {
                raw.write(copy * BLOCK + 70, &[0]).unwrap();
            }
        }
        let mut header = [0; 320];
        let read = Blocks::open(&disk, "f").unwrap().read(0, &mut header);
        assert_eq!(read.is_ok(), !(first && second));
        assert!(read.is_err() || header == [9; 320]);
    }
}
