//! Alarms and their history, what is raised first.

use axum::extract::State;
use conveyor_services::alarms;
use serde_json::json;

use super::{JsonResult, NoStoreJson};
use crate::AppState;

pub async fn alarms(State(app): State<AppState>) -> JsonResult {
    let mut all: Vec<_> = app.reading(|_, rows| Ok(alarms::read(rows)?)).await?.into_values().collect();
    all.sort_by_key(|alarm| (!alarm.raised, -alarm.since));
    Ok(NoStoreJson(json!({"alarms": all})))
}
