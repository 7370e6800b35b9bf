//! The job table and other tables of items: DynamoDB's put, get, update and delete on the appliance's own store.
//!
//! A table is configured (`[tables.NAME] key = "JobId"`) or begins with its first use, which also says what its key
//! is. Invariants: reading an item, testing its condition and storing the change are one decision; a table's key is
//! stored with its first item.

mod change;
mod condition;
mod expression;
mod key;
mod service;
mod update;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::Fault;
use conveyor_run::Handle;
use conveyor_run::service::{Address, Requester};
use serde::Deserialize;

pub use expression::Placeholders;
pub use value::{Item, check};

use service::ItemService;

/// `[tables.NAME]`: the key of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSettings {
    /// The partition key.
    pub key: String,
    /// The sort key.
    pub range: Option<String>,
}

/// The tables of this box. Cheap to clone.
#[derive(Clone)]
pub struct Tables {
    configured: Arc<BTreeMap<String, TableSettings>>,
    service: Address<Message>,
}

/// What the service is sent.
pub struct Message {
    pub request: Request,
    pub requester: Requester<Reply>,
}

/// What is asked of one item.
#[derive(Debug)]
pub struct Request {
    /// The table's name.
    pub table: String,
    pub operation: Operation,
    /// The item that is put; of all others the item's key. Checked: see [`check`].
    pub given: Item,
    /// `ConditionExpression`
    pub condition: Option<String>,
    /// `UpdateExpression`
    pub update: Option<String>,
    /// `ReturnValues`
    pub returned: Option<String>,
    pub placeholders: Placeholders,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Put,
    Get,
    Update,
    Delete,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Got(Option<Item>),
    /// With the attributes that the request wants to see.
    Changed(Option<Item>),
    Refused(DynamoDbError),
    /// The item's row cannot be read; why.
    Damaged(String),
}

/// DynamoDB's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamoDbError {
    pub code: &'static str,
    pub message: String,
}

impl From<String> for DynamoDbError {
    fn from(message: String) -> DynamoDbError {
        DynamoDbError { code: "ValidationException", message }
    }
}

impl Tables {
    pub fn new(configured: BTreeMap<String, TableSettings>) -> Tables {
        Tables { configured: Arc::new(configured), service: Address::default() }
    }

    /// Starts the service.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        let configured = self.configured.clone();
        let load = move |_: &_| Ok(ItemService::new(configured.clone()));
        handle.serve("the tables of items", self.service.clone(), load).await
    }

    /// Whether the configuration has the table of that name.
    pub fn has(&self, table: &str) -> bool {
        self.configured.contains_key(table)
    }

    /// Asks for somebody else, who gets the answer once it is durable. What cannot be sent just now is dropped, with
    /// who asked.
    pub fn send(&self, request: Request, requester: Requester<Reply>) {
        drop(self.service.send(Message { request, requester }));
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
