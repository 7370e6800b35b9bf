//! `UpdateExpression`: SET, REMOVE, ADD and DELETE, parsed and applied to an item. Pure.
//!
//! Invariant: every right-hand side sees the item as it was before the update.

use serde_json::{Value, json};

use super::expression::{DocumentPath, Part, Placeholders, Reader};
use super::value::{Decimal, Item, parts, type_of};

/// What an update did.
#[derive(Debug)]
pub struct Updated {
    pub item: Item,
    /// The paths that were written, for `UPDATED_OLD` and `UPDATED_NEW`.
    pub paths: Vec<DocumentPath>,
}

enum Action {
    Set(Value),
    Remove,
    Add(Value),
    Delete(Value),
}

/// Applies the expression; the error is DynamoDB's sentence.
pub fn apply(text: &str, placeholders: &Placeholders, before: &Item) -> Result<Updated, String> {
    let actions = read(text, placeholders, before)?;
    for (n, (path, _)) in actions.iter().enumerate() {
        if let Some((other, _)) = actions[..n].iter().find(|(other, _)| other.overlaps(path)) {
            return Err(format!(
                "Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: {}, path two: {}",
                other.listed(),
                path.listed()
            ));
        }
    }
    let mut item = before.clone();
    let mut removals = Vec::new();
    let mut paths = Vec::new();
    for (path, action) in actions {
        match action {
            Action::Set(value) => put(&mut item, &path, value)?,
            Action::Add(value) => {
                let sum = added(path.get(before), &value)?;
                put(&mut item, &path, sum)?;
            }
            Action::Delete(value) => match subtracted(path.get(before), &value)? {
                Some(rest) => put(&mut item, &path, rest)?,
                None => removals.push(path.clone()),
            },
            Action::Remove => removals.push(path.clone()),
        }
        paths.push(path);
    }
    // From the back, so that an index still means what it meant before.
    removals.sort();
    for path in removals.iter().rev() {
        remove(&mut item, path);
    }
    Ok(Updated { item, paths })
}

fn read(text: &str, placeholders: &Placeholders, before: &Item) -> Result<Vec<(DocumentPath, Action)>, String> {
    let mut r = Reader::new(text, "UpdateExpression", placeholders)?;
    let mut actions = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    while !r.at_end() {
        let clause = ["SET", "REMOVE", "ADD", "DELETE"].into_iter().find(|c| r.word(c)).ok_or_else(|| r.wrong())?;
        if seen.contains(&clause) {
            return Err(format!(
                "Invalid UpdateExpression: The \"{clause}\" section can only be used once in an update expression;"
            ));
        }
        seen.push(clause);
        loop {
            let path = r.path()?;
            let action = match clause {
                "SET" => {
                    r.expect("=")?;
                    Action::Set(sum(&mut r, before)?)
                }
                "REMOVE" => Action::Remove,
                _ => {
                    let value = r.value()?.ok_or_else(|| r.wrong())?;
                    if clause == "ADD" { Action::Add(value) } else { Action::Delete(value) }
                }
            };
            actions.push((path, action));
            if !r.sign(",") {
                break;
            }
        }
    }
    Ok(actions)
}

fn sum(r: &mut Reader, before: &Item) -> Result<Value, String> {
    let left = operand(r, before)?;
    for (sign, negative) in [("+", false), ("-", true)] {
        if r.sign(sign) {
            let right = operand(r, before)?;
            let (a, b) = (number(&left, sign)?, number(&right, sign)?);
            return add(a, if negative { b.negated() } else { b });
        }
    }
    Ok(left)
}

fn number(value: &Value, operator: &str) -> Result<Decimal, String> {
    value.get("N").and_then(Value::as_str).and_then(Decimal::parse).ok_or_else(|| {
        format!(
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator or function: {operator}, operand type: {}",
            type_of(value)
        )
    })
}

fn add(a: Decimal, b: Decimal) -> Result<Value, String> {
    let sum = a.plus(b).ok_or("Number overflow. Attempting to store a number with more than 38 significant digits")?;
    Ok(json!({ "N": sum.to_string() }))
}

