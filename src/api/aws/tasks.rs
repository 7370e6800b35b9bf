//! SendTaskSuccess, SendTaskFailure, SendTaskHeartbeat: work that somebody outside does.

use conveyor_base::TaskToken;
use conveyor_base::limits::{CAUSE_CHARS_MAX, ERROR_CHARS_MAX};
use serde_json::{Value, json};

use super::fields::Fields;
use crate::{ApiError, AppState};

const TOKEN_CHARS_MAX: usize = 2048;

pub async fn succeeded(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let token = fields.named("taskToken", TOKEN_CHARS_MAX);
    let output = fields.required_payload("output");
    fields.done()?;
    // AWS looks at the token before it looks at what was reported.
    token.parse::<TaskToken>().map_err(|_| ApiError::invalid_token())?;
    if let Some(fault) = super::json_fault(&output) {
        return Err(ApiError::new("InvalidOutput", format!("Invalid Output: '{fault}'")));
    }
    app.handle.send_task_success(&token, output.into()).await?;
    Ok(json!({}))
}

pub async fn failed(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let token = fields.named("taskToken", TOKEN_CHARS_MAX);
    let error = fields.optional("error", ERROR_CHARS_MAX);
    let cause = fields.optional("cause", CAUSE_CHARS_MAX);
    fields.done()?;
    app.handle.send_task_failure(&token, error, cause).await?;
    Ok(json!({}))
}

pub async fn heartbeat(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let token = fields.named("taskToken", TOKEN_CHARS_MAX);
    fields.done()?;
    app.handle.send_task_heartbeat(&token).await?;
    Ok(json!({}))
}
