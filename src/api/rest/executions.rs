//! Executions over REST: the list with progress and thumbnails, one execution with its states, start, stop, redrive.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::outputs::{self, outputs};
use super::visits::{self, Visit};
use super::{Answer, Fresh, source};
use crate::api::live::Shown;
use crate::api::{Doors, Refused, apart, aws, names};
use crate::base::limits::PAYLOAD_BYTES_MAX;
use crate::base::{EventId, ExecutionId, JOB_MACHINE};
use crate::interpreter::{Header, HistoryEvent, Outcome, StateType};
use crate::run::{self, Start};
use crate::store::{Direction, ExecutionFilter};

/// Rows of a page, and the most that one may ask for.
const PAGE_ROWS: usize = 50;
const PAGE_ROWS_MAX: usize = 500;
/// Rows that one request looks at while it searches, so that a rare name does not hold the store.
const SEARCH_ROWS_MAX: usize = 5_000;
/// Events that one page of an execution is made of, and the states it shows.
const EVENTS_MAX: usize = 25_000;
const VISITS_MAX: usize = 1_000;
/// Inputs, outputs and parameters that the page of one execution carries, in bytes.
const PAYLOADS_BYTES_MAX: usize = 8 * 1_048_576;
/// How deep the failure of a nested execution is followed.
const FAILURE_DEPTH_MAX: u32 = 8;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    status: Option<String>,
    machine: Option<String>,
    /// The file's name begins with this, in any case.
    q: Option<String>,
    nested: bool,
    limit: Option<usize>,
    next: Option<String>,
}

pub async fn list(State(doors): State<Doors>, Query(query): Query<ListQuery>) -> Answer {
    let status = match query.status.as_deref().filter(|s| !s.is_empty()) {
        None => None,
        Some(name) => {
            let unknown = || Refused::validation(format!("There is no status '{name}'"));
            Some(aws::status_of(name).ok_or_else(unknown)?)
        }
    };
    let filter = ExecutionFilter { machine: query.machine.filter(|m| !m.is_empty()), status };
    let limit = query.limit.unwrap_or(PAGE_ROWS).clamp(1, PAGE_ROWS_MAX);
    let wanted = query.q.unwrap_or_default().to_lowercase();
    let mut next = query.next;
    if next.as_deref().is_some_and(|id| id.parse::<ExecutionId>().is_err()) {
        return Err(Refused::invalid_page_token());
    }
    let (mut rows, mut looked) = (Vec::new(), 0);
    'pages: loop {
        let page = doors.reader.executions(&filter, next.as_deref(), limit)?;
        for found in &page.items {
            looked += 1;
            if (!query.nested && found.parent.is_some()) || rows.len() == limit {
                continue;
            }
            let Some(header) = doors.reader.header(found.id)? else { continue };
            let source = source(&header.input);
            let name = source.as_ref().map_or(header.name.as_str(), |uri| uri.file_name()).to_lowercase();
            if !name.starts_with(&wanted) {
                continue;
            }
            rows.push(summary(&doors, &header));
            if rows.len() == limit {
                // The next page begins behind this row, wherever the store's own page ends.
                let last = page.items.last().is_some_and(|last| last.id == found.id) && page.next.is_none();
                next = (!last).then(|| found.id.to_string());
                break 'pages;
            }
        }
        next = page.next;
        if next.is_none() || looked >= SEARCH_ROWS_MAX {
            break;
        }
    }
    Ok(Fresh(json!({"executions": rows, "next": next})))
}

pub async fn one(State(doors): State<Doors>, Path(id): Path<String>) -> Answer {
    apart(move || detail(&doors, &id)).await?
}

