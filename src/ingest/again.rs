//! Files that a run gave up and that lie where they were dropped: whatever failed was not the file's doing, or it would be
//! in quarantine. They are tried again, with growing pauses, until they go.
//!
//! ```text
//! run n failed, the file still there ──pause(n)──▶ run n+1     pause: 1, 2, 4 … minutes, up to `retry`
//! ```
//!
//! Nothing of it is stored: which run was the last stands in the file's landing, when it ended in the store.

use std::collections::{BTreeMap, HashSet};

use conveyor_base::{ExecutionId, Fault, Span, Timestamp, digest};
use conveyor_interpreter::Status;
use conveyor_store::{ExecutionSummary, Scans};

/// Files that are kept in mind; what is beyond is found when the watch starts anew.
const FILES_MAX: usize = 10_000;
const FIRST_PAUSE_MS: u64 = 60_000;
/// What an execution's name ends in.
const HASH_CHARS: usize = 16;

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
    /// When a file is tried again whose run ended so; none where that is no failure, or it is never to be.
    pub fn after(execution: &ExecutionSummary, run: u32, longest: Span) -> Option<Due> {
        let failed = matches!(execution.status, Status::Failed | Status::TimedOut) && longest.ms > 0;
        let ended = execution.stopped_at.filter(|_| failed)?;
        let pause = FIRST_PAUSE_MS.saturating_mul(1 << (run - 1).min(30)).min(longest.ms);
        let error = execution.error.clone().unwrap_or_else(|| "States.Timeout".to_owned());
        Some(Due { at: ended.plus_ms(pause as i64), execution: execution.id, run, error })
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
        let due = self.0.iter().filter(|(_, due)| due.at <= now).take(most);
        let due: Vec<_> = due.map(|(key, due)| (key.clone(), due.clone())).collect();
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
             fault, so they stay and are tried again until they go. Their executions say what failed",
            due.error
        ))
    }
}

/// The how manieth run of its file an execution is, from 1 on, by its name: `…-0123456789abcdef` is the first,
/// `…-0123456789abcdef-2` the second.
pub fn run_of_name(name: &str) -> u32 {
    let last = name.rsplit('-').next().unwrap_or_default();
    if last.len() < HASH_CHARS { last.parse().unwrap_or(1) } else { 1 }
}

/// The name of a file's run.
pub fn name_of(first: &str, run: u32) -> String {
    if run <= 1 { first.to_owned() } else { format!("{first}-{run}") }
}

/// The first run that has not been, and how the one before it ended: of a file that lies there again after its landing was
/// forgotten, as when somebody took it back out of quarantine.
pub fn next_run(rows: &Scans, workflow: &str, first: &str) -> Result<(u32, Option<Status>), Fault> {
    let mut last = None;
    for run in 1.. {
        let Some(id) = rows.by_name(workflow, &name_of(first, run))? else { return Ok((run, last)) };
        last = rows.summary(id)?.map(|execution| execution.status);
    }
    Ok((u32::MAX, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_file_are_told_apart_by_their_names() {
        assert_eq!(name_of("clip-0123456789abcdef", 1), "clip-0123456789abcdef");
        assert_eq!(name_of("clip-0123456789abcdef", 12), "clip-0123456789abcdef-12");
        for run in [1, 2, 60, 1_234] {
            assert_eq!(run_of_name(&name_of("clip-7-0123456789abcdef", run)), run);
            assert_eq!(run_of_name(&name_of("clip-0123456789012345", run)), run);
        }
    }
}
