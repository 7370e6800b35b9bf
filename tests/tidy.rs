//! The house rules that a compiler does not check: floors, heads, names, file length, what crates show, leftovers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use conveyor_testing::root;
use serde_json::Value;

/// The floor of each crate: it may depend only on lower ones. The head of `src/main.rs` shows them.
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
/// What tests share, which no crate may be built with.
const FOR_TESTS: &str = "conveyor-testing";

/// What the language, the interpreter, the store and the actors are: they, all that they depend on and all that their
/// tests need know nothing of media and nothing of HTTP.
const KERNEL: &[&str] = &["jsonata", "asl", "interpreter", "store", "run"];
const NOT_IN_THE_KERNEL: &[&str] = &["gst", "conveyor-media", "axum", "hyper", "reqwest", "tower-http"];
const MEDIA: &[&str] = &["gst", "conveyor-media"];
/// The crate that puts a box together, with which the simulator runs: all but the media.
const SIMULATED: &str = "appliance";

/// Who walks the store's rows on the thread that it is on, which must be one that may block; everybody else asks
/// `Reader::blocking`.
const ON_THEIR_THREAD: &[&str] = &[
    "src/api/mod.rs",
    "src/api/rest/machines.rs",
    "src/appliance/conditions.rs",
    "src/resources/housekeeping.rs",
    "src/run/map_runs/results.rs",
];

const LINES_MAX: usize = 600;
const BANNED_WORDS: &[&str] = &["Manager", "Helper", "Util", "Utils", "Processor"];
/// `Processor` is a term of the states language (`ItemProcessor`), and stands for nothing else.
const BANNED_EXCEPT: &[&str] = &["src/asl/", "src/interpreter/"];

/// The house's own words for what the field has a name for: gone from identifiers and comments alike. Words that are
/// plain English besides are not here.
const RETIRED_WORDS: &[&str] = &[
    "deed", "deeds", "shelf", "shelves", "courier", "couriers", "trouble", "troubles", "dress", "wrongs", "door",
    "doors",
];
const RETIRED_NAMES: &[&str] = &["Door", "Doors", "Fate", "Fresh", "Refusal", "begin_anew"];
/// Public keys that are deprecated and still told, and tests that read them.
const RETIRED_EXCEPT: &[(&str, &str)] = &[
    ("src/api/audit.rs", "door"),
    ("src/api/rest/mod.rs", "deeds"),
    ("src/api/rest/openapi.rs", "Refusal"),
    ("src/api/rest/openapi.rs", "deeds"),
    ("src/api/rest/table.rs", "deeds"),
    ("src/api/rest/table.rs", "door"),
    ("src/api/rest/table.rs", "troubles"),
    ("src/ingest/settings.rs", "troubles"),
    ("src/ingest/watch.rs", "troubles"),
    ("src/store/upgrade/form4.rs", "door"),
    ("tests/hangups/audit.rs", "deeds"),
    ("tests/upgrade.rs", "deeds"),
    ("tests/upgrade.rs", "door"),
    ("tests/upgrade.rs", "doors"),
];

const CODE: &[&str] = &["src", "hw", "tests", "benches"];
const NOT_OURS: &[&str] = &["node_modules", "dist"];

/// The files below folders of the repository that end so, each by its path there, with its text.
fn files(folders: &[&str], endings: &[&str]) -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !NOT_OURS.contains(&name) {
                folders.push(path);
            } else if path.is_file() && endings.iter().any(|ending| name.ends_with(ending)) {
                let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                files.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The file without its test module, which may be as long as it needs to be.
fn without_tests(text: &str) -> String {
    let Some((before, tests)) = text.split_once("#[cfg(test)]\nmod tests {") else { return text.to_owned() };
    // Formatted code closes a module in the first column.
    let (_, after) = tests.split_once("\n}\n").unwrap_or_default();
    format!("{before}{after}")
}

/// The same without lines that are comments.
fn code(text: &str) -> String {
    let text = without_tests(text);
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c| !is_part_of_name(c)).filter(|name| !name.is_empty())
}

/// The words of an identifier, in lower case: `AuditRow`, `audit_row` and `AUDIT_ROW` are two each.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if c == '_' || (was_lower && c.is_uppercase()) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase();
        words.last_mut().unwrap().extend(c.to_lowercase().filter(|c| *c != '_'));
    }
    words
}

