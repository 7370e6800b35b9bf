//! Names: which files count, what an execution for a file is called, and what a name that is no text becomes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use conveyor_base::limits::NAME_CHARS_MAX;
use conveyor_base::shares::is_under_way;

use super::settle::FileState;

/// Folders that file servers and operating systems keep for themselves.
const SYSTEM_FOLDERS: &[&str] =
    &["@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@Recycle"];
/// Longest name that is made of one that is no text: a reason's suffix and a number still fit behind it.
const SAFE_BYTES_MAX: usize = 200;
/// Longer ends of a name are no suffix.
const SUFFIX_BYTES_MAX: usize = 12;
/// Characters of the file's name that an execution's name repeats.
const STEM_CHARS_MAX: usize = 40;

/// Whether a file of that name may be taken: a name that is not under way, with one of the suffixes.
/// Suffixes match whatever their case: cameras write `.MP4`.
pub fn counts(file_name: &str, suffixes: &[String]) -> bool {
    let lower = file_name.to_lowercase();
    !is_under_way(file_name) && (suffixes.is_empty() || suffixes.iter().any(|s| lower.ends_with(&s.to_lowercase())))
}

/// Whether a scan goes into a folder of that name.
pub fn folder_counts(name: &str) -> bool {
    !name.starts_with('.') && !SYSTEM_FOLDERS.contains(&name)
}

/// The name of the execution for one content of one file: the same whenever the same file is found again, so
/// that it starts once. `holiday-clip-3f2a9c0d17b84e6a`; letters, digits and `-`, at most 80.
pub fn execution_name(share: &str, key: &str, file_state: FileState) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [share.as_bytes(), key.as_bytes()] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(&file_state.size.to_le_bytes());
    hash.update(&file_state.mtime_ns.to_le_bytes());
    hash.update(&file_state.inode.to_le_bytes());
    let hash = hash.finalize().to_hex();
    let name = format!("{}-{}", slug(key), &hash[..16]);
    debug_assert!(name.len() <= NAME_CHARS_MAX);
    name
}

/// The readable part: the file's stem in ASCII letters, digits and single dashes.
fn slug(key: &str) -> String {
    let file = key.rsplit('/').next().unwrap_or(key);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let mut slug = String::new();
    for c in stem.chars().flat_map(char::to_lowercase) {
        if slug.len() >= STEM_CHARS_MAX {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_matches('-');
    if slug.is_empty() { "file".to_owned() } else { slug.to_owned() }
}

/// A name in UTF-8 for a file whose own name is not: other bytes as `%XX`, cut so that a suffix still fits.
pub fn safe_name(name: &OsStr) -> String {
    let mut safe = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        safe.extend(chunk.valid().chars().map(|c| if c.is_control() || c == '/' { '_' } else { c }));
        for byte in chunk.invalid() {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    if safe.len() <= SAFE_BYTES_MAX {
        return safe;
    }
    // The suffix says what the file is and stays.
    let suffix = safe.rfind('.').map_or("", |dot| &safe[dot..]);
    let suffix = if suffix.len() <= SUFFIX_BYTES_MAX { suffix } else { "" };
    let mut end = SAFE_BYTES_MAX - suffix.len();
    while !safe.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &safe[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_under_way_and_foreign_names_do_not_count() {
        let suffixes = [".mp4".to_owned(), ".mov".to_owned()];
        for name in ["a.mp4", "A.MOV", "two words' \"x\"\n.mp4", &format!("{}.mp4", "x".repeat(250))] {
            assert!(counts(name, &suffixes), "{name}");
        }
        for name in ["a.mp4.part", ".a.mp4", "a.mp4.tmp", "a.txt", "a.mp4.crdownload", "a.mp4~", "mp4", "~$a.mp4"] {
            assert!(!counts(name, &suffixes), "{name}");
        }
        assert!(folder_counts("2026") && !folder_counts("@eaDir") && !folder_counts(".trash"));
    }

    #[test]
    fn an_executions_name_follows_the_file_and_is_legal() {
        let file_state = FileState { size: 1, mtime_ns: 2, inode: 3, changed_ns: 4, blocks: 5 };
        let name = execution_name("incoming", "day 1/Ünïcode \"Clip\"\n#2.mp4", file_state);
        assert_eq!(name, execution_name("incoming", "day 1/Ünïcode \"Clip\"\n#2.mp4", file_state));
        assert!(name.starts_with("n-code-clip-2-"), "{name}");
        assert_ne!(
            name,
            execution_name("incoming", "day 1/Ünïcode \"Clip\"\n#2.mp4", FileState { size: 2, ..file_state })
        );
        let touched = FileState { changed_ns: 9, blocks: 9, ..file_state };
        assert_eq!(name, execution_name("incoming", "day 1/Ünïcode \"Clip\"\n#2.mp4", touched));
        assert!(execution_name("a", &"x".repeat(300), file_state).len() <= 80);
        assert!(execution_name("a", "…/….mp4", file_state).starts_with("file-"));
    }

    #[test]
    fn a_name_that_is_no_text_becomes_one() {
        assert_eq!(safe_name(OsStr::from_bytes(b"caf\xe9 1.mp4")), "caf%E9 1.mp4");
        let long = [b"\xff".as_slice(), "é".repeat(120).as_bytes(), b".mp4"].concat();
        let safe = safe_name(OsStr::from_bytes(&long));
        assert!(safe.len() <= 200 && safe.starts_with("%FF") && safe.ends_with("é.mp4"), "{safe}");
    }
}
