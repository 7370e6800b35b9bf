//! The box's own time: it goes on evenly, never back, and no setting of the wall clock moves it.
//!
//! Whatever lasts (a Wait's seconds, a time-out, a lease, a visibility time-out, a back-off) is counted in it. It begins
//! as the wall clock's time; from then on a wall clock that is set leaves it behind or ahead, and that distance is kept
//! over restarts ([`ClockMark`]). While the machine is off only the wall clock tells how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::clock::{Clock, Running, Timestamp};
use super::eras::{Eras, Older};

/// What counts as time that passed while the machine was off, for what deletes by age.
const OFF_MS_MAX: i64 = 24 * 3_600_000;
/// What counts at most as time that passed while the machine was off, for what lasts: a wall clock that starts years ahead must
/// not end every Wait.
const OFF_BOX_MS_MAX: i64 = 30 * 24 * 3_600_000;
/// A wall clock that was set on and stays so for this long is believed, also by what deletes.
const BELIEVED_AFTER_MS: i64 = 72 * 3_600_000;
/// Less than so far ahead needs no believing: it is caught up with.
const FAR_AHEAD_MS: i64 = 24 * 3_600_000;
/// What may have passed since the last mark was stored, until the process or the machine was no more.
const SINCE_MARK_MS: i64 = 120_000;
/// Length of a [`ClockMark`] in bytes, without the eras.
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
    eras: Mutex<Eras>,
}

/// See [`BoxClock::settled`].
#[derive(Clone, Copy)]
struct Settled {
    /// The box's time of the last look.
    looked_at: Timestamp,
    time: Timestamp,
    /// Since when the wall clock is far ahead of it.
    far_since: Option<Timestamp>,
}

/// How the clocks stood at a moment, for the next start to go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockMark {
    pub running: Running,
    /// The box's own time.
    pub time: Timestamp,
    pub wall: Timestamp,
    /// The newest time that the wall clock has ever shown.
    pub newest: Timestamp,
    pub settled: Timestamp,
    eras: Eras,
}

impl ClockMark {
    pub fn to_bytes(&self) -> Vec<u8> {
        let times = [self.running.ms, self.time.0, self.wall.0, self.newest.0, self.settled.0];
        let mut bytes = self.running.boot.to_be_bytes().to_vec();
        bytes.extend(times.iter().flat_map(|time| time.to_be_bytes()));
        bytes.extend(self.eras.to_bytes());
        bytes
    }

    /// `None` where these are no mark's bytes.
    pub fn of_bytes(bytes: &[u8]) -> Option<ClockMark> {
        let (bytes, eras) = bytes.split_at_checked(MARK_BYTES)?;
        let (boot, times) = bytes.split_at_checked(16)?;
        let mut times = times.chunks_exact(8).map(|time| time.try_into().map(i64::from_be_bytes));
        let mut next = || times.next()?.ok();
        let boot = u128::from_be_bytes(boot.try_into().ok()?);
        let running = Running { boot, ms: next()? };
        let mut moment = || next().map(Timestamp);
        let [time, wall, newest, settled] = [moment()?, moment()?, moment()?, moment()?];
        let eras = match eras {
            // Of a release that kept none.
            [] => Eras::begin(time, wall.since_ms(time)),
            eras => Eras::of_bytes(eras, time)?,
        };
        Some(ClockMark { running, time, wall, newest, settled, eras })
    }

    /// The newest time that the wall clock may have shown: it went on until the process or the machine was no more.
    fn may_have_shown(&self, now: Running) -> Timestamp {
        let passed_ms = if now.boot == self.running.boot { now.ms - self.running.ms } else { SINCE_MARK_MS };
        self.newest.plus_ms(passed_ms.clamp(0, SINCE_MARK_MS))
    }

    /// The box's time now, and how much of what passed since is sure enough to delete by.
    fn goes_on(&self, now: Running, wall: Timestamp) -> (Timestamp, i64) {
        let passed_ms = now.ms - self.running.ms;
        if now.boot == self.running.boot && passed_ms >= 0 {
            return (self.time.plus_ms(passed_ms), passed_ms);
        }
        // A wall clock that lost its battery stands before the mark: the box then goes on from there.
        let off_ms = wall.since_ms(self.wall).max(0);
        (self.time.plus_ms(off_ms.min(OFF_BOX_MS_MAX)), off_ms.min(OFF_MS_MAX))
    }
}

