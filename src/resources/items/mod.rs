//! The job table and other tables of items: DynamoDB's put, get, update and delete on the appliance's own store.
//!
//! A table is configured (`[tables.NAME] key = "JobId"`) or begins with its first use, which also says what its key
//! is. Invariant: reading an item, testing its condition and storing the change happen under one lock per item.

mod condition;
mod expression;
mod task;
mod update;
mod value;

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use task::{NAMES, adapter};

use super::aws;
use crate::base::TaskError;
use crate::run::Handle;
use crate::store::{Commit, Reader, TableRow};
use expression::Placeholders;
use value::Item;

/// Largest item, in bytes (DynamoDB: 400 KB).
const ITEM_BYTES_MAX: usize = 409_600;
/// Attributes that serve as the key of a table that begins with a put and is not configured.
const KEY_GUESSES: &[&str] = &["JobId", "jobId", "Id", "id", "ID", "PK", "pk"];
const LOCKS: usize = 64;

/// `[tables.NAME]`: the key of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSettings {
    /// The partition key.
    pub key: String,
    /// The sort key.
    pub range: Option<String>,
}

/// The tables of this box.
pub struct Tables {
    configured: BTreeMap<String, TableSettings>,
    reader: Reader,
    /// Keys of tables that began with their first use, as far as they were asked for since the start.
    found: Mutex<BTreeMap<String, TableSettings>>,
    locks: Vec<tokio::sync::Mutex<()>>,
}

/// DynamoDB's refusal.
struct Refusal {
    code: &'static str,
    message: String,
}

impl From<String> for Refusal {
    fn from(message: String) -> Refusal {
        Refusal { code: "ValidationException", message }
    }
}

impl Tables {
    pub fn new(configured: BTreeMap<String, TableSettings>, reader: Reader) -> Tables {
        let locks = (0..LOCKS).map(|_| tokio::sync::Mutex::new(())).collect();
        Tables { configured, reader, found: Mutex::default(), locks }
    }

    /// Whether the configuration has this table. `table`: its name or its ARN.
    pub fn has(&self, table: &str) -> bool {
        self.configured.contains_key(name_of(table))
    }

    /// `putItem`, `getItem`, `updateItem`, `deleteItem`: fields of the API in, its answer out.
    async fn operate(&self, handle: &Handle, operation: &str, request: &Value) -> Result<Value, Outcome> {
        let table = request.get("TableName").and_then(Value::as_str).unwrap_or_default();
        let table = name_of(table);
        if let Some(fault) = name_fault(table) {
            return Err(fault.into());
        }
        let named = if operation == "putItem" { "Item" } else { "Key" };
        let given = attributes(request, named)?;
        let schema = self.schema(handle, table, &given, operation).await?;
        let key = key_of(&schema, &given, operation)?;
        let row = row_key(&key);
        let lock = super::digest(&format!("{table}/{row}")) as usize % LOCKS;
        let _held = self.locks[lock].lock().await;
        let stored = self.reader.item(table, &row).map_err(|e| Outcome::Failed(super::fault(&e)))?;
        let before: Option<Item> = match stored {
            Some(text) => Some(serde_json::from_str(&text).map_err(|e| Outcome::Failed(damaged(table, &e)))?),
            None => None,
        };
        if operation == "getItem" {
            return Ok(before.map_or_else(|| json!({}), |item| json!({ "Item": item })));
        }
        let change = change(request, operation, &given, &key, before.as_ref())?;
        let mut commit = Commit::new();
        match &change.after {
            Some(item) => {
                let text = Value::Object(item.clone()).to_string();
                if text.len() > ITEM_BYTES_MAX {
                    return Err("Item size has exceeded the maximum allowed size".to_owned().into());
                }
                commit.put_item(table, &row, &text);
            }
            None => {
                commit.delete_item(table, &row);
            }
        }
        handle.commit(commit).await.map_err(|e| Outcome::Failed(super::fault(&e)))?;
        Ok(change.answer)
    }

    /// The table's key: configured, remembered, or taken from this first use and remembered.
    async fn schema(
        &self,
        handle: &Handle,
        table: &str,
        given: &Item,
        operation: &str,
    ) -> Result<TableSettings, Outcome> {
        if let Some(known) = self.configured.get(table).or(self.found.lock().get(table)) {
            return Ok(known.clone());
        }
        let failed = |e: &crate::base::Fault| Outcome::Failed(super::fault(e));
        if let Some(TableRow { key, range }) = self.reader.table(table).map_err(|e| failed(&e))? {
            let known = TableSettings { key, range };
            self.found.lock().insert(table.to_owned(), known.clone());
            return Ok(known);
        }
        let mut names = given.keys();
        let first = names.next().ok_or_else(|| "The provided key element does not match the schema".to_owned())?;
        let schema = if operation == "putItem" {
            let key = KEY_GUESSES.iter().find(|k| given.contains_key(**k)).map_or(first.as_str(), |k| k);
            TableSettings { key: key.to_owned(), range: None }
        } else {
            TableSettings { key: first.clone(), range: names.next().cloned() }
        };
        if operation != "getItem" {
            let mut commit = Commit::new();
            commit.put_table(table, &TableRow { key: schema.key.clone(), range: schema.range.clone() });
            handle.commit(commit).await.map_err(|e| failed(&e))?;
            self.found.lock().insert(table.to_owned(), schema.clone());
        }
        Ok(schema)
    }
}

