//! What holds for any input: nothing panics, nothing runs away, and what the checker lets through is whole.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::definition::EVERYTHING;
use crate::machine::{Kind, Processor, Transition};

/// JSON of all kinds, with the names that definitions and data use, so that paths hit something.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c$.]{0,4}".prop_map(Value::from),
        prop::sample::select(vec![
            "$.a",
            "$$.a",
            "States.UUID()",
            "Pass",
            "A",
            "2016-03-14T01:59:00Z",
            "JSONata",
            "{% $states.input.a %}",
            "{% $a ~> $map(function($v) { $v + 1 }) %}",
            "{% $ %}",
            "{% ( %}",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let name = prop_oneof![
            "[a-c]",
            prop::sample::select(vec![
                "a.$",
                "States",
                "A",
                "Type",
                "Next",
                "Choices",
                "Retry",
                "Catch",
                "And",
                "Branches",
                "Output",
                "Assign",
                "QueryLanguage",
                "Items",
                "Condition"
            ])
            .prop_map(String::from),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..5).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Text that is nearly a path or a call.
fn expression() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "$",
        "$$",
        "$v",
        ".",
        "..",
        "a",
        "b",
        "[",
        "]",
        "'",
        "\"",
        "*",
        "?(",
        "(",
        ")",
        "@",
        "==",
        "<",
        "&&",
        "||",
        "!",
        "=~",
        "/a/",
        "0",
        "-1",
        ":",
        ",",
        " ",
        "\\",
        "{}",
        "States.Array(",
        "States.Format('{}',",
        "States.MathAdd(",
        "States.ArrayRange(",
        "States.StringToJson(",
        "States.ArrayPartition(",
        "States.JsonMerge(",
        "1e300",
        "null",
        "ü",
    ]);
    prop_oneof![prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat()), any::<String>()]
}

fn with_scope<T>(input: &Value, then: impl FnOnce(&Scope) -> T) -> T {
    let (context, variables) = (json!({"a": [1, {"b": 2}]}), Variables::new());
    then(&Scope::new(input, &context, &variables, 1))
}

fn assert_whole(machine: &StateMachine) {
    let exists = |name: &str| assert!(machine.state(name).is_some(), "{name}");
    let enters = |processor: &Processor| exists(&processor.start_at);
    enters(&machine.root);
    for state in machine.states.values() {
        if let Some(Transition::Next(next)) = &state.transition {
            exists(next);
        }
        state.catch.iter().for_each(|catcher| exists(&catcher.next));
        match &state.kind {
            Kind::Choice(choice) => {
                choice.rules.iter().for_each(|rule| exists(&rule.next));
                choice.default.iter().for_each(|default| exists(default));
            }
            Kind::Parallel(branches) => branches.iter().for_each(enters),
            Kind::Map(map) => enters(&map.processor),
            _ => {}
        }
    }
}

/// Puts a value somewhere into another, steered by `way`.
fn graft(host: &mut Value, way: &[prop::sample::Index], scion: Value) {
    let children: Vec<&mut Value> = match host {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    match way.split_first() {
        Some((step, way)) if !children.is_empty() => {
            let at = step.index(children.len());
            if let Some(child) = children.into_iter().nth(at) {
                graft(child, way, scion);
            }
        }
        _ => *host = scion,
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in any::<String>()) {
        prop_assert!(!parse(&text).expect_err("no definition").is_empty());
    }

    #[test]
    fn a_definition_with_other_bytes_is_whole_or_refused(
        at in any::<prop::sample::Index>(), length in 0_usize..40, with in "[ -~]{0,3}"
    ) {
        let start = at.index(EVERYTHING.len());
        let end = (start + length).min(EVERYTHING.len());
        let text = format!("{}{with}{}", &EVERYTHING[..start], &EVERYTHING[end..]);
        match parse(&text) {
            Ok(machine) => assert_whole(&machine),
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }

    #[test]
    fn a_definition_with_other_values_is_whole_or_refused(
        way in prop::collection::vec(any::<prop::sample::Index>(), 0..7), scion in json()
    ) {
        let mut definition: Value = serde_json::from_str(EVERYTHING).expect("JSON");
        graft(&mut definition, &way, scion);
        let text = serde_json::to_string_pretty(&definition).expect("JSON");
        match parse(&text) {
            Ok(machine) => assert_whole(&machine),
            Err(problems) => {
                let lines = text.lines().count();
                prop_assert!(problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
                prop_assert!(problems.iter().all(|problem| definition.pointer(&problem.pointer).is_some()));
            }
        }
    }

    #[test]
    fn expressions_evaluate_or_fail(text in expression(), input in json()) {
        with_scope(&input, |scope| {
            if let Ok(query) = Query::parse(&text) {
                let _ = query.eval(scope);
                assert_eq!(query.text(), text);
            }
            if let Ok(path) = Path::parse(&text) && !path.is_definite() {
                assert!(path.eval(scope).is_err() || path.eval(scope).is_ok_and(|found| found.is_array()));
            }
            if let Ok(path) = ReferencePath::parse(&text) && let Ok(output) = path.insert(input.clone(), json!("mark")) {
                // What was put somewhere is found there.
                let found = with_scope(&output, |scope| Path::parse(&text).expect("a path").eval(scope));
                assert_eq!(found, Ok(json!("mark")));
            }
        });
    }

    #[test]
    fn templates_keep_what_is_no_query(template in json(), input in json()) {
        with_scope(&input, |scope| {
            if let Ok(compiled) = Template::parse(&template) {
                let filled = compiled.eval(scope);
                if !template.to_string().contains(".$\":") {
                    assert_eq!(filled, Ok(template.clone()));
                }
            }
        });
    }

    #[test]
    fn a_pattern_matches_as_a_regular_expression_does(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
        let expression = format!("^{}$", pattern.replace('*', ".*"));
        let expected = regex::Regex::new(&expression).expect("an expression").is_match(&text);
        prop_assert_eq!(condition::Pattern::new(&pattern).matches(&text), expected);
    }
}
