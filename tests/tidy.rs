//! The house rules that a compiler does not check: floors, file length, banned names, leftovers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use conveyor_testing::root;

/// The floor of each crate: it may depend only on lower ones.
const FLOORS: &[(&str, u8)] = &[
    ("aws", 0),
    ("base", 0),
    ("hw", 0),
    ("jsonata", 0),
    ("pixels", 0),
    ("job", 1),
    ("asl", 1),
    ("settings", 2),
    ("sandbox", 2),
    ("interpreter", 2),
    ("media", 3),
    ("store", 3),
    ("run", 4),
    ("services", 5),
    ("logs", 5),
    ("bench", 6),
    ("resources", 6),
    ("ingest", 6),
    ("dashboard", 6),
    ("api", 7),
    ("appliance", 8),
    ("cli", 9),
];

/// What the language, the interpreter, the store and the actors are: they and all that they depend on know nothing of
/// media and nothing of HTTP.
const KERNEL: &[&str] = &["jsonata", "asl", "interpreter", "store", "run"];
const NOT_IN_THE_KERNEL: &[&str] = &["gstreamer", "gst-plugin", "axum", "hyper", "reqwest", "tower-http"];
/// The crate that puts a box together, with which the simulator runs: all but the media.
const SIMULATED: &str = "appliance";

/// Who walks the store's rows on the thread that it is on, which must be one that may block; everybody else asks
/// `Reader::blocking`.
const ON_THEIR_THREAD: &[&str] = &[
    "api/mod.rs",
    "api/rest/machines.rs",
    "appliance/conditions.rs",
    "resources/housekeeping.rs",
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

/// The file's code without its test module, which may be as long as it needs to be.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn floor(name: &str) -> Option<u8> {
    FLOORS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, floor)| *floor)
}

#[test]
fn crates_depend_only_on_lower_floors() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut faults = Vec::new();
    for folder in fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_dir()) {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(own) = floor(&name) else {
            faults.push(format!("src/{name} stands on no floor; add it to FLOORS"));
            continue;
        };
        if !workspace.contains(&format!("\"src/{name}\",")) {
            faults.push(format!("src/{name} is not listed in the workspace"));
        }
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        // What tests need besides may lie above.
        let needs = manifest.split("[dev-dependencies]").next().unwrap();
        for line in needs.lines().filter_map(|line| line.strip_prefix("conveyor-")) {
            let other = line.split(['.', ' ']).next().unwrap();
            if floor(other).is_none_or(|other| other >= own) {
                faults.push(format!("src/{name}: {name} must not depend on {other}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The names of everything that a crate is built with.
fn built_with(name: &str) -> Vec<String> {
    let package = format!("conveyor-{name}");
    let arguments = ["tree", "--offline", "--locked", "-e", "normal,build", "--prefix", "none", "-f", "{p}", "-p"];
    let output = Command::new(env!("CARGO")).args(arguments).arg(&package).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned);
    let names: Vec<String> = names.collect();
    assert!(names.contains(&package), "cargo tree says {text}");
    names
}

#[test]
fn the_kernel_is_built_without_media_and_http() {
    for name in KERNEL {
        let names = built_with(name);
        let strange = names.iter().filter(|n| NOT_IN_THE_KERNEL.iter().any(|other| n.starts_with(other)));
        assert_eq!(strange.collect::<Vec<_>>(), Vec::<&String>::new(), "conveyor-{name} must not be built with these");
    }
    let media = built_with(SIMULATED).into_iter().filter(|n| n.starts_with("gst") || n == "conveyor-media");
    assert_eq!(media.collect::<Vec<_>>(), Vec::<String>::new(), "the simulator must not be built with these");
}

/// Adds the names that a module shows to other crates, and those of the modules that it shows.
fn shown_by(file: &Path, path: &str, shown: &mut BTreeSet<String>) {
    let text = fs::read_to_string(file).unwrap();
    let code = before_tests(&text).lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    // Formatted code begins an item of a module in the first column and nothing else of it.
    for item in code.split("\npub ").skip(1) {
        let item = ["async ", "const ", "unsafe "].iter().fold(item, |item, word| match item.strip_prefix(word) {
            Some(rest) if rest.starts_with("fn ") || rest.starts_with("unsafe ") => rest,
            _ => item,
        });
        let (kind, rest) = item.split_once(' ').unwrap_or((item, ""));
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        match kind {
            "mod" => {
                let folder = match file.ends_with("mod.rs") {
                    true => file.parent().unwrap().to_owned(),
                    false => file.with_extension(""),
                };
                let (one, own) = (folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs"));
                shown_by(if one.is_file() { &one } else { &own }, &format!("{path}::{name}"), shown);
            }
            "use" => {
                let list = rest.split(';').next().unwrap();
                let named = list.rsplit_once('{').map_or(list, |(_, inner)| inner.trim_end_matches(['}', '\n']));
                for name in named.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    let name = name.rsplit([' ', ':']).next().unwrap();
                    shown.insert(format!("{path}::{name}"));
                }
            }
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                shown.insert(format!("{path}::{name}"));
            }
            _ => {}
        }
    }
}

/// What each crate shows to others stands in `tests/tidy/shown.txt`, and the list only shrinks. Whoever has to add a line
/// has thought about it: most of what one crate wants of another is there already, or belongs below both.
#[test]
fn crates_show_no_more_than_is_listed() {
    let mut shown = BTreeSet::new();
    for (name, _) in FLOORS.iter().filter(|(name, _)| *name != "hw") {
        shown_by(&root().join("src").join(name).join("mod.rs"), name, &mut shown);
    }
    let listed = fs::read_to_string(root().join("tests/tidy/shown.txt")).unwrap();
    let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
    let added: Vec<_> = shown.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&shown).collect();
    assert!(added.is_empty(), "shown and not listed in tests/tidy/shown.txt: {added:#?}");
    assert!(gone.is_empty(), "take these off tests/tidy/shown.txt, they are shown no more: {gone:#?}");
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
    for folder in ["src", "hw/src", "tests", "benches"] {
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
