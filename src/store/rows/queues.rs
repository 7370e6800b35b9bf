//! Rows of queues: their messages. Owned by the queues.

use std::ops::Bound;

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::Stamp;
use crate::commit::Commit;
use crate::overlay::Direction;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(MessageRow);

/// A message of a queue.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct MessageRow {
    pub id: String,
    pub body: String,
    /// The sender's attributes as JSON; empty for none.
    pub attributes: String,
    /// Of a FIFO queue: messages of one group are received one after the other.
    pub group: String,
    /// Of a FIFO queue: what tells a second copy from another message.
    pub deduplication: String,
    pub sent_at: Stamp,
    /// Not received before this time: delayed, or in somebody's hands.
    pub visible_at: Stamp,
    pub first_received_at: Stamp,
    pub received: u32,
    /// What the newest receipt handle must repeat.
    pub receipt: u64,
    /// Deleted, and kept only so that a second copy is known.
    pub deleted: bool,
}

impl Commit {
    pub fn put_message(&mut self, queue: &str, sequence: u64, row: &MessageRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Queues, &tables::text_number(queue, sequence), row);
        self
    }

    pub fn drop_message(&mut self, queue: &str, sequence: u64) -> &mut Commit {
        self.record.delete(Table::Queues, &tables::text_number(queue, sequence));
        self
    }
}

impl Reader {
    pub fn message(&self, queue: &str, sequence: u64) -> Result<Option<MessageRow>, Fault> {
        self.one(Table::Queues, &tables::text_number(queue, sequence))
    }
}

impl Scans {
    /// Messages of a queue, oldest first, from a sequence number on.
    pub fn messages(&self, queue: &str, from: u64, limit: usize) -> Result<Vec<(u64, MessageRow)>, Fault> {
        let (first, last) = (tables::text_number(queue, from), tables::text_number(queue, u64::MAX));
        let range = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
        self.collect(Table::Queues, range, Direction::Forward, limit, |key| {
            key.last_chunk().copied().map(u64::from_be_bytes)
        })
    }
}
