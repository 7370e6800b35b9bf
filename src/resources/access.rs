//! What of the shares a stage may see, told from its parameters before a child is started: the files that it reads, and where
//! what it makes may be placed. A stage that opens media gets the files named for it and nothing else of any share; one
//! that moves files, and opens none, gets the shares that are named.

use conveyor_base::Uri;
use conveyor_job::Access;
use serde_json::Value;

/// Whatever in the parameters is no file on a share is left out: the stage itself says what is wrong with it.
pub fn of(stage: &str, parameters: &Value) -> Access {
    let one = |name: &str| parameters.get(name).and_then(uri);
    let mut access = Access::default();
    match stage {
        "publish" | "archive" | "quarantine" => shares(parameters, &mut access.shares),
        "offer" => {
            access.shares.extend(one("quarantine").map(|to| to.share));
            let watched = parameters["watched"].as_array().into_iter().flatten();
            access.shares.extend(watched.filter_map(|share| share.as_str().map(str::to_owned)));
            access.shares.sort();
            access.shares.dedup();
        }
        "transcode" => settings(parameters, &mut access),
        "quality" => {
            access.reads.extend(["source", "input"].into_iter().filter_map(one));
            for outputs in ["outputs", "outputGroups", "OutputGroupDetails", "outputGroupDetails"] {
                judged(&parameters[outputs], &mut access.reads);
            }
        }
        "brief" => named(parameters, &mut access.reads),
        _ => {
            access.reads.extend(one("input"));
            if matches!(stage, "transcript" | "meaning") {
                access.captions_of.extend(one("input"));
            }
        }
    }
    if access.shares.is_empty() {
        access.places.extend(one("destination").map(|to| folder(&to)));
    }
    access.reads.sort();
    access.reads.dedup();
    access
}

fn uri(value: &Value) -> Option<Uri> {
    value.as_str()?.parse().ok()
}

/// The prefix of everything in a folder.
fn folder(uri: &Uri) -> Uri {
    let key = uri.key.trim_end_matches('/');
    Uri::new(uri.share.clone(), if key.is_empty() { String::new() } else { format!("{key}/") })
}

/// Every file that is named anywhere.
fn named(value: &Value, into: &mut Vec<Uri>) {
    match value {
        Value::String(_) => into.extend(uri(value)),
        Value::Array(items) => items.iter().for_each(|item| named(item, into)),
        Value::Object(fields) => fields.values().for_each(|field| named(field, into)),
        _ => {}
    }
}

fn shares(parameters: &Value, into: &mut Vec<String>) {
    let mut files = Vec::new();
    for name in ["input", "destination", "staging", "from", "outputs", "held", "insteadOf"] {
        named(&parameters[name], &mut files);
    }
    into.extend(files.into_iter().map(|file| file.share));
    // A quarantine may be named without a folder, and as the share alone.
    let bare = parameters["destination"].as_str().map(|text| text.trim_start_matches("s3://"));
    into.extend(bare.filter(|name| !name.contains('/')).map(str::to_owned));
    into.sort();
    into.dedup();
}

/// MediaConvert's settings name inputs and side files by names of their own, at many depths.
fn settings(value: &Value, access: &mut Access) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| settings(item, access)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), uri(field)) {
                    ("Destination", Some(to)) => access.places.push(to),
                    (_, Some(file)) => access.reads.push(file),
                    _ => settings(field, access),
                }
            }
        }
        _ => {}
    }
}

/// Outputs that are judged. A playlist stands for its whole folder, since it names the files that are in it.
fn judged(value: &Value, into: &mut Vec<Uri>) {
    match value {
        Value::String(_) => {
            let Some(file) = uri(value) else { return };
            let is_playlist = file.key.to_ascii_lowercase().ends_with(".m3u8");
            let parent = file.key.rsplit_once('/').map_or("", |(folder, _)| folder);
            into.push(if is_playlist { Uri::new(file.share, parent) } else { file });
        }
        Value::Array(items) => items.iter().for_each(|item| judged(item, into)),
        Value::Object(fields) => fields.values().for_each(|field| judged(field, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(uris: &[Uri]) -> Vec<String> {
        uris.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_stage_sees_what_is_named_for_it() {
        let access = of("sanitize", &json!({ "input": "s3://in/a.mp4", "note": "s3://archive/secret" }));
        assert_eq!(
            (texts(&access.reads), access.shares.len(), access.places.len()),
            (vec!["s3://in/a.mp4".into()], 0, 0)
        );
        let job = json!({ "Settings": {
            "Inputs": [{ "FileInput": "s3://in/a.mp4", "CaptionSelectors": { "C": { "SourceFile": "s3://in/a.srt" } } }],
            "OutputGroups": [{ "OutputGroupSettings": { "FileGroupSettings": { "Destination": "s3://out/x/a" } } }],
        }});
        let access = of("transcode", &job);
        assert_eq!(texts(&access.reads), ["s3://in/a.mp4", "s3://in/a.srt"]);
        let may = |key: &str| access.may_place(&Uri::new("out", key));
        assert!(may("x/a_1080p.mp4") && !may("x/other.mp4") && !access.may_place(&Uri::new("in", "x/a.mp4")));
        let quality = json!({ "source": "s3://in/a.mp4", "destination": "s3://out/q",
            "outputs": [{ "uri": "s3://out/x/a.mp4" }, { "PlaylistFilePaths": ["s3://out/x/hls/a.m3u8"] }] });
        let access = of("quality", &quality);
        assert_eq!(texts(&access.reads), ["s3://in/a.mp4", "s3://out/x/a.mp4", "s3://out/x/hls"]);
        assert!(access.may_place(&Uri::new("out", "q/quality.json")) && !access.may_place(&Uri::new("out", "q2.json")));
        let moved =
            of("quarantine", &json!({ "input": "s3://in/a.mp4", "destination": "quarantine", "cause": "s3://x/y" }));
        assert_eq!((moved.shares, moved.reads.len()), (vec!["in".to_owned(), "quarantine".to_owned()], 0));
    }
}
