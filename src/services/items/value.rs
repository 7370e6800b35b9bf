//! DynamoDB's attribute values, as the JSON that requests and items are written in: `{"S": "text"}`.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

/// An item: attribute names to attribute values.
pub type Item = Map<String, Value>;

const TYPES: &[&str] = &["S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"];

/// The type and the content of an attribute value.
pub fn parts(value: &Value) -> (&str, &Value) {
    value.as_object().and_then(|m| m.iter().next()).map_or(("NULL", &Value::Null), |(k, v)| (k.as_str(), v))
}

pub fn type_of(value: &Value) -> &str {
    parts(value).0
}

/// Checks an attribute value and writes its numbers as text; the error is DynamoDB's sentence.
pub fn check(value: &Value) -> Result<Value, String> {
    let only = value.as_object().filter(|m| m.len() == 1).and_then(|m| m.iter().next());
    let (kind, content) = only.ok_or_else(|| {
        "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes".to_owned()
    })?;
    if !TYPES.contains(&kind.as_str()) {
        return Err(format!(
            "Supplied AttributeValue has the unknown type '{kind}', must contain exactly one of the supported datatypes"
        ));
    }
    let wrong = || format!("The parameter cannot be converted to a value of type {kind}: {content}");
    let checked = match kind.as_str() {
        "S" | "B" => Value::String(content.as_str().ok_or_else(wrong)?.to_owned()),
        "N" => Value::String(
            number_text(content)
                .ok_or_else(|| format!("The parameter cannot be converted to a numeric value: {}", bare(content)))?,
        ),
        "BOOL" | "NULL" => Value::Bool(content.as_bool().ok_or_else(wrong)?),
        "M" => {
            let map = content.as_object().ok_or_else(wrong)?;
            Value::Object(map.iter().map(|(k, v)| Ok((k.clone(), check(v)?))).collect::<Result<_, String>>()?)
        }
        "L" => content.as_array().ok_or_else(wrong)?.iter().map(check).collect::<Result<_, _>>()?,
        _ => check_set(kind, content)?,
    };
    Ok(json!({ kind: checked }))
}

fn check_set(kind: &str, content: &Value) -> Result<Value, String> {
    let list = content.as_array().ok_or_else(|| format!("The parameter cannot be converted to a set: {content}"))?;
    if list.is_empty() {
        return Err(format!("One or more parameter values were invalid: An {} set may not be empty", words(kind)));
    }
    let mut members: Vec<Value> = Vec::new();
    for member in list {
        let text = if kind == "NS" { number_text(member) } else { member.as_str().map(str::to_owned) };
        let member = Value::String(text.ok_or_else(|| format!("The parameter is no member of a set: {member}"))?);
        if members.contains(&member) {
            return Err(format!(
                "One or more parameter values were invalid: Input collection {content} contains duplicates."
            ));
        }
        members.push(member);
    }
    Ok(Value::Array(members))
}

fn words(kind: &str) -> &'static str {
    match kind {
        "SS" => "string",
        "NS" => "number",
        _ => "binary",
    }
}

fn bare(content: &Value) -> String {
    content.as_str().map_or_else(|| content.to_string(), str::to_owned)
}

/// A number's text in the form that equal numbers share.
fn number_text(content: &Value) -> Option<String> {
    Decimal::parse(&bare(content)).map(|d| d.to_string())
}

/// A decimal number of up to 38 digits, as DynamoDB keeps them: `digits × 10^exponent`, without trailing zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    pub fn parse(text: &str) -> Option<Decimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: String = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        if significant.trim_end_matches('0').len() > 38 || significant.len() > 300 || exponent.abs() > 400 {
            return None;
        }
        let shift = significant.len() - significant.trim_end_matches('0').len();
        let value: i128 = match significant.trim_end_matches('0') {
            "" => 0,
            kept => kept.parse().ok()?,
        };
        let exponent = exponent - fraction.len() as i32 + shift as i32;
        Some(Decimal { digits: if negative { -value } else { value }, exponent }.normal())
    }

    fn normal(mut self) -> Decimal {
        if self.digits == 0 {
            return Decimal { digits: 0, exponent: 0 };
        }
        while self.digits % 10 == 0 {
            self.digits /= 10;
            self.exponent += 1;
        }
        self
    }

    /// `None` where the sum needs more digits than DynamoDB keeps.
    pub fn plus(self, other: Decimal) -> Option<Decimal> {
        let exponent = self.exponent.min(other.exponent);
        let sum = self.scaled(exponent)?.checked_add(other.scaled(exponent)?)?;
        let sum = Decimal { digits: sum, exponent }.normal();
        (sum.digits.unsigned_abs().to_string().len() <= 38).then_some(sum)
    }

    pub fn negated(self) -> Decimal {
        Decimal { digits: -self.digits, ..self }
    }

    fn scaled(self, exponent: i32) -> Option<i128> {
        let places = u32::try_from(self.exponent - exponent).ok()?;
        self.digits.checked_mul(10i128.checked_pow(places)?)
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let signs = self.digits.signum().cmp(&other.digits.signum());
        if signs != Ordering::Equal || self.digits == 0 {
            return signs;
        }
        let magnitude = |d: &Decimal| d.digits.unsigned_abs().ilog10() as i32 + d.exponent;
        let by_magnitude = magnitude(self).cmp(&magnitude(other));
        let order = if by_magnitude != Ordering::Equal {
            by_magnitude
        } else {
            let exponent = self.exponent.min(other.exponent);
            match (self.scaled(exponent), other.scaled(exponent)) {
                (Some(a), Some(b)) => a.unsigned_abs().cmp(&b.unsigned_abs()),
                // The one that cannot be written out to the other's last place is the shorter one; equal heads decide.
                _ => self.digits.unsigned_abs().to_string().cmp(&other.digits.unsigned_abs().to_string()),
            }
        };
        if self.digits < 0 { order.reverse() } else { order }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.digits < 0 { "-" } else { "" };
        let digits = self.digits.unsigned_abs().to_string();
        match self.exponent {
            0.. if self.exponent <= 38 => write!(f, "{sign}{digits}{}", "0".repeat(self.exponent as usize)),
            -130..0 => {
                let places = self.exponent.unsigned_abs() as usize;
                let padded = format!("{digits:0>width$}", width = places + 1);
                let (whole, fraction) = padded.split_at(padded.len() - places);
                write!(f, "{sign}{whole}.{fraction}")
            }
            _ => write!(f, "{sign}{digits}E{}", self.exponent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for (text, kept) in [("1.50", "1.5"), ("-0", "0"), ("1e3", "1000"), ("0.001", "0.001"), ("120.5", "120.5")] {
            assert_eq!(Decimal::parse(text).unwrap().to_string(), kept);
        }
        assert!(Decimal::parse("1.2.3").is_none() && Decimal::parse("").is_none());
        let sum = Decimal::parse("0.1").unwrap().plus(Decimal::parse("0.2").unwrap()).unwrap();
        assert_eq!(sum.to_string(), "0.3");
        assert!(Decimal::parse("-2").unwrap() < Decimal::parse("-1.5").unwrap());
        assert!(Decimal::parse("10").unwrap() > Decimal::parse("9.99").unwrap());
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(check(&json!({"N": "01.0"})).unwrap(), json!({"N": "1"}));
        for bad in [json!({}), json!({"X": 1}), json!({"S": 1}), json!({"SS": []}), json!({"SS": ["a", "a"]})] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }
}
