//! Notifications: what waits for its target and why, and what was delivered lately.

use axum::extract::State;
use conveyor_base::BoxClock;
use conveyor_store::{Scans, Stamp};
use serde_json::{Value, json};

use super::{JsonResult, NoStoreJson};
use crate::AppState;

const ROWS_MAX: usize = 500;

pub async fn all(State(app): State<AppState>) -> JsonResult {
    app.reading(|app, rows| listed(rows, app.handle.clock())).await
}

fn listed(rows: &Scans, clock: &BoxClock) -> JsonResult {
    // What waits is dated by the box's own time.
    let shown = |at: Stamp| clock.shown(at.into()).0;
    let waiting = rows.outbox(None, ROWS_MAX)?.into_iter().map(|(number, row)| {
        json!({
            "number": number,
            "target": row.target,
            "event": event_of(&row.body),
            "body": row.body,
            "createdAt": shown(row.created_at),
            "attempts": row.attempts,
            "nextAt": shown(row.next_at),
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
