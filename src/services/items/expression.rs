//! The text of DynamoDB's condition and update expressions, and its parts: tokens, paths, placeholders.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::value;

/// A path into an item: `a.b[2].c`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentPath(pub Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Name(String),
    Index(usize),
}

impl DocumentPath {
    /// The value there, or none.
    pub fn get<'a>(&self, item: &'a value::Item) -> Option<&'a Value> {
        let mut parts = self.0.iter();
        let Some(Part::Name(first)) = parts.next() else { return None };
        let mut value = item.get(first)?;
        for part in parts {
            value = match part {
                Part::Name(name) => value.get("M")?.get(name)?,
                Part::Index(n) => value.get("L")?.get(n)?,
            };
        }
        Some(value)
    }

    /// The top-level attribute.
    pub fn attribute(&self) -> &str {
        match self.0.first() {
            Some(Part::Name(name)) => name,
            _ => "",
        }
    }

    pub fn overlaps(&self, other: &DocumentPath) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// As DynamoDB's messages write paths: `[a, b]`.
    pub fn listed(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|p| match p {
                Part::Name(n) => n.clone(),
                Part::Index(n) => format!("[{n}]"),
            })
            .collect();
        format!("[{}]", parts.join(", "))
    }
}

/// `ExpressionAttributeNames` and `ExpressionAttributeValues`, and which of them were used.
#[derive(Debug, Default)]
pub struct Placeholders {
    names: Map<String, Value>,
    values: Map<String, Value>,
    used: RefCell<BTreeSet<String>>,
}

impl Placeholders {
    /// Reads and checks those of a request; the error is DynamoDB's sentence.
    pub fn of(request: &Value) -> Result<Placeholders, String> {
        let names = request.get("ExpressionAttributeNames").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut values = Map::new();
        for (name, v) in request.get("ExpressionAttributeValues").and_then(Value::as_object).into_iter().flatten() {
            let checked = value::check(v)
                .map_err(|e| format!("ExpressionAttributeValues contains invalid value: {e} for key {name}"))?;
            values.insert(name.clone(), checked);
        }
        Ok(Placeholders { names, values, used: RefCell::default() })
    }

    fn name(&self, placeholder: &str, kind: &str) -> Result<String, String> {
        self.used.borrow_mut().insert(placeholder.to_owned());
        self.names.get(placeholder).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
            format!(
                "Invalid {kind}: An expression attribute name used in the document path is not defined; attribute name: {placeholder}"
            )
        })
    }

    fn value(&self, placeholder: &str, kind: &str) -> Result<Value, String> {
        self.used.borrow_mut().insert(placeholder.to_owned());
        self.values.get(placeholder).cloned().ok_or_else(|| {
            format!(
                "Invalid {kind}: An expression attribute value used in expression is not defined; attribute value: {placeholder}"
            )
        })
    }

    /// DynamoDB refuses placeholders that no expression names.
    pub fn all_used(&self) -> Result<(), String> {
        let used = self.used.borrow();
        let left = |keys: &mut dyn Iterator<Item = &String>| -> String {
            keys.filter(|k| !used.contains(*k)).cloned().collect::<Vec<_>>().join(", ")
        };
        let values = left(&mut self.values.keys());
        if !values.is_empty() {
            return Err(format!(
                "Value provided in ExpressionAttributeValues unused in expressions: keys: {{{values}}}"
            ));
        }
        let names = left(&mut self.names.keys());
        if !names.is_empty() {
            return Err(format!("Value provided in ExpressionAttributeNames unused in expressions: keys: {{{names}}}"));
        }
        Ok(())
    }
}

/// One word or sign of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A name, a keyword or a number.
    Word(String),
    /// `#name`
    Name(String),
    /// `:value`
    Value(String),
    Sign(&'static str),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Token::Word(t) | Token::Name(t) | Token::Value(t) => t,
            Token::Sign(t) => t,
        }
    }
}

/// Reads an expression token by token. `kind` is `UpdateExpression` or `ConditionExpression`, for messages.
pub struct Reader<'a> {
    tokens: Vec<Token>,
    at: usize,
    pub kind: &'static str,
    pub placeholders: &'a Placeholders,
    depth: usize,
}

