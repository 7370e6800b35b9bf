//! From tokens to a syntax tree, by operator precedence.
//!
//! The tree is as written; [`super::tree`] makes paths, predicates and groups out of it. Nesting is bounded, so
//! that no later walk over the tree can exhaust the stack.

use super::fault::{Fault, Result, quoted};
use super::pattern::Pattern;
use super::signature::Signature;
use super::token::{Token, TokenKind, Tokens};

/// Deepest tree: of brackets within brackets, and of operators in a row.
pub(super) const DEPTH_MAX: usize = 128;

pub(super) struct Raw {
    pub at: usize,
    pub kind: RawKind,
    /// `[]` stands behind it.
    pub keep_array: bool,
    depth: usize,
}

pub(super) type Pairs = Vec<(Raw, Raw)>;

pub(super) enum RawKind {
    Name(String),
    Variable(String),
    Text(String),
    Number(f64),
    Bool(bool),
    Null,
    Pattern(Box<Pattern>),
    /// `?` for an argument that is left open.
    Open,
    /// Where something should have been.
    End,
    Wildcard,
    Descendants,
    Parent,
    /// Also `.`, `[`, `@`, `#`, `:=`, `~>` and `..`.
    Binary(&'static str, Box<Raw>, Box<Raw>),
    Group(Box<Raw>, Pairs),
    Sort(Box<Raw>, Vec<(bool, Raw)>),
    Negate(Box<Raw>),
    Array(Vec<Raw>),
    Object(Pairs),
    Block(Vec<Raw>),
    Call(Box<Raw>, Vec<Raw>),
    Partial(Box<Raw>, Vec<Raw>),
    Lambda(Vec<String>, Option<Box<Signature>>, Box<Raw>),
    Condition(Box<Raw>, Box<Raw>, Option<Box<Raw>>),
    Transform(Box<Raw>, Box<Raw>, Option<Box<Raw>>),
}

/// Reads an expression.
pub(super) fn parse(text: &str) -> Result<Raw> {
    let mut parser = Parser { tokens: Tokens::new(text), token: Token { kind: TokenKind::End, at: 0 }, depth: 0 };
    parser.advance(false)?;
    let raw = parser.expression(0)?;
    match parser.token.kind {
        TokenKind::End => Ok(raw),
        _ => {
            let message = format!("Syntax error: {}", parser.token.shown());
            Err(Fault::new("S0201", parser.token.at, message))
        }
    }
}

struct Parser<'t> {
    tokens: Tokens<'t>,
    token: Token,
    depth: usize,
}

/// How strongly an operator binds to what stands before it.
fn binding_power(kind: &TokenKind) -> usize {
    let TokenKind::Operator(operator) = kind else { return 0 };
    match *operator {
        "." => 75,
        "[" | "(" | "@" | "#" => 80,
        "{" => 70,
        "*" | "/" | "%" => 60,
        "+" | "-" | "&" => 50,
        "=" | "!=" | "<" | ">" | "<=" | ">=" | "^" | "~>" | "in" => 40,
        "and" => 30,
        "or" => 25,
        "?" => 20,
        ":=" => 10,
        _ => 0,
    }
}

impl Token {
    /// As messages show it.
    fn shown(&self) -> String {
        match &self.kind {
            TokenKind::Operator(text) => quoted(text),
            TokenKind::Name(text) | TokenKind::Variable(text) | TokenKind::Text(text) => quoted(text),
            TokenKind::Number(number) => super::value::number_text(*number),
            TokenKind::Bool(flag) => flag.to_string(),
            TokenKind::Null => String::from("null"),
            TokenKind::Pattern(_) => String::from("{}"),
            TokenKind::End => String::from("\"(end)\""),
        }
    }
}