fn floor(package: &str) -> Option<u8> {
    let name = package.strip_prefix("conveyor-")?;
    FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor)
}

/// The file at the head of a crate.
fn head_file(name: &str) -> String {
    if name == "hw" { "hw/src/lib.rs".to_owned() } else { format!("src/{name}/mod.rs") }
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).arg("--offline").current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn crates_depend_only_on_lower_floors() {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut faults = Vec::new();
    for package in packages.iter().filter(|package| package["name"] != FOR_TESTS) {
        let name = text(&package["name"]);
        let own = if name == "conveyor" { Some(u8::MAX) } else { floor(&name) };
        let Some(own) = own else {
            faults.push(format!("{name} stands on no floor; add it to FLOORS"));
            continue;
        };
        // Other crates of ours lie at a path. What tests need besides may lie above.
        let needed = package["dependencies"].as_array().unwrap().iter();
        for other in needed.filter(|needed| needed["path"].is_string() && needed["kind"] != "dev") {
            let other = text(&other["name"]);
            if floor(&other).is_none_or(|other| other >= own) {
                faults.push(format!("{name} must not depend on {other}"));
            }
        }
    }
    let manifests: Vec<String> = packages.iter().map(|package| text(&package["manifest_path"])).collect();
    for entry in fs::read_dir(root().join("src")).unwrap().map(|entry| entry.unwrap().path()).filter(|p| p.is_dir()) {
        if !manifests.iter().any(|manifest| Path::new(manifest).parent() == Some(&entry)) {
            faults.push(format!("{} is no crate of the workspace", entry.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_map_shows_every_crate_on_its_floor() {
    let map = fs::read_to_string(root().join("src/main.rs")).unwrap();
    for (name, floor) in FLOORS {
        let line = map.lines().find(|line| line.starts_with(&format!("//! floor {floor} "))).unwrap_or_default();
        assert!(names(line).any(|shown| shown == *name), "src/main.rs does not show {name} on floor {floor}: {line:?}");
    }
}

/// What of a kind crates and their tests are built with.
fn built_with(crates: &[&str], kind: &[&str]) -> Vec<String> {
    let packages: Vec<String> = crates.iter().map(|name| format!("conveyor-{name}")).collect();
    let mut arguments = vec!["tree", "--locked", "-e", "normal,build,dev", "--prefix", "none", "-f", "{p}"];
    arguments.extend(packages.iter().flat_map(|package| ["-p", package]));
    let tree = cargo(&arguments);
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.iter().all(|package| built.contains(package.as_str())), "cargo tree says {tree}");
    built.into_iter().filter(|name| kind.iter().any(|start| name.starts_with(start))).map(str::to_owned).collect()
}

#[test]
fn the_kernel_is_built_without_media_and_http() {
    for name in KERNEL {
        assert_eq!(built_with(&[name], NOT_IN_THE_KERNEL), Vec::<String>::new(), "{name} must not be built with these");
    }
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let listed = makefile.lines().find_map(|line| line.strip_prefix("WITHOUT_MEDIA := ")).unwrap();
    let listed: Vec<&str> = listed.split_whitespace().chain([SIMULATED]).collect();
    assert!(KERNEL.iter().all(|name| listed.contains(name)), "make kernel leaves some of {KERNEL:?} out");
    assert_eq!(built_with(&listed, MEDIA), Vec::<String>::new(), "make kernel must not build these");
}

#[test]
fn each_crate_says_what_it_owns_must_never_do_and_what_holds() {
    let mut faults = Vec::new();
    for (name, _) in FLOORS {
        let text = fs::read_to_string(root().join(head_file(name))).unwrap();
        let head: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let owns = head.iter().take_while(|line| !line.is_empty()).last().is_some_and(|line| line.ends_with('.'));
        let head = head.join(" ");
        for (part, is_there) in [
            ("begins with a sentence that says what it owns", owns),
            ("says what it 'Must never: …'", head.contains("Must never: ")),
            (
                "says what 'Holds: …', or its 'Invariants: …'",
                ["Holds: ", "Invariants: "].iter().any(|w| head.contains(w)),
            ),
        ] {
            if !is_there {
                faults.push(format!("{}: no head that {part}", head_file(name)));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// The names that a `use` brings in: B and D of `a::{B, c::{C as D}}`.
fn used(list: &str) -> impl Iterator<Item = &str> {
    let parts = list.split(['{', '}', ',']).map(str::trim).filter(|part| !part.is_empty() && !part.ends_with("::"));
    parts.map(|part| part.rsplit([' ', ':']).next().unwrap())
}

/// Adds the names that a module shows to other crates, and those of the modules that it shows.
fn shown_by(file: &Path, path: &str, shown: &mut BTreeSet<String>) {
    let text = code(&fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())));
    // Formatted code begins an item of a module in the first column and nothing else of it.
    for item in format!("\n{text}").split("\npub ").skip(1) {
        let item = ["async ", "const ", "unsafe "].iter().fold(item, |item, word| match item.strip_prefix(word) {
            Some(rest) if rest.starts_with("fn ") || rest.starts_with("unsafe ") => rest,
            _ => item,
        });
        let (kind, rest) = item.split_once(' ').unwrap_or((item, ""));
        let name = names(rest).next().unwrap_or_default();
        match kind {
            "mod" => {
                let folder = match file.ends_with("mod.rs") || file.ends_with("lib.rs") {
                    true => file.parent().unwrap().to_owned(),
                    false => file.with_extension(""),
                };
                let (one, own) = (folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs"));
                shown_by(if one.is_file() { &one } else { &own }, &format!("{path}::{name}"), shown);
            }
            "use" => shown.extend(used(rest.split(';').next().unwrap()).map(|name| format!("{path}::{name}"))),
            "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" => {
                shown.insert(format!("{path}::{name}"));
            }
            other => panic!("{}: what does `pub {other}` show?", file.display()),
        }
    }
}

/// What each crate shows to others stands in `tests/tidy/shown.txt`, and the list only shrinks. Whoever has to add a line
/// has thought about it: most of what one crate wants of another is there already, or belongs below both.
#[test]
fn crates_show_no_more_than_is_listed() {
    let mut shown = BTreeSet::new();
    for (name, _) in FLOORS {
        shown_by(&root().join(head_file(name)), name, &mut shown);
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
    let found = files(&["src"], &[".rs"]).into_iter().filter(|(path, text)| {
        !path.starts_with("src/store/") && names(&code(text)).any(|name| name == "on_this_thread")
    });
    assert_eq!(found.map(|(path, _)| path).collect::<Vec<_>>(), ON_THEIR_THREAD);
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut faults = Vec::new();
    for (path, text) in files(CODE, &[".rs"]) {
        let lines = without_tests(&text).lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{path}: {lines} lines, {LINES_MAX} at most without its tests"));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{path}: begins without a //! that says what it owns"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn names_are_the_field_s_own() {
    let mut faults = Vec::new();
    for (path, text) in files(CODE, &[".rs"]) {
        let made = text.lines().filter_map(|line| {
            let mut names = names(line).skip_while(|name| matches!(*name, "pub" | "crate" | "super" | "in"));
            let kind = names.next()?;
            if matches!(kind, "struct" | "enum" | "trait" | "type" | "mod") { names.next() } else { None }
        });
        for name in made {
            let banned = BANNED_WORDS.iter().any(|w| name.ends_with(w) || name.eq_ignore_ascii_case(w));
            if banned && !BANNED_EXCEPT.iter().any(|folder| path.starts_with(folder)) {
                faults.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn words_that_the_field_names_otherwise_are_gone() {
    let mut found = BTreeSet::new();
    let all = files(CODE, &[".rs", ".ts", ".tsx"]);
    for (path, text) in all.iter().filter(|(path, _)| path != "tests/tidy.rs") {
        for name in names(text) {
            if let Some(word) = words(name).into_iter().find(|word| RETIRED_WORDS.contains(&word.as_str())) {
                found.insert((path.as_str(), word));
            } else if RETIRED_NAMES.contains(&name) {
                found.insert((path.as_str(), name.to_owned()));
            }
        }
    }
    let found: Vec<(&str, &str)> = found.iter().map(|(path, word)| (*path, word.as_str())).collect();
    assert_eq!(found, RETIRED_EXCEPT);
}

#[test]
fn nothing_is_left_over() {
    let marks = ["todo", "unimplemented"].map(|m| format!("{m}!("));
    let words = [format!("FIX{}", "ME"), format!("XX{}", "X"), format!("dbg{}", "!(")];
    let mut faults = Vec::new();
    for (path, text) in files(CODE, &[".rs"]) {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().chain(&words).any(|mark| line.contains(mark.as_str())) {
                faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
