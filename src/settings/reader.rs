//! Strict reading of JSON settings: every fault is found, each with its JSON pointer.
//!
//! Invariant: a key that nobody asked for is a fault. So a setting that this box does not honour can never be
//! passed over in silence.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The faults of one document.
#[derive(Debug, Default)]
pub struct Faults(RefCell<Vec<String>>);

impl Faults {
    pub fn add(&self, pointer: &str, what: impl std::fmt::Display) {
        self.0.borrow_mut().push(format!("{}: {what}", if pointer.is_empty() { "/" } else { pointer }));
    }

    pub fn into_list(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// An object that is being read; when it is dropped, its unread keys become faults.
pub struct Reader<'a> {
    map: Option<&'a Map<String, Value>>,
    pub pointer: String,
    faults: &'a Faults,
    seen: RefCell<BTreeSet<String>>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        for key in self.map.iter().flat_map(|m| m.keys()) {
            if !self.seen.borrow().contains(key) {
                self.faults.add(&self.child(key), "this setting is not supported here; remove it");
            }
        }
    }
}

impl<'a> Reader<'a> {
    pub fn new(value: &'a Value, pointer: &str, faults: &'a Faults) -> Reader<'a> {
        if !value.is_object() {
            faults.add(pointer, format!("must be an object, is {}", kind(value)));
        }
        Reader { map: value.as_object(), pointer: pointer.to_owned(), faults, seen: RefCell::default() }
    }

    pub fn fault(&self, key: &str, what: impl std::fmt::Display) {
        self.faults.add(&self.child(key), what);
    }

    fn child(&self, key: &str) -> String {
        format!("{}/{}", self.pointer, key.replace('~', "~0").replace('/', "~1"))
    }

    /// The value of a key; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.seen.borrow_mut().insert(key.to_owned());
        self.map?.get(key).filter(|v| !v.is_null())
    }

    pub fn has(&self, key: &str) -> bool {
        self.map.is_some_and(|m| m.get(key).is_some_and(|v| !v.is_null()))
    }

    /// Marks keys as known and without meaning on this box.
    pub fn accept(&self, keys: &[&str]) {
        for key in keys {
            self.get(key);
        }
    }

    pub fn object(&self, key: &str) -> Option<Reader<'a>> {
        let value = self.get(key)?;
        Some(Reader::new(value, &self.child(key), self.faults))
    }

    pub fn require_object(&self, key: &str) -> Option<Reader<'a>> {
        let object = self.object(key);
        if object.is_none() {
            self.fault(key, "is missing");
        }
        object
    }

    /// The objects of a list.
    pub fn list(&self, key: &str) -> Vec<Reader<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let pointer = self.child(key);
        let Some(list) = value.as_array() else {
            self.faults.add(&pointer, format!("must be a list, is {}", kind(value)));
            return Vec::new();
        };
        list.iter().enumerate().map(|(i, v)| Reader::new(v, &format!("{pointer}/{i}"), self.faults)).collect()
    }

    /// The objects of a map, with their keys.
    pub fn entries(&self, key: &str) -> Vec<(String, Reader<'a>)> {
        let Some(outer) = self.object(key) else { return Vec::new() };
        let Some(map) = outer.map else { return Vec::new() };
        map.keys().filter_map(|k| Some((k.clone(), outer.object(k)?))).collect()
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        if value.as_str().is_none() {
            self.fault(key, format!("must be a text, is {}", kind(value)));
        }
        value.as_str()
    }

    /// A whole number within bounds.
    pub fn number(&self, key: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.get(key)?;
        let whole =
            value.as_u64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64));
        match whole {
            Some(n) if (min..=max).contains(&n) => Some(n),
            _ => {
                self.fault(key, format!("must be a whole number from {min} to {max}, is {value}"));
                None
            }
        }
    }

    pub fn decimal(&self, key: &str, min: f64, max: f64) -> Option<f64> {
        let value = self.get(key)?;
        let number = value.as_f64().filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.fault(key, format!("must be a number from {min} to {max}, is {value}"));
        }
        number
    }

    /// One of the names in a table; the default is what counts where the key is absent or wrong.
    pub fn choice<T: Copy>(&self, key: &str, table: &[(&str, T)], default: T) -> T {
        self.choose(key, table).unwrap_or(default)
    }

    pub fn choose<T: Copy>(&self, key: &str, table: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let found = value.as_str().and_then(|s| table.iter().find(|(name, _)| *name == s));
        if found.is_none() {
            let names = table.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
            self.fault(key, format!("must be one of {names} here, is {value}"));
        }
        found.map(|(_, t)| *t)
    }

    /// A setting of which only some values mean what this box does anyway.
    pub fn only(&self, key: &str, names: &[&str]) {
        let table: Vec<(&str, ())> = names.iter().map(|n| (*n, ())).collect();
        self.choice(key, &table, ());
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_faults_with_their_places() {
        let faults = Faults::default();
        let value = json!({"Known": 3, "Un/known": 1, "Mode": "X"});
        {
            let reader = Reader::new(&value, "", &faults);
            assert_eq!(reader.number("Known", 5, 9), None);
            assert_eq!(reader.choice("Mode", &[("A", 1)], 1), 1);
        }
        let list = faults.into_list();
        assert_eq!(list.len(), 3, "{list:?}");
        assert!(list.iter().any(|f| f.starts_with("/Un~1known:")), "{list:?}");
    }
}
