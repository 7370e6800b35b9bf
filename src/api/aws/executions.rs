//! Executions: start, stop, redrive, describe, list, history.

use conveyor_base::limits::{CAUSE_CHARS_MAX, ERROR_CHARS_MAX, NAME_CHARS_MAX, REDRIVABLE_MS};
use conveyor_base::{EventId, ExecutionId, Timestamp};
use conveyor_interpreter::{Header, MachineRef, Outcome, Qualifier, Status};
use conveyor_run::{self as run, StartRequest};
use conveyor_store::{Direction, ExecutionFilter, ExecutionSummary, MachineKind, Scans};
use serde_json::{Value, json};

use super::fields::Fields;
use super::machines::{ARN_CHARS_MAX, INCLUDED};
use super::{map_runs, token};
use crate::history::wire;
use crate::{ApiError, AppState, names};

/// What a page of a history has in memory, about: an event may be hundreds of kilobytes.
pub const HISTORY_BYTES_PER_PAGE: usize = 8 << 20;

const STATUSES: &[&str] = &["SUCCEEDED", "TIMED_OUT", "PENDING_REDRIVE", "ABORTED", "FAILED", "RUNNING"];

pub async fn start(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let asked = StartExecutionInput::of(app, &mut fields)?;
    let started = app.handle.start(asked.start).await?;
    Ok(json!({"executionArn": started.arn, "startDate": started.started_at.as_seconds()}))
}

/// What StartExecution and StartSyncExecution are asked, checked.
pub struct StartExecutionInput {
    pub kind: MachineKind,
    pub start: StartRequest,
    /// Whether the answer of a synchronous start shows input and output.
    pub with_data: bool,
}

impl StartExecutionInput {
    pub fn of(app: &AppState, fields: &mut Fields) -> Result<StartExecutionInput, ApiError> {
        let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
        let name = fields.name("name", NAME_CHARS_MAX);
        let input = fields.payload("input");
        let trace_header = fields.optional("traceHeader", 256);
        let with_data = fields.one_of("includedData", INCLUDED).as_deref() != Some("METADATA_ONLY");
        fields.done()?;
        let (machine, qualifier) = app.arns.read_machine(&arn)?;
        if let Some(name) = &name {
            names::check(name)?;
        }
        let input = input.unwrap_or_else(|| "{}".to_owned());
        if let Some(fault) = super::input_fault(&input) {
            let words = format!("Invalid State Machine Execution Input: '{fault}'");
            return Err(ApiError::new("InvalidExecutionInput", words));
        }
        let row = app.reader.machine(&machine)?.ok_or_else(|| ApiError::no_machine(&arn))?;
        let start =
            StartRequest { machine, qualifier, name, input: input.into(), trace_header, ..StartRequest::default() };
        Ok(StartExecutionInput { kind: row.kind, start, with_data })
    }
}

pub async fn stop(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    let error = fields.optional("error", ERROR_CHARS_MAX);
    let cause = fields.optional("cause", CAUSE_CHARS_MAX);
    fields.done()?;
    let header = find(app, &arn).await?;
    // Stopping what has stopped is no error on AWS, and changes nothing.
    let stopped_at = match header.stopped_at {
        Some(at) => at,
        None => app.handle.stop(header.id, error, cause).await?,
    };
    Ok(json!({"stopDate": stopped_at.as_seconds()}))
}

pub async fn describe(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    let with_data = fields.one_of("includedData", INCLUDED).as_deref() != Some("METADATA_ONLY");
    fields.done()?;
    let header = find(app, &arn).await?;
    let mut answer = json!({
        "executionArn": arn,
        "stateMachineArn": app.arns.machine(&header.arn_machine()),
        "name": header.name,
        "status": header.status.name(),
        "startDate": header.started_at.as_seconds(),
        "redriveCount": header.redrive_count,
    });
    put_data(&mut answer, "input", &header.input, with_data);
    qualify(&mut answer, app, &header.machine);
    put_time(&mut answer, "stopDate", header.stopped_at);
    put_time(&mut answer, "redriveDate", header.redriven_at);
    if let Some(trace) = &header.trace_header {
        answer["traceHeader"] = trace.as_str().into();
    }
    if let Some(child) = &header.child {
        answer["mapRunArn"] = map_runs::arn_of(app, &header.machine.name, child).into();
        answer["itemCount"] = child.items.into();
    }
    match run::not_redrivable(&header, &app.handle.clock().older_than(REDRIVABLE_MS)) {
        None if header.child.is_some() => answer["redriveStatus"] = "REDRIVABLE_BY_MAP_RUN".into(),
        None => answer["redriveStatus"] = "REDRIVABLE".into(),
        Some(reason) => {
            answer["redriveStatus"] = "NOT_REDRIVABLE".into();
            answer["redriveStatusReason"] = reason.into();
        }
    }
    put_outcome(&mut answer, header.outcome.as_ref(), with_data);
    Ok(answer)
}

