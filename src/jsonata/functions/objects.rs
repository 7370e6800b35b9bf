//! Functions of objects and of any value.

use super::{Entry, Given};
use crate::evaluate::Eval;
use crate::fault::{Fault, Result};
use crate::value::{Obj, Val};

pub(super) const TABLE: &[Entry] = &[
    ("keys", "<x-:a<s>>", 1, keys),
    ("lookup", "<x-s:x>", 2, lookup),
    ("spread", "<x-:a<o>>", 1, spread),
    ("merge", "<a<o>:o>", 1, merge),
    ("clone", "<(oa)-:o>", 1, clone),
    ("exists", "<x:b>", 1, exists),
    ("boolean", "<x-:b>", 1, boolean),
    ("not", "<x-:b>", 1, not),
    ("type", "<x:s>", 1, type_),
    ("error", "<s?:x>", 1, error),
    ("assert", "<bs?:x>", 2, assert),
];

fn keys<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    fn gather<'a>(value: &Val<'a>, into: &mut Obj<'a>) {
        match value {
            Val::Arr(array) => array.items.iter().for_each(|item| gather(item, into)),
            Val::Obj(object) => object.iter().for_each(|(key, _)| into.insert(key.clone(), Val::Null)),
            _ => {}
        }
    }
    let mut found = Obj::default();
    gather(&Given(arguments).get(0), &mut found);
    eval.work(found.len())?;
    Ok(Val::sequence(found.iter().map(|(key, _)| Val::Str(key.clone())).collect()))
}

fn lookup<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    eval.look_up(&given.get(0), given.str(1).unwrap_or_default())
}

fn spread<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    fn spread_into<'a>(value: &Val<'a>, into: &mut Vec<Val<'a>>) {
        match value {
            Val::Arr(array) => array.items.iter().for_each(|item| spread_into(item, into)),
            Val::Obj(object) => {
                for (key, item) in object.iter() {
                    let mut single = Obj::default();
                    single.insert(key.clone(), item.clone());
                    into.push(Val::object(single));
                }
            }
            Val::Undefined => {}
            other => into.push(other.clone()),
        }
    }
    let value = Given(arguments).get(0);
    if !matches!(value, Val::Arr(_) | Val::Obj(_)) {
        return Ok(value);
    }
    let mut found = Vec::new();
    spread_into(&value, &mut found);
    eval.work(found.len())?;
    Ok(Val::sequence(found))
}

fn merge<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.is_missing(0) {
        return Ok(Val::Undefined);
    }
    let mut merged = Obj::default();
    for item in given.items(0) {
        if let Val::Obj(object) = item {
            eval.work(object.len())?;
            object.iter().for_each(|(key, value)| merged.insert(key.clone(), value.clone()));
        }
    }
    Ok(Val::object(merged))
}

fn clone<'a>(eval: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    eval.copied(&Given(arguments).get(0))
}

fn exists<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    Ok(Val::Bool(!Given(arguments).is_missing(0)))
}

fn boolean<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let value = Given(arguments).get(0);
    Ok(if value.is_undefined() { Val::Undefined } else { Val::Bool(value.truth()) })
}

fn not<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let value = Given(arguments).get(0);
    Ok(if value.is_undefined() { Val::Undefined } else { Val::Bool(!value.truth()) })
}

fn type_<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let value = Given(arguments).get(0);
    Ok(if value.is_undefined() { Val::Undefined } else { Val::str(value.type_name()) })
}

fn error<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    let message = given.str(0).filter(|text| !text.is_empty()).unwrap_or("$error() function evaluated");
    Err(Fault::new("D3137", 0, message))
}

fn assert<'a>(_: &mut Eval<'a>, arguments: Vec<Val<'a>>) -> Result<Val<'a>> {
    let given = Given(arguments);
    if given.get(0).truth() {
        return Ok(Val::Undefined);
    }
    let message = given.str(1).filter(|text| !text.is_empty()).unwrap_or("$assert() statement failed");
    Err(Fault::new("D3141", 0, message))
}
