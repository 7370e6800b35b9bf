//! Regular expressions of an expression: JavaScript's spelling for an engine that never backtracks.
//!
//! Look-around and back references have no place there; an expression that uses them is refused.

use super::regular::{Regular, RegularFlags};

#[derive(Clone, Debug)]
pub(super) struct Pattern {
    regular: Regular,
}

/// One match, in bytes.
pub(super) struct Found {
    pub start: usize,
    pub end: usize,
    pub groups: Vec<Option<String>>,
}

impl Pattern {
    pub(super) fn new(source: &str, ignore_case: bool, multi_line: bool) -> Result<Pattern, String> {
        Ok(Pattern { regular: Regular::new(translated(source), RegularFlags { ignore_case, multi_line })? })
    }

    /// The first match at or after a place.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<Found> {
        let captures = self.regular.program()?.captures_at(text, from)?;
        let whole = captures.get(0)?;
        let groups = captures.iter().skip(1).map(|group| group.map(|g| g.as_str().to_owned())).collect();
        Some(Found { start: whole.start(), end: whole.end(), groups })
    }
}

/// JavaScript's classes are ASCII, and `[`, `&` and `~` are nothing special within brackets.
fn translated(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut in_class = false;
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, in_class) {
            ('\\', _) => match (chars.next(), in_class) {
                (Some('d'), false) => text.push_str("[0-9]"),
                (Some('D'), false) => text.push_str("[^0-9]"),
                (Some('w'), false) => text.push_str("[A-Za-z0-9_]"),
                (Some('W'), false) => text.push_str("[^A-Za-z0-9_]"),
                (Some('b'), false) => text.push_str("(?-u:\\b)"),
                (Some('d'), true) => text.push_str("0-9"),
                (Some('w'), true) => text.push_str("A-Za-z0-9_"),
                (Some('/'), _) => text.push('/'),
                (Some(other), _) => text.extend(['\\', other]),
                (None, _) => text.push('\\'),
            },
            ('[', false) => {
                in_class = true;
                text.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    text.push('^');
                }
            }
            (']', true) => {
                in_class = false;
                text.push(']');
            }
            ('[' | '&' | '~', true) => text.extend(['\\', c]),
            _ => text.push(c),
        }
    }
    text
}
