//! What expressions come to, and that none of them gets out of hand.
//!
//! The values and messages are those of the reference implementation, jsonata-js 2.0.6, for the same expressions.

use serde_json::{Value, json};

use super::*;

fn run(text: &str, input: &Value) -> Result<Outcome, Fault> {
    let draw = || 0x1234_5678_9abc_def0;
    let effort = Effort::unbounded();
    let setting = Setting { now_ms: 1_510_067_557_121, draw: &draw, effort: &effort };
    let expression = Expression::parse(text)?;
    expression.evaluate([("i", Binding::Json(input))], &setting)
}

/// What a function goes through is counted, and not only what it makes.
#[test]
fn what_is_gone_through_is_counted() {
    let text = "x".repeat(200_000);
    let many: Vec<Value> = (0..9_000).map(|n| json!({"n": n})).collect();
    let input = json!({"s": text, "a": many, "u": "é".repeat(100_000)});
    let rounds = "[1..2000]";
    for work in [
        "[$i.a = $i.a]",
        ".$hash($i.s, 'SHA-512')",
        ".$uppercase($i.s)",
        ".$trim($i.s)",
        ".$substringAfter($i.s, 'y')",
        ".$sum($i.a.n)",
        ".$max($i.a.n)",
        "[$ in $i.a.n]",
        "[$i.u < $i.u]",
        ".$length($i.s)",
        ".$contains($i.s, 'y')",
        ".$split($i.s, 'y')",
        ".$distinct($i.a)",
    ] {
        let began = std::time::Instant::now();
        let given_up = run(&format!("{rounds}{work}"), &input).is_err_and(|fault| fault.message.contains("timeout"));
        assert!(given_up, "{work} was let through after {:?}", began.elapsed());
    }
}

#[test]
fn evaluations_share_their_effort() {
    let (draw, effort) = (|| 0, Effort::of(10_000));
    let setting = Setting { now_ms: 0, draw: &draw, effort: &effort };
    let sum = Expression::parse("$sum([1..100])").unwrap();
    let none = || std::iter::empty::<(&str, Binding)>();
    let first = sum.evaluate(none(), &setting);
    let spent = 10_000 - effort.left();
    assert_eq!((first, spent > 100), (Ok(Outcome::Value(json!(5050))), true));
    for _ in 1..10_000 / spent {
        assert!(sum.evaluate(none(), &setting).is_ok());
    }
    assert!(!effort.is_exceeded());
    assert!(sum.evaluate(none(), &setting).unwrap_err().message.contains("timeout"));
    assert!(effort.is_exceeded());
    // What has once exceeded it gets nothing more.
    assert!(Expression::parse("1").unwrap().evaluate(none(), &setting).is_err());
    effort.grant(10);
    assert!(Expression::parse("1").unwrap().evaluate(none(), &setting).is_ok());
}

fn input() -> Value {
    json!({
        "arr": [1, 2, 3], "one": [7], "empty": [], "nested": [[1, 2], [3]],
        "orders": [
            {"id": "o1", "products": [{"name": "Hat", "price": 34.45, "n": 2}, {"name": "Cap", "price": 21.67, "n": 1}]},
            {"id": "o2", "products": [{"name": "Hat", "price": 34.45, "n": 4}]},
        ],
    })
}

