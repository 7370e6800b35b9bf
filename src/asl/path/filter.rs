//! The filters of a JSONPath, `[?(…)]`: whether an item is taken.
//!
//! Comparing different kinds of values is false, not an error; a path that finds nothing equals nothing.

use std::cmp::Ordering;
use std::sync::OnceLock;

use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::Value;

use super::{ContextUse, Path, Scope, select};
use crate::condition::{compare_numbers, equal};

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    And(Box<(Filter, Filter)>),
    Or(Box<(Filter, Filter)>),
    Not(Box<Filter>),
    Compare(Operand, Operator, Operand),
    Exists(Operand),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// `@…`: below the item.
    Item(Path),
    /// `$…`.
    Path(Path),
    Literal(Value),
    Pattern(Pattern),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Matches,
    In,
    NotIn,
    Contains,
    Size,
}

/// About how many states the program of a regular expression may have: a few bytes may stand for very many.
const STATES_MAX: usize = 1 << 15;
/// Most bytes of such a program.
const PROGRAM_BYTES_MAX: usize = 8 << 20;

/// A regular expression for a whole text; two are equal if their own texts are. Its program is made when it is first used:
/// a definition may hold thousands, and its analysis none of their programs.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    program: OnceLock<Option<regex::Regex>>,
}

impl Pattern {
    /// # Errors
    /// The text is no regular expression, or one of a size beyond all use.
    pub(super) fn new(text: String) -> Result<Pattern, String> {
        let text = format!("^(?:{text})$");
        let parsed = regex_syntax::parse(&text).map_err(|e| e.to_string())?;
        if states(&parsed) > STATES_MAX {
            return Err(format!("its program would have more than {STATES_MAX} states"));
        }
        Ok(Pattern { text, program: OnceLock::new() })
    }

    fn is_match(&self, text: &str) -> bool {
        let make = || regex::RegexBuilder::new(&self.text).size_limit(PROGRAM_BYTES_MAX).build().ok();
        self.program.get_or_init(make).as_ref().is_some_and(|program| program.is_match(text))
    }
}

/// About how many states its program has.
fn states(parsed: &Hir) -> usize {
    let all = |parts: &[Hir]| parts.iter().map(states).fold(0, usize::saturating_add);
    match parsed.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Unicode(class)) => class.ranges().len(),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len(),
        HirKind::Repetition(repeated) => {
            let times = repeated.max.unwrap_or(repeated.min.saturating_add(1)).max(1);
            states(&repeated.sub).saturating_mul(times as usize)
        }
        HirKind::Capture(group) => states(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => all(parts),
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Filter {
    /// Holds for nothing once more was looked at than may be.
    pub(super) fn holds(&self, item: &Value, scope: &Scope) -> bool {
        if !scope.spend(1) {
            return false;
        }
        match self {
            Filter::And(both) => both.0.holds(item, scope) && both.1.holds(item, scope),
            Filter::Or(either) => either.0.holds(item, scope) || either.1.holds(item, scope),
            Filter::Not(inner) => !inner.holds(item, scope),
            Filter::Exists(operand) => operand.with(item, scope, |value| value.is_some()),
            Filter::Compare(left, Operator::Matches, Operand::Pattern(pattern)) => {
                left.with(item, scope, |value| value.and_then(Value::as_str).is_some_and(|s| pattern.is_match(s)))
            }
            Filter::Compare(left, operator, right) => {
                left.with(item, scope, |left| right.with(item, scope, |right| compare(left, *operator, right)))
            }
        }
    }
}

impl Filter {
    pub(super) fn context_use(&self) -> ContextUse {
        let reads = |operand: &Operand| match operand {
            Operand::Item(path) | Operand::Path(path) => path.context_use(),
            Operand::Literal(_) | Operand::Pattern(_) => ContextUse::Nothing,
        };
        match self {
            Filter::And(both) | Filter::Or(both) => both.0.context_use().max(both.1.context_use()),
            Filter::Not(inner) => inner.context_use(),
            Filter::Exists(operand) => reads(operand),
            Filter::Compare(left, _, right) => reads(left).max(reads(right)),
        }
    }
}

impl Operand {
    /// Hands on what the operand stands for; `None` where there is nothing.
    fn with<T>(&self, item: &Value, scope: &Scope, then: impl FnOnce(Option<&Value>) -> T) -> T {
        match self {
            Operand::Literal(value) => then(Some(value)),
            Operand::Pattern(_) => then(None),
            Operand::Item(path) => found(path, item, scope, then),
            Operand::Path(path) => match path.root_value(scope) {
                Ok(root) => found(path, root, scope, then),
                Err(_) => then(None),
            },
        }
    }
}

fn found<T>(path: &Path, root: &Value, scope: &Scope, then: impl FnOnce(Option<&Value>) -> T) -> T {
    if path.is_definite() {
        return then(path.find_one(root).ok().as_deref());
    }
    match select(root, path.steps(), scope) {
        Ok(values) if !values.is_empty() => then(Some(&values.into_iter().cloned().collect())),
        _ => then(None),
    }
}

fn compare(left: Option<&Value>, operator: Operator, right: Option<&Value>) -> bool {
    match operator {
        Operator::Equal => left.is_some() && same(left, right),
        Operator::NotEqual => !same(left, right),
        Operator::Less => order(left, right).is_some_and(Ordering::is_lt),
        Operator::LessOrEqual => order(left, right).is_some_and(Ordering::is_le),
        Operator::Greater => order(left, right).is_some_and(Ordering::is_gt),
        Operator::GreaterOrEqual => order(left, right).is_some_and(Ordering::is_ge),
        Operator::In => contains(right, left),
        Operator::NotIn => left.is_some() && !contains(right, left),
        Operator::Contains => contains(left, right),
        Operator::Size => match (left, right.and_then(Value::as_u64)) {
            (Some(Value::Array(items)), Some(size)) => items.len() as u64 == size,
            (Some(Value::String(text)), Some(size)) => text.chars().count() as u64 == size,
            _ => false,
        },
        Operator::Matches => false,
    }
}

fn same(left: Option<&Value>, right: Option<&Value>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => equal(left, right),
        (left, right) => left.is_none() && right.is_none(),
    }
}

fn order(left: Option<&Value>, right: Option<&Value>) -> Option<Ordering> {
    match (left?, right?) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn contains(list: Option<&Value>, item: Option<&Value>) -> bool {
    match (list, item) {
        (Some(Value::Array(items)), Some(_)) => items.iter().any(|one| same(Some(one), item)),
        (Some(Value::String(text)), Some(Value::String(part))) => text.contains(part.as_str()),
        _ => false,
    }
}
