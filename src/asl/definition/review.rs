//! The checks of the language and, where those find nothing, what [`flow`](crate::flow) finds, each at its place.

use serde_json::Value;

use super::checker::Checker;
use super::json::{self, Kind, Node, line_and_column};
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
    let refused = checker.problems.iter().any(|problem| problem.severity == Severity::Error);
    let Some(machine) = machine.filter(|_| !refused) else { return (None, checker.problems) };
    let mut problems = std::mem::take(&mut checker.problems);
    if let Ok(document) = json::read(text) {
        let place = |finding: Finding| {
            let mut place = checker.places.get(&finding.state).cloned().unwrap_or_default();
            place.extend(finding.place.iter().cloned());
            problem(text, &document, place, finding)
        };
        problems.extend(flow::analyse(&machine, input).into_iter().map(place));
        problems.sort_by_key(|problem| (problem.line, problem.column));
    }
    (Some(machine), problems)
}

/// Where each Task stands, with its Resource: for those who know what a box has.
pub fn resources(text: &str, workflow: WorkflowType) -> Vec<(String, Problem)> {
    let mut checker = Checker::new(text, workflow == WorkflowType::Express);
    let Some(machine) = checker.document(text) else { return Vec::new() };
    let Ok(document) = json::read(text) else { return Vec::new() };
    let mut found = Vec::new();
    for state in machine.states.values() {
        let crate::Kind::Task(task) = &state.kind else { continue };
        let place = checker.places.get(&state.name).cloned().unwrap_or_default();
        let finding = Finding {
            state: state.name.clone(),
            place: Vec::new(),
            field: "Resource".to_owned(),
            code: "RESOURCE_NOT_HERE",
            message: String::new(),
            certain: true,
        };
        found.push((task.resource.clone(), problem(text, &document, place, finding)));
    }
    found.sort_by_key(|(_, problem)| (problem.line, problem.column));
    found
}

fn problem(text: &str, document: &Node, mut place: Vec<Segment>, finding: Finding) -> Problem {
    let shown = Some(location(&place));
    if !finding.field.is_empty() {
        place.push(Segment::Key(finding.field));
    }
    let (line, column) = line_and_column(text, offset(document, &place));
    let severity = if finding.certain { Severity::Error } else { Severity::Warning };
    let (code, message) = (finding.code, finding.message);
    Problem { code, message, pointer: pointer(&place), location: shown, line, column, severity }
}

/// Where the value of a place begins; that of the nearest one around it where there is none.
fn offset(document: &Node, place: &[Segment]) -> usize {
    let (mut node, mut at) = (document, document.at);
    for segment in place {
        let next = match (segment, &node.kind) {
            (Segment::Key(key), Kind::Object(members)) => {
                members.iter().rfind(|member| member.name == *key).map(|member| (&member.value, member.at))
            }
            (Segment::Index(index), Kind::Array(items)) => items.get(*index).map(|item| (item, item.at)),
            _ => None,
        };
        let Some((next, there)) = next else { break };
        (node, at) = (next, there);
    }
    at
}
