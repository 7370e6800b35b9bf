//! TestState: one state of a definition, tried out, with what its data is on the way.
//!
//! Owns the request's shape and the answer's. What the state does is decided by the interpreter
//! ([`inspect`]); what a mocked result may look like, by [`mock`].

mod mock;
mod models;

use std::sync::Arc;

use conveyor_asl::{self as asl, STATE_ALONE, State, StateMachine, Variables, WorkflowType};
use conveyor_base::Timestamp;
use conveyor_base::limits::{STATE_NAME_CHARS_MAX, quotas};
use conveyor_interpreter::{Ended, Env, Finding, Json, Mock, RunTask, Trial, inspect};
use conveyor_run::TaskOutcome;
use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::json_fault;
use super::machines::{ARN_CHARS_MAX, check_role, refuse_definition};
use crate::gate::Role;
use crate::{ApiError, AppState};
use mock::CheckedMock;

/// A request, read and checked for itself.
struct TestStateInput {
    definition: String,
    state_name: Option<String>,
    role_arn: Option<String>,
    input: Json,
    with_inspection: bool,
    variables: Variables,
    context: Option<Value>,
    mock: Option<CheckedMock>,
    retry_count: u32,
    failure_count: u32,
    items: Option<Vec<Value>>,
}

pub async fn test(app: &AppState, fields: Fields) -> Result<Value, ApiError> {
    let asked = TestStateInput::of(fields)?;
    let for_test = app.clone();
    let begun = move || {
        let tested = Tested::of(&for_test, asked)?;
        let mock = tested.asked.mock.as_ref().map(|mocked| mocked.mock.clone());
        let found = tested.attempt(mock)?;
        Ok::<_, ApiError>((tested, found))
    };
    let (tested, mut found) = app.handle.try_out(begun).await??;
    let with_inspection = tested.asked.with_inspection;
    if let Ended::Unanswered(task) = found.ended {
        // On AWS it takes the right to pass a role on (iam:PassRole): what a Task may do goes beyond what its caller may.
        if app.role < Role::Admin {
            let what =
                "Trying a Task for real needs the role admin, as changing a workflow does; with a mock an operator may";
            return Err(ApiError::new("AccessDeniedException", what));
        }
        let mock = carry_out(app, *task).await?;
        found = app.handle.try_out(move || tested.attempt(Some(mock))).await??;
    }
    Ok(answer(&found, with_inspection))
}

/// The Resource of the state that a request tries, as it stands there: also where the request is refused.
pub fn resource(asked: &Value) -> Option<String> {
    let definition: Value = serde_json::from_str(asked["definition"].as_str()?).ok()?;
    let state = match asked["stateName"].as_str() {
        Some(name) => named(&definition, name)?,
        None => &definition,
    };
    state["Resource"].as_str().map(str::to_owned)
}

/// The state of that name, at the top or within a Parallel or a Map. A request's JSON is not nested deeper than its reader
/// goes.
fn named<'d>(machine: &'d Value, name: &str) -> Option<&'d Value> {
    let states = machine["States"].as_object()?;
    states.get(name).or_else(|| {
        states.values().find_map(|state| {
            let within = ["ItemProcessor", "Iterator"].iter().map(|key| &state[*key]);
            within.chain(state["Branches"].as_array().into_iter().flatten()).find_map(|inner| named(inner, name))
        })
    })
}

/// A state that is being tried, with everything around it.
struct Tested {
    asked: TestStateInput,
    machine: StateMachine,
    env: Env,
    context: Value,
    at: Timestamp,
    seed: u128,
}

