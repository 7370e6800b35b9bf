//! The files of earlier runs and of baselines: `data_dir/benchmarks/`.
//!
//! Files and not rows of the store: the store belongs to one process at a time, and a benchmark must be able to keep its
//! report while the appliance serves, which in turn only reads these files. Each is written whole and renamed.
//!
//! ```text
//! benchmarks/run-20261121T145912Z.json     a report, the newest RUNS_MAX of them
//! benchmarks/baseline-NAME.json            a report that was saved on purpose; stays until it is removed
//! benchmarks/speeds.json                   what lanes and predictions read: base::speeds
//! ```

use std::io;
use std::path::{Path, PathBuf};

use conveyor_base::speeds::Speeds;
use serde_json::{Value, json};

use super::report::{FORMAT, Mode, Report};

/// Runs that are kept.
const RUNS_MAX: usize = 200;
/// Larger files are none of ours.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Why a kept report cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("there is no {what} in {}", folder.display())]
    Missing { what: String, folder: PathBuf },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no report of this release", path.display())]
    Form { path: PathBuf, source: Option<serde_json::Error> },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("'{0}' cannot name a baseline: use up to 40 letters, digits, '-' and '_'")]
    Name(String),
}

/// Whether a text can be a part of these files' names.
pub fn is_name(text: &str) -> bool {
    (1..=40).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Reads a report from any place.
pub fn read(path: &Path) -> Result<Report, KeptError> {
    let cannot = |source| KeptError::Read { path: path.into(), source };
    if std::fs::metadata(path).map_err(cannot)?.len() > FILE_BYTES_MAX {
        return Err(KeptError::Form { path: path.into(), source: None });
    }
    let bytes = std::fs::read(path).map_err(cannot)?;
    let form = |source| KeptError::Form { path: path.into(), source };
    let report: Report = serde_json::from_slice(&bytes).map_err(|e| form(Some(e)))?;
    if report.format == FORMAT { Ok(report) } else { Err(form(None)) }
}

/// Keeps a run, and lets the oldest go.
pub fn keep(data_dir: &Path, report: &Report) -> Result<PathBuf, KeptError> {
    let path = Speeds::folder(data_dir).join(format!("run-{}.json", report.id));
    write(&path, report)?;
    let runs = runs(data_dir);
    for old in &runs[..runs.len().saturating_sub(RUNS_MAX)] {
        // One that stays is only one too many.
        let _ = std::fs::remove_file(old);
    }
    Ok(path)
}

/// Saves a run under a name of its own.
pub fn save_baseline(data_dir: &Path, name: &str, report: &Report) -> Result<PathBuf, KeptError> {
    if !is_name(name) {
        return Err(KeptError::Name(name.to_owned()));
    }
    let path = Speeds::folder(data_dir).join(format!("baseline-{name}.json"));
    write(&path, report)?;
    Ok(path)
}

/// A baseline by its name, or by the path of any report.
pub fn baseline(data_dir: &Path, text: &str) -> Result<Report, KeptError> {
    let named = Speeds::folder(data_dir).join(format!("baseline-{text}.json"));
    let path = if is_name(text) && named.is_file() { named } else { PathBuf::from(text) };
    if path.is_file() {
        return read(&path);
    }
    Err(KeptError::Missing { what: format!("baseline '{text}'"), folder: Speeds::folder(data_dir) })
}

/// Earlier runs of one mode, the oldest first; unreadable ones are passed over.
pub fn history(data_dir: &Path, mode: Mode) -> Vec<Report> {
    let reports = runs(data_dir).into_iter().filter_map(|path| read(&path).ok());
    reports.filter(|report| report.mode == mode).collect()
}

/// All runs as a list shows them, the newest first.
pub fn summaries(data_dir: &Path) -> Vec<Value> {
    let mut shown: Vec<Value> = Vec::new();
    for path in runs(data_dir).iter().rev() {
        let Ok(report) = read(path) else { continue };
        let against = report.comparisons.first();
        shown.push(json!({
            "id": report.id,
            "startedAt": report.started_at.0,
            "tookSeconds": report.took_seconds,
            "mode": report.mode,
            "version": report.version,
            "disturbed": report.disturbed,
            "capacity": report.capacity,
            "comparison": against.map(|c| json!({"against": c.against, "better": c.better, "worse": c.worse, "same": c.same})),
        }));
    }
    shown
}

/// One run by its id.
pub fn run(data_dir: &Path, id: &str) -> Result<Report, KeptError> {
    let missing = || KeptError::Missing { what: format!("run '{id}'"), folder: Speeds::folder(data_dir) };
    let path = Speeds::folder(data_dir).join(format!("run-{id}.json"));
    if !is_name(id) || !path.is_file() {
        return Err(missing());
    }
    read(&path)
}

/// The files of runs, the oldest first: their names say when.
fn runs(data_dir: &Path) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> = std::fs::read_dir(Speeds::folder(data_dir))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("run-") && name.ends_with(".json")
        })
        .collect();
    runs.sort();
    runs
}

/// Writes a report whole or not at all.
pub fn write(path: &Path, report: &Report) -> Result<(), KeptError> {
    let cannot = |source| KeptError::Write { path: path.into(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(cannot)?;
    }
    let bytes = serde_json::to_vec_pretty(report).map_err(|e| cannot(e.into()))?;
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, path)).map_err(cannot)
}
