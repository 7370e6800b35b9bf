//! Map runs: what distributed Maps leave to be looked at.
//!
//! The iterations of a distributed Map run within the execution that holds the Map, so a run is read out of that
//! execution's history, and it has no child executions to list.

use serde_json::{Value, json};

use super::fields::Fields;
use super::machines::ARN_CHARS_MAX;
use super::token;
use crate::api::{Doors, Refused};
use crate::base::{EventId, Timestamp};
use crate::interpreter::{Header, HistoryEvent, HistoryKind};
use crate::store::{Direction, ExecutionFilter};

const MAP_RUN_ARN_CHARS_MAX: usize = 2000;
/// How many executions of the machine are looked through for a run.
const EXECUTIONS_SEARCHED_MAX: usize = 1_000;

/// One run of a distributed Map.
struct MapRun {
    arn: String,
    started_at: Timestamp,
    stopped_at: Option<Timestamp>,
    status: &'static str,
    items: u32,
}

pub fn list(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let header = super::executions::find(doors, &arn)?;
    let runs = of(doors, &header)?;
    let from = token::read(next.as_deref())?;
    let first = from.and_then(|text| runs.iter().position(|run| run.arn == text)).unwrap_or(0);
    let next = runs.get(first + limit).map(|run| run.arn.clone());
    let shown = runs.iter().skip(first).take(limit).map(|run| {
        let mut shown = json!({
            "executionArn": arn,
            "mapRunArn": run.arn,
            "stateMachineArn": doors.place.machine(&header.machine.name),
            "startDate": run.started_at.as_seconds(),
        });
        super::executions::put_time(&mut shown, "stopDate", run.stopped_at);
        shown
    });
    let mut answer = json!({"mapRuns": shown.collect::<Vec<_>>()});
    token::put(&mut answer, next);
    Ok(answer)
}

pub fn describe(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("mapRunArn", MAP_RUN_ARN_CHARS_MAX);
    fields.done()?;
    let (header, run) = find(doors, &arn)?;
    let counts = counts(&run);
    let mut answer = json!({
        "mapRunArn": run.arn,
        "executionArn": doors.place.execution(&header.machine.name, &header.name),
        "status": run.status,
        "startDate": run.started_at.as_seconds(),
        "maxConcurrency": 0,
        "toleratedFailurePercentage": 0.0,
        "toleratedFailureCount": 0,
        "itemCounts": counts,
        "executionCounts": counts,
        "redriveCount": 0,
    });
    super::executions::put_time(&mut answer, "stopDate", run.stopped_at);
    Ok(answer)
}

/// UpdateMapRun. Concurrency and tolerated failures are decided when a Map starts here, and stay.
pub fn update(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("mapRunArn", MAP_RUN_ARN_CHARS_MAX);
    fields.integer("maxConcurrency", 0, i64::from(i32::MAX));
    fields.integer("toleratedFailureCount", 0, i64::MAX);
    fields.done()?;
    let (_, run) = find(doors, &arn)?;
    match run.status {
        "RUNNING" => {
            Err(Refused::validation("What a Map may run at once and may fail cannot be changed while it runs"))
        }
        _ => Err(Refused::validation(format!("The Map Run '{arn}' is not running"))),
    }
}

/// ListExecutions of a map run.
pub fn executions(doors: &Doors, arn: &str) -> Result<Value, Refused> {
    find(doors, arn)?;
    Ok(json!({"executions": []}))
}

fn find(doors: &Doors, arn: &str) -> Result<(Header, MapRun), Refused> {
    let machine = doors.place.read_map_run(arn)?;
    let filter = ExecutionFilter { machine: Some(machine), status: None };
    for row in doors.reader.executions(&filter, None, EXECUTIONS_SEARCHED_MAX)?.items {
        let Some(header) = doors.reader.header(row.id)? else { continue };
        if let Some(run) = of(doors, &header)?.into_iter().find(|run| run.arn == arn) {
            return Ok((header, run));
        }
    }
    Err(Refused::no_resource(arn))
}

/// The runs of an execution, oldest first. Maps in branches of their own may overlap: an end belongs to the newest run
/// that is still open.
fn of(doors: &Doors, header: &Header) -> Result<Vec<MapRun>, Refused> {
    let mut runs: Vec<MapRun> = Vec::new();
    let mut items = 0;
    for HistoryEvent { at, kind, .. } in doors.reader.history(header.id, EventId(0), usize::MAX, Direction::Forward)? {
        let ended = match kind {
            HistoryKind::MapStateStarted { length } => {
                items = length;
                continue;
            }
            HistoryKind::MapRunStarted { arn } => {
                runs.push(MapRun { arn, started_at: at, stopped_at: None, status: "RUNNING", items });
                continue;
            }
            HistoryKind::MapRunSucceeded => "SUCCEEDED",
            HistoryKind::MapRunFailed(_) => "FAILED",
            HistoryKind::MapRunAborted => "ABORTED",
            _ => continue,
        };
        if let Some(run) = runs.iter_mut().rev().find(|run| run.stopped_at.is_none()) {
            (run.stopped_at, run.status) = (Some(at), ended);
        }
    }
    // An execution that was stopped from outside takes its runs with it.
    for run in runs.iter_mut().filter(|run| run.stopped_at.is_none()) {
        if header.stopped_at.is_some() {
            (run.stopped_at, run.status) = (header.stopped_at, "ABORTED");
        }
    }
    Ok(runs)
}

/// How many items are where, as far as the history tells.
fn counts(run: &MapRun) -> Value {
    let of = |status: &str| if run.status == status { run.items } else { 0 };
    json!({
        "pending": 0, "running": of("RUNNING"), "succeeded": of("SUCCEEDED"), "failed": of("FAILED"), "timedOut": 0,
        "aborted": of("ABORTED"), "total": run.items, "resultsWritten": 0,
        "failuresNotRedrivable": 0, "pendingRedrive": 0,
    })
}
