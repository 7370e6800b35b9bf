//! What hostile definitions and data do to `step`: it always answers, with bounded memory, and what it decides can be
//! stored and read again. `CONVEYOR_FUZZ_CASES` sets how many definitions are tried; see also `tests/flow.rs`,
//! `tests/api/hostile.rs` and the property tests of `asl` and `jsonata`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use conveyor_asl as asl;
use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::{Command, Entry, Env, Event, Execution, Header, MachineRef, Outcome, Status, step};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Steps until the execution ends, or for a while; each snapshot must survive being written and read.
fn run(definition: &Value, input: &str) -> Header {
    let machine = asl::parse(&definition.to_string()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let env = Env::new("us-east-1", "000000000000", "m", "role");
    let reference = MachineRef { name: "m".into(), revision: 1, qualifier: None };
    let mut execution =
        Execution::start(ExecutionId::generate(Timestamp(0)), "n".into(), reference, input.into(), Timestamp(0));
    let mut waiting = vec![Event::Started];
    for at in 0..100 {
        let Some(event) = waiting.pop() else { break };
        let made = step(
            &machine,
            &execution,
            &Entry { at: Timestamp(at), box_at: Timestamp(at), seed: at as u128, event },
            &env,
        );
        execution.apply(&made);
        for branch in execution.branches.values() {
            let text = branch.input.to_string();
            serde_json::from_str::<Value>(&text).expect("what is stored can be read");
            for value in branch.variables.values() {
                serde_json::from_str::<Value>(&value.to_string()).expect("what is stored can be read");
            }
        }
        waiting.extend(made.commands.iter().filter_map(|command| match command {
            Command::SetTimer { timer, .. } => Some(Event::TimerFired { timer: *timer }),
            _ => None,
        }));
        if execution.header.status != Status::Running {
            break;
        }
    }
    execution.header
}

fn error(header: &Header) -> &str {
    match &header.outcome {
        Some(Outcome::Failed { error: Some(error), .. }) => error,
        other => panic!("{:?} {other:?}", header.status),
    }
}

fn pass(fields: Value) -> Value {
    let mut state = json!({"Type": "Pass", "End": true});
    state.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"StartAt": "A", "States": {"A": state}})
}

/// On a stack as small as a worker's.
fn on_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap();
}

#[test]
fn data_that_loops_nest_ever_deeper_is_stopped() {
    on_small_stack(|| {
        for body in [
            json!({"Parameters": {"a.$": "$"}}),
            json!({"Parameters": {"a": [[[[{"b.$": "$"}]]]]}}),
            json!({"Assign": {"v": {"a.$": "$v"}}}),
            json!({"QueryLanguage": "JSONata", "Output": {"a": "{% $states.input %}"}}),
            json!({"QueryLanguage": "JSONata", "Assign": {"v": "{% [[$v]] %}"}}),
        ] {
            let mut again = json!({"Type": "Pass", "Next": "Again"});
            again.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
            let definition = json!({"StartAt": "First", "States": {
                "First": {"Type": "Pass", "Assign": {"v": 1}, "Next": "Again"}, "Again": again, "End": {"Type": "Succeed"},
                "Never": {"Type": "Pass", "Next": "End"}}});
            let mut definition = definition;
            // Nothing may stand beside the way.
            definition["States"]["First"] = json!({"Type": "Choice", "Default": "Start", "Choices":
                [{"Variable": "$", "IsNull": true, "Next": "Never"}]});
            definition["States"]["Start"] = json!({"Type": "Pass", "Assign": {"v": 1}, "Next": "Again"});
            let header = run(&definition, "{}");
            assert_eq!(error(&header), "States.DataLimitExceeded", "{body}");
        }
    });
}

