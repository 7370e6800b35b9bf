//! The gate before every route: who may come in, and from which page.
//!
//! On loopback no credentials are needed, so a web page that the same person has open elsewhere must be kept out:
//! requests for a foreign host name (DNS rebinding) and changes from a foreign origin (CSRF) are refused. On any other
//! address credentials are needed: Signature Version 4 at the AWS API, HTTP Basic or the dashboard's session cookie at
//! all others. The dashboard's own files say nothing of the box, so they come without: the page that asks who you are
//! is one of them.
//!
//! ```text
//! origin ─> who is it? ──────────────────────────────> body ─> a place among those under way ─> role ─> route
//!           session: looked up                         limit    limit                            who
//!           password, signature: judged by attempts,
//!           a row of the audit log
//! ```
//!
//! What a route needs is a [`Role`]; who came in stands with the request as a [`Caller`], its place as a
//! [`Place`](limit::Place).

mod attempts;
pub mod limit;
mod origin;
pub mod peer;
mod who;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;

use super::audit::{self, How, SignIn};
use super::session::{self, Session};
use super::signature::{self, Signed, Unverified};
use super::{ApiError, AppState, aws, rest};
use attempts::Judged;
use origin::check_origin;
use peer::Peer;

pub use attempts::Attempts;
pub use limit::RequestLimit;
pub use who::{Auth, Caller, Credentials, Role};

const SIGN_IN: &str = "/api/v1/session";
/// How to use the API, which is the same for every box.
const DOCUMENT: &str = "/api/v1/openapi.json";

/// Middleware around all routes.
pub async fn guard(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let is_aws = request.uri().path() == "/" && request.method() == Method::POST;
    let refuse = |refusal: ApiError| refused(is_aws, refusal);
    let peer = Peer::of(request.extensions(), request.headers(), &app.proxies);
    request.extensions_mut().insert(peer);
    if let Err(refusal) = check_origin(&request, &app.auth, peer) {
        return refuse(refusal);
    }
    // What is open to everybody is not asked who it is.
    let is_open = is_open(&request);
    let is_signed = !is_open && (is_aws || signature::is_signed(request.headers()));
    let (mut caller, session) = match &app.auth {
        Auth::Loopback => (Some(Caller::on_this_box()), None),
        Auth::Needed(credentials) if !is_signed && !is_open => {
            match known(&app, credentials, request.headers(), peer).await {
                Ok(Some((caller, session))) => (Some(caller), session),
                Ok(None) => (None, None),
                Err(refusal) => return refuse(refusal),
            }
        }
        Auth::Needed(_) => (None, None),
    };
    let how = if is_aws { How::SignedAtAws } else { How::SignedAtRest };
    // Nothing is read of somebody whom nobody here knows, or who comes too early.
    if let (true, Auth::Needed(credentials)) = (is_signed, &app.auth) {
        let now = app.handle.wall();
        if let Err(unverified) = signature::can_hold(request.headers(), now, |id| credentials.secret(id).is_some()) {
            return refuse(unsigned(&app, None, unverified, peer, how).await);
        }
        let claimed = signature::signer(request.headers());
        if let Some(wait) = app.attempts.closed_for(peer.address, claimed.as_deref(), Instant::now()) {
            return refuse(too_early(wait));
        }
    }
    if caller.is_none() && !is_signed && !is_open {
        return unauthorized(request.headers());
    }
    let (mut request, body) = match app.request_limit.with_body(request, is_signed, peer.address).await {
        Ok(read) => read,
        Err(refusal) => return refuse(refusal),
    };
    if let (true, Auth::Needed(credentials)) = (is_signed, &app.auth) {
        let verified = signer(&app, credentials, &request, &body);
        let judged = match &verified {
            Ok(signer) => judged(&app, Some(signer.clone()), true, peer, how).await,
            Err((claimed, unverified)) => Err(unsigned(&app, claimed.clone(), unverified.clone(), peer, how).await),
        };
        if let Err(refusal) = judged {
            return refuse(refusal);
        }
        caller = verified.ok();
    }
    let place = app.request_limit.place(&request, &body, peer.address);
    // Held until the request is answered, and by what goes on after its caller went away.
    let held = match place {
        Ok(place) => place.map(Arc::new),
        Err(refusal) => return refuse(refusal),
    };
    request.extensions_mut().insert(held.clone());
    if let Some(caller) = caller {
        let needed = if is_aws { aws::required_role(request.headers()) } else { required_role_outside_rest(&request) };
        if let Err(refusal) = caller.require_role(needed) {
            // The REST API's own routes keep what they refuse themselves.
            let action = match is_aws {
                true => aws::action(request.headers(), &body),
                false => ("rest", format!("{} {}", request.method(), request.uri().path()), String::new()),
            };
            audit::not_allowed(&app, &caller, action).await;
            return refuse(refusal);
        }
        request.extensions_mut().insert(caller);
    }
    drop(body);
    if let Some(session) = session {
        request.extensions_mut().insert(session);
    }
    let response = next.run(request).await;
    drop(held);
    response
}

