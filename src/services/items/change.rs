//! What a write does to its item, and what of it the answer shows. Pure.

use super::{DynamoDbError, Item, Operation, Request, condition, update};

/// Largest item, in bytes (DynamoDB: 400 KB).
const ITEM_BYTES_MAX: usize = 409_600;

#[derive(Debug)]
pub struct Change {
    /// The item with its text; `None`: it is deleted.
    pub after: Option<(Item, String)>,
    /// The attributes that the request wants to see.
    pub shown: Option<Item>,
}

impl Request {
    /// Whether the item as it was has a say.
    pub fn needs_item(&self) -> bool {
        self.condition.is_some() || self.operation == Operation::Update || self.wanted() != "NONE"
    }

    fn wanted(&self) -> &str {
        self.returned.as_deref().unwrap_or("NONE")
    }

    /// Decides on a write.
    pub fn change(&self, key: &Item, before: Option<&Item>) -> Result<Change, DynamoDbError> {
        let (placeholders, empty) = (&self.placeholders, Item::new());
        if let Some(text) = &self.condition
            && !condition::test(text, placeholders, before.unwrap_or(&empty))?
        {
            return Err(DynamoDbError {
                code: "ConditionalCheckFailedException",
                message: "The conditional request failed".to_owned(),
            });
        }
        let mut paths = Vec::new();
        let after = match self.operation {
            Operation::Put => Some(self.given.clone()),
            Operation::Delete | Operation::Get => None,
            Operation::Update => {
                let mut start = before.cloned().unwrap_or_default();
                start.extend(key.clone());
                Some(match &self.update {
                    Some(text) => {
                        let updated = update::apply(text, placeholders, &start)?;
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
        let updates = self.operation == Operation::Update;
        let shown = match self.wanted() {
            "NONE" => None,
            "ALL_OLD" => before.cloned(),
            "UPDATED_OLD" if updates => before.map(touched),
            "ALL_NEW" if updates => after.clone(),
            "UPDATED_NEW" if updates => after.as_ref().map(touched),
            _ => return Err("Return values set to invalid value".to_owned().into()),
        };
        let after = match after {
            None => None,
            Some(item) => {
                let text = serde_json::Value::Object(item.clone()).to_string();
                if text.len() > ITEM_BYTES_MAX {
                    return Err("Item size has exceeded the maximum allowed size".to_owned().into());
                }
                Some((item, text))
            }
        };
        Ok(Change { after, shown: shown.filter(|item| !item.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Placeholders;
    use super::*;

    fn item(value: Value) -> Item {
        value.as_object().unwrap().clone()
    }

    fn request(operation: Operation, fields: Value) -> Request {
        let text = |name: &str| fields[name].as_str().map(str::to_owned);
        Request {
            table: "jobs".into(),
            operation,
            given: item(json!({"JobId": {"S": "j"}})),
            condition: text("ConditionExpression"),
            update: text("UpdateExpression"),
            returned: text("ReturnValues"),
            placeholders: Placeholders::of(&fields).unwrap(),
        }
    }

    #[test]
    fn a_write_is_decided_by_the_item_as_it_was() {
        let (key, before) = (item(json!({"JobId": {"S": "j"}})), item(json!({"JobId": {"S": "j"}, "n": {"N": "1"}})));
        let add = json!({
            "UpdateExpression": "ADD n :one",
            "ConditionExpression": "n = :one",
            "ExpressionAttributeValues": {":one": {"N": "1"}},
            "ReturnValues": "UPDATED_NEW",
        });
        let change = request(Operation::Update, add.clone()).change(&key, Some(&before)).unwrap();
        assert_eq!(change.shown, Some(item(json!({"n": {"N": "2"}}))));
        let (after, text) = change.after.unwrap();
        assert_eq!((&after["n"], text), (&json!({"N": "2"}), Value::Object(after.clone()).to_string()));
        let refusal = request(Operation::Update, add).change(&key, Some(&after)).unwrap_err();
        assert_eq!(refusal.code, "ConditionalCheckFailedException");
        let rename = json!({"UpdateExpression": "SET JobId = :x", "ExpressionAttributeValues": {":x": {"S": "x"}}});
        assert!(request(Operation::Update, rename).change(&key, None).unwrap_err().message.contains("part of the key"));
    }

    #[test]
    fn what_the_item_was_is_read_only_where_it_has_a_say() {
        let needs = |operation, fields| request(operation, fields).needs_item();
        assert!(!needs(Operation::Put, json!({})) && !needs(Operation::Delete, json!({"ReturnValues": "NONE"})));
        assert!(needs(Operation::Put, json!({"ReturnValues": "ALL_OLD"})) && needs(Operation::Update, json!({})));
        assert!(needs(Operation::Delete, json!({"ConditionExpression": "attribute_exists(n)"})));
    }
}
