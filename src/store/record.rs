//! The form of a commit on its way: row changes, one after the other, in one buffer.
//!
//! The committing task writes it, the journal stores it, the overlay points into it; nobody copies a row.
//!
//! ```text
//! change := op u8 | table u8 | key length u32 | value length u32 | key | value      (lengths little-endian)
//! ```
//!
//! The value of a row that is put has its envelope ([`super::envelope`]) already, made here and nowhere else for all that
//! is committed: over the bytes where they lie, without a copy. What is added to a count is a bare number, and a row
//! that is deleted has no value.

use std::sync::Arc;

use conveyor_base::Fault;

use super::envelope::{self, HEAD_BYTES as ENVELOPE_BYTES};
use super::rows::Row;
use super::tables::Table;

/// What happens to a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Delete = 0,
    Put = 1,
    /// The row's key was never used before: if it goes before the next checkpoint, the state file never hears of it.
    PutNew = 2,
    /// The value is a number to add to a count.
    Add = 3,
}

const HEAD_BYTES: usize = 10;

/// Collects changes.
#[derive(Debug, Default)]
pub(super) struct Record(Vec<u8>);

impl Record {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    ///
    /// Places in a record are numbers of 32 bits: a longer one can be neither written nor read. Every payload is bounded
    /// far below.
    pub fn into_shared(self) -> Result<Arc<Vec<u8>>, Fault> {
        match u32::try_from(self.0.len()) {
            Ok(_) => Ok(Arc::new(self.0)),
            Err(_) => Err(Fault::fatal_plain(format!("a commit of {} bytes is too long to be stored", self.0.len()))),
        }
    }

    pub fn row<T: Row>(&mut self, op: Op, table: Table, key: &[u8], row: &T) {
        self.put(op, table, key, T::VERSION, |buffer| super::rows::write(row, buffer));
    }

    pub fn plain(&mut self, op: Op, table: Table, key: &[u8], value: &[u8]) {
        self.put(op, table, key, envelope::PLAIN, |buffer| buffer.extend_from_slice(value));
    }

    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.change(Op::Delete, table, key, |_| ());
    }

    /// Adds to a count.
    pub fn add(&mut self, table: Table, key: &[u8], by: i64) {
        self.change(Op::Add, table, key, |buffer| buffer.extend_from_slice(&by.to_le_bytes()));
    }

    fn put(&mut self, op: Op, table: Table, key: &[u8], version: u8, content: impl FnOnce(&mut Vec<u8>)) {
        self.change(op, table, key, |buffer| {
            let start = buffer.len();
            buffer.extend_from_slice(&[0; ENVELOPE_BYTES]);
            content(buffer);
            let head = envelope::head(table, version, key, &buffer[start + ENVELOPE_BYTES..]);
            buffer[start..start + ENVELOPE_BYTES].copy_from_slice(&head);
        });
    }

    fn change(&mut self, op: Op, table: Table, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        let buffer = &mut self.0;
        buffer.extend_from_slice(&[op as u8, table as u8]);
        buffer.extend_from_slice(&length(key.len()));
        let at = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(key);
        let start = buffer.len();
        value(buffer);
        let value_length = length(buffer.len() - start);
        buffer[at..at + 4].copy_from_slice(&value_length);
    }
}

/// One that is too long makes the record too long, which is then refused.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

/// One change, as places in the buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub op: Op,
    pub table: Table,
    pub key: (u32, u32),
    pub value: (u32, u32),
}

/// Reads the changes of a buffer. Ends with an error where the bytes make no sense.
pub(super) fn changes(buffer: &[u8]) -> impl Iterator<Item = Result<Change, Malformed>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= buffer.len() {
            return None;
        }
        let change = read(buffer, at);
        at = change.as_ref().map_or(buffer.len(), |c| (c.value.0 + c.value.1) as usize);
        Some(change)
    })
}

/// Bytes that are no record.
#[derive(Debug, thiserror::Error)]
#[error("a record makes no sense at byte {0}")]
pub(super) struct Malformed(usize);

fn read(buffer: &[u8], at: usize) -> Result<Change, Malformed> {
    let malformed = || Malformed(at);
    let head = buffer.get(at..at + HEAD_BYTES).ok_or_else(malformed)?;
    let op = match head[0] {
        0 => Op::Delete,
        1 => Op::Put,
        2 => Op::PutNew,
        3 => Op::Add,
        _ => return Err(malformed()),
    };
    let table = Table::from_number(head[1]).ok_or_else(malformed)?;
    let number = |from: usize| u32::from_le_bytes([head[from], head[from + 1], head[from + 2], head[from + 3]]);
    let (key_length, value_length) = (number(2), number(6));
    let key_at = u32::try_from(at + HEAD_BYTES).map_err(|_| malformed())?;
    let value_at = key_at.checked_add(key_length).ok_or_else(malformed)?;
    let end = value_at.checked_add(value_length).ok_or_else(malformed)?;
    if end as usize > buffer.len() {
        return Err(malformed());
    }
    Ok(Change { op, table, key: (key_at, key_length), value: (value_at, value_length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_and_nonsense_does_not() {
        let mut record = Record::default();
        record.plain(Op::PutNew, Table::Settings, b"a", b"1");
        record.delete(Table::Timers, b"key");
        record.add(Table::Counts, b"c", 5);
        let buffer = record.into_shared().unwrap();
        let read: Vec<Change> = changes(&buffer).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.iter().map(|c| c.op).collect::<Vec<_>>(), [Op::PutNew, Op::Delete, Op::Add]);
        let (start, length) = read[0].value;
        let value = envelope::Sealed::new(Table::Settings, b"a", &buffer[start as usize..][..length as usize]);
        assert!(value.verify().is_ok());
        assert_eq!(value.plain().unwrap(), b"1");
        for cut in 1..buffer.len() {
            let whole = changes(&buffer[..cut]).take_while(Result::is_ok).count();
            assert!(whole < 3);
        }
        assert!(changes(&[9; 40]).next().unwrap().is_err());
    }
}
