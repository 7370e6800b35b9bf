//! One whole run: sections in their order, what disturbed them, the comparison, and what is kept.

use std::path::{Path, PathBuf};
use std::time::Instant;

use conveyor_base::speeds::Speeds;
use conveyor_base::{Clock, SystemClock, Timestamp};
use conveyor_sandbox::{ChildProcesses, Sandbox};

use super::kept::{self, KeptError};
use super::raw::Engines;
use super::report::{FORMAT, Mode, Report, Section, SectionKind};
use super::surroundings::{self, OTHERS_MAX, Usage};
use super::work::{OnTick, Work};
use super::{capacity, compare, cores, disks, engine, graphs, raw};

pub use super::work::Tick;

/// The cores' encoders come last: on a slow box a quick run leaves some of them out.
const ORDER: [SectionKind; 5] =
    [SectionKind::Raw, SectionKind::Graphs, SectionKind::Store, SectionKind::Shares, SectionKind::Cpu];

/// What to measure, and where.
pub struct Request {
    pub mode: Mode,
    /// A quick run leaves out what it has not come to after this part of its usual time: 1 is all of it.
    pub patience: f64,
    /// Empty for all.
    pub only: Vec<SectionKind>,
    pub data_dir: PathBuf,
    /// The configured shares.
    pub shares: Vec<(String, PathBuf)>,
    /// Instead of the film that the box makes.
    pub clip: Option<PathBuf>,
    /// A baseline's name, or a report's path.
    pub baseline: Option<String>,
    /// What children are started from: this same binary.
    pub program: PathBuf,
    /// How they are held.
    pub sandbox: Sandbox,
    pub on_tick: OnTick,
}

/// Why a run did not come about.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("cannot work in {}; name a folder that can be written with --data-dir", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{} is not a file that can be read", path.display())]
    Clip { path: PathBuf, source: std::io::Error },
    #[error("the report cannot be kept")]
    Kept(#[from] KeptError),
    #[error("the speeds cannot be kept in {}", path.display())]
    Speeds { path: PathBuf, source: std::io::Error },
}

/// Measures, compares and keeps; the report as it is kept.
pub async fn run(request: Request) -> Result<Report, BenchError> {
    let folder = |source| BenchError::Folder { path: request.data_dir.clone(), source };
    let baseline = request.baseline.as_deref().map(|name| kept::baseline(&request.data_dir, name)).transpose()?;
    let (given, also) = given_clip(request.clip.as_deref())?;
    let (begun, started_at) = (Instant::now(), SystemClock.now());
    let usage = Usage::now();
    // Drivers may take their time, and a broken one never answers: not on a thread of the runtime.
    let gpus = tokio::task::spawn_blocking(Engines::look).await.map_err(|e| folder(std::io::Error::other(e)))?;
    let children = |plugins| ChildProcesses::new(request.program.clone(), Some(plugins), request.sandbox.clone());
    let work = Work::begin(request.mode, request.patience, &request.data_dir, children, also, request.on_tick.clone())
        .map_err(folder)?;
    let mut report = Report {
        format: FORMAT,
        id: id(started_at),
        started_at,
        took_seconds: 0.0,
        mode: request.mode,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: surroundings::host(gpus.names()),
        disturbed: disturbed_before(&request.data_dir),
        sections: Vec::new(),
        clip: None,
        capacity: None,
        comparisons: Vec::new(),
    };
    sections(&work, &request, &gpus, given.as_deref(), &mut report).await;
    drop(work);
    let others = usage.and_then(|usage| usage.others_since());
    if let Some(part) = others.filter(|part| *part > OTHERS_MAX) {
        report.disturbed.push(format!("others used {:.0} % of the cores meanwhile", part * 100.0));
    }
    report.capacity = capacity::capacity(&report);
    report.took_seconds = begun.elapsed().as_secs_f64();
    let history = kept::history(&request.data_dir, request.mode);
    if let Some(last) = last_alike(&report, &history) {
        let comparison = compare::compare(&report, last, "last run", &history);
        report.comparisons.push(comparison);
    }
    if let Some(baseline) = baseline {
        let name = request.baseline.as_deref().unwrap_or("baseline");
        report.comparisons.push(compare::compare(&report, &baseline, name, &history));
    }
    kept::keep(&request.data_dir, &report)?;
    keep_speeds(&request.data_dir, &report)?;
    Ok(report)
}