fn operand(r: &mut Reader, before: &Item) -> Result<Value, String> {
    r.enter()?;
    let value = operand_inside(r, before)?;
    r.leave();
    Ok(value)
}

fn operand_inside(r: &mut Reader, before: &Item) -> Result<Value, String> {
    if let Some(value) = r.value()? {
        return Ok(value);
    }
    if r.sign("(") {
        let value = sum(r, before)?;
        r.expect(")")?;
        return Ok(value);
    }
    let Some(name) = r.function() else {
        let path = r.path()?;
        return path.get(before).cloned().ok_or_else(|| {
            "The provided expression refers to an attribute that does not exist in the item".to_owned()
        });
    };
    let value = match name.as_str() {
        "if_not_exists" => {
            let path = r.path()?;
            r.expect(",")?;
            let other = operand(r, before)?;
            path.get(before).cloned().unwrap_or(other)
        }
        "list_append" => {
            let first = operand(r, before)?;
            r.expect(",")?;
            let second = operand(r, before)?;
            let mut list = list(&first)?.clone();
            list.extend(self::list(&second)?.iter().cloned());
            json!({ "L": list })
        }
        _ => return Err(format!("Invalid UpdateExpression: Invalid function name; function: {name}")),
    };
    r.expect(")")?;
    Ok(value)
}

fn list(value: &Value) -> Result<&Vec<Value>, String> {
    value.get("L").and_then(Value::as_array).ok_or_else(|| {
        format!(
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator or function: list_append, operand type: {}",
            type_of(value)
        )
    })
}

const WRONG_TYPE: &str = "An operand in the update expression has an incorrect data type";

fn added(current: Option<&Value>, value: &Value) -> Result<Value, String> {
    let (kind, content) = parts(value);
    match (current, kind) {
        (None, "N" | "SS" | "NS" | "BS") => Ok(value.clone()),
        (Some(current), "N") if type_of(current) == "N" => add(number(current, "ADD")?, number(value, "ADD")?),
        (Some(current), "SS" | "NS" | "BS") if type_of(current) == kind => {
            let mut members = parts(current).1.as_array().cloned().unwrap_or_default();
            for member in content.as_array().into_iter().flatten() {
                if !members.contains(member) {
                    members.push(member.clone());
                }
            }
            Ok(json!({ kind: members }))
        }
        (None, _) => Err(format!(
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: ADD, operand type: {kind}"
        )),
        (Some(_), _) => Err(WRONG_TYPE.to_owned()),
    }
}

/// What is left of a set; `None` where nothing is, since DynamoDB keeps no empty sets.
fn subtracted(current: Option<&Value>, value: &Value) -> Result<Option<Value>, String> {
    let (kind, content) = parts(value);
    if !matches!(kind, "SS" | "NS" | "BS") {
        return Err(format!(
            "Invalid UpdateExpression: Incorrect operand type for operator or function; operator: DELETE, operand type: {kind}"
        ));
    }
    let Some(current) = current else { return Ok(None) };
    if type_of(current) != kind {
        return Err(WRONG_TYPE.to_owned());
    }
    let gone = content.as_array().cloned().unwrap_or_default();
    let rest: Vec<Value> =
        parts(current).1.as_array().into_iter().flatten().filter(|m| !gone.contains(m)).cloned().collect();
    Ok((!rest.is_empty()).then(|| json!({ kind: rest })))
}

const NO_PARENT: &str = "The document path provided in the update expression is invalid for update";

fn put(item: &mut Item, path: &DocumentPath, value: Value) -> Result<(), String> {
    let Some((last, parents)) = path.0.split_last() else { return Err(NO_PARENT.to_owned()) };
    let Some((Part::Name(first), between)) = parents.split_first() else {
        item.insert(path.attribute().to_owned(), value);
        return Ok(());
    };
    let mut place = item.get_mut(first).ok_or(NO_PARENT)?;
    for part in between {
        place = match part {
            Part::Name(name) => place.get_mut("M").and_then(|m| m.get_mut(name)),
            Part::Index(n) => place.get_mut("L").and_then(|l| l.get_mut(n)),
        }
        .ok_or(NO_PARENT)?;
    }
    match last {
        Part::Name(name) => {
            place.get_mut("M").and_then(Value::as_object_mut).ok_or(NO_PARENT)?.insert(name.clone(), value);
        }
        Part::Index(n) => {
            let list = place.get_mut("L").and_then(Value::as_array_mut).ok_or(NO_PARENT)?;
            match list.get_mut(*n) {
                Some(slot) => *slot = value,
                // DynamoDB appends where the index lies behind the end.
                None => list.push(value),
            }
        }
    }
    Ok(())
}