fn failure(text: &str) -> String {
    match run(text, &input()) {
        Err(Fault { code, message, .. }) => format!("{code}: {message}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn expressions_come_to_what_the_reference_says() {
    for (text, expected) in [
        ("$i.orders.products.name", json!(["Hat", "Cap", "Hat"])),
        ("$i.orders[0].products[price > 30].name", json!("Hat")),
        ("$i.one", json!([7])),
        ("$i.orders[0].products[0].name[]", json!(["Hat"])),
        ("$i.orders.products{name: $sum(n)}", json!({"Hat": 6, "Cap": 1})),
        ("$i.orders.products^(>price, n).n", json!([2, 4, 1])),
        ("$i.orders.products.{'o': %.id, 'n': name}[2]", json!({"o": "o2", "n": "Hat"})),
        ("$i.orders@$o.$o.products.{'o': $o.id}[-1]", json!({"o": "o2"})),
        ("$i.orders#$k.{'k': $k}", json!([{"k": 0}, {"k": 1}])),
        (
            "$i ~> |orders|{'n': $count(products)}, 'products'| ~> $lookup('orders')",
            json!([{"id": "o1", "n": 2}, {"id": "o2", "n": 1}]),
        ),
        ("($f := function($n, $a) {$n < 1 ? $a : $f($n - 1, $a + $n)}; $f(2000, 0))", json!(2_001_000)),
        ("$map([1..3], $string) ~> $join('-')", json!("1-2-3")),
        ("$string(0.1 + 0.2) & $string(1e21) & $string([1.0, null])", json!("0.31e+21[1,null]")),
        ("$match('ab12', /[a-z]([0-9])/).groups", json!(["1"])),
        ("$formatNumber(-1234.5, '#,##0.00') & $formatInteger(21, 'w;o')", json!("-1,234.50twenty-first")),
        ("$fromMillis(1510067557121, '[FNn], [D1o] [MNn] [Y]')", json!("Tuesday, 7th November 2017")),
        ("$toMillis('12 May 2018', '[D] [MNn] [Y]')", json!(1_526_083_200_000_i64)),
        ("$now()", json!("2017-11-07T15:12:37.121Z")),
    ] {
        assert_eq!(run(text, &input()), Ok(Outcome::Value(expected)), "{text}");
    }
    assert_eq!(run("$i.nothing.more", &input()), Ok(Outcome::Undefined));
    assert_eq!(run("function($x) {$x}", &input()), Ok(Outcome::Unsupported));
}

#[test]
fn what_aws_adds_is_there_and_eval_is_not() {
    for (text, expected) in [
        ("$partition([1..5], 2)", json!([[1, 2], [3, 4], [5]])),
        ("$range(0, 10, 3)", json!([0, 3, 6, 9])),
        ("$range(5, 1, -2)", json!([5, 3, 1])),
        ("$range(1, 9, 9)", json!(1)),
        ("$hash('input data', 'SHA-1')", json!("aaff4a450a104cd177d28d18d74485e8cae074b7")),
        ("$parse('{\"a\": [1, -0]}')", json!({"a": [1, 0]})),
        ("$random(7) = $random(7) and $random() < 1", json!(true)),
        ("$length($uuid())", json!(36)),
    ] {
        assert_eq!(run(text, &input()), Ok(Outcome::Value(expected)), "{text}");
    }
    assert_eq!(failure("$eval('1')"), "T1006: Attempted to invoke a non-function");
}

#[test]
fn faults_read_as_those_of_the_reference() {
    for (text, expected) in [
        ("$sum(['a'])", r#"T0412: Argument 1 of function "sum" must be an array of "numbers""#),
        ("$abs('x')", r#"T0410: Argument 1 of function "abs" does not match function signature"#),
        ("1 + 'a'", r#"T2002: The right side of the "+" operator must evaluate to a number"#),
        ("1 < 'b'", r#"T2009: The values 1 and "b" either side of operator "<" must be of the same data type"#),
        ("$number('abc')", r#"D3030: Unable to cast value to a number: "abc""#),
        ("sum([1])", "T1005: Attempted to invoke a non-function. Did you mean $sum?"),
        ("$error('boom')", "D3137: boom"),
        ("{1: 2}", "T1003: Key in object structure must evaluate to a string; got: 1"),
        ("(1", r#"S0203: Expected ")" before end of expression"#),
        ("{\"a\":}", r#"S0211: The symbol "}" cannot be used as a unary operator"#),
    ] {
        assert_eq!(failure(text), expected, "{text}");
    }
}

/// On a thread with the stack of the runtime's workers.
#[test]
fn hostile_expressions_are_stopped() {
    let mut hostile: Vec<String> = [
        "($f := function($n) {$f($n + 1)}; $f(1))",
        "($f := function($n) {1 + $f($n + 1)}; $f(1))",
        "($f := function($n) {[$f($n + 1)]}; $f(1))",
        "($f := function($n) {$map([1], function($x) {$f($n)})}; $f(1))",
        "$reduce([1..100000], function($a, $b) {[[$a]]})",
        "$reduce([1..100000], function($a, $b) {{'a': $a}})",
        "$reduce([1..100000], function($a, $b) {function() {$a}})()",
        "$reduce([1..100000], function($f, $i) {$f ~> $string}, $string)(1)",
        "$reduce([1..100000], function($f, $i) {$substring(?, 0)}, $string)",
        "$reduce([1..100000], function($a, $b) {$a & $a}, 'xx')",
        "$pad('x', 1000000000)",
        "$pad('x', 1e308)",
        "$count([1..10000000])",
        "$map([1..1000], function($i) {$map([1..1000], function($j) {$i * $j})})",
        "$i ~> | ($v := $) | {'x': $v} |",
        "($v := $i; $i ~> | $v := $ | {'x': $v} |)",
        "$substring('abc', 1e308, -1e308) & $formatBase(1e300, 2) & $formatInteger(1e300, 'w')",
        "$formatInteger(1e300, 'I')",
        "$formatNumber(1, '0.000000000000000000000000000e0')",
        "$fromMillis(1e300)",
        "$fromMillis(0, '[Y,999999999999-999999999999]')",
        "$toMillis('1', '[Y9999999999999999999999999]')",
        "$match('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!', /(a+)+$/)",
        "$replace('a', /(((((a{100}){100}){100}){100}){100})/, '')",
        "$zip([1..5000], [1..5000], [1..5000])",
        "**.**.**.**",
    ]
    .into_iter()
    .map(String::from)
    .collect();
    for (open, close) in [("(", ")"), ("[", "]"), ("{'a':", "}"), ("-", ""), ("$f(", ")"), ("function(){", "}")] {
        for depth in [120, 100_000] {
            hostile.push(format!("{}1{}", open.repeat(depth), close.repeat(depth)));
        }
    }
    for operator in [" + 1", " & 'x'", ".a", "[0]", " ~> $string", " ? 1 : 1", "^(a)", "{'a': 1}"] {
        for length in [120, 100_000] {
            hostile.push(format!("$i{}", operator.repeat(length)));
        }
    }
    let worker = std::thread::Builder::new().stack_size(2 << 20);
    let ran = worker.spawn(move || {
        for text in hostile {
            // Whatever comes out: it came out.
            let _ = run(&text, &input());
        }
    });
    assert!(ran.unwrap().join().is_ok());
    assert_eq!(failure("$count([1..10000000])"), ": Expression evaluation timeout: Check for infinite loop");
    assert!(failure("($f := function($n) {1 + $f($n + 1)}; $f(1))").starts_with(": Stack overflow error"));
}

proptest::proptest! {
    /// Texts that are nearly expressions.
    #[test]
    fn any_text_is_refused_or_evaluated(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "$i", "$", "$$", "$x", "a", "1", "'t'", "null", ".", "[", "]", "(", ")", "{", "}", ":", ",", ";", "+", "-", "*",
        "**", "%", "&", "=", "<", "~>", ":=", "?", "@$k", "#$k", "^(", "|", "/a/", "function($x){", "$map(", "$sum(",
        "$string(", "..", " and ", " in ", "`b`", "orders", "products", "1e300", "$f :=", "$reduce(", "$toMillis(",
        "[Y]", "$replace(", "$formatNumber(", "'#,##0.0'", "\\", "é",
    ]), 0..20)) {
        let _ = run(&pieces.concat(), &input());
    }
}