fn detail(doors: &Doors, id: &str) -> Answer {
    let header = find(doors, id)?;
    let events = doors.reader.history(header.id, EventId(0), EVENTS_MAX, Direction::Forward)?;
    let mut states = visits_of(doors, &header, &events);
    let failure = failure(doors, &header, &states, FAILURE_DEPTH_MAX);
    // A workflow that has cleaned up after its failure would only fail again.
    let at_its_end = visits::failed(&states).is_some_and(|visit| visit.state_type == StateType::Fail);
    let output = output(&header).map(str::to_owned);
    let texts = output.iter().map(String::as_str).chain(states.iter().rev().filter_map(|v| v.output.as_deref()));
    let made = outputs(doors, texts, source(&header.input).as_ref());
    let left_out = states.len().saturating_sub(VISITS_MAX);
    states.truncate(VISITS_MAX);
    visits::fit(&mut states, PAYLOADS_BYTES_MAX);
    let mut shown = summary(doors, &header);
    shown["input"] = (&*header.input).into();
    shown["output"] = output.into();
    shown["states"] = json!(states);
    shown["statesLeftOut"] = left_out.into();
    shown["failure"] = failure.unwrap_or(Value::Null);
    shown["outputs"] = json!(made);
    if at_its_end {
        shown["redrivable"] = false.into();
    }
    shown["redriveCount"] = header.redrive_count.into();
    Ok(Fresh(shown))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryQuery {
    from: u64,
    limit: Option<usize>,
    reverse: bool,
}

/// The events as AWS spells them.
pub async fn history(State(doors): State<Doors>, Path(id): Path<String>, Query(query): Query<HistoryQuery>) -> Answer {
    let header = find(&doors, &id)?;
    let limit = query.limit.unwrap_or(1000).clamp(1, EVENTS_MAX);
    let direction = if query.reverse { Direction::Backward } else { Direction::Forward };
    let mut events = doors.reader.history(header.id, EventId(query.from), limit + 1, direction)?;
    let next = events.get(limit).map(|event| event.id.0);
    events.truncate(limit);
    let shown: Vec<Value> = events.iter().map(|event| crate::api::history::wire(event, true)).collect();
    Ok(Fresh(json!({"events": shown, "next": next})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartBody {
    machine: String,
    name: Option<String>,
    #[serde(default)]
    input: Option<Value>,
}

pub async fn start(State(doors): State<Doors>, body: Result<Json<StartBody>, JsonRejection>) -> Answer {
    let Json(body) = body.map_err(|e| Refused::validation(e.body_text()))?;
    if let Some(name) = &body.name {
        names::check(name)?;
    }
    let input = body.input.unwrap_or_else(|| json!({})).to_string();
    if input.len() > PAYLOAD_BYTES_MAX {
        let words = format!("The input is larger than {PAYLOAD_BYTES_MAX} bytes");
        return Err(Refused::new("InvalidExecutionInput", words));
    }
    let new = Start { machine: body.machine.clone(), name: body.name, input: input.into(), ..Start::default() };
    let started = doors.handle.start(new).await?;
    let arn = doors.place.execution(&body.machine, &started.name);
    Ok(Fresh(json!({"id": started.id.to_string(), "name": started.name, "arn": arn})))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopBody {
    error: Option<String>,
    cause: Option<String>,
}

pub async fn stop(
    State(doors): State<Doors>,
    Path(id): Path<String>,
    body: Result<Json<StopBody>, JsonRejection>,
) -> Answer {
    let Json(body) = body.map_err(|e| Refused::validation(e.body_text()))?;
    let header = find(&doors, &id)?;
    let at = match header.stopped_at {
        Some(at) => at,
        None => doors.handle.stop(header.id, body.error, body.cause).await?,
    };
    Ok(Fresh(json!({"stoppedAt": at.0})))
}

pub async fn redrive(State(doors): State<Doors>, Path(id): Path<String>) -> Answer {
    let header = find(&doors, &id)?;
    let at = doors.handle.redrive(header.id).await?;
    Ok(Fresh(json!({"redrivenAt": at.0})))
}

fn find(doors: &Doors, id: &str) -> Result<Header, Refused> {
    let id: ExecutionId = id.parse().map_err(|_| Refused::no_execution(id))?;
    doors.reader.header(id)?.ok_or_else(|| Refused::no_execution(id))
}

fn summary(doors: &Doors, header: &Header) -> Value {
    let (error, cause) = failed_with(header);
    let (error, cause) = innermost(error, cause);
    json!({
        "id": header.id.to_string(),
        "arn": doors.place.execution(&header.arn_machine(), &header.name),
        "name": header.name,
        "machine": header.machine.name,
        "status": header.status.name(),
        "file": source(&header.input).map(|uri| uri.file_name().to_owned()),
        "startedAt": header.started_at.0,
        "stoppedAt": header.stopped_at.map(|at| at.0),
        "error": error,
        "cause": cause.as_deref().map(shortened),
        "parent": header.parent.as_ref().map(|p| p.execution.to_string()),
        "progress": if header.stopped_at.is_none() { progress(doors, header.id) } else { None },
        "thumbnail": output(header).and_then(|text| outputs::thumbnail(doors, text)),
        "redrivable": run::not_redrivable(header, doors.handle.now()).is_none() && header.parent.is_none(),
    })
}

/// What moves now. Between two tries of a stage nothing does, whatever was seen of it last.
fn progress(doors: &Doors, id: ExecutionId) -> Option<Shown> {
    let shown = doors.live.progress(id)?;
    let works = |id: ExecutionId| !doors.handle.working(id).is_empty();
    shown.execution.parse().is_ok_and(works).then_some(shown)
}

fn output(header: &Header) -> Option<&str> {
    match &header.outcome {
        Some(Outcome::Succeeded { output }) => Some(output),
        _ => None,
    }
}

fn failed_with(header: &Header) -> (Option<&str>, Option<&str>) {
    match &header.outcome {
        Some(
            Outcome::Failed { error, cause } | Outcome::TimedOut { error, cause } | Outcome::Aborted { error, cause },
        ) => (error.as_deref(), cause.as_deref()),
        _ => (None, None),
    }
}

/// A failed nested execution stands in its parent's cause as JSON; what it failed with says more than that it did.
fn innermost(error: Option<&str>, cause: Option<&str>) -> (Option<String>, Option<String>) {
    let mut found = (error.map(str::to_owned), cause.map(str::to_owned));
    for _ in 0..FAILURE_DEPTH_MAX {
        let inner: Option<Value> = found.1.as_deref().and_then(|cause| serde_json::from_str(cause).ok());
        // A job that failed says so in a field of its own.
        let inner = inner.as_ref().map(|inner| inner["Job"].get("Failure").unwrap_or(inner));
        let Some(error) = inner.and_then(|inner| inner["Error"].as_str()) else { break };
        let cause = inner.and_then(|inner| inner["Cause"].as_str()).map(str::to_owned);
        found = (Some(error.to_owned()), cause);
    }
    found
}

/// The beginning of a cause, for rows: its words in one line, and a sign where there is more.
fn shortened(cause: &str) -> String {
    const CHARS_MAX: usize = 400;
    let words: Vec<&str> = cause.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn visits_of(doors: &Doors, header: &Header, events: &[HistoryEvent]) -> Vec<Visit> {
    let mut visits = visits::visits(events, header.stopped_at.map(|at| at.0));
    for visit in &mut visits {
        let ids = visit.started.iter().filter_map(|arn| {
            let (machine, name) = match arn.split_once(":jobs/") {
                Some((_, job)) => (JOB_MACHINE.to_owned(), job.to_owned()),
                None => doors.place.read_execution(arn).ok()?,
            };
            doors.reader.by_name(&machine, &name).ok()?
        });
        visit.children = ids.map(|id| id.to_string()).collect();
    }
    visits
}

/// What failed, with which input and which error: in the nested execution where it happened, if it was one.
fn failure(doors: &Doors, header: &Header, visits: &[Visit], depth: u32) -> Option<Value> {
    let stopped_at = header.stopped_at?;
    if !aws::redrivable(header.status) {
        return None;
    }
    let failed = visits::failed(visits).map(|last| origin(doors, visits, last));
    if let Some(visit) = failed.filter(|_| depth > 0) {
        for child in visit.children.iter().rev() {
            let deeper = find(doors, child).ok().and_then(|header| {
                let events = doors.reader.history(header.id, EventId(0), EVENTS_MAX, Direction::Forward).ok()?;
                failure(doors, &header, &visits_of(doors, &header, &events), depth - 1)
            });
            if deeper.is_some() {
                return deeper;
            }
        }
    }
    let (error, cause) = failed_with(header);
    let error = failed.and_then(|v| v.error.as_deref()).or(error);
    let cause = failed.and_then(|v| v.cause.as_deref()).or(cause);
    Some(json!({
        "execution": header.id.to_string(),
        "workflow": header.machine.name,
        "state": failed.map(|v| v.name.as_str()),
        "type": failed.map(|v| v.state_type),
        "at": failed.and_then(|v| v.exited_at).unwrap_or(stopped_at.0),
        "input": failed.map_or(&*header.input, |v| v.input.as_str()),
        "error": error,
        "cause": cause,
    }))
}

/// The visit where a failure began. A Fail state at the end of a workflow's cleaning up only passes on the error of a
/// state that was caught, or of a job that was polled: that one has the input and the place that people look for.
fn origin<'a>(doors: &Doors, visits: &'a [Visit], last: &'a Visit) -> &'a Visit {
    if last.state_type != StateType::Fail || last.error.is_none() {
        return last;
    }
    let began = visits.iter().rev().find(|visit| {
        let caught =
            visit.status == "CAUGHT" && innermost(visit.error.as_deref(), visit.cause.as_deref()).0 == last.error;
        caught
            || visit
                .children
                .iter()
                .any(|child| find(doors, child).is_ok_and(|header| failed_with(&header).0 == last.error.as_deref()))
    });
    began.unwrap_or(last)
}