impl Tested {
    fn of(app: &AppState, asked: TestStateInput) -> Result<Tested, ApiError> {
        let (machine, problems) = match &asked.state_name {
            Some(_) => asl::check(&asked.definition, WorkflowType::Standard),
            None => asl::check_state(&asked.definition, WorkflowType::Standard),
        };
        let machine = machine.ok_or_else(|| refuse_definition(problems))?;
        let state = state_of(&machine, &asked)?;
        mock::check(state, asked.mock.as_ref())?;
        let no_role = || format!("arn:aws:iam::{}:role/none", app.arns.account);
        let role_arn = asked.role_arn.clone().unwrap_or_else(no_role);
        let run = uuid::Uuid::new_v4().to_string();
        let env = Env::new(&app.arns.region, &app.arns.account, &run, &role_arn);
        let context = asked.context.clone().unwrap_or_else(|| context(app, state, &asked, &run, &role_arn));
        let seed = uuid::Uuid::new_v4().as_u128();
        Ok(Tested { asked, machine, env, context, at: app.handle.wall(), seed })
    }

    /// Puts the input through the state; the mock answers for its work.
    fn attempt(&self, mock: Option<Mock>) -> Result<Finding, ApiError> {
        let trial = Trial {
            machine: &self.machine,
            state: state_of(&self.machine, &self.asked)?,
            input: self.asked.input.clone(),
            context: self.context.clone(),
            variables: self.asked.variables.clone(),
            retry_count: self.asked.retry_count,
            failure_count: self.asked.failure_count,
            items: self.asked.items.clone(),
            at: self.at,
            seed: self.seed,
            mock,
        };
        Ok(inspect(&trial, &self.env))
    }
}

fn state_of<'m>(machine: &'m StateMachine, asked: &TestStateInput) -> Result<&'m State, ApiError> {
    let name = asked.state_name.as_deref().unwrap_or(STATE_ALONE);
    machine.state(name).ok_or_else(|| ApiError::validation("State not found in definition"))
}

impl TestStateInput {
    fn of(mut fields: Fields) -> Result<TestStateInput, ApiError> {
        let definition = fields.named("definition", quotas().definition_bytes());
        let role_arn = fields.name("roleArn", ARN_CHARS_MAX);
        let input = fields.payload("input").unwrap_or_else(|| "{}".to_owned());
        let level = fields.one_of("inspectionLevel", &["INFO", "DEBUG", "TRACE"]);
        let reveal_secrets = fields.flag("revealSecrets").unwrap_or(false);
        let variables = fields.payload("variables");
        let state_name = fields.name("stateName", STATE_NAME_CHARS_MAX);
        let context = fields.payload("context");
        let mocked = mock::of(&mut fields);
        let (mut retry_count, mut failure_count, mut items) = (0, 0, None);
        if let Some(mut inner) = fields.inside("stateConfiguration") {
            let mut count = |key| inner.integer(key, 0, i32::MAX.into()).and_then(|n| n.try_into().ok()).unwrap_or(0);
            retry_count = count("retrierRetryCount");
            failure_count = count("mapIterationFailureCount");
            inner.name("errorCausedByState", STATE_NAME_CHARS_MAX);
            items = inner.payload("mapItemReaderData");
            fields.absorb(inner);
        }
        fields.done()?;
        if let Some(fault) = json_fault(&input) {
            let words = format!("Invalid State Machine Execution Input: '{fault}'");
            return Err(ApiError::new("InvalidExecutionInput", words));
        }
        if let Some(role_arn) = &role_arn {
            check_role(role_arn)?;
        }
        if reveal_secrets && mocked.is_some() {
            return Err(ApiError::validation("TestState does not support RevealSecrets when a mock is specified."));
        }
        let variables = object("variables", variables)?.unwrap_or_default();
        Ok(TestStateInput {
            definition,
            state_name,
            role_arn,
            input: input.into(),
            with_inspection: level.is_some_and(|level| level != "INFO"),
            variables: variables.into_iter().map(|(name, value)| (name, Arc::new(value))).collect(),
            context: object("context", context)?.map(Value::Object),
            mock: mocked.map(CheckedMock::read).transpose()?,
            retry_count,
            failure_count,
            items: items.map(|text| read_items(&text)).transpose()?,
        })
    }
}

/// A field that holds a JSON object as text.
fn object(key: &str, text: Option<String>) -> Result<Option<Map<String, Value>>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    match serde_json::from_str(&text) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        _ => Err(ApiError::validation(format!("The field '{key}' must be a valid JSON object."))),
    }
}

