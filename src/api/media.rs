//! `/media/{share}/{key}`: results, to play and to download. Reads only.
//!
//! Invariants: only shares that are listed as servable are served; no key leads out of its share; what a file holds is
//! never run as a page of this origin.

use std::path::PathBuf;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conveyor_base::escape::escaped;
use conveyor_base::{Shares, Uri};
use tower_http::services::ServeFile;

use super::{ApiError, AppState};

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
    let asked = uri.clone();
    let found = move |shares: &Shares| -> Result<PathBuf, String> {
        let path = shares.resolve(&asked).map_err(|e| e.to_string())?;
        // Not folders, nor pipes that would hold the request for ever.
        let is_file = path.metadata().is_ok_and(|meta| meta.is_file());
        is_file.then_some(path).ok_or_else(|| format!("There is no file {asked}."))
    };
    let path = match app.io.run(&[&uri.share], found).await.map_err(ApiError::from) {
        Ok(Ok(path)) => path,
        Ok(Err(why)) => return plain(StatusCode::NOT_FOUND, &why),
        Err(refused) => return plain(refused.status(), &refused.message),
    };
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
