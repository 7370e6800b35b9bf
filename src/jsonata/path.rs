//! Paths: steps, predicates, order, and the rows that `@`, `#` and `%` make of them.

use std::rc::Rc;

use super::evaluate::{Eval, Frame};
use super::fault::{Fault, Result, shown};
use super::tree::{Kind, Node, Stage};
use super::value::{Arr, Tuple, Val, compare_texts};

impl<'a> Eval<'a> {
    pub(super) fn path(
        &mut self,
        node: &'a Node,
        steps: &'a [Node],
        keep_singleton: bool,
        input: &Val<'a>,
        env: &Rc<Frame<'a>>,
    ) -> Result<Val<'a>> {
        let from_variable = matches!(steps.first(), Some(Node { kind: Kind::Variable(_), .. }));
        let mut current = match input {
            Val::Arr(_) if !from_variable => input.clone(),
            _ => Val::sequence(vec![input.clone()]),
        };
        let (mut result, mut rows, mut streaming) = (Val::Undefined, None, false);
        for (at, step) in steps.iter().enumerate() {
            streaming |= step.tuple;
            if at == 0 && step.cons_array {
                result = self.evaluate(step, &current, env)?;
            } else if streaming {
                rows = Some(self.row_step(step, &current, rows, env)?);
            } else {
                result = self.step(step, &current, env, at + 1 == steps.len())?;
            }
            if !streaming && result.items().is_empty() {
                break;
            }
            if step.hung.focus.is_none() {
                current = result.clone();
            }
        }
        let stream = rows.map(|rows| Val::Arr(Rc::new(Arr { sequence: true, tuples: true, ..Arr::of(rows) })));
        if let Some(stream) = &stream {
            result = match node.tuple {
                true => stream.clone(),
                false => Val::sequence(stream.items().iter().map(|row| of_row(row, "@")).collect()),
            };
        }
        if keep_singleton && let Val::Arr(array) = &result {
            let kept = match array.cons && !array.sequence {
                true => Arr { sequence: true, ..Arr::of(vec![result.clone()]) },
                false => (**array).clone(),
            };
            result = Val::Arr(Rc::new(Arr { keep_singleton: true, ..kept }));
        }
        match &node.hung.group {
            Some(group) => self.group(group, stream.as_ref().unwrap_or(&result), env),
            None => Ok(result),
        }
    }

    fn step(&mut self, step: &'a Node, input: &Val<'a>, env: &Rc<Frame<'a>>, last: bool) -> Result<Val<'a>> {
        if let Kind::Sort(terms) = &step.kind {
            let sorted = self.sort(step.at(), terms, input, env)?;
            return self.stages(&step.hung.stages, sorted, env);
        }
        let mut results = Vec::new();
        for item in input.items() {
            let mut result = self.evaluate(step, item, env)?;
            for stage in &step.hung.stages {
                if let Stage::Filter(filter) = stage {
                    result = self.filter(filter, &result, env)?;
                }
            }
            if !result.is_undefined() {
                results.push(result);
            }
        }
        if last
            && let [Val::Arr(only)] = results.as_slice()
            && !only.sequence
        {
            return Ok(Val::Arr(only.clone()));
        }
        let mut flat = Vec::with_capacity(results.len());
        for result in results {
            match result {
                Val::Arr(array) if !array.cons => {
                    self.work(array.items.len())?;
                    flat.extend(array.items.iter().cloned());
                }
                other => flat.push(other),
            }
        }
        Ok(Val::sequence(flat))
    }

    fn stages(&mut self, stages: &'a [Stage], input: Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        let mut result = input;
        for stage in stages {
            result = match stage {
                Stage::Filter(filter) => self.filter(filter, &result, env)?,
                Stage::Index(name) => {
                    let rows = result.items().iter().enumerate().map(|(at, row)| {
                        let mut row = as_row(row);
                        bind(&mut row, name, Val::Num(at as f64));
                        Val::Tuple(Rc::new(row))
                    });
                    Val::Arr(Rc::new(Arr { sequence: true, tuples: true, ..Arr::of(rows.collect()) }))
                }
            };
        }
        Ok(result)
    }

    /// A step whose results carry bindings along.
    fn row_step(
        &mut self,
        step: &'a Node,
        input: &Val<'a>,
        rows: Option<Vec<Val<'a>>>,
        env: &Rc<Frame<'a>>,
    ) -> Result<Vec<Val<'a>>> {
        let stream = |rows| Val::Arr(Rc::new(Arr { sequence: true, tuples: true, ..Arr::of(rows) }));
        if let Kind::Sort(terms) = &step.kind {
            let sorted = match rows {
                Some(rows) => self.sort(step.at(), terms, &stream(rows), env)?,
                None => {
                    let sorted = self.sort(step.at(), terms, input, env)?;
                    let rows = sorted.items().iter().enumerate().map(|(at, item)| {
                        let mut row: Tuple = vec![("@", item.clone())];
                        if let Some(name) = &step.hung.index {
                            bind(&mut row, name, Val::Num(at as f64));
                        }
                        Val::Tuple(Rc::new(row))
                    });
                    stream(rows.collect())
                }
            };
            return Ok(self.stages(&step.hung.stages, sorted, env)?.items().to_vec());
        }
        let rows = rows.unwrap_or_else(|| input.items().iter().map(|item| Val::Tuple(Rc::new(as_row(item)))).collect());
        let mut results = Vec::new();
        for row in &rows {
            let (context, frame) = self.context_of(row, true, env);
            let result = self.evaluate(step, &context, &frame)?;
            let nested = matches!(&result, Val::Arr(array) if array.tuples);
            for (at, item) in result.items().iter().enumerate() {
                self.work(1)?;
                let mut made = as_row(row);
                if let (true, Val::Tuple(inner)) = (nested, item) {
                    inner.iter().for_each(|(name, value)| bind(&mut made, name, value.clone()));
                } else {
                    match &step.hung.focus {
                        Some(name) => bind(&mut made, name, item.clone()),
                        None => bind(&mut made, "@", item.clone()),
                    }
                    if let Some(name) = &step.hung.index {
                        bind(&mut made, name, Val::Num(at as f64));
                    }
                    if let Some(label) = step.hung.ancestor.and_then(|slot| self.labels.get(slot)) {
                        bind(&mut made, label, context.clone());
                    }
                }
                results.push(Val::Tuple(Rc::new(made)));
            }
        }
        Ok(self.stages(&step.hung.stages, stream(results), env)?.items().to_vec())
    }

    /// What a predicate leaves: the item at an index, or the items for which it holds.
    pub(super) fn filter(&mut self, predicate: &'a Node, input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        let nothing = [Val::Undefined];
        let (items, tuples) = match input {
            Val::Undefined => (&nothing[..], false),
            Val::Arr(array) => (&array.items[..], array.tuples),
            other => (std::slice::from_ref(other), false),
        };
        let place = |index: f64| {
            let index = index.floor();
            if index < 0.0 { items.len() as f64 + index } else { index }
        };
        let mut kept = Vec::new();
        if let Kind::Number(index) = predicate.kind {
            let index = place(index);
            // A cast of what is negative would give 0.
            match items.get(index as usize).filter(|_| index >= 0.0) {
                Some(Val::Arr(array)) => return Ok(Val::Arr(array.clone())),
                Some(item) => kept.push(item.clone()),
                None => {}
            }
        } else {
            for (at, item) in items.iter().enumerate() {
                let (context, frame) = self.context_of(item, tuples, env);
                let result = self.evaluate(predicate, &context, &frame)?;
                let chosen = match &result {
                    Val::Num(index) => place(*index) == at as f64,
                    Val::Arr(array) if array.items.iter().all(|item| item.as_num().is_some()) => {
                        for index in array.items.iter().filter_map(Val::as_num) {
                            if place(index) == at as f64 {
                                kept.push(item.clone());
                            }
                        }
                        self.work(array.items.len())?;
                        false
                    }
                    other => other.truth(),
                };
                if chosen {
                    kept.push(item.clone());
                }
            }
        }
        Ok(Val::Arr(Rc::new(Arr { sequence: true, tuples, ..Arr::of(kept) })))
    }

    fn sort(&mut self, at: usize, terms: &'a [(bool, Node)], input: &Val<'a>, env: &Rc<Frame<'a>>) -> Result<Val<'a>> {
        let Val::Arr(array) = input else { return Ok(input.clone()) };
        if array.items.len() <= 1 {
            return Ok(input.clone());
        }
        let mut keyed = Vec::with_capacity(array.items.len());
        for item in &array.items {
            let (context, frame) = self.context_of(item, array.tuples, env);
            let mut keys = Vec::with_capacity(terms.len());
            for (_, term) in terms {
                keys.push(self.evaluate(term, &context, &frame)?);
            }
            keyed.push((keys, item.clone()));
        }
        let sorted = self.merge_sort(keyed, &mut |eval, (a, _), (b, _)| {
            eval.work(1)?;
            for ((a, b), (descending, _)) in a.iter().zip(b).zip(terms) {
                eval.work(a.weight().min(b.weight()))?;
                let order = order(at, a, b)?;
                if order.is_ne() {
                    // What is nothing stays last, whichever way the rest is sorted.
                    let turned = *descending && !a.is_undefined() && !b.is_undefined();
                    return Ok(if turned { order.is_lt() } else { order.is_gt() });
                }
            }
            Ok(false)
        })?;
        let items = sorted.into_iter().map(|(_, item)| item).collect();
        Ok(Val::Arr(Rc::new(Arr { sequence: array.sequence, tuples: array.tuples, ..Arr::of(items) })))
    }

    /// Stable; `after` says whether the first of two belongs behind the second.
    pub(super) fn merge_sort<T>(
        &mut self,
        items: Vec<T>,
        after: &mut dyn FnMut(&mut Eval<'a>, &T, &T) -> Result<bool>,
    ) -> Result<Vec<T>> {
        if items.len() <= 1 {
            return Ok(items);
        }
        let mut left = items;
        let right = left.split_off(left.len() / 2);
        let left = self.merge_sort(left, after)?;
        let right = self.merge_sort(right, after)?;
        let mut merged = Vec::with_capacity(left.len() + right.len());
        let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let next = if after(self, a, b)? { right.next() } else { left.next() };
            merged.extend(next);
        }
        merged.extend(left);
        merged.extend(right);
        Ok(merged)
    }
}

