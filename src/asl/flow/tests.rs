//! Every finding of the flow checks on a definition that has it, and none on one that has not.

use serde_json::{Value, json};

use crate::{WorkflowType, review};

fn found(definition: &Value) -> Vec<(String, &'static str)> {
    let text = definition.to_string();
    let (machine, problems) = review(&text, WorkflowType::Standard, None);
    assert!(machine.is_some(), "{problems:?}");
    problems.into_iter().map(|problem| (problem.pointer, problem.code)).collect()
}

fn check(definition: Value, expected: &[(&str, &str)]) {
    let found = found(&definition);
    let found: Vec<(&str, &str)> = found.iter().map(|(pointer, code)| (pointer.as_str(), *code)).collect();
    let (mut found, mut expected) = (found, expected.to_vec());
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{definition:#}");
}

#[test]
fn a_path_that_can_find_nothing_is_found_and_one_that_may_is_not() {
    check(
        json!({"StartAt": "A", "States": {
            "A": {"Type": "Pass", "Result": {"x": 1, "list": []}, "ResultPath": "$.a", "Next": "B"},
            "B": {"Type": "Pass", "Parameters": {"y.$": "$.anything", "z.$": "$.a.nothing"}, "Next": "C"},
            "C": {"Type": "Pass", "InputPath": "$.w", "OutputPath": "$.y.deep", "Next": "D"},
            "D": {"Type": "Task", "Resource": "arn:aws:states:::x:y", "ResultPath": "$.r", "Next": "E",
                "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "F"}]},
            "E": {"Type": "Pass", "InputPath": "$.r.anything", "End": true},
            "F": {"Type": "Fail", "CausePath": "$.error.Cause", "ErrorPath": "$.error.Kind"}}}),
        &[
            ("/States/B/Parameters/z.$", "PATH_FINDS_NOTHING"),
            ("/States/C/InputPath", "PATH_FINDS_NOTHING"),
            ("/States/F/ErrorPath", "PATH_FINDS_NOTHING"),
        ],
    );
    let looped = json!({"StartAt": "A", "States": {
        "A": {"Type": "Pass", "Parameters": {"n.$": "States.MathAdd($.n, 1)"}, "Next": "B"},
        "B": {"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericLessThan": 3, "Next": "A"}], "Default": "C"},
        "C": {"Type": "Pass", "InputPath": "$.m", "End": true}}});
    check(looped, &[("/States/C/InputPath", "PATH_FINDS_NOTHING")]);
}

#[test]
fn rules_that_cannot_hold_and_states_that_nothing_enters_are_found() {
    check(
        json!({"StartAt": "A", "States": {
            "A": {"Type": "Pass", "Result": {"kind": "clip"}, "Next": "B"},
            "B": {"Type": "Choice", "Choices": [
                {"Variable": "$.size", "IsPresent": true, "Next": "Sized"},
                {"And": [{"Variable": "$.kind", "IsPresent": true}, {"Variable": "$.kind", "NumericEquals": 1}], "Next": "Number"},
                {"Variable": "$.kind", "StringEquals": "clip", "Next": "Clip"}], "Default": "Clip"},
            "Sized": {"Type": "Pass", "InputPath": "$.size", "Next": "Later"},
            "Later": {"Type": "Succeed"}, "Number": {"Type": "Succeed"}, "Clip": {"Type": "Succeed"}}}),
        &[
            ("/States/B/Choices/0", "RULE_NEVER_HOLDS"),
            ("/States/B/Choices/1", "RULE_NEVER_HOLDS"),
            ("/States/Sized", "STATE_NEVER_ENTERED"),
            ("/States/Number", "STATE_NEVER_ENTERED"),
        ],
    );
    check(
        json!({"StartAt": "A", "States": {
            "A": {"Type": "Choice", "Choices": [{"Variable": "$.a", "IsPresent": true, "Next": "Round"},
                {"Not": {"Variable": "$.a", "IsPresent": true}, "Next": "C"}]},
            "Round": {"Type": "Wait", "Seconds": 1, "Next": "And"}, "And": {"Type": "Pass", "Next": "Round"},
            "X": {"Type": "Pass", "Next": "Y"}, "Y": {"Type": "Pass", "Next": "X"},
            "C": {"Type": "Choice", "Choices": [{"Variable": "$.b", "BooleanEquals": true, "Next": "End"}]},
            "End": {"Type": "Succeed"}}}),
        &[
            ("/States/Round", "NO_END_REACHABLE"),
            ("/States/X", "STATE_NEVER_ENTERED"),
            ("/States/Y", "STATE_NEVER_ENTERED"),
            ("/States/C", "CHOICE_MAY_FALL_THROUGH"),
        ],
    );
}

