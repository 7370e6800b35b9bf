//! Rows of notifications: those on their way, and those that were delivered lately. Owned by the notifications'
//! service.

use std::ops::Bound;

use conveyor_base::{Fault, Timestamp};
use rkyv::{Archive, Deserialize, Serialize};

use super::Stamp;
use crate::commit::Commit;
use crate::overlay::Direction;
use crate::reader::{Reader, Scans};
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(OutboxRow, DeliveredRow);

/// A notification that has not been delivered yet.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Where to: the name of a configured target, or a topic's ARN.
    pub target: String,
    /// What, as JSON.
    pub body: String,
    pub created_at: Stamp,
    pub attempts: u32,
    pub next_at: Stamp,
    /// Why the newest attempt failed; empty before the first.
    pub last_error: String,
}

impl OutboxRow {
    /// One that is to be delivered at once.
    pub fn new(target: &str, body: String, now: Timestamp) -> OutboxRow {
        let (target, attempts, last_error) = (target.to_owned(), 0, String::new());
        OutboxRow { target, body, created_at: now.into(), attempts, next_at: now.into(), last_error }
    }
}

/// A notification that its target has taken, for people to look at.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct DeliveredRow {
    /// The name of the target that took it.
    pub target: String,
    /// What, as JSON.
    pub body: String,
    pub created_at: Stamp,
    pub delivered_at: Stamp,
    /// How many tries it took, the last one included.
    pub attempts: u32,
}

impl Commit {
    /// Numbers come from [`super::Writer::outbox_number`].
    pub fn put_outbox(&mut self, number: u64, row: &OutboxRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Outbox, &number.to_be_bytes(), row);
        self
    }

    pub fn drop_outbox(&mut self, number: u64) -> &mut Commit {
        self.record.delete(Table::Outbox, &number.to_be_bytes());
        self
    }

    /// A notification of the outbox that was delivered, under its number there.
    pub fn put_delivered(&mut self, number: u64, row: &DeliveredRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Delivered, &tables::newest_first(number), row);
        self
    }

    pub fn delete_delivered(&mut self, number: u64) -> &mut Commit {
        self.record.delete(Table::Delivered, &tables::newest_first(number));
        self
    }
}

impl Reader {
    /// An undelivered notification.
    pub fn notification(&self, number: u64) -> Result<Option<OutboxRow>, Fault> {
        self.one(Table::Outbox, &number.to_be_bytes())
    }
}

impl Scans {
    /// Undelivered notifications, oldest first, going on after a number.
    pub fn outbox(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, OutboxRow)>, Fault> {
        let after = after.map(u64::to_be_bytes);
        let start = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        self.collect(Table::Outbox, (start, Bound::Unbounded), Direction::Forward, limit, |key| {
            key.try_into().ok().map(u64::from_be_bytes)
        })
    }

    /// Delivered notifications by their numbers in the outbox, newest first.
    pub fn delivered(&self, limit: usize) -> Result<Vec<(u64, DeliveredRow)>, Fault> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        self.collect(Table::Delivered, all, Direction::Forward, limit, tables::split_newest_first)
    }
}
