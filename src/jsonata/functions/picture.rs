//! `$formatNumber`: numbers by an XPath picture (`#,##0.00`, `0.0e0`, `#0%` ...).

use super::numbers::rounded;
use super::{Given, integers};
use crate::evaluate::Eval;
use crate::fault::{Fault, Result};
use crate::value::{Obj, Val};

/// Longest picture; every character of it may become a digit.
const PICTURE_CHARS_MAX: usize = 300;

/// The characters that mean something in a picture.
struct Symbols {
    decimal: char,
    grouping: char,
    exponent: char,
    minus: String,
    percent: char,
    per_mille: char,
    zero: char,
    digit: char,
    pattern: char,
}

/// One of the pictures between semicolons, taken apart.
struct Part {
    picture: Vec<char>,
    prefix: String,
    suffix: String,
    active: Vec<char>,
    mantissa: Vec<char>,
    exponent: Option<Vec<char>>,
    integer: Vec<char>,
    fraction: Vec<char>,
}

/// What a part says about numbers.
struct Rules {
    groups: Vec<usize>,
    regular: usize,
    integer_min: usize,
    scale: usize,
    fraction_groups: Vec<usize>,
    fraction_min: usize,
    fraction_max: usize,
    exponent_min: usize,
}

pub(super) fn format_number<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(number) = given.num(0) else { return Ok(Val::Undefined) };
    let symbols = match given.get(2) {
        Val::Obj(options) => Symbols::with(&options),
        _ => Symbols::with(&Obj::default()),
    };
    let picture = given.str(1).unwrap_or_default();
    if picture.chars().count() > PICTURE_CHARS_MAX {
        return Err(Fault::timeout());
    }
    let pictures: Vec<&str> = picture.split(symbols.pattern).collect();
    if pictures.len() > 2 {
        let message = "The picture string must only contain a maximum of two sub-pictures";
        return Err(Fault::new("D3080", 0, message));
    }
    let parts: Vec<Part> = pictures.into_iter().map(|picture| Part::read(picture, &symbols)).collect();
    for part in &parts {
        part.validate(&symbols)?;
    }
    let text = match (number >= 0.0, parts.as_slice()) {
        (true, [part, ..]) | (false, [_, part]) => part.format(number, "", &symbols),
        (false, [part]) => part.format(number, &symbols.minus, &symbols),
        _ => String::new(),
    };
    eval.text(text)
}

impl Symbols {
    fn with(options: &Obj) -> Symbols {
        let text = |name: &str| options.get(name).and_then(Val::as_str).filter(|text| !text.is_empty());
        let symbol = |name: &str, default: char| text(name).and_then(|text| text.chars().next()).unwrap_or(default);
        Symbols {
            decimal: symbol("decimal-separator", '.'),
            grouping: symbol("grouping-separator", ','),
            exponent: symbol("exponent-separator", 'e'),
            minus: text("minus-sign").unwrap_or("-").to_owned(),
            percent: symbol("percent", '%'),
            per_mille: symbol("per-mille", '\u{2030}'),
            zero: symbol("zero-digit", '0'),
            digit: symbol("digit", '#'),
            pattern: symbol("pattern-separator", ';'),
        }
    }

    fn is_decimal_digit(&self, c: char) -> bool {
        (u32::from(self.zero)..u32::from(self.zero).saturating_add(10)).contains(&u32::from(c))
    }

    fn is_digit(&self, c: char) -> bool {
        c == self.digit || self.is_decimal_digit(c)
    }

    fn is_active(&self, c: char) -> bool {
        self.is_digit(c) || [self.decimal, self.exponent, self.grouping, self.pattern].contains(&c)
    }
}

fn position(text: &[char], wanted: char) -> Option<usize> {
    text.iter().position(|c| *c == wanted)
}

impl Part {
    fn read(picture: &str, symbols: &Symbols) -> Part {
        let picture: Vec<char> = picture.chars().collect();
        let bounds = |c: &char| symbols.is_active(*c) && *c != symbols.exponent;
        let start = picture.iter().position(bounds).unwrap_or(picture.len());
        let end = picture.iter().rposition(bounds).map_or(start, |at| at + 1);
        let active = picture[start..end].to_vec();
        let (mantissa, exponent) = match position(&active, symbols.exponent) {
            Some(at) => (active[..at].to_vec(), Some(active[at + 1..].to_vec())),
            None => (active.clone(), None),
        };
        let suffix: Vec<char> = picture[end..].to_vec();
        let (integer, fraction) = match position(&mantissa, symbols.decimal) {
            Some(at) => (mantissa[..at].to_vec(), mantissa[at + 1..].to_vec()),
            None => (mantissa.clone(), suffix.clone()),
        };
        let prefix = picture[..start].iter().collect();
        Part { prefix, suffix: suffix.iter().collect(), active, mantissa, exponent, integer, fraction, picture }
    }

