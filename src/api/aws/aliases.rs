//! Aliases of state machines: create, update, describe, list, delete.

use conveyor_base::Timestamp;
use conveyor_base::limits::NAME_CHARS_MAX;
use conveyor_run::AliasChange;
use conveyor_store::{AliasRow, Route, Scans};
use serde_json::{Value, json};

use super::fields::Fields;
use super::machines::{ARN_CHARS_MAX, DESCRIPTION_CHARS_MAX};
use super::token;
use crate::{ApiError, Doors};

/// A name that could be a version's number is none.
const NAME_PATTERN: &str = r"^(?=.*[a-zA-Z_\-\.])[a-zA-Z0-9_\-\.]+$";
const ROUTES_MAX: usize = 2;

pub async fn create(doors: &Doors, mut fields: Fields) -> Result<Value, ApiError> {
    let description = fields.optional("description", DESCRIPTION_CHARS_MAX);
    let name = fields.named("name", NAME_CHARS_MAX);
    if !name.is_empty() && !is_name(&name) {
        let pattern = format!("Member must satisfy regular expression pattern: {NAME_PATTERN}");
        fields.refuse("name", &format!("'{name}'"), &pattern);
    }
    fields.need("routingConfiguration");
    let asked = routes(&mut fields).unwrap_or_default();
    fields.done()?;
    let (machine, routes) = check_routes(doors, &asked)?;
    let new = AliasChange { description, routes: Some(routes) };
    let row = doors.handle.create_alias(&machine, &name, new).await?;
    Ok(json!({
        "stateMachineAliasArn": doors.place.qualified(&machine, &name),
        "creationDate": Timestamp::from(row.created_at).as_seconds(),
    }))
}

pub async fn update(doors: &Doors, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineAliasArn", ARN_CHARS_MAX);
    let description = fields.optional("description", DESCRIPTION_CHARS_MAX);
    let asked = routes(&mut fields);
    fields.done()?;
    let (machine, name) = doors.place.read_alias(&arn)?;
    if description.is_none() && asked.is_none() {
        let words = "Either the description or the RoutingConfiguration must be specified";
        return Err(ApiError::new("MissingRequiredParameter", words));
    }
    let routes = match asked {
        None => None,
        Some(asked) => {
            let (target, routes) = check_routes(doors, &asked)?;
            if target != machine {
                return Err(not_versions(&asked));
            }
            Some(routes)
        }
    };
    let row = doors.handle.update_alias(&machine, &name, AliasChange { description, routes }).await?;
    Ok(json!({"updateDate": Timestamp::from(row.updated_at).as_seconds()}))
}

pub async fn delete(doors: &Doors, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineAliasArn", ARN_CHARS_MAX);
    fields.done()?;
    let (machine, name) = doors.place.read_alias(&arn)?;
    doors.handle.delete_alias(&machine, &name).await?;
    Ok(json!({}))
}

pub fn describe(doors: &Doors, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineAliasArn", ARN_CHARS_MAX);
    fields.done()?;
    let (machine, name) = doors.place.read_alias(&arn)?;
    let row = doors.reader.alias(&machine, &name)?.ok_or_else(ApiError::no_reference)?;
    let shown = row.routes.iter().map(|route| {
        let version = doors.place.qualified(&machine, &route.version.to_string());
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
pub fn list(doors: &Doors, rows: &Scans, mut fields: Fields) -> Result<Value, ApiError> {
    let arn = fields.named("stateMachineArn", ARN_CHARS_MAX);
    let limit = fields.max_results(100, 1000);
    let next = fields.name("nextToken", 1024);
    fields.done()?;
    let (machine, qualifier) = doors.place.read_machine(&arn)?;
    let missing = || ApiError::no_machine(&arn);
    doors.reader.machine(&machine)?.ok_or_else(missing)?;
    let mut found = rows.aliases(&machine)?;
    if let Some(version) = qualifier {
        let version: u64 = version.parse().map_err(|_| missing())?;
        found.retain(|(_, row)| row.routes.iter().any(|route| route.version == version));
    }
    found.sort_by_key(|(_, row): &(String, AliasRow)| row.created_at.0);
    let from = token::read(next.as_deref())?;
    let first = from.and_then(|text| found.iter().position(|(name, _)| name == token::name(&text))).unwrap_or(0);
    let next = found.get(first + limit).map(|(name, _)| doors.place.qualified(&machine, name));
    let shown = found.iter().skip(first).take(limit).map(|(name, row)| {
        json!({
            "stateMachineAliasArn": doors.place.qualified(&machine, name),
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
struct Asked {
    arn: String,
    weight: i64,
}

fn routes(fields: &mut Fields) -> Option<Vec<Asked>> {
    let mut asked = Vec::new();
    for mut inner in fields.each_inside("routingConfiguration")? {
        let arn = inner.named("stateMachineVersionArn", ARN_CHARS_MAX);
        inner.need("weight");
        let weight = inner.integer("weight", 0, 100).unwrap_or(0);
        fields.absorb(inner);
        asked.push(Asked { arn, weight });
    }
    let limit = match asked.len() {
        0 => "Member must have length greater than or equal to 1".to_owned(),
        count if count > ROUTES_MAX => format!("Member must have length less than or equal to {ROUTES_MAX}"),
        _ => return Some(asked),
    };
    let one =
        |a: &Asked| format!("RoutingConfigurationListItem(stateMachineVersionArn={}, weight={})", a.arn, a.weight);
    let shown: Vec<String> = asked.iter().map(one).collect();
    fields.refuse("routingConfiguration", &format!("'[{}]'", shown.join(", ")), &limit);
    Some(asked)
}

/// The machine whose versions are routed to, and the routes.
fn check_routes(doors: &Doors, asked: &[Asked]) -> Result<(String, Vec<Route>), ApiError> {
    let arns = || asked.iter().map(|a| a.arn.as_str()).collect::<Vec<_>>().join(", ");
    if asked.iter().enumerate().any(|(at, a)| asked[..at].iter().any(|b| a.arn == b.arn)) {
        let what =
            format!("Routing configuration must contain distinct state machine version ARNs. Received: [{}]", arns());
        return Err(ApiError::validation(what));
    }
    let mut machines = Vec::new();
    let mut routes = Vec::new();
    for a in asked {
        let Ok((machine, version)) = doors.place.read_version(&a.arn) else { return Err(not_versions(asked)) };
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

fn not_versions(asked: &[Asked]) -> ApiError {
    let arns = asked.iter().map(|a| a.arn.as_str()).collect::<Vec<_>>().join(", ");
    ApiError::validation(format!("Routing configuration must contain state machine version ARNs. Received: [{arns}]"))
}
