//! The box's own time: it goes on evenly, never back, and no setting of the wall clock moves it.
//!
//! Whatever lasts (a Wait's seconds, a time-out, a lease, a visibility time-out, a back-off) is counted in it. It begins
//! as the wall clock's time; from then on a wall clock that is set leaves it behind or ahead, and that distance is kept
//! over restarts ([`ClockMark`]). While the machine is off only the wall clock tells how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::clock::{Clock, Running, Timestamp};

/// What counts as time that passed while the machine was off, for what deletes by age.
const OFF_MS_MAX: i64 = 24 * 3_600_000;
/// Length of a [`ClockMark`] in bytes.
const MARK_BYTES: usize = 56;

/// The clock that all parts of the box go by.
pub struct BoxClock {
    raw: Arc<dyn Clock>,
    /// A reading, and the box's time then.
    since: (Running, Timestamp),
    /// The newest time that was told.
    told: AtomicI64,
    /// The newest time that the wall clock showed.
    newest: AtomicI64,
    settled: Mutex<Settled>,
}

/// See [`BoxClock::settled`].
#[derive(Clone, Copy)]
struct Settled {
    /// The box's time of the last look.
    looked_at: Timestamp,
    time: Timestamp,
}

/// How the clocks stood at a moment, for the next start to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockMark {
    pub running: Running,
    /// The box's own time.
    pub time: Timestamp,
    pub wall: Timestamp,
    /// The newest time that the wall clock has ever shown.
    pub newest: Timestamp,
    pub settled: Timestamp,
}

impl ClockMark {
    pub fn to_bytes(&self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        let times = [self.running.ms, self.time.0, self.wall.0, self.newest.0, self.settled.0];
        let (boot, rest) = bytes.split_at_mut(16);
        boot.copy_from_slice(&self.running.boot.to_be_bytes());
        for (place, time) in rest.chunks_exact_mut(8).zip(times) {
            place.copy_from_slice(&time.to_be_bytes());
        }
        bytes
    }

    /// `None` where these are no mark's bytes.
    pub fn of_bytes(bytes: &[u8]) -> Option<ClockMark> {
        let (boot, times) = bytes.split_at_checked(16)?;
        let mut times = times.chunks_exact(8).map(|time| time.try_into().map(i64::from_be_bytes));
        let mut next = || times.next()?.ok();
        let boot = u128::from_be_bytes(boot.try_into().ok()?);
        let running = Running { boot, ms: next()? };
        let mut moment = || next().map(Timestamp);
        Some(ClockMark { running, time: moment()?, wall: moment()?, newest: moment()?, settled: moment()? })
    }

    /// The box's time now, and how much of what passed since is sure enough to delete by.
    fn goes_on(&self, now: Running, wall: Timestamp) -> (Timestamp, i64) {
        let passed_ms = now.ms - self.running.ms;
        if now.boot == self.running.boot && passed_ms >= 0 {
            return (self.time.plus_ms(passed_ms), passed_ms);
        }
        // A wall clock that lost its battery stands before the mark: the box then goes on from there.
        let off_ms = wall.since_ms(self.wall).max(0);
        (self.time.plus_ms(off_ms), off_ms.min(OFF_MS_MAX))
    }
}

impl BoxClock {
    /// `last`: how the clocks stood before, where there was a before. Without one the box's time is the wall clock's.
    pub fn new(raw: Arc<dyn Clock>, last: Option<ClockMark>) -> BoxClock {
        let (running, wall) = (raw.running(), raw.now());
        let (time, settled) = match last {
            None => (wall, Settled { looked_at: wall, time: wall }),
            Some(mark) => {
                let (time, sure_ms) = mark.goes_on(running, wall);
                (time, Settled { looked_at: time.plus_ms(-sure_ms), time: mark.settled })
            }
        };
        let told = AtomicI64::new(time.0);
        let newest = AtomicI64::new(last.map_or(wall, |mark| mark.newest).0);
        BoxClock { raw, since: (running, time), told, newest, settled: Mutex::new(settled) }
    }

    /// The box's own time. Rows and whatever lasts go by it; it never goes back.
    pub fn now(&self) -> Timestamp {
        let (begun, time) = self.since;
        let now = time.plus_ms(self.raw.running().ms - begun.ms).0;
        Timestamp(self.told.fetch_max(now, Ordering::AcqRel).max(now))
    }

    /// The wall clock, for what people read and what they tied to a time of day. Goes back where it is set back.
    pub fn wall(&self) -> Timestamp {
        let wall = self.raw.now();
        self.newest.fetch_max(wall.0, Ordering::Relaxed);
        wall
    }

    /// Whether the wall clock has shown a later time than this one of it, so that something may be dated later.
    pub fn was_later_than(&self, wall: Timestamp) -> bool {
        self.newest.load(Ordering::Relaxed) > wall.0
    }

