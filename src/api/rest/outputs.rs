//! What an execution produced, found in the JSON that its states passed on: every `s3://` name of a file.

use conveyor_base::Uri;
use serde::Serialize;
use serde_json::Value;

use crate::{AppState, media};

/// Files that one page lists at most.
const OUTPUTS_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Output {
    pub uri: String,
    /// Where it can be fetched; `None` where its share is not served or the file is gone.
    pub url: Option<String>,
    pub kind: &'static str,
    pub name: String,
    pub bytes: Option<u64>,
}

/// The files named in these texts, in their order, each once. `source` is what the execution was given.
pub fn outputs<'a>(app: &AppState, texts: impl Iterator<Item = &'a str>, source: Option<&Uri>) -> Vec<Output> {
    let mut found: Vec<Uri> = Vec::new();
    for text in texts.filter(|text| text.contains("s3://")) {
        if let Ok(value) = serde_json::from_str(text) {
            collect(&value, &mut found);
        }
    }
    found.retain(|uri| Some(uri) != source && !uri.key.is_empty() && !uri.key.ends_with('/'));
    found.truncate(OUTPUTS_MAX);
    found.into_iter().map(|uri| output(app, uri)).collect()
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

fn output(app: &AppState, uri: Uri) -> Output {
    let size = app.io.shares().resolve(&uri).ok().and_then(|path| path.metadata().ok()).filter(|m| m.is_file());
    let url = size.as_ref().and_then(|_| media::url(app, &uri));
    let kind = kind(uri.file_name());
    let name = match kind {
        // Many ladders have playlists of the same name in folders of their own.
        "hls" => uri.key.rsplit('/').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/"),
        _ => uri.file_name().to_owned(),
    };
    Output { uri: uri.to_string(), url, kind, name, bytes: size.map(|m| m.len()) }
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
