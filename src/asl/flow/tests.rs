//! Every finding of the flow checks on a definition that has it, and none on one that has not.

use conveyor_testing::hostile;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::budget::Used;
use super::findings::FINDINGS_MAX;
use super::{Finding, analyse_within};
use crate::{Severity, WorkflowType, check as check_text, parse, review};

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

/// Of every shape that grows, the largest that a definition may be.
#[test]
fn no_definition_of_a_mebibyte_takes_more_than_its_bounds() {
    let mut cut = 0;
    for (name, text) in hostile::shapes(hostile::BYTES) {
        assert!(text.len() <= hostile::BYTES, "{name}: {}", text.len());
        let (machine, problems) = check_text(&text, WorkflowType::Standard);
        let words: usize = problems.iter().map(|p| p.message.len() + p.pointer.len()).sum();
        assert!(problems.len() <= 1_000 && words < 2 << 20, "{name}: {} problems, {words} bytes", problems.len());
        let Some(machine) = machine else {
            assert!(problems.iter().any(|p| p.severity == Severity::Error), "{name} is refused and not told why");
            continue;
        };
        let (findings, budget) = analyse_within(&machine, None, Used::MOST);
        // What is under way when the budget is spent is brought to an end: no more than one list of a state.
        let (used, most) = (budget.used(), Used::MOST);
        assert!(used.work <= most.work + 200_000 && used.bytes <= most.bytes + (4 << 20), "{name}: {used:?}");
        let words: usize = findings.iter().map(|f| f.message.len()).sum();
        assert!(findings.len() <= FINDINGS_MAX + 2 && words < 1 << 20, "{name}: {} findings", findings.len());
        let told = findings.iter().any(|f| f.code == "NOT_FOLLOWED_FURTHER" && !f.certain);
        assert_eq!(told, budget.is_spent(), "{name}");
        cut += usize::from(told);
    }
    assert!((3..25).contains(&cut), "{cut} shapes were not followed to their ends");
}

#[test]
fn a_definition_as_large_as_people_write_them_is_followed_to_its_end() {
    for (name, text) in hostile::shapes(100 << 10) {
        let asked =
            ["passes that assign", "passes backwards by name", "ladder", "maps side by side", "states of expressions"];
        if asked.contains(&name) {
            let machine = parse(&text).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
            let (findings, budget) = analyse_within(&machine, None, Used::MOST);
            assert!(!budget.is_spent(), "{name}: {:?}", budget.used());
            assert!(findings.iter().all(|f| f.code != "NOT_FOLLOWED_FURTHER"), "{name}");
        }
    }
}

#[test]
fn what_was_not_followed_is_a_warning_beside_what_was_found() {
    let text = hostile::shapes(hostile::BYTES).into_iter().find(|(name, _)| *name == "loop that assigns").unwrap().1;
    let (machine, problems) = review(&text, WorkflowType::Standard, None);
    assert!(machine.is_some());
    let said: Vec<_> = problems.iter().map(|p| (p.code, p.severity, p.pointer.as_str(), p.line)).collect();
    assert_eq!(said, [("NOT_FOLLOWED_FURTHER", Severity::Warning, "/States/S00000", 1)]);
}

#[test]
fn more_findings_than_anybody_reads_are_counted() {
    let text = hostile::shapes(100 << 10).into_iter().find(|(name, _)| *name == "rules that never hold").unwrap().1;
    let rules = text.matches("IsNull").count();
    let (_, problems) = review(&text, WorkflowType::Standard, None);
    let more = problems.iter().find(|p| p.code == "FINDINGS_LEFT_OUT").expect("the others are counted");
    // Each rule looks where nothing is and never holds; then the Choice fails, and nothing enters what it leads to.
    let all = 2 * rules + 2;
    let expected = format!("And {} more findings, which are not listed.", all - FINDINGS_MAX);
    assert_eq!((problems.len(), more.message.as_str()), (FINDINGS_MAX + 1, expected.as_str()));
}

/// States that part, meet, go round and stand within others, with few names, so that paths hit and miss.
fn definition() -> impl Strategy<Value = Value> {
    let state = (0..7usize, any::<[usize; 4]>());
    proptest::collection::vec(state, 1..9).prop_map(|states| {
        let count = states.len();
        let name = |n: usize| format!("S{n}");
        let mut all = serde_json::Map::new();
        for (at, (kind, [a, b, c, d])) in states.into_iter().enumerate() {
            let (key, other) = (["a", "b", "c"][a % 3], ["a", "b", "c"][b % 3]);
            let mut state = match kind {
                0 => json!({"Type": "Pass", "Assign": {key: {other: 1}}}),
                1 => json!({"Type": "Pass", "Parameters": {"x.$": format!("${key}.{other}")}, "ResultPath": format!("$.{key}")}),
                2 => json!({"Type": "Pass", "Result": {key: {other: []}}, "InputPath": format!("$.{other}")}),
                3 => json!({"Type": "Choice", "Choices": [
                    {"Variable": format!("$.{key}"), "IsNull": true, "Next": name(c % count), "Assign": {other: "x"}},
                    {"Not": {"Variable": format!("$.{other}.{key}"), "NumericEquals": 1}, "Next": name(d % count)}]}),
                4 => json!({"Type": "Map", "ItemsPath": format!("$.{key}"), "ItemProcessor": {"StartAt": format!("M{at}"),
                    "States": {format!("M{at}"): {"Type": "Pass", "InputPath": format!("$.{other}"), "End": true}}}}),
                5 => json!({"Type": "Parallel", "Branches": [{"StartAt": format!("P{at}"), "States": {
                    format!("P{at}"): {"Type": "Pass", "Parameters": {"y.$": format!("${other}")}, "End": true}}}]}),
                _ => json!({"Type": "Task", "Resource": "arn:aws:states:::x:y", "ResultPath": format!("$.{key}.{other}"),
                    "Catch": [{"ErrorEquals": ["States.ALL"], "Next": name(c % count), "Assign": {key: 1}}]}),
            };
            if kind == 3 {
                state["Default"] = name((at + 1) % (count + 1)).into();
            } else {
                state["Next"] = name(at + 1).into();
            }
            all.insert(name(at), state);
        }
        all.insert(name(count), json!({"Type": "Succeed"}));
        json!({"StartAt": "S0", "States": all})
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// What is said within any budget is said without bounds too; where something is missing, that is said.
    #[test]
    fn a_smaller_budget_says_less_and_nothing_else(definition in definition(), part in 0.0..1.0_f64) {
        let Ok(machine) = parse(&definition.to_string()) else { return Ok(()) };
        let unbounded = Used { work: u64::MAX, bytes: u64::MAX };
        let (all, spent) = analyse_within(&machine, None, unbounded);
        prop_assert_eq!(&analyse_within(&machine, None, Used::MOST).0, &all);
        let used = spent.used();
        let some = |of: u64| (of as f64 * part) as u64;
        for bounds in [Used { work: some(used.work), ..unbounded }, Used { bytes: some(used.bytes), ..unbounded }] {
            let (said, budget) = analyse_within(&machine, None, bounds);
            prop_assert!(budget.is_spent());
            let (remarks, said): (Vec<Finding>, _) = said.into_iter().partition(|f| f.code == "NOT_FOLLOWED_FURTHER");
            prop_assert_eq!(remarks.len(), 1);
            for finding in said {
                prop_assert!(all.contains(&finding), "{finding:?} is not among {all:?} of {definition:#}");
            }
        }
    }
}
