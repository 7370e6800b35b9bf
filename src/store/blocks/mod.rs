//! Blocks with checksums under redb's pages: what is read is what was written, or it is an error that says where.
//!
//! redb keeps a checksum of every page in its parent and looks at it only in a repair, so that a flipped bit in a branch
//! page makes a key vanish, without a word. Here every block of 4 KiB is verified each time it comes from the disk, before
//! redb sees it: pages of every kind, keys and values, and the header. Whatever has flipped, was cut off, zeroed or written to the
//! wrong place is an [`io::Error`] with [`Rotten`] in it, and never an answer.
//!
//! ```text
//! file  := head | head | group*                                in blocks of 4 KiB; redb's first block lies in the heads
//! head  := magic [8] | version u32 | checksum u32 | blocks u64 | 0 [40] | redb's header [448]    one sector of its block
//! group := checksums u32 [1024] | block [1024]                 the last one may end early
//! ```
//!
//! Numbers are little-endian. A checksum is a CRC-32 that begins with the block's number, and never 0: 0 says that the
//! block was never written. Three bits flipped in a block are always found, anything else but once in 4 billion times.
//!
//! Why not otherwise. Eight bytes of each block for its own checksum shift redb's pages against the disk's, so that the
//! write of one touches its neighbours, which are live; a file beside this one costs another sync for each checkpoint. So
//! the checksums are blocks of the same file, written before the same sync: a thousandth of the room, and one block
//! more for a checkpoint and 4 MiB that it touched.
//!
//! What a crash leaves is not taken for rot. A page is never written over while a committed tree leads to it, and redb
//! syncs pages before the header that leads to them (two-phase commits, which every commit here asks for): a block
//! whose data reached the disk and whose checksum did not, or the other way round, is led to by nothing. The header is
//! written over in place; its checksum lies in the same sector, which a disk writes whole or not at all, and whichever
//! of the two copies is whole is taken: where only one has rotted, nothing is lost. The head says how many blocks the file
//! has at least, so that one that was cut is told: redb would look for its pages in what is left.

mod shadow;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use redb::StorageBackend;

use super::disk::Backends;
use super::scrub::aligned_block;

pub(super) use shadow::Shadow;

pub(super) const BLOCK_BYTES: usize = 4096;
const BLOCK: u64 = BLOCK_BYTES as u64;
const PER_GROUP: u64 = 1024;
const HEADS: u64 = 2;
const MAGIC: &[u8; 8] = b"cnvyblks";
const VERSION: u32 = 1;
/// A sector, which a disk writes whole or not at all.
const HEAD_BYTES: usize = 512;
const BLOCKS_AT: usize = 16;
const HEADER_AT: usize = 64;
/// What redb may keep in its first block. It keeps 320 bytes there.
const HEADER_BYTES_MAX: usize = HEAD_BYTES - HEADER_AT;
/// How the files of older releases begin: as redb writes them.
const REDB_MAGIC: &[u8; 4] = b"redb";

/// Bytes of a file that are not what was written, or that the disk does not give back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{file}, byte {at}: {why}")]
pub(super) struct Rotten {
    pub file: String,
    pub at: u64,
    pub why: String,
}

impl Rotten {
    /// The damage that an error is about, where it is about any.
    pub fn of(error: &io::Error) -> Option<&Rotten> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Blocks,
    /// A file of redb's own, as releases wrote it whose format was below 6.
    Plain,
    Empty,
}

/// A file of blocks, open, as redb is to have it. Clones are the same file. What is damaged in it is an error of kind
/// [`InvalidData`](io::ErrorKind::InvalidData), which names the file and the byte.
#[derive(Clone)]
pub struct Blocks(Arc<Inner>);

struct Inner {
    name: String,
    file: Box<dyn StorageBackend>,
    groups: RwLock<Vec<Option<Box<Group>>>>,
    reading_failed: AtomicBool,
    writing_failed: AtomicBool,
}

/// The checksums of a group, as the file is to have them after the next sync.
#[derive(Clone)]
struct Group {
    sums: [u32; PER_GROUP as usize],
    dirty: bool,
}

