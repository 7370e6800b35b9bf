//! Functions of time. Moments are milliseconds since the epoch; "now" is what the setting says.

use std::fmt::Write;

use super::integers::{Case, DIGITS_MAX, Format, Primary};
use super::{Entry, Given};
use crate::evaluate::Eval;
use crate::fault::{Fault, Result, quoted};
use crate::value::Val;

pub(super) const TABLE: &[Entry] = &[
    ("now", "<s?s?:s>", 2, now),
    ("millis", "<:n>", 0, millis),
    ("toMillis", "<s-s?:n>", 2, to_millis),
    ("fromMillis", "<n-s?s?:s>", 3, from_millis),
];

const ISO: &str = "[Y0001]-[M01]-[D01]T[H01]:[m01]:[s01].[f001][Z01:01t]";
const DAY_MS: f64 = 86_400_000.0;
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn now<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let text = written(eval.setting.now_ms as f64, given.str(0), given.str(1))?;
    eval.text(text)
}

fn millis<'a>(eval: &mut Eval<'a>, _: Vec<Val<'a>>) -> Result<Val<'a>> {
    Ok(Val::Num(eval.setting.now_ms as f64))
}

fn from_millis<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(millis) = given.num(0) else { return Ok(Val::Undefined) };
    let text = written(millis, given.str(1), given.str(2))?;
    eval.text(text)
}

fn to_millis<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(text) = given.str(0) else { return Ok(Val::Undefined) };
    match given.str(1) {
        Some(picture) => {
            let parts = read_picture(picture)?;
            Ok(parsed(&parts, text, eval.setting.now_ms as f64)?.map_or(Val::Undefined, Val::Num))
        }
        None => match iso(text) {
            Some(millis) => Ok(Val::Num(millis)),
            None => {
                let text = quoted(text);
                let message = format!(
                    "The argument of the toMillis function must be an ISO 8601 formatted timestamp. Given {text}"
                );
                Err(Fault::new("D3110", 0, message))
            }
        },
    }
}

/// A date with or without a time of day.
struct Moment {
    millis: f64,
    year: f64,
    month: u32,
    day: u32,
}

/// Days since the epoch of a date in the proleptic Gregorian calendar; `month` may be outside 1 to 12.
fn days_of(year: f64, month: f64, day: f64) -> f64 {
    let year = year + ((month - 1.0) / 12.0).floor();
    let month = (month - 1.0).rem_euclid(12.0) + 1.0;
    let shifted = if month <= 2.0 { year - 1.0 } else { year };
    let era = (shifted / 400.0).floor();
    let of_era = shifted - era * 400.0;
    let of_year = ((153.0 * (month + if month > 2.0 { -3.0 } else { 9.0 }) + 2.0) / 5.0).floor() + day - 1.0;
    era * 146_097.0 + of_era * 365.0 + (of_era / 4.0).floor() - (of_era / 100.0).floor() + of_year - 719_468.0
}

impl Moment {
    fn of(millis: f64) -> Moment {
        let z = (millis / DAY_MS).floor() + 719_468.0;
        let era = (z / 146_097.0).floor();
        let doe = z - era * 146_097.0;
        let yoe =
            ((doe - (doe / 1460.0).floor() + (doe / 36_524.0).floor() - (doe / 146_096.0).floor()) / 365.0).floor();
        let doy = doe - (365.0 * yoe + (yoe / 4.0).floor() - (yoe / 100.0).floor());
        let mp = ((5.0 * doy + 2.0) / 153.0).floor();
        let day = doy - ((153.0 * mp + 2.0) / 5.0).floor() + 1.0;
        let month = if mp < 10.0 { mp + 3.0 } else { mp - 9.0 };
        let year = yoe + era * 400.0 + if month <= 2.0 { 1.0 } else { 0.0 };
        Moment { millis, year, month: month as u32, day: day as u32 }
    }

    fn days(&self) -> f64 {
        (self.millis / DAY_MS).floor()
    }

    /// 1 for Monday.
    fn weekday(days: f64) -> f64 {
        (days + 3.0).rem_euclid(7.0) + 1.0
    }

