//! State machines: create, update, delete, describe, list.

use serde_json::{Value, json};

use super::fields::Fields;
use super::{definitions, token};
use crate::api::{Doors, Refused, names};
use crate::asl::{self, Problem, Severity};
use crate::base::Timestamp;
use crate::base::limits::{DEFINITION_BYTES_MAX, NAME_CHARS_MAX};
use crate::run::{MachineChange, NewMachine};
use crate::store::{MachineKind, MachineRow, RevisionRow};

pub const TYPES: &[&str] = &["EXPRESS", "STANDARD"];
const ARN_CHARS_MAX: usize = 256;

pub async fn create(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let name = fields.named("name", NAME_CHARS_MAX);
    let definition = fields.named("definition", DEFINITION_BYTES_MAX);
    let role_arn = fields.named("roleArn", ARN_CHARS_MAX);
    let kind = fields.one_of("type", TYPES);
    unsupported(&mut fields, "publish")?;
    fields.done()?;
    names::check(&name)?;
    check_role(&role_arn)?;
    check_definition(&definition, kind.as_deref())?;
    let settings = settings(&fields, None)?;
    let new = NewMachine { name, definition, role_arn, express: kind.as_deref() == Some("EXPRESS"), settings };
    let row = doors.handle.create_machine(new).await?;
    let created = Timestamp::from(row.created_at).as_seconds();
    Ok(json!({"stateMachineArn": doors.place.machine(&row.name), "creationDate": created}))
}

pub async fn update(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    let definition = fields.name("definition", DEFINITION_BYTES_MAX);
    let role_arn = fields.name("roleArn", ARN_CHARS_MAX);
    unsupported(&mut fields, "publish")?;
    fields.done()?;
    let (name, _) = doors.place.read_machine(&arn)?;
    let has_settings = fields.value("loggingConfiguration").or(fields.value("tracingConfiguration")).is_some();
    if definition.is_none() && role_arn.is_none() && !has_settings {
        return Err(Refused::new(
            "MissingRequiredParameter",
            "Either the definition, the role ARN, the LoggingConfiguration, or the TracingConfiguration must be \
             specified",
        ));
    }
    let row = doors.reader.machine(&name)?.filter(|row| !row.deleting).ok_or_else(|| Refused::no_machine(&arn))?;
    if let Some(definition) = &definition {
        check_definition(definition, Some(type_name(row.kind)))?;
    }
    if let Some(role_arn) = &role_arn {
        check_role(role_arn)?;
    }
    let settings = has_settings.then(|| settings(&fields, Some(&row.settings))).transpose()?;
    let row = doors.handle.update_machine(&name, MachineChange { definition, role_arn, settings }).await?;
    let mut answer = json!({"updateDate": Timestamp::from(row.updated_at).as_seconds()});
    if let Some(revision) = doors.reader.revision(&row.name, row.revision)?.filter(|r| !r.revision_id.is_empty()) {
        answer["revisionId"] = revision.revision_id.into();
    }
    Ok(answer)
}

pub async fn delete(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    fields.done()?;
    let (name, qualifier) = doors.place.read_machine(&arn)?;
    if qualifier.is_some() {
        return Err(Refused::invalid_arn("Resource type not valid in this context: stateMachine version or alias"));
    }
    doors.handle.delete_machine(&name).await?;
    Ok(json!({}))
}

pub fn describe(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    fields.done()?;
    let (name, qualifier) = doors.place.read_machine(&arn)?;
    let missing = || Refused::no_machine(&arn);
    let row = doors.reader.machine(&name)?.ok_or_else(missing)?;
    let number = match qualifier {
        None => row.revision,
        Some(qualifier) => revision_of(doors, &name, &qualifier, &arn)?,
    };
    let revision = doors.reader.revision(&name, number)?.ok_or_else(missing)?;
    let mut answer = common(&row, &revision);
    answer["stateMachineArn"] = arn.into();
    answer["status"] = if row.deleting { "DELETING" } else { "ACTIVE" }.into();
    answer["type"] = type_name(row.kind).into();
    answer["creationDate"] = Timestamp::from(row.created_at).as_seconds().into();
    Ok(answer)
}

