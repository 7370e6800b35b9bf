//! The context object, `$$`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::draft::Draft;
use super::execution::Branch;
use crate::base::TaskToken;

/// The context object as the branch sees it. The execution's part is made once in a step.
pub(super) fn of(draft: &mut Draft, branch: &Branch, token: Option<TaskToken>) -> Arc<Value> {
    let mut context = draft.context.take().unwrap_or_else(|| Arc::new(execution_part(draft)));
    if let Value::Object(fields) = Arc::make_mut(&mut context) {
        fields.insert("State".into(), state_part(branch));
        put(fields, "Task", token.map(|token| json!({"Token": token.to_string()})));
        let item = branch.map_item.as_ref();
        put(fields, "Map", item.map(|(index, value)| json!({"Item": {"Index": index, "Value": &**value}})));
    }
    draft.context = Some(context.clone());
    context
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

fn execution_part(draft: &Draft) -> Value {
    let (header, env) = (&draft.header, draft.env);
    let mut execution = json!({
        "Id": env.execution_arn(header),
        // The text was checked when the execution was started.
        "Input": serde_json::from_str::<Value>(&header.input).unwrap_or(Value::Null),
        "Name": header.name,
        "RoleArn": env.role_arn,
        "StartTime": header.started_at.to_string(),
    });
    if !env.express {
        execution["RedriveCount"] = json!(header.redrive_count);
    }
    json!({
        "Execution": execution,
        "StateMachine": {"Id": env.machine_arn, "Name": header.machine.name},
    })
}
