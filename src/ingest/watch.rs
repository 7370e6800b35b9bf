//! One watched share: events where the kernel has them, a scan of its own in any case, and what is said about it.
//!
//! ```text
//!            root readable                    root gone, unmounted, not readable
//!  (start) ───────────────▶ Reachable ◀──────────────────────────────▶ Away
//! ```
//!
//! Away keeps every memory: files are neither forgotten nor started until the share is back. Each problem is reported
//! once when it begins and once when it ends. Work in flight is bounded: further whole files wait on the share. A watch
//! does one thing at a time with its share, however long that takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use conveyor_base::{ExecutionId, Fault, ShareIo, Shares, Span, Timestamp, fault, shares};
use conveyor_interpreter::Status;
use conveyor_store::{ExecutionFilter, Reader, Scans};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::scan::{self, PathState, Scan};
use super::settle::{FileState, Settling};
use super::{StartOutcome, Starter, land};

/// Files that wait in memory for their time; the rest is found by later scans.
const WAITING_MAX: usize = 10_000;
/// Events kept between two rounds; beyond that a scan takes their place.
const EVENTS_MAX: usize = 4_096;
/// Problems that a status shows; the log has all of them.
const PROBLEMS_MAX: usize = 20;
/// How soon whole files that found no room are tried again.
const ROOM_MS: i64 = 500;

/// `[[watch]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchSettings {
    pub share: String,
    #[serde(default = "suffixes")]
    pub suffixes: Vec<String>,
    #[serde(default = "workflow")]
    pub workflow: String,
    /// Size and mtime must stay unchanged for this long.
    #[serde(default = "settle")]
    pub settle: Span,
    /// How often the whole share is looked at: network shares raise no events for other hosts' writes.
    #[serde(default = "every")]
    pub scan: Span,
    /// Most executions of this watch that run at once.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
    /// From -50 to 50, as MediaConvert's jobs have it: files of higher priority go first.
    #[serde(default)]
    pub priority: i8,
    /// The share that takes files whose name is no text; without it they stay where they are.
    pub quarantine: Option<String>,
}

fn suffixes() -> Vec<String> {
    vec![".mp4".to_owned(), ".mov".to_owned()]
}

fn workflow() -> String {
    "main".to_owned()
}

fn settle() -> Span {
    Span::seconds(2)
}

fn every() -> Span {
    Span::seconds(5)
}

fn in_flight() -> usize {
    64
}

impl WatchSettings {
    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self, shares: &Shares) -> Vec<String> {
        let mut faults = Vec::new();
        for share in std::iter::once(&self.share).chain(&self.quarantine).filter(|share| !shares.has(share)) {
            faults.push(format!("there is no share named '{share}'; add [shares.{share}]"));
        }
        if self.quarantine.as_ref() == Some(&self.share) {
            faults.push("quarantine: must be another share than the watched one".to_owned());
        }
        if self.scan.ms < 100 {
            faults.push(format!("scan: {} would keep the share busy; at least 100ms", self.scan));
        }
        if !(-50..=50).contains(&self.priority) {
            faults.push(format!("priority: must be from -50 to 50, is {}", self.priority));
        }
        if self.in_flight == 0 {
            faults.push("in_flight: with 0 nothing would ever start".to_owned());
        }
        faults
    }
}

/// What the dashboard shows of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchStatus {
    pub share: String,
    /// Why the share cannot be used now; none while it can.
    pub away: Option<String>,
    pub waiting: usize,
    pub in_flight: usize,
    pub last_scan_ms: Option<i64>,
    /// What keeps files from starting, or makes it slower; empty where all is well.
    pub problems: Vec<String>,
    /// What release 0.1 called `problems`; it goes with release 0.3.
    pub troubles: Vec<String>,
}

