//! States in JSONata and workflow variables: small definitions and what must come of them, by the developer guide.

use serde_json::{Value, json};

use crate::documented::{history, outcome, task};

/// A machine in JSONata whose states follow one another as they are listed.
fn machine(states: &[(&str, Value)]) -> Value {
    let mut listed = serde_json::Map::new();
    for (at, (name, state)) in states.iter().enumerate() {
        let mut state = state.clone();
        let ends = ["Succeed", "Fail", "Choice"].contains(&state["Type"].as_str().unwrap());
        if !ends && state.get("Next").is_none() && state.get("End").is_none() {
            match states.get(at + 1) {
                Some((next, _)) => state["Next"] = json!(next),
                None => state["End"] = json!(true),
            }
        }
        listed.insert((*name).to_owned(), state);
    }
    json!({"QueryLanguage": "JSONata", "StartAt": states[0].0, "States": listed})
}

/// A Task in JSONata that is answered by the script that it hands over.
fn scripted(arguments: &Value, more: &Value) -> Value {
    let mut state = task(&json!({}), more);
    state.as_object_mut().unwrap().remove("Parameters");
    state["Arguments"] = arguments.clone();
    state
}

#[test]
fn a_task_takes_arguments_and_gives_output_and_variables() {
    let answer = json!({"output": {"n": "{% $states.input.n + $base %}", "who": "{% $states.context.State.Name %}"}});
    let definition = machine(&[
        ("First", json!({"Type": "Pass", "Assign": {"base": 40}})),
        (
            "S",
            scripted(
                &answer,
                &json!({
                    "Assign": {"base": "{% $states.result.n %}", "before": "{% $base %}"},
                    "Output": {"sum": "{% $states.result.n %}", "base": "{% $base %}", "list": ["{% $states.result.who %}", "{% 'x"]},
                }),
            ),
        ),
        ("Last", json!({"Type": "Succeed", "Output": {"s": "{% $states.input %}", "v": "{% [$base, $before] %}"}})),
    ]);
    assert_eq!(outcome(&definition, r#"{"n": 2}"#), r#"{"s":{"sum":42,"base":40,"list":["S","{% 'x"]},"v":[42,40]}"#);
}

#[test]
fn a_caught_error_is_there_for_assign_and_output_of_the_catcher() {
    let catch = json!([{
        "ErrorEquals": ["Broken"], "Next": "Yes",
        "Assign": {"why": "{% $states.errorOutput.Error & ': ' & $states.errorOutput.Cause %}"},
        "Output": "{% $merge([$states.input, {'caught': $states.errorOutput.Error}]) %}",
    }]);
    let definition = machine(&[
        ("S", scripted(&json!({"error": "Broken", "cause": "badly"}), &json!({"Catch": catch, "Next": "Yes"}))),
        ("Yes", json!({"Type": "Pass", "Output": "{% [$states.input, $why] %}"})),
    ]);
    assert_eq!(outcome(&definition, r#"{"a": 1}"#), r#"[{"a":1,"caught":"Broken"},"Broken: badly"]"#);
}

#[test]
fn a_choice_rule_has_an_assign_and_output_of_its_own() {
    let choice = json!({
        "Type": "Choice", "Default": "No", "Assign": {"way": "default"}, "Output": "{% 'none of ' & $states.input.n %}",
        "Choices": [
            {"Condition": "{% $states.input.n < 0 %}", "Next": "No"},
            {"Condition": "{% $states.input.n > 10 %}", "Next": "Yes", "Assign": {"way": "rule"}, "Output": "{% $states.input.n * 2 %}"},
        ],
    });
    let way = json!({"Type": "Pass", "Output": "{% [$states.input, $way] %}", "End": true});
    let definition = machine(&[("S", choice), ("Yes", way.clone()), ("No", way)]);
    assert_eq!(outcome(&definition, r#"{"n": 21}"#), r#"[42,"rule"]"#);
    assert_eq!(outcome(&definition, r#"{"n": 5}"#), r#"["none of 5","default"]"#);
}

#[test]
fn inner_scopes_read_outer_variables_and_keep_their_own() {
    let inner = json!({"Type": "Pass", "Assign": {"mine": "{% $outer + $states.input %}"}, "Next": "T"});
    let shows = json!({"Type": "Pass", "Output": "{% $mine + $outer %}", "End": true});
    let map = json!({
        "Type": "Map", "Items": "{% [1..3] %}", "MaxConcurrency": "{% $outer %}",
        "ItemSelector": "{% $states.context.Map.Item.Value * 10 + $states.context.Map.Item.Index %}",
        "ItemProcessor": {"StartAt": "I", "States": {"I": inner, "T": shows}},
        "Assign": {"sum": "{% $sum($states.result) %}"},
    });
    let definition = machine(&[
        ("First", json!({"Type": "Pass", "Assign": {"outer": 1}})),
        ("S", map),
        ("Last", json!({"Type": "Pass", "Output": {"sum": "{% $sum %}", "mine": "{% $exists($mine) %}"}})),
    ]);
    assert_eq!(outcome(&definition, "{}"), r#"{"sum":69,"mine":false}"#);
}

#[test]
fn a_failed_expression_says_which_and_can_be_caught() {
    let failed = |state: Value| history(&machine(&[("S", state)]), r#"{"a": 1}"#).split_off(2);
    let sentence =
        "An error occurred while executing the state 'S' (entered at the event id #2). The JSONata expression";
    let expected = |text: &str, location: &str, how: &str| {
        let cause = json!(format!("{sentence} '{text}' specified for the field '{location}' {how}"));
        [
            format!(
                r##"#3<0 EvaluationFailed {{"state":"S","location":"{location}","error":"States.QueryEvaluationError","cause":{cause}}}"##
            ),
            format!(r##"#4<3 ExecutionFailed {{"error":"States.QueryEvaluationError","cause":{cause}}}"##),
        ]
    };
    for (state, text, location, how) in [
        (
            json!({"Type": "Pass", "Output": {"x": [1, "{% $states.input.b %}"]}}),
            "$states.input.b",
            "Output/x[1]",
            "returned nothing (undefined).",
        ),
        (
            json!({"Type": "Pass", "Assign": {"x": "{%$sum('a')%}"}}),
            "$sum('a')",
            "Assign/x",
            r#"threw an error during evaluation. T0412: Argument 1 of function "sum" must be an array of "numbers""#,
        ),
        (
            json!({"Type": "Fail", "Error": "{% $states.input.a %}"}),
            "$states.input.a",
            "Error",
            "returned an unexpected result type. Expected 'string', but was 'number' for value: 1",
        ),
    ] {
        assert_eq!(failed(state), expected(text, location, how));
    }
    let catch = json!([{"ErrorEquals": ["States.QueryEvaluationError"], "Next": "Yes", "Output": "{% $states.errorOutput.Error %}"}]);
    let task = scripted(&json!({"output": "{% 1 + 'x' %}"}), &json!({"Catch": catch, "Next": "Yes"}));
    let definition = machine(&[("S", task), ("Yes", json!({"Type": "Pass"}))]);
    assert_eq!(outcome(&definition, "{}"), r#""States.QueryEvaluationError""#);
}

#[test]
fn both_languages_share_variables() {
    let path = json!({"Type": "Pass", "QueryLanguage": "JSONPath", "Parameters": {"v.$": "$x.y[0]", "f.$": "States.Format('{}!', $x.z)"}, "End": true});
    let definition = json!({"StartAt": "A", "States": {
        "A": {"Type": "Pass", "QueryLanguage": "JSONata", "Assign": {"x": {"y": "{% [5, 6] %}", "z": "{% 'hey' %}"}}, "Next": "S"},
        "S": path,
    }});
    assert_eq!(outcome(&definition, "{}"), r#"{"v":5,"f":"hey!"}"#);
}
