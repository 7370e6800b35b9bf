//! What is known of a value before anything runs: of which kinds it may be, and which fields an object has.
//!
//! Sound: a shape allows for every value that may really stand there. What is not known is allowed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Path;
use crate::path::{Root, Step};

/// Deeper than this, and beyond so many fields, nothing is known.
const DEPTH_MAX: usize = 8;
const FIELDS_MAX: usize = 256;

/// A set of kinds of JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    pub const NULL: Kinds = Kinds(1);
    pub const BOOLEAN: Kinds = Kinds(2);
    pub const NUMBER: Kinds = Kinds(4);
    pub const STRING: Kinds = Kinds(8);
    pub const ARRAY: Kinds = Kinds(16);
    pub const OBJECT: Kinds = Kinds(32);
    const ALL: Kinds = Kinds(63);

    pub fn has(self, kind: Kinds) -> bool {
        self.0 & kind.0 != 0
    }

    pub fn is_only(self, kind: Kinds) -> bool {
        self == kind
    }

    fn with(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    fn of(value: &Value) -> Kinds {
        match value {
            Value::Null => Kinds::NULL,
            Value::Bool(_) => Kinds::BOOLEAN,
            Value::Number(_) => Kinds::NUMBER,
            Value::String(_) => Kinds::STRING,
            Value::Array(_) => Kinds::ARRAY,
            Value::Object(_) => Kinds::OBJECT,
        }
    }
}

/// All values that may stand at a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub kinds: Kinds,
    /// Where it is an object: the fields that are known to be possible.
    fields: BTreeMap<String, Field>,
    /// Where it is an object: whether it may have other fields, too.
    open: bool,
    /// Where it is an array: what its items are; `None` for anything.
    items: Option<Box<Shape>>,
    /// Where it is an array: how many items it has, if that is known.
    length: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
struct Field {
    shape: Shape,
    /// Whether each object that may stand here has it.
    always: bool,
}

/// What a path comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// No value that may stand there has it.
    Never,
    /// `always`: each of them has.
    Value { shape: Shape, always: bool },
}

impl Shape {
    pub fn any() -> Shape {
        Shape { kinds: Kinds::ALL, fields: BTreeMap::new(), open: true, items: None, length: None }
    }

    pub fn some(kinds: Kinds) -> Shape {
        Shape { kinds, ..Shape::any() }
    }

    /// An object of these fields and no others.
    pub fn object(fields: impl IntoIterator<Item = (String, Shape, bool)>) -> Shape {
        let fields: BTreeMap<String, Field> =
            fields.into_iter().map(|(name, shape, always)| (name, Field { shape, always })).collect();
        if fields.len() > FIELDS_MAX {
            return Shape::some(Kinds::OBJECT);
        }
        Shape { kinds: Kinds::OBJECT, fields, open: false, ..Shape::any() }.flat(0)
    }

    pub fn array(items: Option<Shape>, length: Option<usize>) -> Shape {
        Shape { kinds: Kinds::ARRAY, items: items.map(Box::new), length, ..Shape::any() }.flat(0)
    }

    pub fn of(value: &Value) -> Shape {
        Shape::at_depth(value, 0)
    }

    fn at_depth(value: &Value, depth: usize) -> Shape {
        if depth >= DEPTH_MAX {
            return Shape::some(Kinds::of(value));
        }
        match value {
            Value::Array(items) => {
                let shapes = items.iter().map(|item| Shape::at_depth(item, depth + 1));
                Shape::array(shapes.reduce(Shape::or), Some(items.len()))
            }
            Value::Object(fields) if fields.len() <= FIELDS_MAX => {
                Shape::object(fields.iter().map(|(name, v)| (name.clone(), Shape::at_depth(v, depth + 1), true)))
            }
            Value::Object(_) => Shape::some(Kinds::OBJECT),
            scalar => Shape::some(Kinds::of(scalar)),
        }
    }

    /// The same, with nothing known below a depth: what loops build must stop growing.
    fn flat(mut self, depth: usize) -> Shape {
        if depth >= DEPTH_MAX {
            return Shape::some(self.kinds);
        }
        for field in self.fields.values_mut() {
            let shape = std::mem::replace(&mut field.shape, Shape::any());
            field.shape = shape.flat(depth + 1);
        }
        self.items = self.items.map(|items| Box::new(items.flat(depth + 1)));
        self
    }

