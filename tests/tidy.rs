//! The house rules that a compiler does not check: floors, file length, banned names, leftovers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// The floor of each module: it may import only from lower ones.
const FLOORS: &[(&str, u8)] = &[
    ("aws", 0),
    ("base", 0),
    ("jsonata", 0),
    ("asl", 1),
    ("media", 1),
    ("sandbox", 1),
    ("interpreter", 2),
    ("store", 3),
    ("run", 4),
    ("services", 5),
    ("bench", 6),
    ("logs", 6),
    ("resources", 6),
    ("ingest", 7),
    ("api", 7),
    ("dashboard", 7),
    ("cli", 8),
];

/// Imports that the floors alone would allow or forbid, and that are decided otherwise.
/// The child process's protocol carries media jobs, so `sandbox` may name the job types.
const ALLOWED: &[(&str, &str)] = &[("sandbox", "media"), ("api", "dashboard")];
const FORBIDDEN: &[(&str, &str)] = &[("ingest", "resources"), ("dashboard", "resources")];

/// Who walks the store's rows on the thread that it is on, which must be one that may block; everybody else asks
/// `Reader::blocking`.
const ON_THEIR_THREAD: &[&str] = &[
    "api/mod.rs",
    "api/rest/machines.rs",
    "cli/conditions.rs",
    "resources/housekeeping.rs",
    "run/ending.rs",
    "run/map_runs/results.rs",
];

const LINES_MAX: usize = 600;
const BANNED_WORDS: &[&str] = &["Manager", "Helper", "Util", "Utils", "Processor"];
/// `Processor` is a term of the states language (`ItemProcessor`), and stands for nothing else.
const BANNED_EXCEPT: &[&str] = &["asl", "interpreter"];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|n| n != "node_modules") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The file's code without its test module, which may be as long as it needs to be.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The first part of each `crate::part` in a line of code.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
}

#[test]
fn modules_import_only_from_lower_floors() {
    let mut faults = Vec::new();
    for path in rust_files(&root().join("src")) {
        let relative = path.strip_prefix(root().join("src")).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = floor(module) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in before_tests(&text).lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for import in imports(line).filter(|i| *i != module) {
                let Some(other) = floor(import) else { continue };
                let allowed =
                    (other < own && !FORBIDDEN.contains(&(module, import))) || ALLOWED.contains(&(module, import));
                if !allowed {
                    faults.push(format!("{}:{}: {module} must not import {import}", relative.display(), number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn interpreter_and_media_see_only_what_they_may() {
    let only: &[(&str, &[&str])] = &[("interpreter", &["base", "asl", "interpreter"]), ("media", &["base", "media"])];
    let mut faults = Vec::new();
    for (module, allowed) in only {
        for path in rust_files(&root().join("src").join(module)) {
            let text = fs::read_to_string(&path).unwrap();
            for import in before_tests(&text).lines().filter(|l| !l.trim_start().starts_with("//")).flat_map(imports) {
                if floor(import).is_some() && !allowed.contains(&import) {
                    faults.push(format!("{}: {module} must not see {import}", path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn only_who_is_named_reads_rows_on_its_own_thread() {
    let mut found = Vec::new();
    for path in rust_files(&root().join("src")) {
        let relative = path.strip_prefix(root().join("src")).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let code = before_tests(&text).lines().filter(|line| !line.trim_start().starts_with("//"));
        if !relative.starts_with("store/") && code.into_iter().any(|line| line.contains(".on_this_thread()")) {
            found.push(relative);
        }
    }
    assert_eq!(found, ON_THEIR_THREAD);
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut faults = Vec::new();
    for folder in ["src", "hw/src", "pixels/src", "tests", "benches"] {
        for path in rust_files(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            let lines = before_tests(&text).lines().count();
            if lines > LINES_MAX {
                faults.push(format!("{}: {lines} lines, {LINES_MAX} at most before its tests", path.display()));
            }
            if !text.starts_with("//!") {
                faults.push(format!("{}: begins without a //! that says what it owns", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn names_are_the_field_s_own() {
    let mut faults = Vec::new();
    for path in rust_files(&root().join("src")) {
        let relative = path.strip_prefix(root().join("src")).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
            for kind in ["struct ", "enum ", "trait ", "mod "] {
                let Some(name) = line.trim_start().strip_prefix("pub ").unwrap_or(line.trim_start()).strip_prefix(kind)
                else {
                    continue;
                };
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let banned = BANNED_WORDS.iter().any(|w| name.ends_with(w) || name.eq_ignore_ascii_case(w));
                if banned && !BANNED_EXCEPT.contains(&module) {
                    faults.push(format!("{}: {name}", relative.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn nothing_is_left_over() {
    let marks = ["todo", "unimplemented"].map(|m| format!("{m}!("));
    let words = [format!("FIX{}", "ME"), format!("XX{}", "X"), format!("dbg{}", "!(")];
    let mut faults = Vec::new();
    for path in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            if marks.iter().chain(&words).any(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
