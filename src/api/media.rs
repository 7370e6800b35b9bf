//! `/media/{share}/{key}`: results, to play and to download. Reads only.
//!
//! Invariants: only shares that are listed as servable are served; no key leads out of its share, and what is answered is
//! all of the one file that was opened; nothing is handed out before it is published, which is told by the key, so that no
//! symbolic link is followed; what a file holds is never run as a page of this origin.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use conveyor_base::beneath::Meta;
use conveyor_base::escape::escaped;
use conveyor_base::shares::{ShareError, is_under_way};
use conveyor_base::{ShareIo, Shares, Uri};
use futures::stream;
use tokio::runtime::Handle;
use tower_http::services::ServeFile;

use super::{ApiError, AppState};

/// Bytes that are read at a time.
const PIECE_BYTES: u64 = 256 << 10;

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
    let (asked, runtime, method) = (uri.clone(), Handle::current(), request.method().clone());
    let (mut headers, has_body) = (request.headers().clone(), method == Method::GET);
    let open = move |shares: &Shares| -> Result<_, (StatusCode, String)> {
        let missing = |what: String| (StatusCode::NOT_FOUND, what);
        let cannot = |e: io::Error| (StatusCode::SERVICE_UNAVAILABLE, format!("{asked} cannot be read: {e}"));
        let nothing = || missing(format!("There is no file {asked}."));
        let place = shares.place(&asked).map_err(|e| missing(e.to_string()))?.itself();
        if !is_published(&asked.key) {
            return Err(nothing());
        }
        let file = place.read().map_err(|e| match e {
            _ if e.is_missing() => nothing(),
            ShareError::Io { source, .. } => cannot(source),
            ShareError::Escapes(_) => missing(format!("{asked} is behind a symbolic link, and none is followed here.")),
            other => missing(other.to_string()),
        })?;
        // Not folders, nor pipes that would hold the request for ever.
        let meta = Meta::of(&file).map_err(cannot)?;
        if !meta.is_file() {
            return Err(nothing());
        }
        // What of the file is asked for, and whether at all, is worked out there; the content is read below. By this name
        // it is the file that is open, whatever has its own name by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let ask = |headers: &HeaderMap| {
            let mut request = Request::builder().method(method.clone()).body(Body::empty()).unwrap_or_default();
            *request.headers_mut() = headers.clone();
            runtime.block_on(ServeFile::new(&path).try_call(request)).map_err(cannot)
        };
        let (mut head, length) = (ask(&headers)?, meta.size);
        if !is_to_range(&headers, head.headers(), length) {
            headers.remove(header::RANGE);
            head = ask(&headers)?;
        }
        Ok((head.map(drop), file))
    };
    let (head, file) = match app.io.run(&[&uri.share], open).await.map_err(ApiError::from) {
        Ok(Ok(opened)) => opened,
        Ok(Err((status, why))) => return plain(status, &why),
        Err(refused) => return plain(refused.status(), &refused.message),
    };
    let kind = content_type(uri.file_name());
    let span = span(head.status(), head.headers()).filter(|_| has_body);
    let body = span.map_or_else(Body::empty, |(first, length)| content(app.io.clone(), uri.share, file, first, length));
    let mut response = head.map(|()| body).into_response();
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

/// Whether a part of the file is to answer. What is no range, or is several, is as if nobody had asked for it, and so is a
/// part of another version of the file than the one that is there (RFC 9110, sections 14.2 and 13.1.5).
fn is_to_range(asked: &HeaderMap, answer: &HeaderMap, length: u64) -> bool {
    let text =
        |headers: &'_ HeaderMap, name| headers.get(name).and_then(|value| value.to_str().ok().map(str::to_owned));
    let Some(range) = text(asked, header::RANGE) else { return true };
    if length == 0 {
        return false;
    }
    let is_one = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).is_some_and(|(first, last)| {
        let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()));
        match (first, last) {
            // The last bytes, of which there are no more than the file has.
            ("", last) => number(last).is_some_and(|last| last < length),
            (first, "") => number(first).is_some(),
            (first, last) => matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last),
        }
    });
    let same = text(asked, header::IF_RANGE).is_none_or(|of| Some(of) == text(answer, header::LAST_MODIFIED));
    is_one && same
}

