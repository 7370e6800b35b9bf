//! Pictures at a constant rate: which picture is shown at each tick.
//!
//! The rule: at each tick stands the last picture whose own time has come. The first tick is the first picture's own time; the
//! last picture stands for its own duration, or until the sound's end where that goes on. Where the source's rate is that of
//! the output, a picture takes the tick that follows its predecessor's as long as it is near it: so jitter and rounded
//! timestamps neither double nor lose a picture, and each is shown exactly once.

use std::ops::Range;

const SECOND: i128 = 1_000_000_000;
/// How much containers round timestamps by: Matroska and FLV to 1 ms, once at the first picture and once at each other one.
const ROUNDED_NS: i128 = 1_500_000;
/// A clock that goes back by more than this has started again.
const RESTART_NS: i128 = SECOND;
/// Sound may outlast the pictures by this without another picture for it: the rest of its last packet, and careless cuts.
const SOUND_BEYOND_NS: u64 = 500_000_000;

/// Until when a last picture stands that would end at `own_end_ns`: as long as the sound, where that goes on.
pub fn stands_until(own_end_ns: u64, sound_end_ns: Option<u64>) -> u64 {
    sound_end_ns.filter(|end| *end > own_end_ns.saturating_add(SOUND_BEYOND_NS)).unwrap_or(own_end_ns)
}

/// The ticks of a constant rate: `numerator / denominator` a second, counted from `origin_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    origin_ns: i128,
    numerator: i128,
    denominator: i128,
}

impl Ticks {
    /// Start of a tick in nanoseconds, rounded; no error adds up.
    pub fn at(&self, tick: u64) -> u64 {
        let doubled = 2 * i128::from(tick) * self.denominator * SECOND + self.numerator;
        u64::try_from(self.origin_ns + doubled / (2 * self.numerator)).unwrap_or(u64::MAX)
    }

    fn period_ns(&self) -> i128 {
        self.denominator * SECOND / self.numerator
    }

    /// The first tick that does not lie before `at_ns`.
    fn from(&self, at_ns: i128) -> u64 {
        let scaled = (at_ns - self.origin_ns).max(0) * self.numerator;
        let whole = self.denominator * SECOND;
        u64::try_from((scaled + whole - 1) / whole).unwrap_or(u64::MAX)
    }

    /// The tick that is nearest to `at_ns`.
    fn nearest(&self, at_ns: i128) -> u64 {
        let scaled = (at_ns - self.origin_ns).max(0) * self.numerator;
        let whole = self.denominator * SECOND;
        u64::try_from((2 * scaled + whole) / (2 * whole)).unwrap_or(u64::MAX)
    }
}

/// What becomes of the pictures of one stream at a constant rate. Times are in nanoseconds of running time.
#[derive(Clone, Debug)]
pub struct Cadence {
    ticks: Ticks,
    /// The source has this rate too, by name or on the whole.
    same_rate: bool,
    last: Option<Last>,
    /// Added to the source's times, since its clock started again.
    shift_ns: i128,
    /// Until when the last picture stands, where it is known otherwise than from the picture.
    until_ns: Option<u64>,
    pub tally: Tally,
}

/// The picture that was taken in last: when it comes, how long it lasts, and from which tick on it is shown.
#[derive(Clone, Copy, Debug)]
struct Last {
    at_ns: i128,
    duration_ns: Option<i128>,
    tick: u64,
}

/// What was shown, in pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub taken: u64,
    /// Pictures that gave way to a later one before any tick came.
    pub skipped: u64,
    /// Ticks at which a picture stood that had been shown before.
    pub held: u64,
}

impl Cadence {
    /// `numerator / denominator` pictures a second. None where that is no rate.
    pub fn new(numerator: i32, denominator: i32, same_rate: bool) -> Option<Cadence> {
        (numerator > 0 && denominator > 0).then(|| Cadence {
            ticks: Ticks { origin_ns: 0, numerator: numerator.into(), denominator: denominator.into() },
            same_rate,
            last: None,
            shift_ns: 0,
            until_ns: None,
            tally: Tally::default(),
        })
    }

    /// The last picture stands until then, where that is clearly longer than it says itself: parsers and decoders forget the
    /// duration that an index has for it.
    pub fn until(self, until_ns: Option<u64>) -> Cadence {
        Cadence { until_ns, ..self }
    }

