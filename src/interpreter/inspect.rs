//! One state tried out by itself, with what its data is at each point on the way (AWS: TestState).
//!
//! Owns what is noted and when; what the state does is decided by the same code as in an execution. A Task, Parallel or
//! Map gets the outcome that it is handed, in place of what it would have run. Nothing is stored and nothing is wanted:
//! the step that comes out of it is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_asl::{Effort, Items, Kind, QueryLanguage, State, StateMachine, Variables};
use conveyor_base::{BranchId, EventId, ExecutionId, Timestamp, limits};
use serde_json::Value;

use super::context::Context;
use super::dataflow::Surroundings;
use super::draft::{Draft, Payload, Work};
use super::env::Env;
use super::event::{Command, Entry, Event, Json, Outcome, RunTask};
use super::execution::{Branch, Doing, Execution, Item, MachineRef};
use super::history::HistoryKind;
use super::map::Tolerated;
use super::observer::Observer;
use super::partial::Base;
use super::raise::{Raised, raise, restart_later};
use super::step::{self, leave, transition};
use super::{map, task, wait};

/// What a state is tried out with.
pub struct Trial<'t> {
    pub machine: &'t StateMachine,
    pub state: &'t State,
    pub input: Json,
    /// The context object, whole.
    pub context: Value,
    pub variables: Variables,
    /// How often the retrier that applies has retried before.
    pub retry_count: u32,
    /// How many iterations of a Map failed.
    pub failure_count: u32,
    /// What an ItemReader would have read.
    pub items: Option<Vec<Value>>,
    pub at: Timestamp,
    pub seed: u128,
    pub mock: Option<Mock>,
}

/// What comes of the work of a Task, Parallel or Map.
#[derive(Clone, Debug)]
pub enum Mock {
    Result(Json),
    Error { error: Option<String>, cause: Option<String> },
}

/// How a state that was tried out ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    Succeeded,
    /// Its Catch took the error.
    Caught,
    /// Its Retry takes the error, after that many seconds.
    Retriable {
        backoff_seconds: f64,
    },
    Failed,
    /// It is a Task, and nobody said what would come of it.
    Unanswered(Box<RunTask>),
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Finding {
    pub ended: Ended,
    pub output: Option<Json>,
    pub next: Option<String>,
    pub error: Option<String>,
    pub cause: Option<String>,
    /// The entries of Retry and Catch that name the error.
    pub retry_index: Option<usize>,
    pub catch_index: Option<usize>,
    /// What the data was on the way, by AWS's name of the point.
    pub inspection: BTreeMap<&'static str, Json>,
    /// The variables after the state; empty where none were given and none assigned.
    pub variables: Variables,
}

/// What is noted while a state is tried out.
#[derive(Default)]
struct Notes {
    seen: BTreeMap<&'static str, Arc<Value>>,
    raised: Option<Raised>,
}

impl Observer for Notes {
    fn observe(&mut self, point: &'static str, value: impl FnOnce() -> Arc<Value>) {
        self.seen.insert(point, value());
    }

    /// The first error counts: what others make of it comes later.
    fn failed(&mut self, raised: &Raised) {
        self.raised.get_or_insert_with(|| raised.clone());
    }
}

const ROOT: BranchId = BranchId::ROOT;

/// Tries a state out.
pub fn inspect(trial: &Trial, env: &Env) -> Finding {
    let reference = MachineRef { name: String::new(), revision: 0, qualifier: None };
    let id = ExecutionId::generate(trial.at);
    let execution = Execution::start(id, String::new(), reference, trial.input.clone(), trial.at);
    let entry = Entry { at: trial.at, box_at: trial.at, seed: trial.seed, event: Event::Started };
    let effort = Effort::of(limits::STATE_WORK_MAX);
    let mut draft = Draft::observed(trial.machine, Base::Whole(&execution), &entry, env, &effort, Notes::default());
    draft.context = Context::Given(trial.context.clone().into());
    let payload = match serde_json::from_str::<Value>(&trial.input) {
        Ok(value) => Payload { value: value.into(), text: trial.input.clone() },
        Err(_) => Payload::of(Value::Null),
    };
    let mut branch = Branch::new(None, &trial.state.name, trial.at);
    branch.input = payload.value.clone();
    branch.variables = trial.variables.clone();
    // In an execution of its own it would be entered by the second event.
    branch.state_entered_event = EventId(2);
    draft.insert(ROOT, branch);
    let mut known = vec![payload.clone()];
    let tolerated = run(&mut draft, trial, payload);
    answer(&mut draft, trial, tolerated, &mut known);
    finding(draft, trial, &known)
}

