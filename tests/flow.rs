//! The analysis of definitions against runs: what it says can never happen never happens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use conveyor_asl::{self as asl, flow};
use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::{Command, Entry, Env, Event, Execution, HistoryKind, MachineRef, Status, step};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Few names, so that paths meet what is there about as often as not.
const KEYS: [&str; 3] = ["a", "b", "c"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!("text")), Just(json!(true)), Just(json!([]))];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec((0usize..3, inner.clone()), 0..3)
                .prop_map(|fields| fields.into_iter().map(|(key, v)| (KEYS[key].to_owned(), v)).collect()),
            prop::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    })
}

fn path() -> impl Strategy<Value = String> {
    let step = prop_oneof![6 => (0usize..3).prop_map(|key| format!(".{}", KEYS[key])),
        1 => Just("[0]".to_owned()), 1 => Just("[*]".to_owned())];
    let root = prop_oneof![6 => Just("$".to_owned()), 1 => Just("$v".to_owned()), 1 => Just("$w".to_owned())];
    (root, prop::collection::vec(step, 0..3)).prop_map(|(root, steps)| root + &steps.concat())
}

fn reference() -> impl Strategy<Value = String> {
    prop::collection::vec(0usize..3, 0..3)
        .prop_map(|keys| keys.into_iter().fold("$".to_owned(), |path, key| format!("{path}.{}", KEYS[key])))
}

fn template() -> impl Strategy<Value = Value> {
    prop::collection::vec((0usize..3, prop_oneof![path().prop_map(Ok), value().prop_map(Err)]), 0..3).prop_map(
        |fields| {
            let mut template = Map::new();
            for (key, field) in fields {
                template.remove(KEYS[key]);
                template.remove(&format!("{}.$", KEYS[key]));
                match field {
                    Ok(path) => template.insert(format!("{}.$", KEYS[key]), path.into()),
                    Err(value) => template.insert(KEYS[key].to_owned(), value),
                };
            }
            Value::Object(template)
        },
    )
}

fn condition() -> impl Strategy<Value = Value> {
    let test = prop_oneof![
        any::<bool>().prop_map(|b| ("IsPresent", json!(b))),
        any::<bool>().prop_map(|b| ("IsNull", json!(b))),
        any::<bool>().prop_map(|b| ("IsString", json!(b))),
        Just(("NumericEquals", json!(1))),
        Just(("StringEquals", json!("text"))),
        Just(("BooleanEquals", json!(true))),
    ];
    let leaf = (path(), test).prop_map(|(path, (test, with))| json!({"Variable": path, test: with}));
    leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| json!({"Not": inner})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({"And": all})),
            prop::collection::vec(inner, 1..3).prop_map(|any| json!({"Or": any})),
        ]
    })
}

/// A state without its exits.
fn body() -> impl Strategy<Value = Value> {
    let fields = (
        prop::option::of(path()),
        prop::option::of(template()),
        prop::option::of(reference()),
        prop::option::of(path()),
        prop::option::of((0usize..2, path())),
        prop::option::of(value()),
        prop::option::weighted(0.3, template()),
    );
    (0usize..6, fields, prop::collection::vec(condition(), 1..3)).prop_map(|(kind, fields, conditions)| {
        let (input_path, parameters, result_path, output_path, assign, result, selector) = fields;
        let mut state = match kind {
            0 => json!({"Type": "Choice", "Choices": conditions}),
            1 => json!({"Type": "Task", "Resource": "arn:aws:states:::x:y"}),
            2 => json!({"Type": "Map", "ItemProcessor": {}}),
            3 => json!({"Type": "Parallel", "Branches": []}),
            _ => json!({"Type": "Pass"}),
        };
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                state[key] = value;
            }
        };
        put("InputPath", input_path.map(Value::from));
        put("OutputPath", output_path.map(Value::from));
        let assigned = assign.map(|(name, path)| json!({format!("{}.$", ["v", "w"][name]): path}));
        put("Assign", assigned);
        if kind != 0 {
            put("ResultPath", result_path.map(Value::from));
            put(if kind == 2 { "ItemSelector" } else { "Parameters" }, parameters);
        }
        if kind > 3 {
            put("Result", result);
        } else if kind > 0 {
            put("ResultSelector", selector);
        }
        state
    })
}

/// States one after another; some go elsewhere, back among them. Nested ones get a body of their own.
fn definition() -> impl Strategy<Value = Value> {
    let inner = prop::collection::vec((body(), any::<prop::sample::Index>()), 1..4);
    prop::collection::vec((body(), any::<prop::sample::Index>(), inner), 2..6).prop_map(|states| {
        let mut count = 0;
        let list: Vec<_> = states.iter().map(|(body, index, _)| (body.clone(), *index)).collect();
        let inner: Vec<_> = states.iter().map(|(.., inner)| inner.clone()).collect();
        chain(&list, &inner, &mut count)
    })
}

type Bodies = Vec<(Value, prop::sample::Index)>;

