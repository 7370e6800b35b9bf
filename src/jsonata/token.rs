//! From an expression's text to tokens.

use super::fault::{Fault, Result, quoted};
use super::pattern::Pattern;

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub kind: TokenKind,
    /// In bytes.
    pub at: usize,
}

#[derive(Clone, Debug)]
pub(super) enum TokenKind {
    Operator(&'static str),
    Name(String),
    /// Without its `$`.
    Variable(String),
    Text(String),
    Number(f64),
    Bool(bool),
    Null,
    Pattern(Box<Pattern>),
    End,
}

/// Longest first where one begins with another.
const OPERATORS: [&str; 33] = [
    "..", ":=", "!=", ">=", "<=", "**", "~>", ".", "[", "]", "{", "}", "(", ")", ",", "@", "#", ";", ":", "?", "+",
    "-", "*", "/", "%", "|", "=", "<", ">", "^", "&", "!", "~",
];

pub(super) struct Tokens<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Tokens<'t> {
    pub(super) fn new(text: &'t str) -> Tokens<'t> {
        Tokens { text, at: 0 }
    }

    /// The next token. After an operand a slash divides; elsewhere it begins a regular expression.
    pub(super) fn next(&mut self, after_operand: bool) -> Result<Token> {
        self.skip_blanks()?;
        let at = self.at;
        let rest = &self.text[at..];
        let Some(first) = rest.chars().next() else { return Ok(Token { kind: TokenKind::End, at }) };
        if first == '/' && !after_operand {
            self.at += 1;
            let pattern = self.pattern()?;
            return Ok(Token { kind: TokenKind::Pattern(Box::new(pattern)), at });
        }
        if let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
            self.at += operator.len();
            return Ok(Token { kind: TokenKind::Operator(operator), at });
        }
        let kind = match first {
            '"' | '\'' => self.quoted(first)?,
            '`' => match rest[1..].find('`') {
                Some(end) => {
                    self.at += end + 2;
                    TokenKind::Name(rest[1..=end].to_owned())
                }
                None => {
                    let message = "Quoted property name must be terminated with a backquote (`)";
                    return Err(Fault::new("S0105", self.text.len(), message));
                }
            },
            '0'..='9' => self.number()?,
            _ => self.word(),
        };
        Ok(Token { kind, at })
    }

    fn skip_blanks(&mut self) -> Result<()> {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("/*") {
                return Ok(());
            }
            match trimmed[2..].find("*/") {
                Some(end) => self.at += end + 4,
                None => return Err(Fault::new("S0106", self.at, "Comment has no closing tag")),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<TokenKind> {
        let mut units: Vec<u16> = Vec::new();
        let mut chars = self.text[self.at + 1..].char_indices();
        let start = self.at + 1;
        let mut buffer = [0; 2];
        while let Some((offset, c)) = chars.next() {
            if c == quote {
                self.at = start + offset + c.len_utf8();
                return Ok(TokenKind::Text(String::from_utf16_lossy(&units)));
            }
            if c != '\\' {
                units.extend_from_slice(c.encode_utf16(&mut buffer));
                continue;
            }
            let Some((offset, escape)) = chars.next() else { break };
            let plain = match escape {
                '"' | '\\' | '/' => escape,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let hex: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                    let unit = u16::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == 4 && !hex.starts_with('+'));
                    let Some(unit) = unit else {
                        let message = "The escape sequence \\u must be followed by 4 hex digits";
                        return Err(Fault::new("S0104", start + offset, message));
                    };
                    units.push(unit);
                    continue;
                }
                other => {
                    let message = format!("Unsupported escape sequence: \\{}", quoted(&other.to_string()));
                    return Err(Fault::new("S0103", start + offset, message));
                }
            };
            units.extend_from_slice(plain.encode_utf16(&mut buffer));
        }
        Err(Fault::new("S0101", self.text.len(), "String literal must be terminated by a matching quote"))
    }

    fn number(&mut self) -> Result<TokenKind> {
        let bytes = &self.text.as_bytes()[self.at..];
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut end = if bytes[0] == b'0' { 1 } else { digits(0) };
        if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
            end += 1 + digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if bytes.len() > end + 1 + sign && digits(end + 1 + sign) > 0 {
                end += 1 + sign + digits(end + 1 + sign);
            }
        }
        let text = &self.text[self.at..self.at + end];
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                self.at += end;
                Ok(TokenKind::Number(number))
            }
            _ => Err(Fault::new("S0102", self.at, format!("Number out of range: {}", quoted(text)))),
        }
    }

    /// A name, variable or keyword: up to a blank or whatever may begin an operator.
    fn word(&mut self) -> TokenKind {
        const STOPS: &str = " \t\n\r\u{b}.[]{}(),@#;:?+-*/%|=<>^&!~";
        let rest = &self.text[self.at..];
        let length = rest.find(|c| STOPS.contains(c)).unwrap_or(rest.len());
        self.at += length;
        let word = &rest[..length];
        match word {
            "and" => TokenKind::Operator("and"),
            "or" => TokenKind::Operator("or"),
            "in" => TokenKind::Operator("in"),
            "true" => TokenKind::Bool(true),
            "false" => TokenKind::Bool(false),
            "null" => TokenKind::Null,
            _ => match word.strip_prefix('$') {
                Some(name) => TokenKind::Variable(name.to_owned()),
                None => TokenKind::Name(word.to_owned()),
            },
        }
    }

    /// A regular expression; its first slash is taken.
    fn pattern(&mut self) -> Result<Pattern> {
        let bytes = self.text.as_bytes();
        let (start, mut depth, mut escaped) = (self.at, 0_i64, false);
        let end = loop {
            match bytes.get(self.at) {
                None => return Err(Fault::new("S0302", self.at, "No terminating / in regular expression")),
                Some(b'/') if depth == 0 && !escaped => break self.at,
                Some(b'(' | b'[' | b'{') if !escaped => depth += 1,
                Some(b')' | b']' | b'}') if !escaped => depth -= 1,
                _ => {}
            }
            escaped = bytes.get(self.at) == Some(&b'\\') && !escaped;
            self.at += 1;
        };
        if end == start {
            return Err(Fault::new("S0301", start, "Empty regular expressions are not allowed"));
        }
        self.at = end + 1;
        let flags = bytes[self.at..].iter().take_while(|b| matches!(b, b'i' | b'm')).count();
        let flags_text = &self.text[self.at..self.at + flags];
        self.at += flags;
        Pattern::new(&self.text[start..end], flags_text.contains('i'), flags_text.contains('m'))
            .map_err(|reason| Fault::new("S0303", start, format!("Invalid regular expression: {reason}")))
    }
}
