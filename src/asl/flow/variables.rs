//! The variables that may be there at a state: a tree over their numbers, whose parts states share.
//!
//! What a state assigns makes a few new nodes; all others stay those of the state before. Two ways that meet compare
//! nothing that they have from the same place.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::budget::Budget;
use super::shape::Shape;

/// Children of a node: 2 to the power of this.
const BITS: u32 = 3;
const WIDTH: usize = 1 << BITS;

#[derive(Clone, Debug)]
pub struct Variable {
    pub shape: Shape,
    /// Assigned on every way to here.
    pub always: bool,
}

impl Variable {
    fn is(&self, other: &Variable) -> bool {
        self.always == other.always && self.shape.is(&other.shape)
    }
}

/// All variables that a definition assigns somewhere, numbered.
pub struct Names {
    numbers: HashMap<Box<str>, usize>,
    levels: u32,
}

impl Names {
    pub fn of(names: BTreeSet<&str>) -> Names {
        let mut levels = 0;
        while names.len() > WIDTH << (BITS * levels) {
            levels += 1;
        }
        let numbers = names.into_iter().enumerate().map(|(number, name)| (Box::from(name), number)).collect();
        Names { numbers, levels }
    }

    pub fn has(&self, name: &str) -> bool {
        self.numbers.contains_key(name)
    }
}

/// Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    root: Option<Arc<Node>>,
}

#[derive(Clone, Debug)]
enum Node {
    Inner([Option<Arc<Node>>; WIDTH]),
    Leaf([Option<Variable>; WIDTH]),
}

const NODE_BYTES: usize = size_of::<Node>() + 2 * size_of::<usize>();

impl Variables {
    pub fn get(&self, name: &str, names: &Names) -> Option<&Variable> {
        let number = *names.numbers.get(name)?;
        let mut node = self.root.as_deref()?;
        let mut level = names.levels;
        loop {
            match node {
                Node::Leaf(slots) => return slots[number % WIDTH].as_ref(),
                Node::Inner(below) => node = below[child(number, level)].as_deref()?,
            }
            level = level.saturating_sub(1);
        }
    }

    /// Without effect once the budget is spent.
    pub fn insert(&mut self, name: &str, variable: Variable, names: &Names, budget: &Budget) {
        let Some(number) = names.numbers.get(name) else { return };
        let (mut slot, mut level) = (&mut self.root, names.levels);
        loop {
            if !budget.spend(1) {
                return;
            }
            let made = match slot {
                Some(node) => Arc::get_mut(node).is_none(),
                None => true,
            };
            if made && !budget.hold(NODE_BYTES) {
                return;
            }
            let node = slot.get_or_insert_with(|| {
                Arc::new(if level == 0 { Node::Leaf(Default::default()) } else { Node::Inner(Default::default()) })
            });
            match Arc::make_mut(node) {
                Node::Leaf(slots) => {
                    slots[number % WIDTH] = Some(variable);
                    return;
                }
                Node::Inner(below) => slot = &mut below[child(*number, level)],
            }
            level = level.saturating_sub(1);
        }
    }

    /// Whether both are the same, seen from outside: never true of two that differ.
    pub fn is(&self, other: &Variables) -> bool {
        same(&self.root, &other.root)
    }

    /// Whether both are the same throughout.
    pub fn equals(&self, other: &Variables, budget: &Budget) -> bool {
        equal(&self.root, &other.root, budget)
    }

    /// Two ways that meet: `self` itself where the other brings nothing new.
    pub fn or(&self, other: &Variables, budget: &Budget) -> Variables {
        Variables { root: join(&self.root, &other.root, budget) }
    }

    /// The same, with nothing known but which variables there are.
    pub fn forget(&self, budget: &Budget) -> Variables {
        let any = |variable: &Variable| Variable { shape: Shape::any(), always: variable.always };
        Variables { root: self.root.as_ref().map(|root| each(root, &any, budget)) }
    }
}

fn child(number: usize, level: u32) -> usize {
    (number >> (BITS * level)) % WIDTH
}

fn same(ours: &Option<Arc<Node>>, theirs: &Option<Arc<Node>>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
        (ours, theirs) => ours.is_none() && theirs.is_none(),
    }
}

fn equal(ours: &Option<Arc<Node>>, theirs: &Option<Arc<Node>>, budget: &Budget) -> bool {
    if same(ours, theirs) {
        return true;
    }
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
    budget.spend(WIDTH)
        && match (&**ours, &**theirs) {
            (Node::Inner(a), Node::Inner(b)) => a.iter().zip(b).all(|(a, b)| equal(a, b, budget)),
            (Node::Leaf(a), Node::Leaf(b)) => a.iter().zip(b).all(|both| match both {
                (Some(a), Some(b)) => a.always == b.always && a.shape.equals(&b.shape, budget),
                (a, b) => a.is_none() && b.is_none(),
            }),
            _ => false,
        }
}

