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

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::notify::RecommendedWatcher;
use conveyor_base::names::{name_of, run_of_name};
use conveyor_base::{ExecutionId, Fault, ShareIo, Shares, Timestamp, fault, shares};
use conveyor_interpreter::Status;
use conveyor_store::{Reader, Scans, unless_damaged};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::again::{self, Again, Due, EndedRun, Tried};
use super::problems::Problems;
use super::scan::{self, PathState, Scan};
use super::second::SecondLooks;
use super::settings::{WatchSettings, WatchStatus};
use super::settle::{FileState, Settling};
use super::whole::Look;
use super::{StartOutcome, Starter, events, land, name};

/// Files that wait in memory for their time; the rest is found by later scans.
const WAITING_MAX: usize = 10_000;
/// Events kept between two rounds; beyond that a scan takes their place.
const EVENTS_MAX: usize = 4_096;
/// How soon whole files that found no room are tried again.
const ROOM_MS: i64 = 500;

/// Watches one share for as long as it runs.
pub struct Watcher {
    settings: WatchSettings,
    io: ShareIo,
    starter: Arc<dyn Starter>,
    reader: Reader,
    status: Arc<Mutex<WatchStatus>>,
    settling: Settling,
    /// What runs, with the files' keys.
    running: HashMap<ExecutionId, String>,
    again: Again,
    /// The quarantine of the workflows, and what is known of it.
    rechecked: Option<String>,
    second: SecondLooks,
    problems: Problems,
    next_scan: Timestamp,
    was_mounted: bool,
}

impl Watcher {
    pub fn new(settings: WatchSettings, io: ShareIo, starter: Arc<dyn Starter>, reader: Reader) -> Watcher {
        let status = WatchStatus { share: settings.share.clone(), ..WatchStatus::default() };
        let settling = Settling::new(settings.settle, settings.incomplete, WAITING_MAX);
        Watcher {
            problems: Problems::of(&settings.share),
            settings,
            io,
            starter,
            reader,
            status: Arc::new(Mutex::new(status)),
            settling,
            running: HashMap::new(),
            again: Again::default(),
            rechecked: None,
            second: SecondLooks::default(),
            next_scan: Timestamp(0),
            was_mounted: false,
        }
    }

    /// The same watch, which also takes up again what has changed since it came to that quarantine.
    #[must_use]
    pub fn rechecking(self, quarantine: impl Into<String>) -> Watcher {
        Watcher { rechecked: Some(quarantine.into()), ..self }
    }

