//! What names a tree reads: the variables, and what would be looked up in an input that is not there.

use super::Variable;
use super::tree::{Group, Kind, Node, Stage, Tree};

/// A step from which nothing but the next one is taken.
fn is_plain(step: &Node) -> bool {
    step.hung.stages.is_empty()
        && step.hung.predicates.is_empty()
        && step.hung.group.is_none()
        && step.hung.focus.is_none()
        && step.hung.index.is_none()
        && step.hung.ancestor.is_none()
}

/// The variables that a tree reads, in order.
pub(super) fn variables(tree: &Tree) -> Vec<Variable> {
    fn name(node: &Node) -> Option<(&str, usize)> {
        match &node.kind {
            Kind::Variable(name) => Some((name, node.at())),
            _ => None,
        }
    }
    let mut found: Vec<Variable> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    walk(&tree.root, &mut |node| match &node.kind {
        Kind::Path { steps, .. } => {
            if let Some((variable, at)) = steps.first().and_then(name) {
                let mut fields = Vec::new();
                let mut before = steps.first();
                for step in &steps[1..] {
                    // What is bound, filtered or asked for as a parent on the way is seen whole.
                    let (Kind::Name(name), true) = (&step.kind, before.is_some_and(is_plain)) else { break };
                    if step.hung.focus.is_some() || step.hung.ancestor.is_some() {
                        break;
                    }
                    fields.push(name.as_str().into());
                    before = Some(step);
                }
                seen.insert(at);
                found.push(Variable { name: variable.into(), fields: fields.into(), at });
            }
        }
        _ => {
            if let Some((variable, at)) = name(node)
                && seen.insert(at)
            {
                found.push(Variable { name: variable.into(), fields: Box::default(), at });
            }
        }
    });
    found
}

/// The first name, `$` or `$$` outside of any path, predicate or group that would give it something to stand in.
pub(super) fn top_level_reference(node: &Node) -> Option<&str> {
    match &node.kind {
        Kind::Name(name) => Some(name),
        Kind::Wildcard => Some("*"),
        Kind::Descendants => Some("**"),
        Kind::Variable(name) if name.is_empty() => Some("$"),
        Kind::Variable(name) if name == "$" => Some("$$"),
        Kind::Path { steps, .. } => steps.first().and_then(top_level_reference),
        Kind::Array(nodes) | Kind::Block(nodes) => nodes.iter().find_map(top_level_reference),
        Kind::Object(group) => {
            group.pairs.iter().find_map(|(key, value)| top_level_reference(key).or_else(|| top_level_reference(value)))
        }
        Kind::Binary(_, sides) => top_level_reference(&sides.0).or_else(|| top_level_reference(&sides.1)),
        Kind::Apply(a, b) => top_level_reference(a).or_else(|| top_level_reference(b)),
        Kind::Negate(inner) | Kind::Bind(_, inner) => top_level_reference(inner),
        Kind::Lambda(lambda) => top_level_reference(&lambda.body),
        Kind::Call(procedure, nodes) | Kind::Partial(procedure, nodes) => {
            // A function's name without its `$` fails when it is called.
            let procedure = if matches!(procedure.kind, Kind::Path { .. }) { None } else { Some(&**procedure) };
            procedure.into_iter().chain(nodes).find_map(top_level_reference)
        }
        Kind::Condition(a, b, c) => {
            [Some(&**a), Some(&**b), c.as_deref()].into_iter().flatten().find_map(top_level_reference)
        }
        _ => None,
    }
}

/// Shows a walker every node.
pub(super) fn walk<'n>(node: &'n Node, see: &mut dyn FnMut(&'n Node)) {
    see(node);
    let mut pairs = |group: &'n Group| {
        for (key, value) in &group.pairs {
            walk(key, see);
            walk(value, see);
        }
    };
    if let Kind::Object(group) = &node.kind {
        pairs(group);
    }
    if let Some(group) = &node.hung.group {
        pairs(group);
    }
    for predicate in &node.hung.predicates {
        walk(predicate, see);
    }
    for stage in &node.hung.stages {
        if let Stage::Filter(filter) = stage {
            walk(filter, see);
        }
    }
    match &node.kind {
        Kind::Path { steps: nodes, .. } | Kind::Array(nodes) | Kind::Block(nodes) => {
            nodes.iter().for_each(|node| walk(node, see));
        }
        Kind::Binary(_, sides) => {
            walk(&sides.0, see);
            walk(&sides.1, see);
        }
        Kind::Apply(a, b) => {
            walk(a, see);
            walk(b, see);
        }
        Kind::Negate(node) | Kind::Bind(_, node) => walk(node, see),
        Kind::Lambda(lambda) => walk(&lambda.body, see),
        Kind::Call(node, nodes) | Kind::Partial(node, nodes) => {
            walk(node, see);
            nodes.iter().for_each(|node| walk(node, see));
        }
        Kind::Condition(a, b, c) => {
            walk(a, see);
            walk(b, see);
            c.iter().for_each(|node| walk(node, see));
        }
        Kind::Transform(transform) => {
            walk(&transform.pattern, see);
            walk(&transform.update, see);
            transform.delete.iter().for_each(|node| walk(node, see));
        }
        Kind::Sort(terms) => terms.iter().for_each(|(_, node)| walk(node, see)),
        _ => {}
    }
}
