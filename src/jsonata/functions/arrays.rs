//! Functions of arrays, and those that call a function for each item.

use std::rc::Rc;

use super::{Entry, Given};
use crate::call::Func;
use crate::evaluate::Eval;
use crate::fault::{Fault, Result};
use crate::value::{Arr, Obj, Val, compare_texts};

pub(super) const TABLE: &[Entry] = &[
    ("count", "<a:n>", 1, count),
    ("append", "<xx:a>", 2, append),
    ("reverse", "<a:a>", 1, reverse),
    ("sort", "<af?:a>", 2, sort),
    ("shuffle", "<a:a>", 1, shuffle),
    ("distinct", "<x:x>", 1, distinct),
    ("zip", "<a+>", 0, zip),
    ("map", "<af>", 2, map),
    ("filter", "<af>", 2, filter),
    ("single", "<af?>", 2, single),
    ("reduce", "<afj?:j>", 3, reduce),
    ("sift", "<o-f?:o>", 2, sift),
    ("each", "<o-f:a>", 2, each),
];

fn count<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    Ok(Val::Num(Given(arguments).items(0).len() as f64))
}

fn append<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let (first, second) = (given.get(0), given.get(1));
    if first.is_undefined() {
        return Ok(second);
    }
    if second.is_undefined() {
        return Ok(first);
    }
    eval.work(first.items().len() + second.items().len())?;
    Ok(Val::array(first.items().iter().chain(second.items()).cloned().collect()))
}

fn reverse<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.items(0).len() <= 1 {
        return Ok(given.get(0));
    }
    eval.work(given.items(0).len())?;
    Ok(Val::array(given.items(0).iter().rev().cloned().collect()))
}

fn sort<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let items = given.items(0);
    if items.len() <= 1 {
        return Ok(given.get(0));
    }
    let comparator = given.get(1);
    if comparator.is_undefined() {
        let numbers = items.iter().all(|item| item.as_num().is_some());
        if !numbers && !items.iter().all(|item| item.as_str().is_some()) {
            let message = "The single argument form of the sort function can only be applied to an array of strings or an array of numbers.  Use the second argument to specify a comparison function";
            return Err(Fault::new("D3070", 0, message));
        }
    }
    let sorted = eval.merge_sort(items.to_vec(), &mut |eval, a, b| match (a, b) {
        _ if !comparator.is_undefined() => {
            let result = eval.apply(comparator.clone(), vec![a.clone(), b.clone()], &Val::Null, "undefined", 0)?;
            Ok(result.truth())
        }
        (Val::Num(a), Val::Num(b)) => eval.work(1).map(|()| a > b),
        (Val::Str(a), Val::Str(b)) => eval.work(1 + a.len().min(b.len()) / 32).map(|()| compare_texts(a, b).is_gt()),
        _ => Ok(false),
    })?;
    Ok(Val::array(sorted))
}

fn shuffle<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let mut items = given.items(0).to_vec();
    if items.len() <= 1 {
        return Ok(given.get(0));
    }
    eval.work(items.len())?;
    for at in (1..items.len()).rev() {
        let other = (eval.setting.draw)() % (at as u64 + 1);
        items.swap(at, other as usize);
    }
    Ok(Val::array(items))
}

fn distinct<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let value = Given(arguments).get(0);
    let Val::Arr(array) = &value else { return Ok(value) };
    if array.items.len() <= 1 {
        return Ok(value);
    }
    let mut kept: Vec<Val<'a>> = Vec::new();
    for item in &array.items {
        let mut looks: usize = 1;
        let is_known = kept.iter().any(|known| known.equals(item, &mut looks));
        eval.work(looks.div_ceil(8))?;
        if !is_known {
            kept.push(item.clone());
        }
    }
    Ok(Val::Arr(Rc::new(Arr { sequence: array.sequence, ..Arr::of(kept) })))
}

fn zip<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let length = arguments.iter().map(|argument| argument.as_arr().map_or(0, |array| array.items.len())).min();
    let length = length.unwrap_or(0);
    eval.work(length.saturating_mul(arguments.len()))?;
    let row =
        |at: usize| Val::array(arguments.iter().filter_map(|argument| argument.items().get(at).cloned()).collect());
    Ok(Val::array((0..length).map(row).collect()))
}

