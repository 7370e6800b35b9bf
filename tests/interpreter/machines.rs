//! Generated definitions: nested, with retries, catchers and timeouts.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

#[derive(Clone, Debug)]
enum Shape {
    Pass,
    Task { resource: usize, retry: bool, catch: bool, timeout: bool, heartbeat: bool },
    Wait(u32),
    Choice,
    Parallel(Vec<Vec<Shape>>, bool, bool),
    Map(Vec<Shape>, u32, bool, bool),
    Fail,
    Succeed,
}

pub fn definition() -> impl Strategy<Value = Value> {
    (chain(), any::<bool>()).prop_map(|(chain, timeout)| {
        let mut definition = rendered(&chain, &mut 0);
        if timeout {
            definition["TimeoutSeconds"] = json!(100);
        }
        definition
    })
}

fn chain() -> impl Strategy<Value = Vec<Shape>> {
    let leaf = prop_oneof![
        2 => Just(Shape::Pass),
        4 => (0usize..4, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(resource, retry, catch, timeout, heartbeat)| Shape::Task { resource, retry, catch, timeout, heartbeat }
        ),
        1 => (0u32..20).prop_map(Shape::Wait),
        1 => Just(Shape::Choice),
        1 => Just(Shape::Fail),
        1 => Just(Shape::Succeed),
    ];
    let shape =
        leaf.prop_recursive(3, 20, 3, |inner| {
            let chain = prop::collection::vec(inner.clone(), 1..3);
            prop_oneof![
                (prop::collection::vec(chain.clone(), 1..4), any::<bool>(), any::<bool>())
                    .prop_map(|(branches, retry, catch)| Shape::Parallel(branches, retry, catch)),
                (chain, 0u32..3, any::<bool>(), any::<bool>())
                    .prop_map(|(chain, concurrency, retry, catch)| Shape::Map(chain, concurrency, retry, catch)),
                inner,
            ]
        });
    prop::collection::vec(shape, 1..4)
}

/// `StartAt` and `States` of a chain, with names that no other state has.
fn rendered(chain: &[Shape], count: &mut u32) -> Value {
    let first = *count;
    *count += chain.len() as u32;
    let name = |at: usize| format!("S{}", first as usize + at);
    let mut states = Map::new();
    for (at, shape) in chain.iter().enumerate() {
        let next = (at + 1 < chain.len()).then(|| name(at + 1));
        let last = name(chain.len() - 1);
        states.insert(name(at), state(shape, next, &last, count));
    }
    // A catcher or a choice may lead here, and so every state can be reached.
    json!({"StartAt": name(0), "States": states})
}

fn state(shape: &Shape, next: Option<String>, last: &str, count: &mut u32) -> Value {
    let (mut state, retry, catch) = match shape {
        Shape::Fail if next.is_none() => return json!({"Type": "Fail", "Error": "Custom", "Cause": "as asked"}),
        Shape::Succeed if next.is_none() => return json!({"Type": "Succeed"}),
        Shape::Choice if next.is_some() => {
            let rule = json!({"Variable": "$.list", "IsPresent": true, "Next": next});
            return json!({"Type": "Choice", "Choices": [rule], "Default": last});
        }
        Shape::Pass | Shape::Choice | Shape::Fail | Shape::Succeed => (json!({"Type": "Pass"}), false, false),
        Shape::Wait(seconds) => (json!({"Type": "Wait", "Seconds": seconds}), false, false),
        Shape::Task { resource, retry, catch, timeout, heartbeat } => {
            let resource = [
                "arn:aws:states:::conveyor:probe",
                "arn:aws:states:::states:startExecution.sync",
                "arn:aws:lambda:us-east-1:000000000000:function:f",
                "arn:aws:states:us-east-1:000000000000:activity:a",
            ][*resource];
            let mut task = json!({"Type": "Task", "Resource": resource, "ResultPath": "$.r"});
            if resource.contains("startExecution") {
                task["Parameters"] =
                    json!({"StateMachineArn": "arn:aws:states:us-east-1:000000000000:stateMachine:other"});
            }
            if *timeout {
                task["TimeoutSeconds"] = json!(60);
            }
            if *heartbeat {
                task["HeartbeatSeconds"] = json!(5);
            }
            (task, *retry, *catch)
        }
        Shape::Parallel(branches, retry, catch) => {
            let branches: Vec<Value> = branches.iter().map(|branch| rendered(branch, count)).collect();
            (json!({"Type": "Parallel", "Branches": branches, "ResultPath": "$.p"}), *retry, *catch)
        }
        Shape::Map(chain, concurrency, retry, catch) => {
            let mut processor = rendered(chain, count);
            processor["ProcessorConfig"] = json!({"Mode": "INLINE"});
            let map = json!({"Type": "Map", "ItemsPath": "$.list", "ItemProcessor": processor,
                "ItemSelector": {"list.$": "$.list", "index.$": "$$.Map.Item.Index"},
                "MaxConcurrency": concurrency, "ResultPath": "$.m"});
            (map, *retry, *catch)
        }
    };
    if retry {
        state["Retry"] = json!([{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 2, "MaxAttempts": 2,
            "BackoffRate": 2.0, "MaxDelaySeconds": 3, "JitterStrategy": "FULL"}]);
    }
    if let (true, Some(next)) = (catch, &next) {
        state["Catch"] = json!([{"ErrorEquals": ["States.ALL"], "Next": next, "ResultPath": "$.caught"}]);
    }
    match next {
        Some(next) => state["Next"] = json!(next),
        None => state["End"] = json!(true),
    }
    state
}
