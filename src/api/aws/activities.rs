//! Activities: work that workers outside fetch.

use conveyor_base::Timestamp;
use conveyor_base::limits::NAME_CHARS_MAX;
use conveyor_store::{ActivityRow, Commit, Scans};
use serde_json::{Value, json};

use super::fields::Fields;
use super::{settings, tags, token};
use crate::{ApiError, AppState, names};

const ARN_CHARS_MAX: usize = 256;

pub async fn create(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let name = fields.named("name", NAME_CHARS_MAX);
    let encryption = settings::encryption(&mut fields);
    let tags = tags::of(&mut fields);
    fields.done()?;
    names::check(&name)?;
    let tags = tags::added(&[], tags)?;
    let make = |commit: &mut Commit| {
        // Creating what is there is no error, and answers when it was made.
        if let Some(row) = app.reader.activity(&name)? {
            return Ok(row);
        }
        let settings = encryption.map(|encryption| encryption.to_string()).unwrap_or_default();
        let row = ActivityRow { name, created_at: app.handle.wall().into(), settings, tags };
        commit.put_activity(&row);
        Ok(row)
    };
    let row = app.handle.change_activity(make).await?;
    Ok(json!({"activityArn": app.arns.activity(&row.name), "creationDate": created(&row)}))
}

pub async fn delete(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("activityArn", ARN_CHARS_MAX);
    fields.done()?;
    let name = app.arns.read_activity(&arn)?;
    let gone = |commit: &mut Commit| {
        commit.delete_activity(&name);
        Ok(())
    };
    app.handle.change_activity(gone).await?;
    Ok(json!({}))
}

pub fn describe(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let row = find(app, &mut fields)?;
    let mut answer = shown(app, &row);
    let encryption = serde_json::from_str(&row.settings).unwrap_or_else(|_| json!({"type": "AWS_OWNED_KEY"}));
    answer["encryptionConfiguration"] = encryption;
    Ok(answer)
}

pub fn list(app: &AppState, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let from = token::read(next.as_deref())?;
    let mut found = rows.activities(from.as_deref().map(token::name), limit + 1)?;
    let next = found.get(limit).map(|row| app.arns.activity(&row.name));
    found.truncate(limit);
    let mut answer = json!({"activities": found.iter().map(|row| shown(app, row)).collect::<Vec<_>>()});
    token::put(&mut answer, next);
    Ok(answer)
}

/// Waits until there is work. AWS answers an empty object where there was none for a minute.
pub async fn task(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let worker = fields.optional("workerName", 80);
    let row = find(app, &mut fields)?;
    Ok(match app.handle.activity_task(&row.name, worker).await? {
        Some(task) => json!({"taskToken": task.token.to_string(), "input": &*task.input}),
        None => json!({}),
    })
}

fn find(app: &AppState, fields: &mut Fields) -> Result<ActivityRow, ApiError> {
    let arn = fields.named("activityArn", ARN_CHARS_MAX);
    fields.done()?;
    let name = app.arns.read_activity(&arn)?;
    app.reader.activity(&name)?.ok_or_else(|| ApiError::no_activity(&arn))
}

fn shown(app: &AppState, row: &ActivityRow) -> Value {
    json!({"activityArn": app.arns.activity(&row.name), "name": row.name, "creationDate": created(row)})
}

fn created(row: &ActivityRow) -> f64 {
    Timestamp::from(row.created_at).as_seconds()
}
