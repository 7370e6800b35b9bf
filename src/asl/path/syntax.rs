//! Reads the text of a JSONPath.
//!
//! Recursion happens only in the parentheses of filters and is bounded by [`NESTING_MAX`].

use super::filter::{Filter, Operand, Operator, Pattern};
use super::{Path, Root, Step};

/// Deepest nesting of parentheses and paths in a filter.
const NESTING_MAX: usize = 16;
/// Most `..` in one path: each multiplies the work by the depth of the data.
const DESCENTS_MAX: usize = 4;
/// Longest path, in bytes: AWS has no longer fields than a definition, people have none longer than this.
const PATH_BYTES_MAX: usize = 8_192;

pub(super) fn parse(text: &str) -> Result<Path, String> {
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("the path is longer than {PATH_BYTES_MAX} bytes"));
    }
    let mut cursor = Cursor { text, at: 0, nesting: 0 };
    let path = cursor.path()?;
    if cursor.at < text.len() {
        return Err(cursor.unexpected("the end of the path"));
    }
    Ok(path)
}

struct Cursor<'t> {
    text: &'t str,
    at: usize,
    nesting: usize,
}

impl Cursor<'_> {
    /// `$`, `$$` or `$name`, and steps.
    fn path(&mut self) -> Result<Path, String> {
        let start = self.at;
        self.expect('$')?;
        let root = if self.take("$") {
            Root::Context
        } else {
            match self.word() {
                "" => Root::Input,
                name => Root::Variable(name.to_owned()),
            }
        };
        let steps = self.steps()?;
        Ok(finish(&self.text[start..self.at], root, steps))
    }

    fn steps(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            if self.take("..") {
                steps.push(Step::Descend);
                if steps.iter().filter(|step| **step == Step::Descend).count() > DESCENTS_MAX {
                    return Err(format!("'{}' has more than {DESCENTS_MAX} '..'", self.text));
                }
                if self.peek() == Some('[') {
                    continue;
                }
                steps.push(self.dotted()?);
            } else if self.take(".") {
                // `$.['a']` is `$['a']`.
                if self.peek() == Some('[') {
                    continue;
                }
                steps.push(self.dotted()?);
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else if matches!(steps.last(), Some(Step::Descend)) {
                return Err(self.unexpected("a field after '..'"));
            } else {
                steps.shrink_to_fit();
                return Ok(steps);
            }
        }
    }

    /// What follows a dot: `*` or a field's name.
    fn dotted(&mut self) -> Result<Step, String> {
        if self.take("*") {
            return Ok(Step::Wildcard);
        }
        let start = self.at;
        while let Some(c) = self.peek() {
            // `name()` is a field of that name, as AWS takes it.
            if c == '(' && self.text[self.at..].starts_with("()") && self.at > start {
                self.at += 2;
                break;
            }
            if c.is_whitespace() || ".[]()?,*@'\"=<>!&|~{}".contains(c) {
                break;
            }
            self.at += c.len_utf8();
        }
        if self.at == start {
            return Err(self.unexpected("a field's name"));
        }
        Ok(Step::Key(self.text[start..self.at].to_owned()))
    }

    /// What stands in `[…]`; the opening bracket is taken.
    fn bracket(&mut self) -> Result<Step, String> {
        self.space();
        let step = match self.peek() {
            Some('*') => {
                self.at += 1;
                Step::Wildcard
            }
            Some('?') => {
                self.at += 1;
                self.space();
                self.expect('(')?;
                let filter = self.any_of()?;
                self.space();
                self.expect(')')?;
                Step::Filter(Box::new(filter))
            }
            Some('\'' | '"') => self.keys()?,
            _ => self.numbers()?,
        };
        self.space();
        self.expect(']')?;
        Ok(step)
    }

    fn keys(&mut self) -> Result<Step, String> {
        let mut keys = vec![self.quoted()?];
        while self.comma() {
            self.space();
            keys.push(self.quoted()?);
        }
        Ok(if keys.len() == 1 { Step::Key(keys.remove(0)) } else { Step::Keys(keys) })
    }

    /// An index, a list of indexes, or a slice.
    fn numbers(&mut self) -> Result<Step, String> {
        let first = self.integer()?;
        self.space();
        if self.take(":") {
            self.space();
            let end = self.integer()?;
            self.space();
            let mut stride = 1;
            if self.take(":") {
                self.space();
                stride = self
                    .integer()?
                    .map_or(Some(1), |n| usize::try_from(n).ok().filter(|n| *n > 0))
                    .ok_or_else(|| format!("the step of a slice must be positive in '{}'", self.text))?;
            }
            return Ok(Step::Slice { start: first, end, stride });
        }
        let mut indexes = vec![first.ok_or_else(|| self.unexpected("an index, a slice, a field's name or a filter"))?];
        while self.comma() {
            self.space();
            indexes.push(self.integer()?.ok_or_else(|| self.unexpected("an index"))?);
        }
        Ok(if indexes.len() == 1 { Step::Index(indexes[0]) } else { Step::Indexes(indexes) })
    }

    fn any_of(&mut self) -> Result<Filter, String> {
        let mut filter = self.all_of()?;
        loop {
            self.space();
            if !self.take("||") {
                return Ok(filter);
            }
            filter = Filter::Or(Box::new((filter, self.all_of()?)));
        }
    }

    fn all_of(&mut self) -> Result<Filter, String> {
        let mut filter = self.test()?;
        loop {
            self.space();
            if !self.take("&&") {
                return Ok(filter);
            }
            filter = Filter::And(Box::new((filter, self.test()?)));
        }
    }

    /// `!…`, `(…)`, a comparison, or a path alone.
    fn test(&mut self) -> Result<Filter, String> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(format!("a filter is nested more than {NESTING_MAX} deep"));
        }
        self.space();
        let filter = if self.peek() == Some('!') && !self.text[self.at..].starts_with("!=") {
            self.at += 1;
            Filter::Not(Box::new(self.test()?))
        } else if self.take("(") {
            let filter = self.any_of()?;
            self.space();
            self.expect(')')?;
            filter
        } else {
            let left = self.operand()?;
            self.space();
            match self.operator() {
                Some(operator) => {
                    self.space();
                    Filter::Compare(left, operator, self.operand()?)
                }
                None => Filter::Exists(left),
            }
        };
        self.nesting -= 1;
        Ok(filter)
    }

    fn operator(&mut self) -> Option<Operator> {
        const WRITTEN: [(&str, Operator); 13] = [
            ("===", Operator::Equal),
            ("!==", Operator::NotEqual),
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("=~", Operator::Matches),
            ("<", Operator::Less),
            (">", Operator::Greater),
            ("in ", Operator::In),
            ("nin ", Operator::NotIn),
            ("contains ", Operator::Contains),
            ("size ", Operator::Size),
        ];
        WRITTEN.into_iter().find(|(text, _)| self.take(text)).map(|(_, operator)| operator)
    }

    fn operand(&mut self) -> Result<Operand, String> {
        match self.peek() {
            Some('@') => {
                let start = self.at;
                self.at += 1;
                let steps = self.nested(Cursor::steps)?;
                Ok(Operand::Item(finish(&self.text[start..self.at], Root::Input, steps)))
            }
            Some('$') => self.nested(Cursor::path).map(Operand::Path),
            Some('\'' | '"') => self.quoted().map(|text| Operand::Literal(text.into())),
            Some('/') => self.regex(),
            Some('[') => self.nested(Cursor::list),
            _ => self.literal(),
        }
    }

    /// Runs something that may come back here, within the bound.
    fn nested<T>(&mut self, read: fn(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(format!("a filter is nested more than {NESTING_MAX} deep"));
        }
        let read = read(self)?;
        self.nesting -= 1;
        Ok(read)
    }

    fn list(&mut self) -> Result<Operand, String> {
        self.expect('[')?;
        let mut items = Vec::new();
        self.space();
        while !self.take("]") {
            if !items.is_empty() {
                self.expect(',')?;
                self.space();
            }
            match self.operand()? {
                Operand::Literal(item) => items.push(item),
                _ => return Err(format!("a list in a filter holds only literals in '{}'", self.text)),
            }
            self.space();
        }
        Ok(Operand::Literal(items.into()))
    }

    fn regex(&mut self) -> Result<Operand, String> {
        self.expect('/')?;
        let mut pattern = String::new();
        loop {
            match self.next() {
                Some('/') => break,
                Some('\\') if self.peek() == Some('/') => {
                    self.at += 1;
                    pattern.push('/');
                }
                Some(c) => pattern.push(c),
                None => return Err(self.unexpected("'/' at the end of a pattern")),
            }
        }
        let flags = self.word();
        let flags: String = flags.chars().filter(|c| "ismx".contains(*c)).collect();
        let pattern = if flags.is_empty() { pattern } else { format!("(?{flags}){pattern}") };
        let refused = |e| format!("'{pattern}' is no regular expression: {e}");
        Pattern::new(pattern.clone()).map(Operand::Pattern).map_err(refused)
    }

    /// A number, true, false or null.
    fn literal(&mut self) -> Result<Operand, String> {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        match serde_json::from_str::<serde_json::Value>(&rest[..length]) {
            Ok(value) => {
                self.at += length;
                Ok(Operand::Literal(value))
            }
            Err(_) => Err(self.unexpected("a path, a number, a quoted text, true, false or null")),
        }
    }

    /// A quoted text. A backslash escapes the quote and itself; before anything else it stands for itself.
    fn quoted(&mut self) -> Result<String, String> {
        let quote = match self.next() {
            Some(quote @ ('\'' | '"')) => quote,
            _ => return Err(self.unexpected("a quoted text")),
        };
        let mut text = String::new();
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(text),
                Some('\\') => match self.peek() {
                    Some(c) if c == quote || c == '\\' => {
                        self.at += c.len_utf8();
                        text.push(c);
                    }
                    _ => text.push('\\'),
                },
                Some(c) => text.push(c),
                None => return Err(self.unexpected("a closing quote")),
            }
        }
    }

    fn integer(&mut self) -> Result<Option<i64>, String> {
        let rest = &self.text[self.at..];
        let sign = usize::from(rest.starts_with('-'));
        let length = sign + rest[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - sign);
        if length == sign {
            return Ok(None);
        }
        let number = rest[..length].parse().map_err(|_| format!("the index {} is too large", &rest[..length]))?;
        self.at += length;
        Ok(Some(number))
    }

    /// Letters, digits and underscores from here, such as a variable's name.
    fn word(&mut self) -> &str {
        let start = self.at;
        while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
            self.at += c.len_utf8();
        }
        &self.text[start..self.at]
    }

    fn comma(&mut self) -> bool {
        self.space();
        self.take(",")
    }

    fn space(&mut self) {
        while self.peek() == Some(' ') {
            self.at += 1;
        }
    }

    fn take(&mut self, expected: &str) -> bool {
        let there = self.text[self.at..].starts_with(expected);
        if there {
            self.at += expected.len();
        }
        there
    }

    fn expect(&mut self, expected: char) -> Result<(), String> {
        if self.peek() == Some(expected) {
            self.at += expected.len_utf8();
            return Ok(());
        }
        Err(self.unexpected(&format!("'{expected}'")))
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn unexpected(&self, expected: &str) -> String {
        format!("'{}' is no JSONPath: expected {expected} at character {}", self.text, {
            self.text[..self.at].chars().count() + 1
        })
    }
}

fn finish(text: &str, root: Root, steps: Vec<Step>) -> Path {
    let last = steps.len().saturating_sub(1);
    let definite = steps.iter().enumerate().all(|(at, step)| match step {
        Step::Key(_) | Step::Index(_) => true,
        Step::Keys(_) => at == last,
        _ => false,
    });
    Path { text: text.into(), root, steps, definite }
}
