//! Reads the text of an intrinsic call.

use serde_json::Value;

use super::format::Format;
use super::{Argument, Call, Function, Path};

/// Deepest nesting of calls (AWS: 10).
const NESTING_MAX: usize = 10;
/// Longest call, in characters (AWS allows 10,000 in a field with a function).
const TEXT_CHARS_MAX: usize = 10_000;

pub(super) fn parse(text: &str) -> Result<Call, String> {
    if text.chars().count() > TEXT_CHARS_MAX {
        return Err(format!("the call is longer than {TEXT_CHARS_MAX} characters"));
    }
    let mut cursor = Cursor { text, at: 0 };
    let call = cursor.call(1)?;
    cursor.space();
    if cursor.at < text.len() {
        return Err(cursor.unexpected("the end of the call"));
    }
    Ok(call)
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn call(&mut self, depth: usize) -> Result<Call, String> {
        if depth > NESTING_MAX {
            return Err(format!("calls are nested more than {NESTING_MAX} deep"));
        }
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len());
        let name = &rest[..length];
        let Some((_, function, least, most)) = Function::ALL.into_iter().find(|(known, ..)| *known == name) else {
            return Err(match name.is_empty() {
                true => self.unexpected("an intrinsic function"),
                false => format!("'{name}' is no intrinsic function"),
            });
        };
        self.at += length;
        self.space();
        self.expect('(')?;
        let mut arguments = Vec::new();
        self.space();
        while !self.take(')') {
            if !arguments.is_empty() {
                self.expect(',')?;
            }
            self.space();
            let template = function == Function::Format && arguments.is_empty();
            arguments.push(self.argument(template, depth)?);
            self.space();
        }
        if arguments.len() < least || arguments.len() > most {
            let wanted = if least == most { least.to_string() } else { format!("{least} or more") };
            return Err(format!("{name} takes {wanted} arguments, not {}", arguments.len()));
        }
        if let Some((Argument::Format(format), values)) = arguments.split_first()
            && format.placeholders() != values.len()
        {
            let (places, values) = (format.placeholders(), values.len());
            return Err(format!("States.Format has {places} placeholders in its template and {values} values"));
        }
        Ok(Call { function, arguments })
    }

    fn argument(&mut self, template: bool, depth: usize) -> Result<Argument, String> {
        match self.rest().chars().next() {
            Some('\'') => {
                let source = self.quoted()?;
                Ok(if template {
                    Argument::Format(Format::new(source))
                } else {
                    Argument::Literal(Value::String(unescape(source)))
                })
            }
            Some('$') => {
                let length = path_length(self.rest());
                let path = Path::parse(self.rest()[..length].trim_end())?;
                self.at += length;
                Ok(Argument::Path(path))
            }
            Some('S') => self.call(depth + 1).map(Argument::Call),
            _ => self.literal(),
        }
    }

    /// A number, true, false or null.
    fn literal(&mut self) -> Result<Argument, String> {
        let rest = self.rest();
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        match serde_json::from_str(&rest[..length]) {
            Ok(value) => {
                self.at += length;
                Ok(Argument::Literal(value))
            }
            Err(_) => Err(self.unexpected("a text in single quotes, a number, true, false, null, a path or a call")),
        }
    }

    /// The text between single quotes, its escapes still in it.
    fn quoted(&mut self) -> Result<&'t str, String> {
        let inside = &self.rest()[1..];
        let mut escaped = false;
        for (at, c) in inside.char_indices() {
            if c == '\'' && !escaped {
                self.at += at + 2;
                return Ok(&inside[..at]);
            }
            escaped = c == '\\' && !escaped;
        }
        Err(format!("a text has no closing quote in '{}'", self.text))
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, expected: char) -> bool {
        let there = self.rest().starts_with(expected);
        if there {
            self.at += expected.len_utf8();
        }
        there
    }

    fn expect(&mut self, expected: char) -> Result<(), String> {
        if self.take(expected) { Ok(()) } else { Err(self.unexpected(&format!("'{expected}'"))) }
    }

    fn unexpected(&self, expected: &str) -> String {
        let character = self.text[..self.at].chars().count() + 1;
        format!("'{}' is no intrinsic call: expected {expected} at character {character}", self.text)
    }
}

/// How far a path argument goes: to a comma or closing parenthesis outside brackets.
fn path_length(text: &str) -> usize {
    let (mut brackets, mut quote, mut escaped) = (0_u32, None, false);
    for (at, c) in text.char_indices() {
        if let Some(open) = quote {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == open {
                quote = None;
            }
            continue;
        }
        match c {
            '\'' | '"' if brackets > 0 => quote = Some(c),
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            ')' if brackets == 0 && !text[..at].ends_with('(') => return at,
            ',' if brackets == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// Takes the backslash from `\'`, `\\`, `\{` and `\}`; before anything else it stands for itself.
fn unescape(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => text.push(rest.next_if(|next| "'\\{}".contains(*next)).unwrap_or('\\')),
            other => text.push(other),
        }
    }
    text
}