fn remove(item: &mut Item, path: &DocumentPath) {
    let Some((last, parents)) = path.0.split_last() else { return };
    let Some((Part::Name(first), between)) = parents.split_first() else {
        item.shift_remove(path.attribute());
        return;
    };
    let mut place = item.get_mut(first);
    for part in between {
        place = place.and_then(|p| match part {
            Part::Name(name) => p.get_mut("M").and_then(|m| m.get_mut(name)),
            Part::Index(n) => p.get_mut("L").and_then(|l| l.get_mut(n)),
        });
    }
    match (place, last) {
        (Some(place), Part::Name(name)) => {
            if let Some(map) = place.get_mut("M").and_then(Value::as_object_mut) {
                map.shift_remove(name);
            }
        }
        (Some(place), Part::Index(n)) => {
            if let Some(list) = place.get_mut("L").and_then(Value::as_array_mut).filter(|l| *n < l.len()) {
                list.remove(*n);
            }
        }
        (None, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, item: Value, request: Value) -> Result<Value, String> {
        let placeholders = Placeholders::of(&request)?;
        let updated = apply(text, &placeholders, item.as_object().unwrap())?;
        placeholders.all_used()?;
        Ok(Value::Object(updated.item))
    }

    #[test]
    fn the_recipes_update_is_applied() {
        let after = run(
            "SET JobStatus = :status, ErrorDetails = :error",
            json!({"JobId": {"S": "j"}}),
            json!({"ExpressionAttributeValues": {":status": {"S": "FAILED"}, ":error": {"S": "why"}}}),
        );
        assert_eq!(
            after.unwrap(),
            json!({"JobId": {"S": "j"}, "JobStatus": {"S": "FAILED"}, "ErrorDetails": {"S": "why"}})
        );
    }

    #[test]
    fn all_four_clauses_work_on_the_item_as_it_was() {
        let after = run(
            "SET a = b, b = a, #l = list_append(if_not_exists(#l, :none), :one), m.k = :n - a REMOVE x[0], x[1] ADD c :n, s :more DELETE t :gone",
            json!({
                "a": {"N": "1"}, "b": {"N": "2"}, "m": {"M": {}}, "x": {"L": [{"S": "0"}, {"S": "1"}, {"S": "2"}]},
                "s": {"SS": ["p"]}, "t": {"SS": ["p"]},
            }),
            json!({
                "ExpressionAttributeNames": {"#l": "list"},
                "ExpressionAttributeValues": {
                    ":none": {"L": []}, ":one": {"L": [{"S": "v"}]}, ":n": {"N": "5"}, ":more": {"SS": ["q", "p"]}, ":gone": {"SS": ["p"]},
                },
            }),
        );
        assert_eq!(
            after.unwrap(),
            json!({
                "a": {"N": "2"}, "b": {"N": "1"}, "m": {"M": {"k": {"N": "4"}}}, "x": {"L": [{"S": "2"}]},
                "s": {"SS": ["p", "q"]}, "list": {"L": [{"S": "v"}]}, "c": {"N": "5"},
            })
        );
    }

    #[test]
    fn faults_are_named() {
        let values = json!({"ExpressionAttributeValues": {":s": {"S": "x"}}});
        for (text, part) in [
            ("SET a = :t", "not defined; attribute value: :t"),
            ("SET a = missing", "does not exist in the item"),
            ("SET a.b = :s", "document path provided"),
            ("SET a = :s, a = :s", "overlap"),
            ("SET a = :s + :s", "operator or function: +, operand type: S"),
            ("SET a", "Syntax error"),
            ("REMOVE a", "unused in expressions: keys: {:s}"),
            ("PUT a = :s", "token: \"PUT\""),
        ] {
            let error = run(text, json!({}), values.clone()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