/// Of what only one of two ways assigns.
fn maybe(variable: &Variable) -> Variable {
    Variable { shape: variable.shape.clone(), always: false }
}

fn join(ours: &Option<Arc<Node>>, theirs: &Option<Arc<Node>>, budget: &Budget) -> Option<Arc<Node>> {
    if same(ours, theirs) || !budget.spend(1) {
        return ours.clone();
    }
    match (ours, theirs) {
        (Some(one), None) | (None, Some(one)) => Some(each(one, &maybe, budget)),
        (Some(our), Some(their)) => {
            let node = match (&**our, &**their) {
                (Node::Inner(a), Node::Inner(b)) => {
                    let joined: [Option<Arc<Node>>; WIDTH] = std::array::from_fn(|at| join(&a[at], &b[at], budget));
                    if joined.iter().zip(a).all(|(joined, a)| same(joined, a)) {
                        return ours.clone();
                    }
                    Node::Inner(joined)
                }
                (Node::Leaf(a), Node::Leaf(b)) => {
                    budget.spend(WIDTH);
                    let joined: [Option<Variable>; WIDTH] = std::array::from_fn(|at| match (&a[at], &b[at]) {
                        (Some(a), Some(b)) => {
                            Some(Variable { shape: a.shape.or(&b.shape, budget), always: a.always && b.always })
                        }
                        (Some(one), None) | (None, Some(one)) => Some(maybe(one)),
                        (None, None) => None,
                    });
                    if joined.iter().zip(a).all(unchanged) {
                        return ours.clone();
                    }
                    Node::Leaf(joined)
                }
                // All trees of an analysis are equally deep.
                _ => return ours.clone(),
            };
            budget.hold(NODE_BYTES);
            Some(Arc::new(node))
        }
        (None, None) => None,
    }
}

fn unchanged((now, before): (&Option<Variable>, &Option<Variable>)) -> bool {
    match (now, before) {
        (Some(now), Some(before)) => now.is(before),
        (now, before) => now.is_none() && before.is_none(),
    }
}

/// The tree with each variable changed; the same nodes where that changes nothing.
fn each(node: &Arc<Node>, change: &dyn Fn(&Variable) -> Variable, budget: &Budget) -> Arc<Node> {
    if !budget.spend(WIDTH) {
        return node.clone();
    }
    let made = match &**node {
        Node::Inner(below) => {
            let changed: [Option<Arc<Node>>; WIDTH] =
                std::array::from_fn(|at| below[at].as_ref().map(|node| each(node, change, budget)));
            if changed.iter().zip(below).all(|(now, before)| same(now, before)) {
                return node.clone();
            }
            Node::Inner(changed)
        }
        Node::Leaf(slots) => {
            let changed: [Option<Variable>; WIDTH] = std::array::from_fn(|at| slots[at].as_ref().map(change));
            if changed.iter().zip(slots).all(unchanged) {
                return node.clone();
            }
            Node::Leaf(changed)
        }
    };
    budget.hold(NODE_BYTES);
    Arc::new(made)
}

#[cfg(test)]
mod tests {
    use super::super::budget::Used;
    use super::*;

    #[test]
    fn what_ways_share_is_neither_copied_nor_compared() {
        let all: Vec<String> = (0..5_000).map(|n| format!("v{n}")).collect();
        let names = Names::of(all.iter().map(String::as_str).collect());
        let budget = Budget::new(Used::MOST);
        let variable = || Variable { shape: Shape::any(), always: true };
        let mut before = Variables::default();
        for name in &all[..4_000] {
            before.insert(name, variable(), &names, &budget);
        }
        let (filled, mut left) = (budget.used(), before.clone());
        left.insert("v4500", variable(), &names, &budget);
        let met = before.or(&left, &budget);
        let used = budget.used();
        assert!(used.bytes - filled.bytes <= 16 * NODE_BYTES as u64, "{used:?} {filled:?}");
        assert!(used.work - filled.work <= 200, "{used:?} {filled:?}");
        assert_eq!(met.get("v4500", &names).map(|v| v.always), Some(false));
        assert_eq!(met.get("v3999", &names).map(|v| v.always), Some(true));
        assert!(met.get("v4999", &names).is_none() && met.get("other", &names).is_none());
        assert!(met.or(&before, &budget).is(&met) && met.or(&left, &budget).is(&met));
    }
}
