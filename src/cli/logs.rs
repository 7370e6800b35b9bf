//! `conveyor logs`: what executions logged, from the files of the box.
//!
//! Reads the files and needs no appliance that runs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use conveyor_appliance::Config;
use conveyor_base::Timestamp;
use conveyor_logs::{self as logs, LogFile};
use serde_json::Value;

use super::out;

/// How often files are looked at again while they are followed.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Longest detail that a line for people shows, in characters.
const DETAIL_CHARS_MAX: usize = 160;

#[derive(Debug, Args)]
pub struct Logs {
    /// The appliance's configuration, which names its data directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory itself.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
    /// Of one state machine only.
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Of one log group only.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Of one execution: its ARN or its name.
    #[arg(long, value_name = "EXECUTION")]
    execution: Option<String>,
    /// Only what failed, timed out or was stopped.
    #[arg(long)]
    errors: bool,
    /// The lines as they stand in the files.
    #[arg(long)]
    json: bool,
    /// Go on as lines come in, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// The most lines to begin with, the newest.
    #[arg(long, short = 'n', default_value_t = 100)]
    lines: usize,
}

pub fn run(asked: &Logs) -> anyhow::Result<ExitCode> {
    let data_dir = match (&asked.data_dir, &asked.config) {
        (Some(dir), _) => dir.clone(),
        (None, Some(file)) => Config::read(file)?.data_dir,
        (None, None) => Config::default().data_dir,
    };
    let root = data_dir.join("logs");
    let files = of_group(&root, asked)?;
    if files.is_empty() && !asked.follow {
        eprintln!(
            "there are no log files below {}; a state machine logs when its loggingConfiguration names a log group",
            root.display()
        );
        return Ok(ExitCode::FAILURE);
    }
    let mut seen: HashMap<PathBuf, u64> = HashMap::new();
    let lines = newest(&files, asked, &mut seen)?;
    for (_, line) in &lines {
        show(line, asked);
    }
    if !asked.follow {
        return Ok(ExitCode::SUCCESS);
    }
    while !out::is_closed() {
        std::thread::sleep(LOOK_EVERY);
        for file in of_group(&root, asked)? {
            let place = seen.entry(file.path.clone()).or_insert(0);
            for line in more(&file.path, place)?.iter().filter(|line| wanted(line, asked)) {
                show(line, asked);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn of_group(root: &Path, asked: &Logs) -> anyhow::Result<Vec<LogFile>> {
    let mut files = logs::list(root).with_context(|| format!("cannot read {}", root.display()))?;
    if let Some(group) = &asked.group {
        let folder = logs::folder(root, group);
        files.retain(|file| file.path.parent() == Some(&folder));
    }
    Ok(files)
}

/// The newest lines that are wanted, by their time; and how far each file was read.
fn newest(files: &[LogFile], asked: &Logs, seen: &mut HashMap<PathBuf, u64>) -> anyhow::Result<Vec<(i64, Value)>> {
    let mut kept: Vec<(i64, Value)> = Vec::new();
    let mut by_group: HashMap<&str, usize> = HashMap::new();
    for file in files.iter().rev() {
        let length = std::fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
        let have = by_group.entry(&file.group).or_default();
        if *have >= asked.lines {
            seen.insert(file.path.clone(), length);
            continue;
        }
        let mut place = 0;
        let mut lines: Vec<Value> =
            more(&file.path, &mut place)?.into_iter().filter(|line| wanted(line, asked)).collect();
        seen.insert(file.path.clone(), place);
        lines.drain(..lines.len().saturating_sub(asked.lines));
        *have += lines.len();
        kept.extend(lines.into_iter().map(|line| (time(&line), line)));
    }
    kept.sort_by_key(|(at, line)| (*at, number(line)));
    kept.drain(..kept.len().saturating_sub(asked.lines));
    Ok(kept)
}

/// The whole lines behind a place in a file; the place moves behind them. A file that is gone has none.
fn more(path: &Path, place: &mut u64) -> anyhow::Result<Vec<Value>> {
    let Ok(mut file) = File::open(path) else { return Ok(Vec::new()) };
    let failed = || format!("cannot read {}", path.display());
    if file.metadata().with_context(failed)?.len() <= *place {
        return Ok(Vec::new());
    }
    file.seek(SeekFrom::Start(*place)).with_context(failed)?;
    let mut lines = Vec::new();
    let mut reader = BufReader::new(file.take(u64::MAX));
    let mut line = Vec::new();
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).with_context(failed)?;
        if bytes == 0 || line.last() != Some(&b'\n') {
            return Ok(lines);
        }
        *place += bytes as u64;
        lines.extend(serde_json::from_slice(&line).ok());
    }
}

fn wanted(line: &Value, asked: &Logs) -> bool {
    let arn = line["execution_arn"].as_str().unwrap_or_default();
    // arn:aws:states:REGION:ACCOUNT:execution:MACHINE:NAME, or …:express:MACHINE:NAME:RUN
    let parts: Vec<&str> = arn.split(':').collect();
    let is = |wanted: &Option<String>, place: usize| {
        wanted.as_deref().is_none_or(|wanted| wanted == arn || parts.get(place) == Some(&wanted))
    };
    let kind = line["type"].as_str().unwrap_or_default();
    let failed = ["Failed", "TimedOut", "Aborted"].iter().any(|end| kind.ends_with(end)) || kind == "FailStateEntered";
    is(&asked.machine, 6) && is(&asked.execution, 7) && (failed || !asked.errors)
}

fn time(line: &Value) -> i64 {
    line["event_timestamp"].as_str().and_then(|at| at.parse().ok()).unwrap_or(0)
}

fn number(line: &Value) -> u64 {
    line["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or(0)
}

fn show(line: &Value, asked: &Logs) {
    let text = if asked.json { line.to_string() } else { for_people(line) };
    println!("{text}");
}

/// `2026-01-31T09:30:00.123Z  main/clip.mp4  #7 TaskFailed  Media.Truncated: …`
fn for_people(line: &Value) -> String {
    let arn = line["execution_arn"].as_str().unwrap_or_default();
    let mut parts = arn.split(':').skip(6);
    let (machine, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let details = &line["details"];
    let text = |key: &str| details[key].as_str();
    let what = match (text("error"), text("cause")) {
        (None, None) => {
            let about = text("name").or(text("resource"));
            let data = text("input").or(text("output")).or(text("parameters"));
            [about, data].into_iter().flatten().collect::<Vec<_>>().join("  ")
        }
        (error, cause) => [error, cause].into_iter().flatten().collect::<Vec<_>>().join(": "),
    };
    let what: String = what.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = what.chars().take(DETAIL_CHARS_MAX).collect();
    let more = if short.len() < what.len() { "…" } else { "" };
    let kind = line["type"].as_str().unwrap_or_default();
    format!("{}  {machine}/{name}  #{} {kind}  {short}{more}", Timestamp(time(line)), number(line))
}
