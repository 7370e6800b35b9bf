//! Payload templates: JSON in which a field named `x.$` holds a path or an intrinsic call that gives `x`.
//!
//! Applies at every depth, also in objects inside arrays. Everything else is copied as it stands, in the
//! order in which it is written. In JSONata any text may be an expression, `{% … %}`, and a template need not be
//! an object.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::jsonata::{Jsonata, expression_of};
use super::path::{Root, nothing_to_apply_to};
use super::{ContextUse, EvalError, Path, Query, Scope};

/// A payload template.
#[derive(Debug)]
pub struct Template {
    root: Node,
    context_use: ContextUse,
}

#[derive(Debug)]
pub(super) enum Node {
    /// Holds nothing to evaluate.
    Literal(Value),
    Array(Vec<Node>),
    Object(Vec<(Arc<str>, Node)>),
    Query {
        /// With its `.$`, as messages name it.
        field: String,
        query: Query,
    },
    Expression(Box<Jsonata>),
}

/// A fault of a template and where it is: keys and indexes from the template's root.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateFault {
    /// Of the object that holds the field.
    pub place: Vec<Segment>,
    pub field: String,
    pub message: String,
    /// AWS's code, where it is not the one of a schema.
    pub code: Option<&'static str>,
}

/// One step of the way to a value of a JSON document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    Key(Arc<str>),
    Index(usize),
}

impl Template {
    /// Compiles a template, or says all that is wrong with it.
    pub fn parse(template: &Value) -> Result<Template, Vec<TemplateFault>> {
        let mut faults = Vec::new();
        let root = compile(template, &mut Vec::new(), &mut faults).unwrap_or_else(|| Node::Literal(template.clone()));
        if faults.is_empty() { Ok(Template { context_use: context_use(&root), root }) } else { Err(faults) }
    }

    /// Compiles a template of JSONata, which stands at `field` and may read these fields of `$states`.
    pub fn parse_jsonata(template: &Value, field: &str, reads: &[&str]) -> Result<Template, Vec<TemplateFault>> {
        let mut faults = Vec::new();
        let root = compile_jsonata(template, &Reads { field, reads }, &mut Vec::new(), &mut faults);
        let root = root.unwrap_or_else(|| Node::Literal(template.clone()));
        if faults.is_empty() { Ok(Template { context_use: context_use(&root), root }) } else { Err(faults) }
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// What it reads of the context object.
    pub fn context_use(&self) -> ContextUse {
        self.context_use
    }

    pub fn eval(&self, scope: &Scope) -> Result<Value, EvalError> {
        fill(&self.root, scope)
    }

    /// As [`Template::eval`]; where one expression makes it all, what it makes must be of this kind.
    pub fn eval_as(&self, kind: &str, scope: &Scope) -> Result<Value, EvalError> {
        match &self.root {
            Node::Expression(expression) => expression.eval_as(kind, scope),
            root => fill(root, scope),
        }
    }

    /// The names of the fields at the top, without `.$`: what an `Assign` assigns.
    pub fn field_names(&self) -> Vec<&str> {
        match &self.root {
            Node::Literal(Value::Object(fields)) => fields.keys().map(String::as_str).collect(),
            Node::Object(fields) => fields.iter().map(|(name, _)| &**name).collect(),
            _ => Vec::new(),
        }
    }
}

fn context_use(node: &Node) -> ContextUse {
    match node {
        Node::Literal(_) => ContextUse::Nothing,
        Node::Array(nodes) => ContextUse::most(nodes.iter().map(context_use)),
        Node::Object(fields) => ContextUse::most(fields.iter().map(|(_, node)| context_use(node))),
        Node::Query { query, .. } => query.context_use(),
        Node::Expression(expression) => expression.context_use(),
    }
}

/// Most bytes of a place that an expression keeps for its messages.
const FIELD_BYTES_MAX: usize = 200;

/// None for what holds nothing to evaluate: each such part of a template is copied once, as a whole.
fn compile(value: &Value, place: &mut Vec<Segment>, faults: &mut Vec<TemplateFault>) -> Option<Node> {
    match value {
        Value::Array(items) => {
            let mut nodes = Vec::new();
            for (at, item) in items.iter().enumerate().filter(|(_, item)| item.is_array() || item.is_object()) {
                place.push(Segment::Index(at));
                nodes.extend(compile(item, place, faults).map(|node| (at, node)));
                place.pop();
            }
            (!nodes.is_empty()).then(|| Node::Array(filled(items.iter(), nodes).collect()))
        }
        Value::Object(fields) => {
            let mut nodes = Vec::new();
            for (at, (name, value)) in fields.iter().enumerate() {
                let fault = |message| TemplateFault { place: place.clone(), field: name.clone(), message, code: None };
                match name.strip_suffix(".$") {
                    Some(target) => {
                        if fields.contains_key(target) {
                            faults.push(fault(format!("The fields '{target}' and '{name}' give the same field")));
                        }
                        match compile_query(name, value) {
                            Ok(node) => nodes.push((at, node)),
                            Err(message) => faults.push(fault(message)),
                        }
                    }
                    None if value.is_array() || value.is_object() => {
                        place.push(Segment::Key(name.as_str().into()));
                        nodes.extend(compile(value, place, faults).map(|node| (at, node)));
                        place.pop();
                    }
                    None => {}
                }
            }
            let names = || fields.keys().map(|name| Arc::from(name.strip_suffix(".$").unwrap_or(name)));
            (!nodes.is_empty()).then(|| Node::Object(names().zip(filled(fields.values(), nodes)).collect()))
        }
        _ => None,
    }
}

/// All values in their order, some of them compiled.
fn filled<'v>(values: impl Iterator<Item = &'v Value>, compiled: Vec<(usize, Node)>) -> impl Iterator<Item = Node> {
    let mut compiled = compiled.into_iter().peekable();
    values.enumerate().map(move |(at, value)| match compiled.next_if(|(there, _)| *there == at) {
        Some((_, node)) => node,
        None => Node::Literal(value.clone()),
    })
}

