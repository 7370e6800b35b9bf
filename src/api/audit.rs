//! Who did what: every change that came in through the API, kept as rows.
//!
//! Starting executions and reporting tasks through the AWS API is not kept here: those are the executions' own
//! history, and there are thousands of them a minute. Nor are single messages and events (SendMessage, ReceiveMessage,
//! DeleteMessage, PutEvents): AWS's own log calls them data and leaves them out by default, for the same reason. What empties
//! a whole queue is kept. Of who comes in there is an entry for each sign-in at the dashboard and one a day for a client that
//! shows its password or signature each time; of who does not, for each attempt that was looked at. Every other change and its entry are one commit; what was refused, or changed nothing, has an
//! entry of its own before it is answered. What is done to several executions at once has an entry for each.
//!
//! Invariants: a change runs to its end, with its entry, whether or not its caller still listens, and one that ends in a
//! panic has its entry too; newest first by key; a body is never kept, since it may hold a secret; of a
//! state that is tried out its Resource is.

use std::future::Future;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, StatusCode};
use axum::response::Response;
use conveyor_base::{Fault, fault};
use conveyor_run::{AuditEntry, OnBehalf};
use conveyor_services::audit::{BY_BASIC, BY_SIGNATURE, SIGN_IN};
use conveyor_store::{AuditKey, AuditRow, Commit, Scans};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::gate::Caller;
use super::{ApiError, AppState};

/// An attempt to come in.
pub struct SignIn {
    /// Whom it names, where there is one of that name. Other names are not kept: people type passwords into the wrong field.
    pub claimed: Option<Caller>,
    pub address: IpAddr,
    pub how: How,
}

/// How somebody shows who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// At the dashboard.
    Password,
    Basic,
    SignedAtRest,
    SignedAtAws,
}

impl How {
    fn api(self) -> &'static str {
        if self == How::SignedAtAws { "aws" } else { "rest" }
    }

    fn what(self) -> &'static str {
        match self {
            How::Password => SIGN_IN,
            How::Basic => BY_BASIC,
            How::SignedAtRest | How::SignedAtAws => BY_SIGNATURE,
        }
    }
}

/// Keeps that somebody came in, by itself.
pub async fn signed_in(app: &AppState, sign_in: SignIn) {
    settle(app, &sign_in_entry(app, sign_in, StatusCode::OK), StatusCode::OK).await;
}

/// Keeps that somebody did not come in.
pub async fn not_signed_in(app: &AppState, sign_in: SignIn, status: StatusCode) {
    let who = sign_in.claimed.as_ref().map(|caller| caller.name.as_str());
    // Whoever tries from everywhere at once fills neither the log nor the disk.
    let Some(left_out) = app.attempts.may_enter(Instant::now()) else { return };
    let how = sign_in.how.what();
    tracing::warn!(user = who, address = %sign_in.address, status = status.as_u16(), left_out, "did not {how}");
    let mut entry = of_sign_in(app, sign_in, status);
    if left_out > 0 {
        entry.to.push_str(&format!(" (and {left_out} others before)"));
    }
    settle(app, &OnBehalf::of(entry), status).await;
}

/// Keeps what somebody may not do who came in.
pub async fn not_allowed(app: &AppState, caller: &Caller, (api, what, to): (&'static str, String, String)) {
    let entry = entry(app, caller, Action { api, what, to, success: StatusCode::FORBIDDEN });
    settle(app, &entry, StatusCode::FORBIDDEN).await;
}

/// The entry of an attempt, for the commit of what it begins.
pub fn sign_in_entry(app: &AppState, sign_in: SignIn, status: StatusCode) -> OnBehalf {
    OnBehalf::of(of_sign_in(app, sign_in, status))
}

fn of_sign_in(app: &AppState, sign_in: SignIn, status: StatusCode) -> AuditEntry {
    let SignIn { claimed, address, how } = sign_in;
    let (who, role) = claimed.map_or((String::new(), ""), |caller| (caller.name, caller.role.name()));
    AuditEntry {
        at: app.handle.wall(),
        who,
        role: role.to_owned(),
        api: how.api(),
        what: how.what().to_owned(),
        to: address.to_string(),
        status: status.as_u16(),
    }
}

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

/// The entry of what is done too often for the log: the execution that it is done to keeps it.
pub fn unlisted(app: &AppState, caller: &Caller, api: &'static str, what: &str) -> OnBehalf {
    let (who, role) = (caller.name.clone(), caller.role.name().to_owned());
    let (what, to, status) = (what.to_owned(), String::new(), StatusCode::OK.as_u16());
    OnBehalf::unlisted(&AuditEntry { at: app.handle.wall(), who, role, api, what, to, status })
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
        Ok(app.of(&parts.extensions))
    }
}

impl AppState {
    /// The same for a request, as the gate and the routes have said whose it is.
    pub fn of(&self, request: &Extensions) -> AppState {
        let app = match request.get::<OnBehalf>() {
            Some(entry) => self.on_behalf(entry),
            None => self.clone(),
        };
        let role = request.get::<Caller>().map_or(app.role, |caller| caller.role);
        AppState { role, _place: request.get().cloned().unwrap_or_default(), ..app }
    }

    /// The same, whose next change takes this entry into its commit.
    pub fn on_behalf(&self, entry: &OnBehalf) -> AppState {
        AppState { handle: self.handle.on_behalf(entry.clone()), ..self.clone() }
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
