//! The REST API, `/api/v1/…`: what the dashboard shows, and what people script. JSON; times in milliseconds.
//!
//! Each resource has a file of its own. Reads go to the store's reader; changes go to the handle. [`table`] lists every
//! route with what it needs and what it does: roles, the audit log and the OpenAPI document follow from it.

mod alarms;
mod approvals;
mod benchmarks;
mod devices;
mod executions;
mod express;
mod list;
mod machines;
mod notifications;
mod openapi;
mod outputs;
mod overview;
mod predictions;
mod shares;
mod source;
mod table;
mod trace;
mod uploads;
mod visit;
mod visits;

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Json, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use conveyor_store::Scans;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::rest_status;
use super::{ApiError, AppState, audit};

pub use devices::Devices;
pub use overview::Today;
pub use source::source;
pub use table::routes;

/// A refusal as REST clients read it.
pub fn refuse(refusal: &ApiError) -> Response {
    let body = json!({"error": refusal.message, "code": refusal.code});
    let mut answer = answer(rest_status(refusal.code), &body);
    refusal.put_retry_after(answer.headers_mut());
    answer
}

/// A JSON answer that no cache keeps.
pub fn no_store_json(body: Value) -> Response {
    answer(axum::http::StatusCode::OK, &body)
}

fn answer(status: axum::http::StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body.to_string()).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        refuse(&self)
    }
}

struct NoStoreJson(Value);

impl IntoResponse for NoStoreJson {
    fn into_response(self) -> Response {
        no_store_json(self.0)
    }
}

type JsonResult = Result<NoStoreJson, ApiError>;

/// A request's body, read as far as it could be.
pub type Body<T> = Result<Json<T>, JsonRejection>;

/// What stands behind the `?`. What does not fit is refused as everything else is.
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, ApiError> {
        let read = axum::extract::Query::try_from_uri(&parts.uri);
        read.map(|axum::extract::Query(query)| Query(query)).map_err(|e| ApiError::validation(e.body_text()))
    }
}

/// What stands in the path. What cannot be read is refused as everything else is.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Path<T>, ApiError> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|axum::extract::Path(path)| Path(path)).map_err(|e| ApiError::validation(e.body_text()))
    }
}

pub fn body<T>(body: Body<T>) -> Result<Json<T>, ApiError> {
    body.map_err(|e| ApiError::validation(e.body_text()))
}

async fn lanes(State(app): State<AppState>) -> JsonResult {
    /// Of what waits, the first ones tell why the others do.
    const WAITING_MAX: usize = 50;
    let waiting = app.handle.waiting(None, WAITING_MAX).await;
    Ok(NoStoreJson(json!({"lanes": app.handle.lanes().await, "waiting": waiting})))
}

async fn watches(State(app): State<AppState>) -> JsonResult {
    Ok(NoStoreJson(json!({"watches": (app.watches)()})))
}

/// The settings in force.
async fn settings(State(app): State<AppState>) -> JsonResult {
    let shown = json!({"version": env!("CARGO_PKG_VERSION"), "account": app.arns.account,
        "region": app.arns.region, "settings": &app.effective, "jail": (app.jail)()});
    Ok(NoStoreJson(shown))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PageQuery {
    limit: Option<usize>,
    next: Option<String>,
}

/// Who did what.
async fn audit_entries(State(app): State<AppState>, Query(query): Query<PageQuery>) -> JsonResult {
    let limit = query.limit.unwrap_or(100).clamp(1, 1000);
    let read = move |_: &AppState, rows: &Scans| Ok(audit::read(rows, query.next.as_deref(), limit)?);
    let (rows, next) = app.reading(read).await?;
    // `deeds` is what release 0.1 called them; it goes with release 0.3.
    Ok(NoStoreJson(json!({"entries": rows, "deeds": rows, "next": next})))
}
