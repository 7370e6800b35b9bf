//! Timestamps of AWS's protocols: seconds since 1970, ISO 8601, or the form of HTTP's headers.

use serde_json::{Number, Value, json};

/// How a timestamp is written on the wire.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Seconds,
    Iso,
    Http,
}

impl Form {
    /// By the model's word; without one, `usual`.
    pub fn named(word: Option<&str>, usual: Form) -> Form {
        match word {
            Some("unixTimestamp") => Form::Seconds,
            Some("iso8601") => Form::Iso,
            Some("rfc822") => Form::Http,
            _ => usual,
        }
    }
}

/// From a workflow's value, an ISO text or seconds, to the wire.
pub fn written(value: &Value, form: Form) -> Result<Value, String> {
    let bad = || format!("{value} is no timestamp; write it as 2026-01-31T09:30:00Z");
    let at: jiff::Timestamp = match value {
        Value::String(text) => text.parse().map_err(|_| bad())?,
        Value::Number(seconds) => {
            let ms = seconds.as_f64().ok_or_else(bad)? * 1000.0;
            jiff::Timestamp::from_millisecond(ms as i64).map_err(|_| bad())?
        }
        _ => return Err(bad()),
    };
    Ok(match form {
        Form::Seconds if at.subsec_nanosecond() == 0 => json!(at.as_second()),
        Form::Seconds => json!(at.as_millisecond() as f64 / 1000.0),
        Form::Iso => json!(at.to_string()),
        Form::Http => json!(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()),
    })
}

/// From the wire to a workflow's value, an ISO text. What is no timestamp stays as it is.
pub fn read(value: &Value) -> Value {
    let at = match value {
        Value::Number(seconds) => moment(seconds),
        Value::String(text) => text
            .parse()
            .ok()
            .or_else(|| jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp()))
            .or_else(|| moment(&text.parse::<f64>().ok().and_then(Number::from_f64)?)),
        _ => None,
    };
    at.map_or_else(|| value.clone(), |at| json!(at.to_string()))
}

fn moment(seconds: &Number) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond((seconds.as_f64()? * 1000.0).round() as i64).ok()
}
