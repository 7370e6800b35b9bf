//! AWS's recorded answers against the served binary, over HTTP: `replay.py` beside the recordings drives it.
//!
//! The recordings lie beside the repository (`../shared/conformance`) or where `CONVEYOR_CONFORMANCE` says; without
//! them this is skipped. Each category gets a server of its own: lists expect nobody else's state machines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "replay/known.rs"]
mod known;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use conveyor_testing::served::{Served, folder};
use serde_json::Value;

fn recordings() -> Option<PathBuf> {
    let named = std::env::var_os("CONVEYOR_CONFORMANCE").map(PathBuf::from);
    let is_named = named.is_some();
    let dir = named.unwrap_or_else(|| conveyor_testing::shared("conformance"));
    if dir.join("replay.py").is_file() {
        return Some(dir);
    }
    assert!(!is_named, "CONVEYOR_CONFORMANCE names a folder without replay.py: {}", dir.display());
    eprintln!("skipped: no recordings beside the repository; set CONVEYOR_CONFORMANCE to their folder");
    None
}

/// Replays a category: all cases pass but those that are known to fail, and of those none has come to pass unnoticed.
fn replay(category: &str, known: &[&str]) {
    let Some(recordings) = recordings() else { return };
    let dir = folder("data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n");
    let served = Served::start(dir.path());
    let out = dir.path().join("out.json");
    let status = Command::new("python3")
        .arg(recordings.join("replay.py"))
        .args(["--endpoint", &served.url(), "--json"])
        .arg(&out)
        .arg(recordings.join("cases").join(category))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.code().is_some_and(|code| code < 2), "replay.py ended with {status}");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    assert!(!cases.is_empty(), "no case of {category} was replayed");
    let is_known = |case: &&Value| known.iter().any(|known| case["id"].as_str().unwrap().contains(known));
    let failed: Vec<&Value> = cases.iter().filter(|case| case["ok"] == false).collect();
    println!("{category}: {} of {} passed", cases.len() - failed.len(), cases.len());
    let unknown: Vec<String> =
        failed.iter().filter(|case| !is_known(case)).map(|case| format!("{} {}", case["id"], case["diff"])).collect();
    assert!(unknown.is_empty(), "these answer otherwise than AWS:\n{}", unknown.join("\n"));
    let mended: Vec<&str> = known
        .iter()
        .copied()
        .filter(|known| !failed.iter().any(|case| case["id"].as_str().unwrap().contains(known)))
        .collect();
    assert!(mended.is_empty(), "these pass now: take them off the list of known failures:\n{}", mended.join("\n"));
}

#[test]
fn the_control_plane_answers_as_aws_does() {
    replay("api", known::API);
}

#[test]
fn states_are_tried_out_as_on_aws() {
    replay("teststate", known::TESTSTATE);
}

#[test]
fn executions_run_as_on_aws() {
    replay("engine", known::ENGINE);
}
