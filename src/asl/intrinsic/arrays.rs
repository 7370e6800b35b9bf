//! The intrinsic functions on arrays.

use std::collections::HashSet;

use serde_json::Value;

use super::functions::{array, integer};
use crate::condition::equal;

/// Most items that `States.ArrayRange` makes (AWS: 1,000).
const RANGE_ITEMS_MAX: usize = 1_000;

pub(super) fn contains(list: &Value, item: &Value) -> Result<Value, String> {
    Ok(array(list)?.iter().any(|one| equal(one, item)).into())
}

pub(super) fn get_item(list: &Value, index: &Value) -> Result<Value, String> {
    let (items, index) = (array(list)?, integer(index)?);
    usize::try_from(index)
        .ok()
        .and_then(|index| items.get(index))
        .cloned()
        .ok_or_else(|| format!("the index {index} is outside the array of {} items", items.len()))
}

pub(super) fn length(list: &Value) -> Result<Value, String> {
    Ok(array(list)?.len().into())
}

pub(super) fn partition(list: &Value, size: &Value) -> Result<Value, String> {
    let items = array(list)?;
    match usize::try_from(integer(size)?) {
        Ok(size) if size > 0 => Ok(items.chunks(size).map(|chunk| Value::Array(chunk.to_vec())).collect()),
        _ => Err(format!("the size of a part must be a positive whole number, not {size}")),
    }
}

/// From the first number to the last, which is included, by a step that may be negative.
pub(super) fn range(first: &Value, last: &Value, step: &Value) -> Result<Value, String> {
    let (first, last, step) = (integer(first)?, integer(last)?, integer(step)?);
    if step == 0 {
        return Err(String::from("the step must not be 0"));
    }
    let mut items = Vec::new();
    let mut next = Some(first);
    while let Some(item) = next.filter(|item| if step > 0 { *item <= last } else { *item >= last }) {
        if items.len() == RANGE_ITEMS_MAX {
            return Err(format!("the range has more than {RANGE_ITEMS_MAX} items"));
        }
        items.push(Value::from(item));
        next = item.checked_add(step);
    }
    Ok(items.into())
}

/// The first of each group of equal items, in order.
pub(super) fn unique(list: &Value) -> Result<Value, String> {
    let mut seen = HashSet::new();
    let items = array(list)?.iter().filter(|item| seen.insert(canonical(item)));
    Ok(items.cloned().collect())
}

/// A text that equal values share. Fields of objects come in any order and are sorted here.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut parts: Vec<String> = fields
                .iter()
                .map(|(name, field)| format!("{}:{}", Value::from(name.as_str()), canonical(field)))
                .collect();
            parts.sort();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Number(number) => match number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15) {
            Some(whole) => format!("{whole:.0}"),
            None => number.to_string(),
        },
        scalar => scalar.to_string(),
    }
}