impl Parser<'_> {
    fn advance(&mut self, after_operand: bool) -> Result<Token> {
        let next = self.tokens.next(after_operand)?;
        if let TokenKind::Operator(operator @ ("!" | "~")) = next.kind {
            return Err(Fault::new("S0204", next.at, format!("Unknown operator: {}", quoted(operator))));
        }
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn is(&self, operator: &str) -> bool {
        matches!(self.token.kind, TokenKind::Operator(found) if found == operator)
    }

    fn expect(&mut self, operator: &str, after_operand: bool) -> Result<()> {
        if self.is(operator) {
            return self.advance(after_operand).map(drop);
        }
        let (at, wanted) = (self.token.at, quoted(operator));
        Err(match self.token.kind {
            TokenKind::End => Fault::new("S0203", at, format!("Expected {wanted} before end of expression")),
            _ => Fault::new("S0202", at, format!("Expected {wanted}, got {}", self.token.shown())),
        })
    }

    fn expression(&mut self, power: usize) -> Result<Raw> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(too_deep(self.token.at));
        }
        let first = self.advance(true)?;
        let mut left = self.operand(first)?;
        while power < binding_power(&self.token.kind) {
            let operator = self.advance(false)?;
            left = self.operation(operator, left)?;
            if left.depth > DEPTH_MAX {
                return Err(too_deep(left.at));
            }
        }
        self.depth -= 1;
        Ok(left)
    }

    /// What begins an expression.
    fn operand(&mut self, token: Token) -> Result<Raw> {
        let at = token.at;
        let kind = match token.kind {
            TokenKind::Name(name) => RawKind::Name(name),
            TokenKind::Variable(name) => RawKind::Variable(name),
            TokenKind::Text(text) => RawKind::Text(text),
            TokenKind::Number(number) => RawKind::Number(number),
            TokenKind::Bool(flag) => RawKind::Bool(flag),
            TokenKind::Null => RawKind::Null,
            TokenKind::Pattern(pattern) => RawKind::Pattern(pattern),
            TokenKind::End => RawKind::End,
            TokenKind::Operator(operator) => match operator {
                "and" | "or" | "in" => RawKind::Name(operator.to_owned()),
                "*" => RawKind::Wildcard,
                "**" => RawKind::Descendants,
                "%" => RawKind::Parent,
                "-" => RawKind::Negate(Box::new(self.expression(70)?)),
                "(" => RawKind::Block(self.block()?),
                "[" => RawKind::Array(self.array()?),
                "{" => RawKind::Object(self.pairs()?),
                "|" => self.transform()?,
                _ => {
                    let message = format!("The symbol {} cannot be used as a unary operator", quoted(operator));
                    return Err(Fault::new("S0211", at, message));
                }
            },
        };
        Ok(Raw::new(at, kind))
    }

    /// What goes on behind an operand.
    fn operation(&mut self, token: Token, left: Raw) -> Result<Raw> {
        let at = token.at;
        let TokenKind::Operator(operator) = token.kind else { return Ok(left) };
        let kind = match operator {
            "(" => self.call(left)?,
            "[" if self.is("]") => {
                let mut left = left;
                left.keep();
                self.advance(false)?;
                return Ok(left);
            }
            "[" => {
                let index = self.expression(0)?;
                self.expect("]", true)?;
                RawKind::Binary("[", Box::new(left), Box::new(index))
            }
            "{" => RawKind::Group(Box::new(left), self.pairs()?),
            "^" => self.sort(left)?,
            "?" => {
                let then = self.expression(0)?;
                let other = match self.is(":") {
                    true => {
                        self.advance(false)?;
                        Some(Box::new(self.expression(0)?))
                    }
                    false => None,
                };
                RawKind::Condition(Box::new(left), Box::new(then), other)
            }
            ":=" => {
                if !matches!(left.kind, RawKind::Variable(_)) {
                    let message = "The left side of := must be a variable name (start with $)";
                    return Err(Fault::new("S0212", left.at, message));
                }
                RawKind::Binary(":=", Box::new(left), Box::new(self.expression(9)?))
            }
            "@" | "#" => {
                let right = self.expression(80)?;
                if !matches!(right.kind, RawKind::Variable(_)) {
                    let symbol = quoted(operator);
                    let message = format!("The right side of {symbol} must be a variable name (start with $)");
                    return Err(Fault::new("S0214", right.at, message));
                }
                RawKind::Binary(operator, Box::new(left), Box::new(right))
            }
            _ => {
                let right = self.expression(binding_power(&TokenKind::Operator(operator)))?;
                RawKind::Binary(operator, Box::new(left), Box::new(right))
            }
        };
        Ok(Raw::new(at, kind))
    }

    fn block(&mut self) -> Result<Vec<Raw>> {
        let mut expressions = Vec::new();
        while !self.is(")") {
            expressions.push(self.expression(0)?);
            if !self.is(";") {
                break;
            }
            self.advance(false)?;
        }
        self.expect(")", true)?;
        Ok(expressions)
    }

    fn array(&mut self) -> Result<Vec<Raw>> {
        let mut items = Vec::new();
        while !self.is("]") || !items.is_empty() {
            let mut item = self.expression(0)?;
            if self.is("..") {
                let at = self.advance(false)?.at;
                let to = self.expression(0)?;
                item = Raw::new(at, RawKind::Binary("..", Box::new(item), Box::new(to)));
            }
            items.push(item);
            if !self.is(",") {
                break;
            }
            self.advance(false)?;
        }
        self.expect("]", true)?;
        Ok(items)
    }

    /// What stands between the braces of an object or a group.
    fn pairs(&mut self) -> Result<Pairs> {
        let mut pairs = Vec::new();
        while !self.is("}") || !pairs.is_empty() {
            let key = self.expression(0)?;
            self.expect(":", false)?;
            pairs.push((key, self.expression(0)?));
            if !self.is(",") {
                break;
            }
            self.advance(false)?;
        }
        self.expect("}", true)?;
        Ok(pairs)
    }

    fn sort(&mut self, left: Raw) -> Result<RawKind> {
        self.expect("(", false)?;
        let mut terms = Vec::new();
        loop {
            let descending = self.is(">");
            if descending || self.is("<") {
                self.advance(false)?;
            }
            terms.push((descending, self.expression(0)?));
            if !self.is(",") {
                break;
            }
            self.advance(false)?;
        }
        self.expect(")", false)?;
        Ok(RawKind::Sort(Box::new(left), terms))
    }

    fn transform(&mut self) -> Result<RawKind> {
        let pattern = self.expression(0)?;
        self.expect("|", false)?;
        let update = self.expression(0)?;
        let delete = match self.is(",") {
            true => {
                self.advance(false)?;
                Some(Box::new(self.expression(0)?))
            }
            false => None,
        };
        self.expect("|", false)?;
        Ok(RawKind::Transform(Box::new(pattern), Box::new(update), delete))
    }

    fn call(&mut self, left: Raw) -> Result<RawKind> {
        let (mut arguments, mut open) = (Vec::new(), false);
        while !self.is(")") || !arguments.is_empty() {
            if self.is("?") {
                open = true;
                arguments.push(Raw::new(self.token.at, RawKind::Open));
                self.advance(false)?;
            } else {
                arguments.push(self.expression(0)?);
            }
            if !self.is(",") {
                break;
            }
            self.advance(false)?;
        }
        self.expect(")", true)?;
        match &left.kind {
            RawKind::Name(name) if name == "function" || name == "λ" => self.lambda(arguments),
            _ if open => Ok(RawKind::Partial(Box::new(left), arguments)),
            _ => Ok(RawKind::Call(Box::new(left), arguments)),
        }
    }

    fn lambda(&mut self, arguments: Vec<Raw>) -> Result<RawKind> {
        let mut names = Vec::with_capacity(arguments.len());
        for (index, argument) in arguments.into_iter().enumerate() {
            match argument.kind {
                RawKind::Variable(name) => names.push(name),
                _ => {
                    let number = index + 1;
                    let message =
                        format!("Parameter {number} of function definition must be a variable name (start with $)");
                    return Err(Fault::new("S0208", argument.at, message));
                }
            }
        }
        let signature = if self.is("<") { Some(Box::new(self.signature()?)) } else { None };
        self.expect("{", false)?;
        let body = self.expression(0)?;
        self.expect("}", false)?;
        Ok(RawKind::Lambda(names, signature, Box::new(body)))
    }

    fn signature(&mut self) -> Result<Signature> {
        let (at, mut depth, mut text) = (self.token.at, 1, String::from("<"));
        while depth > 0 && !self.is("{") && !matches!(self.token.kind, TokenKind::End) {
            self.advance(false)?;
            match &self.token.kind {
                TokenKind::Operator(operator) => {
                    depth += i32::from(*operator == "<") - i32::from(*operator == ">");
                    text.push_str(operator);
                }
                TokenKind::Name(name) => text.push_str(name),
                _ => {}
            }
        }
        self.expect(">", false)?;
        Signature::parse(&text).map_err(|mut fault| {
            fault.at = at;
            fault
        })
    }
}

