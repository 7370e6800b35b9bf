//! `conveyor:housekeeping`: what crashes and time leave behind. Removes only what nothing refers to any more.
//!
//! One place that cannot be tidied does not keep the others from being tidied: the first error is reported last.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use conveyor_base::{Attempt, ExecutionId, ShareIo, Shares, Span, TaskError, Uri};
use conveyor_interpreter::{RunTask, Status};
use conveyor_run::{Demand, RetentionPeriods};
use conveyor_store::{Reader, Scans};
use serde::Deserialize;
use serde_json::{Value, json};

use super::media::{self, Stages};
use super::{Adapter, Call, CallFuture, CallOutcome, fault};

const REASON_SUFFIX: &str = ".error.json";
/// State machines in which an execution of a staging folder's name is looked for.
const MACHINES_MAX: usize = 10_000;

/// `[retention]`: how long ended executions stay, from their end on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// Input, output and history then leave the database for a compressed file of their day, and stay readable.
    pub archive: Span,
    /// They are then forgotten: the file goes, all entries go, and names are free again.
    pub executions: Span,
}

impl Default for RetentionSettings {
    fn default() -> RetentionSettings {
        RetentionSettings { archive: Span::days(1), executions: Span::days(90) }
    }
}

impl RetentionSettings {
    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self) -> Vec<String> {
        match self.executions < self.archive {
            true => vec!["executions: is shorter than archive; what is forgotten cannot be archived later".to_owned()],
            false => Vec::new(),
        }
    }
}

pub const NAMES: &[&str] = &["conveyor:housekeeping"];

/// Tidies what `stages` leave behind.
pub fn adapter(settings: RetentionSettings, stages: &Stages, reader: &Reader) -> Arc<dyn Adapter> {
    let Stages { data_dir, io, .. } = stages;
    let (data_dir, io, reader) = (data_dir.clone(), io.clone(), reader.clone());
    Arc::new(Housekeeping { settings, data_dir, io, reader })
}

struct Housekeeping {
    settings: RetentionSettings,
    data_dir: PathBuf,
    io: ShareIo,
    /// Knows what is still in use.
    reader: Reader,
}

impl Adapter for Housekeeping {
    fn demand(&self, _: &RunTask) -> Option<Demand> {
        Some(Demand::disks())
    }

    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.tidy(call))
    }
}

impl Housekeeping {
    /// `{"workDirHours"?, "staging"?, "stagingDays"?, "quarantine"?, "reasonDays"?}` to what was removed.
    async fn tidy(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let periods = RetentionPeriods { archive: self.settings.archive, forget: self.settings.executions };
        let retired = call.handle.retire(periods).await.map_err(|e| fault(&e));
        let p = &call.parameters;
        let before = |key: &str, default: u64, seconds: u64| {
            ago(p.get(key).and_then(Value::as_u64).unwrap_or(default).saturating_mul(seconds))
        };
        let work = self.sweep_work(before("workDirHours", 24, 3_600)).await;
        let since = before("stagingDays", 30, 86_400);
        let sweep_staging = move |folder: &Path, rows: &Scans| sweep(folder, since, |name| !runs(rows, name));
        let staging = self.on_share(p, "staging", sweep_staging).await;
        let since = before("reasonDays", 90, 86_400);
        let reasons = self.on_share(p, "quarantine", move |folder, _| sweep_reasons(folder, since)).await;
        let retired = retired?;
        Ok(CallOutcome::done(json!({
            "executionsArchived": retired.archived,
            "executionsForgotten": retired.forgotten,
            "workFoldersRemoved": work?,
            "stagingFoldersRemoved": staging?,
            "reasonsRemoved": reasons?,
        })))
    }

    /// The folders of attempts that are over.
    async fn sweep_work(&self, before: SystemTime) -> Result<u64, TaskError> {
        let (root, reader) = (media::work_root(&self.data_dir), self.reader.clone());
        let swept = tokio::task::spawn_blocking(move || {
            let rows = reader.on_this_thread();
            sweep(&root, before, |name| is_dead(&rows, name))
        });
        swept.await.unwrap_or_else(|e| Err(TaskError::new("States.TaskFailed", format!("housekeeping broke off: {e}"))))
    }

