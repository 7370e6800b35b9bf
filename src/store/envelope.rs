//! The envelope around every row's value: which form the content has, and a checksum that tells when it has changed.
//!
//! ```text
//! value := version u8 | checksum u32 | content      (little-endian)
//! ```
//!
//! The checksum is a CRC-32 over the table's number, the version, the key and the content, so that a value that lies
//! under another key or in another table is found too. It is written where a commit is encoded ([`super::record`]) and
//! travels with the row through journal, memory and state file; [`seal`] makes it for the few rows that no commit
//! writes. Also rows whose content is empty have one: an index row is its key, and its key is in the checksum.
//!
//! Without an envelope are: what is added to a count, which is a change and no row (the count itself is one), and the
//! one row `store.format`, which releases of every form must be able to read.

use conveyor_base::Fault;

use super::rows::{self, Row, damaged};
use super::tables::Table;

pub(super) const HEAD_BYTES: usize = 5;
/// The version of contents that are no archives: texts, ids, numbers, nothing.
pub(super) const PLAIN: u8 = 1;

pub(super) fn checksum(table: Table, version: u8, key: &[u8], content: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    let [a, b, c, d] = (key.len() as u32).to_le_bytes();
    sum.update(&[table as u8, version, a, b, c, d]);
    sum.update(key);
    sum.update(content);
    sum.finalize()
}

/// The envelope before a content.
pub(super) fn head(table: Table, version: u8, key: &[u8], content: &[u8]) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = checksum(table, version, key, content).to_le_bytes();
    [version, a, b, c, d]
}

/// A whole value, for what no commit writes.
pub(super) fn seal(table: Table, version: u8, key: &[u8], content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD_BYTES + content.len());
    value.extend_from_slice(&head(table, version, key, content));
    value.extend_from_slice(content);
    value
}

/// A value as it lies in a table, in place, with the key that it lies under.
#[derive(Clone, Copy)]
pub(super) struct Sealed<'a> {
    table: Table,
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> Sealed<'a> {
    pub fn new(table: Table, key: &'a [u8], value: &'a [u8]) -> Sealed<'a> {
        Sealed { table, key, value }
    }

    /// How much key and value take.
    pub fn bytes(self) -> usize {
        self.key.len() + self.value.len()
    }

    /// Why such a row cannot be one of this store's.
    pub fn damaged(self, what: &str) -> Fault {
        damaged(self.table, what)
    }

    /// What no archive is: a text, an id, a number.
    pub fn plain(self) -> Result<&'a [u8], Fault> {
        self.content(PLAIN)
    }

    /// A row, in place.
    pub fn access<T: Row>(self) -> Result<&'a T::Archived, Fault> {
        rows::archived::<T>(self.table, self.content(T::VERSION)?)
    }

    /// The content, which must be of that version. Every read of a row comes through here, and is verified here.
    pub fn content(self, version: u8) -> Result<&'a [u8], Fault> {
        let (found, _, content) = self.parts()?;
        self.verify()?;
        if found != version {
            let what = format!("a row has version {found}, and this release reads version {version}");
            return Err(self.damaged(&what));
        }
        Ok(content)
    }

    /// Whether the value is what was written under this key of this table.
    pub fn verify(self) -> Result<(), Fault> {
        let (version, sum, content) = self.parts()?;
        if sum != checksum(self.table, version, self.key, content) {
            return Err(self.damaged("a row's checksum is not that of its content"));
        }
        Ok(())
    }

    fn parts(self) -> Result<(u8, u32, &'a [u8]), Fault> {
        match self.value.split_first_chunk::<HEAD_BYTES>() {
            Some(([version, sum @ ..], content)) => Ok((*version, u32::from_le_bytes(*sum), content)),
            None => Err(self.damaged("a row has no envelope")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_another_key_and_another_table_are_told() {
        let value = seal(Table::Items, PLAIN, b"key", b"content");
        assert_eq!(Sealed::new(Table::Items, b"key", &value).plain().unwrap(), b"content");
        assert!(Sealed::new(Table::Items, b"key", &value).verify().is_ok());
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Sealed::new(Table::Items, b"key", &flipped).verify().is_err(), "bit {bit}");
        }
        assert!(Sealed::new(Table::Items, b"kez", &value).verify().is_err());
        assert!(Sealed::new(Table::Files, b"key", &value).verify().is_err());
        // A byte more in the key and one less in the content is not the same row.
        let moved = [&value[..HEAD_BYTES], &value[HEAD_BYTES + 1..]].concat();
        assert!(Sealed::new(Table::Items, b"keyc", &moved).verify().is_err());
        assert!(Sealed::new(Table::Items, b"key", &value[..4]).content(PLAIN).is_err());
        assert!(Sealed::new(Table::Items, b"key", &value).content(2).is_err());
    }
}
