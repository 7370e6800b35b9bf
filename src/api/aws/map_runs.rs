//! Map runs: what distributed Maps run, how far it has come, and what may be changed meanwhile.

use conveyor_base::{Attempt, ExecutionId};
use conveyor_interpreter::{MapChild, run_list};
use conveyor_run::MapRunChange;
use conveyor_store::{MapRunRow, RunCounts, RunStatus, Scans};
use serde_json::{Value, json};
use uuid::Uuid;

use super::executions::Wanted;
use super::fields::Fields;
use super::machines::ARN_CHARS_MAX;
use super::token;
use crate::{ApiError, AppState};

const MAP_RUN_ARN_CHARS_MAX: usize = 2000;

/// The run that an execution is a child of.
pub fn arn_of(app: &AppState, machine: &str, child: &MapChild) -> String {
    app.arns.map_run(machine, &child.label, Uuid::from_u128(child.run))
}

fn arn(app: &AppState, row: &MapRunRow) -> String {
    app.arns.map_run(&row.machine, &row.label, Uuid::from_u128(row.run.0))
}

pub fn list(app: &AppState, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let execution_arn = fields.named("executionArn", ARN_CHARS_MAX);
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let header = super::executions::found(app, rows, &execution_arn)?;
    let runs = rows.map_runs_of(header.id)?;
    let from = token::read(next.as_deref())?;
    let first = match from {
        None => 0,
        Some(from) => {
            let at = runs.iter().position(|(attempt, _)| attempt.to_string() == from);
            at.ok_or_else(ApiError::invalid_page_token)?
        }
    };
    let next = runs.get(first + limit).map(|(attempt, _)| attempt.to_string());
    let shown = runs.iter().skip(first).take(limit).map(|(_, run)| {
        let mut shown = json!({
            "executionArn": execution_arn,
            "mapRunArn": arn(app, run),
            "stateMachineArn": app.arns.machine(&header.arn_machine()),
            "startDate": conveyor_base::Timestamp::from(run.started_at).as_seconds(),
        });
        super::executions::put_time(&mut shown, "stopDate", run.stopped_at.map(Into::into));
        shown
    });
    let mut answer = json!({"mapRuns": shown.collect::<Vec<_>>()});
    token::put(&mut answer, next);
    Ok(answer)
}

pub async fn describe(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let asked = fields.named("mapRunArn", MAP_RUN_ARN_CHARS_MAX);
    fields.done()?;
    let (parent, _, row) = find(app, &asked)?;
    let header = app.reader.header(parent).await?.ok_or_else(|| ApiError::no_resource(&asked))?;
    let (executions, items) = counts(app, &row);
    let mut answer = json!({
        "mapRunArn": asked,
        "executionArn": app.arns.execution(&header.arn_machine(), &header.name),
        "status": status(row.status),
        "startDate": conveyor_base::Timestamp::from(row.started_at).as_seconds(),
        "maxConcurrency": row.max_concurrency,
        "toleratedFailurePercentage": row.tolerated_percentage.unwrap_or(0.0),
        "toleratedFailureCount": row.tolerated_count.unwrap_or(0),
        "itemCounts": items,
        "executionCounts": executions,
        "redriveCount": row.redrives,
    });
    super::executions::put_time(&mut answer, "stopDate", row.stopped_at.map(Into::into));
    super::executions::put_time(&mut answer, "redriveDate", row.redriven_at.map(Into::into));
    Ok(answer)
}

/// UpdateMapRun: what counts from now on. Ended runs stay as they are.
pub async fn update(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let asked = fields.named("mapRunArn", MAP_RUN_ARN_CHARS_MAX);
    let concurrency = fields.integer("maxConcurrency", 0, i64::from(i32::MAX));
    let percentage = fields.number("toleratedFailurePercentage", 0.0, 100.0);
    let count = fields.integer("toleratedFailureCount", 0, i64::MAX);
    fields.done()?;
    let change = MapRunChange {
        max_concurrency: concurrency.and_then(|most| u32::try_from(most).ok()),
        tolerated_count: count.and_then(|count| u64::try_from(count).ok()),
        tolerated_percentage: percentage,
    };
    let (parent, attempt, _) = find(app, &asked)?;
    if change == MapRunChange::default() {
        return Err(ApiError::validation(
            "At least one of these fields is required: maxConcurrency, toleratedFailurePercentage, toleratedFailureCount",
        ));
    }
    match app.handle.update_map_run(parent, attempt, change).await? {
        true => Ok(json!({})),
        false => Err(ApiError::validation(format!("The Map Run '{asked}' is not running"))),
    }
}

/// ListExecutions of a map run.
pub fn executions(
    app: &AppState,
    rows: &Scans,
    asked: &str,
    wanted: Wanted,
    next: Option<&str>,
) -> Result<Value, ApiError> {
    let (.., row) = find(app, asked)?;
    wanted.list(app, rows, run_list(&row.machine, &row.label, row.run.0), next)
}

fn find(app: &AppState, asked: &str) -> Result<(ExecutionId, Attempt, MapRunRow), ApiError> {
    let (machine, label, run) = app.arns.read_map_run(asked)?;
    let missing = || ApiError::no_resource(asked);
    let run: Uuid = run.parse().map_err(|_| missing())?;
    let (parent, attempt) = app.reader.map_run_named(run.as_u128())?.ok_or_else(missing)?;
    let row = app.reader.map_run(parent, attempt)?.ok_or_else(missing)?;
    if row.machine != machine || row.label != label {
        return Err(missing());
    }
    Ok((parent, attempt, row))
}

fn status(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "RUNNING",
        RunStatus::Succeeded => "SUCCEEDED",
        RunStatus::Failed => "FAILED",
        RunStatus::Aborted => "ABORTED",
    }
}

/// `executionCounts` and `itemCounts`.
fn counts(app: &AppState, row: &MapRunRow) -> (Value, Value) {
    let list = run_list(&row.machine, &row.label, row.run.0);
    let RunCounts { executions, items } = row.ended.unwrap_or_else(|| app.reader.run_counts(&list));
    let pending_items = u64::from(row.items.saturating_sub(row.next_item));
    let pending = match row.items_per_child {
        0 => u64::from(pending_items > 0),
        per_child => pending_items.div_ceil(u64::from(per_child)),
    };
    let shown = |pending: u64, counts: [u64; 5], written: u64| {
        let [running, succeeded, failed, timed_out, aborted] = counts;
        json!({
            "pending": pending, "running": running, "succeeded": succeeded, "failed": failed, "timedOut": timed_out,
            "aborted": aborted, "total": pending + counts.iter().sum::<u64>(), "resultsWritten": written,
            "failuresNotRedrivable": 0, "pendingRedrive": 0,
        })
    };
    let written_items = if row.results_written > 0 { items.iter().sum() } else { 0 };
    (shown(pending, executions, row.results_written), shown(pending_items, items, written_items))
}
