//! What is evaluated: paths with their steps, predicates and groups.

use super::fault::quoted;
use super::pattern::Pattern;
use super::signature::Signature;

#[derive(Debug)]
pub(super) struct Node {
    at: u32,
    pub kind: Kind,
    pub keep_array: bool,
    /// Its results are tuples.
    pub tuple: bool,
    /// An array constructor that a path keeps whole.
    pub cons_array: bool,
    /// What few nodes have. A definition may hold some hundred thousand nodes, so that the size of one counts.
    pub hung: Hung,
}

/// What hangs on a node, made with the first thing that does.
#[derive(Debug, Default)]
pub(super) struct Hung(Option<Box<Things>>);

#[derive(Debug, Default)]
pub(super) struct Things {
    /// On what is no step of a path.
    pub predicates: Vec<Node>,
    /// On a step.
    pub stages: Vec<Stage>,
    pub group: Option<Box<Group>>,
    /// `@$name`.
    pub focus: Option<Box<str>>,
    /// `#$name`.
    pub index: Option<Box<str>>,
    /// The slot that its item fills.
    pub ancestor: Option<usize>,
    /// Slots of `%` below it whose step is not found yet.
    pub seeking: Vec<usize>,
}

static NOTHING: Things = Things {
    predicates: Vec::new(),
    stages: Vec::new(),
    group: None,
    focus: None,
    index: None,
    ancestor: None,
    seeking: Vec::new(),
};

impl std::ops::Deref for Hung {
    type Target = Things;

    fn deref(&self) -> &Things {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl std::ops::DerefMut for Hung {
    fn deref_mut(&mut self) -> &mut Things {
        self.0.get_or_insert_default()
    }
}

pub(super) type NodePairs = Vec<(Node, Node)>;

#[derive(Debug)]
pub(super) struct Group {
    pub at: usize,
    pub pairs: NodePairs,
}

#[derive(Debug)]
pub(super) enum Stage {
    Filter(Node),
    Index(String),
}

#[derive(Debug)]
pub(super) enum Kind {
    Path {
        steps: Vec<Node>,
        keep_singleton: bool,
    },
    Name(String),
    Variable(String),
    Text(String),
    Number(f64),
    Bool(bool),
    Null,
    Pattern(Box<Pattern>),
    Open,
    Wildcard,
    Descendants,
    /// With its slot.
    Parent(usize),
    Binary(&'static str, Box<(Node, Node)>),
    Negate(Box<Node>),
    Array(Vec<Node>),
    Object(Box<Group>),
    Block(Vec<Node>),
    Bind(Box<str>, Box<Node>),
    Apply(Box<Node>, Box<Node>),
    Call(Box<Node>, Box<[Node]>),
    Partial(Box<Node>, Box<[Node]>),
    Lambda(Box<Lambda>),
    Condition(Box<Node>, Box<Node>, Option<Box<Node>>),
    Transform(Box<Transform>),
    Sort(Vec<(bool, Node)>),
}

#[derive(Debug)]
pub(super) struct Lambda {
    pub parameters: Vec<String>,
    pub signature: Option<Box<Signature>>,
    pub body: Node,
}

#[derive(Debug)]
pub(super) struct Transform {
    pub pattern: Node,
    pub update: Node,
    pub delete: Option<Node>,
}

impl Hung {
    /// Predicates of what becomes a step are its stages.
    pub fn filter(&mut self) {
        if let Some(things) = &mut self.0 {
            things.stages = std::mem::take(&mut things.predicates).into_iter().map(Stage::Filter).collect();
        }
    }
}

/// An expression ready to run.
#[derive(Debug)]
pub(super) struct Tree {
    pub root: Node,
    /// Under which name tuples carry the item of each slot.
    pub labels: Box<[String]>,
}

impl Node {
    pub fn new(at: usize, kind: Kind) -> Node {
        Node {
            // A definition has a mebibyte.
            at: u32::try_from(at).unwrap_or(u32::MAX),
            kind,
            keep_array: false,
            tuple: false,
            cons_array: false,
            hung: Hung::default(),
        }
    }

    /// Where it stands, in bytes.
    pub fn at(&self) -> usize {
        self.at as usize
    }

    /// Gives back what its lists have room for beyond what they hold, at every depth.
    pub fn fit(&mut self) {
        let all = |nodes: &mut Vec<Node>| {
            nodes.shrink_to_fit();
            nodes.iter_mut().for_each(Node::fit);
        };
        let both = |group: &mut Group| {
            group.pairs.shrink_to_fit();
            group.pairs.iter_mut().for_each(|(key, value)| {
                key.fit();
                value.fit();
            });
        };
        if let Some(things) = &mut self.hung.0 {
            all(&mut things.predicates);
            things.stages.shrink_to_fit();
            things.stages.iter_mut().for_each(|stage| {
                if let Stage::Filter(node) = stage {
                    node.fit();
                }
            });
            things.group.iter_mut().for_each(|group| both(group));
        }
        match &mut self.kind {
            Kind::Path { steps: nodes, .. } | Kind::Array(nodes) | Kind::Block(nodes) => all(nodes),
            Kind::Object(group) => both(group),
            Kind::Negate(node) | Kind::Bind(_, node) => node.fit(),
            Kind::Binary(_, sides) => {
                sides.0.fit();
                sides.1.fit();
            }
            Kind::Apply(a, b) => {
                a.fit();
                b.fit();
            }
            Kind::Call(procedure, arguments) | Kind::Partial(procedure, arguments) => {
                procedure.fit();
                arguments.iter_mut().for_each(Node::fit);
            }
            Kind::Condition(a, b, c) => {
                [Some(a), Some(b), c.as_mut()].into_iter().flatten().for_each(|node| node.fit())
            }
            Kind::Lambda(lambda) => lambda.body.fit(),
            Kind::Sort(terms) => terms.iter_mut().for_each(|(_, node)| node.fit()),
            Kind::Transform(change) => {
                change.pattern.fit();
                change.update.fit();
                change.delete.iter_mut().for_each(Node::fit);
            }
            _ => {}
        }
    }

    /// Takes over what a node below still seeks.
    pub fn inherit(&mut self, below: &Node) {
        for slot in &below.hung.seeking {
            if !self.hung.seeking.contains(slot) {
                self.hung.seeking.push(*slot);
            }
        }
        if let Kind::Parent(slot) = below.kind {
            self.hung.seeking.push(slot);
        }
    }

    /// Changes the step that a predicate or binding behind this node belongs to: a path's last, else the node.
    pub fn at_last_step<T>(&mut self, change: impl FnOnce(&mut Node) -> T) -> T {
        if let Kind::Path { steps, .. } = &mut self.kind
            && let Some(last) = steps.last_mut()
        {
            return change(last);
        }
        change(self)
    }

    pub fn is_path(&self) -> bool {
        matches!(self.kind, Kind::Path { .. })
    }
}

/// A name as messages show it; nothing where there is none.
pub(super) fn name_shown(node: &Node) -> String {
    let name = match &node.kind {
        Kind::Path { steps, .. } => match steps.first().map(|step| &step.kind) {
            Some(Kind::Name(name)) => name,
            _ => return String::from("undefined"),
        },
        Kind::Variable(name) => name,
        _ => return String::from("undefined"),
    };
    quoted(name)
}
