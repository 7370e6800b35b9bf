//! One state: the fields that its type has, and what may stand in them.

use super::checker::{Checker, Fields};
use super::json::{Kind as Json, Node};
use super::processor::{Exits, Target};
use super::{Surroundings, jsonata, name_of};
use crate::machine::*;
use crate::template::Segment;
use crate::{Query, ReferencePath, Template, parse_timestamp, whole_seconds};

/// Largest number of seconds in a definition (AWS: 99999999).
pub(super) const SECONDS_MAX: u64 = 99_999_999;
pub(super) const NO_TIMESTAMP: &str = "String does not match RFC3339 timestamp";

#[derive(Clone, Copy, PartialEq)]
enum Type {
    Task,
    Wait,
    Pass,
    Succeed,
    Fail,
    Choice,
    Parallel,
    Map,
}

/// In the order in which AWS lists them.
const TYPES: [(&str, Type); 8] = [
    ("Task", Type::Task),
    ("Wait", Type::Wait),
    ("Pass", Type::Pass),
    ("Succeed", Type::Succeed),
    ("Fail", Type::Fail),
    ("Choice", Type::Choice),
    ("Parallel", Type::Parallel),
    ("Map", Type::Map),
];

impl Checker<'_> {
    /// The state, if it is whole, and where it may lead.
    pub(super) fn state(&mut self, name: Name, node: &Node, around: Surroundings) -> (Option<State>, Exits) {
        let mut exits = Exits::new();
        let Some(mut fields) = self.object(node) else {
            exits.known = false;
            return (None, exits);
        };
        let fields = &mut fields;
        self.require(fields, &["Type"]);
        let Some(type_) = self.field(fields, "Type", |c, node| c.word(node, "Type", &TYPES)) else {
            exits.known = false;
            return (None, exits);
        };
        let language = self.state_language(fields, around);
        let outer = (self.here, self.state_depth);
        (self.here, self.state_depth) = (language, self.place.len());
        let state = self.state_of(type_, name, language, fields, &mut exits, around);
        (self.here, self.state_depth) = outer;
        (state, exits)
    }

    fn state_of(
        &mut self,
        type_: Type,
        name: Name,
        language: QueryLanguage,
        fields: &mut Fields,
        exits: &mut Exits,
        around: Surroundings,
    ) -> Option<State> {
        let comment = self.field(fields, "Comment", |c, node| c.string(node));
        let transition = self.transition(type_, fields, exits);
        let jsonata = language == QueryLanguage::Jsonata;
        let flow = if jsonata { self.jsonata_flow(type_, fields) } else { self.flow(type_, fields) };
        let (mut retry, mut catch) = (None, None);
        if matches!(type_, Type::Task | Type::Parallel | Type::Map) {
            retry = self.field(fields, "Retry", |c, node| c.retriers(node));
            catch = self.field(fields, "Catch", |c, node| c.catchers(node, exits, jsonata));
        }
        let kind = self.kind(type_, fields, exits, around);
        self.refuse_rest(fields);
        kind.map(|kind| State {
            name,
            comment,
            query_language: language,
            flow,
            kind,
            transition,
            retry: retry.unwrap_or_default(),
            catch: catch.unwrap_or_default(),
        })
    }

    fn state_language(&mut self, fields: &mut Fields, around: Surroundings) -> QueryLanguage {
        let own = self.query_language(fields);
        if own == Some(QueryLanguage::JsonPath) && self.language == QueryLanguage::Jsonata {
            self.fault(
                fields.at(),
                "'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' for whole state machine",
            );
        }
        own.unwrap_or(around.language)
    }

    fn transition(&mut self, type_: Type, fields: &mut Fields, exits: &mut Exits) -> Option<Transition> {
        match type_ {
            Type::Choice => return None,
            Type::Succeed | Type::Fail => {
                exits.terminal = true;
                return None;
            }
            _ => {}
        }
        if !self.require_one(fields, &["Next", "End"], false) {
            exits.known = false;
            fields.take("Next");
            fields.take("End");
            return None;
        }
        if fields.has("Next") {
            return self.target(fields, "Next", exits).map(Transition::Next);
        }
        match self.field(fields, "End", |c, node| match c.boolean(node)? {
            true => Some(()),
            false => {
                c.fault(node.at, "The field 'End' should have one of these values: [true]");
                None
            }
        }) {
            Some(()) => exits.terminal = true,
            None => exits.known = false,
        }
        Some(Transition::End)
    }

    /// A field that names a state.
    pub(super) fn target(&mut self, fields: &mut Fields, field: &str, exits: &mut Exits) -> Option<Name> {
        let name = self.field(fields, field, |c, node| {
            let name = name_of(&c.string(node)?);
            exits.targets.push(Target { name: name.clone(), at: node.at });
            Some(name)
        });
        exits.known &= name.is_some();
        name
    }

    /// The fields by which data goes through, of those that the type has.
    fn flow(&mut self, type_: Type, fields: &mut Fields) -> DataFlow {
        let mut flow = DataFlow::default();
        let has_result = matches!(type_, Type::Pass | Type::Task | Type::Parallel | Type::Map);
        if type_ != Type::Fail {
            flow.input_path = self.field(fields, "InputPath", Checker::input_path).unwrap_or_default();
            flow.output_path = self.field(fields, "OutputPath", Checker::input_path).unwrap_or_default();
        }
        if has_result {
            flow.result_path = self.result_path(fields);
        }
        // A Map's Parameters are its ItemSelector.
        if has_result && type_ != Type::Map {
            flow.parameters = self.field(fields, "Parameters", |c, node| c.template(node));
        }
        if has_result && type_ != Type::Pass {
            flow.result_selector = self.field(fields, "ResultSelector", |c, node| c.template(node));
        }
        if !matches!(type_, Type::Succeed | Type::Fail) {
            flow.assign = self.field(fields, "Assign", |c, node| c.assign(node));
        }
        flow
    }

    fn input_path(&mut self, node: &Node) -> Option<InputPath> {
        if matches!(node.kind, Json::Null) {
            return Some(InputPath::Discard);
        }
        let path = self.path(node)?;
        Some(if path.text() == "$" { InputPath::Whole } else { InputPath::Path(path) })
    }

    pub(super) fn result_path(&mut self, fields: &mut Fields) -> ResultPath {
        let read = |c: &mut Self, node: &Node| {
            if matches!(node.kind, Json::Null) {
                return Some(ResultPath::Discard);
            }
            let text = c.string(node)?;
            match ReferencePath::parse(&text) {
                Ok(_) if text == "$" => Some(ResultPath::Whole),
                Ok(path) => Some(ResultPath::Into(path)),
                Err(_) => {
                    c.fault(node.at, "Value must be a valid Reference Path.");
                    None
                }
            }
        };
        self.field(fields, "ResultPath", read).unwrap_or_default()
    }

    /// Arguments, Assign and Output.
    fn jsonata_flow(&mut self, type_: Type, fields: &mut Fields) -> DataFlow {
        let mut flow = DataFlow::default();
        let reads = jsonata::EVERYWHERE;
        if matches!(type_, Type::Task | Type::Parallel) {
            flow.parameters = self.field(fields, "Arguments", |c, node| c.jsonata_template(node, jsonata::EVERYWHERE));
        }
        if !matches!(type_, Type::Succeed | Type::Fail) {
            flow.assign = self.field(fields, "Assign", |c, node| c.jsonata_assign(node, reads));
        }
        if type_ != Type::Fail {
            flow.output = self.field(fields, "Output", |c, node| c.jsonata_template(node, reads));
        }
        flow
    }

    pub(super) fn assign(&mut self, node: &Node) -> Option<Template> {
        let template = self.template(node)?;
        self.variable_names(node, &template).then_some(template)
    }

    pub(super) fn variable_names(&mut self, node: &Node, template: &Template) -> bool {
        let mut sound = true;
        for name in template.field_names() {
            if !is_variable_name(name) {
                sound = false;
                self.fault(node.at, format!("'{name}' is not a valid variable name"));
            }
            self.assigned(name, node.at);
        }
        sound
    }

    fn kind(&mut self, type_: Type, fields: &mut Fields, exits: &mut Exits, around: Surroundings) -> Option<Kind> {
        let jsonata = self.here == QueryLanguage::Jsonata;
        match type_ {
            Type::Task => self.task(fields).map(Kind::Task),
            Type::Wait if jsonata => self.jsonata_wait(fields).map(Kind::Wait),
            Type::Wait => self.wait(fields).map(Kind::Wait),
            Type::Pass if jsonata => Some(Kind::Pass { result: None }),
            Type::Pass => Some(Kind::Pass { result: self.pass_result(fields) }),
            Type::Succeed => Some(Kind::Succeed),
            Type::Fail if jsonata => {
                let error = self.jsonata_text(fields, "Error");
                let cause = self.jsonata_text(fields, "Cause");
                Some(Kind::Fail { error, cause })
            }
            Type::Fail => {
                let error = self.text(fields, "Error", "ErrorPath");
                let cause = self.text(fields, "Cause", "CausePath");
                Some(Kind::Fail { error, cause })
            }
            Type::Choice => self.choice(fields, exits, jsonata).map(Kind::Choice),
            Type::Parallel => self.branches(fields, around).map(Kind::Parallel),
            Type::Map => self.map(fields, around).map(|map| Kind::Map(Box::new(map))),
        }
    }

    fn task(&mut self, fields: &mut Fields) -> Option<Task> {
        self.require(fields, &["Resource"]);
        let resource = self.field(fields, "Resource", Checker::resource);
        let jsonata = self.here == QueryLanguage::Jsonata;
        let mut seconds = |name: &str| match jsonata {
            true => self.jsonata_seconds(fields, name),
            false => self.seconds(fields, name, &format!("{name}Path")),
        };
        let (timeout, heartbeat) = (seconds("TimeoutSeconds"), seconds("HeartbeatSeconds"));
        if let (Seconds::Literal(timeout), Seconds::Literal(heartbeat)) = (&timeout, &heartbeat)
            && heartbeat >= timeout
        {
            self.fault(fields.at(), "HeartbeatSeconds must be smaller than TimeoutSeconds");
        }
        let credentials = self.field(fields, "Credentials", |c, node| match jsonata {
            true => c.jsonata_template(node, jsonata::EVERYWHERE),
            false => c.template(node),
        });
        Some(Task { resource: resource?, timeout, heartbeat, credentials })
    }

    fn resource(&mut self, node: &Node) -> Option<String> {
        let resource = self.string(node)?;
        if resource.split_once(':').is_none_or(|(scheme, rest)| scheme.is_empty() || rest.is_empty()) {
            self.fault(node.at, "Value is not a URI");
            return None;
        }
        // AWS writes two spaces in the second of these.
        let waits = [
            (".sync", "'.sync' service integration"),
            (".waitForTaskToken", "'.waitForTaskToken' service integration "),
            (":activity:", "Activity tasks"),
        ];
        let waits = waits.iter().find(|(suffix, _)| resource.contains(suffix)).filter(|_| self.express);
        if let Some((_, pattern)) = waits {
            self.fault(node.at, format!("Express state machine does not support {pattern}"));
        }
        Some(resource)
    }

    fn wait(&mut self, fields: &mut Fields) -> Option<Wait> {
        const FORMS: [&str; 4] = ["Seconds", "SecondsPath", "Timestamp", "TimestampPath"];
        if !self.require_one(fields, &FORMS, false) {
            fields.take_rest();
            return None;
        }
        let path = |c: &mut Self, node: &Node| c.path(node).map(Query::Path);
        let seconds = self.field(fields, "Seconds", |c, node| c.integer(node, 0, SECONDS_MAX));
        let seconds_path = self.field(fields, "SecondsPath", path);
        let timestamp = self.field(fields, "Timestamp", |c, node| {
            let text = c.string(node)?;
            let moment = parse_timestamp(&text);
            if moment.is_none() {
                c.fault(node.at, NO_TIMESTAMP);
            }
            moment
        });
        let timestamp_path = self.field(fields, "TimestampPath", path);
        seconds
            .and_then(|seconds| i64::try_from(seconds).ok())
            .map(Wait::Seconds)
            .or(seconds_path.map(Wait::SecondsQuery))
            .or(timestamp.map(|moment| Wait::Timestamp(whole_seconds(moment))))
            .or(timestamp_path.map(Wait::TimestampQuery))
    }

    fn pass_result(&mut self, fields: &mut Fields) -> Option<serde_json::Value> {
        self.field(fields, "Result", |c, node| {
            if let Json::Object(members) = &node.kind {
                for member in members.iter().filter(|member| member.name.ends_with(".$")) {
                    c.warn("PASS_RESULT_IS_STATIC", member.at, "Attempt to use a path in the result of a pass state.");
                }
            }
            Some(node.to_value())
        })
    }

    fn branches(&mut self, fields: &mut Fields, around: Surroundings) -> Option<Vec<Processor>> {
        self.require(fields, &["Branches"]);
        self.field(fields, "Branches", |c, node| {
            let items = c.filled_array(node)?;
            let mut branches = Vec::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                branches.push(c.inside(Segment::Index(at), |c| c.nested_processor(item, c.below(around), false)));
            }
            branches.into_iter().collect()
        })
    }

    /// States in a nested processor have the whole machine's language, not that of the state around them.
    fn below(&self, around: Surroundings) -> Surroundings {
        Surroundings { language: self.language, ..around }
    }

    fn map_processor(&mut self, fields: &mut Fields, around: Surroundings) -> Option<Processor> {
        if !self.require_one(fields, &["ItemProcessor", "Iterator"], false) {
            fields.take("ItemProcessor");
            fields.take("Iterator");
            return None;
        }
        let around = self.below(around);
        let current = self.field(fields, "ItemProcessor", |c, node| c.nested_processor(node, around, true));
        let legacy = self.field(fields, "Iterator", |c, node| c.nested_processor(node, around, true));
        current.or(legacy)
    }

    fn map(&mut self, fields: &mut Fields, around: Surroundings) -> Option<Map> {
        let processor = self.map_processor(fields, around);
        if self.here == QueryLanguage::Jsonata {
            return self.jsonata_map(fields, processor);
        }
        let items_path = self.field(fields, "ItemsPath", |c, node| c.path(node));
        self.require_one(fields, &["ItemSelector", "Parameters"], true);
        let selector = self.field(fields, "ItemSelector", |c, node| c.template(node));
        let parameters = self.field(fields, "Parameters", |c, node| c.template(node));
        let whole = |c: &mut Self, node: &Node| c.integer(node, 0, SECONDS_MAX).map(|whole| whole as f64);
        let max_concurrency = self.count(fields, "MaxConcurrency", whole);
        let tolerated_failure_count = self.count(fields, "ToleratedFailureCount", whole);
        let tolerated_failure_percentage =
            self.count(fields, "ToleratedFailurePercentage", |c, node| c.number(node, 0.0, 100.0));
        let label = self.label(fields);
        let distributed = self.distributed(fields);
        Some(Map {
            processor: processor?,
            items: items_path.map_or(Items::Input, |path| match path.text() {
                "$" => Items::Input,
                _ => Items::Query(Query::Path(path)),
            }),
            item_selector: selector.or(parameters),
            max_concurrency,
            tolerated_failure_count,
            tolerated_failure_percentage,
            label,
            distributed,
        })
    }

    fn jsonata_map(&mut self, fields: &mut Fields, processor: Option<Processor>) -> Option<Map> {
        let items = self.jsonata_items(fields);
        let item_selector = self.field(fields, "ItemSelector", |c, node| c.jsonata_template(node, jsonata::EVERYWHERE));
        let whole = |c: &mut Self, node: &Node| c.integer(node, 0, SECONDS_MAX).map(|whole| whole as f64);
        let max_concurrency = self.jsonata_count(fields, "MaxConcurrency", whole);
        let tolerated_failure_count = self.jsonata_count(fields, "ToleratedFailureCount", whole);
        let tolerated_failure_percentage =
            self.jsonata_count(fields, "ToleratedFailurePercentage", |c, node| c.number(node, 0.0, 100.0));
        let label = self.label(fields);
        let distributed = self.distributed(fields);
        Some(Map {
            processor: processor?,
            items,
            item_selector,
            max_concurrency,
            tolerated_failure_count,
            tolerated_failure_percentage,
            label,
            distributed,
        })
    }

    /// What the Map's runs are called by: part of an ARN, so that not every character may stand in it.
    fn label(&mut self, fields: &mut Fields) -> Option<String> {
        self.field(fields, "Label", |c, node| {
            let label = c.string(node)?;
            if label.is_empty() || label.chars().count() > LABEL_CHARS_MAX || !label.chars().all(may_label) {
                c.fault(node.at, format!("Label has 1 to {LABEL_CHARS_MAX} characters, none of them white space, a wildcard, a bracket or a special character: '{label}'"));
                return None;
            }
            Some(label)
        })
    }

    fn seconds(&mut self, fields: &mut Fields, literal: &str, path: &str) -> Seconds {
        self.require_one(fields, &[literal, path], true);
        let number = self.field(fields, literal, |c, node| c.integer(node, 1, SECONDS_MAX));
        let query = self.field(fields, path, |c, node| c.path(node));
        match (number, query) {
            (Some(number), _) => Seconds::Literal(number),
            (None, Some(path)) => Seconds::Query(Query::Path(path)),
            (None, None) => Seconds::Absent,
        }
    }

    pub(super) fn count(
        &mut self,
        fields: &mut Fields,
        literal: &str,
        read: impl FnOnce(&mut Self, &Node) -> Option<f64>,
    ) -> Count {
        let path = format!("{literal}Path");
        self.require_one(fields, &[literal, &path], true);
        let number = self.field(fields, literal, read);
        let query = self.field(fields, &path, |c, node| c.path(node));
        match (number, query) {
            (Some(number), _) => Count::Literal(number),
            (None, Some(path)) => Count::Query(Query::Path(path)),
            (None, None) => Count::Absent,
        }
    }

    /// `Error` and `Cause`: a text, or a path or call that gives one.
    fn text(&mut self, fields: &mut Fields, literal: &str, path: &str) -> Text {
        self.require_one(fields, &[literal, path], true);
        let text = self.field(fields, literal, |c, node| {
            c.warn_of_path(node);
            c.string(node)
        });
        let query = self.field(fields, path, |c, node| {
            let text = c.string(node)?;
            match Query::parse(&text) {
                Ok(query) => Some(query),
                Err(reason) => {
                    let message = format!(
                        "The value for the field '{path}' must be a valid JSONPath or a valid intrinsic function call: \
                         {reason}"
                    );
                    c.fault(node.at, message);
                    None
                }
            }
        });
        match (text, query) {
            (Some(text), _) => Text::Literal(text),
            (None, Some(query)) => Text::Query(query),
            (None, None) => Text::Absent,
        }
    }
}

/// Longest label of a distributed Map (AWS developer guide, "Distributed mode").
const LABEL_CHARS_MAX: usize = 40;

/// Whether a label may hold the character: no white space, wildcards, brackets, special or control characters.
pub fn may_label(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !"?*<>{}[]:;,\\|^~$#%&`\"/".contains(c)
}

/// Letters, digits and underscores, no digit first, at most 80 (AWS developer guide, "Passing data with variables").
fn is_variable_name(name: &str) -> bool {
    name.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && name.chars().count() <= 80
        && name != "states"
}
