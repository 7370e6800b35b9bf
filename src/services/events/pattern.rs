//! EventBridge's event patterns: which events a rule takes. Pure.
//!
//! ```text
//! {"source": ["aws.states"], "detail": {"status": ["FAILED", {"prefix": "TIMED"}], "name": [{"exists": true}]}}
//! ```
//!
//! Every field of the pattern must be met, one of the conditions in its list is enough. `$or` holds patterns of
//! which one is enough. A field of the event that is a list is met by any of its members, and within a list of
//! objects all fields that the pattern names must be met by the same object. A pattern is checked whole when it is
//! read; matching cannot fail.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// Deepest nesting of a pattern or of what it looks at.
const DEPTH_MAX: usize = 64;

/// A rule's condition on events.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern(Object);

/// All of it must be met.
#[derive(Clone, Debug, Default, PartialEq)]
struct Object {
    fields: Vec<(String, Field)>,
    /// Of each list one.
    either: Vec<Vec<Object>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Object(Object),
    /// One of these.
    Conditions(Vec<Condition>),
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Is(Value),
    Exists(bool),
    Text(Text),
    Numeric(Vec<(Comparison, f64)>),
    Cidr {
        network: IpAddr,
        bits: u8,
    },
    /// A text that none of these takes.
    NoText(Vec<Text>),
    /// A value other than these.
    NoValue(Vec<Value>),
}

/// A condition on texts.
#[derive(Clone, Debug, PartialEq)]
enum Text {
    Prefix(String),
    PrefixIgnoringCase(String),
    Suffix(String),
    SuffixIgnoringCase(String),
    EqualsIgnoringCase(String),
    /// The parts between the asterisks.
    Wildcard(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

/// Why a pattern was refused, and where in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("Event pattern is not valid. Reason: {what} at {place}")]
pub struct NotAPattern {
    what: String,
    /// `detail.status`; `the top` for the whole.
    place: String,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, NotAPattern> {
        let value: Value = serde_json::from_str(text)
            .map_err(|e| NotAPattern { what: format!("it is no JSON ({e})"), place: "the top".to_owned() })?;
        Pattern::read(&value)
    }

    /// The one that takes no event.
    pub fn nothing() -> Pattern {
        Pattern(Object { fields: Vec::new(), either: vec![Vec::new()] })
    }

    pub fn read(value: &Value) -> Result<Pattern, NotAPattern> {
        let mut reader = Reader { place: Vec::new() };
        match value {
            Value::Object(map) if map.is_empty() => reader.fault("an empty pattern takes nothing"),
            Value::Object(map) => reader.object(map).map(Pattern),
            _ => reader.fault("a pattern is an object"),
        }
    }

    pub fn matches(&self, event: &Value) -> bool {
        event.as_object().is_some_and(|event| self.0.matches(Some(event), 0))
    }
}

impl Object {
    /// `None` stands for an object that is not there: only conditions on absence can hold in it.
    fn matches(&self, object: Option<&Map<String, Value>>, depth: usize) -> bool {
        depth <= DEPTH_MAX
            && self.fields.iter().all(|(name, field)| field.matches(object.and_then(|o| o.get(name)), depth))
            && self.either.iter().all(|group| group.iter().any(|one| one.matches(object, depth)))
    }
}

impl Field {
    fn matches(&self, value: Option<&Value>, depth: usize) -> bool {
        match (self, value) {
            (Field::Object(pattern), Some(Value::Array(members))) => members.iter().any(|member| match member {
                Value::Object(object) => pattern.matches(Some(object), depth + 1),
                _ => false,
            }),
            (Field::Object(pattern), value) => pattern.matches(value.and_then(Value::as_object), depth + 1),
            (Field::Conditions(conditions), value) => conditions.iter().any(|condition| condition.holds(value)),
        }
    }
}

impl Condition {
    fn holds(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            // Only leaves exist: an object is not a value that a condition can look at.
            (Condition::Exists(wanted), value) => *wanted == value.is_some_and(|v| !v.is_object()),
            (_, None) => false,
            (_, Some(Value::Array(members))) => members.iter().any(|member| self.holds_for(member)),
            (_, Some(value)) => self.holds_for(value),
        }
    }

    fn holds_for(&self, value: &Value) -> bool {
        match self {
            Condition::Is(wanted) => equal(wanted, value),
            Condition::Exists(wanted) => *wanted,
            Condition::Text(text) => value.as_str().is_some_and(|value| text.takes(value)),
            Condition::Numeric(bounds) => value.as_f64().is_some_and(|value| {
                bounds.iter().all(|(comparison, bound)| match comparison {
                    Comparison::Less => value < *bound,
                    Comparison::LessOrEqual => value <= *bound,
                    Comparison::Equal => value == *bound,
                    Comparison::GreaterOrEqual => value >= *bound,
                    Comparison::Greater => value > *bound,
                })
            }),
            Condition::Cidr { network, bits } => {
                value.as_str().and_then(|text| text.parse().ok()).is_some_and(|ip| is_within(ip, *network, *bits))
            }
            Condition::NoText(texts) => value.as_str().is_some_and(|value| !texts.iter().any(|text| text.takes(value))),
            Condition::NoValue(values) => !value.is_object() && !values.iter().any(|unwanted| equal(unwanted, value)),
        }
    }
}

impl Text {
    fn takes(&self, value: &str) -> bool {
        match self {
            Text::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Text::PrefixIgnoringCase(prefix) => value.to_lowercase().starts_with(prefix.as_str()),
            Text::Suffix(suffix) => value.ends_with(suffix.as_str()),
            Text::SuffixIgnoringCase(suffix) => value.to_lowercase().ends_with(suffix.as_str()),
            Text::EqualsIgnoringCase(wanted) => value.to_lowercase() == *wanted,
            Text::Wildcard(parts) => wildcard(parts, value),
        }
    }
}

/// Numbers are equal by value, so that 1 and 1.0 are.
fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(x), Some(y)) => x == y,
        _ => a == b,
    }
}

