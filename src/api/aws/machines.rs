//! State machines: create, update, delete, describe, list.

use conveyor_asl::{self as asl, Problem, Severity};
use conveyor_base::Timestamp;
use conveyor_base::limits::{NAME_CHARS_MAX, quotas};
use conveyor_run::{Changed, MachineChange, NewMachine};
use conveyor_store::{MachineKind, RevisionRow, Scans};
use serde_json::{Value, json};

use super::fields::Fields;
use super::settings::{self, Settings};
use super::{definitions, tags, token};
use crate::{ApiError, AppState, names};

pub const TYPES: &[&str] = &["EXPRESS", "STANDARD"];
pub const ARN_CHARS_MAX: usize = 256;
pub const DESCRIPTION_CHARS_MAX: usize = 256;
pub const INCLUDED: &[&str] = &["ALL_DATA", "METADATA_ONLY"];

pub async fn create(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let name = fields.named("name", NAME_CHARS_MAX);
    let definition = fields.named("definition", quotas().definition_bytes());
    let role_arn = fields.named("roleArn", ARN_CHARS_MAX);
    let kind = fields.one_of("type", TYPES);
    let settings = Settings::of(&mut fields);
    let tags = tags::of(&mut fields);
    let publish = publish(&mut fields);
    fields.done()?;
    names::check(&name)?;
    check_role(&role_arn)?;
    check_definition(app, &definition, kind.as_deref()).await?;
    settings.check()?;
    let new = NewMachine {
        name,
        definition,
        role_arn,
        express: kind.as_deref() == Some("EXPRESS"),
        settings: settings.over(""),
        tags: tags::added(&[], tags)?,
        publish: publish?,
    };
    let changed = app.handle.create_machine(new).await?;
    let created = Timestamp::from(changed.machine.created_at).as_seconds();
    let mut answer = json!({"stateMachineArn": app.arns.machine(&changed.machine.name), "creationDate": created});
    put_version(&mut answer, app, &changed);
    Ok(answer)
}

pub async fn update(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    let definition = fields.name("definition", quotas().definition_bytes());
    let role_arn = fields.name("roleArn", ARN_CHARS_MAX);
    let settings = Settings::of(&mut fields);
    let publish = publish(&mut fields);
    fields.done()?;
    let (name, qualifier) = app.arns.read_machine(&arn)?;
    if definition.is_none() && role_arn.is_none() && settings.is_empty() {
        return Err(ApiError::new(
            "MissingRequiredParameter",
            "Either the definition, the role ARN, the LoggingConfiguration, or the TracingConfiguration must be \
             specified",
        ));
    }
    // Versions and aliases have no definition of their own to change.
    let row = app.reader.machine(&name)?.filter(|_| qualifier.is_none()).ok_or_else(|| ApiError::no_machine(&arn))?;
    if let Some(definition) = &definition {
        check_definition(app, definition, Some(type_name(row.kind))).await?;
    }
    if let Some(role_arn) = &role_arn {
        check_role(role_arn)?;
    }
    settings.check()?;
    let before = app.reader.revision(&name, row.revision)?.map(|revision| revision.settings).unwrap_or_default();
    let settings = (!settings.is_empty()).then(|| settings.over(&before));
    let change = MachineChange { definition, role_arn, settings, publish: publish?, based_on: None };
    let changed = app.handle.update_machine(&name, change).await?;
    let mut answer = json!({"updateDate": Timestamp::from(changed.machine.updated_at).as_seconds()});
    if let Some(revision_id) = &changed.revision_id {
        answer["revisionId"] = revision_id.as_str().into();
    }
    put_version(&mut answer, app, &changed);
    Ok(answer)
}

pub async fn delete(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    fields.done()?;
    let (name, qualifier) = app.arns.read_machine(&arn)?;
    if qualifier.is_some() {
        return Err(ApiError::invalid_arn("Resource type not valid in this context: stateMachine version or alias"));
    }
    app.handle.delete_machine(&name).await?;
    Ok(json!({}))
}