fn read_items(text: &str) -> Result<Vec<Value>, ApiError> {
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) => Ok(items),
        Ok(Value::Object(fields)) => Ok(fields.into_iter().map(|(k, v)| json!({"Key": k, "Value": v})).collect()),
        _ => Err(ApiError::validation("mapItemReaderData must be valid JSON: an array or an object.")),
    }
}

/// The context object of an execution that holds this state alone.
fn context(app: &AppState, state: &State, asked: &TestStateInput, run: &str, role_arn: &str) -> Value {
    let machine = uuid::Uuid::new_v4().to_string();
    let now = app.handle.wall().to_string();
    let mut context = json!({
        "Execution": {
            "Id": format!("arn:aws:states:{}:{}:express:{machine}:{run}", app.arns.region, app.arns.account),
            "Input": serde_json::from_str::<Value>(&asked.input).unwrap_or_default(),
            "Name": run,
            "RoleArn": role_arn,
            "StartTime": now,
        },
        "StateMachine": {"Id": app.arns.machine(&machine), "Name": machine},
        "State": {"Name": &*state.name, "EnteredTime": now, "RetryCount": asked.retry_count},
    });
    if matches!(&state.kind, asl::Kind::Task(task) if task.resource.ends_with(".waitForTaskToken")) {
        context["Task"] = json!({"Token": uuid::Uuid::new_v4().to_string()});
    }
    context
}

/// Runs a Task's resource once, outside of any execution.
async fn carry_out(app: &AppState, task: RunTask) -> Result<Mock, ApiError> {
    let failed = |e: conveyor_base::TaskError| Mock::Error { error: Some(e.error), cause: Some(e.cause) };
    Ok(match app.handle.try_task(task).await? {
        TaskOutcome::Succeeded(output) | TaskOutcome::Submitted { output } => Mock::Result(output),
        TaskOutcome::Failed(e) | TaskOutcome::SubmitFailed(e) | TaskOutcome::StartFailed(e) => failed(e),
    })
}

fn answer(found: &Finding, with_inspection: bool) -> Value {
    let (status, fails) = match found.ended {
        Ended::Succeeded => ("SUCCEEDED", false),
        Ended::Caught => ("CAUGHT_ERROR", true),
        Ended::Retriable { .. } => ("RETRIABLE", true),
        Ended::Failed | Ended::Unanswered(_) => ("FAILED", true),
    };
    let mut answer = json!({"status": status});
    let mut put = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            answer[key] = value.into();
        }
    };
    put("output", found.output.as_deref());
    put("nextState", found.next.as_deref());
    if fails {
        put("error", found.error.as_deref());
        put("cause", found.cause.as_deref());
    }
    if with_inspection {
        answer["inspectionData"] = inspection(found);
    }
    answer
}

fn inspection(found: &Finding) -> Value {
    let mut shown = Map::new();
    for (name, text) in &found.inspection {
        let value = match *name {
            // Numbers are shown as such; all else is JSON as text.
            "maxConcurrency" | "toleratedFailureCount" | "toleratedFailurePercentage" => {
                serde_json::from_str(text).unwrap_or_default()
            }
            _ => Value::from(&**text),
        };
        shown.insert((*name).to_owned(), value);
    }
    if !found.variables.is_empty() {
        let variables: Map<String, Value> =
            found.variables.iter().map(|(name, value)| (name.clone(), (**value).clone())).collect();
        shown.insert("variables".to_owned(), Value::Object(variables).to_string().into());
    }
    let mut details = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            details.insert(key.to_owned(), value);
        }
    };
    put("retryIndex", found.retry_index.map(Value::from));
    put("catchIndex", found.catch_index.map(Value::from));
    if let Ended::Retriable { backoff_seconds } = found.ended {
        put("retryBackoffIntervalSeconds", Some(Value::from(backoff_seconds.round() as i64)));
    }
    if !details.is_empty() {
        shown.insert("errorDetails".to_owned(), Value::Object(details));
    }
    Value::Object(shown)
}
