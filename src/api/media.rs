//! `/media/{share}/{key}`: results, to play and to download. Reads only.
//!
//! Invariants: only shares that are listed as servable are served; no key leads out of its share; what a file holds is
//! never run as a page of this origin.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conveyor_base::Uri;
use conveyor_base::escape::escaped;
use tower_http::services::ServeFile;

use super::AppState;

/// Types that browsers show or play and that run nothing. Everything else is offered for download.
const SHOWN: &[(&str, &str)] = &[
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("ts", "video/mp2t"),
    ("mp4", "video/mp4"),
    ("m4s", "video/iso.segment"),
    ("m4a", "audio/mp4"),
    ("aac", "audio/aac"),
    ("mp3", "audio/mpeg"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("mov", "video/quicktime"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("srt", "text/plain; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("json", "application/json"),
];

const POLICY: &str = "sandbox; default-src 'none'; media-src 'self'; img-src 'self'; style-src 'unsafe-inline'";

pub async fn file(
    State(app): State<AppState>,
    Path((share, key)): Path<(String, String)>,
    request: Request,
) -> Response {
    if !app.served.contains(&share) {
        return plain(StatusCode::NOT_FOUND, "This share is not served here.");
    }
    let uri = Uri::new(share, key);
    let (shares, asked) = (app.shares.clone(), uri.clone());
    let path = match app.blocking(move || shares.resolve(&asked)).await {
        Ok(Ok(path)) => path,
        Ok(Err(e)) => return plain(StatusCode::NOT_FOUND, &e.to_string()),
        Err(refused) => return plain(refused.status(), &refused.message),
    };
    // Folders, and pipes that would hold the request for ever.
    if !tokio::fs::metadata(&path).await.is_ok_and(|m| m.is_file()) {
        return plain(StatusCode::NOT_FOUND, &format!("There is no file {uri}."));
    }
    let kind = content_type(uri.file_name());
    // `ServeFile` names a type by suffix; ours goes over it below, so that both agree on every box.
    let mut response = match ServeFile::new(&path).try_call(request).await {
        Ok(response) => response.map(axum::body::Body::new).into_response(),
        Err(e) => return plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{uri} cannot be read: {e}")),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.unwrap_or("application/octet-stream")));
    if kind.is_none() {
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// Where a file is served, if it is.
pub fn url(app: &AppState, uri: &Uri) -> Option<String> {
    if !app.served.contains(&uri.share) {
        return None;
    }
    let key: Vec<String> = uri.key.split('/').map(escaped).collect();
    Some(format!("media/{}/{}", escaped(&uri.share), key.join("/")))
}

fn content_type(name: &str) -> Option<&'static str> {
    let suffix = name.rsplit_once('.')?.1.to_ascii_lowercase();
    SHOWN.iter().find(|(known, _)| *known == suffix).map(|(_, kind)| *kind)
}

fn plain(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.to_owned()).into_response()
}