/// Watches one share for as long as it runs.
pub struct Watcher {
    settings: WatchSettings,
    io: ShareIo,
    starter: Arc<dyn Starter>,
    reader: Reader,
    status: Arc<Mutex<WatchStatus>>,
    settling: Settling,
    running: BTreeSet<ExecutionId>,
    /// Problems that were reported and are not resolved.
    reported: BTreeMap<String, String>,
    next_scan: Timestamp,
    was_mounted: bool,
}

impl Watcher {
    pub fn new(settings: WatchSettings, io: ShareIo, starter: Arc<dyn Starter>, reader: Reader) -> Watcher {
        let status = WatchStatus { share: settings.share.clone(), ..WatchStatus::default() };
        let settling = Settling::new(settings.settle, WAITING_MAX);
        Watcher {
            settings,
            io,
            starter,
            reader,
            status: Arc::new(Mutex::new(status)),
            settling,
            running: BTreeSet::new(),
            reported: BTreeMap::new(),
            next_scan: Timestamp(0),
            was_mounted: false,
        }
    }

    /// The same watch with the same status, which remembers nothing but what the store holds.
    pub fn anew(&self) -> Watcher {
        let (io, starter, reader) = (self.io.clone(), self.starter.clone(), self.reader.clone());
        Watcher { status: self.status.clone(), ..Watcher::new(self.settings.clone(), io, starter, reader) }
    }

    pub fn status(&self) -> Arc<Mutex<WatchStatus>> {
        self.status.clone()
    }

    /// Runs until it is dropped; ends by itself only where the store does.
    pub async fn run(mut self) -> Result<(), Fault> {
        self.recall().await?;
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let mut fs_watcher: Option<RecommendedWatcher> = None;
        loop {
            if fs_watcher.is_none() && self.status.lock().away.is_none() {
                fs_watcher = self.open_fs_watcher(sender.clone()).await;
            }
            let pause = self.pause();
            tokio::select! {
                biased;
                Some(first) = events.recv() => {
                    let mut paths = BTreeSet::from([first]);
                    while let Ok(path) = events.try_recv() {
                        paths.insert(path);
                    }
                    self.look_at(paths).await;
                }
                () = tokio::time::sleep(pause) => {}
            }
            if self.scan_is_due() {
                self.scan().await?;
            }
            if self.status.lock().away.is_some() {
                // The kernel's watches died with the mount.
                fs_watcher = None;
            } else {
                self.land_whole().await?;
            }
            let mut status = self.status.lock();
            status.waiting = self.settling.waiting().count();
            status.in_flight = self.running.len();
            status.problems = self.reported.values().take(PROBLEMS_MAX).cloned().collect();
            status.troubles = status.problems.clone();
        }
    }

    /// What an earlier run of this box left: what landed, what still runs and takes up its room, and the mount.
    async fn recall(&mut self) -> Result<(), Fault> {
        let (share, mut settling) = (self.settings.share.clone(), self.take_settling());
        self.settling =
            self.reader.blocking(move |rows| land::recall(rows, &share, &mut settling).map(|_| settling)).await?;
        let (share, workflow) = (self.settings.share.clone(), self.settings.workflow.clone());
        let in_flight = self.settings.in_flight;
        self.running = self.reader.blocking(move |rows| running(rows, &share, workflow, in_flight)).await?;
        self.was_mounted = self.reader.setting(&self.mounted_key())?.is_some();
        Ok(())
    }

    /// The files that wait or landed; whoever takes them brings them back.
    fn take_settling(&mut self) -> Settling {
        std::mem::replace(&mut self.settling, Settling::new(self.settings.settle, WAITING_MAX))
    }

    /// A clock that was set back must not keep scans from being made until the old time comes round again.
    fn scan_is_due(&self) -> bool {
        let now = self.starter.now();
        self.next_scan <= now || self.next_scan > now.plus_ms(self.settings.scan.ms as i64)
    }

