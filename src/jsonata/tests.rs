//! What expressions come to, and that none of them gets out of hand.

use serde_json::{Value, json};

use super::*;

fn run(text: &str, input: &Value) -> Result<Outcome, Fault> {
    let draw = || 0x1234_5678_9abc_def0;
    let setting = Setting { now_ms: 1_510_067_557_121, draw: &draw };
    let expression = Expression::parse(text)?;
    expression.evaluate([("i", Binding::Json(input))], &setting)
}

#[test]
fn against_file() {
    let Ok(path) = std::env::var("JSONATA_CASES") else { return };
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut good, mut bad) = (0, 0);
    for case in cases {
        let text = case["expr"].as_str().unwrap();
        let got = match run(text, &case["input"]) {
            Ok(Outcome::Value(v)) => json!({"value": v}),
            Ok(Outcome::Undefined) => json!({}),
            Ok(Outcome::Unsupported) => json!({"unsupported": true}),
            Err(f) => json!({"code": f.code, "message": f.message}),
        };
        if got.to_string() == case["want"].to_string() {
            good += 1
        } else {
            bad += 1;
            println!("{text}\n   want {}\n   got  {got}", case["want"]);
        }
    }
    println!("{good} good {bad} bad");
}
