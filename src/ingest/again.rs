//! Files that a run gave up and that lie where they were dropped: whatever failed was not the file's doing, or it would be
//! in quarantine. They are tried again, with growing pauses, until they go.
//!
//! ```text
//! run n failed, the file still there ──pause(n)──▶ run n+1     pause: some 1, 2, 4 … minutes, up to `retry`
//!    `tries` runs with the same error, over `tried_for` ──────▶ run n+1, which is told so (`tried`)
//!    that failed so as well, and the file still there ──1 day──▶ run n+2
//! ```
//!
//! What is told so belongs to the workflow: ours then puts the file to quarantine. Errors that are of the surroundings
//! whatever the file is count for none.
//!
//! Nothing of it is stored: which run was the last stands in the file's landing, when it ended and with what in the store.

use std::collections::{BTreeMap, HashSet};

use conveyor_base::names::name_of;
use conveyor_base::{ExecutionId, Fault, Older, Span, Timestamp, digest};
use conveyor_interpreter::Status;
use conveyor_store::{ExecutionSummary, Scans, unless_damaged};
use serde_json::{Value, json};

use super::settings::WatchSettings;

/// Files that are kept in mind, some 20 MB; what is beyond is found when the watch starts anew.
const FILES_MAX: usize = 100_000;
const FIRST_PAUSE_MS: u64 = 60_000;
/// The pause after a run that was told that it was the last, where the file still lies there.
const PAUSE_AFTER_LAST_MS: u64 = 24 * 3_600_000;
/// Most runs of a file that are looked back on.
const RUNS_MAX: u32 = 1_000;
/// What an error ends in that says nothing of the file, however often it comes.
const OF_SURROUNDINGS: &[&str] = &[
    ".ShareUnreachable",
    ".DiskFull",
    ".PermissionDenied",
    ".Unwritable",
    ".Changed",
    ".WorkDir",
    ".NoGStreamer",
    "Stage.Killed",
    "Device.Lost",
    "Device.Unusable",
    CANCELED,
];
/// How a run ends whose transcode somebody stopped.
const CANCELED: &str = "MediaConvert.JobCanceled";

/// A file that is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub at: Timestamp,
    /// The run that failed, and the how manieth of this file it was, from 1 on.
    pub execution: ExecutionId,
    pub run: u32,
    pub error: String,
}

impl Due {
    /// When a file is tried again whose run ended so; none where that is no failure, or it is never to be. `now` and what
    /// comes of it are the box's own time, `wall` what dates the run's end: what a clock that was set makes of the age of a
    /// run neither hurries a file nor holds it up. Of many files that failed at once not all are due at once, also where
    /// their time is long over.
    pub fn after(ended: &EndedRun, run: u32, longest: Span, (now, wall): (Timestamp, Timestamp)) -> Option<Due> {
        let execution = &ended.execution;
        let failed = matches!(execution.status, Status::Failed | Status::TimedOut) && longest.ms > 0;
        // What a person stopped stays stopped.
        let stopped = execution.error.as_deref() == Some(CANCELED);
        let ended_at = execution.stopped_at.filter(|_| failed && !stopped)?;
        let pause = FIRST_PAUSE_MS.saturating_mul(1 << (run - 1).min(30)).min(longest.ms);
        let pause = if ended.was_last { pause.max(PAUSE_AFTER_LAST_MS) } else { pause };
        let share = |of: u64| (of / 1_024 * (digest(execution.name.as_bytes()) % 1_024)) as i64;
        let (pause, floor) = (pause as i64 - share(pause / 4), share(pause.min(FIRST_PAUSE_MS)));
        let left = (pause - wall.since_ms(ended_at).clamp(0, pause)).max(floor);
        Some(Due { at: now.plus_ms(left), execution: execution.id, run, error: error_of(execution) })
    }
}

/// A run that is over.
pub struct EndedRun {
    pub execution: ExecutionSummary,
    /// It was told what the runs before it failed with, and failed so as well.
    pub was_last: bool,
}

impl EndedRun {
    /// Of one whose input is damaged nobody knows what it was told: it was not the last.
    pub fn of(rows: &Scans, execution: ExecutionSummary) -> Result<EndedRun, Fault> {
        let failed = matches!(execution.status, Status::Failed | Status::TimedOut);
        let header = if failed { unless_damaged(rows.header(execution.id))?.flatten() } else { None };
        let input = header.and_then(|header| serde_json::from_str::<Value>(&header.input).ok()).unwrap_or_default();
        let was_last = input["tried"]["error"] == error_of(&execution).as_str();
        Ok(EndedRun { execution, was_last })
    }
}

/// An execution by its name, where there is one and it can be read.
pub fn of_name(rows: &Scans, workflow: &str, name: &str) -> Result<Option<ExecutionSummary>, Fault> {
    let summary = |id| unless_damaged(rows.summary(id));
    Ok(unless_damaged(rows.by_name(workflow, name))?.flatten().map(summary).transpose()?.flatten().flatten())
}

fn error_of(execution: &ExecutionSummary) -> String {
    execution.error.clone().unwrap_or_else(|| "States.Timeout".to_owned())
}

/// How often in a row a file failed with the same error, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub runs: u32,
    pub error: String,
    pub since: Timestamp,
}

