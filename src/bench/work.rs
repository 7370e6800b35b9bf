//! What all sections share: the run's own folders, its children, how far it is, and how it stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conveyor_base::{Shares, TaskError, Uri};
use conveyor_job::{Access, Device, Job};
use conveyor_sandbox::{ChildProcesses, Spawn as _};
use parking_lot::Mutex;
use serde_json::Value;

use super::report::Mode;

/// How the folders of runs begin; the rest is the process's number. Hidden, so that no watch takes what is in them.
const PREFIX: &str = ".conveyor-bench-";
const REMOVALS_MAX: usize = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);
/// The share that holds the run's own media.
pub const SHARE: &str = "bench";

/// A folder of this run's own, removed however the run ends; what a killed run left beside it is removed first.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn make(parent: &Path) -> std::io::Result<Scratch> {
        sweep(parent);
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut end = std::fs::remove_dir_all(&self.0);
        // A child that was killed a moment ago may have made another file while the folder was emptied.
        for _ in 0..REMOVALS_MAX {
            if end.is_ok() {
                return;
            }
            std::thread::sleep(REMOVAL_PAUSE);
            end = std::fs::remove_dir_all(&self.0);
        }
        if let Err(error) = end {
            tracing::warn!(folder = %self.0.display(), %error, "the benchmark's folder could not be removed; remove it by hand");
        }
    }
}

/// Removes the folders of runs that are no more.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // It stays where it may not be removed, and the next run tries again.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Tells threads that nobody waits for them any more. Dropping it stops them.
#[derive(Debug, Default)]
pub struct Stopper(Arc<AtomicBool>);

/// What threads ask.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stopper {
    pub fn stop(&self) -> Stop {
        Stop(self.0.clone())
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Stop {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// For those who ask it themselves.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }

    pub fn check(&self) -> std::io::Result<()> {
        if self.is_set() { Err(std::io::Error::other("stopped")) } else { Ok(()) }
    }
}

/// How far the run is, for the terminal.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    pub doing: String,
    /// 0 to 1.
    pub fraction: f64,
    pub seconds_left: f64,
}

/// Called when something begins and while it goes on.
pub type OnTick = Arc<dyn Fn(Tick) + Send + Sync>;

#[derive(Default)]
struct Pace {
    expected_total: f64,
    expected_done: f64,
    took: f64,
}

/// The run as its sections see it.
pub struct Work {
    pub mode: Mode,
    pub cores: usize,
    scratch: Scratch,
    shares: Shares,
    children: ChildProcesses,
    on_tick: OnTick,
    begun: Instant,
    /// How long a quick run may take, of what it takes on a fast box.
    patience: f64,
    pace: Mutex<Pace>,
    jobs: AtomicU64,
    stopper: Stopper,
}

impl Work {
    /// Works in a folder of its own below `data_dir`; `children` are told where to keep their lists of plug-ins, `also` are
    /// folders that they may read, as shares.
    pub fn begin(
        mode: Mode,
        patience: f64,
        data_dir: &Path,
        children: impl FnOnce(PathBuf) -> ChildProcesses,
        also: Vec<(String, PathBuf)>,
        on_tick: OnTick,
    ) -> std::io::Result<Work> {
        std::fs::create_dir_all(data_dir)?;
        let scratch = Scratch::make(&data_dir.canonicalize()?)?;
        let media = scratch.path().join(SHARE);
        std::fs::create_dir(&media)?;
        let children = children(scratch.path().join("gstreamer"));
        Ok(Work {
            mode,
            cores: conveyor_hw::Cpu::read().cores.max(1),
            shares: Shares::new(also.into_iter().chain([(SHARE.to_owned(), media)])),
            scratch,
            children,
            on_tick,
            begun: Instant::now(),
            patience,
            pace: Mutex::default(),
            jobs: AtomicU64::new(0),
            stopper: Stopper::default(),
        })
    }

    /// On the disk that holds the appliance's data.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    pub fn stop(&self) -> Stop {
        self.stopper.stop()
    }

    /// Runs one stage in a child of its own, with these many cores and no GPU.
    pub async fn stage(&self, stage: &str, parameters: Value, threads: usize) -> Result<Value, TaskError> {
        self.stage_on(None, stage, parameters, threads).await
    }

    /// The same with a GPU, as the lanes would lease it.
    pub async fn stage_on(
        &self,
        device: Option<Device>,
        stage: &str,
        parameters: Value,
        threads: usize,
    ) -> Result<Value, TaskError> {
        let number = self.jobs.fetch_add(1, Ordering::Relaxed);
        let work_dir = self.scratch.path().join(format!("work-{number}"));
        std::fs::create_dir(&work_dir)
            .map_err(|e| TaskError::new("Media.WorkDir", format!("cannot make {}: {e}", work_dir.display())))?;
        let shares = self.shares.clone();
        // The run's own files, and those that somebody gave it to measure with.
        let everything = || shares.names().map(|share| Uri::new(share, ""));
        let access = Access { reads: everything().collect(), places: everything().collect(), ..Access::default() };
        let stage = stage.to_owned();
        let job =
            Job { stage, parameters, work_dir: work_dir.clone(), shares: shares.clone(), access, threads, device };
        let end = self.children.spawn(job, Box::new(|_| {})).await;
        // The run's folder takes along what stays.
        let _ = std::fs::remove_dir_all(work_dir);
        end
    }

    /// Whether a quick run has used up so many of its seconds: a slow or busy box is measured less, never for long.
    pub fn is_late(&self, quick_seconds: f64) -> bool {
        self.mode == Mode::Quick && self.begun.elapsed().as_secs_f64() > quick_seconds * self.patience
    }

    /// Says how long the sections that are to come will take.
    pub fn expect(&self, seconds: f64) {
        self.pace.lock().expected_total += seconds;
    }

    /// Does one thing that is expected to take so long; the time left follows from how such guesses came out so far.
    pub async fn step<T>(&self, doing: &str, expected_seconds: f64, work: impl Future<Output = T>) -> T {
        self.tick(doing, 0.0);
        let begun = Instant::now();
        let mut work = std::pin::pin!(work);
        let mut clock = tokio::time::interval(Duration::from_millis(250));
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = clock.tick() => self.tick(doing, begun.elapsed().as_secs_f64().min(expected_seconds)),
            }
        };
        let mut pace = self.pace.lock();
        pace.expected_done += expected_seconds;
        pace.took += begun.elapsed().as_secs_f64();
        done
    }

    fn tick(&self, doing: &str, into: f64) {
        let pace = self.pace.lock();
        // The first guesses weigh as much as what was seen since, so that one slow step does not shock.
        let slowness = (pace.took + 10.0) / (pace.expected_done + 10.0);
        let left = (pace.expected_total - pace.expected_done - into).max(0.0);
        let fraction = 1.0 - left / pace.expected_total.max(1.0);
        drop(pace);
        (self.on_tick)(Tick { doing: doing.to_owned(), fraction, seconds_left: left * slowness });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_leaves_no_folder_and_removes_those_of_dead_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (dead, other) = (dir.path().join(format!("{PREFIX}999999999")), dir.path().join(".other"));
        std::fs::create_dir(&dead).unwrap();
        std::fs::create_dir(&other).unwrap();
        let scratch = Scratch::make(dir.path()).unwrap();
        std::fs::write(scratch.path().join("file"), "x").unwrap();
        assert!(scratch.path().is_dir() && !dead.exists() && other.exists());
        drop(scratch);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