#[test]
fn data_that_doubles_is_stopped_before_it_fills_the_memory() {
    let large = json!({"x": "y".repeat(200_000)}).to_string();
    let many: serde_json::Map<String, Value> = (0..20_000).map(|n| (format!("f{n}.$"), json!("$.x"))).collect();
    let arguments = vec!["$.x"; 900].join(", ");
    let holes = "{}".repeat(900);
    let deep = (0..80).fold(json!("z".repeat(150_000)), |inner, _| json!([inner])).to_string();
    for (definition, input) in [
        (pass(json!({"Parameters": many})), &large),
        (pass(json!({"Parameters": {"a.$": format!("States.Array({arguments})")}})), &large),
        (pass(json!({"Parameters": {"a.$": format!("States.Format('{holes}', {arguments})")}})), &large),
        (pass(json!({"InputPath": "$..[*]..[*]"})), &deep),
        (
            pass(json!({"QueryLanguage": "JSONata",
            "Output": "{% $map([1..5000], function($i) { $states.input.x & $i }) %}"})),
            &large,
        ),
        (pass(json!({"QueryLanguage": "JSONata", "Output": "{% $pad($states.input.x, 2000000000) %}"})), &large),
        (pass(json!({"Parameters": {"a.$": "States.ArrayRange(0, 2000000000, 1)"}})), &large),
    ] {
        let header = run(&definition, input);
        assert!(!error(&header).is_empty());
    }
    // The process has not grown by more than a few of the largest results.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 1_500_000, "{peak_kib} KiB");
}

#[test]
fn what_is_slow_is_given_up() {
    let text =
        json!({"x": format!("{}!", "a".repeat(50_000)), "deep": (0..90).fold(json!(1), |v, _| json!([v, v["x"]]))});
    for definition in [
        pass(json!({"QueryLanguage": "JSONata", "Output": "{% $match($states.input.x, /(a+)+$/) %}"})),
        pass(json!({"QueryLanguage": "JSONata", "Output": "{% ($f := function($n) { $f($n) }; $f(1)) %}"})),
        pass(json!({"QueryLanguage": "JSONata", "Output": "{% [1..9999999][[1..9999999][$ > 5]] %}"})),
        pass(json!({"InputPath": "$..[?(@.a =~ /(a+)+$/)]"})),
        pass(json!({"InputPath": "$..*..*..*..*"})),
        pass(json!({"Parameters": {"a.$": "States.StringSplit($.x, 'a')"}})),
    ] {
        // Whatever comes out: it came out.
        run(&definition, &text.to_string());
    }
}

fn small_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), any::<i64>().prop_map(Value::from), "[a-c$.]{0,6}".prop_map(Value::from)];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c]", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("CONVEYOR_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256),
        ..ProptestConfig::default()
    })]

    /// Any expression in any field of a state that is accepted runs to an end.
    #[test]
    fn accepted_expressions_run(
        field in prop::sample::select(vec!["InputPath", "OutputPath", "ResultPath", "call", "Output", "Assign"]),
        pieces in prop::collection::vec(prop::sample::select(vec![
            "$", "$$", ".a", ".b", "[0]", "[*]", "..", "[?(@.a)]", "States.Array(", "States.Format('{}', ", "$.a", ", ", ")",
            "States.JsonMerge(", "States.StringToJson(", "States.JsonToString(", "'a'", "1", "$states.input", "$map(",
            "function($v) { $v }", " & ", "[", "]", "{", "}", "..", "5",
        ]), 1..8),
        input in small_json(),
    ) {
        let text = pieces.concat();
        let definition = match field {
            "call" => pass(json!({"Parameters": {"x.$": text}})),
            "Output" => pass(json!({"QueryLanguage": "JSONata", "Output": format!("{{% {text} %}}")})),
            "Assign" => pass(json!({"QueryLanguage": "JSONata", "Assign": {"v": format!("{{% {text} %}}")}})),
            field => pass(json!({field: text})),
        };
        if asl::parse(&definition.to_string()).is_ok() {
            prop_assert!(run(&definition, &input.to_string()).status != Status::Running);
        }
    }
}
