//! Is the file whole? A pure state machine over what was seen of each file, and when.
//!
//! ```text
//!            seen            unchanged for `settle`        taken(key)
//!  (nothing) ────▶ Growing ───────────────────────▶ Whole ───────────▶ Landed
//!                  ▲     │ size or mtime changed      │                  │
//!                  └─────┴────────────────────────────┴──────────────────┘
//! ```
//!
//! Invariants: a file lands once per content that was seen at rest; what is remembered of a landed file does
//! not grow with its name; at most `waiting_max` files wait in memory, and what does not fit is found by the
//! next scan. It never looks at a disk or a clock.

use std::collections::{BTreeMap, HashMap, HashSet};

use conveyor_base::beneath::file_version;
use conveyor_base::{Span, Timestamp, digest};

/// What one look at a file showed of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileState {
    pub size: u64,
    pub mtime_ns: i128,
    pub inode: u64,
}

/// The files of one share.
#[derive(Debug)]
pub struct Settling {
    settle: Span,
    waiting_max: usize,
    waiting: BTreeMap<String, Waiting>,
    /// Hash of the key to hash of what landed: sixteen bytes a file, however long its name is.
    landed: HashMap<u64, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    file_state: FileState,
    since: Timestamp,
}

/// Copies over a network often begin as an empty file: one that stays empty must rest this much longer.
const EMPTY_FACTOR: u64 = 5;

impl Waiting {
    fn due(&self, settle: Span) -> Timestamp {
        let factor = if self.file_state.size == 0 { EMPTY_FACTOR } else { 1 };
        self.since.plus_ms(settle.ms.saturating_mul(factor) as i64)
    }
}

/// What an observation meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It may still grow; look again at this time.
    Growing { until: Timestamp },
    /// At rest for long enough: it may be taken.
    Whole,
    /// It landed before and has not changed since.
    Landed,
    /// More files wait than fit; a later scan finds it again.
    Full,
}

impl Settling {
    pub fn new(settle: Span, waiting_max: usize) -> Settling {
        Settling { settle, waiting_max, waiting: BTreeMap::new(), landed: HashMap::new() }
    }

    /// Takes note of what was seen of a file at `now`, and says what it means.
    pub fn observe(&mut self, key: &str, file_state: FileState, now: Timestamp) -> Observed {
        if self.has_landed(key, file_state) {
            self.waiting.remove(key);
            return Observed::Landed;
        }
        let full = self.waiting.len() >= self.waiting_max;
        let waiting = match self.waiting.get_mut(key) {
            Some(waiting) => waiting,
            None if full => return Observed::Full,
            None => self.waiting.entry(key.to_owned()).or_insert(Waiting { file_state, since: now }),
        };
        // A clock that was set back must not make a file wait until the old time comes round again.
        if waiting.file_state != file_state || waiting.since > now {
            *waiting = Waiting { file_state, since: now };
        }
        let until = waiting.due(self.settle);
        if now >= until { Observed::Whole } else { Observed::Growing { until } }
    }

    /// The file could not be looked at: it waits once more.
    pub fn wait_on(&mut self, key: &str, now: Timestamp) {
        if let Some(waiting) = self.waiting.get_mut(key) {
            waiting.since = now;
        }
    }

    /// The file is gone, or its name no longer counts.
    pub fn gone(&mut self, key: &str) {
        self.waiting.remove(key);
        self.landed.remove(&digest(key.as_bytes()));
    }

    /// The landing of what was seen is stored: it need not be looked at again until it changes.
    pub fn landed(&mut self, key: &str, file_state: FileState) {
        self.waiting.remove(key);
        self.landed.insert(digest(key.as_bytes()), file_state.digest());
    }

    /// Whether this very content landed.
    pub fn has_landed(&self, key: &str, file_state: FileState) -> bool {
        self.landed.get(&digest(key.as_bytes())) == Some(&file_state.digest())
    }

    /// A landing that was stored before this boot.
    pub fn remember(&mut self, key: &str, state_digest: u64) {
        self.landed.insert(digest(key.as_bytes()), state_digest);
    }

    /// Files that wait, with what was last seen of each and when they count as whole.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, FileState, Timestamp)> {
        self.waiting.iter().map(|(key, w)| (key.as_str(), w.file_state, w.due(self.settle)))
    }

    /// When the next file counts as whole.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.waiting().map(|(_, _, due)| due).min()
    }

    /// Forgets every file that a complete scan did not see. Never call it after a scan that failed somewhere:
    /// a share that is away is not an empty share.
    /// Returns how many landed files it forgot.
    pub fn keep_only(&mut self, seen: &HashSet<u64>) -> usize {
        let before = self.landed.len();
        self.waiting.retain(|key, _| seen.contains(&digest(key.as_bytes())));
        self.landed.retain(|key, _| seen.contains(key));
        before - self.landed.len()
    }
}

impl FileState {
    /// As [`conveyor_base::beneath::Meta::version`] has it of the file.
    pub fn version(&self) -> String {
        file_version(self.size, self.mtime_ns, self.inode)
    }

    pub fn digest(&self) -> u64 {
        let mut bytes = [0u8; 32];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.mtime_ns.to_le_bytes());
        bytes[24..].copy_from_slice(&self.inode.to_le_bytes());
        digest(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_state(size: u64) -> FileState {
        FileState { size, mtime_ns: i128::from(size), inode: 1 }
    }

    #[test]
    fn a_file_lands_once_it_rests_and_again_when_it_changes() {
        let mut files = Settling::new(Span::seconds(2), 10);
        assert_eq!(files.observe("a", file_state(1), Timestamp(0)), Observed::Growing { until: Timestamp(2_000) });
        assert_eq!(files.observe("a", file_state(2), Timestamp(1_900)), Observed::Growing { until: Timestamp(3_900) });
        assert_eq!(files.observe("a", file_state(2), Timestamp(3_900)), Observed::Whole);
        files.landed("a", file_state(2));
        assert_eq!(files.observe("a", file_state(2), Timestamp(9_000)), Observed::Landed);
        assert_eq!(files.observe("a", file_state(3), Timestamp(9_001)), Observed::Growing { until: Timestamp(11_001) });
        files.gone("a");
        assert_eq!(files.next_due(), None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut files = Settling::new(Span::seconds(2), 1);
        files.observe("a", file_state(1), Timestamp(0));
        assert_eq!(files.observe("b", file_state(1), Timestamp(0)), Observed::Full);
        files.landed("a", file_state(1));
        assert!(matches!(files.observe("b", file_state(1), Timestamp(0)), Observed::Growing { .. }));
    }
}
