//! How a share is watched, and what is shown of it.

use conveyor_base::{Shares, Span};
use serde::{Deserialize, Serialize};

/// `[[watch]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchSettings {
    pub share: String,
    #[serde(default = "suffixes")]
    pub suffixes: Vec<String>,
    #[serde(default = "workflow")]
    pub workflow: String,
    /// Whatever the file system says of a file must stay unchanged for this long: its size, its times, its blocks.
    #[serde(default = "settle")]
    pub settle: Span,
    /// How long a file that seems incomplete is waited for since it last changed: one whose container says that there is more to
    /// come, with holes, or with nothing but zeros at its end. Then it is judged as it is. Zero: it is not waited for.
    #[serde(default = "incomplete")]
    pub incomplete: Span,
    /// How often the whole share is looked at: network shares raise no events for other hosts' writes.
    #[serde(default = "every")]
    pub scan: Span,
    /// Most executions of this watch that run at once.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
    /// From -50 to 50, as MediaConvert's jobs have it: files of higher priority go first.
    #[serde(default)]
    pub priority: i8,
    /// The longest pause before a file is tried again that its failed run left where it was; zero: it is not.
    #[serde(default = "retry")]
    pub retry: Span,
    /// So many runs of one file that failed with the same error, over at least `tried_for`, are enough: the next is told of it
    /// (`tried` of its input), and the workflow puts the file away. Zero: they never are.
    #[serde(default = "tries")]
    pub tries: u32,
    #[serde(default = "tried_for")]
    pub tried_for: Span,
    /// What becomes of a file whose content was processed before.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// The share that takes files whose name is no text; without it they stay where they are.
    pub quarantine: Option<String>,
}

/// What becomes of a dropped file whose content was processed before. The workflow does it, told by its input: ours puts away
/// the very file that the watch saw, and never the last copy of anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// It stays where it was dropped.
    #[default]
    Leave,
    /// It goes to the archive as a source of its own.
    Archive,
    /// It is removed where the archive has its content, read back; else it goes to the archive.
    Remove,
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

fn incomplete() -> Span {
    Span::seconds(60)
}

fn every() -> Span {
    Span::seconds(5)
}

fn in_flight() -> usize {
    64
}

fn retry() -> Span {
    Span::seconds(3_600)
}

fn tries() -> u32 {
    8
}

fn tried_for() -> Span {
    Span::days(1)
}

impl WatchSettings {
    /// The workflow without the version or alias that may stand behind its name.
    pub(crate) fn machine(&self) -> &str {
        self.workflow.split(':').next().unwrap_or_default()
    }

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