    /// What may be one or the other.
    pub fn or(self, other: Shape) -> Shape {
        if self == other {
            return self;
        }
        let both = |kind| self.kinds.has(kind) && other.kinds.has(kind);
        let (objects, arrays) = (both(Kinds::OBJECT), both(Kinds::ARRAY));
        let kinds = self.kinds.with(other.kinds);
        let (items, length) = if arrays {
            let items = match (self.items, other.items) {
                // An empty array says nothing of its items.
                (_, theirs) if self.length == Some(0) => theirs,
                (ours, _) if other.length == Some(0) => ours,
                (Some(a), Some(b)) => Some(Box::new(a.or(*b))),
                _ => None,
            };
            (items, self.length.filter(|length| other.length == Some(*length)))
        } else if self.kinds.has(Kinds::ARRAY) {
            (self.items, self.length)
        } else {
            (other.items, other.length)
        };
        let (fields, open) = if objects {
            (merged(self.fields, self.open, other.fields, other.open), self.open || other.open)
        } else if self.kinds.has(Kinds::OBJECT) {
            (self.fields, self.open)
        } else {
            (other.fields, other.open)
        };
        if fields.len() > FIELDS_MAX {
            return Shape { kinds, items, length, ..Shape::any() };
        }
        Shape { kinds, fields, open, items, length }
    }

    /// How many items it has, where it can only be an array.
    pub fn length(&self) -> Option<usize> {
        self.length.filter(|_| self.kinds.is_only(Kinds::ARRAY))
    }

    /// What one of its items is; anything where it may be no array.
    pub fn item(&self) -> Shape {
        if self.kinds.is_only(Kinds::ARRAY) { self.array_item() } else { Shape::any() }
    }

    fn array_item(&self) -> Shape {
        self.items.as_ref().map_or_else(Shape::any, |items| (**items).clone())
    }

    /// The names of its fields where it can only be an object of known ones.
    pub fn field_names(&self) -> Option<Vec<&str>> {
        (self.kinds.is_only(Kinds::OBJECT) && !self.open).then(|| self.fields.keys().map(String::as_str).collect())
    }

    /// What the steps of a path lead to. Paths that find lists always find one.
    pub fn find(&self, path: &Path) -> Found {
        if !path.is_definite() {
            // But for a wholly absent input, of which AWS says so.
            return Found::Value { shape: Shape::some(Kinds::ARRAY), always: !self.kinds.has(Kinds::NULL) };
        }
        let (mut here, mut always) = (self.clone(), true);
        for step in path.steps() {
            let (next, sure) = match step {
                Step::Key(key) if here.kinds.has(Kinds::OBJECT) => {
                    let sure = here.kinds.is_only(Kinds::OBJECT);
                    match here.fields.remove(key) {
                        Some(field) => (field.shape, sure && field.always),
                        None if here.open => (Shape::any(), false),
                        None => return Found::Never,
                    }
                }
                Step::Index(index) if here.kinds.has(Kinds::ARRAY) => {
                    let place = here.length.map(|length| place(*index, length));
                    if place == Some(None) {
                        return Found::Never;
                    }
                    (here.array_item(), place.is_some() && here.kinds.is_only(Kinds::ARRAY))
                }
                Step::Keys(_) if here.kinds.has(Kinds::OBJECT) => {
                    (Shape::some(Kinds::OBJECT), here.kinds.is_only(Kinds::OBJECT))
                }
                Step::Key(_) | Step::Index(_) | Step::Keys(_) => return Found::Never,
                _ => (Shape::any(), false),
            };
            (here, always) = (next, always && sure);
        }
        Found::Value { shape: here, always }
    }

    /// `self` with `result` at the place that a reference path names. `None`: always something else is in the way.
    pub fn insert(&self, path: &Path, result: Shape) -> Option<Shape> {
        match *path.root() {
            Root::Input => Some(self.put(path.steps(), result)?.flat(0)),
            _ => Some(Shape::any()),
        }
    }

