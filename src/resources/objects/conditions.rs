//! Conditions on objects, and parts of them: S3's conditional headers and byte ranges. Pure.

use conveyor_base::Timestamp;
use serde_json::Value;

/// A condition of the request does not hold: why an object is not given.
#[derive(Debug, PartialEq, Eq)]
pub struct ConditionError {
    pub status: u16,
    pub message: &'static str,
}

impl ConditionError {
    /// A precondition that does not hold.
    pub fn failed() -> ConditionError {
        ConditionError { status: 412, message: "At least one of the pre-conditions you specified did not hold" }
    }
}

/// Whether the object is as the request wants it. `prefix`: before the conditions' names, as in `CopySourceIfMatch`.
pub fn check(p: &Value, etag: &str, modified: Timestamp, prefix: &str) -> Result<(), ConditionError> {
    let text = |name: &str| p.get(format!("{prefix}{name}")).and_then(Value::as_str);
    let takes = |tags: &str| tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag);
    let unmodified = |name: &str| text(name).and_then(time).map(|at| modified.0 / 1000 <= at.0 / 1000);
    if let Some(tags) = text("IfMatch") {
        if !takes(tags) {
            return Err(ConditionError::failed());
        }
    } else if unmodified("IfUnmodifiedSince") == Some(false) {
        return Err(ConditionError::failed());
    }
    let not_modified = match text("IfNoneMatch") {
        Some(tags) => takes(tags),
        None => unmodified("IfModifiedSince") == Some(true),
    };
    if not_modified { Err(ConditionError { status: 304, message: "Not Modified" }) } else { Ok(()) }
}

/// An RFC 3339 or an HTTP date.
fn time(text: &str) -> Option<Timestamp> {
    let parsed = text.parse::<jiff::Timestamp>().ok();
    let parsed = parsed.or_else(|| Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp()));
    parsed.map(|at| Timestamp(at.as_millisecond()))
}

/// First byte and length of `bytes=2-4`, `bytes=7-` and `bytes=-3`; `None` for what is no range, which S3 ignores.
pub fn range(text: &str, length: u64) -> Result<Option<(u64, u64)>, ConditionError> {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Ok(None);
    };
    let (first, last): (Option<u64>, Option<u64>) = (first.parse().ok(), last.parse().ok());
    let (first, end) = match (first, last) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(length)),
        (Some(first), None) if text.ends_with('-') => (first, length),
        (None, Some(most)) if text.starts_with("bytes=-") => (length.saturating_sub(most), length),
        _ => return Ok(None),
    };
    match first < end {
        true => Ok(Some((first, end - first))),
        false => Err(ConditionError { status: 416, message: "The requested range is not satisfiable" }),
    }
}
