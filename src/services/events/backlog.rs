//! The backlog of one target: which events wait for it, when each is tried, and what becomes of one that failed. Pure.
//!
//! ```text
//!        ┌────────────── later (back-off) ─────────────┐
//!  row ─▶ due ──try──▶ taken: the row goes             │
//!              └───▶ failed ─▶ young enough, tries left┘
//!                       └────▶ given up: to the dead-letter queue, or dropped with a word in the log
//! ```
//!
//! Invariants: at most [`AT_ONCE_MAX`] are in flight; an event is known once.

use std::collections::{BTreeSet, HashMap};

use conveyor_base::{Backoff, Timestamp};

use super::rules::Target;

/// Deliveries to one target at once.
const AT_ONCE_MAX: usize = 8;
const BACKOFF: Backoff = Backoff { min_ms: 1_000, max_ms: 300_000 };

#[derive(Debug, Default)]
pub(super) struct Backlog {
    due: BTreeSet<(Timestamp, String)>,
    known: HashMap<String, Known>,
    in_flight: usize,
}

#[derive(Debug, Default)]
struct Known {
    attempts: u32,
    /// Which of all deliveries it is in.
    delivery: Option<u64>,
    /// Why it was given up, where it is to go to the dead-letter queue.
    given_up: Option<String>,
}

/// Why a target did not take an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub what: String,
    /// Another try would end the same.
    pub permanent: bool,
}

impl Failure {
    pub fn transient(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), permanent: false }
    }

    pub fn permanent(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), permanent: true }
    }
}

/// An event whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub event: String,
    pub attempts: u32,
    pub given_up: Option<String>,
}

/// What becomes of an event that failed, after so many attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Again { attempts: u32, at: Timestamp },
    GivenUp { attempts: u32 },
}

impl Backlog {
    /// Takes up an event that is a row. What is known already stays as it is.
    pub fn add(&mut self, event: String, due: Timestamp, attempts: u32) {
        if !self.known.contains_key(&event) {
            self.known.insert(event.clone(), Known { attempts, ..Known::default() });
            self.due.insert((due, event));
        }
    }

    /// Takes out what is to be tried now: hand it to [`Backlog::begin`] or [`Backlog::forget`].
    pub fn next(&mut self, now: Timestamp) -> Option<Due> {
        let (due, event) = self.due.first()?;
        if self.in_flight >= AT_ONCE_MAX || !self.is_due(event, *due, now) {
            return None;
        }
        let (_, event) = self.due.pop_first()?;
        let known = self.known.get(&event)?;
        Some(Due { attempts: known.attempts, given_up: known.given_up.clone(), event })
    }

    fn is_due(&self, event: &str, due: Timestamp, now: Timestamp) -> bool {
        let attempts = self.known.get(event).map_or(0, |known| known.attempts);
        BACKOFF.is_due(due, attempts, now)
    }

    /// When there is something to try; nothing while as much is under way as may be.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().filter(|_| self.in_flight < AT_ONCE_MAX).map(|(due, _)| *due)
    }

    /// It is under way, after so many failures.
    pub fn begin(&mut self, event: &str, attempts: u32, delivery: u64) {
        let Some(known) = self.known.get_mut(event) else { return };
        known.attempts = attempts;
        if known.delivery.replace(delivery).is_none() {
            self.in_flight += 1;
        }
    }

    /// How often the event failed before, where it is this delivery that is under way; it is over with that.
    pub fn end(&mut self, event: &str, delivery: u64) -> Option<u32> {
        let known = self.known.get_mut(event).filter(|known| known.delivery == Some(delivery))?;
        known.delivery = None;
        self.in_flight -= 1;
        Some(known.attempts)
    }

    /// The target has it, or it is no row any more.
    pub fn forget(&mut self, event: &str) {
        if self.known.remove(event).is_some_and(|known| known.delivery.is_some()) {
            self.in_flight -= 1;
        }
    }

    /// Tries it again then; `given_up`: to put it into the dead-letter queue, not to deliver it.
    pub fn later(&mut self, event: String, attempts: u32, at: Timestamp, given_up: Option<String>) {
        if let Some(known) = self.known.get_mut(&event) {
            (known.attempts, known.given_up) = (attempts, given_up);
            self.due.insert((at, event));
        }
    }
}

