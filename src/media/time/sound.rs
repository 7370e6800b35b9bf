//! Sound on one unbroken line of samples: silence where there is none, none of it dropped.
//!
//! Each piece of sound is placed by its own timestamp. A gap becomes silence of its length. Timestamps that wander from
//! the count of samples by less than [`GAP_NS`] are clocks that run apart, rounding or jitter: their mean is followed by
//! stretching sound by at most half a per cent, or a tenth where it is shortened. Sound whose place is taken already is put behind what was there, and what it
//! came too late by is made up for in the same way. An announced gap is no gap: sound may come for it after all.

/// Timestamps further ahead of the samples than this leave a hole.
pub const GAP_NS: i64 = 30_000_000;
/// A clock that goes back by more than this has started again.
const RESTART_NS: i64 = SECOND_NS;
/// Mean distance at which stretching begins, and at which it ends.
const OFF_NS: i64 = 2_000_000;
const ON_NS: i64 = 300_000;
/// Time over which the distance is averaged.
const MEAN_NS: i64 = 500_000_000;
/// One sample in so many may be added; one in so many taken away, where packets at a splice overlap; and in so many where sound
/// comes far off.
const STRETCH: i64 = 200;
const SQUEEZE: i64 = 1_000;
const STRETCH_FAR: i64 = 50;
const FAR_NS: i64 = 40_000_000;
/// An announced gap is believed once it is longer than this by so much: until then whoever waits for the sound has to keep
/// what goes beside it.
const ANNOUNCED_NS: u64 = 600 * SECOND_NS as u64;
const SECOND_NS: i64 = 1_000_000_000;

/// What is to be written for one piece of sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Frames (samples of all channels) of silence before it.
    pub silence: u64,
    /// Frames that it is to have, instead of those that it has.
    pub frames: u64,
}

/// Places the sound of one stream. Times are in nanoseconds of running time.
#[derive(Clone, Debug)]
pub struct Placer {
    rate: i64,
    /// Sound that begins later than this is led in by silence.
    from_ns: Option<u64>,
    base_ns: Option<i64>,
    written: i64,
    /// Mean of how much later the timestamps are than the samples.
    ahead_ns: i64,
    stretching: bool,
    /// Frames that passed since one was added or taken.
    owed: i64,
    shift_ns: i64,
}

impl Placer {
    /// Sound of `rate` frames a second, from `from_ns` on, or from its own beginning where that is earlier.
    pub fn new(rate: u32, from_ns: Option<u64>) -> Placer {
        Placer {
            rate: i64::from(rate.max(1)),
            from_ns,
            base_ns: None,
            written: 0,
            ahead_ns: 0,
            stretching: false,
            owed: 0,
            shift_ns: 0,
        }
    }

    /// The next sound has another rate.
    pub fn set_rate(&mut self, rate: u32) {
        if i64::from(rate.max(1)) != self.rate {
            self.base_ns = self.base_ns.map(|_| self.next());
            self.written = 0;
            self.rate = i64::from(rate.max(1));
        }
    }

    /// Where the next frame is written.
    pub fn next_ns(&self) -> u64 {
        u64::try_from(self.next()).unwrap_or(0)
    }

    /// Where the sound ends so far; none where there was none.
    pub fn end_ns(&self) -> Option<u64> {
        self.base_ns.map(|_| self.next_ns())
    }

    fn next(&self) -> i64 {
        let at = i128::from(self.written) * i128::from(SECOND_NS) / i128::from(self.rate);
        self.base_ns.unwrap_or(0).saturating_add(i64::try_from(at).unwrap_or(i64::MAX))
    }

    fn frames_in(&self, ns: i64) -> i64 {
        let frames = (i128::from(ns) * i128::from(self.rate) * 2 + i128::from(SECOND_NS)) / (2 * i128::from(SECOND_NS));
        i64::try_from(frames).unwrap_or(0)
    }