    /// When a tick begins and how long it lasts.
    pub fn tick(&self, tick: u64) -> (u64, u64) {
        let at = self.ticks.at(tick);
        (at, self.ticks.at(tick + 1).saturating_sub(at))
    }

    /// Takes the next picture in, in the order of showing: at which ticks the one before it is shown. A picture
    /// without a time follows the one before it.
    pub fn picture(&mut self, at_ns: Option<u64>, duration_ns: Option<u64>) -> Range<u64> {
        self.tally.taken += 1;
        let duration_ns = duration_ns.map(i128::from).filter(|d| *d > 0);
        let Some(last) = self.last else {
            let at_ns = i128::from(at_ns.unwrap_or(0));
            self.ticks.origin_ns = at_ns;
            self.last = Some(Last { at_ns, duration_ns, tick: 0 });
            return 0..0;
        };
        let at_ns = self.placed(at_ns, &last);
        if self.is_rest(at_ns, &last) {
            self.ticks.origin_ns = at_ns;
            self.last = Some(Last { at_ns, duration_ns, tick: 0 });
            return self.tell(0..0);
        }
        let tick = self.tick_of(at_ns, &last);
        self.last = Some(Last { at_ns, duration_ns, tick });
        self.tell(last.tick..tick)
    }

    /// No more pictures come: at which ticks the last one is shown. `sound_end_ns` is where the sound ends.
    pub fn end(&mut self, sound_end_ns: Option<u64>) -> Range<u64> {
        let Some(last) = self.last.take() else { return 0..0 };
        let period = self.ticks.period_ns();
        let told = last.duration_ns.unwrap_or(period);
        let indexed = self.until_ns.map_or(0, |until| i128::from(until) - last.at_ns);
        let lasts = if indexed > told + period * 3 / 2 { indexed } else { told };
        let own = u64::try_from(last.at_ns + lasts).unwrap_or(0);
        let until = stands_until(own, sound_end_ns);
        let end = if until == own && self.same_rate {
            last.tick + self.ticks.nearest(self.ticks.origin_ns + lasts)
        } else {
            self.ticks.nearest(until.into())
        };
        let end = end.max(last.tick + 1);
        self.tell(last.tick..end)
    }

    fn tell(&mut self, shown: Range<u64>) -> Range<u64> {
        match shown.end - shown.start {
            0 => self.tally.skipped += 1,
            ticks => self.tally.held += ticks - 1,
        }
        shown
    }

    /// A picture's time on the output's clock.
    fn placed(&mut self, at_ns: Option<u64>, last: &Last) -> i128 {
        let follows = last.at_ns + self.ticks.period_ns();
        let Some(own) = at_ns.map(i128::from) else { return follows };
        if own + self.shift_ns + RESTART_NS < last.at_ns {
            self.shift_ns = follows - own;
        }
        own + self.shift_ns
    }

    /// Whether the picture before is the first one and the rest of one that was cut by an edit: its time is no tick of the source,
    /// and the whole ones count.
    fn is_rest(&self, at_ns: i128, first: &Last) -> bool {
        let period = self.ticks.period_ns();
        let short = first.duration_ns.is_some_and(|lasts| lasts * 10 < period * 9);
        let soon = at_ns > first.at_ns && (at_ns - first.at_ns) * 4 <= period * 3;
        self.same_rate && self.tally.taken == 2 && short && soon
    }

    fn tick_of(&self, at_ns: i128, last: &Last) -> u64 {
        let period = self.ticks.period_ns();
        let next = last.tick + 1;
        let early = at_ns - i128::from(self.ticks.at(next));
        let follows = at_ns - last.at_ns <= period * 3 / 2;
        if self.same_rate && follows && early <= period / 2 && -early <= period * 5 / 4 {
            return next;
        }
        let slack = ROUNDED_NS.min(period / 4);
        self.ticks.from(at_ns - slack).max(last.tick)
    }
}

/// Picks single pictures: the first one, then the first one at or after each further interval, up to a number of them.
#[derive(Clone, Debug)]
pub struct Due {
    /// Seconds between two, as numerator and denominator.
    interval: (u64, u64),
    most: u64,
    taken: u64,
    first_ns: Option<u64>,
}

impl Due {
    pub fn new(interval: (u64, u64), most: u64) -> Due {
        Due { interval, most, taken: 0, first_ns: None }
    }