fn too_deep(at: usize) -> Box<Fault> {
    Fault::new("", at, format!("The expression is nested more than {DEPTH_MAX} deep"))
}

impl Raw {
    fn new(at: usize, kind: RawKind) -> Raw {
        let depth = 1 + kind.deepest();
        Raw { at, kind, keep_array: false, depth }
    }

    /// `[]` stands behind it: kept by what its predicates stand behind.
    fn keep(&mut self) {
        match &mut self.kind {
            RawKind::Binary("[", left, _) => left.keep(),
            _ => self.keep_array = true,
        }
    }
}

impl RawKind {
    fn deepest(&self) -> usize {
        let pairs = |pairs: &Pairs| pairs.iter().map(|(a, b)| a.depth.max(b.depth)).max().unwrap_or(0);
        let list = |list: &[Raw]| list.iter().map(|raw| raw.depth).max().unwrap_or(0);
        let maybe = |raw: &Option<Box<Raw>>| raw.as_ref().map_or(0, |raw| raw.depth);
        match self {
            RawKind::Binary(_, a, b) => a.depth.max(b.depth),
            RawKind::Group(raw, fields) => raw.depth.max(pairs(fields)),
            RawKind::Sort(raw, terms) => terms.iter().map(|(_, term)| term.depth).max().unwrap_or(0).max(raw.depth),
            RawKind::Negate(raw) | RawKind::Lambda(_, _, raw) => raw.depth,
            RawKind::Array(items) | RawKind::Block(items) => list(items),
            RawKind::Object(fields) => pairs(fields),
            RawKind::Call(raw, items) | RawKind::Partial(raw, items) => raw.depth.max(list(items)),
            RawKind::Condition(a, b, c) | RawKind::Transform(a, b, c) => a.depth.max(b.depth).max(maybe(c)),
            _ => 0,
        }
    }
}
