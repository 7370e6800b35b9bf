//! What waits for a person's decision, and the decision.

use axum::extract::{Extension, Json, State};
use conveyor_base::limits::CAUSE_CHARS_MAX;
use conveyor_base::{Attempt, Uri};
use conveyor_resources::approve::REJECTED;
use conveyor_services::approvals::{Decision, Key, Verdict};
use conveyor_store::Scans;
use serde::Deserialize;
use serde_json::{Value, json};

use super::executions::found;
use super::outputs::{self, outputs};
use super::{Body, JsonResult, NoStoreJson, Path, source};
use crate::gate::Caller;
use crate::{ApiError, AppState};

const ROWS_MAX: usize = 1_000;

pub async fn all(State(app): State<AppState>) -> JsonResult {
    let mut listed = app.reading(listed).await?;
    // All at once: a share that does not answer costs a moment in all.
    let counts: Vec<usize> = listed.iter().map(|(_, named)| named.len()).collect();
    let named = listed.iter_mut().flat_map(|(_, named)| std::mem::take(named)).collect();
    let mut media = outputs(&app, named).await.into_iter();
    let shown = listed.into_iter().zip(counts).map(|((mut row, _), count)| {
        row["media"] = json!(media.by_ref().take(count).collect::<Vec<_>>());
        row
    });
    Ok(NoStoreJson(json!({"approvals": shown.collect::<Vec<_>>()})))
}

/// What waits still, with the files that it is about. What does not, the approvals drop before long.
fn listed(app: &AppState, rows: &Scans) -> Result<Vec<(Value, Vec<Uri>)>, ApiError> {
    let mut shown = Vec::new();
    for (execution, attempt, row) in rows.approvals(None, ROWS_MAX)? {
        if !app.handle.awaits(&row.token)? {
            continue;
        }
        let header = found(rows, &execution.to_string())?;
        let asked: Value = serde_json::from_str(&row.asked).unwrap_or_default();
        let file = source(&header.input);
        let mut top = header.clone();
        while let Some(parent) = top.parent.as_ref().and_then(|p| rows.header(p.execution).ok().flatten()) {
            top = parent;
        }
        let mut media = outputs::named([row.asked.as_str()].into_iter(), None);
        if media.is_empty() {
            media = outputs::named([&*header.input].into_iter(), None);
        }
        let row = json!({
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
        });
        shown.push((row, media));
    }
    shown.sort_by_key(|(row, _)| row["since"].as_i64());
    Ok(shown)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Approve {
    comment: Option<String>,
}

pub async fn approve(
    app: AppState,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Body<Approve>,
) -> JsonResult {
    let Json(body) = super::body(body)?;
    let output =
        json!({"approved": true, "by": caller.name, "at": app.handle.wall().to_string(), "comment": body.comment});
    decide(&app, &id, Decision::Approve(output.to_string().into())).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reject {
    reason: String,
}

pub async fn reject(
    app: AppState,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Body<Reject>,
) -> JsonResult {
    let Json(body) = super::body(body)?;
    if body.reason.trim().is_empty() {
        return Err(ApiError::validation("A rejection needs a reason: whoever made the file will read it"));
    }
    let cause: String = format!("{}: {}", caller.name, body.reason.trim()).chars().take(CAUSE_CHARS_MAX).collect();
    decide(&app, &id, Decision::Reject { error: REJECTED.to_owned(), cause }).await
}

/// `EXECUTION-ATTEMPT`
fn key(id: &str) -> Option<Key> {
    let (execution, attempt) = id.rsplit_once('-')?;
    Some((execution.parse().ok()?, Attempt(attempt.parse().ok()?)))
}

async fn decide(app: &AppState, id: &str, decision: Decision) -> JsonResult {
    let verdict = match key(id) {
        Some(key) => app.approvals.decide(key, decision, app.handle.entry()).await?,
        None => Verdict::Unknown,
    };
    match verdict {
        Verdict::Counts => Ok(NoStoreJson(json!({}))),
        Verdict::Refused(refused) => Err(refused.into()),
        Verdict::Unknown => {
            Err(ApiError::new("ResourceNotFound", "This is decided already, or its execution has ended"))
        }
    }
}
