//! Notifications: what waits for its target and why, and what was delivered lately.

use axum::extract::State;
use conveyor_store::Scans;
use serde_json::{Value, json};

use super::{JsonResult, NoStoreJson};
use crate::AppState;

const ROWS_MAX: usize = 500;

pub async fn all(State(app): State<AppState>) -> JsonResult {
    app.reading(|_, rows| listed(rows)).await
}

fn listed(rows: &Scans) -> JsonResult {
    let waiting = rows.outbox(None, ROWS_MAX)?.into_iter().map(|(number, row)| {
        json!({
            "number": number,
            "target": row.target,
            "event": event_of(&row.body),
            "body": row.body,
            "createdAt": row.created_at.0,
            "attempts": row.attempts,
            "nextAt": row.next_at.0,
            "error": row.last_error,
        })
    });
    let waiting: Vec<Value> = waiting.collect();
    let delivered = rows.delivered(ROWS_MAX)?.into_iter().map(|(_, row)| {
        json!({
            "target": row.target,
            "event": event_of(&row.body),
            "body": row.body,
            "attempts": row.attempts,
            "createdAt": row.created_at.0,
            "deliveredAt": row.delivered_at.0,
        })
    });
    let delivered: Vec<Value> = delivered.collect();
    Ok(NoStoreJson(json!({"waiting": waiting, "delivered": delivered})))
}

fn event_of(body: &str) -> Value {
    serde_json::from_str::<Value>(body).map(|body| body["event"].clone()).unwrap_or_default()
}
