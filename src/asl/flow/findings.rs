//! What an analysis has to say: so many findings as somebody reads, and how many there are beside.

use std::collections::HashSet;

use super::Finding;
use crate::machine::Name;
use crate::template::Segment;

/// Most findings that are listed.
pub const FINDINGS_MAX: usize = 1_000;
/// Most bytes of a name or path in a message.
const NAME_BYTES_MAX: usize = 256;
/// Most names that one message lists.
const NAMES_MAX: usize = 32;

#[derive(Default)]
pub struct Findings {
    list: Vec<Finding>,
    /// Those that are not kept.
    more: usize,
}

impl Findings {
    pub fn push(&mut self, finding: Finding) {
        match self.list.len() < 2 * FINDINGS_MAX {
            true => self.list.push(finding),
            false => self.more += 1,
        }
    }

    /// Those of the states, in the order of their names and fields, and then what is to be said of the whole.
    pub fn finish(self, start: &Name, followed: bool) -> Vec<Finding> {
        let Findings { mut list, mut more } = self;
        list.sort_by(|a, b| {
            let by_place = (&a.state, &a.place, &a.field).cmp(&(&b.state, &b.place, &b.field));
            by_place.then_with(|| a.message.cmp(&b.message))
        });
        list.dedup();
        more += list.len().saturating_sub(FINDINGS_MAX);
        list.truncate(FINDINGS_MAX);
        if more > 0 {
            list.push(whole(start, "FINDINGS_LEFT_OUT", &format!("And {more} more findings, which are not listed.")));
        }
        if !followed {
            list.push(whole(
                start,
                "NOT_FOLLOWED_FURTHER",
                "The definition is too large or too tangled to be followed to its end: of what can happen to data, only \
                 a part was looked at.",
            ));
        }
        list
    }
}

/// A finding about a state as a whole.
pub fn whole(state: &Name, code: &'static str, message: &str) -> Finding {
    let (place, field) = (Vec::<Segment>::new(), String::new());
    Finding { state: state.clone(), place, field, code, message: message.to_owned(), certain: false }
}

/// A name or path for a message, cut where it is so long that nobody reads it.
pub fn shown(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let end = (0..=NAME_BYTES_MAX).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &name[..end])
}

/// Names for a message.
pub fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut text = names.take(NAMES_MAX).map(shown).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// Entries of Retry and Catch that nothing comes to.
pub fn rules_without_use(state: &crate::State, findings: &mut Findings) {
    const NEVER: &str = "States.Runtime";
    let retry = state.retry.iter().map(|retrier| &retrier.error_equals).collect();
    let catch = state.catch.iter().map(|catcher| &catcher.error_equals).collect();
    let lists: [(&str, Vec<&Vec<String>>); 2] = [("Retry", retry), ("Catch", catch)];
    for (list, entries) in lists {
        let mut before: HashSet<&str> = HashSet::new();
        for (at, names) in entries.into_iter().enumerate() {
            let mut report = |code, message: String| {
                let place = vec![Segment::Key(list.into()), Segment::Index(at)];
                let (state, field) = (state.name.clone(), "ErrorEquals".to_owned());
                findings.push(Finding { state, place, field, code, message, certain: false });
            };
            if names.iter().any(|name| name == NEVER) {
                let words = format!("'{NEVER}' is neither retried nor caught: it always fails the execution.");
                report("ERROR_NAME_HAS_NO_EFFECT", words);
            }
            if !names.is_empty() && names.iter().all(|name| before.contains(name.as_str())) {
                report("ENTRY_NEVER_USED", format!("Entries before this one of {list} take all of its errors."));
            }
            before.extend(names.iter().map(String::as_str));
        }
    }
}
