//! What one target is to get: in which order, and when it is tried again. Pure.
//!
//! ```text
//!  new ──> in order ──first, when due──> in flight ──taken──> gone
//!             ▲                             │
//!             ├──── failed: it goes first ──┤
//!             │                             │ refused 3 times
//!          (fails otherwise)                ▼
//!             └───────when due──────── passed by: the others need not wait for it
//! ```
//!
//! Invariants: one is in flight at a time; nothing goes past one that waits in order.

use std::collections::{BTreeMap, BTreeSet};

use conveyor_base::{Backoff, Timestamp};

/// Begins the error of a notification that itself is what is wrong.
pub(super) const REFUSED: &str = "refused: ";

/// Only the first notification of a target is tried, so asking this often costs little.
const BACKOFF: Backoff = Backoff { min_ms: 1_000, max_ms: 300_000 };
/// After so many refusals of one notification the others go past it.
const REFUSED_MAX: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct TargetOrder {
    /// By number, with when it is due.
    in_order: BTreeMap<u64, Timestamp>,
    passed_by: BTreeSet<(Timestamp, u64)>,
    /// Of those that were tried.
    attempts: BTreeMap<u64, u32>,
    /// A notification, and which of all deliveries it is in.
    in_flight: Option<(u64, u64)>,
}

/// When a notification is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    pub at: Timestamp,
    pub attempts: u32,
}

impl TargetOrder {
    /// Takes one up that is a row. What is known already stays as it is.
    pub fn add(&mut self, number: u64, due: Timestamp, attempts: u32, last_error: &str) {
        let in_flight = self.in_flight.is_some_and(|(known, _)| known == number);
        if in_flight || self.in_order.contains_key(&number) || self.attempts.contains_key(&number) {
            return;
        }
        self.put(number, due, attempts, last_error);
    }

    fn put(&mut self, number: u64, due: Timestamp, attempts: u32, last_error: &str) {
        if attempts > 0 {
            self.attempts.insert(number, attempts);
        }
        if attempts >= REFUSED_MAX && last_error.starts_with(REFUSED) {
            self.passed_by.insert((due, number));
        } else {
            self.in_order.insert(number, due);
        }
    }

    /// What is to be delivered now.
    pub fn next(&self, now: Timestamp) -> Option<u64> {
        if self.in_flight.is_some() {
            return None;
        }
        let first = self.in_order.first_key_value().map(|(number, due)| (*number, *due));
        let ready = first.filter(|(number, due)| self.is_due(*number, *due, now)).map(|(number, _)| number);
        // Of those that are passed by, the ones behind the first in order wait for it as all others do.
        let held_from = first.map_or(u64::MAX, |(number, _)| number);
        let due = self.passed_by.iter().filter(|(due, number)| self.is_due(*number, *due, now)).map(|(_, n)| *n);
        due.filter(|number| *number < held_from).min().or(ready)
    }

    fn is_due(&self, number: u64, due: Timestamp, now: Timestamp) -> bool {
        BACKOFF.is_due(due, self.attempts(number), now)
    }

