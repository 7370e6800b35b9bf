//! The gate before every route: who may come in, and from which page.
//!
//! On loopback no credentials are needed, so a web page that the same person has open elsewhere must be kept out:
//! requests for a foreign host name (DNS rebinding) and changes from a foreign origin (CSRF) are refused. On any other
//! address credentials are needed: Signature Version 4 at the AWS API, HTTP Basic or the dashboard's session cookie at
//! all others. The dashboard's own files say nothing of the box, so they come without: the page that asks who you are
//! is one of them.
//!
//! What a route needs is a [`Role`]; who came in stands with the request as a [`Caller`].
//!
//! Nobody shuts others out: a body is read here, within a time, before the request takes a place among those under way;
//! those that wait for something to happen have places of their own; whoever watches over the box needs none.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conveyor_base::limits::quotas;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::session;
use super::signature::{self, Signed};
use super::{ApiError, AppState, aws, rest};

/// Requests under way at once, above which callers are asked to come back; and those that wait for something to happen.
const REQUESTS_ACTIVE_MAX: usize = 1024;
const REQUESTS_WAITING_MAX: usize = 2048;
/// Of bodies no more than this is read of more than so many at a time: what is read stands in memory.
const LARGE_BODY_BYTES: usize = 64 << 10;
const LARGE_BODIES_MAX: usize = 256;
const SIGN_IN: &str = "/api/v1/session";
/// How long a body may take to come. Not an upload's, which is as long as its file is.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// What somebody may do here; each role may do what those before it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks at everything, changes nothing.
    Viewer,
    /// Also starts, stops and redrives, uploads, and decides what waits for a person.
    Operator,
    /// Also changes workflows.
    #[default]
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub name: String,
    pub role: Role,
}

impl Caller {
    /// On loopback nobody is asked who they are: whoever is on this box owns it.
    pub fn on_this_box() -> Caller {
        Caller { name: "local".to_owned(), role: Role::Admin }
    }

    pub fn require_role(&self, required: Role) -> Result<(), ApiError> {
        if self.role >= required {
            return Ok(());
        }
        let what =
            format!("'{}' has the role {}, and this needs the role {}", self.name, self.role.name(), required.name());
        Err(ApiError::new("AccessDeniedException", what))
    }
}

#[derive(Clone)]
struct Known {
    id: String,
    secret: String,
    role: Role,
}

/// Access key ids (or user names), their secrets (or passwords), and what each may do.
#[derive(Clone, Default)]
pub struct Credentials(Arc<Vec<Known>>);