/// Figures of a disturbed run never take the place of better ones.
fn keep_speeds(data_dir: &Path, report: &Report) -> Result<(), BenchError> {
    let before = Speeds::read(data_dir);
    if !report.disturbed.is_empty() && before.as_ref().is_some_and(|speeds| !speeds.disturbed) {
        return Ok(());
    }
    let speeds = capacity::speeds(report, before);
    if speeds.lanes.is_empty() {
        return Ok(());
    }
    let failed = |source| BenchError::Speeds { path: Speeds::path(data_dir), source };
    speeds.write(data_dir).map_err(failed)
}

/// Folders by the names that they get as shares.
type Folders = Vec<(String, PathBuf)>;

/// The newest run that measured all that this one did; else the newest that measured any of it.
fn last_alike<'a>(report: &Report, history: &'a [Report]) -> Option<&'a Report> {
    let shares = |old: &&Report| report.sections.iter().filter(|s| old.section(s.kind).is_some()).count();
    let whole = history.iter().rev().find(|old| shares(old) == report.sections.len());
    whole.or_else(|| history.iter().rev().find(|old| shares(old) > 0))
}

/// The clip's name on a share of its own, which its folder becomes.
fn given_clip(path: Option<&Path>) -> Result<(Option<String>, Folders), BenchError> {
    const CLIP_SHARE: &str = "clip";
    let Some(path) = path else { return Ok((None, Vec::new())) };
    let cannot = |source| BenchError::Clip { path: path.to_owned(), source };
    let file = path.canonicalize().map_err(cannot)?;
    let name = file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let (Some(folder), Some(name)) = (file.parent(), name) else {
        return Err(cannot(std::io::Error::other("it has no name that is text")));
    };
    Ok((Some(format!("s3://{CLIP_SHARE}/{name}")), vec![(CLIP_SHARE.to_owned(), folder.to_owned())]))
}

async fn sections(work: &Work, request: &Request, gpus: &Engines, given: Option<&str>, report: &mut Report) {
    let lanes = graphs::lanes(&gpus.inventory.gpus);
    let wanted = |kind: &SectionKind| request.only.is_empty() || request.only.contains(kind);
    for kind in SectionKind::ALL.iter().filter(|kind| wanted(kind)) {
        work.expect(match kind {
            SectionKind::Raw => raw::expected_seconds(work.mode, gpus.inventory.gpus.len()),
            SectionKind::Graphs => graphs::expected_seconds(work, lanes.len(), given.is_none()),
            SectionKind::Cpu => cores::expected_seconds(work.mode),
            SectionKind::Shares => disks::expected_seconds(work.mode, request.shares.len()),
            SectionKind::Store => engine::expected_seconds(work),
        });
    }
    for kind in ORDER.into_iter().filter(|kind| wanted(kind)) {
        let usage = Usage::now();
        let mut section = match kind {
            SectionKind::Raw => raw::measure(work, gpus).await,
            SectionKind::Graphs => match graphs::clip(work, given).await {
                Ok(found) => {
                    let section = graphs::measure(work, &found, &lanes).await;
                    report.clip = Some(found);
                    section
                }
                Err(error) => {
                    let mut section = Section::new(kind);
                    section.say(format!("there is no clip to measure with: {}: {}", error.error, error.cause));
                    section
                }
            },
            SectionKind::Cpu => cores::measure(work).await,
            SectionKind::Shares => disks::measure(work, &request.shares).await,
            SectionKind::Store => engine::measure(work).await,
        };
        section.others_cpu = usage.and_then(|usage| usage.others_since());
        report.sections.push(section);
    }
    report.sections.sort_by_key(|section| section.kind);
}

fn disturbed_before(data_dir: &Path) -> Vec<String> {
    let mut disturbed = Vec::new();
    if let Some(pid) = surroundings::appliance(data_dir) {
        disturbed.push(format!("an appliance works with this data directory (process {pid})"));
    }
    if cfg!(debug_assertions) {
        disturbed.push("this is a debug build, which is slower where conveyor's own code runs".to_owned());
    }
    disturbed
}

/// The time without separators, as file names sort.
fn id(at: Timestamp) -> String {
    let whole: String = at.to_string().chars().take_while(|c| *c != '.' && *c != 'Z').collect();
    let digits: String = whole.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    format!("{digits}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_time_does() {
        assert_eq!(id(Timestamp(1_763_736_000_123)), "20251121T144000Z");
    }
}