    /// A part of the date or of the time of day. `P` is 1 in the afternoon.
    fn component(&self, component: char) -> f64 {
        let of_day = self.millis.rem_euclid(DAY_MS);
        let (year, month) = (self.year, f64::from(self.month));
        match component {
            'Y' => year,
            'M' => month,
            'D' => f64::from(self.day),
            'd' => self.days() - days_of(year, 1.0, 1.0) + 1.0,
            'F' => Moment::weekday(self.days()),
            'W' => self.week(year, 1.0, 12.0),
            'w' => self.week(year, month, 1.0),
            'X' => year + self.week_shift(year, 1.0, 12.0),
            'x' => (month - 1.0 + self.week_shift(year, month, 1.0)).rem_euclid(12.0) + 1.0,
            'H' => (of_day / 3_600_000.0).floor(),
            'h' => ((of_day / 3_600_000.0).floor() + 11.0) % 12.0 + 1.0,
            'P' => f64::from(u8::from(of_day >= DAY_MS / 2.0)),
            'm' => (of_day / 60_000.0).floor() % 60.0,
            's' => (of_day / 1000.0).floor() % 60.0,
            _ => of_day.floor() % 1000.0,
        }
    }

    /// The first day of a month's, or year's, first week: the one that holds its first Thursday.
    fn first_week(year: f64, month: f64) -> f64 {
        let first = days_of(year, month, 1.0);
        let weekday = Moment::weekday(first);
        if weekday > 4.0 { first + 8.0 - weekday } else { first - (weekday - 1.0) }
    }

    fn week_shift(&self, year: f64, month: f64, span: f64) -> f64 {
        if self.days() < Moment::first_week(year, month) {
            -1.0
        } else if self.days() >= Moment::first_week(year, month + span) {
            1.0
        } else {
            0.0
        }
    }

    fn week(&self, year: f64, month: f64, span: f64) -> f64 {
        let start = Moment::first_week(year, month + span * self.week_shift(year, month, span));
        ((self.days() - start) / 7.0).floor() + 1.0
    }
}

/// A piece of a picture.
enum Part {
    Literal(String),
    Marker(Marker),
}

struct Marker {
    component: char,
    names: Option<Case>,
    /// `t` behind a time zone: Z for none.
    zulu: bool,
    width_max: Option<usize>,
    has_width: bool,
    format: Option<Format>,
    /// How many digits of a year, month or day.
    digits: Option<usize>,
}

fn read_picture(picture: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = picture;
    while let Some(at) = rest.find('[') {
        literal(&rest[..at], &mut parts);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('[') {
            parts.push(Part::Literal(String::from("[")));
            rest = after;
            continue;
        }
        let Some(end) = rest.find(']') else {
            return Err(Fault::new("D3135", 0, "No matching closing bracket ']' in date/time picture string"));
        };
        let marker: String = rest[..end].chars().filter(|c| !c.is_whitespace()).collect();
        parts.push(Part::Marker(Marker::read(&marker)?));
        rest = &rest[end + 1..];
    }
    literal(rest, &mut parts);
    Ok(parts)
}

fn literal(text: &str, parts: &mut Vec<Part>) {
    if !text.is_empty() {
        parts.push(Part::Literal(text.replace("]]", "]")));
    }
}

impl Marker {
    fn read(marker: &str) -> Result<Marker> {
        let mut chars = marker.chars();
        let component = chars.next().unwrap_or(' ');
        let (presentation, width) = match chars.as_str().rsplit_once(',') {
            Some((presentation, width)) => (presentation, Some(width)),
            None => (chars.as_str(), None),
        };
        let number = |text: &str| text.parse::<usize>().ok().map(|number| number.min(DIGITS_MAX));
        let (least, most) = match width.map(|width| width.split_once('-').map_or((width, None), |(a, b)| (a, Some(b))))
        {
            Some((least, most)) => (number(least), most.and_then(number)),
            None => (None, None),
        };
        let default = match component {
            'Y' | 'M' | 'D' | 'd' | 'W' | 'w' | 'X' | 'x' | 'H' | 'h' | 'f' => "1",
            'F' | 'P' | 'C' | 'E' => "n",
            'm' | 's' => "01",
            'Z' | 'z' => "01:01",
            _ => "",
        };
        let mut modifier = None;
        let mut first = if presentation.is_empty() { default } else { presentation };
        if presentation.chars().count() > 1
            && let Some(last) = presentation.chars().last().filter(|last| "atco".contains(*last))
        {
            modifier = Some(last);
            first = &presentation[..presentation.len() - 1];
        }
        if first.is_empty() {
            let shown = quoted(&marker.chars().take(1).collect::<String>());
            let message = format!("Unknown component specifier {shown} in date/time picture string");
            return Err(Fault::new("D3132", 0, message));
        }
        let mut made = Marker {
            component,
            names: None,
            zulu: modifier == Some('t'),
            width_max: most,
            has_width: width.is_some(),
            format: None,
            digits: None,
        };
        if let Some(upper) = first.strip_prefix('N') {
            made.names = Some(if upper.starts_with('n') { Case::Title } else { Case::Upper });
        } else if first.starts_with('n') {
            made.names = Some(Case::Lower);
        } else if "YMDdFWwXxHhmsf".contains(component) {
            let picture = modifier.map_or_else(|| first.to_owned(), |modifier| format!("{first};{modifier}"));
            let mut format = Format::read(&picture)?;
            format.mandatory = format.mandatory.max(least.unwrap_or(0));
            if "YMD".contains(component) {
                if let Some(most) = most {
                    format.mandatory = most;
                    made.digits = Some(most);
                } else if format.mandatory + format.optional >= 2 {
                    made.digits = Some(format.mandatory + format.optional);
                }
            }
            made.format = Some(format);
        }
        if matches!(component, 'Z' | 'z') {
            made.format = Some(Format::read(first)?);
        }
        Ok(made)
    }

