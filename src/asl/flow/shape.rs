//! What is known of a value before anything runs: of which kinds it may be, and which fields an object has.
//!
//! Sound: a shape allows for every value that may really stand there. What is not known is allowed. Clones share what is
//! known, and everything that walks over it takes from a [`Budget`]; once that is spent, what comes out means nothing.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value;

use super::budget::Budget;
use crate::Path;
use crate::path::{Root, Step};

/// Deeper than this, and beyond so many fields, nothing is known.
const DEPTH_MAX: usize = 8;
pub const FIELDS_MAX: usize = 256;

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
#[derive(Clone, Debug)]
pub struct Shape {
    pub kinds: Kinds,
    /// None where nothing more is known.
    detail: Option<Arc<Detail>>,
}

/// What is known of objects and arrays.
#[derive(Debug)]
struct Detail {
    /// Where it is an object: the fields that are known to be possible, by name.
    fields: Fields,
    /// Where it is an object: whether it may have other fields, too.
    open: bool,
    /// Where it is an array: what its items are; `None` for anything.
    items: Option<Shape>,
    /// Where it is an array: how many items it has, if that is known.
    length: Option<usize>,
    /// How deep it is, itself included.
    height: usize,
}

static NOTHING: Detail = Detail { fields: Vec::new(), open: true, items: None, length: None, height: 0 };

type Fields = Vec<(Arc<str>, Field)>;

#[derive(Clone, Debug)]
struct Field {
    shape: Shape,
    /// Whether each object that may stand here has it.
    always: bool,
}

/// What a path comes to.
#[derive(Clone, Debug)]
pub enum Found {
    /// No value that may stand there has it.
    Never,
    /// `always`: each of them has.
    Value { shape: Shape, always: bool },
}

impl Shape {
    pub fn any() -> Shape {
        Shape::some(Kinds::ALL)
    }

    pub fn some(kinds: Kinds) -> Shape {
        Shape { kinds, detail: None }
    }

    fn with(
        kinds: Kinds,
        fields: Fields,
        open: bool,
        items: Option<Shape>,
        length: Option<usize>,
        budget: &Budget,
    ) -> Shape {
        if open && fields.is_empty() && items.is_none() && length.is_none() {
            return Shape::some(kinds);
        }
        let below = fields.iter().map(|(_, field)| &field.shape).chain(&items).map(Shape::height).max();
        let height = 1 + below.unwrap_or(0);
        if !budget
            .hold(size_of::<Detail>() + 2 * size_of::<usize>() + fields.capacity() * size_of::<(Arc<str>, Field)>())
        {
            return Shape::some(kinds);
        }
        Shape { kinds, detail: Some(Arc::new(Detail { fields, open, items, length, height })) }
    }

    /// An object of these fields and no others.
    pub fn object(fields: impl IntoIterator<Item = (Arc<str>, Shape, bool)>, budget: &Budget) -> Shape {
        let mut fields: Fields =
            fields.into_iter().map(|(name, shape, always)| (name, Field { shape, always })).collect();
        if fields.len() > FIELDS_MAX || !budget.spend(1 + fields.len()) {
            return Shape::some(Kinds::OBJECT);
        }
        // Of two fields of one name the last counts.
        fields.reverse();
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        fields.dedup_by(|(a, _), (b, _)| a == b);
        Shape::with(Kinds::OBJECT, fields, false, None, None, budget).flat(0, budget)
    }

    pub fn array(items: Option<Shape>, length: Option<usize>, budget: &Budget) -> Shape {
        budget.spend(1);
        Shape::with(Kinds::ARRAY, Vec::new(), true, items, length, budget).flat(0, budget)
    }

    pub fn of(value: &Value, budget: &Budget) -> Shape {
        Shape::at_depth(value, 0, budget)
    }

