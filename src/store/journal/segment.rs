//! One file of the journal: preallocated, filled from front to back, and used again once its batches are carried over.
//!
//! ```text
//! file  := head | batch*                            each from the start of a block of 4 KiB
//! head  := magic [8] | version u32 | store id [16]
//! batch := magic u32 | head checksum u32 | number u64 | length u64 | records checksum u32 | records
//! ```
//!
//! Numbers are little-endian. Checksums are CRC-32 that begin with the store's id, so that bytes of another store, or
//! bytes that a user put into a payload, never pass for a batch. What lies behind the newest batch is zeros, older
//! batches, or the remains of a write that the power cut: an older number or a failing checksum tells.

use conveyor_base::Fault;
use redb::StorageBackend;
use rkyv::util::AlignedVec;

use super::super::disk::{Backends, create_whole, file_fault};

/// What a direct write is a multiple of, in place and length.
pub(super) const BLOCK_BYTES: usize = 4096;

const FILE_MAGIC: &[u8; 8] = b"conveyor";
const FILE_VERSION: u32 = 1;
const BATCH_MAGIC: u32 = 0xc0b1_7a5e;
const BATCH_HEAD_BYTES: usize = 28;
/// How much of a new file is written at a time.
const FILL_BYTES: usize = 1 << 20;

/// Names the store whose files these are.
pub(crate) type StoreId = [u8; 16];

pub(super) struct Segment {
    pub name: String,
    pub bytes: u64,
    /// Where the next batch goes.
    pub end: u64,
    /// Number of the newest batch in it, 0 for none.
    pub newest: u64,
    file: Box<dyn StorageBackend>,
}

impl Segment {
    /// Makes the file and fills it with zeros, so that a later write changes data and nothing else.
    pub fn create(disk: &dyn Backends, name: String, store_id: StoreId, bytes: u64) -> Result<Segment, Fault> {
        create_whole(disk, &name, |temporary| {
            let fault = file_fault(disk, &name);
            let file = disk.open_log(temporary).map_err(&fault)?;
            let mut block = aligned(BLOCK_BYTES);
            block[..8].copy_from_slice(FILE_MAGIC);
            block[8..12].copy_from_slice(&FILE_VERSION.to_le_bytes());
            block[12..28].copy_from_slice(&store_id);
            let zeros = aligned(FILL_BYTES);
            let mut at = 0;
            while at < bytes {
                let length = FILL_BYTES.min((bytes - at) as usize);
                file.write(at, &zeros[..length]).map_err(&fault)?;
                at += length as u64;
            }
            file.write(0, &block).map_err(&fault)?;
            file.sync_data().map_err(&fault)
        })?;
        let file = disk.open_log(&name).map_err(file_fault(disk, &name))?;
        Ok(Segment { name, bytes, end: BLOCK_BYTES as u64, newest: 0, file })
    }

    /// Opens a file and says whose it is.
    pub fn open(disk: &dyn Backends, name: String) -> Result<(Segment, StoreId), Fault> {
        let fault = file_fault(disk, &name);
        let file = disk.open_log(&name).map_err(&fault)?;
        let bytes = file.len().map_err(&fault)?;
        let mut head = [0; 28];
        if bytes >= BLOCK_BYTES as u64 {
            file.read(0, &mut head).map_err(&fault)?;
        }
        if &head[..8] != FILE_MAGIC || !bytes.is_multiple_of(BLOCK_BYTES as u64) {
            let what = format!("{}/{name} is damaged: it is no file of the journal", disk.place());
            return Err(Fault::fatal_plain(format!("{what}; restore the data directory from a backup")));
        }
        let version = u32::from_le_bytes(array(&head[8..12]));
        if version != FILE_VERSION {
            return Err(Fault::fatal_plain(format!(
                "{}/{name} has version {version}, and this release works on version {FILE_VERSION}",
                disk.place()
            )));
        }
        Ok((Segment { name, bytes, end: BLOCK_BYTES as u64, newest: 0, file }, array(&head[12..28])))
    }

