//! JSONPath as AWS takes it: compiled once, evaluated without copying more than its result.
//!
//! A *definite* path (keys and single indexes only) names one place and gives the value there, or fails
//! with a reason. An *indefinite* one (wildcard, slice, union, filter, `..`) gives an array of what it
//! finds, which is empty where nothing is found, also where an earlier key is missing.
//!
//! Functions such as `length()` do not exist: AWS takes them for field names, and so they are here.

mod filter;
mod syntax;

use std::borrow::Cow;
use std::fmt::Write;

use conveyor_base::limits;
use serde_json::Value;

use super::{ContextUse, EvalError, Scope};
use filter::Filter;

/// Most values that a path may find on its way. A payload of the largest size holds fewer.
const FOUND_MAX: usize = limits::PAYLOAD_BYTES_MAX;
/// Of a path that would take more work than the evaluations of its state may.
const TOO_MUCH: &str = "The path looks at more values than one state may";

/// A JSONPath.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    text: Box<str>,
    root: Root,
    steps: Vec<Step>,
    definite: bool,
}

/// Where a path begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Root {
    /// `$`.
    Input,
    /// `$$`.
    Context,
    /// `$name`.
    Variable(String),
}

/// One step from a value to values below it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(i64),
    /// `['a','b']`: at the end of a path an object of these fields, before that each of them.
    Keys(Vec<String>),
    Indexes(Vec<i64>),
    Slice {
        start: Option<i64>,
        end: Option<i64>,
        stride: usize,
    },
    Wildcard,
    Filter(Box<Filter>),
    /// `..`: the value and all that is below it; the next step is tried on each.
    Descend,
}

