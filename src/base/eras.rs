//! How the wall clock was set so far: through which of the box's own time it was ahead of it by how much. So what the
//! wall clock dated can be told its age by the time that really passed, whatever the clock showed then.

use std::ops::Range;

use super::clock::Timestamp;

/// A wall clock that goes off by less since the last look was corrected a little and not set.
const SET_MS: i64 = 60_000;
/// An era begins with the last look before it, so that the one before may have gone on for so long; looks come every minute.
const LATE_MS: i64 = 120_000;
/// Eras that are remembered; older ones are forgotten.
const ERAS_MAX: usize = 64;
/// Length of an era in bytes.
const ERA_BYTES: usize = 16;

/// The eras so far, the newest last. There is one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Eras {
    all: Vec<Era>,
    /// The box's time of the last look.
    looked_at: Timestamp,
}

/// Through this the wall clock was not set. It lasts until the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Era {
    /// The box's time.
    begins: Timestamp,
    /// By how many milliseconds the wall clock is ahead of the box's time.
    ahead_ms: i64,
}

impl Eras {
    /// Nothing is known of what was before.
    pub fn begin(now: Timestamp, ahead_ms: i64) -> Eras {
        Eras { all: vec![Era { begins: Timestamp(i64::MIN), ahead_ms }], looked_at: now }
    }

    /// Takes note of how the clocks stand. One that was set since the last look may have been at any moment since.
    pub fn look(&mut self, now: Timestamp, ahead_ms: i64) {
        let is_set = self.all.last().is_none_or(|era| era.ahead_ms.abs_diff(ahead_ms) >= SET_MS.unsigned_abs());
        if is_set {
            self.all.push(Era { begins: self.looked_at, ahead_ms });
            let many = self.all.len().saturating_sub(ERAS_MAX);
            self.all.drain(..many);
        }
        self.looked_at = self.looked_at.max(now);
    }

    /// Dates that the wall clock gave within the last `ms` of the box's time. Some may be of longer ago as well.
    pub fn given_within(&self, now: Timestamp, ms: i64) -> Vec<Range<Timestamp>> {
        let ends = self.all.iter().skip(1).map(|next| Some(next.begins)).chain([None]);
        let eras = self.all.iter().zip(ends);
        let of = |(era, ends): (&Era, Option<Timestamp>)| {
            let from = era.begins.max(now.plus_ms(-ms)).plus_ms(era.ahead_ms);
            let until = ends.map_or(Timestamp::MAX, |ends| ends.plus_ms(era.ahead_ms).plus_ms(LATE_MS));
            (from < until).then_some(from..until)
        };
        eras.filter_map(of).collect()
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let era = |era: &Era| [era.begins.0.to_be_bytes(), era.ahead_ms.to_be_bytes()].concat();
        self.all.iter().flat_map(era).collect()
    }

    /// `None` where these are no eras' bytes.
    pub fn of_bytes(bytes: &[u8], looked_at: Timestamp) -> Option<Eras> {
        let (eras, rest) = (bytes.chunks_exact(ERA_BYTES), bytes.len() % ERA_BYTES);
        let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
        let era = |bytes: &[u8]| {
            let (begins, ahead_ms) = bytes.split_at_checked(8)?;
            Some(Era { begins: Timestamp(number(begins)?), ahead_ms: number(ahead_ms)? })
        };
        let all = eras.map(era).collect::<Option<Vec<Era>>>()?;
        (rest == 0 && !all.is_empty()).then_some(Eras { all, looked_at })
    }
}

/// What is older than some period, by its dates of the wall clock and by the time that passed on the box since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Older {
    before: Timestamp,
    /// Dates that look older and may have been given within the period, by a clock that was wrong.
    young: Vec<Range<Timestamp>>,
}

impl Older {
    /// All that is dated before that.
    pub fn than(before: Timestamp) -> Older {
        Older { before, young: Vec::new() }
    }

    pub(super) fn but(before: Timestamp, young: Vec<Range<Timestamp>>) -> Older {
        Older { before, young }
    }

    /// Whether what is dated so is older.
    pub fn has(&self, at: Timestamp) -> bool {
        at < self.before && !self.young.iter().any(|young| young.contains(&at))
    }

    /// Whether all is that is dated within these.
    pub fn has_all(&self, dates: Range<Timestamp>) -> bool {
        let touches = |young: &Range<Timestamp>| young.start < dates.end && dates.start < young.end;
        dates.end <= self.before && !self.young.iter().any(touches)
    }
}