/// Where a template of JSONata stands, and what of `$states` it may read.
struct Reads<'r> {
    field: &'r str,
    reads: &'r [&'r str],
}

impl Reads<'_> {
    /// The place of an expression, as AWS writes it: `Output/items[0]`.
    fn place(&self, place: &[Segment]) -> String {
        let mut text = self.field.to_owned();
        for segment in place {
            match segment {
                // No more of it than can be shown.
                Segment::Key(key) => text.extend(std::iter::once('/').chain(key.chars().take(FIELD_BYTES_MAX))),
                Segment::Index(at) => text.push_str(&format!("[{at}]")),
            }
            if text.len() > FIELD_BYTES_MAX {
                break;
            }
        }
        cut(text, FIELD_BYTES_MAX)
    }
}

/// A text of at most so many bytes and a sign that there was more.
pub(super) fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

fn compile_jsonata(
    value: &Value,
    around: &Reads,
    place: &mut Vec<Segment>,
    faults: &mut Vec<TemplateFault>,
) -> Option<Node> {
    let may_hold = |value: &Value| !matches!(value, Value::Null | Value::Bool(_) | Value::Number(_));
    match value {
        Value::Array(items) => {
            let mut nodes = Vec::new();
            for (at, item) in items.iter().enumerate().filter(|(_, item)| may_hold(item)) {
                place.push(Segment::Index(at));
                nodes.extend(compile_jsonata(item, around, place, faults).map(|node| (at, node)));
                place.pop();
            }
            (!nodes.is_empty()).then(|| Node::Array(filled(items.iter(), nodes).collect()))
        }
        Value::Object(fields) => {
            let mut nodes = Vec::new();
            for (at, (name, value)) in fields.iter().enumerate().filter(|(_, (_, value))| may_hold(value)) {
                place.push(Segment::Key(name.as_str().into()));
                nodes.extend(compile_jsonata(value, around, place, faults).map(|node| (at, node)));
                place.pop();
            }
            let names = || fields.keys().map(|name| Arc::from(name.as_str()));
            (!nodes.is_empty()).then(|| Node::Object(names().zip(filled(fields.values(), nodes)).collect()))
        }
        Value::String(text) => {
            let text = expression_of(text)?;
            match Jsonata::parse(text, &around.place(place), around.reads) {
                Ok(expression) => Some(Node::Expression(Box::new(expression))),
                Err(refusal) => {
                    let (message, code) = (refusal.message, Some(refusal.code));
                    faults.push(TemplateFault { place: place.clone(), field: String::new(), message, code });
                    None
                }
            }
        }
        _ => None,
    }
}

