//! Which rules led to an event: what keeps a rule from starting itself for ever.
//!
//! Written into the trace header of the executions that rules start, as AWS's own loop detection has it:
//! `Root=1-…;Lineage=1a2b3c4d:2|5e6f7081:1`, a digest of each rule's name and how often it was passed.

use std::collections::BTreeMap;
use std::fmt;

const KEY: &str = "Lineage=";
/// Longest trace header (AWS: 256).
const HEADER_CHARS_MAX: usize = 256;

/// How often each rule was passed on the way here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage(BTreeMap<String, u32>);

impl Lineage {
    pub fn of_trace_header(header: Option<&str>) -> Lineage {
        let part = header.and_then(|header| header.split(';').find_map(|part| part.trim().strip_prefix(KEY)));
        part.map(Lineage::read).unwrap_or_default()
    }

    pub fn read(text: &str) -> Lineage {
        let entries = text.split('|').filter_map(|entry| entry.split_once(':'));
        Lineage(entries.filter_map(|(rule, times)| Some((rule.to_owned(), times.parse().ok()?))).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often it passed this rule.
    pub fn times(&self, rule: &str) -> u32 {
        self.0.get(&digest(rule)).copied().unwrap_or(0)
    }

    /// Once more through this rule.
    pub fn with(&self, rule: &str) -> Lineage {
        let mut lineage = self.clone();
        *lineage.0.entry(digest(rule)).or_default() += 1;
        lineage
    }

    /// `None` for an empty one. One that is too long for a header is a chain that no longer can be followed: it is
    /// shortened to its most frequent rules, which are those that go round.
    pub fn trace_header(&self, root: &str) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let hex: String = root.chars().filter(char::is_ascii_hexdigit).take(32).collect();
        let (time, rest) = hex.split_at(hex.len().min(8));
        let mut entries: Vec<(&String, &u32)> = self.0.iter().collect();
        entries.sort_by(|a, b| b.1.cmp(a.1));
        let mut header = format!("Root=1-{time}-{rest};{KEY}");
        for (n, (rule, times)) in entries.into_iter().enumerate() {
            let entry = format!("{}{rule}:{times}", if n == 0 { "" } else { "|" });
            if header.len() + entry.len() <= HEADER_CHARS_MAX {
                header.push_str(&entry);
            }
        }
        Some(header)
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (rule, times)) in self.0.iter().enumerate() {
            write!(f, "{}{rule}:{times}", if n == 0 { "" } else { "|" })?;
        }
        Ok(())
    }
}

fn digest(rule: &str) -> String {
    blake3::hash(rule.as_bytes()).to_hex()[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_goes_through_a_trace_header() {
        let lineage = Lineage::default().with("a").with("b").with("a");
        let header = lineage.trace_header("315c1398-40ff-a850-213b-158f73e60175").unwrap();
        assert!(header.starts_with("Root=1-315c1398-40ffa850213b158f73e60175;Lineage="), "{header}");
        let back = Lineage::of_trace_header(Some(&header));
        assert_eq!((&back, back.times("a"), back.times("b"), back.times("c")), (&lineage, 2, 1, 0));
        assert_eq!(Lineage::read(&lineage.to_string()), lineage);
        assert_eq!(Lineage::of_trace_header(Some("Root=1-2;Sampled=1")), Lineage::default());
        let many = (0..100).fold(lineage, |lineage, n| lineage.with(&n.to_string()));
        let header = many.trace_header("x").unwrap();
        assert!(header.len() <= HEADER_CHARS_MAX && Lineage::of_trace_header(Some(&header)).times("a") == 2);
    }
}
