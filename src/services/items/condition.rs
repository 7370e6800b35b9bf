//! `ConditionExpression`: parsed and tested against an item. Pure.

use serde_json::Value;

use super::expression::{DocumentPath, Placeholders, Reader};
use super::value::{Decimal, Item, parts, type_of};

/// Parses the expression and tests it; the error is DynamoDB's sentence about the expression.
pub fn test(text: &str, placeholders: &Placeholders, item: &Item) -> Result<bool, String> {
    let mut reader = Reader::new(text, "ConditionExpression", placeholders)?;
    let holds = either(&mut reader, item)?;
    if reader.at_end() { Ok(holds) } else { Err(reader.wrong()) }
}

fn either(r: &mut Reader, item: &Item) -> Result<bool, String> {
    let mut holds = both(r, item)?;
    while r.word("OR") {
        holds |= both(r, item)?;
    }
    Ok(holds)
}

fn both(r: &mut Reader, item: &Item) -> Result<bool, String> {
    let mut holds = not(r, item)?;
    while r.word("AND") {
        holds &= not(r, item)?;
    }
    Ok(holds)
}

fn not(r: &mut Reader, item: &Item) -> Result<bool, String> {
    r.enter()?;
    let holds = if r.word("NOT") { !not(r, item)? } else { primary(r, item)? };
    r.leave();
    Ok(holds)
}

fn primary(r: &mut Reader, item: &Item) -> Result<bool, String> {
    if r.sign("(") {
        let holds = either(r, item)?;
        r.expect(")")?;
        return Ok(holds);
    }
    let is_size = matches!(r.peek(), Some(super::expression::Token::Word(w)) if w.eq_ignore_ascii_case("size"));
    if !is_size && let Some(name) = r.function() {
        let holds = function(&name, r, item)?;
        r.expect(")")?;
        return Ok(holds);
    }
    let left = operand(r, item)?;
    comparison(r, item, left)
}

fn comparison(r: &mut Reader, item: &Item, left: Option<Value>) -> Result<bool, String> {
    if r.word("BETWEEN") {
        let low = operand(r, item)?;
        if !r.word("AND") {
            return Err(r.wrong());
        }
        let high = operand(r, item)?;
        return Ok(compare(&left, &low).is_some_and(|o| o.is_ge()) && compare(&left, &high).is_some_and(|o| o.is_le()));
    }
    if r.word("IN") {
        r.expect("(")?;
        // Each is read, whether or not it can still matter: the expression goes on behind the last one.
        let mut holds = operand(r, item)? == left;
        while r.sign(",") {
            holds |= operand(r, item)? == left;
        }
        r.expect(")")?;
        return Ok(holds && left.is_some());
    }
    for sign in ["=", "<>", "<=", ">=", "<", ">"] {
        if r.sign(sign) {
            let right = operand(r, item)?;
            return Ok(match sign {
                "=" => left.is_some() && left == right,
                "<>" => left != right,
                "<" => compare(&left, &right).is_some_and(|o| o.is_lt()),
                "<=" => compare(&left, &right).is_some_and(|o| o.is_le()),
                ">" => compare(&left, &right).is_some_and(|o| o.is_gt()),
                _ => compare(&left, &right).is_some_and(|o| o.is_ge()),
            });
        }
    }
    Err(r.wrong())
}

/// The order of two values of one orderable type.
fn compare(left: &Option<Value>, right: &Option<Value>) -> Option<std::cmp::Ordering> {
    let (a, b) = (parts(left.as_ref()?), parts(right.as_ref()?));
    match (a.0, b.0) {
        ("N", "N") => Some(Decimal::parse(a.1.as_str()?)?.cmp(&Decimal::parse(b.1.as_str()?)?)),
        ("S", "S") | ("B", "B") => Some(a.1.as_str()?.as_bytes().cmp(b.1.as_str()?.as_bytes())),
        _ => None,
    }
}

