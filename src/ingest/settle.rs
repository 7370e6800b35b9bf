//! Is the file whole? A pure state machine over what was seen of each file, and when.
//!
//! ```text
//!            seen            unchanged for `settle`        taken(key)
//!  (nothing) ────▶ Growing ───────────────────────▶ Whole ───────────▶ Landed
//!                  ▲     │ anything changed           │                  │
//!                  └─────┴────────────────────────────┴──────────────────┘
//! ```
//!
//! Of a whole one a look at its content may say that there is more to come. It then waits, looked at again after growing
//! pauses, until that says otherwise or has shown the same for `incomplete`: it is then judged as it is.
//!
//! Invariants: a file lands once per content that was seen at rest; what is remembered of a landed file does
//! not grow with its name; at most `waiting_max` files wait in memory, and what does not fit is found by the
//! next scan. It never looks at a disk or a clock.

use std::collections::{BTreeMap, HashMap, HashSet};

use conveyor_base::beneath::file_version;
use conveyor_base::{Span, Timestamp, digest};

use super::whole::Look;

/// What one look at a file showed of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileState {
    pub size: u64,
    pub mtime_ns: i128,
    pub inode: u64,
    /// When anything of it changed, in nanoseconds since 1970, and how many blocks it has: while it is written they may move
    /// where its size and its mtime stand still. They are not of its identity: a change of rights moves them too.
    pub changed_ns: i128,
    pub blocks: u64,
}

/// The files of one share.
#[derive(Debug)]
pub struct Settling {
    settle: Span,
    incomplete: Span,
    waiting_max: usize,
    waiting: BTreeMap<String, Waiting>,
    /// Hash of the key to hash of what landed: sixteen bytes a file, however long its name is.
    landed: HashMap<u64, u64>,
}

#[derive(Clone, Debug)]
struct Waiting {
    file_state: FileState,
    since: Timestamp,
    incomplete: Option<Incomplete>,
}

/// There is more to come, as its content says.
#[derive(Clone, Debug)]
struct Incomplete {
    look: Look,
    /// Since when each look has shown the same.
    since: Timestamp,
    pause_ms: u64,
    next: Timestamp,
}

/// The pauses between looks at one that is incomplete.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 500..=15_000;

/// Copies over a network often begin as an empty file: one that stays empty must rest this much longer.
const EMPTY_FACTOR: u64 = 5;

impl Waiting {
    fn new(file_state: FileState, since: Timestamp) -> Waiting {
        Waiting { file_state, since, incomplete: None }
    }

    fn due(&self, settle: Span) -> Timestamp {
        if let Some(incomplete) = &self.incomplete {
            return incomplete.next;
        }
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
    pub fn new(settle: Span, incomplete: Span, waiting_max: usize) -> Settling {
        Settling { settle, incomplete, waiting_max, waiting: BTreeMap::new(), landed: HashMap::new() }
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
            None => self.waiting.entry(key.to_owned()).or_insert(Waiting::new(file_state, now)),
        };
        // A clock that was set back must not make a file wait until the old time comes round again.
        if waiting.file_state != file_state || waiting.since > now {
            *waiting = Waiting::new(file_state, now);
        }
        let until = waiting.due(self.settle);
        if now >= until { Observed::Whole } else { Observed::Growing { until } }
    }

    /// Takes note of what the content of a file at rest shows, and says whether it is to be taken: where there is no more to
    /// come, or nothing came for `incomplete`.
    pub fn may_take(&mut self, key: &str, look: &Look, now: Timestamp) -> bool {
        let Some(waiting) = self.waiting.get_mut(key).filter(|_| look.missing.is_some()) else { return true };
        let pause_ms = self.settle.ms.clamp(*PAUSE_MS.start(), *PAUSE_MS.end());
        let since = waiting.incomplete.as_ref().map_or(waiting.since, |_| now);
        match &mut waiting.incomplete {
            Some(incomplete) if incomplete.look == *look => {
                incomplete.pause_ms = (incomplete.pause_ms * 2).min(*PAUSE_MS.end());
            }
            other => *other = Some(Incomplete { look: look.clone(), since, pause_ms, next: now }),
        }
        let Some(incomplete) = &mut waiting.incomplete else { return true };
        let until = incomplete.since.plus_ms(i64::try_from(self.incomplete.ms).unwrap_or(i64::MAX));
        incomplete.next = now.plus_ms(incomplete.pause_ms as i64).min(until);
        now >= until
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
        FileState { size, mtime_ns: i128::from(size), inode: 1, changed_ns: 0, blocks: 0 }
    }

    fn settling(waiting_max: usize) -> Settling {
        Settling::new(Span::seconds(2), Span::seconds(60), waiting_max)
    }

    /// What each look shows decides, and not how often it is looked at.
    #[test]
    fn one_that_is_incomplete_waits_while_its_content_comes_and_is_judged_when_nothing_does() {
        let look = |content: u64, missing: bool| Look {
            sample: conveyor_base::Sample { digest: content.to_string(), hole: None, zeros_from: None },
            missing: missing.then(|| "more to come".to_owned()),
        };
        let mut files = settling(10);
        let now = |seconds: i64| Timestamp(seconds * 1_000);
        files.observe("a", file_state(9), now(0));
        assert!(files.may_take("a", &look(0, false), now(2)), "nothing is missing");
        // Its content changes for ten minutes, while its size and times stand still.
        for content in 0..60 {
            let at = now(2 + content * 10);
            assert!(!files.may_take("a", &look(content as u64, true), at));
            let (next, due) = (files.next_due().unwrap(), files.waiting().next().unwrap().2);
            assert!(next == due && next > at && next <= at.plus_ms(2_000), "{next:?} after {at:?}");
        }
        let (mut at, mut looks) = (now(592), 0);
        while !files.may_take("a", &look(59, true), at) {
            (at, looks) = (files.next_due().unwrap(), looks + 1);
        }
        assert_eq!((at, looks <= 10), (now(592 + 60), true), "{looks} looks");
        // What is seen of the file itself begins it anew.
        files.observe("a", FileState { changed_ns: 1, ..file_state(9) }, at);
        assert_eq!(files.next_due(), Some(at.plus_ms(2_000)));
        assert!(!files.may_take("a", &look(59, true), at.plus_ms(2_000)));
        let mut never = Settling::new(Span::seconds(2), Span { ms: 0 }, 10);
        never.observe("a", file_state(9), now(0));
        assert!(never.may_take("a", &look(0, true), now(2)));
    }

    #[test]
    fn a_file_lands_once_it_rests_and_again_when_it_changes() {
        let mut files = settling(10);
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
        let mut files = settling(1);
        files.observe("a", file_state(1), Timestamp(0));
        assert_eq!(files.observe("b", file_state(1), Timestamp(0)), Observed::Full);
        files.landed("a", file_state(1));
        assert!(matches!(files.observe("b", file_state(1), Timestamp(0)), Observed::Growing { .. }));
    }
}