impl Path {
    /// Reads a path. The error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Path, String> {
        syntax::parse(text)
    }

    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        self.get(scope).map(Cow::into_owned)
    }

    /// As [`Path::eval`], without a copy where the value stands in the scope as it is.
    /// Fails with the wording of `InputPath` and `OutputPath`.
    pub fn get<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, EvalError> {
        if self.is_below_nothing(scope) {
            return Err(nothing_to_apply_to());
        }
        self.find(scope).map_err(|reason| EvalError::runtime(format!("Invalid path '{}' : {reason}", self.text)))
    }

    /// As [`Path::get`], for fields that word a miss themselves: the error is the reason alone, such as
    /// `No results for path: $['a']['b']`.
    pub fn find<'a>(&self, scope: &Scope<'a>) -> Result<Cow<'a, Value>, String> {
        let root = self.root_value(scope)?;
        if self.definite {
            return match scope.spend(self.steps.len()) {
                true => self.find_one(root),
                false => Err(TOO_MUCH.to_owned()),
            };
        }
        let found = select(root, &self.steps, scope)?;
        match found.iter().all(|value| scope.take_room(value)) {
            true => Ok(Cow::Owned(Value::Array(found.into_iter().cloned().collect()))),
            false => Err("The path finds more data than any result may hold".to_owned()),
        }
    }

    /// As written in the definition.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it names one place at most.
    pub fn is_definite(&self) -> bool {
        self.definite
    }

    /// What it reads of the context object, also in a filter.
    pub fn context_use(&self) -> ContextUse {
        let own = match (&self.root, &self.steps[..]) {
            (Root::Input | Root::Variable(_), _) => ContextUse::Nothing,
            (Root::Context, [Step::Key(part), ..]) if part != "Execution" => ContextUse::Parts,
            (Root::Context, [Step::Key(_), Step::Key(field), ..]) if field != "Input" => ContextUse::Parts,
            (Root::Context, _) => ContextUse::Whole,
        };
        self.steps.iter().fold(own, |most, step| match step {
            Step::Filter(filter) => most.max(filter.context_use()),
            _ => most,
        })
    }

    /// The name of the variable that it reads.
    pub fn variable(&self) -> Option<&str> {
        match &self.root {
            Root::Variable(name) => Some(name),
            Root::Input | Root::Context => None,
        }
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The value that the root stands for; messages show it as "the input".
    pub(super) fn root_value<'a>(&self, scope: &Scope<'a>) -> Result<&'a Value, String> {
        match &self.root {
            Root::Input => Ok(scope.input),
            Root::Context => Ok(scope.context),
            Root::Variable(name) => match scope.variables.get(name) {
                Some(value) => Ok(value.as_ref()),
                None => Err(format!("Variable '${name}' is not defined")),
            },
        }
    }

    /// AWS refuses to look below an input that is null.
    pub(super) fn is_below_nothing(&self, scope: &Scope) -> bool {
        self.root == Root::Input && !self.steps.is_empty() && scope.input.is_null()
    }

    fn find_one<'a>(&self, root: &'a Value) -> Result<Cow<'a, Value>, String> {
        let mut value = root;
        for (at, step) in self.steps.iter().enumerate() {
            let next = match step {
                Step::Key(key) => match value {
                    Value::Object(fields) => fields.get(key),
                    _ => return Err(format!("Property ['{key}'] not found in path {}", self.prefix(at))),
                },
                Step::Index(index) => match value {
                    Value::Array(items) => nth(items, *index),
                    Value::Null => return Err(format!("The path {} is null", self.prefix(at))),
                    other => {
                        let place = &self.prefix(at + 1)[self.prefix(at).len()..];
                        return Err(format!(
                            "Filter: {place} can only be applied to arrays. Current context is: {other}"
                        ));
                    }
                },
                Step::Keys(keys) => match value {
                    Value::Object(fields) => return Ok(Cow::Owned(pick(fields, keys))),
                    _ => return Err(format!("Property {} not found in path {}", quote(keys), self.prefix(at))),
                },
                _ => None,
            };
            value = match next {
                Some(next) => next,
                None if at + 1 < self.steps.len() && matches!(step, Step::Key(_)) => {
                    return Err(format!("Missing property in path {}", self.prefix(at + 1)));
                }
                None => return Err(format!("No results for path: {}", self.prefix(self.steps.len()))),
            };
        }
        Ok(Cow::Borrowed(value))
    }

    /// The first `count` steps in brackets: `$['a']['b'][0]`.
    fn prefix(&self, count: usize) -> String {
        let mut text = String::from("$");
        for step in &self.steps[..count] {
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Key(key) => write!(text, "['{key}']"),
                Step::Index(index) => write!(text, "[{index}]"),
                Step::Keys(keys) => write!(text, "{}", quote(keys)),
                _ => write!(text, "[*]"),
            };
        }
        text
    }
}

/// What AWS says when a path meets no input at all.
pub(super) fn nothing_to_apply_to() -> EvalError {
    EvalError::runtime("Unable to apply Path transformation to null or empty input.")
}

/// All values that the steps lead to, in document order; what is not there is left out. Errs where there
/// are more than any payload holds: `..` upon `..` could otherwise grow without bound.
fn select<'a>(root: &'a Value, steps: &[Step], scope: &Scope) -> Result<Vec<&'a Value>, String> {
    let mut values = vec![root];
    for step in steps {
        if values.is_empty() {
            break;
        }
        let mut next = Vec::new();
        for value in values {
            let before = next.len();
            follow(value, step, scope, &mut next);
            if next.len() > FOUND_MAX {
                return Err(format!("The path finds more than {FOUND_MAX} values"));
            }
            // Filters and `..` account for what they look at themselves.
            if !scope.spend(1 + next.len() - before) {
                return Err(TOO_MUCH.to_owned());
            }
        }
        values = next;
    }
    Ok(values)
}