fn chain(bodies: &Bodies, inner: &[Bodies], count: &mut usize) -> Value {
    let first = *count;
    *count += bodies.len();
    let names: Vec<String> = (first..*count).map(|n| format!("S{n}")).collect();
    let mut states = Map::new();
    for (at, (body, index)) in bodies.iter().enumerate() {
        let mut state = body.clone();
        let nested = |count: &mut usize| {
            let plain: Bodies = inner.get(at).cloned().unwrap_or_default();
            let plain: Bodies =
                plain.into_iter().filter(|(b, _)| b["Type"] != "Map" && b["Type"] != "Parallel").collect();
            match plain.is_empty() {
                true => {
                    *count += 1;
                    let name = format!("S{}", *count - 1);
                    json!({"StartAt": name, "States": {name: {"Type": "Pass", "End": true}}})
                }
                false => chain(&plain, &[], count),
            }
        };
        match state["Type"].as_str() {
            Some("Map") => state["ItemProcessor"] = nested(count),
            Some("Parallel") => state["Branches"] = json!([nested(count)]),
            _ => {}
        }
        // Inner scopes must not assign what outer ones do.
        if inner.is_empty()
            && let Some(fields) = state.as_object_mut()
        {
            fields.remove("Assign");
        }
        let onwards = names.get(at + 1).cloned();
        if state["Type"] == "Choice" {
            // Each rule leads to a state of its own, so that which one held is seen.
            let rules = state["Choices"].as_array().cloned().unwrap_or_default();
            let mut led = Vec::new();
            for (n, mut rule) in rules.into_iter().enumerate() {
                let via = format!("{}via{n}", names[at]);
                let to = if n == 0 { index.get(&names).clone() } else { onwards.clone().unwrap_or(names[at].clone()) };
                states.insert(via.clone(), json!({"Type": "Pass", "Next": to}));
                rule["Next"] = via.into();
                led.push(rule);
            }
            state["Choices"] = led.into();
            let end = format!("{}end", names[at]);
            let default = onwards.unwrap_or_else(|| end.clone());
            if default == end {
                states.insert(end, json!({"Type": "Succeed"}));
            }
            state["Default"] = default.into();
        } else {
            match onwards {
                Some(next) => state["Next"] = next.into(),
                None => state["End"] = true.into(),
            }
        }
        states.insert(names[at].clone(), state);
    }
    json!({"StartAt": names[0], "States": states})
}

/// Names of the states that were entered, and of those that were left.
fn run(machine: &asl::StateMachine, input: &str, results: &[Value]) -> (BTreeSet<String>, BTreeSet<String>) {
    let env = Env::new("us-east-1", "000000000000", "m", "role");
    let reference = MachineRef { name: "m".into(), revision: 1, qualifier: None };
    let mut execution =
        Execution::start(ExecutionId::generate(Timestamp(0)), "n".into(), reference, input.into(), Timestamp(0));
    let (mut entered, mut exited) = (BTreeSet::new(), BTreeSet::new());
    let mut waiting = vec![Event::Started];
    let mut results = results.iter().cycle();
    // Definitions that loop are looked at for a while only.
    for at in 0..30 {
        let Some(event) = waiting.pop() else { break };
        let made = step(
            machine,
            &execution,
            &Entry { at: Timestamp(at), box_at: Timestamp(at), seed: at as u128, event },
            &env,
        );
        execution.apply(&made);
        for event in &made.history {
            match &event.kind {
                HistoryKind::StateEntered { name, .. } => drop(entered.insert(name.to_string())),
                HistoryKind::StateExited { name, .. } => drop(exited.insert(name.to_string())),
                _ => {}
            }
        }
        for command in made.commands {
            match command {
                Command::RunTask(task) => {
                    let output = results.next().unwrap_or(&Value::Null).to_string().into();
                    waiting.push(Event::TaskSucceeded { attempt: task.attempt, output });
                }
                Command::SetTimer { timer, .. } => waiting.insert(0, Event::TimerFired { timer }),
                _ => {}
            }
        }
        if execution.header.status != Status::Running {
            break;
        }
    }
    (entered, exited)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(512), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn what_can_never_happen_never_happens(
        definition in definition(),
        input in value(),
        results in prop::collection::vec(value(), 1..4),
        known in any::<bool>(),
    ) {
        // Generated definitions that the checks refuse, such as of states that nothing leads to, are not asked.
        let Ok(machine) = asl::parse(&definition.to_string()) else { return Ok(()) };
        let findings = flow::analyse(&machine, known.then_some(&input));
        let (entered, exited) = run(&machine, &input.to_string(), &results);
        for finding in findings {
            let state = finding.state.to_string();
            let happened = match finding.code {
                "STATE_NEVER_ENTERED" => entered.contains(&state),
                _ => finding.certain && exited.contains(&state),
            };
            prop_assert!(!happened, "{finding:?}\ninput {input}\nresults {results:?}\n{definition:#}");
        }
    }
}

/// More where the environment asks for more.
fn cases(usual: u32) -> u32 {
    std::env::var("CONVEYOR_FUZZ_CASES").ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}
