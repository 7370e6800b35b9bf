//! Choice states: rules and their conditions.

use conveyor_base::limits::NESTING_DEPTH_MAX;

use super::checker::{Checker, Fields};
use super::json::{Kind, Node};
use super::processor::Exits;
use crate::condition::{Comparable, Comparand, Comparison, Is, Pattern, Relation};
use crate::jsonata::expression_of;
use crate::machine::{Choice, Rule};
use crate::template::Segment;
use crate::{Condition, parse_timestamp};

impl Checker<'_> {
    pub(super) fn choice(&mut self, fields: &mut Fields, exits: &mut Exits, jsonata: bool) -> Option<Choice> {
        exits.known &= self.require(fields, &["Choices"]);
        let rules = self.field(fields, "Choices", |c, node| {
            let items = c.filled_array(node)?;
            let mut rules = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                rules.extend(c.inside(Segment::Index(at), |c| c.rule(item, exits, jsonata)));
            }
            Some(rules)
        });
        let default = if fields.has("Default") { self.target(fields, "Default", exits) } else { None };
        Some(Choice { rules: rules?, default })
    }

    fn rule(&mut self, node: &Node, exits: &mut Exits, jsonata: bool) -> Option<Rule> {
        let mut fields = self.object(node)?;
        exits.known &= self.require(&fields, &["Next"]);
        let next = self.target(&mut fields, "Next", exits);
        self.field(&mut fields, "Comment", |c, node| c.string(node));
        if jsonata {
            self.require(&fields, &["Condition"]);
            let condition = self.field(&mut fields, "Condition", |c, node| match node.kind {
                Kind::Bool(flag) => Some(Condition::Literal(flag)),
                _ if node.as_str().and_then(expression_of).is_some() => {
                    c.expression(node, super::jsonata::EVERYWHERE).map(Condition::Jsonata)
                }
                _ => c.expected(node, "JSONata expression"),
            });
            let (assign, output) = self.assign_and_output(&mut fields, super::jsonata::EVERYWHERE);
            self.refuse_rest(&fields);
            return Some(Rule { condition: condition?, next: next?, assign, output });
        }
        let assign = self.field(&mut fields, "Assign", |c, node| c.assign(node));
        let condition = self.condition(&mut fields, 0);
        Some(Rule { condition: condition?, next: next?, assign, output: None })
    }

    /// The condition that is left in the fields of a rule.
    fn condition(&mut self, fields: &mut Fields, depth: usize) -> Option<Condition> {
        let operators: Vec<String> =
            fields.rest().map(|member| &member.name).filter(|name| operator(name).is_some()).cloned().collect();
        let name = match operators.as_slice() {
            [name] => name,
            [] => {
                self.refuse_rest(fields);
                self.fault(fields.at(), "A choice rule needs a comparison operator, And, Or or Not");
                return None;
            }
            _ => {
                let listed = operators.join(", ");
                self.fault(fields.at(), format!("Only one of these fields is allowed: [{listed}]"));
                return None;
            }
        };
        if depth > NESTING_DEPTH_MAX {
            let message = format!("Conditions are nested more than {NESTING_DEPTH_MAX} deep");
            self.fault_coded("TOO_DEEPLY_NESTED", fields.at(), message);
            return None;
        }
        let condition = match operator(name)? {
            Operator::And => self.field(fields, name, |c, node| c.conditions(node, depth)).map(Condition::And),
            Operator::Or => self.field(fields, name, |c, node| c.conditions(node, depth)).map(Condition::Or),
            Operator::Not => self
                .field(fields, name, |c, node| c.inner_condition(node, depth))
                .map(|inner| Condition::Not(Box::new(inner))),
            tested => self.comparison(fields, name, tested),
        };
        self.refuse_rest(fields);
        condition
    }

    fn conditions(&mut self, node: &Node, depth: usize) -> Option<Vec<Condition>> {
        let items = self.filled_array(node)?;
        let mut conditions = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            conditions.push(self.inside(Segment::Index(at), |c| c.inner_condition(item, depth)));
        }
        conditions.into_iter().collect()
    }

    fn inner_condition(&mut self, node: &Node, depth: usize) -> Option<Condition> {
        let mut fields = self.object(node)?;
        self.field(&mut fields, "Comment", |c, node| c.string(node));
        self.condition(&mut fields, depth + 1)
    }

    fn comparison(&mut self, fields: &mut Fields, name: &str, operator: Operator) -> Option<Condition> {
        self.require(fields, &["Variable"]);
        let variable = self.field(fields, "Variable", |c, node| c.path(node));
        self.field(fields, name, |c, node| match operator {
            Operator::Is(what) => {
                let expected = c.boolean(node)?;
                Some(Condition::Is { variable: variable?, what, expected })
            }
            Operator::Matches => {
                let pattern = Pattern::new(&c.string(node)?);
                Some(Condition::Matches { variable: variable?, pattern })
            }
            Operator::ComparePath(test) => {
                let with = Comparand::Path(c.path(node)?);
                Some(Condition::Compare { variable: variable?, test, with })
            }
            Operator::Compare(test) => {
                c.warn_of_path(node);
                let with = c.comparand(node, test.kind)?;
                Some(Condition::Compare { variable: variable?, test, with })
            }
            Operator::And | Operator::Or | Operator::Not => None,
        })
    }

    fn comparand(&mut self, node: &Node, kind: Comparable) -> Option<Comparand> {
        match (kind, &node.kind) {
            (Comparable::String, Kind::String(_))
            | (Comparable::Numeric, Kind::Number(_))
            | (Comparable::Boolean, Kind::Bool(_)) => Some(Comparand::Literal(node.to_value())),
            (Comparable::Timestamp, Kind::String(text)) => match parse_timestamp(text) {
                Some(moment) => Some(Comparand::Moment(moment)),
                None => {
                    self.fault(node.at, super::state::NO_TIMESTAMP);
                    None
                }
            },
            (Comparable::String | Comparable::Timestamp, _) => self.expected(node, "String"),
            (Comparable::Numeric, _) => self.expected(node, "Number"),
            (Comparable::Boolean, _) => self.expected(node, "Boolean"),
        }
    }
}

