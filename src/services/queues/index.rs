//! The index of a queue: what is in it, as numbers; which message is visible, which is in whose hands. Pure; the bodies
//! are rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use conveyor_base::Timestamp;
use conveyor_store::MessageRow;

use super::DEDUPLICATION_MS;

#[derive(Debug, Default)]
pub struct QueueIndex {
    entries: BTreeMap<u64, Entry>,
    visible: BTreeSet<u64>,
    /// In flight or delayed, by when they become visible.
    hidden: BTreeSet<(Timestamp, u64)>,
    /// How many messages of a group are in flight.
    busy: HashMap<Arc<str>, usize>,
    /// Deduplication id → when it was sent first, its number and its message id.
    copies: HashMap<String, (Timestamp, u64, String)>,
    /// Numbers of deleted messages whose rows stay for the copies.
    ghosts: BTreeMap<u64, String>,
    in_flight: usize,
    newest: u64,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub sent_at: Timestamp,
    visible_at: Timestamp,
    received: u32,
    receipt: u64,
    group: Option<Arc<str>>,
    in_flight: bool,
}

/// A message that was just taken.
pub struct Taken {
    pub sequence: u64,
    pub received: u32,
    pub receipt: u64,
}

/// How many messages a queue has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub visible: usize,
    pub in_flight: usize,
    pub delayed: usize,
}

impl QueueIndex {
    /// Numbers go up with time, over restarts and after the last message was deleted too.
    pub fn next_sequence(&mut self, now: Timestamp) -> u64 {
        self.newest = (self.newest + 1).max(now.0.unsigned_abs() * 1_000);
        self.newest
    }

    /// A row, as it was stored.
    pub fn put(&mut self, sequence: u64, row: &MessageRow) {
        self.newest = self.newest.max(sequence);
        self.remember(sequence, row);
        if row.deleted {
            self.ghosts.insert(sequence, row.deduplication.clone());
            return;
        }
        let group = (!row.group.is_empty()).then(|| Arc::from(row.group.as_str()));
        let (visible_at, received) = (Timestamp::from(row.visible_at), row.received);
        let entry = Entry {
            sent_at: row.sent_at.into(),
            visible_at,
            received,
            receipt: row.receipt,
            group,
            in_flight: received > 0,
        };
        if entry.in_flight {
            self.begin(&entry);
        }
        self.hidden.insert((visible_at, sequence));
        self.entries.insert(sequence, entry);
    }

    /// The message has a copy from now on that counts as the same.
    fn remember(&mut self, sequence: u64, row: &MessageRow) {
        if !row.deduplication.is_empty() {
            self.copies.insert(row.deduplication.clone(), (row.sent_at.into(), sequence, row.id.clone()));
        }
    }

    /// Number and id of the message that this would be a second copy of.
    pub fn copy_of(&self, deduplication: &str, now: Timestamp) -> Option<(u64, String)> {
        let (sent_at, sequence, id) = self.copies.get(deduplication)?;
        (now.since_ms(*sent_at) < DEDUPLICATION_MS).then(|| (*sequence, id.clone()))
    }

    /// Takes what is visible, oldest first, and hides it for a while. `receipt` makes the receipts.
    pub fn take(
        &mut self,
        now: Timestamp,
        most: usize,
        visibility_ms: i64,
        receipt: &mut dyn FnMut() -> u64,
    ) -> Vec<Taken> {
        self.show(now);
        let mut chosen = Vec::new();
        let mut closed: BTreeSet<&str> = BTreeSet::new();
        for sequence in &self.visible {
            if chosen.len() == most {
                break;
            }
            let Some(entry) = self.entries.get(sequence) else { continue };
            match &entry.group {
                Some(group) if closed.contains(&**group) || self.busy.contains_key(group) => {
                    closed.insert(group);
                }
                _ => chosen.push(*sequence),
            }
        }
        let until = now.plus_ms(visibility_ms);
        chosen.iter().filter_map(|sequence| self.hand_out(*sequence, until, receipt())).collect()
    }

