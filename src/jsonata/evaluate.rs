//! Evaluates a tree.
//!
//! Bounded in three ways, so that no expression can hold or exhaust the machine: by work ([`WORK_MAX`]: nodes
//! visited, items and text made), by the depth of evaluation and by the depth of values. No clock, no chance of its
//! own: both come with the [`super::Setting`].
//!
//! Every frame of variables lives until the end: closures and what they capture may form circles and long chains,
//! and those are taken apart one by one there.

use std::cell::RefCell;
use std::rc::Rc;

use super::Setting;
use super::call::Func;
use super::fault::{Fault, Result, quoted, shown};
use super::tree::{Group, Kind, Node};
use super::value::{Arr, Obj, Val, compare_texts};

/// Most work of one evaluation.
const WORK_MAX: u64 = 500_000;
/// Deepest evaluation of nodes within nodes.
const DEPTH_MAX: usize = 200;
/// Deepest nesting of arrays and objects.
const VALUE_DEPTH_MAX: usize = 200;
/// Most items that a range makes at once.
const RANGE_MAX: f64 = 1e7;

/// Variables, and where to look for those that are not here.
pub(super) struct Frame<'a> {
    outer: Option<Rc<Frame<'a>>>,
    variables: RefCell<Vec<(&'a str, Val<'a>)>>,
}

impl<'a> Frame<'a> {
    pub fn bind(&self, name: &'a str, value: Val<'a>) {
        let mut variables = self.variables.borrow_mut();
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value,
            None => variables.push((name, value)),
        }
    }

    pub fn get(&self, name: &str) -> Option<Val<'a>> {
        let mut frame = self;
        loop {
            if let Some((_, value)) = frame.variables.borrow().iter().find(|(known, _)| *known == name) {
                return Some(value.clone());
            }
            frame = frame.outer.as_deref()?;
        }
    }
}

pub(super) struct Eval<'a> {
    pub labels: &'a [String],
    pub setting: &'a Setting<'a>,
    /// What work it may do: its own bound, or what is left of the effort where that is less.
    granted: u64,
    work_left: u64,
    depth: usize,
    frames: Vec<Rc<Frame<'a>>>,
}

impl Drop for Eval<'_> {
    fn drop(&mut self) {
        for frame in &self.frames {
            frame.variables.borrow_mut().clear();
        }
        while self.frames.pop().is_some() {}
    }
}