/// The parts in order, the first at the beginning and the last at the end.
fn wildcard(parts: &[String], value: &str) -> bool {
    let [first, middle @ .., last] = parts else { return parts.first().is_some_and(|only| only == value) };
    let Some(mut rest) = value.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        let Some(at) = rest.find(part.as_str()) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last.as_str())
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (ip, network, width) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (u128::from(ip.to_bits()), u128::from(network.to_bits()), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let shift = width - u32::from(bits);
    shift >= 128 || ip >> shift == network >> shift
}

struct Reader {
    place: Vec<String>,
}

impl Reader {
    fn fault<T>(&self, what: impl Into<String>) -> Result<T, NotAPattern> {
        let place = if self.place.is_empty() { "the top".to_owned() } else { self.place.join(".") };
        Err(NotAPattern { what: what.into(), place })
    }

    fn object(&mut self, map: &Map<String, Value>) -> Result<Object, NotAPattern> {
        if self.place.len() > DEPTH_MAX {
            return self.fault("it is nested too deeply");
        }
        if map.is_empty() {
            return self.fault("Empty objects are not allowed");
        }
        let mut object = Object::default();
        for (name, value) in map {
            self.place.push(name.clone());
            match value {
                Value::Array(patterns) if name == "$or" && patterns.len() > 1 => {
                    let patterns = patterns.iter().map(|pattern| match pattern {
                        Value::Object(map) => self.object(map),
                        _ => self.fault("$or holds objects"),
                    });
                    object.either.push(patterns.collect::<Result<_, _>>()?);
                }
                _ if name == "$or" => return self.fault("$or is a list of two objects or more"),
                Value::Object(map) => object.fields.push((name.clone(), Field::Object(self.object(map)?))),
                Value::Array(list) if list.is_empty() => return self.fault("Empty arrays are not allowed"),
                Value::Array(list) => {
                    let conditions = list.iter().map(|one| self.condition(one)).collect::<Result<_, _>>()?;
                    object.fields.push((name.clone(), Field::Conditions(conditions)));
                }
                _ => return self.fault(format!("\"{name}\" must be an object or an array")),
            }
            self.place.pop();
        }
        Ok(object)
    }

    fn condition(&self, value: &Value) -> Result<Condition, NotAPattern> {
        let map = match value {
            Value::Object(map) => map,
            Value::Array(_) => return self.fault("a list within a list is no condition"),
            value => return Ok(Condition::Is(value.clone())),
        };
        let mut entries = map.iter();
        let (Some((name, argument)), None) = (entries.next(), entries.next()) else {
            return self.fault("Only one key allowed in match expression");
        };
        Ok(match name.as_str() {
            "exists" => match argument {
                Value::Bool(wanted) => Condition::Exists(*wanted),
                _ => return self.fault("exists match pattern must be either true or false."),
            },
            "numeric" => Condition::Numeric(self.numeric(argument)?),
            "cidr" => self.cidr(argument)?,
            "anything-but" => self.anything_but(argument)?,
            _ => Condition::Text(self.text(name, argument)?),
        })
    }

