//! What can happen to data on its way through a definition, found out without running it.
//!
//! Every state is looked at with all that may reach it ([`shape`]): paths that can find nothing, variables that nothing
//! has assigned, rules that cannot hold, states that nothing enters, loops that nothing leaves. Pure, and sound:
//! what is said never to happen never happens; what is not known is not said. The states' rules stand in [`state`],
//! conditions in [`choice`], the way from state to state in [`graph`], what is known of data in [`shape`] and
//! [`variables`].
//!
//! Whatever the definition, an analysis takes no more than its [`budget`]. Where that is spent before all is known, the
//! rest is not said: what was found until then stays, and a finding says that there may be more.
//!
//! ```text
//! input of the execution: anything
//!        │ enter: joined with what else leads here, until nothing changes
//!        v
//!   state: InputPath, Parameters, (result), ResultSelector, ResultPath, OutputPath, Assign ──> next, catchers, end
//! ```

mod budget;
mod choice;
mod findings;
mod graph;
mod shape;
mod state;
mod variables;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::machine::{Kind, Name, StateMachine};
use super::template::Segment;
use budget::{Budget, Used};
use findings::Findings;
use graph::Graph;
use shape::{Kinds, Shape};
use variables::{Names, Variables};

/// How often what reaches one state may grow before nothing is held known of it.
const GROWTH_MAX: usize = 8;
/// What is kept for a state that is reached, about.
const POINT_BYTES: usize = 2 * size_of::<Known>();

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
///
/// The work and the memory are bounded whatever the definition is; `NOT_FOLLOWED_FURTHER` is found where that was not
/// enough, `FINDINGS_LEFT_OUT` where there is more to say than anybody reads.
pub fn analyse(machine: &StateMachine, input: Option<&Value>) -> Vec<Finding> {
    analyse_within(machine, input, Used::MOST).0
}

/// The same within other bounds, and what it took.
fn analyse_within(machine: &StateMachine, input: Option<&Value>, bounds: Used) -> (Vec<Finding>, Budget) {
    let graph = Graph::of(machine);
    let budget = Budget::new(bounds);
    let text = || Shape::some(Kinds::STRING);
    let error = Shape::object([("Error".into(), text(), false), ("Cause".into(), text(), false)], &budget);
    let start = Point {
        data: input.map_or_else(Shape::any, |input| Shape::of(input, &budget)),
        variables: Variables::default(),
    };
    let mut flow = Flow {
        graph,
        budget,
        findings: Findings::default(),
        quiet: 0,
        entered: vec![false; machine.states.len()],
        names: Names::of(assigned_anywhere(machine)),
        known: HashMap::new(),
        error,
    };
    flow.processor(&machine.root.start_at, start);
    let Flow { graph, budget, mut findings, entered, .. } = flow;
    let followed = !budget.is_spent();
    graph.findings(|number| !followed || entered[number], &mut findings);
    for state in machine.states.values() {
        findings::rules_without_use(state, &mut findings);
    }
    (findings.finish(&machine.root.start_at, followed), budget)
}

/// The names of all variables that anything assigns.
fn assigned_anywhere(machine: &StateMachine) -> BTreeSet<&str> {
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
        names.extend(all.flatten().flat_map(|assign| assign.field_names()));
    }
    names
}

/// What may be there when a state is entered. Clones share it.
#[derive(Clone, Debug)]
struct Point {
    data: Shape,
    variables: Variables,
}

impl Point {
    /// Two ways that meet: `self` itself where the other brings nothing new.
    fn or(&self, other: &Point, budget: &Budget) -> Point {
        Point { data: self.data.or(&other.data, budget), variables: self.variables.or(&other.variables, budget) }
    }

    fn is(&self, other: &Point) -> bool {
        self.data.is(&other.data) && self.variables.is(&other.variables)
    }

    fn equals(&self, other: &Point, budget: &Budget) -> bool {
        self.data.equals(&other.data, budget) && self.variables.equals(&other.variables, budget)
    }

    /// The same, with nothing known but which variables there are.
    fn forget(&self, budget: &Budget) -> Point {
        Point { data: Shape::any(), variables: self.variables.forget(budget) }
    }
}

