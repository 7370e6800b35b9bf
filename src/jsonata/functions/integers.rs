//! `$formatInteger` and `$parseInteger`: whole numbers by an XPath picture (`#,##0`, `w`, `I`, `A`, `1;o` ...).

use super::Given;
use crate::evaluate::Eval;
use crate::fault::{Fault, Result, quoted};
use crate::value::{Val, number_text};

/// A picture that was read.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pub primary: Primary,
    pub case: Case,
    pub ordinal: bool,
    pub mandatory: usize,
    pub optional: usize,
    /// The digit zero of the picture's digits.
    zero: u32,
    /// Every so many digits, this; or each place by itself.
    pub regular: Option<(usize, char)>,
    separators: Vec<(usize, char)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Primary {
    Decimal,
    Letters,
    Roman,
    Words,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Upper,
    Lower,
    Title,
}

const FEW: [&str; 20] = [
    "Zero",
    "One",
    "Two",
    "Three",
    "Four",
    "Five",
    "Six",
    "Seven",
    "Eight",
    "Nine",
    "Ten",
    "Eleven",
    "Twelve",
    "Thirteen",
    "Fourteen",
    "Fifteen",
    "Sixteen",
    "Seventeen",
    "Eighteen",
    "Nineteen",
];
const ORDINALS: [&str; 20] = [
    "Zeroth",
    "First",
    "Second",
    "Third",
    "Fourth",
    "Fifth",
    "Sixth",
    "Seventh",
    "Eighth",
    "Ninth",
    "Tenth",
    "Eleventh",
    "Twelfth",
    "Thirteenth",
    "Fourteenth",
    "Fifteenth",
    "Sixteenth",
    "Seventeenth",
    "Eighteenth",
    "Nineteenth",
];
const TENS: [&str; 8] = ["Twenty", "Thirty", "Forty", "Fifty", "Sixty", "Seventy", "Eighty", "Ninety"];
const MAGNITUDES: [&str; 4] = ["Thousand", "Million", "Billion", "Trillion"];
const ROMAN: [(u32, &str); 13] = [
    (1000, "m"),
    (900, "cm"),
    (500, "d"),
    (400, "cd"),
    (100, "c"),
    (90, "xc"),
    (50, "l"),
    (40, "xl"),
    (10, "x"),
    (9, "ix"),
    (5, "v"),
    (4, "iv"),
    (1, "i"),
];
/// The zeros of the scripts whose digits a picture may use.
const ZEROS: [u32; 37] = [
    0x30, 0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66, 0x0DE6,
    0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40,
    0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
];
/// Most digits that a picture or a width may ask for.
pub(super) const DIGITS_MAX: usize = 1_000;

pub(super) fn format_integer<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(number) = given.num(0) else { return Ok(Val::Undefined) };
    let format = Format::read(given.str(1).unwrap_or_default())?;
    let text = format.write(number.floor())?;
    eval.text(text)
}

pub(super) fn parse_integer<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(text) = given.str(0) else { return Ok(Val::Undefined) };
    let format = Format::read(given.str(1).unwrap_or_default())?;
    Ok(format.parse(text).map_or(Val::Undefined, Val::Num))
}

impl Format {
    pub(super) fn read(picture: &str) -> Result<Format> {
        let (primary, modifier) = picture.rsplit_once(';').unwrap_or((picture, ""));
        let named = match primary {
            "A" => Some((Primary::Letters, Case::Upper)),
            "a" => Some((Primary::Letters, Case::Lower)),
            "I" => Some((Primary::Roman, Case::Upper)),
            "i" => Some((Primary::Roman, Case::Lower)),
            "W" => Some((Primary::Words, Case::Upper)),
            "Ww" => Some((Primary::Words, Case::Title)),
            "w" => Some((Primary::Words, Case::Lower)),
            _ => None,
        };
        let mut format = Format {
            primary: Primary::Decimal,
            case: Case::Lower,
            ordinal: modifier.starts_with('o'),
            mandatory: 0,
            optional: 0,
            zero: 0x30,
            regular: None,
            separators: Vec::new(),
        };
        match named {
            Some((primary, case)) => (format.primary, format.case) = (primary, case),
            None => format.read_digits(primary)?,
        }
        Ok(format)
    }

