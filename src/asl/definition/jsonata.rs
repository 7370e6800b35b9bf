//! What stands in states whose query language is JSONata: expressions, and fields that may be one.

use super::checker::{Checker, Fields};
use super::json::{Kind as Json, Node};
use super::state::SECONDS_MAX;
use crate::jsonata::{ExpressionFault, Jsonata, expression_of};
use crate::machine::*;
use crate::template::Segment;
use crate::{Query, Template, parse_timestamp, whole_seconds};

/// Fields of `$states` that every expression may read; what is not there is nothing.
pub(super) const EVERYWHERE: &[&str] = &["input", "context", "result"];
/// And where an error was caught.
pub(super) const WITH_ERROR: &[&str] = &["input", "context", "result", "errorOutput"];

impl Checker<'_> {
    /// Where the current place is within its state, as AWS writes it: `Choices[0]/Output`.
    fn field_path(&self) -> String {
        let mut text = String::new();
        for segment in self.place.iter().skip(self.state_depth) {
            match segment {
                Segment::Key(key) if text.is_empty() => text.push_str(key),
                Segment::Key(key) => text.extend(["/", key]),
                Segment::Index(index) => text.push_str(&format!("[{index}]")),
            }
        }
        text
    }

    /// An expression at the current place; `None` for what is none, or is wrong.
    pub(super) fn expression(&mut self, node: &Node, reads: &[&str]) -> Option<Box<Jsonata>> {
        let text = expression_of(node.as_str()?)?;
        match Jsonata::parse(text, &self.field_path(), reads) {
            Ok(expression) => Some(Box::new(expression)),
            Err(ExpressionFault { code, message }) => {
                self.fault_coded(code, node.at, message);
                None
            }
        }
    }

    /// Any JSON, with expressions at whatever depth.
    pub(super) fn jsonata_template(&mut self, node: &Node, reads: &[&str]) -> Option<Template> {
        match Template::parse_jsonata(&node.to_value(), &self.field_path(), reads) {
            Ok(template) => Some(template),
            Err(faults) => {
                for fault in faults {
                    if self.is_full() && self.refused {
                        break;
                    }
                    let (depth, at) = (self.place.len(), begin_of(node, &fault.place));
                    self.place.extend(fault.place);
                    self.fault_coded(fault.code.unwrap_or(super::checker::SCHEMA), at, fault.message);
                    self.place.truncate(depth);
                }
                None
            }
        }
    }

    /// `Assign`: an object whose names are variables' names.
    pub(super) fn jsonata_assign(&mut self, node: &Node, reads: &[&str]) -> Option<Template> {
        if !matches!(node.kind, Json::Object(_)) {
            return self.expected(node, "Object");
        }
        let template = self.jsonata_template(node, reads)?;
        self.variable_names(node, &template).then_some(template)
    }

    /// `Assign` and `Output` of a state, rule or catcher.
    pub(super) fn assign_and_output(
        &mut self,
        fields: &mut Fields,
        reads: &[&str],
    ) -> (Option<Template>, Option<Template>) {
        let assign = self.field(fields, "Assign", |c, node| c.jsonata_assign(node, reads));
        let output = self.field(fields, "Output", |c, node| c.jsonata_template(node, reads));
        (assign, output)
    }

    /// A field that holds what `read` takes, or an expression.
    fn literal_or_expression<T>(
        &mut self,
        fields: &mut Fields,
        name: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<Result<T, Query>> {
        self.field(fields, name, |c, node| match node.as_str().and_then(expression_of) {
            Some(_) => c.expression(node, EVERYWHERE).map(|expression| Err(Query::Jsonata(expression))),
            None => read(c, node).map(Ok),
        })
    }

    pub(super) fn jsonata_seconds(&mut self, fields: &mut Fields, name: &str) -> Seconds {
        match self.literal_or_expression(fields, name, |c, node| c.integer(node, 1, SECONDS_MAX)) {
            None => Seconds::Absent,
            Some(Ok(seconds)) => Seconds::Literal(seconds),
            Some(Err(query)) => Seconds::Query(query),
        }
    }

    pub(super) fn jsonata_text(&mut self, fields: &mut Fields, name: &str) -> Text {
        match self.literal_or_expression(fields, name, |c, node| c.string(node)) {
            None => Text::Absent,
            Some(Ok(text)) => Text::Literal(text),
            Some(Err(query)) => Text::Query(query),
        }
    }

    pub(super) fn jsonata_count(
        &mut self,
        fields: &mut Fields,
        name: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<f64>,
    ) -> Count {
        match self.literal_or_expression(fields, name, read) {
            None => Count::Absent,
            Some(Ok(number)) => Count::Literal(number),
            Some(Err(query)) => Count::Query(query),
        }
    }

    pub(super) fn jsonata_wait(&mut self, fields: &mut Fields) -> Option<Wait> {
        if !self.require_one(fields, &["Seconds", "Timestamp"], false) {
            fields.take_rest();
            return None;
        }
        let seconds = self.literal_or_expression(fields, "Seconds", |c, node| c.integer(node, 0, SECONDS_MAX));
        let timestamp = self.literal_or_expression(fields, "Timestamp", |c, node| {
            let moment = parse_timestamp(&c.string(node)?);
            if moment.is_none() {
                c.fault(node.at, super::state::NO_TIMESTAMP);
            }
            moment.map(whole_seconds)
        });
        match (seconds, timestamp) {
            (Some(Ok(seconds)), _) => i64::try_from(seconds).ok().map(Wait::Seconds),
            (Some(Err(query)), _) => Some(Wait::SecondsQuery(query)),
            (None, Some(Ok(moment))) => Some(Wait::Timestamp(moment)),
            (None, Some(Err(query))) => Some(Wait::TimestampQuery(query)),
            (None, None) => None,
        }
    }

    /// `Items`: an array, or an expression that gives one.
    pub(super) fn jsonata_items(&mut self, fields: &mut Fields) -> Items {
        let items = self.field(fields, "Items", |c, node| match (&node.kind, node.as_str().and_then(expression_of)) {
            (Json::Array(_) | Json::Object(_), _) | (_, Some(_)) => c.jsonata_template(node, EVERYWHERE),
            _ => c.expected(node, "Array"),
        });
        items.map_or(Items::Input, Items::Template)
    }
}

/// Where a value below a node begins.
fn begin_of(node: &Node, place: &[Segment]) -> usize {
    let mut node = node;
    for segment in place {
        let below = match (segment, &node.kind) {
            (Segment::Key(key), Json::Object(members)) => {
                members.iter().rfind(|member| *member.name == **key).map(|member| &member.value)
            }
            (Segment::Index(index), Json::Array(items)) => items.get(*index),
            _ => None,
        };
        let Some(below) = below else { break };
        node = below;
    }
    node.at
}
