//! When a schedule is due: EventBridge's `cron(…)` and `rate(…)`, and plain five-field cron. Pure.
//!
//! Times are read in the schedule's own time zone. A time that a clock change skips is due as long after the change as
//! it stands behind it; a time that comes twice is due once, the first time.

use std::fmt;
use std::str::FromStr;

use conveyor_base::Timestamp;
use croner::Cron;
use croner::parser::{CronParser, Year};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};

/// Years that are searched for a time at which a rule is due before it counts as never due (29 February needs eight).
const YEARS_MAX: i64 = 9;
/// No clocks were ever set on or back by more.
const CLOCK_CHANGE_MAX: SignedDuration = SignedDuration::from_hours(48);

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

    /// Whether it goes by the wall clock: a rate is a length of time and goes by the box's own, which nobody sets.
    pub fn is_by_wall(&self) -> bool {
        matches!(self.kind, Kind::Cron(_))
    }

    /// The first moment after `after` at which the rule is due; `None` where there is none within nine years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.kind {
            // A rate counts from the epoch, so that a restart neither delays nor repeats it.
            Kind::EveryMs(ms) => Some(Timestamp((after.0.div_euclid(*ms) + 1).checked_mul(*ms)?)),
            Kind::Cron(cron) => next_cron(cron, after, zone),
        }
    }

    /// The last moment after `after` and up to `until` at which the rule is due; `None` where there is none, or none within
    /// the nine years before `until`. Costs the same however many moments lie between the two.
    pub fn last_within(&self, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let last = match &self.kind {
            Kind::EveryMs(ms) => Timestamp(until.0.div_euclid(*ms).checked_mul(*ms)?),
            Kind::Cron(cron) => last_cron(cron, after, until, zone)?,
        };
        (last > after).then_some(last)
    }
}

fn next_cron(cron: &Cron, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let clock = Clock::at(after, zone)?;
    let from = clock.shows.checked_sub(clock.set_on).ok()?;
    let until = from.checked_add(YEARS_MAX.years()).unwrap_or(DateTime::MAX);
    let due = |at: DateTime| due_at(at, zone).filter(|due| *due > after);
    let (at, first) = times(cron, from, until).find_map(|at| Some((at, due(at)?)))?;
    // One that the clocks were set past may be due behind others that stand after it.
    let others = times(cron, at, Clock::at(first, zone)?.shows);
    others.filter_map(due).min().or(Some(first))
}

fn last_cron(cron: &Cron, after: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let (begin, end) = (Clock::at(after, zone)?, Clock::at(until, zone)?);
    // What comes twice was due the first time, when the clocks showed more than they do since they were set back.
    let latest = end.shows.checked_add(end.set_back).ok()?;
    let earliest = begin.shows.checked_sub(begin.set_on).ok()?;
    let earliest = earliest.max(latest.checked_sub(YEARS_MAX.years()).unwrap_or(DateTime::MIN));
    let due = |at: DateTime| due_at(at, zone).filter(|due| *due <= until);
    let (at, last) = times(cron, earliest, latest).rev().find_map(|at| Some((at, due(at)?)))?;
    // One that the clocks were set past may be due behind it though it stands before it.
    let clock = Clock::at(last, zone)?;
    let others = times(cron, clock.shows.checked_sub(clock.set_on).ok()?, at);
    others.filter_map(due).max().or(Some(last))
}

/// What the clocks of a zone show at some moment, and by how much they were set on and back shortly before.
struct Clock {
    shows: DateTime,
    set_on: SignedDuration,
    set_back: SignedDuration,
}

impl Clock {
    fn at(moment: Timestamp, zone: &TimeZone) -> Option<Clock> {
        let moment = jiff::Timestamp::from_millisecond(moment.0).ok()?;
        let since = moment.checked_sub(CLOCK_CHANGE_MAX).ok()?;
        let mut clock =
            Clock { shows: zone.to_datetime(moment), set_on: SignedDuration::ZERO, set_back: SignedDuration::ZERO };
        let changes = zone.preceding(moment.checked_add(SignedDuration::from_nanos(1)).ok()?);
        for change in changes.take_while(|change| change.timestamp() > since) {
            let before = zone.to_offset(change.timestamp().checked_sub(SignedDuration::from_secs(1)).ok()?);
            let by = SignedDuration::from_secs(i64::from(change.offset().seconds() - before.seconds()));
            clock.set_on = clock.set_on.max(by);
            clock.set_back = clock.set_back.max(-by);
        }
        Some(clock)
    }
}