impl Credentials {
    /// Pairs that may do everything.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Credentials {
        Credentials::with_roles(pairs.into_iter().map(|(id, secret)| (id, secret, Role::Admin)))
    }

    pub fn with_roles(all: impl IntoIterator<Item = (String, String, Role)>) -> Credentials {
        Credentials(Arc::new(all.into_iter().map(|(id, secret, role)| Known { id, secret, role }).collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn secret(&self, id: &str) -> Option<&str> {
        self.0.iter().find(|known| known.id == id).map(|known| known.secret.as_str())
    }

    pub fn caller(&self, id: &str) -> Option<Caller> {
        self.0.iter().find(|known| known.id == id).map(|known| Caller { name: known.id.clone(), role: known.role })
    }

    /// Who has this name and this password.
    pub fn check(&self, user: &str, password: &str) -> Option<Caller> {
        let secret = self.secret(user)?;
        let same: bool = secret.as_bytes().ct_eq(password.as_bytes()).into();
        if same { self.caller(user) } else { None }
    }
}

/// Who may come in.
#[derive(Clone)]
pub enum Auth {
    /// Listening on loopback: everybody who is on this box.
    Loopback,
    Needed(Credentials),
}

impl Auth {
    /// `None` where the address can be reached from elsewhere and no credentials are set: then nothing may open.
    pub fn for_address(listen: SocketAddr, credentials: Credentials) -> Option<Auth> {
        match (credentials.is_empty(), listen.ip().is_loopback()) {
            (false, _) => Some(Auth::Needed(credentials)),
            (true, true) => Some(Auth::Loopback),
            (true, false) => None,
        }
    }
}

/// How many requests may still come in.
#[derive(Clone)]
pub struct RequestLimit {
    active: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    large_bodies: Arc<Semaphore>,
}

impl Default for RequestLimit {
    fn default() -> RequestLimit {
        let places = |most| Arc::new(Semaphore::new(most));
        RequestLimit {
            active: places(REQUESTS_ACTIVE_MAX),
            waiting: places(REQUESTS_WAITING_MAX),
            large_bodies: places(LARGE_BODIES_MAX),
        }
    }
}

impl RequestLimit {
    /// The places for such a request. None for who watches over the box: many callers are no box that is not well; and
    /// none for who signs in, since a wrong password takes a while to be refused.
    fn places(&self, request: &Request, body: &[u8]) -> Option<&Semaphore> {
        match request.uri().path() {
            "/healthz" | "/metrics" | SIGN_IN => None,
            _ if is_upload(request) || aws::may_wait(request.headers(), body) => Some(&self.waiting),
            _ => Some(&self.active),
        }
    }
}

/// Middleware around all routes.
pub async fn guard(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let is_aws = request.uri().path() == "/" && request.method() == Method::POST;
    let refuse = |refusal: ApiError| if is_aws { aws::refuse(&refusal) } else { rest::refuse(&refusal) };
    if let Err(refusal) = check_origin(&request, &app.auth) {
        return refuse(refusal);
    }
    // What is open to everybody is not asked who it is.
    let is_open = is_open(&request);
    let is_signed = !is_open && (is_aws || signature::is_signed(request.headers()));
    let caller = match &app.auth {
        Auth::Loopback => Some(Caller::on_this_box()),
        Auth::Needed(credentials) if !is_signed => known(request.headers(), credentials, &app),
        Auth::Needed(_) => None,
    };
    // Nothing is read of somebody whom nobody here knows.
    if let (true, Auth::Needed(credentials)) = (is_signed, &app.auth)
        && let Err(refusal) = signature::is_known(request.headers(), |id| credentials.secret(id).is_some())
    {
        return refuse(refusal);
    }
    let is_unknown = caller.is_none() && !is_signed;
    if is_unknown && !is_open {
        return unauthorized(request.headers());
    }
    let (mut request, body) = match with_body(request, is_signed, &app.request_limit).await {
        Ok(read) => read,
        Err(refusal) => return refuse(refusal),
    };
    let caller = match (caller, &app.auth) {
        (None, Auth::Needed(credentials)) if is_signed => match signer(&request, &body, credentials, &app) {
            Ok(caller) => Some(caller),
            Err(refusal) => return refuse(refusal),
        },
        (caller, _) => caller,
    };
    // Held until the request is answered.
    let place = app.request_limit.places(&request, &body).map(Semaphore::try_acquire);
    drop(body);
    if let Some(Err(_)) = place {
        let mut response = refuse(throttled());
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    if let Some(caller) = caller {
        let needed = if is_aws { aws::required_role(request.headers()) } else { required_role_outside_rest(&request) };
        if let Err(refusal) = caller.require_role(needed) {
            return refuse(refusal);
        }
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
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

/// How to use the API, which is the same for every box.
const DOCUMENT: &str = "/api/v1/openapi.json";

/// The routes of the REST API say themselves what they need.
fn required_role_outside_rest(request: &Request) -> Role {
    let changes = !request.method().is_safe() && !request.uri().path().starts_with("/api/");
    if changes { Role::Operator } else { Role::Viewer }
}

/// A part of a file, which is written as it comes.
fn is_upload(request: &Request) -> bool {
    request.method() == Method::PATCH && request.uri().path().starts_with("/api/v1/uploads/")
}

/// Reads the body, within its limits, and puts it back. An upload's goes on as it comes, but for a signed one, of which
/// the body is signed too.
async fn with_body(request: Request, is_signed: bool, limit: &RequestLimit) -> Result<(Request, Bytes), ApiError> {
    if request.method().is_safe() || is_upload(&request) && !is_signed {
        return Ok((request, Bytes::new()));
    }
    let (parts, body) = request.into_parts();
    let body = read_body(body, limit).await?;
    Ok((Request::from_parts(parts, body.clone().into()), body))
}

async fn read_body(body: Body, limit: &RequestLimit) -> Result<Bytes, ApiError> {
    let most = quotas().request_bytes();
    let too_large = || ApiError::new("RequestEntityTooLargeException", "The request's body is too large");
    let too_slow = |_| {
        let what = format!("The request's body did not come within {} seconds", BODY_WITHIN.as_secs());
        ApiError::new("RequestTimeout", what)
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut pieces = body.into_data_stream();
    // Most come in one piece, which need not be copied.
    let (mut first, mut all, mut place) = (Bytes::new(), Vec::new(), None);
    let mut until = Instant::now() + BODY_WITHIN;
    while let Some(piece) = timeout_at(until, pieces.next()).await.map_err(too_slow)? {
        // Whoever broke off hears nothing of this.
        let piece = piece.map_err(|_| ApiError::new("RequestTimeout", "The request's body broke off"))?;
        let bytes = first.len() + all.len() + piece.len();
        if bytes > most {
            return Err(too_large());
        }
        if bytes > LARGE_BODY_BYTES && place.is_none() {
            // What has come so far is little. Whoever waits for others gets the whole time after that.
            let taken = timeout(BODY_WITHIN, limit.large_bodies.acquire()).await;
            place = Some(taken.map_err(|_| throttled())?);
            until = Instant::now() + BODY_WITHIN;
        }
        if bytes == piece.len() {
            first = piece;
        } else {
            all.extend(std::mem::take(&mut first));
            all.extend(piece);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

fn throttled() -> ApiError {
    ApiError::new("ThrottlingException", "Too many requests at once; try again")
}

/// Who signed the request and its body.
fn signer(request: &Request, body: &[u8], credentials: &Credentials, app: &AppState) -> Result<Caller, ApiError> {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    let what = Signed { method, uri, headers, body };
    signature::verify(&what, app.handle.wall(), |id| credentials.secret(id))?;
    let caller = signature::signer(headers).and_then(|id| credentials.caller(&id));
    caller.ok_or_else(|| {
        ApiError::new("UnrecognizedClientException", "The security token included in the request is invalid.")
    })
}

/// Who a request's password or session says it is.
pub fn known(headers: &HeaderMap, credentials: &Credentials, app: &AppState) -> Option<Caller> {
    basic(headers, credentials).or_else(|| session::read(headers, credentials, app.handle.now()))
}

fn basic(headers: &HeaderMap, credentials: &Credentials) -> Option<Caller> {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Basic "))
        .and_then(|v| STANDARD.decode(v.trim()).ok())
        .and_then(|v| String::from_utf8(v).ok());
    let (user, password) = given.as_deref().and_then(|v| v.split_once(':'))?;
    credentials.check(user, password)
}

/// A page's own requests get no challenge: the browser would cover the page with a question of its own.
fn unauthorized(headers: &HeaderMap) -> Response {
    let mut response = rest::refuse(&ApiError::new("Unauthorized", "Sign in first"));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    if !headers.contains_key("sec-fetch-mode") {
        let challenge = HeaderValue::from_static("Basic realm=\"Conveyor\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

fn check_origin(request: &Request, auth: &Auth) -> Result<(), ApiError> {
    let denied = |words: String| Err(ApiError::new("AccessDeniedException", words));
    let text = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        return denied("A request has one Host header".to_owned());
    }
    let host = text(header::HOST).or(request.uri().authority().map(|a| a.as_str())).unwrap_or_default();
    if matches!(auth, Auth::Loopback) && !is_loopback_name(host) {
        return denied(format!("This box listens on loopback only, and '{host}' is not a name for that"));
    }
    if request.method().is_safe() {
        return Ok(());
    }
    if let Some(origin) = text(header::ORIGIN) {
        let from = origin.split_once("://").map_or("", |(_, host)| host);
        if from != host {
            return denied(format!("A page of {origin} may not change anything here"));
        }
    } else if text(header::HeaderName::from_static("sec-fetch-site")) == Some("cross-site") {
        return denied("A page of another site may not change anything here".to_owned());
    }
    Ok(())
}

/// SDKs put `sync-` before the host's name for StartSyncExecution and TestState.
fn is_loopback_name(host: &str) -> bool {
    let host = host.strip_prefix("sync-").unwrap_or(host);
    let split = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']'),
        None => Some(host.split_at(host.find(':').unwrap_or(host.len()))),
    };
    let Some((name, port)) = split else { return false };
    let is_port =
        |port: &str| port.strip_prefix(':').is_some_and(|port| port.bytes().all(|digit| digit.is_ascii_digit()));
    let is_name = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    is_name && (port.is_empty() || is_port(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, headers: &[(&str, &str)]) -> Request {
        let mut builder = Request::builder().method(method).uri("/api/v1/executions");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn foreign_pages_are_kept_out_on_loopback() {
        let check = |method, headers: &[_]| check_origin(&request(method, headers), &Auth::Loopback).is_ok();
        assert!(check(Method::GET, &[("host", "localhost:8080")]));
        assert!(check(Method::GET, &[("host", "[::1]:8080")]));
        assert!(!check(Method::GET, &[("host", "evil.example:8080")]), "DNS rebinding");
        for host in ["[127.0.0.1]evil", "[::1]:8080@evil", "127.0.0.1:80@evil", "localhost.evil", "127.0.0.1:x", "[::1"]
        {
            assert!(!check(Method::GET, &[("host", host)]), "{host}");
        }
        assert!(!check(Method::GET, &[("host", "localhost"), ("host", "localhost")]), "one of them only is looked at");
        assert!(check(Method::POST, &[("host", "127.0.0.1:8080")]), "a command line client");
        assert!(check(Method::POST, &[("host", "sync-localhost:8080")]), "StartSyncExecution of an SDK");
        assert!(check(Method::POST, &[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")]));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:9999"] {
            assert!(!check(Method::POST, &[("host", "127.0.0.1:8080"), ("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn other_addresses_need_credentials() {
        let open: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        assert!(Auth::for_address(open, Credentials::default()).is_none());
        let credentials = Credentials::new([("ops".to_owned(), "correct horse".to_owned())]);
        let header = |pair: &str| {
            let mut headers = HeaderMap::new();
            let value = format!("Basic {}", STANDARD.encode(pair));
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            headers
        };
        let comes_in = |headers: &HeaderMap| basic(headers, &credentials).is_some();
        assert!(comes_in(&header("ops:correct horse")));
        assert!(!comes_in(&header("ops:wrong")));
        assert!(!comes_in(&header("nobody:correct horse")));
        assert!(!comes_in(&HeaderMap::new()));
    }

    #[test]
    fn each_role_may_what_those_before_it_may() {
        let caller = |role| Caller { name: "ops".into(), role };
        assert!(caller(Role::Admin).require_role(Role::Operator).is_ok());
        assert!(caller(Role::Operator).require_role(Role::Operator).is_ok());
        let refusal = caller(Role::Viewer).require_role(Role::Operator).unwrap_err();
        assert!(refusal.message.contains("viewer") && refusal.message.contains("operator"), "{}", refusal.message);
    }
}
