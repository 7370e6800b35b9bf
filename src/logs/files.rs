//! The files of log groups: one a day and group, more where one grows too long; old ones go.
//!
//! Invariants: no group's name leads out of the root; only files whose names this module makes are ever removed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use conveyor_base::{Older, Span, Timestamp};
use serde::Deserialize;

/// Files kept open at once.
const OPEN_MAX: usize = 64;
const MIB: u64 = 1_048_576;

/// `[logs]`: how much of what state machines log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// Files of days that are longer ago than this are removed.
    pub keep: Span,
    /// A file that is longer is closed, and the next one of the day begins.
    pub file_mib: u64,
    /// All groups together; beyond it the oldest files go.
    pub total_mib: u64,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { keep: Span::days(30), file_mib: 64, total_mib: 4_096 }
    }
}

impl LogSettings {
    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.file_mib == 0 {
            faults.push("file_mib: must be at least 1".to_owned());
        }
        if self.total_mib < self.file_mib {
            faults.push("total_mib: is less than file_mib, so the file that is written could not stay".to_owned());
        }
        faults
    }
}

/// What went wrong with a log file.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct WriteFault {
    path: PathBuf,
    // Shown in `Display`, as nobody chains it: it is said in one line and the lines are dropped.
    source: std::io::Error,
}

/// A log file, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFile {
    /// `2026-01-31`
    pub day: String,
    /// Its place among those of the day.
    pub number: u32,
    pub group: String,
    pub path: PathBuf,
}

