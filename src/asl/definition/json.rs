//! A JSON reader that keeps the position of every value, for messages that say where.
//!
//! Strict JSON. Faults are worded as Jackson words them, which is what AWS shows. Recursion is bounded by
//! [`JSON_DEPTH_MAX`].

use conveyor_base::limits::JSON_DEPTH_MAX;
use serde_json::{Map, Number, Value};

use crate::template::Segment;

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    /// In bytes.
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Node>),
    /// In the order written; a name may stand twice.
    Object(Vec<Member>),
}

#[derive(Debug)]
pub(super) struct Member {
    /// Where the name begins.
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) value: Node,
}

/// What is wrong with a text that is no JSON.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    /// Without the place.
    pub(super) message: String,
    /// `[Source: (String)"…"; line: 1, column: 4]`.
    pub(super) source: String,
}

impl Node {
    /// Without the positions. Of two fields of one name the last is kept.
    pub(super) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(flag) => Value::Bool(*flag),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::String(text) => Value::String(text.clone()),
            Kind::Array(items) => items.iter().map(Node::to_value).collect(),
            Kind::Object(members) => {
                let mut fields = Map::with_capacity(members.len());
                fields.extend(members.iter().map(|member| (member.name.clone(), member.value.to_value())));
                Value::Object(fields)
            }
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads one JSON document.
pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0 };
    let node = reader.value(0)?;
    reader.space();
    match reader.peek() {
        None => Ok(node),
        Some(c) => Err(reader.unexpected(c, "expected the end of the document")),
    }
}

/// Line and column of a byte, both from 1, the column in characters.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.bytes().filter(|byte| *byte == b'\n').count() + 1, before[start..].chars().count() + 1)
}

/// Where what stands in a text, for whoever asks of many places in it.
pub(super) struct Positions<'t> {
    text: &'t str,
    /// Where each line begins.
    lines: Vec<usize>,
    /// How many characters stand before each block.
    blocks: Vec<usize>,
}

const BLOCK_BYTES: usize = 1_024;

impl<'t> Positions<'t> {
    pub(super) fn of(text: &'t str) -> Positions<'t> {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let mut before = 0;
        let counted = text.as_bytes().chunks(BLOCK_BYTES).map(|block| {
            before += characters(block);
            before
        });
        let blocks = std::iter::once(0).chain(counted).collect();
        Positions { text, lines: std::iter::once(0).chain(newlines).collect(), blocks }
    }

    /// As [`line_and_column`].
    pub(super) fn line_and_column(&self, at: usize) -> (usize, usize) {
        let at = if self.text.is_char_boundary(at) { at } else { self.text.len() };
        let line = self.lines.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|before| self.lines.get(before)).copied().unwrap_or(0);
        (line, self.before(at) - self.before(start) + 1)
    }

    fn before(&self, at: usize) -> usize {
        let block = at / BLOCK_BYTES;
        self.blocks.get(block).copied().unwrap_or(0) + characters(&self.text.as_bytes()[block * BLOCK_BYTES..at])
    }
}

/// How many characters begin in a part of a text.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

/// The way to the value that begins at a byte, the value, and where it or its name begins.
pub(super) fn locate(document: &Node, at: usize) -> (Vec<Segment>, &Node, usize) {
    let (mut node, mut place, mut begin) = (document, Vec::new(), document.at);
    while node.at != at {
        match &node.kind {
            Kind::Array(items) => {
                let Some(index) = items.partition_point(|item| item.at <= at).checked_sub(1) else { break };
                place.push(Segment::Index(index));
                (node, begin) = (&items[index], items[index].at);
            }
            Kind::Object(members) => {
                let Some(index) = members.partition_point(|member| member.value.at <= at).checked_sub(1) else { break };
                let member = &members[index];
                place.push(Segment::Key(member.name.as_str().into()));
                (node, begin) = (&member.value, member.at);
            }
            _ => break,
        }
    }
    (place, node, begin)
}