impl<'a> Eval<'a> {
    pub fn new(labels: &'a [String], setting: &'a Setting<'a>) -> Eval<'a> {
        let granted = WORK_MAX.min(setting.effort.left());
        Eval { labels, setting, granted, work_left: granted, depth: 0, frames: Vec::new() }
    }

    pub fn frame(&mut self, outer: Option<&Rc<Frame<'a>>>) -> Rc<Frame<'a>> {
        let frame = Rc::new(Frame { outer: outer.cloned(), variables: RefCell::default() });
        self.frames.push(frame.clone());
        frame
    }

    /// Accounts for work.
    pub fn work(&mut self, amount: usize) -> Result<()> {
        match self.work_left.checked_sub(amount as u64) {
            Some(left) => {
                self.work_left = left;
                Ok(())
            }
            None => {
                self.work_left = 0;
                if self.granted < WORK_MAX {
                    self.setting.effort.exhaust();
                }
                Err(Fault::timeout())
            }
        }
    }

    /// Takes what was done from what others may still do.
    pub fn settle(&self) {
        self.setting.effort.spend(self.granted - self.work_left);
    }

    /// A text that was made: costs what it takes.
    pub fn text(&mut self, text: String) -> Result<Val<'a>> {
        self.work(text.len() / 16)?;
        Ok(Val::Str(text.into()))
    }

    pub fn evaluate(&mut self, node: &'a Node, input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        self.work(1)?;
        let result = self.deeper(|eval| {
            let mut result = eval.kind(node, input, env)?;
            for predicate in &node.hung.predicates {
                result = eval.filter(predicate, &result, env)?;
            }
            match &node.hung.group {
                Some(group) if !matches!(node.kind, Kind::Path { .. }) => eval.group(group, &result, env),
                _ => Ok(result),
            }
        })?;
        settled(node, result)
    }

    /// Runs something one level deeper, if that is not too deep.
    pub fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEPTH_MAX {
            return Err(Fault::too_deep());
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    fn kind(&mut self, node: &'a Node, input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        Ok(match &node.kind {
            Kind::Path { steps, keep_singleton } => return self.path(node, steps, *keep_singleton, input, env),
            Kind::Name(name) => return self.look_up(input, name),
            Kind::Variable(name) => return self.variable(name, input, env),
            Kind::Text(text) => Val::str(text),
            Kind::Number(number) => Val::Num(*number),
            Kind::Bool(flag) => Val::Bool(*flag),
            Kind::Null => Val::Null,
            Kind::Pattern(pattern) => Val::Func(Rc::new(Func::Pattern(pattern))),
            Kind::Open => Val::Undefined,
            Kind::Wildcard => return self.wildcard(input),
            Kind::Descendants => return self.descendants(input),
            Kind::Parent(slot) => env.get(&self.labels[*slot]).unwrap_or(Val::Undefined),
            Kind::Binary(operator, sides) => return self.binary(node.at(), operator, (&sides.0, &sides.1), input, env),
            Kind::Negate(inner) => return self.negate(node.at(), inner, input, env),
            Kind::Array(items) => return self.array(node, items, input, env),
            Kind::Object(group) => return self.group(group, input, env),
            Kind::Block(items) => return self.block(items, input, env),
            Kind::Bind(name, value) => {
                let value = self.evaluate(value, input, env)?;
                env.bind(name, value.clone());
                value
            }
            Kind::Condition(condition, then, other) => return self.condition((condition, then, other), input, env),
            Kind::Apply(left, right) => return self.apply_operator(node.at(), left, right, input, env),
            Kind::Call(procedure, arguments) => return self.call(node.at(), procedure, arguments, None, input, env),
            Kind::Partial(procedure, arguments) => return self.partial(node.at(), procedure, arguments, input, env),
            Kind::Lambda(lambda) => self.lambda(lambda, input, env),
            Kind::Transform(transform) => Val::Func(Rc::new(Func::Transform(transform, env.clone()))),
            Kind::Sort(_) => Val::Undefined,
        })
    }

    fn variable(&mut self, name: &str, input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        if name.is_empty() {
            return Ok(input.clone());
        }
        Ok(match env.get(name) {
            Some(value) => value,
            None => {
                super::functions::native(name).map_or(Val::Undefined, |native| Val::Func(Rc::new(Func::Native(native))))
            }
        })
    }

    fn condition(
        &mut self,
        (condition, then, other): (&'a Node, &'a Node, &'a Option<Box<Node>>),
        input: &Val<'a>,
        env: &Rc<Frame<'a>>,
    ) -> Result<Val<'a>> {
        match (self.evaluate(condition, input, env)?.truth(), other) {
            (true, _) => self.evaluate(then, input, env),
            (false, Some(other)) => self.evaluate(other, input, env),
            (false, None) => Ok(Val::Undefined),
        }
    }

    fn block(&mut self, items: &'a [Node], input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        let frame = self.frame(Some(env));
        let mut result = Val::Undefined;
        for item in items {
            result = self.evaluate(item, input, &frame)?;
        }
        Ok(result)
    }

