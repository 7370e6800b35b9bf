//! The index of a queue: what is in it, as numbers; which message is visible, which is in whose hands. Pure; the bodies
//! are rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use conveyor_base::Timestamp;
use conveyor_store::MessageRow;

use super::DEDUPLICATION_MS;

/// Whatever is asked of it costs as much as what it answers with, however much waits: one actor serves all queues.
#[derive(Debug, Default)]
pub struct QueueIndex {
    entries: BTreeMap<u64, Entry>,
    /// What may be taken next: each visible message that is in no group, and of each group that is free the first.
    ready: BTreeSet<u64>,
    groups: HashMap<Arc<str>, Group>,
    /// In flight or delayed, by when they become visible.
    hidden: BTreeSet<(Timestamp, u64)>,
    /// All messages by when they were sent. Of those that came out of another queue that was before their numbers.
    ages: BTreeSet<(Timestamp, u64)>,
    /// By deduplication id, what was sent under it last.
    copies: HashMap<Arc<str>, Original>,
    /// Deduplication ids by when they were sent and with which message; also of copies that are forgotten since.
    copy_ages: BTreeMap<(Timestamp, u64), Arc<str>>,
    /// Numbers of deleted messages whose rows stay for the copies.
    ghosts: BTreeSet<u64>,
    in_flight: usize,
    newest: u64,
}

/// The message that a later one with its deduplication id is a copy of.
#[derive(Debug)]
struct Original {
    sent_at: Timestamp,
    sequence: u64,
    id: String,
}

/// The messages of a group that are received one after the other.
#[derive(Debug, Default)]
struct Group {
    visible: BTreeSet<u64>,
    in_flight: usize,
}

