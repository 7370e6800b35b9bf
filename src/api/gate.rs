//! The gate before every door: who may come in, and from which page.
//!
//! On loopback no credentials are needed, so a web page that the same person has open elsewhere must be kept out:
//! requests for a foreign host name (DNS rebinding) and changes from a foreign origin (CSRF) are refused. On any other
//! address credentials are needed: Signature Version 4 at the AWS door, HTTP Basic at all others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::signature::{self, Signed};
use super::{Doors, Refused, aws, rest};

/// Requests under way at once, above which callers are asked to come back.
const REQUESTS_ACTIVE_MAX: usize = 1024;

/// Access key ids (or user names) and their secrets (or passwords).
#[derive(Clone, Default)]
pub struct Credentials(Arc<Vec<(String, String)>>);

impl Credentials {
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Credentials {
        Credentials(Arc::new(pairs.into_iter().collect()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn secret(&self, id: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, secret)| secret.as_str())
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
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Room {
        Room(Arc::new(Semaphore::new(REQUESTS_ACTIVE_MAX)))
    }
}

/// Middleware around all routes.
pub async fn guard(State(doors): State<Doors>, request: Request, next: Next) -> Response {
    let is_aws = request.uri().path() == "/" && request.method() == Method::POST;
    let refuse = |refusal: Refused| if is_aws { aws::refuse(&refusal) } else { rest::refuse(&refusal) };
    let Ok(_permit) = doors.room.0.try_acquire() else {
        let mut response = refuse(Refused::new("ThrottlingException", "Too many requests at once; try again"));
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    };
    if let Err(refusal) = check_origin(&request, &doors.auth) {
        return refuse(refusal);
    }
    match &doors.auth {
        Auth::Loopback => next.run(request).await,
        // Prometheus and load balancers ask without credentials whether the box is well; that says nothing else.
        Auth::Needed(_) if request.uri().path() == "/healthz" => next.run(request).await,
        Auth::Needed(credentials) if is_aws || signature::is_signed(request.headers()) => {
            match signed(request, credentials, &doors).await {
                Ok(request) => next.run(request).await,
                Err(refusal) => refuse(refusal),
            }
        }
        Auth::Needed(credentials) if basic(request.headers(), credentials) => next.run(request).await,
        Auth::Needed(_) => {
            let mut response = StatusCode::UNAUTHORIZED.into_response();
            let challenge = HeaderValue::from_static("Basic realm=\"Conveyor\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            response
        }
    }
}

/// Reads the body, which is signed too, checks, and puts it back.
async fn signed(request: Request, credentials: &Credentials, doors: &Doors) -> Result<Request, Refused> {
    let (parts, body) = request.into_parts();
    let too_large = |_| Refused::new("RequestEntityTooLargeException", "The request's body is too large");
    let body = axum::body::to_bytes(body, crate::base::limits::REQUEST_BYTES_MAX).await.map_err(too_large)?;
    let what = Signed { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body: &body };
    signature::verify(&what, doors.handle.now(), |id| credentials.secret(id))?;
    Ok(Request::from_parts(parts, body.into()))
}

fn basic(headers: &HeaderMap, credentials: &Credentials) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Basic "))
        .and_then(|v| STANDARD.decode(v.trim()).ok())
        .and_then(|v| String::from_utf8(v).ok());
    let Some((user, password)) = given.as_deref().and_then(|v| v.split_once(':')) else { return false };
    let Some(secret) = credentials.secret(user) else { return false };
    secret.as_bytes().ct_eq(password.as_bytes()).into()
}

fn check_origin(request: &Request, auth: &Auth) -> Result<(), Refused> {
    let denied = |words: String| Err(Refused::new("AccessDeniedException", words));
    let text = |name| request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
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
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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
        assert!(basic(&header("ops:correct horse"), &credentials));
        assert!(!basic(&header("ops:wrong"), &credentials));
        assert!(!basic(&header("nobody:correct horse"), &credentials));
        assert!(!basic(&HeaderMap::new(), &credentials));
    }
}
