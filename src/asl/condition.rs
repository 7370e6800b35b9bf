//! The tests of choice rules.
//!
//! A value of another type than the operator compares is no match, not an error. A path that finds nothing
//! is an error, unless the test asks whether it does (`IsPresent`).

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{ContextUse, EvalError, Jsonata, Path, Scope, parse_timestamp};

/// The test of a choice rule: a comparison, or And, Or and Not of such.
#[derive(Debug)]
pub enum Condition {
    /// `Condition` of a state in JSONata.
    Jsonata(Box<Jsonata>),
    /// `true` or `false` in such a field.
    Literal(bool),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    /// `NumericLessThan` and its like.
    Compare {
        variable: Path,
        test: Comparison,
        with: Comparand,
    },
    /// `StringMatches`.
    Matches {
        variable: Path,
        pattern: Pattern,
    },
    /// `IsString: true` and its like.
    Is {
        variable: Path,
        what: Is,
        expected: bool,
    },
}

/// What is compared, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    pub kind: Comparable,
    pub relation: Relation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparable {
    String,
    Numeric,
    Boolean,
    Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equals,
    LessThan,
    GreaterThan,
    LessThanEquals,
    GreaterThanEquals,
}

/// The other side of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparand {
    Literal(Value),
    /// A literal of a timestamp comparison.
    Moment(jiff::Timestamp),
    Path(Path),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Is {
    Null,
    Present,
    Numeric,
    String,
    Boolean,
    Timestamp,
}

