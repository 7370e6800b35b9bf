//! Definitions that are checked, and what the checker says of them.

use super::*;
use crate::machine::Kind;
use crate::{ContextUse, describe};

fn problems(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(|problem| describe(std::slice::from_ref(problem))).collect(),
    }
}

/// A definition of one state.
fn one(state: &str) -> String {
    format!(r#"{{"StartAt":"S","States":{{"S":{{{state}}}}}}}"#)
}

#[test]
fn texts_that_are_no_definition_are_refused_in_aws_words() {
    for (text, expected) in [
        (" ", "SCHEMA_VALIDATION_FAILED: Definition must be a valid JSON object at null"),
        ("[]", "SCHEMA_VALIDATION_FAILED: Definition must be a valid JSON object at null"),
        ("{}", "SCHEMA_VALIDATION_FAILED: These fields are required: [States, StartAt] at /"),
        (
            r#"{"States": {"A": {"Type": "Pass", "End": true}}}"#,
            "SCHEMA_VALIDATION_FAILED: These fields are required: [StartAt] at /",
        ),
    ] {
        assert_eq!(problems(text), [expected]);
    }
    let refused = parse("not a definition").unwrap_err();
    assert_eq!(refused[0].code, "INVALID_JSON_DESCRIPTION");
    let place = "[Source: (String)\"not a definition\"; line: 1, column: 4]";
    assert_eq!(refused[0].location.as_deref(), Some(place));
    assert_eq!(
        refused[0].message,
        format!(
            "Unrecognized token 'not': was expecting (JSON String, Number, Array, Object or token 'null', 'true' or \
             'false')\n at {place}"
        )
    );
}

#[test]
fn broken_json_says_where() {
    for (text, message) in [
        (
            "{",
            "Unexpected end-of-input: expected close marker for Object (start marker at [Source: (String)\"{\"; line: 1, column: 1])",
        ),
        ("{,}", "Unexpected character (',' (code 44)): was expecting double-quote to start field name"),
        ("{\"a\" 1}", "Unexpected character ('1' (code 49)): was expecting a colon to separate field name and value"),
        ("{\"a\": 1 \"b\"}", "Unexpected character ('\"' (code 34)): was expecting comma to separate Object entries"),
        ("{\"a\": }", "Unexpected character ('}' (code 125)): expected a valid value"),
        ("{\"a\": \"\\x\"}", "Unrecognized character escape 'x' (code 120)"),
        ("{\"a\": \"\n\"}", "Illegal unquoted character ((CTRL-CHAR, code 10))"),
        ("{\"a\": 01}", "Invalid numeric value: Leading zeroes not allowed"),
        ("{\"a\": 1e999}", "Invalid numeric value"),
        ("{} x", "Unexpected character ('x' (code 120))"),
        ("{\"a\": \"\\ud800\"}", "Illegal escape"),
    ] {
        let refused = parse(text).unwrap_err();
        assert_eq!(refused.len(), 1, "{text}");
        assert!(refused[0].message.starts_with(message), "{text}: {}", refused[0].message);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(&deep).unwrap_err()[0].code, "INVALID_JSON_DESCRIPTION");
}

#[test]
fn all_problems_come_at_once_with_line_column_and_pointer() {
    let text = r#"{
  "StartAt": "A",
  "States": {
    "A": {
      "Type": "Task",
      "Next": "B/~",
      "Paramters": {},
      "Retry": [{"ErrorEquals": [], "IntervalSeconds": 0}]
    },
    "C": { "Type": "Choice", "Choices": [{"Variable": "x", "NumericEquals": "1", "Next": "A"}] }
  }
}"#;
    let shown: Vec<String> = parse(text).unwrap_err().iter().map(Problem::to_string).collect();
    assert_eq!(
        shown,
        [
            "8:33: /States/A/Retry/0/ErrorEquals: Expected at least 1 item(s), but found 0",
            "8:56: /States/A/Retry/0/IntervalSeconds: Value must be between 1 and 99999999, but was 0",
            "4:10: /States/A: These fields are required: [Resource]",
            "7:7: /States/A/Paramters: Field 'Paramters' is not supported",
            "10:55: /States/C/Choices/0/Variable: Value must be a valid JSONPath.",
            "10:77: /States/C/Choices/0/NumericEquals: Expected value of type Number",
            "6:15: /States/A/Next: Missing 'Next' target: B/~",
            "4:5: Workflow has no terminal state",
        ]
    );
}

