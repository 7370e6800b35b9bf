//! Who did what: every change that came in through the API, kept as rows.
//!
//! Starting executions and reporting tasks through the AWS API is not kept here: those are the executions' own
//! history, and there are thousands of them a minute. Nor are single messages and events (SendMessage, ReceiveMessage,
//! DeleteMessage, PutEvents): AWS's own log calls them data and leaves them out by default, for the same reason. What empties
//! a whole queue is kept. Every other change and its entry are one commit; what was refused, or changed nothing, has an
//! entry of its own before it is answered. What is done to several executions at once has an entry for each.
//!
//! Invariants: a change runs to its end, with its entry, whether or not its caller still listens, and one that ends in a
//! panic has its entry too; newest first by key; a body is never kept, since it may hold a secret.

use std::future::Future;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use conveyor_base::{Fault, fault};
use conveyor_run::{AuditEntry, OnBehalf};
use conveyor_store::{AuditKey, AuditRow, Commit, Scans};
use serde_json::{Value, json};

use super::gate::Caller;
use super::{ApiError, AppState};

/// One thing that is about to be done.
pub struct Action {
    /// `rest` or `aws`.
    pub api: &'static str,
    /// The operation, such as `StopExecution` or `POST /executions/{id}/stop`.
    pub what: String,
    /// What it is done to, as far as the request says it.
    pub to: String,
    /// The status that it is answered with where it succeeds.
    pub success: StatusCode,
}

/// The entry of an action, to go into the commit of what it changes.
pub fn entry(app: &AppState, caller: &Caller, action: Action) -> OnBehalf {
    let Action { api, what, to, success } = action;
    let (who, role) = (caller.name.clone(), caller.role.name().to_owned());
    OnBehalf::of(AuditEntry { at: app.handle.wall(), who, role, api, what, to, status: success.as_u16() })
}

/// Runs a change to its end, whether or not its caller still listens, and stores its entry where no commit took it along:
/// also that of a change that ends in a panic, which `refuse` words.
pub async fn run_kept(
    app: AppState,
    entry: OnBehalf,
    change: impl Future<Output = Response> + Send + 'static,
    refuse: fn(ApiError) -> Response,
) -> Response {
    let kept = async move {
        let response = run_detached(change).await.unwrap_or_else(refuse);
        settle(&app, &entry, response.status()).await;
        response
    };
    run_detached(kept).await.unwrap_or_else(refuse)
}

/// Stores the entry where no commit took it along: the action was refused, or changed nothing.
pub async fn settle(app: &AppState, entry: &OnBehalf, status: StatusCode) {
    let Some(mut left) = entry.left_over() else { return };
    left.status = status.as_u16();
    let mut commit = Commit::new();
    left.store(&mut commit);
    if let Err(fault) = app.handle.commit(commit).await {
        tracing::error!(who = left.who, what = left.what, "not in the audit log: {}", fault::chain(&fault));
    }
}

/// Runs what may change something to its end, whether or not its caller still listens.
pub async fn run_detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, ApiError> {
    let ended = tokio::spawn(work).await;
    ended.map_err(|e| ApiError::new("InternalFailure", format!("the request ended in a panic: {e}")))
}

/// The state of a handler that changes something: its changes are made on behalf of the request's caller.
impl FromRequestParts<AppState> for AppState {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<AppState, Self::Rejection> {
        Ok(match parts.extensions.get::<OnBehalf>() {
            Some(entry) => app.on_behalf(entry),
            None => app.clone(),
        })
    }
}

impl AppState {
    /// The same, whose next change takes this entry into its commit.
    pub fn on_behalf(&self, entry: &OnBehalf) -> AppState {
        AppState { handle: self.handle.on_behalf(entry.clone()), shared: self.shared.clone() }
    }
}

/// Rows, newest first, and where the next page begins.
pub fn read(store: &Scans, after: Option<&str>, limit: usize) -> Result<(Vec<Value>, Option<String>), Fault> {
    let after = match after.map(str::parse) {
        None => None,
        Some(Ok(key)) => Some(key),
        Some(Err(_)) => return Ok((Vec::new(), None)),
    };
    let rows = store.audit(after, limit)?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.to_string());
    let shown = |(_, row): (AuditKey, AuditRow)| {
        // `door` is what release 0.1 called `api`; it goes with release 0.3.
        json!({"at": row.at.0, "who": row.who, "role": row.role, "api": row.api, "door": row.api, "what": row.what,
            "to": row.to, "status": row.status})
    };
    Ok((rows.into_iter().map(shown).collect(), next))
}
