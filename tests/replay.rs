//! AWS's recorded answers against the served binary, over HTTP: `replay.py` beside the recordings drives it.
//!
//! The recordings lie beside the repository (`../shared/conformance`) or where `CONVEYOR_CONFORMANCE` says; without
//! them this is skipped. Each category gets a server of its own: lists expect nobody else's state machines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "replay/known.rs"]
mod known;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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

/// The served binary, which ends with this.
struct Served {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Served {
    fn start() -> Served {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(conveyor_testing::binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.map_while(Result::ok).find_map(|line| {
            let at = line.find("http://")?;
            Some(line[at..].split_whitespace().next()?.trim_end_matches('/').to_owned())
        });
        let url = url.expect("the server says where it listens");
        Served { child, url, _dir: dir }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replays a category: all cases pass but those that are known to fail, and of those none has come to pass unnoticed.
fn replay(category: &str, known: &[&str]) {
    let Some(dir) = recordings() else { return };
    let served = Served::start();
    let out = served._dir.path().join("out.json");
    let status = Command::new("python3")
        .arg(dir.join("replay.py"))
        .args(["--endpoint", &served.url, "--json"])
        .arg(&out)
        .arg(dir.join("cases").join(category))
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
