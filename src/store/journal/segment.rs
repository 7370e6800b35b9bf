//! One file of the journal: preallocated, filled from front to back, and used again once its batches are carried over.
//!
//! ```text
//! file  := head | batch*                            each from the start of a block of 4 KiB, in sectors ([`super::sector`])
//! head  := magic [8] | version u32 | store id [16] | size of the file u64
//! batch := length u64 | checksum u32 | records
//! ```
//!
//! What lies behind the newest batch is blank sectors, older batches, or the remains of a write that the power cut. All of
//! these are valid. What is not has rotted: that harms nobody where the state file has the batch, or where no batch can
//! have been; elsewhere opening is refused.

use std::collections::{BTreeMap, BTreeSet};

use conveyor_base::Fault;
use redb::StorageBackend;
use rkyv::util::AlignedVec;

use super::super::disk::{Backends, REPAIR, create_whole, file_fault};
use super::form1;
use super::sector::{
    CONTENT_BYTES, Frame, PER_BLOCK, SECTOR_BYTES, Seal, Stamp, StoreId, length_of, records, sectors_of,
};

/// What a direct write is a multiple of, in place and length.
pub(super) const BLOCK_BYTES: usize = 4096;

const FILE_MAGIC: &[u8; 8] = b"conveyor";
const FILE_VERSION: u32 = 2;
/// How much of a new file is written at a time.
const FILL_BYTES: usize = 1 << 20;

pub(super) struct Segment {
    pub name: String,
    pub bytes: u64,
    /// Where the next batch goes.
    pub end: u64,
    /// Number of the newest batch in it, 0 for none.
    pub newest: u64,
    seal: Seal,
    /// An older release wrote it: nothing more goes into it.
    old: bool,
    file: Box<dyn StorageBackend>,
}

/// What a file has beside batches that are whole.
#[derive(Debug, Default)]
pub(super) struct Damage {
    /// Batches of which something has rotted, with the first byte of it.
    pub batches: BTreeMap<u64, u64>,
    /// Batches of which some sectors are there and all are valid: a write that the power cut.
    pub torn: BTreeSet<u64>,
    /// Blocks in which nothing is valid, where the next batch would begin: their bytes.
    pub unknown: Vec<u64>,
    /// Blocks in which something has rotted.
    pub rotten: Vec<u64>,
}

impl Segment {
    /// Makes the file with nothing but blank sectors, so that a later write changes data and nothing else.
    pub fn create(disk: &dyn Backends, name: String, store_id: StoreId, bytes: u64) -> Result<Segment, Fault> {
        let seal = Seal::of(store_id);
        create_whole(disk, &name, |temporary| {
            let fault = file_fault(disk, &name);
            let file = disk.open_log(temporary).map_err(&fault)?;
            let mut blank = aligned(FILL_BYTES);
            let mut at = 0;
            while at < bytes {
                let length = FILL_BYTES.min((bytes - at) as usize);
                seal.blank(at / SECTOR_BYTES as u64, &mut blank[..length]);
                file.write(at, &blank[..length]).map_err(&fault)?;
                at += length as u64;
            }
            file.write(0, &head(store_id, bytes)).map_err(&fault)?;
            file.sync_data().map_err(&fault)
        })?;
        let file = disk.open_log(&name).map_err(file_fault(disk, &name))?;
        Ok(Segment { name, bytes, end: BLOCK_BYTES as u64, newest: 0, seal, old: false, file })
    }

