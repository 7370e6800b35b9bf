//! Functions that look for something in a text.

use std::rc::Rc;

use super::{Entry, Given};
use crate::call::Match;
use crate::evaluate::Eval;
use crate::fault::{Fault, Result};
use crate::value::{Obj, Val};

pub(super) const TABLE: &[Entry] = &[
    ("contains", "<s-(sf):b>", 2, contains),
    ("match", "<s-f<s:o>n?:a<o>>", 3, match_),
    ("replace", "<s-(sf)(sf)n?:s>", 4, replace),
    ("split", "<s-(sf)n?:a<s>>", 3, split),
];

fn text(given: &Given) -> Option<Rc<str>> {
    given.str(0).map(Into::into)
}

/// How often at most; `None` where nothing is said.
fn limit(given: &Given, at: usize, code: &'static str, what: &str) -> Result<Option<f64>> {
    match given.num(at) {
        Some(limit) if limit < 0.0 => {
            Err(Fault::new(code, 0, format!("{what} function must evaluate to a positive number")))
        }
        limit => Ok(limit),
    }
}

fn within(count: usize, limit: Option<f64>) -> bool {
    limit.is_none_or(|limit| (count as f64) < limit)
}

fn contains<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(text) = text(&given) else { return Ok(Val::Undefined) };
    let found = match given.get(1) {
        Val::Str(token) => text.contains(&*token),
        matcher => eval.matched(&matcher, &text)?.is_some(),
    };
    Ok(Val::Bool(found))
}

fn match_<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(text) = text(&given) else { return Ok(Val::Undefined) };
    let limit = limit(&given, 2, "D3040", "Third argument of match")?;
    let mut found = Vec::new();
    let mut next = if within(0, limit) { eval.matched(&given.get(1), &text)? } else { None };
    while let Some(one) = next.filter(|_| within(found.len(), limit)) {
        eval.work(4)?;
        let mut object = Obj::default();
        object.insert("match".into(), Val::str(&one.text));
        object.insert("index".into(), Val::Num(one.index));
        object.insert("groups".into(), Val::array(one.groups.clone()));
        found.push(Val::object(object));
        next = eval.matched_next(&one, &text)?;
    }
    Ok(Val::sequence(found))
}

fn replace<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(text) = text(&given) else { return Ok(Val::Undefined) };
    if given.str(1) == Some("") {
        return Err(Fault::new("D3010", 0, "Second argument of replace function cannot be an empty string"));
    }
    let limit = limit(&given, 3, "D3011", "Fourth argument of replace")?;
    let (mut made, mut position, mut count) = (String::new(), 0, 0);
    if let Some(pattern) = given.str(1) {
        let replacement = given.str(2).unwrap_or_default();
        while let Some(at) = text[position..].find(pattern).filter(|_| within(count, limit)) {
            eval.work(1 + replacement.len() / 16)?;
            made.push_str(&text[position..position + at]);
            made.push_str(replacement);
            position += at + pattern.len();
            count += 1;
        }
    } else {
        let mut next = if within(0, limit) { eval.matched(&given.get(1), &text)? } else { None };
        while let Some(one) = next.filter(|_| within(count, limit)) {
            made.push_str(text.get(position..one.start).unwrap_or_default());
            let replacement = replacement(eval, &given.get(2), &one)?;
            eval.work(1 + replacement.len() / 16)?;
            made.push_str(&replacement);
            position = one.end;
            count += 1;
            next = eval.matched_next(&one, &text)?;
        }
    }
    made.push_str(text.get(position..).unwrap_or_default());
    eval.text(made)
}

fn replacement<'a>(eval: &mut Eval<'a>, with: &Val<'a>, found: &Match<'a>) -> Result<String> {
    if let Some(template) = with.as_str() {
        return Ok(substituted(template, found));
    }
    let mut object = Obj::default();
    object.insert("match".into(), Val::str(&found.text));
    object.insert("start".into(), Val::Num(found.index));
    object.insert("end".into(), Val::Num(found.index + found.text.encode_utf16().count() as f64));
    object.insert("groups".into(), Val::array(found.groups.clone()));
    let made = eval.apply(with.clone(), vec![Val::object(object)], &Val::Null, "undefined", 0)?;
    match made.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Fault::new("D3012", 0, "Attempted to replace a matched string with a non-string value")),
    }
}

/// `$0` is the match, `$1` a group, `$$` a dollar.
fn substituted(template: &str, found: &Match) -> String {
    let mut made = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        made.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            made.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('0') {
            made.push_str(&found.text);
            rest = after;
        } else {
            let groups = found.groups.len();
            let digits_max = if groups == 0 { 1 } else { groups.ilog10() as usize + 1 };
            let digits = rest.bytes().take(digits_max).take_while(u8::is_ascii_digit).count();
            let number = |digits: usize| rest[..digits].parse::<usize>().ok();
            let mut taken = digits;
            let mut index = number(digits);
            if digits > 1 && index.is_some_and(|index| index > groups) {
                taken = digits - 1;
                index = number(taken);
            }
            match index {
                Some(index) => {
                    let group = index.checked_sub(1).and_then(|index| found.groups.get(index));
                    made.push_str(group.and_then(Val::as_str).unwrap_or_default());
                    rest = &rest[taken..];
                }
                None => made.push('$'),
            }
        }
    }
    made.push_str(rest);
    made
}

fn split<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let Some(text) = text(&given) else { return Ok(Val::Undefined) };
    let limit = limit(&given, 2, "D3020", "Third argument of split")?;
    let mut parts = Vec::new();
    if let Some(separator) = given.str(1) {
        // As String.split: a limit is cut to a whole number.
        let most = limit.map_or(usize::MAX, |limit| limit as usize);
        eval.work(text.len() / 4)?;
        match separator {
            "" => parts.extend(text.chars().take(most).map(|c| Val::str(c.encode_utf8(&mut [0; 4])))),
            separator => parts.extend(text.split(separator).take(most).map(Val::str)),
        }
        return Ok(Val::array(parts));
    }
    if !within(0, limit) {
        return Ok(Val::array(parts));
    }
    let (mut start, mut next) = (0, eval.matched(&given.get(1), &text)?);
    while let Some(one) = next.filter(|_| within(parts.len(), limit)) {
        eval.work(1)?;
        parts.push(Val::str(text.get(start..one.start).unwrap_or_default()));
        start = one.end;
        next = eval.matched_next(&one, &text)?;
    }
    if within(parts.len(), limit) {
        parts.push(Val::str(text.get(start..).unwrap_or_default()));
    }
    Ok(Val::array(parts))
}
