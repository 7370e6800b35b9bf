//! What is wrong with a definition, with its place.

use std::fmt;

use super::template::{Segment, cut};

/// One fault of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// AWS's code, such as `SCHEMA_VALIDATION_FAILED`.
    pub code: &'static str,
    /// What is wrong, in AWS's words where AWS has words for it.
    pub message: String,
    /// Where: a JSON pointer such as `/States/Wait a bit/Seconds`; empty for the whole document.
    pub pointer: String,
    /// The place as AWS writes it in `location`: `/States/Choose/Choices[0]`, `/` for the whole document.
    /// Often the object around the field. Some problems have none.
    pub location: Option<String>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The definition is refused.
    Error,
    /// The definition runs; something in it is probably not meant.
    Warning,
}

/// `12:7: /States/A/Next: …`; who knows the file puts its name and a colon before it.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        f.write_str(&self.message)
    }
}

/// All problems in one line, as AWS puts them between the quotes of
/// `Invalid State Machine Definition: '…'`.
pub fn describe(problems: &[Problem]) -> String {
    let one = |problem: &Problem| {
        format!("{}: {} at {}", problem.code, problem.message, problem.location.as_deref().unwrap_or("null"))
    };
    problems.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Most bytes of one text of a problem: names of any length would be said again and again.
pub(super) const TEXT_BYTES_MAX: usize = 4_096;

/// A place as a JSON pointer (RFC 6901).
pub(super) fn pointer(place: &[Segment]) -> String {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    written(place, |segment, text| match segment {
        Segment::Key(key) => text.push_str(&format!("/{}", escaped(head(key)))),
        Segment::Index(index) => text.push_str(&format!("/{index}")),
    })
}

/// A place as AWS writes it.
pub(super) fn location(place: &[Segment]) -> String {
    let text = written(place, |segment, text| match segment {
        Segment::Key(key) => text.extend(["/", head(key)]),
        Segment::Index(index) => text.push_str(&format!("[{index}]")),
    });
    if text.is_empty() { String::from("/") } else { text }
}

fn written(place: &[Segment], write: impl Fn(&Segment, &mut String)) -> String {
    let mut text = String::new();
    for segment in place {
        write(segment, &mut text);
        if text.len() > TEXT_BYTES_MAX {
            break;
        }
    }
    cut(text, TEXT_BYTES_MAX)
}

/// No more of a name than can be shown of a text.
fn head(key: &str) -> &str {
    let end = (0..=(TEXT_BYTES_MAX + 4).min(key.len())).rev().find(|at| key.is_char_boundary(*at)).unwrap_or(0);
    &key[..end]
}
