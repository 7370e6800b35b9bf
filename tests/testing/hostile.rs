//! Definitions of about 1 MiB that somebody could send to hurt a box: of each kind of growth one.

use std::fmt::Write;

/// AWS's limit of a definition, in bytes.
pub const BYTES: usize = 1 << 20;

/// All shapes with their names, each at most so many bytes long.
pub fn shapes(bytes: usize) -> Vec<(&'static str, String)> {
    vec![
        ("passes that assign", chain(bytes, |n| format!(r#""Type":"Pass","Assign":{{"v{n}":1}}"#))),
        ("passes that assign and read", chain(bytes, assign_and_read)),
        ("passes that nest a result", chain(bytes, |n| format!(r#""Type":"Pass","ResultPath":"$.f{n}.a.b.c""#))),
        ("passes backwards by name", backwards(bytes)),
        ("one assign of many", alone(bytes, r#""Type":"Pass","Assign":{"#, "}", |n| format!(r#""v{n}":{n}"#))),
        ("all read all", all_read_all(bytes)),
        ("all read what nothing assigns", chain(bytes, |n| format!(r#""Type":"Pass","Parameters":{{"a.$":"$w{n}"}}"#))),
        ("ladder", ladder(bytes)),
        ("complete graph", complete(bytes)),
        ("loop that assigns", looped(bytes)),
        ("rules", rules(bytes, |n| format!(r#""Variable":"$.a{n}","IsNull":true"#), "")),
        ("rules that assign", rules(bytes, |n| format!(r#""Variable":"$.a","IsNull":true,"Assign":{{"v{n}":1}}"#), "")),
        ("rules of conditions in conditions", rules(bytes, |_| nested_condition(), r#","Default":"E""#)),
        ("rules that never hold", never(bytes)),
        ("parallels in parallels", deep(bytes)),
        ("branches", branches(bytes)),
        ("maps side by side", maps(bytes)),
        ("numbers", result(bytes, "[", "]", |_| "0".to_owned())),
        ("empty arrays", result(bytes, "[", "]", |_| "[]".to_owned())),
        ("objects of other fields", result(bytes, "[", "]", |n| format!(r#"{{"a{n}":0}}"#))),
        ("fields", result(bytes, "{", "}", |n| format!(r#""{n}":0"#))),
        ("literals deep in parameters", deep_parameters(bytes)),
        ("paths in parameters", alone(bytes, r#""Type":"Pass","Parameters":{"#, "}", |n| format!(r#""{n}.$":"$""#))),
        ("long path", chain(bytes, |_| format!(r#""Type":"Pass","InputPath":"${}""#, ".a".repeat(4_000)))),
        ("long result path", chain(bytes, |_| format!(r#""Type":"Pass","ResultPath":"${}""#, ".a".repeat(4_000)))),
        ("regular expressions", chain(bytes, |n| format!(r#""Type":"Pass","InputPath":"$[?(@.a=~/\\w{{9}}{n}/)]""#))),
        (
            "filters",
            chain(bytes, |_| format!(r#""Type":"Pass","InputPath":"$[?({})]""#, vec!["@.a==1"; 400].join("||"))),
        ),
        ("calls in calls", chain(bytes, calls)),
        ("catchers that assign", catchers(bytes)),
        ("error names", error_names(bytes)),
        ("states that nothing enters", unreachable(bytes)),
        ("targets that are nowhere", missing_targets(bytes)),
        ("faults under a long name", faults_under_a_name(bytes)),
        ("rules under a long name", rules_under_a_name(bytes)),
        ("one name twice", alone(bytes, r#""Type":"Pass","Result":{"#, "}", |_| r#""a":0"#.to_owned())),
        ("lone surrogates", result(bytes, "[", "]", |_| r#""\ud800""#.to_owned())),
        ("escapes", result(bytes, "[", "]", |_| r#""\u00e9""#.to_owned())),
        ("a number of many digits", result(bytes, "[", "]", |_| "1".repeat(100_000))),
        ("brackets", "[".repeat(bytes)),
        ("expressions", jsonata_list(bytes, "1")),
        ("expressions of a variable", jsonata_list(bytes, "$a")),
        ("expressions of a field", jsonata_list(bytes, "$a.b")),
        ("expressions of $states", jsonata_list(bytes, "$states.input.a")),
        ("expressions of nothing", jsonata_list(bytes, "[]")),
        ("expressions of objects", jsonata_list(bytes, "{}")),
        ("expressions that negate", jsonata_list(bytes, "-$a")),
        ("expressions that filter", jsonata_list(bytes, "$a[0]")),
        ("expressions that call", jsonata_list(bytes, "$now()")),
        ("expressions deep under a long name", jsonata_deep(bytes)),
        ("one expression of many variables", jsonata_of_variables(bytes)),
        ("one expression of many fields", jsonata_of_fields(bytes)),
        ("one expression that binds", jsonata_that_binds(bytes)),
        ("states of expressions", jsonata_states(bytes)),
    ]
}

/// A text that grows while there is room.
struct Grown {
    text: String,
    bytes: usize,
    tail: usize,
    count: usize,
}

impl Grown {
    fn new(head: &str, bytes: usize, tail: usize) -> Grown {
        Grown { text: head.to_owned(), bytes, tail, count: 0 }
    }

    /// Whether it still had its place, after a comma where it is not the first.
    fn put(&mut self, part: &str) -> bool {
        let fits = self.text.len() + part.len() + self.tail < self.bytes;
        if fits {
            let comma = if self.count > 0 { "," } else { "" };
            let _ = write!(self.text, "{comma}{part}");
            self.count += 1;
        }
        fits
    }

    fn end(mut self, tail: &str) -> String {
        self.text.push_str(tail);
        self.text
    }
}

/// States one after another, each of the same kind.
fn chain(bytes: usize, body: impl Fn(usize) -> String) -> String {
    let last = r#""E":{"Type":"Succeed"}}}"#;
    let next = |n: usize| format!("S{n:05}");
    let count = {
        let mut used = 64 + last.len();
        (0..).take_while(|n| (used += body(*n).len() + 30, used < bytes).1).count()
    };
    let mut text = format!(r#"{{"StartAt":"{}","States":{{"#, next(0));
    for n in 0..count {
        let to = if n + 1 == count { "E".to_owned() } else { next(n + 1) };
        let _ = write!(text, r#""{}":{{{},"Next":"{to}"}},"#, next(n), body(n));
    }
    text + last
}

fn assign_and_read(n: usize) -> String {
    format!(r#""Type":"Pass","Assign":{{"v{n}":{{"a":1}}}},"Parameters":{{"x.$":"$v{}.b"}}"#, n / 2)
}

/// As [`chain`], with names that stand in the other order.
fn backwards(bytes: usize) -> String {
    let count = bytes / 72;
    let mut text = format!(r#"{{"StartAt":"S{count:05}","States":{{"#);
    for n in 1..=count {
        let _ = write!(text, r#""S{n:05}":{{"Type":"Pass","Assign":{{"v{n}":1}},"Next":"S{:05}"}},"#, n - 1);
    }
    text + r#""S00000":{"Type":"Succeed"}}}"#
}

/// One state that holds one list.
fn alone(bytes: usize, open: &str, close: &str, item: impl Fn(usize) -> String) -> String {
    let tail = format!(r#"{close},"End":true}}}}}}"#);
    let mut grown = Grown::new(&format!(r#"{{"StartAt":"S","States":{{"S":{{{open}"#), bytes, tail.len());
    while grown.put(&item(grown.count)) {}
    grown.end(&tail)
}

fn result(bytes: usize, open: &str, close: &str, item: impl Fn(usize) -> String) -> String {
    alone(bytes, &format!(r#""Type":"Pass","Result":{open}"#), close, item)
}

fn all_read_all(bytes: usize) -> String {
    let side = (1..).take_while(|n| n * n * 16 < bytes).count();
    let fields = |n: usize| {
        (0..side - 1).map(|m| format!(r#""{m}.$":"$v{m}""#)).collect::<Vec<_>>().join(",") + &format!(r#","n":{n}"#)
    };
    chain(bytes, |n| format!(r#""Type":"Pass","Assign":{{"v{n}":1}},"Parameters":{{{}}}"#, fields(n)))
}

/// Ways that part and meet again, one after another, with names by which the later ones come first.
fn ladder(bytes: usize) -> String {
    let count = bytes / 270;
    let mut text = format!(r#"{{"StartAt":"C{count:05}","States":{{"#);
    for n in 1..=count {
        let next = n - 1;
        let _ = write!(
            text,
            r#""C{n:05}":{{"Type":"Choice","Choices":[{{"Variable":"$.a","IsNull":true,"Next":"L{n}"}}],"Default":"R{n}"}},"L{n}":{{"Type":"Pass","Assign":{{"l{n}":1}},"Next":"C{next:05}"}},"R{n}":{{"Type":"Pass","Assign":{{"r{n}":"x"}},"Next":"C{next:05}"}},"#
        );
    }
    text + r#""C00000":{"Type":"Succeed"}}}"#
}

/// Every state leads to every other, and each assigns.
fn complete(bytes: usize) -> String {
    let side = (1..).take_while(|n| n * n * 70 < bytes).count();
    let mut text = r#"{"StartAt":"S0","States":{"#.to_owned();
    for n in 0..side {
        let rules: Vec<String> = (0..side)
            .map(|to| format!(r#"{{"Variable":"$.a{to}","IsNull":true,"Assign":{{"v{n}":{to}}},"Next":"S{to}"}}"#))
            .collect();
        let _ = write!(text, r#""S{n}":{{"Type":"Choice","Choices":[{}],"Default":"E"}},"#, rules.join(","));
    }
    text + r#""E":{"Type":"Succeed"}}}"#
}

/// One round of all states, in which data and variables grow.
fn looped(bytes: usize) -> String {
    let count = bytes / 130;
    let mut text = r#"{"StartAt":"S00000","States":{"#.to_owned();
    for n in 0..count {
        let next = if n + 1 == count { "C".to_owned() } else { format!("S{:05}", n + 1) };
        let _ = write!(
            text,
            r#""S{n:05}":{{"Type":"Pass","Assign":{{"v{n}":{{"a.$":"$.x"}}}},"ResultPath":"$.x.y","Next":"{next}"}},"#
        );
    }
    text + r#""C":{"Type":"Choice","Choices":[{"Variable":"$.a","IsNull":true,"Next":"S00000"}],"Default":"E"},"E":{"Type":"Succeed"}}}"#
}

/// One Choice of very many rules.
fn rules(bytes: usize, rule: impl Fn(usize) -> String, default: &str) -> String {
    let tail = format!(r#"]{default}}},"E":{{"Type":"Succeed"}}}}}}"#);
    let mut grown = Grown::new(r#"{"StartAt":"C","States":{"C":{"Type":"Choice","Choices":["#, bytes, tail.len());
    while grown.put(&format!(r#"{{{},"Next":"E"}}"#, rule(grown.count))) {}
    grown.end(&tail)
}

fn nested_condition() -> String {
    let mut condition = r#""Variable":"$.a","IsNull":true"#.to_owned();
    for depth in 0..30 {
        condition = match depth % 3 {
            0 => format!(r#""And":[{{{condition}}},{{"Variable":"$.b","IsNull":true}}]"#),
            1 => format!(r#""Or":[{{{condition}}},{{"Variable":"$.c","IsNull":true}}]"#),
            _ => format!(r#""Not":{{{condition}}}"#),
        };
    }
    condition
}

/// Very many findings.
fn never(bytes: usize) -> String {
    let text = rules(bytes - 100, |_| r#""Variable":"$.b","IsNull":true"#.to_owned(), "");
    let text = text.replacen(r#""StartAt":"C""#, r#""StartAt":"S""#, 1);
    text.replacen(r#""States":{"#, r#""States":{"S":{"Type":"Pass","Result":{"a":1},"Next":"C"},"#, 1)
}

/// As deep as a definition may be, each level with a loop in which everything changes.
fn deep(bytes: usize) -> String {
    let one = |seed: usize| {
        let mut inner = format!(
            r#"{{"StartAt":"x{seed}","States":{{"x{seed}":{{"Type":"Pass","Assign":{{"i{seed}":1}},"End":true}}}}}}"#
        );
        for depth in 0..20 {
            let name = format!("{seed}.{depth}");
            inner = format!(
                r#"{{"StartAt":"p{name}","States":{{"p{name}":{{"Type":"Parallel","Branches":[{inner}],"ResultPath":"$.r","Next":"c{name}"}},"c{name}":{{"Type":"Choice","Choices":[{{"Variable":"$.a","IsNull":true,"Next":"p{name}"}}],"Default":"e{name}"}},"e{name}":{{"Type":"Pass","End":true}}}}}}"#
            );
        }
        inner
    };
    let tail = r#"],"End":true}}}"#;
    let mut grown = Grown::new(r#"{"StartAt":"S","States":{"S":{"Type":"Parallel","Branches":["#, bytes, tail.len());
    while grown.put(&one(grown.count)) {}
    grown.end(tail)
}

fn branches(bytes: usize) -> String {
    alone(bytes, r#""Type":"Parallel","Branches":["#, "]", |n| {
        format!(r#"{{"StartAt":"b{n}","States":{{"b{n}":{{"Type":"Pass","Result":{{"f{n}":1}},"End":true}}}}}}"#)
    })
}

fn maps(bytes: usize) -> String {
    chain(bytes, |n| {
        format!(
            r#""Type":"Map","ItemProcessor":{{"StartAt":"m{n}","States":{{"m{n}":{{"Type":"Pass","Assign":{{"i{n}":1}},"End":true}}}}}},"ResultPath":"$.a","Assign":{{"v{n}":1}}"#
        )
    })
}

fn deep_parameters(bytes: usize) -> String {
    let (open, close) = (r#"{"a":"#.repeat(85), "}".repeat(85));
    let open = format!(r#""Type":"Pass","Parameters":{{"x":{open}["#);
    alone(bytes, &open, &format!(r#"]{close},"y.$":"$"}}"#), |n| format!(r#""{}""#, n % 10))
}

fn calls(n: usize) -> String {
    let (open, close) = ("States.Array(".repeat(9), ")".repeat(9));
    format!(r#""Type":"Pass","Parameters":{{"a.$":"{open}$.a{n}, $v{n}{close}"}}"#)
}

fn catchers(bytes: usize) -> String {
    let tail = r#"],"End":true},"E":{"Type":"Succeed"}}}"#;
    let head = r#"{"StartAt":"S","States":{"S":{"Type":"Task","Resource":"arn:aws:states:::x:y","Catch":["#;
    let mut grown = Grown::new(head, bytes, tail.len());
    while grown.put(&format!(r#"{{"ErrorEquals":["A{0}"],"Assign":{{"v{0}":1}},"Next":"E"}}"#, grown.count)) {}
    grown.end(tail)
}

fn error_names(bytes: usize) -> String {
    let open = r#""Type":"Task","Resource":"arn:aws:states:::x:y","Retry":["#;
    alone(bytes, open, "]", |n| format!(r#"{{"ErrorEquals":["A{n}","States.Runtime"]}}"#))
}

fn unreachable(bytes: usize) -> String {
    let tail = r#""S":{"Type":"Succeed"}}}"#;
    let mut text = r#"{"StartAt":"S","States":{"#.to_owned();
    for n in 0.. {
        // Pairs that lead to each other: something leads to each.
        let pair = format!(r#""a{n}":{{"Type":"Pass","Next":"b{n}"}},"b{n}":{{"Type":"Pass","Next":"a{n}"}},"#);
        if text.len() + pair.len() + tail.len() > bytes {
            break;
        }
        text += &pair;
    }
    text + tail
}

fn missing_targets(bytes: usize) -> String {
    rules(bytes, |n| format!(r#""Variable":"$.a{n}","IsNull":true"#), "").replace(r#""Next":"E""#, r#""Next":"N""#)
}

fn faults_under_a_name(bytes: usize) -> String {
    let name = "n".repeat(bytes / 2);
    let open = format!(r#""Type":"Pass","Parameters":{{"{name}":{{"#);
    alone(bytes, &open, "}}", |n| format!(r#""{n}.$":0"#))
}

fn rules_under_a_name(bytes: usize) -> String {
    let name = "n".repeat(bytes / 2);
    let text = rules(bytes / 2 - 64, |_| r#""Variable":"$.a","IsNull":true"#.to_owned(), "");
    text.replacen(r#""C":{"#, &format!(r#""{name}":{{"#), 1).replacen(r#""StartAt":"C""#, r#""StartAt":"E""#, 1)
}

const JSONATA: &str = r#""Type":"Pass","QueryLanguage":"JSONata","Output":"#;

fn jsonata_list(bytes: usize, expression: &str) -> String {
    alone(bytes, &format!("{JSONATA}["), "]", |_| format!(r#""{{%{expression}%}}""#))
}

fn jsonata_deep(bytes: usize) -> String {
    let open = format!(r#"{JSONATA}{{"{}":["#, "n".repeat(bytes / 2));
    alone(bytes, &open, "]}", |_| r#""{%$a%}""#.to_owned())
}

fn jsonata_of(bytes: usize, open: &str, close: &str, part: impl Fn(usize) -> String) -> String {
    let (open, close) = (format!(r#"{JSONATA}"{{% [{open}"#), format!(r#"{close}] %}}""#));
    alone(bytes, &open, &close, part)
}

fn jsonata_of_variables(bytes: usize) -> String {
    jsonata_of(bytes, "", "", |n| format!("$v{n}"))
}

fn jsonata_of_fields(bytes: usize) -> String {
    jsonata_of(bytes, "", "", |n| format!("$states.input.f{n}"))
}

fn jsonata_that_binds(bytes: usize) -> String {
    jsonata_of(bytes, "($a := 1; ", ")", |n| format!("$v{n}")).replacen("1; ", "1; [", 1).replacen(")] %}", "])] %}", 1)
}

fn jsonata_states(bytes: usize) -> String {
    chain(bytes, |n| {
        format!(r#"{JSONATA}"{{% $v{} + $states.input.a[b > 1].c %}}","Assign":{{"v{n}":"{{% $w %}}"}}"#, n / 2)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn shapes_are_as_large_as_they_may_be() {
        for (name, text) in super::shapes(super::BYTES) {
            assert!(text.len() <= super::BYTES && text.len() > super::BYTES / 2, "{name}: {}", text.len());
        }
    }
}
