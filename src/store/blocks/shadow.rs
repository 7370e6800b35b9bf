//! [`Shadow`]: a file of blocks to look at with redb, which writes into whatever it opens. What it writes stays in memory.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::{BLOCK, BLOCK_BYTES, Blocks, not_blocks, whole};

/// The file must not change meanwhile.
#[derive(Debug)]
pub(crate) struct Shadow {
    file: Blocks,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    header: Option<Vec<u8>>,
    blocks: BTreeMap<u64, Box<[u8]>>,
    length: Option<u64>,
}

impl Shadow {
    pub fn of(file: Blocks) -> Shadow {
        Shadow { file, written: Mutex::default() }
    }
}

impl StorageBackend for Shadow {
    fn len(&self) -> io::Result<u64> {
        self.written.lock().length.map_or_else(|| self.file.len(), Ok)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        if offset < BLOCK {
            let Some(header) = &written.header else { return self.file.read(offset, out) };
            let wanted = header.get(offset as usize..offset as usize + out.len());
            out.copy_from_slice(wanted.ok_or_else(not_blocks)?);
            return Ok(());
        }
        for (number, block) in (whole(offset, out.len())?..).zip(out.chunks_exact_mut(BLOCK_BYTES)) {
            match written.blocks.get(&number) {
                Some(bytes) => block.copy_from_slice(bytes),
                None => self.file.read(number * BLOCK, block)?,
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().length = Some(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        if offset == 0 {
            written.header = Some(data.to_vec());
            return Ok(());
        }
        for (number, block) in (whole(offset, data.len())?..).zip(data.chunks_exact(BLOCK_BYTES)) {
            written.blocks.insert(number, block.into());
        }
        Ok(())
    }
}