fn follow<'a>(value: &'a Value, step: &Step, scope: &Scope, found: &mut Vec<&'a Value>) {
    match (step, value) {
        (Step::Key(key), Value::Object(fields)) => found.extend(fields.get(key)),
        (Step::Keys(keys), Value::Object(fields)) => found.extend(keys.iter().filter_map(|key| fields.get(key))),
        (Step::Index(index), Value::Array(items)) => found.extend(nth(items, *index)),
        (Step::Indexes(indexes), Value::Array(items)) => {
            found.extend(indexes.iter().filter_map(|index| nth(items, *index)));
        }
        (Step::Slice { start, end, stride }, Value::Array(items)) => {
            let (start, end) = (clamp(start.unwrap_or(0), items.len()), clamp(end.unwrap_or(i64::MAX), items.len()));
            if start < end {
                found.extend(items[start..end].iter().step_by(*stride));
            }
        }
        (Step::Wildcard, Value::Array(items)) => found.extend(items),
        (Step::Wildcard, Value::Object(fields)) => found.extend(fields.values()),
        (Step::Filter(filter), Value::Array(items)) => {
            found.extend(items.iter().filter(|item| filter.holds(item, scope)));
        }
        (Step::Filter(filter), Value::Object(_)) if filter.holds(value, scope) => found.push(value),
        (Step::Descend, _) => descend(value, scope, found),
        _ => {}
    }
}

/// The containers at and below a value, parents first. A stack of its own: data may be nested deeply.
fn descend<'a>(value: &'a Value, scope: &Scope, found: &mut Vec<&'a Value>) {
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        if !scope.spend(1) {
            return;
        }
        match value {
            Value::Array(items) => waiting.extend(items.iter().rev()),
            Value::Object(fields) => waiting.extend(fields.values().rev()),
            _ => continue,
        }
        found.push(value);
    }
}

/// The item at an index; from the end where it is negative.
fn nth(items: &[Value], index: i64) -> Option<&Value> {
    let place = if index < 0 { index.checked_add(i64::try_from(items.len()).ok()?)? } else { index };
    items.get(usize::try_from(place).ok()?)
}

/// A bound of a slice as a place in a list of that length.
fn clamp(bound: i64, length: usize) -> usize {
    let distance = usize::try_from(bound.unsigned_abs()).unwrap_or(usize::MAX);
    if bound < 0 { length.saturating_sub(distance) } else { distance.min(length) }
}

fn pick(fields: &serde_json::Map<String, Value>, keys: &[String]) -> Value {
    keys.iter().filter_map(|key| fields.get(key).map(|value| (key.clone(), value.clone()))).collect()
}

