//! `[rules.NAME]`: which events go where, and in which form.

use std::collections::BTreeMap;

use conveyor_asl::{Path, Scope, Variables};
use conveyor_base::Span;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bus::DEFAULT_BUS;
use super::pattern::Pattern;

/// How long and how often a delivery is tried where the target does not say (EventBridge's own figures).
const AGE_MAX: Span = Span::days(1);
const RETRIES_MAX: u32 = 185;

/// `[rules.NAME]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSettings {
    #[serde(default = "default_bus")]
    pub bus: String,
    /// A table, or the pattern's JSON as text.
    pub pattern: toml::Value,
    /// How often an event may have come about through this very rule and still start it. 0: never.
    #[serde(default)]
    pub loops: u32,
    #[serde(default = "enabled")]
    pub enabled: bool,
    pub targets: Vec<TargetSettings>,
}

/// `[[rules.NAME.targets]]`: one of workflow, webhook, queue, function and topic.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    /// Tells the target from others of its rule; needed where two are of one kind and name.
    pub id: Option<String>,
    /// A state machine, with a version or an alias after a colon if wanted.
    pub workflow: Option<String>,
    /// Gets the event by HTTP POST.
    pub webhook: Option<String>,
    /// How the webhook is authorised: a name under `[connections]`.
    pub connection: Option<String>,
    pub queue: Option<String>,
    /// The group of the messages, for a FIFO queue.
    pub message_group: Option<String>,
    pub function: Option<String>,
    /// Becomes a notification, as with sns:publish.
    pub topic: Option<String>,
    /// What the target gets instead of the event.
    pub input: Option<toml::Value>,
    /// The part of the event that the target gets.
    pub input_path: Option<String>,
    pub input_transformer: Option<TransformerSettings>,
    pub max_age: Option<Span>,
    pub max_retries: Option<u32>,
    /// A queue that gets what could not be delivered.
    pub dead_letter: Option<String>,
}

impl std::fmt::Debug for TargetSettings {
    /// A webhook's address may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetSettings").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Values out of the event, and a template that they are put into.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerSettings {
    /// Name → path into the event.
    #[serde(default)]
    pub paths: BTreeMap<String, String>,
    /// Text with `<name>` where values go.
    pub template: String,
}

fn default_bus() -> String {
    DEFAULT_BUS.to_owned()
}

fn enabled() -> bool {
    true
}

/// A rule, ready to be asked.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: String,
    pub bus: String,
    pub pattern: Pattern,
    pub loops: u32,
    pub targets: Vec<Target>,
}

#[derive(Clone, Debug)]
pub struct Target {
    /// `RULE/ID`: what rows call it.
    pub key: String,
    pub kind: Kind,
    pub shape: Shape,
    pub age_ms_max: i64,
    pub retries_max: u32,
    pub dead_letter: Option<String>,
}

#[derive(Clone, PartialEq)]
pub enum Kind {
    Workflow {
        machine: String,
        qualifier: Option<String>,
    },
    Webhook {
        url: String,
        connection: Option<String>,
    },
    Queue {
        queue: String,
        group: Option<String>,
    },
    Function(String),
    /// The function that the event names: a call for whose end nobody waits.
    Unattended,
    Topic(String),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Workflow { .. } => "Workflow",
            Kind::Webhook { .. } => "Webhook",
            Kind::Queue { .. } => "Queue",
            Kind::Function(_) => "Function",
            Kind::Unattended => "Unattended",
            Kind::Topic(_) => "Topic",
        })
    }
}

/// What a target is given.
#[derive(Clone, Debug)]
pub enum Shape {
    Event,
    Constant(String),
    Part(Path),
    Template { paths: Vec<(String, Path)>, template: String },
}

impl Rule {
    /// What brings calls to functions for whose end nobody waits. Three tries within six hours, as Lambda's own.
    pub fn unattended(target: &str) -> Rule {
        let target = Target {
            key: target.to_owned(),
            kind: Kind::Unattended,
            shape: Shape::Event,
            age_ms_max: 6 * 3_600_000,
            retries_max: 2,
            dead_letter: None,
        };
        let (name, bus, pattern) = (target.key.clone(), String::new(), Pattern::nothing());
        Rule { name, bus, pattern, loops: 0, targets: vec![target] }
    }
}

