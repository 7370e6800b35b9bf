//! EventBridge's PutEvents: what a request's fields mean and which are refused, for Tasks and for clients outside.

use conveyor_base::{BoxClock, Timestamp};
use conveyor_services::events::{DEFAULT_BUS, Events, Lineage, NewEvent, Undelivered, bus_name, event_id};
use serde_json::{Value, json};

/// Most entries of one call, and the largest of them together, in bytes (EventBridge's own).
const ENTRIES_MAX: usize = 10;
const ENTRIES_BYTES_MAX: usize = 1_048_576;

/// What a request comes to: rows to be stored, and the answer once they are.
#[derive(Debug)]
pub struct Put {
    pub rows: Vec<Undelivered>,
    pub answer: Value,
}

/// Who puts events, and where they come from.
#[derive(Default)]
pub struct Origin<'a> {
    /// Makes the events' ids: the same on a second run.
    pub seed: Option<&'a str>,
    /// Are added to each event's resources.
    pub resources: Vec<String>,
    pub lineage: Lineage,
}

/// Whether a request of PutEvents names only buses of this box.
pub(super) fn has_all(events: &Events, request: &Value) -> bool {
    let entries = request.get("Entries").and_then(Value::as_array);
    let named = |entry: &Value| entry.get("EventBusName").and_then(Value::as_str).map(str::to_owned);
    entries.is_some_and(|entries| entries.iter().all(|e| events.has(named(e).as_deref().unwrap_or(DEFAULT_BUS))))
}

/// Reads a request. The error is why it does nothing at all, in the words of a ValidationException.
pub fn put(events: &Events, entries: &[Value], origin: &Origin<'_>, clock: &BoxClock) -> Result<Put, String> {
    let (now, wall) = (clock.now(), clock.wall());
    check(entries)?;
    let (mut answers, mut rows, mut failed) = (Vec::new(), Vec::new(), 0);
    for (n, entry) in entries.iter().enumerate() {
        match read(events, entry, wall) {
            Ok(mut event) => {
                let made = || uuid::Uuid::new_v4().to_string();
                event.id = origin.seed.map_or_else(made, |seed| event_id(&format!("{seed}/{n}")));
                event.resources.extend(origin.resources.iter().cloned());
                event.lineage = origin.lineage.clone();
                rows.extend(events.rows(&event, now));
                answers.push(json!({ "EventId": event.id }));
            }
            Err((code, message)) => {
                failed += 1;
                answers.push(json!({ "ErrorCode": code, "ErrorMessage": message }));
            }
        }
    }
    Ok(Put { rows, answer: json!({ "Entries": answers, "FailedEntryCount": failed }) })
}

fn read(events: &Events, entry: &Value, now: Timestamp) -> Result<NewEvent, (&'static str, String)> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let missing = |name: &str| {
        ("InvalidArgument", format!("Parameter {name} is not valid. Reason: {name} is a required argument."))
    };
    let source = text("Source").ok_or_else(|| missing("Source"))?;
    let detail_type = text("DetailType").ok_or_else(|| missing("DetailType"))?;
    // Integrations may write the detail as JSON.
    let detail = match entry.get("Detail") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
        Some(other) => other.clone(),
        None => return Err(missing("Detail")),
    };
    if !detail.is_object() {
        return Err(("MalformedDetail", "Detail is malformed.".to_owned()));
    }
    let bus = text("EventBusName").unwrap_or(DEFAULT_BUS);
    if bus_name(bus) != DEFAULT_BUS && !events.has(bus) {
        return Err(("InvalidArgument", format!("Event bus {bus} does not exist; no rule of this box names it.")));
    }
    if source.starts_with("aws.") {
        let what = "Not authorized for the source.".to_owned();
        return Err(("NotAuthorizedForSourceException", what));
    }
    let resources = entry.get("Resources").and_then(Value::as_array).into_iter().flatten();
    Ok(NewEvent {
        id: String::new(),
        bus: bus.to_owned(),
        source: source.to_owned(),
        detail_type: detail_type.to_owned(),
        detail,
        resources: resources.filter_map(Value::as_str).map(str::to_owned).collect(),
        time: time_of(entry.get("Time")).unwrap_or(now),
        lineage: Lineage::default(),
    })
}

fn check(entries: &[Value]) -> Result<(), String> {
    let wrong = |what: &str| {
        Err(format!("1 validation error detected: Value at 'entries' failed to satisfy constraint: {what}"))
    };
    if entries.is_empty() {
        return wrong("Member must have length greater than or equal to 1");
    }
    if entries.len() > ENTRIES_MAX {
        return wrong("Member must have length less than or equal to 10");
    }
    if entries.iter().map(|entry| entry.to_string().len()).sum::<usize>() > ENTRIES_BYTES_MAX {
        return Err(format!(
            "Total size of the entries in the request is over the limit of {ENTRIES_BYTES_MAX} bytes."
        ));
    }
    Ok(())
}

/// Seconds since the epoch, or a date as text.
fn time_of(value: Option<&Value>) -> Option<Timestamp> {
    match value? {
        Value::Number(seconds) => Some(Timestamp((seconds.as_f64()? * 1000.0) as i64)),
        Value::String(text) => Some(Timestamp(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use conveyor_base::SystemClock;

    use super::*;

    #[test]
    fn entries_are_taken_and_refused_one_by_one() {
        let events = Events::new(&std::collections::BTreeMap::new(), "000000000000", "us-east-1");
        let entry = |more: Value| {
            let mut entry = json!({"Source": "cam", "DetailType": "t", "Detail": "{}"});
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            entry
        };
        let entries = [
            entry(json!({})),
            entry(json!({"Source": ""})),
            entry(json!({"Detail": "[1]"})),
            entry(json!({"EventBusName": "none"})),
            entry(json!({"Source": "aws.s3"})),
        ];
        let origin = Origin { seed: Some("s"), ..Origin::default() };
        let clock = BoxClock::new(std::sync::Arc::new(SystemClock), None);
        let put = |entries: &[Value]| super::put(&events, entries, &origin, &clock);
        let said = put(&entries).unwrap().answer;
        let codes: Vec<&str> = (1..5).filter_map(|n| said["Entries"][n]["ErrorCode"].as_str()).collect();
        let expected = ["InvalidArgument", "MalformedDetail", "InvalidArgument", "NotAuthorizedForSourceException"];
        assert_eq!((codes.as_slice(), &said["FailedEntryCount"]), (expected.as_slice(), &json!(4)));
        assert_eq!(said["Entries"][0]["EventId"], put(&entries).unwrap().answer["Entries"][0]["EventId"]);
        assert!(put(&[]).unwrap_err().contains("greater than or equal to 1"));
        assert!(put(&vec![entry(json!({})); 11]).unwrap_err().contains("less than or equal to 10"));
        assert!(
            put(&[entry(json!({"Detail": "x".repeat(ENTRIES_BYTES_MAX)}))]).unwrap_err().contains("over the limit")
        );
    }
}