/// The moment at which a time of the calendar comes. `None`: no clock shows it.
fn due_at(at: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(at).ok().map(|at| Timestamp(at.as_millisecond()))
}

/// The times of the calendar at which the rule is due, from one to another, in order.
fn times(cron: &Cron, from: DateTime, until: DateTime) -> impl DoubleEndedIterator<Item = DateTime> {
    let (first, days) = (from.date(), from.date().until(until.date()).map_or(0, |span| i64::from(span.get_days())));
    (0..=days)
        .filter_map(move |day| first.checked_add(day.days()).ok())
        .filter(move |day| day_matches(cron, *day))
        .flat_map(move |day| times_of_day(cron, day))
        .filter(move |at| (from..=until).contains(at))
}

fn day_matches(cron: &Cron, day: Date) -> bool {
    let (year, month, dom) = (i32::from(day.year()), day.month() as u32, day.day() as u32);
    let p = &cron.pattern;
    p.year_match(year).unwrap_or(false)
        && p.month_match(month).unwrap_or(false)
        && p.day_match(year, month, dom).unwrap_or(false)
}

fn times_of_day(cron: &Cron, day: Date) -> impl DoubleEndedIterator<Item = DateTime> {
    let hours = (0..24i8).filter(move |hour| cron.pattern.hour_match(*hour as u32).unwrap_or(false));
    let minutes = move || (0..60i8).filter(move |minute| cron.pattern.minute_match(*minute as u32).unwrap_or(false));
    hours.flat_map(move |hour| minutes().map(move |minute| day.at(hour, minute, 0, 0)))
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
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

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
    fn a_time_that_stands_later_may_be_due_sooner() {
        // Clocks go from 02:00 to 02:30 on 4 October 2026: 02:15 does not exist and is due at 02:45, behind 02:30.
        let (rule, zone) = ("15,30 2 * * *", "Australia/Lord_Howe");
        next(rule, zone, "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z");
        next(rule, zone, "2026-10-03T15:30:00Z", "2026-10-03T15:45:00Z");
        next(rule, zone, "2026-10-03T15:45:00Z", "2026-10-04T15:15:00Z");
        let (rule, zone) = (rule.parse::<Rule>().unwrap(), TimeZone::get(zone).unwrap());
        let last = |until: &str| rule.last_within(at("2026-10-01T00:00:00Z"), at(until), &zone);
        assert_eq!(last("2026-10-03T15:44:00Z"), Some(at("2026-10-03T15:30:00Z")));
        assert_eq!(last("2026-10-03T20:00:00Z"), Some(at("2026-10-03T15:45:00Z")));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in ["", "cron(0 3 * * *)", "rate(0 minutes)", "rate(5 years)", "cron(99 3 * * ? *)", "every day"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
        let never: Rule = "cron(0 0 31 2 ? *)".parse().unwrap();
        assert_eq!(never.next_after(Timestamp(0), &TimeZone::UTC), None);
    }

    #[test]
    fn the_newest_of_years_of_minutes_is_found_at_once() {
        let (zone, every_minute) = (TimeZone::get("Europe/Berlin").unwrap(), "* * * * *".parse::<Rule>().unwrap());
        let (last, now) = (at("2019-03-01T12:00:00Z"), at("2026-03-01T12:00:59.5Z"));
        assert_eq!(every_minute.last_within(last, now, &zone), Some(at("2026-03-01T12:00:00Z")));
        let leap_day: Rule = "0 0 29 2 *".parse().unwrap();
        assert_eq!(leap_day.last_within(last, now, &TimeZone::UTC), Some(at("2024-02-29T00:00:00Z")));
        assert_eq!(leap_day.last_within(at("2024-02-29T00:00:00Z"), now, &TimeZone::UTC), None);
    }

    /// Zones whose clocks are set by an hour, by half an hour, at midnight, and by a day.
    const ZONES: [(&str, &str); 7] = [
        ("UTC", "2026-03-01T00:00:00Z"),
        ("Europe/Berlin", "2026-01-01T00:00:00Z"),
        ("America/New_York", "2026-06-01T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-01-01T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-06-01T00:00:00Z"),
        ("America/Sao_Paulo", "2018-10-01T00:00:00Z"),
        ("Pacific/Apia", "2011-11-01T00:00:00Z"),
    ];

    /// A rule's text, and what it names: minutes, hours, days of the week.
    type Written = (String, Vec<i8>, Vec<i8>, Vec<i8>);

    fn written() -> impl Strategy<Value = Written> {
        let all = |most: i8| Just((0..most).collect::<Vec<_>>());
        let some = |below: i8, most: usize| subsequence((0..below).collect::<Vec<_>>(), 1..=most);
        let minutes = prop_oneof![all(60), select(vec![vec![0, 30], vec![15, 30], vec![0]]), some(60, 3)];
        let hours = prop_oneof![all(24), some(4, 3), some(24, 3)];
        // 0 is Sunday.
        let weekdays = prop_oneof![3 => all(7), 1 => some(7, 2)];
        (minutes, hours, weekdays).prop_map(|(minutes, hours, weekdays): (Vec<i8>, Vec<i8>, Vec<i8>)| {
            let list = |of: &[i8]| of.iter().map(i8::to_string).collect::<Vec<_>>().join(",");
            (format!("{} {} * * {}", list(&minutes), list(&hours), list(&weekdays)), minutes, hours, weekdays)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// The next and the last time are those that a walk over the whole calendar finds, however clocks are set.
        #[test]
        fn no_time_is_passed_over(
            (text, minutes, hours, weekdays) in written(),
            (zone, around) in select(ZONES.to_vec()),
            // Seconds from the change of the clocks, and from there on.
            begin in prop_oneof![-8_000..8_000i64, -100_000..100_000i64],
            length in prop_oneof![0..20_000i64, 0..200_000i64],
        ) {
            let (rule, zone): (Rule, _) = (text.parse().unwrap(), TimeZone::get(zone).unwrap());
            let around = around.parse::<jiff::Timestamp>().unwrap();
            let change = zone.following(around).next().map_or(around, |change| change.timestamp());
            let after = Timestamp(change.as_millisecond() + begin * 1_000);
            let until = after.plus_ms(length * 1_000);
            let mut due = std::collections::BTreeSet::new();
            let first = zone.to_datetime(change).date();
            for day in (-5..=15i64).map(|day| first.checked_add(day.days()).unwrap()) {
                if !weekdays.contains(&day.weekday().to_sunday_zero_offset()) {
                    continue;
                }
                for (hour, minute) in hours.iter().flat_map(|hour| minutes.iter().map(move |minute| (*hour, *minute))) {
                    let zoned = day.at(hour, minute, 0, 0).to_zoned(zone.clone()).unwrap();
                    due.insert(Timestamp(zoned.timestamp().as_millisecond()));
                }
            }
            let next = due.iter().find(|at| **at > after).copied();
            prop_assert_eq!(rule.next_after(after, &zone), next, "{} after {}", rule, after);
            let last = due.iter().rfind(|at| (after.0 + 1..=until.0).contains(&at.0)).copied();
            prop_assert_eq!(rule.last_within(after, until, &zone), last, "{} from {} to {}", rule, after, until);
        }

        #[test]
        fn rates_count_from_the_epoch(minutes in 1..200i64, after in -1_000_000..1_000_000i64, length in 0..90_000i64) {
            let rule: Rule = format!("rate({minutes} minutes)").parse().unwrap();
            let (after, until) = (Timestamp(after * 1_000), Timestamp((after + length) * 1_000));
            let next = |at: Timestamp| rule.next_after(at, &TimeZone::UTC).filter(|at| *at <= until);
            let walked = std::iter::successors(next(after), |at| next(*at)).last();
            prop_assert_eq!(rule.last_within(after, until, &TimeZone::UTC), walked);
        }
    }
}