    fn pause(&self) -> Duration {
        if self.scan_is_due() {
            return Duration::ZERO;
        }
        let now = self.starter.now();
        let full = self.running.len() >= self.settings.in_flight;
        let away = self.status.lock().away.is_some();
        let due = self
            .settling
            .next_due()
            .filter(|_| !away)
            .map(|due| if full { due.max(now.plus_ms(ROOM_MS)) } else { due });
        let next = due.map_or(self.next_scan, |due| due.min(self.next_scan));
        Duration::from_millis(next.since_ms(now).clamp(1, 60_000) as u64)
    }

    /// Does something below the root of the share. The error says why the share counts as away.
    async fn on_share<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let share = self.settings.share.clone();
        let work = move |shares: &Shares| {
            let root = shares.root(&share).map_err(|e| e.to_string())?;
            work(&root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?)
        };
        self.io.run(&[&self.settings.share], work).await.map_err(|e| fault::chain(&e))?
    }

    async fn open_fs_watcher(&mut self, sender: mpsc::Sender<PathBuf>) -> Option<RecommendedWatcher> {
        let see = move |event: ::notify::Result<::notify::Event>| {
            let Ok(event) = event else { return };
            if event.kind.is_access() {
                return;
            }
            for path in event.paths {
                // A full queue loses nothing: the next scan sees the file.
                let _ = sender.try_send(path);
            }
        };
        // A link may lead out of the share, to folders that nobody may read.
        let settings = ::notify::Config::default().with_follow_symlinks(false);
        // It walks over all folders.
        let opened = self.on_share(move |root| {
            let opened = RecommendedWatcher::new(see, settings);
            Ok(opened.and_then(|mut fs_watcher| fs_watcher.watch(root, RecursiveMode::Recursive).map(|()| fs_watcher)))
        });
        // Of a share that is away the next scan says so.
        match opened.await.ok()? {
            Ok(fs_watcher) => {
                self.resolved("events");
                Some(fs_watcher)
            }
            Err(error) => {
                self.report(
                    "events",
                    format!(
                        "no events for the share '{}' ({error}); it is scanned every {}",
                        self.settings.share, self.settings.scan
                    ),
                );
                None
            }
        }
    }

    async fn look_at(&mut self, paths: BTreeSet<PathBuf>) {
        let suffixes = self.settings.suffixes.clone();
        let looks = move |root: &Path| -> Result<Vec<PathState>, String> {
            Ok(paths.iter().map(|path| scan::inspect(root, path, &suffixes)).collect())
        };
        let looks = self.on_share(looks).await.unwrap_or_default();
        let now = self.starter.now();
        for look in looks {
            match look {
                PathState::File { key, file_state } => {
                    self.settling.observe(&key, file_state, now);
                }
                PathState::Gone { key } => self.settling.gone(&key),
                // A folder that was moved in brings files for which there are no events.
                PathState::Folder => self.next_scan = self.next_scan.min(now),
                PathState::Other => {}
            }
        }
    }

    async fn scan(&mut self) -> Result<(), Fault> {
        let now = self.starter.now();
        self.next_scan = now.plus_ms(self.settings.scan.ms as i64);
        self.count_running().await?;
        let (suffixes, was_mounted) = (self.settings.suffixes.clone(), self.was_mounted);
        let settling = Arc::new(Mutex::new(self.take_settling()));
        let lent = settling.clone();
        let walked = self.on_share(move |root| {
            let mut settling = lent.lock();
            walk(root, &suffixes, was_mounted, |key, file_state| {
                settling.observe(key, file_state, now);
            })
        });
        let scan = walked.await;
        std::mem::swap(&mut self.settling, &mut settling.lock());
        match scan {
            Ok((scan, mounted)) => self.scanned(scan, mounted, now).await,
            Err(why) => self.away(why),
        }
    }

    async fn scanned(&mut self, scan: Scan, mounted: bool, now: Timestamp) -> Result<(), Fault> {
        if self.status.lock().away.take().is_some() {
            tracing::info!(share = self.settings.share, "the share is back");
        }
        if mounted != self.was_mounted {
            let mut commit = conveyor_store::Commit::new();
            match mounted {
                true => commit.put_setting(&self.mounted_key(), b"1"),
                false => commit.delete_setting(&self.mounted_key()),
            };
            self.starter.commit(commit).await?;
            self.was_mounted = mounted;
        }
        for (path, why) in &scan.unreadable {
            self.report(
                &format!("unreadable {}", path.display()),
                format!("cannot read {}: {why}; it is tried again with every scan", path.display()),
            );
        }
        // A problem with one file or folder is resolved when a scan does not meet it any more.
        let met = |path: &str| {
            let unreadable = scan.unreadable.iter().map(|(path, _)| path);
            unreadable.chain(&scan.foreign).any(|met| met.display().to_string() == path)
        };
        self.reported.retain(|topic, _| topic.split_once(' ').is_none_or(|(_, path)| met(path)));
        self.status.lock().last_scan_ms = Some(now.0);
        let (is_complete, Scan { seen, foreign, .. }) = (scan.is_complete(), scan);
        if is_complete && self.settling.keep_only(&seen) > 0 {
            let share = self.settings.share.clone();
            for commit in self.reader.blocking(move |rows| land::forgotten(rows, &share, &seen)).await? {
                self.starter.commit(commit).await?;
            }
        }
        for path in foreign {
            self.quarantine(path, now).await;
        }
        Ok(())
    }

    fn away(&mut self, why: String) -> Result<(), Fault> {
        let mut status = self.status.lock();
        if status.away.is_none() {
            tracing::warn!(
                share = self.settings.share,
                why,
                "the share is away; nothing is forgotten and it is tried again"
            );
        }
        status.away = Some(why);
        Ok(())
    }

    /// Starts what is whole, as long as there is room.
    async fn land_whole(&mut self) -> Result<(), Fault> {
        let now = self.starter.now();
        let due: Vec<(String, FileState)> = self
            .settling
            .waiting()
            .filter(|(.., due)| *due <= now)
            .map(|(key, file_state, _)| (key.to_owned(), file_state))
            .take(self.settings.in_flight)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.count_running().await?;
        for (key, file_state) in due {
            if self.running.len() >= self.settings.in_flight {
                return Ok(());
            }
            // The last look before the start: it must still be what rested.
            let (file, suffixes) = (key.clone(), self.settings.suffixes.clone());
            let look = self.on_share(move |root| Ok(scan::inspect(root, &root.join(file), &suffixes))).await;
            let look = match look {
                Ok(look) => look,
                Err(why) => return self.away(why),
            };
            match look {
                PathState::File { file_state: again, .. } if again == file_state => self.land(&key, file_state).await?,
                PathState::File { file_state: again, .. } => {
                    self.settling.observe(&key, again, now);
                }
                _ => self.settling.gone(&key),
            }
        }
        Ok(())
    }

    async fn land(&mut self, key: &str, file_state: FileState) -> Result<(), Fault> {
        let place = (self.settings.share.as_str(), self.settings.workflow.as_str(), self.settings.priority);
        match land::land(&*self.starter, place, key, file_state).await {
            Ok(StartOutcome::Started(id)) => {
                tracing::info!(share = self.settings.share, key, execution = %id, "a file landed");
                self.running.insert(id);
                self.settling.landed(key, file_state);
                self.resolved("start");
            }
            Ok(StartOutcome::Existed) => self.settling.landed(key, file_state),
            Ok(StartOutcome::Refused(why)) => {
                self.settling.gone(key);
                self.report(
                    "start",
                    format!(
                        "files on '{}' cannot start '{}': {why}; it is tried again with every scan",
                        place.0, place.1
                    ),
                );
            }
            Err(fault @ Fault::Fatal { .. }) => return Err(fault),
            Err(fault) => {
                self.settling.gone(key);
                self.report("start", fault::chain(&fault));
            }
        }
        Ok(())
    }

    /// Leaves in `running` what still runs.
    async fn count_running(&mut self) -> Result<(), Fault> {
        let mut running = self.running.clone();
        let look = move |rows: &Scans| -> Result<BTreeSet<ExecutionId>, Fault> {
            let mut met = None;
            running.retain(|id| match rows.summary(*id) {
                Ok(execution) => execution.is_some_and(|execution| execution.status == Status::Running),
                Err(fault) => {
                    met = Some(fault);
                    true
                }
            });
            met.map_or(Ok(running), Err)
        };
        self.running = self.reader.blocking(look).await?;
        Ok(())
    }

    async fn quarantine(&mut self, path: PathBuf, now: Timestamp) {
        let topic = format!("name {}", path.display());
        let Some(share) = &self.settings.quarantine else {
            let what = format!(
                "{} has a name that is not UTF-8 and stays where it is; rename it, or set quarantine",
                path.display()
            );
            return self.report(&topic, what);
        };
        let settle = self.settings.settle;
        let (from, to) = (self.settings.share.clone(), share.clone());
        let work = move |shares: &Shares| {
            let root = shares.root(&from).map_err(std::io::Error::other)?;
            let file = land::foreign(root, &path)?;
            let modified = file.meta()?.modified();
            let rests = modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= settle.duration() * 2);
            let quarantine = shares.top(&to).map_err(std::io::Error::other)?;
            if rests { land::quarantine_foreign(&file, &quarantine, now).map(Some) } else { Ok(None) }
        };
        let moved = self.io.run(&[&self.settings.share, share], work).await;
        match moved.unwrap_or_else(|e| Err(std::io::Error::other(fault::chain(&e)))) {
            Ok(Some(name)) => tracing::warn!(
                share = self.settings.share,
                name,
                "a file with a name that is not UTF-8 went to quarantine"
            ),
            Ok(None) => {}
            Err(error) => {
                self.report(&topic, format!("a file whose name is not UTF-8 cannot be moved to quarantine: {error}"))
            }
        }
    }

    fn mounted_key(&self) -> String {
        shares::mounted_setting(&self.settings.share)
    }

    /// Reports a problem when it begins.
    fn report(&mut self, topic: &str, what: String) {
        if self.reported.get(topic) != Some(&what) {
            tracing::warn!(share = self.settings.share, "{what}");
            self.reported.insert(topic.to_owned(), what);
        }
    }

    fn resolved(&mut self, topic: &str) {
        self.reported.remove(topic);
    }
}