/// What came out of an execution.
pub fn put_outcome(answer: &mut Value, outcome: Option<&Outcome>, with_data: bool) {
    let (error, cause) = match outcome {
        None => return,
        Some(Outcome::Succeeded { output }) => return put_data(answer, "output", output, with_data),
        Some(
            Outcome::Failed { error, cause } | Outcome::TimedOut { error, cause } | Outcome::Aborted { error, cause },
        ) => (error, cause),
    };
    if let Some(error) = error {
        answer["error"] = error.as_str().into();
    }
    if let Some(cause) = cause {
        answer["cause"] = cause.as_str().into();
    }
}

/// A payload and the word whether it is here: `input` and `inputDetails`.
pub fn put_data(answer: &mut Value, key: &str, text: &str, included: bool) {
    if included {
        answer[key] = text.into();
    }
    answer[format!("{key}Details")] = json!({"included": included});
}

pub fn list(app: &AppState, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.name("stateMachineArn", ARN_CHARS_MAX);
    let map_run = fields.name("mapRunArn", 2000);
    let status = fields.one_of("statusFilter", STATUSES);
    let redriven = fields.one_of("redriveFilter", &["REDRIVEN", "NOT_REDRIVEN"]).map(|filter| filter == "REDRIVEN");
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 3096);
    fields.done()?;
    let wanted = Wanted { status: status.as_deref().and_then(status_of), redriven, qualifier: None, limit };
    let arn = match (arn, map_run) {
        (Some(arn), None) => arn,
        (None, Some(map_run)) => return map_runs::executions(app, rows, &map_run, wanted, next.as_deref()),
        _ => return Err(ApiError::validation("Must specify a state machine ARN or a map run ARN.")),
    };
    let (machine, qualifier) = app.arns.read_machine(&arn)?;
    let row = app.reader.machine(&machine)?.ok_or_else(|| ApiError::no_machine(&arn))?;
    if row.kind == MachineKind::Express {
        return Err(ApiError::wrong_type());
    }
    Wanted { qualifier, ..wanted }.list(app, rows, machine, next.as_deref())
}

/// What ListExecutions asks for.
pub struct Wanted {
    status: Option<Status>,
    redriven: Option<bool>,
    qualifier: Option<String>,
    limit: usize,
}

impl Wanted {
    /// Of a machine's list or a Map run's.
    pub fn list(&self, app: &AppState, rows: &Scans, list: String, next: Option<&str>) -> Result<Value, ApiError> {
        let mut after = token::read(next)?;
        if after.as_deref().is_some_and(|id| id.parse::<ExecutionId>().is_err()) {
            return Err(ApiError::invalid_page_token());
        }
        let filter = ExecutionFilter { machine: Some(list), status: self.status };
        let wanted = |e: &&ExecutionSummary| {
            self.redriven.is_none_or(|redriven| redriven == (e.redrive_count > 0))
                && self
                    .qualifier
                    .as_ref()
                    .is_none_or(|wanted| e.machine.qualifier.as_ref().is_some_and(|q| is_of(q, wanted)))
        };
        let mut shown: Vec<Value> = Vec::new();
        // Lists of a version or an alias leave out what others started; the pages stay full.
        loop {
            let page = rows.executions(&filter, after.as_deref(), self.limit - shown.len())?;
            shown.extend(page.items.iter().filter(wanted).map(|e| summary(app, e)));
            after = page.next;
            if shown.len() >= self.limit || after.is_none() {
                break;
            }
        }
        let mut answer = json!({"executions": shown});
        token::put(&mut answer, after);
        Ok(answer)
    }
}

