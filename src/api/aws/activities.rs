//! Activities: work that workers outside fetch.

use serde_json::{Value, json};

use super::fields::Fields;
use super::token;
use crate::api::{Doors, Refused, names};
use crate::base::Timestamp;
use crate::base::limits::NAME_CHARS_MAX;
use crate::store::{ActivityRow, Commit};

const ARN_CHARS_MAX: usize = 256;

pub async fn create(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let name = fields.named("name", NAME_CHARS_MAX);
    fields.done()?;
    names::check(&name)?;
    let row = match doors.reader.activity(&name)? {
        // Creating what is there is no error, and answers when it was made.
        Some(row) => row,
        None => {
            let settings = fields.value("tags").map(Value::to_string).unwrap_or_default();
            let row = ActivityRow { name, created_at: doors.handle.now().into(), settings };
            let mut commit = Commit::new();
            commit.put_activity(&row);
            doors.handle.commit(commit).await?;
            row
        }
    };
    Ok(json!({"activityArn": doors.place.activity(&row.name), "creationDate": created(&row)}))
}

pub async fn delete(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("activityArn", ARN_CHARS_MAX);
    fields.done()?;
    let mut commit = Commit::new();
    commit.delete_activity(&doors.place.read_activity(&arn)?);
    doors.handle.commit(commit).await?;
    Ok(json!({}))
}

pub fn describe(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let row = find(doors, &mut fields)?;
    Ok(shown(doors, &row))
}

pub fn list(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let after = token::read(next.as_deref())?;
    let mut rows = doors.reader.activities(after.as_deref(), limit + 1)?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let mut answer = json!({"activities": rows.iter().map(|row| shown(doors, row)).collect::<Vec<_>>()});
    if let Some(last) = rows.last().filter(|_| more) {
        answer["nextToken"] = token::write(&last.name).into();
    }
    Ok(answer)
}

/// Waits until there is work. AWS answers an empty object where there was none for a minute.
pub async fn task(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let worker = fields.optional("workerName", 80);
    let row = find(doors, &mut fields)?;
    Ok(match doors.handle.activity_task(&row.name, worker).await? {
        Some(task) => json!({"taskToken": task.token.to_string(), "input": &*task.input}),
        None => json!({}),
    })
}

fn find(doors: &Doors, fields: &mut Fields) -> Result<ActivityRow, Refused> {
    let arn = fields.named("activityArn", ARN_CHARS_MAX);
    fields.done()?;
    let name = doors.place.read_activity(&arn)?;
    doors.reader.activity(&name)?.ok_or_else(|| Refused::no_activity(&arn))
}

fn shown(doors: &Doors, row: &ActivityRow) -> Value {
    json!({"activityArn": doors.place.activity(&row.name), "name": row.name, "creationDate": created(row)})
}

fn created(row: &ActivityRow) -> f64 {
    Timestamp::from(row.created_at).as_seconds()
}
