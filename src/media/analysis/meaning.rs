//! The stage `meaning`: a summary of facts out of metadata, shots and captions. It adds nothing that is not in them.
//!
//! Shots and captions that it is not given, since it may run beside the analyses that find them, it finds itself.

use std::collections::{BTreeMap, HashSet};

use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Progress, Reporter};
use serde_json::{Value, json};

use super::{labels, report, transcript};
use crate::input::Input;

const KEYWORDS_MAX: usize = 12;
/// Words nearer than this count as going together.
const NEAR: usize = 4;

/// Frequent words that carry no meaning of their own, and by which a language is told.
const STOP_WORDS: [(&str, &str); 5] = [
    (
        "en",
        "the a an and or but of to in on at for with from by is are was were be been it its this that these those he she they we you i his her their our your my not no as so if then there here what who which when how do does did have has had will would can could all just about into up out",
    ),
    (
        "de",
        "der die das und oder aber ein eine einen einem einer von zu in im an am auf mit für ist sind war waren es er sie wir ihr ich du nicht kein auch so wie was wer wenn dann hier den dem des sich als noch nur nach bei aus um hat haben wird werden",
    ),
    (
        "fr",
        "le la les un une des et ou mais de du à au aux en dans sur pour avec par est sont était ce cette ces il elle ils elles nous vous je tu ne pas que qui quoi quand comme se sa son ses leur plus",
    ),
    (
        "es",
        "el la los las un una unos unas y o pero de del a al en con por para es son era este esta estos que quien cuando como se su sus no más lo le les yo tú él ella nosotros",
    ),
    (
        "it",
        "il lo la i gli le un una e o ma di del della a al alla in nel con per da è sono era questo questa che chi quando come si suo sua non più io tu lui lei noi voi",
    ),
];

/// `{"metadata", "labels", "transcript", "destination"?}` to `{"title", "summary", "facts", "keywords", "language", …}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let empty = Value::Null;
    let of = |name: &str| job.parameters.get(name).unwrap_or(&empty);
    let own = |name: &str, measure: fn(&Input, usize, &dyn Reporter) -> Result<Value, TaskError>| match of(name) {
        Value::Null if job.parameters.get("input").is_some() => {
            measure(&Input::from_parameter(job, "input")?, job.threads, reporter)
        }
        given => Ok(given.clone()),
    };
    let (labels, transcript) = (own("labels", labels::measure)?, own("transcript", transcript::measure)?);
    let (metadata, labels, transcript) = (of("metadata"), &labels, &transcript);
    reporter.progress(Progress { fraction: 0.9, doing: "summing up".into(), ..Progress::default() });
    let text = transcript["text"].as_str().unwrap_or_default();
    let words = words(text);
    let language = language(&words);
    let keywords = keywords(&words);
    let title = title(&[metadata, labels, transcript]);
    let facts = facts(metadata, labels, transcript, language, &keywords);
    let mut result = json!({
        "title": title,
        "summary": facts.join(" "),
        "facts": facts,
        "keywords": keywords,
        "language": language,
        "pace": labels["pace"],
        "structure": structure(labels),
        "method": "Sentences are filled in from measured values; keywords are ranked by how often they stand near other words (TextRank) in the captions; the language is told by its most frequent words.",
        "limits": "A statement of facts: nothing was understood, seen or heard beyond the metadata, the shots and the captions given.",
    });
    result["uri"] = report::write(job, reporter, "meaning.json", &result)?;
    Ok(result)
}

