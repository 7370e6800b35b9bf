//! What all checks share: where they are, what they have found, and how a field is read.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::json::{Kind, Member, Node, Positions, locate};
use crate::problem::{Problem, Severity, TEXT_BYTES_MAX, location, pointer};
use crate::template::{Segment, cut};
use crate::{Name, Path, QueryLanguage, State, Template};

/// Most problems that are kept: more help nobody.
const PROBLEMS_MAX: usize = 1_000;
/// Beyond so many bytes of texts no other is kept.
const PROBLEMS_BYTES_MAX: usize = 1 << 20;

pub(super) const SCHEMA: &str = "SCHEMA_VALIDATION_FAILED";

/// One walk through one definition.
pub(super) struct Checker<'t> {
    text: &'t str,
    /// Once it is read.
    pub(super) document: Option<Rc<Node>>,
    positions: OnceCell<Positions<'t>>,
    pub(super) problems: Vec<Problem>,
    /// Whether one of them, kept or not, is an error.
    pub(super) refused: bool,
    problem_bytes: usize,
    pub(super) place: Vec<Segment>,
    /// Every state that is whole so far.
    pub(super) states: HashMap<Name, Box<State>>,
    /// Where each state begins, in bytes.
    pub(super) places: HashMap<Name, usize>,
    /// Every state's name, also of states that are not whole.
    pub(super) names: HashSet<Name>,
    /// Of the whole definition.
    pub(super) language: QueryLanguage,
    pub(super) express: bool,
    /// Of the state that is read.
    pub(super) here: QueryLanguage,
    /// How much of the place is the way to that state.
    pub(super) state_depth: usize,
    pub(super) scopes: super::scopes::Scopes,
}

/// The fields of an object, of which each may be taken once.
pub(super) struct Fields<'n> {
    at: usize,
    members: &'n [Member],
    taken: Vec<bool>,
}

impl<'n> Fields<'n> {
    pub(super) fn take(&mut self, name: &str) -> Option<&'n Node> {
        let index = self.members.iter().position(|member| member.name == name)?;
        self.taken[index] = true;
        Some(&self.members[index].value)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name)
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Takes all that is left.
    pub(super) fn take_rest(&mut self) {
        self.taken.fill(true);
    }

    /// The fields that nothing has taken.
    pub(super) fn rest(&self) -> impl Iterator<Item = &'n Member> {
        self.members.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|(member, _)| member)
    }
}

impl<'t> Checker<'t> {
    pub(super) fn new(text: &'t str, express: bool) -> Checker<'t> {
        Checker {
            text,
            document: None,
            positions: OnceCell::new(),
            problems: Vec::new(),
            refused: false,
            problem_bytes: 0,
            place: Vec::new(),
            states: HashMap::new(),
            places: HashMap::new(),
            names: HashSet::new(),
            language: QueryLanguage::JsonPath,
            express,
            here: QueryLanguage::JsonPath,
            state_depth: 0,
            scopes: Default::default(),
        }
    }

    /// Adds a problem of the current place.
    pub(super) fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.fault_coded(SCHEMA, at, message);
    }

    pub(super) fn fault_coded(&mut self, code: &'static str, at: usize, message: impl Into<String>) {
        self.push(code, at, message.into(), None, true, Severity::Error);
    }

    /// Adds a problem of the value that begins there.
    pub(super) fn fault_there(&mut self, code: &'static str, at: usize, message: String) {
        if self.is_full() && self.refused {
            return;
        }
        let place = self.document.as_ref().map(|document| locate(document, at).0);
        let here = std::mem::replace(&mut self.place, place.unwrap_or_default());
        self.fault_coded(code, at, message);
        self.place = here;
    }

    /// A state's name that stands twice, in one object or in nested ones.
    pub(super) fn fault_state_name(&mut self, at: usize, name: &str) {
        self.fault_coded("DUPLICATE_STATE_NAME", at, format!("Duplicate State name: {name}"));
    }

    /// Adds a problem of a field that AWS reports at the object around it.
    pub(super) fn fault_field(&mut self, at: usize, field: &str, message: impl Into<String>) {
        self.push(SCHEMA, at, message.into(), Some(field), true, Severity::Error);
    }

    /// Adds a problem of the whole definition, for which AWS gives no place.
    pub(super) fn fault_nowhere(&mut self, code: &'static str, at: usize, message: &str) {
        self.push(code, at, message.to_owned(), None, false, Severity::Error);
    }

    pub(super) fn warn(&mut self, code: &'static str, at: usize, message: &str) {
        self.push(code, at, message.to_owned(), None, true, Severity::Warning);
    }

    pub(super) fn is_full(&self) -> bool {
        self.problems.len() >= PROBLEMS_MAX || self.problem_bytes > PROBLEMS_BYTES_MAX
    }