    fn no_name(&self) -> Box<Fault> {
        let shown = quoted(&self.component.to_string());
        let message = format!(
            "The 'name' modifier can only be applied to months and days in the date/time picture string, not {shown}"
        );
        Fault::new("D3133", 0, message)
    }

    fn write(&self, moment: &Moment, offset: (f64, f64)) -> Result<String> {
        match self.component {
            'Z' | 'z' => self.zone(offset),
            'P' => {
                let text = if moment.component('P') > 0.0 { "pm" } else { "am" };
                Ok(if self.names == Some(Case::Upper) { text.to_uppercase() } else { text.to_owned() })
            }
            'C' | 'E' => Ok(String::from("ISO")),
            _ => {
                let mut value = moment.component(self.component);
                if let Some(case) = self.names {
                    return self.name(value, case);
                }
                if let (Some(digits), 'Y') = (self.digits, self.component) {
                    value %= 10_f64.powi(digits.min(300) as i32);
                }
                self.format.as_ref().map_or_else(|| Err(self.no_name()), |format| format.write(value))
            }
        }
    }

    fn name(&self, value: f64, case: Case) -> Result<String> {
        let at = (value as usize).saturating_sub(1);
        let name = match self.component {
            'M' | 'x' => MONTHS.get(at),
            'F' => DAYS.get(at),
            _ => None,
        };
        let name = name.ok_or_else(|| self.no_name())?;
        let name = match case {
            Case::Upper => name.to_uppercase(),
            Case::Lower => name.to_lowercase(),
            Case::Title => (*name).to_owned(),
        };
        Ok(match self.width_max.filter(|_| self.has_width) {
            Some(most) => name.chars().take(most).collect(),
            None => name,
        })
    }

    fn zone(&self, (hours, minutes): (f64, f64)) -> Result<String> {
        let Some(format) = &self.format else { return Ok(String::new()) };
        let offset = hours * 100.0 + minutes;
        if offset == 0.0 && self.zulu {
            return Ok(String::from("Z"));
        }
        let digits = match (format.regular, format.mandatory) {
            (Some(_), _) | (None, 3 | 4) => format.write(offset)?,
            (None, 1 | 2) => {
                let mut text = format.write(hours)?;
                if minutes != 0.0 {
                    let _ = write!(text, ":{minutes:02}");
                }
                text
            }
            _ => {
                let message = "The timezone integer format specifier cannot have more than four digits";
                return Err(Fault::new("D3134", 0, message));
            }
        };
        let sign = if offset >= 0.0 { "+" } else { "" };
        Ok(format!("{}{sign}{digits}", if self.component == 'z' { "GMT" } else { "" }))
    }
}

fn written(millis: f64, picture: Option<&str>, zone: Option<&str>) -> Result<String> {
    /// What JavaScript's dates reach.
    const MILLIS_MAX: f64 = 8.64e15;
    let zone = zone.map_or(0.0, |zone| leading_integer(zone).unwrap_or(0.0));
    let offset = ((zone / 100.0).floor(), zone % 100.0);
    let local = millis.floor() + (60.0 * offset.0 + offset.1) * 60_000.0;
    if local.is_nan() || local.abs() > MILLIS_MAX {
        return Err(Fault::new("", 0, "Invalid time value"));
    }
    let moment = Moment::of(local);
    let mut text = String::new();
    for part in read_picture(picture.unwrap_or(ISO))? {
        match part {
            Part::Literal(literal) => text.push_str(&literal),
            Part::Marker(marker) => text.push_str(&marker.write(&moment, offset)?),
        }
    }
    Ok(text)
}

