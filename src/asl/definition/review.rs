//! The checks of the language and, where those find nothing, what [`flow`](crate::flow) finds, each at its place.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::checker::Checker;
use super::json::{self, Kind, Member, Node, locate};
use super::{StateMachine, WorkflowType};
use crate::flow::{self, Finding};
use crate::problem::{Problem, Severity, location, pointer};
use crate::template::Segment;

/// As [`check`](super::check), with what can never happen to data on its way. Those findings are warnings, but for the
/// ones after which a state can only fail; a definition that has no other problems runs all the same. `input`: of an
/// execution that is started with that.
pub fn review(text: &str, workflow: WorkflowType, input: Option<&Value>) -> (Option<StateMachine>, Vec<Problem>) {
    let mut checker = Checker::new(text, workflow == WorkflowType::Express);
    let machine = checker.document(text);
    let Some(machine) = machine.filter(|_| !checker.refused) else { return (None, checker.problems) };
    let mut problems = std::mem::take(&mut checker.problems);
    // Read again for the places, so that the analysis need not stand beside it.
    checker.document = None;
    let findings = flow::analyse(&machine, input);
    if !findings.is_empty() {
        checker.document = json::read(text).ok().map(Rc::new);
    }
    let mut places = Places::of(&checker);
    problems.extend(findings.into_iter().map(|finding| places.problem(finding)));
    problems.sort_by_key(|problem| (problem.line, problem.column));
    (Some(machine), problems)
}

/// Where each Task stands, with its Resource: for those who know what a box has.
pub fn resources(text: &str, workflow: WorkflowType) -> Vec<(String, Problem)> {
    let mut checker = Checker::new(text, workflow == WorkflowType::Express);
    let Some(machine) = checker.document(text) else { return Vec::new() };
    let mut places = Places::of(&checker);
    let mut found = Vec::new();
    for state in machine.states.values() {
        let crate::Kind::Task(task) = &state.kind else { continue };
        let finding = Finding {
            state: state.name.clone(),
            place: Vec::new(),
            field: "Resource".to_owned(),
            code: "RESOURCE_NOT_HERE",
            message: String::new(),
            certain: true,
        };
        found.push((task.resource.clone(), places.problem(finding)));
    }
    found.sort_by_key(|(_, problem)| (problem.line, problem.column));
    found
}

/// Objects with fewer fields are looked through.
const FIELDS_FEW: usize = 16;

/// Finds the places of findings in the text.
struct Places<'c, 't> {
    checker: &'c Checker<'t>,
    /// The fields of large objects, by where those begin.
    large: HashMap<usize, HashMap<&'c str, &'c Member>>,
}

impl<'c, 't> Places<'c, 't> {
    fn of(checker: &'c Checker<'t>) -> Places<'c, 't> {
        Places { checker, large: HashMap::new() }
    }

    fn problem(&mut self, finding: Finding) -> Problem {
        let begin = self.checker.places.get(&finding.state).copied().unwrap_or_default();
        let mut at = begin;
        let mut place = Vec::new();
        if let Some(document) = self.checker.document.as_deref() {
            let (state, node, name) = locate(document, begin);
            let field = (!finding.field.is_empty()).then(|| Segment::Key(finding.field.as_str().into()));
            at = self.below(node, name, finding.place.iter().chain(&field));
            place = state;
        }
        place.extend(finding.place);
        let shown = Some(location(&place));
        if !finding.field.is_empty() {
            place.push(Segment::Key(finding.field.into()));
        }
        let (line, column) = self.checker.line_and_column(at);
        let severity = if finding.certain { Severity::Error } else { Severity::Warning };
        let (code, message) = (finding.code, finding.message);
        Problem { code, message, pointer: pointer(&place), location: shown, line, column, severity }
    }

    /// Where the value of a place below a node begins; that of the nearest one around it where there is none.
    fn below<'s>(&mut self, mut node: &'c Node, mut at: usize, place: impl Iterator<Item = &'s Segment>) -> usize {
        for segment in place {
            let next = match (segment, &node.kind) {
                (Segment::Key(key), Kind::Object(members)) => {
                    self.member(node.at, members, key).map(|member| (&member.value, member.at))
                }
                (Segment::Index(index), Kind::Array(items)) => items.get(*index).map(|item| (item, item.at)),
                _ => None,
            };
            let Some((next, there)) = next else { break };
            (node, at) = (next, there);
        }
        at
    }

    fn member(&mut self, at: usize, members: &'c [Member], name: &str) -> Option<&'c Member> {
        if members.len() <= FIELDS_FEW {
            return members.iter().rfind(|member| member.name == name);
        }
        let by_name = || members.iter().map(|member| (member.name.as_str(), member)).collect();
        self.large.entry(at).or_insert_with(by_name).get(name).copied()
    }
}
