//! Tags of state machines and activities: TagResource, UntagResource, ListTagsForResource, and `tags` of what is created.

use conveyor_base::limits::quotas;
use conveyor_run::Refused;
use conveyor_store::Tag;
use serde_json::{Value, json};

use super::fields::Fields;
use crate::arn::Named;
use crate::{ApiError, AppState};

const ARN_CHARS_MAX: usize = 256;
const KEY_CHARS_MAX: usize = 128;
const VALUE_CHARS_MAX: usize = 256;

pub async fn tag(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("resourceArn", ARN_CHARS_MAX);
    fields.require("tags");
    let tags = of(&mut fields);
    fields.done()?;
    change(app, &arn, |old| {
        *old = added(old, tags)?;
        Ok(())
    })
    .await
}

pub async fn untag(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("resourceArn", ARN_CHARS_MAX);
    fields.require("tagKeys");
    let keys = fields.texts("tagKeys").unwrap_or_default();
    fields.done()?;
    change(app, &arn, |tags| {
        tags.retain(|tag| !keys.contains(&tag.key));
        Ok(())
    })
    .await
}

pub fn list(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("resourceArn", ARN_CHARS_MAX);
    fields.done()?;
    let tags = match app.arns.read(&arn)? {
        Named::Machine { name, qualifier: None } => app.reader.machine(&name)?.map(|row| row.tags),
        Named::Activity { name } => app.reader.activity(&name)?.map(|row| row.tags),
        _ => None,
    };
    let tags = tags.ok_or_else(|| ApiError::no_resource(&arn))?;
    let shown = tags.iter().map(|tag| json!({"key": tag.key, "value": tag.value}));
    Ok(json!({"tags": shown.collect::<Vec<_>>()}))
}

/// The tags of a request; what is wrong with them is added to its problems.
pub fn of(fields: &mut Fields) -> Vec<Tag> {
    let mut tags = Vec::new();
    for mut inner in fields.each_inside("tags").unwrap_or_default() {
        let key = inner.name("key", KEY_CHARS_MAX).unwrap_or_default();
        let value = inner.optional("value", VALUE_CHARS_MAX).unwrap_or_default();
        fields.absorb(inner);
        tags.push(Tag { key, value });
    }
    tags
}

/// `old` with the new ones: a key that is there gets the new value.
pub fn added(old: &[Tag], new: Vec<Tag>) -> Result<Vec<Tag>, Refused> {
    let mut all = old.to_vec();
    for tag in new {
        match all.iter_mut().find(|known| known.key == tag.key) {
            Some(known) => known.value = tag.value,
            None => all.push(tag),
        }
    }
    let most = quotas().tags;
    match all.len() > most {
        true => Err(Refused::new("TooManyTags", format!("A resource has at most {most} tags"))),
        false => Ok(all),
    }
}

async fn change(
    app: &AppState,
    arn: &str,
    change: impl FnOnce(&mut Vec<Tag>) -> Result<(), Refused>,
) -> Result<Value, ApiError> {
    let missing = || Refused::no_resource(arn);
    match app.arns.read(arn)? {
        Named::Machine { name, qualifier: None } => {
            app.reader.machine(&name)?.ok_or_else(missing)?;
            app.handle.retag_machine(&name, change).await?;
        }
        Named::Activity { name } => {
            let retag = |commit: &mut conveyor_store::Commit| {
                let mut row = app.reader.activity(&name)?.ok_or_else(missing)?;
                change(&mut row.tags)?;
                commit.put_activity(&row);
                Ok(())
            };
            app.handle.change_activity(retag).await?;
        }
        _ => return Err(missing().into()),
    }
    Ok(json!({}))
}
