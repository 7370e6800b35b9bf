//! The stage `brief`: metadata, shots, transcript and meaning as one JSON and one Markdown document.

use std::io::Read as _;

use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Progress, Reporter};
use serde_json::{Value, json};

use super::report;
use crate::files::fault;

const LISTED: usize = 20;
/// How much of another stage's result is read, in bytes; a longer one counts by its short form.
const RESULT_BYTES_MAX: u64 = 64 << 20;
const PARTS: [&str; 4] = ["metadata", "labels", "transcript", "meaning"];

/// `{"metadata", "labels", "transcript", "meaning", "destination"?}` to `{"title", "summary", "json", "markdown", …}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    reporter.progress(Progress { fraction: 0.5, doing: "writing the brief".into(), ..Progress::default() });
    let mut whole = serde_json::Map::new();
    whole.insert("version".into(), json!(1));
    let mut missing = Vec::new();
    for part in PARTS {
        let given = job.parameters.get(part).filter(|v| v.is_object());
        // Another stage's result may have been caught as an error: a brief of what there is beats none.
        if given.is_none() {
            missing.push(part);
        }
        whole.insert(part.into(), given.map_or(Value::Null, |v| full(job, v)));
    }
    whole.insert("missing".into(), json!(missing));
    let whole = Value::Object(whole);
    let text = markdown(&whole);
    let (json_uri, markdown_uri) =
        (report::write(job, reporter, "brief.json", &whole)?, report::write_text(job, reporter, "brief.md", &text)?);
    let meaning = &whole["meaning"];
    Ok(json!({
        "title": meaning["title"],
        "summary": meaning["summary"],
        "keywords": meaning["keywords"],
        "language": meaning["language"],
        "shotCount": whole["labels"]["shotCount"],
        "cueCount": whole["transcript"]["cueCount"],
        "missing": missing,
        "json": json_uri,
        "markdown": markdown_uri,
    }))
}

/// The whole result that a short one points at, where it can be read; else the short one.
fn full(job: &Job, short: &Value) -> Value {
    let uri = short["uri"].as_str().filter(|u| u.ends_with(".json")).and_then(|u| u.parse::<Uri>().ok());
    let read =
        |uri: Uri| std::io::read_to_string(fault::place(job, &uri).ok()?.read().ok()?.take(RESULT_BYTES_MAX)).ok();
    let read = uri.and_then(read);
    read.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_else(|| short.clone())
}

fn markdown(brief: &Value) -> String {
    let (labels, transcript, meaning) = (&brief["labels"], &brief["transcript"], &brief["meaning"]);
    let mut text = format!("# {}\n\n", plain(meaning["title"].as_str().unwrap_or("Untitled")));
    if let Some(summary) = meaning["summary"].as_str() {
        text.push_str(&format!("{}\n\n", plain(summary)));
    }
    if let Some(missing) = brief["missing"].as_array().filter(|m| !m.is_empty()) {
        let names: Vec<&str> = missing.iter().filter_map(Value::as_str).collect();
        text.push_str(&format!("Not available for this file: {}.\n\n", names.join(", ")));
    }
    if let Some(shots) = labels["shots"].as_array().filter(|s| !s.is_empty()) {
        text.push_str("## Shots\n\n| # | from | to | kind | traits | colours |\n|---|---|---|---|---|---|\n");
        for shot in shots.iter().take(LISTED) {
            let list = |name: &str| {
                shot[name].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            };
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} |\n",
                shot["index"].as_u64().unwrap_or(0) + 1,
                clock(&shot["start"]),
                clock(&shot["end"]),
                shot["kind"].as_str().unwrap_or_default(),
                list("traits"),
                list("colours"),
            ));
        }
        more(&mut text, shots.len());
    }
    if let Some(cues) = transcript["cues"].as_array().filter(|c| !c.is_empty()) {
        text.push_str("## Captions\n\n");
        for cue in cues.iter().take(LISTED) {
            let said = plain(&cue["text"].as_str().unwrap_or_default().replace('\n', " "));
            text.push_str(&format!("- {} {said}\n", clock(&cue["start"])));
        }
        more(&mut text, cues.len());
    }
    text.push_str("## How this was made\n\n");
    for (name, part) in [("Shots", labels), ("Transcript", transcript), ("Summary", meaning)] {
        if let (Some(method), Some(limits)) = (part["method"].as_str(), part["limits"].as_str()) {
            text.push_str(&format!("- {name}: {method} {limits}\n"));
        }
    }
    text
}

fn more(text: &mut String, count: usize) {
    if count > LISTED {
        text.push_str(&format!("\n… and {} more, in brief.json.\n", count - LISTED));
    }
    text.push('\n');
}

fn clock(seconds: &Value) -> String {
    let s = seconds.as_f64().unwrap_or(0.0);
    format!("{:02}:{:02}:{:04.1}", (s / 3600.0) as u64, (s % 3600.0 / 60.0) as u64, s % 60.0)
}

/// Text from a file must not become markup.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
