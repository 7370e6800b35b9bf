//! The way from state to state, whatever the data: which state leads where, what nothing leads to, what never ends.
//!
//! States have numbers here, by their names. Everything is done once for each state and each way between two.

use std::collections::{BTreeSet, HashMap};

use super::Finding;
use super::findings::{Findings, whole};
use crate::machine::{Kind, Name, Processor, State, StateMachine, Transition};

pub(super) struct Graph<'m> {
    /// By name.
    states: Vec<&'m State>,
    numbers: HashMap<&'m str, usize>,
    /// Where each state leads.
    leads: Vec<Vec<usize>>,
    /// From where each state is led to.
    back: Vec<Vec<usize>>,
    /// Of every list of states, the one that it begins with.
    starts: BTreeSet<usize>,
    /// Each state's place in an order in which those that lead to it stand before it, but for loops.
    ranks: Vec<usize>,
    /// The states in that order.
    ordered: Vec<usize>,
}

impl<'m> Graph<'m> {
    pub fn of(machine: &'m StateMachine) -> Graph<'m> {
        let mut states: Vec<&State> = machine.states.values().map(|state| &**state).collect();
        states.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let numbers: HashMap<&str, usize> = states.iter().enumerate().map(|(at, state)| (&*state.name, at)).collect();
        let leads: Vec<Vec<usize>> = states
            .iter()
            .map(|state| {
                let mut to: Vec<usize> = leads(state).filter_map(|name| numbers.get(&**name).copied()).collect();
                to.sort_unstable();
                to.dedup();
                to
            })
            .collect();
        let mut back = vec![Vec::new(); states.len()];
        for (from, to) in leads.iter().enumerate() {
            to.iter().for_each(|to| back[*to].push(from));
        }
        let first = std::iter::once(&machine.root).chain(states.iter().flat_map(|state| processors(state)));
        let starts = first.filter_map(|processor| numbers.get(&*processor.start_at).copied()).collect();
        let mut graph = Graph { states, numbers, leads, back, starts, ranks: Vec::new(), ordered: Vec::new() };
        graph.order();
        graph
    }

    pub fn number(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }

    pub fn rank(&self, name: &str) -> Option<usize> {
        self.number(name).map(|number| self.ranks[number])
    }

    pub fn state_of_rank(&self, rank: usize) -> Option<&'m State> {
        self.ordered.get(rank).map(|number| self.states[*number])
    }

    /// States are put at the end once all that they lead to has been; read backwards, that is the order.
    fn order(&mut self) {
        let mut seen = vec![false; self.states.len()];
        let mut done = Vec::with_capacity(self.states.len());
        for start in self.starts.iter().copied().chain(0..self.states.len()) {
            let mut open = vec![(start, 0)];
            if std::mem::replace(&mut seen[start], true) {
                continue;
            }
            while let Some((state, next)) = open.last_mut() {
                match self.leads[*state].get(*next) {
                    Some(to) => {
                        *next += 1;
                        if !std::mem::replace(&mut seen[*to], true) {
                            open.push((*to, 0));
                        }
                    }
                    None => {
                        done.push(*state);
                        open.pop();
                    }
                }
            }
        }
        done.reverse();
        self.ranks = vec![0; done.len()];
        for (rank, state) in done.iter().enumerate() {
            self.ranks[*state] = rank;
        }
        self.ordered = done;
    }

    /// What nothing enters, and what leads to no end.
    pub fn findings(&self, entered: impl Fn(usize) -> bool, findings: &mut Findings) {
        let mut told = vec![false; self.states.len()];
        self.mark(self.starts.iter().copied(), &self.leads, &mut told);
        let mut ending = vec![false; self.states.len()];
        let ends = (0..self.states.len()).filter(|state| told[*state] && ends(self.states[*state]));
        self.mark(ends, &self.back, &mut ending);
        for (number, state) in self.states.iter().enumerate() {
            let before = &self.back[number];
            // Of a loop that nothing leaves, its entry says enough.
            let is_entry = || self.starts.contains(&number) || before.iter().any(|from| told[*from] && ending[*from]);
            if told[number] && !ending[number] && is_entry() {
                findings.push(no_end(&state.name));
            }
            if !told[number] {
                let words = "Nothing that is ever entered leads to this state.";
                findings.push(whole(&state.name, "STATE_NEVER_ENTERED", words));
            // Of states that are never entered, those behind which the others stand. The first state of a Parallel or
            // Map that nothing leads to is said of instead.
            } else if !entered(number) && before.iter().any(|from| entered(*from)) {
                let words = "This state is never entered: whatever leads to it cannot happen.";
                findings.push(whole(&state.name, "STATE_NEVER_ENTERED", words));
            }
        }
    }

    /// Marks these and all that the ways lead to from there.
    fn mark(&self, from: impl Iterator<Item = usize>, ways: &[Vec<usize>], marked: &mut [bool]) {
        let mut waiting: Vec<usize> = from.collect();
        while let Some(state) = waiting.pop() {
            if !std::mem::replace(&mut marked[state], true) {
                waiting.extend(&ways[state]);
            }
        }
    }
}

fn no_end(state: &Name) -> Finding {
    whole(
        state,
        "NO_END_REACHABLE",
        "From here no end can be reached: the execution goes round until it is stopped, times out or its history is \
         full.",
    )
}

/// The lists of states within a state.
pub(super) fn processors(state: &State) -> impl Iterator<Item = &Processor> {
    let (branches, map) = match &state.kind {
        Kind::Parallel(branches) => (branches.as_slice(), None),
        Kind::Map(map) => (&[][..], Some(&map.processor)),
        _ => (&[][..], None),
    };
    branches.iter().chain(map)
}

fn ends(state: &State) -> bool {
    match &state.kind {
        Kind::Succeed | Kind::Fail { .. } => true,
        // Without a Default it may fail, which is an end.
        Kind::Choice(choice) => choice.default.is_none(),
        _ => state.transition == Some(Transition::End),
    }
}

fn leads(state: &State) -> impl Iterator<Item = &Name> {
    let next = match &state.transition {
        Some(Transition::Next(next)) => Some(next),
        _ => None,
    };
    let (rules, default) = match &state.kind {
        Kind::Choice(choice) => (choice.rules.as_slice(), choice.default.as_ref()),
        _ => (&[][..], None),
    };
    let caught = state.catch.iter().map(|catcher| &catcher.next);
    caught.chain(next).chain(rules.iter().map(|rule| &rule.next)).chain(default)
}
