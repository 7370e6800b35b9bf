//! The values of an evaluation: JSON, functions, and the sequences that JSONata flattens and unwraps.
//!
//! Values are shared, never changed in place. Numbers are JavaScript's: 64-bit floating point.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::Write;
use std::rc::Rc;

use serde_json::Value;

use super::call::Func;

/// How many bytes of a text are gone through in a unit of work.
const BYTES_PER_UNIT: usize = 32;

#[derive(Clone)]
pub(super) enum Val<'a> {
    Undefined,
    Null,
    Bool(bool),
    Num(f64),
    Str(Rc<str>),
    Arr(Rc<Arr<'a>>),
    Obj(Rc<Obj<'a>>),
    Func(Rc<Func<'a>>),
    /// One row of a tuple stream (`@`, `#`, `%`); never leaves a path.
    Tuple(Rc<Tuple<'a>>),
}

/// What a row of a tuple stream binds; the context item is `@`.
pub(super) type Tuple<'a> = Vec<(&'a str, Val<'a>)>;

/// An array, or a sequence of results.
#[derive(Clone)]
pub(super) struct Arr<'a> {
    pub items: Vec<Val<'a>>,
    /// Made by the evaluation: one item stands for itself, none for nothing.
    pub sequence: bool,
    /// A sequence that stays an array with one item (`[]` behind a path).
    pub keep_singleton: bool,
    /// Written as an array constructor at the end of a path: not flattened.
    pub cons: bool,
    pub tuples: bool,
    /// How deep arrays and objects are nested; made by [`Arr::of`].
    pub depth: usize,
}

impl<'a> Arr<'a> {
    pub fn of(items: Vec<Val<'a>>) -> Arr<'a> {
        let depth = 1 + items.iter().map(Val::depth).max().unwrap_or(0);
        Arr { items, sequence: false, keep_singleton: false, cons: false, tuples: false, depth }
    }
}

/// An object, in the order in which its fields came.
#[derive(Clone, Default)]
pub(super) struct Obj<'a> {
    fields: Vec<(Rc<str>, Val<'a>)>,
    /// Where each field is, once there are many.
    places: Option<HashMap<Rc<str>, usize>>,
    depth: usize,
}

const FEW_FIELDS: usize = 12;

impl<'a> Obj<'a> {
    pub fn get(&self, key: &str) -> Option<&Val<'a>> {
        self.place(key).and_then(|at| self.fields.get(at)).map(|(_, value)| value)
    }

    pub fn insert(&mut self, key: Rc<str>, value: Val<'a>) {
        self.depth = self.depth.max(1 + value.depth());
        if let Some((_, slot)) = self.place(&key).and_then(|at| self.fields.get_mut(at)) {
            *slot = value;
            return;
        }
        if let Some(places) = &mut self.places {
            places.insert(key.clone(), self.fields.len());
        }
        self.fields.push((key, value));
        if self.places.is_none() && self.fields.len() > FEW_FIELDS {
            self.places = Some(self.fields.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect());
        }
    }

    pub fn remove(&mut self, key: &str) {
        if let Some(at) = self.place(key) {
            self.fields.remove(at);
            self.places = None;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Rc<str>, &Val<'a>)> {
        self.fields.iter().map(|(key, value)| (key, value))
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    fn place(&self, key: &str) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(key).copied(),
            None => self.fields.iter().position(|(name, _)| &**name == key),
        }
    }
}

impl<'a> Val<'a> {
    pub fn str(text: &str) -> Val<'a> {
        Val::Str(text.into())
    }

    pub fn array(items: Vec<Val<'a>>) -> Val<'a> {
        Val::Arr(Rc::new(Arr::of(items)))
    }

    pub fn sequence(items: Vec<Val<'a>>) -> Val<'a> {
        Val::Arr(Rc::new(Arr { sequence: true, ..Arr::of(items) }))
    }

    pub fn object(fields: Obj<'a>) -> Val<'a> {
        Val::Obj(Rc::new(fields))
    }

    /// How much it costs to convert: the number of values in it.
    pub fn from_json(json: &Value) -> Val<'a> {
        match json {
            Value::Null => Val::Null,
            Value::Bool(flag) => Val::Bool(*flag),
            Value::Number(number) => Val::Num(number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => Val::str(text),
            Value::Array(items) => Val::array(items.iter().map(Val::from_json).collect()),
            Value::Object(fields) => {
                let mut object = Obj::default();
                for (key, value) in fields {
                    object.insert(key.as_str().into(), Val::from_json(value));
                }
                Val::object(object)
            }
        }
    }

    /// The value as JSON; `None` where something in it has none (nothing, a function, no finite number).
    pub fn to_json(&self) -> Option<Value> {
        Some(match self {
            Val::Undefined | Val::Func(_) | Val::Tuple(_) => return None,
            Val::Null => Value::Null,
            Val::Bool(flag) => Value::Bool(*flag),
            Val::Num(number) => json_number(*number)?,
            Val::Str(text) => Value::from(&**text),
            // As `JSON.stringify`: nothing within an array is null.
            Val::Arr(array) => Value::Array(
                array
                    .items
                    .iter()
                    .map(|item| if item.is_undefined() { Some(Value::Null) } else { item.to_json() })
                    .collect::<Option<_>>()?,
            ),
            Val::Obj(object) => {
                let mut fields = serde_json::Map::with_capacity(object.len());
                for (key, value) in object.iter() {
                    fields.insert(key.to_string(), value.to_json()?);
                }
                Value::Object(fields)
            }
        })
    }

    /// How deep arrays and objects are nested.
    pub fn depth(&self) -> usize {
        match self {
            Val::Arr(array) => array.depth,
            Val::Obj(object) => object.depth,
            _ => 0,
        }
    }

    pub fn is_undefined(&self) -> bool {
        matches!(self, Val::Undefined)
    }

    pub fn is_function(&self) -> bool {
        matches!(self, Val::Func(_))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Val::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_num(&self) -> Option<f64> {
        match self {
            Val::Num(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_arr(&self) -> Option<&Rc<Arr<'a>>> {
        match self {
            Val::Arr(array) => Some(array),
            _ => None,
        }
    }

    /// The items of an array; anything else is its own only item; nothing has none.
    pub fn items(&self) -> &[Val<'a>] {
        match self {
            Val::Arr(array) => &array.items,
            Val::Undefined => &[],
            other => std::slice::from_ref(other),
        }
    }

    /// What a condition takes it for.
    pub fn truth(&self) -> bool {
        match self {
            Val::Undefined | Val::Null | Val::Func(_) | Val::Tuple(_) => false,
            Val::Bool(flag) => *flag,
            Val::Num(number) => *number != 0.0 && !number.is_nan(),
            Val::Str(text) => !text.is_empty(),
            Val::Arr(array) => array.items.iter().any(Val::truth),
            Val::Obj(object) => object.len() > 0,
        }
    }

    /// `$type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Val::Undefined | Val::Tuple(_) => "undefined",
            Val::Null => "null",
            Val::Bool(_) => "boolean",
            Val::Num(_) => "number",
            Val::Str(_) => "string",
            Val::Arr(_) => "array",
            Val::Obj(_) => "object",
            Val::Func(_) => "function",
        }
    }

    /// Deep equality; objects in whatever order. Adds to `looks` what was looked at.
    pub fn equals(&self, other: &Val<'a>, looks: &mut usize) -> bool {
        *looks += 1;
        match (self, other) {
            (Val::Undefined, Val::Undefined) | (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Num(a), Val::Num(b)) => a == b,
            (Val::Str(a), Val::Str(b)) => {
                *looks += a.len().min(b.len()) / BYTES_PER_UNIT;
                a == b
            }
            (Val::Arr(a), Val::Arr(b)) => {
                a.items.len() == b.items.len() && a.items.iter().zip(&b.items).all(|(a, b)| a.equals(b, looks))
            }
            (Val::Obj(a), Val::Obj(b)) => {
                a.len() == b.len()
                    && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| value.equals(other, looks)))
            }
            (Val::Func(a), Val::Func(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// What it takes to go through it once, in units of work: a text from end to end, the items of an array.
    pub fn weight(&self) -> usize {
        match self {
            Val::Str(text) => text.len() / BYTES_PER_UNIT,
            Val::Arr(array) => array.items.len() / 4,
            _ => 0,
        }
    }

    /// As `JSON.stringify` writes it.
    pub fn to_json_text(&self) -> String {
        let mut text = String::new();
        write_json(self, &mut text, None, 0, &|number| number);
        text
    }

    /// `$string`: numbers lose what floating point made up.
    pub fn to_text(&self, pretty: bool) -> String {
        match self {
            Val::Str(text) => text.to_string(),
            Val::Func(_) => String::new(),
            other => {
                let mut text = String::new();
                write_json(other, &mut text, pretty.then_some(0), 0, &to_precision_15);
                text
            }
        }
    }
}

/// By UTF-16 code units, as JavaScript compares.
pub(super) fn compare_texts(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

fn json_number(number: f64) -> Option<Value> {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        return Some(Value::from(number as i64));
    }
    serde_json::Number::from_f64(number).map(Value::Number)
}

fn to_precision_15(number: f64) -> f64 {
    format!("{number:.14e}").parse().unwrap_or(number)
}

/// A number as JavaScript writes it.
pub(super) fn number_text(number: f64) -> String {
    if number == 0.0 {
        return String::from("0");
    }
    if !number.is_finite() {
        return String::from(if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
    }
    if (1e-6..1e21).contains(&number.abs()) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text,
    }
}

/// `indent` is the depth of a pretty text. Nesting of values is bounded where they are made.
fn write_json(value: &Val, text: &mut String, indent: Option<usize>, depth: usize, number: &dyn Fn(f64) -> f64) {
    let inner = indent.map(|_| depth + 1);
    match value {
        Val::Undefined | Val::Null | Val::Tuple(_) => text.push_str("null"),
        Val::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Val::Num(n) if !n.is_finite() => text.push_str("null"),
        Val::Num(n) => text.push_str(&number_text(number(*n))),
        Val::Str(string) => text.push_str(&super::fault::quoted(string)),
        Val::Func(_) => text.push_str("\"\""),
        Val::Arr(array) if array.items.is_empty() => text.push_str("[]"),
        Val::Obj(object) if object.len() == 0 => text.push_str("{}"),
        Val::Arr(array) => {
            text.push('[');
            for (at, item) in array.items.iter().enumerate() {
                separate(text, at, inner);
                write_json(item, text, indent, depth + 1, number);
            }
            close(text, indent, depth, ']');
        }
        Val::Obj(object) => {
            text.push('{');
            let fields = object.iter().filter(|(_, value)| !value.is_undefined());
            for (at, (key, item)) in fields.enumerate() {
                separate(text, at, inner);
                text.push_str(&super::fault::quoted(key));
                text.push_str(if indent.is_some() { ": " } else { ":" });
                write_json(item, text, indent, depth + 1, number);
            }
            close(text, indent, depth, '}');
        }
    }
}

fn separate(text: &mut String, at: usize, inner: Option<usize>) {
    if at > 0 {
        text.push(',');
    }
    if let Some(depth) = inner {
        let _ = write!(text, "\n{:width$}", "", width = depth * 2);
    }
}

fn close(text: &mut String, indent: Option<usize>, depth: usize, bracket: char) {
    if indent.is_some() {
        let _ = write!(text, "\n{:width$}", "", width = depth * 2);
    }
    text.push(bracket);
}