/// Calls a function with as many of an item, its key and the whole as it takes.
fn called<'a>(
    eval: &mut Eval<'a>,
    function: &Val<'a>,
    item: &Val<'a>,
    key: impl FnOnce() -> Val<'a>,
    whole: &Val<'a>,
) -> Result<Val<'a>> {
    let arity = arity(function);
    let mut arguments = vec![item.clone()];
    if arity >= 2 {
        arguments.push(key());
    }
    if arity >= 3 {
        arguments.push(whole.clone());
    }
    eval.apply(function.clone(), arguments, &Val::Null, "undefined", 0)
}

fn arity(function: &Val) -> usize {
    match function {
        Val::Func(function) => Func::arity(function),
        _ => 0,
    }
}

fn map<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.is_missing(0) {
        return Ok(Val::Undefined);
    }
    let (whole, function) = (given.get(0), given.get(1));
    let mut results = Vec::new();
    for (at, item) in whole.items().iter().enumerate() {
        let result = called(eval, &function, item, || Val::Num(at as f64), &whole)?;
        if !result.is_undefined() {
            results.push(result);
        }
    }
    Ok(Val::sequence(results))
}

fn filter<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.is_missing(0) {
        return Ok(Val::Undefined);
    }
    let (whole, function) = (given.get(0), given.get(1));
    let mut kept = Vec::new();
    for (at, item) in whole.items().iter().enumerate() {
        if called(eval, &function, item, || Val::Num(at as f64), &whole)?.truth() {
            kept.push(item.clone());
        }
    }
    Ok(Val::sequence(kept))
}

fn single<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.is_missing(0) {
        return Ok(Val::Undefined);
    }
    let (whole, function) = (given.get(0), given.get(1));
    let mut found = None;
    for (at, item) in whole.items().iter().enumerate() {
        let fits = function.is_undefined() || called(eval, &function, item, || Val::Num(at as f64), &whole)?.truth();
        if fits && found.replace(item.clone()).is_some() {
            let message = "The $single() function expected exactly 1 matching result.  Instead it matched more.";
            return Err(Fault::new("D3138", 0, message));
        }
    }
    found.ok_or_else(|| {
        Fault::new("D3139", 0, "The $single() function expected exactly 1 matching result.  Instead it matched 0.")
    })
}

fn reduce<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.is_missing(0) {
        return Ok(Val::Undefined);
    }
    let (whole, function) = (given.get(0), given.get(1));
    let arity = arity(&function);
    if arity < 2 {
        let message = "The second argument of reduce function must be a function with at least two arguments";
        return Err(Fault::new("D3050", 0, message));
    }
    let items = whole.items();
    let (mut result, from) = match given.get(2) {
        Val::Undefined if !items.is_empty() => (items[0].clone(), 1),
        initial => (initial, 0),
    };
    for (at, item) in items.iter().enumerate().skip(from) {
        let mut arguments = vec![result, item.clone()];
        if arity >= 3 {
            arguments.push(Val::Num(at as f64));
        }
        if arity >= 4 {
            arguments.push(whole.clone());
        }
        result = eval.apply(function.clone(), arguments, &Val::Null, "undefined", 0)?;
    }
    Ok(result)
}

fn sift<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let (whole, function) = (given.get(0), given.get(1));
    let Val::Obj(object) = &whole else { return Ok(Val::Undefined) };
    let mut kept = Obj::default();
    for (key, item) in object.iter() {
        if called(eval, &function, item, || Val::Str(key.clone()), &whole)?.truth() {
            kept.insert(key.clone(), item.clone());
        }
    }
    Ok(if kept.len() == 0 { Val::Undefined } else { Val::object(kept) })
}

fn each<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let (whole, function) = (given.get(0), given.get(1));
    let mut results = Vec::new();
    if let Val::Obj(object) = &whole {
        for (key, item) in object.iter() {
            let result = called(eval, &function, item, || Val::Str(key.clone()), &whole)?;
            if !result.is_undefined() {
                results.push(result);
            }
        }
    }
    Ok(Val::sequence(results))
}
