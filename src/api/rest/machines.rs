//! Workflows over REST: definitions, revisions, versions, aliases; what is wrong with a definition; one state tried.
//!
//! The rules are the AWS door's: changes of aliases, and trying a state, are its operations with shorter names.

use axum::extract::{Json, Path, State};
use conveyor_asl::{self as asl, Severity, WorkflowType};
use conveyor_run::{MachineChange, NewMachine};
use conveyor_store::{MachineKind, MachineRow, Scans};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Body, Fresh};
use crate::{ApiError, Doors, aws, names};

const MACHINES_MAX: usize = 1000;
const VERSIONS_SHOWN: usize = 200;
/// The role that a workflow made here names. The box asks no IAM.
const ROLE: &str = "role/conveyor";

pub async fn all(State(doors): State<Doors>) -> Answer {
    doors.reading(listed).await
}

fn listed(doors: &Doors, rows: &Scans) -> Answer {
    let counts = rows.counts();
    let machines = rows.machines(None, MACHINES_MAX)?;
    let shown = machines.iter().filter(|row| !row.deleting).map(|row| {
        let counts: Map<String, Value> = counts
            .iter()
            .filter(|((machine, _), _)| *machine == row.name)
            .map(|((_, status), n)| (status.name().to_owned(), (*n).into()))
            .collect();
        let mut shown = brief(doors, row);
        shown["executions"] = Value::Object(counts);
        shown
    });
    Ok(Fresh(json!({"machines": shown.collect::<Vec<_>>()})))
}

fn brief(doors: &Doors, row: &MachineRow) -> Value {
    json!({"name": row.name, "arn": doors.place.machine(&row.name), "revision": row.revision,
        "type": kind(row), "versions": row.version, "createdAt": row.created_at.0, "updatedAt": row.updated_at.0})
}

fn kind(row: &MachineRow) -> &'static str {
    match row.kind {
        MachineKind::Standard => "STANDARD",
        MachineKind::Express => "EXPRESS",
    }
}

fn find(doors: &Doors, name: &str) -> Result<MachineRow, ApiError> {
    let row = doors.reader.machine(name)?;
    row.ok_or_else(|| ApiError::no_machine(&doors.place.machine(name)))
}

pub async fn one(State(doors): State<Doors>, Path(name): Path<String>) -> Answer {
    shown(&doors, name).await
}

/// With what the checks say of the definition, which may take seconds.
async fn shown(doors: &Doors, name: String) -> Answer {
    let look = doors.clone();
    doors.handle.analyse(move || whole(&look, &look.reader.on_this_thread(), &name)).await?
}

fn whole(doors: &Doors, rows: &Scans, name: &str) -> Answer {
    let row = find(doors, name)?;
    let Fresh(definition) = definition_of(doors, name, row.revision)?;
    let versions = rows.versions(name, None, VERSIONS_SHOWN)?;
    let aliases = rows.aliases(name)?;
    let mut answer = brief(doors, &row);
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
    Ok(Fresh(answer))
}

pub async fn revision(State(doors): State<Doors>, Path((name, revision)): Path<(String, u64)>) -> Answer {
    definition(&doors, name, revision).await
}

/// A revision's definition with what the checks say of it, which may take seconds.
pub async fn definition(doors: &Doors, name: String, revision: u64) -> Answer {
    let look = doors.clone();
    doors.handle.analyse(move || definition_of(&look, &name, revision)).await?
}

fn definition_of(doors: &Doors, name: &str, revision: u64) -> Answer {
    let missing = || ApiError::new("ResourceNotFound", format!("Revision {revision} of '{name}' is gone"));
    let row = doors.reader.revision(name, revision)?.ok_or_else(missing)?;
    let kind = doors.reader.machine(name)?.map_or(MachineKind::Standard, |row| row.kind);
    Ok(Fresh(json!({"machine": name, "revision": revision, "definition": row.definition, "roleArn": row.role_arn,
        "createdAt": row.created_at.0, "problems": problems(&row.definition, kind == MachineKind::Express)})))
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

pub async fn create(doors: Doors, body: Body<NewBody>) -> Answer {
    let Json(body) = super::body(body)?;
    names::check(&body.name)?;
    let new = NewMachine {
        name: body.name.clone(),
        definition: body.definition,
        role_arn: format!("arn:aws:iam::{}:{ROLE}", doors.place.account),
        express: body.express,
        publish: Some("Made on the dashboard".to_owned()),
        ..NewMachine::default()
    };
    doors.handle.create_machine(new).await?;
    shown(&doors, body.name).await
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

pub async fn update(doors: Doors, Path(name): Path<String>, body: Body<ChangeBody>) -> Answer {
    let Json(body) = super::body(body)?;
    let row = find(&doors, &name)?;
    if let Some(based_on) = body.based_on.filter(|revision| *revision != row.revision) {
        let what = format!(
            "'{name}' is at revision {} by now, and this change was made to revision {based_on}; look at it first",
            row.revision
        );
        return Err(ApiError::new("ConflictException", what));
    }
    let change = MachineChange { definition: Some(body.definition), publish: body.publish, ..MachineChange::default() };
    doors.handle.update_machine(&name, change).await?;
    shown(&doors, name).await
}

pub async fn delete(doors: Doors, Path(name): Path<String>) -> Answer {
    find(&doors, &name)?;
    doors.handle.delete_machine(&name).await?;
    Ok(Fresh(json!({})))
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

pub async fn put_alias(doors: Doors, Path((name, alias)): Path<(String, String)>, body: Body<AliasBody>) -> Answer {
    let Json(body) = super::body(body)?;
    let routes = body.routes.iter().map(|route| {
        let version = doors.place.qualified(&name, &route.version.to_string());
        json!({"stateMachineVersionArn": version, "weight": route.weight})
    });
    let routes: Vec<Value> = routes.collect();
    let mut asked = json!({"description": body.description, "routingConfiguration": routes});
    let operation = match doors.reader.alias(&name, &alias)? {
        Some(_) => {
            asked["stateMachineAliasArn"] = doors.place.qualified(&name, &alias).into();
            "UpdateStateMachineAlias"
        }
        None => {
            asked["name"] = alias.into();
            "CreateStateMachineAlias"
        }
    };
    aws::call(&doors, operation, asked.to_string().as_bytes()).await.map(Fresh)
}

pub async fn delete_alias(doors: Doors, Path((name, alias)): Path<(String, String)>) -> Answer {
    doors.handle.delete_alias(&name, &alias).await?;
    Ok(Fresh(json!({})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidateBody {
    definition: String,
    #[serde(default)]
    express: bool,
}

pub async fn validate(State(doors): State<Doors>, body: Body<ValidateBody>) -> Answer {
    let Json(body) = super::body(body)?;
    let problems = doors.handle.analyse(move || problems(&body.definition, body.express)).await?;
    Ok(Fresh(json!({"problems": problems})))
}

/// TestState's own fields, `definition` and `input` among them.
pub async fn test_state(doors: Doors, body: Body<Map<String, Value>>) -> Answer {
    let Json(mut asked) = super::body(body)?;
    asked.entry("inspectionLevel").or_insert_with(|| "DEBUG".into());
    aws::call(&doors, "TestState", Value::Object(asked).to_string().as_bytes()).await.map(Fresh)
}
