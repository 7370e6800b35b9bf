use super::*;
use crate::asl::describe;
use crate::asl::machine::Kind;

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
