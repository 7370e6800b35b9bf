//! Functions: what they are, and how they are called.
//!
//! A call in the last place of a function's body does not nest: it is handed back and made by the caller's loop.

use std::rc::Rc;

use super::evaluate::{Eval, Frame};
use super::fault::{Fault, Result};
use super::functions::Native;
use super::pattern::{Found, Pattern};
use super::signature::Signature;
use super::tree::{Kind, Lambda, Node, Transform, name_shown};
use super::value::{Obj, Val};

pub(super) enum Func<'a> {
    Native(&'static Native),
    Lambda(Closure<'a>),
    /// `$f(1, ?)`: the function and the given arguments stand in the frame, by the names of [`PLACES`].
    Partial {
        env: Rc<Frame<'a>>,
        open: Vec<usize>,
        length: usize,
    },
    /// `$f ~> $g`, both in the frame.
    Chain(Rc<Frame<'a>>),
    Pattern(&'a Pattern),
    /// What a match gives as its `next`.
    NextMatch {
        pattern: &'a Pattern,
        text: Rc<str>,
        from: usize,
    },
    Transform(&'a Transform, Rc<Frame<'a>>),
}

pub(super) struct Closure<'a> {
    parameters: Vec<&'a str>,
    signature: Option<&'a Signature>,
    body: &'a Node,
    input: Val<'a>,
    env: Rc<Frame<'a>>,
}

/// Names that no expression can write.
const PLACES: [&str; 10] = ["(0)", "(1)", "(2)", "(3)", "(4)", "(5)", "(6)", "(7)", "(8)", "(9)"];
const FIRST: &str = "(f)";
const SECOND: &str = "(g)";

/// A match, whoever made it.
pub(super) struct Match<'a> {
    pub text: String,
    /// In UTF-16 code units, as JavaScript counts.
    pub index: f64,
    pub start: usize,
    pub end: usize,
    pub groups: Vec<Val<'a>>,
    pub next: Val<'a>,
}

/// What the last place of a body comes to.
enum Tail<'a> {
    Value(Val<'a>),
    Call { function: Val<'a>, arguments: Vec<Val<'a>>, name: String, at: usize },
}

impl Func<'_> {
    /// How many arguments a function is given by those that call it for each item.
    pub(super) fn arity(&self) -> usize {
        match self {
            Func::Native(native) => native.arity,
            Func::Lambda(closure) => closure.parameters.len(),
            Func::Partial { open, .. } => open.len(),
            Func::Chain(_) | Func::Transform(..) => 1,
            Func::Pattern(_) => 2,
            Func::NextMatch { .. } => 0,
        }
    }
}

impl<'a> Eval<'a> {
    pub(super) fn lambda(&mut self, lambda: &'a Lambda, input: &Val<'a>, env: &Rc<Frame<'a>>) -> Val<'a> {
        Val::Func(Rc::new(Func::Lambda(Closure {
            parameters: lambda.parameters.iter().map(String::as_str).collect(),
            signature: lambda.signature.as_deref(),
            body: &lambda.body,
            input: input.clone(),
            env: env.clone(),
        })))
    }

    pub(super) fn call(
        &mut self,
        at: usize,
        procedure: &'a Node,
        arguments: &'a [Node],
        first: Option<Val<'a>>,
        input: &Val<'a>,
        env: &Rc<Frame<'a>>,
    ) -> Result<Val<'a>> {
        let (function, arguments) = self.ready(at, procedure, arguments, first, input, env)?;
        self.apply(function, arguments, input, &name_shown(procedure), at)
    }

    /// The function and the arguments of a call.
    fn ready(
        &mut self,
        at: usize,
        procedure: &'a Node,
        arguments: &'a [Node],
        first: Option<Val<'a>>,
        input: &Val<'a>,
        env: &Rc<Frame<'a>>,
    ) -> Result<(Val<'a>, Vec<Val<'a>>)> {
        let function = self.evaluate(procedure, input, env)?;
        if function.is_undefined() {
            self.meant(procedure, env, "T1005", "Attempted to invoke a non-function", at)?;
        }
        let mut values: Vec<Val<'a>> = first.into_iter().collect();
        for argument in arguments {
            values.push(self.evaluate(argument, input, env)?);
        }
        Ok((function, values))
    }