impl RuleSettings {
    /// What is wrong with the table, for the configuration's check. `has_queue` and `has_connection` say what else is
    /// configured.
    pub fn faults(&self, has_queue: impl Fn(&str) -> bool, has_connection: impl Fn(&str) -> bool) -> Vec<String> {
        let mut faults = Vec::new();
        if let Err(what) = pattern(&self.pattern) {
            faults.push(format!("pattern: {what}"));
        }
        if self.targets.is_empty() {
            faults.push("targets: a rule without a target does nothing".to_owned());
        }
        let mut ids = std::collections::BTreeSet::new();
        for (n, target) in self.targets.iter().enumerate() {
            let mut fault = |what: String| faults.push(format!("targets[{n}]: {what}"));
            if let Err(what) = target.kind() {
                fault(what);
            }
            if let Err(what) = target.shape() {
                fault(what);
            }
            if !ids.insert(target.id()) {
                fault(format!("'{}' stands there twice; give each an id of its own", target.id()));
            }
            for queue in target.queue.iter().chain(&target.dead_letter).filter(|queue| !has_queue(queue)) {
                fault(format!("there is no queue '{queue}'; add [queues.{queue}]"));
            }
            if let Some(connection) = target.connection.as_ref().filter(|name| !has_connection(name)) {
                fault(format!("there is no connection '{connection}'; add [connections.{connection}]"));
            }
        }
        faults
    }

    /// The rule, where nothing is wrong with its table.
    pub fn rule(&self, name: &str) -> Result<Rule, String> {
        let target = |target: &TargetSettings| {
            Ok(Target {
                key: format!("{name}/{}", target.id()),
                kind: target.kind()?,
                shape: target.shape()?,
                age_ms_max: i64::try_from(target.max_age.unwrap_or(AGE_MAX).ms).unwrap_or(i64::MAX),
                retries_max: target.max_retries.unwrap_or(RETRIES_MAX),
                dead_letter: target.dead_letter.clone(),
            })
        };
        Ok(Rule {
            name: name.to_owned(),
            bus: self.bus.clone(),
            pattern: pattern(&self.pattern)?,
            loops: self.loops,
            targets: self.targets.iter().map(target).collect::<Result<_, String>>()?,
        })
    }
}

fn pattern(value: &toml::Value) -> Result<Pattern, String> {
    match value {
        toml::Value::String(text) => Pattern::parse(text).map_err(|e| e.to_string()),
        table => {
            let json = serde_json::to_value(table).map_err(|e| e.to_string())?;
            Pattern::read(&json).map_err(|e| e.to_string())
        }
    }
}

impl TargetSettings {
    fn id(&self) -> String {
        if let Some(id) = &self.id {
            return id.clone();
        }
        let named = |kind: &str, name: &Option<String>| name.as_ref().map(|name| format!("{kind}:{name}"));
        let webhook = || self.webhook.as_ref().map(|_| "webhook".to_owned());
        named("workflow", &self.workflow)
            .or_else(|| named("queue", &self.queue))
            .or_else(|| named("function", &self.function))
            .or_else(|| named("topic", &self.topic))
            .or_else(webhook)
            .unwrap_or_default()
    }

    fn kind(&self) -> Result<Kind, String> {
        let mut kinds = Vec::new();
        if let Some(workflow) = &self.workflow {
            let (machine, qualifier) = match workflow.split_once(':') {
                Some((machine, qualifier)) => (machine, Some(qualifier.to_owned())),
                None => (workflow.as_str(), None),
            };
            kinds.push(Kind::Workflow { machine: machine.to_owned(), qualifier });
        }
        if let Some(url) = &self.webhook {
            match reqwest::Url::parse(url) {
                Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {}
                _ => return Err("webhook is neither an http:// nor an https:// address".to_owned()),
            }
            kinds.push(Kind::Webhook { url: url.clone(), connection: self.connection.clone() });
        } else if self.connection.is_some() {
            return Err("connection authorises a webhook, and there is none".to_owned());
        }
        if let Some(queue) = &self.queue {
            if queue.ends_with(".fifo") != self.message_group.is_some() {
                return Err("message_group and a queue whose name ends in .fifo come together".to_owned());
            }
            kinds.push(Kind::Queue { queue: queue.clone(), group: self.message_group.clone() });
        }
        kinds.extend(self.function.clone().map(Kind::Function));
        kinds.extend(self.topic.clone().map(Kind::Topic));
        match (kinds.pop(), kinds.is_empty()) {
            (Some(kind), true) => Ok(kind),
            _ => Err("name one of workflow, webhook, queue, function and topic".to_owned()),
        }
    }

    fn shape(&self) -> Result<Shape, String> {
        let path = |text: &String| Path::parse(text).map_err(|e| format!("'{text}' is no path ({e})"));
        match (&self.input, &self.input_path, &self.input_transformer) {
            (None, None, None) => Ok(Shape::Event),
            (Some(input), None, None) => {
                Ok(Shape::Constant(serde_json::to_string(input).map_err(|e| format!("input is no JSON ({e})"))?))
            }
            (None, Some(text), None) => Ok(Shape::Part(path(text)?)),
            (None, None, Some(transformer)) => {
                let paths = transformer.paths.iter();
                let paths = paths.map(|(name, text)| Ok((name.clone(), path(text)?))).collect::<Result<_, String>>()?;
                Ok(Shape::Template { paths, template: transformer.template.clone() })
            }
            _ => Err("input, input_path and input_transformer exclude each other".to_owned()),
        }
    }
}

