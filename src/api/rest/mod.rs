//! The REST door, `/api/v1/…`: what the dashboard shows, and what people script. JSON; times in milliseconds.
//!
//! Each resource has a file of its own. Reads go to the store's reader; changes go to the handle.

mod executions;
mod outputs;
mod source;
mod visits;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::refused::rest_status;
use super::{Doors, Refused, live};

pub use source::source;

pub fn routes() -> Router<Doors> {
    Router::new()
        .route("/executions", get(executions::list).post(executions::start))
        .route("/executions/{id}", get(executions::one))
        .route("/executions/{id}/history", get(executions::history))
        .route("/executions/{id}/stop", post(executions::stop))
        .route("/executions/{id}/redrive", post(executions::redrive))
        .route("/machines", get(machines))
        .route("/lanes", get(lanes))
        .route("/shares", get(shares))
        .route("/watches", get(watches))
        .route("/events", get(live::events))
        .fallback(|| async { refuse(&Refused::new("ResourceNotFound", "There is no such resource")) })
}

/// A refusal as REST clients read it.
pub fn refuse(refusal: &Refused) -> Response {
    let body = json!({"error": refusal.message, "code": refusal.code});
    answer(rest_status(refusal.code), &body)
}

fn answer(status: axum::http::StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        refuse(&self)
    }
}

/// A JSON answer that no cache keeps.
struct Fresh(Value);

impl IntoResponse for Fresh {
    fn into_response(self) -> Response {
        answer(axum::http::StatusCode::OK, &self.0)
    }
}

type Answer = Result<Fresh, Refused>;

async fn machines(State(doors): State<Doors>) -> Answer {
    const MACHINES_MAX: usize = 1000;
    let counts = doors.reader.counts();
    let rows = doors.reader.machines(None, MACHINES_MAX)?;
    let shown = rows.iter().filter(|row| !row.deleting).map(|row| {
        let counts: serde_json::Map<String, Value> = counts
            .iter()
            .filter(|((machine, _), _)| *machine == row.name)
            .map(|((_, status), n)| (status.name().to_owned(), (*n).into()))
            .collect();
        json!({"name": row.name, "arn": doors.place.machine(&row.name), "revision": row.revision,
            "updatedAt": row.updated_at.0, "executions": counts})
    });
    Ok(Fresh(json!({"machines": shown.collect::<Vec<_>>()})))
}

async fn lanes(State(doors): State<Doors>) -> Answer {
    /// Of what waits, the first ones tell why the others do.
    const WAITING_MAX: usize = 50;
    let waiting = doors.handle.waiting(None, WAITING_MAX).await;
    Ok(Fresh(json!({"lanes": doors.handle.lanes().await, "waiting": waiting})))
}

async fn watches(State(doors): State<Doors>) -> Answer {
    Ok(Fresh(json!({"watches": (doors.watches)()})))
}

async fn shares(State(doors): State<Doors>) -> Answer {
    Ok(Fresh(super::apart(move || shares_of(&doors)).await?))
}

fn shares_of(doors: &Doors) -> Value {
    let shown = doors.shares.names().map(|name| {
        let path = doors.shares.root(name).ok();
        let reachable = path.is_some_and(|p| p.is_dir());
        json!({"name": name, "path": path.map(|p| p.display().to_string()), "reachable": reachable,
            "served": doors.served.contains(name)})
    });
    json!({"shares": shown.collect::<Vec<_>>()})
}
