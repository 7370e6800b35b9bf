//! `conveyor:housekeeping`: what crashes and time leave behind. Removes only what nothing refers to any more.
//!
//! No link is followed to what is removed, and none out of a share. One place that cannot be tidied does not keep the others from being tidied: the first error is reported last.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_base::beneath::{Entry, Folder, Links, Meta};
use conveyor_base::names::{name_of, run_of_name};
use conveyor_base::{Attempt, ExecutionId, Older, ShareIo, Shares, Span, TaskError, Timestamp, Uri};
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
        match call.text("stagingOf") {
            Some(job) => Box::pin(self.tidy_before(call, job)),
            None => Box::pin(self.tidy(call)),
        }
    }
}

impl Housekeeping {
    /// `{"workDirHours"?, "staging"?, "stagingDays"?, "quarantine"?, "reasonDays"?}` to what was removed.
    async fn tidy(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let periods = RetentionPeriods { archive: self.settings.archive, forget: self.settings.executions };
        let retired = call.handle.retire(periods).await.map_err(|e| fault(&e));
        let p = &call.parameters;
        // Files are dated by the wall clock; what it shows by mistake must cost nobody his.
        let older = |key: &str, default: u64, unit_ms: u64| {
            let ms = p.get(key).and_then(Value::as_u64).unwrap_or(default).saturating_mul(unit_ms);
            call.handle.clock().older_than(i64::try_from(ms).unwrap_or(i64::MAX))
        };
        let work = self.sweep_work(older("workDirHours", 24, 3_600_000)).await;
        let old = older("stagingDays", 30, 86_400_000);
        let sweep_staging = move |folder: &Arc<Folder>, rows: &Scans| {
            // What was tried again has a folder of its own by now.
            let replaced = sweep(folder, &whenever(), |name| !runs(rows, name) && was_tried_again(rows, name))?;
            Ok(replaced + sweep(folder, &old, |name| !runs(rows, name))?)
        };
        let staging = self.on_share(p, "staging", sweep_staging).await;
        let old = older("reasonDays", 90, 86_400_000);
        let reasons = self.on_share(p, "quarantine", move |folder, _| sweep_reasons(folder, &old)).await;
        let retired = retired?;
        Ok(CallOutcome::done(json!({
            "executionsArchived": retired.archived,
            "executionsForgotten": retired.forgotten,
            "workFoldersRemoved": work?,
            "stagingFoldersRemoved": staging?,
            "reasonsRemoved": reasons?,
        })))
    }

    /// `{"staging", "stagingOf"}` to what was removed: what the earlier runs of the file that this job is of have staged. They
    /// are over, and this one makes it anew; until then it is kept for who has one of them go on.
    async fn tidy_before(&self, call: &Call, job: &str) -> Result<CallOutcome, TaskError> {
        let Some((first, this)) = run_of_name(job).map(|(first, run)| (first.to_owned(), run)) else {
            return Ok(CallOutcome::done(json!({ "stagingFoldersRemoved": 0 })));
        };
        let is_earlier = move |name: &str| run_of_name(name).is_some_and(|(of, run)| of == first && run < this);
        let tidy = move |folder: &Arc<Folder>, rows: &Scans| {
            sweep(folder, &whenever(), |name| is_earlier(name) && !runs(rows, name))
        };
        let removed = self.on_share(&call.parameters, "staging", tidy).await?;
        Ok(CallOutcome::done(json!({ "stagingFoldersRemoved": removed })))
    }

