//! What waits for a person's decision, and the decision.

use axum::extract::{Extension, Json, Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::executions::find;
use super::outputs::outputs;
use super::{Answer, Body, Fresh, source};
use crate::api::gate::Caller;
use crate::api::{Doors, Refused, apart};
use crate::base::limits::CAUSE_CHARS_MAX;
use crate::resources::approve::{REJECTED, TABLE};
use crate::store::Commit;

const ROWS_MAX: usize = 1_000;

pub async fn all(State(doors): State<Doors>) -> Answer {
    let (reading, handle) = (doors.clone(), doors.handle.clone());
    let (shown, gone) = apart(move || listed(&reading)).await??;
    if !gone.is_empty() {
        let mut commit = Commit::new();
        for id in &gone {
            commit.delete_item(TABLE, id);
        }
        handle.commit(commit).await?;
    }
    Ok(Fresh(json!({"approvals": shown})))
}

/// What waits still, and the ids of what does not: stopped, timed out, or decided by somebody with the token.
fn listed(doors: &Doors) -> Result<(Vec<Value>, Vec<String>), Refused> {
    let (mut shown, mut gone) = (Vec::new(), Vec::new());
    for (id, text) in doors.reader.items(TABLE, None, ROWS_MAX)? {
        let row: Value = serde_json::from_str(&text).unwrap_or_default();
        if !doors.handle.awaits(row["token"].as_str().unwrap_or_default())? {
            gone.push(id);
            continue;
        }
        let header = find(doors, row["execution"].as_str().unwrap_or_default())?;
        let asked = row["asked"].to_string();
        let file = source(&header.input);
        let mut top = header.clone();
        while let Some(parent) = top.parent.as_ref().and_then(|p| doors.reader.header(p.execution).ok().flatten()) {
            top = parent;
        }
        let mut media = outputs(doors, [asked.as_str()].into_iter(), None);
        if media.is_empty() {
            media = outputs(doors, [&*header.input].into_iter(), None);
        }
        shown.push(json!({
            "id": id,
            "title": row["title"],
            "question": row["asked"]["Question"],
            "asked": row["asked"],
            "since": row["since"],
            "execution": row["execution"],
            "workflow": header.machine.name,
            "state": row["state"],
            "file": file.as_ref().map(|uri| uri.file_name()),
            "root": top.id.to_string(),
            "media": media,
        }));
    }
    shown.sort_by_key(|row| row["since"].as_i64());
    Ok((shown, gone))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Approve {
    comment: Option<String>,
}

pub async fn approve(
    doors: Doors,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Body<Approve>,
) -> Answer {
    let Json(body) = super::body(body)?;
    let output =
        json!({"approved": true, "by": caller.name, "at": doors.handle.now().to_string(), "comment": body.comment});
    doors.handle.send_task_success(&token(&doors, &id)?, output.to_string().into()).await?;
    settled(&doors, &id).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reject {
    reason: String,
}

pub async fn reject(
    doors: Doors,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Body<Reject>,
) -> Answer {
    let Json(body) = super::body(body)?;
    if body.reason.trim().is_empty() {
        return Err(Refused::validation("A rejection needs a reason: whoever made the file will read it"));
    }
    let cause: String = format!("{}: {}", caller.name, body.reason.trim()).chars().take(CAUSE_CHARS_MAX).collect();
    doors.handle.send_task_failure(&token(&doors, &id)?, Some(REJECTED.to_owned()), Some(cause)).await?;
    settled(&doors, &id).await
}

fn token(doors: &Doors, id: &str) -> Result<String, Refused> {
    let row: Option<Value> = doors.reader.item(TABLE, id)?.and_then(|text| serde_json::from_str(&text).ok());
    let token = row.and_then(|row| row["token"].as_str().map(str::to_owned));
    token.ok_or_else(|| Refused::new("ResourceNotFound", "This is decided already, or its execution has ended"))
}

async fn settled(doors: &Doors, id: &str) -> Answer {
    let mut commit = Commit::new();
    commit.delete_item(TABLE, id);
    doors.handle.commit(commit).await?;
    Ok(Fresh(json!({})))
}