#[test]
fn variables_are_followed_on_every_way() {
    check(
        json!({"StartAt": "A", "States": {
            "A": {"Type": "Pass", "Assign": {"v": {"x": 1}}, "Next": "B"},
            "B": {"Type": "Choice", "Choices": [{"Variable": "$v.x", "NumericEquals": 1, "Next": "C", "Assign": {"w": 2}}],
                "Default": "D"},
            "C": {"Type": "Pass", "Parameters": {"a.$": "$w", "b.$": "$v.nothing"}, "Next": "D"},
            "D": {"Type": "Parallel", "Next": "E", "Branches": [{"StartAt": "P", "States": {"P": {"Type": "Pass",
                "Assign": {"inner": 1}, "Parameters": {"a.$": "$v.x", "b.$": "$w"}, "End": true}}}]},
            "E": {"Type": "Pass", "Parameters": {"a.$": "$inner", "b.$": "$never"}, "End": true}}}),
        &[
            ("/States/C/Parameters/b.$", "PATH_FINDS_NOTHING"),
            ("/States/D/Branches/0/States/P/Parameters/b.$", "VARIABLE_MAY_NOT_BE_ASSIGNED"),
            ("/States/E/Parameters/a.$", "VARIABLE_NOT_ASSIGNED"),
            ("/States/E/Parameters/b.$", "VARIABLE_NOT_ASSIGNED"),
        ],
    );
    check(
        json!({"QueryLanguage": "JSONata", "StartAt": "A", "States": {
            "A": {"Type": "Pass", "Output": {"a": "{% $later %}", "b": "{% ($own := 1; $own + $sum([1])) %}",
                "c": "{% $map([1], function($item) { $item }) %}", "d": "{% $typo %}"}, "Next": "B"},
            "B": {"Type": "Pass", "Assign": {"later": 1}, "End": true}}}),
        &[("/States/A/Output/a", "VARIABLE_NOT_ASSIGNED"), ("/States/A/Output/d", "VARIABLE_NOT_ASSIGNED")],
    );
}

#[test]
fn what_has_no_effect_is_found() {
    check(
        json!({"StartAt": "A", "States": {
            "A": {"Type": "Task", "Resource": "arn:aws:states:::x:y", "Next": "M",
                "Retry": [{"ErrorEquals": ["A", "B"]}, {"ErrorEquals": ["A"]}, {"ErrorEquals": ["States.Runtime"]}],
                "Catch": [{"ErrorEquals": ["A"], "Next": "M"}, {"ErrorEquals": ["States.ALL"], "Next": "M"}]},
            "M": {"Type": "Pass", "Result": {"items": [], "text": "t"}, "Next": "Map"},
            "Map": {"Type": "Map", "ItemsPath": "$.items", "ResultPath": "$.text.results", "End": true, "ItemProcessor":
                {"StartAt": "I", "States": {"I": {"Type": "Succeed"}}}}}}),
        &[
            ("/States/A/Retry/1/ErrorEquals", "ENTRY_NEVER_USED"),
            ("/States/A/Retry/2/ErrorEquals", "ERROR_NAME_HAS_NO_EFFECT"),
            ("/States/Map", "MAP_HAS_NO_ITEMS"),
            ("/States/Map/ResultPath", "RESULT_HAS_NO_PLACE"),
        ],
    );
}
