//! Reads a request's fields and gathers what is wrong with them, in the words of AWS's own validation.

use conveyor_base::limits::quotas;
use serde_json::{Map, Value};

use crate::ApiError;

/// Texts that AWS keeps out of its messages.
const SENSITIVE: &[&str] =
    &["definition", "input", "output", "error", "cause", "description", "versionDescription", "context", "variables"];

/// The fields of one request. Problems are gathered; [`Fields::done`] refuses with all of them.
pub struct Fields {
    /// Where these fields stand in the request, with a dot at its end; empty for the request itself.
    place: String,
    body: Map<String, Value>,
    /// What is of another type than its field. AWS stops at the first, before it looks at any value.
    mistyped: Option<String>,
    problems: Vec<String>,
}

impl Fields {
    pub fn new(body: Map<String, Value>) -> Fields {
        Fields { place: String::new(), body, mistyped: None, problems: Vec::new() }
    }

    /// A text of at least one character that must be there. Where it is not, an empty one is returned and
    /// [`Fields::done`] refuses.
    pub fn named(&mut self, key: &str, chars_max: usize) -> String {
        self.require(key);
        self.name(key, chars_max).unwrap_or_default()
    }

    /// A text that has at least one character where it is there.
    pub fn name(&mut self, key: &str, chars_max: usize) -> Option<String> {
        let text = self.optional(key, chars_max)?;
        if text.is_empty() {
            self.problem("''", key, "Member must have length greater than or equal to 1");
        }
        Some(text)
    }

    pub fn optional(&mut self, key: &str, chars_max: usize) -> Option<String> {
        let text = self.text(key)?;
        if text.chars().count() > chars_max {
            self.too_long(key, &text, chars_max);
        }
        Some(text)
    }

    /// A JSON document. Its length counts in bytes.
    pub fn payload(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        let bytes_max = quotas().payload_bytes();
        if text.len() > bytes_max {
            self.too_long(key, &text, bytes_max);
        }
        Some(text)
    }

    /// A JSON document that must be there.
    pub fn required_payload(&mut self, key: &str) -> String {
        self.require(key);
        self.payload(key).unwrap_or_default()
    }

