//! Lists of executions: filtered, newest or oldest first, and the same change made to several of them.
//!
//! Workflow, status and time are found by the store's indexes. A part of a name or of an error is looked for row by row,
//! so one request looks at a bounded number of rows and says where the next one goes on.

use axum::extract::{Json, State};
use axum::http::StatusCode;
use conveyor_base::ExecutionId;
use conveyor_run::OnBehalf;
use conveyor_store::{Direction, ExecutionFilter, Scans};
use serde::Deserialize;
use serde_json::{Value, json};

use super::executions::{find, summary};
use super::{Body, JsonResult, NoStoreJson, Query, source};
use crate::{ApiError, AppState, audit, aws};

/// Rows of a page, and the most that one may ask for.
const PAGE_ROWS: usize = 50;
const PAGE_ROWS_MAX: usize = 500;
/// Rows that one request looks at while it searches, so that a rare name does not hold the store.
const SEARCH_ROWS_MAX: usize = 5_000;
/// As much of what was sent as an id stands in the audit log.
const ID_CHARS_MAX: usize = 64;
/// Executions that one request stops or continues.
const SEVERAL_MAX: usize = 1_000;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    status: Option<String>,
    machine: Option<String>,
    q: Option<String>,
    error: Option<String>,
    from: Option<i64>,
    until: Option<i64>,
    order: Option<String>,
    nested: bool,
    limit: Option<usize>,
    next: Option<String>,
}

/// What a row must be like, beyond what the indexes see to.
struct Wanted {
    name: String,
    error: String,
    nested: bool,
    /// Ids between these only: an id begins with the time of its start.
    ids: std::ops::Range<u128>,
}

pub async fn list(State(app): State<AppState>, Query(query): Query<ListQuery>) -> JsonResult {
    app.reading(move |app, rows| page(app, rows, query)).await
}

fn page(app: &AppState, store: &Scans, query: ListQuery) -> JsonResult {
    let status = match query.status.as_deref().filter(|s| !s.is_empty()) {
        None => None,
        Some(name) => {
            let unknown = || ApiError::validation(format!("There is no status '{name}'"));
            Some(aws::status_of(name).ok_or_else(unknown)?)
        }
    };
    let oldest_first = match query.order.as_deref() {
        None | Some("" | "newest") => false,
        Some("oldest") => true,
        Some(other) => return Err(ApiError::validation(format!("There is no order '{other}': newest or oldest"))),
    };
    let filter = ExecutionFilter { machine: query.machine.filter(|m| !m.is_empty()), status };
    let direction = if oldest_first { Direction::Forward } else { Direction::Backward };
    let limit = query.limit.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS_MAX);
    let wanted = Wanted {
        name: query.q.unwrap_or_default().to_lowercase(),
        error: query.error.unwrap_or_default().to_lowercase(),
        nested: query.nested,
        ids: query.from.map_or(0, first_id)..query.until.map_or(u128::MAX, first_id),
    };
    let mut next = query.next;
    if next.as_deref().is_some_and(|id| id.parse::<ExecutionId>().is_err()) {
        return Err(ApiError::invalid_page_token());
    }
    if next.is_none() {
        // Begin where the wanted time does.
        next = match oldest_first {
            false => (wanted.ids.end != u128::MAX).then(|| ExecutionId(wanted.ids.end).to_string()),
            true => wanted.ids.start.checked_sub(1).map(|id| ExecutionId(id).to_string()),
        };
    }
    let (mut rows, mut looked) = (Vec::new(), 0);
    'pages: loop {
        let page = store.executions_from(&filter, next.as_deref(), limit, direction)?;
        for found in &page.items {
            if !wanted.ids.contains(&found.id.0) {
                next = None;
                break 'pages;
            }
            looked += 1;
            let error = || found.error.as_deref().unwrap_or_default().to_lowercase();
            if (!wanted.nested && found.parent.is_some()) || (!wanted.error.is_empty() && found.error.is_none()) {
                continue;
            }
            let Some(header) = store.header(found.id)? else { continue };
            let source = source(&header.input);
            let name = source.as_ref().map_or(header.name.as_str(), |uri| uri.file_name()).to_lowercase();
            if !name.contains(&wanted.name) && !header.name.to_lowercase().starts_with(&wanted.name) {
                continue;
            }
            let row = summary(app, &header);
            let inner = || row["error"].as_str().unwrap_or_default().to_lowercase();
            if !wanted.error.is_empty() && !error().contains(&wanted.error) && !inner().contains(&wanted.error) {
                continue;
            }
            rows.push(row);
            if rows.len() == limit {
                // The next page begins behind this row, wherever the store's own page ends.
                let last = page.items.last().is_some_and(|last| last.id == found.id) && page.next.is_none();
                next = (!last).then(|| found.id.to_string());
                break 'pages;
            }
        }
        next = page.next;
        if next.is_none() || looked >= SEARCH_ROWS_MAX {
            break;
        }
    }
    Ok(NoStoreJson(json!({"executions": rows, "next": next, "looked": looked})))
}