    /// Tidies the folder that a parameter names. There is nothing to do without the parameter, and on a box that has no
    /// such share.
    async fn on_share(
        &self,
        p: &Value,
        key: &str,
        tidy: impl FnOnce(&Path, &Scans) -> Result<u64, TaskError> + Send + 'static,
    ) -> Result<u64, TaskError> {
        let Some(uri) = p.get(key).and_then(Value::as_str) else { return Ok(0) };
        let uri: Uri = uri.parse().map_err(|e| TaskError::new("States.Runtime", format!("{key}: {e}")))?;
        if !self.io.shares().has(&uri.share) {
            return Ok(0);
        }
        let (share, reader) = (uri.share.clone(), self.reader.clone());
        let work = move |shares: &Shares| {
            let folder = shares.resolve(&uri);
            let folder = folder.map_err(|e| TaskError::new("Files.ShareUnreachable", e.to_string()))?;
            tidy(&folder, &reader.on_this_thread())
        };
        self.io.run_long(&[&share], work).await.map_err(|e| fault(&e))?
    }
}

fn ago(seconds: u64) -> SystemTime {
    SystemTime::now().checked_sub(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn entries(root: &Path) -> Result<Vec<fs::DirEntry>, TaskError> {
    match fs::read_dir(root) {
        Ok(entries) => entries.collect::<Result<_, _>>().map_err(|e| failed(root, &e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(root, &e)),
    }
}

fn failed(place: &Path, e: &std::io::Error) -> TaskError {
    TaskError::new("Files.Failed", format!("cannot tidy {}: {e}", place.display()))
}

/// Removes the folders in `root` that were not touched since then and that `dead` allows to go.
fn sweep(root: &Path, before: SystemTime, dead: impl Fn(&str) -> bool) -> Result<u64, TaskError> {
    let mut removed = 0;
    for entry in entries(root)? {
        let (Ok(meta), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
        if meta.is_dir() && meta.modified().is_ok_and(|at| at < before) && dead(&name) {
            fs::remove_dir_all(entry.path()).map_err(|e| failed(&entry.path(), &e))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes the reasons in a quarantine folder whose files people have taken away since. A file is never removed.
fn sweep_reasons(root: &Path, before: SystemTime) -> Result<u64, TaskError> {
    let mut removed = 0;
    for entry in entries(root)? {
        let (Ok(meta), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
        let Some(of) = name.strip_suffix(REASON_SUFFIX) else { continue };
        let alone = root.join(of).symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        if meta.is_file() && alone && meta.modified().is_ok_and(|at| at < before) {
            fs::remove_file(entry.path()).map_err(|e| failed(&entry.path(), &e))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether no attempt works in the folder `<execution>-<attempt>`.
fn is_dead(rows: &Scans, name: &str) -> bool {
    if name.starts_with(media::GONE_PREFIX) {
        return true;
    }
    let Some((execution, attempt)) = name.rsplit_once('-') else { return false };
    match (execution.parse::<ExecutionId>(), attempt.parse::<u32>()) {
        (Ok(id), Ok(attempt)) => matches!(rows.outstanding_task(id, Attempt(attempt)), Ok(None)),
        _ => false,
    }
}

/// Whether an execution of that name is not over: staging folders are called after theirs. A store that does not
/// answer counts as yes.
fn runs(rows: &Scans, name: &str) -> bool {
    let running = || {
        for machine in rows.machines(None, MACHINES_MAX)? {
            let Some(id) = rows.by_name(&machine.name, name)? else { continue };
            if rows.header(id)?.is_some_and(|header| header.status == Status::Running) {
                return Ok(true);
            }
        }
        Ok::<_, conveyor_base::Fault>(false)
    };
    running().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_goes_when_its_file_was_taken_away_and_time_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kept.mp4", "kept.mp4.error.json", "taken.mp4.error.json", "notes.json"] {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        assert_eq!(sweep_reasons(dir.path(), ago(3600)).unwrap(), 0, "it is young");
        let later = SystemTime::now() + Duration::from_secs(5);
        assert_eq!(sweep_reasons(dir.path(), later).unwrap(), 1);
        assert!(!dir.path().join("taken.mp4.error.json").exists());
        assert_eq!(entries(dir.path()).unwrap().len(), 3);
        assert_eq!(sweep_reasons(&dir.path().join("none"), later).unwrap(), 0);
    }
}
