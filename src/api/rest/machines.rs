//! Workflows over REST: definitions, revisions, versions, aliases; what is wrong with a definition; one state tried.
//!
//! The rules are the AWS API's: changes of aliases, and trying a state, are its operations with shorter names.

use axum::extract::{Json, State};
use conveyor_asl::{self as asl, Severity, WorkflowType};
use conveyor_run::{MachineChange, NewMachine};
use conveyor_store::{MachineKind, MachineRow, Scans};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Body, JsonResult, NoStoreJson, Path};
use crate::{ApiError, AppState, aws, names};

const MACHINES_MAX: usize = 1000;
const VERSIONS_SHOWN: usize = 200;
/// The role that a workflow made here names. The box asks no IAM.
const ROLE: &str = "role/conveyor";

pub async fn all(State(app): State<AppState>) -> JsonResult {
    app.reading(listed).await
}

fn listed(app: &AppState, rows: &Scans) -> JsonResult {
    let counts = rows.counts();
    let machines = rows.machines(None, MACHINES_MAX)?;
    let shown = machines.iter().filter(|row| !row.deleting).map(|row| {
        let counts: Map<String, Value> = counts
            .iter()
            .filter(|((machine, _), _)| *machine == row.name)
            .map(|((_, status), n)| (status.name().to_owned(), (*n).into()))
            .collect();
        let mut shown = brief(app, row);
        shown["executions"] = Value::Object(counts);
        shown
    });
    Ok(NoStoreJson(json!({"machines": shown.collect::<Vec<_>>()})))
}

fn brief(app: &AppState, row: &MachineRow) -> Value {
    json!({"name": row.name, "arn": app.arns.machine(&row.name), "revision": row.revision,
        "type": kind(row), "versions": row.version, "createdAt": row.created_at.0, "updatedAt": row.updated_at.0})
}

fn kind(row: &MachineRow) -> &'static str {
    match row.kind {
        MachineKind::Standard => "STANDARD",
        MachineKind::Express => "EXPRESS",
    }
}

fn find(app: &AppState, name: &str) -> Result<MachineRow, ApiError> {
    let row = app.reader.machine(name)?;
    row.ok_or_else(|| ApiError::no_machine(&app.arns.machine(name)))
}

pub async fn one(State(app): State<AppState>, Path(name): Path<String>) -> JsonResult {
    shown(&app, name).await
}

/// With what the checks say of the definition, which may take seconds.
async fn shown(app: &AppState, name: String) -> JsonResult {
    let look = app.clone();
    app.handle.analyse(move || whole(&look, &look.reader.on_this_thread(), &name)).await?
}

fn whole(app: &AppState, rows: &Scans, name: &str) -> JsonResult {
    let row = find(app, name)?;
    let NoStoreJson(definition) = definition_of(app, name, row.revision)?;
    let versions = rows.versions(name, None, VERSIONS_SHOWN)?;
    let aliases = rows.aliases(name)?;
    let mut answer = brief(app, &row);
    answer["definition"] = definition["definition"].clone();
    answer["problems"] = definition["problems"].clone();
    answer["roleArn"] = definition["roleArn"].clone();
    answer["tags"] = row.tags.iter().map(|tag| json!({"key": tag.key, "value": tag.value})).collect();
    answer["publishedVersions"] = versions
        .iter()
        .map(|(number, v)| {
            json!({"version": number, "revision": v.revision, "description": v.description,
            "createdAt": v.created_at.0})
        })
        .collect();
    answer["aliases"] = aliases
        .iter()
        .map(|(alias, row)| {
            let routes = row.routes.iter().map(|r| json!({"version": r.version, "weight": r.weight_percent}));
            json!({"name": alias, "description": row.description, "updatedAt": row.updated_at.0,
                "routes": routes.collect::<Vec<_>>()})
        })
        .collect();
    Ok(NoStoreJson(answer))
}

pub async fn revision(State(app): State<AppState>, Path((name, revision)): Path<(String, u64)>) -> JsonResult {
    definition(&app, name, revision).await
}

/// A revision's definition with what the checks say of it, which may take seconds.
pub async fn definition(app: &AppState, name: String, revision: u64) -> JsonResult {
    let look = app.clone();
    app.handle.analyse(move || definition_of(&look, &name, revision)).await?
}

