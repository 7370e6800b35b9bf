//! A TOML document that is read into a type with *all* its faults, each with its line.
//!
//! serde stops at the first fault. So what it complained about is taken out of the parsed document and the rest is
//! read again, until nothing is left to complain about. What follows only from a part that was taken out (a required
//! key that stood there with a wrong type) is not reported again.

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

/// Faults after which reading gives up: a file of that many is no configuration.
const FAULTS_MAX: usize = 100;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentFault {
    /// From 1; none where the file does not name what is wrong.
    pub line: Option<usize>,
    pub what: String,
}

impl fmt::Display for DocumentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// What could be read.
pub struct Document<T> {
    /// Without the parts that have faults; none where nothing could be made of it.
    pub value: Option<T>,
    pub faults: Vec<DocumentFault>,
    /// The keys that were taken out, such as `watch[0].settle`. Behind a whole item that was taken out, as in
    /// `watch[1]`, the numbers of the others are no longer those of the file.
    pub taken_out: Vec<String>,
}

/// Reads a document.
pub fn read<T: DeserializeOwned>(text: &str) -> Document<T> {
    let (mut root, syntax) = DeTable::parse_recoverable(text);
    let faults = syntax.iter().map(|e| DocumentFault { line: line(text, e.span()), what: one_line(e.message()) });
    let mut read = Document { value: None, faults: faults.collect(), taken_out: Vec::new() };
    // What was recovered from broken syntax is a guess: faults in it would be guesses too.
    if !read.faults.is_empty() {
        return read;
    }
    while read.faults.len() < FAULTS_MAX {
        let error = match T::deserialize(Deserializer::from(root.clone())) {
            Ok(value) => {
                read.value = Some(value);
                break;
            }
            Err(error) => error,
        };
        let taken = error.span().and_then(|span| take_out(root.get_mut(), &span, ""));
        let followed = missing_field(error.message()).zip(taken.as_ref());
        if !followed.is_some_and(|(field, table)| read.taken_out.contains(&join(table, field))) {
            let place = taken.as_deref().map(|key| format!("{key}: ")).unwrap_or_default();
            let what = format!("{place}{}", one_line(error.message()));
            read.faults.push(DocumentFault { line: line(text, error.span()), what });
        }
        match taken {
            Some(key) => read.taken_out.push(key),
            None => break,
        }
    }
    read.faults.sort_by_key(|fault| fault.line);
    read
}

/// The line on which a key such as `watch[1].settle` stands, or the nearest table around it.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut found: Option<Range<usize>> = None;
    let mut table = root.get_ref();
    let mut rest = key;
    loop {
        // Keys may hold dots themselves, so the longest that fits is the one that is meant.
        let fitting = table.iter().filter(|(name, _)| starts_with_key(rest, name.get_ref()));
        let Some((name, value)) = fitting.max_by_key(|(name, _)| name.get_ref().len()) else { break };
        found = Some(name.span());
        rest = &rest[name.get_ref().len()..];
        let mut value = value;
        while let Some((number, after)) = index(rest) {
            let Some(item) = value.get_ref().as_array().and_then(|items| items.get(number)) else { break };
            (value, rest, found) = (item, after, Some(item.span()));
        }
        let Some(inner) = value.get_ref().as_table() else { break };
        (table, rest) = (inner, rest.strip_prefix('.').unwrap_or(rest));
    }
    line(text, found)
}

fn starts_with_key(rest: &str, name: &str) -> bool {
    rest.strip_prefix(name).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
}

fn index(rest: &str) -> Option<(usize, &str)> {
    let (number, after) = rest.strip_prefix('[')?.split_once(']')?;
    Some((number.parse().ok()?, after))
}

/// Takes out the deepest entry that stands at the span; returns its key.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>, prefix: &str) -> Option<String> {
    for (name, value) in table.iter_mut() {
        let key = join(prefix, name.get_ref());
        match value.get_mut() {
            DeValue::Table(inner) => {
                if let Some(taken) = take_out(inner, span, &key) {
                    return Some(taken);
                }
            }
            DeValue::Array(items) => {
                if let Some(taken) = take_out_of_array(items, span, &key) {
                    return Some(taken);
                }
            }
            _ => {}
        }
    }
    let (name, _) = table.iter().find(|(name, value)| name.span() == *span || value.span() == *span)?;
    let name = name.clone();
    table.remove(&name);
    Some(join(prefix, name.get_ref()))
}

fn take_out_of_array(items: &mut DeArray<'_>, span: &Range<usize>, key: &str) -> Option<String> {
    for (n, item) in items.iter_mut().enumerate() {
        if let DeValue::Table(inner) = item.get_mut()
            && let Some(taken) = take_out(inner, span, &format!("{key}[{n}]"))
        {
            return Some(taken);
        }
    }
    let at = items.iter().position(|item| item.span() == *span)?;
    let mut kept = DeArray::new();
    for (_, item) in items.iter().enumerate().filter(|(n, _)| *n != at) {
        kept.push(item.clone());
    }
    *items = kept;
    Some(format!("{key}[{at}]"))
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

fn line(text: &str, span: Option<Range<usize>>) -> Option<usize> {
    let start = span?.start.min(text.len());
    Some(text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_on_its_line_or_on_that_of_the_table_around_it() {
        let text = "a = 1\n[shares.in-x]\npath = 'p'\n[[watch]]\nshare = 'a'\n[[watch]]\nshare = 'b'\n";
        for (key, line) in [
            ("a", Some(1)),
            ("shares.in-x.path", Some(3)),
            ("shares.in-x.serve", Some(2)),
            ("watch[1].share", Some(7)),
            ("watch[1].settle", Some(6)),
            ("nothing", None),
        ] {
            assert_eq!(line_of(text, key), line, "{key}");
        }
    }
}