impl Condition {
    pub fn test(&self, scope: &Scope) -> Result<bool, EvalError> {
        match self {
            Condition::Jsonata(expression) => Ok(expression.eval_as("boolean", scope)? == Value::Bool(true)),
            Condition::Literal(flag) => Ok(*flag),
            Condition::And(all) => {
                for condition in all {
                    if !condition.test(scope)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Condition::Or(any) => {
                for condition in any {
                    if condition.test(scope)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Condition::Not(inner) => Ok(!inner.test(scope)?),
            Condition::Compare { variable, test, with } => {
                let value = look(variable, scope)?;
                Ok(match with {
                    Comparand::Literal(literal) => test.holds(&value, literal),
                    Comparand::Moment(moment) => test.relation.holds(as_moment(&value).map(|m| m.cmp(moment))),
                    Comparand::Path(path) => test.holds(&value, look(path, scope)?.as_ref()),
                })
            }
            Condition::Matches { variable, pattern } => {
                Ok(look(variable, scope)?.as_str().is_some_and(|text| pattern.matches(text)))
            }
            Condition::Is { variable, what: Is::Present, expected } => Ok(variable.find(scope).is_ok() == *expected),
            Condition::Is { variable, what, expected } => Ok(what.holds(&*look(variable, scope)?) == *expected),
        }
    }

    /// Whether it looks at the context object.
    pub fn context_use(&self) -> ContextUse {
        match self {
            Condition::Jsonata(expression) => expression.context_use(),
            Condition::Literal(_) => ContextUse::Nothing,
            Condition::And(all) | Condition::Or(all) => ContextUse::most(all.iter().map(Condition::context_use)),
            Condition::Not(inner) => inner.context_use(),
            Condition::Matches { variable, .. } | Condition::Is { variable, .. } => variable.context_use(),
            Condition::Compare { variable, with: Comparand::Path(path), .. } => {
                variable.context_use().max(path.context_use())
            }
            Condition::Compare { variable, .. } => variable.context_use(),
        }
    }
}

fn look<'a>(path: &Path, scope: &Scope<'a>) -> Result<std::borrow::Cow<'a, Value>, EvalError> {
    let invalid = || {
        EvalError::runtime(format!(
            "Invalid path '{}': The choice state's condition path references an invalid value.",
            path.text()
        ))
    };
    let found = path.find(scope).map_err(|_| invalid())?;
    match found.as_str().is_none_or(|text| scope.spend_on_text(text)) {
        true => Ok(found),
        false => Err(invalid()),
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (self.kind, left, right) {
            (Comparable::String, Value::String(a), Value::String(b)) => Some(compare_texts(a, b)),
            (Comparable::Numeric, Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
            (Comparable::Boolean, Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Comparable::Timestamp, a, b) => as_moment(a).zip(as_moment(b)).map(|(a, b)| a.cmp(&b)),
            _ => None,
        };
        self.relation.holds(order)
    }
}

impl Relation {
    fn holds(self, order: Option<Ordering>) -> bool {
        order.is_some_and(|order| match self {
            Relation::Equals => order.is_eq(),
            Relation::LessThan => order.is_lt(),
            Relation::GreaterThan => order.is_gt(),
            Relation::LessThanEquals => order.is_le(),
            Relation::GreaterThanEquals => order.is_ge(),
        })
    }
}

impl Is {
    fn holds(self, value: &Value) -> bool {
        match self {
            Is::Null => value.is_null(),
            Is::Present => true,
            Is::Numeric => value.is_number(),
            Is::String => value.is_string(),
            Is::Boolean => value.is_boolean(),
            Is::Timestamp => as_moment(value).is_some(),
        }
    }
}

fn as_moment(value: &Value) -> Option<jiff::Timestamp> {
    parse_timestamp(value.as_str()?)
}

/// Whole numbers exactly, others as floating point: 0 equals 0.0.
pub(super) fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// Whether two values are the same, numbers by what they are worth and objects in whatever order.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_some_and(Ordering::is_eq),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// By UTF-16 code units, as Java compares.
fn compare_texts(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// A pattern of `StringMatches`: `*` stands for any text, `\*` for a star, `\\` for a backslash.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// The literal texts between the stars; one more than there are stars.
    parts: Vec<String>,
}

impl Pattern {
    pub fn new(pattern: &str) -> Pattern {
        let mut parts = vec![String::new()];
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            let literal = match c {
                '*' => {
                    parts.push(String::new());
                    continue;
                }
                '\\' => rest.next_if(|c| matches!(c, '*' | '\\')).unwrap_or(c),
                other => other,
            };
            if let Some(part) = parts.last_mut() {
                part.push(literal);
            }
        }
        Pattern { parts }
    }

    pub fn matches(&self, text: &str) -> bool {
        let (first, others) = match self.parts.split_first() {
            Some(split) => split,
            None => return text.is_empty(),
        };
        let (last, between) = match others.split_last() {
            Some(split) => split,
            None => return text == first,
        };
        // Each part as early as possible: if any way matches, this one does.
        let Some(mut rest) = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str())) else {
            return false;
        };
        for part in between {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Variables;
    use serde_json::json;

    fn compare(kind: Comparable, relation: Relation, left: Value, right: Value) -> bool {
        let condition = Condition::Compare {
            variable: Path::parse("$.l").unwrap(),
            test: Comparison { kind, relation },
            with: Comparand::Path(Path::parse("$.r").unwrap()),
        };
        let (input, context, variables) = (json!({"l": left, "r": right}), json!({}), Variables::new());
        condition.test(&Scope::new(&input, &context, &variables, 0)).unwrap()
    }

    #[test]
    fn only_values_of_the_operators_type_compare() {
        use Comparable::*;
        use Relation::*;
        assert!(compare(Numeric, Equals, json!(0), json!(0.0)));
        assert!(compare(Numeric, LessThan, json!(u64::MAX - 1), json!(u64::MAX)));
        assert!(!compare(Numeric, Equals, json!("1"), json!(1)));
        assert!(compare(String, GreaterThanEquals, json!("b"), json!("a")));
        assert!(!compare(String, Equals, json!(null), json!(null)));
        assert!(compare(Boolean, Equals, json!(false), json!(false)));
        assert!(!compare(Boolean, Equals, json!(0), json!(false)));
        assert!(compare(Timestamp, Equals, json!("2012-10-09T19:00:55+01:00"), json!("2012-10-09T18:00:55Z")));
        assert!(!compare(Timestamp, Equals, json!("2012-10-09T19:00:55"), json!("2012-10-09T19:00:55")));
    }

    #[test]
    fn a_missing_variable_is_an_error_unless_asked_for() {
        let (input, context, variables) = (json!({"a": null}), json!({}), Variables::new());
        let scope = Scope::new(&input, &context, &variables, 0);
        let is = |path: &str, what| Condition::Is { variable: Path::parse(path).unwrap(), what, expected: true };
        assert_eq!(is("$.b", Is::Present).test(&scope), Ok(false));
        assert_eq!(is("$.a", Is::Present).test(&scope), Ok(true));
        assert_eq!(is("$.a", Is::Null).test(&scope), Ok(true));
        let missed = is("$.b", Is::Null).test(&scope).unwrap_err();
        assert_eq!(missed.error, "States.Runtime");
        assert_eq!(
            missed.message,
            "Invalid path '$.b': The choice state's condition path references an invalid value."
        );
    }

    #[test]
    fn stars_stand_for_any_text_and_can_be_escaped() {
        for (pattern, text, expected) in [
            ("*.csv", "a.csv", true),
            ("log-*.txt", "log-.txt", true),
            ("log-*.txt", "log-a.txtx", false),
            ("a*b*c", "a1b2b3c", true),
            ("ab*ba", "aba", false),
            ("zebra\\*", "zebra*", true),
            ("zebra\\*", "zebra1", false),
            ("a\\\\*", "a\\x", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }
}
