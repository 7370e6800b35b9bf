//! Damage to a media file, drawn by a seed.

use rand::{Rng as _, RngCore as _};
use rand_chacha::ChaCha8Rng;

const PAGE: usize = 4096;
/// Where containers have their heads.
const HEAD: usize = 512;

/// Damages the file in one to three ways. Says how.
pub fn mutate(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>) -> String {
    let times = [1, 1, 1, 2, 3][rng.random_range(0..5)];
    let ways: Vec<String> = (0..times).map(|_| one_way(rng, bytes)).collect();
    ways.join(", ")
}

fn one_way(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>) -> String {
    if bytes.is_empty() {
        return "nothing is left".into();
    }
    let at = rng.random_range(0..bytes.len());
    let head = rng.random_range(0..bytes.len().min(HEAD));
    let span = |rng: &mut ChaCha8Rng, at: usize, most: usize| (at + rng.random_range(1..most)).min(bytes.len());
    match rng.random_range(0..13) {
        0 | 1 => {
            let count = [1, 8, 64, 512][rng.random_range(0..4)];
            for _ in 0..count {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
            format!("{count} bits flipped")
        }
        2 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        3 => {
            let keep = bytes.len() - bytes.len().min(rng.random_range(1..2_000));
            bytes.truncate(keep);
            format!("the end cut off at {keep}")
        }
        4 => {
            let end = span(rng, at, 20_000);
            bytes.drain(at..end);
            format!("{at} to {end} taken out")
        }
        5 => {
            let (from, end) = (at / PAGE * PAGE, (at / PAGE * PAGE + PAGE).min(bytes.len()));
            bytes[from..end].fill(0);
            format!("a blank page at {from}")
        }
        6 => {
            let end = span(rng, at, 40_000);
            bytes[at..end].fill(0);
            format!("zeroes from {at} to {end}")
        }
        7 => {
            let (half, other) = (bytes.len() / 2, rng.random_range(0..bytes.len()));
            let length = rng.random_range(1..4_000).min(half);
            let (one, other) = (at.min(other), at.max(other));
            let length = length.min(other - one).min(bytes.len() - other);
            let (front, back) = bytes.split_at_mut(other);
            front[one..one + length].swap_with_slice(&mut back[..length]);
            format!("{length} bytes at {one} and {other} swapped")
        }
        8 => {
            let end = (head + rng.random_range(1..32)).min(bytes.len());
            rng.fill_bytes(&mut bytes[head..end]);
            format!("{head} to {end} of the head overwritten")
        }
        9 => {
            // A length or a count that lies.
            let lie = [0, 1, 7, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, rng.next_u32()][rng.random_range(0..7)];
            let lie: [u8; 4] = if rng.random_range(0..2) == 0 { lie.to_be_bytes() } else { lie.to_le_bytes() };
            let from = if rng.random_range(0..2) == 0 { head } else { at } / 4 * 4;
            let end = (from + 4).min(bytes.len());
            bytes[from..end].copy_from_slice(&lie[..end - from]);
            format!("a number at {from} set to {lie:02x?}")
        }
        10 => {
            let again = bytes[at..span(rng, at, 8_000)].to_vec();
            let length = again.len();
            bytes.splice(at..at, again);
            format!("{length} bytes at {at} twice")
        }
        11 => {
            let mut noise = vec![0; rng.random_range(1..10_000)];
            rng.fill_bytes(&mut noise);
            let at = if rng.random_range(0..2) == 0 { at } else { bytes.len() };
            let length = noise.len();
            bytes.splice(at..at, noise);
            format!("{length} bytes of noise put in at {at}")
        }
        _ => {
            let end = span(rng, at, 6_000);
            rng.fill_bytes(&mut bytes[at..end]);
            format!("noise from {at} to {end}")
        }
    }
}
