//! Which rules of a Choice can hold.

use std::collections::HashSet;

use super::shape::{Found, Kinds, Shape};
use super::state::Reading;
use super::{Exit, Flow, Point};
use crate::condition::{Comparable, Comparand, Condition, Is};
use crate::machine::{Choice, State};
use crate::template::Segment;

/// What a condition comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Always,
    Never,
    Sometimes,
}

impl Truth {
    fn not(self) -> Truth {
        match self {
            Truth::Always => Truth::Never,
            Truth::Never => Truth::Always,
            Truth::Sometimes => Truth::Sometimes,
        }
    }
}

impl Flow<'_> {
    pub(super) fn choose(
        &mut self,
        state: &State,
        choice: &Choice,
        input: &Shape,
        point: &Point,
    ) -> Vec<(Exit, Point)> {
        let mut exits = Vec::new();
        let (mut reached, mut sure) = (true, true);
        let mut place = [Segment::Key("Choices".into()), Segment::Index(0)];
        for (at, rule) in choice.rules.iter().enumerate() {
            place[1] = Segment::Index(at);
            if !self.budget.spend(RULE_WORK) {
                break;
            }
            if !reached {
                self.report(
                    state,
                    &place,
                    "",
                    "RULE_NEVER_REACHED",
                    "This rule is never reached: one before it always holds.",
                    false,
                );
                continue;
            }
            let reading = Reading { state, place: &place, input, point, certain: sure };
            match self.truth(&rule.condition, &reading) {
                Truth::Never => {
                    self.report(
                        state,
                        &place,
                        "",
                        "RULE_NEVER_HOLDS",
                        "This rule never holds for what reaches the state.",
                        false,
                    );
                    continue;
                }
                Truth::Always => reached = false,
                Truth::Sometimes => sure = false,
            }
            let passed = self.pass_on(state, &place, rule.assign.as_ref(), rule.output.as_ref(), input, point);
            exits.push((Exit::To(rule.next.clone()), passed));
        }
        match &choice.default {
            Some(_) if !reached => {
                self.report(
                    state,
                    &[],
                    "Default",
                    "DEFAULT_NEVER_REACHED",
                    "Default is never reached: one of the rules always holds.",
                    false,
                );
            }
            Some(default) => {
                let passed =
                    self.pass_on(state, &[], state.flow.assign.as_ref(), state.flow.output.as_ref(), input, point);
                exits.push((Exit::To(default.clone()), passed));
            }
            None if reached && exits.is_empty() => {
                self.report(
                    state,
                    &[],
                    "",
                    "CHOICE_FALLS_THROUGH",
                    "No rule ever holds and there is no Default: the state fails with States.NoChoiceMatched.",
                    true,
                );
            }
            None if reached && self.speaks() && !covers(choice) => {
                self.report(
                    state,
                    &[],
                    "",
                    "CHOICE_MAY_FALL_THROUGH",
                    "There is no Default: where no rule holds, the state fails with States.NoChoiceMatched.",
                    false,
                );
            }
            None => {}
        }
        exits
    }

    fn truth(&mut self, condition: &Condition, reading: &Reading) -> Truth {
        if !self.budget.spend(1) {
            return Truth::Sometimes;
        }
        match condition {
            Condition::Jsonata(expression) => {
                self.expression(expression, "Condition", reading);
                Truth::Sometimes
            }
            Condition::Literal(flag) => {
                if *flag {
                    Truth::Always
                } else {
                    Truth::Never
                }
            }
            Condition::And(all) => self.all(all, reading, Truth::Always),
            Condition::Or(any) => self.all(any, reading, Truth::Never),
            Condition::Not(inner) => self.truth(inner, reading).not(),
            Condition::Is { variable, what: Is::Present, expected } => {
                // Asking whether it is there is no mistake, whatever the answer.
                let here = match self.found(variable, reading.input, reading.point) {
                    Found::Never => Truth::Never,
                    Found::Value { always: true, .. } if variable.variable().is_none() => Truth::Always,
                    Found::Value { .. } => Truth::Sometimes,
                };
                if *expected { here } else { here.not() }
            }
            Condition::Is { variable, what, expected } => {
                let Some(shape) = self.path(variable, "Variable", reading) else { return Truth::Never };
                let holds = is(*what, &shape);
                if *expected { holds } else { holds.not() }
            }
            Condition::Matches { variable, .. } => match self.path(variable, "Variable", reading) {
                Some(shape) if shape.kinds.has(Kinds::STRING) => Truth::Sometimes,
                _ => Truth::Never,
            },
            Condition::Compare { variable, test, with } => {
                let Some(shape) = self.path(variable, "Variable", reading) else { return Truth::Never };
                if let Comparand::Path(path) = with {
                    self.path(path, "", &Reading { certain: false, ..*reading });
                }
                let kind = match test.kind {
                    Comparable::String | Comparable::Timestamp => Kinds::STRING,
                    Comparable::Numeric => Kinds::NUMBER,
                    Comparable::Boolean => Kinds::BOOLEAN,
                };
                if shape.kinds.has(kind) { Truth::Sometimes } else { Truth::Never }
            }
        }
    }

    /// `And` (all must hold) or `Or`, whose neutral element says which. Later ones may not be looked at.
    fn all(&mut self, conditions: &[Condition], reading: &Reading, neutral: Truth) -> Truth {
        let mut whole = neutral;
        let mut certain = reading.certain;
        for condition in conditions {
            let truth = self.truth(condition, &Reading { certain, ..*reading });
            if truth == neutral.not() {
                // Those before may have decided it already, to the same end.
                return truth;
            }
            if truth == Truth::Sometimes {
                (whole, certain) = (Truth::Sometimes, false);
            }
        }
        whole
    }
}

fn is(what: Is, shape: &Shape) -> Truth {
    let kind = match what {
        Is::Null => Kinds::NULL,
        Is::Numeric => Kinds::NUMBER,
        Is::String => Kinds::STRING,
        Is::Boolean => Kinds::BOOLEAN,
        Is::Present => return Truth::Sometimes,
        Is::Timestamp if shape.kinds.has(Kinds::STRING) => return Truth::Sometimes,
        Is::Timestamp => return Truth::Never,
    };
    match (shape.kinds.has(kind), shape.kinds.is_only(kind)) {
        (false, _) => Truth::Never,
        (_, true) => Truth::Always,
        _ => Truth::Sometimes,
    }
}

/// What a rule costs beside what its condition does.
const RULE_WORK: usize = 4;

/// Whether two of the rules ask for a thing and for its contrary, so that one of them holds.
fn covers(choice: &Choice) -> bool {
    let asked: HashSet<(&str, Is, bool)> = choice
        .rules
        .iter()
        .filter_map(|rule| match &rule.condition {
            Condition::Is { variable, what, expected } => Some((variable.text(), *what, *expected)),
            Condition::Not(inner) => match &**inner {
                Condition::Is { variable, what, expected } => Some((variable.text(), *what, !*expected)),
                _ => None,
            },
            _ => None,
        })
        .collect();
    asked.iter().any(|(variable, what, expected)| asked.contains(&(*variable, *what, !*expected)))
}
