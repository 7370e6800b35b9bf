//! Rows of Maps: what an inline one goes over, and a child's place in a distributed one's run.

use std::sync::Arc;

use rkyv::{Archive, Serialize};
use serde_json::Value;

use super::execution::json;
use super::{Row, damaged};
use crate::base::{Attempt, ExecutionId, Fault};
use crate::interpreter::{Item, MapChild, MapItems};
use crate::store::tables::Table;

/// The place in a run of a distributed Map.
#[derive(Archive, Serialize)]
pub(super) struct ChildRow {
    pub run: u128,
    parent: u128,
    attempt: u32,
    state: String,
    pub label: String,
    pub express: bool,
    number: u32,
    items: u32,
}

impl ChildRow {
    pub fn of(child: &MapChild) -> ChildRow {
        ChildRow {
            run: child.run,
            parent: child.parent.0,
            attempt: child.attempt.0,
            state: child.state.to_string(),
            label: child.label.to_string(),
            express: child.express,
            number: child.number,
            items: child.items,
        }
    }
}

impl ArchivedChildRow {
    pub fn get(&self) -> MapChild {
        MapChild {
            run: self.run.to_native(),
            parent: ExecutionId(self.parent.to_native()),
            attempt: Attempt(self.attempt.to_native()),
            state: Arc::from(self.state.as_str()),
            label: Arc::from(self.label.as_str()),
            express: self.express,
            number: self.number.to_native(),
            items: self.items.to_native(),
        }
    }
}

#[derive(Archive, Serialize)]
pub(super) struct MapItemRow {
    pub index: u32,
    pub value: String,
    pub key: Option<String>,
}

/// What a Map works on: its raw input, and an array, with the names of the fields where it was an object.
#[derive(Archive, Serialize)]
pub(in crate::store) struct MapRow {
    input: String,
    items: String,
    keys: Vec<String>,
}

impl Row for MapRow {}

impl From<&MapItems> for MapRow {
    fn from(map: &MapItems) -> MapRow {
        let values: Vec<String> = map.items.iter().map(|item| item.value.to_string()).collect();
        let items = format!("[{}]", values.join(","));
        let keys = map.items.iter().filter_map(|item| item.key.as_deref().map(str::to_owned)).collect();
        MapRow { input: map.input.to_string(), items, keys }
    }
}

pub(in crate::store) fn map_input_from(row: &ArchivedMapRow) -> Result<Arc<Value>, Fault> {
    json(Table::MapItems, &row.input)
}

pub(in crate::store) fn map_item_from(row: &ArchivedMapRow, index: u32) -> Result<Option<Item>, Fault> {
    Ok(map_items_from(row)?.items.into_iter().nth(index as usize))
}

pub(in crate::store) fn map_items_from(row: &ArchivedMapRow) -> Result<MapItems, Fault> {
    let values: Vec<Value> = serde_json::from_str(&row.items)
        .map_err(|e| damaged(Table::MapItems, &format!("a row holds no JSON array ({e})")))?;
    let mut keys = row.keys.iter();
    let item = |value| Item { key: keys.next().map(|key| Arc::from(key.as_str())), ..Item::of(value) };
    Ok(MapItems { input: json(Table::MapItems, &row.input)?, items: values.into_iter().map(item).collect() })
}