    /// Whether the picture that comes at `at_ns` is one of them.
    pub fn take(&mut self, at_ns: u64) -> bool {
        let begin = *self.first_ns.get_or_insert(at_ns);
        let elapsed = u128::from(at_ns.saturating_sub(begin)) * u128::from(self.interval.1);
        // Half a millisecond of grace, since timestamps are rounded.
        let due = elapsed + 500_000 >= u128::from(self.taken) * u128::from(self.interval.0) * 1_000_000_000;
        let take = due && self.taken < self.most;
        self.taken += u64::from(take);
        take
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// Runs a whole stream: for each tick the number of its picture and its time.
    fn shown(rate: (i32, i32), same: bool, pictures: &[(u64, Option<u64>)], sound: Option<u64>) -> Vec<(usize, u64)> {
        let mut cadence = Cadence::new(rate.0, rate.1, same).unwrap();
        let (mut out, mut next) = (Vec::new(), 0);
        let mut put = |cadence: &Cadence, picture: usize, ticks: Range<u64>| {
            assert_eq!(ticks.start, next, "ticks follow one another");
            next = ticks.end;
            out.extend(ticks.map(|t| (picture, cadence.tick(t).0)));
        };
        for (i, (at, duration)) in pictures.iter().enumerate() {
            let ticks = cadence.picture(Some(*at), *duration);
            if i > 0 {
                put(&cadence, i - 1, ticks);
            }
        }
        let ticks = cadence.end(sound);
        put(&cadence, pictures.len() - 1, ticks);
        let held = out.len() as u64 + cadence.tally.skipped - cadence.tally.taken;
        assert_eq!(cadence.tally.held, held);
        out
    }

    fn rates() -> impl Strategy<Value = (i32, i32)> {
        prop::sample::select(vec![(25, 1), (30_000, 1001), (24_000, 1001), (60, 1), (240, 1), (1, 5), (10, 1), (50, 1)])
    }

    proptest! {
        /// Rounded and jittering timestamps of the output's own rate, from any start: each picture once, none lost,
        /// ascending, and within half a period and the jitter of its own time.
        #[test]
        fn at_the_same_rate_each_picture_is_shown_once(
            rate in rates(), start in 0u64..3_600_000, jitter in prop::collection::vec(-0.2f64..0.2, 2..200), ms in any::<bool>()
        ) {
            let period = 1e9 * f64::from(rate.1) / f64::from(rate.0);
            let mut times: Vec<u64> = jitter.iter().enumerate().map(|(i, j)| {
                let exact = (start * 1_000_000) as f64 + (i as f64 + 0.3 + j) * period;
                // Whole milliseconds, where a period has some of them.
                if ms && period > 8e6 { ((exact / 1e6).round() * 1e6) as u64 } else { exact as u64 }
            }).collect();
            times.sort_unstable();
            let pictures: Vec<_> = times.iter().map(|t| (*t, None)).collect();
            let out = shown(rate, true, &pictures, None);
            prop_assert_eq!(out.iter().map(|o| o.0).collect::<Vec<_>>(), (0..times.len()).collect::<Vec<_>>());
            prop_assert!(out.windows(2).all(|w| w[0].1 < w[1].1));
            for (i, at) in &out {
                prop_assert!((*at as f64 - times[*i] as f64).abs() < 0.9 * period + 1e6, "{} {}", at, times[*i]);
            }
        }

        /// Any times at any rate: what stands at a tick is the last picture whose time has come, to a rounding.
        #[test]
        fn a_picture_stands_until_the_next_ones_time_has_come(
            rate in rates(), start in 0u64..100_000, steps in prop::collection::vec(1u64..4_000, 1..60), last in 1u64..8_000
        ) {
            let mut at = start * MS;
            let mut pictures = vec![(at, Some(last * MS))];
            for step in &steps {
                at += step * MS;
                pictures.push((at, Some(last * MS)));
            }
            let out = shown(rate, false, &pictures, None);
            prop_assert_eq!(out[0].1, pictures[0].0);
            for (picture, tick) in &out {
                let come = pictures.iter().rposition(|p| p.0 <= tick + 1_500_000).unwrap();
                let surely = pictures.iter().rposition(|p| p.0 <= *tick).unwrap();
                // The last one is shown though its time may come behind the last tick.
                let end = *picture == pictures.len() - 1;
                prop_assert!((surely..=come).contains(picture) || end, "{} at {}", picture, tick);
            }
            // The end: the last picture's own, to half a period, and never without a tick.
            let period = 1e9 * f64::from(rate.1) / f64::from(rate.0);
            prop_assert_eq!(out[out.len() - 1].0, pictures.len() - 1);
            let end = out[out.len() - 1].1 as f64 + period;
            let due = (at + last * MS) as f64;
            prop_assert!(end - due <= 2.0 * period && due - end <= 0.51 * period + 1.0, "{end} for {due}");
        }

        /// Whatever comes, even clocks that run backwards: ticks follow one another and every call ends.
        #[test]
        fn no_times_lead_astray(
            same in any::<bool>(), times in prop::collection::vec(prop::option::of(0u64..10_000), 1..100), sound in prop::option::of(0u64..20_000)
        ) {
            let mut cadence = Cadence::new(25, 1, same).unwrap();
            let mut next = 0;
            for (i, at) in times.iter().enumerate() {
                let ticks = cadence.picture(at.map(|at| at * MS), Some(40 * MS));
                if i > 0 {
                    prop_assert_eq!(ticks.start, next);
                    next = ticks.end;
                }
            }
            let ticks = cadence.end(sound.map(|s| s * MS));
            prop_assert!(ticks.start == next && ticks.end > next && ticks.end < 100_000);
        }
    }

    #[test]
    fn the_last_picture_stands_for_its_own_time_or_as_long_as_the_sound() {
        let film = |last: u64| -> Vec<_> {
            (0..50).map(|i| (21 * MS + i * 40 * MS, Some(if i == 49 { last } else { 40 } * MS))).collect()
        };
        assert_eq!(shown((25, 1), true, &film(40), None).len(), 50);
        assert_eq!(shown((25, 1), true, &film(8_000), None).len(), 49 + 200);
        // The rest of a packet of sound makes no picture; sound that goes on for seconds does.
        assert_eq!(shown((25, 1), true, &film(40), Some(2_100 * MS)).len(), 50);
        assert_eq!(shown((25, 1), true, &film(40), Some(12_021 * MS)).len(), 300);
        // The index knows what the picture has forgotten, and is not taken at its word to the millisecond.
        let ends = |until: u64| {
            let mut cadence = Cadence::new(25, 1, true).unwrap().until(Some(until * MS));
            for (at, lasts) in film(40) {
                cadence.picture(Some(at), lasts);
            }
            cadence.end(None).end
        };
        assert_eq!((ends(10_021), ends(2_060), ends(1_000)), (250, 50, 50));
    }

    #[test]
    fn single_pictures_are_taken_at_their_intervals() {
        let mut due = Due::new((1, 10), 4);
        let taken: Vec<u64> = (0..100).map(|i| 21 + i * 33).filter(|ms| due.take(ms * MS)).collect();
        assert_eq!(taken, [21, 153, 252, 351]);
    }

    #[test]
    fn the_rest_of_a_picture_before_an_edit_gives_no_clock() {
        let film: Vec<_> =
            (0..50).map(|i| if i == 0 { (0, Some(20 * MS)) } else { ((i * 40 - 20) * MS, Some(40 * MS)) }).collect();
        let out = shown((25, 1), true, &film, None);
        assert_eq!(out, (1..50).map(|i| (i, (i as u64 * 40 - 20) * MS)).collect::<Vec<_>>());
    }

    #[test]
    fn a_clock_that_starts_again_goes_on() {
        let twice: Vec<_> = (0..100).map(|i| ((i % 50) * 40 * MS + 9_000 * MS, None)).collect();
        let out = shown((25, 1), true, &twice, None);
        assert_eq!(out.iter().map(|o| o.0).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_source_of_another_speed_is_never_far_off() {
        // 29.9 pictures a second, called 29.97: now and then one is held, and none is more than a period off its time.
        let slow: Vec<_> = (0..20_000).map(|i| (i * 1_000_000_000 / 29_900 * 1000, None)).collect();
        let out = shown((30_000, 1001), true, &slow, None);
        assert!(out.iter().all(|(i, at)| at.abs_diff(slow[*i].0) <= 34 * MS));
        let fast: Vec<_> = (0..20_000).map(|i| (i * 1_000_000_000 / 30_040 * 1000, None)).collect();
        let out = shown((30_000, 1001), true, &fast, None);
        assert!(out.iter().all(|(i, at)| at.abs_diff(fast[*i].0) <= 43 * MS));
    }
}