/// Whether an execution that was started so belongs to the version or alias of that name.
fn is_of(qualifier: &Qualifier, wanted: &str) -> bool {
    qualifier.alias() == Some(wanted) || wanted.parse() == Ok(qualifier.version())
}

pub fn history(app: &AppState, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    let limit = fields.max_results(100, 1000);
    let reverse = fields.flag("reverseOrder").unwrap_or(false);
    let include_data = fields.flag("includeExecutionData").unwrap_or(true);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let header = found(app, rows, &arn)?;
    let from = match token::read(next.as_deref())? {
        None => EventId(0),
        Some(number) => EventId(number.parse().map_err(|_| ApiError::invalid_page_token())?),
    };
    let direction = if reverse { Direction::Backward } else { Direction::Forward };
    // On AWS, too, maxResults is an upper limit, and a page may have fewer.
    let (events, next) = rows.history_page(header.id, from, limit, HISTORY_BYTES_PER_PAGE, direction)?;
    let mut answer = json!({"events": events.iter().map(|event| wire(event, include_data)).collect::<Vec<_>>()});
    token::put(&mut answer, next.map(|id| id.to_string()));
    Ok(answer)
}

/// The execution of that ARN.
pub async fn find(app: &AppState, arn: &str) -> Result<Header, ApiError> {
    let id = id_of(app, arn)?;
    app.reader.header(id).await?.ok_or_else(|| ApiError::no_execution(arn))
}

/// The same for who looks further into the store.
pub fn found(app: &AppState, rows: &Scans, arn: &str) -> Result<Header, ApiError> {
    let id = id_of(app, arn)?;
    rows.header(id)?.ok_or_else(|| ApiError::no_execution(arn))
}

fn id_of(app: &AppState, arn: &str) -> Result<ExecutionId, ApiError> {
    let (machine, name) = app.arns.read_execution(arn)?;
    app.reader.by_name(&machine, &name)?.ok_or_else(|| ApiError::no_execution(arn))
}

pub fn status_of(name: &str) -> Option<Status> {
    [Status::Running, Status::Succeeded, Status::Failed, Status::TimedOut, Status::Aborted, Status::PendingRedrive]
        .into_iter()
        .find(|status| status.name() == name)
}

pub fn redrivable(status: Status) -> bool {
    matches!(status, Status::Failed | Status::TimedOut | Status::Aborted)
}

fn summary(app: &AppState, e: &ExecutionSummary) -> Value {
    let machine = match &e.child {
        None => e.machine.name.clone(),
        Some(child) => format!("{}/{}", e.machine.name, child.label),
    };
    let mut shown = json!({
        "executionArn": app.arns.execution(&machine, &e.name),
        "stateMachineArn": app.arns.machine(&machine),
        "name": e.name,
        "status": e.status.name(),
        "startDate": e.started_at.as_seconds(),
    });
    // What was never redriven is listed without the count.
    if e.redrive_count > 0 {
        shown["redriveCount"] = e.redrive_count.into();
        put_time(&mut shown, "redriveDate", e.redriven_at);
    }
    if let Some(child) = &e.child {
        shown["mapRunArn"] = map_runs::arn_of(app, &e.machine.name, child).into();
        shown["itemCount"] = child.items.into();
    }
    put_time(&mut shown, "stopDate", e.stopped_at);
    qualify(&mut shown, app, &e.machine);
    shown
}

fn qualify(answer: &mut Value, app: &AppState, machine: &MachineRef) {
    let Some(qualifier) = &machine.qualifier else { return };
    let version = app.arns.qualified(&machine.name, &qualifier.version().to_string());
    answer["stateMachineVersionArn"] = version.into();
    if let Some(alias) = qualifier.alias() {
        answer["stateMachineAliasArn"] = app.arns.qualified(&machine.name, alias).into();
    }
}

pub fn put_time(answer: &mut Value, key: &str, at: Option<Timestamp>) {
    if let Some(at) = at {
        answer[key] = at.as_seconds().into();
    }
}