/// All log files below a root, oldest first.
pub fn list(root: &Path) -> std::io::Result<Vec<LogFile>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if let Some((day, number)) = path.file_name().and_then(|name| read_name(name.to_str()?)) {
                let group = folder.strip_prefix(root).unwrap_or(&folder).display().to_string();
                found.push(LogFile { day, number, group, path });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The folder of a log group. Its name's parts become folders, but for those that would mean something else.
pub fn folder(root: &Path, group: &str) -> PathBuf {
    let mut folder = root.to_owned();
    for part in group.split('/').filter(|part| !part.is_empty()) {
        match part.starts_with('.') || read_name(part).is_some() || part.contains('\0') {
            true => folder.push(format!("_{}", part.replace('\0', ""))),
            false => folder.push(part),
        }
    }
    if folder == root { root.join("_") } else { folder }
}

/// `2026-01-31.jsonl` and `2026-01-31.2.jsonl`.
fn read_name(name: &str) -> Option<(String, u32)> {
    let stem = name.strip_suffix(".jsonl")?;
    let (day, number) = match stem.split_once('.') {
        Some((day, number)) => (day, number.parse().ok()?),
        None => (stem, 0),
    };
    day.parse::<jiff::civil::Date>().ok()?;
    Some((day.to_owned(), number))
}

fn name(day: &str, number: u32) -> String {
    match number {
        0 => format!("{day}.jsonl"),
        number => format!("{day}.{number}.jsonl"),
    }
}

/// The files that are written.
pub(super) struct LogFiles {
    root: PathBuf,
    settings: LogSettings,
    open: HashMap<String, Open>,
    /// The day on which old files were last looked for.
    tidied_on: String,
}

struct Open {
    file: File,
    path: PathBuf,
    day: String,
    number: u32,
    bytes: u64,
}

impl LogFiles {
    pub fn new(root: PathBuf, settings: LogSettings) -> LogFiles {
        LogFiles { root, settings, open: HashMap::new(), tidied_on: String::new() }
    }

    /// Appends whole lines to the group's file of that moment.
    /// `old`: what is older than files are kept.
    pub fn append(&mut self, group: &str, lines: &str, now: Timestamp, old: &Older) -> Result<(), WriteFault> {
        let today = day_of(now);
        if self.tidied_on != today {
            self.tidied_on.clone_from(&today);
            self.tidy(old);
        }
        let fits = self.open.get(group).is_some_and(|open| open.day == today && open.bytes < self.limit());
        if !fits {
            self.begin(group, &today)?;
            self.tidy(old);
        }
        let Some(open) = self.open.get_mut(group) else { return Ok(()) };
        let failed = |source| WriteFault { path: open.path.clone(), source };
        match open.file.write_all(lines.as_bytes()) {
            Ok(()) => {
                open.bytes += lines.len() as u64;
                Ok(())
            }
            Err(e) => {
                let fault = failed(e);
                // Half a line may stand there: the next ones begin on a line of their own, in a file opened anew.
                let _ = open.file.write_all(b"\n");
                self.open.remove(group);
                Err(fault)
            }
        }
    }

    fn limit(&self) -> u64 {
        self.settings.file_mib.saturating_mul(MIB)
    }

    /// Opens the day's last file, or the next one where that is full.
    fn begin(&mut self, group: &str, today: &str) -> Result<(), WriteFault> {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        let folder = folder(&self.root, group);
        fs::create_dir_all(&folder).map_err(|source| WriteFault { path: folder.clone(), source })?;
        let mut number = match self.open.remove(group) {
            Some(open) if open.day == today => open.number,
            _ => 0,
        };
        loop {
            let path = folder.join(name(today, number));
            let opened = OpenOptions::new().create(true).append(true).mode(0o640).open(&path);
            let file = opened.map_err(|source| WriteFault { path: path.clone(), source })?;
            let bytes = file.metadata().map_or(0, |metadata| metadata.len());
            if bytes < self.limit() {
                let open = Open { file, path, day: today.to_owned(), number, bytes };
                self.open.insert(group.to_owned(), open);
                return Ok(());
            }
            number += 1;
        }
    }

    /// Removes what is too old, and the oldest of what is too much. What cannot be removed stays for the next time.
    fn tidy(&self, old: &Older) {
        let Ok(files) = list(&self.root) else { return };
        let mut sizes: Vec<(&LogFile, u64)> =
            files.iter().map(|file| (file, fs::metadata(&file.path).map_or(0, |m| m.len()))).collect();
        let mut total: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
        let most = self.settings.total_mib.saturating_mul(MIB);
        let written = |file: &LogFile| self.open.values().any(|open| open.path == file.path);
        sizes.retain(|(file, _)| !written(file));
        for (file, bytes) in sizes {
            if (dates_of(&file.day).is_some_and(|dates| old.has_all(dates)) || total > most)
                && fs::remove_file(&file.path).is_ok()
            {
                total -= bytes;
            }
        }
    }
}

fn day_of(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

const DAY_MS: i64 = 86_400_000;

/// The dates of a day, as `2026-01-31`.
fn dates_of(day: &str) -> Option<Range<Timestamp>> {
    let date: jiff::civil::Date = day.parse().ok()?;
    let begin = Timestamp(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond());
    Some(begin..begin.plus_ms(DAY_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_follow_the_days_and_old_ones_go() {
        let root = tempfile::tempdir().unwrap();
        let settings = LogSettings { keep: Span::days(2), file_mib: 1, total_mib: 100 };
        let mut files = LogFiles::new(root.path().to_owned(), settings);
        let start = Timestamp(1_767_225_600_000); // 2026-01-01
        let old = |now: Timestamp| Older::than(now.plus_ms(-2 * DAY_MS));
        let long = format!("{}\n", "x".repeat(700_000));
        for _ in 0..3 {
            files.append("/aws/vendedlogs/A", &long, start, &old(start)).unwrap();
        }
        let next = start.plus_ms(DAY_MS);
        files.append("B", "{}\n", next, &old(next)).unwrap();
        let names =
            |files: &[LogFile]| files.iter().map(|f| (f.day.clone(), f.number, f.group.clone())).collect::<Vec<_>>();
        let owned = |day: &str, number, group: &str| (day.to_owned(), number, group.to_owned());
        let all = [
            owned("2026-01-01", 0, "aws/vendedlogs/A"),
            owned("2026-01-01", 1, "aws/vendedlogs/A"),
            owned("2026-01-02", 0, "B"),
        ];
        assert_eq!(names(&list(root.path()).unwrap()), all);
        // A restart goes on where the last file ended.
        let mut files = LogFiles::new(root.path().to_owned(), settings);
        let next = start.plus_ms(DAY_MS);
        files.append("B", "{}\n", next, &old(next)).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("B/2026-01-02.jsonl")).unwrap(), "{}\n{}\n");
        let later = start.plus_ms(3 * DAY_MS);
        files.append("B", "{}\n", later, &old(later)).unwrap();
        let left = [owned("2026-01-02", 0, "B"), owned("2026-01-04", 0, "B")];
        assert_eq!(names(&list(root.path()).unwrap()), left);
    }

    #[test]
    fn no_group_leads_out_of_the_root() {
        let root = Path::new("/logs");
        for (group, expected) in [
            ("/aws/states/x", "/logs/aws/states/x"),
            ("../../etc", "/logs/_../_../etc"),
            ("", "/logs/_"),
            ("2026-01-01.jsonl", "/logs/_2026-01-01.jsonl"),
        ] {
            assert_eq!(folder(root, group), Path::new(expected));
        }
    }
}
