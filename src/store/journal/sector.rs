//! Sectors: each says which batch it is of and whether it is as it was written, so that a torn write and rot are told
//! apart.
//!
//! ```text
//! sector := content [500] | stamp u64 | checksum u32                             (little-endian)
//! stamp  := number of the batch, 0 for none; the top bit is set where the batch begins
//! ```
//!
//! A disk writes a sector whole or not at all. So after a crash every sector of a file is valid, those of the batch that was
//! under way with its number or with an older one. A sector that is not valid has rotted. The checksum begins with
//! the store's id and the sector's place: bytes of another store, of another place, or which a user put into a
//! payload, never pass for one.

use rkyv::util::AlignedVec;

use super::segment::{BLOCK_BYTES, array};

/// Names the store whose files these are.
pub(crate) type StoreId = [u8; 16];

pub(super) const SECTOR_BYTES: usize = 512;
pub(super) const CONTENT_BYTES: usize = 500;
pub(super) const PER_BLOCK: usize = BLOCK_BYTES / SECTOR_BYTES;
const SUM_AT: usize = CONTENT_BYTES + 8;
const BEGINS: u64 = 1 << 63;
/// What is before a batch's records: how long they are, and their checksum.
const BATCH_HEAD_BYTES: usize = 12;

/// What a sector says of itself. `None`: it is not what was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    pub number: u64,
    pub begins: bool,
}

/// What the checksums of a store's sectors begin with.
#[derive(Clone, Copy)]
pub(super) struct Seal(u32);

impl Seal {
    pub fn of(store_id: StoreId) -> Seal {
        Seal(crc32fast::hash(&store_id))
    }

    fn checksum(self, place: u64, sector: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new_with_initial(self.0.wrapping_add(place as u32));
        sum.update(&sector[..SUM_AT]);
        sum.finalize()
    }

    /// Finishes a sector whose content is there.
    pub fn stamp(self, place: u64, sector: &mut [u8], stamp: Stamp) {
        let number = stamp.number | if stamp.begins { BEGINS } else { 0 };
        sector[CONTENT_BYTES..SUM_AT].copy_from_slice(&number.to_le_bytes());
        let sum = self.checksum(place, sector).to_le_bytes();
        sector[SUM_AT..].copy_from_slice(&sum);
    }

    pub fn read(self, place: u64, sector: &[u8]) -> Option<Stamp> {
        if sector[SUM_AT..] != self.checksum(place, sector).to_le_bytes() {
            return None;
        }
        let stamp = u64::from_le_bytes(array(&sector[CONTENT_BYTES..SUM_AT]));
        Some(Stamp { number: stamp & !BEGINS, begins: stamp & BEGINS != 0 })
    }

    /// Stamps whole blocks without a batch, the first of which has that place.
    pub fn blank(self, first: u64, blocks: &mut [u8]) {
        for (sector, place) in blocks.chunks_exact_mut(SECTOR_BYTES).zip(first..) {
            self.stamp(place, sector, Stamp { number: 0, begins: false });
        }
    }
}

/// How many sectors a batch takes whose records are so long: whole blocks.
pub(super) fn sectors_of(records: u64) -> u64 {
    (BATCH_HEAD_BYTES as u64 + records).div_ceil(CONTENT_BYTES as u64).next_multiple_of(PER_BLOCK as u64)
}

/// How long the records are of the batch that begins with this sector.
pub(super) fn length_of(sector: &[u8]) -> u64 {
    u64::from_le_bytes(array(&sector[..8]))
}

/// The records of the batch that these sectors hold. `None`: the sectors are of two writes under the same number, one of which
/// the power cut and the other one after that.
pub(super) fn records(sectors: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(BATCH_HEAD_BYTES + length + CONTENT_BYTES);
    for sector in sectors.chunks_exact(SECTOR_BYTES).take((BATCH_HEAD_BYTES + length).div_ceil(CONTENT_BYTES)) {
        bytes.extend_from_slice(&sector[..CONTENT_BYTES]);
    }
    let sum = u32::from_le_bytes(array(bytes.get(8..BATCH_HEAD_BYTES)?));
    bytes.drain(..BATCH_HEAD_BYTES);
    bytes.truncate(length);
    (bytes.len() == length && crc32fast::hash(&bytes) == sum).then_some(bytes)
}

/// A batch in the form in which it is written, in memory that direct writes accept.
pub(super) struct Frame {
    bytes: AlignedVec<BLOCK_BYTES>,
    number: u64,
}

impl Frame {
    pub fn new() -> Frame {
        Frame { bytes: AlignedVec::new(), number: 0 }
    }

    /// Fills it with a batch, in place of the one before.
    pub fn fill(&mut self, number: u64, records: &[&[u8]]) {
        let length: usize = records.iter().map(|r| r.len()).sum();
        let bytes = sectors_of(length as u64) as usize * SECTOR_BYTES;
        self.number = number;
        self.bytes.clear();
        self.bytes.reserve(bytes);
        // Where in the sector under way the next byte goes.
        let mut at = 0;
        let mut put = |mut part: &[u8]| {
            while !part.is_empty() {
                let (now, later) = part.split_at(part.len().min(CONTENT_BYTES - at));
                self.bytes.extend_from_slice(now);
                at += now.len();
                part = later;
                if at == CONTENT_BYTES {
                    self.bytes.extend_from_slice(&[0; SECTOR_BYTES - CONTENT_BYTES]);
                    at = 0;
                }
            }
        };
        let mut sum = crc32fast::Hasher::new();
        records.iter().for_each(|record| sum.update(record));
        put(&(length as u64).to_le_bytes());
        put(&sum.finalize().to_le_bytes());
        records.iter().for_each(|record| put(record));
        self.bytes.resize(bytes, 0);
    }

    /// The batch as it is to lie in sectors from that one on.
    pub fn at(&mut self, first: u64, seal: Seal) -> &[u8] {
        let number = self.number;
        for ((sector, place), n) in self.bytes.chunks_exact_mut(SECTOR_BYTES).zip(first..).zip(0..) {
            seal.stamp(place, sector, Stamp { number, begins: n == 0 });
        }
        &self.bytes
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Gives back the memory of an unusually large batch.
    pub fn shrink_to(&mut self, bytes_max: usize) {
        if self.bytes.capacity() > bytes_max {
            self.bytes = AlignedVec::new();
        }
    }
}
