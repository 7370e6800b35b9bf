//! What the runs of one dropped file are called: the watch gives the names, and housekeeping knows them again.
//!
//! `clip-0123456789abcdef` is the first run of a file on these bytes, `clip-0123456789abcdef-2` the second.

/// What the name of a file's first run ends in.
const HASH_CHARS: usize = 16;

/// The name of a file's run, from 1 on.
pub fn name_of(first: &str, run: u32) -> String {
    if run <= 1 { first.to_owned() } else { format!("{first}-{run}") }
}

/// The name of the first run of the same file on the same bytes, and the how manieth this one is; none for names that the
/// watch does not give.
pub fn run_of_name(name: &str) -> Option<(&str, u32)> {
    let is_hash = |part: &str| part.len() == HASH_CHARS && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let (before, last) = name.rsplit_once('-')?;
    if is_hash(last) {
        return Some((name, 1));
    }
    let run = last.parse().ok().filter(|run| *run > 1)?;
    is_hash(before.rsplit_once('-')?.1).then_some((before, run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_a_file_are_told_apart_by_their_names() {
        assert_eq!(name_of("clip-0123456789abcdef", 1), "clip-0123456789abcdef");
        assert_eq!(name_of("clip-0123456789abcdef", 12), "clip-0123456789abcdef-12");
        for first in ["clip-7-0123456789abcdef", "clip-0123456789012345", "0123456789abcdef-0123456789abcdef"] {
            for run in [1, 2, 60, 1_234] {
                assert_eq!(run_of_name(&name_of(first, run)), Some((first, run)));
            }
        }
        for other in ["job-2", "clip", "clip-0123456789abcdeg-2", "clip-0123456789abcdef-x", "clip-0123456789abcdef-1"]
        {
            assert_eq!(run_of_name(other), None, "{other}");
        }
    }
}
