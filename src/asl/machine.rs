//! A checked definition: what [`super::parse`] returns and what the interpreter runs.
//!
//! Immutable once built. Every path, template, intrinsic and choice rule in it is compiled, so that a step
//! never parses. Terms and rules: Amazon States Language specification (states-language.net).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

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
    pub states: HashMap<Name, State>,
}

impl StateMachine {
    /// The state of that name. Absent only for rows that another definition wrote.
    pub fn state(&self, name: &str) -> Option<&State> {
        self.states.get(name)
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
    Timestamp(crate::base::Timestamp),
    TimestampQuery(super::Query),
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
    /// Whether anything in the state's own fields looks at the context object (`$$`). Where nothing does,
    /// nobody need build one.
    pub fn reads_context(&self) -> bool {
        fn path(path: &InputPath) -> bool {
            matches!(path, InputPath::Path(path) if path.reads_context())
        }
        fn template(template: &Option<super::Template>) -> bool {
            template.as_ref().is_some_and(super::Template::reads_context)
        }
        let flow = &self.flow;
        path(&flow.input_path)
            || path(&flow.output_path)
            || [&flow.parameters, &flow.result_selector, &flow.assign, &flow.output].into_iter().any(template)
            || self.catch.iter().any(|catcher| template(&catcher.assign) || template(&catcher.output))
            || self.kind.reads_context()
    }
}

impl Kind {
    fn reads_context(&self) -> bool {
        let template = |template: &Option<super::Template>| template.as_ref().is_some_and(|t| t.reads_context());
        let seconds = |seconds: &Seconds| matches!(seconds, Seconds::Query(query) if query.reads_context());
        let text = |text: &Text| matches!(text, Text::Query(query) if query.reads_context());
        let count = |count: &Count| matches!(count, Count::Query(query) if query.reads_context());
        match self {
            Kind::Task(task) => seconds(&task.timeout) || seconds(&task.heartbeat) || template(&task.credentials),
            Kind::Choice(choice) => choice
                .rules
                .iter()
                .any(|rule| rule.condition.reads_context() || template(&rule.assign) || template(&rule.output)),
            Kind::Wait(Wait::SecondsQuery(query) | Wait::TimestampQuery(query)) => query.reads_context(),
            Kind::Fail { error, cause } => text(error) || text(cause),
            Kind::Map(map) => {
                matches!(&map.items, Items::Query(query) if query.reads_context())
                    || matches!(&map.items, Items::Template(items) if items.reads_context())
                    || template(&map.item_selector)
                    || map.distributed.reads_context()
                    || [&map.max_concurrency, &map.tolerated_failure_count, &map.tolerated_failure_percentage]
                        .into_iter()
                        .any(count)
            }
            Kind::Wait(_) | Kind::Parallel(_) | Kind::Pass { .. } | Kind::Succeed => false,
        }
    }
}