    /// A function that is called without its `$`.
    fn meant(&self, procedure: &Node, env: &Rc<Frame<'a>>, code: &'static str, what: &str, at: usize) -> Result<()> {
        if let Kind::Path { steps, .. } = &procedure.kind
            && let Some(Kind::Name(name)) = steps.first().map(|step| &step.kind)
            && (env.get(name).is_some_and(|value| !value.is_undefined()) || super::functions::native(name).is_some())
        {
            return Err(Fault::new(code, at, format!("{what}. Did you mean ${name}?")));
        }
        Ok(())
    }

    pub(super) fn apply(
        &mut self,
        function: Val<'a>,
        arguments: Vec<Val<'a>>,
        input: &Val<'a>,
        name: &str,
        at: usize,
    ) -> Result<Val<'a>> {
        let (mut function, mut arguments, mut name, mut at) = (function, arguments, name.to_owned(), at);
        loop {
            self.work(1)?;
            let Val::Func(called) = &function else {
                return Err(Fault::new("T1006", at, "Attempted to invoke a non-function"));
            };
            let called = called.clone();
            let Func::Lambda(closure) = &*called else {
                return self.apply_other(&called, arguments, input, &name, at);
            };
            if let Some(signature) = closure.signature {
                arguments = signature.validate(arguments, input, &name, at)?;
            }
            let frame = self.frame(Some(&closure.env));
            let mut given = arguments.into_iter();
            for parameter in &closure.parameters {
                frame.bind(parameter, given.next().unwrap_or(Val::Undefined));
            }
            match self.tail(closure.body, &closure.input, &frame)? {
                Tail::Value(value) => return Ok(value),
                Tail::Call { function: next, arguments: values, name: called_as, at: place } => {
                    (function, arguments, name, at) = (next, values, called_as, place);
                }
            }
        }
    }

    fn apply_other(
        &mut self,
        function: &Func<'a>,
        arguments: Vec<Val<'a>>,
        input: &Val<'a>,
        name: &str,
        at: usize,
    ) -> Result<Val<'a>> {
        match function {
            Func::Native(native) => {
                let arguments = match &native.signature {
                    Some(signature) => signature.validate(arguments, input, name, at)?,
                    None => arguments,
                };
                // What it makes a function accounts for itself; what it is given it goes through.
                self.work(arguments.iter().map(Val::weight).sum())?;
                // Those that call functions themselves nest without any node being evaluated in between.
                self.deeper(|eval| (native.run)(eval, arguments)).map_err(|mut fault| {
                    if fault.at == 0 {
                        fault.at = at;
                    }
                    fault
                })
            }
            Func::Partial { env, open, length } => {
                let mut values: Vec<Val<'a>> =
                    PLACES.iter().take(*length).map(|place| env.get(place).unwrap_or(Val::Undefined)).collect();
                for (place, value) in open.iter().zip(arguments) {
                    values[*place] = value;
                }
                self.nested(env.get(FIRST).unwrap_or(Val::Undefined), values, name, at)
            }
            Func::Chain(env) => {
                let first = self.nested(env.get(FIRST).unwrap_or(Val::Undefined), arguments, name, at)?;
                self.nested(env.get(SECOND).unwrap_or(Val::Undefined), vec![first], name, at)
            }
            Func::Pattern(pattern) => match arguments.first().and_then(Val::as_str) {
                Some(text) => Ok(self.found(pattern, text.into(), 0)?.map_or(Val::Undefined, Match::into_value)),
                None => Ok(Val::Undefined),
            },
            Func::NextMatch { pattern, text, from } => {
                Ok(self.next_found(pattern, text, *from)?.map_or(Val::Undefined, Match::into_value))
            }
            Func::Transform(transform, env) => {
                let Some(target) = arguments.into_iter().next().filter(|value| !value.is_undefined()) else {
                    return Ok(Val::Undefined);
                };
                if !matches!(target, Val::Obj(_) | Val::Arr(_)) {
                    let message = format!("Argument 1 of function {name} does not match function signature");
                    return Err(Fault::new("T0410", at, message));
                }
                self.transform(transform, &target, env)
            }
            Func::Lambda(_) => Ok(Val::Undefined),
        }
    }

    /// A call within a call: the chain of functions that call functions is as deep as evaluation may be.
    fn nested(&mut self, function: Val<'a>, arguments: Vec<Val<'a>>, name: &str, at: usize) -> Result<Val<'a>> {
        self.deeper(|eval| eval.apply(function, arguments, &Val::Null, name, at))
    }

    /// The last place of a function's body.
    fn tail(&mut self, node: &'a Node, input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Tail<'a>> {
        if !node.hung.predicates.is_empty() || node.hung.group.is_some() || node.keep_array {
            return self.evaluate(node, input, env).map(Tail::Value);
        }
        match &node.kind {
            Kind::Condition(condition, then, other) => {
                self.work(1)?;
                match (self.evaluate(condition, input, env)?.truth(), other) {
                    (true, _) => self.tail(then, input, env),
                    (false, Some(other)) => self.tail(other, input, env),
                    (false, None) => Ok(Tail::Value(Val::Undefined)),
                }
            }
            Kind::Block(items) => {
                self.work(1)?;
                let frame = self.frame(Some(env));
                let Some((last, before)) = items.split_last() else { return Ok(Tail::Value(Val::Undefined)) };
                for item in before {
                    self.evaluate(item, input, &frame)?;
                }
                self.tail(last, input, &frame)
            }
            Kind::Call(procedure, arguments) => {
                let (function, arguments) = self.ready(node.at(), procedure, arguments, None, input, env)?;
                Ok(Tail::Call { function, arguments, name: name_shown(procedure), at: node.at() })
            }
            _ => self.evaluate(node, input, env).map(Tail::Value),
        }
    }

    pub(super) fn apply_operator(
        &mut self,
        at: usize,
        left: &'a Node,
        right: &'a Node,
        input: &Val<'a>,
        env: &Rc<Frame<'a>>,
    ) -> Result<Val<'a>> {
        let value = self.evaluate(left, input, env)?;
        if let Kind::Call(procedure, arguments) = &right.kind {
            return self.call(right.at(), procedure, arguments, Some(value), input, env);
        }
        let function = self.evaluate(right, input, env)?;
        if !function.is_function() {
            let message = "The right side of the function application operator ~> must be a function";
            return Err(Fault::new("T2006", at, message));
        }
        if value.is_function() {
            let frame = self.frame(None);
            frame.bind(FIRST, value);
            frame.bind(SECOND, function);
            return Ok(Val::Func(Rc::new(Func::Chain(frame))));
        }
        self.apply(function, vec![value], &Val::Null, &name_shown(right), at)
    }

    pub(super) fn partial(
        &mut self,
        at: usize,
        procedure: &'a Node,
        arguments: &'a [Node],
        input: &Val<'a>,
        env: &Rc<Frame<'a>>,
    ) -> Result<Val<'a>> {
        let frame = self.frame(None);
        let mut open = Vec::new();
        for (index, argument) in arguments.iter().enumerate() {
            let Some(place) = PLACES.get(index) else {
                return Err(Fault::new("T0410", at, "A partial application takes no more than 10 arguments"));
            };
            match argument.kind {
                Kind::Open => open.push(index),
                _ => frame.bind(place, self.evaluate(argument, input, env)?),
            }
        }
        let function = self.evaluate(procedure, input, env)?;
        if function.is_undefined() {
            self.meant(procedure, env, "T1007", "Attempted to partially apply a non-function", at)?;
        }
        if !function.is_function() {
            return Err(Fault::new("T1008", at, "Attempted to partially apply a non-function"));
        }
        frame.bind(FIRST, function);
        Ok(Val::Func(Rc::new(Func::Partial { env: frame, open, length: arguments.len() })))
    }

    /// What a matcher finds in a text: a regular expression, or a function that says so itself.
    pub(super) fn matched(&mut self, matcher: &Val<'a>, text: &Rc<str>) -> Result<Option<Match<'a>>> {
        match matcher {
            Val::Func(function) => match &**function {
                Func::Pattern(pattern) => self.found(pattern, text.clone(), 0),
                _ => {
                    let result = self.nested(matcher.clone(), vec![Val::Str(text.clone())], "undefined", 0)?;
                    Match::read(result, text)
                }
            },
            _ => Ok(None),
        }
    }

    /// The match after another.
    pub(super) fn matched_next(&mut self, after: &Match<'a>, text: &Rc<str>) -> Result<Option<Match<'a>>> {
        match &after.next {
            Val::Func(function) => match &**function {
                Func::NextMatch { pattern, text, from } => self.next_found(pattern, text, *from),
                _ => {
                    let result = self.nested(after.next.clone(), Vec::new(), "undefined", 0)?;
                    Match::read(result, text)
                }
            },
            _ => Ok(None),
        }
    }

    fn next_found(&mut self, pattern: &'a Pattern, text: &Rc<str>, from: usize) -> Result<Option<Match<'a>>> {
        if from >= text.len() {
            return Ok(None);
        }
        let found = self.found(pattern, text.clone(), from)?;
        match &found {
            Some(found) if found.text.is_empty() => {
                Err(Fault::new("D1004", 0, "Regular expression matches zero length string"))
            }
            _ => Ok(found),
        }
    }

    fn found(&mut self, pattern: &'a Pattern, text: Rc<str>, from: usize) -> Result<Option<Match<'a>>> {
        self.work(1 + text.len() / 64)?;
        let Some(Found { start, end, groups }) = pattern.find(&text, from) else { return Ok(None) };
        Ok(Some(Match {
            text: text[start..end].to_owned(),
            index: text[..start].encode_utf16().count() as f64,
            start,
            end,
            groups: groups.into_iter().map(|group| group.map_or(Val::Undefined, |text| Val::str(&text))).collect(),
            next: Val::Func(Rc::new(Func::NextMatch { pattern, text: text.clone(), from: end })),
        }))
    }
}

impl<'a> Match<'a> {
    /// What a regular expression gives when it is called.
    fn into_value(self) -> Val<'a> {
        let mut object = Obj::default();
        let end = self.index + self.text.encode_utf16().count() as f64;
        object.insert("match".into(), Val::str(&self.text));
        object.insert("start".into(), Val::Num(self.index));
        object.insert("end".into(), Val::Num(end));
        object.insert("groups".into(), Val::array(self.groups));
        object.insert("next".into(), self.next);
        Val::object(object)
    }

    /// What a function of the expression's own says that it found.
    fn read(value: Val<'a>, text: &Rc<str>) -> Result<Option<Match<'a>>> {
        let Val::Obj(object) = value else { return Ok(None) };
        let field = |name: &str| object.get(name).cloned().unwrap_or(Val::Undefined);
        let (Some(start), Some(end)) = (field("start").as_num(), field("end").as_num()) else {
            let message = "The matcher function argument passed to function undefined does not return the correct object structure";
            return Err(Fault::new("T1010", 0, message));
        };
        let (from, to) = (byte_at(text, start), byte_at(text, end));
        Ok(Some(Match {
            text: field("match").as_str().unwrap_or_default().to_owned(),
            index: start,
            start: from,
            end: to.max(from),
            groups: field("groups").items().to_vec(),
            next: field("next"),
        }))
    }
}

/// Where a UTF-16 code unit begins, in bytes.
fn byte_at(text: &str, unit: f64) -> usize {
    let mut units = 0.0;
    for (at, c) in text.char_indices() {
        if units >= unit {
            return at;
        }
        units += c.len_utf16() as f64;
    }
    text.len()
}
