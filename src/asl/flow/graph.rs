//! The way from state to state, whatever the data: which state leads where, what nothing leads to, what never ends.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::machine::{Kind, Name, Processor, State, StateMachine, Transition};

pub(super) struct Graph<'m> {
    machine: &'m StateMachine,
    /// Every list of states, by the state that it begins with.
    starts: BTreeSet<Name>,
}

impl<'m> Graph<'m> {
    pub fn of(machine: &'m StateMachine) -> Graph<'m> {
        let mut starts = BTreeSet::from([machine.root.start_at.clone()]);
        for state in machine.states.values() {
            starts.extend(processors(state).map(|processor| processor.start_at.clone()));
        }
        Graph { machine, starts }
    }

    /// What nothing enters, and what leads to no end.
    pub fn findings(&self, entered: impl Fn(&Name) -> bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut told: BTreeSet<Name> = BTreeSet::new();
        for start in &self.starts {
            let reached = self.reached(start);
            let ending = self.ending(&reached);
            // Of a loop that nothing leaves, its entry says enough.
            let endless = reached.iter().filter(|name| !ending.contains(*name));
            let entries = endless.filter(|name| {
                let from_outside = ending.iter().any(|other| self.leads(other).contains(name));
                from_outside || *name == start
            });
            for name in entries {
                findings.push(whole(
                    name,
                    "NO_END_REACHABLE",
                    "From here no end can be reached: the execution goes round until it is stopped, times out or its \
                     history is full.",
                ));
            }
            told.extend(reached);
        }
        for name in self.machine.states.keys() {
            if !told.contains(name) {
                findings.push(whole(name, "STATE_NEVER_ENTERED", "Nothing that is ever entered leads to this state."));
            } else if !entered(name) && self.is_first_of_its_kind(name, &entered) {
                findings.push(whole(
                    name,
                    "STATE_NEVER_ENTERED",
                    "This state is never entered: whatever leads to it cannot happen.",
                ));
            }
        }
        findings
    }

    /// Of states that are never entered, those behind which the others stand.
    fn is_first_of_its_kind(&self, name: &Name, entered: &impl Fn(&Name) -> bool) -> bool {
        let before = self.machine.states.iter().filter(|(_, state)| leads(state).contains(name));
        let mut before = before.map(|(name, _)| name).peekable();
        match before.peek() {
            Some(_) => before.any(entered),
            // The first state of a Parallel or Map, which is said of instead.
            None => false,
        }
    }

    fn leads(&self, name: &Name) -> Vec<Name> {
        self.machine.state(name).map(leads).unwrap_or_default()
    }

    fn reached(&self, start: &Name) -> BTreeSet<Name> {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![start.clone()];
        while let Some(name) = waiting.pop() {
            if reached.insert(name.clone()) {
                waiting.extend(self.leads(&name));
            }
        }
        reached
    }

    /// Of these, the ones from which an end can be reached.
    fn ending(&self, of: &BTreeSet<Name>) -> BTreeSet<Name> {
        let mut back: BTreeMap<Name, Vec<Name>> = BTreeMap::new();
        let mut waiting = Vec::new();
        for name in of {
            if self.machine.state(name).is_none_or(ends) {
                waiting.push(name.clone());
            }
            for next in self.leads(name) {
                back.entry(next).or_default().push(name.clone());
            }
        }
        let mut ending = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            if ending.insert(name.clone()) {
                waiting.extend(back.get(&name).into_iter().flatten().cloned());
            }
        }
        ending
    }
}

fn whole(state: &Name, code: &'static str, message: &str) -> Finding {
    let (place, field) = (Vec::new(), String::new());
    Finding { state: state.clone(), place, field, code, message: message.to_owned(), certain: false }
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

fn leads(state: &State) -> Vec<Name> {
    let mut names: Vec<Name> = state.catch.iter().map(|catcher| catcher.next.clone()).collect();
    if let Some(Transition::Next(next)) = &state.transition {
        names.push(next.clone());
    }
    if let Kind::Choice(choice) = &state.kind {
        names.extend(choice.rules.iter().map(|rule| rule.next.clone()));
        names.extend(choice.default.clone());
    }
    names
}
