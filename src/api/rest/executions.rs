//! One execution over REST: its states, its failure, its outputs; start, stop, redrive. Lists stand in `list`.

use axum::extract::{Json, State};
use conveyor_base::limits::{REDRIVABLE_MS, quotas};
use conveyor_base::{EventId, ExecutionId, JOB_MACHINE, Uri};
use conveyor_interpreter::{Header, HistoryEvent, StateType};
use conveyor_run::{self as run, StartRequest};
use conveyor_store::{Direction, Scans};
use serde::Deserialize;
use serde_json::{Value, json};

use super::outputs::{self, outputs};
use super::visits::{self, Visit};
use super::{Body, JsonResult, NoStoreJson, Path, Query, predictions, source};
use crate::live::StageProgress;
use crate::{ApiError, AppState, aws, names};

/// Events that one page of an execution is made of, and the states it shows.
pub(super) const EVENTS_MAX: usize = 25_000;
const VISITS_MAX: usize = 1_000;
/// Inputs, outputs and parameters that the page of one execution carries, in bytes.
const PAYLOADS_BYTES_MAX: usize = 8 * 1_048_576;
/// How deep the failure of a nested execution is followed.
const FAILURE_DEPTH_MAX: u32 = 8;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneQuery {
    states: Option<bool>,
}

pub async fn one(State(app): State<AppState>, Path(id): Path<String>, Query(query): Query<OneQuery>) -> JsonResult {
    let handle = app.handle.clone();
    let with_states = query.states.unwrap_or(true);
    let (mut shown, made) = app.reading(move |app, rows| detail(app, rows, &id, with_states)).await?;
    shown.0["outputs"] = json!(outputs(&app, made).await);
    if shown.0["stoppedAt"].is_null() {
        let ids = nested_ids(&shown.0);
        shown.0["working"] = running(&handle, &ids);
        shown.0["waiting"] = waiting(&handle, &ids).await;
    }
    Ok(shown)
}

/// The execution itself, and those that its states started.
fn nested_ids(shown: &Value) -> Vec<ExecutionId> {
    let children = shown["states"].as_array().into_iter().flatten().filter_map(|state| state["children"].as_array());
    let ids = std::iter::once(&shown["id"]).chain(children.flatten());
    ids.filter_map(|id| id.as_str()?.parse().ok()).collect()
}

/// What runs, and on which lane.
fn running(handle: &run::Handle, ids: &[ExecutionId]) -> Value {
    let works = ids.iter().flat_map(|id| handle.running_attempts(*id).into_iter().map(|running| (*id, running)));
    let shown = works.map(|(id, running)| {
        json!({"execution": id.to_string(), "state": &*running.state, "resource": running.resource,
            "lane": running.lane, "startedAt": handle.clock().shown(running.started_at).0, "progress": running.progress})
    });
    shown.collect()
}

/// What waits for a lane, and why.
async fn waiting(handle: &run::Handle, ids: &[ExecutionId]) -> Value {
    /// Iterations of a Map may be many, and wait for the same.
    const WAITING_MAX: usize = 20;
    let mut all = Vec::new();
    for id in ids {
        all.extend(handle.waiting(Some(*id), WAITING_MAX.saturating_sub(all.len())).await);
    }
    json!(all)
}

/// With the files that its states name.
fn detail(app: &AppState, rows: &Scans, id: &str, with_states: bool) -> Result<(NoStoreJson, Vec<Uri>), ApiError> {
    let header = found(rows, id)?;
    let events = rows.history(header.id, EventId(0), EVENTS_MAX, Direction::Forward)?;
    let mut states = visits_of(app, &header, &events);
    let failure = failure(app, rows, &header, &states, FAILURE_DEPTH_MAX);
    // A workflow that has cleaned up after its failure would only fail again.
    let at_its_end = visits::failed(&states).is_some_and(|visit| visit.state_type == StateType::Fail);
    let output = header.output().map(str::to_owned);
    let texts = output.iter().map(String::as_str).chain(states.iter().rev().filter_map(|v| v.output.as_deref()));
    let made = outputs::named(texts, source(&header.input).as_ref());
    let texts = output.iter().map(String::as_str).chain(states.iter().filter_map(|v| v.output.as_deref()));
    let predicted = predictions::checked(texts);
    let shown_max = if with_states { VISITS_MAX } else { 0 };
    let left_out = states.len().saturating_sub(shown_max);
    states.truncate(shown_max);
    visits::fit(&mut states, PAYLOADS_BYTES_MAX);
    let mut shown = summary(app, &header);
    shown["input"] = (&*header.input).into();
    shown["output"] = output.into();
    shown["states"] = json!(states);
    shown["statesLeftOut"] = left_out.into();
    shown["failure"] = failure.unwrap_or(Value::Null);
    if at_its_end {
        shown["redrivable"] = false.into();
    }
    shown["redriveCount"] = header.redrive_count.into();
    shown["doneBy"] = actions(rows, header.id)?;
    shown["predicted"] = predicted;
    let runs = header.stopped_at.is_none();
    shown["predictions"] = if runs { predictions::expected(app, rows, header.id) } else { json!([]) };
    Ok((NoStoreJson(shown), made))
}

