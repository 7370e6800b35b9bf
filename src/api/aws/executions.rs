//! Executions: start, stop, redrive, describe, list, history.

use serde_json::{Value, json};

use super::fields::Fields;
use super::token;
use crate::api::history::wire;
use crate::api::{Doors, Refused, names};
use crate::base::limits::{CAUSE_CHARS_MAX, ERROR_CHARS_MAX, NAME_CHARS_MAX};
use crate::base::{EventId, Timestamp};
use crate::interpreter::{Header, MachineRef, Outcome, Status};
use crate::run::{self, Start};
use crate::store::{Direction, ExecutionFilter, ExecutionSummary};

const ARN_CHARS_MAX: usize = 256;
const STATUSES: &[&str] = &["SUCCEEDED", "TIMED_OUT", "PENDING_REDRIVE", "ABORTED", "FAILED", "RUNNING"];

pub async fn start(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    let name = fields.name("name", NAME_CHARS_MAX);
    let input = fields.payload("input");
    let trace_header = fields.optional("traceHeader", 256);
    fields.done()?;
    let (machine, qualifier) = doors.place.read_machine(&arn)?;
    if let Some(name) = &name {
        names::check(name)?;
    }
    let input = input.unwrap_or_else(|| "{}".to_owned());
    if let Some(fault) = super::json_fault(&input) {
        let words = format!("Invalid State Machine Execution Input: '{fault}'");
        return Err(Refused::new("InvalidExecutionInput", words));
    }
    if doors.reader.machine(&machine)?.is_none() {
        return Err(Refused::no_machine(&arn));
    }
    let revision = match &qualifier {
        None => None,
        Some(qualifier) => Some(super::machines::revision_of(doors, &machine, qualifier, &arn)?),
    };
    let new = Start {
        machine: machine.clone(),
        revision,
        qualifier,
        name,
        input: input.into(),
        trace_header,
        ..Start::default()
    };
    let started = doors.handle.start(new).await?;
    let arn = doors.place.execution(&machine, &started.name);
    Ok(json!({"executionArn": arn, "startDate": started.started_at.as_seconds()}))
}

pub async fn stop(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    let error = fields.optional("error", ERROR_CHARS_MAX);
    let cause = fields.optional("cause", CAUSE_CHARS_MAX);
    fields.done()?;
    let header = find(doors, &arn)?;
    // Stopping what has stopped is no error on AWS, and changes nothing.
    let stopped_at = match header.stopped_at {
        Some(at) => at,
        None => doors.handle.stop(header.id, error, cause).await?,
    };
    Ok(json!({"stopDate": stopped_at.as_seconds()}))
}

pub async fn redrive(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    fields.optional("clientToken", 64);
    fields.done()?;
    let header = find(doors, &arn)?;
    let at = doors.handle.redrive(header.id).await?;
    Ok(json!({"redriveDate": at.as_seconds()}))
}

pub fn describe(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    fields.optional("includedData", 32);
    fields.done()?;
    let header = find(doors, &arn)?;
    let mut answer = json!({
        "executionArn": arn,
        "stateMachineArn": doors.place.machine(&header.machine.name),
        "name": header.name,
        "status": header.status.name(),
        "startDate": header.started_at.as_seconds(),
        "input": &*header.input,
        "inputDetails": {"included": true},
        "redriveCount": header.redrive_count,
    });
    qualify(&mut answer, doors, &header.machine);
    put_time(&mut answer, "stopDate", header.stopped_at);
    put_time(&mut answer, "redriveDate", header.redriven_at);
    if let Some(trace) = &header.trace_header {
        answer["traceHeader"] = trace.as_str().into();
    }
    match run::not_redrivable(&header, doors.handle.now()) {
        None => answer["redriveStatus"] = "REDRIVABLE".into(),
        Some(reason) => {
            answer["redriveStatus"] = "NOT_REDRIVABLE".into();
            answer["redriveStatusReason"] = reason.into();
        }
    }
    match &header.outcome {
        Some(Outcome::Succeeded { output }) => {
            answer["output"] = (&**output).into();
            answer["outputDetails"] = json!({"included": true});
        }
        Some(
            Outcome::Failed { error, cause } | Outcome::TimedOut { error, cause } | Outcome::Aborted { error, cause },
        ) => {
            if let Some(error) = error {
                answer["error"] = error.as_str().into();
            }
            if let Some(cause) = cause {
                answer["cause"] = cause.as_str().into();
            }
        }
        None => {}
    }
    Ok(answer)
}

