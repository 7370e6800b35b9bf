//! `GET /executions/{id}/states/{event}`: one visit to a state with everything about it.
//!
//! A history holds what went into a state and what came out. What its data was on the way (InputPath, Parameters,
//! ResultSelector, ResultPath ...) is found by putting the recorded input and result through the same interpreter once
//! more. Where that does not lead to the recorded output, because of a random number or the clock, it says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use conveyor_asl::Variables;
use conveyor_base::{EventId, Timestamp};
use conveyor_interpreter::{Ended, Header, Json, Mock, StateType, Trial, inspect};
use conveyor_store::{Direction, Scans};
use serde_json::{Map, Value, json};

use super::executions::{self, EVENTS_MAX, children_of};
use super::visits::{self, Visit};
use super::{JsonResult, NoStoreJson, Path};
use crate::{ApiError, AppState};

/// A variable or a point of the data flow that is larger is told by its size.
const SHOWN_BYTES_MAX: usize = 262_144;

pub async fn visit(State(app): State<AppState>, Path((id, event)): Path<(String, u64)>) -> JsonResult {
    app.reading(move |app, rows| one(app, rows, &id, event)).await
}

fn one(app: &AppState, rows: &Scans, id: &str, event: u64) -> JsonResult {
    let header = executions::found(rows, id)?;
    let events = rows.history(header.id, EventId(0), EVENTS_MAX, Direction::Forward)?;
    let read = visits::read(&events, header.stopped_at.map(|at| at.0));
    // Any event of the visit names it.
    let place = events.iter().position(|e| e.id.0 == event).and_then(|at| read.of_events[at]);
    let missing = || ApiError::new("ResourceNotFound", format!("Event {event} of this execution belongs to no state"));
    let at = place.ok_or_else(missing)?;
    let mut found = read.visits[at].clone();
    children_of(app, std::slice::from_mut(&mut found));
    let before = variables_before(&read.visits, at);
    let flow = flow(app, &header, &read.visits, at, &before);
    let mut shown = json!(found);
    shown["line"] = found.line.into();
    shown["parentEvent"] = found.parent.map(|p| read.visits[p].event).into();
    shown["variables"] = shown_variables(&before);
    shown["flow"] = flow.unwrap_or(Value::Null);
    let running = app.handle.running_attempts(header.id);
    let lane = running.iter().find(|w| *w.state == *found.name && found.exited_at.is_none());
    shown["lane"] = lane.map(|w| w.lane.as_str()).into();
    Ok(NoStoreJson(shown))
}

/// What the state could read: what the states before it on its own line assigned, and on the lines around.
fn variables_before(visits: &[Visit], at: usize) -> Variables {
    let mut scopes = Vec::new();
    let mut inner = Some(at);
    while let Some(visit) = inner {
        scopes.push((visits[visit].line, visits[visit].event));
        inner = visits[visit].parent;
    }
    let mut variables = BTreeMap::new();
    for visit in visits {
        let reached = scopes.iter().any(|(line, until)| visit.line == *line && visit.event < *until);
        if reached && visit.exited_at.is_some() {
            for (name, text) in &visit.assigned {
                variables.insert(name.clone(), Arc::new(serde_json::from_str(text).unwrap_or_default()));
            }
        }
    }
    variables
}

fn shown_variables(variables: &Variables) -> Value {
    let shown = |value: &Value| {
        let text = value.to_string();
        if text.len() > SHOWN_BYTES_MAX { format!("({} bytes)", text.len()).into() } else { value.clone() }
    };
    Value::Object(variables.iter().map(|(name, value)| (name.clone(), shown(value))).collect::<Map<_, _>>())
}

/// `None` where the definition is gone or no longer readable.
fn flow(app: &AppState, header: &Header, visits: &[Visit], at: usize, variables: &Variables) -> Option<Value> {
    let visit = &visits[at];
    let machine = app.handle.machine(&header.machine).ok()?;
    let state = machine.definition.state(&visit.name)?;
    let trial = Trial {
        machine: &machine.definition,
        state,
        input: visit.input.as_str().into(),
        context: context(app, header, visit, &machine.env.role_arn),
        variables: variables.clone(),
        retry_count: u32::try_from(visit.attempts.len().saturating_sub(1)).unwrap_or(0),
        failure_count: 0,
        items: None,
        at: Timestamp(visit.entered_at),
        seed: header.id.0,
        mock: mock(visits, at),
    };
    let found = inspect(&trial, &machine.env);
    let points: Map<String, Value> =
        found.inspection.iter().map(|(name, text)| ((*name).to_owned(), point(text))).collect();
    let same = match (&visit.output, &found.output) {
        (Some(recorded), Some(output)) => same_json(recorded, output),
        (None, None) => true,
        _ => matches!(found.ended, Ended::Unanswered(_)) || visit.exited_at.is_none(),
    };
    Some(json!({"points": points, "exact": same, "next": found.next,
        "retryIndex": found.retry_index, "catchIndex": found.catch_index}))
}

fn point(text: &Json) -> Value {
    if text.len() > SHOWN_BYTES_MAX {
        return format!("({} bytes)", text.len()).into();
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(&**text))
}

fn same_json(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || read(one) == read(other)
}

/// What the state's work gave: its last attempt's result, or what the lines inside it ended with.
fn mock(visits: &[Visit], at: usize) -> Option<Mock> {
    let visit = &visits[at];
    if let Some(attempt) = visit.attempts.last() {
        return match (&attempt.result, attempt.status) {
            (Some(result), _) => Some(Mock::Result(result.as_str().into())),
            (None, "FAILED" | "TIMED_OUT") => {
                Some(Mock::Error { error: attempt.error.clone(), cause: attempt.cause.clone() })
            }
            _ => None,
        };
    }
    if !matches!(visit.state_type, StateType::Map | StateType::Parallel) {
        return None;
    }
    if visit.error.is_some() {
        return Some(Mock::Error { error: visit.error.clone(), cause: visit.cause.clone() });
    }
    // The last visit of each line, in the order of the items or the branches.
    let mut ends: BTreeMap<(Option<u32>, u64), &Visit> = BTreeMap::new();
    for inner in visits.iter().filter(|inner| inner.parent == Some(at)) {
        ends.insert((inner.iteration, inner.line), inner);
    }
    let outputs: Option<Vec<&str>> = ends.values().map(|end| end.output.as_deref()).collect();
    visit.output.as_ref()?;
    Some(Mock::Result(format!("[{}]", outputs?.join(",")).into()))
}

fn context(app: &AppState, header: &Header, visit: &Visit, role_arn: &str) -> Value {
    let mut context = json!({
        "Execution": {
            "Id": app.arns.execution(&header.machine.name, &header.name),
            "Input": serde_json::from_str::<Value>(&header.input).unwrap_or_default(),
            "Name": header.name,
            "RoleArn": role_arn,
            "StartTime": header.started_at.to_string(),
            "RedriveCount": header.redrive_count,
        },
        "StateMachine": {"Id": app.arns.machine(&header.machine.name), "Name": header.machine.name},
        "State": {"Name": visit.name, "EnteredTime": Timestamp(visit.entered_at).to_string(),
            "RetryCount": visit.attempts.len().saturating_sub(1)},
    });
    if let Some(index) = visit.iteration {
        context["Map"] = json!({"Item": {"Index": index, "Value": null}});
    }
    if visit.attempts.last().is_some_and(|attempt| attempt.resource.ends_with(".waitForTaskToken")) {
        context["Task"] = json!({"Token": "(not shown)"});
    }
    context
}