    /// The same watch with the same status, which remembers nothing but what the store holds.
    pub fn anew(&self) -> Watcher {
        let (io, starter, reader) = (self.io.clone(), self.starter.clone(), self.reader.clone());
        let (status, rechecked) = (self.status.clone(), self.rechecked.clone());
        Watcher { status, rechecked, ..Watcher::new(self.settings.clone(), io, starter, reader) }
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
                self.land_again().await?;
                self.recheck().await?;
            }
            let mut status = self.status.lock();
            status.waiting = self.settling.waiting().count();
            status.in_flight = self.running.len();
            status.problems = self.problems.shown();
            status.troubles = status.problems.clone();
        }
    }

    /// What an earlier run of this box left: what landed, what still runs and takes up its room, what failed and is to be
    /// tried again, and the mount.
    async fn recall(&mut self) -> Result<(), Fault> {
        let (settings, mut settling) = (self.settings.clone(), self.take_settling());
        let (mut again, clocks) = (Again::default(), (self.starter.now(), self.starter.wall()));
        let recall = move |rows: &Scans| {
            let mut see = |key: &str, name: &str| -> Result<(), Fault> {
                let Some(execution) = again::of_name(rows, settings.machine(), name)? else { return Ok(()) };
                let ended = EndedRun::of(rows, execution)?;
                if let Some(due) = Due::after(&ended, run_of(name), settings.retry, clocks) {
                    again.put(key.to_owned(), due);
                }
                Ok(())
            };
            land::recall(rows, &settings.share, &mut settling, &mut see)?;
            Ok::<_, Fault>((settling, again))
        };
        (self.settling, self.again) = self.reader.blocking(recall).await?;
        let settings = self.settings.clone();
        self.running = self.reader.blocking(move |rows| land::running(rows, &settings)).await?;
        self.was_mounted = self.reader.setting(&self.mounted_key())?.is_some();
        Ok(())
    }

    /// The files that wait or landed; whoever takes them brings them back.
    fn take_settling(&mut self) -> Settling {
        std::mem::replace(
            &mut self.settling,
            Settling::new(self.settings.settle, self.settings.incomplete, WAITING_MAX),
        )
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
            .into_iter()
            .chain(self.again.next_due())
            .min()
            .filter(|_| !away)
            .map(|due| if full { due.max(now.plus_ms(ROOM_MS)) } else { due });
        let next = due.map_or(self.next_scan, |due| due.min(self.next_scan));
        Duration::from_millis(next.since_ms(now).clamp(1, 60_000) as u64)
    }

    /// Does something below the root of the share. The error says why the share counts as away: what is not mounted looks
    /// empty, also from the moment on that it goes.
    async fn on_share<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (share, was_mounted) = (self.settings.share.clone(), self.was_mounted);
        let work = move |shares: &Shares| {
            let root = shares.root(&share).map_err(|e| e.to_string())?;
            let said = |e: std::io::Error| format!("{}: {e}", root.display());
            let root = root.canonicalize().map_err(said)?;
            let is_mounted = || shares::is_mount_point(&root).map_err(said);
            let before = is_mounted()?;
            if let Some(why) = shares.away(&share, was_mounted, before) {
                return Err(why);
            }
            let done = work(&root)?;
            match before && !is_mounted()? {
                true => Err(format!("{} was unmounted while it was looked at", root.display())),
                false => Ok(done),
            }
        };
        self.io.run(&[&self.settings.share], work).await.map_err(|e| fault::chain(&e))?
    }

    async fn open_fs_watcher(&mut self, sender: mpsc::Sender<PathBuf>) -> Option<RecommendedWatcher> {
        let opened = self.on_share(move |root| Ok(events::open(root, sender)));
        // Of a share that is away the next scan says so.
        match opened.await.ok()? {
            Ok(fs_watcher) => {
                self.problems.resolved("events");
                Some(fs_watcher)
            }
            Err(error) => {
                self.problems.report(
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

    /// What lies under a key.
    async fn look(&self, key: &str) -> Result<PathState, String> {
        let (key, suffixes) = (key.to_owned(), self.settings.suffixes.clone());
        self.on_share(move |root| Ok(scan::inspect(root, &root.join(key), &suffixes))).await
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
                PathState::Gone { key } => {
                    self.settling.gone(&key);
                    self.again.forget(&key);
                }
                // A folder that was moved in brings files for which there are no events.
                PathState::Folder => self.next_scan = self.next_scan.min(now),
                // The next scan says what cannot be read.
                PathState::Unreadable { .. } | PathState::Other => {}
            }
        }
    }

    async fn scan(&mut self) -> Result<(), Fault> {
        let now = self.starter.now();
        self.next_scan = now.plus_ms(self.settings.scan.ms as i64);
        self.count_running().await?;
        let suffixes = self.settings.suffixes.clone();
        let settling = Arc::new(Mutex::new(self.take_settling()));
        let lent = settling.clone();
        let walked = self.on_share(move |root| {
            let mut settling = lent.lock();
            let see = |key: &str, file_state| {
                settling.observe(key, file_state, now);
            };
            let scan = scan::scan(root, &suffixes, see);
            let mounted = shares::is_mount_point(root);
            scan.and_then(|scan| Ok((scan, mounted?))).map_err(|e| format!("{}: {e}", root.display()))
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
        self.problems.met(&scan);
        self.status.lock().last_scan_ms = Some(self.starter.wall().0);
        let (is_complete, Scan { seen, foreign, .. }) = (scan.is_complete(), scan);
        if is_complete {
            self.again.keep_only(&seen);
        }
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
            let (state, look) = match self.inspect_content(&key).await {
                Ok(seen) => seen,
                Err(why) => return self.away(why),
            };
            match state {
                PathState::File { file_state: again, .. } if again == file_state => {
                    if look.as_ref().is_some_and(|look| !self.settling.may_take(&key, look, now)) {
                        continue;
                    }
                    self.land(&key, file_state, look, 1, None).await?;
                }
                PathState::File { file_state: again, .. } => {
                    self.settling.observe(&key, again, now);
                }
                PathState::Unreadable { .. } => self.settling.wait_on(&key, now),
                _ => self.settling.gone(&key),
            }
        }
        Ok(())
    }

    /// Tries again what failed and still lies there.
    async fn land_again(&mut self) -> Result<(), Fault> {
        let now = self.starter.now();
        let room = self.settings.in_flight.saturating_sub(self.running.len());
        let mut all_due = self.again.take_due(now, room).into_iter();
        while let Some((key, due)) = all_due.next() {
            let (state, look) = match self.inspect_content(&key).await {
                Ok(seen) => seen,
                Err(why) => {
                    std::iter::once((key, due)).chain(all_due).for_each(|(key, due)| self.again.put(key, due));
                    return self.away(why);
                }
            };
            let file_state = match state {
                PathState::File { file_state, .. } => file_state,
                PathState::Unreadable { .. } => {
                    let at = now.plus_ms(self.settings.scan.ms as i64);
                    self.again.put(key, Due { at, ..due });
                    continue;
                }
                _ => continue,
            };
            // Another content under the name goes its own way.
            if !self.settling.has_landed(&key, file_state) {
                continue;
            }
            // It was found to change, and still does: it is waited for as at first.
            if due.error.ends_with(".Changed") && look.as_ref().is_some_and(|look| look.missing.is_some()) {
                self.settling.gone(&key);
                self.settling.observe(&key, file_state, now);
                continue;
            }
            // Somebody may have had it go on meanwhile.
            let summary = unless_damaged(self.reader.summary(due.execution))?.flatten();
            match summary.map(|execution| execution.status) {
                Some(Status::Running) => drop(self.running.insert(due.execution, key)),
                Some(Status::Failed | Status::TimedOut) => {
                    let (settings, over) = (self.settings.clone(), self.starter.older_than(self.settings.tried_for));
                    let first = name::execution_name(&settings.share, &key, file_state);
                    let tried = move |rows: &Scans| Tried::enough(rows, &settings, (&first, due.run), &over);
                    let tried = self.reader.blocking(tried).await?;
                    self.land(&key, file_state, look, due.run + 1, tried).await?;
                }
                Some(_) => {}
                // Nobody knows how it ended: the next scan finds the file, and its next run.
                None => self.settling.gone(&key),
            }
        }
        self.say_again();
        Ok(())
    }

    /// Gives what has changed in quarantine back to the share, and sees it there as though it was never taken.
    async fn recheck(&mut self) -> Result<(), Fault> {
        let now = self.starter.now();
        let Some(quarantine) = self.rechecked.as_ref().filter(|_| self.second.is_due(self.settings.scan, now)) else {
            return Ok(());
        };
        let place = (quarantine.as_str(), self.was_mounted);
        for key in self.second.round(&self.settings, place, &self.io, &*self.starter).await? {
            self.settling.gone(&key);
            self.again.forget(&key);
            self.next_scan = now;
        }
        Ok(())
    }

    /// A look at a file of the share, and at what it holds.
    async fn inspect_content(&self, key: &str) -> Result<(PathState, Option<Look>), String> {
        let (file, suffixes) = (key.to_owned(), self.settings.suffixes.clone());
        self.on_share(move |root| Ok(scan::inspect_content(root, &root.join(file), &suffixes))).await
    }

    fn say_again(&mut self) {
        match self.again.problem(&self.settings.share) {
            Some(what) => self.problems.report("again", what),
            None => self.problems.resolved("again"),
        }
    }

    /// Starts a run of the file. Where it has been, as of a file that was taken back out of quarantine, the next one
    /// is started, unless that of this very content runs or did what was wanted.
    async fn land(
        &mut self,
        key: &str,
        file_state: FileState,
        look: Option<Look>,
        run: u32,
        tried: Option<Tried>,
    ) -> Result<(), Fault> {
        let settings = self.settings.clone();
        let first = name::execution_name(&settings.share, key, file_state);
        let (sample, name) = (look.map(|look| look.sample.digest), name_of(&first, run));
        let mut start = land::Start { settings: &settings, key, file_state, sample, name, run, tried };
        let mut outcome = land::land(&*self.starter, &start).await;
        if matches!(outcome, Ok(StartOutcome::Existed)) {
            let (machine, of) = (self.settings.machine().to_owned(), first.clone());
            let look = self.reader.blocking(move |rows| again::next_run(rows, &machine, &of));
            if let (next, Some(Status::Failed | Status::TimedOut)) = look.await? {
                (start.name, start.run) = (name_of(&first, next), next);
                outcome = land::land(&*self.starter, &start).await;
            }
        }
        match outcome {
            Ok(StartOutcome::Started(id)) => {
                tracing::info!(share = self.settings.share, key, execution = %id, "a file landed");
                self.running.insert(id, key.to_owned());
                self.settling.landed(key, file_state);
                self.problems.resolved("start");
            }
            Ok(StartOutcome::Existed) => self.settling.landed(key, file_state),
            Ok(StartOutcome::Refused(why)) => {
                self.settling.gone(key);
                self.problems.report(
                    "start",
                    format!(
                        "files on '{}' cannot start '{}': {why}; it is tried again with every scan",
                        settings.share, settings.workflow
                    ),
                );
            }
            Err(fault @ Fault::Fatal { .. }) => return Err(fault),
            Err(fault) => {
                self.settling.gone(key);
                self.problems.report("start", fault::chain(&fault));
            }
        }
        Ok(())
    }

    /// Leaves in `running` what still runs, and takes note of what failed and left its file where it was.
    async fn count_running(&mut self) -> Result<(), Fault> {
        let running: Vec<ExecutionId> = self.running.keys().copied().collect();
        let look = move |rows: &Scans| -> Result<Vec<(ExecutionId, Option<EndedRun>)>, Fault> {
            let mut ended = Vec::new();
            for id in running {
                // One that is damaged takes up no room for ever; the next scan finds its file, and the next run of it.
                match unless_damaged(rows.summary(id))?.flatten() {
                    Some(execution) if execution.status == Status::Running => {}
                    Some(execution) => ended.push((id, Some(EndedRun::of(rows, execution)?))),
                    None => ended.push((id, None)),
                }
            }
            Ok(ended)
        };
        for (id, ended) in self.reader.blocking(look).await? {
            let Some(key) = self.running.remove(&id) else { continue };
            let Some(ended) = ended else {
                self.settling.gone(&key);
                continue;
            };
            let run = run_of(&ended.execution.name);
            let clocks = (self.starter.now(), self.starter.wall());
            let Some(due) = Due::after(&ended, run, self.settings.retry, clocks) else { continue };
            // Of a share that is away nobody knows, nor of a file that cannot be looked at: it is when it is due.
            match self.look(&key).await {
                // The run was of what had the name before.
                Ok(PathState::File { file_state, .. })
                    if ended.execution.name
                        != name_of(&name::execution_name(&self.settings.share, &key, file_state), run) => {}
                Ok(PathState::File { file_state, .. }) if !self.settling.has_landed(&key, file_state) => {}
                Ok(PathState::File { .. } | PathState::Unreadable { .. }) | Err(_) => self.again.put(key, due),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    async fn quarantine(&mut self, path: PathBuf, now: Timestamp) {
        let topic = format!("name {}", path.display());
        let Some(share) = &self.settings.quarantine else {
            let what = format!(
                "{} has a name that is not UTF-8 and stays where it is; rename it, or set quarantine",
                path.display()
            );
            return self.problems.report(&topic, what);
        };
        match land::put_away(&self.io, &self.settings, share, path, now).await {
            Ok(Some(name)) => tracing::warn!(
                share = self.settings.share,
                name,
                "a file with a name that is not UTF-8 went to quarantine"
            ),
            Ok(None) => {}
            Err(error) => self
                .problems
                .report(&topic, format!("a file whose name is not UTF-8 cannot be moved to quarantine: {error}")),
        }
    }

    fn mounted_key(&self) -> String {
        shares::mounted_setting(&self.settings.share)
    }
}

/// The how manieth run of its file an execution of that name is.
fn run_of(name: &str) -> u32 {
    run_of_name(name).map_or(1, |(_, run)| run)
}