    fn read_digits(&mut self, picture: &str) -> Result<()> {
        let (mut zero, mut place) = (None, 0);
        for c in picture.chars().rev() {
            let code = u32::from(c);
            if let Some(group) = ZEROS.iter().find(|group| (**group..=**group + 9).contains(&code)) {
                if *zero.get_or_insert(*group) != *group {
                    let message = "In a decimal digit pattern, all digits must be from the same decimal group";
                    return Err(Fault::new("D3131", 0, message));
                }
                self.mandatory += 1;
                place += 1;
            } else if c == '#' {
                self.optional += 1;
                place += 1;
            } else {
                self.separators.push((place, c));
            }
        }
        let Some(zero) = zero else {
            let picture = quoted(picture);
            let message = format!(
                "Formatting or parsing an integer as a sequence starting with {picture} is not supported by this \
                 implementation"
            );
            return Err(Fault::new("D3130", 0, message));
        };
        self.zero = zero;
        self.regular = regular(&self.separators);
        Ok(())
    }

    pub(super) fn write(&self, number: f64) -> Result<String> {
        let size = number.abs();
        let mut text = match self.primary {
            Primary::Letters => letters(size, if self.case == Case::Upper { b'A' } else { b'a' }),
            Primary::Roman => self.cased(roman(size)?),
            Primary::Words => self.cased(words(size, self.ordinal)),
            Primary::Decimal => self.decimal(size),
        };
        if number < 0.0 {
            text.insert(0, '-');
        }
        Ok(text)
    }

    fn cased(&self, text: String) -> String {
        match (self.case, self.primary) {
            (Case::Upper, _) => text.to_uppercase(),
            (Case::Lower, _) => text.to_lowercase(),
            (Case::Title, _) => text,
        }
    }

    fn decimal(&self, size: f64) -> String {
        let digits = number_text(size);
        let missing = self.mandatory.min(DIGITS_MAX).saturating_sub(digits.len());
        let mut text: Vec<char> = std::iter::repeat_n('0', missing)
            .chain(digits.chars())
            .map(|c| char::from_u32(u32::from(c).wrapping_sub(0x30).wrapping_add(self.zero)).unwrap_or(c))
            .collect();
        let last_two: Vec<char> = text.iter().rev().take(2).copied().collect();
        match self.regular {
            Some((every, separator)) => {
                let length = text.len();
                for group in (1..=(length.saturating_sub(1)) / every).rev() {
                    text.insert(length - group * every + (((length - 1) / every) - group), separator);
                }
            }
            None => {
                for (place, separator) in self.separators.iter().rev() {
                    if let Some(at) = text.len().checked_sub(*place) {
                        text.insert(at, *separator);
                    }
                }
            }
        }
        let mut text: String = text.into_iter().collect();
        if self.ordinal {
            text.push_str(match (last_two.first(), last_two.get(1)) {
                (_, Some('1')) => "th",
                (Some('1'), _) => "st",
                (Some('2'), _) => "nd",
                (Some('3'), _) => "rd",
                _ => "th",
            });
        }
        text
    }

    pub(super) fn parse(&self, text: &str) -> Option<f64> {
        match self.primary {
            Primary::Letters => Some(from_letters(text, if self.case == Case::Upper { b'A' } else { b'a' })),
            Primary::Roman => Some(from_roman(&text.to_lowercase())),
            Primary::Words => Some(from_words(&text.to_lowercase())),
            Primary::Decimal => {
                let digits = match self.ordinal {
                    true => text.get(..text.len().saturating_sub(2)).unwrap_or_default(),
                    false => text,
                };
                let is_separator = |c: char| match self.regular {
                    Some(_) => c == ',',
                    None => self.separators.iter().any(|(_, separator)| *separator == c),
                };
                let digits: String = digits
                    .chars()
                    .filter(|c| !is_separator(*c))
                    .map(|c| char::from_u32(u32::from(c).wrapping_sub(self.zero).wrapping_add(0x30)).unwrap_or(c))
                    .collect();
                let (sign, unsigned) = match digits.strip_prefix('-') {
                    Some(unsigned) => (-1.0, unsigned),
                    None => (1.0, digits.as_str()),
                };
                let length = unsigned.bytes().take_while(u8::is_ascii_digit).count();
                unsigned[..length].parse::<f64>().ok().map(|number| sign * number)
            }
        }
    }
}

/// What separates equal groups, if separators stand at all multiples of one place and nowhere else.
fn regular(separators: &[(usize, char)]) -> Option<(usize, char)> {
    let (_, separator) = separators.first()?;
    if separators.iter().any(|(_, other)| other != separator) {
        return None;
    }
    let every = separators.iter().map(|(place, _)| *place).reduce(gcd).filter(|every| *every > 0)?;
    let complete = (1..=separators.len()).all(|n| separators.iter().any(|(place, _)| *place == n * every));
    complete.then_some((every, *separator))
}