    /// Finds the batches and hands over those after `applied`, with their numbers.
    pub fn scan(
        &mut self,
        disk: &dyn Backends,
        store_id: StoreId,
        applied: u64,
        mut take: impl FnMut(u64, Vec<u8>),
    ) -> Result<(), Fault> {
        let mut bytes = vec![0; self.bytes as usize];
        self.file.read(0, &mut bytes).map_err(file_fault(disk, &self.name))?;
        let mut at = BLOCK_BYTES;
        while at < bytes.len() {
            let length = match batch(&bytes[at..], store_id, applied) {
                Some((number, records)) => {
                    let length = padded(BATCH_HEAD_BYTES + records.len());
                    if number > self.newest {
                        (self.newest, self.end) = (number, (at + length) as u64);
                    }
                    if number > applied {
                        take(number, records.to_vec());
                    }
                    length
                }
                None => BLOCK_BYTES,
            };
            at += length;
        }
        Ok(())
    }

    pub fn has_room(&self, frame: &Frame) -> bool {
        self.end + frame.len() <= self.bytes
    }

    /// Forgets what is in it. Only for a segment whose batches are all in the state file.
    pub fn rewind(&mut self) {
        self.end = BLOCK_BYTES as u64;
    }

    /// Durable when it returns.
    pub fn append(&mut self, number: u64, frame: &Frame) -> std::io::Result<()> {
        self.file.write(self.end, frame.bytes())?;
        self.file.sync_data()?;
        self.end += frame.len();
        self.newest = number;
        Ok(())
    }
}

/// A batch in the form in which it is written, in memory that direct writes accept.
pub(super) struct Frame(AlignedVec<BLOCK_BYTES>);

impl Frame {
    pub fn new() -> Frame {
        Frame(AlignedVec::new())
    }

    /// Fills it with a batch, in place of the one before.
    pub fn fill(&mut self, store_id: StoreId, number: u64, records: &[&[u8]]) {
        let length: usize = records.iter().map(|r| r.len()).sum();
        self.0.clear();
        self.0.reserve(padded(BATCH_HEAD_BYTES + length));
        self.0.extend_from_slice(&[0; BATCH_HEAD_BYTES]);
        for record in records {
            self.0.extend_from_slice(record);
        }
        let sum = checksum(store_id, &self.0[BATCH_HEAD_BYTES..]);
        self.0.resize(padded(self.0.len()), 0);
        let head = &mut self.0[..BATCH_HEAD_BYTES];
        head[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        head[8..16].copy_from_slice(&number.to_le_bytes());
        head[16..24].copy_from_slice(&(length as u64).to_le_bytes());
        head[24..].copy_from_slice(&sum.to_le_bytes());
        let sum = checksum(store_id, &head[8..]);
        head[4..8].copy_from_slice(&sum.to_le_bytes());
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Gives back the memory of an unusually large batch.
    pub fn shrink_to(&mut self, bytes_max: usize) {
        if self.0.capacity() > bytes_max {
            self.0 = AlignedVec::new();
        }
    }
}

/// The batch that begins here. Its records are verified only where its number says that they count.
fn batch(bytes: &[u8], store_id: StoreId, applied: u64) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_at_checked(BATCH_HEAD_BYTES)?;
    let whole = head[..4] == BATCH_MAGIC.to_le_bytes() && head[4..8] == checksum(store_id, &head[8..]).to_le_bytes();
    if !whole {
        return None;
    }
    let number = u64::from_le_bytes(array(&head[8..16]));
    let records = rest.get(..usize::try_from(u64::from_le_bytes(array(&head[16..24]))).ok()?)?;
    let counts = number > applied;
    (!counts || head[24..] == checksum(store_id, records).to_le_bytes()).then_some((number, records))
}

fn checksum(store_id: StoreId, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&store_id);
    sum.update(bytes);
    sum.finalize()
}

fn aligned(bytes: usize) -> AlignedVec<BLOCK_BYTES> {
    let mut vec = AlignedVec::new();
    vec.resize(bytes, 0);
    vec
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// The length is known to fit.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