pub fn list(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.name("stateMachineArn", ARN_CHARS_MAX);
    let status = fields.one_of("statusFilter", STATUSES);
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 3096);
    fields.done()?;
    let Some(arn) = arn else {
        return Err(Refused::validation("Must specify a state machine ARN or a map run ARN."));
    };
    let (machine, qualifier) = doors.place.read_machine(&arn)?;
    if doors.reader.machine(&machine)?.is_none() {
        return Err(Refused::no_machine(&arn));
    }
    let filter = ExecutionFilter { machine: Some(machine), status: status.as_deref().and_then(status_of) };
    let mut after = token::read(next.as_deref())?;
    if after.as_deref().is_some_and(|id| id.parse::<crate::base::ExecutionId>().is_err()) {
        return Err(Refused::invalid_page_token());
    }
    let mut shown: Vec<Value> = Vec::new();
    // Lists of a version or an alias leave out what others started; the pages stay full.
    loop {
        let page = doors.reader.executions(&filter, after.as_deref(), limit - shown.len())?;
        let wanted = page.items.iter().filter(|e| qualifier.is_none() || e.machine.qualifier == qualifier);
        shown.extend(wanted.map(|e| summary(doors, e)));
        after = page.next;
        if shown.len() >= limit || after.is_none() {
            break;
        }
    }
    let mut answer = json!({"executions": shown});
    if let Some(next) = after {
        answer["nextToken"] = token::write(&next).into();
    }
    Ok(answer)
}

pub fn history(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    let limit = fields.max_results(100, 1000);
    let reverse = fields.flag("reverseOrder").unwrap_or(false);
    let include_data = fields.flag("includeExecutionData").unwrap_or(true);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let header = find(doors, &arn)?;
    let from = match token::read(next.as_deref())? {
        None => EventId(0),
        Some(number) => EventId(number.parse().map_err(|_| Refused::invalid_page_token())?),
    };
    let direction = if reverse { Direction::Backward } else { Direction::Forward };
    let mut events = doors.reader.history(header.id, from, limit + 1, direction)?;
    let next = events.get(limit).map(|event| event.id);
    events.truncate(limit);
    let mut answer = json!({"events": events.iter().map(|event| wire(event, include_data)).collect::<Vec<_>>()});
    if let Some(next) = next {
        answer["nextToken"] = token::write(&next.to_string()).into();
    }
    Ok(answer)
}

/// The execution of that ARN.
pub fn find(doors: &Doors, arn: &str) -> Result<Header, Refused> {
    let (machine, name) = doors.place.read_execution(arn)?;
    let missing = || Refused::no_execution(arn);
    let id = doors.reader.by_name(&machine, &name)?.ok_or_else(missing)?;
    doors.reader.header(id)?.ok_or_else(missing)
}

pub fn status_of(name: &str) -> Option<Status> {
    [Status::Running, Status::Succeeded, Status::Failed, Status::TimedOut, Status::Aborted, Status::PendingRedrive]
        .into_iter()
        .find(|status| status.name() == name)
}

pub fn redrivable(status: Status) -> bool {
    matches!(status, Status::Failed | Status::TimedOut | Status::Aborted)
}

fn summary(doors: &Doors, e: &ExecutionSummary) -> Value {
    let mut shown = json!({
        "executionArn": doors.place.execution(&e.machine.name, &e.name),
        "stateMachineArn": doors.place.machine(&e.machine.name),
        "name": e.name,
        "status": e.status.name(),
        "startDate": e.started_at.as_seconds(),
        "redriveCount": e.redrive_count,
    });
    put_time(&mut shown, "stopDate", e.stopped_at);
    qualify(&mut shown, doors, &e.machine);
    shown
}

fn qualify(answer: &mut Value, doors: &Doors, machine: &MachineRef) {
    if let Some(qualifier) = &machine.qualifier {
        let is_version = qualifier.bytes().all(|b| b.is_ascii_digit());
        let key = if is_version { "stateMachineVersionArn" } else { "stateMachineAliasArn" };
        answer[key] = doors.place.qualified(&machine.name, qualifier).into();
    }
}

fn put_time(answer: &mut Value, key: &str, at: Option<Timestamp>) {
    if let Some(at) = at {
        answer[key] = at.as_seconds().into();
    }
}
