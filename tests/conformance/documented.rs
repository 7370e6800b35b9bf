//! Small definitions and what must come of them, by the developer guide, the states language's specification and the
//! rules that the recordings teach.

use serde_json::{Value, json};

use crate::world::World;

/// `#4<3 TaskFailed {"error":"E"}`: an event's number, the one before it, its type, its details but for the flags that
/// say that nothing was cut.
fn line(event: &Value) -> String {
    let details = event.as_object().unwrap().iter().find(|(key, _)| key.ends_with("EventDetails"));
    let shown = details.map(|(_, details)| {
        let kept =
            details.as_object().unwrap().iter().filter(|(key, _)| !key.ends_with("Details") && *key != "roleArn");
        Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    });
    let head = format!("#{}<{} {}", event["id"], event["previousEventId"], event["type"].as_str().unwrap());
    shown.map_or(head.clone(), |shown| format!("{head} {shown}"))
}

pub fn history(definition: &Value, input: &str) -> Vec<String> {
    World::default().history_of(definition, input).iter().map(line).collect()
}

/// How the execution ended: its output, or `Error: cause`.
pub fn outcome(definition: &Value, input: &str) -> String {
    let events = World::default().history_of(definition, input);
    let end = events.last().unwrap();
    if let Some(output) = end["executionSucceededEventDetails"]["output"].as_str() {
        return output.to_owned();
    }
    let details = end.as_object().unwrap().iter().find(|(key, _)| key.ends_with("EventDetails")).unwrap().1;
    let text = |key: &str| details[key].as_str().map(str::to_owned);
    match (text("error"), text("cause")) {
        (Some(error), Some(cause)) => {
            let sentence = "An error occurred while executing the state 'S' (entered at the event id #2). ";
            format!("{error}: {}", cause.replacen(sentence, "… ", 1))
        }
        (error, cause) => format!("{error:?} {cause:?}"),
    }
}

/// A machine of the state `S`; whatever it names besides is there and passes on.
fn one(state: &Value) -> Value {
    let mut states = json!({"S": state});
    for name in ["Yes", "No"] {
        if state.to_string().contains(&format!("\"{name}\"")) {
            states[name] = json!({"Type": "Pass", "Result": name, "ResultPath": "$", "End": true});
        }
    }
    let ends = ["Succeed", "Fail", "Choice"].contains(&state["Type"].as_str().unwrap());
    if !ends && state.get("Next").is_none() {
        states["S"]["End"] = json!(true);
    }
    json!({"StartAt": "S", "States": states})
}