    /// A field of an object, or of all objects of an array.
    pub fn look_up(&mut self, input: &Val<'a>, key: &str) -> Result<Val<'a>> {
        match input {
            Val::Obj(object) => Ok(object.get(key).cloned().unwrap_or(Val::Undefined)),
            Val::Arr(array) => {
                self.work(array.items.len())?;
                let mut found = Vec::new();
                for item in &array.items {
                    match self.look_up(item, key)? {
                        Val::Undefined => {}
                        Val::Arr(inner) => found.extend(inner.items.iter().cloned()),
                        other => found.push(other),
                    }
                }
                Ok(Val::sequence(found))
            }
            _ => Ok(Val::Undefined),
        }
    }

    fn wildcard(&mut self, input: &Val<'a>) -> Result<Val<'a>> {
        let (mut found, mut plain) = (Vec::new(), false);
        let mut take = |value: &Val<'a>| match value {
            Val::Arr(_) => {
                plain = true;
                flatten(value, &mut found);
            }
            other => found.push(other.clone()),
        };
        match input {
            Val::Obj(object) => object.iter().for_each(|(_, value)| take(value)),
            Val::Arr(array) => array.items.iter().for_each(take),
            _ => {}
        }
        self.work(found.len())?;
        Ok(if plain { Val::array(found) } else { Val::sequence(found) })
    }

    fn descendants(&mut self, input: &Val<'a>) -> Result<Val<'a>> {
        fn descend<'a>(value: &Val<'a>, found: &mut Vec<Val<'a>>) {
            if !matches!(value, Val::Arr(_)) {
                found.push(value.clone());
            }
            match value {
                Val::Arr(array) => array.items.iter().for_each(|item| descend(item, found)),
                Val::Obj(object) => object.iter().for_each(|(_, item)| descend(item, found)),
                _ => {}
            }
        }
        if input.is_undefined() {
            return Ok(Val::Undefined);
        }
        let mut found = Vec::new();
        descend(input, &mut found);
        self.work(found.len())?;
        Ok(match found.len() {
            1 => found.remove(0),
            _ => Val::sequence(found),
        })
    }

    fn negate(&mut self, at: usize, inner: &'a Node, input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        match self.evaluate(inner, input, env)? {
            Val::Undefined => Ok(Val::Undefined),
            Val::Num(number) => Ok(Val::Num(-number)),
            other => Err(Fault::of("D1002", at, "Cannot negate a non-numeric value: ", &other, "")),
        }
    }

    fn array(&mut self, node: &Node, items: &'a [Node], input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        let mut made = Vec::with_capacity(items.len());
        for item in items {
            match (self.evaluate(item, input, env)?, &item.kind) {
                (Val::Undefined, _) => {}
                // Brackets within brackets stay; other arrays are spread out.
                (value, Kind::Array(_)) => made.push(value),
                (Val::Arr(array), _) => {
                    self.work(array.items.len())?;
                    made.extend(array.items.iter().cloned());
                }
                (value, _) => made.push(value),
            }
        }
        Ok(Val::Arr(Rc::new(Arr { cons: node.cons_array, ..Arr::of(made) })))
    }

