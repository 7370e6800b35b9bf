//! [`Backoff`]: pauses between attempts, each twice as long as the one before, up to a bound.

use std::time::Duration;

use crate::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Milliseconds, at least 1.
    pub min_ms: i64,
    pub max_ms: i64,
}

impl Backoff {
    /// The pause after the shortest one was doubled so many times, in milliseconds.
    pub fn ms(self, doublings: u32) -> i64 {
        self.min_ms.saturating_mul(1 << doublings.min(32)).min(self.max_ms)
    }

    pub fn pause(self, doublings: u32) -> Duration {
        Duration::from_millis(self.ms(doublings).unsigned_abs())
    }

    /// Whether the moment has come to which an attempt was put off. A clock that was set back must not make it wait until
    /// the old time comes round again: what is further off than it was ever put off is due.
    pub fn is_due(self, due: Timestamp, doublings: u32, now: Timestamp) -> bool {
        due <= now || due > now.plus_ms(self.ms(doublings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_a_clock_set_back_lengthens_none() {
        let backoff = Backoff { min_ms: 50, max_ms: 60_000 };
        assert_eq!([0, 1, 2, 10, 11, u32::MAX].map(|n| backoff.ms(n)), [50, 100, 200, 51_200, 60_000, 60_000]);
        let (now, due) = (Timestamp(1_000_000), |after: i64| Timestamp(1_000_000 + after));
        assert!(
            backoff.is_due(due(0), 1, now) && !backoff.is_due(due(100), 1, now) && backoff.is_due(due(101), 1, now)
        );
    }
}
