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
use crate::base::{Attempt, ExecutionId};
use crate::resources::approve::REJECTED;
use crate::store::Commit;

const ROWS_MAX: usize = 1_000;

pub async fn all(State(doors): State<Doors>) -> Answer {
    let (reading, handle) = (doors.clone(), doors.handle.clone());
    let (shown, gone) = apart(move || listed(&reading)).await??;
    if !gone.is_empty() {
        let mut commit = Commit::new();
        for (id, attempt) in gone {
            commit.delete_approval(id, attempt);
        }
        handle.commit(commit).await?;
    }
    Ok(Fresh(json!({"approvals": shown})))
}

/// What waits still, and the ids of what does not: stopped, timed out, or decided by somebody with the token.
fn listed(doors: &Doors) -> Result<(Vec<Value>, Vec<Key>), Refused> {
    let (mut shown, mut gone) = (Vec::new(), Vec::new());
    for (execution, attempt, row) in doors.reader.approvals(ROWS_MAX)? {
        if !doors.handle.awaits(&row.token)? {
            gone.push((execution, attempt));
            continue;
        }
        let header = find(doors, &execution.to_string())?;
        let asked: Value = serde_json::from_str(&row.asked).unwrap_or_default();
        let file = source(&header.input);
        let mut top = header.clone();
        while let Some(parent) = top.parent.as_ref().and_then(|p| doors.reader.header(p.execution).ok().flatten()) {
            top = parent;
        }
        let mut media = outputs(doors, [row.asked.as_str()].into_iter(), None);
        if media.is_empty() {
            media = outputs(doors, [&*header.input].into_iter(), None);
        }
        shown.push(json!({
            "id": format!("{execution}-{attempt}"),
            "title": row.title,
            "question": asked["Question"],
            "asked": asked,
            "since": row.since.0,
            "execution": execution.to_string(),
            "workflow": header.machine.name,
            "state": row.state,
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

/// The attempt that asks.
type Key = (ExecutionId, Attempt);

/// `EXECUTION-ATTEMPT`
fn key(id: &str) -> Option<Key> {
    let (execution, attempt) = id.rsplit_once('-')?;
    Some((execution.parse().ok()?, Attempt(attempt.parse().ok()?)))
}

fn token(doors: &Doors, id: &str) -> Result<String, Refused> {
    let row = match key(id) {
        Some((execution, attempt)) => doors.reader.approval(execution, attempt)?,
        None => None,
    };
    let decided = || Refused::new("ResourceNotFound", "This is decided already, or its execution has ended");
    row.map(|row| row.token).ok_or_else(decided)
}

async fn settled(doors: &Doors, id: &str) -> Answer {
    let mut commit = Commit::new();
    if let Some((execution, attempt)) = key(id) {
        commit.delete_approval(execution, attempt);
    }
    doors.handle.commit(commit).await?;
    Ok(Fresh(json!({})))
}