pub(super) fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn letters(size: f64, first: u8) -> String {
    let (mut left, mut text) = (size, Vec::new());
    while left >= 1.0 && text.len() < DIGITS_MAX {
        text.push(char::from(first + ((left - 1.0) % 26.0) as u8));
        left = ((left - 1.0) / 26.0).floor();
    }
    text.into_iter().rev().collect()
}

fn from_letters(text: &str, first: u8) -> f64 {
    text.bytes().fold(0.0, |sum, byte| sum * 26.0 + f64::from(byte) - f64::from(first) + 1.0)
}

/// Thousands stand as so many letters, so the number must not be large.
fn roman(size: f64) -> Result<String> {
    const ROMAN_MAX: f64 = 1_000_000.0;
    if size > ROMAN_MAX {
        return Err(Fault::timeout());
    }
    let (mut left, mut text) = (size as u32, String::new());
    for (value, numeral) in ROMAN {
        while left >= value {
            text.push_str(numeral);
            left -= value;
        }
    }
    Ok(text)
}

fn from_roman(text: &str) -> f64 {
    let value = |c: char| ROMAN.iter().find(|(_, numeral)| numeral.len() == 1 && numeral.starts_with(c));
    let (mut sum, mut largest) = (0.0, 1);
    for (value, _) in text.chars().rev().filter_map(value) {
        if *value < largest {
            sum -= f64::from(*value);
        } else {
            largest = *value;
            sum += f64::from(*value);
        }
    }
    sum
}

fn words(size: f64, ordinal: bool) -> String {
    fn spell(number: f64, follows: bool, ordinal: bool, depth: usize) -> String {
        if number < 20.0 {
            let word = if ordinal { ORDINALS } else { FEW }[number as usize];
            return format!("{}{word}", if follows { " and " } else { "" });
        }
        if number < 100.0 {
            let (tens, rest) = ((number / 10.0).floor(), number % 10.0);
            let ten = TENS[tens as usize - 2];
            let head = if follows { " and " } else { "" };
            return match (rest > 0.0, ordinal) {
                (true, _) => format!("{head}{ten}-{}", spell(rest, false, ordinal, depth + 1)),
                (false, true) => format!("{head}{}ieth", &ten[..ten.len() - 1]),
                (false, false) => format!("{head}{ten}"),
            };
        }
        let (factor, name) = match number < 1000.0 {
            true => (100.0, "Hundred"),
            false => {
                let magnitude = ((number.log10() / 3.0).floor() as usize).clamp(1, MAGNITUDES.len());
                (1000_f64.powi(magnitude as i32), MAGNITUDES[magnitude - 1])
            }
        };
        let (many, rest) = ((number / factor).floor(), number % factor);
        let head = if follows { ", " } else { "" };
        // Each round divides by a thousand at least; only what is no number would go on.
        let many = if depth > 120 { String::new() } else { spell(many, false, false, depth + 1) };
        let tail = match (rest > 0.0, ordinal) {
            (true, _) => spell(rest, true, ordinal, depth + 1),
            (false, true) => String::from("th"),
            (false, false) => String::new(),
        };
        format!("{head}{many} {name}{tail}")
    }
    spell(size, false, ordinal, 0)
}

fn from_words(text: &str) -> f64 {
    let value = |word: &str| -> Option<f64> {
        let at = |list: &[&str]| list.iter().position(|known| known.to_lowercase() == word);
        if let Some(few) = at(&FEW).or_else(|| at(&ORDINALS)) {
            return Some(few as f64);
        }
        let plain = word.strip_suffix("ieth").map_or_else(|| word.to_owned(), |stem| format!("{stem}y"));
        if let Some(ten) = TENS.iter().position(|known| known.to_lowercase() == plain) {
            return Some((ten as f64 + 2.0) * 10.0);
        }
        let plain = word.strip_suffix("th").unwrap_or(word);
        if plain == "hundred" {
            return Some(100.0);
        }
        let magnitude = MAGNITUDES.iter().position(|known| known.to_lowercase() == plain)?;
        Some(1000_f64.powi(magnitude as i32 + 1))
    };
    let mut segments = vec![0.0];
    for word in text.split([',', ' ', '-']).filter(|word| !word.is_empty() && *word != "and") {
        let value = value(word).unwrap_or(f64::NAN);
        let top: f64 = segments.pop().unwrap_or(0.0);
        if value < 100.0 {
            if top >= 1000.0 {
                segments.push(top);
                segments.push(value);
            } else {
                segments.push(top + value);
            }
        } else {
            segments.push(top * value);
        }
    }
    segments.into_iter().sum()
}
