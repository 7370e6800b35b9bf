//! Which due times of a schedule have been run, so that none runs twice when the clock comes by it again. Pure.

use conveyor_base::Timestamp;
use serde::{Deserialize, Serialize};

/// Runs of due times that are remembered; older ones are forgotten.
const RUNS_MAX: usize = 16;

/// Due times that were run, as far as they are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Of what rule: of another one other times are due.
    of: String,
    /// From the first to the last of due times of which none between was left out; the one that grew last is the last.
    runs: Vec<(Timestamp, Timestamp)>,
}

impl Ran {
    /// What a row says, where it is of that rule.
    pub fn read(row: Option<&[u8]>, of: String) -> Ran {
        let read = row.and_then(|row| serde_json::from_slice::<Ran>(row).ok());
        read.filter(|ran| ran.of == of).unwrap_or_else(|| Ran { of, runs: Vec::new() })
    }

    pub fn row(&self) -> Vec<u8> {
        // Numbers and a text are always JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn has(&self, due: Timestamp) -> bool {
        self.runs.iter().any(|(first, last)| (first..=last).contains(&&due))
    }

    /// Takes note that it was run. `next_after` gives the due time after another.
    pub fn add(&mut self, due: Timestamp, next_after: impl Fn(Timestamp) -> Option<Timestamp>) {
        if self.has(due) {
            return;
        }
        // Grown together with what it touches on either side, so that going over old times leaves one piece and not two.
        let (mut first, mut last) = (due, due);
        if let Some(before) = self.runs.iter().position(|(_, last)| *last < due && next_after(*last) == Some(due)) {
            first = self.runs.remove(before).0;
        }
        if let Some(next) = next_after(due)
            && let Some(after) = self.runs.iter().position(|(first, _)| *first == next)
        {
            last = self.runs.remove(after).1;
        }
        self.runs.push((first, last));
        let many = self.runs.len().saturating_sub(RUNS_MAX);
        self.runs.drain(..many);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the clock goes back and forth, what is noted is exactly what was run.
        #[test]
        fn what_was_run_is_known(starts in prop::collection::vec((0..200i64, 1..6i64), 0..RUNS_MAX)) {
            let (mut ran, mut model) = (Ran::read(None, "rule".into()), BTreeSet::new());
            for (start, count) in starts {
                for due in start..start + count {
                    ran.add(Timestamp(due * 7), |at| Some(at.plus_ms(7)));
                    model.insert(due * 7);
                }
                let again = Ran::read(Some(&ran.row()), "rule".into());
                prop_assert_eq!(&again, &ran);
            }
            for due in 0..210 {
                prop_assert_eq!(ran.has(Timestamp(due * 7)), model.contains(&(due * 7)));
            }
            prop_assert!(!Ran::read(Some(&ran.row()), "another".into()).has(Timestamp(7)));
        }
    }
}