    /// Opens a file and says whose it is. `expected`: the store that it should be of, where that is known; a head that has
    /// rotted says nothing that is not known then.
    pub fn open(disk: &dyn Backends, name: String, expected: Option<StoreId>) -> Result<(Segment, StoreId), Fault> {
        let fault = file_fault(disk, &name);
        let file = disk.open_log(&name).map_err(&fault)?;
        let bytes = file.len().map_err(&fault)?;
        let damaged =
            |what: &str| Fault::damaged_plain(format!("{}/{name} is damaged: {what}; {REPAIR}", disk.place()));
        let mut first = [0; SECTOR_BYTES];
        if bytes < BLOCK_BYTES as u64 || file.read(0, &mut first).is_err() {
            first.fill(0);
        }
        let store_id: StoreId = array(&first[12..28]);
        let version = u32::from_le_bytes(array(&first[8..12]));
        let is_head = first[..8] == *FILE_MAGIC;
        let segment = |store_id, old, file| Segment {
            name: name.clone(),
            bytes,
            end: BLOCK_BYTES as u64,
            newest: 0,
            seal: Seal::of(store_id),
            old,
            file,
        };
        if is_head && Seal::of(store_id).read(0, &first).is_some() {
            if version != FILE_VERSION {
                return Err(Fault::fatal_plain(format!(
                    "{}/{name} has version {version}, and this release works on version {FILE_VERSION}",
                    disk.place()
                )));
            }
            let made = u64::from_le_bytes(array(&first[28..36]));
            if bytes != made {
                return Err(damaged(&format!("it has {bytes} bytes, and was made with {made}")));
            }
            return Ok((segment(store_id, false, file), store_id));
        }
        if is_head && version == 1 && bytes.is_multiple_of(BLOCK_BYTES as u64) && is_zero(&first[28..]) {
            return Ok((segment(store_id, true, file), store_id));
        }
        // Of what the head says the sectors behind it are proof as well.
        let mut second = [0; SECTOR_BYTES];
        let at = BLOCK_BYTES as u64;
        let read = bytes > at && bytes.is_multiple_of(at) && file.read(at, &mut second).is_ok();
        match expected {
            Some(store_id) if read && Seal::of(store_id).read(PER_BLOCK as u64, &second).is_some() => {
                tracing::warn!("the head of {}/{name} has rotted and is written anew", disk.place());
                file.write(0, &head(store_id, bytes)).map_err(&fault)?;
                file.sync_data().map_err(&fault)?;
                Ok((segment(store_id, false, file), store_id))
            }
            _ => Err(damaged("it is no file of the journal")),
        }
    }

    /// What is left of a file whose head or end is gone: the blocks that are whole.
    pub fn salvage(disk: &dyn Backends, name: String, store_id: StoreId) -> Result<Option<Segment>, Fault> {
        let fault = file_fault(disk, &name);
        let file = disk.open_log(&name).map_err(&fault)?;
        let bytes = file.len().map_err(&fault)? / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let seal = Seal::of(store_id);
        Ok((bytes > 0).then(|| Segment { name, bytes, end: BLOCK_BYTES as u64, newest: 0, seal, old: false, file }))
    }

    /// Finds the batches, hands over those after `applied`, with their numbers, and says what else there is of such.
    pub fn scan(
        &mut self,
        disk: &dyn Backends,
        store_id: StoreId,
        applied: u64,
        mut take: impl FnMut(u64, Vec<u8>),
    ) -> Result<Damage, Fault> {
        let mut bytes = vec![0; self.bytes as usize];
        if let Err(e) = self.file.read(0, &mut bytes) {
            if self.old {
                return Err(file_fault(disk, &self.name)(e));
            }
            // What the disk does not give back stays blank, as no sector is that was written.
            for (number, sector) in (0u64..).zip(bytes.chunks_exact_mut(SECTOR_BYTES)) {
                if self.file.read(number * SECTOR_BYTES as u64, sector).is_err() {
                    sector.fill(0);
                }
            }
        }
        if self.old {
            self.newest = form1::scan(&bytes, store_id, applied, take);
            self.end = self.bytes;
            return Ok(Damage::default());
        }
        let sectors: Vec<Option<Stamp>> =
            (0..).zip(bytes.chunks_exact(SECTOR_BYTES)).map(|(place, sector)| self.seal.read(place, sector)).collect();
        let mut whole = BTreeSet::new();
        for first in (PER_BLOCK..sectors.len()).step_by(PER_BLOCK) {
            let Some(Stamp { number, begins: true }) = sectors[first] else { continue };
            let length = length_of(&bytes[first * SECTOR_BYTES..]);
            let Some(of) = extent(first, length, sectors.len()) else { continue };
            if !sectors[of.clone()].iter().all(|stamp| stamp.is_some_and(|stamp| stamp.number == number)) {
                continue;
            }
            let end = (of.end * SECTOR_BYTES) as u64;
            if number > applied {
                let of = of.start * SECTOR_BYTES..of.end * SECTOR_BYTES;
                let Some(records) = records(&bytes[of], length as usize) else { continue };
                take(number, records);
            }
            whole.insert(number);
            if number > self.newest {
                (self.newest, self.end) = (number, end);
            }
        }
        Ok(self.damage(&sectors, applied, &whole))
    }

