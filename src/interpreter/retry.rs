//! Retry: whether a failed state runs again, and when.

use conveyor_asl::{Retrier, State};
use conveyor_base::BranchId;

use super::draft::Draft;
use super::execution::Doing;
use super::observer::Observer;
use super::raise::{Raised, restart_later};

/// Sets the back-off if the state's Retry takes the error. The first retrier that names it decides.
pub(super) fn again(draft: &mut Draft<impl Observer>, id: BranchId, state: &State, raised: &Raised) -> bool {
    let Some(at) = state.retry.iter().position(|retrier| raised.is_named_in(&retrier.error_equals)) else {
        return false;
    };
    let retrier = &state.retry[at];
    let Some(branch) = draft.branch(id) else { return false };
    let used = branch.retries.get(at).copied().unwrap_or(0);
    if used >= retrier.max_attempts {
        return false;
    }
    let chance = draft.draw();
    let due = draft.box_at.plus_ms(delay_ms(retrier, used, chance));
    restart_later(draft, id);
    let (timer, due) = draft.set_timer(due);
    if let Some(branch) = draft.edit(id) {
        branch.retries.resize(state.retry.len(), 0);
        branch.retries[at] = used + 1;
        branch.doing = Doing::Retry { timer, due };
    }
    true
}

/// How long to wait before retry number `used + 1`.
fn delay_ms(retrier: &Retrier, used: u32, chance: u64) -> i64 {
    let exponent = i32::try_from(used).unwrap_or(i32::MAX);
    let seconds = retrier.interval_seconds as f64 * retrier.backoff_rate.powi(exponent);
    let longest = retrier.max_delay_seconds.map_or(f64::MAX, |longest| longest as f64);
    // A cast saturates, and takes what is no number for 0.
    let ms = (seconds.min(longest) * 1000.0) as i64;
    match retrier.full_jitter {
        true => (chance % (ms.max(0) as u64).saturating_add(1)) as i64,
        false => ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retrier(max_delay_seconds: Option<u64>, full_jitter: bool) -> Retrier {
        Retrier {
            error_equals: vec![],
            interval_seconds: 3,
            max_attempts: 9,
            backoff_rate: 2.0,
            max_delay_seconds,
            full_jitter,
        }
    }

    #[test]
    fn delays_grow_up_to_their_bound() {
        let delays = |r: &Retrier| (0..5).map(|n| delay_ms(r, n, 0)).collect::<Vec<_>>();
        assert_eq!(delays(&retrier(None, false)), [3_000, 6_000, 12_000, 24_000, 48_000]);
        assert_eq!(delays(&retrier(Some(10), false)), [3_000, 6_000, 10_000, 10_000, 10_000]);
        assert!((0..100).all(|n| delay_ms(&retrier(None, false), u32::MAX - n, 0) > 0));
    }

    #[test]
    fn jitter_stays_between_nothing_and_the_delay() {
        let r = retrier(None, true);
        let drawn: Vec<i64> = (0..200u64).map(|n| delay_ms(&r, 0, n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert!(drawn.iter().all(|ms| (0..=3_000).contains(ms)));
        assert!(drawn.iter().any(|ms| *ms < 1_000) && drawn.iter().any(|ms| *ms > 2_000));
    }
}