impl Blocks {
    /// Opens the file, empty if it is not there yet. Looks at nothing in it.
    pub fn open(disk: &dyn Backends, name: &str) -> io::Result<Blocks> {
        Ok(Blocks(Arc::new(Inner {
            name: name.to_owned(),
            file: disk.open(name)?,
            groups: RwLock::default(),
            reading_failed: AtomicBool::new(false),
            writing_failed: AtomicBool::new(false),
        })))
    }

    /// Whether something could not be read. redb then gives nothing more out of the file, damaged or not, until it is
    /// opened anew.
    pub(super) fn reading_failed(&self) -> bool {
        self.0.reading_failed.load(Ordering::Acquire)
    }

    /// Whether something could not be written: what is on the disk then is only known after recovery.
    pub(super) fn writing_failed(&self) -> bool {
        self.0.writing_failed.load(Ordering::Acquire)
    }

    /// Says what the file is. One that is neither of blocks nor of redb's own, or that was cut, is damaged.
    pub(super) fn form(&self) -> io::Result<Form> {
        let inner = &*self.0;
        let length = inner.file.len()?;
        if length == 0 {
            return Ok(Form::Empty);
        }
        let mut magic = [0; REDB_MAGIC.len()];
        if inner.file.read(0, &mut magic).is_ok() && magic == *REDB_MAGIC {
            return Ok(Form::Plain);
        }
        let (_, least) = inner.head()?;
        let (has, least) = (inner.length()?, least * BLOCK);
        if has == 0 || has < least {
            return Err(inner.error(length, "the file was cut off here"));
        }
        Ok(Form::Blocks)
    }

    /// Looks at blocks as `raw` gives them, `count` of them from that one on, and says which are not as they were written.
    /// Also such that nothing leads to, as a crash may leave them.
    pub(super) fn suspects(&self, raw: &dyn StorageBackend, from: u64, count: u64) -> io::Result<Vec<u64>> {
        let mut block = aligned_block();
        let mut found = Vec::new();
        for number in (from..from + count).filter(|number| *number > 0) {
            let read = raw.read(physical(number), &mut block);
            let sum = self.0.with_group(number / PER_GROUP, |group| group.sums[place(number)])?;
            let blank = sum == 0 && block.iter().all(|byte| *byte == 0);
            if read.is_err() || (!blank && sum != checksum(number, &block)) {
                found.push(number);
            }
        }
        // What is in the heads, which are read whenever they are needed.
        if from == 0 {
            self.0.head()?;
        }
        Ok(found)
    }

    /// Takes what is in those blocks for what was written: nothing leads to them.
    pub(super) fn accept(&self, numbers: &[u64]) -> io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        for number in numbers {
            self.0.file.read(physical(*number), &mut block)?;
            let group = number / PER_GROUP;
            let mut groups = self.0.groups.write();
            let group = self.0.loaded(&mut groups, group, usize::try_from(group).map_err(io::Error::other)?)?;
            group.sums[place(*number)] = checksum(*number, &block);
            group.dirty = true;
        }
        Ok(())
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// How many blocks redb has in it.
    pub(super) fn count(&self) -> io::Result<u64> {
        Ok(self.len()? / BLOCK)
    }
}

impl Inner {
    fn error(&self, at: u64, why: impl Into<String>) -> io::Error {
        let rotten = Rotten { file: self.name.clone(), at, why: why.into() };
        io::Error::new(io::ErrorKind::InvalidData, rotten)
    }

