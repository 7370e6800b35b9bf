//! Functions of numbers.

use super::{Entry, Given, integers, picture};
use crate::evaluate::Eval;
use crate::fault::{Fault, Result, shown};
use crate::value::{Val, number_text};

pub(super) const TABLE: &[Entry] = &[
    ("sum", "<a<n>:n>", 1, sum),
    ("max", "<a<n>:n>", 1, max),
    ("min", "<a<n>:n>", 1, min),
    ("average", "<a<n>:n>", 1, average),
    ("number", "<(nsb)-:n>", 1, number),
    ("floor", "<n-:n>", 1, floor),
    ("ceil", "<n-:n>", 1, ceil),
    ("round", "<n-n?:n>", 2, round),
    ("abs", "<n-:n>", 1, abs),
    ("sqrt", "<n-:n>", 1, sqrt),
    ("power", "<n-n:n>", 2, power),
    ("formatNumber", "<n-so?:s>", 3, picture::format_number),
    ("formatBase", "<n-n?:s>", 2, format_base),
    ("formatInteger", "<n-s:s>", 2, integers::format_integer),
    ("parseInteger", "<s-s:n>", 2, integers::parse_integer),
];

fn numbers<'a>(
    arguments: Vec<Val<'a>>,
    make: impl FnOnce(&mut dyn Iterator<Item = f64>, usize) -> Option<f64>,
) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.is_missing(0) {
        return Ok(Val::Undefined);
    }
    let items = given.items(0);
    Ok(make(&mut items.iter().filter_map(Val::as_num), items.len()).map_or(Val::Undefined, Val::Num))
}

fn sum<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    // From 0, not from -0 as `Iterator::sum` does.
    numbers(arguments, |items, _| Some(items.fold(0.0, |a, b| a + b)))
}

fn max<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    numbers(arguments, |items, _| items.reduce(f64::max))
}

fn min<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    numbers(arguments, |items, _| items.reduce(f64::min))
}

fn average<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    numbers(arguments, |items, count| (count > 0).then(|| items.fold(0.0, |a, b| a + b) / count as f64))
}

fn number<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let value = Given(arguments).get(0);
    let found = match &value {
        Val::Undefined => return Ok(Val::Undefined),
        Val::Num(number) => Some(*number),
        Val::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Val::Str(text) => read_number(text),
        _ => None,
    };
    match found {
        Some(number) => Ok(Val::Num(number)),
        None => Err(Fault::new("D3030", 0, format!("Unable to cast value to a number: {}", shown(&value)))),
    }
}

fn read_number(text: &str) -> Option<f64> {
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+')).map(|n| n as f64);
        }
    }
    // JSON's numbers, but that zeros may stand first.
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = &digits[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return None;
        }
        rest = &fraction[count..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if exponent.is_empty() || !exponent.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        rest = "";
    }
    text.parse().ok().filter(|number: &f64| whole > 0 && rest.is_empty() && number.is_finite())
}

fn of_number<'a>(arguments: Vec<Val<'a>>, make: impl FnOnce(f64) -> f64) -> Result<Val<'a>> {
    Ok(Given(arguments).num(0).map_or(Val::Undefined, |number| Val::Num(make(number))))
}

fn floor<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_number(arguments, f64::floor)
}

fn ceil<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_number(arguments, f64::ceil)
}

fn abs<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    of_number(arguments, f64::abs)
}

fn round<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let precision = Given(arguments.clone()).num(1).unwrap_or(0.0);
    of_number(arguments, |number| rounded(number, precision as i32))
}

/// Half to even, at a decimal place; the shift is made on the text, so that 4.525 is what it looks like.
pub(super) fn rounded(number: f64, precision: i32) -> f64 {
    let shifted = |number: f64, by: i32| -> f64 {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i64 = exponent.parse().unwrap_or(0);
        format!("{digits}e{}", exponent.saturating_add(i64::from(by))).parse().unwrap_or(number)
    };
    let value = if precision == 0 { number } else { shifted(number, precision) };
    // Math.round: half up.
    let mut result = (value + 0.5).floor();
    if (value + 0.5) - value != 0.5 {
        result = value.round();
    }
    if (result - value).abs() == 0.5 && (result % 2.0).abs() == 1.0 {
        result -= 1.0;
    }
    if precision != 0 {
        result = shifted(result, precision.saturating_neg());
    }
    if result == 0.0 { 0.0 } else { result }
}

fn sqrt<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    if let Some(negative) = Given(arguments.clone()).num(0).filter(|number| *number < 0.0) {
        let message = format!("The sqrt function cannot be applied to a negative number: {}", number_text(negative));
        return Err(Fault::new("D3060", 0, message));
    }
    of_number(arguments, f64::sqrt)
}

fn power<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(base) = given.num(0) else { return Ok(Val::Undefined) };
    let exponent = given.num(1).unwrap_or(f64::NAN);
    let result = base.powf(exponent);
    if result.is_finite() {
        return Ok(Val::Num(result));
    }
    let (base, exponent) = (number_text(base), number_text(exponent));
    let message = format!(
        "The power function has resulted in a value that cannot be represented as a JSON number: base={base}, \
         exponent={exponent}"
    );
    Err(Fault::new("D3061", 0, message))
}

fn format_base<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(number) = given.num(0) else { return Ok(Val::Undefined) };
    let (number, radix) = (rounded(number, 0), rounded(given.num(1).unwrap_or(10.0), 0));
    if !(2.0..=36.0).contains(&radix) {
        let radix = number_text(radix);
        let message = format!("The radix of the formatBase function must be between 2 and 36.  It was given {radix}");
        return Err(Fault::new("D3100", 0, message));
    }
    if radix == 10.0 {
        return Ok(Val::str(&number_text(number)));
    }
    let (mut left, mut digits) = (number.abs(), Vec::new());
    while left >= 1.0 {
        digits.push(char::from_digit((left % radix) as u32, radix as u32).unwrap_or('0'));
        left = (left / radix).floor();
    }
    if digits.is_empty() {
        digits.push('0');
    }
    if number < 0.0 {
        digits.push('-');
    }
    Ok(Val::Str(digits.into_iter().rev().collect::<String>().into()))
}
