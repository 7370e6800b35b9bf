//! The context object, `$$`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::draft::Draft;
use super::execution::{Branch, Item};
use super::observer::Observer;
use crate::base::TaskToken;

/// Where the context object comes from.
pub(super) enum Context {
    /// Made when a state first reads it: that parses the execution's whole input.
    Unmade,
    /// As it was last made in this step.
    Made(Arc<Value>),
    /// Handed in whole by whoever tries a state out.
    Given(Arc<Value>),
}

/// The context object as the branch sees it. The execution's part is made once in a step.
pub(super) fn of(draft: &mut Draft<impl Observer>, branch: &Branch, token: Option<TaskToken>) -> Arc<Value> {
    let mut context = match std::mem::replace(&mut draft.context, Context::Unmade) {
        Context::Unmade => Arc::new(execution_part(draft)),
        Context::Made(context) => context,
        Context::Given(whole) => {
            draft.context = Context::Given(whole.clone());
            return whole;
        }
    };
    if let Value::Object(fields) = Arc::make_mut(&mut context) {
        fields.insert("State".into(), state_part(branch));
        put(fields, "Task", token.map(|token| json!({"Token": token.to_string()})));
        put(fields, "Map", branch.map_item.as_ref().map(|(index, item)| map_part(*index, item)));
    }
    draft.context = Context::Made(context.clone());
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

fn execution_part(draft: &Draft<impl Observer>) -> Value {
    let (header, env) = (&draft.header, draft.env);
    let mut execution = json!({
        "Id": env.execution_arn(header),
        // The text was checked when the execution was started.
        "Input": serde_json::from_str::<Value>(&header.input).unwrap_or(Value::Null),
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
