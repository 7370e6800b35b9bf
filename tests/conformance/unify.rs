//! Compares an answer with a recording in which placeholders stand for any text, the same for the same.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

const LOOSE: &[&str] = &[
    "timestamp",
    "date",
    "datetime",
    "start-date",
    "stop-date",
    "start-time",
    "time",
    "RequestId",
    "entered-time",
    "snf_role_arn",
    "sfn_role_arn",
    "activity_arn",
    "map_run_arn",
    "execution-arn",
    "RandomNumberGenerated",
    "generated-uuid",
];

pub struct Unify {
    bound: BTreeMap<String, String>,
    pub diffs: Vec<String>,
    words: Vec<String>,
    hole: Regex,
}

impl Unify {
    pub fn new(words: &[&str]) -> Unify {
        let mut hole = "<[A-Za-z][^<>{}\n]{0,60}>|111111111111|snf_role_arn|sfn_role_arn|activity_arn".to_owned();
        let mut longest_first: Vec<&str> = words.to_vec();
        longest_first.sort_by_key(|w| std::cmp::Reverse(w.len()));
        for word in &longest_first {
            hole.push('|');
            hole.push_str(&regex::escape(word));
        }
        Unify {
            bound: BTreeMap::new(),
            diffs: Vec::new(),
            words: words.iter().map(|w| (*w).to_owned()).collect(),
            hole: Regex::new(&hole).unwrap(),
        }
    }

    pub fn run(&mut self, want: &Value, got: &Value, path: &str) {
        let read = match got {
            Value::String(text) if !want.is_string() && text.starts_with(['{', '[']) => serde_json::from_str(text).ok(),
            _ => None,
        };
        let got = read.as_ref().unwrap_or(got);
        match (want, got) {
            (Value::String(w), _) if LOOSE.contains(&w.as_str()) || self.words.contains(w) => {}
            (Value::Object(w), Value::Object(g)) => self.objects(w, g, path),
            (Value::Array(w), Value::Array(g)) if w.iter().any(|e| e["id"].is_array()) => self.any_order(w, g, path),
            (Value::Array(w), Value::Array(g)) => {
                if w.len() != g.len() {
                    self.diffs.push(format!("{path}: {} entries recorded, got {}", w.len(), g.len()));
                }
                for (at, (w, g)) in w.iter().zip(g).enumerate() {
                    self.run(w, g, &format!("{path}[{at}]"));
                }
            }
            (Value::String(w), Value::String(g)) => {
                if !self.text(w, g) {
                    self.diffs.push(format!("{path}: aws {w:?} | got {g:?}"));
                }
            }
            _ if same_number(want, got) => {}
            _ => self.diffs.push(format!("{path}: aws {want} | got {got}")),
        }
    }

    fn objects(&mut self, want: &serde_json::Map<String, Value>, got: &serde_json::Map<String, Value>, path: &str) {
        for (key, w) in want {
            match got.get(key) {
                Some(g) => self.run(w, g, &format!("{path}.{key}")),
                None => self.diffs.push(format!("missing {path}.{key}")),
            }
        }
        for (key, g) in got.iter().filter(|(key, _)| !want.contains_key(*key)) {
            self.diffs.push(format!("more {path}.{key}: {g}"));
        }
    }

    /// Histories of Parallel states are recorded sorted and without ids.
    fn any_order(&mut self, want: &[Value], got: &[Value], path: &str) {
        let plain = |event: &Value| {
            let mut event = event.clone();
            if let Value::Object(fields) = &mut event {
                fields.remove("id");
                fields.remove("previousEventId");
            }
            event
        };
        let mut left: Vec<Value> = got.iter().map(plain).collect();
        for w in want.iter().map(plain) {
            let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
            let found = left.iter().position(|g| {
                let mut trial = Unify::new(&words);
                trial.bound = self.bound.clone();
                trial.run(&w, g, path);
                trial.diffs.is_empty()
            });
            match found {
                Some(at) => drop_at(&mut left, at),
                None => self.diffs.push(format!("{path}: no event like {w}")),
            }
        }
        // The recording lost this one.
        left.retain(|event| event["type"] != "ParallelStateSucceeded");
        self.diffs.extend(left.iter().map(|event| format!("more {path}: {event}")));
    }

    fn text(&mut self, want: &str, got: &str) -> bool {
        if want == got {
            return true;
        }
        let (mut pattern, mut names, mut last) = ("(?s)^".to_owned(), Vec::new(), 0);
        for found in self.hole.find_iter(want) {
            pattern.push_str(&regex::escape(&want[last..found.start()]));
            pattern.push_str("(.+?)");
            names.push(found.as_str().to_owned());
            last = found.end();
        }
        if names.is_empty() {
            return false;
        }
        pattern.push_str(&regex::escape(&want[last..]));
        pattern.push('$');
        let Some(captures) = Regex::new(&pattern).unwrap().captures(got) else { return false };
        names.into_iter().zip(captures.iter().skip(1).flatten()).all(|(name, value)| {
            self.bound.entry(name).or_insert_with(|| value.as_str().to_owned()).as_str() == value.as_str()
        })
    }
}

fn drop_at(list: &mut Vec<Value>, at: usize) {
    list.remove(at);
}

fn same_number(want: &Value, got: &Value) -> bool {
    want == got || want.as_f64().is_some() && want.as_f64() == got.as_f64()
}

/// JSON objects that travel as texts are recorded as objects.
pub fn decoded(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), decoded(v))).collect(),
        Value::Array(items) => items.iter().map(decoded).collect(),
        Value::String(text) if text.starts_with('{') => serde_json::from_str(text).unwrap_or_else(|_| value.clone()),
        other => other.clone(),
    }
}

/// Removes what an `ignore` path names: `$..a.b`, `$..a[3].b`, `$..a..b`.
pub fn drop(value: &mut Value, path: &str) {
    let step = Regex::new(r"\.\.|[^.\[\]]+|\[(?:\d+|\*)\]").unwrap();
    let steps: Vec<&str> = step.find_iter(&path[1..]).map(|found| found.as_str()).collect();
    drop_steps(value, &steps, false);
}

fn drop_steps(value: &mut Value, steps: &[&str], anywhere: bool) {
    let Some((head, rest)) = steps.split_first() else { return };
    if *head == ".." {
        return drop_steps(value, rest, true);
    }
    match value {
        Value::Array(items) if head.starts_with('[') => {
            let index: usize = head.trim_matches(['[', ']']).parse().unwrap();
            if let Some(item) = items.get_mut(index) {
                drop_steps(item, rest, false);
            }
        }
        Value::Object(fields) if rest.is_empty() => {
            fields.remove(*head);
        }
        Value::Object(fields) => {
            if let Some(inner) = fields.get_mut(*head) {
                drop_steps(inner, rest, false);
            }
        }
        _ => {}
    }
    if anywhere {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|v| drop_steps(v, steps, true)),
            Value::Object(fields) => fields.values_mut().for_each(|v| drop_steps(v, steps, true)),
            _ => {}
        }
    }
}
