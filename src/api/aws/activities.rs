//! Activities: work that workers outside fetch.

use conveyor_base::Timestamp;
use conveyor_base::limits::NAME_CHARS_MAX;
use conveyor_store::{ActivityRow, Commit, Scans};
use serde_json::{Value, json};

use super::fields::Fields;
use super::{settings, tags, token};
use crate::{ApiError, Doors, names};

const ARN_CHARS_MAX: usize = 256;

pub async fn create(doors: &Doors, mut fields: Fields) -> Result<Value, ApiError> {
    let name = fields.named("name", NAME_CHARS_MAX);
    let encryption = settings::encryption(&mut fields);
    let tags = tags::of(&mut fields);
    fields.done()?;
    names::check(&name)?;
    let tags = tags::added(&[], tags)?;
    let make = |commit: &mut Commit| {
        // Creating what is there is no error, and answers when it was made.
        if let Some(row) = doors.reader.activity(&name)? {
            return Ok(row);
        }
        let settings = encryption.map(|encryption| encryption.to_string()).unwrap_or_default();
        let row = ActivityRow { name, created_at: doors.handle.now().into(), settings, tags };
        commit.put_activity(&row);
        Ok(row)
    };
    let row = doors.handle.change_activity(make).await?;
    Ok(json!({"activityArn": doors.place.activity(&row.name), "creationDate": created(&row)}))
}

pub async fn delete(doors: &Doors, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("activityArn", ARN_CHARS_MAX);
    fields.done()?;
    let name = doors.place.read_activity(&arn)?;
    let gone = |commit: &mut Commit| {
        commit.delete_activity(&name);
        Ok(())
    };
    doors.handle.change_activity(gone).await?;
    Ok(json!({}))
}

pub fn describe(doors: &Doors, mut fields: Fields) -> Result<Value, ApiError> {
    let row = find(doors, &mut fields)?;
    let mut answer = shown(doors, &row);
    let encryption = serde_json::from_str(&row.settings).unwrap_or_else(|_| json!({"type": "AWS_OWNED_KEY"}));
    answer["encryptionConfiguration"] = encryption;
    Ok(answer)
}

pub fn list(doors: &Doors, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let from = token::read(next.as_deref())?;
    let mut found = rows.activities(from.as_deref().map(token::name), limit + 1)?;
    let next = found.get(limit).map(|row| doors.place.activity(&row.name));
    found.truncate(limit);
    let mut answer = json!({"activities": found.iter().map(|row| shown(doors, row)).collect::<Vec<_>>()});
    token::put(&mut answer, next);
    Ok(answer)
}

/// Waits until there is work. AWS answers an empty object where there was none for a minute.
pub async fn task(doors: &Doors, mut fields: Fields) -> Result<Value, ApiError> {
    let worker = fields.optional("workerName", 80);
    let row = find(doors, &mut fields)?;
    Ok(match doors.handle.activity_task(&row.name, worker).await? {
        Some(task) => json!({"taskToken": task.token.to_string(), "input": &*task.input}),
        None => json!({}),
    })
}

fn find(doors: &Doors, fields: &mut Fields) -> Result<ActivityRow, ApiError> {
    let arn = fields.named("activityArn", ARN_CHARS_MAX);
    fields.done()?;
    let name = doors.place.read_activity(&arn)?;
    doors.reader.activity(&name)?.ok_or_else(|| ApiError::no_activity(&arn))
}

fn shown(doors: &Doors, row: &ActivityRow) -> Value {
    json!({"activityArn": doors.place.activity(&row.name), "name": row.name, "creationDate": created(row)})
}

fn created(row: &ActivityRow) -> f64 {
    Timestamp::from(row.created_at).as_seconds()
}