enum Outcome {
    Refused(Refusal),
    Failed(TaskError),
}

impl<T: Into<Refusal>> From<T> for Outcome {
    fn from(refusal: T) -> Outcome {
        Outcome::Refused(refusal.into())
    }
}

/// The table's name in an ARN, or the name as it is.
fn name_of(table: &str) -> &str {
    match table.strip_prefix("arn:") {
        Some(arn) => aws::last_part(arn).split('/').nth(1).unwrap_or_default(),
        None => table,
    }
}

/// Why DynamoDB would refuse a table's name (developer guide, "Supported data types and naming rules in Amazon DynamoDB":
/// 3 to 255 characters of a-z, A-Z, 0-9, `_`, `-` and `.`), in its words.
pub fn name_fault(name: &str) -> Option<String> {
    if !(3..=255).contains(&name.chars().count()) {
        return Some("TableName must be at least 3 characters long and at most 255 characters long".to_owned());
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!name.chars().all(is_allowed)).then(|| {
        format!(
            "1 validation error detected: Value '{name}' at 'tableName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        )
    })
}

fn damaged(table: &str, error: &serde_json::Error) -> TaskError {
    TaskError::new("States.Runtime", format!("an item of table '{table}' is damaged ({error}); run 'conveyor check'"))
}

fn attributes(request: &Value, name: &str) -> Result<Item, Refusal> {
    let given = request.get(name).and_then(Value::as_object).ok_or_else(|| {
        format!(
            "1 validation error detected: Value null at '{}' failed to satisfy constraint: Member must not be null",
            name.to_lowercase()
        )
    })?;
    given
        .iter()
        .map(|(k, v)| Ok((k.clone(), value::check(v)?)))
        .collect::<Result<Item, String>>()
        .map_err(Refusal::from)
}

fn key_of(schema: &TableSettings, given: &Item, operation: &str) -> Result<Item, Refusal> {
    let mut key = Map::new();
    for name in std::iter::once(&schema.key).chain(&schema.range) {
        let value = given.get(name).ok_or_else(|| {
            if operation == "putItem" {
                format!("One or more parameter values were invalid: Missing the key {name} in the item")
            } else {
                "The provided key element does not match the schema".to_owned()
            }
        })?;
        if !matches!(value::type_of(value), "S" | "N" | "B") {
            return Err(format!(
                "One or more parameter values were invalid: Type mismatch for key {name} expected: S actual: {}",
                value::type_of(value)
            )
            .into());
        }
        if value.get("S").is_some_and(|s| s == "") {
            return Err(format!(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string value. Key: {name}"
            )
            .into());
        }
        key.insert(name.clone(), value.clone());
    }
    if operation != "putItem" && given.len() != key.len() {
        return Err("The provided key element does not match the schema".to_owned().into());
    }
    Ok(key)
}

fn row_key(key: &Item) -> String {
    let values: Vec<&Value> = key.values().collect();
    json!(values).to_string()
}

/// What a write does to its item, and what it answers.
struct Change {
    after: Option<Item>,
    answer: Value,
}

fn change(
    request: &Value,
    operation: &str,
    given: &Item,
    key: &Item,
    before: Option<&Item>,
) -> Result<Change, Refusal> {
    let placeholders = Placeholders::of(request)?;
    let empty = Item::new();
    if let Some(text) = request.get("ConditionExpression").and_then(Value::as_str)
        && !condition::test(text, &placeholders, before.unwrap_or(&empty))?
    {
        return Err(Refusal {
            code: "ConditionalCheckFailedException",
            message: "The conditional request failed".to_owned(),
        });
    }
    let wanted = request.get("ReturnValues").and_then(Value::as_str).unwrap_or("NONE");
    let mut paths = Vec::new();
    let after = match operation {
        "putItem" => Some(given.clone()),
        "deleteItem" => None,
        _ => {
            let mut start = before.cloned().unwrap_or_default();
            start.extend(key.clone());
            Some(match request.get("UpdateExpression").and_then(Value::as_str) {
                Some(text) => {
                    let updated = update::apply(text, &placeholders, &start)?;
                    if let Some(path) = updated.paths.iter().find(|p| key.contains_key(p.attribute())) {
                        return Err(format!(
                            "One or more parameter values were invalid: Cannot update attribute {}. This attribute is part of the key",
                            path.attribute()
                        )
                        .into());
                    }
                    paths = updated.paths;
                    updated.item
                }
                None => start,
            })
        }
    };
    placeholders.all_used()?;
    let touched = |item: &Item| -> Item {
        item.iter()
            .filter(|(k, _)| paths.iter().any(|p| p.attribute() == k.as_str()))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let shown = match wanted {
        "NONE" => None,
        "ALL_OLD" => before.cloned(),
        "UPDATED_OLD" if operation == "updateItem" => before.map(touched),
        "ALL_NEW" if operation == "updateItem" => after.clone(),
        "UPDATED_NEW" if operation == "updateItem" => after.as_ref().map(touched),
        _ => return Err("Return values set to invalid value".to_owned().into()),
    };
    let answer = shown.filter(|item| !item.is_empty()).map_or_else(|| json!({}), |item| json!({ "Attributes": item }));
    Ok(Change { after, answer })
}