/// Who started it, stopped it, and did whatever else was done to it through the API.
fn actions(rows: &Scans, id: ExecutionId) -> Result<Value, ApiError> {
    let shown = rows
        .actions(id)?
        .into_iter()
        .map(|row| json!({"at": row.at.0, "who": row.who, "role": row.role, "api": row.api, "what": row.what}));
    Ok(shown.collect())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryQuery {
    from: u64,
    limit: Option<usize>,
    reverse: bool,
    data: Option<bool>,
}

/// The events as AWS spells them.
pub async fn history(
    State(app): State<AppState>,
    Path(id): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> JsonResult {
    let limit = query.limit.unwrap_or(1000).clamp(1, EVENTS_MAX);
    let direction = if query.reverse { Direction::Backward } else { Direction::Forward };
    let page = move |_: &AppState, rows: &Scans| {
        let (id, from, bytes) = (found(rows, &id)?.id, EventId(query.from), aws::HISTORY_BYTES_PER_PAGE);
        let (events, next) = rows.history_page(id, from, limit, bytes, direction)?;
        let next = next.map(|event| event.0);
        let shown = events.iter().map(|event| crate::history::wire(event, query.data.unwrap_or(true)));
        Ok(NoStoreJson(json!({"events": shown.collect::<Vec<Value>>(), "next": next})))
    };
    app.reading(page).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartBody {
    machine: String,
    name: Option<String>,
    /// A version's number or an alias; the newest revision without it.
    qualifier: Option<String>,
    #[serde(default)]
    input: Option<Value>,
}

/// The definition that the execution is pinned to.
pub async fn definition(State(app): State<AppState>, Path(id): Path<String>) -> JsonResult {
    let machine = find(&app, &id).await?.machine;
    super::machines::definition(&app, machine.name, machine.revision).await
}

pub async fn start(app: AppState, body: Body<StartBody>) -> JsonResult {
    let Json(body) = super::body(body)?;
    if let Some(name) = &body.name {
        names::check(name)?;
    }
    let input = body.input.unwrap_or_else(|| json!({})).to_string();
    let bytes_max = quotas().payload_bytes();
    if input.len() > bytes_max {
        let words = format!("The input is larger than {bytes_max} bytes");
        return Err(ApiError::new("InvalidExecutionInput", words));
    }
    if let Some(fault) = crate::aws::input_fault(&input) {
        return Err(ApiError::new("InvalidExecutionInput", fault));
    }
    let new = StartRequest {
        machine: body.machine.clone(),
        qualifier: body.qualifier,
        name: body.name,
        input: input.into(),
        ..StartRequest::default()
    };
    let started = app.handle.start(new).await?;
    Ok(NoStoreJson(json!({"id": started.id.to_string(), "name": started.name, "arn": started.arn})))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopBody {
    pub error: Option<String>,
    pub cause: Option<String>,
}

/// Says what its status was: an execution that had ended already stays as it ended.
pub async fn stop(app: AppState, Path(id): Path<String>, body: Body<StopBody>) -> JsonResult {
    let Json(body) = super::body(body)?;
    let header = find(&app, &id).await?;
    let at = match header.stopped_at {
        Some(at) => at,
        None => app.handle.stop(header.id, body.error, body.cause).await?,
    };
    Ok(NoStoreJson(json!({"stoppedAt": at.0, "was": header.status.name()})))
}

pub async fn redrive(app: AppState, Path(id): Path<String>) -> JsonResult {
    let header = find(&app, &id).await?;
    let at = app.handle.redrive(header.id).await?;
    Ok(NoStoreJson(json!({"redrivenAt": at.0})))
}

pub(super) async fn find(app: &AppState, id: &str) -> Result<Header, ApiError> {
    let id: ExecutionId = id.parse().map_err(|_| ApiError::no_execution(id))?;
    app.reader.header(id).await?.ok_or_else(|| ApiError::no_execution(id))
}

/// The same for who looks further into the store.
pub(super) fn found(rows: &Scans, id: &str) -> Result<Header, ApiError> {
    let id: ExecutionId = id.parse().map_err(|_| ApiError::no_execution(id))?;
    rows.header(id)?.ok_or_else(|| ApiError::no_execution(id))
}

pub(super) fn summary(app: &AppState, header: &Header) -> Value {
    let (error, cause) = header.failure();
    let (error, cause) = innermost(error, cause);
    let file = source(&header.input);
    json!({
        "id": header.id.to_string(),
        "arn": app.arns.execution(&header.arn_machine(), &header.name),
        "name": header.name,
        "machine": header.machine.name,
        "revision": header.machine.revision,
        "status": header.status.name(),
        "file": file.as_ref().map(|uri| uri.file_name()),
        "source": file.as_ref().map(|uri| uri.to_string()),
        "sourceUrl": file.as_ref().and_then(|uri| crate::media::url(app, uri)),
        "startedAt": header.started_at.0,
        "stoppedAt": header.stopped_at.map(|at| at.0),
        "error": error,
        "cause": cause.as_deref().map(shortened),
        "parent": header.parent.as_ref().map(|p| p.execution.to_string()),
        "progress": if header.stopped_at.is_none() { progress(app, header.id) } else { None },
        "thumbnail": header.output().and_then(|text| outputs::thumbnail(app, text)),
        "mediaMs": header.output().and_then(outputs::duration_ms),
        "events": header.last_event.0,
        "redrivable": run::not_redrivable(header, &app.handle.clock().older_than(REDRIVABLE_MS)).is_none() && header.parent.is_none(),
    })
}

/// What moves now. Between two tries of a stage nothing does, whatever was seen of it last.
fn progress(app: &AppState, id: ExecutionId) -> Option<StageProgress> {
    let shown = app.live.progress(id)?;
    let works = |id: ExecutionId| !app.handle.running_attempts(id).is_empty();
    shown.execution.parse().is_ok_and(works).then_some(shown)
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

pub(super) fn visits_of(app: &AppState, header: &Header, events: &[HistoryEvent]) -> Vec<Visit> {
    let mut visits = visits::visits(events, header.stopped_at.map(|at| at.0));
    children_of(app, &mut visits);
    visits
}

/// Finds the executions that visits started.
pub(super) fn children_of(app: &AppState, visits: &mut [Visit]) {
    for visit in visits.iter_mut().filter(|visit| !visit.started.is_empty()) {
        let ids = visit.started.iter().filter_map(|arn| {
            let (machine, name) = match arn.split_once(":jobs/") {
                Some((_, job)) => (JOB_MACHINE.to_owned(), job.to_owned()),
                None => app.arns.read_execution(arn).ok()?,
            };
            app.reader.by_name(&machine, &name).ok()?
        });
        visit.children = ids.map(|id| id.to_string()).collect();
    }
}

/// What failed, with which input and which error: in the nested execution where it happened, if it was one.
fn failure(app: &AppState, rows: &Scans, header: &Header, visits: &[Visit], depth: u32) -> Option<Value> {
    let stopped_at = header.stopped_at?;
    if !aws::redrivable(header.status) {
        return None;
    }
    let failed = visits::failed(visits).map(|last| origin(rows, visits, last));
    if let Some(visit) = failed.filter(|_| depth > 0) {
        for child in visit.children.iter().rev() {
            let deeper = found(rows, child).ok().and_then(|header| {
                let events = rows.history(header.id, EventId(0), EVENTS_MAX, Direction::Forward).ok()?;
                failure(app, rows, &header, &visits_of(app, &header, &events), depth - 1)
            });
            if deeper.is_some() {
                return deeper;
            }
        }
    }
    let (error, cause) = header.failure();
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
fn origin<'a>(rows: &Scans, visits: &'a [Visit], last: &'a Visit) -> &'a Visit {
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
                .any(|child| found(rows, child).is_ok_and(|header| header.failure().0 == last.error.as_deref()))
    });
    began.unwrap_or(last)
}