fn compile_query(field: &str, value: &Value) -> Result<Node, String> {
    let invalid =
        format!("The value for the field '{field}' must be a valid JSONPath or a valid intrinsic function call");
    match value.as_str().map(Query::parse) {
        Some(Ok(query)) => Ok(Node::Query { field: field.to_owned(), query }),
        // What AWS says stands first, alone where nothing more is known.
        Some(Err(reason)) => Err(format!("{invalid}: {reason}")),
        None => Err(invalid),
    }
}

fn fill(node: &Node, scope: &Scope) -> Result<Value, EvalError> {
    match node {
        Node::Literal(value) => Ok(value.clone()),
        Node::Array(nodes) => nodes.iter().map(|node| fill(node, scope)).collect(),
        Node::Object(fields) => {
            let mut object = Map::with_capacity(fields.len());
            for (name, node) in fields {
                object.insert(name.to_string(), fill(node, scope)?);
            }
            Ok(Value::Object(object))
        }
        Node::Query { query: Query::Intrinsic(call), .. } => call.eval(scope),
        Node::Query { query: Query::Jsonata(expression), .. } | Node::Expression(expression) => expression.eval(scope),
        Node::Query { field, query: Query::Path(path) } => fill_path(field, path, scope),
    }
}

fn fill_path(field: &str, path: &Path, scope: &Scope) -> Result<Value, EvalError> {
    if *path.root() == Root::Input && scope.input.is_null() {
        return Err(nothing_to_apply_to());
    }
    let found = path.find(scope).map_err(|_| {
        EvalError::runtime(format!(
            "The JSONPath '{}' specified for the field '{field}' could not be found in the input '{}'",
            path.text(),
            path.root_value(scope).unwrap_or(scope.input),
        ))
    })?;
    match found {
        Cow::Owned(value) => Ok(value),
        Cow::Borrowed(value) if scope.take_room(value) => Ok(value.clone()),
        Cow::Borrowed(_) => Err(EvalError::too_large()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Variables;
    use serde_json::json;

    fn eval(template: Value, input: Value) -> Result<Value, EvalError> {
        let (context, variables) = (json!({"Task": {"Token": "t"}}), Variables::new());
        Template::parse(&template).expect("a template").eval(&Scope::new(&input, &context, &variables, 0))
    }

    #[test]
    fn fields_are_filled_at_every_depth_and_keep_their_order() {
        let template = json!({
            "z": 1.0, "path.$": "$.a[*]", "token.$": "$$.Task.Token", "whole.$": "$",
            "list": [{"x.$": "$.b"}, "$.b", ["y.$", {"f.$": "States.Format('{}!', $.b)"}]],
            "Comment": null, "a": {},
        });
        let filled = eval(template, json!({"a": [1, 2], "b": "v"})).unwrap();
        assert_eq!(
            filled.to_string(),
            r#"{"z":1.0,"path":[1,2],"token":"t","whole":{"a":[1,2],"b":"v"},"list":[{"x":"v"},"$.b",["y.$",{"f":"v!"}]],"Comment":null,"a":{}}"#
        );
    }

    #[test]
    fn a_path_that_finds_nothing_names_field_and_input() {
        let failed = eval(json!({"a": {"missing.$": "$.nope.deep"}}), json!({"other": 1})).unwrap_err();
        assert_eq!(failed.error, "States.Runtime");
        assert_eq!(
            failed.message,
            "The JSONPath '$.nope.deep' specified for the field 'missing.$' could not be found in the input '{\"other\":1}'"
        );
        assert_eq!(eval(json!({"none.$": "$.nope[*].x"}), json!({"other": 1})), Ok(json!({"none": []})));
        let failed = eval(json!({"x.$": "$"}), json!(null)).unwrap_err();
        assert_eq!(failed.message, "Unable to apply Path transformation to null or empty input.");
    }

    #[test]
    fn all_faults_are_found_with_their_places() {
        let faults = Template::parse(&json!({
            "a.$": null, "b": [{"c.$": "text"}], "d.$": "$.x", "d": 1, "e": {"f.$": "States.Nope()"}
        }))
        .unwrap_err();
        let found: Vec<(&str, usize)> = faults.iter().map(|f| (f.field.as_str(), f.place.len())).collect();
        assert_eq!(found, [("a.$", 0), ("c.$", 2), ("d.$", 0), ("f.$", 1)]);
    }
}