impl Group {
    /// What may be taken of it next. Nothing, while somebody has some of it.
    fn ready(&self) -> Option<u64> {
        self.visible.first().copied().filter(|_| self.in_flight == 0)
    }
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
            self.ghosts.insert(sequence);
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
        self.ages.insert((entry.sent_at, sequence));
        self.entries.insert(sequence, entry);
    }

    /// The message has a copy from now on that counts as the same.
    fn remember(&mut self, sequence: u64, row: &MessageRow) {
        if !row.deduplication.is_empty() {
            let (deduplication, sent_at) = (Arc::<str>::from(row.deduplication.as_str()), Timestamp::from(row.sent_at));
            self.copy_ages.insert((sent_at, sequence), deduplication.clone());
            self.copies.insert(deduplication, Original { sent_at, sequence, id: row.id.clone() });
        }
    }

    /// Number and id of the message that this would be a second copy of.
    pub fn copy_of(&self, deduplication: &str, now: Timestamp) -> Option<(u64, String)> {
        let Original { sent_at, sequence, id } = self.copies.get(deduplication)?;
        (now.since_ms(*sent_at) < DEDUPLICATION_MS).then(|| (*sequence, id.clone()))
    }

    /// What a receiver would get now, `most` at most, and how often each was received with that. Nothing changes by it:
    /// [`QueueIndex::hand_out`] is for what is stored.
    pub fn choose(&mut self, now: Timestamp, most: usize) -> Vec<(u64, u32)> {
        self.show(now);
        let times = |sequence: &u64| self.entries.get(sequence).map(|entry| (*sequence, entry.received + 1));
        self.next(most).iter().filter_map(times).collect()
    }

    /// What one receiver gets, who may have several of a group.
    fn next(&self, most: usize) -> Vec<u64> {
        let mut chosen = Vec::new();
        let mut ready = self.ready.iter().copied().peekable();
        // Of each group of which something is chosen, what follows.
        let mut following = BTreeSet::new();
        while chosen.len() < most {
            let next = match (ready.peek(), following.first()) {
                (Some(first), Some(follows)) if follows < first => following.pop_first(),
                (None, _) => following.pop_first(),
                (Some(_), _) => ready.next(),
            };
            let Some(sequence) = next else { break };
            chosen.push(sequence);
            following.extend(self.follower(sequence));
        }
        chosen
    }

    /// The visible message behind this one in its group.
    fn follower(&self, sequence: u64) -> Option<u64> {
        let group = self.groups.get(self.entries.get(&sequence)?.group.as_ref()?)?;
        group.visible.range(sequence + 1..).next().copied()
    }

    /// A message goes to a receiver, and is hidden until that time.
    pub fn hand_out(&mut self, sequence: u64, visible_at: Timestamp, receipt: u64) {
        let Some(entry) = self.entries.get_mut(&sequence) else { return };
        entry.received += 1;
        entry.receipt = receipt;
        entry.visible_at = visible_at;
        entry.in_flight = true;
        let entry = entry.clone();
        self.cover(sequence, &entry);
        self.hidden.insert((visible_at, sequence));
        self.begin(&entry);
    }

    /// Whose time has come is visible again.
    fn show(&mut self, now: Timestamp) {
        while let Some((at, sequence)) = self.hidden.first().copied().filter(|(at, _)| *at <= now) {
            self.hidden.remove(&(at, sequence));
            let Some(entry) = self.entries.get_mut(&sequence) else { continue };
            let was_in_flight = std::mem::take(&mut entry.in_flight);
            let entry = entry.clone();
            if was_in_flight {
                self.end(&entry);
            }
            self.uncover(sequence, &entry);
        }
    }

    fn uncover(&mut self, sequence: u64, entry: &Entry) {
        match &entry.group {
            Some(group) => self.of_group(group, |group| group.visible.insert(sequence)),
            None => self.ready.insert(sequence),
        };
    }

    fn cover(&mut self, sequence: u64, entry: &Entry) {
        match &entry.group {
            Some(group) => self.of_group(group, |group| group.visible.remove(&sequence)),
            None => self.ready.remove(&sequence),
        };
    }

    fn begin(&mut self, entry: &Entry) {
        self.in_flight += 1;
        if let Some(group) = &entry.group {
            self.of_group(group, |group| group.in_flight += 1);
        }
    }

    fn end(&mut self, entry: &Entry) {
        self.in_flight -= 1;
        if let Some(group) = &entry.group {
            self.of_group(group, |group| group.in_flight -= 1);
        }
    }

    /// Changes a group, and with it what of it is ready.
    fn of_group<T>(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Group) -> T) -> T {
        let group = self.groups.entry(name.clone()).or_default();
        let before = group.ready();
        let changed = change(group);
        let after = group.ready();
        if group.visible.is_empty() && group.in_flight == 0 {
            self.groups.remove(name);
        }
        if before != after {
            if let Some(first) = before {
                self.ready.remove(&first);
            }
            self.ready.extend(after);
        }
        changed
    }

    pub fn remove(&mut self, sequence: u64) -> Option<Entry> {
        let entry = self.entries.remove(&sequence)?;
        self.cover(sequence, &entry);
        self.hidden.remove(&(entry.visible_at, sequence));
        self.ages.remove(&(entry.sent_at, sequence));
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
        !self.ready.is_empty()
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
            visible: self.entries.len().saturating_sub(self.hidden.len()),
            in_flight: self.in_flight,
            delayed: self.hidden.len().saturating_sub(self.in_flight),
        }
    }

    /// The numbers of all rows.
    pub fn sequences(&self) -> Vec<u64> {
        self.entries.keys().chain(&self.ghosts).copied().collect()
    }

    /// Everything goes.
    pub fn clear(&mut self) {
        *self = QueueIndex { newest: self.newest, ..QueueIndex::default() };
    }

    /// Takes out what is too old; with the numbers of the rows.
    pub fn expired(&mut self, now: Timestamp, keeps_ms: i64) -> Vec<u64> {
        let old = |sent_at: Timestamp, ms: i64| now.since_ms(sent_at) >= ms;
        let mut gone = Vec::new();
        while let Some((_, sequence)) = self.ages.first().copied().filter(|(sent_at, _)| old(*sent_at, keeps_ms)) {
            self.remove(sequence);
            gone.push(sequence);
        }
        while let Some(first) = self.copy_ages.first_entry().filter(|first| old(first.key().0, DEDUPLICATION_MS)) {
            let ((_, sequence), deduplication) = first.remove_entry();
            // A newer message may have its deduplication id since.
            if self.copies.get(&deduplication).is_some_and(|original| original.sequence == sequence) {
                self.copies.remove(&deduplication);
            }
            if self.ghosts.remove(&sequence) {
                gone.push(sequence);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use conveyor_store::Stamp;
    use proptest::prelude::*;

    use super::*;

    struct Taken {
        sequence: u64,
        received: u32,
        receipt: u64,
    }

    impl QueueIndex {
        fn take(
            &mut self,
            now: Timestamp,
            most: usize,
            visibility_ms: i64,
            receipt: &mut dyn FnMut() -> u64,
        ) -> Vec<Taken> {
            let until = now.plus_ms(visibility_ms);
            let chosen = self.choose(now, most).into_iter();
            let chosen = chosen.map(|(sequence, received)| Taken { sequence, received, receipt: receipt() });
            let taken: Vec<Taken> = chosen.collect();
            taken.iter().for_each(|taken| self.hand_out(taken.sequence, until, taken.receipt));
            taken
        }
    }

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

    #[test]
    fn what_is_too_old_goes_and_a_deleted_message_as_soon_as_no_copy_of_it_is_known() {
        let mut index = QueueIndex::default();
        let sent = |at: i64, copy: &str| MessageRow { sent_at: Stamp(at), ..row("", copy) };
        index.put(1, &sent(0, "x"));
        // It comes out of another queue, and was sent there before the first.
        index.put(2, &sent(-5, ""));
        index.remove(1);
        index.put(1, &MessageRow { deleted: true, ..sent(0, "x") });
        index.put(3, &sent(DEDUPLICATION_MS, "x"));
        assert_eq!(index.expired(Timestamp(9), 14), [2], "by when it was sent, and not by its number");
        assert_eq!(index.expired(Timestamp(DEDUPLICATION_MS), i64::MAX), [1]);
        let now = Timestamp(DEDUPLICATION_MS + 1);
        assert_eq!(index.copy_of("x", now).map(|(sequence, _)| sequence), Some(3), "the newer one has the id now");
        assert_eq!(index.sequences(), [3]);
    }

    /// The same queue, which looks at all of its messages each time.
    #[derive(Default)]
    struct Model(BTreeMap<u64, Waiting>);

    struct Waiting {
        group: u8,
        sent_at: i64,
        visible_at: i64,
        receipt: Option<u64>,
    }

    impl Model {
        fn is_busy(&self, group: u8, now: i64) -> bool {
            let in_hand = |m: &Waiting| m.group == group && m.receipt.is_some() && m.visible_at > now;
            group != 0 && self.0.values().any(in_hand)
        }

        fn next(&self, now: i64, most: usize) -> Vec<u64> {
            let can_go = |(_, m): &(&u64, &Waiting)| m.visible_at <= now && !self.is_busy(m.group, now);
            self.0.iter().filter(can_go).map(|(sequence, _)| *sequence).take(most).collect()
        }

        /// What may go next, whoever takes it: of a group only the first.
        fn ready(&self, now: i64) -> BTreeSet<u64> {
            let mut groups = BTreeSet::new();
            let all = self.next(now, usize::MAX).into_iter();
            all.filter(|sequence| self.0[sequence].group == 0 || groups.insert(self.0[sequence].group)).collect()
        }

        fn counts(&self, now: i64) -> Counts {
            let hidden = |in_flight: bool| {
                self.0.values().filter(|m| m.visible_at > now && m.receipt.is_some() == in_flight).count()
            };
            let (in_flight, delayed) = (hidden(true), hidden(false));
            Counts { visible: self.0.len() - in_flight - delayed, in_flight, delayed }
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Send { group: u8, delay: i64 },
        Take { most: usize, visibility: i64 },
        Hide { which: usize, ms: i64 },
        Delete { which: usize },
        Expire { keeps: i64 },
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0..4u8, prop_oneof![Just(0), 0..9i64]).prop_map(|(group, delay)| Act::Send { group, delay }),
            3 => (1..5usize, 0..20i64).prop_map(|(most, visibility)| Act::Take { most, visibility }),
            1 => (any::<usize>(), 0..20i64).prop_map(|(which, ms)| Act::Hide { which, ms }),
            2 => any::<usize>().prop_map(|which| Act::Delete { which }),
            1 => (20..60i64).prop_map(|keeps| Act::Expire { keeps }),
        ]
    }

    proptest! {
        /// What is at hand is what a search of the whole queue finds.
        #[test]
        fn nobody_has_to_search(acts in proptest::collection::vec((act(), 0..4i64), 1..80)) {
            let (mut index, mut model, mut receipts) = (QueueIndex::default(), Model::default(), receipts());
            let (mut now, mut held): (i64, Vec<(u64, u64)>) = (1, Vec::new());
            for (sequence, (act, passes)) in (1u64..).zip(acts) {
                now += passes;
                let at = Timestamp(now);
                match act {
                    Act::Send { group, delay } => {
                        let name = if group == 0 { String::new() } else { group.to_string() };
                        let times = (Stamp(now), Stamp(now + delay));
                        index.put(sequence, &MessageRow { sent_at: times.0, visible_at: times.1, ..row(&name, "") });
                        let waiting = Waiting { group, sent_at: now, visible_at: now + delay, receipt: None };
                        model.0.insert(sequence, waiting);
                    }
                    Act::Take { most, visibility } => {
                        let taken = index.take(at, most, visibility, &mut receipts);
                        prop_assert_eq!(numbers(&taken), model.next(now, most));
                        for Taken { sequence, receipt, .. } in taken {
                            let waiting = model.0.get_mut(&sequence).unwrap();
                            (waiting.visible_at, waiting.receipt) = (now + visibility, Some(receipt));
                            held.push((sequence, receipt));
                        }
                    }
                    Act::Hide { which, ms } if !held.is_empty() => {
                        let (sequence, receipt) = held[which % held.len()];
                        let found = model.0.get_mut(&sequence);
                        let found = found.filter(|m| m.receipt == Some(receipt) && m.visible_at > now);
                        prop_assert_eq!(index.hide(sequence, receipt, at, Timestamp(now + ms)), found.is_some());
                        found.into_iter().for_each(|m| m.visible_at = now + ms);
                    }
                    Act::Delete { which } if !held.is_empty() => {
                        let (sequence, receipt) = held.swap_remove(which % held.len());
                        let found = model.0.get(&sequence).is_some_and(|m| m.receipt == Some(receipt));
                        prop_assert_eq!(index.received(sequence, receipt).is_some(), found);
                        if found {
                            index.remove(sequence);
                            model.0.remove(&sequence);
                        }
                    }
                    Act::Expire { keeps } => {
                        let old = model.0.iter().filter(|(_, m)| now - m.sent_at >= keeps);
                        let old: Vec<u64> = old.map(|(sequence, _)| *sequence).collect();
                        prop_assert_eq!(index.expired(at, keeps), old.clone());
                        model.0.retain(|sequence, _| !old.contains(sequence));
                    }
                    Act::Hide { .. } | Act::Delete { .. } => {}
                }
                prop_assert_eq!(index.counts(at), model.counts(now));
                prop_assert_eq!(&index.ready, &model.ready(now));
                prop_assert_eq!(index.has_visible(at), !model.ready(now).is_empty());
            }
            let groups = model.0.values().filter(|m| m.group != 0).map(|m| m.group).collect::<BTreeSet<u8>>();
            prop_assert!(index.groups.len() <= groups.len(), "groups that are empty are forgotten");
        }
    }
}
