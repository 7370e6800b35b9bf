//! A served box with the four shares of the main workflow: its folder, questions to it, and what it must not leave behind.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use conveyor_testing::served::Served;
use serde_json::{Value, json};

use crate::clips;

pub const SHARES: [&str; 4] = ["incoming", "outputs", "archive", "quarantine"];

/// Makes the folders and the configuration of a box.
pub fn lay_out(folder: &Path, more: &str) {
    let suffixes: Vec<String> = clips::KINDS.iter().map(|(kind, _)| format!("\".{kind}\"")).collect();
    let mut text = "data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for share in SHARES {
        fs::create_dir_all(folder.join(share)).unwrap();
        text += &format!("[shares.{share}]\npath = \"{share}\"\n");
    }
    text += "[[watch]]\nshare = \"incoming\"\nsettle = \"500ms\"\nscan = \"1s\"\nretry = \"1m\"\nquarantine = \"quarantine\"\n";
    text += &format!("suffixes = [{}]\n", suffixes.join(", "));
    text += "[notify]\nlog = \"notifications.jsonl\"\n";
    fs::write(folder.join("conveyor.toml"), text + more).unwrap();
}

/// Drops a file on a share at once, as a rename does.
pub fn drop_file(share: &Path, name: &str, bytes: &[u8]) {
    let hidden = share.join(format!(".{name}.tmp"));
    fs::write(&hidden, bytes).unwrap();
    fs::rename(hidden, share.join(name)).unwrap();
}

/// The rows of executions, at most 500.
pub async fn executions(served: &Served, query: &str) -> Vec<Value> {
    let found = served.get(&format!("/executions?limit=500&{query}")).await;
    found["executions"].as_array().cloned().unwrap_or_default()
}

/// The executions of the main workflow for a file, oldest first.
pub async fn jobs_of(served: &Served, file: &str) -> Vec<Value> {
    let mut rows = executions(served, "machine=main").await;
    rows.retain(|row| row["file"] == file);
    rows.reverse();
    rows
}

/// Looks until there is something, for so long at most. Panics then.
pub async fn until<T>(limit: Duration, what: impl Display, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < limit, "hangs: waited {limit:?} for {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The newest execution of the main workflow for a file, once it has ended.
pub async fn ended(served: &Served, file: &str, limit: Duration) -> Value {
    let what = format!("the end of the job for {file}");
    until(limit, what, async || jobs_of(served, file).await.pop().filter(|row| !row["stoppedAt"].is_null())).await
}

/// What an execution has to say, as text: its history.
pub async fn history(served: &Served, row: &Value) -> String {
    served.get(&format!("/executions/{}/history", row["id"].as_str().unwrap())).await.to_string()
}

/// What an execution failed with, as it says itself.
pub async fn cause(served: &Served, row: &Value) -> String {
    let found = served.call("AWSStepFunctions.DescribeExecution", json!({"executionArn": row["arn"]})).await;
    format!("{}: {}", found["error"].as_str().unwrap_or("no error"), found["cause"].as_str().unwrap_or("no cause"))
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map_while(Result::ok).map(|entry| entry.path());
    let below = |path: PathBuf| if path.is_dir() && !path.is_symlink() { files_below(&path) } else { vec![path] };
    paths.flat_map(below).collect()
}

/// Where a job's file has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Published,
    /// With this error beside it.
    Quarantined(String),
    /// It lies where it lay, and its execution says this.
    Kept(String),
}

/// Judges a file whose execution has ended: it is in one place, as it was, and what was said of it is true there.
pub fn judge(folder: &Path, name: &str, bytes: &[u8], row: &Value) -> Result<Verdict, String> {
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|file| file == name);
    let mut places = Vec::new();
    for share in ["incoming", "archive", "quarantine"] {
        places.extend(files_below(&folder.join(share)).into_iter().filter(is_it));
    }
    let [place] = &places[..] else {
        return Err(match places.len() {
            0 => format!("LOST: {name} is nowhere, and its execution says {}", brief(row)),
            _ => format!("DOUBLED: {name} lies at {places:?}, and its execution says {}", brief(row)),
        });
    };
    let found = fs::read(place).map_err(|e| format!("{}: {e}", place.display()))?;
    if found != bytes {
        return Err(format!("CHANGED: {} is not what was dropped", place.display()));
    }
    let said = row["error"].as_str().unwrap_or_default().to_owned();
    let is_success = row["status"] == "SUCCEEDED";
    if place.starts_with(folder.join("archive")) {
        if !is_success {
            return Err(format!("{name} is archived, and its execution says {}", brief(row)));
        }
        let job = place.strip_prefix(folder.join("archive/archived")).ok().and_then(|path| path.iter().next());
        let job = job.ok_or_else(|| format!("{} is no place of an archive", place.display()))?;
        let outputs = files_below(&folder.join("outputs").join(job));
        let has = |end: &str| {
            let ends = |path: &&PathBuf| path.to_string_lossy().ends_with(end);
            outputs.iter().filter(ends).any(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0))
        };
        if !["manifest.json", ".mp4", ".m3u8"].into_iter().all(has) {
            return Err(format!("{name} counts as published, and its outputs are {outputs:?}"));
        }
        Ok(Verdict::Published)
    } else if place.starts_with(folder.join("quarantine")) {
        let reason = place.with_file_name(format!("{name}.error.json"));
        let text = fs::read_to_string(&reason).map_err(|e| format!("{name} in quarantine without a reason: {e}"))?;
        let reason: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", reason.display()))?;
        match text.contains(&said) && !said.is_empty() && reason.is_object() {
            true => Ok(Verdict::Quarantined(said)),
            false => {
                Err(format!("{name} in quarantine: its reason is {reason}, and its execution says {}", brief(row)))
            }
        }
    } else if is_success {
        Ok(Verdict::Kept("ALREADY_PROCESSED".into()))
    } else {
        Ok(Verdict::Kept(said))
    }
}

/// An execution's row in one line.
pub fn brief(row: &Value) -> String {
    format!("{} {} {}", row["status"], row["error"], row["id"])
}

/// Staged outputs: those of a job that failed stay for a while, for people to look at.
pub fn staged(folder: &Path) -> Vec<PathBuf> {
    files_below(&folder.join("outputs/.staging"))
}

/// What is left that should be gone once nothing runs: parts of files, folders of work.
pub fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut left: Vec<PathBuf> = SHARES
        .iter()
        .flat_map(|share| files_below(&folder.join(share)))
        .filter(|path| {
            let name = path.to_string_lossy();
            name.ends_with(".part") || name.ends_with(".tmp")
        })
        .collect();
    left.extend(fs::read_dir(folder.join("data/work")).into_iter().flatten().map_while(Result::ok).map(|e| e.path()));
    left
}

/// Verifies the store of a box that no longer runs.
pub fn check(folder: &Path) {
    let begun = Instant::now();
    loop {
        let mut command = Command::new(conveyor_testing::binary());
        let done = command.arg("check").arg("--data-dir").arg(folder.join("data")).output().unwrap();
        if done.status.success() {
            return;
        }
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        // The kernel closes the files of a killed process when it comes to it.
        assert!(text.contains("in use") && begun.elapsed() < Duration::from_secs(10), "`conveyor check`: {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
