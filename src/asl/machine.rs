//! A checked definition: what [`super::parse`] returns and what the interpreter runs.
//!
//! Immutable once built. Every path, template, intrinsic and choice rule in it is compiled, so that a step
//! never parses. Terms and rules: Amazon States Language specification (states-language.net).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::{ContextUse, Template};

/// A state's name. Unique within its whole definition, nested processors included.
pub type Name = Arc<str>;

/// A whole definition.
#[derive(Debug)]
pub struct StateMachine {
    pub comment: Option<String>,
    pub query_language: QueryLanguage,
    /// `TimeoutSeconds` of the top level.
    pub timeout_seconds: Option<u64>,
    pub root: Processor,
    /// Every state, nested ones included.
    pub states: HashMap<Name, Box<State>>,
}

impl StateMachine {
    /// The state of that name. Absent only for rows that another definition wrote.
    #[inline]
    pub fn state(&self, name: &str) -> Option<&State> {
        self.states.get(name).map(|state| &**state)
    }
}

/// A list of states with an entry: the top level, a Parallel branch, a Map's processor.
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    pub start_at: Name,
    pub mode: ProcessorMode,
    /// `ExecutionType: EXPRESS` of a distributed Map's children.
    pub express: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ProcessorMode {
    #[default]
    Inline,
    Distributed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum QueryLanguage {
    #[default]
    JsonPath,
    Jsonata,
}

/// One state: what all kinds share, and its kind.
#[derive(Debug)]
pub struct State {
    pub name: Name,
    pub comment: Option<String>,
    pub query_language: QueryLanguage,
    pub flow: DataFlow,
    pub kind: Kind,
    /// Where it goes next; `None` for Choice, Succeed and Fail, which say so themselves.
    pub transition: Option<Transition>,
    /// Task, Parallel and Map.
    pub retry: Vec<Retrier>,
    /// Task, Parallel and Map.
    pub catch: Vec<Catcher>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    Next(Name),
    End,
}

/// The fields by which data goes through a state (specification, "Input and Output Processing").
/// Fields that a kind may not have are at their defaults there.
#[derive(Debug, Default)]
pub struct DataFlow {
    pub input_path: InputPath,
    /// `Parameters`; for Map, `ItemSelector` (or the older `Parameters`) stands in [`Map`] instead.
    pub parameters: Option<super::Template>,
    pub result_selector: Option<super::Template>,
    pub result_path: ResultPath,
    pub output_path: InputPath,
    /// `Assign`.
    pub assign: Option<super::Template>,
    /// JSONata's `Output`.
    pub output: Option<super::Template>,
}

/// `InputPath` and `OutputPath`.
#[derive(Debug, Default)]
pub enum InputPath {
    /// `$`, also when the field is absent.
    #[default]
    Whole,
    /// `null`: the state sees `{}`.
    Discard,
    Path(super::Path),
}

/// `ResultPath`.
#[derive(Debug, Default)]
pub enum ResultPath {
    /// `$`, also when the field is absent: the result replaces the input.
    #[default]
    Whole,
    /// `null`: the result is dropped and the input goes on.
    Discard,
    Into(super::ReferencePath),
}

#[derive(Debug)]
pub enum Kind {
    Task(Task),
    Choice(Choice),
    Wait(Wait),
    Parallel(Vec<Processor>),
    Map(Box<Map>),
    Pass { result: Option<Value> },
    Succeed,
    Fail { error: Text, cause: Text },
}

#[derive(Debug)]
pub struct Task {
    /// The ARN as written.
    pub resource: String,
    pub timeout: Seconds,
    pub heartbeat: Seconds,
    pub credentials: Option<super::Template>,
}

/// A number of seconds, written down or found by a path or expression.
#[derive(Debug, Default)]
pub enum Seconds {
    #[default]
    Absent,
    Literal(u64),
    Query(super::Query),
}

/// A text, written down or found by a path, intrinsic function or expression.
#[derive(Debug, Default)]
pub enum Text {
    #[default]
    Absent,
    Literal(String),
    Query(super::Query),
}

#[derive(Debug)]
pub struct Choice {
    pub rules: Vec<Rule>,
    pub default: Option<Name>,
}

#[derive(Debug)]
pub struct Rule {
    pub condition: super::Condition,
    pub next: Name,
    pub assign: Option<super::Template>,
    pub output: Option<super::Template>,
}

#[derive(Debug)]
pub enum Wait {
    Seconds(i64),
    SecondsQuery(super::Query),
    /// Milliseconds since the epoch.
    Timestamp(conveyor_base::Timestamp),
    TimestampQuery(super::Query),
}

impl Wait {
    /// Whether it ends at a moment of the wall clock, and not after so many seconds.
    pub fn is_by_wall(&self) -> bool {
        matches!(self, Wait::Timestamp(_) | Wait::TimestampQuery(_))
    }
}

#[derive(Debug)]
pub struct Map {
    pub processor: Processor,
    /// `ItemsPath`, or JSONata's `Items`.
    pub items: Items,
    /// `ItemSelector`, or the older `Parameters`.
    pub item_selector: Option<super::Template>,
    pub max_concurrency: Count,
    pub tolerated_failure_count: Count,
    pub tolerated_failure_percentage: Count,
    pub label: Option<String>,
    /// What a distributed Map has beside.
    pub distributed: super::Distributed,
}

#[derive(Debug, Default)]
pub enum Items {
    /// The state's effective input itself.
    #[default]
    Input,
    Query(super::Query),
    /// JSONata's `Items`: an expression, or an array that may hold some.
    Template(super::Template),
}

/// A number, written down or found by a path or expression. Percentages may have a fraction.
#[derive(Debug, Default)]
pub enum Count {
    #[default]
    Absent,
    Literal(f64),
    Query(super::Query),
}

/// One entry of `Retry`.
#[derive(Clone, Debug)]
pub struct Retrier {
    pub error_equals: Vec<String>,
    pub interval_seconds: u64,
    pub max_attempts: u32,
    pub backoff_rate: f64,
    pub max_delay_seconds: Option<u64>,
    /// `JitterStrategy: FULL`.
    pub full_jitter: bool,
}

/// One entry of `Catch`.
#[derive(Debug)]
pub struct Catcher {
    pub error_equals: Vec<String>,
    pub next: Name,
    pub result_path: ResultPath,
    pub assign: Option<super::Template>,
    pub output: Option<super::Template>,
}

impl State {
    /// What the state's own fields read of the context object (`$$`). Nobody need build more of it.
    pub fn context_use(&self) -> ContextUse {
        let flow = &self.flow;
        let paths = [&flow.input_path, &flow.output_path].into_iter().map(|path| match path {
            InputPath::Path(path) => path.context_use(),
            InputPath::Whole | InputPath::Discard => ContextUse::Nothing,
        });
        let templates = [&flow.parameters, &flow.result_selector, &flow.assign, &flow.output].into_iter();
        let catchers = self.catch.iter().flat_map(|catcher| [&catcher.assign, &catcher.output]);
        let templates = templates.chain(catchers).map(of_template);
        ContextUse::most(paths.chain(templates).chain([self.kind.context_use()]))
    }
}

impl Kind {
    fn context_use(&self) -> ContextUse {
        match self {
            Kind::Task(task) => ContextUse::most([
                task.timeout.context_use(),
                task.heartbeat.context_use(),
                of_template(&task.credentials),
            ]),
            Kind::Choice(choice) => {
                ContextUse::most(choice.rules.iter().flat_map(|rule| {
                    [rule.condition.context_use(), of_template(&rule.assign), of_template(&rule.output)]
                }))
            }
            Kind::Wait(Wait::SecondsQuery(query) | Wait::TimestampQuery(query)) => query.context_use(),
            Kind::Fail { error, cause } => error.context_use().max(cause.context_use()),
            Kind::Map(map) => ContextUse::most([
                match &map.items {
                    Items::Query(query) => query.context_use(),
                    Items::Template(items) => items.context_use(),
                    Items::Input => ContextUse::Nothing,
                },
                of_template(&map.item_selector),
                map.distributed.context_use(),
                map.max_concurrency.context_use(),
                map.tolerated_failure_count.context_use(),
                map.tolerated_failure_percentage.context_use(),
            ]),
            Kind::Wait(_) | Kind::Parallel(_) | Kind::Pass { .. } | Kind::Succeed => ContextUse::Nothing,
        }
    }
}

impl Seconds {
    fn context_use(&self) -> ContextUse {
        match self {
            Seconds::Query(query) => query.context_use(),
            Seconds::Absent | Seconds::Literal(_) => ContextUse::Nothing,
        }
    }
}

impl Text {
    pub(super) fn context_use(&self) -> ContextUse {
        match self {
            Text::Query(query) => query.context_use(),
            Text::Absent | Text::Literal(_) => ContextUse::Nothing,
        }
    }
}

impl Count {
    pub(super) fn context_use(&self) -> ContextUse {
        match self {
            Count::Query(query) => query.context_use(),
            Count::Absent | Count::Literal(_) => ContextUse::Nothing,
        }
    }
}

pub(super) fn of_template(template: &Option<Template>) -> ContextUse {
    template.as_ref().map_or(ContextUse::Nothing, Template::context_use)
}