    /// An error of the disk, where it is to give back what it has.
    fn unreadable(&self, at: u64, error: &io::Error) -> io::Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.error(at, "the file ends before it"),
            _ => self.error(at, format!("the disk does not give it back ({error})")),
        }
    }

    /// redb's header, and how many blocks there are at least: by the first copy which is whole.
    fn head(&self) -> io::Result<([u8; HEADER_BYTES_MAX], u64)> {
        let mut head = [0; HEAD_BYTES];
        for copy in 0..HEADS {
            if self.file.read(copy * BLOCK, &mut head).is_ok() && is_head(&head) {
                let mut header = [0; HEADER_BYTES_MAX];
                header.copy_from_slice(&head[HEADER_AT..]);
                let mut blocks = [0; 8];
                blocks.copy_from_slice(&head[BLOCKS_AT..BLOCKS_AT + 8]);
                return Ok((header, u64::from_le_bytes(blocks)));
            }
        }
        Err(self.error(0, "neither copy of the file's head is what was written"))
    }

    fn write_heads(&self, header: &[u8], blocks: u64) -> io::Result<()> {
        let mut heads = [0; BLOCK_BYTES + HEAD_BYTES];
        let head = &mut heads[..HEAD_BYTES];
        head[HEADER_AT..HEADER_AT + header.len()].copy_from_slice(header);
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[BLOCKS_AT..BLOCKS_AT + 8].copy_from_slice(&blocks.to_le_bytes());
        let sum = head_checksum(head).to_le_bytes();
        head[12..16].copy_from_slice(&sum);
        heads.copy_within(..HEAD_BYTES, BLOCK_BYTES);
        self.file.write(0, &heads)
    }

    fn with_group<T>(&self, number: u64, look: impl FnOnce(&Group) -> T) -> io::Result<T> {
        let index = usize::try_from(number).map_err(io::Error::other)?;
        if let Some(Some(group)) = self.groups.read().get(index) {
            return Ok(look(group));
        }
        let mut groups = self.groups.write();
        self.loaded(&mut groups, number, index).map(|group| look(group))
    }

    /// The group in memory, read from the file where it is not there yet.
    fn loaded<'g>(
        &self,
        groups: &'g mut Vec<Option<Box<Group>>>,
        number: u64,
        index: usize,
    ) -> io::Result<&'g mut Group> {
        if groups.len() <= index {
            groups.resize_with(index + 1, || None);
        }
        let place = &mut groups[index];
        if place.is_none() {
            *place = Some(Box::new(self.read_group(number)?));
        }
        place.as_deref_mut().ok_or_else(|| io::Error::other("a group of checksums went away"))
    }

    fn read_group(&self, number: u64) -> io::Result<Group> {
        let mut group = Group { sums: [0; PER_GROUP as usize], dirty: false };
        let at = sums_at(number);
        if self.file.len()? < at + BLOCK {
            return Ok(group);
        }
        let mut bytes = vec![0; BLOCK_BYTES];
        self.file.read(at, &mut bytes).map_err(|e| self.unreadable(at, &e))?;
        for (sum, bytes) in group.sums.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *sum = u32::from_le_bytes(*bytes);
        }
        Ok(group)
    }
}

impl StorageBackend for Blocks {
    fn len(&self) -> io::Result<u64> {
        self.0.length().inspect_err(|_| self.0.reading_failed.store(true, Ordering::Release))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out).inspect_err(|_| self.0.reading_failed.store(true, Ordering::Release))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_length(len).inspect_err(|_| self.0.writing_failed.store(true, Ordering::Release))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync().inspect_err(|_| self.0.writing_failed.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data).inspect_err(|_| self.0.writing_failed.store(true, Ordering::Release))
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }
}

impl Inner {
    fn length(&self) -> io::Result<u64> {
        let blocks = self.file.len()? / BLOCK;
        let in_groups = blocks.saturating_sub(HEADS);
        let rest = in_groups % (PER_GROUP + 1);
        Ok((in_groups / (PER_GROUP + 1) * PER_GROUP + rest.saturating_sub(1)) * BLOCK)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset < BLOCK {
            let (header, _) = self.head()?;
            let wanted = header.get(offset as usize..offset as usize + out.len());
            out.copy_from_slice(wanted.ok_or_else(not_blocks)?);
            return Ok(());
        }
        let mut number = whole(offset, out.len())?;
        let mut rest = out;
        while !rest.is_empty() {
            let in_group = (PER_GROUP - number % PER_GROUP) as usize * BLOCK_BYTES;
            let (run, after) = rest.split_at_mut(in_group.min(rest.len()));
            let at = physical(number);
            self.file.read(at, run).map_err(|e| self.unreadable(at, &e))?;
            let wrong = self.with_group(number / PER_GROUP, |group| {
                let blocks = run.chunks_exact(BLOCK_BYTES).zip(number..);
                blocks.map(|(block, number)| (number, checksum(number, block), group.sums[place(number)])).find_map(
                    |(number, is, was)| match was {
                        0 => Some((number, "its checksum is gone, or it was never written")),
                        was if was != is => Some((number, "its bytes are not those that were written")),
                        _ => None,
                    },
                )
            })?;
            if let Some((number, why)) = wrong {
                return Err(self.error(physical(number), why));
            }
            number += (run.len() / BLOCK_BYTES) as u64;
            rest = after;
        }
        Ok(())
    }