    fn binary(
        &mut self,
        at: usize,
        operator: &'static str,
        (left, right): (&'a Node, &'a Node),
        input: &Val<'a>,
        env: &Rc<Frame<'a>>,
    ) -> Result<Val<'a>> {
        let left = self.evaluate(left, input, env)?;
        match operator {
            "and" => return Ok(Val::Bool(left.truth() && self.evaluate(right, input, env)?.truth())),
            "or" => return Ok(Val::Bool(left.truth() || self.evaluate(right, input, env)?.truth())),
            _ => {}
        }
        let right = self.evaluate(right, input, env)?;
        match operator {
            "=" | "!=" => {
                if left.is_undefined() || right.is_undefined() {
                    return Ok(Val::Bool(false));
                }
                Ok(Val::Bool(self.equal(&left, &right)? == (operator == "=")))
            }
            "<" | "<=" | ">" | ">=" => {
                self.work(left.weight().min(right.weight()))?;
                compare(at, operator, &left, &right)
            }
            "&" => self.concatenate(&left, &right),
            ".." => self.range(at, &left, &right),
            "in" => {
                let mut looks = 0;
                let mut same =
                    |item: &Val<'a>| !matches!(item, Val::Arr(_) | Val::Obj(_)) && item.equals(&left, &mut looks);
                let is_in = !left.is_undefined() && right.items().iter().any(&mut same);
                self.work(looks)?;
                Ok(Val::Bool(is_in))
            }
            _ => arithmetic(at, operator, &left, &right),
        }
    }

    pub fn equal(&mut self, left: &Val<'a>, right: &Val<'a>) -> Result<bool> {
        let mut looks = 0;
        let equal = left.equals(right, &mut looks);
        self.work(looks)?;
        Ok(equal)
    }

    fn concatenate(&mut self, left: &Val<'a>, right: &Val<'a>) -> Result<Val<'a>> {
        let mut text = String::new();
        for side in [left, right] {
            if !side.is_undefined() {
                text.push_str(&super::functions::text_of(self, side, false)?);
            }
        }
        self.text(text)
    }

    fn range(&mut self, at: usize, left: &Val<'a>, right: &Val<'a>) -> Result<Val<'a>> {
        for (side, value, code) in [("left", left, "T2003"), ("right", right, "T2004")] {
            let whole = value.is_undefined() || value.as_num().is_some_and(|number| number.fract() == 0.0);
            if !whole {
                let message = format!("The {side} side of the range operator (..) must evaluate to an integer");
                return Err(Fault::new(code, at, message));
            }
        }
        let (Some(from), Some(to)) = (left.as_num(), right.as_num()) else { return Ok(Val::Undefined) };
        if from > to {
            return Ok(Val::Undefined);
        }
        let size = to - from + 1.0;
        if size > RANGE_MAX {
            let message = format!(
                "The size of the sequence allocated by the range operator (..) must not exceed 1e6.  Attempted to \
                 allocate {}.",
                super::value::number_text(size)
            );
            return Err(Fault::new("D2014", at, message));
        }
        self.work(size as usize)?;
        Ok(Val::sequence((0..size as u64).map(|offset| Val::Num(from + offset as f64)).collect()))
    }

    /// An object of keys and values; of several items, grouped by key.
    pub fn group(&mut self, group: &'a Group, input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        let tuples = matches!(input, Val::Arr(array) if array.tuples);
        let nothing = [Val::Undefined];
        let items = match input.items() {
            [] => &nothing[..],
            items => items,
        };
        let groups = self.gather(group, items, tuples, env)?;
        let mut object = Obj::default();
        for (key, gathered) in groups {
            let pair = gathered.pair;
            let (context, frame) = match tuples {
                true => self.reduced(&gathered.items, env),
                false => (gathered.context(), env.clone()),
            };
            let value = self.evaluate(&group.pairs[pair].1, &context, &frame)?;
            if !value.is_undefined() {
                object.insert(key, value);
            }
        }
        Ok(Val::object(object))
    }

    fn gather(
        &mut self,
        group: &'a Group,
        items: &[Val<'a>],
        tuples: bool,
        env: &Rc<Frame<'a>>,
    ) -> Result<Vec<(Rc<str>, Gathered<'a>)>> {
        let mut groups: Vec<(Rc<str>, Gathered<'a>)> = Vec::new();
        let mut places: std::collections::HashMap<Rc<str>, usize> = std::collections::HashMap::new();
        for item in items {
            let (context, frame) = self.context_of(item, tuples, env);
            for (pair, (key, _)) in group.pairs.iter().enumerate() {
                let key = match self.evaluate(key, &context, &frame)? {
                    Val::Str(key) => key,
                    Val::Undefined => continue,
                    other => {
                        let before = "Key in object structure must evaluate to a string; got: ";
                        return Err(Fault::of("T1003", group.at, before, &other, ""));
                    }
                };
                match places.get(&key).and_then(|at| groups.get_mut(*at)) {
                    None => {
                        places.insert(key.clone(), groups.len());
                        groups.push((key, Gathered { pair, items: vec![item.clone()], several: false }));
                    }
                    Some((_, gathered)) if gathered.pair != pair => {
                        let message = format!("Multiple key definitions evaluate to same key: {}", quoted(&key));
                        return Err(Fault::new("D1009", group.at, message));
                    }
                    Some((_, gathered)) => gathered.add(item),
                }
            }
        }
        Ok(groups)
    }

    /// One row of all rows: each binding as all its values.
    fn reduced(&mut self, rows: &[Val<'a>], env: &Rc<Frame<'a>>) -> (Val<'a>, Rc<Frame<'a>>) {
        let mut bindings: Vec<(&'a str, Gathered<'a>)> = Vec::new();
        for row in rows {
            let Val::Tuple(row) = row else { continue };
            for (name, value) in row.iter() {
                match bindings.iter_mut().find(|(known, _)| known == name) {
                    Some((_, gathered)) => gathered.add(value),
                    None => bindings.push((name, Gathered { pair: 0, items: vec![value.clone()], several: false })),
                }
            }
        }
        let frame = self.frame(Some(env));
        let mut context = Val::Undefined;
        for (name, gathered) in bindings {
            match name {
                "@" => context = gathered.context(),
                name => frame.bind(name, gathered.context()),
            }
        }
        (context, frame)
    }

    /// What an item is evaluated in: of a row its context item and a frame of its bindings.
    pub fn context_of(&mut self, item: &Val<'a>, tuples: bool, env: &Rc<Frame<'a>>) -> (Val<'a>, Rc<Frame<'a>>) {
        let (true, Val::Tuple(row)) = (tuples, item) else { return (item.clone(), env.clone()) };
        let frame = self.frame(Some(env));
        let mut context = Val::Undefined;
        for (name, value) in row.iter() {
            if *name == "@" {
                context = value.clone();
            }
            frame.bind(name, value.clone());
        }
        (context, frame)
    }
}

/// Values that came together under one key.
struct Gathered<'a> {
    pair: usize,
    items: Vec<Val<'a>>,
    several: bool,
}

impl<'a> Gathered<'a> {
    fn add(&mut self, value: &Val<'a>) {
        if !self.several {
            self.several = true;
            if let [Val::Arr(first)] = self.items.as_slice() {
                self.items = first.items.clone();
            }
        }
        self.items.extend(value.items().iter().cloned());
    }

    fn context(self) -> Val<'a> {
        match self.several {
            true => Val::array(self.items),
            false => self.items.into_iter().next().unwrap_or(Val::Undefined),
        }
    }
}