    pub fn flag(&mut self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(flag) => Some(*flag),
            other => self.mistyped(&other.clone(), "Boolean"),
        }
    }

    pub fn value(&self, key: &str) -> Option<&Value> {
        self.body.get(key).filter(|v| !v.is_null())
    }

    /// A whole number within bounds; one that is out of them becomes the nearest that is not.
    pub fn integer(&mut self, key: &str, least: i64, most: i64) -> Option<i64> {
        let value = self.value(key)?.clone();
        let Some(number) = value.as_i64() else { return self.mistyped(&value, "Integer") };
        Some(self.within(key, number, least, most))
    }

    /// A number that may have a fraction.
    pub fn number(&mut self, key: &str, least: f64, most: f64) -> Option<f64> {
        let value = self.value(key)?.clone();
        let Some(number) = value.as_f64() else { return self.mistyped(&value, "Float") };
        Some(self.within(key, number, least, most))
    }

    fn within<N: PartialOrd + std::fmt::Display>(&mut self, key: &str, number: N, least: N, most: N) -> N {
        let (limit, nearest) = match number {
            ref n if *n < least => (format!("Member must have value greater than or equal to {least}"), least),
            ref n if *n > most => (format!("Member must have value less than or equal to {most}"), most),
            number => return number,
        };
        self.problem(&format!("'{number}'"), key, &limit);
        nearest
    }

    /// `maxResults`: 0 and absence mean the default.
    pub fn max_results(&mut self, default: usize, most: usize) -> usize {
        match self.integer("maxResults", 0, most as i64) {
            None | Some(0) => default,
            Some(number) => number as usize,
        }
    }

    /// A structure within this one. What is wrong in it counts once it is handed to [`Fields::absorb`].
    pub fn inside(&mut self, key: &str) -> Option<Fields> {
        let place = format!("{}{key}.", self.place);
        match self.value(key)?.clone() {
            Value::Object(body) => Some(Fields { place, ..Fields::new(body) }),
            other => self.unstructured(&other),
        }
    }

    /// The structures of a list within this one.
    pub fn each_inside(&mut self, key: &str) -> Option<Vec<Fields>> {
        let items = self.list(key)?;
        let mut all = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let place = format!("{}{key}.{}.member.", self.place, at + 1);
            match item {
                Value::Object(body) => all.push(Fields { place, ..Fields::new(body) }),
                other => self.unstructured::<()>(&other).unwrap_or_default(),
            }
        }
        Some(all)
    }

    /// The texts of a list.
    pub fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let items = self.list(key)?;
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Value::String(text) => all.push(text),
                other => self.mistyped(&other, "String").unwrap_or_default(),
            }
        }
        Some(all)
    }

    fn list(&mut self, key: &str) -> Option<Vec<Value>> {
        match self.value(key)?.clone() {
            Value::Array(items) => Some(items),
            Value::Object(_) => self.mistype("Start of structure or map found where not expected."),
            _ => self.mistype("Expected list or null"),
        }
    }

    /// Takes over what was wrong in a structure.
    pub fn absorb(&mut self, inner: Fields) {
        if self.mistyped.is_none() {
            self.mistyped = inner.mistyped;
        }
        self.problems.extend(inner.problems);
    }

    /// Adds a problem of a field's value.
    pub fn refuse(&mut self, key: &str, value: &str, constraint: &str) {
        self.problem(value, key, constraint);
    }

    /// One of a fixed list of words.
    pub fn one_of(&mut self, key: &str, words: &[&str]) -> Option<String> {
        let text = self.text(key)?;
        if !words.contains(&text.as_str()) {
            let limit = format!("Member must satisfy enum value set: [{}]", words.join(", "));
            self.problem(&format!("'{text}'"), key, &limit);
        }
        Some(text)
    }

    /// Refuses where anything was wrong.
    pub fn done(&self) -> Result<(), ApiError> {
        if let Some(words) = &self.mistyped {
            return Err(ApiError::new("SerializationException", words.as_str()));
        }
        let count = self.problems.len();
        if count == 0 {
            return Ok(());
        }
        let word = if count == 1 { "error" } else { "errors" };
        Err(ApiError::validation(format!("{count} validation {word} detected: {}", self.problems.join("; "))))
    }

    pub fn require(&mut self, key: &str) {
        if self.value(key).is_none() {
            self.problem("null", key, "Member must not be null");
        }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text.clone()),
            other => self.mistyped(&other.clone(), "String"),
        }
    }

    fn too_long(&mut self, key: &str, text: &str, most: usize) {
        self.problem(&format!("'{text}'"), key, &format!("Member must have length less than or equal to {most}"));
    }

    fn problem(&mut self, value: &str, key: &str, constraint: &str) {
        let value = if SENSITIVE.contains(&key) { String::new() } else { format!(" {value}") };
        let place = &self.place;
        self.problems.push(format!("Value{value} at '{place}{key}' failed to satisfy constraint: {constraint}"));
    }

    fn mistyped<T>(&mut self, value: &Value, wanted: &str) -> Option<T> {
        let cannot = |found: &str| format!("{found} cannot be converted to {wanted}");
        let words = match value {
            Value::Null => cannot("NULL_VALUE"),
            Value::Bool(true) => cannot("TRUE_VALUE"),
            Value::Bool(false) => cannot("FALSE_VALUE"),
            Value::Number(number) if number.is_f64() => cannot("DECIMAL_VALUE"),
            Value::Number(_) => cannot("NUMBER_VALUE"),
            Value::String(_) => cannot("STRING_VALUE"),
            Value::Array(_) => "Start of list found where not expected".to_owned(),
            Value::Object(_) => "Start of structure or map found where not expected.".to_owned(),
        };
        self.mistype(&words)
    }

    fn unstructured<T>(&mut self, value: &Value) -> Option<T> {
        match value {
            Value::Array(_) => self.mistyped(value, "structure"),
            _ => self.mistype("Expected structure or null"),
        }
    }

    fn mistype<T>(&mut self, words: &str) -> Option<T> {
        self.mistyped.get_or_insert_with(|| words.to_owned());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_problems_come_at_once_in_the_words_of_aws() {
        let Value::Object(body) = json!({"maxResults": 1001, "type": "FAST"}) else { unreachable!() };
        let mut fields = Fields::new(body);
        fields.named("stateMachineArn", 256);
        fields.max_results(100, 1000);
        fields.one_of("type", &["STANDARD", "EXPRESS"]);
        assert_eq!(
            fields.done().unwrap_err().message,
            "3 validation errors detected: Value null at 'stateMachineArn' failed to satisfy constraint: Member must \
             not be null; Value '1001' at 'maxResults' failed to satisfy constraint: Member must have value less than \
             or equal to 1000; Value 'FAST' at 'type' failed to satisfy constraint: Member must satisfy enum value \
             set: [STANDARD, EXPRESS]"
        );
    }
}