const VALUES: &str = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        self.space();
        let at = self.at;
        if depth > JSON_DEPTH_MAX {
            let message = format!("Document nesting depth ({depth}) exceeds the maximum allowed ({JSON_DEPTH_MAX})");
            return Err(self.fault(at, message));
        }
        let kind = match self.peek() {
            Some('{') => Kind::Object(self.object(depth)?),
            Some('[') => Kind::Array(self.array(depth)?),
            Some('"') => Kind::String(self.string()?),
            Some('-' | '0'..='9') => Kind::Number(self.number()?),
            Some(c) if c.is_alphabetic() || c == '_' || c == '$' => self.token()?,
            Some(c) => return Err(self.unexpected(c, &format!("expected a valid value {VALUES}"))),
            None => return Err(self.fault(at, "No content to map due to end-of-input")),
        };
        Ok(Node { at, kind })
    }

    fn object(&mut self, depth: usize) -> Result<Vec<Member>, Fault> {
        let start = self.at;
        self.at += 1;
        let mut members = Vec::new();
        self.space();
        if self.take(b'}') {
            return Ok(members);
        }
        loop {
            self.space();
            let at = self.at;
            match self.peek() {
                Some('"') => {}
                Some(c) => return Err(self.unexpected(c, "was expecting double-quote to start field name")),
                None => return Err(self.unclosed("Object", start)),
            }
            let name = self.string()?;
            self.space();
            match self.peek() {
                Some(':') => self.at += 1,
                Some(c) => return Err(self.unexpected(c, "was expecting a colon to separate field name and value")),
                None => return Err(self.unclosed("Object", start)),
            }
            self.space();
            if self.peek().is_none() {
                return Err(self.unclosed("Object", start));
            }
            let value = self.value(depth + 1)?;
            members.push(Member { at, name, value });
            self.space();
            match self.peek() {
                Some(',') => self.at += 1,
                Some('}') => {
                    self.at += 1;
                    return Ok(members);
                }
                Some(c) => return Err(self.unexpected(c, "was expecting comma to separate Object entries")),
                None => return Err(self.unclosed("Object", start)),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let start = self.at;
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(items);
        }
        loop {
            self.space();
            if self.peek().is_none() {
                return Err(self.unclosed("Array", start));
            }
            items.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(',') => self.at += 1,
                Some(']') => {
                    self.at += 1;
                    return Ok(items);
                }
                Some(c) => return Err(self.unexpected(c, "was expecting comma to separate Array entries")),
                None => return Err(self.unclosed("Array", start)),
            }
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let start = self.at;
        self.at += 1;
        let mut plain = true;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    self.at += 1;
                    match self.peek() {
                        Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' | 'u') => self.at += 1,
                        Some(c) => {
                            let message = format!("Unrecognized character escape '{c}' (code {})", u32::from(c));
                            return Err(self.fault(self.at + c.len_utf8(), message));
                        }
                        None => {}
                    }
                }
                Some(byte) if *byte < 0x20 => {
                    let message = format!(
                        "Illegal unquoted character ((CTRL-CHAR, code {byte})): has to be escaped using backslash to be \
                         included in string value"
                    );
                    return Err(self.fault(self.at + 1, message));
                }
                Some(_) => self.at += 1,
                None => {
                    let message = "Unexpected end-of-input: was expecting closing quote for a string value";
                    return Err(self.fault(self.at, message));
                }
            }
        }
        self.at += 1;
        if plain {
            return Ok(self.text[start + 1..self.at - 1].to_owned());
        }
        let written = &self.text[start..self.at];
        serde_json::from_str(written)
            .map_err(|_| self.fault(self.at, format!("Illegal escape in the string {written}")))
    }

    fn number(&mut self) -> Result<Number, Fault> {
        let start = self.at;
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        let written = &self.text[start..self.at];
        let digits = written.trim_start_matches('-');
        if digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit() {
            return Err(self.fault(start + 1, "Invalid numeric value: Leading zeroes not allowed"));
        }
        serde_json::from_str(written).map_err(|_| self.fault(self.at, format!("Invalid numeric value: {written}")))
    }

    /// `null`, `true` or `false`.
    fn token(&mut self) -> Result<Kind, Fault> {
        let start = self.at;
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_' || *c == '$') {
            self.at += c.len_utf8();
        }
        match &self.text[start..self.at] {
            "null" => Ok(Kind::Null),
            "true" => Ok(Kind::Bool(true)),
            "false" => Ok(Kind::Bool(false)),
            other => Err(self.fault(self.at, format!("Unrecognized token '{other}': was expecting {VALUES}"))),
        }
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    /// Jackson has read the character when it complains about it.
    fn unexpected(&self, c: char, expected: &str) -> Fault {
        let message = format!("Unexpected character ('{c}' (code {})): {expected}", u32::from(c));
        self.fault(self.at + c.len_utf8(), message)
    }

    fn unclosed(&self, what: &str, start: usize) -> Fault {
        let marker = self.source(start);
        self.fault(
            self.at,
            format!("Unexpected end-of-input: expected close marker for {what} (start marker at {marker})"),
        )
    }

    fn fault(&self, at: usize, message: impl Into<String>) -> Fault {
        Fault { at, message: message.into(), source: self.source(at) }
    }

    /// Jackson's name of a place. It shows 500 characters of the text at most.
    fn source(&self, at: usize) -> String {
        const SHOWN: usize = 500;
        let (line, column) = line_and_column(self.text, at);
        let (text, rest) = match self.text.char_indices().nth(SHOWN) {
            Some((end, _)) => (&self.text[..end], self.text[end..].chars().count()),
            None => (self.text, 0),
        };
        let cut = if rest > 0 { format!("[truncated {rest} chars]") } else { String::new() };
        format!("[Source: (String)\"{text}\"{cut}; line: {line}, column: {column}]")
    }
}
