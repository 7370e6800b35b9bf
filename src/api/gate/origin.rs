//! From which page a request comes: a page of another site changes nothing here, also where the browser of somebody who may
//! come in sends it.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderValue, header};

use super::peer::Peer;
use super::who::Auth;
use crate::ApiError;

/// # Errors
/// The request is for another host than this one (DNS rebinding), or would change something on behalf of a foreign page
/// (CSRF).
pub fn check_origin(request: &Request, auth: &Auth, peer: Peer) -> Result<(), ApiError> {
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
        let (scheme, from) = origin.split_once("://").unwrap_or_default();
        // Whoever is on the network can answer in this box's name as long as it is not asked by TLS.
        if from != host || peer.is_tls && scheme != "https" {
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
    use axum::http::Method;

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
        let peer = |is_tls| Peer { address: [127, 0, 0, 1].into(), is_tls };
        let check =
            |method, headers: &[_]| check_origin(&request(method, headers), &Auth::Loopback, peer(false)).is_ok();
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
        let forged = request(Method::POST, &[("host", "localhost:8080"), ("origin", "http://localhost:8080")]);
        assert!(check_origin(&forged, &Auth::Loopback, peer(true)).is_err(), "of one who answers in the box's name");
    }
}