fn operand(r: &mut Reader, item: &Item) -> Result<Option<Value>, String> {
    if let Some(value) = r.value()? {
        return Ok(Some(value));
    }
    match r.function() {
        Some(name) if name.eq_ignore_ascii_case("size") => {
            let path = r.path()?;
            r.expect(")")?;
            Ok(path.get(item).and_then(size).map(|n| serde_json::json!({ "N": n.to_string() })))
        }
        Some(name) => Err(format!("Invalid {}: Invalid function name; function: {name}", r.kind)),
        None => Ok(r.path()?.get(item).cloned()),
    }
}

fn size(value: &Value) -> Option<usize> {
    match parts(value) {
        ("S", Value::String(s)) => Some(s.len()),
        // Four base64 characters stand for three bytes.
        ("B", Value::String(s)) => Some(s.trim_end_matches('=').len() * 3 / 4),
        (_, Value::Array(list)) => Some(list.len()),
        (_, Value::Object(map)) => Some(map.len()),
        _ => None,
    }
}

fn function(name: &str, r: &mut Reader, item: &Item) -> Result<bool, String> {
    match name.to_ascii_lowercase().as_str() {
        "attribute_exists" => Ok(r.path()?.get(item).is_some()),
        "attribute_not_exists" => Ok(r.path()?.get(item).is_none()),
        "attribute_type" => {
            let (path, wanted) = path_and_value(r, item)?;
            Ok(path.get(item).is_some_and(|v| wanted.get("S").and_then(Value::as_str) == Some(type_of(v))))
        }
        "begins_with" => {
            let (path, start) = path_and_value(r, item)?;
            Ok(path.get(item).is_some_and(|v| match (parts(v), parts(&start)) {
                (("S", Value::String(v)), ("S", Value::String(s))) => v.starts_with(s.as_str()),
                _ => false,
            }))
        }
        "contains" => {
            let (path, part) = path_and_value(r, item)?;
            Ok(path.get(item).is_some_and(|v| contains(v, &part)))
        }
        _ => Err(format!("Invalid {}: Invalid function name; function: {name}", r.kind)),
    }
}

fn path_and_value(r: &mut Reader, item: &Item) -> Result<(DocumentPath, Value), String> {
    let path = r.path()?;
    r.expect(",")?;
    let value = operand(r, item)?.unwrap_or(Value::Null);
    Ok((path, value))
}

fn contains(value: &Value, part: &Value) -> bool {
    match (parts(value), parts(part)) {
        (("S", Value::String(v)), ("S", Value::String(p))) => v.contains(p.as_str()),
        (("L", Value::Array(list)), _) => list.contains(part),
        (("SS", Value::Array(list)), ("S", p)) | (("NS", Value::Array(list)), ("N", p)) => list.contains(p),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_hold_or_not() {
        let item = json!({"JobId": {"S": "a"}, "n": {"N": "10"}, "tags": {"SS": ["x"]}, "m": {"M": {"k": {"L": [{"S": "v"}]}}}});
        let request = json!({
            "ExpressionAttributeNames": {"#n": "n"},
            "ExpressionAttributeValues": {":nine": {"N": "9.5"}, ":ten": {"N": "1e1"}, ":x": {"S": "x"}, ":v": {"S": "v"}},
        });
        let placeholders = Placeholders::of(&request).unwrap();
        let holds = |text: &str| test(text, &placeholders, item.as_object().unwrap());
        for yes in [
            "attribute_not_exists(other)",
            "#n > :nine AND #n = :ten",
            "NOT (attribute_exists(other) OR #n < :nine)",
            "contains(tags, :x) and m.k[0] = :v",
            "#n BETWEEN :nine AND :ten",
            "#n IN (:nine, :ten)",
            "size(tags) < :nine",
        ] {
            assert_eq!(holds(yes), Ok(true), "{yes}");
        }
        for no in [
            "missing IN (:nine, :ten)",
            "missing IN (other)",
            "JobId > :nine",
            "missing = :x",
            "m.k[1] = :v",
            "begins_with(JobId, :x)",
        ] {
            assert_eq!(holds(no), Ok(false), "{no}");
        }
        for bad in ["", "a =", "attribute_exists(", "nonsense(a)", "a = :undefined", "a ! b"] {
            assert!(holds(bad).is_err(), "{bad}");
        }
        assert!(holds(&"(".repeat(10_000)).is_err());
    }
}
