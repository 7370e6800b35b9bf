//! The dashboard's session: a cookie with a random name of a session that the box keeps
//! ([`conveyor_services::sessions`]).
//!
//! The cookie is `HttpOnly` and `SameSite=Strict`, so that neither a script nor a page of another site gets or sends it; over
//! TLS it is `Secure` too, and of a name that a page served without TLS cannot set (`__Host-`, RFC 6265bis, section 4.1.3.2).

use axum::extract::{Extension, Json, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conveyor_services::audit::SIGN_OUT;
use conveyor_services::sessions::LASTS_MS;
use serde::Deserialize;
use serde_json::json;

use super::audit::{self, Action, How, SignIn};
use super::gate::peer::Peer;
use super::gate::{self, Auth, Caller, Credentials};
use super::{ApiError, AppState, rest};

const COOKIE: &str = "conveyor_session";
const COOKIE_OVER_TLS: &str = "__Host-conveyor_session";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Password {
    user: String,
    password: String,
}

fn cookie_of(peer: Peer) -> &'static str {
    if peer.is_tls { COOKIE_OVER_TLS } else { COOKIE }
}

/// The session that a request's cookie shows.
fn shown(headers: &HeaderMap, peer: Peer) -> Option<&str> {
    let mut cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    cookies.find_map(|pair| pair.trim().strip_prefix(cookie_of(peer))?.strip_prefix('='))
}

/// The session by which a request came in, as its cookie shows it.
#[derive(Clone)]
pub struct Session(String);

/// Who the session's cookie says it is.
pub async fn read(
    app: &AppState,
    headers: &HeaderMap,
    peer: Peer,
    credentials: &Credentials,
) -> Option<(Caller, Session)> {
    let shown = shown(headers, peer)?;
    let user = app.sessions.user(&app.handle, shown, |user| credentials.secret(user)).await?;
    Some((credentials.caller(&user)?, Session(shown.to_owned())))
}

/// Resolves once a request's session is over; never for a request that came in otherwise.
pub async fn until_ended(app: AppState, session: Option<Session>) {
    match session {
        Some(Session(shown)) => app.sessions.until_ended(&shown).await,
        None => std::future::pending().await,
    }
}

/// `GET /api/v1/session`: who asks, what they may do, and whether signing in is needed at all.
pub async fn show(
    State(app): State<AppState>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = match &app.auth {
        Auth::Loopback => Some(Caller::on_this_box()),
        Auth::Needed(credentials) => gate::known(&app, credentials, &headers, peer).await?.map(|(caller, _)| caller),
    };
    let needs_sign_in = matches!(app.auth, Auth::Needed(_));
    Ok(rest::no_store_json(match caller {
        Some(caller) => json!({"user": caller.name, "role": caller.role, "canSignOut": needs_sign_in}),
        None => json!({"user": null, "role": null, "canSignOut": false}),
    }))
}

/// `POST /api/v1/session`
pub async fn sign_in(
    State(app): State<AppState>,
    Extension(peer): Extension<Peer>,
    body: rest::Body<Password>,
) -> Result<Response, ApiError> {
    let Json(asked) = rest::body(body)?;
    let Auth::Needed(credentials) = &app.auth else {
        return Err(ApiError::validation("This box listens on loopback and asks nobody to sign in"));
    };
    let (claimed, caller) = (credentials.caller(&asked.user), credentials.check(&asked.user, &asked.password));
    gate::judged(&app, claimed, caller.is_some(), peer, How::Password).await?;
    let Some(caller) = caller else {
        return Err(ApiError::new("Unauthorized", "The user or the password is wrong"));
    };
    let sign_in = SignIn { claimed: Some(caller.clone()), address: peer.address, how: How::Password };
    let handle = app.on_behalf(&audit::sign_in_entry(&app, sign_in, StatusCode::OK)).handle;
    let sessions = app.sessions.clone();
    let (user, password) = (caller.name.clone(), asked.password);
    let begun = audit::run_detached(async move { sessions.begin(&handle, &user, &password).await }).await??;
    let shown = json!({"user": caller.name, "role": caller.role, "canSignOut": true});
    Ok(with_cookie(rest::no_store_json(shown), peer, &begun, LASTS_MS / 1000))
}

/// `DELETE /api/v1/session`
pub async fn sign_out(
    State(app): State<AppState>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if let Auth::Needed(credentials) = &app.auth
        && let Some((caller, Session(shown))) = read(&app, &headers, peer, credentials).await
    {
        let action =
            Action { api: "rest", what: SIGN_OUT.to_owned(), to: peer.address.to_string(), success: StatusCode::OK };
        let handle = app.on_behalf(&audit::entry(&app, &caller, action)).handle;
        let sessions = app.sessions.clone();
        audit::run_detached(async move { sessions.end(&handle, &shown).await }).await??;
    }
    Ok(with_cookie(rest::no_store_json(json!({"user": null})), peer, "", 0))
}

fn with_cookie(mut response: Response, peer: Peer, value: &str, seconds: i64) -> Response {
    let secure = if peer.is_tls { "; Secure" } else { "" };
    let cookie = format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}", cookie_of(peer));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response.into_response()
}