    fn set_length(&self, len: u64) -> io::Result<()> {
        let count = whole(len, 0)?;
        let mut groups = self.groups.write();
        // What is cut off counts as never written where the file grows again.
        let last = usize::try_from(count / PER_GROUP).map_err(io::Error::other)?;
        groups.truncate(last + 1);
        let has = whole(self.length()?, 0)?;
        if count < has {
            let group = self.loaded(&mut groups, count / PER_GROUP, last)?;
            group.sums[place(count)..].fill(0);
            group.dirty = true;
        }
        drop(groups);
        if count < has {
            // Durable before the file is shorter: it must not look cut off after a crash.
            let (header, _) = self.head()?;
            self.write_heads(&header, count)?;
            self.file.sync_data()?;
        }
        self.file.set_len(end_of(count))
    }

    /// Checksums first: they and what they are of become durable together.
    fn sync(&self) -> io::Result<()> {
        let mut groups = self.groups.write();
        let end = self.file.len()?;
        for (number, group) in (0..).zip(groups.iter_mut()) {
            let Some(group) = group.as_deref_mut().filter(|group| group.dirty) else { continue };
            let mut bytes = vec![0; BLOCK_BYTES];
            for (bytes, sum) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(&group.sums) {
                *bytes = sum.to_le_bytes();
            }
            // One that the file has grown smaller than is not to make it larger again.
            if sums_at(number) < end {
                self.file.write(sums_at(number), &bytes)?;
            }
            group.dirty = false;
        }
        drop(groups);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 && data.len() <= HEADER_BYTES_MAX {
            return self.write_heads(data, self.length()? / BLOCK);
        }
        let mut number = whole(offset, data.len())?;
        if number == 0 {
            return Err(not_blocks());
        }
        let mut rest = data;
        while !rest.is_empty() {
            let in_group = (PER_GROUP - number % PER_GROUP) as usize * BLOCK_BYTES;
            let (run, after) = rest.split_at(in_group.min(rest.len()));
            self.file.write(physical(number), run)?;
            let group = number / PER_GROUP;
            let index = usize::try_from(group).map_err(io::Error::other)?;
            let mut groups = self.groups.write();
            let group = self.loaded(&mut groups, group, index)?;
            for block in run.chunks_exact(BLOCK_BYTES) {
                group.sums[place(number)] = checksum(number, block);
                number += 1;
            }
            group.dirty = true;
            rest = after;
        }
        Ok(())
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks of {}", self.0.name)
    }
}

fn is_head(head: &[u8; HEAD_BYTES]) -> bool {
    head[..8] == *MAGIC && head[8..12] == VERSION.to_le_bytes() && head[12..16] == head_checksum(head).to_le_bytes()
}

fn head_checksum(head: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&head[8..12]);
    sum.update(&head[16..HEAD_BYTES]);
    sum.finalize()
}

fn checksum(number: u64, block: &[u8]) -> u32 {
    // The place is enough of a number: a file of redb's has fewer blocks than it has values.
    let mut sum = crc32fast::Hasher::new_with_initial(number as u32);
    sum.update(block);
    sum.finalize().max(1)
}

fn place(number: u64) -> usize {
    (number % PER_GROUP) as usize
}

fn sums_at(group: u64) -> u64 {
    (HEADS + group * (PER_GROUP + 1)) * BLOCK
}

/// Where a block lies in the file.
fn physical(number: u64) -> u64 {
    if number == 0 {
        return 0;
    }
    sums_at(number / PER_GROUP) + (1 + number % PER_GROUP) * BLOCK
}

/// Where a file ends that has so many blocks.
fn end_of(count: u64) -> u64 {
    match count % PER_GROUP {
        0 => sums_at(count / PER_GROUP),
        _ => physical(count),
    }
}

/// The number of the block that begins there. redb's pages are whole blocks.
fn whole(offset: u64, len: usize) -> io::Result<u64> {
    if offset.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK_BYTES) { Ok(offset / BLOCK) } else { Err(not_blocks()) }
}

fn not_blocks() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "redb reads and writes whole blocks, and its header in one piece")
}