fn quote(keys: &[String]) -> String {
    let quoted: Vec<String> = keys.iter().map(|key| format!("'{key}'")).collect();
    format!("[{}]", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Variables;
    use serde_json::json;
    use std::sync::Arc;

    fn eval(path: &str, input: &Value) -> Result<Value, String> {
        let context = json!({"Execution": {"Name": "e"}});
        let variables = Variables::from([("v".to_owned(), Arc::new(json!({"a": [1, 2]})))]);
        let scope = Scope::new(input, &context, &variables, 0);
        Path::parse(path).expect(path).eval(&scope).map_err(|e| e.message)
    }

    #[test]
    fn the_execution_s_input_counts_as_read_wherever_it_may_be() {
        let whole = [
            "$$",
            "$$.Execution",
            "$$.Execution.Input.a",
            "$$..Name",
            "$$.*.Name",
            "$$['State','Execution']",
            "$.a[?(@.b==$$.Execution.Input)]",
        ];
        let parts = ["$$.Task.Token", "$$.Execution.Id", "$$.Map.Item.Value", "$.a[?(@.b==$$.State.Name)]"];
        let nothing = ["$", "$.Execution.Input", "$v.Execution"];
        let uses = [(&whole[..], ContextUse::Whole), (&parts, ContextUse::Parts), (&nothing, ContextUse::Nothing)];
        for (paths, expected) in uses {
            for path in paths {
                assert_eq!(Path::parse(path).expect(path).context_use(), expected, "{path}");
            }
        }
    }

    #[test]
    fn definite_paths_give_the_value_itself() {
        let input = json!({"a": {"b c": [10, 20]}, "x-y": 1, "ü": 2, "Test\\\"\"N": 3});
        for (path, expected) in [
            ("$", input.clone()),
            ("$.a['b c'][1]", json!(20)),
            ("$.a[\"b c\"][-2]", json!(10)),
            ("$.x-y", json!(1)),
            ("$.a.['b c'].[0]", json!(10)),
            ("$.ü", json!(2)),
            ("$['Test\\\"\"N']", json!(3)),
            ("$['x-y','ü','missing']", json!({"x-y": 1, "ü": 2})),
            ("$$.Execution.Name", json!("e")),
            ("$v.a[0]", json!(1)),
            ("$v", json!({"a": [1, 2]})),
        ] {
            assert_eq!(eval(path, &input), Ok(expected), "{path}");
        }
    }

    #[test]
    fn indefinite_paths_give_an_array_also_of_nothing() {
        let input = json!({"i": [{"n": 1, "s": "a"}, {"n": 2, "s": "b", "o": true}, {"n": 3}], "d": {"n": 9}});
        for (path, expected) in [
            ("$.i[*].n", json!([1, 2, 3])),
            ("$.i[1:].n", json!([2, 3])),
            ("$.i[:-1].n", json!([1, 2])),
            ("$.i[-2:].n", json!([2, 3])),
            ("$.i[0:3:2].n", json!([1, 3])),
            ("$.i[0,2].n", json!([1, 3])),
            ("$..n", json!([1, 2, 3, 9])),
            ("$.d.*", json!([9])),
            ("$.i[0]['n','s'].x", json!([])),
            ("$.missing[*]", json!([])),
            ("$.missing.deep[2:3].x", json!([])),
            ("$.i[?(@.n == 2)]", json!([{"n": 2, "s": "b", "o": true}])),
            ("$.i[?(@.n > 1 && @.n < 3.0 || @.s == 'a')].n", json!([1, 2])),
            ("$.i[?(@.o)].n", json!([2])),
            ("$.i[?(!@.o)].n", json!([1, 3])),
            ("$.i[?(@.s =~ /A/i)].n", json!([1])),
            ("$.i[?(@.n in [1, 3])].n", json!([1, 3])),
            ("$.i[?(@.n == $.d.n)]", json!([])),
            ("$.i[?(@.s != 'a')].n", json!([2, 3])),
            ("$..[?(@.n == 9)]", json!([{"n": 9}])),
        ] {
            assert_eq!(eval(path, &input), Ok(expected), "{path}");
        }
    }

    #[test]
    fn a_miss_says_where() {
        let input = json!({"a": {"b": "text"}, "l": [1]});
        for (path, reason) in [
            ("$.x", "Invalid path '$.x' : No results for path: $['x']"),
            ("$.x.y", "Invalid path '$.x.y' : Missing property in path $['x']"),
            ("$.l[3]", "Invalid path '$.l[3]' : No results for path: $['l'][3]"),
            ("$.l.length()", "Invalid path '$.l.length()' : Property ['length()'] not found in path $['l']"),
            ("$.a.b.c", "Invalid path '$.a.b.c' : Property ['c'] not found in path $['a']['b']"),
        ] {
            assert_eq!(eval(path, &input), Err(reason.to_owned()), "{path}");
        }
        assert_eq!(
            eval("$.x", &Value::Null),
            Err("Unable to apply Path transformation to null or empty input.".to_owned())
        );
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [
            "",
            "a",
            "$.",
            "$..",
            "$.a[",
            "$.a[']",
            "$[0",
            "$[?(@.a == )]",
            "$[?(@.a",
            "$ .a",
            "$.a b",
            "$[1:2:0]",
            "$['a']x",
            "$[99999999999999999999]",
            "$[]",
            "$.a..",
            "$[?()]",
            "$$$",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
        let deep = format!("$[?({}@.a{})]", "(".repeat(10_000), ")".repeat(10_000));
        assert!(Path::parse(&deep).is_err());
    }
}