    fn hand_out(&mut self, sequence: u64, visible_at: Timestamp, receipt: u64) -> Option<Taken> {
        let entry = self.entries.get_mut(&sequence)?;
        entry.received += 1;
        entry.receipt = receipt;
        entry.visible_at = visible_at;
        entry.in_flight = true;
        let (taken, entry) = (Taken { sequence, received: entry.received, receipt: entry.receipt }, entry.clone());
        self.visible.remove(&sequence);
        self.hidden.insert((visible_at, sequence));
        self.begin(&entry);
        Some(taken)
    }

    /// Whose time has come is visible again.
    fn show(&mut self, now: Timestamp) {
        while let Some((at, sequence)) = self.hidden.first().copied().filter(|(at, _)| *at <= now) {
            self.hidden.remove(&(at, sequence));
            self.visible.insert(sequence);
            if let Some(entry) = self.entries.get_mut(&sequence)
                && std::mem::take(&mut entry.in_flight)
            {
                let entry = entry.clone();
                self.end(&entry);
            }
        }
    }

    fn begin(&mut self, entry: &Entry) {
        self.in_flight += 1;
        if let Some(group) = &entry.group {
            *self.busy.entry(group.clone()).or_default() += 1;
        }
    }

    fn end(&mut self, entry: &Entry) {
        self.in_flight -= 1;
        if let Some(group) = &entry.group
            && let Some(count) = self.busy.get_mut(group)
        {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(group);
            }
        }
    }

    pub fn remove(&mut self, sequence: u64) -> Option<Entry> {
        let entry = self.entries.remove(&sequence)?;
        self.visible.remove(&sequence);
        self.hidden.remove(&(entry.visible_at, sequence));
        if entry.in_flight {
            self.end(&entry);
        }
        Some(entry)
    }

    /// The message, if this is its newest receipt.
    pub fn received(&self, sequence: u64, receipt: u64) -> Option<&Entry> {
        self.entries.get(&sequence).filter(|entry| entry.received > 0 && entry.receipt == receipt)
    }

    /// Whether the message is in the hands of who has this receipt.
    pub fn is_in_flight(&mut self, sequence: u64, receipt: u64, now: Timestamp) -> bool {
        self.show(now);
        self.entries.get(&sequence).is_some_and(|entry| entry.in_flight && entry.receipt == receipt)
    }

    /// Moves the time at which a message in flight becomes visible.
    pub fn hide(&mut self, sequence: u64, receipt: u64, now: Timestamp, visible_at: Timestamp) -> bool {
        self.show(now);
        let Some(entry) = self.entries.get_mut(&sequence) else { return false };
        if !entry.in_flight || entry.receipt != receipt {
            return false;
        }
        self.hidden.remove(&(entry.visible_at, sequence));
        entry.visible_at = visible_at;
        self.hidden.insert((visible_at, sequence));
        true
    }

    /// Whether something can be taken now.
    pub fn has_visible(&mut self, now: Timestamp) -> bool {
        self.show(now);
        let is_free = |entry: &Entry| entry.group.as_ref().is_none_or(|group| !self.busy.contains_key(group));
        self.visible.iter().filter_map(|sequence| self.entries.get(sequence)).any(is_free)
    }

    /// Whether a receipt is that of a message that is still there.
    pub fn knows(&self, sequence: u64) -> bool {
        self.entries.contains_key(&sequence)
    }

    /// When the next hidden message becomes visible.
    pub fn next_visible(&self) -> Option<Timestamp> {
        self.hidden.first().map(|(at, _)| *at)
    }

    pub fn counts(&mut self, now: Timestamp) -> Counts {
        self.show(now);
        Counts {
            visible: self.visible.len(),
            in_flight: self.in_flight,
            delayed: self.hidden.len().saturating_sub(self.in_flight),
        }
    }

    /// The numbers of all rows.
    pub fn sequences(&self) -> Vec<u64> {
        self.entries.keys().chain(self.ghosts.keys()).copied().collect()
    }

    /// Everything goes.
    pub fn clear(&mut self) {
        *self = QueueIndex { newest: self.newest, ..QueueIndex::default() };
    }

    /// Takes out what is too old; with the numbers of the rows.
    pub fn expired(&mut self, now: Timestamp, keeps_ms: i64) -> Vec<u64> {
        let old = |sent_at: Timestamp, ms: i64| now.since_ms(sent_at) >= ms;
        let too_old = self.entries.iter().filter(|(_, entry)| old(entry.sent_at, keeps_ms));
        let mut gone: Vec<u64> = too_old.map(|(sequence, _)| *sequence).collect();
        gone.iter().for_each(|sequence| drop(self.remove(*sequence)));
        self.copies.retain(|_, (sent_at, ..)| !old(*sent_at, DEDUPLICATION_MS));
        let copies = &self.copies;
        self.ghosts.retain(|sequence, deduplication| {
            let stays = copies.contains_key(deduplication);
            if !stays {
                gone.push(*sequence);
            }
            stays
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use conveyor_store::Stamp;

    use super::*;

    fn row(group: &str, deduplication: &str) -> MessageRow {
        MessageRow {
            id: "id".into(),
            body: String::new(),
            attributes: String::new(),
            group: group.into(),
            deduplication: deduplication.into(),
            sent_at: Stamp(0),
            visible_at: Stamp(0),
            first_received_at: Stamp(0),
            received: 0,
            receipt: 0,
            deleted: false,
        }
    }

    fn receipts() -> impl FnMut() -> u64 {
        let mut next = 0;
        move || {
            next += 1;
            next
        }
    }

    fn numbers(taken: &[Taken]) -> Vec<u64> {
        taken.iter().map(|taken| taken.sequence).collect()
    }

    #[test]
    fn a_message_is_in_one_pair_of_hands_until_its_time_is_up() {
        let mut index = QueueIndex::default();
        let mut receipts = receipts();
        (1..=3).for_each(|n| index.put(n, &row("", "")));
        let first = index.take(Timestamp(1), 2, 100, &mut receipts);
        assert_eq!(numbers(&first), [1, 2]);
        assert_eq!(numbers(&index.take(Timestamp(1), 10, 100, &mut receipts)), [3]);
        assert_eq!(index.counts(Timestamp(1)), Counts { visible: 0, in_flight: 3, delayed: 0 });
        assert!(index.hide(1, first[0].receipt, Timestamp(50), Timestamp(500)), "more time for the first");
        let again = index.take(Timestamp(101), 10, 100, &mut receipts);
        assert_eq!(numbers(&again), [2, 3]);
        assert_eq!(again[0].received, 2);
        assert!(index.received(2, first[1].receipt).is_none(), "an old receipt deletes nothing");
        assert!(index.received(2, again[0].receipt).is_some() && index.remove(2).is_some());
        assert_eq!(index.counts(Timestamp(101)).in_flight, 2);
        assert_eq!(numbers(&index.take(Timestamp(500), 10, 100, &mut receipts)), [1, 3]);
    }

    #[test]
    fn groups_go_one_after_the_other_and_copies_once() {
        let mut index = QueueIndex::default();
        let mut receipts = receipts();
        for (n, group, copy) in [(1, "a", "x"), (2, "a", "y"), (3, "b", "z"), (4, "a", "w")] {
            index.put(n, &row(group, copy));
        }
        let first = index.take(Timestamp(1), 1, 100, &mut receipts);
        assert_eq!(numbers(&first), [1]);
        let second = index.take(Timestamp(1), 10, 100, &mut receipts);
        assert_eq!(numbers(&second), [3], "a is busy");
        assert!(index.received(1, first[0].receipt).is_some() && index.remove(1).is_some());
        assert_eq!(
            numbers(&index.take(Timestamp(1), 10, 100, &mut receipts)),
            [2, 4],
            "one receiver may have several of a group"
        );
        assert_eq!(index.copy_of("x", Timestamp(1)).map(|(n, _)| n), Some(1));
        assert_eq!(index.copy_of("x", Timestamp(DEDUPLICATION_MS)), None);
        assert_eq!(index.expired(Timestamp(10), 10), [2, 3, 4]);
    }
}
