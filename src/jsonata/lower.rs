//! From what is written to what is evaluated.
//!
//! Lowering joins `a.b.c` to one path, hangs predicates on the step they stand behind, finds for each `%` the
//! step whose item it means, and marks which steps must carry bindings along (tuple streams).

use super::fault::{Fault, Result};
use super::syntax::{Pairs, Raw, RawKind};
use super::tree::{Group, Hung, Kind, Lambda, Node, NodePairs, Stage, Transform, Tree};

pub(super) fn lower(raw: Raw) -> Result<Tree> {
    let mut lowering = Lowering { slots: Vec::new() };
    let mut root = lowering.node(raw)?;
    root.fit();
    if matches!(root.kind, Kind::Parent(_)) || !root.hung.seeking.is_empty() {
        return Err(underivable(&root));
    }
    Ok(Tree { root, labels: lowering.slots.into_iter().map(|slot| format!("!{}", slot.label)).collect() })
}

struct Slot {
    label: usize,
    /// How many steps up its item still is.
    level: usize,
}

struct Lowering {
    slots: Vec<Slot>,
}

fn underivable(node: &Node) -> Box<Fault> {
    let message = "The object representing the 'parent' cannot be derived from this expression";
    Fault::new("S0217", node.at(), message)
}

impl Lowering {
    fn node(&mut self, raw: Raw) -> Result<Node> {
        let (at, keep_array) = (raw.at, raw.keep_array);
        let mut node = match raw.kind {
            RawKind::Binary(operator, left, right) => self.binary(at, operator, *left, *right)?,
            RawKind::Group(left, pairs) => {
                let mut node = self.node(*left)?;
                if node.hung.group.is_some() {
                    return Err(Fault::new("S0210", at, "Each step can only have one grouping expression"));
                }
                node.hung.group = Some(Box::new(Group { at, pairs: self.pairs(pairs)?.0 }));
                node
            }
            RawKind::Sort(left, terms) => self.sort(at, *left, terms)?,
            RawKind::Name(name) => {
                let mut step = Node::new(at, Kind::Name(name));
                step.keep_array = keep_array;
                Node::new(at, Kind::Path { steps: vec![step], keep_singleton: keep_array })
            }
            RawKind::Parent => {
                self.slots.push(Slot { label: self.slots.len(), level: 1 });
                Node::new(at, Kind::Parent(self.slots.len() - 1))
            }
            RawKind::End => return Err(Fault::new("S0207", at, "Unexpected end of expression")),
            other => self.plain(at, other)?,
        };
        node.keep_array |= keep_array;
        Ok(node)
    }

    /// What becomes a node of the same shape.
    fn plain(&mut self, at: usize, raw: RawKind) -> Result<Node> {
        let kind = match raw {
            RawKind::Variable(name) => Kind::Variable(name),
            RawKind::Text(text) => Kind::Text(text),
            RawKind::Number(number) => Kind::Number(number),
            RawKind::Bool(flag) => Kind::Bool(flag),
            RawKind::Pattern(pattern) => Kind::Pattern(pattern),
            RawKind::Open => Kind::Open,
            RawKind::Wildcard => Kind::Wildcard,
            RawKind::Descendants => Kind::Descendants,
            RawKind::Negate(raw) => return self.negate(at, *raw),
            RawKind::Array(items) => return self.listed(at, items, Kind::Array),
            RawKind::Block(items) => return self.block(at, items),
            RawKind::Object(pairs) => {
                let (pairs, seeking) = self.pairs(pairs)?;
                let mut node = Node::new(at, Kind::Object(Box::new(Group { at, pairs })));
                if !seeking.is_empty() {
                    node.hung.seeking = seeking;
                }
                return Ok(node);
            }
            RawKind::Call(procedure, arguments) => return self.call(at, *procedure, arguments, Kind::Call),
            RawKind::Partial(procedure, arguments) => return self.call(at, *procedure, arguments, Kind::Partial),
            RawKind::Lambda(parameters, signature, body) => {
                Kind::Lambda(Box::new(Lambda { parameters, signature, body: self.node(*body)? }))
            }
            RawKind::Condition(condition, then, other) => return self.condition(at, *condition, *then, other),
            RawKind::Transform(pattern, update, delete) => Kind::Transform(Box::new(Transform {
                pattern: self.node(*pattern)?,
                update: self.node(*update)?,
                delete: delete.map(|delete| self.node(*delete)).transpose()?,
            })),
            _ => Kind::Null,
        };
        Ok(Node::new(at, kind))
    }