    /// When there is something to deliver; nothing while a delivery is under way.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.in_flight.is_some() {
            return None;
        }
        let first = self.in_order.first_key_value();
        let held_from = first.map_or(u64::MAX, |(number, _)| *number);
        let passed_by = self.passed_by.iter().find(|(_, number)| *number < held_from);
        first.map(|(_, due)| *due).into_iter().chain(passed_by.map(|(due, _)| *due)).min()
    }

    pub fn begin(&mut self, number: u64, delivery: u64) {
        self.take_out(number);
        self.in_flight = Some((number, delivery));
    }

    fn take_out(&mut self, number: u64) {
        if self.in_order.remove(&number).is_none() {
            self.passed_by.retain(|(_, other)| *other != number);
        }
    }

    /// Whether it is this delivery that is under way, which is over with that.
    pub fn end(&mut self, number: u64, delivery: u64) -> bool {
        let is_it = self.in_flight == Some((number, delivery));
        if is_it {
            self.in_flight = None;
        }
        is_it
    }

    pub fn attempts(&self, number: u64) -> u32 {
        self.attempts.get(&number).copied().unwrap_or(0)
    }

    /// It has been taken, or is no row any more.
    pub fn forget(&mut self, number: u64) {
        self.take_out(number);
        self.attempts.remove(&number);
    }

    /// It failed, and is tried again.
    pub fn failed(&mut self, number: u64, now: Timestamp, error: &str) -> Again {
        let attempts = self.attempts(number) + 1;
        let at = now.plus_ms(BACKOFF.ms(attempts));
        self.put(number, at, attempts, error);
        Again { at, attempts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delivers the next one; what it is, and when that is tried again which failed.
    fn deliver(order: &mut TargetOrder, now: i64, error: Option<&str>) -> (u64, Option<i64>) {
        let number = order.next(Timestamp(now)).unwrap();
        order.begin(number, 7);
        assert!(order.next(Timestamp(i64::MAX)).is_none() && order.next_due().is_none(), "one at a time");
        assert!(!order.end(number, 6), "an older delivery ends nothing");
        assert!(order.end(number, 7));
        match error {
            None => {
                order.forget(number);
                (number, None)
            }
            Some(error) => (number, Some(order.failed(number, Timestamp(now), error).at.0)),
        }
    }

    #[test]
    fn the_first_holds_the_others_until_it_is_taken() {
        let mut order = TargetOrder::default();
        [3, 1, 2].iter().for_each(|n| order.add(*n, Timestamp(0), 0, ""));
        assert_eq!(deliver(&mut order, 0, Some("it is down")), (1, Some(2_000)));
        assert_eq!((order.next(Timestamp(1_999)), order.next_due()), (None, Some(Timestamp(2_000))));
        assert_eq!(deliver(&mut order, 2_000, Some("it is down")), (1, Some(6_000)));
        order.add(1, Timestamp(0), 0, "");
        assert_eq!(order.next(Timestamp(5_999)), None, "what is known is not new");
        for n in 1..=3 {
            assert_eq!(deliver(&mut order, 6_000, None), (n, None));
        }
        assert_eq!((order.next(Timestamp(i64::MAX)), order.next_due()), (None, None));
        assert!(order.attempts.is_empty());
    }

    #[test]
    fn one_that_is_refused_is_passed_by_and_holds_again_when_it_fails_otherwise() {
        let mut order = TargetOrder::default();
        [1, 2, 3].iter().for_each(|n| order.add(*n, Timestamp(0), 0, ""));
        let mut now = 0;
        for _ in 0..3 {
            let (number, again) = deliver(&mut order, now, Some("refused: it says"));
            assert_eq!(number, 1);
            now = again.unwrap();
        }
        // Due again at `now`; until then the others go.
        assert_eq!(deliver(&mut order, now - 1, None), (2, None));
        assert_eq!(deliver(&mut order, now, Some("it is down")).0, 1);
        assert_eq!(order.next(Timestamp(now + 1)), None, "3 waits for 1 once more");
        // Passed by behind one that waits in order: it waits too.
        let mut order = TargetOrder::default();
        order.add(5, Timestamp(0), 3, "refused: it says");
        order.add(4, Timestamp(90), 1, "it is down");
        assert_eq!((order.next(Timestamp(80)), order.next_due()), (None, Some(Timestamp(90))));
        assert_eq!((deliver(&mut order, 90, None).0, deliver(&mut order, 90, None).0), (4, 5));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing() {
        const HOUR: i64 = 3_600_000;
        let mut order = TargetOrder::default();
        order.add(1, Timestamp(HOUR), 0, "");
        order.add(2, Timestamp(HOUR), 3, "refused: it says");
        assert_eq!(deliver(&mut order, HOUR, Some("it is down")), (1, Some(HOUR + 2_000)));
        assert_eq!(order.next(Timestamp(HOUR)), None);
        assert_eq!(deliver(&mut order, 0, Some("refused: it says")), (1, Some(4_000)));
        assert_eq!(order.next(Timestamp(3_999)), None, "it waits by the new time");
        assert_eq!(deliver(&mut order, 4_000, Some("refused: it says")), (1, Some(12_000)));
        // Both are passed by now, and the second one was due an hour later.
        assert_eq!(deliver(&mut order, 4_000, None), (2, None));
    }
}
