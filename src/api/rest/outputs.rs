//! What an execution produced, found in the JSON that its states passed on: every `s3://` name of a file.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use conveyor_base::{Shares, Uri};
use futures::future::join_all;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::{AppState, media};

/// How long a page waits for a share to say what is there.
const SHARE_WITHIN: Duration = Duration::from_secs(2);
/// Files that one page lists at most.
const OUTPUTS_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Output {
    pub uri: String,
    /// Where it can be fetched; `None` where its share is not served, or the file is gone, behind a symbolic link, or cannot be looked
    /// for.
    pub url: Option<String>,
    /// False where its share does not answer: whether the file is there is not known.
    pub reachable: bool,
    pub kind: &'static str,
    pub name: String,
    pub bytes: Option<u64>,
}

/// The files named in these texts, in their order, each once. `source` is what the execution was given.
pub fn named<'a>(texts: impl Iterator<Item = &'a str>, source: Option<&Uri>) -> Vec<Uri> {
    let mut found: Vec<Uri> = Vec::new();
    for text in texts.filter(|text| text.contains("s3://")) {
        if let Ok(value) = serde_json::from_str(text) {
            collect(&value, &mut found);
        }
    }
    found.retain(|uri| Some(uri) != source && !uri.key.is_empty() && !uri.key.ends_with('/'));
    found.truncate(OUTPUTS_MAX);
    found
}

/// What there is of these files. A share that does not answer costs its own files, and a moment.
pub async fn outputs(app: &AppState, named: Vec<Uri>) -> Vec<Output> {
    let mut by_share: BTreeMap<String, Vec<Uri>> = BTreeMap::new();
    for uri in &named {
        by_share.entry(uri.share.clone()).or_default().push(uri.clone());
    }
    let looks = by_share.into_iter().map(|(share, uris)| async move {
        let sizes = move |shares: &Shares| uris.iter().map(|uri| size(shares, uri)).collect::<VecDeque<_>>();
        let looked = timeout(SHARE_WITHIN, app.io.run(&[&share], sizes)).await;
        (share, looked.ok().and_then(Result::ok))
    });
    let mut sizes: BTreeMap<String, Option<VecDeque<Option<u64>>>> = join_all(looks).await.into_iter().collect();
    let shown = named.into_iter().map(|uri| {
        let of_share = sizes.get_mut(&uri.share).and_then(Option::as_mut);
        let reachable = of_share.is_some();
        output(app, uri, of_share.and_then(VecDeque::pop_front).flatten(), reachable)
    });
    shown.collect()
}

fn size(shares: &Shares, uri: &Uri) -> Option<u64> {
    let meta = shares.place(uri).ok()?.itself().look().ok()?;
    meta.is_file().then_some(meta.size)
}

/// The first picture named in a text that is served: a row's thumbnail.
pub fn thumbnail(app: &AppState, text: &str) -> Option<String> {
    let mut found = Vec::new();
    collect(&serde_json::from_str(text).ok()?, &mut found);
    found.iter().filter(|uri| kind(uri.file_name()) == "image").find_map(|uri| media::url(app, uri))
}

/// How long the media is that a text tells of, in milliseconds: the first of the fields that stages name it by.
pub fn duration_ms(text: &str) -> Option<f64> {
    if !text.contains("durationMs") && !text.contains("DurationInMs") {
        return None;
    }
    fn look(value: &Value, depth: u32) -> Option<f64> {
        match value {
            Value::Object(fields) => {
                let own = fields.get("durationMs").or_else(|| fields.get("DurationInMs")).and_then(Value::as_f64);
                own.filter(|ms| *ms > 0.0)
                    .or_else(|| depth.checked_sub(1).and_then(|d| fields.values().find_map(|v| look(v, d))))
            }
            Value::Array(items) => depth.checked_sub(1).and_then(|d| items.iter().find_map(|v| look(v, d))),
            _ => None,
        }
    }
    look(&serde_json::from_str(text).ok()?, 6)
}

fn output(app: &AppState, uri: Uri, bytes: Option<u64>, reachable: bool) -> Output {
    let url = bytes.and_then(|_| media::url(app, &uri));
    let kind = kind(uri.file_name());
    let name = match kind {
        // Many ladders have playlists of the same name in folders of their own.
        "hls" => uri.key.rsplit('/').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/"),
        _ => uri.file_name().to_owned(),
    };
    Output { uri: uri.to_string(), url, reachable, kind, name, bytes }
}

fn kind(name: &str) -> &'static str {
    let suffix = name.rsplit_once('.').map(|(_, s)| s.to_ascii_lowercase()).unwrap_or_default();
    match suffix.as_str() {
        "m3u8" => "hls",
        "mp4" | "mov" | "webm" => "video",
        "m4a" | "mp3" | "wav" | "aac" => "audio",
        "jpg" | "jpeg" | "png" => "image",
        "json" | "md" | "txt" | "vtt" | "srt" => "text",
        _ => "other",
    }
}

fn collect(value: &Value, found: &mut Vec<Uri>) {
    match value {
        Value::String(text) => {
            if let Ok(uri) = text.parse::<Uri>()
                && !found.contains(&uri)
                && found.len() < OUTPUTS_MAX
            {
                found.push(uri);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, found)),
        _ => {}
    }
}