fn order(at: usize, a: &Val, b: &Val) -> Result<std::cmp::Ordering> {
    use std::cmp::Ordering;
    Ok(match (a, b) {
        (Val::Undefined, Val::Undefined) => Ordering::Equal,
        (Val::Undefined, _) => Ordering::Greater,
        (_, Val::Undefined) => Ordering::Less,
        (Val::Num(a), Val::Num(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
        (Val::Str(a), Val::Str(b)) => compare_texts(a, b),
        (Val::Num(_) | Val::Str(_), Val::Num(_) | Val::Str(_)) => {
            let (a, b) = (shown(a), shown(b));
            let message = format!("Type mismatch when comparing values {a} and {b} in order-by clause");
            return Err(Fault::new("T2007", at, message));
        }
        _ => {
            let message = "The expressions within an order-by clause must evaluate to numeric or string values";
            return Err(Fault::new("T2008", at, message));
        }
    })
}

fn of_row<'a>(row: &Val<'a>, wanted: &str) -> Val<'a> {
    match row {
        Val::Tuple(row) => {
            row.iter().find(|(name, _)| *name == wanted).map_or(Val::Undefined, |(_, value)| value.clone())
        }
        other => other.clone(),
    }
}

fn as_row<'a>(item: &Val<'a>) -> Tuple<'a> {
    match item {
        Val::Tuple(row) => (**row).clone(),
        other => vec![("@", other.clone())],
    }
}

fn bind<'a>(row: &mut Tuple<'a>, name: &'a str, value: Val<'a>) {
    match row.iter_mut().find(|(known, _)| *known == name) {
        Some((_, slot)) => *slot = value,
        None => row.push((name, value)),
    }
}