/// Runs the state up to where it waits. A Map goes over its items here, whatever its mode is; of one, how many of them
/// may fail.
fn run(draft: &mut Draft<Notes>, trial: &Trial, payload: Payload) -> Option<Tolerated> {
    let Kind::Map(map) = &trial.state.kind else {
        step::run(draft, ROOT, trial.state, payload);
        return None;
    };
    let read = trial.items.as_ref().map(|items| items.iter().cloned().map(Item::of).collect());
    map::begin(draft, ROOT, trial.state, map, payload, read).map_err(|raised| raise(draft, ROOT, raised)).ok()
}

/// Gives a state that waits for something what it waits for. `known` are the texts that came from outside.
fn answer(draft: &mut Draft<Notes>, trial: &Trial, tolerated: Option<Tolerated>, known: &mut Vec<Payload>) {
    let Some(doing) = draft.branch(ROOT).map(|branch| branch.doing.clone()) else { return };
    let mocked = matches!(doing, Doing::Task { .. } | Doing::Parallel { .. } | Doing::Map { .. });
    if let (true, Some(Mock::Error { error, .. })) = (mocked, &trial.mock) {
        set_retries(draft, trial, error.clone());
    }
    match (doing, &trial.mock) {
        (Doing::Wait { .. }, _) => wait::over(draft, ROOT),
        (Doing::Task { attempt, .. }, Some(Mock::Result(output))) => {
            note_result(draft, output);
            let output = output.clone();
            task::report(draft, ROOT, &Event::TaskSucceeded { attempt, output });
        }
        (Doing::Task { attempt, .. }, Some(Mock::Error { error, cause })) => {
            let (error, cause) = (error.clone(), cause.clone());
            task::report(draft, ROOT, &Event::TaskFailed { attempt, error, cause });
        }
        (Doing::Parallel { .. }, Some(mock)) => gathered(draft, trial, mock, 0, known),
        (Doing::Map { length, .. }, Some(mock)) => {
            note_selected(draft, trial);
            let tolerated = tolerated.map_or(0, |tolerated| tolerated.items(length));
            gathered(draft, trial, mock, tolerated, known);
        }
        _ => {}
    }
}

/// What a Parallel or Map would have gathered.
fn gathered(draft: &mut Draft<Notes>, trial: &Trial, mock: &Mock, tolerated: u32, known: &mut Vec<Payload>) {
    // Gives a Map its raw input back, and drops the branches.
    restart_later(draft, ROOT);
    let Some(raw) = draft.branch(ROOT).map(|branch| branch.input.clone()) else { return };
    match mock {
        Mock::Error { .. } if tolerated > 0 && trial.failure_count > tolerated => {
            raise(draft, ROOT, Raised::threshold_exceeded());
        }
        Mock::Error { error, cause } => raise(draft, ROOT, Raised::new(error.clone(), cause.clone())),
        Mock::Result(text) => {
            let value = Arc::new(serde_json::from_str(text).unwrap_or_default());
            known.push(Payload { value: Arc::clone(&value), text: text.clone() });
            let around = Surroundings::of(draft, ROOT, None);
            match around.result(&mut draft.observer, trial.state, &raw, value) {
                Ok(output) => leave(draft, ROOT, trial.state, output, transition(trial.state)),
                Err(raised) => raise(draft, ROOT, raised),
            }
        }
    }
}

/// The retrier that will take the error has been at work before.
fn set_retries(draft: &mut Draft<Notes>, trial: &Trial, error: Option<String>) {
    let raised = Raised::new(error, None);
    let at = trial.state.retry.iter().position(|retrier| raised.is_named_in(&retrier.error_equals));
    if let (Some(at), Some(branch), true) = (at, draft.edit(ROOT), trial.retry_count > 0) {
        branch.retries = vec![0; trial.state.retry.len()];
        branch.retries[at] = trial.retry_count;
    }
}

fn note_result(draft: &mut Draft<Notes>, text: &Json) {
    if let Ok(value) = serde_json::from_str(text) {
        draft.observer.observe("result", || Arc::new(value));
    }
}

/// The items of a Map, and what its ItemSelector makes of them.
fn note_selected(draft: &mut Draft<Notes>, trial: &Trial) {
    let state = trial.state;
    let (Kind::Map(map), Some(held)) = (&state.kind, draft.begun_map(ROOT).cloned()) else { return };
    let list = |items: &[Arc<Value>]| Arc::new(Value::Array(items.iter().map(|item| (**item).clone()).collect()));
    let inputs: Vec<Arc<Value>> = held.items.iter().map(Item::input).collect();
    let mut selected = Vec::new();
    for (index, item) in (0..).zip(&held.items) {
        let mut around = Surroundings::of(draft, ROOT, None);
        around.set_item(index, item);
        let Some(selector) = &map.item_selector else { break };
        let Ok(input) = around.input(&mut draft.observer, state, &held.input) else { break };
        let Ok(value) = around.template(state, selector, &input) else { break };
        selected.push(value);
    }
    if matches!(map.items, Items::Query(_)) && trial.items.is_none() {
        draft.observer.observe("afterItemsPath", || list(&inputs));
    }
    if map.item_selector.is_some() {
        draft.observer.observe("afterItemSelector", || list(&selected));
    }
}

