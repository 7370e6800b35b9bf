//! Rows of the audit log: who did what. Owned by the audit log.

use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use conveyor_base::{Fault, Timestamp};
use rkyv::{Archive, Deserialize, Serialize};

use super::Stamp;
use crate::commit::Commit;
use crate::overlay::Direction;
use crate::reader::Scans;
use crate::record::Op;
use crate::tables::Table;

super::catalog!(AuditRow);

/// One change that came in through the API. A body is never kept, since it may hold a secret.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct AuditRow {
    pub at: Stamp,
    /// The name of the caller's credential.
    pub who: String,
    /// The caller's role, as the API spells it.
    pub role: String,
    /// Which of the two APIs it came in through: `rest` or `aws`.
    pub api: String,
    /// The operation, such as `StopExecution` or `POST /executions/{id}/stop`.
    pub what: String,
    /// What it was done to, as far as the request's address says it.
    pub to: String,
    /// The HTTP status of the answer.
    pub status: u16,
}

/// Where an audit entry stands: the newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditKey {
    pub at: Timestamp,
    /// Tells entries of one millisecond apart.
    pub number: u64,
}

impl AuditKey {
    fn bytes(self) -> Vec<u8> {
        [self.inverted_at().to_be_bytes(), (u64::MAX - self.number).to_be_bytes()].concat()
    }

    fn inverted_at(self) -> u64 {
        u64::MAX - self.at.0.max(0) as u64
    }

    fn of_inverted(at: u64, number: u64) -> Option<AuditKey> {
        let at = i64::try_from(u64::MAX - at).ok()?;
        Some(AuditKey { at: Timestamp(at), number: u64::MAX - number })
    }

    fn of_bytes(key: &[u8]) -> Option<AuditKey> {
        let (at, number) = key.split_first_chunk::<8>()?;
        AuditKey::of_inverted(u64::from_be_bytes(*at), u64::from_be_bytes(number.try_into().ok()?))
    }
}

/// As pages of the log are named: two numbers of twenty digits that sort as the rows do.
impl fmt::Display for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:020}", self.inverted_at(), u64::MAX - self.number)
    }
}

/// A text that names no place in the audit log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no place in the audit log")]
pub struct NotAnAuditKey;

impl FromStr for AuditKey {
    type Err = NotAnAuditKey;

    fn from_str(text: &str) -> Result<AuditKey, NotAnAuditKey> {
        let read = || {
            let (at, number) = text.split_once('-')?;
            AuditKey::of_inverted(at.parse().ok()?, number.parse().ok()?)
        };
        read().ok_or(NotAnAuditKey)
    }
}

impl Commit {
    pub fn put_audit(&mut self, key: AuditKey, row: &AuditRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Audit, &key.bytes(), row);
        self
    }

    pub fn delete_audit(&mut self, key: AuditKey) -> &mut Commit {
        self.record.delete(Table::Audit, &key.bytes());
        self
    }
}

impl Scans {
    /// Audit entries, newest first, going on after one.
    pub fn audit(&self, after: Option<AuditKey>, limit: usize) -> Result<Vec<(AuditKey, AuditRow)>, Fault> {
        let after = after.map(AuditKey::bytes);
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.collect(Table::Audit, (start, Bound::Unbounded), Direction::Forward, limit, AuditKey::of_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_the_newest_first_as_bytes_and_as_text() {
        let key = |at, number| AuditKey { at: Timestamp(at), number };
        let newest_first = [key(8, 0), key(7, 5), key(7, 4), key(0, 9)];
        assert!(newest_first.iter().map(|key| key.bytes()).is_sorted());
        assert!(newest_first.iter().map(AuditKey::to_string).is_sorted());
        for key in newest_first {
            assert_eq!(AuditKey::of_bytes(&key.bytes()), Some(key));
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        assert_eq!("0-0".parse::<AuditKey>(), Err(NotAnAuditKey));
    }
}