    /// Adds a problem of the current place or of a field there; with AWS's words for the place, unless it has none.
    fn push(
        &mut self,
        code: &'static str,
        at: usize,
        message: String,
        field: Option<&str>,
        located: bool,
        severity: Severity,
    ) {
        let first_error = severity == Severity::Error && !self.refused;
        self.refused |= severity == Severity::Error;
        if self.is_full() {
            // Among however many warnings, the error that refuses the definition is said.
            if !first_error {
                return;
            }
            self.problems.pop();
        }
        let location = located.then(|| location(&self.place));
        self.place.extend(field.map(|field| Segment::Key(field.into())));
        let pointer = pointer(&self.place);
        if field.is_some() {
            self.place.pop();
        }
        let (line, column) = self.line_and_column(at);
        let message = cut(message, TEXT_BYTES_MAX);
        self.problem_bytes += message.len() + pointer.len() + location.as_ref().map_or(0, String::len);
        self.problems.push(Problem { code, message, pointer, location, line, column, severity });
    }

    /// Both from 1, the column in characters.
    pub(super) fn line_and_column(&self, at: usize) -> (usize, usize) {
        self.positions.get_or_init(|| Positions::of(self.text)).line_and_column(at)
    }

    /// Checks something below the current place.
    pub(super) fn inside<T>(&mut self, segment: Segment, check: impl FnOnce(&mut Self) -> T) -> T {
        self.place.push(segment);
        let result = check(self);
        self.place.pop();
        result
    }

    /// Reads a field, if it is there, at its place.
    pub(super) fn field<T>(
        &mut self,
        fields: &mut Fields,
        name: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        let node = fields.take(name)?;
        self.inside(Segment::Key(name.into()), |checker| read(checker, node))
    }