fn finding(mut draft: Draft<Notes>, trial: &Trial, known: &[Payload]) -> Finding {
    let Notes { seen, raised } = std::mem::take(&mut draft.observer);
    let branch = draft.branch(ROOT).cloned();
    let next = draft.work.iter().find_map(|work| match work {
        Work::Enter(ROOT, name, _) => Some(name.to_string()),
        _ => None,
    });
    let retrying = branch.as_ref().and_then(|branch| match branch.doing {
        Doing::Retry { due, .. } => Some(due.since_ms(trial.at) as f64 / 1000.0),
        _ => None,
    });
    let failed = matches!(draft.header.outcome, Some(Outcome::Failed { .. }));
    let step = draft.into_step().unwrap_or_default();
    let exit = step.history.iter().find_map(|event| match &event.kind {
        HistoryKind::StateExited { output, assigned, .. } => Some((output.clone(), assigned)),
        _ => None,
    });
    let waits = branch.is_some_and(|branch| matches!(branch.doing, Doing::Task { .. }));
    let task = step.commands.iter().find_map(|command| match command {
        Command::RunTask(task) if waits => Some(task.clone()),
        _ => None,
    });
    let ended = match (retrying, task) {
        (Some(backoff_seconds), _) => Ended::Retriable { backoff_seconds },
        (None, _) if failed => Ended::Failed,
        (None, Some(task)) => Ended::Unanswered(task),
        (None, None) if raised.is_some() => Ended::Caught,
        (None, None) => Ended::Succeeded,
    };
    let named = |names: &[String]| raised.as_ref().is_some_and(|raised| raised.is_named_in(names));
    let mut variables = trial.variables.clone();
    for (name, text) in exit.iter().flat_map(|(_, assigned)| assigned.iter()) {
        variables.insert(name.clone(), Arc::new(serde_json::from_str(text).unwrap_or_default()));
    }
    Finding {
        inspection: shown(trial, seen, known),
        output: exit.map(|(output, _)| text_of(&output, known)),
        next: next.filter(|_| matches!(ended, Ended::Succeeded | Ended::Caught)),
        retry_index: trial.state.retry.iter().position(|retrier| named(&retrier.error_equals)),
        catch_index: match ended {
            Ended::Caught => trial.state.catch.iter().position(|catcher| named(&catcher.error_equals)),
            _ => None,
        },
        error: raised.as_ref().and_then(|raised| raised.error.clone()),
        cause: raised.and_then(|raised| raised.cause),
        ended,
        variables,
    }
}

/// What AWS shows of each kind of state.
fn shown(
    trial: &Trial,
    mut seen: BTreeMap<&'static str, Arc<Value>>,
    known: &[Payload],
) -> BTreeMap<&'static str, Json> {
    let jsonata = trial.state.query_language == QueryLanguage::Jsonata;
    let mut hide = |names: &[&str]| seen.retain(|name, _| !names.contains(name));
    match &trial.state.kind {
        _ if jsonata => {
            hide(&["afterInputPath", "afterParameters", "afterResultSelector", "afterResultPath", "afterItemsPath"]);
        }
        // What a fixed Result takes the place of is not shown.
        Kind::Pass { result: Some(_) } | Kind::Parallel(_) => hide(&["afterInputPath", "afterParameters"]),
        _ => {}
    }
    match &trial.state.kind {
        Kind::Pass { result: Some(result) } if !jsonata => {
            seen.insert("result", Arc::new(result.clone()));
        }
        Kind::Fail { .. } if !jsonata => {
            seen.insert("afterInputPath", known.first().map(|input| input.value.clone()).unwrap_or_default());
        }
        _ => {}
    }
    let text = |value: Arc<Value>| match known.iter().find(|payload| Arc::ptr_eq(&payload.value, &value)) {
        Some(payload) => payload.text.clone(),
        None => value.to_string().into(),
    };
    let mut shown: BTreeMap<_, Json> = seen.into_iter().map(|(name, value)| (name, text(value))).collect();
    shown.insert("input", trial.input.clone());
    shown
}

/// A text that came from outside and goes on unchanged stays as it was written.
fn text_of(output: &Json, known: &[Payload]) -> Json {
    let same = |payload: &&Payload| payload.value.to_string() == **output;
    known.iter().rev().find(same).map_or_else(|| output.clone(), |payload| payload.text.clone())
}
