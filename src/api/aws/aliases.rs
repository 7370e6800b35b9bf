//! Aliases of state machines: create, update, describe, list, delete.

use conveyor_base::Timestamp;
use conveyor_base::limits::NAME_CHARS_MAX;
use conveyor_run::AliasChange;
use conveyor_store::{AliasRow, Route, Scans};
use serde_json::{Value, json};

use super::fields::Fields;
use super::machines::{ARN_CHARS_MAX, DESCRIPTION_CHARS_MAX};
use super::token;
use crate::{ApiError, AppState};

/// A name that could be a version's number is none.
const NAME_PATTERN: &str = r"^(?=.*[a-zA-Z_\-\.])[a-zA-Z0-9_\-\.]+$";
const ROUTES_MAX: usize = 2;

pub async fn create(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let description = fields.optional("description", DESCRIPTION_CHARS_MAX);
    let name = fields.named("name", NAME_CHARS_MAX);
    if !name.is_empty() && !is_name(&name) {
        let pattern = format!("Member must satisfy regular expression pattern: {NAME_PATTERN}");
        fields.refuse("name", &format!("'{name}'"), &pattern);
    }
    fields.require("routingConfiguration");
    let asked = routes(&mut fields).unwrap_or_default();
    fields.done()?;
    let (machine, routes) = check_routes(app, &asked)?;
    let new = AliasChange { description, routes: Some(routes) };
    let row = app.handle.create_alias(&machine, &name, new).await?;
    Ok(json!({
        "stateMachineAliasArn": app.arns.qualified(&machine, &name),
        "creationDate": Timestamp::from(row.created_at).as_seconds(),
    }))
}

pub async fn update(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineAliasArn", ARN_CHARS_MAX);
    let description = fields.optional("description", DESCRIPTION_CHARS_MAX);
    let asked = routes(&mut fields);
    fields.done()?;
    let (machine, name) = app.arns.read_alias(&arn)?;
    if description.is_none() && asked.is_none() {
        let words = "Either the description or the RoutingConfiguration must be specified";
        return Err(ApiError::new("MissingRequiredParameter", words));
    }
    let routes = match asked {
        None => None,
        Some(asked) => {
            let (target, routes) = check_routes(app, &asked)?;
            if target != machine {
                return Err(not_versions(&asked));
            }
            Some(routes)
        }
    };
    let row = app.handle.update_alias(&machine, &name, AliasChange { description, routes }).await?;
    Ok(json!({"updateDate": Timestamp::from(row.updated_at).as_seconds()}))
}

pub async fn delete(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineAliasArn", ARN_CHARS_MAX);
    fields.done()?;
    let (machine, name) = app.arns.read_alias(&arn)?;
    app.handle.delete_alias(&machine, &name).await?;
    Ok(json!({}))
}

pub fn describe(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineAliasArn", ARN_CHARS_MAX);
    fields.done()?;
    let (machine, name) = app.arns.read_alias(&arn)?;
    let row = app.reader.alias(&machine, &name)?.ok_or_else(ApiError::no_reference)?;
    let shown = row.routes.iter().map(|route| {
        let version = app.arns.qualified(&machine, &route.version.to_string());
        json!({"stateMachineVersionArn": version, "weight": route.weight_percent})
    });
    let mut answer = json!({
        "stateMachineAliasArn": arn,
        "name": name,
        "routingConfiguration": shown.collect::<Vec<_>>(),
        "creationDate": Timestamp::from(row.created_at).as_seconds(),
        "updateDate": Timestamp::from(row.updated_at).as_seconds(),
    });
    if !row.description.is_empty() {
        answer["description"] = row.description.into();
    }
    Ok(answer)
}

