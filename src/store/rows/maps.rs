//! Rows of Maps: what an inline one goes over, and a child's place in a distributed one's run.

use std::sync::Arc;

use conveyor_base::{Attempt, ExecutionId, Fault};
use conveyor_interpreter::{Item, MapChild};
use rkyv::{Archive, Serialize};
use serde_json::Value;

use super::{Row, damaged};
use crate::tables::Table;

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

/// Items that one row holds: an iteration's start reads one row, and a Map's start writes few.
pub(crate) const ITEMS_PER_PAGE: u32 = 64;

/// How many rows so many items take.
pub(crate) fn pages_of(items: u32) -> u32 {
    items.div_ceil(ITEMS_PER_PAGE)
}

/// Some of the items of an inline Map: an array, with the names of the fields where it was an object.
#[derive(Archive, Serialize)]
pub(crate) struct MapPageRow {
    items: String,
    keys: Vec<String>,
}

impl Row for MapPageRow {}

/// The pages of a Map's items, in their order.
pub(crate) fn map_pages(items: &[Item]) -> impl Iterator<Item = MapPageRow> {
    items.chunks(ITEMS_PER_PAGE as usize).map(|items| {
        let values: Vec<String> = items.iter().map(|item| item.value.to_string()).collect();
        let keys = items.iter().filter_map(|item| item.key.as_deref().map(str::to_owned)).collect();
        MapPageRow { items: format!("[{}]", values.join(",")), keys }
    })
}

pub(crate) fn map_page_from(row: &ArchivedMapPageRow) -> Result<Vec<Item>, Fault> {
    let values: Vec<Value> = serde_json::from_str(&row.items)
        .map_err(|e| damaged(Table::MapPages, &format!("a row holds no JSON array ({e})")))?;
    let mut keys = row.keys.iter();
    let item = |value| Item { key: keys.next().map(|key| Arc::from(key.as_str())), ..Item::of(value) };
    Ok(values.into_iter().map(item).collect())
}

pub(crate) fn map_input_from(text: &[u8]) -> Result<Arc<Value>, Fault> {
    serde_json::from_slice(text)
        .map(Arc::new)
        .map_err(|e| damaged(Table::MapItems, &format!("a row holds no JSON ({e})")))
}
