//! The dashboard's files, embedded into the binary, and the handler that serves them.
//!
//! The web app stands in `web/` and is built by `make web`. It talks to the box through `/api/v1` and `/media` only
//! and fetches nothing from anywhere else; the content security policy sent with it holds it to that.
//!
//! Must never: know the store, or serve a byte that is not in the binary. Holds: the front page always answers, and
//! says so where the binary was built without the app; what a browser kept is good until its content is another.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

#[derive(rust_embed::RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Web;

/// `blob:` is where hls.js puts its worker and its media source.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; \
                      object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What is shown where the binary was built without the web app.
const UNBUILT: &str = "<!doctype html><meta charset=utf-8><title>Conveyor</title><p>This binary was built without the \
                       dashboard. Run <code>make web</code>, then build again. The API is at \
                       <a href=\"api/v1/executions\">/api/v1/executions</a>.</p>";

/// Whether the web app is in this binary.
pub fn is_built() -> bool {
    Web::get("index.html").is_some()
}

/// Serves `/` and the app's assets.
pub async fn file(uri: Uri, headers: HeaderMap) -> Response {
    let path = match uri.path().trim_start_matches('/') {
        "" => "index.html",
        path => path,
    };
    match Web::get(path) {
        Some(file) => embedded(path, file, &headers),
        None if path == "index.html" => page(StatusCode::SERVICE_UNAVAILABLE, UNBUILT),
        None => page(StatusCode::NOT_FOUND, "<!doctype html><title>Conveyor</title><p>There is nothing here."),
    }
}

fn embedded(path: &str, file: rust_embed::EmbeddedFile, headers: &HeaderMap) -> Response {
    // The build lays a compressed copy beside what is worth it.
    let wants_gzip = headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"));
    let packed = if wants_gzip { Web::get(&format!("{path}.gz")) } else { None };
    let is_packed = packed.is_some();
    let file = packed.unwrap_or(file);
    let tag: String = file.metadata.sha256_hash()[..12].iter().map(|b| format!("{b:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|seen| seen.as_bytes() == tag.as_bytes());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Body::from(file.data.into_owned()).into_response(),
    };
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    // Vite puts a content hash into the names of what it bundles, so those never change.
    let keep = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, text(kind.as_ref()));
    out.insert(CACHE_CONTROL, text(keep));
    out.insert(ETAG, text(&tag));
    out.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if is_packed {
        out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    guard(out);
    response
}

fn page(status: StatusCode, html: &'static str) -> Response {
    let mut response = (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response();
    guard(response.headers_mut());
    response
}

fn guard(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_front_page_always_answers_and_fetches_nothing_foreign() {
        let response = file(Uri::from_static("/"), HeaderMap::new()).await;
        let want = if is_built() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        assert_eq!(response.status(), want);
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'self'") && !policy.contains("http"));
        let missing = file(Uri::from_static("/assets/../../Cargo.toml"), HeaderMap::new()).await;
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    }
}
