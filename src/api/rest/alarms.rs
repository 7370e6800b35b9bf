//! Alarms and their history, what is raised first.

use axum::extract::State;
use conveyor_services::alarms;
use serde_json::json;

use super::{Answer, Fresh};
use crate::Doors;

pub async fn alarms(State(doors): State<Doors>) -> Answer {
    let mut all: Vec<_> = doors.reading(|_, rows| Ok(alarms::read(rows)?)).await?.into_values().collect();
    all.sort_by_key(|alarm| (!alarm.raised, -alarm.since));
    Ok(Fresh(json!({"alarms": all})))
}