impl Tried {
    /// Of the runs up to this one; none where they are not enough. Those that say nothing of the file count for none, and
    /// end no row. `first`: the name of the first one, which only runs on the same bytes have. `over`: what is older than
    /// `tried_for`.
    pub fn enough(
        rows: &Scans,
        settings: &WatchSettings,
        (first, last): (&str, u32),
        over: &Older,
    ) -> Result<Option<Tried>, Fault> {
        let mut tried: Option<Tried> = None;
        for run in (1..=last).rev().take(RUNS_MAX as usize) {
            let Some(execution) = of_name(rows, settings.machine(), &name_of(first, run))? else { break };
            let error = error_of(&execution);
            let failed = matches!(execution.status, Status::Failed | Status::TimedOut);
            if failed && OF_SURROUNDINGS.iter().any(|end| error.ends_with(end)) {
                continue;
            }
            if !failed || tried.as_ref().is_some_and(|tried| tried.error != error) {
                break;
            }
            tried = Some(Tried { runs: tried.map_or(0, |tried| tried.runs) + 1, error, since: execution.started_at });
        }
        let is_enough = |tried: &Tried| {
            settings.tries > 0 && tried.runs >= settings.tries && (settings.tried_for.ms == 0 || over.has(tried.since))
        };
        Ok(tried.filter(is_enough))
    }

    pub fn as_json(&self) -> Value {
        json!({ "runs": self.runs, "error": self.error, "since": self.since.to_string() })
    }
}

/// The files of one share that are to be tried again, by their keys.
#[derive(Debug, Default)]
pub struct Again(BTreeMap<String, Due>);

impl Again {
    pub fn put(&mut self, key: String, due: Due) {
        if self.0.len() < FILES_MAX || self.0.contains_key(&key) {
            self.0.insert(key, due);
        }
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.0.values().map(|due| due.at).min()
    }

    /// Takes out what is due.
    pub fn take_due(&mut self, now: Timestamp, most: usize) -> Vec<(String, Due)> {
        let mut due: Vec<_> = self.0.iter().filter(|(_, due)| due.at <= now).collect();
        due.sort_by_key(|(_, due)| due.at);
        let due: Vec<_> = due.into_iter().take(most).map(|(key, due)| (key.clone(), due.clone())).collect();
        due.iter().for_each(|(key, _)| drop(self.0.remove(key)));
        due
    }

    pub fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Forgets every file that a complete scan did not see.
    pub fn keep_only(&mut self, seen: &HashSet<u64>) {
        self.0.retain(|key, _| seen.contains(&digest(key.as_bytes())));
    }

    /// What a person should know, in a sentence that stays the same while nothing changes.
    pub fn problem(&self, share: &str) -> Option<String> {
        let (key, due) = self.0.iter().next()?;
        let count = self.0.len();
        Some(format!(
            "{count} of the files on '{share}' could not be done, such as '{key}' ({}): nothing says that it is the file's \
             fault, so they stay and are tried again. Their executions say what failed",
            due.error
        ))
    }
}

/// The first run that has not been, and how the one before it ended: of a file that lies there again after its landing was
/// forgotten, as when somebody took it back out of quarantine.
pub fn next_run(rows: &Scans, workflow: &str, first: &str) -> Result<(u32, Option<Status>), Fault> {
    let mut last = None;
    for run in 1.. {
        let id = unless_damaged(rows.by_name(workflow, &name_of(first, run)))?;
        if id == Some(None) {
            return Ok((run, last));
        }
        // Of what is damaged nobody knows that it did what was wanted.
        let execution = id.flatten().map(|id| unless_damaged(rows.summary(id))).transpose()?.flatten().flatten();
        last = Some(execution.map_or(Status::Failed, |execution| execution.status));
    }
    Ok((u32::MAX, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_neither_hurries_a_file_nor_holds_it_up() {
        let hour = 3_600_000;
        let failed = |stopped_at: i64, error: &str, was_last: bool| EndedRun {
            was_last,
            execution: ExecutionSummary {
                id: ExecutionId(1),
                name: "clip-0123456789abcdef".into(),
                machine: conveyor_interpreter::MachineRef { name: "main".into(), revision: 1, qualifier: None },
                status: Status::Failed,
                started_at: Timestamp(0),
                stopped_at: Some(Timestamp(stopped_at)),
                error: Some(error.into()),
                redrive_count: 0,
                redriven_at: None,
                last_event: conveyor_base::EventId(9),
                parent: None,
                child: None,
            },
        };
        let (longest, day) = (Span { ms: 3_600_000 }, 24 * hour);
        let now = Timestamp(1_000 * hour);
        for ahead in [-5 * hour, 0, 26 * 365 * 24 * hour] {
            let wall = now.plus_ms(ahead);
            let due = |age: i64, run, last| {
                Due::after(&failed(wall.0 - age, "x", last), run, longest, (now, wall)).unwrap().at.since_ms(now)
            };
            let is =
                |due: i64, pause: i64| assert!((pause * 3 / 4..=pause).contains(&due), "{due} of {pause}, {ahead}");
            is(due(0, 1, false), 60_000);
            is(due(0, 9, false), hour);
            is(due(0, 9, true), day);
            assert_eq!(due(0, 1, false) - due(10_000, 1, false), 10_000);
            // Its time is over, and that of a thousand others.
            assert!((1..60_000).contains(&due(hour, 9, false)));
            // It ended by a clock that was put back since.
            is(due(-7 * hour, 1, false), 60_000);
        }
        assert!(Due::after(&failed(0, CANCELED, false), 1, longest, (now, now)).is_none(), "a person stopped it");
    }
}