    fn at_depth(value: &Value, depth: usize, budget: &Budget) -> Shape {
        if depth >= DEPTH_MAX || !budget.spend(1) {
            return Shape::some(Kinds::of(value));
        }
        match value {
            Value::Array(items) => {
                let mut joined: Option<Shape> = None;
                for item in items {
                    let item = Shape::at_depth(item, depth + 1, budget);
                    joined = Some(match joined {
                        Some(before) => before.or(&item, budget),
                        None => item,
                    });
                    if budget.is_spent() {
                        break;
                    }
                }
                Shape::array(joined, Some(items.len()), budget)
            }
            Value::Object(fields) if fields.len() <= FIELDS_MAX => {
                let shaped = |(name, value): (&String, &Value)| {
                    let name = name_within(name, budget)?;
                    Some((name, Shape::at_depth(value, depth + 1, budget), true))
                };
                Shape::object(fields.iter().map_while(shaped), budget)
            }
            Value::Object(_) => Shape::some(Kinds::OBJECT),
            scalar => Shape::some(Kinds::of(scalar)),
        }
    }

    fn detail(&self) -> &Detail {
        self.detail.as_deref().unwrap_or(&NOTHING)
    }

    fn height(&self) -> usize {
        self.detail().height
    }

    /// The same, with nothing known below a depth: what loops build must stop growing.
    fn flat(self, depth: usize, budget: &Budget) -> Shape {
        let detail = self.detail();
        if depth + detail.height <= DEPTH_MAX || !budget.spend(1 + detail.fields.len()) {
            return self;
        }
        if depth >= DEPTH_MAX {
            return Shape::some(self.kinds);
        }
        let flat = |shape: &Shape| shape.clone().flat(depth + 1, budget);
        let of = |field: &Field| Field { shape: flat(&field.shape), always: field.always };
        let fields = detail.fields.iter().map(|(name, field)| (name.clone(), of(field))).collect();
        Shape::with(self.kinds, fields, detail.open, detail.items.as_ref().map(flat), detail.length, budget)
    }

    /// Whether both are the same, seen from outside: never true of two that differ.
    pub fn is(&self, other: &Shape) -> bool {
        let same = match (&self.detail, &other.detail) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        self.kinds == other.kinds && same
    }

    /// Whether both are the same throughout.
    pub fn equals(&self, other: &Shape, budget: &Budget) -> bool {
        if self.is(other) {
            return true;
        }
        let (ours, theirs) = (self.detail(), other.detail());
        budget.spend(1 + ours.fields.len())
            && self.kinds == other.kinds
            && (ours.open, ours.length, ours.height) == (theirs.open, theirs.length, theirs.height)
            && ours.fields.len() == theirs.fields.len()
            && ours.fields.iter().zip(&theirs.fields).all(|((our_name, our), (their_name, their))| {
                our_name == their_name && our.always == their.always && our.shape.equals(&their.shape, budget)
            })
            && match (&ours.items, &theirs.items) {
                (Some(ours), Some(theirs)) => ours.equals(theirs, budget),
                (ours, theirs) => ours.is_none() && theirs.is_none(),
            }
    }

    /// What may be one or the other: `self` itself where the other brings nothing new.
    pub fn or(&self, other: &Shape, budget: &Budget) -> Shape {
        if self.is(other) || !budget.spend(1) {
            return self.clone();
        }
        let (ours, theirs) = (self.detail(), other.detail());
        let both = |kind| self.kinds.has(kind) && other.kinds.has(kind);
        let kinds = self.kinds.with(other.kinds);
        let (items, length) = if both(Kinds::ARRAY) {
            let items = match (&ours.items, &theirs.items) {
                // An empty array says nothing of its items.
                (_, items) if ours.length == Some(0) => items.clone(),
                (items, _) if theirs.length == Some(0) => items.clone(),
                (Some(a), Some(b)) => Some(a.or(b, budget)),
                _ => None,
            };
            (items, ours.length.filter(|length| theirs.length == Some(*length)))
        } else {
            let one = if self.kinds.has(Kinds::ARRAY) { ours } else { theirs };
            (one.items.clone(), one.length)
        };
        let (fields, open) = if both(Kinds::OBJECT) {
            (merged(ours, theirs, budget), ours.open || theirs.open)
        } else {
            let one = if self.kinds.has(Kinds::OBJECT) { ours } else { theirs };
            budget.spend(one.fields.len());
            (one.fields.clone(), one.open)
        };
        let unchanged = kinds == self.kinds
            && open == ours.open
            && length == ours.length
            && match (&items, &ours.items) {
                (Some(now), Some(before)) => now.is(before),
                (now, before) => now.is_none() && before.is_none(),
            }
            && fields.len() == ours.fields.len()
            && fields.iter().zip(&ours.fields).all(|((name, now), (before, was))| {
                name == before && now.always == was.always && now.shape.is(&was.shape)
            });
        if unchanged {
            return self.clone();
        }
        match fields.len() > FIELDS_MAX {
            true => Shape::with(kinds, Vec::new(), true, items, length, budget),
            false => Shape::with(kinds, fields, open, items, length, budget),
        }
    }