    fn text(&self, name: &str, argument: &Value) -> Result<Text, NotAPattern> {
        // {"prefix": {"equals-ignore-case": "x"}}
        if let ("prefix" | "suffix", Value::Object(map)) = (name, argument) {
            return match (map.len(), map.get("equals-ignore-case").and_then(Value::as_str)) {
                (1, Some(text)) if name == "prefix" => Ok(Text::PrefixIgnoringCase(text.to_lowercase())),
                (1, Some(text)) => Ok(Text::SuffixIgnoringCase(text.to_lowercase())),
                _ => self.fault(format!("{name} takes a text or equals-ignore-case")),
            };
        }
        let make: fn(&str) -> Text = match name {
            "prefix" => |text| Text::Prefix(text.to_owned()),
            "suffix" => |text| Text::Suffix(text.to_owned()),
            "equals-ignore-case" => |text| Text::EqualsIgnoringCase(text.to_lowercase()),
            "wildcard" => |_| Text::Wildcard(Vec::new()),
            _ => return self.fault(format!("Unrecognized match type {name}")),
        };
        let Some(text) = argument.as_str() else { return self.fault(format!("{name} match pattern must be a string")) };
        if name == "wildcard" { self.wildcard(text) } else { Ok(make(text)) }
    }

    /// `*` stands for any text, `\*` and `\\` for themselves.
    fn wildcard(&self, text: &str) -> Result<Text, NotAPattern> {
        let mut parts = vec![String::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let literal = match c {
                '*' if parts.len() > 1 && parts.last().is_some_and(String::is_empty) => {
                    return self.fault("Consecutive wildcard characters");
                }
                '*' => {
                    parts.push(String::new());
                    continue;
                }
                '\\' => match chars.next() {
                    Some(c @ ('*' | '\\')) => c,
                    _ => return self.fault("Invalid escape character in a wildcard"),
                },
                c => c,
            };
            if let Some(part) = parts.last_mut() {
                part.push(literal);
            }
        }
        Ok(Text::Wildcard(parts))
    }

    fn numeric(&self, argument: &Value) -> Result<Vec<(Comparison, f64)>, NotAPattern> {
        let list = argument.as_array().filter(|list| matches!(list.len(), 2 | 4));
        let Some(list) = list else { return self.fault("numeric takes one or two comparisons, each with a number") };
        let mut bounds = Vec::new();
        for pair in list.chunks(2) {
            let comparison = match pair[0].as_str() {
                Some("<") => Comparison::Less,
                Some("<=") => Comparison::LessOrEqual,
                Some("=") => Comparison::Equal,
                Some(">=") => Comparison::GreaterOrEqual,
                Some(">") => Comparison::Greater,
                _ => return self.fault(format!("Unrecognized numeric range operator: {}", pair[0])),
            };
            let Some(bound) = pair[1].as_f64() else {
                return self.fault(format!("Value of {} must be numeric", pair[0]));
            };
            bounds.push((comparison, bound));
        }
        let range = |from: Comparison, to: Comparison| {
            matches!(from, Comparison::Greater | Comparison::GreaterOrEqual)
                && matches!(to, Comparison::Less | Comparison::LessOrEqual)
        };
        match bounds.as_slice() {
            [(from, low), (to, high)] if !range(*from, *to) || low >= high => {
                self.fault("Bottom must be less than top")
            }
            _ => Ok(bounds),
        }
    }

    fn cidr(&self, argument: &Value) -> Result<Condition, NotAPattern> {
        let parse = |text: &str| {
            let (network, bits) = text.split_once('/')?;
            let (network, bits): (IpAddr, u8) = (network.parse().ok()?, bits.parse().ok()?);
            (bits <= if network.is_ipv4() { 32 } else { 128 }).then_some(Condition::Cidr { network, bits })
        };
        match argument.as_str().and_then(parse) {
            Some(condition) => Ok(condition),
            None => self.fault("Malformed CIDR, one '/' required between an address and its bits"),
        }
    }

