//! Files of the journal as releases wrote them whose store's format was below 6: read, and never written again.
//!
//! ```text
//! file  := head | batch*                            each from the start of a block of 4 KiB
//! head  := magic [8] | version u32 | store id [16]
//! batch := magic u32 | head checksum u32 | number u64 | length u64 | records checksum u32 | records
//! ```

use super::sector::StoreId;
use super::segment::{BLOCK_BYTES, array};

const BATCH_MAGIC: u32 = 0xc0b1_7a5e;
const HEAD_BYTES: usize = 28;

/// Finds the batches after `applied` that are whole. Says which is the newest of all.
pub(super) fn scan(bytes: &[u8], store_id: StoreId, applied: u64, mut take: impl FnMut(u64, Vec<u8>)) -> u64 {
    let (mut at, mut newest) = (BLOCK_BYTES, 0);
    while at < bytes.len() {
        match batch(&bytes[at..], store_id, applied) {
            Some((number, records)) => {
                newest = newest.max(number);
                if number > applied {
                    take(number, records.to_vec());
                }
                at += (HEAD_BYTES + records.len()).next_multiple_of(BLOCK_BYTES);
            }
            None => at += BLOCK_BYTES,
        }
    }
    newest
}

/// The batch that begins here. Its records are verified only where its number says that they count.
fn batch(bytes: &[u8], store_id: StoreId, applied: u64) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
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