/// Of a version's ARN: the aliases that lead there.
pub fn list(app: &AppState, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let (machine, qualifier) = app.arns.read_machine(&arn)?;
    let missing = || ApiError::no_machine(&arn);
    app.reader.machine(&machine)?.ok_or_else(missing)?;
    let mut found = rows.aliases(&machine)?;
    if let Some(version) = qualifier {
        let version: u64 = version.parse().map_err(|_| missing())?;
        found.retain(|(_, row)| row.routes.iter().any(|route| route.version == version));
    }
    found.sort_by_key(|(_, row): &(String, AliasRow)| row.created_at.0);
    let from = token::read(next.as_deref())?;
    let first = from.and_then(|text| found.iter().position(|(name, _)| name == token::name(&text))).unwrap_or(0);
    let next = found.get(first + limit).map(|(name, _)| app.arns.qualified(&machine, name));
    let shown = found.iter().skip(first).take(limit).map(|(name, row)| {
        json!({
            "stateMachineAliasArn": app.arns.qualified(&machine, name),
            "creationDate": Timestamp::from(row.created_at).as_seconds(),
        })
    });
    let mut answer = json!({"stateMachineAliases": shown.collect::<Vec<_>>()});
    token::put(&mut answer, next);
    Ok(answer)
}

/// What [`NAME_PATTERN`] says.
fn is_name(name: &str) -> bool {
    let of_names = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    name.chars().all(of_names) && name.chars().any(|c| !c.is_ascii_digit())
}

/// A version's ARN and its weight, as they were asked for.
struct RequestedRoute {
    arn: String,
    weight: i64,
}

fn routes(fields: &mut Fields) -> Option<Vec<RequestedRoute>> {
    let mut asked = Vec::new();
    for mut inner in fields.each_inside("routingConfiguration")? {
        let arn = inner.named("stateMachineVersionArn", ARN_CHARS_MAX);
        inner.require("weight");
        let weight = inner.integer("weight", 0, 100).unwrap_or(0);
        fields.absorb(inner);
        asked.push(RequestedRoute { arn, weight });
    }
    let limit = match asked.len() {
        0 => "Member must have length greater than or equal to 1".to_owned(),
        count if count > ROUTES_MAX => format!("Member must have length less than or equal to {ROUTES_MAX}"),
        _ => return Some(asked),
    };
    let one = |a: &RequestedRoute| {
        format!("RoutingConfigurationListItem(stateMachineVersionArn={}, weight={})", a.arn, a.weight)
    };
    let shown: Vec<String> = asked.iter().map(one).collect();
    fields.refuse("routingConfiguration", &format!("'[{}]'", shown.join(", ")), &limit);
    Some(asked)
}

/// The machine whose versions are routed to, and the routes.
fn check_routes(app: &AppState, asked: &[RequestedRoute]) -> Result<(String, Vec<Route>), ApiError> {
    let arns = || asked.iter().map(|a| a.arn.as_str()).collect::<Vec<_>>().join(", ");
    if asked.iter().enumerate().any(|(at, a)| asked[..at].iter().any(|b| a.arn == b.arn)) {
        let what =
            format!("Routing configuration must contain distinct state machine version ARNs. Received: [{}]", arns());
        return Err(ApiError::validation(what));
    }
    let mut machines = Vec::new();
    let mut routes = Vec::new();
    for a in asked {
        let Ok((machine, version)) = app.arns.read_version(&a.arn) else { return Err(not_versions(asked)) };
        machines.push(machine);
        routes.push(Route { version, weight_percent: a.weight as u8 });
    }
    machines.dedup();
    let [machine] = machines.as_slice() else { return Err(not_versions(asked)) };
    if asked.iter().map(|a| a.weight).sum::<i64>() != 100 {
        let weights = asked.iter().map(|a| a.weight.to_string()).collect::<Vec<_>>().join(", ");
        let what = format!("Sum of routing configuration weights must equal 100. Received: [{weights}]");
        return Err(ApiError::validation(what));
    }
    Ok((machine.clone(), routes))
}

fn not_versions(asked: &[RequestedRoute]) -> ApiError {
    let arns = asked.iter().map(|a| a.arn.as_str()).collect::<Vec<_>>().join(", ");
    ApiError::validation(format!("Routing configuration must contain state machine version ARNs. Received: [{arns}]"))
}