/// Deepest nesting of brackets in an expression.
const DEPTH_MAX: usize = 50;

impl<'a> Reader<'a> {
    pub fn new(text: &str, kind: &'static str, placeholders: &'a Placeholders) -> Result<Reader<'a>, String> {
        let tokens = tokens(text).map_err(|token| syntax(kind, &token, text))?;
        if tokens.is_empty() {
            return Err(format!("Invalid {kind}: The expression can not be empty;"));
        }
        Ok(Reader { tokens, at: 0, kind, placeholders, depth: 0 })
    }

    pub fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    pub fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    pub fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    /// Takes the sign if it comes next.
    pub fn sign(&mut self, sign: &str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(hit);
        hit
    }

    /// Takes the keyword if it comes next; keywords have no case.
    pub fn word(&mut self, word: &str) -> bool {
        let hit = matches!(self.peek(), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
        self.at += usize::from(hit);
        hit
    }

    pub fn expect(&mut self, sign: &str) -> Result<(), String> {
        if self.sign(sign) { Ok(()) } else { Err(self.wrong()) }
    }

    /// The function's name, where a name with an opening bracket comes next; the bracket is taken too.
    pub fn function(&mut self) -> Option<String> {
        match (self.tokens.get(self.at), self.tokens.get(self.at + 1)) {
            (Some(Token::Word(w)), Some(Token::Sign("("))) => {
                let name = w.clone();
                self.at += 2;
                Some(name)
            }
            _ => None,
        }
    }

    pub fn path(&mut self) -> Result<DocumentPath, String> {
        let mut parts = vec![self.path_name()?];
        loop {
            if self.sign(".") {
                parts.push(self.path_name()?);
            } else if self.sign("[") {
                let index = match self.next() {
                    Some(Token::Word(w)) => w.parse().map_err(|_| self.wrong_before())?,
                    _ => return Err(self.wrong_before()),
                };
                self.expect("]")?;
                parts.push(Part::Index(index));
            } else {
                return Ok(DocumentPath(parts));
            }
        }
    }

    fn path_name(&mut self) -> Result<Part, String> {
        match self.next() {
            Some(Token::Word(w)) if !w.starts_with(|c: char| c.is_ascii_digit()) => Ok(Part::Name(w)),
            Some(Token::Name(n)) => self.placeholders.name(&n, self.kind).map(Part::Name),
            _ => Err(self.wrong_before()),
        }
    }

    /// The value of a placeholder, where one comes next.
    pub fn value(&mut self) -> Result<Option<Value>, String> {
        match self.peek().cloned() {
            Some(Token::Value(v)) => {
                self.at += 1;
                self.placeholders.value(&v, self.kind).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Goes one bracket deeper; hostile nesting is refused instead of overflowing the stack.
    pub fn enter(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("Invalid {}: The expression is nested too deeply", self.kind));
        }
        Ok(())
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// The complaint about the token that comes next.
    pub fn wrong(&self) -> String {
        self.complain(self.at)
    }

    fn wrong_before(&self) -> String {
        self.complain(self.at.saturating_sub(1))
    }

    fn complain(&self, at: usize) -> String {
        let token = self.tokens.get(at).map_or("<EOF>", Token::text);
        let near: Vec<&str> = self.tokens.iter().skip(at.saturating_sub(1)).take(3).map(Token::text).collect();
        syntax(self.kind, token, &near.join(" "))
    }
}

fn syntax(kind: &str, token: &str, near: &str) -> String {
    format!("Invalid {kind}: Syntax error; token: \"{token}\", near: \"{near}\"")
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    const SIGNS: &[&str] = &["<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "+", "-"];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word_len = |s: &str| s.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(s.len());
        if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            tokens.push(Token::Sign(sign));
            rest = &rest[sign.len()..];
        } else if first == '#' || first == ':' {
            let end = 1 + word_len(&rest[1..]);
            let token = rest[..end].to_owned();
            tokens.push(if first == '#' { Token::Name(token) } else { Token::Value(token) });
            rest = &rest[end..];
        } else if first.is_alphanumeric() || first == '_' {
            let end = word_len(rest);
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            return Err(first.to_string());
        }
        rest = rest.trim_start();
    }
    Ok(tokens)
}