    /// What the sectors say of batches after `applied` that are not whole.
    fn damage(&self, sectors: &[Option<Stamp>], applied: u64, whole: &BTreeSet<u64>) -> Damage {
        let mut damage = Damage::default();
        let blocks: Vec<&[Option<Stamp>]> = sectors.chunks_exact(PER_BLOCK).collect();
        let rotten = |block: usize| blocks.get(block).and_then(|block| block.iter().position(Option::is_none));
        let at = |block: usize, sector: usize| (block * BLOCK_BYTES + sector * SECTOR_BYTES) as u64;
        let mut parts: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for (number, block) in blocks.iter().enumerate().skip(1) {
            for stamp in block.iter().flatten().filter(|s| s.number > applied && !whole.contains(&s.number)) {
                parts.entry(stamp.number).or_insert((number, number)).1 = number;
            }
        }
        for (number, (first, last)) in parts {
            // Its first or its last block may have rotted as a whole.
            let found = (first.saturating_sub(1).max(1)..=last + 1).find_map(|b| Some(at(b, rotten(b)?)));
            match found {
                Some(byte) => drop(damage.batches.insert(number, byte)),
                None => drop(damage.torn.insert(number)),
            }
        }
        // Had a batch been written there, what has not rotted of the block would say so.
        damage.rotten = (1..blocks.len()).filter(|b| rotten(*b).is_some()).map(|b| b as u64).collect();
        let next = [self.end as usize / BLOCK_BYTES, 1];
        let gone = |block: &usize| blocks.get(*block).is_some_and(|block| block.iter().all(Option::is_none));
        damage.unknown = next.into_iter().filter(gone).map(|block| at(block, 0)).collect();
        damage
    }

    /// Makes blocks blank of which nothing is needed, so that what has rotted there is not met again where the next batch
    /// would begin.
    pub fn blank(&self, disk: &dyn Backends, blocks: &[u64]) -> Result<(), Fault> {
        let fault = file_fault(disk, &self.name);
        for number in blocks {
            let mut block = aligned(BLOCK_BYTES);
            self.seal.blank(number * PER_BLOCK as u64, &mut block);
            self.file.write(number * BLOCK_BYTES as u64, &block).map_err(&fault)?;
        }
        if blocks.is_empty() { Ok(()) } else { self.file.sync_data().map_err(&fault) }
    }

    pub fn has_room(&self, frame: &Frame) -> bool {
        !self.old && self.end + frame.len() <= self.bytes
    }

    /// Whether nothing more goes into it.
    pub fn is_old(&self) -> bool {
        self.old
    }

    /// Forgets what is in it. Only for a segment whose batches are all in the state file.
    pub fn rewind(&mut self) {
        self.end = BLOCK_BYTES as u64;
    }

    /// Durable when it returns.
    pub fn append(&mut self, number: u64, frame: &mut Frame) -> std::io::Result<()> {
        self.file.write(self.end, frame.at(self.end / SECTOR_BYTES as u64, self.seal))?;
        self.file.sync_data()?;
        self.end += frame.len();
        self.newest = number;
        Ok(())
    }
}

/// The sectors of a batch whose first is that one, where so many are there.
fn extent(first: usize, length: u64, sectors: usize) -> Option<std::ops::Range<usize>> {
    let room = ((sectors - first) * CONTENT_BYTES) as u64;
    let end = first + usize::try_from(sectors_of(length.min(room))).ok()?;
    (length < room && end <= sectors).then_some(first..end)
}

/// The block that a file begins with.
fn head(store_id: StoreId, bytes: u64) -> AlignedVec<BLOCK_BYTES> {
    let mut block = aligned(BLOCK_BYTES);
    block[..8].copy_from_slice(FILE_MAGIC);
    block[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
    block[12..28].copy_from_slice(&store_id);
    block[28..36].copy_from_slice(&bytes.to_le_bytes());
    Seal::of(store_id).blank(0, &mut block);
    block
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn aligned(bytes: usize) -> AlignedVec<BLOCK_BYTES> {
    let mut vec = AlignedVec::new();
    vec.resize(bytes, 0);
    vec
}

/// The length is known to fit.
pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
