//! The context object, `$$`.

use std::sync::Arc;

use conveyor_asl::ContextUse;
use conveyor_base::TaskToken;
use serde_json::{Map, Value, json};

use super::draft::Draft;
use super::execution::{Branch, Item};
use super::observer::Observer;

/// Where the context object comes from.
pub(super) enum Context {
    /// Made when a state first reads it.
    Unmade,
    /// As it was last made in this step, and how much of it.
    Made(Arc<Value>, ContextUse),
    /// Handed in whole by whoever tries a state out.
    Given(Arc<Value>),
}

/// What is read of the context object, as the branch sees it. The execution's part is made once in a step.
pub(super) fn of(
    draft: &mut Draft<impl Observer>,
    branch: &Branch,
    token: Option<TaskToken>,
    read: ContextUse,
) -> Arc<Value> {
    if let Context::Given(whole) = &draft.context {
        return whole.clone();
    }
    if read == ContextUse::Nothing {
        return Arc::new(Value::Null);
    }
    let (mut context, made) = match std::mem::replace(&mut draft.context, Context::Unmade) {
        Context::Made(context, made) if made >= read => (context, made),
        _ => (Arc::new(execution_part(draft, read)), read),
    };
    if let Value::Object(fields) = Arc::make_mut(&mut context) {
        fields.insert("State".into(), state_part(branch));
        put(fields, "Task", token.map(|token| json!({"Token": token.to_string()})));
        put(fields, "Map", branch.map_item.as_ref().map(|(index, item)| map_part(*index, item)));
    }
    draft.context = Context::Made(context.clone(), made);
    context
}

/// `$$.Map`.
pub(super) fn map_part(index: u32, item: &Item) -> Value {
    let mut shown = json!({"Index": index});
    if let Some(key) = &item.key {
        shown["Key"] = json!(&**key);
    }
    shown["Value"] = (*item.value).clone();
    if let Some(source) = &item.source {
        shown["Source"] = json!(&**source);
    }
    json!({"Item": shown})
}

fn put(fields: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => fields.insert(key.into(), value),
        None => fields.shift_remove(key),
    };
}

fn state_part(branch: &Branch) -> Value {
    let mut state = json!({"Name": &*branch.state, "EnteredTime": branch.state_entered_at.to_string()});
    if !branch.retries.is_empty() {
        state["RetryCount"] = json!(branch.retries.iter().sum::<u32>());
    }
    state
}

fn execution_part(draft: &Draft<impl Observer>, read: ContextUse) -> Value {
    let (header, env) = (&draft.header, draft.env);
    let input = match read {
        // The text was checked when the execution was started.
        ContextUse::Whole => serde_json::from_str::<Value>(&header.input).unwrap_or(Value::Null),
        // To parse it would cost every branch of a wide execution what all of them were given.
        ContextUse::Parts | ContextUse::Nothing => Value::Null,
    };
    let mut execution = json!({
        "Id": env.execution_arn(header),
        "Input": input,
        "Name": header.name,
        "RoleArn": env.role_arn,
        "StartTime": header.started_at.to_string(),
    });
    if !env.is_express(header) {
        execution["RedriveCount"] = json!(header.redrive_count);
    }
    let machine_arn = match &header.child {
        None => env.machine_arn.clone(),
        Some(child) => format!("{}/{}", env.machine_arn, child.label),
    };
    json!({
        "Execution": execution,
        "StateMachine": {"Id": machine_arn, "Name": header.arn_machine()},
    })
}