/// From where and how much of a file an answer holds; `None` where it holds none.
fn span(status: StatusCode, headers: &HeaderMap) -> Option<(u64, u64)> {
    let text = |name| headers.get(name)?.to_str().ok();
    let length = text(header::CONTENT_LENGTH)?.parse().ok()?;
    match status {
        StatusCode::OK => Some((0, length)),
        StatusCode::PARTIAL_CONTENT => {
            let (first, _) = text(header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('-')?;
            Some((first.parse().ok()?, length))
        }
        _ => None,
    }
}

/// That part of a file, read piece by piece as it is taken. Between two pieces it holds no thread and no place of the
/// share's: a player that pauses keeps nobody waiting.
fn content(io: ShareIo, share: String, file: File, first: u64, length: u64) -> Body {
    let pieces = stream::try_unfold((Arc::new(file), first, length), move |(file, at, left)| {
        let (io, share) = (io.clone(), share.clone());
        async move {
            if left == 0 {
                return Ok(None);
            }
            let reading = file.clone();
            let read = move |_: &Shares| -> io::Result<Bytes> {
                let mut piece = vec![0; left.min(PIECE_BYTES) as usize];
                let got = reading.read_at(&mut piece, at)?;
                piece.truncate(got);
                Ok(piece.into())
            };
            let piece = io.run(&[&share], read).await.map_err(io::Error::other)??;
            match piece.len() as u64 {
                // It has become shorter; the answer breaks off, and whoever asked sees that.
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                got => Ok(Some((piece, (file, at + got, left - got)))),
            }
        }
    });
    Body::from_stream(pieces)
}

/// Where a file is served, if it is.
pub fn url(app: &AppState, uri: &Uri) -> Option<String> {
    if !app.served.contains(&uri.share) || !is_published(&uri.key) {
        return None;
    }
    let key: Vec<String> = uri.key.split('/').map(escaped).collect();
    Some(format!("media/{}/{}", escaped(&uri.share), key.join("/")))
}

/// Whether a key may be one of a result: staged and unfinished ones stand under hidden names, as what other programs keep
/// for themselves does.
fn is_published(key: &str) -> bool {
    !is_hidden(key) && !key.rsplit('/').next().is_some_and(is_under_way)
}

/// Whether a key's file, or a folder on its way, has a hidden name.
pub fn is_hidden(key: &str) -> bool {
    key.split('/').any(|part| part.starts_with('.'))
}

fn content_type(name: &str) -> Option<&'static str> {
    let suffix = name.rsplit_once('.')?.1.to_ascii_lowercase();
    SHOWN.iter().find(|(known, _)| *known == suffix).map(|(_, kind)| *kind)
}

fn plain(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.to_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_answers_where_one_part_of_this_very_file_is_asked_for() {
        let modified = "Mon, 30 Nov 2026 21:00:00 GMT";
        let is_to_range = |range: &'static str, of: Option<&'static str>| {
            let mut asked = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
            asked.extend(of.map(|of| (header::IF_RANGE, HeaderValue::from_static(of))));
            let answer = HeaderMap::from_iter([(header::LAST_MODIFIED, HeaderValue::from_static(modified))]);
            super::is_to_range(&asked, &answer, 1_000)
        };
        for range in ["bytes=0-9", "bytes=5-", "bytes=-5", "bytes=99999999999-"] {
            assert!(is_to_range(range, None) && is_to_range(range, Some(modified)), "{range}");
            assert!(!is_to_range(range, Some("\"x\"")) && !is_to_range(range, Some("Mon, 30 Nov 2026 20:00:00 GMT")));
        }
        for range in [
            "bananas=0-9",
            "bytes=5-2",
            "bytes=0-9,20-29",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=-1000",
        ] {
            assert!(!is_to_range(range, None), "{range}");
        }
    }
}
