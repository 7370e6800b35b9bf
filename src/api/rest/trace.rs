//! `GET /executions/{id}/trace`: a whole execution without its data, in columns: every event, every visit to a state.
//!
//! Graphs, timelines and event tables are drawn from it at once, for 25,000 events as for ten; what an event carries is
//! read when somebody opens it. Names stand once and are numbers elsewhere.

use std::collections::HashMap;

use axum::extract::State;
use conveyor_base::EventId;
use conveyor_interpreter::HistoryEvent;
use conveyor_store::{Direction, Scans};
use serde::Serialize;
use serde_json::{Value, json};

use super::executions::{EVENTS_MAX, children_of, found};
use super::visits::{self, Visit};
use super::{JsonResult, NoStoreJson, Path};
use crate::{AppState, history};

/// Texts, each kept once.
#[derive(Default, Serialize)]
#[serde(transparent)]
struct Names {
    texts: Vec<String>,
    #[serde(skip)]
    numbers: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), self.texts.len() - 1);
        self.texts.len() - 1
    }
}

pub async fn trace(State(app): State<AppState>, Path(id): Path<String>) -> JsonResult {
    app.reading(move |app, rows| whole(app, rows, &id)).await
}

fn whole(app: &AppState, rows: &Scans, id: &str) -> JsonResult {
    let header = found(rows, id)?;
    let events = rows.history(header.id, EventId(0), EVENTS_MAX, Direction::Forward)?;
    let mut read = visits::read(&events, header.stopped_at.map(|at| at.0));
    children_of(app, &mut read.visits);
    let mut names = Names::default();
    let running: Vec<Value> = app
        .handle
        .running_attempts(header.id)
        .iter()
        .map(|w| json!({"state": &*w.state, "lane": w.lane, "startedAt": app.handle.clock().shown(w.started_at).0}))
        .collect();
    Ok(NoStoreJson(json!({
        "id": header.id.to_string(),
        "status": header.status.name(),
        "startedAt": header.started_at.0,
        "stoppedAt": header.stopped_at.map(|at| at.0),
        "events": of_events(&events, &read.of_events, &mut names),
        "visits": of_visits(&read.visits, &mut names),
        "working": running,
        "names": names,
    })))
}

fn of_events(events: &[HistoryEvent], visits: &[Option<usize>], names: &mut Names) -> Value {
    json!({
        "id": events.iter().map(|e| e.id.0).collect::<Vec<_>>(),
        "previous": events.iter().map(|e| e.previous.0).collect::<Vec<_>>(),
        "at": events.iter().map(|e| e.at.0).collect::<Vec<_>>(),
        "type": events.iter().map(|e| names.number(&history::type_name(&e.kind))).collect::<Vec<_>>(),
        // -1: of the execution itself.
        "visit": visits.iter().map(|v| v.map_or(-1, |v| v as i64)).collect::<Vec<_>>(),
    })
}

fn of_visits(visits: &[Visit], names: &mut Names) -> Value {
    let numbers = |number: fn(&Visit) -> i64| visits.iter().map(number).collect::<Vec<_>>();
    let mut named = |text: fn(&Visit) -> &str| visits.iter().map(|v| names.number(text(v))).collect::<Vec<_>>();
    let (name, kind, status) = (named(|v| &v.name), named(|v| v.state_type.name()), named(|v| v.status));
    let error = visits.iter().map(|v| v.error.as_deref().map_or(-1, |e| names.number(e) as i64)).collect::<Vec<_>>();
    let tries = visits.iter().enumerate().filter(|(_, v)| !v.attempts.is_empty()).map(|(at, v)| {
        let tries = v.attempts.iter().map(|t| json!([t.started_at, t.ended_at, names.number(t.status)]));
        (at.to_string(), Value::from(tries.collect::<Vec<_>>()))
    });
    let tries: serde_json::Map<String, Value> = tries.collect();
    let children = visits.iter().enumerate().filter(|(_, v)| !v.children.is_empty());
    let children: serde_json::Map<String, Value> =
        children.map(|(at, v)| (at.to_string(), json!(v.children))).collect();
    json!({
        "event": numbers(|v| v.event as i64),
        "name": name,
        "type": kind,
        "status": status,
        "error": error,
        "parent": numbers(|v| v.parent.map_or(-1, |p| p as i64)),
        "line": numbers(|v| v.line as i64),
        "iteration": numbers(|v| v.iteration.map_or(-1, i64::from)),
        "enteredAt": numbers(|v| v.entered_at),
        "exitedAt": numbers(|v| v.exited_at.unwrap_or(-1)),
        "tries": tries,
        "children": children,
    })
}