/// As `parseInt`: the number that a text begins with.
fn leading_integer(text: &str) -> Option<f64> {
    let text = text.trim_start();
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let number: f64 = unsigned[..digits].parse().ok()?;
    Some(if text.starts_with('-') { -number } else { number })
}

/// A timestamp without a picture: a year, or more of `2017-11-07T15:07:54.972Z`.
fn iso(text: &str) -> Option<f64> {
    let digits = |from: usize, count: usize| -> Option<f64> {
        let part = text.get(from..from + count)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let year = digits(0, 4)?;
    let mut at = 4;
    let (mut month, mut day) = (1.0, 1.0);
    for slot in [&mut month, &mut day] {
        if text[at..].starts_with('-') && text[at..].len() >= 3 {
            *slot = digits(at + 1, 2)?;
            at += 3;
        }
    }
    let mut millis = days_of(year, month, day) * DAY_MS;
    if !(1.0..=12.0).contains(&month) || !(1.0..=31.0).contains(&day) {
        return None;
    }
    if text[at..].starts_with('T') {
        let (hours, minutes, seconds) = (digits(at + 1, 2)?, digits(at + 4, 2)?, digits(at + 7, 2)?);
        let colons = [at + 3, at + 6].iter().all(|colon| text.as_bytes().get(*colon) == Some(&b':'));
        if !colons || hours > 24.0 || minutes > 59.0 || seconds > 59.0 {
            return None;
        }
        millis += ((hours * 60.0 + minutes) * 60.0 + seconds) * 1000.0;
        at += 9;
    }
    if text[at..].starts_with('.') {
        let length = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let fraction: f64 = format!("0.{}", &text[at + 1..at + 1 + length]).parse().ok().filter(|_| length > 0)?;
        millis += (fraction * 1000.0).floor();
        at += 1 + length;
    }
    let zone = &text[at..];
    if zone.is_empty() || zone == "Z" {
        return Some(millis);
    }
    let sign = if zone.starts_with('-') { -1.0 } else { 1.0 };
    let offset: String = zone.get(1..)?.chars().filter(|c| *c != ':').collect();
    let valid = zone.starts_with(['+', '-']) && offset.len() == 4 && offset.bytes().all(|b| b.is_ascii_digit());
    if !valid {
        return None;
    }
    let (hours, minutes): (f64, f64) = (offset[..2].parse().ok()?, offset[2..].parse().ok()?);
    Some(millis - sign * (hours * 60.0 + minutes) * 60_000.0)
}

/// What a picture's components are in a text; `None` where the text is not like the picture.
fn parsed(parts: &[Part], text: &str, now: f64) -> Result<Option<f64>> {
    let mut pattern = String::from("(?i)^");
    for part in parts {
        match part {
            Part::Literal(literal) => pattern.push_str(&format!("({})", regex::escape(literal))),
            Part::Marker(marker) => pattern.push_str(&format!("({})", marker.pattern()?)),
        }
    }
    pattern.push('$');
    let regex = regex::RegexBuilder::new(&pattern).size_limit(1 << 20).build().map_err(|_| Fault::timeout())?;
    let Some(found) = regex.captures(text) else { return Ok(None) };
    let mut components: Vec<(char, f64)> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        if let (Part::Marker(marker), Some(piece)) = (part, found.get(at + 1))
            && let Some(value) = marker.parse(piece.as_str())
        {
            components.retain(|(known, _)| *known != marker.component);
            components.push((marker.component, value));
        }
    }
    if components.is_empty() {
        return Ok(None);
    }
    composed(components, now).map(Some)
}