    /// As the reference checks: the last rule that is broken is the one that is told.
    fn validate(&self, symbols: &Symbols) -> Result<()> {
        let count = |wanted: char| self.picture.iter().filter(|c| **c == wanted).count();
        let (percents, per_milles) = (count(symbols.percent), count(symbols.per_mille));
        let decimal = position(&self.picture, symbols.decimal);
        let at = |place: Option<usize>| place.and_then(|place| self.picture.get(place)).copied();
        let beside = |place: usize| [at(place.checked_sub(1)), at(Some(place + 1))].contains(&Some(symbols.grouping));
        let decimal_digits = |part: &[char]| part.iter().any(|c| symbols.is_decimal_digit(*c));
        let doubled = self.picture.windows(2).any(|pair| pair == [symbols.grouping, symbols.grouping]);
        let mandatory_first =
            position(&self.integer, symbols.digit).is_some_and(|at| decimal_digits(&self.integer[..at]));
        let optional_first = self.fraction.iter().rposition(|c| *c == symbols.digit);
        let exponent = self.exponent.as_deref();
        let rules: [(bool, &'static str, &str); 13] = [
            (
                count(symbols.decimal) > 1,
                "D3081",
                "The sub-picture must not contain more than one instance of the 'decimal-separator' character",
            ),
            (
                percents > 1,
                "D3082",
                "The sub-picture must not contain more than one instance of the 'percent' character",
            ),
            (
                per_milles > 1,
                "D3083",
                "The sub-picture must not contain more than one instance of the 'per-mille' character",
            ),
            (
                percents > 0 && per_milles > 0,
                "D3084",
                "The sub-picture must not contain both a 'percent' and a 'per-mille' character",
            ),
            (
                !self.mantissa.iter().any(|c| symbols.is_digit(*c)),
                "D3085",
                "The mantissa part of a sub-picture must contain at least one character that is either an 'optional digit character' or a member of the 'decimal digit family'",
            ),
            (
                self.active.iter().any(|c| !symbols.is_active(*c)),
                "D3086",
                "The sub-picture must not contain a passive character that is preceded by an active character and that is followed by another active character",
            ),
            (
                decimal.is_some_and(beside),
                "D3087",
                "The sub-picture must not contain a 'grouping-separator' character that appears adjacent to a 'decimal-separator' character",
            ),
            (
                decimal.is_none() && self.integer.last() == Some(&symbols.grouping),
                "D3088",
                "The sub-picture must not contain a 'grouping-separator' at the end of the integer part",
            ),
            (
                doubled,
                "D3089",
                "The sub-picture must not contain two adjacent instances of the 'grouping-separator' character",
            ),
            (
                mandatory_first,
                "D3090",
                "The integer part of the sub-picture must not contain a member of the 'decimal digit family' that is followed by an instance of the 'optional digit character'",
            ),
            (
                optional_first.is_some_and(|at| decimal_digits(&self.fraction[at..])),
                "D3091",
                "The fractional part of the sub-picture must not contain an instance of the 'optional digit character' that is followed by a member of the 'decimal digit family'",
            ),
            (
                exponent.is_some_and(|e| !e.is_empty()) && percents + per_milles > 0,
                "D3092",
                "A sub-picture that contains a 'percent' or 'per-mille' character must not contain a character treated as an 'exponent-separator'",
            ),
            (
                exponent.is_some_and(|e| e.is_empty() || e.iter().any(|c| !symbols.is_decimal_digit(*c))),
                "D3093",
                "The exponent part of the sub-picture must comprise only of one or more characters that are members of the 'decimal digit family'",
            ),
        ];
        match rules.iter().rev().find(|(broken, ..)| *broken) {
            Some((_, code, message)) => Err(Fault::new(code, 0, *message)),
            None => Ok(()),
        }
    }

    fn rules(&self, symbols: &Symbols) -> Rules {
        let digits = |part: &[char]| part.iter().filter(|c| symbols.is_digit(**c)).count();
        let decimal_digits = |part: &[char]| part.iter().filter(|c| symbols.is_decimal_digit(**c)).count();
        let separators = |part: &[char]| -> Vec<usize> {
            part.iter().enumerate().filter(|(_, c)| **c == symbols.grouping).map(|(at, _)| at).collect()
        };
        let groups: Vec<usize> = separators(&self.integer).into_iter().map(|at| digits(&self.integer[at..])).collect();
        let fraction_groups = separators(&self.fraction).into_iter().map(|at| digits(&self.fraction[..at])).collect();
        let every = groups.iter().copied().reduce(integers::gcd).unwrap_or(0);
        let complete = (1..=groups.len()).all(|n| groups.contains(&(n * every)));
        let mut integer_min = decimal_digits(&self.integer);
        let scale = integer_min;
        let (mut fraction_min, mut fraction_max) = (decimal_digits(&self.fraction), digits(&self.fraction));
        if integer_min == 0 && fraction_max == 0 {
            match self.exponent {
                Some(_) => (fraction_min, fraction_max) = (1, 1),
                None => integer_min = 1,
            }
        }
        if self.exponent.is_some() && integer_min == 0 && self.integer.contains(&symbols.digit) {
            integer_min = 1;
        }
        if integer_min == 0 && fraction_min == 0 {
            fraction_min = 1;
        }
        let exponent_min = self.exponent.as_deref().map_or(0, decimal_digits);
        let regular = if complete { every } else { 0 };
        Rules { groups, regular, integer_min, scale, fraction_groups, fraction_min, fraction_max, exponent_min }
    }

    fn format(&self, number: f64, sign: &str, symbols: &Symbols) -> String {
        let rules = self.rules(symbols);
        let adjusted = if self.picture.contains(&symbols.percent) {
            number * 100.0
        } else if self.picture.contains(&symbols.per_mille) {
            number * 1000.0
        } else {
            number
        };
        let (mut mantissa, mut exponent): (f64, Option<i32>) = (adjusted, None);
        if rules.exponent_min > 0 {
            let (most, least) = (10_f64.powi(rules.scale as i32), 10_f64.powi(rules.scale as i32 - 1));
            let mut shift = 0;
            // A number has no more than some hundred decimal places on either side.
            while mantissa < least && shift > -700 {
                mantissa *= 10.0;
                shift -= 1;
            }
            while mantissa > most && shift < 700 {
                mantissa /= 10.0;
                shift += 1;
            }
            exponent = Some(shift);
        }
        let value = rounded(mantissa, rules.fraction_max as i32).abs();
        let text = format!("{value:.*}", rules.fraction_max);
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let localised = |text: &str| -> Vec<char> { text.chars().map(|c| local_digit(c, symbols.zero)).collect() };
        let whole = localised(whole.trim_start_matches('0'));
        let fraction = localised(fraction.trim_end_matches('0'));
        let whole = grouped_left(padded(whole, rules.integer_min, symbols.zero), &rules, symbols.grouping);
        let mut fraction: Vec<char> = fraction;
        let missing = rules.fraction_min.saturating_sub(fraction.len());
        fraction.extend(std::iter::repeat_n(symbols.zero, missing));
        for place in &rules.fraction_groups {
            if *place < fraction.len() {
                fraction.insert(*place, symbols.grouping);
            }
        }
        let mut made = format!("{sign}{}", self.prefix);
        made.extend(whole);
        if self.picture.contains(&symbols.decimal) && !fraction.is_empty() {
            made.push(symbols.decimal);
            made.extend(fraction);
        }
        if let Some(exponent) = exponent {
            made.push(symbols.exponent);
            if exponent < 0 {
                made.push_str(&symbols.minus);
            }
            made.extend(padded(localised(&exponent.abs().to_string()), rules.exponent_min, symbols.zero));
        }
        made.push_str(&self.suffix);
        made
    }
}

fn local_digit(c: char, zero: char) -> char {
    match c.to_digit(10) {
        Some(digit) => char::from_u32(u32::from(zero) + digit).unwrap_or(c),
        None => c,
    }
}

fn padded(digits: Vec<char>, least: usize, zero: char) -> Vec<char> {
    let missing = least.saturating_sub(digits.len());
    std::iter::repeat_n(zero, missing).chain(digits).collect()
}

fn grouped_left(digits: Vec<char>, rules: &Rules, separator: char) -> Vec<char> {
    let length = digits.len();
    let is_place = |from_right: usize| match rules.regular {
        0 => rules.groups.contains(&from_right),
        every => from_right.is_multiple_of(every),
    };
    let mut made = Vec::with_capacity(length * 2);
    for (at, digit) in digits.into_iter().enumerate() {
        if at > 0 && is_place(length - at) {
            made.push(separator);
        }
        made.push(digit);
    }
    made
}
