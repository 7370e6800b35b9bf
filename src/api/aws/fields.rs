//! Reads a request's fields and gathers what is wrong with them, in the words of AWS's own validation.

use serde_json::{Map, Value};

use crate::api::Refused;

/// The fields of one request. Problems are gathered; [`Fields::done`] refuses with all of them.
pub struct Fields {
    body: Map<String, Value>,
    problems: Vec<String>,
}

impl Fields {
    pub fn new(body: Map<String, Value>) -> Fields {
        Fields { body, problems: Vec::new() }
    }

    /// A text that must be there. Where it is not, an empty one is returned and [`Fields::done`] refuses.
    pub fn required(&mut self, key: &str, length_max: usize) -> String {
        match self.optional(key, length_max) {
            Some(text) => text,
            None => {
                self.problem("null", key, "Member must not be null");
                String::new()
            }
        }
    }

    pub fn optional(&mut self, key: &str, length_max: usize) -> Option<String> {
        match self.body.get(key)? {
            Value::Null => None,
            Value::String(text) => {
                let text = text.clone();
                if text.chars().count() > length_max {
                    let limit = format!("Member must have length less than or equal to {length_max}");
                    self.problem(&format!("'{text}'"), key, &limit);
                }
                Some(text)
            }
            other => {
                let shown = format!("'{other}'");
                self.problem(&shown, key, "Member must be a string");
                None
            }
        }
    }

    /// A required text that must have at least one character.
    pub fn named(&mut self, key: &str, length_max: usize) -> String {
        let text = self.required(key, length_max);
        if text.is_empty() && self.body.contains_key(key) {
            self.problem("''", key, "Member must have length greater than or equal to 1");
        }
        text
    }

    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.body.get(key).and_then(Value::as_bool)
    }

    pub fn value(&self, key: &str) -> Option<&Value> {
        self.body.get(key).filter(|v| !v.is_null())
    }

    /// `maxResults`: 0 and absence mean the default.
    pub fn max_results(&mut self, default: usize) -> usize {
        const MOST: i64 = 1000;
        let Some(number) = self.value("maxResults").and_then(Value::as_i64) else { return default };
        if number > MOST {
            let limit = format!("Member must have value less than or equal to {MOST}");
            self.problem(&format!("'{number}'"), "maxResults", &limit);
        } else if number < 0 {
            let limit = "Member must have value greater than or equal to 0";
            self.problem(&format!("'{number}'"), "maxResults", limit);
        }
        match usize::try_from(number) {
            Ok(0) | Err(_) => default,
            Ok(n) => n.min(MOST as usize),
        }
    }

    /// One of a fixed list of words.
    pub fn one_of(&mut self, key: &str, words: &[&str]) -> Option<String> {
        let text = self.optional(key, usize::MAX)?;
        if !words.contains(&text.as_str()) {
            let limit = format!("Member must satisfy enum value set: [{}]", words.join(", "));
            self.problem(&format!("'{text}'"), key, &limit);
        }
        Some(text)
    }

    /// Refuses where anything was wrong.
    pub fn done(&self) -> Result<(), Refused> {
        let count = self.problems.len();
        if count == 0 {
            return Ok(());
        }
        let word = if count == 1 { "error" } else { "errors" };
        Err(Refused::validation(format!("{count} validation {word} detected: {}", self.problems.join("; "))))
    }

    fn problem(&mut self, value: &str, key: &str, constraint: &str) {
        self.problems.push(format!("Value {value} at '{key}' failed to satisfy constraint: {constraint}"));
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
        fields.required("stateMachineArn", 256);
        fields.max_results(100);
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