impl BoxClock {
    /// `last`: how the clocks stood before, where there was a before. Without one the box's time is the wall clock's.
    pub fn new(raw: Arc<dyn Clock>, last: Option<ClockMark>) -> BoxClock {
        let (running, wall) = (raw.running(), raw.now());
        let newest = AtomicI64::new(last.as_ref().map_or(wall, |mark| mark.may_have_shown(running)).0);
        let (time, settled) = match &last {
            None => (wall, Settled { looked_at: wall, time: wall, far_since: None }),
            Some(mark) => {
                let (time, sure_ms) = mark.goes_on(running, wall);
                (time, Settled { looked_at: time.plus_ms(-sure_ms), time: mark.settled, far_since: None })
            }
        };
        let told = AtomicI64::new(time.0);
        let mut eras = last.map_or_else(|| Eras::begin(time, 0), |mark| mark.eras);
        eras.look(time, wall.since_ms(time));
        let (settled, eras) = (Mutex::new(settled), Mutex::new(eras));
        BoxClock { raw, since: (running, time), told, newest, settled, eras }
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
    /// at twice its pace. A clock that is years ahead by mistake so deletes no more in an hour than would have gone in two; one
    /// that stays there for three days was behind before.
    pub fn settled(&self) -> Timestamp {
        let (now, wall) = (self.now(), self.wall());
        self.eras.lock().look(now, wall.since_ms(now));
        let mut settled = self.settled.lock();
        let passed_ms = now.since_ms(settled.looked_at).max(0);
        settled.time = wall.min(settled.time.plus_ms(passed_ms.saturating_mul(2))).max(settled.time);
        settled.looked_at = settled.looked_at.max(now);
        if wall.since_ms(settled.time) < FAR_AHEAD_MS {
            settled.far_since = None;
        } else if now.since_ms(*settled.far_since.get_or_insert(now)) >= BELIEVED_AFTER_MS {
            *settled = Settled { looked_at: now, time: wall, far_since: None };
        }
        settled.time.min(wall)
    }

    /// What is older than so long, for what goes by age: by the date that the wall clock gave it, and by the box's own time as
    /// well, so that what a wrong clock dated decades back lives as long as anything else once the clock is put right.
    pub fn older_than(&self, ms: i64) -> Older {
        let before = self.settled().plus_ms(ms.saturating_neg());
        Older::but(before, self.eras.lock().given_within(self.now(), ms))
    }

    /// How the clocks stand, to be stored.
    pub fn mark(&self) -> ClockMark {
        self.settled();
        let (running, wall, time) = (self.raw.running(), self.wall(), self.now());
        let newest = Timestamp(self.newest.load(Ordering::Relaxed));
        let (settled, eras) = (self.settled.lock().time, self.eras.lock().clone());
        ClockMark { running, time, wall, newest, settled, eras }
    }

    /// A moment of the box's own time as the wall clock dates it now, for people.
    pub fn shown(&self, at: Timestamp) -> Timestamp {
        at.plus_ms(self.wall_is_ahead_ms())
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
        assert_eq!(ClockMark::of_bytes(&mark.to_bytes()).as_ref(), Some(&mark));
        assert_eq!(ClockMark::of_bytes(b"no mark"), None);
        // Of the process alone: whatever was set meanwhile.
        let again = |wall, running, boot| BoxClock::new(Two::booted(wall, running, boot), Some(mark.clone())).now();
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
        let later = BoxClock::new(Two::booted(5_000 * DAY_MS, 0, 2), Some(mark.clone()));
        assert_eq!(later.settled(), mark.settled.plus_ms(2 * DAY_MS));
    }

    #[test]
    fn a_clock_that_was_never_set_is_believed_once_it_has_been_right_for_days() {
        // It began in 1970, and the network set it.
        let raw = Two::booted(0, 0, 1);
        let clock = BoxClock::new(raw.clone(), None);
        raw.set(20_000 * DAY_MS);
        clock.settled();
        for _ in 0..71 {
            raw.pass(HOUR_MS);
            assert!(clock.settled() < Timestamp(7 * DAY_MS));
        }
        raw.pass(2 * HOUR_MS);
        assert_eq!(clock.settled(), clock.wall());
        // One that starts years ahead ends no Wait of months.
        let mark = clock.mark();
        let later = BoxClock::new(Two::booted(40_000 * DAY_MS, 0, 2), Some(mark.clone()));
        assert_eq!(later.now(), mark.time.plus_ms(30 * DAY_MS));
    }

    /// A battery that is dead: the machine starts in 1970, and the network sets its clock a while later.
    #[test]
    fn what_a_clock_of_1970_dated_lives_as_long_as_anything_else() {
        const KEPT_MS: i64 = 30 * DAY_MS;
        let first = BoxClock::new(Two::booted(20_000 * DAY_MS, 0, 1), None);
        for mark in [None, Some(first.mark())] {
            let raw = Two::booted(0, 0, 2);
            let clock = BoxClock::new(raw.clone(), mark);
            clock.settled();
            raw.pass(HOUR_MS);
            let (wrong, until) = (clock.wall(), clock.now().plus_ms(KEPT_MS));
            raw.pass(HOUR_MS);
            // Its next start is by a mark that has been read from the disk, in the same wrong time.
            let mark = ClockMark::of_bytes(&clock.mark().to_bytes());
            let clock = BoxClock::new(raw.clone(), mark);
            raw.set(20_001 * DAY_MS - clock.wall().0);
            let right = clock.wall();
            while clock.now() < until {
                let older = clock.older_than(KEPT_MS);
                assert!(
                    !older.has(wrong) && !older.has(right),
                    "after {} hours",
                    clock.now().since_ms(until) / HOUR_MS
                );
                assert!(!older.has_all(Timestamp(wrong.0 - 1)..Timestamp(wrong.0 + 1)));
                raw.pass(HOUR_MS);
            }
            raw.pass(3 * HOUR_MS);
            let older = clock.older_than(KEPT_MS);
            assert!(older.has(wrong) && older.has(right), "it is kept for ever");
            assert!(older.has_all(Timestamp(wrong.0 - 1)..Timestamp(wrong.0 + 1)));
            assert!(!older.has(clock.wall()));
        }
    }

    /// It starts in 1970 twice: what was dated in between is not before what comes next, though no mark tells of it.
    #[test]
    fn what_was_dated_since_the_last_mark_may_be_later_than_the_clock_is_now() {
        let raw = Two::booted(7_000, 0, 1);
        let clock = BoxClock::new(raw.clone(), None);
        let mark = clock.mark();
        raw.pass(50_000);
        let dated = clock.wall();
        let clock = BoxClock::new(Two::booted(7_000, 0, 2), Some(mark));
        assert!(clock.was_later_than(clock.wall()) && clock.was_later_than(Timestamp(dated.0 - 1)));
    }

    #[test]
    fn a_machine_that_was_off_for_two_months_goes_on() {
        let clock = BoxClock::new(Two::booted(20_000 * DAY_MS, 0, 1), None);
        let mark = clock.mark();
        let raw = Two::booted(20_060 * DAY_MS, 0, 2);
        let clock = BoxClock::new(raw.clone(), Some(mark.clone()));
        // Of what lasts a month is over; what is tied to a time of day sees all of it.
        assert_eq!((clock.now(), clock.wall()), (mark.time.plus_ms(30 * DAY_MS), Timestamp(20_060 * DAY_MS)));
        // Nothing goes at once that would have gone meanwhile, and all of it within days.
        assert!(!clock.older_than(14 * DAY_MS).has(mark.wall));
        for _ in 0..73 {
            raw.pass(HOUR_MS);
            clock.settled();
        }
        assert!(clock.older_than(14 * DAY_MS).has(mark.wall));
        assert!(!clock.older_than(14 * DAY_MS).has(Timestamp(20_060 * DAY_MS)));
    }
}
