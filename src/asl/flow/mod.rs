//! What can happen to data on its way through a definition, found out without running it.
//!
//! Every state is looked at with all that may reach it ([`shape`]): paths that can find nothing, variables that nothing
//! has assigned, rules that cannot hold, states that nothing enters, loops that nothing leaves. Pure, and sound:
//! what is said never to happen never happens; what is not known is not said. The states' rules stand in [`state`],
//! conditions in [`choice`], the way from state to state in [`graph`].
//!
//! ```text
//! input of the execution: anything
//!        │ enter: joined with what else leads here, until nothing changes
//!        v
//!   state: InputPath, Parameters, (result), ResultSelector, ResultPath, OutputPath, Assign ──> next, catchers, end
//! ```

mod choice;
mod graph;
mod shape;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use super::machine::{Kind, Name, StateMachine};
use super::template::Segment;
use graph::Graph;
use shape::Shape;

/// How often states are looked at, all together, before the analysis gives up and says nothing of data.
const LOOKS_MAX: usize = 20_000;
/// How often what reaches one state may grow before nothing is held known of it.
const GROWTH_MAX: usize = 8;

/// Something that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub state: Name,
    /// Below the state: the way to the object that holds the field.
    pub place: Vec<Segment>,
    /// Empty where the state as a whole is meant.
    pub field: String,
    pub code: &'static str,
    pub message: String,
    /// Whoever enters the state fails.
    pub certain: bool,
}

/// All findings, in the order of the states' names and fields. With an input, of an execution that gets that one.
pub fn analyse(machine: &StateMachine, input: Option<&Value>) -> Vec<Finding> {
    let graph = Graph::of(machine);
    let mut flow = Flow {
        machine,
        findings: Vec::new(),
        quiet: 0,
        looks: 0,
        entered: HashSet::new(),
        assigned: assigned_anywhere(machine),
    };
    let start = Point { data: input.map_or_else(Shape::any, Shape::of), variables: BTreeMap::new() };
    flow.processor(&machine.root.start_at, start);
    let (mut findings, known) = (std::mem::take(&mut flow.findings), flow.looks < LOOKS_MAX);
    let entered = std::mem::take(&mut flow.entered);
    if !known {
        findings.clear();
    }
    findings.extend(graph.findings(|name| !known || entered.contains(name)));
    for state in machine.states.values() {
        state::rules_without_use(state, &mut findings);
    }
    let key = |f: &Finding| (f.state.clone(), format!("{:?}", f.place), f.field.clone(), f.message.clone());
    findings.sort_by_cached_key(key);
    findings.dedup();
    findings
}

/// The names of all variables that anything assigns.
fn assigned_anywhere(machine: &StateMachine) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for state in machine.states.values() {
        let rules = match &state.kind {
            Kind::Choice(choice) => choice.rules.as_slice(),
            _ => &[],
        };
        let all = [state.flow.assign.as_ref()]
            .into_iter()
            .chain(state.catch.iter().map(|catcher| catcher.assign.as_ref()))
            .chain(rules.iter().map(|rule| rule.assign.as_ref()));
        names.extend(all.flatten().flat_map(|assign| assign.field_names()).map(str::to_owned));
    }
    names
}

/// What may be there when a state is entered.
#[derive(Clone, Debug, PartialEq)]
struct Point {
    data: Shape,
    variables: BTreeMap<String, Variable>,
}

#[derive(Clone, Debug, PartialEq)]
struct Variable {
    shape: Shape,
    /// Assigned on every way to here.
    always: bool,
}

impl Point {
    /// Two ways that meet.
    fn or(self, other: Point) -> Point {
        let mut variables = BTreeMap::new();
        let mut theirs = other.variables;
        for (name, ours) in self.variables {
            let joined = match theirs.remove(&name) {
                Some(their) => Variable { shape: ours.shape.or(their.shape), always: ours.always && their.always },
                None => Variable { always: false, ..ours },
            };
            variables.insert(name, joined);
        }
        variables.extend(theirs.into_iter().map(|(name, v)| (name, Variable { always: false, ..v })));
        Point { data: self.data.or(other.data), variables }
    }

    /// The same, with nothing known but which variables there are.
    fn forget(mut self) -> Point {
        self.data = Shape::any();
        self.variables.values_mut().for_each(|variable| variable.shape = Shape::any());
        self
    }
}

/// Where a state leads.
enum Exit {
    To(Name),
    End,
}

struct Flow<'m> {
    machine: &'m StateMachine,
    findings: Vec<Finding>,
    /// Above 0 while what reaches the states is not final: nothing is said then.
    quiet: usize,
    looks: usize,
    entered: HashSet<Name>,
    assigned: BTreeSet<String>,
}

impl<'m> Flow<'m> {
    /// Everything that can come out at the end of a list of states; `None` where nothing does.
    fn processor(&mut self, start: &Name, input: Point) -> Option<Point> {
        let mut points: BTreeMap<Name, (Point, usize)> = BTreeMap::from([(start.clone(), (input, 0))]);
        let mut waiting = BTreeSet::from([start.clone()]);
        self.quiet += 1;
        while let Some(name) = waiting.pop_first() {
            for (exit, point) in self.look(&name, &points) {
                if let Exit::To(next) = exit
                    && enter(&mut points, &next, point)
                {
                    waiting.insert(next);
                }
            }
        }
        self.quiet -= 1;
        let mut end: Option<Point> = None;
        for name in points.keys().cloned().collect::<Vec<_>>() {
            for (exit, point) in self.look(&name, &points) {
                if let Exit::End = exit {
                    end = Some(match end {
                        Some(before) => before.or(point),
                        None => point,
                    });
                }
            }
            if self.quiet == 0 {
                self.entered.insert(name);
            }
        }
        end
    }

    fn look(&mut self, name: &Name, points: &BTreeMap<Name, (Point, usize)>) -> Vec<(Exit, Point)> {
        let Some(state) = self.machine.state(name) else { return Vec::new() };
        let Some((point, _)) = points.get(name) else { return Vec::new() };
        self.looks += 1;
        if self.looks >= LOOKS_MAX {
            return Vec::new();
        }
        self.exits(state, point.clone())
    }

    fn push_finding(&mut self, finding: Finding) {
        if self.quiet == 0 {
            self.findings.push(finding);
        }
    }
}

/// Whether this brings anything new to the state.
fn enter(points: &mut BTreeMap<Name, (Point, usize)>, name: &Name, point: Point) -> bool {
    let Some((before, growth)) = points.get(name) else {
        points.insert(name.clone(), (point, 0));
        return true;
    };
    let mut joined = before.clone().or(point);
    if joined == *before {
        return false;
    }
    if *growth >= GROWTH_MAX {
        joined = joined.forget();
        if joined == *before {
            return false;
        }
    }
    let growth = growth + 1;
    points.insert(name.clone(), (joined, growth));
    true
}

#[cfg(test)]
mod tests;