impl Shape {
    /// What the target is given, as JSON.
    pub fn apply(&self, event: &Value, rule: &str) -> Result<String, String> {
        match self {
            Shape::Event => Ok(event.to_string()),
            Shape::Constant(text) => Ok(text.clone()),
            Shape::Part(path) => look(path, event).map(|part| part.to_string()),
            Shape::Template { paths, template } => {
                let mut values: Map<String, Value> = Map::new();
                for (name, path) in paths {
                    values.insert(name.clone(), look(path, event).unwrap_or(Value::Null));
                }
                values.insert("aws.events.event".to_owned(), event.clone());
                values.insert("aws.events.event.json".to_owned(), event.clone());
                values.insert("aws.events.rule-name".to_owned(), json!(rule));
                values.insert("aws.events.event.ingestion-time".to_owned(), event["time"].clone());
                filled(template, &values)
            }
        }
    }
}

fn look(path: &Path, event: &Value) -> Result<Value, String> {
    let (nothing, none) = (Value::Null, Variables::new());
    path.find(&Scope::new(event, &nothing, &none, 0)).map(std::borrow::Cow::into_owned)
}

/// Puts values where `<name>` stands: within a text as text, elsewhere as JSON. A template that is no JSON then is a
/// text as a whole.
fn filled(template: &str, values: &Map<String, Value>) -> Result<String, String> {
    let mut out = String::with_capacity(template.len());
    let (mut quoted, mut escaped) = (false, false);
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let value = (c == '<').then(|| rest[1..].split_once('>')).flatten();
        if let Some((value, after)) = value.and_then(|(name, after)| Some((values.get(name)?, after))) {
            let text = match value {
                Value::String(text) if quoted => inside_quotes(text),
                Value::Null if quoted => String::new(),
                value if quoted => inside_quotes(&value.to_string()),
                value => value.to_string(),
            };
            out.push_str(&text);
            rest = after;
            continue;
        }
        match c {
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    match serde_json::from_str::<Value>(&out) {
        Ok(value) => Ok(value.to_string()),
        Err(_) if !template.trim_start().starts_with(['{', '[', '"']) => {
            filled(&format!("\"{}\"", inside_quotes(template)), values)
        }
        Err(e) => Err(format!("the input transformer's result is no JSON ({e})")),
    }
}

fn inside_quotes(text: &str) -> String {
    let quoted = json!(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_get_the_event_a_part_or_what_a_template_makes_of_it() {
        let rule: RuleSettings = toml::from_str(
            r#"
            pattern = { source = ["aws.states"] }
            [[targets]]
            workflow = "alert"
            [[targets]]
            workflow = "alert:live"
            input_path = "$.detail"
            [[targets]]
            function = "f"
            [targets.input_transformer]
            paths = { name = "$.detail.name", code = "$.detail.code", none = "$.none" }
            template = '{"what": "<name> ended: <code> <none>", "code": <code>, "name": <name>, "none": <none>, "all": <aws.events.event>}'
            "#,
        )
        .unwrap();
        assert_eq!(rule.faults(|_| true, |_| true), Vec::<String>::new());
        let rule = rule.rule("r").unwrap();
        let event = json!({"detail": {"name": "a \"b\"", "code": 7}});
        let given =
            |n: usize| -> Value { serde_json::from_str(&rule.targets[n].shape.apply(&event, "r").unwrap()).unwrap() };
        assert_eq!(given(0), event);
        assert_eq!(given(1), event["detail"]);
        let expected = json!({"what": "a \"b\" ended: 7 ", "code": 7, "name": "a \"b\"", "none": null, "all": event});
        assert_eq!(given(2), expected);
        assert_eq!(rule.targets[1].key, "r/workflow:alert:live");
        let text = filled("<name> is done", event["detail"].as_object().unwrap()).unwrap();
        assert_eq!(text, r#""a \"b\" is done""#);
    }

    #[test]
    fn faults_of_a_rule_are_named() {
        let rule: RuleSettings = toml::from_str(
            r#"
            pattern = '{"source": "aws.states"}'
            [[targets]]
            workflow = "a"
            queue = "b"
            [[targets]]
            queue = "none"
            dead_letter = "gone"
            input_path = "nonsense"
            [[targets]]
            queue = "none"
            "#,
        )
        .unwrap();
        let faults = rule.faults(|_| false, |_| false).join("\n");
        for word in ["pattern: Event pattern is not valid", "[0]: name one of", "'none'", "'gone'", "no path", "twice"]
        {
            assert!(faults.contains(word), "{word} in {faults}");
        }
    }
}
