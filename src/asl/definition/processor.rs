//! A list of states with an entry, and whether its transitions lead somewhere.

use std::collections::HashSet;

use conveyor_base::limits::{NESTING_DEPTH_MAX, STATE_NAME_CHARS_MAX};

use super::checker::{Checker, Fields};
use super::json::{Kind, Member, Node};
use super::{Surroundings, name_of};
use crate::machine::{Name, Processor, ProcessorMode};
use crate::template::Segment;

/// Where a state may go, found while it is checked.
pub(super) struct Exits {
    /// Each target's name, and where it is written.
    pub(super) targets: Vec<Target>,
    /// Whether an execution may end in it.
    pub(super) terminal: bool,
    /// Whether its transitions could be read. Where not, nothing is said about what is reached.
    pub(super) known: bool,
}

pub(super) struct Target {
    pub(super) name: Name,
    /// Where the field's value begins.
    pub(super) at: usize,
}

impl Checker<'_> {
    /// Reads `StartAt` and `States`, and checks that all transitions lead somewhere.
    pub(super) fn processor(&mut self, fields: &mut Fields, around: Surroundings) -> Option<Processor> {
        if around.depth > NESTING_DEPTH_MAX {
            let message = format!("States are nested more than {NESTING_DEPTH_MAX} deep");
            self.fault_coded("TOO_DEEPLY_NESTED", fields.at(), message);
            fields.take_rest();
            return None;
        }
        let whole = self.require(fields, &["States", "StartAt"]);
        let start = self.field(fields, "StartAt", |c, node| {
            let name = name_of(&c.string(node)?);
            Some(Target { name, at: node.at })
        });
        let exits = self.field(fields, "States", |c, node| c.states(node, around))?;
        if let Some(start) = start.as_ref().filter(|_| whole) {
            self.transitions(start, &exits);
        }
        Some(Processor { start_at: start?.name, mode: ProcessorMode::Inline, express: false })
    }

    /// A processor that is an object of its own: a Parallel branch, a Map's processor.
    pub(super) fn nested_processor(&mut self, node: &Node, around: Surroundings, map: bool) -> Option<Processor> {
        let mut fields = self.object(node)?;
        self.field(&mut fields, "Comment", |c, node| c.string(node));
        let mode = match map {
            true => self.field(&mut fields, "ProcessorConfig", Checker::processor_mode),
            false => None,
        };
        let around = Surroundings { depth: around.depth + 1, ..around };
        let (mode, express) = mode.unzip();
        let alone = mode == Some(ProcessorMode::Distributed);
        let processor = self.in_scope(alone, |c| c.processor(&mut fields, around));
        self.refuse_rest(&fields);
        processor.map(|processor| Processor {
            mode: mode.unwrap_or_default(),
            express: express.unwrap_or_default(),
            ..processor
        })
    }

    /// The mode, and whether children are express.
    fn processor_mode(&mut self, node: &Node) -> Option<(ProcessorMode, bool)> {
        const MODES: [(&str, ProcessorMode); 2] =
            [("INLINE", ProcessorMode::Inline), ("DISTRIBUTED", ProcessorMode::Distributed)];
        let mut fields = self.object(node)?;
        let mode = self.field(&mut fields, "Mode", |c, node| {
            let mode = c.word(node, "Mode", &MODES);
            if mode == Some(ProcessorMode::Distributed) && c.express {
                c.fault(node.at, "Express state machine does not support Distributed Map");
            }
            mode
        });
        let express = self.field(&mut fields, "ExecutionType", |c, node| {
            c.word(node, "ExecutionType", &[("STANDARD", false), ("EXPRESS", true)])
        });
        self.refuse_rest(&fields);
        Some((mode.unwrap_or_default(), express.unwrap_or_default()))
    }

    fn states(&mut self, node: &Node, around: Surroundings) -> Option<Vec<(Name, usize, Exits)>> {
        self.object(node)?;
        let Kind::Object(members) = &node.kind else { return None };
        if members.is_empty() {
            self.fault(node.at, "There must be at least one state");
            return None;
        }
        let mut exits = Vec::with_capacity(members.len());
        let mut here = HashSet::new();
        for Member { at, name, value } in members {
            let name = name_of(name);
            self.inside(Segment::Key(name.clone()), |c| {
                // A name that stands twice in this object has its problem already.
                let twice = !here.insert(name.clone());
                if !c.names.insert(name.clone()) && !twice {
                    c.fault_state_name(*at, &name);
                }
                if name.is_empty() || name.chars().count() > STATE_NAME_CHARS_MAX {
                    let message = format!("A state's name has 1 to {STATE_NAME_CHARS_MAX} characters");
                    c.fault_coded("INVALID_STATE_NAME", *at, message);
                }
                c.places.insert(name.clone(), value.at);
                let (state, leads) = c.state(name.clone(), value, around);
                if let Some(state) = state {
                    c.states.insert(name.clone(), Box::new(state));
                }
                exits.push((name, *at, leads));
            });
        }
        Some(exits)
    }

    /// Every target exists, something ends, something leads to every state.
    ///
    /// AWS asks no more than that: of an island it names only the states that nothing leads to.
    fn transitions(&mut self, start: &Target, states: &[(Name, usize, Exits)]) {
        let names: HashSet<&str> = states.iter().map(|(name, ..)| &**name).collect();
        for target in std::iter::once(start).chain(states.iter().flat_map(|(.., exits)| &exits.targets)) {
            if !names.contains(&*target.name) {
                let message = format!("Missing 'Next' target: {}", target.name);
                self.fault_there("MISSING_TRANSITION_TARGET", target.at, message);
            }
        }
        if states.iter().any(|(.., exits)| !exits.known) {
            return;
        }
        if !states.iter().any(|(.., exits)| exits.terminal) {
            let at = states.first().map_or(0, |(_, at, _)| *at);
            self.fault_nowhere("MISSING_END_STATE", at, "Workflow has no terminal state");
            return;
        }
        let led_to: HashSet<&str> = std::iter::once(start)
            .chain(states.iter().flat_map(|(.., exits)| &exits.targets))
            .map(|target| &*target.name)
            .collect();
        for (name, at, _) in states.iter().filter(|(name, ..)| !led_to.contains(&**name)) {
            let depth = self.place.len();
            self.place.extend([Segment::Key("States".into()), Segment::Key(name.clone())]);
            self.fault_coded("MISSING_TRANSITION_TARGET", *at, format!("State \"{name}\" is not reachable."));
            self.place.truncate(depth);
        }
    }
}

impl Exits {
    pub(super) fn new() -> Exits {
        Exits { targets: Vec::new(), terminal: false, known: true }
    }
}