/// A sequence of one stands for its item, an empty one for nothing.
fn settled<'a>(node: &Node, result: Val<'a>) -> Result<Val<'a>> {
    let Val::Arr(array) = &result else {
        return bounded(result);
    };
    if !array.sequence || array.tuples {
        return bounded(result);
    }
    match array.items.as_slice() {
        [] => Ok(Val::Undefined),
        [_] if array.keep_singleton => bounded(result),
        [_] if node.keep_array => bounded(Val::Arr(Rc::new(Arr { keep_singleton: true, ..(**array).clone() }))),
        [one] => Ok(one.clone()),
        _ if node.keep_array && !array.keep_singleton => {
            Ok(Val::Arr(Rc::new(Arr { keep_singleton: true, ..(**array).clone() })))
        }
        _ => bounded(result),
    }
}

/// Refuses values that no walk could walk.
fn bounded(value: Val<'_>) -> Result<Val<'_>> {
    match value.depth() <= VALUE_DEPTH_MAX {
        true => Ok(value),
        false => Err(Fault::too_deep()),
    }
}

pub(super) fn flatten<'a>(value: &Val<'a>, into: &mut Vec<Val<'a>>) {
    match value {
        Val::Arr(array) => array.items.iter().for_each(|item| flatten(item, into)),
        other => into.push(other.clone()),
    }
}

fn arithmetic<'a>(at: usize, operator: &str, left: &Val<'a>, right: &Val<'a>) -> Result<Val<'a>> {
    for (side, value, code) in [("left", left, "T2001"), ("right", right, "T2002")] {
        if !matches!(value, Val::Undefined | Val::Num(_)) {
            let message = format!("The {side} side of the {} operator must evaluate to a number", quoted(operator));
            return Err(Fault::new(code, at, message));
        }
    }
    let (Some(a), Some(b)) = (left.as_num(), right.as_num()) else { return Ok(Val::Undefined) };
    let result = match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        _ => a % b,
    };
    match result.is_finite() {
        true => Ok(Val::Num(result)),
        false => Err(Fault::new("D1001", at, format!("Number out of range: {}", super::value::number_text(result)))),
    }
}

fn compare<'a>(at: usize, operator: &str, left: &Val<'a>, right: &Val<'a>) -> Result<Val<'a>> {
    let comparable = |value: &Val| matches!(value, Val::Undefined | Val::Str(_) | Val::Num(_));
    if !comparable(left) || !comparable(right) {
        let operator = quoted(operator);
        let message =
            format!("The expressions either side of operator {operator} must evaluate to numeric or string values");
        return Err(Fault::new("T2010", at, message));
    }
    let order = match (left, right) {
        (Val::Undefined, _) | (_, Val::Undefined) => return Ok(Val::Undefined),
        (Val::Num(a), Val::Num(b)) => a.partial_cmp(b),
        (Val::Str(a), Val::Str(b)) => Some(compare_texts(a, b)),
        _ => {
            let message = format!(
                "The values {} and {} either side of operator {} must be of the same data type",
                shown(left),
                shown(right),
                quoted(operator)
            );
            return Err(Fault::new("T2009", at, message));
        }
    };
    Ok(Val::Bool(order.is_some_and(|order| match operator {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })))
}
