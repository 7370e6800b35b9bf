//! The intrinsic functions on texts, numbers and objects, and how all of them read their arguments.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use conveyor_base::escape::hex;
use serde_json::Value;
use sha2::Digest;

use super::format::Format;
use crate::scope::mix;

/// Longest text for encoding, decoding and hashing, in characters (AWS: 10,000).
const TEXT_CHARS_MAX: usize = 10_000;

pub(super) fn array(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("expected an array, found {}", kind(value)))
}

pub(super) fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("expected a string, found {}", kind(value)))
}

/// A whole number; a fraction is rounded to the nearest, halves towards positive infinity.
pub(super) fn integer(value: &Value) -> Result<i64, String> {
    let number = value.as_number().ok_or_else(|| format!("expected a number, found {}", kind(value)))?;
    if let Some(whole) = number.as_i64() {
        return Ok(whole);
    }
    let rounded = number.as_f64().map(|float| (float + 0.5).floor()).filter(|float| float.abs() < 9.2e18);
    rounded.map(|float| float as i64).ok_or_else(|| format!("the number {number} is too large"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn bounded(value: &Value) -> Result<&str, String> {
    let text = string(value)?;
    match text.chars().nth(TEXT_CHARS_MAX) {
        None => Ok(text),
        Some(_) => Err(format!("the text is longer than {TEXT_CHARS_MAX} characters")),
    }
}

pub(super) fn format(template: &Value, values: &[Cow<Value>]) -> Result<Value, String> {
    Format::new(string(template)?).fill(values).map(Value::String)
}

/// An empty text is null, as on AWS.
pub(super) fn string_to_json(text: &Value) -> Result<Value, String> {
    let text = string(text)?;
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).map_err(|e| match crate::definition::json_fault(text) {
        Some(worded) => worded,
        None => e.to_string(),
    })
}

pub(super) fn base64_encode(text: &Value) -> Result<Value, String> {
    Ok(STANDARD.encode(bounded(text)?).into())
}

pub(super) fn base64_decode(text: &Value) -> Result<Value, String> {
    let bytes = STANDARD.decode(bounded(text)?).map_err(|e| format!("the text is not Base64: {e}"))?;
    Ok(String::from_utf8_lossy(&bytes).into())
}

/// Of a text its bytes, of anything else its JSON.
pub(super) fn hash(data: &Value, algorithm: &Value) -> Result<Value, String> {
    let bytes = match data {
        Value::String(_) => Cow::Borrowed(bounded(data)?.as_bytes()),
        other => Cow::Owned(other.to_string().into_bytes()),
    };
    let digest = match string(algorithm)? {
        "MD5" => md5::Md5::digest(&bytes).to_vec(),
        "SHA-1" => sha1::Sha1::digest(&bytes).to_vec(),
        "SHA-256" => sha2::Sha256::digest(&bytes).to_vec(),
        "SHA-384" => sha2::Sha384::digest(&bytes).to_vec(),
        "SHA-512" => sha2::Sha512::digest(&bytes).to_vec(),
        other => return Err(format!("'{other}' is none of MD5, SHA-1, SHA-256, SHA-384 and SHA-512")),
    };
    Ok(hex(&digest).into())
}

/// The fields of both; the second's where both have one. AWS has no deep merge.
pub(super) fn json_merge(first: &Value, second: &Value, deep: &Value) -> Result<Value, String> {
    match deep {
        Value::Bool(false) => {}
        Value::Bool(true) => {
            return Err(String::from("deep merging is not supported; the third argument must be false"));
        }
        other => return Err(format!("expected a boolean as the third argument, found {}", kind(other))),
    }
    let (Value::Object(first), Value::Object(second)) = (first, second) else {
        return Err(format!("expected two objects, found {} and {}", kind(first), kind(second)));
    };
    let mut merged = first.clone();
    merged.extend(second.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(Value::Object(merged))
}

pub(super) fn math_add(a: &Value, b: &Value) -> Result<Value, String> {
    let (a, b) = (integer(a)?, integer(b)?);
    a.checked_add(b).map(Value::from).ok_or_else(|| format!("the sum of {a} and {b} is too large"))
}

/// A whole number from `start` to below `end`.
pub(super) fn math_random(start: &Value, end: &Value, random: u64) -> Result<Value, String> {
    let (start, end) = (integer(start)?, integer(end)?);
    if start >= end {
        return Err(format!("the start {start} must be less than the end {end}"));
    }
    let offset = random % end.abs_diff(start);
    Ok(start.wrapping_add_unsigned(offset).into())
}

/// As [`math_random`], the same for the same seed everywhere and always.
pub(super) fn math_random_seeded(start: &Value, end: &Value, seed: &Value) -> Result<Value, String> {
    math_random(start, end, mix(integer(seed)?.cast_unsigned()))
}

/// Each character of `delimiters` divides; empty parts are dropped.
pub(super) fn string_split(text: &Value, delimiters: &Value) -> Result<Value, String> {
    let (text, delimiters) = (string(text)?, string(delimiters)?);
    Ok(text.split(|c| delimiters.contains(c)).filter(|part| !part.is_empty()).map(Value::from).collect())
}

/// A random (version 4) UUID.
pub(super) fn uuid(high: u64, low: u64) -> Value {
    uuid::Builder::from_random_bytes(uuid::Uuid::from_u64_pair(high, low).into_bytes()).into_uuid().to_string().into()
}
