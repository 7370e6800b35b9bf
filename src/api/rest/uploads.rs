//! Uploads straight to a share, by the core of tus 1.0 (tus.io) with its creation extension: whoever is cut off asks how
//! far it came and goes on. What becomes of a file the uploads decide ([`conveyor_services::uploads`]).

use axum::body::Body as HttpBody;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conveyor_services::uploads::{NewUpload, refused, unknown};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::Path;
use crate::gate::Caller;
use crate::{ApiError, AppState};

/// Pieces of a body that wait to be written: a disk that is slower than the network holds the sender up.
const PIECES_MAX: usize = 16;
/// How long the next piece may take to come.
const PIECE_WITHIN: Duration = Duration::from_secs(60);

pub async fn create(
    app: AppState,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let bytes: u64 = number(&headers, "upload-length").ok_or_else(|| refused("Upload-Length is missing"))?;
    let metadata = metadata(headers.get("upload-metadata").and_then(|v| v.to_str().ok()).unwrap_or_default());
    let field = |name: &str| metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let new = NewUpload {
        share: field("share").ok_or_else(|| refused("Upload-Metadata names no share"))?,
        name: field("filename").ok_or_else(|| refused("Upload-Metadata names no filename"))?,
        folder: field("folder").unwrap_or_default(),
        bytes,
        by: caller.name,
    };
    let id = app.uploads.begin(new, app.handle.entry()).await?;
    let mut answer = reply(StatusCode::CREATED, &[("upload-offset", 0)]);
    set(&mut answer, header::LOCATION, &format!("/api/v1/uploads/{id}"));
    Ok(answer)
}

pub async fn offset(State(app): State<AppState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let upload = app.reader.upload(&id)?.ok_or_else(unknown)?;
    let offset = app.uploads.offset(&upload).await?;
    let mut answer = reply(StatusCode::OK, &[("upload-offset", offset), ("upload-length", upload.bytes)]);
    set(&mut answer, header::CACHE_CONTROL, "no-store");
    Ok(answer)
}

/// A request that breaks off, or from which nothing comes for long, leaves what came of it.
pub async fn append(
    State(app): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: HttpBody,
) -> Result<Response, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    if kind != Some("application/offset+octet-stream") {
        return Err(refused("the body's type must be application/offset+octet-stream").into());
    }
    let (pieces, taken) = mpsc::channel(PIECES_MAX);
    let feed = async move {
        let mut body = body.into_data_stream();
        while let Ok(Some(Ok(piece))) = timeout(PIECE_WITHIN, body.next()).await {
            if pieces.send(piece).await.is_err() {
                return;
            }
        }
    };
    let written = app.uploads.write(&id, number(&headers, "upload-offset"), taken);
    tokio::pin!(written);
    let reached = tokio::select! {
        // What is refused is not waited for to its end.
        reached = &mut written => reached,
        () = feed => written.await,
    }?;
    let mut answer = reply(StatusCode::NO_CONTENT, &[("upload-offset", reached.offset)]);
    if let Some(key) = reached.key {
        set(&mut answer, HeaderName::from_static("x-conveyor-key"), &conveyor_base::escape::escaped(&key));
    }
    Ok(answer)
}

pub async fn terminate(app: AppState, Path(id): Path<String>) -> Result<Response, ApiError> {
    app.uploads.terminate(&id).await?;
    Ok(reply(StatusCode::NO_CONTENT, &[]))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// `filename d29ybGQ=,share aW4=`
fn metadata(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (key, value) = part.trim().split_once(' ').unwrap_or((part.trim(), ""));
        let value = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
        Some((key.to_owned(), value))
    };
    text.split(',').filter_map(pair).collect()
}

fn reply(status: StatusCode, numbers: &[(&'static str, u64)]) -> Response {
    let mut answer = status.into_response();
    set(&mut answer, HeaderName::from_static("tus-resumable"), "1.0.0");
    for (name, number) in numbers {
        set(&mut answer, HeaderName::from_static(name), &number.to_string());
    }
    answer
}

fn set(answer: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_as_tus_writes_it() {
        let read = metadata("filename YSBiLm1wNA==,share aW5jb21pbmc=, empty");
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(read, [pair("filename", "a b.mp4"), pair("share", "incoming"), pair("empty", "")]);
    }
}
