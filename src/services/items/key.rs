//! Keys of tables and of items. Pure.

use serde_json::{Map, Value, json};

use super::value::type_of;
use super::{DynamoDbError, Item, Operation, TableSettings};

/// Attributes that serve as the key of a table that begins with a put and is not configured.
const KEY_GUESSES: &[&str] = &["JobId", "jobId", "Id", "id", "ID", "PK", "pk"];

/// The key of a table that begins with this use.
pub fn of_first_use(operation: Operation, given: &Item) -> Result<TableSettings, DynamoDbError> {
    let mut names = given.keys();
    let first = names.next().ok_or_else(no_match)?;
    if operation == Operation::Put {
        let key = KEY_GUESSES.iter().find(|k| given.contains_key(**k)).map_or(first.as_str(), |k| k);
        return Ok(TableSettings { key: key.to_owned(), range: None });
    }
    Ok(TableSettings { key: first.clone(), range: names.next().cloned() })
}

/// The attributes of an item that are its key.
pub fn of_item(schema: &TableSettings, operation: Operation, given: &Item) -> Result<Item, DynamoDbError> {
    let mut key = Map::new();
    for name in std::iter::once(&schema.key).chain(&schema.range) {
        let value = given.get(name).ok_or_else(|| match operation {
            Operation::Put => DynamoDbError::from(format!(
                "One or more parameter values were invalid: Missing the key {name} in the item"
            )),
            _ => no_match(),
        })?;
        if !matches!(type_of(value), "S" | "N" | "B") {
            return Err(format!(
                "One or more parameter values were invalid: Type mismatch for key {name} expected: S actual: {}",
                type_of(value)
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
    if operation != Operation::Put && given.len() != key.len() {
        return Err(no_match());
    }
    Ok(key)
}

/// An item's key as its row has it.
pub fn of_row(key: &Item) -> String {
    let values: Vec<&Value> = key.values().collect();
    json!(values).to_string()
}

fn no_match() -> DynamoDbError {
    "The provided key element does not match the schema".to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: Value) -> Item {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_table_that_begins_with_its_first_use_has_the_key_that_this_suggests() {
        let schema = |operation, given: Value| of_first_use(operation, &item(given)).unwrap();
        let put = schema(Operation::Put, json!({"Name": {"S": "n"}, "JobId": {"S": "j"}}));
        assert_eq!(put, TableSettings { key: "JobId".into(), range: None });
        let update = schema(Operation::Update, json!({"Show": {"S": "s"}, "Episode": {"N": "1"}}));
        assert_eq!(update, TableSettings { key: "Show".into(), range: Some("Episode".into()) });
        assert!(of_first_use(Operation::Put, &Item::new()).is_err());
    }

    #[test]
    fn a_key_is_whole_and_nothing_else() {
        let schema = TableSettings { key: "JobId".into(), range: None };
        let key = |operation, given: Value| of_item(&schema, operation, &item(given));
        let whole = json!({"JobId": {"S": "j"}});
        assert_eq!(key(Operation::Get, whole.clone()), Ok(item(whole.clone())));
        assert_eq!(key(Operation::Put, json!({"JobId": {"S": "j"}, "n": {"N": "1"}})), Ok(item(whole)));
        for wrong in
            [json!({"JobId": {"S": "j"}, "n": {"N": "1"}}), json!({"JobId": {"S": ""}}), json!({"n": {"N": "1"}})]
        {
            assert!(key(Operation::Delete, wrong.clone()).is_err(), "{wrong}");
        }
        assert!(key(Operation::Put, json!({"JobId": {"BOOL": true}})).unwrap_err().message.contains("Type mismatch"));
    }
}