#[test]
fn an_inner_scope_must_not_assign_what_an_outer_one_does() {
    let inner = r#""ItemProcessor":{MODE"StartAt":"I","States":{"I":{"Type":"Pass","Assign":{"x":1},"End":true}}}"#;
    let map = format!(r#""Type":"Map",{inner},"Assign":{{"x":2}},"End":true"#);
    assert_eq!(
        problems(&one(&map.replace("MODE", ""))),
        ["SCHEMA_VALIDATION_FAILED: Variable 'x' is already assigned in an outer scope at \
          /States/S/ItemProcessor/States/I/Assign"]
    );
    let distributed = map.replace("MODE", r#""ProcessorConfig":{"Mode":"DISTRIBUTED","ExecutionType":"STANDARD"},"#);
    assert_eq!(problems(&one(&distributed)), Vec::<String>::new());
}

#[test]
fn expressions_are_read_with_the_definition() {
    for (state, expected) in [
        (
            r#""Output":{"v":"{% a[1,2) %}"}"#,
            r#"INVALID_JSONATA_EXPRESSION: Expected "]", got "," at /States/S/Output/v"#,
        ),
        (r#""Output":"{% 1 + %}""#, "INVALID_JSONATA_EXPRESSION: Unexpected end of expression at /States/S/Output"),
        (
            r#""Output":[{"v":"{% phone %}"}]"#,
            "UNSUPPORTED_JSONATA_EXPRESSION: Reference to 'phone' at the top level is not supported. at \
             /States/S/Output[0]/v",
        ),
        (
            r#""Assign":{"v":"{% $states.errorOutput %}"}"#,
            "UNSUPPORTED_JSONATA_EXPRESSION: Reference to '$states.errorOutput' is not supported here. at \
             /States/S/Assign/v",
        ),
    ] {
        let state = format!(r#""Type":"Pass","QueryLanguage":"JSONata","End":true,{state}"#);
        assert_eq!(problems(&one(&state)), [expected]);
    }
    let text = "{\"StartAt\": \"S\", \"States\": {\"S\": {\"Type\": \"Succeed\", \"QueryLanguage\": \"JSONata\",\n\
                  \"Output\": {\n  \"v\": [1,\n    \"{% ( %}\"]}}}}";
    let shown: Vec<String> = parse(text).unwrap_err().iter().map(Problem::to_string).collect();
    assert_eq!(shown, [r#"4:5: /States/S/Output/v/1: Expected ")" before end of expression"#]);
    let text = r#""Type":"Pass","QueryLanguage":"JSONata","End":true,"Output":"{% $states.input.a[b > 1].c %}""#;
    assert_eq!(problems(&one(text)), Vec::<String>::new());
}

#[test]
fn each_rule_of_the_language_is_checked() {
    for (state, expected) in [
        (
            r#""Type":"Pas","End":true"#,
            "The field 'Type' should have one of these values: [Task, Wait, Pass, Succeed, Fail, Choice, Parallel, Map] \
             at /States/S/Type",
        ),
        (r#""End":true"#, "These fields are required: [Type] at /States/S"),
        (r#""Type":"Pass""#, "Exactly one of these fields is required: [Next, End] at /States/S"),
        (r#""Type":"Pass","End":true,"Next":"S""#, "Only one of these fields is allowed: [Next, End] at /States/S"),
        (r#""Type":"Succeed","End":true"#, "Field 'End' is not supported at /States/S"),
        (r#""Type":"Fail","InputPath":"$""#, "Field 'InputPath' is not supported at /States/S"),
        (
            r#""Type":"Wait","Seconds":1,"ResultPath":null,"End":true"#,
            "Field 'ResultPath' is not supported at /States/S",
        ),
        (
            r#""Type":"Wait","End":true"#,
            "Exactly one of these fields is required: [Seconds, SecondsPath, Timestamp, TimestampPath] at /States/S",
        ),
        (r#""Type":"Wait","Seconds":1.5,"End":true"#, "Expected value of type Integer at /States/S/Seconds"),
        (
            r#""Type":"Wait","Timestamp":"2016-12-05T21:29:29","End":true"#,
            "String does not match RFC3339 timestamp at /States/S/Timestamp",
        ),
        (r#""Type":"Task","Resource":"x","End":true"#, "Value is not a URI at /States/S/Resource"),
        (
            r#""Type":"Task","Resource":"a:b","TimeoutSeconds":5,"HeartbeatSeconds":5,"End":true"#,
            "HeartbeatSeconds must be smaller than TimeoutSeconds at /States/S",
        ),
        (r#""Type":"Pass","OutputPath":"Test","End":true"#, "Value must be a valid JSONPath. at /States/S/OutputPath"),
        (
            r#""Type":"Pass","ResultPath":"$.a[*]","End":true"#,
            "Value must be a valid Reference Path. at /States/S/ResultPath",
        ),
        (
            r#""Type":"Pass","Output":1,"End":true"#,
            "The QueryLanguage is set to 'JSONPath', but field 'Output' is only supported for the 'JSONata' QueryLanguage \
             at /States/S",
        ),
        (
            r#""Type":"Pass","QueryLanguage":"JSONata","InputPath":"$","End":true"#,
            "The QueryLanguage is set to 'JSONata', but field 'InputPath' is only supported for the 'JSONPath' \
             QueryLanguage at /States/S",
        ),
        (
            r#""Type":"Parallel","Branches":[{"StartAt":"S","States":{"S":{"Type":"Succeed"}}}],"End":true"#,
            "Duplicate State name: S at /States/S/Branches[0]/States/S",
        ),
        (
            r#""Type":"Map","ItemProcessor":{"QueryLanguage":"JSONPath","StartAt":"T","States":{"T":{"Type":"Succeed"}}},"End":true"#,
            "Field 'QueryLanguage' is not supported at /States/S/ItemProcessor",
        ),
        (
            r#""Type":"Task","Resource":"a:b","Retry":[{"ErrorEquals":["States.ALL"]},{"ErrorEquals":["X"]}],"End":true"#,
            "States.ALL must be in the last entry at /States/S/Retry[0]/ErrorEquals",
        ),
        (r#""Type":"Pass","Assign":{"1x":1},"End":true"#, "'1x' is not a valid variable name at /States/S/Assign"),
    ] {
        assert_eq!(
            problems(&one(state)),
            [format!(
                "{}: {expected}",
                if expected.starts_with("Duplicate") { "DUPLICATE_STATE_NAME" } else { "SCHEMA_VALIDATION_FAILED" }
            )]
        );
    }
    let path = r#""Type":"Pass","Parameters":{"a":[{"Variable.$":"Test"}]},"End":true"#;
    assert!(problems(&one(path))[0].starts_with(
        "SCHEMA_VALIDATION_FAILED: The value for the field 'Variable.$' must be a valid JSONPath or a valid intrinsic \
         function call"
    ));
}

#[test]
fn transitions_must_lead_somewhere() {
    let text = |states: &str| format!(r#"{{"StartAt":"A","States":{{{states}}}}}"#);
    for (states, expected) in [
        (
            r#""A":{"Type":"Pass","Next":"B"},"B":{"Type":"Pass","Next":"A"}"#,
            vec!["MISSING_END_STATE: Workflow has no terminal state at null"],
        ),
        (
            r#""A":{"Type":"Pass","Next":"X"},"B":{"Type":"Pass","End":true}"#,
            vec![
                "MISSING_TRANSITION_TARGET: Missing 'Next' target: X at /States/A/Next",
                "MISSING_TRANSITION_TARGET: State \"B\" is not reachable. at /States/B",
            ],
        ),
        (
            r#""A":{"Type":"Choice","Choices":[{"Variable":"$.a","IsNull":true,"Next":"X"}],"Default":"Y"},"B":{"Type":"Succeed"}"#,
            vec![
                "MISSING_TRANSITION_TARGET: Missing 'Next' target: X at /States/A/Choices[0]/Next",
                "MISSING_TRANSITION_TARGET: Missing 'Next' target: Y at /States/A/Default",
                "MISSING_TRANSITION_TARGET: State \"B\" is not reachable. at /States/B",
            ],
        ),
        (
            r#""A":{"Type":"Choice","Choices":[{"Variable":"$.a","IsNull":true}]},"B":{"Type":"Succeed"}"#,
            vec!["SCHEMA_VALIDATION_FAILED: These fields are required: [Next] at /States/A/Choices[0]"],
        ),
        (
            r#""A":{"Type":"Pass","Next":"End"},"B":{"Type":"Pass","Next":"C"},"C":{"Type":"Pass","Next":"End"},"End":{"Type":"Succeed"}"#,
            vec!["MISSING_TRANSITION_TARGET: State \"B\" is not reachable. at /States/B"],
        ),
        (
            r#""A":{"Type":"Succeed"},"A":{"Type":"Fail"}"#,
            vec!["DUPLICATE_STATE_NAME: Duplicate State name: A at /States/A"],
        ),
    ] {
        assert_eq!(problems(&text(states)), expected);
    }
}

#[test]
fn what_looks_like_a_path_is_warned_of() {
    let text = r#"{"StartAt":"A","States":{
        "A":{"Type":"Choice","Choices":[{"Variable":"$.a","StringEquals":"$.b","Next":"B"}],"Default":"B"},
        "B":{"Type":"Fail","Error":"$5","Cause":"$$.Execution.Name"}}}"#;
    let (machine, warnings) = check(text, WorkflowType::Standard);
    let shown: Vec<(&str, &str)> = warnings.iter().map(|w| (w.code, w.pointer.as_str())).collect();
    assert_eq!(shown, [("NO_PATH", "/States/A/Choices/0/StringEquals"), ("NO_PATH", "/States/B/Cause")]);
    assert!(machine.is_some());
}

#[test]
fn express_workflows_wait_for_nobody() {
    let waits = one(r#""Type":"Task","Resource":"arn:aws:states:::states:startExecution.sync:2","End":true"#);
    assert_eq!(
        describe(&check(&waits, WorkflowType::Express).1),
        "SCHEMA_VALIDATION_FAILED: Express state machine does not support '.sync' service integration at \
         /States/S/Resource"
    );
    assert!(check(&waits, WorkflowType::Standard).0.is_some());
}

#[test]
fn a_sound_definition_comes_out_compiled() {
    let machine = parse(EVERYTHING).unwrap_or_else(|problems| panic!("{}", describe(&problems)));
    assert_eq!(machine.states.len(), 11);
    assert_eq!(machine.timeout_seconds, Some(60));
    let task = machine.state("Work").expect("a state named Work");
    assert_eq!((task.retry.len(), task.catch.len()), (1, 1));
    let choose = machine.state("Choose").expect("a state named Choose");
    assert_eq!((task.context_use(), choose.context_use()), (ContextUse::Parts, ContextUse::Nothing));
    assert!(
        matches!(&machine.state("Each").map(|state| &state.kind), Some(Kind::Map(map)) if map.item_selector.is_some())
    );
    let (_, warnings) = check(EVERYTHING, WorkflowType::Standard);
    let codes: Vec<&str> = warnings.iter().map(|warning| warning.code).collect();
    assert_eq!(codes, ["NO_DOLLAR", "PASS_RESULT_IS_STATIC"]);
}

pub(crate) const EVERYTHING: &str = r#"{
  "Comment": "One of everything", "Version": "1.0", "TimeoutSeconds": 60, "QueryLanguage": "JSONPath",
  "StartAt": "Work",
  "States": {
    "Work": {
      "Type": "Task", "Comment": "c", "Resource": "arn:aws:states:::conveyor:probe.waitForTaskToken",
      "InputPath": "$.in", "Parameters": {"token.$": "$$.Task.Token", "x": "$.x"}, "ResultSelector": {"n.$": "$.n"},
      "ResultPath": "$.out.n", "OutputPath": null, "TimeoutSecondsPath": "$.t", "HeartbeatSeconds": 5,
      "Credentials": {"RoleArn.$": "$.role"}, "Assign": {"v.$": "$.n"},
      "Retry": [{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 2, "MaxAttempts": 0, "BackoffRate": 1.5,
                 "MaxDelaySeconds": 9, "JitterStrategy": "FULL"}],
      "Catch": [{"ErrorEquals": ["A", "B"], "Next": "Broken", "ResultPath": "$.error"}],
      "Next": "Choose"
    },
    "Choose": {
      "Type": "Choice", "Default": "Done",
      "Choices": [
        {"And": [{"Variable": "$.a", "NumericLessThanPath": "$.b"}, {"Not": {"Variable": "$.a", "IsPresent": true}},
                 {"Or": [{"Variable": "$.s", "StringMatches": "a*\\*"}, {"Variable": "$.d", "TimestampEquals": "2016-08-18T17:33:00Z"}]}],
         "Next": "Pause"},
        {"Variable": "$.ok", "BooleanEquals": true, "Next": "Both"}
      ]
    },
    "Pause": {"Type": "Wait", "TimestampPath": "$.until", "Next": "Each"},
    "Both": {"Type": "Parallel", "Branches": [
      {"StartAt": "Left", "States": {"Left": {"Type": "Pass", "Result": {"x.$": "$.y"}, "End": true}}},
      {"StartAt": "Right", "States": {"Right": {"Type": "Wait", "Seconds": 0, "End": true}}}
    ], "Next": "Each"},
    "Each": {"Type": "Map", "ItemsPath": "$.items", "MaxConcurrency": 0, "ToleratedFailurePercentage": 12.5,
      "ItemSelector": {"v.$": "$$.Map.Item.Value"},
      "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Item", "States": {
        "Item": {"Type": "Map", "Parameters": {"i.$": "$$.Map.Item.Index"}, "End": true,
          "Iterator": {"StartAt": "Inner", "States": {"Inner": {"Type": "Succeed"}}}}}},
      "Next": "Done"},
    "Done": {"Type": "Succeed", "InputPath": "$"},
    "Broken": {"Type": "Fail", "ErrorPath": "$.error.Error", "CausePath": "States.Format('{}', $.error.Cause)"}
  }
}"#;