pub fn describe_for_execution(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    fields.done()?;
    let header = super::executions::find(doors, &arn)?;
    let machine = &header.machine;
    let missing = || Refused::no_machine(&doors.place.machine(&machine.name));
    let revision = doors.reader.revision(&machine.name, machine.revision)?.ok_or_else(missing)?;
    let row = doors.reader.machine(&machine.name)?.ok_or_else(missing)?;
    let mut answer = common(&row, &revision);
    answer["stateMachineArn"] = doors.place.machine(&machine.name).into();
    answer["updateDate"] = Timestamp::from(revision.created_at).as_seconds().into();
    Ok(answer)
}

pub fn list(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let after = token::read(next.as_deref())?;
    let mut rows = doors.reader.machines(after.as_deref(), limit + 1)?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let shown = rows.iter().filter(|row| !row.deleting).map(|row| {
        json!({
            "stateMachineArn": doors.place.machine(&row.name),
            "name": row.name,
            "type": type_name(row.kind),
            "creationDate": Timestamp::from(row.created_at).as_seconds(),
        })
    });
    let mut answer = json!({"stateMachines": shown.collect::<Vec<_>>()});
    if let Some(last) = rows.last().filter(|_| more) {
        answer["nextToken"] = token::write(&last.name).into();
    }
    Ok(answer)
}

/// The revision that a published version names.
pub fn revision_of(doors: &Doors, name: &str, qualifier: &str, arn: &str) -> Result<u64, Refused> {
    let missing = || Refused::no_machine(arn);
    let version = qualifier.parse().map_err(|_| missing())?;
    Ok(doors.reader.version(name, version)?.ok_or_else(missing)?.revision)
}

fn common(row: &MachineRow, revision: &RevisionRow) -> Value {
    let settings: Value = serde_json::from_str(&row.settings).unwrap_or_default();
    let setting = |key: &str, default: Value| match &settings[key] {
        Value::Null => default,
        value => value.clone(),
    };
    let mut answer = json!({
        "name": row.name,
        "definition": revision.definition,
        "roleArn": revision.role_arn,
        "loggingConfiguration": setting("loggingConfiguration", json!({"level": "OFF", "includeExecutionData": false})),
        "tracingConfiguration": setting("tracingConfiguration", json!({"enabled": false})),
    });
    // A machine that was never updated has no revision id on AWS.
    if row.updated_at != row.created_at {
        answer["revisionId"] = revision.revision_id.as_str().into();
    }
    answer
}

/// The settings that the request carries, over those that stood before.
fn settings(fields: &Fields, before: Option<&str>) -> Result<String, Refused> {
    let mut all: Value = before.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| json!({}));
    for key in ["loggingConfiguration", "tracingConfiguration", "tags", "encryptionConfiguration"] {
        if let Some(value) = fields.value(key) {
            all[key] = value.clone();
        }
    }
    let logging = &mut all["loggingConfiguration"];
    if logging["destinations"].as_array().is_some_and(|destinations| destinations.len() > 1) {
        let words = "Invalid Logging Configuration: Must specify exactly one Log Destination.";
        return Err(Refused::new("InvalidLoggingConfiguration", words));
    }
    if let Value::Object(logging) = logging {
        logging.entry("level").or_insert_with(|| "OFF".into());
        logging.entry("includeExecutionData").or_insert(false.into());
    }
    Ok(all.to_string())
}

/// Versions are not published by this door yet: said, rather than ignored.
fn unsupported(fields: &mut Fields, key: &str) -> Result<(), Refused> {
    match fields.flag(key) {
        Some(true) => Err(Refused::validation(format!("'{key}' is not supported by this box yet"))),
        _ => Ok(()),
    }
}

fn check_role(arn: &str) -> Result<(), Refused> {
    match arn.starts_with("arn:aws") && arn.contains(":iam:") {
        true => Ok(()),
        false => Err(Refused::invalid_arn(format_args!("Invalid ARN prefix: {arn}"))),
    }
}

fn check_definition(definition: &str, kind: Option<&str>) -> Result<(), Refused> {
    let (_, problems) = asl::check(definition, definitions::workflow_type(kind));
    let errors: Vec<Problem> = problems.into_iter().filter(|p| p.severity == Severity::Error).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let words = format!("Invalid State Machine Definition: '{}'", asl::describe(&errors));
    Err(Refused::new("InvalidDefinition", words))
}

fn type_name(kind: MachineKind) -> &'static str {
    match kind {
        MachineKind::Standard => "STANDARD",
        MachineKind::Express => "EXPRESS",
    }
}
