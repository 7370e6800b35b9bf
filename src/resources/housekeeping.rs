//! `conveyor:housekeeping`: what crashes and time leave behind. Removes only what nothing refers to any more.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{Answer, Call, media};
use crate::base::{Attempt, ExecutionId, TaskError, Uri};
use crate::store::Reader;

/// `{"workDirHours"?, "staging"?, "stagingDays"?}` to what was removed.
pub async fn call(call: &Call) -> Result<Answer, TaskError> {
    let (services, p) = (call.services.clone(), call.parameters.clone());
    let tidied = tokio::task::spawn_blocking(move || {
        let hours = p.get("workDirHours").and_then(Value::as_u64).unwrap_or(24);
        let root = media::work_root(&services.data_dir);
        let work = sweep(&root, hours * 3600, |name| is_dead(&services.reader, name))?;
        let mut staging = 0;
        if let Some(uri) = p.get("staging").and_then(Value::as_str) {
            let days = p.get("stagingDays").and_then(Value::as_u64).unwrap_or(30);
            let uri: Uri = uri.parse().map_err(|e| TaskError::new("States.Runtime", format!("staging: {e}")))?;
            let folder =
                services.shares.resolve(&uri).map_err(|e| TaskError::new("Files.ShareUnreachable", e.to_string()))?;
            staging = sweep(&folder, days * 86_400, |_| true)?;
        }
        Ok(Answer::Done(json!({ "workFoldersRemoved": work, "stagingFoldersRemoved": staging })))
    });
    tidied.await.unwrap_or_else(|e| Err(TaskError::new("States.TaskFailed", format!("housekeeping broke off: {e}"))))
}

/// Removes the folders in `root` that were not touched for `seconds` and that `dead` allows to go.
fn sweep(root: &Path, seconds: u64, dead: impl Fn(&str) -> bool) -> Result<u64, TaskError> {
    let failed = |e: std::io::Error| TaskError::new("Files.Failed", format!("cannot tidy {}: {e}", root.display()));
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(failed(e)),
    };
    let Some(before) = SystemTime::now().checked_sub(Duration::from_secs(seconds)) else { return Ok(0) };
    let mut removed = 0;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let (Ok(meta), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
        if meta.is_dir() && meta.modified().is_ok_and(|at| at < before) && dead(&name) {
            fs::remove_dir_all(entry.path()).map_err(failed)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether no attempt works in the folder `<execution>-<attempt>`.
fn is_dead(reader: &Reader, name: &str) -> bool {
    let Some((execution, attempt)) = name.rsplit_once('-') else { return false };
    match (execution.parse::<ExecutionId>(), attempt.parse::<u32>()) {
        (Ok(id), Ok(attempt)) => matches!(reader.is_outstanding(id, Attempt(attempt)), Ok(None)),
        _ => false,
    }
}