/// What runs of a share's files.
fn running(rows: &Scans, share: &str, workflow: String, in_flight: usize) -> Result<BTreeSet<ExecutionId>, Fault> {
    let mut running = BTreeSet::new();
    let filter = ExecutionFilter { machine: Some(workflow), status: Some(Status::Running) };
    for row in rows.executions(&filter, None, in_flight)?.items {
        let Some(header) = rows.header(row.id)? else { continue };
        let input: serde_json::Value = serde_json::from_str(&header.input).unwrap_or_default();
        if input["bucket"] == share {
            running.insert(row.id);
        }
    }
    Ok(running)
}

/// A scan, and whether the root is a mount point; the error says why the share counts as away.
fn walk(
    root: &Path,
    suffixes: &[String],
    was_mounted: bool,
    see: impl FnMut(&str, FileState),
) -> Result<(Scan, bool), String> {
    let said = |e: std::io::Error| format!("{}: {e}", root.display());
    let mounted = shares::is_mount_point(root).map_err(said)?;
    if was_mounted && !mounted && shares::is_empty(root).map_err(said)? {
        return Err(format!("{} was a mounted share and is an empty folder now; mount it again", root.display()));
    }
    let scan = scan::scan(root, suffixes, see).map_err(said)?;
    // The last look: a share that went away during the walk looked empty from there on.
    if mounted && !shares::is_mount_point(root).map_err(said)? {
        return Err(format!("{} was unmounted during a scan", root.display()));
    }
    Ok((scan, mounted))
}
