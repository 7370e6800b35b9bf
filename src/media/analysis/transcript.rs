//! The stage `transcript`: captions that a file carries or that lie beside it, and where somebody seems to speak.
//!
//! It makes no speech recognition: without captions there are no words, and the result says so.

use std::sync::Arc;

use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Progress, Reporter};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::captions;
use super::closed::{Captions, Found};
use super::decode::{Decoder, Source, TimedText, Want};
use super::report::{self, LISTED_MAX};
use super::sound::{VOICE_RATE, VoiceMeter};
use super::spans::{Span, round};
use crate::input::Input;

/// Largest caption file that is read.
const SIDE_CAR_BYTES_MAX: u64 = 16 << 20;
/// Most of the running text that goes into the stage's result.
const TEXT_CHARS_MAX: usize = 4_000;
/// Longest a cue without an end is taken to last.
const OPEN_CUE_SECONDS: f64 = 5.0;

/// `{"input", "destination"?}` to `{"cueCount", "cues", "tracks", "speech", "silence", "method", "limits", "uri"}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let input = Input::from_parameter(job, "input")?;
    let result = measure(&input, job.threads, reporter)?;
    let uri = report::write(job, reporter, "transcript.json", &result)?;
    let mut short = result;
    short["uri"] = uri;
    for list in ["cues", "speech", "silence"] {
        if let Some(items) = short[list].as_array_mut() {
            items.truncate(LISTED_MAX);
        }
    }
    // The text of a feature film is far beyond what a state may hand on.
    if let Some(text) = short["text"].as_str().map(|t| t.chars().take(TEXT_CHARS_MAX).collect::<String>()) {
        short["text"] = json!(text);
    }
    Ok(short)
}

/// The whole result, unwritten.
pub fn measure(input: &Input, threads: usize, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    crate::init()?;
    reporter.progress(Progress { doing: "reading captions and sound".into(), ..Progress::default() });
    let (cues, voice) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(VoiceMeter::default())));
    let closed = Arc::new(Mutex::new(Captions::default()));
    let (into, meter, into_closed) = (cues.clone(), voice.clone(), closed.clone());
    let want = Want {
        video: None,
        audio: Some((VOICE_RATE, true, Box::new(move |s| meter.lock().feed(s)))),
        text: Some(Box::new(move |cue| into.lock().push(cue))),
        captions: Some(Box::new(move |stream, at, form, bytes| into_closed.lock().feed(stream, at, form, bytes))),
        threads,
    };
    let mut decoder = Decoder::open(Source::File(input.clone()), want)?;
    decoder.finish()?;
    let (has_audio, embedded, end) = (decoder.has_audio(), decoder.text_tracks(), decoder.duration());
    drop(decoder);
    let closed = std::mem::take(&mut *closed.lock()).finish(end.unwrap_or(0.0));
    let mut cues = std::mem::take(&mut *cues.lock());
    let mut tracks: Vec<Value> =
        (0..embedded).map(|t| json!({ "track": t, "from": "embedded", "uri": input.uri })).collect();
    for track in &closed.tracks {
        let number = tracks.len();
        tracks.push(json!({
            "track": number, "from": "closed-captions", "standard": track.standard, "service": track.service, "uri": input.uri,
        }));
        cues.extend(track.cues.iter().map(|c| TimedText {
            track: number,
            start: c.start,
            end: Some(c.end),
            text: c.text.clone(),
        }));
    }
    for (uri, path) in side_cars(input) {
        let text = std::fs::read(&path).map_err(|e| input.io_error(&e))?;
        let (more, odd) = captions::parse(&String::from_utf8_lossy(&text), tracks.len());
        tracks.push(json!({ "track": tracks.len(), "from": "side-car", "uri": uri, "unreadableBlocks": odd }));
        cues.extend(more);
    }
    close_open_ends(&mut cues);
    let (speech, silence) = std::mem::take(&mut *voice.lock()).finish();
    Ok(described(input, &cues, &tracks, has_audio, &closed, (&speech, &silence)))
}

fn described(
    input: &Input,
    cues: &[TimedText],
    tracks: &[Value],
    has_audio: bool,
    closed: &Found,
    (speech, silence): (&[Span], &[Span]),
) -> Value {
    let listed: Vec<Value> = cues
        .iter()
        .map(|c| json!({ "track": c.track, "start": round(c.start), "end": c.end.map(round), "text": c.text }))
        .collect();
    // Several tracks are translations of each other more often than not: running text comes from the first alone.
    let first = cues.iter().map(|c| c.track).min();
    let text = cues.iter().filter(|c| Some(c.track) == first).map(|c| c.text.replace('\n', " ")).collect::<Vec<_>>();
    let total = |spans: &[Span]| round(spans.iter().map(Span::seconds).sum());
    let mut done = vec!["read the text tracks, the closed captions and the .srt/.vtt files beside the file".to_owned()];
    if has_audio {
        done.push("measured the first audio track for speech-like sound and silence".to_owned());
    }
    json!({
        "source": input.uri,
        "speechRecognition": false,
        "cueCount": cues.len(),
        "tracks": tracks,
        "text": text.join(" "),
        "cues": listed,
        "hasAudio": has_audio,
        "speechSeconds": total(speech),
        "silenceSeconds": total(silence),
        "speech": speech,
        "silence": silence,
        "closedCaptions": {
            "pictures": closed.pictures,
            "unreadable": closed.unreadable,
            "services": closed.tracks.iter().map(|t| json!({ "standard": t.standard, "service": t.service, "cues": t.cues.len() })).collect::<Vec<_>>(),
        },
        "method": format!("It {}.", done.join(" and ")),
        "limits": "No speech was recognised: words come from captions only. Speech-like means loud against the floor, mostly between 300 and 3,400 Hz, and moving as syllables do; singing and some music look the same. CEA-608 captions are decoded, their text services and extended data are not; of CEA-708 captions the words are taken, without position, colour and delays.",
    })
}

/// Caption files of the same stem beside the file: `clip.srt`, `clip.en.vtt`.
fn side_cars(input: &Input) -> Vec<(Uri, std::path::PathBuf)> {
    let (Some(folder), stem) = (input.path.parent(), input.uri.stem()) else { return Vec::new() };
    let prefix = &input.uri.key[..input.uri.key.len() - input.uri.file_name().len()];
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|e| e.metadata().is_ok_and(|m| m.is_file() && m.len() <= SIDE_CAR_BYTES_MAX))
        .filter_map(|e| Some((e.file_name().into_string().ok()?, e.path())))
        .filter(|(name, _)| {
            let rest = name.strip_prefix(stem).map(str::to_ascii_lowercase).unwrap_or_default();
            let language = rest.trim_end_matches(".srt").trim_end_matches(".vtt");
            (rest.ends_with(".srt") || rest.ends_with(".vtt"))
                && (language.is_empty() || (language.starts_with('.') && language.len() <= 8))
        })
        .map(|(name, path)| (Uri::new(input.uri.share.clone(), format!("{prefix}{name}")), path))
        .collect();
    found.sort();
    found
}

/// Orders cues; one without an end lasts to the next of its track, or five seconds.
fn close_open_ends(cues: &mut [TimedText]) {
    cues.sort_by(|a, b| (a.track, a.start).partial_cmp(&(b.track, b.start)).unwrap_or(std::cmp::Ordering::Equal));
    for i in 0..cues.len() {
        if cues[i].end.is_none() {
            let next = cues.get(i + 1).filter(|n| n.track == cues[i].track).map_or(f64::MAX, |n| n.start);
            cues[i].end = Some(next.min(cues[i].start + OPEN_CUE_SECONDS));
        }
    }
}
