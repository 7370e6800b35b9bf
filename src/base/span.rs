//! A length of time as people write it in the configuration: `2s`, `500ms`, `90 days`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A non-negative length of time with millisecond resolution.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span {
    pub ms: u64,
}

impl Span {
    pub const fn seconds(seconds: u64) -> Span {
        Span { ms: seconds * 1000 }
    }

    pub const fn days(days: u64) -> Span {
        Span::seconds(days * 86_400)
    }

    pub fn duration(self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

/// Why a text is no length of time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a length of time; write a number and one of ms, s, m, h, d, as in \"2s\"")]
pub struct NotASpan(String);

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Span, NotASpan> {
        let not = || NotASpan(text.to_owned());
        let digits = text.trim().find(|c: char| !c.is_ascii_digit()).ok_or_else(not)?;
        let (number, unit) = text.trim().split_at(digits);
        let factor: u64 = match unit.trim() {
            "ms" => 1,
            "s" | "sec" | "second" | "seconds" => 1_000,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            _ => return Err(not()),
        };
        let number: u64 = number.parse().map_err(|_| not())?;
        number.checked_mul(factor).map(|ms| Span { ms }).ok_or_else(not)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if self.ms >= factor && self.ms.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.ms / factor);
            }
        }
        write!(f, "{}ms", self.ms)
    }
}

impl<'de> serde::Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Span, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_lengths_of_time() {
        for (text, ms) in [("2s", 2_000), ("500ms", 500), ("10 minutes", 600_000), ("90 days", 7_776_000_000)] {
            assert_eq!(text.parse::<Span>().unwrap().ms, ms, "{text}");
        }
        for bad in ["", "2", "s", "-1s", "1.5s", "2 weeks", "99999999999999999999s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(Span::seconds(120).to_string(), "2m");
    }
}