fn check(cases: &[(Value, &str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .map(|(state, input, expected)| (state, input, *expected, outcome(&one(state), input)))
        .filter(|(.., expected, got)| expected != got)
        .map(|(state, input, expected, got)| format!("{state} of {input}\n  expected {expected}\n  got      {got}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn data_goes_through_a_state_as_the_guide_says() {
    check(&[
        (json!({"Type": "Pass"}), r#"{ "a" : 1 }"#, r#"{"a":1}"#),
        (json!({"Type": "Pass", "InputPath": "$.a"}), r#"{"a": [1, 2]}"#, "[1,2]"),
        (json!({"Type": "Pass", "InputPath": null}), r#"{"a": 1}"#, "{}"),
        (json!({"Type": "Pass", "InputPath": "$.a"}), r#"{"a": 90.57000000000001}"#, "90.57000000000001"),
        (json!({"Type": "Pass", "OutputPath": null}), r#"{"a": 1}"#, "{}"),
        (json!({"Type": "Pass", "OutputPath": "$.a"}), r#"{"a": "ü"}"#, r#""ü""#),
        (json!({"Type": "Pass", "Result": {"x.$": "$.a"}}), "{}", r#"{"x.$":"$.a"}"#),
        (json!({"Type": "Pass", "Result": 1, "ResultPath": null}), r#"{"a": 2}"#, r#"{"a":2}"#),
        (json!({"Type": "Pass", "Result": 1, "ResultPath": "$.r.s"}), r#"{"a": 2}"#, r#"{"a":2,"r":{"s":1}}"#),
        (
            json!({"Type": "Pass", "InputPath": "$.a", "Result": 1, "ResultPath": "$.r"}),
            r#"{"a": {"b": 2}}"#,
            r#"{"a":{"b":2},"r":1}"#,
        ),
        (
            json!({"Type": "Pass", "Parameters": {"c": {"d.$": "$$.State.Name"}, "e": ["f.$"], "g.$": "$.a[-1:]"}}),
            r#"{"a": [1, 2]}"#,
            r#"{"c":{"d":"S"},"e":["f.$"],"g":[2]}"#,
        ),
        (json!({"Type": "Succeed", "InputPath": "$.a", "OutputPath": "$.b"}), r#"{"a": {"b": null}}"#, "null"),
        // Misses and conflicts.
        (
            json!({"Type": "Pass", "InputPath": "$.x"}),
            r#"{"a": 1}"#,
            "States.Runtime: … Invalid path '$.x' : No results for path: $['x']",
        ),
        (
            json!({"Type": "Pass", "OutputPath": "$.x.y"}),
            r#"{"a": 1}"#,
            "States.Runtime: … Invalid path '$.x.y' : Missing property in path $['x']",
        ),
        (
            json!({"Type": "Pass", "Parameters": {"address.$": "$.application.address"}}),
            r#"{"flagged": false}"#,
            "States.Runtime: … The JSONPath '$.application.address' specified for the field 'address.$' could not be \
             found in the input '{\"flagged\":false}'",
        ),
        (
            json!({"Type": "Pass", "InputPath": "$.x"}),
            "null",
            "States.Runtime: … Unable to apply Path transformation to null or empty input.",
        ),
        (
            json!({"Type": "Pass", "Result": 1, "ResultPath": "$.r"}),
            r#""text""#,
            r#"States.ReferencePathConflict: Unable to apply step "r" to input "text""#,
        ),
    ]);
}

#[test]
fn choice_rules_choose() {
    let moment = "2024-08-18T17:33:00Z";
    for (rule, input, expected) in [
        (json!({"StringEquals": "a"}), json!("a"), true),
        (json!({"StringEquals": "a"}), json!("A"), false),
        (json!({"StringEquals": "1"}), json!(1), false),
        (json!({"StringLessThan": "b"}), json!("a"), true),
        (json!({"StringGreaterThanEquals": "b"}), json!("b"), true),
        (json!({"StringEqualsPath": "$.w"}), json!("w"), true),
        (json!({"StringGreaterThanPath": "$.w"}), json!("w"), false),
        (json!({"StringMatches": "log-*.txt"}), json!("log-7.txt"), true),
        (json!({"StringMatches": "log-\\*.txt"}), json!("log-7.txt"), false),
        (json!({"StringMatches": "log-\\*.txt"}), json!("log-*.txt"), true),
        (json!({"StringMatches": "*"}), json!(7), false),
        (json!({"NumericEquals": 1}), json!(1.0), true),
        (json!({"NumericEquals": 1}), json!("1"), false),
        (json!({"NumericLessThanEquals": 1.5}), json!(1.5), true),
        (json!({"NumericGreaterThanPath": "$.n"}), json!(8), true),
        (json!({"NumericGreaterThanEqualsPath": "$.w"}), json!(8), false),
        (json!({"BooleanEquals": false}), json!(false), true),
        (json!({"BooleanEquals": false}), json!(null), false),
        (json!({"BooleanEqualsPath": "$.b"}), json!(true), true),
        (json!({"TimestampEquals": moment}), json!("2024-08-18T19:33:00+02:00"), true),
        (json!({"TimestampLessThan": moment}), json!("2024-08-18T17:32:59.999Z"), true),
        (json!({"TimestampGreaterThan": moment}), json!("2024-08-18T17:33:01"), false),
        (json!({"TimestampEqualsPath": "$.t"}), json!(moment), true),
        (json!({"IsNull": true}), json!(null), true),
        (json!({"IsNull": false}), json!(0), true),
        (json!({"IsPresent": true}), json!(null), true),
        (json!({"IsNumeric": true}), json!("1"), false),
        (json!({"IsString": true}), json!(""), true),
        (json!({"IsBoolean": false}), json!("true"), true),
        (json!({"IsTimestamp": true}), json!(moment), true),
        (json!({"IsTimestamp": true}), json!("2024-08-18"), false),
    ] {
        let mut asked = rule.clone();
        asked["Variable"] = json!("$.v");
        let input = json!({"v": input, "w": "w", "n": 7, "b": true, "t": moment}).to_string();
        for (rule, expected) in [
            (asked.clone(), expected),
            (json!({"Not": asked}), !expected),
            (json!({"And": [asked, {"Variable": "$.missing", "IsPresent": false}]}), expected),
            (json!({"Or": [{"Variable": "$.missing", "IsPresent": true}, asked]}), expected),
        ] {
            let mut rule = rule;
            rule["Next"] = json!("Yes");
            let state = json!({"Type": "Choice", "Choices": [rule], "Default": "No"});
            let chosen = if expected { r#""Yes""# } else { r#""No""# };
            assert_eq!(outcome(&one(&state), &input), chosen, "{state} of {input}");
        }
    }
}

#[test]
fn a_choice_that_cannot_be_made_says_why() {
    let rule = |rule: Value| json!({"Type": "Choice", "Choices": [rule]});
    check(&[
        (
            rule(json!({"Variable": "$.a", "NumericEquals": 1, "Next": "Yes"})),
            r#"{"a": 2}"#,
            "States.NoChoiceMatched: … Failed to transition out of the state. The state does not point to a next state.",
        ),
        (
            rule(json!({"Variable": "$.x", "IsNull": true, "Next": "Yes"})),
            r#"{"a": 2}"#,
            "States.Runtime: … Invalid path '$.x': The choice state's condition path references an invalid value.",
        ),
        (
            rule(json!({"Variable": "$.a", "NumericEqualsPath": "$.x", "Next": "Yes"})),
            r#"{"a": 2}"#,
            "States.Runtime: … Invalid path '$.x': The choice state's condition path references an invalid value.",
        ),
    ]);
}

#[test]
fn wait_and_fail_read_what_they_are_given() {
    let wait = |field: &str, value: Value| json!({"Type": "Wait", field: value});
    check(&[
        (wait("Seconds", json!(99_999_999)), "{}", "{}"),
        (wait("Timestamp", json!("2001-01-01T00:00:00Z")), r#"{"a": 1}"#, r#"{"a":1}"#),
        (wait("SecondsPath", json!("$.s")), r#"{"s": 0}"#, r#"{"s":0}"#),
        (
            wait("TimestampPath", json!("$.t")),
            r#"{"t": "2001-01-01T00:00:00+02:00"}"#,
            r#"{"t":"2001-01-01T00:00:00+02:00"}"#,
        ),
        (
            wait("SecondsPath", json!("$.s")),
            r#"{"s": -1}"#,
            "States.Runtime: … The SecondsPath parameter references a negative value: $.s == -1",
        ),
        (
            wait("SecondsPath", json!("$.s")),
            r#"{"s": 1.5}"#,
            "States.Runtime: … The SecondsPath parameter cannot be parsed as a long value: $.s == 1.5",
        ),
        (
            wait("SecondsPath", json!("$.s")),
            "{}",
            "States.Runtime: … The SecondsPath parameter does not reference an input value: $.s",
        ),
        (
            wait("TimestampPath", json!("$.t")),
            "{}",
            "States.Runtime: … The TimestampPath parameter does not reference an input value: $.t",
        ),
        (wait("SecondsPath", json!("$.s")), r#"{"s": 2147472001}"#, "States.Runtime: … Wait state delay is too long."),
        (
            wait("TimestampPath", json!("$.t")),
            r#"{"t": "2999-01-01T00:00:00Z"}"#,
            "States.Runtime: … Wait state delay is too long.",
        ),
        (json!({"Type": "Fail"}), "{}", "None None"),
        (json!({"Type": "Fail", "Error": "E", "Cause": "why"}), "{}", "E: why"),
        (json!({"Type": "Fail", "Cause": "why"}), "{}", r#"None Some("why")"#),
        (json!({"Type": "Fail", "ErrorPath": "$.e", "CausePath": "$$.State.Name"}), r#"{"e": "E"}"#, "E: S"),
        (json!({"Type": "Fail", "Error": "E", "CausePath": "States.Format('{}!', $.c)"}), r#"{"c": 1}"#, "E: 1!"),
    ]);
    // A moment is waited for to the second.
    let until = one(&wait("TimestampPath", json!("$.t")));
    let events = World::default().history_of(&until, r#"{"t": "2025-10-09T08:53:25.900Z"}"#);
    assert_eq!(events[2]["timestamp"], json!(1_760_000_005.0));
}

/// A Task that is told what to do.
pub fn task(script: &Value, more: &Value) -> Value {
    let mut state = json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:scripted", "Parameters": script});
    for (field, value) in more.as_object().unwrap() {
        state[field] = value.clone();
    }
    state
}

#[test]
fn errors_are_caught_by_the_names_that_the_guide_gives_them() {
    let (silent, fails) = (json!({}), json!({"error": "E", "cause": "why"}));
    let runtime = json!({"output": 1, "x.$": "$.missing"});
    let too_large = json!({"bytes": 262_143});
    for (script, more, name, is_caught) in [
        (&fails, json!({}), "E", true),
        (&fails, json!({}), "e", false),
        (&fails, json!({}), "States.ALL", true),
        (&fails, json!({}), "States.TaskFailed", true),
        (&silent, json!({"TimeoutSeconds": 9}), "States.Timeout", true),
        (&silent, json!({"TimeoutSeconds": 9}), "States.ALL", true),
        (&silent, json!({"TimeoutSeconds": 9}), "States.TaskFailed", false),
        (&silent, json!({"TimeoutSeconds": 9}), "States.HeartbeatTimeout", false),
        (&silent, json!({"HeartbeatSeconds": 9}), "States.HeartbeatTimeout", true),
        (&silent, json!({"HeartbeatSeconds": 9}), "States.Timeout", true),
        (&silent, json!({"HeartbeatSeconds": 9}), "States.TaskFailed", false),
        (&runtime, json!({}), "States.Runtime", false),
        (&runtime, json!({}), "States.ALL", false),
        (&too_large, json!({}), "States.DataLimitExceeded", true),
        (&too_large, json!({}), "States.ALL", false),
        (&too_large, json!({}), "States.TaskFailed", false),
        (&json!({"output": 1}), json!({"ResultPath": "$.v.w"}), "States.ResultPathMatchFailure", true),
        (&json!({"output": 1}), json!({"ResultPath": "$.v.w"}), "States.ReferencePathConflict", true),
        (&json!({"output": 1}), json!({"ResultPath": "$.v.w"}), "States.ALL", true),
    ] {
        let mut state = task(script, &more);
        state["Catch"] = json!([{"ErrorEquals": [name], "Next": "Yes"}]);
        let caught = outcome(&one(&state), r#"{"v": 1}"#) == r#""Yes""#;
        assert_eq!(caught, is_caught, "{name} of {state}");
        state["Retry"] = json!([{"ErrorEquals": [name], "MaxAttempts": 2}]);
        let events = World::default().history_of(&one(&state), r#"{"v": 1}"#);
        let tries = events.iter().filter(|event| event["type"] == "TaskScheduled").count();
        // What cannot be decided is not scheduled at all.
        let expected = if is_caught { 3 } else { usize::from(*script != runtime) };
        assert_eq!(tries, expected, "{name} of {state}");
    }
}

/// "Passing data between states with variables": 256 KiB in one Assign, and 10 MiB in all.
#[test]
fn variables_are_bounded_together() {
    let assigns = |name: &dyn Fn(usize) -> String| {
        let mut states = serde_json::Map::new();
        for n in 0..50 {
            let variables = json!({name(n): "{% $pad('', 250000, 'x') %}"});
            let state = json!({"Type": "Pass", "Assign": variables, "Output": n, "Next": format!("S{}", n + 1)});
            states.insert(format!("S{n}"), state);
        }
        states.insert("S50".into(), json!({"Type": "Succeed"}));
        json!({"QueryLanguage": "JSONata", "StartAt": "S0", "States": states})
    };
    assert_eq!(outcome(&assigns(&|_| "again".to_owned()), "{}"), "49");
    let told = outcome(&assigns(&|n| format!("v{n}")), "{}");
    assert!(told.starts_with("States.DataLimitExceeded: The state 'S41' assigns"), "{told}");
}

#[test]
fn retries_wait_as_long_as_they_say() {
    let script = json!({"error": "E", "cause": ""});
    for (retrier, expected) in [
        (json!({}), vec![0.0, 1.0, 3.0, 7.0]),
        (json!({"MaxAttempts": 0}), vec![0.0]),
        (json!({"IntervalSeconds": 5, "MaxAttempts": 2, "BackoffRate": 1}), vec![0.0, 5.0, 10.0]),
        (
            json!({"IntervalSeconds": 3, "MaxAttempts": 4, "BackoffRate": 2.5, "MaxDelaySeconds": 8}),
            vec![0.0, 3.0, 10.5, 18.5, 26.5],
        ),
    ] {
        let mut retrier = retrier;
        retrier["ErrorEquals"] = json!(["E"]);
        let state = task(&script, &json!({"Retry": [retrier]}));
        let events = World::default().history_of(&one(&state), "{}");
        let began = events[0]["timestamp"].as_f64().unwrap();
        let scheduled = events.iter().filter(|event| event["type"] == "TaskScheduled");
        let at: Vec<f64> = scheduled.map(|event| event["timestamp"].as_f64().unwrap() - began).collect();
        assert_eq!(at, expected, "{state}");
    }
    // Each retrier counts for itself.
    let retry =
        json!({"Retry": [{"ErrorEquals": ["E"], "MaxAttempts": 1}, {"ErrorEquals": ["States.ALL"], "MaxAttempts": 5}]});
    let events = World::default().history_of(&one(&task(&script, &retry)), "{}");
    assert_eq!(events.iter().filter(|event| event["type"] == "TaskFailed").count(), 2);
}

#[test]
fn the_path_forms_of_a_tasks_times_and_a_maps_width_are_checked() {
    let silent = |field: &str| task(&json!({}), &json!({field: "$.n"}));
    let done = json!({"StartAt": "T", "States": {"T": {"Type": "Pass", "End": true}}});
    let map = |more: Value| {
        let mut state = json!({"Type": "Map", "ItemsPath": "$.items", "ItemProcessor": done});
        for (field, value) in more.as_object().unwrap() {
            state[field] = value.clone();
        }
        state
    };
    check(&[
        (silent("TimeoutSecondsPath"), r#"{"n": 5}"#, r#"Some("States.Timeout") None"#),
        (silent("HeartbeatSecondsPath"), r#"{"n": 5}"#, r#"Some("States.Timeout") None"#),
        (
            silent("TimeoutSecondsPath"),
            r#"{"n": "x"}"#,
            "States.Runtime: … The TimeoutSecondsPath parameter cannot be parsed as a long value: $.n == \"x\"",
        ),
        (
            silent("HeartbeatSecondsPath"),
            "{}",
            "States.Runtime: … The HeartbeatSecondsPath parameter does not reference an input value: $.n",
        ),
        (map(json!({})), r#"{"items": []}"#, "[]"),
        (map(json!({"MaxConcurrency": 1})), r#"{"items": [1, null, "ü"]}"#, r#"[1,null,"ü"]"#),
        (map(json!({"MaxConcurrencyPath": "$.n"})), r#"{"items": [1], "n": 2}"#, "[1]"),
        (
            map(
                json!({"ItemSelector": {"i.$": "$$.Map.Item.Index", "v.$": "$$.Map.Item.Value", "n.$": "$.n"}, "ResultPath": "$.r",
                "ResultSelector": {"first.$": "$[0].v"}, "OutputPath": "$.r"}),
            ),
            r#"{"items": ["a", "b"], "n": 7}"#,
            r#"{"first":"a"}"#,
        ),
        (map(json!({})), r#"{"items": {"a": 1}}"#, r#"[{"Key":"a","Value":1}]"#),
        (
            map(json!({"ItemSelector": {"k.$": "$$.Map.Item.Key", "v.$": "$$.Map.Item.Value"}})),
            r#"{"items": {"a": 1, "b": [2]}}"#,
            r#"[{"k":"a","v":1},{"k":"b","v":[2]}]"#,
        ),
        (map(json!({})), r#"{"items": 7}"#, "States.Runtime: … Reference path \"$.items\" must point to array."),
        (
            map(json!({"MaxConcurrencyPath": "$.n"})),
            r#"{"items": [1], "n": -1}"#,
            "States.Runtime: … MaxConcurrencyPath cannot be negative: $.n == -1",
        ),
        (
            map(json!({"MaxConcurrencyPath": "$.n"})),
            r#"{"items": [1], "n": "two"}"#,
            "States.Runtime: … The MaxConcurrencyPath field refers to value \"two\" which is not a valid integer: $.n",
        ),
    ]);
}

#[test]
fn intrinsic_functions_give_what_the_guide_shows() {
    let input = r#"{"id": 123456, "array": [1, 2, 3, 3, 3, 4], "json1": {"a": {"a1": 1, "a2": 2}, "b": 2},
        "json2": {"a": {"a3": 1, "a4": 2}, "c": 3}, "escaped": "{\"foo\": \"bar\"}", "text": "This.is+a,test=string",
        "name": "Arnav", "template": "Hello, my name is {}.", "v": 111, "s": -1, "half": 1.5}"#;
    let cases = [
        ("States.Array($.id)", "[123456]"),
        ("States.ArrayPartition($.array, 4)", "[[1,2,3,3],[3,4]]"),
        ("States.ArrayContains($.array, 4)", "true"),
        ("States.ArrayRange(1, 9, 2)", "[1,3,5,7,9]"),
        ("States.ArrayGetItem($.array, 5)", "4"),
        ("States.ArrayLength($.array)", "6"),
        ("States.ArrayUnique($.array)", "[1,2,3,4]"),
        ("States.Base64Encode('Data to encode')", r#""RGF0YSB0byBlbmNvZGU=""#),
        ("States.Base64Decode('RGVjb2RlZCBkYXRh')", r#""Decoded data""#),
        ("States.Hash('input data', 'SHA-1')", r#""aaff4a450a104cd177d28d18d74485e8cae074b7""#),
        ("States.JsonMerge($.json1, $.json2, false)", r#"{"a":{"a3":1,"a4":2},"b":2,"c":3}"#),
        ("States.StringToJson($.escaped)", r#"{"foo":"bar"}"#),
        ("States.JsonToString($.json2)", r#""{\"a\":{\"a3\":1,\"a4\":2},\"c\":3}""#),
        ("States.MathAdd($.v, $.s)", "110"),
        ("States.MathAdd($.half, 0)", "2"),
        ("States.StringSplit($.text, '.+,=')", r#"["This","is","a","test","string"]"#),
        ("States.Format('Hello, my name is {}.', $.name)", r#""Hello, my name is Arnav.""#),
        ("States.Format($.template, $.name)", r#""Hello, my name is Arnav.""#),
        (r"States.Format('\{\} {} \'{}\'', 1, 'x')", r#""{} 1 'x'""#),
        ("States.ArrayGetItem(States.StringSplit('a/b/c', '/'), 1)", r#""b""#),
    ];
    for (call, expected) in cases {
        let state = json!({"Type": "Pass", "Parameters": {"x.$": call}, "OutputPath": "$.x"});
        assert_eq!(outcome(&one(&state), input), expected, "{call}");
    }
    for call in [
        "States.ArrayGetItem($.array, 6)",
        "States.ArrayRange(0, 1000, 1)",
        "States.JsonMerge($.json1, $.json2, true)",
        "States.MathAdd('1', 1)",
        "States.StringToJson('{')",
    ] {
        let state = json!({"Type": "Pass", "Parameters": {"x.$": call}});
        let head = format!("States.IntrinsicFailure: … The function '{call}' had the following error: ");
        assert!(outcome(&one(&state), input).starts_with(&head), "{call}");
    }
}

#[test]
fn a_failed_branch_ends_its_siblings_in_order() {
    let definition = json!({"StartAt": "Both", "States": {
    "Both": {"Type": "Parallel", "End": true, "Branches": [
        {"StartAt": "Long", "States": {"Long": {"Type": "Wait", "Seconds": 60, "End": true}}},
        {"StartAt": "Brake", "States": {
            "Brake": {"Type": "Wait", "Seconds": 1, "Next": "Broken"}, "Broken": {"Type": "Fail", "Error": "E", "Cause": "why"}}},
        {"StartAt": "Each", "States": {"Each": {"Type": "Map", "End": true, "ItemProcessor": {
            "StartAt": "Ümlaut", "States": {"Ümlaut": {"Type": "Wait", "Seconds": 60, "End": true}}}}}},
    ]}}});
    assert_eq!(
        history(&definition, "[7]"),
        [
            r#"#1<0 ExecutionStarted {"input":"[7]"}"#,
            r#"#2<0 ParallelStateEntered {"name":"Both","input":"[7]"}"#,
            "#3<2 ParallelStateStarted",
            r#"#4<3 WaitStateEntered {"name":"Long","input":"[7]"}"#,
            r#"#5<3 WaitStateEntered {"name":"Brake","input":"[7]"}"#,
            r#"#6<3 MapStateEntered {"name":"Each","input":"[7]"}"#,
            r#"#7<6 MapStateStarted {"length":1}"#,
            r#"#8<7 MapIterationStarted {"name":"Each","index":0}"#,
            r#"#9<8 WaitStateEntered {"name":"Ümlaut","input":"7"}"#,
            r#"#10<5 WaitStateExited {"name":"Brake","output":"[7]"}"#,
            r#"#11<10 FailStateEntered {"name":"Broken","input":"[7]"}"#,
            "#12<11 WaitStateAborted",
            "#13<11 WaitStateAborted",
            r#"#14<11 MapIterationAborted {"name":"Each","index":0}"#,
            "#15<11 MapStateAborted",
            "#16<11 ParallelStateFailed",
            r#"#17<16 ExecutionFailed {"error":"E","cause":"why"}"#,
        ]
    );
}

#[test]
fn a_lost_heartbeat_is_retried_caught_and_passed_on() {
    let state = task(
        &json!({"given.$": "$.a"}),
        &json!({"TimeoutSeconds": 100, "HeartbeatSeconds": 10, "End": true,
            "Retry": [{"ErrorEquals": ["States.HeartbeatTimeout"], "MaxAttempts": 1}],
            "Catch": [{"ErrorEquals": ["States.HeartbeatTimeout"], "ResultPath": "$.e", "Next": "Seen"}]}),
    );
    let definition =
        json!({"StartAt": "Ask", "States": {"Ask": state, "Seen": {"Type": "Succeed", "OutputPath": "$.e"}}});
    let scheduled = r#"{"resourceType":"conveyor","resource":"scripted","region":"us-east-1","parameters":"{\"given\":1}","timeoutInSeconds":100,"heartbeatInSeconds":10}"#;
    let started = r#"{"resourceType":"conveyor","resource":"scripted"}"#;
    let timed_out = r#"{"resourceType":"conveyor","resource":"scripted","error":"States.Timeout"}"#;
    assert_eq!(
        history(&definition, r#"{"a":1}"#)[1..],
        [
            r#"#2<0 TaskStateEntered {"name":"Ask","input":"{\"a\":1}"}"#.to_owned(),
            format!("#3<2 TaskScheduled {scheduled}"),
            format!("#4<3 TaskStarted {started}"),
            format!("#5<4 TaskTimedOut {timed_out}"),
            format!("#6<5 TaskScheduled {scheduled}"),
            format!("#7<6 TaskStarted {started}"),
            format!("#8<7 TaskTimedOut {timed_out}"),
            r#"#9<8 TaskStateExited {"name":"Ask","output":"{\"a\":1,\"e\":{\"Error\":\"States.Timeout\"}}"}"#
                .to_owned(),
            r#"#10<9 SucceedStateEntered {"name":"Seen","input":"{\"a\":1,\"e\":{\"Error\":\"States.Timeout\"}}"}"#
                .to_owned(),
            r#"#11<10 SucceedStateExited {"name":"Seen","output":"{\"Error\":\"States.Timeout\"}"}"#.to_owned(),
            r#"#12<11 ExecutionSucceeded {"output":"{\"Error\":\"States.Timeout\"}"}"#.to_owned(),
        ]
    );
}

#[test]
fn a_definitions_own_timeout_ends_the_execution() {
    let mut definition = one(&json!({"Type": "Wait", "Seconds": 60}));
    definition["TimeoutSeconds"] = json!(5);
    let events = World::default().history_of(&definition, "{}");
    assert_eq!(line(&events[2]), r##"#3<0 ExecutionTimedOut {"error":"States.Timeout"}"##);
    let elapsed = events[2]["timestamp"].as_f64().unwrap() - events[0]["timestamp"].as_f64().unwrap();
    assert_eq!((events.len(), elapsed), (3, 5.0));
}
