//! [`Regular`]: a regular expression of somebody's definition, for an engine that never backtracks.
//!
//! A definition may hold thousands, of which a few bytes may stand for a mebibyte of program each. So its text is read when the
//! definition is, and its program is made when it is used: reading a definition costs what it is long. Of the programs that
//! were used lately some are kept, whosever they are.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

/// About how many states a program may have.
const STATES_MAX: usize = 1 << 15;
/// Most bytes of a program, and of what it remembers while it looks.
const PROGRAM_BYTES_MAX: usize = 4 << 20;
const NEST_MAX: u32 = 50;
/// Programs that are kept.
const PROGRAMS_MAX: usize = 64;

static PROGRAMS: LazyLock<Mutex<HashMap<Regular, Option<Regex>>>> = LazyLock::new(Mutex::default);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Regular {
    text: String,
    flags: RegularFlags,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RegularFlags {
    pub ignore_case: bool,
    pub multi_line: bool,
}

impl Regular {
    /// # Errors
    /// The text is no regular expression, or one of a size beyond all use; in words for people.
    pub fn new(text: String, flags: RegularFlags) -> Result<Regular, String> {
        let mut parser = ParserBuilder::new();
        parser.nest_limit(NEST_MAX).case_insensitive(flags.ignore_case).multi_line(flags.multi_line);
        let parsed = parser.build().parse(&text).map_err(|error| {
            let words = error.to_string();
            words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })?;
        if states(&parsed) > STATES_MAX {
            return Err(format!("its program would have more than {STATES_MAX} states"));
        }
        Ok(Regular { text, flags })
    }

    /// `None` where it is too large after all: then it matches nothing.
    pub fn program(&self) -> Option<Regex> {
        // What was being put there when somebody panicked is a program or none.
        let kept = || PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = kept().get(self) {
            return program.clone();
        }
        let program = self.make();
        let mut kept = kept();
        if kept.len() >= PROGRAMS_MAX {
            kept.clear();
        }
        kept.insert(self.clone(), program.clone());
        program
    }

    fn make(&self) -> Option<Regex> {
        RegexBuilder::new(&self.text)
            .nest_limit(NEST_MAX)
            .case_insensitive(self.flags.ignore_case)
            .multi_line(self.flags.multi_line)
            .size_limit(PROGRAM_BYTES_MAX)
            .dfa_size_limit(PROGRAM_BYTES_MAX)
            .build()
            .ok()
    }
}

/// About how many states its program has.
fn states(parsed: &Hir) -> usize {
    match parsed.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Unicode(class)) => class.ranges().len(),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len(),
        HirKind::Repetition(repeated) => {
            let times = repeated.max.unwrap_or(repeated.min.saturating_add(1)).max(1);
            states(&repeated.sub).saturating_mul(times as usize)
        }
        HirKind::Capture(group) => states(&group.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(states).fold(0, usize::saturating_add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_large_is_refused_when_it_is_read_and_few_programs_are_kept() {
        let read = |text: &str| Regular::new(text.to_owned(), RegularFlags::default());
        for text in [r"\w{9}", "^(?:news|sport)_[0-9]{4}$", "a*b+c?", r"[^a-z]+\.mp4"] {
            assert!(read(text).unwrap().program().is_some(), "{text}");
        }
        for text in [r"(\w{100}){100}", "((a{100}){100}){100}", "(", "a**)"] {
            assert!(read(text).is_err(), "{text}");
        }
        // However many are used, some are kept.
        for n in 0..3 * PROGRAMS_MAX {
            assert!(read(&format!("a{n}")).unwrap().program().unwrap().is_match(&format!("a{n}")));
        }
        assert!(PROGRAMS.lock().unwrap().len() <= PROGRAMS_MAX);
        let ignoring = Regular::new("News".into(), RegularFlags { ignore_case: true, multi_line: false }).unwrap();
        assert!(ignoring.program().unwrap().is_match("NEWS"));
    }
}
