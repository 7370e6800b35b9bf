//! Recorded histories of AWS Step Functions against `step`, without store and actors: timers fire at once (in
//! the order of their due times, on a simulated clock), nested executions and activities are played here.
//!
//! The recordings lie beside the repository (`../shared/conformance`) or where `CONVEYOR_CONFORMANCE` says. What the
//! developer guide and the language's specification promise, recorded or not, stands in `documented` and `jsonata`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/documented.rs"]
mod documented;
#[path = "conformance/jsonata.rs"]
mod jsonata;
#[path = "conformance/unify.rs"]
mod unify;
#[path = "conformance/world.rs"]
mod world;

use std::path::PathBuf;

use serde_json::{Value, json};

fn cases() -> Option<PathBuf> {
    let named = std::env::var_os("CONVEYOR_CONFORMANCE").map(PathBuf::from);
    let is_named = named.is_some();
    let beside = conveyor_testing::shared("conformance");
    let dir = named.unwrap_or(beside).join("cases/engine");
    if dir.is_dir() {
        return Some(dir);
    }
    assert!(!is_named, "CONVEYOR_CONFORMANCE names a folder without recordings: there is no {}", dir.display());
    eprintln!("skipped: no recordings beside the repository; set CONVEYOR_CONFORMANCE to their folder");
    None
}

/// What fails, and is known to: as in tests/replay/known.rs.
const KNOWN: &[&str] = &["test_illegal_escapes[ESCAPE_SEQUENCES_ILLEGAL_INTRINSIC_FUNCTION"];

#[test]
fn the_engine_tells_what_aws_tells() {
    let Some(dir) = cases() else { return };
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut passed, mut failed) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        match replay(&serde_json::from_str(&text).unwrap()) {
            Ok(()) => passed += 1,
            Err(_) if KNOWN.iter().any(|known| file.to_string_lossy().contains(known)) => {}
            Err(diffs) => failed.push(format!("{}\n    {}", file.display(), diffs.join("\n    "))),
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What the analysis of a definition says can never happen did not happen on AWS either.
#[test]
fn what_can_never_happen_did_not_happen() {
    let Some(dir) = cases() else { return };
    let (mut looked, mut said) = (0, 0);
    for file in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let case: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let texts = |op: &str, key: &str| -> Vec<String> {
            let calls = case["calls"].as_array().unwrap().iter().filter(|call| call["op"] == op);
            calls.map(|call| call["request"][key].as_str().unwrap_or("{}").to_owned()).collect()
        };
        let (definitions, inputs) = (texts("CreateStateMachine", "definition"), texts("StartExecution", "input"));
        let ([definition], [input]) = (definitions.as_slice(), inputs.as_slice()) else { continue };
        let (Ok(machine), Ok(input)) = (conveyor_asl::parse(definition), serde_json::from_str(input)) else {
            continue;
        };
        let (mut entered, mut exited) = (Vec::new(), Vec::new());
        for observed in case["expect"].as_object().unwrap().values() {
            for event in observed["events"].as_array().into_iter().flatten() {
                let name = |key: &str| event[key]["name"].as_str().map(str::to_owned);
                entered.extend(name("stateEnteredEventDetails"));
                exited.extend(name("stateExitedEventDetails"));
            }
        }
        looked += 1;
        for finding in conveyor_asl::flow::analyse(&machine, Some(&input)) {
            said += 1;
            let happened = match finding.code {
                "STATE_NEVER_ENTERED" => entered.contains(&finding.state.to_string()),
                _ => finding.certain && exited.contains(&finding.state.to_string()),
            };
            assert!(!happened, "{}: {finding:?}", file.display());
        }
    }
    println!("{looked} definitions, {said} findings");
}

fn replay(case: &Value) -> Result<(), Vec<String>> {
    let mut world = world::World::default();
    let mut answers = vec![Value::Null];
    for call in case["calls"].as_array().unwrap() {
        let request = filled(&call["request"], &answers);
        let answer = world.call(call["op"].as_str().unwrap(), &request);
        let refused = call.get("raises").is_some_and(|r| r == &json!(true));
        match answer {
            Ok(answer) if !refused => answers.push(answer),
            Err(_) if refused => answers.push(Value::Null),
            Ok(_) => return Err(vec![format!("{} should have been refused", call["op"])]),
            Err(why) => return Err(vec![format!("{}: {why}", call["op"])]),
        }
    }
    let placeholders = case["placeholders"].as_array().cloned().unwrap_or_default();
    let words: Vec<&str> = placeholders.iter().filter_map(Value::as_str).collect();
    let mut unify = unify::Unify::new(&words);
    for (key, number) in case["observe"].as_object().unwrap() {
        let Some(got) = number.as_u64().and_then(|n| answers.get(n as usize)) else { continue };
        // Answers of the control plane are the API's business.
        if got.get("events").is_none() {
            continue;
        }
        let (mut want, mut got) = (case["expect"][key].clone(), unify::decoded(got));
        for ignored in case["ignore"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            unify::drop(&mut want, ignored);
            unify::drop(&mut got, ignored);
        }
        unify.run(&want["events"], &got["events"], key);
    }
    if unify.diffs.is_empty() { Ok(()) } else { Err(unify.diffs) }
}

/// `$2.stateMachineArn` in a request is what call 2 returned.
fn filled(value: &Value, answers: &[Value]) -> Value {
    match value {
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), filled(v, answers))).collect(),
        Value::Array(items) => items.iter().map(|v| filled(v, answers)).collect(),
        Value::String(text) => {
            let mut text = text.clone();
            for (n, answer) in answers.iter().enumerate().rev() {
                for (key, value) in answer.as_object().into_iter().flatten() {
                    if let Value::String(value) = value {
                        text = text.replace(&format!("${n}.{key}"), value);
                    }
                }
            }
            Value::String(text)
        }
        other => other.clone(),
    }
}
