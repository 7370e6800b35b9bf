//! Alarms and their history, what is raised first.

use axum::extract::State;
use conveyor_services::alarms;
use serde_json::json;

use super::{JsonResult, NoStoreJson};
use crate::AppState;

pub async fn alarms(State(app): State<AppState>) -> JsonResult {
    let all = app.reading(|_, rows| Ok(alarms::read(rows)?)).await?;
    let mut all: Vec<_> = all.into_values().map(|alarm| alarm.shown(app.handle.clock())).collect();
    all.sort_by_key(|alarm| (!alarm.raised, -alarm.since));
    Ok(NoStoreJson(json!({"alarms": all})))
}