/// From the file's name: `my_holiday-2024.final.mov` becomes `my holiday 2024 final`.
fn title(records: &[&Value]) -> Value {
    let uri = records.iter().flat_map(|r| ["source", "uri", "input"].map(|k| &r[k])).find_map(Value::as_str);
    let Some(uri) = uri.and_then(|u| u.parse::<Uri>().ok()) else { return Value::Null };
    let spaced: String = uri.stem().chars().map(|c| if matches!(c, '_' | '-' | '.' | '+') { ' ' } else { c }).collect();
    json!(spaced.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn facts(
    metadata: &Value,
    labels: &Value,
    transcript: &Value,
    language: Option<&str>,
    keywords: &[String],
) -> Vec<String> {
    let mut facts = Vec::new();
    let seconds = labels["durationSeconds"].as_f64().or_else(|| number(metadata, &["durationSeconds", "duration"]));
    if let Some(seconds) = seconds {
        facts.push(format!("The file lasts {}.", spoken(seconds)));
    }
    if let (Some(w), Some(h)) = (number(metadata, &["width"]), number(metadata, &["height"])) {
        let rate = number(metadata, &["fps", "frameRate"])
            .map_or(String::new(), |f| format!(" at {} pictures a second", report::round(f, 3)));
        facts.push(format!("Its pictures are {w:.0} x {h:.0}{rate}."));
    }
    let hdr = [&metadata["video"][0]["hdr"], &metadata["hdr"]].into_iter().find_map(Value::as_str);
    if let Some(name) = hdr.filter(|h| *h != "none") {
        facts.push(format!("It is high dynamic range ({name}); what is delivered of it is tone-mapped to BT.709."));
    }
    if let Some(count) = labels["shotCount"].as_u64() {
        let mean = labels["meanShotSeconds"].as_f64().unwrap_or(0.0);
        facts.push(match count {
            1 => "It is one shot without a cut.".to_owned(),
            n => format!(
                "It has {n} shots of {mean:.1} s on average; the pace is {}.",
                labels["pace"].as_str().unwrap_or("unknown")
            ),
        });
    }
    if let Some(kinds) = labels["secondsByKind"].as_object().filter(|k| !k.is_empty()) {
        let parts: Vec<String> = kinds.iter().map(|(k, v)| format!("{:.1} s {k}", v.as_f64().unwrap_or(0.0))).collect();
        facts.push(format!("By kind of shot: {}.", parts.join(", ")));
    }
    match (transcript["hasAudio"].as_bool(), transcript["speechSeconds"].as_f64()) {
        (Some(false), _) => facts.push("It has no sound.".to_owned()),
        (_, Some(s)) if s > 0.0 => facts.push(format!("{s:.1} s of its sound are speech-like.")),
        (Some(true), _) => facts.push("Its sound has no speech-like parts.".to_owned()),
        _ => {}
    }
    match transcript["cueCount"].as_u64() {
        Some(0) => facts.push("It carries no captions, so nothing is known of what is said.".to_owned()),
        Some(n) => {
            let tongue = language.map_or(String::new(), |l| format!(", by their words in '{l}'"));
            facts.push(format!("It carries {n} captions{tongue}."));
        }
        None => {}
    }
    if !keywords.is_empty() {
        facts.push(format!("Words that stand out in the captions: {}.", keywords.join(", ")));
    }
    facts
}

/// The first of these names that holds a number, at the top or in `video`.
fn number(metadata: &Value, names: &[&str]) -> Option<f64> {
    names
        .iter()
        .flat_map(|n| [&metadata[*n], &metadata["video"][*n], &metadata["container"][*n]])
        .find_map(Value::as_f64)
}

fn spoken(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:02.0} s", (s / 60.0) as u64, s % 60.0),
        s => format!("{} h {:02} min", (s / 3600.0) as u64, (s % 3600.0 / 60.0) as u64),
    }
}

/// Parts between black stretches, where there are any.
fn structure(labels: &Value) -> Value {
    let (Some(end), Some(black)) = (labels["durationSeconds"].as_f64(), labels["black"].as_array()) else {
        return Value::Null;
    };
    let (mut parts, mut from) = (Vec::new(), 0.0);
    for span in black {
        let (start, stop) = (span["start"].as_f64().unwrap_or(from), span["end"].as_f64().unwrap_or(from));
        if start - from > 0.5 {
            parts.push(json!({ "start": from, "end": start }));
        }
        from = stop;
    }
    if end - from > 0.5 {
        parts.push(json!({ "start": from, "end": end }));
    }
    json!({ "partsBetweenBlack": parts.len(), "parts": parts.into_iter().take(50).collect::<Vec<_>>() })
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

/// A language only where its small words are plain to see.
fn language(words: &[String]) -> Option<&'static str> {
    if words.len() < 12 {
        return None;
    }
    let share = |list: &str| {
        let known: HashSet<&str> = list.split(' ').collect();
        words.iter().filter(|w| known.contains(w.as_str())).count() as f64 / words.len() as f64
    };
    let mut shares: Vec<(f64, &str)> = STOP_WORDS.iter().map(|(name, list)| (share(list), *name)).collect();
    shares.sort_by(|a, b| b.0.total_cmp(&a.0));
    (shares[0].0 > 0.2 && shares[0].0 > 1.5 * shares[1].0).then_some(shares[0].1)
}

/// TextRank: a word is worth what the words near it are worth.
fn keywords(words: &[String]) -> Vec<String> {
    let stop: HashSet<&str> = STOP_WORDS.iter().flat_map(|(_, list)| list.split(' ')).collect();
    let counts =
        |w: &&String| w.chars().count() > 2 && !stop.contains(w.as_str()) && w.chars().any(char::is_alphabetic);
    let said: Vec<&String> = words.iter().filter(counts).take(50_000).collect();
    let mut edges: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for (i, word) in said.iter().enumerate() {
        edges.entry(word).or_default();
        for other in said.iter().skip(i + 1).take(NEAR - 1).filter(|o| o != &word) {
            *edges.entry(word).or_default().entry(other).or_default() += 1.0;
            *edges.entry(other).or_default().entry(word).or_default() += 1.0;
        }
    }
    let mut rank: BTreeMap<&str, f64> = edges.keys().map(|w| (*w, 1.0)).collect();
    for _ in 0..20 {
        rank = edges
            .iter()
            .map(|(word, near)| {
                let sum: f64 = near.iter().map(|(o, n)| rank[o] * n / edges[o].values().sum::<f64>().max(1.0)).sum();
                (*word, 0.15 + 0.85 * sum)
            })
            .collect();
    }
    let mut ranked: Vec<(&str, f64)> = rank.into_iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    ranked.into_iter().take(KEYWORDS_MAX).map(|(w, _)| w.to_owned()).collect()
}