    fn pairs(&mut self, pairs: Pairs) -> Result<(NodePairs, Vec<usize>)> {
        let mut heir = Node::new(0, Kind::Null);
        let mut lowered = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let (key, value) = (self.node(key)?, self.node(value)?);
            heir.inherit(&key);
            heir.inherit(&value);
            lowered.push((key, value));
        }
        Ok((lowered, heir.hung.seeking.clone()))
    }

    fn listed(&mut self, at: usize, items: Vec<Raw>, kind: impl FnOnce(Vec<Node>) -> Kind) -> Result<Node> {
        let nodes = items.into_iter().map(|item| self.node(item)).collect::<Result<Vec<_>>>()?;
        let mut heir = Node::new(at, Kind::Null);
        nodes.iter().for_each(|node| heir.inherit(node));
        heir.kind = kind(nodes);
        Ok(heir)
    }

    fn block(&mut self, at: usize, items: Vec<Raw>) -> Result<Node> {
        let mut node = self.listed(at, items, Kind::Block)?;
        if let Kind::Block(items) = &node.kind {
            node.cons_array = items.iter().any(|item| {
                item.cons_array
                    || matches!(&item.kind, Kind::Path { steps, .. } if steps.first().is_some_and(|s| s.cons_array))
            });
        }
        Ok(node)
    }

    fn negate(&mut self, at: usize, raw: Raw) -> Result<Node> {
        let mut inner = self.node(raw)?;
        if let Kind::Number(number) = &mut inner.kind {
            *number = -*number;
            return Ok(inner);
        }
        let mut node = Node::new(at, Kind::Null);
        node.inherit(&inner);
        node.kind = Kind::Negate(Box::new(inner));
        Ok(node)
    }

    fn call(
        &mut self,
        at: usize,
        procedure: Raw,
        arguments: Vec<Raw>,
        kind: impl FnOnce(Box<Node>, Box<[Node]>) -> Kind,
    ) -> Result<Node> {
        let mut heir = Node::new(at, Kind::Null);
        let arguments = arguments.into_iter().map(|raw| self.node(raw)).collect::<Result<Vec<_>>>()?;
        arguments.iter().for_each(|argument| heir.inherit(argument));
        heir.kind = kind(Box::new(self.node(procedure)?), arguments.into());
        Ok(heir)
    }

    fn condition(&mut self, at: usize, condition: Raw, then: Raw, other: Option<Box<Raw>>) -> Result<Node> {
        let mut heir = Node::new(at, Kind::Null);
        let condition = self.node(condition)?;
        let then = self.node(then)?;
        let other = other.map(|other| self.node(*other)).transpose()?;
        heir.inherit(&condition);
        heir.inherit(&then);
        other.iter().for_each(|other| heir.inherit(other));
        heir.kind = Kind::Condition(Box::new(condition), Box::new(then), other.map(Box::new));
        Ok(heir)
    }

    fn binary(&mut self, at: usize, operator: &'static str, left: Raw, right: Raw) -> Result<Node> {
        match operator {
            "." => self.steps(left, right),
            "[" => self.predicate(at, left, right),
            "@" => self.focus(at, left, right),
            "#" => self.index(left, right),
            ":=" => {
                let RawKind::Variable(name) = left.kind else { return Ok(Node::new(at, Kind::Null)) };
                let value = self.node(right)?;
                let mut node = Node::new(at, Kind::Null);
                node.inherit(&value);
                node.kind = Kind::Bind(name.into(), Box::new(value));
                Ok(node)
            }
            _ => {
                let (left, right) = (self.node(left)?, self.node(right)?);
                let mut node = Node::new(at, Kind::Null);
                node.inherit(&left);
                node.inherit(&right);
                if operator == "~>" {
                    node.keep_array = left.keep_array || right.keep_array;
                    node.hung = Hung::default();
                    node.kind = Kind::Apply(Box::new(left), Box::new(right));
                } else {
                    node.kind = Kind::Binary(operator, Box::new((left, right)));
                }
                Ok(node)
            }
        }
    }

    /// `left.right`: one path of all steps. A chain of them is walked, not descended.
    fn steps(&mut self, left: Raw, right: Raw) -> Result<Node> {
        let (mut first, mut rest) = (left, vec![right]);
        while let RawKind::Binary(".", left, right) = first.kind {
            rest.push(*right);
            first = *left;
        }
        let mut path = self.as_path(first)?;
        for right in rest.into_iter().rev() {
            path = self.step(path, right)?;
        }
        Ok(path)
    }

    fn step(&mut self, mut path: Node, right: Raw) -> Result<Node> {
        let mut rest = self.node(right)?;
        let Kind::Path { steps, keep_singleton } = &mut path.kind else { return Ok(path) };
        match rest.kind {
            // The path behind gives its steps away; what else hangs on it is the reference's to lose too.
            Kind::Path { steps: more, .. } => steps.extend(more),
            _ => {
                rest.hung.filter();
                steps.push(rest);
            }
        }
        for step in steps.iter_mut() {
            let shown = match &mut step.kind {
                Kind::Text(text) => {
                    step.kind = Kind::Name(std::mem::take(text));
                    continue;
                }
                Kind::Number(number) => super::value::number_text(*number),
                Kind::Bool(flag) => flag.to_string(),
                Kind::Null => String::from("null"),
                _ => continue,
            };
            let message = format!("The literal value {shown} cannot be used as a step within a path expression");
            return Err(Fault::new("S0213", step.at(), message));
        }
        *keep_singleton |= steps.iter().any(|step| step.keep_array);
        let last = steps.len() - 1;
        for at in [0, last] {
            if matches!(steps[at].kind, Kind::Array(_)) {
                steps[at].cons_array = true;
            }
        }
        self.resolve(&mut path)?;
        Ok(path)
    }

    /// The node as a path of which it is the only step, unless it is one.
    fn as_path(&mut self, raw: Raw) -> Result<Node> {
        let node = self.node(raw)?;
        if node.is_path() {
            return Ok(node);
        }
        let mut path = Node::new(node.at(), Kind::Null);
        if let Kind::Parent(slot) = node.kind {
            path.hung.seeking = vec![slot];
        }
        path.kind = Kind::Path { steps: vec![node], keep_singleton: false };
        Ok(path)
    }

    fn predicate(&mut self, at: usize, left: Raw, right: Raw) -> Result<Node> {
        let mut node = self.node(left)?;
        let is_path = node.is_path();
        node.at_last_step(|step| {
            if step.hung.group.is_some() {
                return Err(Fault::new("S0209", at, "A predicate cannot follow a grouping expression in a step"));
            }
            let predicate = self.node(right)?;
            for slot in predicate.hung.seeking.clone() {
                if self.slots[slot].level == 1 {
                    self.seek(step, slot)?;
                } else {
                    self.slots[slot].level -= 1;
                }
            }
            step.inherit(&predicate);
            match is_path {
                true => step.hung.stages.push(Stage::Filter(predicate)),
                false => step.hung.predicates.push(predicate),
            }
            Ok(())
        })?;
        Ok(node)
    }

    fn sort(&mut self, at: usize, left: Raw, terms: Vec<(bool, Raw)>) -> Result<Node> {
        let mut path = self.node(left)?;
        if !path.is_path() {
            path = Node::new(path.at(), Kind::Path { steps: vec![path], keep_singleton: false });
        }
        let mut sort = Node::new(at, Kind::Null);
        let mut lowered = Vec::with_capacity(terms.len());
        for (descending, term) in terms {
            let term = self.node(term)?;
            sort.inherit(&term);
            lowered.push((descending, term));
        }
        sort.kind = Kind::Sort(lowered);
        if let Kind::Path { steps, .. } = &mut path.kind {
            steps.push(sort);
        }
        self.resolve(&mut path)?;
        Ok(path)
    }

    fn focus(&mut self, at: usize, left: Raw, right: Raw) -> Result<Node> {
        let mut node = self.node(left)?;
        node.at_last_step(|step| {
            if !step.hung.stages.is_empty() || !step.hung.predicates.is_empty() {
                let message = "A context variable binding must precede any predicates on a step";
                return Err(Fault::new("S0215", at, message));
            }
            if matches!(step.kind, Kind::Sort(_)) {
                let message = "A context variable binding must precede the 'order-by' clause on a step";
                return Err(Fault::new("S0216", at, message));
            }
            if let RawKind::Variable(name) = right.kind {
                step.hung.focus = Some(name.into());
            }
            step.tuple = true;
            Ok(())
        })?;
        Ok(node)
    }

    fn index(&mut self, left: Raw, right: Raw) -> Result<Node> {
        let RawKind::Variable(name) = right.kind else { return self.node(left) };
        let mut node = self.node(left)?;
        if !node.is_path() {
            node.hung.filter();
            node = Node::new(node.at(), Kind::Path { steps: vec![node], keep_singleton: false });
        }
        node.at_last_step(|step| {
            match step.hung.stages.is_empty() {
                true => step.hung.index = Some(name.into()),
                false => step.hung.stages.push(Stage::Index(name)),
            }
            step.tuple = true;
        });
        Ok(node)
    }

    /// Finds the steps that the `%` of a path's last step mean.
    fn resolve(&mut self, path: &mut Node) -> Result<()> {
        let Kind::Path { steps, .. } = &mut path.kind else { return Ok(()) };
        let Some(last) = steps.last() else { return Ok(()) };
        let mut slots = last.hung.seeking.clone();
        if let Kind::Parent(slot) = last.kind {
            slots.push(slot);
        }
        for slot in slots {
            let mut index = steps.len().checked_sub(2);
            while self.slots[slot].level > 0 {
                let Some(mut at) = index else {
                    path.hung.seeking.push(slot);
                    break;
                };
                // Bindings on neighbouring steps share one context.
                while at > 0 && steps[at].hung.focus.is_some() && steps[at - 1].hung.focus.is_some() {
                    at -= 1;
                }
                self.seek(&mut steps[at], slot)?;
                index = at.checked_sub(1);
            }
        }
        Ok(())
    }

    /// Takes one step up towards the item that a slot means.
    fn seek(&mut self, node: &mut Node, slot: usize) -> Result<()> {
        match &mut node.kind {
            Kind::Name(_) | Kind::Wildcard => {
                self.slots[slot].level -= 1;
                if self.slots[slot].level == 0 {
                    if let Some(before) = node.hung.ancestor {
                        self.slots[slot].label = self.slots[before].label;
                    }
                    node.hung.ancestor = Some(slot);
                    node.tuple = true;
                }
            }
            Kind::Parent(_) => self.slots[slot].level += 1,
            Kind::Block(items) => {
                if let Some(last) = items.last_mut() {
                    node.tuple = true;
                    self.seek(last, slot)?;
                }
            }
            Kind::Path { steps, .. } => {
                node.tuple = true;
                for step in steps.iter_mut().rev() {
                    self.seek(step, slot)?;
                    if self.slots[slot].level == 0 {
                        break;
                    }
                }
            }
            _ => return Err(underivable(node)),
        }
        Ok(())
    }
}