    /// Places `frames` frames that come at `at_ns`; without a time they follow what was before.
    pub fn sound(&mut self, at_ns: Option<u64>, frames: u64) -> Piece {
        let at_ns = at_ns.map(|ns| i64::try_from(ns).unwrap_or(i64::MAX / 2));
        if self.base_ns.is_none() {
            let at_ns = at_ns.unwrap_or(0);
            let from = self.from_ns.map_or(at_ns, |ns| i64::try_from(ns).unwrap_or(i64::MAX / 2));
            self.base_ns = Some(at_ns.min(from));
        }
        let mut ahead = at_ns.map_or(self.ahead_ns, |at| at + self.shift_ns - self.next());
        if ahead < -RESTART_NS {
            self.shift_ns -= ahead;
            ahead = 0;
        }
        let length = i64::try_from(frames).unwrap_or(0);
        let leads_in = self.written == 0;
        if ahead > GAP_NS || leads_in && ahead > 0 {
            let silence = self.frames_in(ahead).max(0);
            self.written += silence + length;
            (self.ahead_ns, self.stretching) = (0, false);
            return Piece { silence: silence.unsigned_abs(), frames };
        }
        if ahead < -GAP_NS {
            self.ahead_ns = ahead;
        } else {
            let share = (length * SECOND_NS / self.rate).min(MEAN_NS);
            self.ahead_ns += (ahead - self.ahead_ns) / (MEAN_NS / share.max(1)).max(1);
        }
        let stretched = (length + self.stretch(length)).max(0);
        self.written += stretched;
        Piece { silence: 0, frames: stretched.unsigned_abs() }
    }

    /// How many frames are added to so many.
    fn stretch(&mut self, length: i64) -> i64 {
        self.stretching = self.ahead_ns.abs() > if self.stretching { ON_NS } else { OFF_NS };
        if !self.stretching {
            return 0;
        }
        let share = match self.ahead_ns {
            ahead if ahead.abs() > FAR_NS => STRETCH_FAR,
            ahead if ahead < 0 => SQUEEZE,
            _ => STRETCH,
        };
        // Short pieces add up: what one is too short for is taken by one of the next.
        let owed = self.owed + length;
        let most = owed / share;
        self.owed = owed - most * share;
        let sign = self.ahead_ns.signum();
        let added = sign * self.frames_in(self.ahead_ns.abs()).min(most);
        self.ahead_ns -= added * SECOND_NS / self.rate;
        added
    }

    /// No sound is said to come until `end_ns`: frames of silence that may be written for sure.
    pub fn gap(&mut self, end_ns: u64) -> u64 {
        let sure = end_ns.saturating_sub(ANNOUNCED_NS);
        if self.base_ns.is_none() || sure <= self.next_ns() {
            return 0;
        }
        let silence = self.frames_in(i64::try_from(sure - self.next_ns()).unwrap_or(0)).max(0);
        self.written += silence;
        silence.unsigned_abs()
    }
}