pub fn describe(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    fields.one_of("includedData", INCLUDED);
    fields.done()?;
    let (name, qualifier) = app.arns.read_machine(&arn)?;
    let missing = || ApiError::no_machine(&arn);
    let row = app.reader.machine(&name)?.ok_or_else(missing)?;
    let version = match qualifier {
        None => None,
        Some(number) => {
            let number = number.parse().map_err(|_| missing())?;
            Some(app.reader.version(&name, number)?.ok_or_else(missing)?)
        }
    };
    let number = version.as_ref().map_or(row.revision, |version| version.revision);
    let revision = app.reader.revision(&name, number)?.ok_or_else(missing)?;
    let mut answer = common(&name, &revision);
    let created_at = version.as_ref().map_or(row.created_at, |version| version.created_at);
    if let Some(version) = version.filter(|version| !version.description.is_empty()) {
        answer["description"] = version.description.into();
    }
    answer["stateMachineArn"] = arn.into();
    answer["status"] = if row.deleting { "DELETING" } else { "ACTIVE" }.into();
    answer["type"] = type_name(row.kind).into();
    answer["creationDate"] = Timestamp::from(created_at).as_seconds().into();
    Ok(answer)
}

pub async fn describe_for_execution(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("executionArn", ARN_CHARS_MAX);
    fields.one_of("includedData", INCLUDED);
    fields.done()?;
    let header = super::executions::find(app, &arn).await?;
    let machine = &header.machine;
    let missing = || ApiError::no_machine(&app.arns.machine(&machine.name));
    let revision = app.reader.revision(&machine.name, machine.revision)?.ok_or_else(missing)?;
    let mut answer = common(&machine.name, &revision);
    answer["stateMachineArn"] = app.arns.machine(&machine.name).into();
    answer["updateDate"] = Timestamp::from(revision.created_at).as_seconds().into();
    Ok(answer)
}

pub fn list(app: &AppState, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let from = token::read(next.as_deref())?;
    let mut found = rows.machines(from.as_deref().map(token::name), limit + 1)?;
    let next = found.get(limit).map(|row| app.arns.machine(&row.name));
    found.truncate(limit);
    let shown = found.iter().filter(|row| !row.deleting).map(|row| {
        json!({
            "stateMachineArn": app.arns.machine(&row.name),
            "name": row.name,
            "type": type_name(row.kind),
            "creationDate": Timestamp::from(row.created_at).as_seconds(),
        })
    });
    let mut answer = json!({"stateMachines": shown.collect::<Vec<_>>()});
    token::put(&mut answer, next);
    Ok(answer)
}

fn common(name: &str, revision: &RevisionRow) -> Value {
    let mut answer = json!({"name": name, "definition": revision.definition, "roleArn": revision.role_arn});
    settings::show(&revision.settings, &mut answer);
    if let Some(revision_id) = &revision.revision_id {
        answer["revisionId"] = revision_id.as_str().into();
    }
    answer
}

fn put_version(answer: &mut Value, app: &AppState, changed: &Changed) {
    if let Some(version) = changed.version {
        answer["stateMachineVersionArn"] = app.arns.qualified(&changed.machine.name, &version.to_string()).into();
    }
}

/// The description of the version to be published, where one is. Only a request that is otherwise well is refused for
/// a description without a version.
fn publish(fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let publish = fields.flag("publish").unwrap_or(false);
    let description = fields.optional("versionDescription", DESCRIPTION_CHARS_MAX);
    match (publish, description) {
        (true, description) => Ok(Some(description.unwrap_or_default())),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(ApiError::validation("Version description can only be set when publish is true")),
    }
}

pub fn check_role(arn: &str) -> Result<(), ApiError> {
    match arn.starts_with("arn:aws") && arn.contains(":iam:") {
        true => Ok(()),
        false => Err(ApiError::invalid_arn(format_args!("Invalid ARN prefix: {arn}"))),
    }
}

async fn check_definition(app: &AppState, definition: &str, kind: Option<&str>) -> Result<(), ApiError> {
    let (definition, kind) = (definition.to_owned(), definitions::workflow_type(kind));
    match app.handle.analyse(move || asl::check(&definition, kind)).await? {
        (Some(_), _) => Ok(()),
        (None, problems) => Err(refuse_definition(problems)),
    }
}

/// What is said of a definition that is not one.
pub fn refuse_definition(problems: Vec<Problem>) -> ApiError {
    let errors: Vec<Problem> = problems.into_iter().filter(|p| p.severity == Severity::Error).collect();
    ApiError::new("InvalidDefinition", format!("Invalid State Machine Definition: '{}'", asl::describe(&errors)))
}

pub fn type_name(kind: MachineKind) -> &'static str {
    match kind {
        MachineKind::Standard => "STANDARD",
        MachineKind::Express => "EXPRESS",
    }
}
