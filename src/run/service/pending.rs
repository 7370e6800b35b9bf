//! Rows that a service has submitted and that readers do not see yet.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// What a service changed, by key, until the commit that holds the change is durable. A service that decides by a row
/// looks here first and then at the disk, or it would decide by what it has changed already.
#[derive(Debug)]
pub struct Pending<K, V> {
    rows: HashMap<K, (u64, Option<V>)>,
    order: VecDeque<(u64, K)>,
}

impl<K, V> Default for Pending<K, V> {
    fn default() -> Pending<K, V> {
        Pending { rows: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Pending<K, V> {
    /// The row as it will be: `None` where nothing is pending, `Some(None)` where it is going.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Option<&V>>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key).map(|(_, row)| row.as_ref())
    }

    /// The commit of that number puts the row, or deletes it.
    pub fn put(&mut self, commit: u64, key: K, row: Option<V>) {
        self.order.push_back((commit, key.clone()));
        self.rows.insert(key, (commit, row));
    }

    /// Forgets what the disk has: all up to the commit of that number.
    pub fn forget(&mut self, durable: u64) {
        while self.order.front().is_some_and(|(commit, _)| *commit <= durable) {
            let Some((_, key)) = self.order.pop_front() else { return };
            if self.rows.get(&key).is_some_and(|(commit, _)| *commit <= durable) {
                self.rows.remove(&key);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_change_counts_until_it_is_durable() {
        let mut pending: Pending<String, u8> = Pending::default();
        pending.put(1, "a".into(), Some(1));
        pending.put(2, "a".into(), None);
        pending.put(3, "b".into(), Some(3));
        assert_eq!(pending.get("a"), Some(None));
        pending.forget(1);
        assert_eq!(pending.get("a"), Some(None), "the second change is not durable yet");
        pending.forget(2);
        assert_eq!((pending.get("a"), pending.get("b")), (None, Some(Some(&3))));
        pending.forget(9);
        assert!(pending.is_empty());
    }
}