/// Where a state leads.
enum Exit {
    To(Name),
    End,
}

/// What is known of a state of a list.
struct Known {
    point: Point,
    growth: usize,
    /// What comes out of the list here.
    end: Option<Point>,
}

/// All that can happen in a list of states that begins with an input. The states by their ranks.
struct Followed {
    input: Point,
    states: BTreeMap<usize, Known>,
    end: Option<Point>,
}

struct Flow<'m> {
    graph: Graph<'m>,
    budget: Budget,
    findings: Findings,
    /// Above 0 while what reaches the states is not final: nothing is said then.
    quiet: usize,
    /// By the states' numbers.
    entered: Vec<bool>,
    names: Names,
    /// The lists of states that were followed, by the ranks of their first ones: with the input that they had last.
    known: HashMap<usize, Followed>,
    /// What a catcher gets.
    error: Shape,
}

impl<'m> Flow<'m> {
    /// Everything that can come out at the end of a list of states; `None` where nothing does.
    fn processor(&mut self, start: &Name, input: Point) -> Option<Point> {
        let start = self.graph.rank(start)?;
        let known = self.known.remove(&start).filter(|known| known.input.equals(&input, &self.budget));
        let followed = match known {
            Some(known) => known,
            None => self.follow(start, input),
        };
        if self.speaks() {
            for (rank, known) in &followed.states {
                let Some(state) = self.graph.state_of_rank(*rank) else { continue };
                self.look(state, known.point.clone());
                if let Some(number) = self.graph.number(&state.name) {
                    self.entered[number] = true;
                }
            }
        }
        let end = followed.end.clone();
        self.known.insert(start, followed);
        end
    }

    /// Looks at states until nothing new reaches any of them.
    fn follow(&mut self, start: usize, input: Point) -> Followed {
        let mut states = BTreeMap::new();
        let mut waiting = BTreeSet::new();
        if self.enter(&mut states, start, input.clone()) {
            waiting.insert(start);
        }
        self.quiet += 1;
        while let Some(rank) = waiting.pop_first() {
            let (Some(state), Some(known)) = (self.graph.state_of_rank(rank), states.get(&rank)) else { continue };
            let mut end: Option<Point> = None;
            for (exit, point) in self.look(state, known.point.clone()) {
                match exit {
                    Exit::To(next) => {
                        let next = self.graph.rank(&next);
                        waiting.extend(next.filter(|next| self.enter(&mut states, *next, point)));
                    }
                    Exit::End => {
                        end = Some(match end {
                            Some(before) => before.or(&point, &self.budget),
                            None => point,
                        });
                    }
                }
            }
            if let Some(known) = states.get_mut(&rank) {
                known.end = end;
            }
            if self.budget.is_spent() {
                break;
            }
        }
        self.quiet -= 1;
        let ends = states.values().filter_map(|known| known.end.as_ref());
        let mut end: Option<Point> = None;
        for one in ends {
            end = Some(end.map_or_else(|| one.clone(), |before| before.or(one, &self.budget)));
        }
        Followed { input, states, end }
    }

    /// Whether this brings anything new to the state.
    fn enter(&self, states: &mut BTreeMap<usize, Known>, rank: usize, point: Point) -> bool {
        let Some(known) = states.get_mut(&rank) else {
            states.insert(rank, Known { point, growth: 0, end: None });
            return self.budget.hold(POINT_BYTES);
        };
        let mut joined = known.point.or(&point, &self.budget);
        if joined.is(&known.point) {
            return false;
        }
        if known.growth >= GROWTH_MAX {
            joined = joined.forget(&self.budget);
            if joined.equals(&known.point, &self.budget) {
                return false;
            }
        }
        known.growth += 1;
        known.point = joined;
        true
    }

    fn look(&mut self, state: &'m crate::State, point: Point) -> Vec<(Exit, Point)> {
        match self.budget.spend(LOOK_WORK) {
            true => self.exits(state, point),
            false => Vec::new(),
        }
    }

    /// Whether what is found now is said.
    fn speaks(&self) -> bool {
        self.quiet == 0 && !self.budget.is_spent()
    }
}

/// What a look at a state costs beside what its fields do.
const LOOK_WORK: usize = 8;

#[cfg(test)]
mod tests;