/// Brings interleaved frames of `channels` samples to another number of frames. The first and the last stay; what lies
/// between is interpolated linearly, which for half a per cent is not heard.
pub fn stretched(samples: &[f32], channels: usize, frames: usize) -> Vec<f32> {
    let channels = channels.max(1);
    let own = samples.len() / channels;
    if own == 0 || frames == 0 {
        return Vec::new();
    }
    let step = if frames > 1 { (own - 1) as f64 / (frames - 1) as f64 } else { 0.0 };
    let mut out = Vec::with_capacity(frames * channels);
    for frame in 0..frames {
        let at = frame as f64 * step;
        let before = (at as usize).min(own - 1);
        let behind = (before + 1).min(own - 1);
        let share = (at - before as f64) as f32;
        for channel in 0..channels {
            let (a, b) = (samples[before * channels + channel], samples[behind * channels + channel]);
            out.push(a + (b - a) * share);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u32 = 48_000;
    const MS: u64 = 1_000_000;

    fn ns(frames: u64) -> u64 {
        frames * 1_000_000_000 / u64::from(RATE)
    }

    proptest! {
        /// Packets with jitter, drift and gaps: none is dropped, each lies within 5 ms of its mean time once the clocks
        /// are followed, and gaps are as long as they were.
        #[test]
        fn sound_lies_where_its_timestamps_say(
            from in prop::option::of(0u64..2_000), start in 0u64..5_000, frames in 200u64..2_000, drift in -0.0008f64..0.0008,
            jitter in prop::collection::vec(-1.0f64..1.0, 400), gaps in prop::collection::btree_map(0usize..400, 100u64..5_000, 0..3)
        ) {
            let mut placer = Placer::new(RATE, from.map(|f| f * MS));
            let (mut at, mut given, mut written) = ((start * MS) as f64, 0i64, 0i64);
            for (i, jitter) in jitter.iter().enumerate() {
                at += gaps.get(&i).map_or(0.0, |ms| (ms * MS) as f64);
                let jitter = if i == 0 { 0.0 } else { *jitter };
                let told = (at + jitter * MS as f64).max(0.0) as u64;
                let piece = placer.sound(Some(told), frames);
                given += frames as i64;
                written += piece.frames as i64;
                let placed = placer.next_ns() as f64 - piece.frames as f64 * 1e9 / f64::from(RATE);
                prop_assert!((placed - at).abs() < 5e6, "packet {i}: {placed} for {at}");
                prop_assert!(piece.frames.abs_diff(frames) <= frames / 200 + 1);
                at += ns(frames) as f64 * (1.0 + drift);
            }
            prop_assert!((given - written).abs() as f64 <= given as f64 * 0.0051 + 1.0);
        }

        /// Sound that comes late is led in by silence to the sample, and nothing is put before sound that comes early.
        #[test]
        fn late_sound_begins_with_silence(from in 0u64..5_000_000_000, at in 0u64..5_000_000_000) {
            let mut placer = Placer::new(RATE, Some(from));
            let piece = placer.sound(Some(at), 1024);
            prop_assert_eq!(piece.frames, 1024);
            prop_assert!(ns(piece.silence).abs_diff(at.saturating_sub(from)) <= 11_000);
            prop_assert!(placer.next_ns().abs_diff(at + ns(1024)) <= 11_000);
        }

        /// Whatever the timestamps say, all sound is written.
        #[test]
        fn no_sound_is_dropped(times in prop::collection::vec(prop::option::of(0u64..20_000), 1..200), gaps in any::<bool>()) {
            let mut placer = Placer::new(RATE, None);
            for at in times {
                if gaps {
                    placer.gap(placer.next_ns() + 3_000 * MS);
                }
                let piece = placer.sound(at.map(|at| at * MS), 1_000);
                prop_assert!(piece.frames >= 980);
            }
        }

        #[test]
        fn stretching_keeps_a_ramp_a_ramp(own in 2usize..2_000, more in -8i64..8, channels in 1usize..7) {
            let frames = (own as i64 + more).max(2) as usize;
            let ramp: Vec<f32> = (0..own).flat_map(|i| vec![i as f32 / (own - 1) as f32; channels]).collect();
            let out = stretched(&ramp, channels, frames);
            prop_assert_eq!(out.len(), frames * channels);
            for (i, frame) in out.chunks(channels).enumerate() {
                let due = i as f32 / (frames - 1) as f32;
                prop_assert!(frame.iter().all(|s| (s - due).abs() < 1e-4));
            }
        }
    }

    #[test]
    fn an_announced_gap_is_filled_only_by_what_surely_does_not_come() {
        let mut placer = Placer::new(RATE, None);
        placer.sound(Some(0), 48_000);
        assert_eq!(placer.gap(60_000 * MS), 0);
        assert_eq!(placer.sound(Some(1_000 * MS), 48_000), Piece { silence: 0, frames: 48_000 });
        assert_eq!(placer.gap(610_000 * MS), 8 * 48_000);
        // The rest of the gap is silence, once it is known for what it is.
        assert_eq!(placer.sound(Some(700_000 * MS), 1_000), Piece { silence: 690 * 48_000, frames: 1_000 });
    }

    #[test]
    fn sound_that_overlaps_is_made_up_for() {
        let mut placer = Placer::new(RATE, None);
        placer.sound(Some(0), 48_000);
        // Half a second too early, then on and on.
        for i in 0..4_000u64 {
            placer.sound(Some(500 * MS + ns(i * 1_024)), 1_024);
        }
        assert!(placer.next_ns().abs_diff(500 * MS + ns(4_000 * 1_024)) < 5 * MS);
        // A clock that starts again is a new beginning, and owes nothing.
        let mut placer = Placer::new(RATE, None);
        placer.sound(Some(90_000 * MS), 48_000);
        assert_eq!(placer.sound(Some(0), 48_000), Piece { silence: 0, frames: 48_000 });
        assert_eq!(placer.sound(Some(1_000 * MS), 48_000), Piece { silence: 0, frames: 48_000 });
    }

    #[test]
    fn another_rate_goes_on_where_the_last_one_ended() {
        let mut placer = Placer::new(RATE, Some(0));
        placer.sound(Some(0), 48_000);
        placer.set_rate(44_100);
        assert_eq!(placer.sound(Some(1_000 * MS), 44_100), Piece { silence: 0, frames: 44_100 });
        assert_eq!(placer.end_ns(), Some(2_000 * MS));
    }
}