/// Decides on an event that failed after `attempts` failures before. `now`: the box's own time, which what comes next goes by. `spread` is any number: those that failed together
/// do not come again together.
pub(super) fn judge(
    target: &Target,
    age_ms: i64,
    attempts: u32,
    failure: &Failure,
    now: Timestamp,
    spread: u32,
) -> Verdict {
    let attempts = attempts + 1;
    let spent = attempts > target.retries_max || age_ms >= target.age_ms_max;
    if failure.permanent || spent {
        return Verdict::GivenUp { attempts };
    }
    Verdict::Again { attempts, at: now.plus_ms(pause_ms(attempts, spread)) }
}

/// How long to wait after so many failures.
pub(super) fn pause_ms(attempts: u32, spread: u32) -> i64 {
    let wait = BACKOFF.ms(attempts);
    wait / 2 + i64::from(spread) % (wait / 2)
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rule;
    use super::*;

    #[test]
    fn so_many_at_once_the_first_due_first_and_each_once() {
        let mut backlog = Backlog::default();
        for n in 0..20 {
            backlog.add(format!("{n:02}"), Timestamp(n), 0);
            backlog.add(format!("{n:02}"), Timestamp(0), 0);
        }
        let mut begun = Vec::new();
        while let Some(due) = backlog.next(Timestamp(100)) {
            backlog.begin(&due.event, 0, 1);
            begun.push(due.event);
        }
        assert_eq!(begun, ["00", "01", "02", "03", "04", "05", "06", "07"]);
        assert_eq!(backlog.next_due(), None, "no room, no alarm");
        assert_eq!(backlog.end("03", 2), None, "another delivery's end");
        assert_eq!(backlog.end("03", 1), Some(0));
        assert_eq!(backlog.end("03", 1), None, "it has ended once");
        backlog.later("03".into(), 1, Timestamp(500), None);
        backlog.add("03".into(), Timestamp(0), 0);
        assert_eq!(backlog.next(Timestamp(100)).unwrap().event, "08");
        backlog.forget("08");
        backlog.forget("00");
        while let Some(due) = backlog.next(Timestamp(499)) {
            backlog.forget(&due.event);
        }
        assert_eq!((backlog.next(Timestamp(499)), backlog.next_due()), (None, Some(Timestamp(500))));
        let due = backlog.next(Timestamp(500)).unwrap();
        assert_eq!((due.event.as_str(), due.attempts, due.given_up), ("03", 1, None));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_nothing() {
        let mut backlog = Backlog::default();
        backlog.add("new".into(), Timestamp(3_600_000), 0);
        backlog.add("failed".into(), Timestamp(3_602_000), 1);
        for event in ["new", "failed"] {
            assert_eq!(backlog.next(Timestamp(0)).unwrap().event, event);
        }
        backlog.later("failed".into(), 2, Timestamp(pause_ms(2, u32::MAX)), None);
        assert_eq!(backlog.next(Timestamp(0)), None, "it waits by the new time");
    }

    #[test]
    fn failures_are_tried_again_until_they_are_spent() {
        let target = &Rule::unattended("t").targets[0];
        let failure = Failure::transient("it is down");
        let judge = |attempts, now, failure: &Failure| judge(target, now, attempts, failure, Timestamp(now), u32::MAX);
        let Verdict::Again { attempts: 1, at } = judge(0, 10, &failure) else { panic!("one failure is no end") };
        assert!(at >= Timestamp(1_010) && at < Timestamp(2_010), "{at:?}");
        assert_eq!(judge(2, 10, &failure), Verdict::GivenUp { attempts: 3 });
        assert_eq!(judge(0, target.age_ms_max, &failure), Verdict::GivenUp { attempts: 1 });
        assert_eq!(judge(0, 10, &Failure::permanent("never")), Verdict::GivenUp { attempts: 1 });
    }
}
