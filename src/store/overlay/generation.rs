//! [`Generation`]: the changes between two checkpoints, as maps that a snapshot shares instead of copying.
//!
//! Keys and values point into the commit's own buffer. A key carries its first bytes with it, so that most comparisons
//! need not go there: this is what makes the maps faster than plain ones although they can be shared.

use std::cmp::Ordering;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;

use crate::record::{self, Op};
use crate::tables::Table;

/// A part of a record, which it keeps alive.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    record: Arc<Vec<u8>>,
    start: u32,
    length: u32,
}

impl Slice {
    pub fn new(record: &Arc<Vec<u8>>, (start, length): (u32, u32)) -> Slice {
        Slice { record: record.clone(), start, length }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.record[self.start as usize..][..self.length as usize]
    }
}

/// The first 16 bytes, filled up with zeros. Where two heads differ, they differ as the whole keys do.
type Head = [u64; 2];

fn head(key: &[u8]) -> Head {
    let mut first = [0; 16];
    let length = key.len().min(16);
    first[..length].copy_from_slice(&key[..length]);
    let all = u128::from_be_bytes(first);
    [(all >> 64) as u64, all as u64]
}

/// A row's key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    head: Head,
    whole: Slice,
}

impl Key {
    fn new(whole: Slice) -> Key {
        Key { head: head(whole.bytes()), whole }
    }

    pub fn bytes(&self) -> &[u8] {
        self.whole.bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        self.head.cmp(&other.head).then_with(|| self.bytes().cmp(other.bytes()))
    }
}

/// A key that is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Sought<'k> {
    head: Head,
    whole: &'k [u8],
}

impl<'k> From<&'k [u8]> for Sought<'k> {
    fn from(whole: &'k [u8]) -> Sought<'k> {
        Sought { head: head(whole), whole }
    }
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.compare(key).is_eq()
    }
}

impl Comparable<Key> for Sought<'_> {
    fn compare(&self, key: &Key) -> Ordering {
        self.head.cmp(&key.head).then_with(|| self.whole.cmp(key.bytes()))
    }
}

/// What became of a row.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Slice),
    /// No older generation knows the key.
    PutNew(Slice),
    Deleted,
}

impl Change {
    pub fn value(&self) -> Option<&Slice> {
        match self {
            Change::Put(value) | Change::PutNew(value) => Some(value),
            Change::Deleted => None,
        }
    }
}

pub(crate) type Changes = OrdMap<Key, Change>;
/// How many executions there are, by machine and status.
pub(crate) type Counts = OrdMap<Arc<[u8]>, i64>;

/// The changes between two checkpoints. A clone shares everything and costs next to nothing.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    pub tables: Vec<Changes>,
    /// Counts that changed, as they are now; of 0 there is to be no row.
    pub counts: Counts,
    /// The journal number of the newest change.
    pub newest: u64,
    /// How much was published into it: what the back-pressure goes by.
    pub bytes: usize,
}

impl Generation {
    /// An empty one, behind the batch of that number.
    pub fn after(newest: u64) -> Generation {
        Generation { tables: vec![Changes::new(); Table::COUNT], counts: Counts::new(), newest, bytes: 0 }
    }

    /// Both as one, where this one is the newer.
    pub(super) fn over(&self, older: &Generation) -> Generation {
        let both = self.tables.iter().zip(&older.tables);
        Generation {
            tables: both.map(|(newer, older)| newer.clone().union(older.clone())).collect(),
            counts: self.counts.clone().union(older.counts.clone()),
            newest: self.newest,
            bytes: self.bytes + older.bytes,
        }
    }

    /// Each change goes down the tree once where it can. A key's first record stays alive until the next checkpoint,
    /// which `bytes` has counted.
    pub(super) fn apply(&mut self, record: &Arc<Vec<u8>>, change: record::Change) {
        let rows = &mut self.tables[change.table as usize];
        let key = Key::new(Slice::new(record, change.key));
        let value = || Slice::new(record, change.value);
        match change.op {
            Op::PutNew => {
                // A key that was deleted here is not new to the older generations after all.
                let old = rows.insert(key.clone(), Change::PutNew(value()));
                if matches!(old, Some(Change::Put(_) | Change::Deleted)) {
                    rows.insert(key, Change::Put(value()));
                }
            }
            Op::Put => match rows.get_mut(&key) {
                Some(Change::PutNew(old) | Change::Put(old)) => *old = value(),
                Some(deleted) => *deleted = Change::Put(value()),
                None => drop(rows.insert(key, Change::Put(value()))),
            },
            Op::Delete => match rows.get(&key) {
                Some(Change::PutNew(_)) => drop(rows.remove(&key)),
                _ => drop(rows.insert(key, Change::Deleted)),
            },
            Op::Add => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(bytes: &[u8]) -> Key {
        Key::new(Slice::new(&Arc::new(bytes.to_vec()), (0, bytes.len() as u32)))
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_bytes(
            // Few letters, so that one key often begins as the other; lengths on both sides of a head's.
            a in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..20),
            b in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..20),
        ) {
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            prop_assert_eq!(Sought::from(a.as_slice()).compare(&key(&b)), a.cmp(&b));
        }
    }
}