    fn anything_but(&self, argument: &Value) -> Result<Condition, NotAPattern> {
        let plain = |value: &Value| value.is_string() || value.is_number();
        match argument {
            value if plain(value) => Ok(Condition::NoValue(vec![value.clone()])),
            Value::Array(values) if !values.is_empty() && values.iter().all(plain) => {
                Ok(Condition::NoValue(values.clone()))
            }
            Value::Object(map) if map.len() == 1 => {
                let texts = map.iter().flat_map(|(name, argument)| match argument {
                    Value::Array(list) => list.iter().map(|one| self.text(name, one)).collect(),
                    one => vec![self.text(name, one)],
                });
                let texts = texts.collect::<Result<Vec<_>, _>>()?;
                if texts.is_empty() { self.fault("an empty anything-but") } else { Ok(Condition::NoText(texts)) }
            }
            _ => self.fault("Value of anything-but must be an array or single string/number value."),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn takes(pattern: Value, event: Value) -> bool {
        Pattern::read(&pattern).unwrap().matches(&event)
    }

    fn on(condition: Value, value: Value) -> bool {
        takes(json!({ "f": [condition] }), json!({ "f": value }))
    }

    /// The examples of EventBridge's user guide, "Comparison operators".
    #[test]
    fn each_operator_takes_what_the_guide_says() {
        for (condition, yes, no) in [
            (json!("NY"), json!("NY"), json!("ny")),
            (json!(""), json!(""), json!("x")),
            (json!(null), json!(null), json!("null")),
            (json!(300), json!(300.0), json!("300")),
            (json!({"prefix": "us-"}), json!("us-east-1"), json!("eu-us-")),
            (json!({"prefix": {"equals-ignore-case": "EventB"}}), json!("EVENTBridge"), json!("xeventb")),
            (json!({"suffix": ".png"}), json!("a.png"), json!("a.PNG")),
            (json!({"suffix": {"equals-ignore-case": ".png"}}), json!("a.PNG"), json!("png.")),
            (json!({"equals-ignore-case": "alice"}), json!("ALICE"), json!("alice ")),
            (json!({"wildcard": "dir/*.png"}), json!("dir/sub/a.png"), json!("dir/a.pngx")),
            (json!({"wildcard": "*a*b"}), json!("xxaxxab"), json!("b")),
            (json!({"wildcard": "a\\*"}), json!("a*"), json!("ab")),
            (json!({"anything-but": "x"}), json!("y"), json!("x")),
            (json!({"anything-but": [100, 200]}), json!(300), json!(200)),
            (json!({"anything-but": {"prefix": "init"}}), json!("done"), json!("initial")),
            (json!({"anything-but": {"suffix": [".txt", ".log"]}}), json!("a.mp4"), json!("a.log")),
            (json!({"anything-but": {"equals-ignore-case": ["a", "b"]}}), json!("c"), json!("B")),
            (json!({"anything-but": {"wildcard": "*/lib/*"}}), json!("a/bin/b"), json!("a/lib/b")),
            (json!({"numeric": ["=", 3.018e2]}), json!(301.8), json!(301)),
            (json!({"numeric": [">", 0, "<=", 5]}), json!(5), json!(0)),
            (json!({"cidr": "10.0.0.0/24"}), json!("10.0.0.255"), json!("10.0.1.0")),
            (json!({"cidr": "2001:db8::/32"}), json!("2001:db8::1"), json!("2001:db9::1")),
            (json!({"cidr": "0.0.0.0/0"}), json!("1.2.3.4"), json!("nonsense")),
        ] {
            assert!(on(condition.clone(), yes.clone()), "{condition} takes {yes}");
            assert!(!on(condition.clone(), no.clone()), "{condition} leaves {no}");
            assert!(on(condition.clone(), json!([no, yes])), "{condition} takes one of a list");
        }
    }

    #[test]
    fn fields_presence_alternatives_and_nesting() {
        let event = json!({"source": "aws.states", "tags": ["a", "b"],
            "detail": {"status": "FAILED", "code": 7, "rows": [{"k": "x", "v": 1}, {"k": "y", "v": 2}]}});
        for (pattern, expected) in [
            (json!({"source": ["aws.states"], "detail": {"status": ["FAILED", "ABORTED"]}}), true),
            (json!({"source": ["aws.states"], "detail": {"status": ["SUCCEEDED"]}}), false),
            (json!({"tags": ["b"]}), true),
            (json!({"detail": {"code": [{"exists": true}], "none": [{"exists": false}]}}), true),
            (json!({"none": {"inner": [{"exists": false}]}}), true),
            (json!({"none": {"inner": [{"anything-but": "x"}]}}), false),
            (json!({"detail": [{"exists": true}]}), false),
            (json!({"detail": {"rows": {"k": ["x"], "v": [1]}}}), true),
            (json!({"detail": {"rows": {"k": ["x"], "v": [2]}}}), false),
            (json!({"detail": {"$or": [{"status": ["OK"]}, {"code": [{"numeric": [">", 5]}]}]}}), true),
            (json!({"$or": [{"source": ["x"]}, {"tags": ["c"]}]}), false),
        ] {
            assert_eq!(takes(pattern.clone(), event.clone()), expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_place() {
        for (text, place) in [
            ("[]", "the top"),
            ("{}", "the top"),
            (r#"{"detail":{"status":"FAILED"}}"#, "detail.status"),
            (r#"{"detail":{}}"#, "detail"),
            (r#"{"a":[]}"#, "a"),
            (r#"{"a":[{"prefix":1}]}"#, "a"),
            (r#"{"a":[{"like":"x"}]}"#, "a"),
            (r#"{"a":[{"prefix":"x","suffix":"y"}]}"#, "a"),
            (r#"{"a":[{"numeric":["<",1,">",2]}]}"#, "a"),
            (r#"{"a":[{"cidr":"10.0.0.0/33"}]}"#, "a"),
            (r#"{"a":[{"wildcard":"a**b"}]}"#, "a"),
            (r#"{"$or":[{"a":["x"]}]}"#, "$or"),
        ] {
            let fault = Pattern::parse(text).unwrap_err();
            assert_eq!(fault.place, place, "{text}: {fault}");
        }
    }

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-20i64..20).prop_map(Value::from),
            "[ab*]{0,4}".prop_map(Value::from),
        ]
    }

    fn event() -> impl Strategy<Value = Value> {
        let node = leaf().prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map("[abc]", node, 1..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    fn condition() -> impl Strategy<Value = Value> {
        prop_oneof![
            leaf(),
            any::<bool>().prop_map(|wanted| json!({ "exists": wanted })),
            "[ab]{0,2}".prop_map(|text| json!({ "prefix": text })),
            "[ab]{1,2}".prop_map(|text| json!({ "anything-but": text })),
            (-20i64..20).prop_map(|number| json!({ "numeric": [">=", number] })),
        ]
    }

    /// By trying all ways, with nothing of the above: `*` takes nothing, or one character and then goes on.
    fn wild(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', rest @ ..], text) => wild(rest, text) || (!text.is_empty() && wild(pattern, &text[1..])),
            ([p, rest @ ..], [t, more @ ..]) => p == t && wild(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_list_of_conditions_is_their_or(event in event(), list in proptest::collection::vec(condition(), 1..4)) {
            let whole = takes(json!({ "a": list }), event.clone());
            let one = list.iter().any(|condition| takes(json!({ "a": [condition] }), event.clone()));
            prop_assert_eq!(whole, one);
        }

        #[test]
        fn fields_are_their_and_and_or_is_or(event in event(), x in condition(), y in condition()) {
            let (a, b) = (json!({ "a": [x] }), json!({ "b": [y] }));
            let (in_a, in_b) = (takes(a.clone(), event.clone()), takes(b.clone(), event.clone()));
            prop_assert_eq!(takes(json!({ "a": [x], "b": [y] }), event.clone()), in_a && in_b);
            prop_assert_eq!(takes(json!({ "$or": [a, b] }), event), in_a || in_b);
        }

        #[test]
        fn a_value_takes_itself_and_nothing_takes_all_but_it(value in leaf()) {
            prop_assert!(on(value.clone(), value.clone()));
            if value.is_string() || value.is_number() {
                let all_but_it = on(json!({ "anything-but": value }), value);
                prop_assert!(!all_but_it);
            }
        }

        #[test]
        fn wildcards_are_what_trying_all_ways_says(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            prop_assume!(!pattern.contains("**"));
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(on(json!({ "wildcard": pattern }), json!(text)), wild(&p, &t));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}") {
            let _ = Pattern::parse(&text);
        }
    }
}
