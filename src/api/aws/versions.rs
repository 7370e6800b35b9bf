//! Versions of state machines: publish, list, delete.

use conveyor_base::Timestamp;
use conveyor_store::Scans;
use serde_json::{Value, json};

use super::fields::Fields;
use super::machines::{ARN_CHARS_MAX, DESCRIPTION_CHARS_MAX};
use super::token;
use crate::{ApiError, AppState};

pub async fn publish(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    let revision_id = fields.name("revisionId", 256);
    let description = fields.optional("description", DESCRIPTION_CHARS_MAX);
    fields.done()?;
    let (machine, qualifier) = app.arns.read_machine(&arn)?;
    if qualifier.is_some() {
        return Err(ApiError::no_machine(&arn));
    }
    let published = app.handle.publish_version(&machine, revision_id, description.unwrap_or_default()).await?;
    let (number, version) = published;
    Ok(json!({
        "stateMachineVersionArn": app.arns.qualified(&machine, &number.to_string()),
        "creationDate": Timestamp::from(version.created_at).as_seconds(),
    }))
}

pub async fn delete(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineVersionArn", ARN_CHARS_MAX);
    fields.done()?;
    let (machine, version) = app.arns.read_version(&arn)?;
    app.handle.delete_version(&machine, version).await?;
    Ok(json!({}))
}

pub fn list(app: &AppState, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let (machine, _) = app.arns.read_machine(&arn)?;
    let from = match token::read(next.as_deref())? {
        None => None,
        Some(text) => Some(token::name(&text).parse().map_err(|_| ApiError::invalid_page_token())?),
    };
    let mut found = rows.versions(&machine, from, limit + 1)?;
    let arn_of = |number: u64| app.arns.qualified(&machine, &number.to_string());
    let next = found.get(limit).map(|(number, _)| arn_of(*number));
    found.truncate(limit);
    let shown = found.iter().map(|(number, row)| {
        json!({
            "stateMachineVersionArn": arn_of(*number),
            "creationDate": Timestamp::from(row.created_at).as_seconds(),
        })
    });
    let mut answer = json!({"stateMachineVersions": shown.collect::<Vec<_>>()});
    token::put(&mut answer, next);
    Ok(answer)
}