    fn put(&self, steps: &[Step], result: Shape) -> Option<Shape> {
        let Some((first, rest)) = steps.split_first() else { return Some(result) };
        let Step::Key(key) = first else {
            return self.kinds.has(Kinds::ARRAY).then(|| Shape::some(Kinds::ARRAY));
        };
        if !self.kinds.has(Kinds::OBJECT) {
            return None;
        }
        let mut shape = Shape { kinds: Kinds::OBJECT, items: None, length: None, ..self.clone() };
        let below = match shape.fields.get(key) {
            Some(field) if field.always => field.shape.put(rest, result)?,
            // Where it is missing, objects on the way are made.
            Some(field) => match field.shape.put(rest, result.clone()) {
                Some(there) => there.or(made(rest, result)),
                None => made(rest, result),
            },
            None if shape.open && !rest.is_empty() => Shape::any(),
            None => made(rest, result),
        };
        shape.fields.insert(key.clone(), Field { shape: below, always: true });
        Some(shape)
    }
}

/// What is made on the way to a place of which nothing is there.
fn made(steps: &[Step], result: Shape) -> Shape {
    match steps.split_first() {
        None => result,
        Some((Step::Key(key), rest)) => Shape::object([(key.clone(), made(rest, result), true)]),
        Some(_) => Shape::any(),
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    let length_signed = i64::try_from(length).ok()?;
    let place = if index < 0 { index.checked_add(length_signed)? } else { index };
    usize::try_from(place).ok().filter(|place| *place < length)
}

fn merged(
    mut ours: BTreeMap<String, Field>,
    ours_open: bool,
    theirs: BTreeMap<String, Field>,
    theirs_open: bool,
) -> BTreeMap<String, Field> {
    for (name, field) in &mut ours {
        if !theirs.contains_key(name) {
            field.always = false;
            if theirs_open {
                field.shape = Shape::any();
            }
        }
    }
    for (name, their) in theirs {
        let field = match ours.remove(&name) {
            Some(our) => Field { always: our.always && their.always, shape: our.shape.or(their.shape) },
            None if ours_open => Field { shape: Shape::any(), always: false },
            None => Field { always: false, ..their },
        };
        ours.insert(name, field);
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(shape: &Shape, path: &str) -> &'static str {
        match shape.find(&Path::parse(path).unwrap()) {
            Found::Never => "never",
            Found::Value { always: true, .. } => "always",
            Found::Value { .. } => "maybe",
        }
    }

    #[test]
    fn what_may_be_there_is_allowed_and_what_cannot_is_not() {
        let shape = Shape::of(&json!({"a": {"b": [1, 2]}, "c": null})).or(Shape::of(&json!({"a": {"b": [], "d": 1}})));
        for (path, expected) in [
            ("$", "always"),
            ("$.a.b", "always"),
            ("$.a.b[1]", "maybe"),
            ("$.a.d", "maybe"),
            ("$.c", "maybe"),
            ("$.x", "never"),
            ("$.a.b.x", "never"),
            ("$.x[*]", "always"),
        ] {
            assert_eq!(find(&shape, path), expected, "{path}");
        }
        assert_eq!(find(&shape.clone().or(Shape::any()), "$.x"), "maybe");
        assert_eq!(find(&Shape::of(&json!([1, 2])), "$[2]"), "never");
        assert_eq!(find(&Shape::of(&json!([1, 2])), "$[-2]"), "always");
    }

    #[test]
    fn results_are_put_where_they_go() {
        let put = |shape: &Shape, path: &str| shape.insert(&Path::parse(path).unwrap(), Shape::of(&json!("r")));
        let shape = put(&Shape::of(&json!({"a": 1})), "$.x.y").unwrap();
        assert_eq!((find(&shape, "$.x.y"), find(&shape, "$.a"), find(&shape, "$.z")), ("always", "always", "never"));
        let open = put(&Shape::any(), "$.x").unwrap();
        assert_eq!((find(&open, "$.x"), find(&open, "$.z")), ("always", "maybe"));
        assert_eq!(put(&Shape::of(&json!("text")), "$.x"), None);
        assert_eq!(put(&Shape::of(&json!({"x": 1})), "$.x.y"), None);
    }
}