fn refused(is_aws: bool, refusal: ApiError) -> Response {
    if is_aws { aws::refuse(&refusal) } else { rest::refuse(&refusal) }
}

/// What is answered without asking who it is: Prometheus and load balancers ask whether the box is well, which says
/// nothing else; the dashboard's files and the route to sign in at say nothing at all.
fn is_open(request: &Request) -> bool {
    let path = request.uri().path();
    let guarded = ["/api/", "/media/", "/metrics", "/start-workflow"];
    path == SIGN_IN
        || path == DOCUMENT && request.method().is_safe()
        || request.method().is_safe() && !guarded.iter().any(|prefix| path.starts_with(prefix))
}

/// The routes of the REST API say themselves what they need.
fn required_role_outside_rest(request: &Request) -> Role {
    let changes = !request.method().is_safe() && !request.uri().path().starts_with("/api/");
    if changes { Role::Operator } else { Role::Viewer }
}

/// Who signed the request and its body; else whom it names, and what is wrong.
fn signer(
    app: &AppState,
    credentials: &Credentials,
    request: &Request,
    body: &[u8],
) -> Result<Caller, (Option<Caller>, Unverified)> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let what = Signed { method, uri, headers, body };
    let claimed = signature::signer(headers).and_then(|id| credentials.caller(&id));
    match (signature::verify(&what, app.handle.wall(), |id| credentials.secret(id)), claimed) {
        (Ok(()), Some(caller)) => Ok(caller),
        (Ok(()), None) => Err((None, Unverified::Wrong(signature::unknown()))),
        (Err(unverified), claimed) => Err((claimed, unverified)),
    }
}

/// What is said of a signature that does not hold, once it is counted where it may have been a guess.
async fn unsigned(app: &AppState, claimed: Option<Caller>, unverified: Unverified, peer: Peer, how: How) -> ApiError {
    match unverified {
        Unverified::Unreadable(refusal) => refusal,
        Unverified::Wrong(refusal) => match judged(app, claimed, false, peer, how).await {
            Ok(()) => refusal,
            Err(too_early) => too_early,
        },
    }
}

/// Who a request's session or password says it is, and the session; `None` where it shows neither, or one that does not
/// hold. A session goes before: a proxy in between may have passwords of its own.
///
/// # Errors
/// A password came too early after wrong ones.
pub async fn known(
    app: &AppState,
    credentials: &Credentials,
    headers: &HeaderMap,
    peer: Peer,
) -> Result<Option<(Caller, Option<Session>)>, ApiError> {
    if let Some((caller, session)) = session::read(app, headers, peer, credentials).await {
        return Ok(Some((caller, Some(session))));
    }
    let Some((user, password)) = basic(headers) else { return Ok(None) };
    let caller = credentials.check(&user, &password);
    judged(app, credentials.caller(&user), caller.is_some(), peer, How::Basic).await?;
    Ok(caller.map(|caller| (caller, None)))
}

/// Counts an attempt to come in, and keeps it in the audit log. `claimed`: whom it names, where there is one of that name.
///
/// # Errors
/// It came too early after wrong ones, and was not looked at.
pub async fn judged(
    app: &AppState,
    claimed: Option<Caller>,
    is_right: bool,
    peer: Peer,
    how: How,
) -> Result<(), ApiError> {
    let user = claimed.as_ref().map(|caller| caller.name.as_str());
    let judged = app.attempts.judge(peer.address, user, is_right, Instant::now());
    let sign_in = SignIn { claimed, address: peer.address, how };
    match judged {
        // A client that shows its password with each request has an entry a day; who signs in has one each time, which goes
        // with the session.
        Judged::Right { is_new } if is_new && how != How::Password => audit::signed_in(app, sign_in).await,
        Judged::Right { .. } => {}
        Judged::Wrong => audit::not_signed_in(app, sign_in, StatusCode::UNAUTHORIZED).await,
        Judged::TooEarly { wait, is_first } => {
            if is_first {
                audit::not_signed_in(app, sign_in, StatusCode::TOO_MANY_REQUESTS).await;
            }
            return Err(too_early(wait));
        }
    }
    Ok(())
}

fn too_early(wait: Duration) -> ApiError {
    let secs = wait.as_secs() + 1;
    let what = format!(
        "Too many wrong passwords or signatures came from your address or for this user; try again in {secs} s"
    );
    ApiError { retry_after_secs: Some(secs), ..ApiError::new("ThrottlingException", what) }
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Basic "))
        .and_then(|v| STANDARD.decode(v.trim()).ok())
        .and_then(|v| String::from_utf8(v).ok())?;
    let (user, password) = given.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// A page's own requests get no challenge: the browser would cover the page with a question of its own.
fn unauthorized(headers: &HeaderMap) -> Response {
    let what = if basic(headers).is_some() { "The user or the password is wrong" } else { "Sign in first" };
    let mut response = rest::refuse(&ApiError::new("Unauthorized", what));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    if !headers.contains_key("sec-fetch-mode") {
        let challenge = HeaderValue::from_static("Basic realm=\"Conveyor\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
