//! The intrinsic functions against what AWS answers.

use super::*;
use crate::Variables;
use serde_json::json;

fn eval(call: &str, input: Value) -> Result<Value, EvalError> {
    let (context, variables) = (json!({"m": {"Id": "i", "Name": "n"}}), Variables::new());
    Intrinsic::parse(call).expect(call).eval(&Scope::new(&input, &context, &variables, 7))
}

#[test]
fn every_function_does_what_aws_does() {
    let input = json!({
        "a": [1, 2, 3, 4], "s": "b", "n": null, "o": {"x": {"x1": 1}, "y": 2}, "p": {"x": {"x2": 2}, "z": 3},
        "u": [1, 1.0, "1", null, null, [1], [1], {"a": 1, "b": 2}, {"b": 2, "a": 1}], "d": "This.is+a,test", "f": 1.1
    });
    for (call, expected) in [
        ("States.Array()", json!([])),
        ("States.Array( $.s ,1.5, 'x', true, null, $$.m.Id)", json!(["b", 1.5, "x", true, null, "i"])),
        ("States.ArrayPartition($.a, 3)", json!([[1, 2, 3], [4]])),
        ("States.ArrayPartition(States.Array(), 3)", json!([])),
        ("States.ArrayContains($.a, 3.0)", json!(true)),
        ("States.ArrayContains($.a, '3')", json!(false)),
        ("States.ArrayContains($.u, States.Array(1.0))", json!(true)),
        ("States.ArrayRange(0, 10, 3)", json!([0, 3, 6, 9])),
        ("States.ArrayRange(3, 1, -1)", json!([3, 2, 1])),
        ("States.ArrayRange(3, 1, 1)", json!([])),
        ("States.ArrayGetItem($.a, 0)", json!(1)),
        ("States.ArrayLength($.a[?(@ > 1)])", json!(3)),
        ("States.ArrayUnique($.u)", json!([1, "1", null, [1], {"a": 1, "b": 2}])),
        ("States.Base64Encode('Data to encode')", json!("RGF0YSB0byBlbmNvZGU=")),
        ("States.Base64Decode('RGF0YSB0byBlbmNvZGU=')", json!("Data to encode")),
        ("States.Hash('input data', 'SHA-1')", json!("aaff4a450a104cd177d28d18d74485e8cae074b7")),
        ("States.Hash('', 'MD5')", json!("d41d8cd98f00b204e9800998ecf8427e")),
        ("States.JsonMerge($.o, $.p, false)", json!({"x": {"x2": 2}, "y": 2, "z": 3})),
        ("States.MathAdd(1, -1.5)", json!(0)),
        ("States.MathAdd(1.5, 2.5)", json!(5)),
        ("States.StringSplit($.d, '.+,')", json!(["This", "is", "a", "test"])),
        ("States.StringSplit(',,', ',')", json!([])),
        ("States.StringToJson('')", json!(null)),
        ("States.StringToJson('{\"t\":\"an \\\"x\\\"\"}')", json!({"t": "an \"x\""})),
        ("States.JsonToString($.o)", json!("{\"x\":{\"x1\":1},\"y\":2}")),
        ("States.JsonToString(1.0)", json!("1.0")),
        ("States.Format('{} {} {} {}', $.s, $.n, $.f, 1)", json!("b null 1.1 1")),
        ("States.Format('snd={}', $$.m)", json!("snd={Id=i, Name=n}")),
        (r"States.Format('it\'s \{\} \\ {}', $.a)", json!(r"it's {} \ [1, 2, 3, 4]")),
        ("States.Format('{}', States.Format('{}{}', $.s, States.ArrayLength($.a)))", json!("b4")),
        ("States.MathRandom(3, 4)", json!(3)),
    ] {
        assert_eq!(eval(call, input.clone()).map_err(|e| e.message), Ok(expected), "{call}");
    }
}

#[test]
fn failures_name_the_call() {
    let failed = eval("States.JsonToString($.x)", json!({"a": 1})).unwrap_err();
    assert_eq!(failed.error, "States.Runtime");
    assert_eq!(
        failed.message,
        "The function 'States.JsonToString($.x)' had the following error: The JsonPath argument for the field '$.x' \
         could not be found in the input '{\"a\":1}'"
    );
    for call in [
        "States.ArrayPartition($, 0)",
        "States.ArrayGetItem($, 9)",
        "States.ArrayGetItem($, -1)",
        "States.ArrayRange(0, 1000, 1)",
        "States.ArrayRange(0, 1, 0)",
        "States.ArrayRange(0, 9223372036854775807, 1)",
        "States.Base64Decode('?')",
        "States.Hash('a', 'CRC')",
        "States.JsonMerge($, $, false)",
        "States.JsonMerge(States.StringToJson('{}'), States.StringToJson('{}'), true)",
        "States.MathAdd(9223372036854775807, 1)",
        "States.MathAdd('1', 1)",
        "States.MathAdd(1e300, 1)",
        "States.MathRandom(1, 1)",
        "States.StringToJson('{')",
        "States.ArrayLength('abc')",
        "States.Format($[0], 1)",
    ] {
        let failed = eval(call, json!(["{}{}"])).unwrap_err();
        assert_eq!(failed.error, "States.IntrinsicFailure", "{call}");
        assert!(failed.message.starts_with(&format!("The function '{call}' had the following error: ")), "{call}");
    }
}

#[test]
fn chance_is_the_same_for_the_same_seed() {
    let (input, context, variables) = (json!({}), json!({}), Variables::new());
    let call = Intrinsic::parse("States.Array(States.UUID(), States.UUID(), States.MathRandom(-5, 99999999))").unwrap();
    let at = |seed| call.eval(&Scope::new(&input, &context, &variables, seed)).unwrap();
    assert_eq!(at(1), at(1));
    assert_ne!(at(1), at(2));
    assert_ne!(at(1)[0], at(1)[1]);
    assert_eq!(at(1)[0].as_str().map(|id| (id.len(), id.as_bytes()[14])), Some((36, b'4')));
    let seeded = Intrinsic::parse("States.MathRandom(0, 999, 3)").unwrap();
    let by = |seed| seeded.eval(&Scope::new(&input, &context, &variables, seed)).unwrap();
    assert_eq!(by(1), by(2));
}

#[test]
fn what_is_no_call_is_refused() {
    let nested = |depth: usize| format!("{}1{}", "States.Array(".repeat(depth), ")".repeat(depth));
    assert!(Intrinsic::parse(&nested(10)).is_ok());
    for text in [
        "",
        "States",
        "States.Nope()",
        "States.Array(",
        "States.Array(1",
        "States.Array(1,)",
        "States.Array(,1)",
        "States.Array(\"a\")",
        "States.Array('a)",
        "States.Array(1) x",
        "States.UUID(1)",
        "States.Hash('a')",
        "States.Format()",
        "States.Format('{}')",
        "States.Format('{}', 1, 2)",
        "States.Array($.)",
        "states.Array()",
        &nested(11),
        &nested(5_000),
    ] {
        assert!(Intrinsic::parse(text).is_err(), "{text}");
    }
}
