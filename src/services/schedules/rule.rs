//! When a schedule is due: EventBridge's `cron(…)` and `rate(…)`, and plain five-field cron. Pure.
//!
//! Times are read in the schedule's own time zone. A time that a clock change skips is due right after the
//! gap; a time that comes twice is due once, the first time.

use std::fmt;
use std::str::FromStr;

use conveyor_base::Timestamp;
use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// Years that are searched for the next time before a rule counts as never due (29 February needs eight).
const YEARS_AHEAD_MAX: i64 = 9;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Rule {
    text: String,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Cron(Box<Cron>),
    EveryMs(i64),
}

/// Why an expression was refused.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error(
        "'{0}' is no schedule; write cron(0 3 * * ? *), rate(5 minutes) or a five-field cron line such as 0 3 * * *"
    )]
    Shape(String),
    #[error("'{text}' is not a valid cron expression: {reason}")]
    Cron { text: String, reason: String },
    #[error("'{0}': a rate is a whole number above 0 and minutes, hours or days")]
    Rate(String),
}

impl Rule {
    /// Once a day, at midnight UTC.
    pub fn daily() -> Rule {
        Rule { text: "rate(1 day)".to_owned(), kind: Kind::EveryMs(86_400_000) }
    }

    /// The first moment after `after` at which the rule is due; `None` where there is none within nine years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.kind {
            // A rate counts from the epoch, so that a restart neither delays nor repeats it.
            Kind::EveryMs(ms) => Some(Timestamp((after.0.div_euclid(*ms) + 1).checked_mul(*ms)?)),
            Kind::Cron(cron) => next_cron(cron, after, zone),
        }
    }
}

fn next_cron(cron: &Cron, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let start = jiff::Timestamp::from_millisecond(after.0).ok()?.to_zoned(zone.clone());
    // A day earlier, so that a skipped time of yesterday's last hour is not lost.
    let mut day = start.date().yesterday().ok()?;
    let last = day.checked_add(YEARS_AHEAD_MAX.years()).ok()?;
    while day <= last {
        if day_matches(cron, day)
            && let Some(due) = first_of_day(cron, day, after, zone)
        {
            return Some(due);
        }
        day = day.tomorrow().ok()?;
    }
    None
}

fn day_matches(cron: &Cron, day: Date) -> bool {
    let (year, month, dom) = (i32::from(day.year()), day.month() as u32, day.day() as u32);
    let p = &cron.pattern;
    p.year_match(year).unwrap_or(false)
        && p.month_match(month).unwrap_or(false)
        && p.day_match(year, month, dom).unwrap_or(false)
}

fn first_of_day(cron: &Cron, day: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    for hour in (0..24i8).filter(|h| cron.pattern.hour_match(*h as u32).unwrap_or(false)) {
        for minute in (0..60i8).filter(|m| cron.pattern.minute_match(*m as u32).unwrap_or(false)) {
            let Ok(zoned) = day.at(hour, minute, 0, 0).to_zoned(zone.clone()) else { continue };
            let due = Timestamp(zoned.timestamp().as_millisecond());
            if due > after {
                return Some(due);
            }
        }
    }
    None
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rule, RuleError> {
        let trimmed = text.trim();
        let kind = if let Some(inner) = inner(trimmed, "cron(") {
            Kind::Cron(Box::new(parse_aws(inner, text)?))
        } else if let Some(inner) = inner(trimmed, "rate(") {
            Kind::EveryMs(parse_rate(inner).ok_or_else(|| RuleError::Rate(text.to_owned()))?)
        } else if trimmed.split_whitespace().count() == 5 || trimmed.starts_with('@') {
            Kind::Cron(Box::new(parse_cron(&CronParser::new(), trimmed, text)?))
        } else {
            return Err(RuleError::Shape(text.to_owned()));
        };
        Ok(Rule { text: text.to_owned(), kind })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Rule {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Rule, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

fn inner<'a>(text: &'a str, head: &str) -> Option<&'a str> {
    text.strip_prefix(head)?.strip_suffix(')')
}

/// EventBridge: minutes, hours, day of month, month, day of week (1 is Sunday), year; `?` where the other day counts.
fn parse_aws(inner: &str, text: &str) -> Result<Cron, RuleError> {
    let fields: Vec<&str> = inner.split_whitespace().collect();
    if fields.len() != 6 {
        let reason = format!("it has {} fields; EventBridge's have six, the last one the year", fields.len());
        return Err(RuleError::Cron { text: text.to_owned(), reason });
    }
    let parser = CronParser::builder().year(Year::Required).alternative_weekdays(true).build();
    parse_cron(&parser, &format!("0 {}", fields.join(" ").replace('?', "*")), text)
}

fn parse_cron(parser: &CronParser, pattern: &str, text: &str) -> Result<Cron, RuleError> {
    parser.parse(pattern).map_err(|e| RuleError::Cron { text: text.to_owned(), reason: e.to_string() })
}

fn parse_rate(inner: &str) -> Option<i64> {
    let (number, unit) = inner.trim().split_once(' ')?;
    let number: i64 = number.parse().ok().filter(|n| *n > 0)?;
    let unit = match unit.trim().trim_end_matches('s') {
        "minute" => 60_000,
        "hour" => 3_600_000,
        "day" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    #[track_caller]
    fn next(rule: &str, zone: &str, after: &str, due: &str) {
        let zone = TimeZone::get(zone).unwrap();
        assert_eq!(rule.parse::<Rule>().unwrap().next_after(at(after), &zone), Some(at(due)), "{rule}");
    }

    #[test]
    fn rules_are_due_when_people_expect() {
        next("cron(0 3 * * ? *)", "UTC", "2026-01-31T03:00:00Z", "2026-02-01T03:00:00Z");
        next("0 3 * * *", "Europe/Berlin", "2026-01-31T03:00:00Z", "2026-02-01T02:00:00Z");
        next("cron(30 8 ? * 2-6 *)", "UTC", "2026-11-20T09:00:00Z", "2026-11-23T08:30:00Z");
        next("cron(0 0 29 2 ? *)", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z");
        next("rate(15 minutes)", "UTC", "2026-01-01T00:01:00Z", "2026-01-01T00:15:00Z");
    }

    #[test]
    fn a_clock_change_neither_skips_nor_doubles_a_run() {
        // 02:30 does not exist on 29 March 2026 in Berlin.
        next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z");
        // 02:30 comes twice on 25 October 2026: 00:30Z, and 01:30Z is left out.
        next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z");
        next("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in ["", "cron(0 3 * * *)", "rate(0 minutes)", "rate(5 years)", "cron(99 3 * * ? *)", "every day"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
        let never: Rule = "cron(0 0 31 2 ? *)".parse().unwrap();
        assert_eq!(never.next_after(Timestamp(0), &TimeZone::UTC), None);
    }
}