    /// The fields of an object; adds a problem for anything else.
    pub(super) fn object<'n>(&mut self, node: &'n Node) -> Option<Fields<'n>> {
        match &node.kind {
            Kind::Object(members) => Some(Fields { at: node.at, members, taken: vec![false; members.len()] }),
            _ => self.expected(node, "Object"),
        }
    }

    pub(super) fn array<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::Array(items) => Some(items),
            _ => self.expected(node, "Array"),
        }
    }

    /// The items of an array that has at least one.
    pub(super) fn filled_array<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        let items = self.array(node)?;
        if items.is_empty() {
            self.fault(node.at, "Expected at least 1 item(s), but found 0");
            return None;
        }
        Some(items)
    }

    pub(super) fn string(&mut self, node: &Node) -> Option<String> {
        match node.as_str() {
            Some(text) => Some(text.to_owned()),
            None => self.expected(node, "String"),
        }
    }

    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match node.kind {
            Kind::Bool(flag) => Some(flag),
            _ => self.expected(node, "Boolean"),
        }
    }

    /// A whole number within bounds.
    pub(super) fn integer(&mut self, node: &Node, least: u64, most: u64) -> Option<u64> {
        let number = match &node.kind {
            Kind::Number(number) => number,
            _ => return self.expected(node, "Integer"),
        };
        match number.as_u64() {
            Some(whole) if (least..=most).contains(&whole) => Some(whole),
            _ if number.is_f64() => self.expected(node, "Integer"),
            _ => {
                self.fault(node.at, format!("Value must be between {least} and {most}, but was {number}"));
                None
            }
        }
    }

    /// A number within bounds.
    pub(super) fn number(&mut self, node: &Node, least: f64, most: f64) -> Option<f64> {
        let number = match &node.kind {
            Kind::Number(number) => number.as_f64()?,
            _ => return self.expected(node, "Number"),
        };
        if (least..=most).contains(&number) {
            return Some(number);
        }
        let bounds = if most == f64::MAX { format!("at least {least}") } else { format!("between {least} and {most}") };
        self.fault(node.at, format!("Value must be {bounds}, but was {number}"));
        None
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, field: &str, words: &[(&str, T)]) -> Option<T> {
        if let Some((_, found)) = words.iter().find(|(word, _)| Some(*word) == node.as_str()) {
            return Some(*found);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("The field '{field}' should have one of these values: [{}]", known.join(", "));
        self.fault(node.at, message);
        None
    }

    pub(super) fn path(&mut self, node: &Node) -> Option<Path> {
        let text = self.string(node)?;
        match Path::parse(&text) {
            Ok(path) => Some(path),
            Err(_) => {
                self.fault(node.at, "Value must be a valid JSONPath.");
                None
            }
        }
    }

    /// A payload template.
    pub(super) fn template(&mut self, node: &Node) -> Option<Template> {
        if !matches!(node.kind, Kind::Object(_)) {
            return self.expected(node, "Object");
        }
        match Template::parse(&node.to_value()) {
            Ok(template) => {
                self.warn_of_queries(node);
                Some(template)
            }
            Err(faults) => {
                for fault in faults {
                    if self.is_full() && self.refused {
                        break;
                    }
                    let depth = self.place.len();
                    let at = seek(node, &fault.place, &fault.field).unwrap_or(node.at);
                    self.place.extend(fault.place);
                    self.fault_field(at, &fault.field, fault.message);
                    self.place.truncate(depth);
                }
                None
            }
        }
    }

    /// A text in a field that takes no path and has a sister that does.
    pub(super) fn warn_of_path(&mut self, node: &Node) {
        if node.as_str().is_some_and(looks_like_path) {
            let message = "Field value looks like a path, but field name does not end with 'Path'.";
            self.warn("NO_PATH", node.at, message);
        }
    }

    /// Texts in a template that look like a query in a field that does not say so with `.$`.
    fn warn_of_queries(&mut self, node: &Node) {
        match &node.kind {
            Kind::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.inside(Segment::Index(at), |c| c.warn_of_queries(item));
                }
            }
            Kind::Object(members) => {
                for member in members.iter().filter(|member| !member.name.ends_with(".$")) {
                    self.inside(Segment::Key(member.name.as_str().into()), |c| {
                        let text = member.value.as_str().unwrap_or_default();
                        if looks_like_path(text) || text.starts_with("States.") {
                            c.warn(
                                "NO_DOLLAR",
                                member.at,
                                "No .$ on a field that appears to be a JSONPath or Intrinsic Function.",
                            );
                        }
                        c.warn_of_queries(&member.value);
                    });
                }
            }
            _ => {}
        }
    }

    /// Adds a problem unless all of these fields are there.
    pub(super) fn require(&mut self, fields: &Fields, names: &[&str]) -> bool {
        let missing: Vec<&str> = names.iter().copied().filter(|name| !fields.has(name)).collect();
        if !missing.is_empty() {
            self.fault(fields.at, format!("These fields are required: [{}]", missing.join(", ")));
        }
        missing.is_empty()
    }

    /// Adds a problem unless exactly one of these fields is there; with `optional`, at most one.
    pub(super) fn require_one(&mut self, fields: &Fields, names: &[&str], optional: bool) -> bool {
        let found = names.iter().filter(|name| fields.has(name)).count();
        let listed = names.join(", ");
        match found {
            0 if optional => true,
            0 => {
                self.fault(fields.at, format!("Exactly one of these fields is required: [{listed}]"));
                false
            }
            1 => true,
            _ => {
                self.fault(fields.at, format!("Only one of these fields is allowed: [{listed}]"));
                false
            }
        }
    }

    /// Adds a problem for each field that nothing has taken.
    pub(super) fn refuse_rest(&mut self, fields: &Fields) {
        const OF_JSONATA: [&str; 4] = ["Arguments", "Output", "Items", "Condition"];
        const OF_JSONPATH: [&str; 16] = [
            "InputPath",
            "OutputPath",
            "Parameters",
            "ResultSelector",
            "ResultPath",
            "ItemsPath",
            "TimeoutSecondsPath",
            "HeartbeatSecondsPath",
            "SecondsPath",
            "TimestampPath",
            "MaxConcurrencyPath",
            "ToleratedFailureCountPath",
            "ToleratedFailurePercentagePath",
            "ErrorPath",
            "CausePath",
            "Variable",
        ];
        for member in fields.rest() {
            let name = &member.name;
            let other = match self.here {
                QueryLanguage::JsonPath if OF_JSONATA.contains(&name.as_str()) => Some(("JSONPath", "JSONata")),
                QueryLanguage::Jsonata if OF_JSONPATH.contains(&name.as_str()) => Some(("JSONata", "JSONPath")),
                _ => None,
            };
            let message = match other {
                Some((set, needed)) => format!(
                    "The QueryLanguage is set to '{set}', but field '{name}' is only supported for the '{needed}' \
                     QueryLanguage"
                ),
                None => format!("Field '{name}' is not supported"),
            };
            self.fault_field(member.at, name, message);
        }
    }

    pub(super) fn expected<T>(&mut self, node: &Node, kind: &str) -> Option<T> {
        self.fault(node.at, format!("Expected value of type {kind}"));
        None
    }
}

fn looks_like_path(text: &str) -> bool {
    text.starts_with("$.") || text.starts_with("$$.")
}

/// Where a field below a node begins.
fn seek(node: &Node, place: &[Segment], field: &str) -> Option<usize> {
    let mut node = node;
    for segment in place {
        node = match (segment, &node.kind) {
            (Segment::Key(key), Kind::Object(members)) => {
                members.iter().rfind(|member| *member.name == **key).map(|member| &member.value)?
            }
            (Segment::Index(index), Kind::Array(items)) => items.get(*index)?,
            _ => return None,
        };
    }
    match &node.kind {
        Kind::Object(members) => members.iter().rfind(|member| member.name == field).map(|member| member.at),
        _ => None,
    }
}