#[derive(Clone, Copy)]
enum Operator {
    And,
    Or,
    Not,
    Is(Is),
    Matches,
    Compare(Comparison),
    ComparePath(Comparison),
}

/// The operator of that name.
fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "And" => Operator::And,
        "Or" => Operator::Or,
        "Not" => Operator::Not,
        "StringMatches" => Operator::Matches,
        "IsNull" => Operator::Is(Is::Null),
        "IsPresent" => Operator::Is(Is::Present),
        "IsNumeric" => Operator::Is(Is::Numeric),
        "IsString" => Operator::Is(Is::String),
        "IsBoolean" => Operator::Is(Is::Boolean),
        "IsTimestamp" => Operator::Is(Is::Timestamp),
        _ => {
            let (name, is_path) = name.strip_suffix("Path").map_or((name, false), |name| (name, true));
            let test = comparison(name)?;
            if is_path { Operator::ComparePath(test) } else { Operator::Compare(test) }
        }
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    const KINDS: [(&str, Comparable); 4] = [
        ("String", Comparable::String),
        ("Numeric", Comparable::Numeric),
        ("Boolean", Comparable::Boolean),
        ("Timestamp", Comparable::Timestamp),
    ];
    let (kind, relation) = KINDS.iter().find_map(|(word, kind)| Some((*kind, name.strip_prefix(word)?)))?;
    let relation = match relation {
        "Equals" => Relation::Equals,
        "LessThan" => Relation::LessThan,
        "GreaterThan" => Relation::GreaterThan,
        "LessThanEquals" => Relation::LessThanEquals,
        "GreaterThanEquals" => Relation::GreaterThanEquals,
        _ => return None,
    };
    // True is not greater than false.
    (kind != Comparable::Boolean || relation == Relation::Equals).then_some(Comparison { kind, relation })
}
