//! From text to a checked [`StateMachine`], or all that is wrong with it at once.
//!
//! Codes and texts are AWS's where AWS's are known. What is refused here never reaches the interpreter, so
//! it may rely on it: targets exist, names are unique, every path and template is compiled.

mod checker;
mod choice;
mod distributed;
mod json;
mod jsonata;
mod processor;
mod retry;
mod review;
mod scopes;
mod state;

use std::rc::Rc;
use std::sync::Arc;

use conveyor_base::limits::quotas;

use super::machine::{Processor, ProcessorMode, QueryLanguage, StateMachine};
use super::problem::{Problem, Severity};
use super::template::Segment;
use checker::{Checker, Fields};
use json::{Kind, Member, Node};
pub use review::{resources, review};
pub use state::may_label;

/// What a definition is checked for beyond the language itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WorkflowType {
    #[default]
    Standard,
    /// Allows no task that waits for a job or a token.
    Express,
}

/// Reads and checks a definition: the machine, or all of its problems at once.
pub fn parse(text: &str) -> Result<StateMachine, Vec<Problem>> {
    let (machine, mut problems) = check(text, WorkflowType::Standard);
    problems.retain(|problem| problem.severity == Severity::Error);
    machine.ok_or(problems)
}

/// As [`parse`], for a type of workflow, and with the warnings. There is a machine exactly if no problem is
/// an error.
pub fn check(text: &str, workflow: WorkflowType) -> (Option<StateMachine>, Vec<Problem>) {
    let mut checker = Checker::new(text, workflow == WorkflowType::Express);
    let machine = checker.document(text);
    (machine.filter(|_| !checker.refused), checker.problems)
}

/// What is wrong with a text that should be JSON, worded as AWS words it; `None` if nothing is.
pub(super) fn json_fault(text: &str) -> Option<String> {
    let fault = json::read(text).err()?;
    Some(format!("{}\n at {}", fault.message, fault.source))
}

/// The name under which a state that stands alone is kept.
pub const STATE_ALONE: &str = "StateName";

/// As [`check`], for the definition of one state: where its transitions lead is not looked at.
pub fn check_state(text: &str, workflow: WorkflowType) -> (Option<StateMachine>, Vec<Problem>) {
    let mut checker = Checker::new(text, workflow == WorkflowType::Express);
    let machine = checker.lone_state(text);
    (machine.filter(|_| !checker.refused), checker.problems)
}

/// What applies to all that stands in one processor.
#[derive(Clone, Copy)]
struct Surroundings {
    depth: usize,
    language: QueryLanguage,
}

impl Checker<'_> {
    fn document(&mut self, text: &str) -> Option<StateMachine> {
        let node = self.read(text)?;
        let mut fields = self.object(&node)?;
        self.machine(&mut fields)
    }

    fn lone_state(&mut self, text: &str) -> Option<StateMachine> {
        let node = self.read(text)?;
        let name = name_of(STATE_ALONE);
        self.names.insert(name.clone());
        let (state, _) = self.state(name.clone(), &node, Surroundings { depth: 0, language: self.language });
        let mut states = std::mem::take(&mut self.states);
        states.insert(name.clone(), Box::new(state?));
        let root = Processor { start_at: name, mode: ProcessorMode::Inline, express: false };
        Some(StateMachine { comment: None, query_language: self.language, timeout_seconds: None, root, states })
    }

    /// The JSON object that a definition is.
    fn read(&mut self, text: &str) -> Option<Rc<Node>> {
        let bytes_max = quotas().definition_bytes();
        if text.len() > bytes_max {
            let message = format!("The definition is larger than {bytes_max} bytes");
            self.fault_nowhere(checker::SCHEMA, 0, &message);
            return None;
        }
        if text.trim().is_empty() {
            self.fault_nowhere(checker::SCHEMA, 0, "Definition must be a valid JSON object");
            return None;
        }
        let node = match json::read(text) {
            Ok(node) => node,
            Err(fault) => {
                let message = format!("{}\n at {}", fault.message, fault.source);
                self.fault_nowhere("INVALID_JSON_DESCRIPTION", fault.at, &message);
                if let Some(problem) = self.problems.last_mut() {
                    problem.location = Some(fault.source);
                }
                return None;
            }
        };
        let Kind::Object(_) = node.kind else {
            self.fault_nowhere(checker::SCHEMA, node.at, "Definition must be a valid JSON object");
            return None;
        };
        let node = Rc::new(node);
        self.document = Some(node.clone());
        self.refuse_doubles(&node);
        Some(node)
    }

    fn machine(&mut self, fields: &mut Fields) -> Option<StateMachine> {
        self.language = self.query_language(fields).unwrap_or_default();
        let comment = self.field(fields, "Comment", |c, node| c.string(node));
        let timeout_seconds = self.field(fields, "TimeoutSeconds", |c, node| c.integer(node, 1, state::SECONDS_MAX));
        self.field(fields, "Version", |c, node| c.word(node, "Version", &[("1.0", ())]));
        let around = Surroundings { depth: 0, language: self.language };
        let root = self.in_scope(true, |c| c.processor(fields, around));
        self.refuse_shadows();
        self.refuse_rest(fields);
        Some(StateMachine {
            comment,
            query_language: self.language,
            timeout_seconds,
            root: root?,
            states: std::mem::take(&mut self.states),
        })
    }

    /// `QueryLanguage` of the definition or of a state.
    fn query_language(&mut self, fields: &mut Fields) -> Option<QueryLanguage> {
        const WORDS: [(&str, QueryLanguage); 2] =
            [("JSONPath", QueryLanguage::JsonPath), ("JSONata", QueryLanguage::Jsonata)];
        self.field(fields, "QueryLanguage", |c, node| c.word(node, "QueryLanguage", &WORDS))
    }

    /// Field names that stand twice in one object: only one of them could count.
    fn refuse_doubles(&mut self, node: &Node) {
        match &node.kind {
            Kind::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.inside(Segment::Index(at), |c| c.refuse_doubles(item));
                }
            }
            Kind::Object(members) => {
                let mut seen = std::collections::HashSet::with_capacity(members.len());
                for Member { at, name, value } in members {
                    let double = !seen.insert(name);
                    if !double && !matches!(value.kind, Kind::Array(_) | Kind::Object(_)) {
                        continue;
                    }
                    self.inside(Segment::Key(name.as_str().into()), |c| {
                        if double {
                            c.fault_double(*at, name);
                        }
                        c.refuse_doubles(value);
                    });
                }
            }
            _ => {}
        }
    }

    fn fault_double(&mut self, at: usize, name: &str) {
        let around = self.place.len().checked_sub(2).and_then(|parent| self.place.get(parent));
        if matches!(around, Some(Segment::Key(key)) if &**key == "States") {
            self.fault_state_name(at, name);
        } else {
            self.fault_coded("INVALID_JSON_DESCRIPTION", at, format!("Duplicate field '{name}'"));
        }
    }
}

fn name_of(text: &str) -> Arc<str> {
    Arc::from(text)
}

#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
pub(super) use tests::EVERYTHING;