    /// The folders of attempts that are over.
    async fn sweep_work(&self, old: Older) -> Result<u64, TaskError> {
        let (root, reader) = (media::work_root(&self.data_dir), self.reader.clone());
        let swept = tokio::task::spawn_blocking(move || {
            let rows = reader.on_this_thread();
            match Folder::top(&root) {
                Ok(folder) => sweep(&Arc::new(folder), &old, |name| is_dead(&rows, name)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
                Err(e) => Err(failed(&root, &e)),
            }
        });
        swept.await.unwrap_or_else(|e| Err(TaskError::new("States.TaskFailed", format!("housekeeping broke off: {e}"))))
    }

    /// Tidies the folder that a parameter names. There is nothing to do without the parameter, and on a box that has no
    /// such share.
    async fn on_share(
        &self,
        p: &Value,
        key: &str,
        tidy: impl FnOnce(&Arc<Folder>, &Scans) -> Result<u64, TaskError> + Send + 'static,
    ) -> Result<u64, TaskError> {
        let Some(uri) = p.get(key).and_then(Value::as_str) else { return Ok(0) };
        let uri: Uri = uri.parse().map_err(|e| TaskError::new("States.Runtime", format!("{key}: {e}")))?;
        if !self.io.shares().has(&uri.share) {
            return Ok(0);
        }
        let (share, reader) = (uri.share.clone(), self.reader.clone());
        let work = move |shares: &Shares| in_folder(shares, &uri, |folder| tidy(folder, &reader.on_this_thread()));
        self.io.run_long(&[&share], work).await.map_err(|e| fault(&e))?
    }
}

/// Tidies a folder of a share, where it is there.
fn in_folder(
    shares: &Shares,
    uri: &Uri,
    tidy: impl FnOnce(&Arc<Folder>) -> Result<u64, TaskError>,
) -> Result<u64, TaskError> {
    match shares.place(uri).and_then(|place| place.folder()) {
        Ok(folder) => tidy(&folder),
        Err(e) if e.is_missing() => Ok(0),
        Err(e) => Err(TaskError::new("Files.ShareUnreachable", e.to_string())),
    }
}

/// What was touched at any time.
fn whenever() -> Older {
    Older::than(Timestamp::MAX)
}

fn failed(place: &Path, e: &io::Error) -> TaskError {
    TaskError::new("Files.Failed", format!("cannot tidy {}: {e}", place.display()))
}

/// What is in a folder and has not been touched for so long: names that are text, each with what it stands for.
fn untouched(folder: &Arc<Folder>, old: &Older) -> Result<Vec<(Entry, String, Meta)>, TaskError> {
    let listing = folder.list(Path::new(""), Links::Refused).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let names =
        listing.map_err(|e| failed(folder.path(), &e))?.into_iter().filter_map(|listed| listed.name.into_string().ok());
    let entries = names.map(|name| (folder.entry(&name), name));
    let looked = entries.filter_map(|(entry, name)| entry.meta().ok().map(|meta| (entry, name, meta)));
    Ok(looked.filter(|(_, _, meta)| meta.modified().is_some() && old.has(Timestamp(meta.modified_ms()))).collect())
}

/// Removes the folders in `root` that were not touched for so long and that `dead` allows to go.
fn sweep(root: &Arc<Folder>, old: &Older, dead: impl Fn(&str) -> bool) -> Result<u64, TaskError> {
    let mut removed = 0;
    for (entry, name, meta) in untouched(root, old)? {
        if meta.is_folder() && dead(&name) {
            entry.remove_all().map_err(|e| failed(&entry.path(), &e))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes the reasons in a quarantine folder whose files people have taken away since. A file is never removed.
fn sweep_reasons(root: &Arc<Folder>, old: &Older) -> Result<u64, TaskError> {
    let mut removed = 0;
    for (entry, name, meta) in untouched(root, old)? {
        let Some(of) = name.strip_suffix(REASON_SUFFIX) else { continue };
        if meta.is_file() && root.entry(of).is_free().map_err(|e| failed(root.path(), &e))? {
            entry.remove_file().map_err(|e| failed(&entry.path(), &e))?;
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

/// Whether there was a later run of the file whose execution has that name.
fn was_tried_again(rows: &Scans, name: &str) -> bool {
    let Some((first, run)) = run_of_name(name) else { return false };
    let next = name_of(first, run + 1);
    let machines = rows.machines(None, MACHINES_MAX).unwrap_or_default();
    machines.iter().any(|machine| matches!(rows.by_name(&machine.name, &next), Ok(Some(_))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use conveyor_base::{Clock as _, SystemClock};
    use conveyor_testing::exchange::Exchange;

    use super::*;

    fn opened(path: &Path) -> Arc<Folder> {
        Arc::new(Folder::top(path).unwrap())
    }

    fn before(ms: i64) -> Older {
        Older::than(SystemClock.now().plus_ms(ms))
    }

    #[test]
    fn a_reason_goes_when_its_file_was_taken_away_and_time_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kept.mp4", "kept.mp4.error.json", "taken.mp4.error.json", "notes.json"] {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        let folder = opened(dir.path());
        assert_eq!(sweep_reasons(&folder, &before(-3_600_000)).unwrap(), 0, "it is young");
        assert_eq!(sweep_reasons(&folder, &before(5_000)).unwrap(), 1);
        assert!(!dir.path().join("taken.mp4.error.json").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    /// Whoever may write to the share exchanges the folder that is tidied, or what is in it, with a link that leads out.
    #[test]
    fn nothing_outside_is_removed_while_links_are_exchanged() {
        const ROUNDS: usize = 300;
        let (share, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(outside.path().join("kept")).unwrap();
        fs::write(outside.path().join("kept/file"), "kept").unwrap();
        let shares = Shares::new([("outputs".to_owned(), share.path().to_owned())]);
        let (staging, later) = (Uri::new("outputs", ".staging"), before(3_600_000));
        let mut removed = 0;
        let job = share.path().join(".staging/job");
        fs::create_dir_all(&job).unwrap();
        let _inner = Exchange::with_link(&job, &outside.path().join("kept"));
        let _outer = Exchange::with_link(share.path().join(".staging"), outside.path());
        for _ in 0..ROUNDS {
            let _ = fs::create_dir(&job);
            let tidied = in_folder(&shares, &staging, |folder| sweep(folder, &later, |_| true));
            removed += tidied.unwrap_or_default();
            assert_eq!(fs::read_to_string(outside.path().join("kept/file")).unwrap(), "kept");
        }
        assert!(removed > 0);
    }
}