fn definition_of(app: &AppState, name: &str, revision: u64) -> JsonResult {
    let missing = || ApiError::new("ResourceNotFound", format!("Revision {revision} of '{name}' is gone"));
    let row = app.reader.revision(name, revision)?.ok_or_else(missing)?;
    let kind = app.reader.machine(name)?.map_or(MachineKind::Standard, |row| row.kind);
    Ok(NoStoreJson(
        json!({"machine": name, "revision": revision, "definition": row.definition, "roleArn": row.role_arn,
        "createdAt": row.created_at.0, "problems": problems(&row.definition, kind == MachineKind::Express)}),
    ))
}

fn problems(definition: &str, express: bool) -> Vec<Value> {
    let kind = if express { WorkflowType::Express } else { WorkflowType::Standard };
    let (machine, mut problems) = asl::review(definition, kind, None);
    if machine.is_some() {
        // What can never happen is no reason to refuse: such a definition is accepted.
        problems.iter_mut().for_each(|problem| problem.severity = Severity::Warning);
    }
    let shown = |p: &asl::Problem| {
        json!({"code": p.code, "message": p.message, "pointer": p.pointer, "line": p.line, "column": p.column,
            "severity": if p.severity == Severity::Error { "error" } else { "warning" }})
    };
    problems.iter().map(shown).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBody {
    name: String,
    definition: String,
    #[serde(default)]
    express: bool,
}

pub async fn create(app: AppState, body: Body<NewBody>) -> JsonResult {
    let Json(body) = super::body(body)?;
    names::check(&body.name)?;
    let new = NewMachine {
        name: body.name.clone(),
        definition: body.definition,
        role_arn: format!("arn:aws:iam::{}:{ROLE}", app.arns.account),
        express: body.express,
        publish: Some("Made on the dashboard".to_owned()),
        ..NewMachine::default()
    };
    app.handle.create_machine(new).await?;
    shown(&app, body.name).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeBody {
    definition: String,
    /// The revision that was changed: another one meanwhile refuses the change.
    based_on: Option<u64>,
    /// Publishes the outcome as a version with this description.
    publish: Option<String>,
}

pub async fn update(app: AppState, Path(name): Path<String>, body: Body<ChangeBody>) -> JsonResult {
    let Json(body) = super::body(body)?;
    find(&app, &name)?;
    let change = MachineChange {
        definition: Some(body.definition),
        publish: body.publish,
        based_on: body.based_on,
        ..MachineChange::default()
    };
    app.handle.update_machine(&name, change).await?;
    shown(&app, name).await
}

pub async fn delete(app: AppState, Path(name): Path<String>) -> JsonResult {
    find(&app, &name)?;
    app.handle.delete_machine(&name).await?;
    Ok(NoStoreJson(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasBody {
    #[serde(default)]
    description: String,
    routes: Vec<RouteBody>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteBody {
    version: u64,
    weight: u8,
}

pub async fn put_alias(
    app: AppState,
    Path((name, alias)): Path<(String, String)>,
    body: Body<AliasBody>,
) -> JsonResult {
    let Json(body) = super::body(body)?;
    let routes = body.routes.iter().map(|route| {
        let version = app.arns.qualified(&name, &route.version.to_string());
        json!({"stateMachineVersionArn": version, "weight": route.weight})
    });
    let routes: Vec<Value> = routes.collect();
    let mut asked = json!({"description": body.description, "routingConfiguration": routes});
    let operation = match app.reader.alias(&name, &alias)? {
        Some(_) => {
            asked["stateMachineAliasArn"] = app.arns.qualified(&name, &alias).into();
            "UpdateStateMachineAlias"
        }
        None => {
            asked["name"] = alias.into();
            "CreateStateMachineAlias"
        }
    };
    aws::call(&app, operation, asked.to_string().as_bytes()).await.map(NoStoreJson)
}

pub async fn delete_alias(app: AppState, Path((name, alias)): Path<(String, String)>) -> JsonResult {
    app.handle.delete_alias(&name, &alias).await?;
    Ok(NoStoreJson(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidateBody {
    definition: String,
    #[serde(default)]
    express: bool,
}

pub async fn validate(State(app): State<AppState>, body: Body<ValidateBody>) -> JsonResult {
    let Json(body) = super::body(body)?;
    let problems = app.handle.analyse(move || problems(&body.definition, body.express)).await?;
    Ok(NoStoreJson(json!({"problems": problems})))
}

/// TestState's own fields, `definition` and `input` among them.
pub async fn test_state(app: AppState, body: Body<Map<String, Value>>) -> JsonResult {
    let Json(mut asked) = super::body(body)?;
    asked.entry("inspectionLevel").or_insert_with(|| "DEBUG".into());
    aws::call(&app, "TestState", Value::Object(asked).to_string().as_bytes()).await.map(NoStoreJson)
}