/// The moment that some components of a date and time make, the rest taken from now or from the beginning.
fn composed(mut components: Vec<(char, f64)>, now: f64) -> Result<f64> {
    let missing =
        || Fault::new("D3136", 0, "The date/time picture string is missing specifiers required to parse the timestamp");
    let given = components.clone();
    // As the reference: a component that is 0 counts as not given here.
    let has = |component: char| given.iter().any(|(known, value)| *known == component && *value != 0.0);
    let by_month = fits(&has, "YXMxWwdD", 0b1010_0001);
    let by_day = !by_month && fits(&has, "YXMxWwdD", 0b1000_0010);
    let by_month_week = fits(&has, "YXMxWwdD", 0b0101_0100);
    let by_week = !by_month_week && fits(&has, "YXMxWwdD", 0b0100_1000);
    let clock_24 = fits(&has, "PHhmsf", 0b01_0111);
    let clock_12 = !clock_24 && fits(&has, "PHhmsf", 0b10_1111);
    let date = match (by_day, by_month_week, by_week) {
        (true, ..) => "YD",
        (_, true, _) => "XxwF",
        (.., true) => "XWF",
        _ => "YMD",
    };
    let order = format!("{date}{}", if clock_12 { "Phmsf" } else { "Hmsf" });
    let (mut started, mut ended) = (false, false);
    let today = Moment::of(now);
    for component in order.chars() {
        if components.iter().any(|(known, _)| *known == component) {
            started = true;
            if ended {
                return Err(missing());
            }
        } else if started {
            components.push((component, if "MDd".contains(component) { 1.0 } else { 0.0 }));
            ended = true;
        } else {
            components.push((component, today.component(component)));
        }
    }
    if by_month_week || by_week {
        return Err(missing());
    }
    let get =
        |component: char| components.iter().find(|(known, _)| *known == component).map_or(0.0, |(_, value)| *value);
    let days = match by_day {
        true => days_of(get('Y'), 1.0, 1.0) + get('d') - 1.0,
        false => days_of(get('Y'), get('M').max(1.0), get('D')),
    };
    let hours = match clock_12 {
        true => (if get('h') == 12.0 { 0.0 } else { get('h') }) + if get('P') == 1.0 { 12.0 } else { 0.0 },
        false => get('H'),
    };
    let zone = if get('Z') != 0.0 { get('Z') } else { get('z') };
    Ok(days * DAY_MS + ((hours * 60.0 + get('m') - zone) * 60.0 + get('s')) * 1000.0 + get('f'))
}

/// Whether of these components only those of the mask are given, and at least one.
fn fits(has: &dyn Fn(char) -> bool, components: &str, mask: u32) -> bool {
    let given = components.chars().fold(0, |bits, component| bits << 1 | u32::from(has(component)));
    given & !mask == 0 && given & mask != 0
}

impl Marker {
    /// A regular expression for what this marker writes.
    fn pattern(&self) -> Result<String> {
        let Some(format) = &self.format else {
            return match self.component {
                'M' | 'x' | 'F' | 'P' => Ok(String::from("[a-zA-Z]+")),
                _ => Err(self.no_name()),
            };
        };
        if matches!(self.component, 'Z' | 'z') {
            let head = if self.component == 'z' { "GMT" } else { "" };
            let tail = format.regular.map(|(_, separator)| format!("{}[0-9]+", regex::escape(&separator.to_string())));
            return Ok(format!("{head}[-+][0-9]+{}", tail.unwrap_or_default()));
        }
        Ok(match (format.primary, format.case) {
            (Primary::Letters, Case::Upper) => String::from("[A-Z]+"),
            (Primary::Letters, _) => String::from("[a-z]+"),
            (Primary::Roman, _) => String::from("[MDCLXVI]+"),
            (Primary::Words, _) => String::from("[a-z, -]+"),
            (Primary::Decimal, _) => {
                let times = match self.digits {
                    Some(most) if format.optional == 0 => format!("{{{most}}}"),
                    Some(most) => format!("{{{},{most}}}", most.saturating_sub(format.optional)),
                    None => String::from("+"),
                };
                format!("[0-9]{times}{}", if format.ordinal { "(?:th|st|nd|rd)" } else { "" })
            }
        })
    }

    fn parse(&self, text: &str) -> Option<f64> {
        if matches!(self.component, 'Z' | 'z') {
            return self.parse_zone(text.strip_prefix("GMT").unwrap_or(text));
        }
        if let Some(format) = &self.format {
            return format.parse(text);
        }
        let cut = |name: &str| name.chars().take(self.width_max.unwrap_or(usize::MAX)).collect::<String>();
        let at = |names: &[&str]| names.iter().position(|name| cut(name) == text).map(|at| at as f64 + 1.0);
        match self.component {
            'M' | 'x' => at(&MONTHS),
            'F' => at(&DAYS),
            'P' => match text {
                "am" | "AM" => Some(0.0),
                "pm" | "PM" => Some(1.0),
                _ => None,
            },
            _ => None,
        }
    }

    fn parse_zone(&self, text: &str) -> Option<f64> {
        let separator = self.format.as_ref().and_then(|format| format.regular).map(|(_, separator)| separator);
        let (hours, minutes) = match separator {
            Some(separator) => text.split_once(separator)?,
            None if text.len() > 3 => (text.get(..3)?, text.get(3..)?),
            None => (text, "0"),
        };
        Some(leading_integer(hours)? * 60.0 + leading_integer(minutes)?)
    }
}