    /// The wall clock as what deletes by age believes it: never ahead of it, and after it was set on, no faster behind it than
    /// at twice its pace. A clock that is years ahead by mistake so deletes no more in an hour than would have gone in two.
    pub fn settled(&self) -> Timestamp {
        let (now, wall) = (self.now(), self.wall());
        let mut settled = self.settled.lock();
        let passed_ms = now.since_ms(settled.looked_at).max(0);
        settled.time = wall.min(settled.time.plus_ms(passed_ms.saturating_mul(2))).max(settled.time);
        settled.looked_at = settled.looked_at.max(now);
        settled.time.min(wall)
    }

    /// How the clocks stand, to be stored.
    pub fn mark(&self) -> ClockMark {
        self.settled();
        let (running, wall, time) = (self.raw.running(), self.wall(), self.now());
        let newest = Timestamp(self.newest.load(Ordering::Relaxed));
        ClockMark { running, time, wall, newest, settled: self.settled.lock().time }
    }

    /// By how many milliseconds the wall clock is ahead of the box's own time.
    pub fn wall_is_ahead_ms(&self) -> i64 {
        self.wall().since_ms(self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;

    /// Wall clock, and what runs evenly.
    #[derive(Default)]
    struct Two {
        wall: AtomicI64,
        running: AtomicI64,
        boot: u128,
    }

    impl Two {
        fn pass(&self, ms: i64) {
            self.wall.fetch_add(ms, Ordering::SeqCst);
            self.running.fetch_add(ms, Ordering::SeqCst);
        }

        fn set(&self, by_ms: i64) {
            self.wall.fetch_add(by_ms, Ordering::SeqCst);
        }

        fn booted(wall: i64, running: i64, boot: u128) -> Arc<Two> {
            Arc::new(Two { wall: wall.into(), running: running.into(), boot })
        }
    }

    impl Clock for Two {
        fn now(&self) -> Timestamp {
            Timestamp(self.wall.load(Ordering::SeqCst))
        }

        fn running(&self) -> Running {
            Running { boot: self.boot, ms: self.running.load(Ordering::SeqCst) }
        }
    }

    #[test]
    fn no_setting_of_the_wall_clock_moves_the_boxs_time() {
        let raw = Two::booted(100 * DAY_MS, 7, 1);
        let clock = BoxClock::new(raw.clone(), None);
        assert_eq!(clock.now(), Timestamp(100 * DAY_MS));
        raw.pass(1_000);
        raw.set(-3 * HOUR_MS);
        assert_eq!(clock.now(), Timestamp(100 * DAY_MS + 1_000));
        raw.set(400 * DAY_MS);
        raw.pass(1_000);
        assert_eq!(clock.now(), Timestamp(100 * DAY_MS + 2_000));
        assert_eq!(clock.wall(), Timestamp(500 * DAY_MS - 3 * HOUR_MS + 2_000));
    }

    #[test]
    fn a_restart_goes_on_from_the_mark() {
        let raw = Two::booted(100 * DAY_MS, 0, 1);
        let clock = BoxClock::new(raw.clone(), None);
        raw.set(-3 * HOUR_MS);
        raw.pass(HOUR_MS);
        let mark = clock.mark();
        assert_eq!(ClockMark::of_bytes(&mark.to_bytes()), Some(mark));
        assert_eq!(ClockMark::of_bytes(b"no mark"), None);
        // Of the process alone: whatever was set meanwhile.
        let again = |wall, running, boot| BoxClock::new(Two::booted(wall, running, boot), Some(mark)).now();
        assert_eq!(again(7 * DAY_MS, 2 * HOUR_MS, 1), Timestamp(100 * DAY_MS + 2 * HOUR_MS));
        // Of the machine: by the wall clock, and never before the mark.
        assert_eq!(again(mark.wall.0 + DAY_MS, 5, 2), mark.time.plus_ms(DAY_MS));
        assert_eq!(again(0, 5, 2), mark.time);
    }

    #[test]
    fn what_deletes_by_age_follows_the_wall_clock_at_twice_its_pace() {
        let raw = Two::booted(100 * DAY_MS, 0, 1);
        let clock = BoxClock::new(raw.clone(), None);
        raw.pass(DAY_MS);
        assert_eq!(clock.settled(), clock.wall());
        raw.set(4_000 * DAY_MS);
        raw.pass(HOUR_MS);
        assert_eq!(clock.settled(), Timestamp(101 * DAY_MS + 2 * HOUR_MS));
        let mark = clock.mark();
        // Put right, it is where it was; what the mistake had let it gain is no more than was passed.
        raw.set(-4_000 * DAY_MS);
        assert_eq!(clock.settled(), clock.wall());
        raw.set(3 * HOUR_MS);
        raw.pass(2 * HOUR_MS);
        assert_eq!(clock.settled(), Timestamp(101 * DAY_MS + 6 * HOUR_MS));
        // A start by a clock that is years ahead believes in one day.
        let later = BoxClock::new(Two::booted(5_000 * DAY_MS, 0, 2), Some(mark));
        assert_eq!(later.settled(), mark.settled.plus_ms(2 * DAY_MS));
    }
}