    /// How many items it has, where it can only be an array.
    pub fn length(&self) -> Option<usize> {
        self.detail().length.filter(|_| self.kinds.is_only(Kinds::ARRAY))
    }

    /// What one of its items is; anything where it may be no array.
    pub fn item(&self) -> Shape {
        if self.kinds.is_only(Kinds::ARRAY) { self.array_item() } else { Shape::any() }
    }

    fn array_item(&self) -> Shape {
        self.detail().items.clone().unwrap_or_else(Shape::any)
    }

    /// The names of its fields where it can only be an object of known ones.
    pub fn field_names(&self) -> Option<impl ExactSizeIterator<Item = &str>> {
        let detail = self.detail();
        (self.kinds.is_only(Kinds::OBJECT) && !detail.open).then(|| detail.fields.iter().map(|(name, _)| &**name))
    }

    fn named(&self, name: &str) -> Option<&Field> {
        let fields = &self.detail().fields;
        let at = fields.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        fields.get(at).map(|(_, field)| field)
    }

    /// What an object that stands here has in a field, if it has it.
    pub fn field(&self, name: &str) -> Shape {
        self.named(name).map_or_else(Shape::any, |field| field.shape.clone())
    }

    /// What the steps of a path lead to. Paths that find lists always find one.
    pub fn find(&self, path: &Path, budget: &Budget) -> Found {
        budget.spend(1 + path.steps().len());
        if !path.is_definite() {
            // But for a wholly absent input, of which AWS says so.
            return Found::Value { shape: Shape::some(Kinds::ARRAY), always: !self.kinds.has(Kinds::NULL) };
        }
        let (mut here, mut always) = (self.clone(), true);
        for step in path.steps() {
            let (next, sure) = match step {
                Step::Key(key) if here.kinds.has(Kinds::OBJECT) => {
                    let sure = here.kinds.is_only(Kinds::OBJECT);
                    match here.named(key) {
                        Some(field) => (field.shape.clone(), sure && field.always),
                        None if here.detail().open => (Shape::any(), false),
                        None => return Found::Never,
                    }
                }
                Step::Index(index) if here.kinds.has(Kinds::ARRAY) => {
                    let place = here.detail().length.map(|length| place(*index, length));
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
    pub fn insert(&self, path: &Path, result: Shape, budget: &Budget) -> Option<Shape> {
        match *path.root() {
            // Deeper than that nothing is known of what is put there.
            Root::Input => Some(self.put(path.steps(), result, budget)?.flat(0, budget)),
            _ => Some(Shape::any()),
        }
    }

    fn put(&self, steps: &[Step], result: Shape, budget: &Budget) -> Option<Shape> {
        let Some((first, rest)) = steps.split_first() else { return Some(result) };
        let Step::Key(key) = first else {
            return self.kinds.has(Kinds::ARRAY).then(|| Shape::some(Kinds::ARRAY));
        };
        if !self.kinds.has(Kinds::OBJECT) {
            return None;
        }
        let detail = self.detail();
        if !budget.spend(1 + detail.fields.len()) {
            return Some(Shape::any());
        }
        let below = match self.named(key) {
            Some(field) if field.always => field.shape.put(rest, result, budget)?,
            // Where it is missing, objects on the way are made.
            Some(field) => match field.shape.put(rest, result.clone(), budget) {
                Some(there) => there.or(&made(rest, result, budget), budget),
                None => made(rest, result, budget),
            },
            None if detail.open && !rest.is_empty() => Shape::any(),
            None => made(rest, result, budget),
        };
        let Some(name) = name_within(key, budget) else { return Some(Shape::any()) };
        let field = Field { shape: below, always: true };
        let mut fields = Vec::with_capacity(detail.fields.len() + 1);
        fields.extend(detail.fields.iter().cloned());
        match fields.binary_search_by(|(known, _)| (**known).cmp(key)) {
            Ok(at) => fields[at].1 = field,
            Err(at) => fields.insert(at, (name, field)),
        }
        Some(Shape::with(Kinds::OBJECT, fields, detail.open, None, None, budget))
    }
}

/// A name to keep; `None` once the budget is spent.
fn name_within(name: &str, budget: &Budget) -> Option<Arc<str>> {
    let bytes = name.len() + 2 * size_of::<usize>();
    (budget.spend(1 + name.len() / 64) && budget.hold(bytes)).then(|| Arc::from(name))
}

/// What is made on the way to a place of which nothing is there.
fn made(steps: &[Step], result: Shape, budget: &Budget) -> Shape {
    // From the inside out; what is deeper than anything that is known need not be made.
    let mut made = result;
    for step in steps.iter().rev() {
        made = match step {
            Step::Key(key) => match name_within(key, budget) {
                Some(name) => Shape::object([(name, made, true)], budget),
                None => return Shape::any(),
            },
            _ => Shape::any(),
        };
    }
    made
}

fn place(index: i64, length: usize) -> Option<usize> {
    let length_signed = i64::try_from(length).ok()?;
    let place = if index < 0 { index.checked_add(length_signed)? } else { index };
    usize::try_from(place).ok().filter(|place| *place < length)
}

/// The fields of two objects, both by name.
fn merged(ours: &Detail, theirs: &Detail, budget: &Budget) -> Fields {
    let alone = |field: &Field, other_open: bool| Field {
        shape: if other_open { Shape::any() } else { field.shape.clone() },
        always: false,
    };
    if !budget.spend(ours.fields.len() + theirs.fields.len()) {
        return Vec::new();
    }
    let mut fields = Vec::with_capacity(ours.fields.len().max(theirs.fields.len()));
    let (mut a, mut b) = (ours.fields.iter().peekable(), theirs.fields.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some((our, _)), Some((their, _))) => our.cmp(their),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return fields,
        };
        match order {
            Ordering::Less => fields.extend(a.next().map(|(name, our)| (name.clone(), alone(our, theirs.open)))),
            Ordering::Greater => fields.extend(b.next().map(|(name, their)| (name.clone(), alone(their, ours.open)))),
            Ordering::Equal => {
                if let (Some((name, our)), Some((_, their))) = (a.next(), b.next()) {
                    let always = our.always && their.always;
                    fields.push((name.clone(), Field { shape: our.shape.or(&their.shape, budget), always }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Used;
    use super::*;
    use serde_json::json;

    fn budget() -> Budget {
        Budget::new(Used::MOST)
    }

    fn of(value: Value) -> Shape {
        Shape::of(&value, &budget())
    }

    fn find(shape: &Shape, path: &str) -> &'static str {
        match shape.find(&Path::parse(path).unwrap(), &budget()) {
            Found::Never => "never",
            Found::Value { always: true, .. } => "always",
            Found::Value { .. } => "maybe",
        }
    }

    #[test]
    fn what_may_be_there_is_allowed_and_what_cannot_is_not() {
        let shape = of(json!({"a": {"b": [1, 2]}, "c": null})).or(&of(json!({"a": {"b": [], "d": 1}})), &budget());
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
        assert_eq!(find(&shape.or(&Shape::any(), &budget()), "$.x"), "maybe");
        assert_eq!(find(&of(json!([1, 2])), "$[2]"), "never");
        assert_eq!(find(&of(json!([1, 2])), "$[-2]"), "always");
    }

    #[test]
    fn results_are_put_where_they_go() {
        let put = |shape: &Shape, path: &str| shape.insert(&Path::parse(path).unwrap(), of(json!("r")), &budget());
        let shape = put(&of(json!({"a": 1})), "$.x.y").unwrap();
        assert_eq!((find(&shape, "$.x.y"), find(&shape, "$.a"), find(&shape, "$.z")), ("always", "always", "never"));
        let open = put(&Shape::any(), "$.x").unwrap();
        assert_eq!((find(&open, "$.x"), find(&open, "$.z")), ("always", "maybe"));
        assert!(put(&of(json!("text")), "$.x").is_none());
        assert!(put(&of(json!({"x": 1})), "$.x.y").is_none());
    }
}