/// The smallest id that an execution started at that time can have.
fn first_id(ms: i64) -> u128 {
    (ms.max(0) as u128) << 80
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Several {
    ids: Vec<String>,
}

/// What became of each, in the order asked for: `null`, or why not.
fn outcomes(all: Vec<(String, Result<(), ApiError>)>) -> NoStoreJson {
    let failed = all.iter().filter(|(_, outcome)| outcome.is_err()).count();
    let shown = all.into_iter().map(|(id, outcome)| json!({"id": id, "error": outcome.err().map(|r| r.message)}));
    NoStoreJson(json!({"outcomes": shown.collect::<Vec<Value>>(), "failed": failed}))
}

fn checked(body: Body<Several>) -> Result<Vec<String>, ApiError> {
    let Json(Several { ids }) = super::body(body)?;
    if ids.len() > SEVERAL_MAX {
        return Err(ApiError::validation(format!("{} executions at once; at most {SEVERAL_MAX}", ids.len())));
    }
    Ok(ids)
}

pub async fn stop_all(app: AppState, body: Body<Several>) -> JsonResult {
    each(&app, checked(body)?, async |app: &AppState, id: &str| {
        let header = find(app, id).await?;
        let why = Some("Stopped with others".to_owned());
        app.handle.stop(header.id, Some("Stopped".to_owned()), why).await?;
        Ok(())
    })
    .await
}

pub async fn redrive_all(app: AppState, body: Body<Several>) -> JsonResult {
    each(&app, checked(body)?, async |app: &AppState, id: &str| {
        app.handle.redrive(find(app, id).await?.id).await?;
        Ok(())
    })
    .await
}

/// Does the same to each, on behalf of an entry of its own: which ones it was done to is what the audit log is asked for.
async fn each(
    app: &AppState,
    ids: Vec<String>,
    change: impl AsyncFn(&AppState, &str) -> Result<(), ApiError>,
) -> JsonResult {
    let together = app.handle.entry();
    let entry_of = |id: &String| {
        let to = format!("/executions/{}", id.chars().take(ID_CHARS_MAX).collect::<String>());
        together.as_ref()?.about(to)
    };
    let entries: Vec<Option<OnBehalf>> = ids.iter().map(entry_of).collect();
    if let (Some(together), false) = (together, ids.is_empty()) {
        // Each has its own, and no commit may take the common one along.
        drop(together.left_over());
    }
    let mut all = Vec::new();
    for (id, entry) in ids.into_iter().zip(entries) {
        let outcome = match &entry {
            Some(entry) => change(&app.on_behalf(entry), &id).await,
            None => change(app, &id).await,
        };
        if let Some(entry) = entry {
            let status = outcome.as_ref().err().map_or(StatusCode::OK, ApiError::status);
            audit::settle(app, &entry, status).await;
        }
        all.push((id, outcome));
    }
    Ok(outcomes(all))
}
